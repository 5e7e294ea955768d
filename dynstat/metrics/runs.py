"""One number a run from its series of ct: ratio_norm and companions, late_ct, flux, debt.

Every function takes ``ct`` of shape (..., token) and a boolean ``mask`` of the tokens to use (generated, not
special, not first); tokens without a value are left out. A run with no values, or with ct 0 throughout where
the definition divides by its mean, gets NaN.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .normalisation import masked

Floats = NDArray[np.float64]

# The one threshold that Paper 1 publishes; it is not unit-free, so it does not carry over to other
# definitions of ct and decides nothing here.
LATE_CT_LEGACY_THRESHOLD = 0.001


def ratio_norm(ct: ArrayLike, mask: ArrayLike | None = None, *, scale: str = "raw") -> Floats:
    """Return the largest over the mean ct of every run.

    Parameters
    ----------
    ct : array_like, shape (..., token)
        Non-negative.
    mask : array_like of bool, optional
    scale : {"raw", "log"}

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [1, T] for T values (log: [0, ln T]).

    Raises
    ------
    DynstatError
        S404 for an unknown scale.

    Notes
    -----
    Formula: ``max_t ct_t / mean_t ct_t``, as published (Paper 1). It grows with T and with the tail of ct
    alone, and a run that freezes after m steps scores about T/(m+1): report it with its null
    (`nulls.length_matched`), mean, maximum, quantiles and a repetition rate.

    Examples
    --------
    >>> ratio_norm([1.0, 1.0, 4.0]).tolist()
    2.0
    """
    values = masked(ct, mask)
    n = np.isfinite(values).sum(axis=-1)
    top, mean = _reduce(np.nanmax, values), _reduce(np.nanmean, values)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding of the mean must not push a constant series below 1.
        ratio = np.where(mean > 0, np.clip(top / mean, 1, np.maximum(n, 1)), np.nan)
    return on_scale(ratio, scale)


def q95_median(ct: ArrayLike, mask: ArrayLike | None = None, *, scale: str = "raw") -> Floats:
    """Return the 95 % quantile over the median of ct.

    Shapes and errors as :func:`ratio_norm`; dimensionless, [1, inf); NaN where the median is 0.
    Formula: ``Q_.95 / Q_.5``, quantiles by linear interpolation (R's type 7). Origin dynstat.
    """
    values = masked(ct, mask)
    q95, median = _quantile(values, 0.95), _quantile(values, 0.5)
    with np.errstate(invalid="ignore", divide="ignore"):
        return on_scale(np.where(median > 0, q95 / median, np.nan), scale)


def coefficient_of_variation(ct: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Return standard deviation over mean of ct.

    Shapes as :func:`ratio_norm`; dimensionless, [0, sqrt(T - 1)]. Formula: ``sd / mean`` with the sd over T.
    Origin dynstat.
    """
    values = masked(ct, mask)
    mean = _reduce(np.nanmean, values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mean > 0, _reduce(np.nanstd, values) / mean, np.nan)


def gini(ct: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Return the Gini coefficient of ct.

    Shapes as :func:`ratio_norm`; dimensionless, [0, 1 - 1/T].
    Formula: ``sum_i (2 i - n - 1) x_(i) / (n sum x)``. Source: Gini 1912. Origin dynstat.

    Examples
    --------
    >>> float(gini([0.0, 0.0, 0.0, 1.0]))
    0.75
    """
    values = np.sort(masked(ct, mask), axis=-1)
    n = np.isfinite(values).sum(axis=-1)
    rank = np.arange(1, values.shape[-1] + 1)
    total = np.nansum(values, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        g = np.nansum((2 * rank - n[..., None] - 1) * values, axis=-1) / (n * total)
    return np.where(total > 0, np.maximum(g, 0.0), np.nan)


def late_ct(
    ct: ArrayLike, mask: ArrayLike | None = None, *, share: float = 0.25, last: int | None = None
) -> Floats:
    """Return mean ct over the end of every run.

    Parameters
    ----------
    ct : array_like, shape (..., token)
    mask : array_like of bool, optional
    share : float
        Last share of the masked tokens, rounded up; in (0, 1).
    last : int, optional
        The last k tokens instead.

    Returns
    -------
    ndarray, shape (...)
        Units of ct, [0, inf). Not unit-free: the published threshold, ``LATE_CT_LEGACY_THRESHOLD``, does not
        carry over between definitions of ct.

    Raises
    ------
    DynstatError
        S404 for a share outside (0, 1) or `last` below 1.

    Notes
    -----
    Origin dynstat: Paper 1 publishes the threshold, not the window nor the average.

    Examples
    --------
    >>> float(late_ct([5.0, 5.0, 5.0, 1.0]))
    1.0
    """
    if not 0 < share < 1 or (last is not None and last < 1):
        raise DynstatError(
            "S404", "share must lie between 0 and 1, last be at least 1", found=f"share={share}, last={last}"
        )
    values = np.asarray(ct, dtype=np.float64)
    use = np.isfinite(values) if mask is None else np.broadcast_to(np.asarray(mask, dtype=bool), values.shape)
    n = use.sum(axis=-1, keepdims=True)
    # Without the small number, .2 of 5 would be 2 tokens by rounding error.
    window = np.ceil(share * n - 1e-9) if last is None else np.asarray(last)
    from_end = np.cumsum(use[..., ::-1], axis=-1)[..., ::-1]
    return _reduce(np.nanmean, masked(values, use & (from_end <= window)))


def flux(
    ct: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    aggregate: str = "mean",
    n_bytes: ArrayLike | None = None,
) -> Floats:
    """Return how much a run moves: mean ct a token, its sum, or its sum a byte of text.

    Parameters
    ----------
    ct : array_like, shape (..., token)
    mask : array_like of bool, optional
    aggregate : {"mean", "sum", "per_byte"}
    n_bytes : array_like, shape (...), optional
        UTF-8 bytes of the text of the masked tokens; needed by per_byte.

    Returns
    -------
    ndarray, shape (...)
        Units of ct (a token, in all, or a byte), [0, inf).

    Raises
    ------
    DynstatError
        S404 for an unknown aggregate or missing bytes.

    Notes
    -----
    Formula: ``mean_t ct_t``. Origin dynstat: the programme uses flux as a word, without a formula.
    """
    values = masked(ct, mask)
    if aggregate == "mean":
        return _reduce(np.nanmean, values)
    total = np.where(np.isfinite(values).any(axis=-1), np.nansum(values, axis=-1), np.nan)
    if aggregate == "sum":
        return total
    if aggregate != "per_byte" or n_bytes is None:
        raise DynstatError(
            "S404",
            f"aggregate {aggregate!r} is unknown or lacks n_bytes",
            found=aggregate,
            expected="mean | sum | per_byte with n_bytes",
        )
    count = np.asarray(n_bytes, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def debt_reference(ct: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, float]:
    """Return mean and standard deviation of ct over all tokens of reference runs, for :func:`debt`.

    Parameters
    ----------
    ct : array_like, shape (..., token)
    mask : array_like of bool, optional

    Returns
    -------
    tuple of float
        mu0 and sigma0 in units of ct.

    Raises
    ------
    DynstatError
        S403 where fewer than two values are left.
    """
    values = masked(ct, mask)
    values = values[np.isfinite(values)]
    if values.size < 2:
        raise DynstatError("S403", "a reference for debt needs at least two values of ct", found=values.size)
    return float(values.mean()), float(values.std(ddof=1))


def cusum(ct: ArrayLike, mask: ArrayLike | None = None, *, mu0: ArrayLike, sigma0: ArrayLike) -> Floats:
    """Return the one-sided CUSUM of ct along every run.

    Parameters
    ----------
    ct : array_like, shape (..., token)
    mask : array_like of bool, optional
        Tokens left out neither add nor subtract.
    mu0, sigma0 : float or array_like, shape (...)
        Mean and standard deviation of a reference, see :func:`debt_reference`.

    Returns
    -------
    ndarray, shape (..., token)
        Units of ct, [0, inf).

    Notes
    -----
    Formula: ``S_t = max(0, S_{t-1} + ct_t - mu0 - k)``, ``k = sigma0 / 2``, ``S_0 = 0``; computed as the
    cumulative sum minus its running minimum. Source: Page 1954.
    """
    values = masked(ct, mask)
    allowance = np.asarray(mu0, dtype=np.float64) + np.asarray(sigma0, dtype=np.float64) / 2
    sums = np.cumsum(np.where(np.isfinite(values), values - allowance[..., None], 0.0), axis=-1)
    return sums - np.minimum(np.minimum.accumulate(sums, axis=-1), 0.0)


def debt(
    ct: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    mu0: ArrayLike | None = None,
    sigma0: ArrayLike | None = None,
    method: str = "cusum",
    statistic: str = "max",
) -> Floats:
    """Return the instability debt of every run.

    Parameters
    ----------
    ct : array_like, shape (..., token)
    mask : array_like of bool, optional
    mu0, sigma0 : float or array_like, shape (...)
        Of a reference, see :func:`debt_reference`; needed by cusum.
    method : {"cusum", "excess_area"}
        One-sided CUSUM, or the area of ct above the run's own median.
    statistic : {"max", "final"}
        Highest or last value of the CUSUM (the area has one value).

    Returns
    -------
    ndarray, shape (...)
        Units of ct, [0, inf).

    Raises
    ------
    DynstatError
        S404 for an unknown option or a missing reference.

    Notes
    -----
    Source: Page 1954. Origin dynstat: the programme speaks of debt without a formula.

    Examples
    --------
    >>> float(debt([1.0, 3.0, 1.0], mu0=1.0, sigma0=1.0))
    1.5
    """
    values = masked(ct, mask)
    some = np.isfinite(values).any(axis=-1)
    if method == "excess_area":
        above = np.maximum(values - _quantile(values, 0.5)[..., None], 0.0)
        return np.where(some, np.nansum(above, axis=-1), np.nan)
    if method != "cusum" or statistic not in ("max", "final"):
        raise DynstatError(
            "S404", f"unknown debt {method!r}, {statistic!r}", expected="cusum | excess_area, max | final"
        )
    if mu0 is None or sigma0 is None:
        raise DynstatError(
            "S404",
            "debt needs the mean and sd of reference runs",
            where="mu0, sigma0",
            mend="learn them with debt_reference on the pilot and state them in the plan",
        )
    path = cusum(values, mu0=mu0, sigma0=sigma0)
    return np.where(some, path.max(axis=-1) if statistic == "max" else path[..., -1], np.nan)


def run_mean(x: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Return the mean over the masked tokens of every run, in the units of x; NaN where none is left.

    Shapes as :func:`ratio_norm`. Elementary.
    """
    return _reduce(np.nanmean, masked(x, mask))


def companions(ct: ArrayLike, mask: ArrayLike | None = None) -> dict[str, Floats]:
    """Return what must stand beside a ratio_norm: n, mean, maximum, quantiles, spread.

    Parameters
    ----------
    ct : array_like, shape (..., token)
    mask : array_like of bool, optional

    Returns
    -------
    dict of str to ndarray, shape (...)
        n, mean, max, q05, median, q95, ratio_norm, q95_median, cv, gini.
    """
    values = masked(ct, mask)
    return {
        "n": np.isfinite(values).sum(axis=-1).astype(np.float64),
        "mean": _reduce(np.nanmean, values),
        "max": _reduce(np.nanmax, values),
        "q05": _quantile(values, 0.05),
        "median": _quantile(values, 0.5),
        "q95": _quantile(values, 0.95),
        "ratio_norm": ratio_norm(values),
        "q95_median": q95_median(values),
        "cv": coefficient_of_variation(values),
        "gini": gini(values),
    }


def on_scale(x: Floats, scale: str) -> Floats:
    """Return x, or its natural logarithm."""
    if scale == "raw":
        return x
    if scale != "log":
        raise DynstatError("S404", f"unknown scale {scale!r}", found=scale, expected="raw | log")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(x)


def _reduce(how, values: Floats) -> Floats:  # type: ignore[no-untyped-def]
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    with warnings.catch_warnings():
        # An all-NaN run is ordinary (frozen, empty) and its NaN is the answer.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(how(values, axis=-1))


def _quantile(values: Floats, q: float) -> Floats:
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanquantile(values, q, axis=-1))
