"""How the lens is computed in a store: matmul kernel, threads, size of a block; chosen once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dynstat.errors import DynstatError

from .matmul import KERNELS, multiplier, usable

# Bytes of one buffer of logits. A matmul of 128 rows takes a seventh less time a row than one of 64 (measured
# at a vocabulary of 50,000); from 32 MiB on the C library gives memory back and fetches it anew every time.
BLOCK_BYTES = 28 << 20
GPU_BLOCK_BYTES = 256 << 20
# A matmul wants so many rows however large the vocabulary is; with 48, torch's own kernel is half as fast.
LEAST_ROWS = {"linear": 128, "onednn": 32}

# What is timed: 64 tokens of a small model, a third of its vocabulary.
_SHAPE = (64, 576, 16_384)
_REPEATS = 3


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
        Size of one buffer of logits, unless a matmul wants more rows.
    """

    kernel: str = "linear"
    threads: int = 1
    block_bytes: int = BLOCK_BYTES

    def as_dict(self) -> dict[str, Any]:
        """Give it as a plain mapping, for the store."""
        return dict(vars(self))

    def rows(self, columns: int) -> int:
        """Return the rows of one block of logits of so many columns."""
        return max(LEAST_ROWS[self.kernel], self.block_bytes // (4 * columns))

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Engine:
        """Return the engine that :meth:`as_dict` gave.

        Raises
        ------
        ValueError
            Where a key is missing or strange, or a value is none that an engine has.
        """
        if set(mapping) != set(cls().as_dict()):
            raise ValueError(f"an engine has {', '.join(cls().as_dict())}, not {', '.join(mapping)}")
        kernel, numbers = mapping["kernel"], (mapping["threads"], mapping["block_bytes"])
        if kernel not in KERNELS:
            raise ValueError(f"no kernel is called {kernel!r}")
        if any(type(n) is not int or n < 1 for n in numbers):
            raise ValueError("threads and block_bytes are whole numbers above 0")
        return cls(kernel, *numbers)

    def check(self, where: str | Path, device: str = "cpu") -> None:
        """Refuse an engine that this machine does not have: its numbers would be other ones.

        Parameters
        ----------
        where : str or Path
            The store.
        device : {"cpu", "cuda"}, optional
            Where the panel is computed.

        Raises
        ------
        DynstatError
            X217.
        """
        if usable(self.kernel, device):
            return
        raise DynstatError(
            "X217",
            f"the store was begun with the matmul kernel {self.kernel!r}, which this machine does not have",
            where=str(where),
            found=f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, device {device}",
            expected=f"a machine whose torch has {self.kernel!r}",
            mend="go on where the store was begun, or begin another store here: the last digits differ",
        )


def choose(threads: int, device: str = "cpu") -> Engine:
    """Choose the engine of a new store by timing what this machine offers, about 50 ms.

    Parameters
    ----------
    threads : int
        Threads of torch.
    device : {"cpu", "cuda"}, optional
        Where the panel is computed; a GPU has one kernel.

    Returns
    -------
    Engine
    """
    if device != "cpu":
        return Engine("linear", threads, GPU_BLOCK_BYTES)
    candidates = [kernel for kernel in KERNELS if usable(kernel)]
    if len(candidates) == 1:
        return Engine(candidates[0], threads, BLOCK_BYTES)
    seconds = _times(candidates, threads)
    return Engine(min(seconds, key=lambda kernel: seconds[kernel]), threads, BLOCK_BYTES)


def _times(kernels: list[str], threads: int) -> dict[str, float]:
    rows, width, vocabulary = _SHAPE
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator)
    # Values do not matter to the time; drawing all of them would take longer than the matmul.
    weight = torch.randn(64, width, generator=generator).repeat(vocabulary // 64, 1)
    before = torch.get_num_threads()
    best = dict.fromkeys(kernels, float("inf"))
    try:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for _ in range(_REPEATS):  # in turn, so that another process disturbs them alike
                for kernel in kernels:
                    started = time.perf_counter()
                    multiplier(kernel)(x, weight, None)
                    best[kernel] = min(best[kernel], time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return best
