"""Commitment time: where the leading token settles, along depth or along the run."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Floats = NDArray[np.float64]


def commitment_time(
    top1_id: ArrayLike, mask: ArrayLike | None = None, *, axis: int = -1, relative: bool = False
) -> Floats:
    """Return the first place after which the leading token never changes.

    Parameters
    ----------
    top1_id : array_like of int, shape (..., place)
        Leading token at every layer (or at every token of a run); -1 for none.
    mask : array_like of bool, optional
        Places to use.
    axis : int
        The axis to settle along.
    relative : bool
        Divide by the last valid place: 0 at the first, 1 at the last.

    Returns
    -------
    ndarray, shape (...)
        Place on the axis, [0, L]; NaN where there is no valid place, or with `relative` where the last one is
        0.

    Notes
    -----
    Formula: ``min{l : top1^m = top1^L for all m >= l}``. The last place always qualifies, so the time is
    never censored, but a run cut short looks committed earlier. Origin dynstat: the programme speaks of
    delayed commitment without a formula.

    Examples
    --------
    >>> float(commitment_time([7, 3, 5, 5]))
    2.0
    """
    ids = np.moveaxis(np.asarray(top1_id), axis, -1)
    valid = ids >= 0
    if mask is not None:
        valid &= np.moveaxis(np.broadcast_to(np.asarray(mask, dtype=bool), np.shape(top1_id)), axis, -1)
    place = np.arange(ids.shape[-1])
    last = np.where(valid, place, -1).max(axis=-1, initial=-1)
    final = np.take_along_axis(ids, np.maximum(last, 0)[..., None], axis=-1)
    last_other = np.where(valid & (ids != final), place, -1).max(axis=-1, initial=-1)
    # The first valid place after the last one that differs.
    candidates = np.where(valid & (place > last_other[..., None]), place, ids.shape[-1])
    return _scaled(candidates.min(axis=-1, initial=ids.shape[-1]), last, last >= 0, relative)


def first_above(
    top1_probability: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    tau: float = 0.5,
    axis: int = -1,
    relative: bool = False,
) -> Floats:
    """Return the first place where the leading token's probability reaches tau.

    Parameters
    ----------
    top1_probability : array_like, shape (..., place)
    mask : array_like of bool, optional
    tau : float
        In (0, 1).
    axis : int
    relative : bool
        Divide by the last valid place.

    Returns
    -------
    ndarray, shape (...)
        Place on the axis; NaN where it never gets there.

    Raises
    ------
    DynstatError
        S404 for tau outside (0, 1).

    Notes
    -----
    Formula: ``min{l : p_(1)^l >= tau}``. Origin dynstat.
    """
    if not 0 < tau < 1:
        raise DynstatError("S404", "tau must lie between 0 and 1", found=tau)
    p = np.moveaxis(np.asarray(top1_probability, dtype=np.float64), axis, -1)
    valid = np.isfinite(p)
    if mask is not None:
        valid &= np.moveaxis(
            np.broadcast_to(np.asarray(mask, dtype=bool), np.shape(top1_probability)), axis, -1
        )
    place = np.arange(p.shape[-1])
    reached = valid & (np.where(valid, p, 0.0) >= tau)
    last = np.where(valid, place, -1).max(axis=-1, initial=-1)
    return _scaled(np.argmax(reached, axis=-1), last, np.asarray(reached.any(axis=-1)), relative)


def _scaled(time: NDArray, last: NDArray, known: NDArray, relative: bool) -> Floats:
    out = np.where(known, time, np.nan).astype(np.float64)
    if not relative:
        return out
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(last > 0, out / last, np.nan)
