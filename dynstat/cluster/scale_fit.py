"""AU, BP and SI of a dendrogram node from how often it is there at several scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ..errors import DynstatError

Array = NDArray[np.float64]

_COLUMNS = ("si", "au", "bp", "se.si", "se.au", "se.bp", "v", "c", "pchi")
# Shares this near 0 or 1 tell nothing of their normal score.
_EDGE = 1e-3
FEWEST_SCALES = 3


def multiscale_fit(count: ArrayLike, scales: ArrayLike, replicates: int) -> pd.DataFrame:
    """Return AU, BP and their errors from counts of nodes at several scales, as pvclust's ``msfit``.

    z_r = −Φ⁻¹(count/B), B replicates, is fitted by v√r + c/√r, weights φ(z)²·B/(BP(1 − BP)), over the scales
    whose share lies between .001 and .999. AU = Φ(−(v − c)), BP = Φ(−(v + c)), SI = 1 − Φ(v − c)/Φ(−c)
    (selective inference, in [0, 1]); errors by the delta method. With fewer than three such scales all
    are 0 where the mean share is below ½, else 1.

    Parameters
    ----------
    count : array_like of int, shape (nodes, scales)
    scales : array_like, shape (scales,)
        r, the number of features drawn over that of all.
    replicates : int

    Returns
    -------
    DataFrame
        si, au, bp, se.si, se.au, se.bp, v, c, pchi; pchi is the p of the fit's residual chi-square.

    Raises
    ------
    DynstatError
        S404 where counts do not fit the scales or exceed `replicates`.
    """
    counts = np.atleast_2d(np.asarray(count, dtype=np.float64))
    r = np.asarray(scales, dtype=np.float64)
    if counts.shape[1:] != r.shape or (counts < 0).any() or (counts > replicates).any():
        raise DynstatError(
            "S404",
            "counts do not fit",
            found=f"shape {counts.shape}",
            expected=f"(nodes, {r.size}), 0 to {replicates}",
        )
    return pd.DataFrame([_fit_one(row / replicates, r, replicates) for row in counts], columns=list(_COLUMNS))


def _fit_one(bp: Array, r: Array, replicates: int) -> tuple[float, ...]:
    use = (bp > _EDGE) & (bp < 1 - _EDGE)
    if use.sum() < FEWEST_SCALES:
        flat = 0.0 if bp.mean() < 0.5 else 1.0
        return (flat, flat, flat, *[0.0] * 6)
    bp, r = bp[use], r[use]
    z = -special.ndtri(bp)
    variance = (1 - bp) * bp / (_density(z) ** 2 * replicates)
    x = np.column_stack([np.sqrt(r), 1 / np.sqrt(r)])
    root = np.sqrt(1 / variance)
    v, c = np.linalg.lstsq(x * root[:, None], z * root, rcond=None)[0]
    cov = np.linalg.inv(x.T @ (x / variance[:, None]))
    z_au, z_bp = v - c, v + c
    away, d0 = special.ndtr(z_au), special.ndtr(-c)
    si = float(np.clip(1 - away / d0, 0.0, 1.0))
    d1, d2 = _density(z_au) / d0, away * _density(c) / d0**2
    h = np.array([d1, d2 - d1])
    se_si = float(np.sqrt(h @ cov @ h)) if 0 < si < 1 else 0.0
    h_au, h_bp = np.array([1.0, -1.0]), np.array([1.0, 1.0])
    se_au = float(_density(z_au) * np.sqrt(h_au @ cov @ h_au))
    se_bp = float(_density(z_bp) * np.sqrt(h_bp @ cov @ h_bp))
    rss = float(np.sum((z - x @ np.array([v, c])) ** 2 / variance))
    df = int(use.sum()) - 2
    pchi = float(special.chdtrc(df, rss)) if df > 0 else 1.0
    au, simple = float(special.ndtr(-z_au)), float(special.ndtr(-z_bp))
    return (si, au, simple, se_si, se_au, se_bp, float(v), float(c), pchi)


def _density(z: Any) -> Any:
    return np.exp(-np.square(z) / 2) / np.sqrt(2 * np.pi)
