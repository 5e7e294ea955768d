"""From a hidden state to logits: discovered by watching the model, then held against the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynstat.errors import DynstatError

from .capture import body_of, states, with_state

# Largest difference allowed, relative to the spread of the model's logits: rounding and no more.
TOLERANCE = 1e-5
_PROBE = 7


@dataclass(frozen=True)
class ReadOut:
    """Turn states into logits as the model does after its last block.

    Attributes
    ----------
    chain : tuple of Module
        What the model calls after its last block: final norm, projections, head.
    pre_head : float
        Divisor of the state before the head (1 in nearly all models).
    scale : float
        Factor of the logits.
    soft_cap : float or None
        c in c·tanh(x / c), applied last.
    skip_norm : bool
        Leave the norms of the chain out: the variant ``no_norm``.
    """

    chain: tuple[nn.Module, ...]
    pre_head: float = 1.0
    scale: float = 1.0
    soft_cap: float | None = None
    skip_norm: bool = False

    @property
    def linear(self) -> nn.Linear | None:
        """The head, where it is a plain matrix: it may then be computed by any kernel."""
        last = self.chain[-1]
        return last if type(last) is nn.Linear else None

    def features(self, state: Tensor) -> Tensor:
        """Return the input of the last module of the chain, shape (..., width of the head)."""
        x = state
        for module in self.chain[:-1]:
            if not (self.skip_norm and is_norm(module)):
                x = module(x)
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
        return ReadOut(self.chain, self.pre_head, self.scale, self.soft_cap, skip_norm=True)

    def describe(self) -> str:
        """Name the steps, for provenance."""
        steps = [type(m).__name__ for m in self.chain if not (self.skip_norm and is_norm(m))]
        steps += [f"/ {self.pre_head:g} before the head"] * (self.pre_head != 1.0)
        steps += [f"x {self.scale:g}"] * (self.scale != 1.0)
        steps += [f"soft cap {self.soft_cap:g}"] if self.soft_cap is not None else []
        return " -> ".join(steps)


def is_norm(module: nn.Module) -> bool:
    """Say whether a module is a normalisation, by the name of its class."""
    return "norm" in type(module).__name__.lower()


def trace(lm: Any, blocks: list[nn.Module], where: str = "") -> ReadOut:
    """Discover the read-out of a model and verify it.

    The modules called after the last block are recorded during one forward pass; scalar steps come from
    the config, in the reading that the model confirms. The result must give the model's own logits from
    the last state, and at the input of the first block and a middle layer what the model gives when its
    last block puts out that state instead.

    Raises
    ------
    DynstatError
        X207 where the read-out differs from the model.
    """
    rows = lm.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(_PROBE, device=lm.device)[None] * 37 + 11) % rows
    chain = _called_after(lm, blocks[-1], ids)
    captured = states(body_of(lm, blocks), blocks, ids)
    layers = sorted({0, len(blocks) // 2, len(blocks)})
    truths = [(layer, captured[layer], oracle(lm, blocks, ids, captured[layer])) for layer in layers]
    refusals = []
    for readout in _candidates(chain, lm.config.get_text_config()):
        refusal = _refusal(readout, truths, where)
        if refusal is None:
            return readout
        refusals.append(refusal)
    raise refusals[0]


def _candidates(chain: tuple[nn.Module, ...], config: Any) -> Iterator[ReadOut]:
    """Yield readings of the config's scalars, likeliest first: one name means different things in models."""
    cap = getattr(config, "final_logit_softcapping", None)
    base = getattr(config, "dim_model_base", None)
    if base:  # MiniCPM3
        yield ReadOut(chain, pre_head=config.hidden_size / base, soft_cap=cap)
    scaling = float(getattr(config, "logits_scaling", None) or 1.0)
    factor = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    # Granite divides by it, HyperCLOVA X multiplies, MiniCPM3 gives the divisor before the head this name.
    for scale in dict.fromkeys((factor / scaling, factor * scaling, factor, 1.0)):
        yield ReadOut(chain, scale=scale, soft_cap=cap)


def _refusal(
    readout: ReadOut, truths: Sequence[tuple[int, Tensor, Tensor]], where: str
) -> DynstatError | None:
    for layer, state, truth in truths:
        try:
            with torch.inference_mode():
                error = relative_error(readout(state), truth)
        except Exception as e:  # a chain that does not fit fails in any way
            return _differs(where, layer, f"{type(e).__name__}: {e}", readout)
        if not error <= TOLERANCE:
            return _differs(where, layer, f"{error:.1e} of the spread of the logits", readout)
    return None


def oracle(lm: Any, blocks: list[nn.Module], ids: Tensor, state: Tensor) -> Tensor:
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

    Returns
    -------
    Tensor, shape (row, token, row of the head)
    """

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        return with_state(output, state)

    handle = blocks[-1].register_forward_hook(replace)
    try:
        with torch.inference_mode():
            return lm(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()


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


def _differs(where: str, layer: int, found: str, readout: ReadOut) -> DynstatError:
    return DynstatError(
        "X207",
        f"the read-out of {where!r} differs from the model at layer {layer}",
        where=readout.describe(),
        found=found,
        expected=f"at most {TOLERANCE:g}",
        mend="this architecture is not supported",
    )


def _called_after(lm: Any, last: nn.Module, ids: Tensor) -> tuple[nn.Module, ...]:
    """List the outermost modules that one forward pass calls after `last` is done."""
    chain: list[nn.Module] = []
    now: dict[str, Any] = {"after": False, "inside": None}

    def enter(module: nn.Module, _: Any) -> None:
        if now["after"] and now["inside"] is None:
            now["inside"] = module
            chain.append(module)

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        if module is last:
            now["after"] = True
        elif module is now["inside"]:
            now["inside"] = None

    handles = []
    for module in lm.modules():
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.inference_mode():
            lm(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    # Dropout is called too and does nothing in evaluation mode.
    return tuple(m for m in chain if not isinstance(m, (nn.Dropout, nn.Identity)))
