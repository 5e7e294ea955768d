"""The one way from replicates of a unit bootstrap to an interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ..errors import DynstatError
from .estimate import AdjustedDrawsPivot, Estimate, Pivot, TPivot


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
        Replicates. NaN are left out and counted in the diagnostics as ``undefined``; infinities stay.
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
        NaN limits and no pivot where the value is not finite, more than half the draws are NaN, or more than
        2.5 % infinite.

    Notes
    -----
    A t pivot on the scale of the bounds: g = logit((x − a)/(b − a)) between two finite bounds, ln(x − a)
    above one, x itself without. Centre g(value); standard error (Q.975 − Q.025)/(2 · 1.96) · √(n/(n − 1)) of
    g(draws), Q their quantiles; n − 1 degrees of freedom, n the units. The spread comes from the middle
    95 % so that single draws at a bound (a transition that no drawn unit holds) do not make it infinite;
    where more than 2.5 % of the draws lie at a bound, from the jackknife, or the sd of the draws, carried to
    the scale by g'. Where the value itself lies at a bound: expanded percentile (Hesterberg 2015). The
    percentile interval is too short by √((n − 1)/n) and for want of t tails; skewed shares need the logit.

    Chosen by calibration: coverage of nominal 95 %, four states, units of 48 steps whose matrices vary by a
    Dirichlet law of concentration c; mean over cells of transition probabilities, lifts, stationary shares,
    first passages, in this order; 1,000 data sets (percentiles 400).

    ===================================  =====================  =====================  =====================
    data                                 this                   expanded percentile    plain percentile
    ===================================  =====================  =====================  =====================
    72 units, all alike                  .951 .952 .948 .952    .950 .951 .948 .952    .945 .949 .940 .946
    72 units, c = 20                     .952 .949 .957 .951    .948 .941 .947 .945    .942 .934 .943 .939
    72 units, c = 5                      .946 .938 .954 .950    .946 .941 .954 .952    .940 .934 .946 .947
    24 units, c = 5                      .952 .950 .954 .956    .928 .930 .949 .941    .911 .911 .930 .925
    12 units, c = 5                      .948 .942 .956 .955    .914 .930 .931 .933    .876 .887 .891 .895
    6 models × 24 prompts × 2, c = 20    .950 .953 .948 .949    .938 .949 .934 .932
    6 models × 24 prompts × 2, c = 5     .942 .942 .946 .947    .931 .936 .948 .944
    6 models × 36 prompts × 2, c = 5     .939 .941 .944 .944    .940 .948 .949 .946
    ===================================  =====================  =====================  =====================

    Single cells: .931 and more with 72 units, .901 and more with 12, .917 and more where crossed. Monte-Carlo
    error of a cell .007 (400 data sets: .011).

    BCa with t quantiles and jackknife acceleration lies between this and the expanded percentile (transitions
    .926 at 12 units), the delete-unit jackknife on the same scale beside this (.949 at 12). Run
    ``python -m benchmarks.calibration markov``. Origin dynstat; the parts are published.

    In data crossed by model and prompt the prompt is the unit and models are held: the interval speaks of
    this panel of models. A population of models needs models as units, several of each kind.

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
    kept = every[~np.isnan(every)]
    notes: dict[str, Any] = {"replicates": int(every.size), "undefined": int(every.size - kept.size)}
    if infinite := int(np.isinf(kept).sum()):
        notes["infinite"] = infinite
    notes |= dict(diagnostics or {})
    rest: dict[str, Any] = {
        "method": method,
        "unit": unit,
        "n": dict(n),
        "target": target,
        "seed": seed,
        "diagnostics": notes,
        "null": null,
    }
    why = ""
    if not np.isfinite(value):
        why = "the value is undefined"
    elif kept.size < max(2, every.size / 2):
        why = "undefined in most replicates"
    elif infinite > 0.025 * kept.size:
        why = "infinite in over 2.5 % of the replicates"
    if why:
        return Estimate(key, float(value), np.nan, np.nan, level, interval=f"none ({why})", **rest)
    pivot, words = _pivot(float(value), kept, jackknife, bounds, units)
    how = f"bootstrap of {units} units of {unit}, {words}"
    return Estimate.from_pivot(key, value, pivot, level=level, interval=how, **rest)


def _pivot(
    value: float,
    draws: NDArray[np.float64],
    jackknife: ArrayLike | None,
    bounds: tuple[float, float],
    units: int,
) -> tuple[Pivot, str]:
    low, high = bounds
    scale: Literal["identity", "logit", "log"] = "identity"
    if np.isfinite(low):
        scale = "logit" if np.isfinite(high) else "log"
    span = (low, high) if scale != "identity" else (0.0, 1.0)
    if scale != "identity" and not low < value < high:
        adjusted = AdjustedDrawsPivot(tuple(draws.tolist()), units)
        return adjusted, f"expanded percentile, t({units - 1}) (the value lies at a bound)"
    centre = float(_onto(np.array(value), scale, span))
    lower, upper = np.quantile(_onto(draws, scale, span), (0.025, 0.975), method="nearest")
    with np.errstate(invalid="ignore"):
        se = float((upper - lower) / (2 * special.ndtri(0.975)) * np.sqrt(units / (units - 1)))
    words = f"t({units - 1}), {scale} scale"
    if not np.isfinite(se) and scale != "identity":
        # Too many draws at a bound: the spread on the raw scale, carried over by the derivative.
        slope = {"logit": (high - low) / ((value - low) * (high - value)), "log": 1 / (value - low)}[scale]
        left = None if jackknife is None else np.asarray(jackknife, dtype=np.float64)
        if left is not None and np.isfinite(left).all():
            raw = float(np.sqrt((left.size - 1) / left.size * np.sum((left - left.mean()) ** 2)))
            words += ", jackknife"
        else:
            raw = float(np.std(draws[np.isfinite(draws)], ddof=1) * np.sqrt(units / (units - 1)))
        se, words = raw * slope, words + " by the delta method"
    return TPivot(centre, se, units - 1, scale, bounds, span), words


def _onto(x: NDArray[np.float64], scale: str, span: tuple[float, float]) -> NDArray[np.float64]:
    """Carry values to the scale; those beyond a bound to its infinity."""
    if scale == "identity":
        return x
    with np.errstate(divide="ignore"):
        if scale == "log":
            return np.asarray(np.log(np.maximum(x - span[0], 0.0)))
        return np.asarray(special.logit(np.clip((x - span[0]) / (span[1] - span[0]), 0.0, 1.0)))
