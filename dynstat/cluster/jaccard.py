"""How well clusters are found again: Jaccard a cluster, adjusted Rand a partition, for many replicates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The label of an item that is not compared: not drawn, or replaced.
from .many_cuts import ABSENT

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def contingency(reference: Codes, found: Codes) -> Array:
    """Count items by their labels in two partitions, a table a replicate.

    Parameters
    ----------
    reference, found : ndarray of int, shape (B, m)
        Labels from 0; −1 for noise. An item with −2 in either is not counted. They are broadcast.

    Returns
    -------
    ndarray, shape (B, k + 1, l + 1)
        Noise is the last row and the last column.
    """
    reference, found = np.broadcast_arrays(reference, found)
    b = found.shape[0]
    k = int(reference.max(initial=-1)) + 1
    q = int(found.max(initial=-1)) + 1
    code = np.where(reference < 0, k, reference) * (q + 1) + np.where(found < 0, q, found)
    code = code + (np.arange(b) * ((k + 1) * (q + 1)))[:, None]
    counted = (reference != ABSENT) & (found != ABSENT)
    counts = np.bincount(code[counted], minlength=b * (k + 1) * (q + 1))
    return counts.reshape(b, k + 1, q + 1).astype(np.float64)


def best_jaccard(table: Array) -> Array:
    """Return the Jaccard of every reference cluster with the found cluster nearest to it.

    max over found clusters D of |C ∩ D| / |C ∪ D|, 0 where both are empty. Clusters are compared with
    clusters, noise with noise only.

    Parameters
    ----------
    table : ndarray, shape (B, k + 1, l + 1)
        From :func:`contingency`.

    Returns
    -------
    ndarray, shape (B, k + 1)
        The last column is that of noise.

    Notes
    -----
    Source: Hennig 2007, Comput. Stat. Data Anal. 52: 258-271; as in R's ``fpc::clusterboot``.
    """
    union = table.sum(axis=2, keepdims=True) + table.sum(axis=1, keepdims=True) - table
    with np.errstate(invalid="ignore"):
        ratio = np.where(union > 0, table / union, 0.0)
    clusters = ratio[:, :-1, :-1].max(axis=2, initial=0.0)
    return np.concatenate([clusters, ratio[:, -1:, -1]], axis=1)


def adjusted_rand_of(table: Array) -> Array:
    """Return the adjusted Rand index of every table; noise counts as one cluster more.

    1 where both partitions are one cluster, or both all singletons.

    Parameters
    ----------
    table : ndarray, shape (B, r, c)

    Returns
    -------
    ndarray, shape (B,)

    Notes
    -----
    Source: Hubert and Arabie 1985, J. Classif. 2: 193-218.
    """

    def pairs(counts: Array) -> Array:
        return counts * (counts - 1) / 2

    both = pairs(table).sum(axis=(1, 2))
    rows = pairs(table.sum(axis=2)).sum(axis=1)
    columns = pairs(table.sum(axis=1)).sum(axis=1)
    every = pairs(table.sum(axis=(1, 2)))
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = np.where(every > 0, rows * columns / every, 0.0)
        spread = (rows + columns) / 2 - chance
        return np.asarray(np.where(spread > 0, (both - chance) / spread, 1.0))
