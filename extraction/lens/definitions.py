"""Metrics that are measured by their definition, in NumPy: geometry, and the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynstat.errors import DynstatError

from ..models.device import to_numpy
from ..runs.reading import Runs
from .requests import Request

# Runs are measured so many bytes of states at a time; the definitions make float64 copies of them.
_BYTES = 4 << 20
_SOMEWHERE = ("frozen", "missing_input")


def from_states(runs: Runs, requests: Sequence[Request], finite: np.ndarray) -> dict[str, np.ndarray]:
    """Measure what is made of states, a layer at a time; at level ``token`` of all layers together.

    A definition gets ``states``, shape (row, token, width), or ``steps``, shape (row, token - 1, width), the
    differences of consecutive states, as float32, and returns shape (row, token); one of ``steps`` alone may
    leave the first token out. One of level ``token`` gets the same with the layers before it.

    Parameters
    ----------
    runs : Runs
        The states.
    requests : sequence of Request
        Those of states and steps.
    finite : ndarray of bool, shape (row, token, layer)
        Where the states are finite.

    Returns
    -------
    dict of str to ndarray of float32, shape (row, token, layer), or (row, token) at level ``token``

    Raises
    ------
    DynstatError
        X222.
    """
    rows, length = runs.ids.shape
    out = _of_tokens(runs, [r for r in requests if r.of_token], np.all(finite, axis=-1))
    requests = [r for r in requests if not r.of_token]
    out |= {r.name: np.full((rows, length, runs.layers), np.nan, np.float32) for r in requests}
    if not requests or not rows:
        return out
    inside = np.arange(length) < to_numpy(runs.lengths)[:, None]
    step = max(1, _BYTES // max(1, 4 * length * runs.own.shape[-1]))
    for layer in range(runs.layers):
        states = runs.layer(layer).float()
        for start in range(0, rows, step):
            part = slice(start, start + step)
            found = _of_rows(requests, to_numpy(states[part]), inside[part], finite[part, :, layer], layer)
            for name, value in found.items():
                out[name][part, :, layer] = value
    return out


def _of_tokens(runs: Runs, requests: Sequence[Request], finite: np.ndarray) -> dict[str, np.ndarray]:
    """Measure what takes the states of all layers together, as many rows at a time as fit."""
    rows, length = runs.ids.shape
    out = {r.name: np.full((rows, length), np.nan, np.float32) for r in requests}
    inside = np.arange(length) < to_numpy(runs.lengths)[:, None]
    step = max(1, _BYTES // max(1, 4 * runs.layers * length * runs.own.shape[-1]))
    for start in range(0, rows if requests else 0, step):
        part = slice(start, start + step)
        states = to_numpy(runs.rows(start, start + step).float())
        for name, value in _of_rows(requests, states, inside[part], finite[part], None).items():
            out[name][part] = value
    return out


def _of_rows(
    requests: Sequence[Request], h: np.ndarray, inside: np.ndarray, finite: np.ndarray, layer: int | None
) -> dict[str, np.ndarray]:
    """Measure states of shape (..., row, token, width); returns arrays of shape (row, token)."""
    given = {"states": h}
    if any("steps" in r.metric.inputs for r in requests):
        given["steps"] = np.diff(h, axis=-2)
    good = inside & finite
    out = {}
    for r in requests:
        value = _called(r, [given[i] for i in r.metric.inputs], layer)
        if set(r.metric.inputs) == {"steps"} and value.shape == (len(good), good.shape[1] - 1):
            value = np.concatenate([np.full((len(good), 1), np.nan, value.dtype), value], 1)
        value = _checked(r, value, good, layer, _excused(r, good, inside))
        out[r.name] = np.where(good, value, np.nan)
    return out


def take_out(r: Request, values: np.ndarray, inside: np.ndarray) -> None:
    """Take out values where a user's entry says that there are none, in place.

    A function of logits does not know its tokens, and one of states neither its layer nor where rows end.

    Parameters
    ----------
    r : Request
        The metric; others than a user's have no value there by themselves.
    values : ndarray, shape (row, token, layer), or (row, token) at level ``token``
        Become NaN.
    inside : ndarray of bool, shape (row, token)
        What is not padding.
    """
    for mark in r.metric.undefined if r.metric.origin == "user" else ():
        if mark.startswith("first_tokens:"):
            values[:, : _depth(mark)] = np.nan
        elif mark == "last_token":
            values[_ends(inside)] = np.nan
        elif mark == "last_layer":
            values[..., -1] = np.nan


def _depth(mark: str) -> int:
    return int(mark.partition(":")[2])


def _ends(inside: np.ndarray) -> np.ndarray:
    """Return the last token of each row."""
    out = inside.copy()
    out[:, :-1] &= ~inside[:, 1:]
    return out


def _excused(r: Request, good: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return where a function of states need not give a number: by its entry, or for want of a neighbour."""
    out = ~good
    for mark in r.metric.undefined:
        if mark.startswith("first_tokens:"):
            out[:, : _depth(mark)] = True
            for k in range(1, min(_depth(mark), good.shape[1] - 1) + 1):
                out[:, k:] |= ~good[:, :-k]
        elif mark == "last_token":
            out |= _ends(inside)
    return out


