"""How much of a nominal label lies between models, and what a normalisation changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from ..inference.estimate import Estimate, TPivot
from ..inference.resample import Resampler
from .groups import groups_of
from .jackknife import jackknife_plain, jackknife_share

Array = NDArray[np.float64]
Codes = NDArray[np.int8]

METHOD = "regimes.normalisation@1"
#: How many labels there are, UNASSIGNED among them.
_LABELS = 5


def nominal_eta2(counts: ArrayLike) -> Array:
    """Return the share of a nominal label's variation that lies between groups.

    R² = (Σ_g Σ_k n_gk²/n_g − Σ_k n_k²/n) / (n − Σ_k n_k²/n): the between-group sum of squares of the labels'
    indicator variables over their total one. It is Goodman and Kruskal's tau of the label given the group.

    Parameters
    ----------
    counts : array_like, shape (..., group, label)
        Items of every label in every group.

    Returns
    -------
    ndarray, shape (...)
        NaN where all items have one label: nothing varies.

    Notes
    -----
    Source: Light and Margolin 1971, JASA 66: 534-544 (CATANOVA).

    Examples
    --------
    >>> nominal_eta2([[4, 0], [0, 4]]).item(), nominal_eta2([[2, 2], [2, 2]]).item()
    (1.0, 0.0)
    """
    table = np.asarray(counts, dtype=np.float64)
    groups, labels = table.sum(axis=-1), table.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_chance = (labels**2).sum(axis=-1) / labels.sum(axis=-1)
        within = np.where(groups > 0, (table**2).sum(axis=-1) / groups, 0.0)
        total = labels.sum(axis=-1) - by_chance
        return np.asarray(np.where(total > 0, (within.sum(axis=-1) - by_chance) / total, np.nan))


def regime_normalisation(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    mode: str = "published",
    scope: str = "run",
    clip: float = 3.5,
    unit: str = "prompt",
    strata: str = "category",
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Label every run by its regime, raw and clipped, and compare what the labels say about the model.

    Parameters
    ----------
    ds : xarray.Dataset
    outcome : mapping
        ``ratio_norm@1`` with ``normalisation: RAW`` and ``scale: raw``; the other reading is the same with
        CLIPPED_MAD. Prompts with a run that has no clipped value (its MAD is zero) are left out whole.
    seed : int
        Unused: nothing is drawn.
    mode, scope, clip, unit, strata, level
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``difference`` (share of the labels' variation between models, raw minus clipped), ``eta2.raw``,
        ``eta2.clipped``, ``ari`` between the two labelings, ``changed`` (share of runs whose regime differs),
        ``unassigned.raw``, ``unassigned.clipped``. NaN without interval where all runs have one label; no
        interval either where both labelings are the same in every run.

    Raises
    ------
    DynstatError
        S404 for an outcome that is no clipped ratio_norm; S402 where no prompt has all its runs; S403 too few
        units.
    """
    raw, clipped = _labels(ds, outcome, mode, {"scope": scope, "clip": clip})
    whole = ((raw >= 0) & (clipped >= 0)).all(axis=(0, 2))
    if not whole.any():
        raise DynstatError("S402", "no prompt has a ratio_norm in all of its runs, raw and clipped")
    raw, clipped = raw[:, whole], clipped[:, whole]
    units = np.asarray(ds[unit].values)[whole].astype(str)
    stratum = np.asarray(ds[strata].values)[whole].astype(str) if strata else None
    joint = units if stratum is None else np.char.add(np.char.add(stratum, "\x1f"), units)
    resampler = Resampler.of(joint, stratum)
    groups, uneven = groups_of(resampler, unit, strata or None)
    tables = _tables(raw, clipped)
    left = np.array([tables[resampler.without(g)].sum(axis=0) for g in groups])
    n = {
        "runs": int(raw.size),
        "models": int(raw.shape[0]),
        "prompts": int(raw.shape[1]),
        "units": resampler.n_units,
        "groups": len(groups),
    }
    chance = (n["models"] - 1) / (n["runs"] - 1)
    notes = [uneven] if uneven else []
    if lost := int((~whole).sum()):
        notes.append(f"{lost} prompts left out for a run without a clipped ratio_norm")
    common: dict[str, Any] = {
        "level": level,
        "method": METHOD,
        "unit": unit,
        "n": n,
        "target": "panel",
        "diagnostics": {"chance_level": chance, "mode": mode}
        | ({"notes": "; ".join(notes)} if notes else {}),
    }
    return _estimates(tables.sum(axis=0), left, common)


