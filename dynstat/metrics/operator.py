"""The operator on distributions: concentration pole, competition pole, synchronisation, GD ratio."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .normalisation import masked
from .vocabulary import normalised_entropy

Floats = NDArray[np.float64]


def competition(top1_probability: ArrayLike, top2_probability: ArrayLike) -> Floats:
    """Return the probability of the runner-up over that of the leader.

    Parameters
    ----------
    top1_probability, top2_probability : array_like, shape (...)

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1].

    Notes
    -----
    Formula: ``p_(2) / p_(1)``. Origin dynstat: V20 names competition between the two without a formula.
    """
    p1, p2 = np.asarray(top1_probability, np.float64), np.asarray(top2_probability, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(p1 > 0, p2 / p1, np.nan), 0.0, 1.0)


def kappa_G(
    statistic: ArrayLike, vocabulary: ArrayLike | None = None, *, kind: str = "one_minus_normalised_entropy"
) -> Floats:
    """Return the concentration pole of the operator.

    Parameters
    ----------
    statistic : array_like, shape (...)
        Entropy in nat for ``one_minus_normalised_entropy``, the metric `concentration` for ``top_k``, the
        metric `sum_squares` for ``sum_squares``.
    vocabulary : int or array_like, broadcastable
        Number of valid tokens V; needed with entropy.
    kind : {"one_minus_normalised_entropy", "top_k", "sum_squares"}

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1].

    Raises
    ------
    DynstatError
        S404 for an unknown kind or a missing vocabulary.

    Notes
    -----
    Formula: ``1 - H / ln V``. Origin dynstat: V20 describes a concentration pole, its formula is not
    published.

    Examples
    --------
    >>> float(kappa_G(0.0, 1024))
    1.0
    """
    if kind == "one_minus_normalised_entropy":
        if vocabulary is None:
            raise DynstatError(
                "S404", "kappa_G from entropy needs the number of valid tokens", mend="pass vocabulary="
            )
        return 1 - normalised_entropy(statistic, vocabulary)
    if kind not in ("top_k", "sum_squares"):
        raise DynstatError(
            "S404",
            f"unknown kappa_G {kind!r}",
            found=kind,
            expected="one_minus_normalised_entropy | top_k | sum_squares",
        )
    return np.clip(np.asarray(statistic, dtype=np.float64), 0.0, 1.0)


def kappa_D(top1_probability: ArrayLike, top2_probability: ArrayLike, *, kind: str = "ratio") -> Floats:
    """Return the competition pole of the operator.

    Parameters
    ----------
    top1_probability, top2_probability : array_like, shape (...)
    kind : {"ratio", "damped", "margin"}
        ``p2 / p1``; the same times ``p1 + p2``, which silences flat distributions; ``1 - (p1 - p2)``.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1].

    Raises
    ------
    DynstatError
        S404 for an unknown kind.

    Notes
    -----
    Origin dynstat: V20 describes a competition pole, its formula is not published.

    Examples
    --------
    >>> float(kappa_D(0.4, 0.2)), round(float(kappa_D(0.4, 0.2, kind="damped")), 6)
    (0.5, 0.3)
    """
    p1, p2 = np.asarray(top1_probability, np.float64), np.asarray(top2_probability, np.float64)
    if kind == "margin":
        return np.clip(1 - (p1 - p2), 0.0, 1.0)
    if kind not in ("ratio", "damped"):
        raise DynstatError(
            "S404", f"unknown kappa_D {kind!r}", found=kind, expected="ratio | damped | margin"
        )
    ratio = competition(p1, p2)
    return ratio if kind == "ratio" else np.clip(ratio * (p1 + p2), 0.0, 1.0)


def kappa_sync(synchronisation: ArrayLike, *, axis: int = -1) -> Floats:
    """Return the synchronisation of every token, mean over its layers.

    Parameters
    ----------
    synchronisation : array_like, shape (..., layer)
        NaN at the last layer, which has no next one, and at layers a model does not have.
    axis : int
        The layer axis.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1]; NaN where no layer has a value.

    Notes
    -----
    Formula: mean over layers of ``1 - JSD(p^l, p^{l+1}) / ln 2``. Origin dynstat.
    """
    return _mean(np.asarray(synchronisation, dtype=np.float64), axis)


def gd_ratio(
    G: ArrayLike,
    D: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    axis: int | tuple[int, ...] | None = -1,
    aggregate: str = "ratio",
) -> Floats:
    """Return mean concentration over mean competition.

    Parameters
    ----------
    G, D : array_like
        kappa_G and kappa_D of the same points.
    mask : array_like of bool, optional
        Points to use; those where either is NaN are left out.
    axis : int, tuple of int or None
        Axes to average over: tokens and layers of a run, or all but the models.
    aggregate : {"ratio", "log", "mean_of_logs"}
        ``mean G / mean D`` (published), its natural logarithm (for statistics), or the mean of ``ln(G /
        D)`` over points where both are positive.

    Returns
    -------
    ndarray
        Dimensionless; ratio [0, inf), the others unbounded. NaN where nothing is left or mean D is 0.

    Raises
    ------
    DynstatError
        S404 for an unknown aggregate.

    Notes
    -----
    Formula: ``mean G / mean D`` as published (V20); which G and D is dynstat's choice. Logit scale alone
    moves it from .02 to 3, so it wants the temperature calibration of `calibration` beside it.

    Examples
    --------
    >>> float(gd_ratio([0.2, 0.4], [0.1, 0.1]).round(6))
    3.0
    """
    g, d = masked(G, mask), masked(D, mask)
    both = np.isfinite(g) & np.isfinite(d)
    if aggregate == "mean_of_logs":
        both &= (g > 0) & (d > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return _mean(np.where(both, np.log(g) - np.log(d), np.nan), axis)
    if aggregate not in ("ratio", "log"):
        raise DynstatError(
            "S404", f"unknown aggregate {aggregate!r}", found=aggregate, expected="ratio | log | mean_of_logs"
        )
    top, bottom = _mean(np.where(both, g, np.nan), axis), _mean(np.where(both, d, np.nan), axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(bottom > 0, top / bottom, np.nan)
        return ratio if aggregate == "ratio" else np.log(ratio)


def linear_cka(x: ArrayLike, y: ArrayLike) -> Floats:
    """Return the linear centred kernel alignment of two sets of states of the same tokens.

    Parameters
    ----------
    x : array_like, shape (..., token, dim_x)
    y : array_like, shape (..., token, dim_y)
        Two layers; an option for synchronisation that needs no read-out.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1]; NaN where one set does not vary.

    Notes
    -----
    Formula: ``||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F)`` with centred columns. Source: Kornblith et al. 2019.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    a, b = a - a.mean(axis=-2, keepdims=True), b - b.mean(axis=-2, keepdims=True)

    def squared_norm(u: Floats, v: Floats) -> Floats:
        return np.square(np.swapaxes(u, -1, -2) @ v).sum(axis=(-1, -2))

    scale = np.sqrt(squared_norm(a, a) * squared_norm(b, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, np.clip(squared_norm(a, b) / scale, 0.0, 1.0), np.nan)


def _mean(x: Floats, axis: int | tuple[int, ...] | None) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(x, axis=axis))
