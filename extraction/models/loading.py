"""Load a model from safetensors or GGUF only, or take one from memory, and refuse what would be guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dynstat.errors import DynstatError

from .admission import check_causal, check_class, check_kind, check_rows
from .capture import blocks_of, body_of, probe_ids
from .discovery import trace
from .encoding import Encoder, encoder_of
from .memory import MemorySource, describe, evaluation
from .readout import ReadOut, SlowReadOut
from .sources import Source

# One implementation for all, named in the data: others differ in rounding.
ATTENTION = "eager"


@dataclass(frozen=True)
class Loaded:
    """A model ready to be read.

    Attributes
    ----------
    source : Source or MemorySource
        Where it comes from.
    encoder : Encoder
        Its tokenizer.
    lm, body : Module
        The causal model, and the part of it without the head.
    blocks : list of Module
        Its layers, in order.
    readout : ReadOut or SlowReadOut
        From a state to logits, verified.
    """

    source: Source | MemorySource
    encoder: Encoder
    lm: Any
    body: nn.Module
    blocks: list[nn.Module]
    readout: ReadOut | SlowReadOut

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.lm.device

    @property
    def id(self) -> str:
        """The panel's name of the model."""
        return self.source.spec.id

    def card(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Give the model's coordinates, its hashes taken from `identity`."""
        spec, valid = self.source.spec, self.encoder.valid
        return {
            **{k: v for k, v in identity.items() if k != "config_sha256"},
            "family": spec.family,
            "architecture": str(self.lm.config.model_type),
            "parameters": sum(p.numel() for p in self.lm.parameters()),
            "vocabulary": len(valid),
            **({"largest_id": valid[-1]} if valid[-1] >= len(valid) else {}),
            "n_layers": len(self.blocks) + 1,
            "attn_implementation": str(self.lm.config._attn_implementation),
            "source": spec.location if spec.kind == "hub" else spec.kind,
            "factors": dict(spec.factors),
        }


def load(source: Source, encoder: Encoder, device: str = "cpu") -> Loaded:
    """Load a model for reading.

    Parameters
    ----------
    source : Source
        Its files.
    encoder : Encoder
        Its tokenizer.
    device : {"cpu", "cuda", "cuda:N"}, optional
        Where it is put.

    Returns
    -------
    Loaded
        In evaluation mode and the number format of the source; the read-out is verified.

    Raises
    ------
    DynstatError
        F003 (cannot be read), X203 (ids outside the embedding), X207 (read-out differs), X208 (weights
        missing), X214 (files that changed since they were found), X225 (not a causal model of text, or of a
        structure that is not read).

    Notes
    -----
    In half precision the forward pass is half and states are cast to float32 as they are taken; final
    norm and head are copied in float32, so that the lens adds no rounding of its own. The copy costs
    4 bytes a number: for a head of 152,000 rows of 896 numbers 0.54 GB. It is checked to 1e-5 of the
    spread of the logits against the model with these copies in the place of its own modules, and to 5e-2
    against the logits that the model gives by itself in half precision; see :func:`trace`.
    """
    lm = _from_files(source).to(device)
    source.check_unchanged()  # now, so that a change while they were read is seen, too
    return Loaded(source, encoder, lm, *_parts(lm, encoder, source.spec.id, str(source.tokenizer or "")))


def wrap(lm: Any, tokenizer: Any, id: str = "model") -> Loaded:
    """Take a model that is in memory already, on whatever device and in whatever number format.

    Parameters
    ----------
    lm : PreTrainedModel
        A causal model of transformers. It is not changed: hooks, gradients, training mode stay. Whoever
        reads it does so inside ``evaluation(lm)``, which switches dropout off and back.
    tokenizer : PreTrainedTokenizerBase or Encoder
        A tokenizer is used without start token; an encoder settles everything.
    id : str, optional
        Label on dim ``model``.

    Returns
    -------
    Loaded
        Its source has no files; ``source.identity()`` holds the SHA-256 of the tensors by name.

    Raises
    ------
    DynstatError
        X203 (ids outside the embedding), X207 (read-out differs), X225 (not a causal model of text, or
        of a structure that is not read).

    Notes
    -----
    Attention is computed as the model is set to, not by the implementation that :func:`load` chooses;
    the coordinate ``attn_implementation`` says which it was.
    """
    encoder = tokenizer if isinstance(tokenizer, Encoder) else encoder_of(tokenizer, "none", id)
    check_kind(lm.config, id)
    with evaluation(lm):
        parts = _parts(lm, encoder, id, "the tokenizer given")
    return Loaded(describe(lm, encoder, id), encoder, lm, *parts)


def _parts(
    lm: Any, encoder: Encoder, name: str, where: str
) -> tuple[nn.Module, list[nn.Module], ReadOut | SlowReadOut]:
    """Find body, layers and read-out of a model, and check that it is read right."""
    check_rows(encoder, lm.get_input_embeddings().weight.shape[0], name, where)
    blocks = blocks_of(lm)
    check_causal(lm, blocks, name)
    with torch.inference_mode():
        check_rows(encoder, lm(input_ids=probe_ids(lm), use_cache=False).logits.shape[-1], name, where)
    return body_of(lm, blocks), blocks, trace(lm, blocks, name)


def _from_files(source: Source) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar a model would hide the bar of the run
    kind: dict[str, Any] = (
        {"gguf_file": source.weights[0].name} if source.is_gguf else {"use_safetensors": True}
    )
    place: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        if not source.is_gguf:
            check_class(AutoConfig.from_pretrained(str(source.folder), **place), source.spec.id)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(source.folder), dtype=getattr(torch, source.dtype), attn_implementation=ATTENTION,
            output_loading_info=True, **place, **kind,
        )  # fmt: skip
    except DynstatError:
        raise
    except ImportError as e:
        raise DynstatError("X209", str(e).splitlines()[0], where=source.spec.id) from e
    except Exception as e:  # a damaged file fails in many ways below
        raise DynstatError(
            "F003",
            f"model {source.spec.id!r} cannot be loaded: {str(e).splitlines()[0] if str(e) else type(e)}",
            where=str(source.folder),
            mend="fetch its files again",
        ) from e
    lm, info = loaded
    missing = sorted(info["missing_keys"]) + sorted(str(k) for k in info["mismatched_keys"])
    if missing:
        raise DynstatError(
            "X208",
            f"{len(missing)} weights of model {source.spec.id!r} are missing",
            where=str(source.folder),
            found="no " + missing[0],
            expected="every weight in the files",
            problems=missing[1:],
            mend="save the whole model, head included",
        )
    # Of models of half precision, some keep a few sensitive weights in float32.
    wrong = {str(p.dtype) for p in lm.parameters()} - {f"torch.{source.dtype}", "torch.float32"}
    if wrong:
        found = ", ".join(wrong)
        raise DynstatError("F003", f"weights are {found}", where=source.spec.id, expected=source.dtype)
    return lm.eval().requires_grad_(False)