def _labels(
    ds: xr.Dataset, outcome: Mapping[str, Any] | None, mode: str, clipping: Mapping[str, Any]
) -> tuple[Codes, Codes]:
    from ..metrics.labelled import run_metric
    from ..metrics.regimes import regime

    given = dict(outcome or {})
    fits = str(given.get("metric", "")).partition("@")[0] == "ratio_norm"
    if not fits or given.get("normalisation", "RAW") != "RAW" or given.get("scale", "raw") != "raw":
        raise DynstatError(
            "S404",
            f"{METHOD} compares ratio_norm with the same clipped",
            where="outcome",
            found=", ".join(f"{k}: {v}" for k, v in given.items()) or "nothing",
            expected="{metric: ratio_norm@1, normalisation: RAW, scale: raw, ...}",
        )
    clipped = given | {"normalisation": "CLIPPED_MAD", **clipping}
    both = (run_metric(ds, spec) for spec in (given, clipped))
    first, second = (regime(v.transpose("model", "prompt", "sample").values, mode=mode) for v in both)
    return first, second


def _tables(raw: Codes, clipped: Codes) -> Array:
    """Return counts, shape (prompt, model, raw label, clipped label)."""
    models, prompts, _ = raw.shape
    at = np.indices(raw.shape)
    out = np.zeros((prompts, models, _LABELS, _LABELS))
    np.add.at(out, (at[1], at[0], raw, clipped), 1.0)
    return out


def _estimates(table: Array, left: Array, common: Mapping[str, Any]) -> dict[str, Estimate]:
    from ..cluster.jaccard import adjusted_rand_of

    def both(t: Array) -> dict[str, Array]:
        runs = t.sum(axis=(-3, -2, -1))
        pooled = t.sum(axis=-3)
        first, second = nominal_eta2(t.sum(axis=-1)), nominal_eta2(t.sum(axis=-2))
        return {
            "difference": first - second,
            "eta2.raw": first,
            "eta2.clipped": second,
            "ari": adjusted_rand_of(pooled.reshape(-1, _LABELS, _LABELS)).reshape(runs.shape),
            "changed": 1 - np.trace(pooled, axis1=-2, axis2=-1) / runs,
            "unassigned.raw": pooled[..., 0, :].sum(axis=-1) / runs,
            "unassigned.clipped": pooled[..., :, 0].sum(axis=-1) / runs,
        }

    whole, without = both(table), both(left)
    same = bool(whole["changed"] == 0)
    out = {}
    for key, value in whole.items():
        none = _no_interval(key, float(value), without[key], same)
        if none:
            out[key] = Estimate(key, float(value), np.nan, np.nan, interval=none, **common)
        else:
            out[key] = _with_interval(key, float(value), without[key], common)
    return out


def _no_interval(key: str, value: float, left: Array, same: bool) -> str:
    if np.isnan(value):
        return "none (all runs have one regime, so that none of its variation can lie between models)"
    if not np.isfinite(left).all():
        return "none (without some prompts all runs have one regime)"
    if same and key in ("difference", "ari", "changed"):
        return "none (clipping changes the regime of no run)"
    if np.ptp(left) == 0:
        return "none (no prompt that is left out moves it)"
    return ""


def _with_interval(key: str, value: float, left: Array, common: Mapping[str, Any]) -> Estimate:
    pivot: TPivot
    if key in ("difference", "ari"):  # both may be negative
        pivot, scale = replace(jackknife_plain(value, left), bounds=(-1.0, 1.0)), "raw"
    else:
        share = jackknife_share(value, left, value, left)
        pivot, scale = share.pivot, share.scale
    how = f"delete-group jackknife, t({left.size - 1}), {scale} scale"
    return Estimate.from_pivot(key, value, pivot, interval=how, **common)
