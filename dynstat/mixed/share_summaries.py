"""Intraclass correlations and R² of a decomposition, from the fits that its shares are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.estimate import DrawsPivot, Estimate
from .jackknife import jackknife_share
from .population import PopulationDraws, bias_corrected
from .shares import Shares

Array = NDArray[np.float64]
NAMES = ("icc.adjusted", "icc.unadjusted", "r2.marginal", "r2.conditional")


def summary_estimates(
    full: Shares, left: Sequence[Shares], wide: PopulationDraws | None, common: Mapping[str, Any]
) -> dict[str, Estimate]:
    """Return ``icc.adjusted``, ``icc.unadjusted``, ``r2.marginal``, ``r2.conditional`` for both targets.

    Intervals are made as those of the shares: for this panel by delete-group jackknife on the logit scale
    (raw scale on components allowed below zero where a value touches 0 or 1), for a population by its draws.
    """
    g = len(left)
    values = summaries(full.share, full.fixed / full.reml.sum())
    free = summaries(full.free_share, full.fixed / full.free.sum())
    among = np.array([summaries(s.share, s.fixed / s.reml.sum()) for s in left])
    among_free = np.array([summaries(s.free_share, s.fixed / s.free.sum()) for s in left])
    drawn = None
    if wide is not None:
        drawn = np.array([summaries(s, f) for s, f in zip(wide.raw, wide.fixed, strict=True)])
        if "bias-corrected" in wide.interval:
            drawn = bias_corrected(drawn, values)
    out: dict[str, Estimate] = {}
    diagnostics = {"fixed": full.fixed}
    for j, name in enumerate(NAMES):
        rest = {**common, "target": "panel", "diagnostics": diagnostics}
        wider = rest | {"target": "population", "unit": "all factors"}
        if name == "r2.marginal" and full.fixed == 0:
            # Nothing to estimate: the fixed part is a general mean.
            for key, words in ((name, rest), (f"population.{name}", wider)):
                out[key] = Estimate(key, 0.0, np.nan, np.nan, interval="none (no fixed terms)", **words)
            continue
        made = jackknife_share(values[j], among[:, j], free[j], among_free[:, j])
        out[name] = Estimate.from_pivot(
            name,
            made.value,
            made.pivot,
            interval=f"delete-group jackknife, t({g - 1}), {made.scale} scale",
            **rest,
        )
        if drawn is not None and wide is not None:
            key = f"population.{name}"
            pivot = DrawsPivot(tuple(drawn[:, j].tolist()))
            out[key] = Estimate.from_pivot(key, float(values[j]), pivot, interval=wide.interval, **wider)
    if wide is None:
        out = {k: e for k, e in out.items() if not k.startswith("population.")}
    return out


def deviation_estimates(
    full: Shares, wide: PopulationDraws, names: Sequence[str], order: Sequence[int], common: Mapping[str, Any]
) -> dict[str, Estimate]:
    """Return ``population.sd.<term>``: the standard deviations, with the limits that the shares' draws give.

    With six levels these cover more often than the profile of a likelihood; docs/mixed.md has the numbers.
    """
    drawn = np.sqrt(wide.raw * wide.total[:, None])
    values = np.sqrt(full.reml)
    if "bias-corrected" in wide.interval:
        drawn = bias_corrected(drawn, values)
    out: dict[str, Estimate] = {}
    for name, j in zip(names, order, strict=True):
        key = f"population.sd.{name}"
        pivot = DrawsPivot(tuple(drawn[:, j].tolist()))
        out[key] = Estimate.from_pivot(
            key,
            float(values[j]),
            pivot,
            interval=wide.interval,
            unit="all factors",
            target="population",
            diagnostics={"replicates": drawn.shape[0]},
            **common,
        )
    return out


def summaries(share: Array, fixed: float) -> Array:
    """Return the numbers of :data:`NAMES` from shares (the residual last) and the fixed part over their sum.

    Examples
    --------
    >>> import numpy as np
    >>> summaries(np.array([0.2, 0.3, 0.5]), 1.0).tolist()
    [0.5, 0.25, 0.5, 0.75]
    """
    random = 1 - float(share[-1])
    total = 1 + fixed
    return np.array([random, random / total, fixed / total, (random + fixed) / total])
