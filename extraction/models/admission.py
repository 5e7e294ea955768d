"""Refuse models that are not read right: of another kind, with too few rows, or that look ahead."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dynstat.errors import DynstatError

from .capture import HALF, body_of, probe_ids, states
from .encoding import Encoder

# Change of a state, relative to the largest of its layer, that rounding may cause and reading ahead exceeds.
_AHEAD, _AHEAD_HALF = 1e-4, 5e-2

# In the names of the configs that a multimodal model holds beside that of its text.
_SENSES = ("vision", "audio", "image", "speech")


def check_kind(config: Any, name: str) -> None:
    """Refuse the configs of models that read something else than one text.

    Raises
    ------
    DynstatError
        X225 for an encoder with a decoder, or a model of several kinds of input.
    """
    if getattr(config, "is_encoder_decoder", False):
        found, mend = "an encoder with a decoder", "choose a model that reads and writes one text"
    elif config.get_text_config() is not config or any(s in str(config.sub_configs) for s in _SENSES):
        found, mend = "a multimodal model", "take its text model out and save it by itself, if it has one"
    else:
        return
    raise _not_supported(name, config, found, mend)


def check_class(config: Any, name: str) -> None:
    """Refuse configs for which transformers has no causal model.

    Raises
    ------
    DynstatError
        X225.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    check_kind(config, name)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _not_supported(name, config, "not a causal language model", "choose one that continues text")


def _not_supported(name: str, config: Any, found: str, mend: str) -> DynstatError:
    return DynstatError(
        "X225",
        f"model {name!r} is not of a kind that is read",
        where=str(config.model_type),
        found=found,
        expected="a causal language model of text alone",
        mend=mend,
    )


def check_rows(encoder: Encoder, rows: int, name: str, where: str) -> None:
    """Refuse a tokenizer with entries that the model has no row for.

    Raises
    ------
    DynstatError
        X203.
    """
    if encoder.valid[-1] >= rows:
        raise DynstatError(
            "X203",
            f"the tokenizer does not fit model {name!r}",
            where=where,
            found=f"ids up to {encoder.valid[-1]}",
            expected=f"below {rows}, the rows of the embedding and of the head",
            mend="name the tokenizer the model was trained with",
        )


def check_causal(lm: Any, blocks: list[nn.Module], name: str) -> None:
    """Refuse a model whose states depend on later tokens: it would not write what it is read to write.

    Raises
    ------
    DynstatError
        X225.
    """
    ids = probe_ids(lm)
    other = ids.clone()
    other[:, -1] = ids[:, 0]
    one, two = (states(body_of(lm, blocks), blocks, i)[:, 0, :-1] for i in (ids, other))
    scale = one.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(one.dtype).tiny)
    change = float(((one - two).abs() / scale).max())
    if change > (_AHEAD_HALF if lm.dtype in HALF else _AHEAD):
        raise DynstatError(
            "X225",
            f"the states of model {name!r} depend on later tokens",
            where=type(lm).__name__,
            found=f"a change of {change:.1e} of the largest value, by another last token",
            expected="none",
            mend="of an encoder, load the causal form: `is_decoder: true` in its config",
        )