def from_logits(
    r: Request,
    layer: int | None,
    tensors: Mapping[str, Tensor],
    good: Mapping[str, Tensor],
    temperature: float,
) -> Tensor:
    """Measure what is made of logits and has no kernel, for some points at one layer, or of the last alone.

    Parameters
    ----------
    r : Request
        The metric.
    layer : int or None
        Index of the layer, None for a value of the token.
    tensors : mapping of str to Tensor
        ``logits``, ``next_logits`` and ``final_logits``, shape (point, valid token), ``next_token``, the
        column of the token that follows, shape (point,).
    good : mapping of str to Tensor of bool, shape (point,)
        Where each is finite, or there.
    temperature : float
        Divisor of the logits.

    Returns
    -------
    Tensor of float32, shape (point,)
        NaN where an input is not good.

    Raises
    ------
    DynstatError
        X222.
    """
    arguments = []
    there = np.ones(len(tensors["next_token"]), bool)
    for name in r.metric.inputs:
        tensor = tensors[name]
        if temperature != 1.0 and tensor.is_floating_point():
            tensor = tensor / temperature
        arguments.append(to_numpy(tensor))
        there &= to_numpy(good[name])
    value = _checked(r, _called(r, arguments, layer), there, layer)
    return torch.from_numpy(np.where(there, value, np.nan)).to(tensors["next_token"].device)


def _called(r: Request, arguments: Sequence[np.ndarray], layer: int | None) -> np.ndarray:
    function = r.metric.resolve()
    options: Mapping[str, Any] = r.options
    if r.metric.origin != "user":
        # Some options choose what is made of the stored values later.
        known = inspect.signature(function).parameters
        options = {k: v for k, v in options.items() if k in known}
        return np.asarray(function(*arguments, **options))
    views = [a.view() for a in arguments]
    for view in views:
        view.flags.writeable = False  # a function that changes what it is given would change what others get
    try:
        with np.errstate(all="ignore"):
            return np.asarray(function(*views, **options), dtype=np.float64)
    except Exception as e:
        raise _fails(r, layer, f"raised {type(e).__name__}: {e}", "values") from e


def _checked(
    r: Request, value: np.ndarray, good: np.ndarray, layer: int | None, lacking: np.ndarray | None = None
) -> np.ndarray:
    """Return a result as float32, or refuse it where it is the user's own and not what it should be.

    It may lack a number where it is not good, or where `lacking` says so.
    """
    if r.metric.origin != "user":
        return value.astype(np.float32)
    if value.shape != good.shape:
        raise _fails(r, layer, f"returned shape {value.shape}", f"shape {good.shape}")
    if lacking is not None:
        good = good & ~lacking
    bad = good & ~np.isfinite(value)
    if bad.any() and not set(_SOMEWHERE) & set(r.metric.undefined):
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        found = f"returned {value[at]} at {at}"
        raise _fails(r, layer, found, "a finite number, or `undefined` that says where there is none")
    low, high = r.metric.valid_min, r.metric.valid_max
    # As `verify` allows for rounding.
    below = value < low - 1e-6 * max(1.0, abs(low)) if np.isfinite(low) else np.zeros_like(good)
    above = value > high + 1e-6 * max(1.0, abs(high)) if np.isfinite(high) else np.zeros_like(good)
    if (bad := good & (below | above)).any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise _fails(r, layer, f"returned {value[at]} at {at}", f"{low:g} to {high:g}, as the entry says")
    return np.where(np.isfinite(value), value, np.nan).astype(np.float32)


def _fails(r: Request, layer: int | None, found: str, expected: str) -> DynstatError:
    return DynstatError(
        "X222",
        f"the function of the user's metric {r.metric.id!r} fails",
        where=r.metric.path + ("" if layer is None else f", layer {layer}"),
        found=found,
        expected=expected,
        mend="try the function on small random arrays of these shapes: docs/extraction.md names them",
    )
