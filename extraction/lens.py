"""Measure states: geometry by the definitions, distributions block by block through the lens.

Never more than two layers of one block of tokens are held as distributions, so memory grows with neither
the number of layers nor the number of tokens times the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynstat.registry import METRICS, Metric, parse_metric

from .device import to_numpy
from .engine import BLOCK_BYTES, GPU_BLOCK_BYTES, Engine
from .kernels import Reading
from .models import Loaded
from .reading import Runs
from .variants import Variant

# A matmul wants at least 32 rows.
_LEAST_ROWS = 32


@dataclass(frozen=True)
class Measured:
    """What was read at every point of some sequences of equal length.

    Attributes
    ----------
    values : mapping of str to ndarray of float32, shape (row, token, layer)
        By variable name; NaN where the definition has no value or something is not finite.
    top1_id : ndarray of int32, shape (row, token, layer)
        Most probable next token, -1 where logits are not finite.
    log_probability : ndarray of float32, shape (row, token)
        Of the token read given those before it, NaN at the first.
    finite : ndarray of bool, shape (row, token, layer)
        Whether every value of the point could be computed.
    """

    values: Mapping[str, np.ndarray]
    top1_id: np.ndarray
    log_probability: np.ndarray
    finite: np.ndarray


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
        As in :class:`Panel`.
    variants : sequence of Variant, optional
        Ways of reading, the plain one first.
    engine : Engine, optional
        How it is computed.

    Returns
    -------
    Measured
    """
    parsed = [parse_metric(m) for m in metrics]
    states = torch.stack([runs.layer(i) for i in range(runs.layers)])
    values: dict[str, np.ndarray] = {}
    for metric, options in parsed:
        if "states" in metric.inputs:
            values[metric.name] = _geometry(metric, options, states)
    wanted = [(m, o) for m, o in parsed if "logits" in m.inputs]
    plain = _read(model, model.readout, runs.ids, states, wanted)
    values |= plain.values
    for v in variants[1:]:
        readout = model.readout.without_norm() if v.skip_norm else model.readout
        variant = _read(model, readout, runs.ids, states, wanted)
        values |= {f"{name}__{v.name}": array for name, array in variant.values.items()}
    finite = plain.finite & np.isfinite(to_numpy(states.sum(-1, dtype=torch.float64).permute(1, 2, 0)))
    return Measured(values, plain.top1_id, plain.log_probability, _reach(finite))


def _reach(finite: np.ndarray) -> np.ndarray:
    """Take out the points whose values need a neighbour that is not finite."""
    out = finite.copy()
    out[:, 1:] &= finite[:, :-1]
    out[:, 2:] &= finite[:, :-2]
    out[:, :, :-1] &= finite[:, :, 1:]
    # A token has no log-probability where the distribution before it is not finite.
    out[:, 1:] &= finite[:, :-1, -1:]
    return out


def _geometry(metric: Metric, options: Mapping[str, Any], states: Tensor) -> np.ndarray:
    function = metric.resolve()
    known = inspect.signature(function).parameters
    layers = [
        function(to_numpy(states[i]), **{k: v for k, v in options.items() if k in known})
        for i in range(states.shape[0])
    ]
    return np.stack(layers, -1).astype(np.float32)


def _read(
    model: Loaded,
    readout: Callable[[Tensor], Tensor],
    ids: Tensor,
    states: Tensor,
    metrics: Sequence[tuple[Metric, Mapping[str, Any]]],
) -> Measured:
    n_layers, rows, length, width = states.shape
    n = rows * length
    flat = states.reshape(n_layers, n, width)
    following = torch.zeros_like(ids)
    following[:, :-1] = ids[:, 1:]
    device = states.device
    place = torch.zeros(model.encoder.valid[-1] + 1, dtype=torch.int64, device=device)
    valid = torch.tensor(model.encoder.valid, device=device)
    place[valid] = torch.arange(len(valid), device=device)
    target = place[following.reshape(-1)]
    out = {m.name: np.full((n, n_layers), np.nan, np.float32) for m, _ in metrics}
    top1 = np.full((n, n_layers), -1, np.int32)
    finite = np.zeros((n, n_layers), bool)
    spoken = np.full(n, np.nan)
    block_bytes = BLOCK_BYTES if device.type == "cpu" else GPU_BLOCK_BYTES
    step = max(_LEAST_ROWS, block_bytes // (4 * len(valid)))
    contiguous = model.encoder.valid[-1] + 1 == len(valid)
    with torch.inference_mode():
        for start in range(0, n, step):
            block = slice(start, min(start + step, n))
            before: Reading | None = None
            for layer in range(n_layers):
                logits = readout(flat[layer, block])
                reading = Reading(logits[:, : len(valid)] if contiguous else logits[:, valid])
                good = to_numpy(reading.finite)
                finite[block, layer] = good
                top1[block, layer] = np.where(good, to_numpy(valid[reading.top1_id]), -1)
                for metric, options in metrics:
                    if "next_logits" not in metric.inputs:
                        out[metric.name][block, layer] = np.where(
                            good, _apply(metric, options, reading), np.nan
                        )
                    elif before is not None:
                        both = good & finite[block, layer - 1]
                        value = _apply(metric, options, before, reading)
                        out[metric.name][block, layer - 1] = np.where(both, value, np.nan)
                before = reading
            assert before is not None
            spoken[block] = np.where(good, to_numpy(before.log_probability(target[block])), np.nan)
    log_probability = np.full((rows, length), np.nan, np.float32)
    log_probability[:, 1:] = np.minimum(spoken.reshape(rows, length)[:, :-1], 0.0)
    shape = (rows, length, n_layers)
    return Measured(
        {name: array.reshape(shape) for name, array in out.items()},
        top1.reshape(shape),
        log_probability,
        finite.reshape(shape),
    )


def _apply(metric: Metric, options: Mapping[str, Any], *readings: Reading) -> np.ndarray:
    kernel = METRICS.kernel(metric.id)
    if kernel is not None and options.get("kind", "jsd") == "jsd":
        return to_numpy(kernel(*readings, **options))
    # No kernel for it: the definition itself, in NumPy.
    return np.asarray(metric.resolve()(*(to_numpy(r.logits) for r in readings), **options))
