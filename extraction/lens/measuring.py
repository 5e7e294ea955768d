"""Measure states: geometry by the definitions, distributions block by block through the lens.

The points of a batch are read in blocks, the last layer first, since others are compared with it, then each
layer down. Of a block no more is held than the logits of one layer, those of the last layer where something
is compared with it, and what else a metric compares with: memory grows with neither the number of layers nor
the number of tokens times the vocabulary. Statistics go through smaller pieces, which stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.device import to_numpy
from ..models.loading import Loaded
from ..runs.reading import Runs
from .definitions import from_states, take_out
from .distributions import Buffers
from .engine import Engine
from .matmul import multiplier
from .points import Points
from .requests import Request, requests
from .sweep import Sweep
from .variants import Variant


@dataclass(frozen=True)
class Measured:
    """What was read at every point of some sequences.

    Attributes
    ----------
    values : mapping of str to ndarray of float32, shape (row, token, layer), (row, token) at level ``token``
        By variable name; NaN where the definition has no value, something is not finite, or padding lies.
    top1_id : ndarray of int32, shape (row, token, layer)
        Most probable next token, -1 where logits are not finite, and at padding.
    log_probability : ndarray of float32, shape (row, token)
        Of the token read given those before it, NaN at the first.
    finite : ndarray of bool, shape (row, token, layer)
        Whether every value of the point could be computed; true at padding.
    broken : ndarray of bool, shape (row, token, layer)
        Where the state or the logits of the point itself are not finite; others lack a value for these.
    """

    values: Mapping[str, np.ndarray]
    top1_id: np.ndarray
    log_probability: np.ndarray
    finite: np.ndarray
    broken: np.ndarray


def measure(
    model: Loaded,
    runs: Runs,
    metrics: Sequence[Mapping[str, Any]],
    variants: Sequence[Variant] = (Variant(),),
    engine: Engine = Engine(),  # noqa: B008
) -> Measured:
    """Compute the metrics of a panel from states.

    Parameters
    ----------
    model : Loaded
        Its read-out is used.
    runs : Runs
        The tokens read and their states, on the device of the model.
    metrics : sequence of mapping
        As in :class:`Panel`; ``as`` names the variable where it is not the metric's own name.
    variants : sequence of Variant, optional
        Ways of reading, the plain one first.
    engine : Engine, optional
        How it is computed.

    Returns
    -------
    Measured
        A metric that is not defined for a variant is left out of it: see :func:`requests.offered`.

    Raises
    ------
    DynstatError
        X222 where a metric of the user's own fails.
    """
    wanted = [requests(metrics, v) for v in variants]
    with torch.inference_mode():
        points = Points(runs)
        found = _read(model, runs, points, variants, wanted, engine)
    shape = (*runs.ids.shape, runs.layers)
    finite = points.spread(to_numpy(found.finite).T, True)
    values = {name: points.spread(to_numpy(array).T, np.nan) for name, array in found.values.items()}
    values |= from_states(runs, [r for r in wanted[0] if r.of_states], finite)
    inside = np.arange(shape[1]) < to_numpy(runs.lengths)[:, None]
    for r in (r for part in wanted for r in part):
        if r.of_token and not r.of_states:
            values[r.name] = values[r.name][..., 0]
        take_out(r, values[r.name], inside)
    top1 = points.spread(to_numpy(found.top1).T, -1)
    spoken = points.spread(to_numpy(found.log_probability), np.nan)
    log_probability = np.full(shape[:2], np.nan, np.float32)
    log_probability[:, 1:] = spoken[:, :-1]
    compared = any("final_logits" in r.metric.inputs and not r.of_token for part in wanted for r in part)
    return Measured(values, top1, log_probability, _reach(finite, compared), ~finite)


def _reach(finite: np.ndarray, compared: bool) -> np.ndarray:
    """Take out the points whose values need a neighbour that is not finite."""
    out = finite.copy()
    out[:, 1:] &= finite[:, :-1]
    out[:, 2:] &= finite[:, :-2]
    out[:, :, :-1] &= finite[:, :, 1:]
    # A token has no log-probability where the distribution before it is not finite.
    out[:, 1:] &= finite[:, :-1, -1:]
    if compared:
        out &= finite[:, :, -1:]
    return out


@dataclass
class _Found:
    """Results by point, on the device."""

    values: dict[str, Tensor]
    top1: Tensor
    log_probability: Tensor
    finite: Tensor


def _read(
    model: Loaded,
    runs: Runs,
    points: Points,
    variants: Sequence[Variant],
    wanted: Sequence[Sequence[Request]],
    engine: Engine,
) -> _Found:
    n, layers, device = points.n, runs.layers, runs.own.device
    columns = Columns(model, device)
    found = _Found(
        {
            r.name: torch.full((1 if r.of_token else layers, n), torch.nan, device=device)
            for part in wanted
            for r in part
            if not r.of_states
        },
        torch.full((layers, n), -1, dtype=torch.int32, device=device),
        torch.full((n,), torch.nan, device=device),
        torch.zeros((layers, n), dtype=torch.bool, device=device),
    )
    next_token, followed = points.following()
    target = columns.place(next_token)
    # Where the vocabulary is small states are what takes memory.
    step = engine.rows(max(columns.rows, runs.own.shape[-1]))
    groups = _groups(variants)
    ways = [lens_of(model, variants[members[0]], columns, engine) for members in groups]
    buffers = Buffers()
    for start, stop in points.blocks(step):
        for members, way in zip(groups, ways, strict=True):
            sweep = Sweep(
                [(variants[i], [r for r in wanted[i] if not r.of_states]) for i in members],
                target[start:stop],
                followed[start:stop],
                layers,
                buffers,
            )
            # Short texts: several layers go through one matmul, which is faster the more rows it has.
            together = max(1, round(step / (stop - start)))
            for top in range(layers, 0, -together):
                some = range(top - 1, max(top - together, 0) - 1, -1)
                logits, finish = way([(i, points.states(i, start, stop)) for i in some])
                for i, part in zip(some, logits.split(stop - start), strict=True):
                    sweep.read(i, part, finish)
                del logits, part
            sweep.write(found.values, start, stop)
            if 0 in members:
                plain = sweep.plain
                found.finite[:, start:stop] = plain.finite
                found.top1[:, start:stop] = columns.ids(plain.top1, plain.finite)
                found.log_probability[start:stop] = plain.spoken
    for start, stop in points.blocks(4096):
        for layer in range(layers):
            state = points.states(layer, start, stop)
            found.finite[layer, start:stop] &= state.sum(-1, dtype=torch.float64).isfinite()
    return found


def _groups(variants: Sequence[Variant]) -> list[list[int]]:
    """Put together the variants that have the same logits but for a factor."""
    groups: dict[tuple[bool, int], list[int]] = {}
    for i, v in enumerate(variants):
        groups.setdefault((v.skip_norm, id(v.translate)), []).append(i)
    return list(groups.values())


class Columns:
    """The valid tokens among the rows of the head.

    Parameters
    ----------
    model : Loaded
        Its encoder says which ids are tokens.
    device : torch.device
        Where indices are held.
    """

    def __init__(self, model: Loaded, device: torch.device) -> None:
        valid = model.encoder.valid
        self.size = len(valid)
        #: Rows of the head down to the last valid token.
        self.rows = valid[-1] + 1
        #: Whether the valid tokens are the first rows, so that the others need not be computed.
        self.contiguous = self.rows == len(valid)
        self._valid = torch.tensor(valid, device=device)
        self._place = torch.zeros(self.rows, dtype=torch.int64, device=device)
        self._place[self._valid] = torch.arange(len(valid), device=device)

    def place(self, ids: Tensor) -> Tensor:
        """Return the column of ids."""
        return self._place[ids]

    def ids(self, columns: Tensor, there: Tensor) -> Tensor:
        """Return the id of columns, -1 where `there` is false, int32."""
        return torch.where(there, self._valid[columns].to(torch.int32), -1)

    def select(self, logits: Tensor) -> Tensor:
        """Return the columns of valid tokens of logits over all rows of the head."""
        if not self.contiguous:
            return logits[:, self._valid]
        return logits if logits.shape[-1] == self.size else logits[:, : self.size]


def lens_of(
    model: Loaded, variant: Variant, columns: Columns, engine: Engine
) -> Callable[[Sequence[tuple[int, Tensor]]], tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Return the way from states to logits of a variant.

    Returns
    -------
    callable
        ``[(layer, states of shape (n, width)), ...] -> logits of shape (all n, valid tokens), finish``;
        `finish` does in place, to a part of the rows, what the model does to its logits in the end.
    """
    readout = model.readout.without_norm() if variant.skip_norm else model.readout
    head = readout.linear
    if head is None:
        weight = bias = None
    else:
        weight = head.weight[: columns.rows].float()
        bias = None if head.bias is None else head.bias[: columns.rows].float()
    product = multiplier(engine.kernel)

    def nothing(logits: Tensor) -> Tensor:
        return logits

    def multiply(layers: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        parts = []
        for layer, state in layers:
            x = state.float()  # the read-out is float32 whatever the model computes in
            parts.append(x if variant.translate is None else variant.translate(layer, x))
        states = parts[0] if len(parts) == 1 else torch.cat(parts)
        if weight is None:
            return columns.select(readout(states).float()), nothing
        return columns.select(product(readout.features(states).float(), weight, bias)), readout.finish

    return multiply
