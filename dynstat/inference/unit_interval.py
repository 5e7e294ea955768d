"""The one way from replicates of a unit bootstrap to an interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DynstatError
from .estimate import AdjustedDrawsPivot, Estimate


def unit_interval(
    key: str,
    value: float,
    draws: ArrayLike,
    *,
    jackknife: ArrayLike | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    level: float = 0.95,
    method: str,
    unit: str,
    n: Mapping[str, int],
    seed: int | None = None,
    target: Literal["panel", "population", "sample"] = "panel",
    diagnostics: Mapping[str, Any] | None = None,
    null: Mapping[str, Any] | None = None,
) -> Estimate:
    """Turn replicates of a bootstrap of units into an estimate with its interval.

    Parameters
    ----------
    key : str
    value : float
        The estimate on all units.
    draws : array_like, shape (B,)
        Replicates. Those that are not finite are left out and counted in the diagnostics as ``undefined``.
    jackknife : array_like, shape (units,), optional
        The estimate without one unit at a time.
    bounds : tuple of float
        Range of the quantity.
    level : float
    method, unit : str
    n : mapping
        Counts at every level; ``units`` is that of the units drawn.
    seed : int, optional
    target : {"panel", "population", "sample"}
    diagnostics, null : mapping, optional

    Returns
    -------
    Estimate
        NaN limits and no pivot where the value or more than half the draws are not finite.

    Raises
    ------
    DynstatError
        S404 without ``units`` in `n`; S403 for fewer than two units.
    """
    units = int(n.get("units", -1))
    if units < 0:
        raise DynstatError("S404", "the number of units is not said", expected="n = {'units': ...}")
    if units < 2:
        raise DynstatError(
            "S403", "one unit cannot be resampled", where=unit, found=units, expected="at least 2"
        )
    every = np.asarray(draws, dtype=np.float64).ravel()
    finite = every[np.isfinite(every)]
    notes = {"replicates": int(every.size), "undefined": int(every.size - finite.size)} | dict(
        diagnostics or {}
    )
    rest: dict[str, Any] = {
        "method": method,
        "unit": unit,
        "n": dict(n),
        "target": target,
        "seed": seed,
        "diagnostics": notes,
        "null": null,
    }
    if not np.isfinite(value) or finite.size < max(2, every.size / 2):
        why = "the value is undefined" if not np.isfinite(value) else "undefined in most replicates"
        return Estimate(key, float(value), np.nan, np.nan, level, interval=f"none ({why})", **rest)
    pivot = AdjustedDrawsPivot(tuple(finite.tolist()), units)
    how = f"bootstrap of {units} units of {unit}, expanded percentile, t({units - 1})"
    return Estimate.from_pivot(key, value, pivot, level=level, interval=how, **rest)
