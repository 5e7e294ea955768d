"""Cumulative incidence with competing events in discrete time, batched over replicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Incidence:
    """Curves at steps 1..H; leading dims are replicates or groups.

    Attributes
    ----------
    at_risk : ndarray, shape (..., H)
        Spells that are still inside and seen at the step.
    events : ndarray, shape (..., H, 2)
        Reopened, end of text.
    incidence : ndarray, shape (..., H, 2)
        Aalen–Johansen: probability of each event by the step, in the presence of the other. NaN beyond the
        last step at risk unless every spell has ended by then.
    kaplan_meier : ndarray, shape (..., H)
        One minus Kaplan–Meier with end of text counted as censoring.
    naive : ndarray, shape (...)
        Share of spells that reopened in the record.
    """

    at_risk: Floats
    events: Floats
    incidence: Floats
    kaplan_meier: Floats
    naive: Floats

    def at(self, step: int) -> tuple[Floats, Floats, Floats]:
        """Return incidence of reopening and of end of text, and one minus Kaplan–Meier, at `step`."""
        k = step - 1
        return self.incidence[..., k, 0], self.incidence[..., k, 1], self.kaplan_meier[..., k]


def count_spells(
    duration: NDArray[np.intp],
    event: NDArray[np.int8],
    cell: NDArray[np.intp],
    cells: int,
    horizon: int,
) -> NDArray[np.int64]:
    """Count spells by cell, duration 0..horizon + 1 and event.

    Returns
    -------
    ndarray of int, shape (cells, horizon + 2, 3)
        All that last longer than the horizon stand at ``horizon + 1``: at risk at every step, and the event
        kept for the naive share.
    """
    d = np.minimum(duration, horizon + 1)
    flat = (cell * (horizon + 2) + d) * 3 + event
    return np.bincount(flat, minlength=cells * (horizon + 2) * 3).reshape(cells, horizon + 2, 3)


def incidence(counts: NDArray[np.int64] | Floats) -> Incidence:
    """Estimate cumulative incidence (Aalen–Johansen), one minus Kaplan–Meier, and the naive share.

    hazard of event k at step d: h_k(d) = events_k(d)/at risk(d);
    S(d) = Π_{j≤d} (1 − h_1(j) − h_2(j)); F_k(d) = Σ_{j≤d} S(j − 1) h_k(j).

    Parameters
    ----------
    counts : ndarray, shape (..., H + 2, 3)
        Spells by duration 0..H + 1 and event (censored, reopened, end of text), of
        :func:`count_spells`; may be weighted sums.

    Returns
    -------
    Incidence

    Notes
    -----
    Spells censored at a step are at risk at it, as in R's survfit. Source: Aalen and Johansen 1978,
    Scand. J. Stat. 5: 141-150; Kalbfleisch and Prentice 2002, 8.2.
    """
    c = np.asarray(counts, dtype=np.float64)
    total = c.sum(axis=-1)
    at_risk = np.cumsum(total[..., ::-1], axis=-1)[..., ::-1][..., 1:-1]
    events = c[..., 1:-1, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = np.where(at_risk[..., None] > 0, events / at_risk[..., None], 0.0)
        naive = c[..., 1].sum(axis=-1) / total.sum(axis=-1)
    survival = np.cumprod(1.0 - hazard.sum(axis=-1), axis=-1)
    before = np.concatenate([np.ones_like(survival[..., :1]), survival[..., :-1]], axis=-1)
    out = np.cumsum(before[..., None] * hazard, axis=-2)
    km = np.cumprod(1.0 - hazard[..., 0], axis=-1)
    nobody = at_risk <= 0
    # With nobody at risk the curve is known only where everybody has left before.
    out = np.where((nobody & (before > 1e-12))[..., None], np.nan, out)
    km_before = np.concatenate([np.ones_like(km[..., :1]), km[..., :-1]], axis=-1)
    km = np.where(nobody & (km_before > 1e-12), np.nan, km)
    return Incidence(at_risk, events, out, np.asarray(1.0 - km, dtype=np.float64), naive)
