"""Load a model in float32, from safetensors or GGUF only, and refuse what would be guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dynstat.errors import DynstatError

from .capture import blocks_of, body_of
from .discovery import trace
from .encoding import Encoder
from .memory import MemorySource, describe, evaluation, plain_encoder
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
        spec = self.source.spec
        return {
            **{k: v for k, v in identity.items() if k != "config_sha256"},
            "family": spec.family,
            "architecture": str(self.lm.config.model_type),
            "parameters": sum(p.numel() for p in self.lm.parameters()),
            "vocabulary": len(self.encoder.valid),
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
    device : {"cpu", "cuda"}, optional
        Where it is put.

    Returns
    -------
    Loaded
        In float32 and evaluation mode; the read-out is verified against the model itself.

    Raises
    ------
    DynstatError
        F003 (cannot be read), X203 (ids outside the embedding), X207 (read-out differs), X208 (weights
        missing).
    """
    lm = _from_files(source)
    _check_rows(lm, encoder, source.spec.id, str(source.tokenizer or ""))
    lm.to(device)
    blocks = blocks_of(lm)
    return Loaded(source, encoder, lm, body_of(lm, blocks), blocks, trace(lm, blocks, source.spec.id))


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
        X203 (ids outside the embedding), X207 (read-out differs).

    Notes
    -----
    Attention is computed as the model is set to, not by the implementation that :func:`load` chooses;
    the coordinate ``attn_implementation`` says which it was.
    """
    encoder = tokenizer if isinstance(tokenizer, Encoder) else plain_encoder(tokenizer)
    _check_rows(lm, encoder, id, "the tokenizer given")
    with evaluation(lm):
        blocks = blocks_of(lm)
        readout = trace(lm, blocks, id)
    return Loaded(describe(lm, encoder, id), encoder, lm, body_of(lm, blocks), blocks, readout)


def _check_rows(lm: Any, encoder: Encoder, name: str, where: str) -> None:
    """Refuse a tokenizer with entries that the model has no row for."""
    rows = lm.get_input_embeddings().weight.shape[0]
    head = lm.get_output_embeddings().weight.shape[0]
    largest = encoder.valid[-1]
    if largest >= min(rows, head):
        raise DynstatError(
            "X203",
            f"the tokenizer does not fit model {name!r}",
            where=where,
            found=f"ids up to {largest}",
            expected=f"below {min(rows, head)}, the rows of the embedding",
            mend="name the tokenizer the model was trained with",
        )


def _from_files(source: Source) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar a model would hide the bar of the run
    kind: dict[str, Any] = (
        {"gguf_file": source.weights[0].name} if source.is_gguf else {"use_safetensors": True}
    )
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(source.folder), dtype=getattr(torch, source.dtype), attn_implementation=ATTENTION,
            local_files_only=True, trust_remote_code=False, output_loading_info=True, **kind,
        )  # fmt: skip
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
    wrong = {str(p.dtype) for p in lm.parameters()} - {f"torch.{source.dtype}"}
    if wrong:
        found = ", ".join(wrong)
        raise DynstatError("F003", f"weights are {found}", where=source.spec.id, expected=source.dtype)
    return lm.eval().requires_grad_(False)
