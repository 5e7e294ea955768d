"""Cells: rows that stand for several observations, and rows of unequal precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """What every row of a design stands for.

    Observations that agree in all columns but the outcome enter a mixed model through their weighted mean and
    their sum of squares about it, exactly: the rows are rotated, one row of the cell carries the mean, the
    others are noise alone. Rows of known precision (lme4's ``weights``) are cells of one observation.

    Attributes
    ----------
    weights : ndarray, shape (n,)
        Sum of the observations' weights.
    within : ndarray, shape (n,)
        Their weighted sum of squares about the cell's mean.
    counts : ndarray, shape (n,)
        Number of observations.
    log_weights : ndarray, shape (n,)
        Sum of the logarithms of their weights.
    """

    weights: Array
    within: Array
    counts: Array
    log_weights: Array

    @property
    def nobs(self) -> int:
        """Number of observations."""
        return int(self.counts.sum())

    @property
    def root(self) -> Array:
        """Square roots of the weights, by which rows are multiplied."""
        return np.sqrt(self.weights)

    @property
    def equal(self) -> bool:
        """Whether every row stands for equally many observations of weight one."""
        return bool(np.ptp(self.counts) == 0 and np.array_equal(self.weights, self.counts))

    def subset(self, rows: NDArray[np.intp]) -> Cells:
        """Return the cells of some rows."""
        return Cells(self.weights[rows], self.within[rows], self.counts[rows], self.log_weights[rows])


def precision(weights: ArrayLike) -> Cells:
    """Return cells of one observation each, with known precision.

    Raises
    ------
    DynstatError
        S402 where a weight is not a positive finite number.
    """
    w = np.asarray(weights, dtype=np.float64)
    if bad := int(np.sum(~(np.isfinite(w) & (w > 0)))):
        raise DynstatError(
            "S402",
            "weights must be positive finite numbers",
            where="weights",
            found=f"{bad} others",
            expected="numbers above zero",
            mend="drop these rows",
        )
    return Cells(w, np.zeros(w.size), np.ones(w.size), np.log(w))
