"""A model object that is in memory already: who it is by its values, and what it must look like again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynstat.files import canonical_hash, sha256_bytes

from ..panels.panel import ModelSpec
from .encoding import Encoder


@dataclass(frozen=True)
class MemorySource:
    """What takes the place of the files of a model that has none.

    Attributes
    ----------
    spec : ModelSpec
        Of kind "memory".
    hashes : tuple of str
        SHA-256 of the weights, of the config and of the tokenizer.
    dtype : str
        Number format of the weights.
    """

    spec: ModelSpec
    hashes: tuple[str, str, str]
    dtype: str
    folder: Path = Path()
    weights: tuple[Path, ...] = ()
    tokenizer: Path | None = None
    revision: str = "memory"
    is_gguf: bool = False

    def identity(self) -> dict[str, Any]:
        """Give the hashes that say which model this is."""
        weights, config, tokenizer = self.hashes
        return {
            "id": self.spec.id,
            "revision": self.revision,
            "weights_sha256": weights,
            "config_sha256": config,
            "tokenizer_sha256": tokenizer,
            "dtype": self.dtype,
        }

    def weights_sha256(self) -> str:
        """Return the hash of the weights."""
        return self.hashes[0]

    def tokenizer_sha256(self) -> str:
        """Return the hash of the tokenizer."""
        return self.hashes[2]


def describe(lm: Any, encoder: Encoder, name: str) -> MemorySource:
    """Hash a model in memory: its tensors by name, its config, its tokenizer."""
    config = {k: v for k, v in lm.config.to_dict().items() if not k.startswith("_")}
    # Neither where the object came from nor who made it is the model.
    for key in ("transformers_version", "name_or_path", "dtype", "torch_dtype"):
        config.pop(key, None)
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    tokenizer = backend.to_str() if backend is not None else repr(sorted(encoder.valid))
    spec = ModelSpec(name, "memory", "", "memory", family=str(lm.config.model_type))
    hashes = (fingerprint(lm), canonical_hash(_plain(config)), sha256_bytes(tokenizer.encode()))
    return MemorySource(spec, hashes, str(lm.dtype).removeprefix("torch."))


def fingerprint(lm: torch.nn.Module) -> str:
    """Return the SHA-256 of a model's weights: names, formats, shapes and values of its tensors.

    The same on every device. A tensor that has several names is read once.
    """
    done: dict[tuple[Any, ...], str] = {}
    lines = []
    for name, tensor in sorted(lm.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if place not in done or not tensor.numel():
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            done[place] = hashlib.sha256(data.numpy()).hexdigest()  # type: ignore[arg-type]
        dtype = str(tensor.dtype).removeprefix("torch.")
        lines.append(f"{done[place]}  {dtype} {list(tensor.shape)} {name}\n")
    return sha256_bytes("".join(lines).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    # JSON has no infinity, which some configs hold as a bound.
    plain = (
        value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and isfinite(value))
    )
    return value if plain else str(value)


@contextmanager
def evaluation(lm: torch.nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode, and leave it as it was.

    Training flags of all modules are put back, and so are buffers that a forward pass replaced, such as
    the frequencies of a rotary code that adapts to the length.
    """
    modes = [(m, m.training) for m in lm.modules()]
    buffers = [(m, dict(m._buffers)) for m, _ in modes]
    lm.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, kept in buffers:
            module._buffers.update(kept)
