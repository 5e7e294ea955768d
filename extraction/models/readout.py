"""From a hidden state to logits: the modules after the last block, or else the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from dynstat.errors import DynstatError

from .capture import state_of, with_state

# Rows of one forward pass of the slow read-out.
_ROWS = 2048


@dataclass(frozen=True)
class ReadOut:
    """Turn states into logits as the model does after its last block.

    Attributes
    ----------
    chain : tuple of Module
        What the model calls after its last block: final norm, projections, head; float32 copies where
        the model is of half precision.
    pre_head : float
        Divisor of the state before the head (1 in nearly all models).
    scale : float
        Factor of the logits.
    soft_cap : float or None
        c in c·tanh(x / c), applied last.
    skip_norm : bool
        Leave the norms of the chain out: the variant ``no_norm``.
    streams : tuple of int
        Shape of a state inside the model where it is not one row of numbers: several residual streams.
    error : float
        Largest difference from the model that the check at load found, over the spread of the logits.
    """

    chain: tuple[nn.Module, ...]
    pre_head: float = 1.0
    scale: float = 1.0
    soft_cap: float | None = None
    skip_norm: bool = False
    streams: tuple[int, ...] = ()
    error: float = field(default=0.0, compare=False)

    @property
    def linear(self) -> nn.Linear | None:
        """The head, where it is a plain matrix: it may then be computed by any kernel."""
        last = self.chain[-1]
        return last if type(last) is nn.Linear else None

    def features(self, state: Tensor) -> Tensor:
        """Return the input of the last module of the chain, shape (..., width of the head)."""
        # What joins several streams takes them in rows of tokens only.
        x = state.reshape(1, -1, *self.streams) if self.streams else state
        for module in self.chain[:-1]:
            if not (self.skip_norm and is_norm(module)):
                x = module(x)
        x = x.reshape(*state.shape[:-1], -1) if self.streams else x
        return x if self.pre_head == 1.0 else x / self.pre_head

    def finish(self, logits: Tensor) -> Tensor:
        """Scale and cap what the head gave; works in place where it can."""
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.soft_cap is not None:
            logits = logits.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return logits

    def __call__(self, state: Tensor) -> Tensor:
        """Return logits, shape (..., row of the head), of states of shape (..., width)."""
        return self.finish(self.chain[-1](self.features(state)))

    def without_norm(self) -> ReadOut:
        """Return the variant that leaves the final norm out."""
        return replace(self, skip_norm=True)

    def describe(self) -> str:
        """Name the steps, for provenance."""
        steps = [type(m).__name__ for m in self.chain if not (self.skip_norm and is_norm(m))]
        steps += [f"/ {self.pre_head:g} before the head"] * (self.pre_head != 1.0)
        steps += [f"x {self.scale:g}"] * (self.scale != 1.0)
        steps += [f"soft cap {self.soft_cap:g}"] if self.soft_cap is not None else []
        return " -> ".join(steps)


class SlowReadOut:
    """Turn states into logits by letting the model finish: right by construction, a forward pass a state.

    The last block is made to put out the state, whatever it was given, and the model goes on from there.
    Every state is a sequence of one token of its own, so nothing mixes them.

    Parameters
    ----------
    lm : Module
        Causal model; it computes in its own number format.
    blocks : list of Module
        Its layers.
    error : float, optional
        What the check at load found.
    """

    linear = None

    def __init__(self, lm: Any, blocks: list[nn.Module], error: float = 0.0) -> None:
        self.lm = lm
        self.blocks = blocks
        self.error = error

    def features(self, state: Tensor) -> Tensor:
        """Return the state as it is: no part of the way to the logits is known."""
        return state

    def finish(self, logits: Tensor) -> Tensor:
        """Return the logits as they are: the model has finished them."""
        return logits

    def __call__(self, state: Tensor) -> Tensor:
        """Return logits, shape (..., row of the head), of states of shape (..., width)."""
        flat = state.reshape(-1, 1, state.shape[-1])
        # A model cannot read nothing, so that an empty state goes in as one row of zeros and out as none.
        parts = (flat if len(flat) else flat.new_zeros((1, *flat.shape[1:]))).split(_ROWS)
        # Which token stands there does not matter: what the blocks make of it is replaced.
        ids = torch.ones((len(parts[0]), 1), dtype=torch.int64, device=self.lm.device)
        logits = [oracle(self.lm, self.blocks, ids[: len(p)], p).to(state.dtype) for p in parts]
        return torch.cat(logits)[: len(flat)].reshape(*state.shape[:-1], logits[0].shape[-1])

    def without_norm(self) -> ReadOut:
        """Refuse the variant without the final norm.

        Raises
        ------
        DynstatError
            X207, since no norm is known that could be left out.
        """
        raise DynstatError(
            "X207",
            f"{type(self.lm).__name__} cannot be read without its final norm",
            where="readout no_norm",
            found="a read-out that is not a chain of modules, so that the model itself is asked",
            expected="a final norm that can be left out",
            mend="leave `no_norm` out of `readouts:` for this model",
        )

    def describe(self) -> str:
        """Name the way, for provenance."""
        return f"{type(self.lm).__name__} itself, from its last block on (slow read-out)"


def is_norm(module: nn.Module) -> bool:
    """Say whether a module is a normalisation, by the name of its class."""
    return "norm" in type(module).__name__.lower()


def oracle(
    lm: Any, blocks: list[nn.Module], ids: Tensor, state: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Return what the model says when its last block puts out `state`: the definition of the lens.

    Parameters
    ----------
    lm : Module
        Causal model.
    blocks : list of Module
        Its layers.
    ids : Tensor, shape (row, token)
        Any ids of the right shape.
    state : Tensor, shape (row, token, width)
        State to be read.
    dtype : torch.dtype, optional
        Number format in which it is put out; the last block's own where none is given.

    Returns
    -------
    Tensor, shape (row, token, row of the head)
    """

    def replace_output(_: nn.Module, __: Any, output: Any) -> Any:
        return with_state(output, state.to(dtype or state_of(output).dtype))

    handle = blocks[-1].register_forward_hook(replace_output)
    try:
        with torch.inference_mode():
            return lm(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()


@contextmanager
def swapped(modules: tuple[nn.Module, ...], copies: tuple[nn.Module, ...]) -> Iterator[None]:
    """Let modules compute with the tensors of their copies for a while."""
    pairs = [
        p for a, b in zip(modules, copies, strict=True) for p in zip(a.modules(), b.modules(), strict=True)
    ]
    kept = [(own._parameters, own._buffers) for own, _ in pairs]
    try:
        for own, copy in pairs:
            own._parameters, own._buffers = copy._parameters, copy._buffers
        yield
    finally:
        for (own, _), (parameters, buffers) in zip(pairs, kept, strict=True):
            own._parameters, own._buffers = parameters, buffers


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Return the largest difference of two arrays of logits over the spread of the true ones.

    Values that are not finite must stand at the same places and are otherwise left out.
    """
    finite = truth.isfinite()
    if found.shape != truth.shape or not torch.equal(finite, found.isfinite()):
        return float("inf")
    if not finite.any():
        return 0.0
    spread = float(truth[finite].max() - truth[finite].min())
    return float((found - truth)[finite].abs().max()) / max(spread, torch.finfo(truth.dtype).tiny)
