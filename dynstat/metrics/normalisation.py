"""RAW and CLIPPED_MAD: winsorise a series around its median, within a run, a model or the panel."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Floats = NDArray[np.float64]

REASONS = ("ok", "mad_zero", "no_values")
MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class Clipped:
    """A winsorised series with what it was clipped to.

    Attributes
    ----------
    values : ndarray
        Same shape as the input; NaN where masked, and throughout a group without a scale.
    centre, scale : ndarray
        Median and ``1.4826 MAD`` of every group, with the reduced axes kept as 1.
    reason : ndarray of int8
        Index in ``REASONS``: 0 ok, 1 the MAD is zero (an ordinary thing in a frozen run), 2 no values.
    """

    values: Floats
    centre: Floats
    scale: Floats
    reason: NDArray[np.int8]


def clipped_mad(
    x: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    clip: float = 3.5,
    axis: int | tuple[int, ...] | None = -1,
    standardise: bool = False,
) -> Clipped:
    """Winsorise to the median plus or minus `clip` scaled MADs.

    Parameters
    ----------
    x : array_like
    mask : array_like of bool, optional
        Values to use; NaN are left out in any case.
    clip : float
        Positive; 3, 3.5 or 5 by custom.
    axis : int, tuple of int or None
        Axes that form one group: the tokens of a run, all runs of a model, or everything (None).
    standardise : bool
        False keeps the scale of `x`, as a ratio needs; True gives ``(x - m) / s`` for pooling.

    Returns
    -------
    Clipped
        Non-negative values stay so: the lower bound can only raise a value, and the upper lies above m.

    Raises
    ------
    DynstatError
        S404 for a `clip` that is not positive. A MAD of zero is no error: NaN with its reason.

    Notes
    -----
    Formula: ``s = 1.4826 MAD``, ``x`` cut to ``[m - c s, m + c s]``. Source: Iglewicz & Hoaglin 1993. Origin
    dynstat: Paper 2 contrasts RAW with CLIPPED_MAD and publishes neither constant, factor nor scope.

    Examples
    --------
    >>> clipped_mad([1.0, 2.0, 3.0, 100.0], clip=3.0).values.round(3).tolist()
    [1.0, 2.0, 3.0, 6.948]
    >>> REASONS[clipped_mad([2.0, 2.0, 2.0]).reason[0]]
    'mad_zero'
    """
    if not clip > 0:
        raise DynstatError("S404", "clip must be positive", found=clip)
    values = masked(x, mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        centre = np.nanmedian(values, axis=axis, keepdims=True)
        mad = np.nanmedian(np.abs(values - centre), axis=axis, keepdims=True)
    scale = MAD_TO_SD * mad
    reason = np.where(np.isnan(centre), 2, np.where(scale > 0, 0, 1)).astype(np.int8)
    usable = np.where(scale > 0, scale, np.nan)
    out = np.clip(values, centre - clip * usable, centre + clip * usable)
    out = np.where(np.isnan(usable), np.nan, out)
    if standardise:
        out = (out - centre) / usable
    return Clipped(out, np.asarray(centre), np.asarray(scale), reason)


def normalise(
    x: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    normalisation: str = "RAW",
    scope: str = "run",
    clip: float = 3.5,
) -> Floats:
    """Return a panel of series raw or winsorised, on the scale they came in.

    Parameters
    ----------
    x : array_like, shape (model, ..., token)
        Models first, tokens last.
    mask : array_like of bool, optional
    normalisation : {"RAW", "CLIPPED_MAD"}
    scope : {"run", "model", "panel"}
        What shares one median and MAD.
    clip : float

    Returns
    -------
    ndarray, shape of x
        NaN where masked or without a scale.

    Raises
    ------
    DynstatError
        S404 for an unknown normalisation or scope.
    """
    if normalisation == "RAW":
        return masked(x, mask)
    if normalisation != "CLIPPED_MAD":
        raise DynstatError(
            "S404",
            f"unknown normalisation {normalisation!r}",
            found=normalisation,
            expected="RAW | CLIPPED_MAD",
        )
    ndim = np.ndim(x)
    axes: dict[str, int | tuple[int, ...] | None] = {
        "run": -1,
        "model": tuple(range(1, ndim)) or None,
        "panel": None,
    }
    if scope not in axes:
        raise DynstatError("S404", f"unknown scope {scope!r}", found=scope, expected="run | model | panel")
    return clipped_mad(x, mask, clip=clip, axis=axes[scope]).values


def masked(x: ArrayLike, mask: ArrayLike | None) -> Floats:
    """Return float64 values with NaN where the mask is False."""
    values = np.asarray(x, dtype=np.float64)
    if mask is None:
        return np.where(np.isfinite(values), values, np.nan)
    return np.where(np.asarray(mask, dtype=bool) & np.isfinite(values), values, np.nan)
