"""Tables of stays by length, ended and still going, and what follows from them: risk, hazard, survival."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


def count_stays(
    codes: NDArray[np.int8], cell: NDArray[np.intp], cells: int, k: int, *, drop: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count stays by length.

    Parameters
    ----------
    codes : ndarray of int8, shape (R, n, T)
        −1 is a gap.
    cell : ndarray, shape (n,)
    cells, k : int
    drop : bool
        Whether stays under way at a sequence's first step are left out; those after a gap always are.

    Returns
    -------
    tables : ndarray, shape (R, cells, k, 2, T)
        Stays that ended at length 1..T, and stays last seen to outlast 1..T steps.
    skipped : ndarray, shape (R, cells, k)
        Stays left out for their beginning.
    """
    size, rows, length = codes.shape
    line = np.full((size * rows, length + 2), -1, dtype=np.int8)
    line[:, 1:-1] = codes.reshape(-1, length)
    flat = line.ravel()
    at = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    state = flat[at]
    steps = np.diff(np.concatenate([at, [flat.size]]))
    keep = state >= 0
    before, after = np.concatenate([[-1], state[:-1]])[keep], np.concatenate([state[1:], [-1]])[keep]
    row, column = at[keep] // (length + 2), at[keep] % (length + 2) - 1
    s, steps = state[keep].astype(np.intp), steps[keep]
    # A sequence may begin later than column 0 where columns are layers.
    first = (codes >= 0).argmax(axis=-1).ravel()[row]
    unknown = (before < 0) & (drop | (column > first))
    censored = after < 0
    steps = steps - censored
    home = (row // rows) * cells + cell[row % rows]
    skipped = np.bincount((home * k + s)[unknown], minlength=size * cells * k)
    used = ~unknown & (steps > 0)
    index = ((home * k + s) * 2 + censored) * length + steps - 1
    tables = np.bincount(index[used], minlength=size * cells * k * 2 * length)
    return tables.reshape(size, cells, k, 2, length), skipped.reshape(size, cells, k)


def chances(
    codes: NDArray[np.int8], cell: NDArray[np.intp], cells: int, k: int, shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return transitions out of every state, and those back to it, by group and unit."""
    a, b = codes[:, :-1], codes[:, 1:]
    rows, at = np.nonzero((a >= 0) & (b >= 0))
    index = cell[rows] * k + a[rows, at]
    every = np.bincount(index, minlength=cells * k).reshape(*shape, k)
    back = np.bincount(index[a[rows, at] == b[rows, at]], minlength=cells * k).reshape(*shape, k)
    return every.astype(np.float64), back.astype(np.float64)


def at_risk(tables: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return exits and stays at risk by length from tables (..., 2, T)."""
    exits = np.asarray(tables[..., 0, :], dtype=np.float64)
    gone = exits + tables[..., 1, :]
    return exits, np.cumsum(gone[..., ::-1], axis=-1)[..., ::-1]


def hazard_statistic(tables: NDArray[Any]) -> Floats:
    """Return G of a constant hazard from tables (..., 2, T): 0 where exits are as likely at every length."""
    d, n = at_risk(tables)
    total, every = d.sum(axis=-1, keepdims=True), n.sum(axis=-1, keepdims=True)
    h = total / np.maximum(every, 1)
    wanted = n * h
    with np.errstate(divide="ignore", invalid="ignore"):
        g = special.xlogy(d, d / wanted) + special.xlogy(n - d, (n - d) / (n - wanted))
    return np.asarray(2 * np.nansum(g, axis=-1))


def survival_curve(tables: NDArray[Any]) -> Floats:
    """Return Kaplan and Meier's S(0), ..., S(T) from tables (..., 2, T); flat where none is at risk."""
    d, n = at_risk(tables)
    kept = np.where(n > 0, 1 - d / np.where(n > 0, n, 1), 1.0)
    return np.concatenate([np.ones((*kept.shape[:-1], 1)), np.cumprod(kept, axis=-1)], axis=-1)
