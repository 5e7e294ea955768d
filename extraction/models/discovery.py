"""Find out how a model turns its last state into logits, and hold what was found against the model itself."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dynstat.errors import DynstatError, DynstatWarning

from .capture import HALF, body_of, probe_ids, state_of, states
from .readout import ReadOut, SlowReadOut, oracle, relative_error, swapped

# Largest difference allowed, relative to the spread of the model's logits: rounding and no more.
TOLERANCE = 1e-5
# The same between a float32 read-out and a model that rounds its logits to 8 or 11 bits.
HALF_TOLERANCE = 5e-2

# What configs call the scalars between a state and the logits. One name means different things in
# different models, so every reading of it is tried and the model decides.
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")
_DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")


class Truth(NamedTuple):
    """What the model says of the states of one layer."""

    layer: int
    state: Tensor
    logits: Tensor


def trace(lm: Any, blocks: list[nn.Module], where: str = "") -> ReadOut | SlowReadOut:
    """Discover the read-out of a model and verify it.

    The modules called after the last block are recorded during one forward pass; scalar steps come from
    the config, in the reading that the model confirms. The result must give what the model gives when
    its last block puts out the state at the input of the first block, of a middle layer and of the last
    layer, and from the last state the model's own logits.

    In a model of half precision the chain is copied in float32, and the model is asked with these copies
    in the place of its own modules, so that the scalars and the order of steps are checked to the same
    tolerance; against the logits that it computes by itself in half precision they are held loosely
    (:data:`HALF_TOLERANCE`).

    Where no chain passes, the model itself becomes the read-out, which is said in a warning, and it is
    held against the same truths, the states shuffled: what depends on anything but the state is refused.

    Parameters
    ----------
    lm : Module
        Causal model in evaluation mode.
    blocks : list of Module
        Its layers.
    where : str, optional
        Name of the model, for messages.

    Returns
    -------
    ReadOut or SlowReadOut

    Raises
    ------
    DynstatError
        X207 where neither the chain nor the model from its last block on gives the model's logits.

    Warns
    -----
    DynstatWarning
        Where the read-out is the model itself.
    """
    ids = probe_ids(lm)
    called, streams = _called_after(lm, blocks[-1], ids)
    half = lm.dtype in HALF
    chain = tuple(copy.deepcopy(m).float() for m in called) if half else called
    captured = states(body_of(lm, blocks), blocks, ids)
    with torch.inference_mode():
        own = lm(input_ids=ids, use_cache=False).logits.float()
    layers = sorted({0, len(blocks) // 2, len(blocks)})
    refusal: DynstatError
    try:
        with swapped(called, chain):
            dtype = torch.float32 if half else None
            truths = [Truth(i, captured[i], oracle(lm, blocks, ids, captured[i], dtype)) for i in layers]
        found, refusal = _chain(chain, streams, lm.config.get_text_config(), truths, where)
        if found is not None:
            loose = _refusal(found, [Truth(layers[-1], captured[-1], own)], where, _allowed(half))
            if isinstance(loose, float):
                return found
            refusal = loose
    except (RuntimeError, TypeError, AttributeError) as e:
        refusal = _differs(where, layers[-1], f"{type(e).__name__}: {_first_line(e)}", ReadOut(chain))
    return _slow(lm, blocks, ids, captured, own, refusal, where)


def _allowed(half: bool) -> float:
    return HALF_TOLERANCE if half else TOLERANCE


def _chain(
    called: tuple[nn.Module, ...],
    streams: tuple[int, ...],
    config: Any,
    truths: Sequence[Truth],
    where: str,
) -> tuple[ReadOut | None, DynstatError]:
    """Return the first reading that the model confirms, or why the likeliest one is refused."""
    refusals = []
    for readout in _candidates(called, config, truths[-1].logits.shape[-1]):
        readout = replace(readout, streams=streams)
        refusal = _refusal(readout, truths, where, TOLERANCE)
        if isinstance(refusal, float):
            return replace(readout, error=refusal), _differs(where, 0, "", readout)
        refusals.append(refusal)
    return None, refusals[0]


def _candidates(called: tuple[nn.Module, ...], config: Any, rows: int) -> Iterator[ReadOut]:
    """Yield readings of modules and scalars, likeliest first."""

    def numbers(names: Sequence[str]) -> list[float]:
        values = [getattr(config, name, None) for name in names]
        return [float(v) for v in values if isinstance(v, (int, float)) and v and not isinstance(v, bool)]

    base = getattr(config, "dim_model_base", None)  # MiniCPM3: the width at which its scalars were found
    divisors = ([config.hidden_size / base] if base else []) + [1.0, *numbers(_DIVISORS)]
    factors = numbers(_SCALES)
    scales = [1.0, *(1 / f for f in factors), *factors]
    if len(factors) > 1:
        scales += [a * b for a, b in itertools.permutations([f for x in factors for f in (x, 1 / x)], 2)]
    caps: list[float | None] = [*numbers(_CAPS), None]
    # Something beside the way to the logits, such as a pooler, may be called before the norm.
    for start in range(len(called)):
        chain = _cut(called[start:], rows)
        for divisor, scale, cap in itertools.product(*(dict.fromkeys(x) for x in (divisors, scales, caps))):
            yield ReadOut(chain, divisor, scale, cap)


def _cut(chain: tuple[nn.Module, ...], rows: int) -> tuple[nn.Module, ...]:
    """Leave out the last rows of a head that the model leaves out, without a copy."""
    head = chain[-1]
    if type(head) is not nn.Linear or head.out_features <= rows:
        return chain
    cut = nn.Linear(head.in_features, rows, bias=head.bias is not None, device="meta")
    cut.weight = nn.Parameter(head.weight.detach()[:rows], requires_grad=False)
    if head.bias is not None:
        cut.bias = nn.Parameter(head.bias.detach()[:rows], requires_grad=False)
    return (*chain[:-1], cut)


def _refusal(
    readout: ReadOut | SlowReadOut, truths: Sequence[Truth], where: str, tolerance: float
) -> DynstatError | float:
    """Return the largest difference from the truths, or the error where it is too large."""
    worst = 0.0
    for layer, state, truth in reversed(truths):
        try:
            with torch.inference_mode():
                # As rows of points, which is how the lens gives them.
                error = relative_error(readout(state[0]).to(truth.dtype), truth[0])
        except Exception as e:  # a chain that does not fit fails in any way
            return _differs(where, layer, f"{type(e).__name__}: {_first_line(e)}", readout)
        if not error <= tolerance:
            return _differs(where, layer, f"{error:.1e} of the spread of the logits", readout)
        worst = max(worst, error)
    return worst


def _slow(
    lm: Any,
    blocks: list[nn.Module],
    ids: Tensor,
    captured: Tensor,
    own: Tensor,
    refusal: DynstatError,
    where: str,
) -> SlowReadOut:
    """Return the model itself as read-out, verified, and say so."""
    readout = SlowReadOut(lm, blocks)
    order = torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0)).to(ids.device)
    truths = [Truth(len(blocks), captured[-1][:, order], own[:, order])]
    try:
        for layer in sorted({0, len(blocks) // 2}):
            logits = oracle(lm, blocks, ids, captured[layer]).float()
            truths.insert(-1, Truth(layer, captured[layer][:, order], logits[:, order]))
    except (RuntimeError, TypeError, AttributeError):
        raise refusal from None
    second = _refusal(readout, truths, where, TOLERANCE)
    if not isinstance(second, float):
        raise DynstatError(
            "X207",
            f"{refusal.what}, and the logits depend on more than the last state",
            where=refusal.where,
            found=f"{refusal.found}; with the model from its last block on as read-out {second.found}",
            expected=refusal.expected,
            mend=refusal.mend,
        )
    warnings.warn(
        f"the read-out of {where!r} is the model itself from its last block on, at the price of a forward "
        f"pass for every layer: the modules called there ({refusal.where}) give other logits "
        f"({refusal.found})",
        DynstatWarning,
        stacklevel=3,
    )
    readout.error = second
    return readout


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]


def _differs(where: str, layer: int, found: str, readout: ReadOut | SlowReadOut) -> DynstatError:
    return DynstatError(
        "X207",
        f"the read-out of {where!r} differs from the model at layer {layer}",
        where=readout.describe(),
        found=found,
        expected=f"at most {TOLERANCE:g}",
        mend="this architecture is not supported; docs/architectures.md names those that are",
    )


def _called_after(lm: Any, last: nn.Module, ids: Tensor) -> tuple[tuple[nn.Module, ...], tuple[int, ...]]:
    """List the outermost modules called after `last` is done in one forward pass; give its shape."""
    chain: list[nn.Module] = []
    now: dict[str, Any] = {"after": False, "inside": None, "shape": ()}

    def enter(module: nn.Module, _: Any) -> None:
        if now["after"] and now["inside"] is None:
            now["inside"] = module
            chain.append(module)

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        if module is last:
            now["after"], now["shape"] = True, tuple(state_of(output).shape[2:])
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
    called = tuple(m for m in chain if not isinstance(m, (nn.Dropout, nn.Identity)))
    return called, now["shape"] if len(now["shape"]) > 1 else ()
