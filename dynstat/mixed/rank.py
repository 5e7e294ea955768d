"""The triangular factor of fixed columns that are far from dependent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[np.float64]
# Condition of the scaled columns up to which X'X loses no digits that matter.
_CONDITION = 1e3


def easy_root(x: Array) -> Array | None:
    """Return the Cholesky factor of X'X where columns, scaled to length one, are far from dependent."""
    products = x.T @ x
    lengths = np.sqrt(np.diag(products))
    if not np.isfinite(lengths).all() or not lengths.all():
        return None
    scaled, info = linalg.lapack.dpotrf(products / np.outer(lengths, lengths), lower=0, clean=1)
    if info != 0 or (scaled.size and np.linalg.cond(scaled) > _CONDITION):
        return None
    return np.asarray(scaled * lengths)


def solve_normal(r: Array, right: Array) -> Array:
    """Solve R'R b = right."""
    if not r.size:
        return np.zeros_like(right)
    return np.asarray(linalg.solve_triangular(r, linalg.solve_triangular(r, right, trans="T")))
