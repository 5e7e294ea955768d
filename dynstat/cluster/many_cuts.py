"""Agglomerative clustering of many small sets at once, cut into k clusters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

#: Linkages whose merges never come nearer to a third cluster than their parts were.
REDUCIBLE = ("ward", "average", "complete", "single")
#: Distances held at once, in numbers: what stays in the cache.
_CHUNK = 600_000


def squared_distances(x: Array) -> Array:
    """Return squared Euclidean distances within every set.

    Parameters
    ----------
    x : ndarray, shape (..., n, p)

    Returns
    -------
    ndarray, shape (..., n, n)
    """
    # Differences, one feature at a time: the product form loses half of the digits of near neighbours.
    out = np.zeros((*x.shape[:-1], x.shape[-2]))
    for j in range(x.shape[-1]):
        d = x[..., :, None, j] - x[..., None, :, j]
        out += d * d
    return out


def cut_many(x: Array, k: int, method: str = "ward", present: NDArray[np.bool_] | None = None) -> Codes:
    """Cluster many sets of few items hierarchically and cut every tree into k clusters.

    The nearest pair of clusters is merged until k are left; distances to the merged one follow Lance and
    Williams, squared ones with Ward's rule. Linkages are reducible, so only rows whose nearest neighbour was
    merged need a new one. The same partition as scipy's ``linkage`` cut by ``maxclust``, ties apart.

    Parameters
    ----------
    x : ndarray, shape (M, n, p)
        Values; Euclidean distances.
    k : int
        Clusters; sets of fewer items are left in single items.
    method : {"ward", "average", "complete", "single"}
    present : bool ndarray, shape (B, n) or (M, B, n), optional
        Subsets of every set, each clustered alone. Default: the whole set.

    Returns
    -------
    ndarray of int, shape (M, n) or (M, B, n)
        Labels 0..k−1 in order of first appearance, −2 for items not present.

    Raises
    ------
    DynstatError
        S404 for another linkage.

    Notes
    -----
    Source: Müllner 2011, arXiv:1109.2378 (the generic algorithm).
    """
    if method not in REDUCIBLE:
        raise DynstatError("S404", "unknown linkage", found=method, expected=" | ".join(REDUCIBLE))
    m, n, _ = x.shape
    whole = present is None
    masks = np.ones((1, n), dtype=bool) if present is None else present
    shared = masks.ndim == 2
    b = masks.shape[-2]
    out = np.empty((m, b, n), dtype=np.intp)
    sets, subsets = max(1, _CHUNK // (n * n * b)), max(1, _CHUNK // (n * n))
    for first in range(0, m, sets):
        some = slice(first, min(first + sets, m))
        d = squared_distances(x[some])
        if method != "ward":
            np.sqrt(d, out=d)
        for start in range(0, b, subsets):
            these = slice(start, min(start + subsets, b))
            part = masks[None, these] if shared else masks[some, these]
            mask = np.broadcast_to(part, (d.shape[0], *part.shape[1:]))
            many = np.repeat(d, mask.shape[1], axis=0)
            merged = _merge(many, mask.reshape(-1, n), k, method)
            out[some, these] = _numbered(merged).reshape(mask.shape)
    return out[:, 0] if whole else out


def _numbered(firsts: Codes) -> Codes:
    """Turn the number of every cluster's first item into labels by first appearance; negative ones stay."""
    inside = firsts >= 0
    rank = np.cumsum(firsts == np.arange(firsts.shape[1]), axis=1) - 1
    return np.where(inside, np.take_along_axis(rank, np.where(inside, firsts, 0), axis=1), firsts)


def _merge(d: Array, present: NDArray[np.bool_], k: int, method: str) -> Codes:
    """Merge nearest clusters until k are left; `d` (B, n, n) is overwritten. Labels: the first item."""
    b, n, _ = d.shape
    at = np.arange(n)
    d[:, at, at] = np.inf
    gone = ~present
    if gone.any():
        d[gone] = np.inf
        np.swapaxes(d, 1, 2)[gone] = np.inf
    near = d.argmin(axis=2)
    least = np.take_along_axis(d, near[:, :, None], axis=2)[:, :, 0]
    size = present.astype(np.float64)
    labels = np.where(present, at, -2)
    left = present.sum(axis=1)
    live = np.flatnonzero(left > k)
    while live.size:
        one = least[live].argmin(axis=1)
        other = near[live, one]
        height = least[live, one]
        # The merged cluster takes the place of the earlier: a label is the number of its first item.
        i, j = np.minimum(one, other), np.maximum(one, other)
        si, sj = size[live, i][:, None], size[live, j][:, None]
        new = _updated(d[live, i], d[live, j], height[:, None], si, sj, size[live], method)
        here = np.arange(live.size)
        new[here, i] = np.inf
        new[here, j] = np.inf
        d[live, i] = new
        d[live, :, i] = new
        d[live, j] = np.inf
        d[live, :, j] = np.inf
        size[live, i] += sj[:, 0]
        size[live, j] = 0.0
        mine = labels[live]
        labels[live] = np.where(mine == j[:, None], i[:, None], mine)
        least[live, j] = np.inf
        nearest = near[live]
        stale = ((nearest == i[:, None]) | (nearest == j[:, None])) & (size[live] > 0)
        stale[here, i] = True
        s, r = np.nonzero(stale)
        rows = d[live[s], r]
        arg = rows.argmin(axis=1)
        near[live[s], r] = arg
        least[live[s], r] = rows[np.arange(s.size), arg]
        left[live] -= 1
        live = live[left[live] > k]
    return labels


def _updated(di: Array, dj: Array, height: Array, si: Array, sj: Array, sk: Array, method: str) -> Array:
    """Return the distance of the merged cluster to all others (Lance and Williams)."""
    if method == "ward":
        return np.asarray(((si + sk) * di + (sj + sk) * dj - sk * height) / (si + sj + sk))
    if method == "average":
        return np.asarray((si * di + sj * dj) / (si + sj))
    return np.maximum(di, dj) if method == "complete" else np.minimum(di, dj)
