"""How the lens is computed in a store: matmul kernel, threads, size of a block; chosen once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Bytes of one buffer of logits on a CPU: about half of a last-level cache.
BLOCK_BYTES = 4 << 20
GPU_BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Engine:
    """What must be equal for results to be equal bit for bit.

    Attributes
    ----------
    kernel : {"linear", "onednn"}
        Matmul of the unembedding.
    threads : int
        Threads of torch.
    block_bytes : int
        Size of one buffer of logits.
    """

    kernel: str = "linear"
    threads: int = 1
    block_bytes: int = BLOCK_BYTES

    def as_dict(self) -> dict[str, Any]:
        """Give it as a plain mapping, for the store."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Engine:
        """Make it of the mapping that a store holds; TypeError where that names something else."""
        return cls(**value)

    def check(self, where: object, device: str = "cpu") -> None:
        """Raise X217 where this machine cannot compute so."""


def choose(threads: int, device: str) -> Engine:
    """Choose the engine of a new store by timing what this machine offers."""
    return Engine(threads=threads, block_bytes=BLOCK_BYTES if device == "cpu" else GPU_BLOCK_BYTES)
