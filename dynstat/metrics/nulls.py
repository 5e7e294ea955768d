"""Nulls of ratio_norm: what run length, and the marginal shape of ct, give by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from ..inference.resample import Rng, as_generator, monte_carlo_p
from .normalisation import masked
from .runs import ratio_norm

Floats = NDArray[np.float64]

REASONS = ("ok", "no_values", "no_pool")


@dataclass(frozen=True)
class RatioNull:
    """Draws of ratio_norm under a null, beside what was observed.

    Attributes
    ----------
    kind : str
        "length_matched" or "shape_matched".
    scale : str
        "raw" or "log"; observed and draws are on it.
    observed : ndarray, shape (...)
    draws : ndarray, shape (replicates, ...)
    mean, sd : ndarray, shape (...)
        Of the draws.
    z : ndarray, shape (...)
        ``(observed - mean) / sd``.
    p : ndarray, shape (...)
        Monte-Carlo p of a ratio at least as large, ``(1 + #) / (1 + B)``.
    reason : ndarray of int8
        Index in ``REASONS``; z and p are NaN where it is not 0. A run that is frozen throughout has no values
        relative to its mean.
    seed : int or None
        None where a generator was passed.
    """

    kind: str
    scale: str
    observed: Floats
    draws: Floats
    mean: Floats
    sd: Floats
    z: Floats
    p: Floats
    reason: NDArray[np.int8]
    seed: int | None


def length_matched(
    ct: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    replicates: int = 999,
    scale: str = "raw",
    rng: Rng = None,
) -> RatioNull:
    """Draw ratio_norm of runs of the same length from ct pooled over the panel.

    Parameters
    ----------
    ct : array_like, shape (..., token)
        The leading dims together are the panel.
    mask : array_like of bool, optional
    replicates : int
        Draws a run.
    scale : {"raw", "log"}
    rng : Generator or int, optional

    Returns
    -------
    RatioNull

    Raises
    ------
    DynstatError
        S404 for fewer than two replicates.

    Notes
    -----
    For a run of T values: T draws with replacement from ct / run mean of every run of the panel, and
    ``max / mean`` of them. A permutation within the run leaves max / mean as it is and is no null. Origin
    dynstat.
    """
    return _null("length_matched", np.asarray(ct), mask, replicates, scale, rng)


def shape_matched(
    ct: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    replicates: int = 999,
    scale: str = "raw",
    rng: Rng = None,
) -> RatioNull:
    """Draw ratio_norm of runs of the same length from ct of the same model's other runs.

    Parameters
    ----------
    ct : array_like, shape (model, ..., token)
        Models first.
    mask, replicates, scale, rng
        As for :func:`length_matched`.

    Returns
    -------
    RatioNull
        Reason "no_pool" where a model has no other run.

    Raises
    ------
    DynstatError
        S404 for fewer than two replicates or no model axis.

    Notes
    -----
    As :func:`length_matched`, the pool being ct / run mean of the model's runs without this one, so that the
    model's own marginal shape is allowed for. Origin dynstat.
    """
    values = np.asarray(ct)
    if values.ndim < 2:
        raise DynstatError("S404", "shape_matched needs models on the first axis", found=values.shape)
    return _null("shape_matched", values, mask, replicates, scale, rng)


def ratio_norm_z(
    ct: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    null: str = "length_matched",
    replicates: int = 999,
    scale: str = "raw",
    rng: Rng = 0,
) -> Floats:
    """Return ratio_norm standardised by one of its nulls.

    Shapes and errors as the null; dimensionless, unbounded. Formula: ``(x - mean(null)) / sd(null)``. Origin
    dynstat.
    """
    if null not in ("length_matched", "shape_matched"):
        raise DynstatError(
            "S404", f"unknown null {null!r}", found=null, expected="length_matched | shape_matched"
        )
    how = length_matched if null == "length_matched" else shape_matched
    return how(ct, mask, replicates=replicates, scale=scale, rng=rng).z


def _null(kind: str, ct: Floats, mask: ArrayLike | None, replicates: int, scale: str, rng: Rng) -> RatioNull:
    if replicates < 2:
        raise DynstatError("S404", "a null needs at least two replicates", found=replicates)
    generator, seed = as_generator(rng)
    values = masked(ct, mask)
    shape = values.shape[:-1]
    observed = ratio_norm(values, scale=scale)
    with np.errstate(invalid="ignore"):
        relative = values / np.nansum(values, axis=-1, keepdims=True)
    flat = (relative * np.isfinite(values).sum(axis=-1, keepdims=True)).reshape(-1, values.shape[-1])
    groups = np.zeros(len(flat), dtype=np.intp)
    if kind == "shape_matched":
        groups = np.repeat(np.arange(shape[0]), len(flat) // max(shape[0], 1))

    draws = np.full((replicates, len(flat)), np.nan)
    reason = np.zeros(len(flat), dtype=np.int8)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        runs = [row[np.isfinite(row)] for row in flat[members]]
        pool = np.concatenate(runs) if runs else np.empty(0)
        starts = np.concatenate([[0], np.cumsum([r.size for r in runs])])
        for i, run in zip(members, range(len(runs)), strict=True):
            size = runs[run].size
            left_out = size if kind == "shape_matched" else 0
            if size == 0 or pool.size == left_out:
                reason[i] = 1 if size == 0 else 2
                continue
            index = generator.integers(0, pool.size - left_out, size=(replicates, size))
            if left_out:
                index += np.where(index >= starts[run], left_out, 0)
            draws[:, i] = ratio_norm(pool[index], scale=scale)
    return _summarise(kind, scale, observed, draws.reshape(replicates, *shape), reason.reshape(shape), seed)


def _summarise(
    kind: str, scale: str, observed: Floats, draws: Floats, reason: NDArray[np.int8], seed: int | None
) -> RatioNull:
    flat = draws.reshape(len(draws), -1)
    mean, sd, p = (np.full(flat.shape[1], np.nan) for _ in range(3))
    for i, value in enumerate(np.ravel(observed)):
        # A draw of zeros only has no ratio.
        column = flat[np.isfinite(flat[:, i]), i]
        if column.size > 1 and np.isfinite(value):
            mean[i], sd[i], p[i] = column.mean(), column.std(ddof=1), monte_carlo_p(float(value), column)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(sd > 0, (observed.ravel() - mean) / sd, np.nan)
    a, b, c, d = (values.reshape(observed.shape) for values in (mean, sd, z, p))
    return RatioNull(kind, scale, observed, draws, a, b, c, d, reason, seed)
