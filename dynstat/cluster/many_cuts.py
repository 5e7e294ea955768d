"""Agglomerative clustering of many sets at once, or of many subsets of each, cut into k clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from .linkage_trees import cut_tree

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

LINKAGES = ("single", "complete", "average", "weighted", "ward")
METRICS = ("euclidean", "sqeuclidean", "cityblock", "cosine", "correlation")
#: Label of an item that is not in the subset.
ABSENT = -2
#: Above this many items one call of scipy a set is faster than steps over all sets together.
_FEW = 40
#: Distances held at once, in numbers: what stays in the processor's cache.
_CHUNK = 60_000


def distances(x: Array, metric: str = "euclidean") -> Array:
    """Return distances between the items of many sets, shape (..., n, n), the diagonal 0.

    Parameters
    ----------
    x : ndarray, shape (..., n, p)
    metric : {"euclidean", "sqeuclidean", "cityblock", "cosine", "correlation"}
        NaN where the last two have no value.

    Raises
    ------
    DynstatError
        S404 for another metric.
    """
    if metric not in METRICS:
        raise DynstatError("S404", "unknown metric", found=metric, expected=" | ".join(METRICS))
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
    # Differences, one feature at a time: the product form loses half of the digits of near neighbours.
    out = np.zeros((*x.shape[:-1], x.shape[-2]))
    for j in range(x.shape[-1]):
        gap = x[..., :, None, j] - x[..., None, :, j]
        out += np.abs(gap) if metric == "cityblock" else gap * gap
    return np.sqrt(out) if metric == "euclidean" else out


def cut_many(
    x: Array,
    k: int | Sequence[int],
    method: str = "ward",
    metric: str = "euclidean",
    *,
    present: NDArray[np.bool_] | None = None,
) -> Codes:
    """Cluster many sets of items hierarchically and cut every tree into k clusters.

    The same partitions as scipy's ``linkage`` cut into k clusters, a set at a time, ties apart.

    Parameters
    ----------
    x : ndarray, shape (M, n, p)
    k : int or sequence of int
        Clusters; sets of fewer items are left in single items.
    method : {"single", "complete", "average", "weighted", "ward"}
    metric : str
        See :func:`distances`; ward is defined for euclidean alone.
    present : bool ndarray, shape (B, n) or (M, B, n), optional
        Subsets of every set, each clustered alone. Default: the whole set.

    Returns
    -------
    ndarray of int, shape (M, n) or (M, B, n); several k come first, shape (K, M, n) or (K, M, B, n)
        Labels 0..k−1 in order of first appearance, −2 for items not present.

    Raises
    ------
    DynstatError
        S404 for another linkage or metric, or k below 1; S405 for distances that have no value.
    """
    if method not in LINKAGES:
        raise DynstatError("S404", "unknown linkage", found=method, expected=" | ".join(LINKAGES))
    if method == "ward" and metric != "euclidean":
        raise DynstatError("S404", "ward linkage is defined for Euclidean distances alone", found=metric)
    ks = [k] if isinstance(k, int | np.integer) else list(k)
    if min(ks) < 1:
        raise DynstatError("S404", "k is no number of clusters", found=min(ks), expected="from 1")
    m, n, _ = x.shape
    masks = np.ones((1, n), dtype=bool) if present is None else present
    b = masks.shape[-2]
    out = np.empty((len(ks), m * b, n), dtype=np.intp)
    step = max(1, _CHUNK // (n * n))
    # Ward's order of merges is that of squared distances.
    kind = "sqeuclidean" if method == "ward" else metric
    for start in range(0, m * b, step):
        here = np.arange(start, min(start + step, m * b))
        first = int(here[0]) // b
        d = distances(x[first : int(here[-1]) // b + 1], kind)
        if not np.isfinite(d).all():
            raise DynstatError("S405", f"the {metric} distance of two items has no value", found="NaN")
        mask = masks[here % b] if masks.ndim == 2 else masks[here // b, here % b]
        cut = _cut_together if n <= _FEW else _cut_by_scipy
        out[:, here] = cut(d, here // b - first, mask, ks, method)
    shaped = out.reshape(len(ks), m, b, n)
    shaped = shaped[:, :, 0] if present is None else shaped
    return shaped[0] if isinstance(k, int | np.integer) else shaped


def _cut_together(
    of_sets: Array, which: Codes, present: NDArray[np.bool_], ks: Sequence[int], method: str
) -> Codes:
    """Merge the nearest two clusters in every subset at once (Lance and Williams 1967)."""
    # Smallest first: whatever still has more than k clusters is at the end, and a view.
    order: Any = np.argsort(present.sum(axis=1), kind="stable")
    whole = len(of_sets) == len(present) and bool(present.all())
    if whole:
        order = slice(None)
    present = present[order]
    left = present.sum(axis=1)
    subsets, n = present.shape
    d = of_sets if whole else of_sets[which[order]]
    at = np.arange(n)
    d[:, at, at] = np.inf
    if (left < n).any():
        d[~present] = np.inf
        np.swapaxes(d, 1, 2)[~present] = np.inf
    size = present.astype(np.float64)
    # A cluster goes by its first item.
    root = np.where(present, at, ABSENT)
    out = np.empty((len(ks), subsets, n), dtype=np.intp)
    for k in sorted(set(ks), reverse=True):
        while (start := int(np.searchsorted(left, k, side="right"))) < subsets:
            _merge(d[start:], size[start:], root[start:], method)
            left[start:] -= 1
        numbered = _numbered(root)
        for position in (i for i, wanted in enumerate(ks) if wanted == k):
            out[position, order] = numbered
    return out


def _merge(d: Array, size: Array, root: Codes, method: str) -> None:
    """Merge the nearest two clusters of every set; everything is changed in place."""
    every, n = np.arange(len(d)), d.shape[1]
    best = d.reshape(len(d), n * n).argmin(axis=1)
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
    np.copyto(root, i[:, None], where=root == j[:, None])


def _numbered(root: Codes) -> Codes:
    """Turn the first item of every cluster into labels by first appearance; negative ones stay."""
    inside = root >= 0
    rank = np.cumsum(root == np.arange(root.shape[1]), axis=1) - 1
    return np.where(inside, np.take_along_axis(rank, np.where(inside, root, 0), axis=1), root)


def _cut_by_scipy(
    of_sets: Array, which: Codes, present: NDArray[np.bool_], ks: Sequence[int], method: str
) -> Codes:
    from scipy.cluster.hierarchy import linkage

    out = np.full((len(ks), *present.shape), ABSENT, dtype=np.intp)
    above = np.triu_indices(present.shape[1], 1)
    pairs = of_sets[:, above[0], above[1]]
    pairs = np.sqrt(pairs) if method == "ward" else pairs
    for row, (one, mask) in enumerate(zip(which, present, strict=True)):
        m = int(mask.sum())
        if m < 2:
            out[:, row, mask] = 0
            continue
        tree = linkage(pairs[one] if m == mask.size else pairs[one][mask[above[0]] & mask[above[1]]], method)
        for position, k in enumerate(ks):
            out[position, row, mask] = cut_tree(tree, min(k, m))
    return out
