"""Agglomerative clustering of many small sets of the same items at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError

Array = NDArray[np.float64]
Labels = NDArray[np.intp]

METHODS = ("single", "complete", "average", "weighted", "ward")
METRICS = ("euclidean", "sqeuclidean", "cityblock", "cosine", "correlation")
# R's words for the same.
_ALIASES = {"ward.d2": "ward", "mcquitty": "weighted", "upgma": "average", "manhattan": "cityblock"}
# Above this many items one call of scipy a set is faster than steps over all sets together.
_FEW = 40
# Sets worked on together, so that their distances stay in the processor's cache.
_CHUNK = 250_000


def linkage_name(method: str) -> str:
    """Return scipy's name of a linkage; R's ``ward.D2`` and ``mcquitty`` are understood.

    Raises
    ------
    DynstatError
        S404 for any other.
    """
    name = _ALIASES.get(method.lower(), method.lower())
    if name not in METHODS:
        raise DynstatError("S404", f"unknown linkage {method!r}", expected=" | ".join(METHODS))
    return name


def distances(data: Array, metric: str = "euclidean") -> Array:
    """Return distances between the rows of many matrices, shape (..., n, n), the diagonal 0.

    Parameters
    ----------
    data : ndarray, shape (..., n, p)
    metric : {"euclidean", "sqeuclidean", "cityblock", "cosine", "correlation"}
    """
    metric = _ALIASES.get(metric.lower(), metric.lower())
    if metric not in METRICS:
        raise DynstatError("S404", f"unknown distance {metric!r}", expected=" | ".join(METRICS))
    x = np.asarray(data, dtype=np.float64)
    if metric in ("cosine", "correlation"):
        if metric == "correlation":
            x = x - x.mean(axis=-1, keepdims=True)
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            x = x / norm
        out = np.clip(1.0 - x @ np.swapaxes(x, -1, -2), 0.0, 2.0)
        at = np.arange(out.shape[-1])
        out[..., at, at] = 0.0
        return np.asarray(out)
    out = np.zeros((*x.shape[:-1], x.shape[-2]))
    # Column by column: the differences themselves, not |a|² + |b|² − 2ab, which loses digits.
    for c in range(x.shape[-1]):
        gap = x[..., :, None, c] - x[..., None, :, c]
        out += np.abs(gap) if metric == "cityblock" else gap * gap
    return np.sqrt(out) if metric == "euclidean" else out


def cut_many(data: Array, ks: int | Sequence[int], method: str = "ward", metric: str = "euclidean") -> Labels:
    """Cluster the rows of many matrices and cut every tree into k clusters.

    Equal to scipy's ``linkage`` and a cut by number for every matrix by itself. Clusters are numbered by
    their first item.

    Parameters
    ----------
    data : ndarray, shape (B, n, p)
    ks : int or sequence of int
        Numbers of clusters, 1 to n.
    method : {"single", "complete", "average", "weighted", "ward"}
    metric : str
        See :func:`distances`. Ward needs euclidean.

    Returns
    -------
    ndarray of intp, shape (B, n), or (len(ks), B, n) for several k.

    Raises
    ------
    DynstatError
        S404 unknown linkage or distance; S405 k outside 1 to n.
    """
    name = linkage_name(method)
    wanted = [int(ks)] if isinstance(ks, int | np.integer) else [int(k) for k in ks]
    x = np.asarray(data, dtype=np.float64)
    sets, n = x.shape[0], x.shape[1]
    if name == "ward" and metric != "euclidean":
        raise DynstatError("S404", "Ward's linkage needs euclidean distances", found=metric)
    for k in wanted:
        if not 1 <= k <= n:
            raise DynstatError(
                "S405", "items cannot form that many clusters", found=f"{n} items, k = {k}", expected="1 to n"
            )
    out = np.empty((len(wanted), sets, n), dtype=np.intp)
    step = max(1, _CHUNK // (n * n))
    for start in range(0, sets, step):
        here = slice(start, start + step)
        square = distances(x[here], "sqeuclidean" if name == "ward" else metric)
        if n <= _FEW:
            _cut_together(square, name, wanted, out[:, here])
        else:
            above = np.triu_indices(n, 1)
            condensed = square[:, above[0], above[1]]
            trees = linkages(np.sqrt(condensed) if name == "ward" else condensed, name)
            for at, k in enumerate(wanted):
                out[at, here] = cut_trees(trees, k)
    return out[0] if isinstance(ks, int | np.integer) else out


def _cut_together(d: Array, method: str, ks: Sequence[int], out: Labels) -> None:
    """Merge the nearest two in every set at once (Lance and Williams 1967); `d` is overwritten.

    For Ward `d` holds squared distances: the same order of merges.
    """
    sets, n = d.shape[0], d.shape[1]
    every = np.arange(sets)
    at = np.arange(n)
    d[:, at, at] = np.inf
    # A cluster goes by its first item, so numbering by root is numbering by first appearance.
    root = np.tile(at, (sets, 1))
    size = np.ones((sets, n))
    flat = d.reshape(sets, n * n)
    for clusters in range(n, 0, -1):
        for position, k in enumerate(ks):
            if k == clusters:
                is_root = root == at
                out[position] = np.take_along_axis(np.cumsum(is_root, axis=1) - 1, root, axis=1)
        if clusters <= min(ks):
            return
        best = flat.argmin(axis=1)
        i, j = best // n, best % n
        to_i, to_j = d[every, i], d[every, j]
        si, sj = size[every, i][:, None], size[every, j][:, None]
        if method == "single":
            new = np.minimum(to_i, to_j)
        elif method == "complete":
            new = np.maximum(to_i, to_j)
        elif method == "weighted":
            new = (to_i + to_j) / 2
        elif method == "average":
            new = (si * to_i + sj * to_j) / (si + sj)
        else:
            between = d[every, i, j][:, None]
            new = ((si + size) * to_i + (sj + size) * to_j - size * between) / (si + sj + size)
        new[every, i] = np.inf
        d[every, i] = new
        d[every, :, i] = new
        d[every, j] = np.inf
        d[every, :, j] = np.inf
        size[every, i] += size[every, j]
        root = np.where(root == j[:, None], i[:, None], root)


def linkages(condensed: Array, method: str) -> Array:
    """Return scipy's linkage matrix of every row of condensed distances, shape (B, n − 1, 4)."""
    from scipy.cluster.hierarchy import linkage

    return np.stack([linkage(row, method) for row in np.ascontiguousarray(condensed)])


def cut_trees(trees: Array, k: int) -> Labels:
    """Cut many linkage matrices into k clusters, numbered by their first item: shape (B, n)."""
    sets, merges = trees.shape[0], trees.shape[1]
    n = merges + 1
    node = np.tile(np.arange(n), (sets, 1))
    for step in range(n - k):
        a, b = trees[:, step, :1], trees[:, step, 1:2]
        node[(node == a) | (node == b)] = n + step
    return first_appearance(node)


def first_appearance(labels: Labels) -> Labels:
    """Number the clusters of every row anew by their first item; −1 (noise) stays."""
    labels = np.asarray(labels)
    out = np.full(labels.shape, -1, dtype=np.intp)
    count = np.zeros(labels.shape[0], dtype=np.intp)
    for i in range(labels.shape[1]):
        fresh = (out[:, i] < 0) & (labels[:, i] != -1)
        same = (labels == labels[:, i : i + 1]) & fresh[:, None]
        out = np.where(same, count[:, None], out)
        count += fresh
    return out
