"""Limits for transitions that hardly ever happen: a Jeffreys posterior on as many trials as prompts allow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..inference.estimate import BetaPivot

Array = NDArray[np.float64]
# Transitions with fewer events than this, or fewer other events in their row, get such a limit.
FEW = 5


class Effective(NamedTuple):
    """Trials that the transitions of a row are worth: ``n`` (K, K) and the design effect (K, K)."""

    n: Array
    design_effect: Array


def effective_trials(counts: ArrayLike) -> Effective:
    """Return the effective number of trials behind every transition probability.

    n_eff = n_i· / D_ij with the design effect D_ij = max(1, D_row, D_own): D_own is the variance of p_ij
    between units, V = m/(m − 1) Σ_u (n_uij − n_ui· p_ij)² / n_i·², over that of independent transitions,
    p_ij(1 − p_ij) / n_i·; D_row is the same ratio with both summed over j. With few events D_own is noise,
    and under a Dirichlet law of units all j share one design effect: D_row has the events of the whole row to
    learn it from. m counts the units that visit i. Where the row holds one unit or one target only, nothing
    tells how alike a unit's transitions are, and n_eff is the effective number of units, n_i·² / Σ_u n_ui·².

    Parameters
    ----------
    counts : array_like, shape (units, K, K)
        Summed over the sequences of a unit.

    Notes
    -----
    Origin dynstat; the design effect is that of Rao and Scott 1981, JASA 76: 221-230, the shrunk counts
    follow Korn and Graubard 1998, Survey Methodology 24: 193-201, with Jeffreys' prior in place of exact
    limits.
    """
    x = np.asarray(counts, dtype=np.float64)
    by_unit = x.sum(axis=-1)
    n = by_unit.sum(axis=0)[:, None]
    visiting = (by_unit > 0).sum(axis=0)[:, None].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = x.sum(axis=0) / n
        deviation = x - by_unit[..., None] * p
        between = visiting / (visiting - 1) * np.sum(deviation**2, axis=0) / n**2
        simple = p * (1 - p) / n
        row = between.sum(axis=1, keepdims=True) / simple.sum(axis=1, keepdims=True)
        own = np.where(simple > 0, between / simple, 0.0)
        kish = n**2 / np.sum(by_unit**2, axis=0)[:, None]
        design = np.maximum(np.maximum(row, own), 1.0)
    design = np.where(np.isfinite(design), design, n / kish)
    return Effective(n / design, design)


def rare_pivot(events: float, trials: float, effective: float, states: int) -> BetaPivot:
    """Return the posterior of one transition probability from counts shrunk to `effective` trials.

    Jeffreys' Dirichlet(½, ..., ½) prior on the row; the margin of one target is Beta(x + ½, n − x + (K −
    1)/2) with x and n both times n_eff / n. Without an event the lower limit is 0.

    Parameters
    ----------
    events, trials : float
        n_ij and n_i·.
    effective : float
        From :func:`effective_trials`.
    states : int
        K.

    Notes
    -----
    One-sided coverage of the upper 95 % limit, .5 to 5 expected events, 1,000 data sets each (mean over the
    expected numbers; the lowest); beside it Jeffreys on the counts as they are:

    =============  ==================  =============  =============
    concentration  prompts × visits    shrunk         as they are
    =============  ==================  =============  =============
    all alike      72 × 5              .972 (.917)    .969 (.915)
    all alike      24 × 20             .976 (.931)    .974 (.921)
    20             72 × 5              .972 (.928)    .962 (.892)
    20             24 × 20             .985 (.960)    .934 (.835)
    5              72 × 5              .987 (.961)    .931 (.822)
    5              24 × 20             1.000 (.999)   .853 (.652)
    1              72 × 5              1.000 (.999)   .854 (.661)
    =============  ==================  =============  =============

    Jeffreys' limits swing around their level where units are alike: at 2.5 expected events none is seen in
    8 % of data sets. Where units differ much the row's design effect makes the limit wide: safe, not sharp.
    """
    shrink = effective / trials
    x, rest = events * shrink, (trials - events) * shrink
    closed = "lower" if events == 0 else "upper" if events == trials else ""
    return BetaPivot(x + 0.5, rest + (states - 1) / 2, closed)  # type: ignore[arg-type]
