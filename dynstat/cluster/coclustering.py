"""How often two items fall in one cluster over many partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ..errors import DynstatError

if TYPE_CHECKING:
    from .partition import Partition

Array = NDArray[np.float64]
Labels = NDArray[np.intp]


def co_clustering(labels: ArrayLike, present: ArrayLike | None = None) -> Array:
    """Return the share of partitions in which two items lie in one cluster.

    ``M_ij = Σ_b [c_bi = c_bj ≠ noise] / Σ_b [i and j present in b]``

    Parameters
    ----------
    labels : array_like of int, shape (B, n)
        A partition a row; −1 is noise, which is together with nothing, itself included.
    present : array_like of bool, shape (B, n), optional
        Whether the item was in that subsample. Default: always.

    Returns
    -------
    ndarray, shape (n, n)
        Symmetric, 0 to 1. The diagonal is the share in which the item was in a cluster at all. NaN for items
        that were never present together.

    Raises
    ------
    DynstatError
        S404 for labels of another shape.

    Notes
    -----
    Source: Monti, Tamayo, Mesirov and Golub 2003, Machine Learning 52: 91-118.

    Examples
    --------
    >>> co_clustering([[0, 0, 1], [0, 1, 1]]).tolist()
    [[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 1.0]]
    """
    given = np.asarray(labels)
    if given.ndim != 2 or given.shape[0] < 1 or given.dtype.kind not in "iu":
        raise DynstatError(
            "S404",
            "labels are no table of partitions by items",
            found=f"shape {given.shape}, {given.dtype}",
            expected="whole numbers, a row a partition, −1 for noise",
        )
    here = None if present is None else np.asarray(present, dtype=bool)
    if here is not None and here.shape != given.shape:
        raise DynstatError("S404", "present does not fit the labels", found=here.shape, expected=given.shape)
    if here is None:
        return together(given[None])[0] / given.shape[0]
    count = here.T.astype(np.float64) @ here
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(together(np.where(here, given, -1)[None])[0] / count)


def together(labels: Labels) -> Array:
    """Return in how many partitions two items lie in one cluster: (C, B, n) → (C, n, n)."""
    sets, partitions, n = labels.shape
    k = int(labels.max(initial=-1)) + 1
    out = np.zeros((sets, n, n))
    if k == 0:
        return out
    clusters = np.arange(k)
    # float32 counts exactly up to 2²⁴ partitions.
    step = max(1, 4_000_000 // max(1, partitions * k * n))
    for start in range(0, sets, step):
        some = labels[start : start + step]
        one_hot = (some[:, :, None, :] == clusters[:, None]).astype(np.float32)
        flat = one_hot.reshape(some.shape[0], partitions * k, n)
        out[start : start + step] = np.swapaxes(flat, 1, 2) @ flat
    return out


def jeffreys(count: ArrayLike, n: int, level: float = 0.95) -> tuple[Array, Array]:
    """Return Jeffreys' interval of a share: quantiles of Beta(x + ½, n − x + ½), 0 at x = 0, 1 at x = n.

    Notes
    -----
    Source: Brown, Cai and DasGupta 2001, Stat. Sci. 16: 101-133.
    """
    x = np.asarray(count, dtype=np.float64)
    a = (1 - level) / 2
    low = np.where(x <= 0, 0.0, special.betaincinv(x + 0.5, n - x + 0.5, a))
    high = np.where(x >= n, 1.0, special.betaincinv(x + 0.5, n - x + 0.5, 1 - a))
    return np.asarray(low), np.asarray(high)


def recluster_many(partition: Partition, values: Array) -> Labels:
    """Return the labels that the method of `partition` gives on many sets of values.

    Parameters
    ----------
    values : ndarray, shape (B, n, p)

    Returns
    -------
    ndarray of int, shape (B, n)
    """
    from threadpoolctl import threadpool_limits

    from .many_cuts import LINKAGES, METRICS, cut_many

    how = partition.parameters
    if (
        partition.method == "hierarchical"
        and how.get("height") is None
        and how.get("linkage") in LINKAGES
        and how.get("metric") in METRICS
    ):
        return cut_many(values, partition.n_clusters, how["linkage"], how["metric"])
    with threadpool_limits(1):
        return np.stack([partition.recluster(x) for x in values])
