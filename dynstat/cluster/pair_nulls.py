"""What pairs do in structureless data: clouds with the noise of the data, and p-values by rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .coclustering import together
from .features import standardized
from .many_cuts import cut_many
from .null_sets import structureless_many

if TYPE_CHECKING:
    from .unit_features import UnitFeatures

Array = NDArray[np.float64]

NULLS = {
    "rotation": "structureless clouds: items rotated at random, their mean and covariance kept",
    "gaussian": "structureless clouds: items drawn from one Gaussian fitted to them",
}
# Clouds worked on together.
_CHUNK = 3_000_000


def rank_p(observed: Array, null: Array) -> tuple[NDArray[np.intp], Array, Array]:
    """Return rank, p by rank and p of any pair, for pair frequencies and the sorted ones of clouds.

    Parameters
    ----------
    observed : ndarray, shape (pairs,)
    null : ndarray, shape (clouds, pairs)
        Highest first.
    """
    # Shares of the same number of replicates: half a step guards the comparison against rounding.
    eps = 1e-9
    rank = (observed[None, :] >= observed[:, None] - eps).sum(axis=1)
    p = (1 + (null[:, rank - 1] >= observed - eps).sum(axis=0)) / (1 + null.shape[0])
    p_any = (1 + (null[:, :1] >= observed - eps).sum(axis=0)) / (1 + null.shape[0])
    return rank, np.asarray(p), np.asarray(p_any)


def scaled(values: Array, units: UnitFeatures) -> Array:
    """Standardise many builds of features where the units ask for it."""
    return standardized(values) if units.standardize else values


@dataclass(frozen=True)
class Clouds:
    """Structureless clouds with the noise of the data's replicates, shape (replicates, items, columns)."""

    units: UnitFeatures
    centre: Array
    noise: Array
    k: int
    method: str
    metric: str
    kind: str

    def frequencies(self, count: int, rng: np.random.Generator) -> Array:
        """Return pair frequencies of `count` clouds, highest first, shape (count, pairs)."""
        b, n, p = self.noise.shape
        i, j = np.triu_indices(n, 1)
        out = np.empty((count, i.size))
        step = max(1, _CHUNK // (b * n * max(p, self.k)))
        for start in range(0, count, step):
            some = structureless_many(self.centre[None], self.kind, min(step, count - start), rng)[0]
            values = scaled((some[:, None] + self.noise).reshape(-1, n, p), self.units)
            labels = cut_many(values, self.k, self.method, self.metric).reshape(-1, b, n)
            out[start : start + step] = -np.sort(-together(labels)[:, i, j] / b, axis=1)
        return out
