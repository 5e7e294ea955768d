"""Intervals of reopening: the bootstrap of units, and limits where hardly anything else happens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.estimate import Estimate
from ..inference.unit_interval import unit_interval
from .rare_events import FEW, effective_trials, rare_pivot

Floats = NDArray[np.float64]


def interval(
    key: str,
    value: float,
    draws: Floats,
    left: Floats,
    fates: Floats,
    kind: int,
    common: dict[str, Any],
    null: dict[str, Any] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Return an estimate with its interval.

    Where fewer than five stays, or all but fewer than five, had the event, a bootstrap cannot see how rare it
    is: limits come from a Jeffreys posterior on as many stays as the units are worth.

    Parameters
    ----------
    draws : ndarray, shape (B,)
        Of the bootstrap of units.
    left : ndarray, shape (units,)
        The value without one unit at a time.
    fates : ndarray, shape (units, 2 or more)
        Stays by what became of them, where that is known; column `kind` is the event.
    common : dict
        level, method, unit, n, seed.
    """
    trials = float(fates.sum())
    if common["n"]["units"] < 2:
        return Estimate(key, value, np.nan, np.nan, interval="none (one unit)", null=null, **common)
    events = float(np.round(value * trials, 9)) if np.isfinite(value) else np.nan
    if bounds != (0.0, 1.0) or not trials or not min(events, trials - events) < FEW:
        return unit_interval(key, value, draws, jackknife=left, bounds=bounds, null=null, **common)
    worth = effective_trials(fates[:, None, :])
    effective = float(worth.n[0, kind])
    how = f"Jeffreys limits of {events:.3g} of {trials:.0f} stays, worth {effective:.3g}"
    return Estimate.from_pivot(
        key,
        value,
        rare_pivot(events, trials, effective, 2),
        interval=how,
        null=null,
        target="panel",
        **common,
    )


def fates_at(counts: NDArray[np.int64], step: int) -> Floats:
    """Return stays by unit and fate at a step: reopened, end of text, still inside; without censored ones.

    Parameters
    ----------
    counts : ndarray, shape (units, H + 2, 3)
    """
    ended = counts[:, : step + 1, 1:].sum(axis=1)
    # A stay is known to be inside after a step where it was at risk at it, whatever came later.
    inside = counts[:, step + 1 :].sum(axis=(1, 2)) + counts[:, step, 0]
    return np.column_stack([ended, inside]).astype(np.float64)
