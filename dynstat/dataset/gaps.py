"""Say where a variable can have no value: by the quality of points, and by what its definition leaves out."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from ..registry import METRICS
from .build import run_present, token_quality
from .schema import ALWAYS, DIMS, NONFINITE, NOT_EXTRACTED, OK, PADDING, RUN, TRUNCATED


def undefined_marks(variable: xr.DataArray) -> tuple[str, ...]:
    """Return where the definition of a variable has no value: by the registry, else by the attribute."""
    definition = str(variable.attrs.get("definition", ""))
    if variable.name in ALWAYS and definition == ALWAYS[str(variable.name)].definition:
        return ALWAYS[str(variable.name)].undefined
    if definition in METRICS:
        return METRICS.get(definition).undefined
    return tuple(str(variable.attrs.get("undefined", "")).split())


_EPS = 1e-6  # where a definition of the user's own does not say


class Gaps:
    """The gaps of one dataset.

    A definition that looks back K tokens (``first_tokens:K``) or to the layer above (``last_layer``) also
    lacks a value where one of those points is not ok.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds
        self._quality = ds["quality"].values
        self._token = token_quality(self._quality)
        last = ds["layers"].values - 1 if "layers" in ds.coords else np.full(ds.sizes["model"], -1)
        self._last = (ds["layer"].values[None, :] == last[:, None])[:, None, None, None, :]

    def ok(self, dims: tuple[object, ...]) -> np.ndarray:
        """Return where a variable over `dims` may have values at all."""
        if dims == DIMS:
            return np.asarray(self._quality == OK)
        return run_present(self._quality) if dims == RUN else self._token == OK

    def undefined(self, variable: xr.DataArray, marks: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return where the definition never has a value, and where it may lack one."""
        never = np.zeros(variable.shape, bool)
        maybe = np.zeros(variable.shape, bool)
        if variable.dims == RUN:
            # A summary of a run lacks a value by what the run holds, which only its definition can tell.
            return never, np.full(variable.shape, bool(marks))
        token_axis = 3
        bad = self._bad(variable.dims)
        for mark in marks:
            if mark.startswith("first_tokens:"):
                depth = int(mark.partition(":")[2])
                never[:, :, :, :depth] = True
                for k in range(1, depth + 1):
                    maybe |= _shifted(bad, k, token_axis)
            elif mark == "last_layer" and variable.dims == DIMS:
                never |= np.broadcast_to(self._last, never.shape)
                maybe |= self._layer_above(bad)
            elif mark == "last_token":
                never[:, :, :, -1:] = True
                maybe |= self._run_ends(variable.dims)
            elif mark == "frozen":
                maybe |= self._frozen(variable)
            elif mark == "missing_input":
                maybe |= self._missing_input(variable)
        if variable.dims == DIMS[:4] and variable.attrs.get("origin") == "user":
            # It may be made of all layers, and a token is ok where one of them is.
            maybe |= bad
        return never, maybe & ~never

    def _bad(self, dims: tuple[object, ...]) -> np.ndarray:
        if dims == DIMS:
            return np.asarray(self._quality != OK)
        lost = np.isin(self._quality, (NONFINITE, TRUNCATED)).any(-1)
        return lost | (self._token != OK)

    def _layer_above(self, bad: np.ndarray) -> np.ndarray:
        above = np.ones_like(bad)
        # Where the next layer is not in the dataset, nothing can be said of it.
        next_stored = np.diff(self._ds["layer"].values) == 1
        above[..., :-1] = bad[..., 1:] | ~next_stored
        return above

    def _run_ends(self, dims: tuple[object, ...]) -> np.ndarray:
        """Return where the next token of the run is not in the dataset."""
        gone = np.isin(self._token, (PADDING, TRUNCATED, NOT_EXTRACTED))
        ends = np.ones_like(gone)
        ends[..., :-1] = gone[..., 1:]
        return np.broadcast_to(ends[..., None], self._quality.shape) if dims == DIMS else ends

    def _frozen(self, variable: xr.DataArray) -> np.ndarray:
        if "step_length" not in self._ds or variable.dims != DIMS:
            return np.ones(variable.shape, bool)
        eps = float(json.loads(str(variable.attrs.get("options", "{}"))).get("eps", _EPS))
        step = self._ds["step_length"].values
        # float32 may have rounded the step across the threshold.
        small = ~(step > 2 * eps)
        return small | _shifted(small, 1, 3)

    def _missing_input(self, variable: xr.DataArray) -> np.ndarray:
        definition = str(variable.attrs.get("definition", ""))
        inputs = METRICS.get(definition).inputs if definition in METRICS else ()
        stored = [n for n in inputs if n in self._ds.data_vars and self._ds[n].dtype.kind == "f"]
        if not stored:
            return np.ones(variable.shape, bool)
        missing = np.zeros(variable.shape, bool)
        for name in stored:
            nan = np.isnan(self._ds[name].values)
            if nan.ndim > missing.ndim:
                nan = nan.any(tuple(range(missing.ndim, nan.ndim)))
            missing |= nan.reshape(nan.shape + (1,) * (missing.ndim - nan.ndim))
        return missing


def _shifted(mask: np.ndarray, k: int, axis: int) -> np.ndarray:
    """Return the mask of the points whose k-th predecessor along `axis` is in `mask`."""
    out = np.zeros_like(mask)
    to: list[slice] = [slice(None)] * mask.ndim
    of = list(to)
    to[axis], of[axis] = slice(k, None), slice(None, -k)
    out[tuple(to)] = mask[tuple(of)]
    return out
