"""Hierarchical clustering: all linkages of scipy, cut by number of clusters, height or largest gap."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError, DynstatWarning
from .distances import check_distance, check_metric, condensed
from .features import as_features
from .partition import Array, Labels, Partition, check_k, fewer_items

LINKAGES = ("single", "complete", "average", "weighted", "centroid", "median", "ward")
# R's words for the same.
_ALIASES = {"ward.d2": "ward", "mcquitty": "weighted", "upgma": "average", "wpgma": "weighted"}
# Their formulas update squared Euclidean distances.
EUCLIDEAN = ("centroid", "median", "ward")


def hierarchical(
    data: Any,
    method: str = "ward",
    *,
    k: int | None = None,
    height: float | None = None,
    gap: bool = False,
    metric: str = "euclidean",
) -> Partition:
    """Cluster items by agglomeration, as R's ``hclust`` and ``cutree``.

    Parameters
    ----------
    data : DataFrame, Series, DataArray, array, Features or UnitFeatures
        See :func:`as_features`.
    method : str
        single, complete, average, weighted, centroid, median or ward; R's names of the same (ward.D2,
        mcquitty) are understood. Centroid and
        median are taken on Euclidean distances, their heights are distances of centres; R's are the same
        squared where it is given squared distances.
    k : int, optional
        Cut into k clusters.
    height : float, optional
        Undo every merge above this height.
    gap : bool
        Cut at the largest jump between successive merge heights h₁ ≤ … ≤ h_{n−1}: k = n − i for the i that
        maximises h_{i+1} − h_i. Of equal jumps (to 10⁻¹² of the last height) the highest counts: fewest
        clusters. It finds two clusters or more in any data, structureless ones too.
    metric : str
        As :data:`dynstat.cluster.distances.METRICS`, scipy's names; centroid, median and ward are defined for
        euclidean alone.

    Returns
    -------
    Partition
        With `linkage`; `criterion` holds a row a number of clusters: k, height, jump. Statistic
        ``cophenetic``: correlation of cophenetic with original distances.

    Warns
    -----
    DynstatWarning
        A merge stands lower than one before it (centroid and median can do so).

    Raises
    ------
    DynstatError
        S404 for a linkage or metric that is not there or does not fit, or not one cut; S405 for fewer items
        than clusters, distances that have no value, or a gap where all merges stand at one height.
    """
    features = as_features(data)
    method = linkage_name(method)
    _check_linkage(method, metric)
    n = len(features)
    if (k is not None) + (height is not None) + bool(gap) != 1:
        raise DynstatError(
            "S404",
            "one way to cut the tree is needed",
            found=f"k={k}, height={height}, gap={gap}",
            expected="k=, height= or gap=True",
        )
    if k is not None:
        k = check_k(k, n, features.item)
    if height is not None:
        check_distance(height, "height")
    if n < 2 or (gap and n < 3):
        raise fewer_items(n, 3 if gap else 2, features.item)
    tree = linkage_tree(features.values, method, metric, features.items)
    rising = bool(np.all(np.diff(tree[:, 2]) >= 0))
    if not rising:
        what = f"{method} linkage merges lower than it did before (an inversion)"
        if k is None:
            raise DynstatError(
                "S404",
                f"{what}: heights do not order the merges",
                found=f"cut by {'gap' if gap else 'height'}",
                expected="k=, or a linkage without inversions",
            )
        warnings.warn(f"{what}; the cut follows the order of merges", DynstatWarning, stacklevel=2)
    if gap and np.ptp(tree[:, 2]) <= 1e-12 * tree[-1, 2]:
        raise DynstatError(
            "S405",
            "all merges stand at one height: there is no gap to cut at",
            found=f"{features.item}s at equal distances",
            mend="cut by k= or height=",
        )
    if gap:
        labels = cut_tree(tree, largest_jump(tree[:, 2]))
    elif height is not None:
        labels = cut_height(tree, height)
    else:
        assert k is not None
        labels = cut_tree(tree, k)
    cut = {"k": k} if k is not None else {"height": float(height)} if height is not None else {"gap": True}
    return Partition(
        labels,
        features.items,
        "hierarchical",
        {"linkage": method, "metric": metric, **cut},
        features.item,
        features,
        linkage=tree,
        criterion=_jumps(tree[:, 2]),
        statistics={"cophenetic": _cophenetic(tree, features.values, metric)},
    )


def linkage_name(method: str, known: Sequence[str] = LINKAGES) -> str:
    """Return scipy's name of a linkage; R's ``ward.D2`` and ``mcquitty`` are understood.

    Raises
    ------
    DynstatError
        S404 for any but `known`.
    """
    name = _ALIASES.get(str(method).lower(), str(method))
    if name not in known:
        raise DynstatError("S404", "unknown linkage", found=method, expected=" | ".join(known))
    return name


def linkages(condensed: Array, method: str) -> Array:
    """Return scipy's linkage matrix of every row of condensed distances, shape (B, n − 1, 4)."""
    from scipy.cluster.hierarchy import linkage

    return np.stack([linkage(row, method) for row in np.ascontiguousarray(condensed)])


def linkage_tree(
    values: Array, method: str = "ward", metric: str = "euclidean", items: tuple[str, ...] = ()
) -> Array:
    """Return scipy's linkage matrix, shape (n − 1, 4).

    Raises
    ------
    DynstatError
        S405 where a distance has no value, as the correlation of a constant item.
    """
    from scipy.cluster.hierarchy import linkage

    if metric == "euclidean":
        return np.asarray(linkage(values, method))
    return np.asarray(linkage(condensed(values, metric, items), method))


def cut_tree(linkage: Array, k: int) -> Labels:
    """Return k clusters of a linkage matrix by undoing its last k − 1 merges, as R's ``cutree``.

    scipy's ``fcluster`` gives fewer where heights are tied; this gives k.

    Parameters
    ----------
    linkage : ndarray, shape (n − 1, 4)
        In order of merges.
    k : int
        1 to n.

    Returns
    -------
    ndarray of int, shape (n,)
        In order of first appearance.

    Examples
    --------
    >>> cut_tree(np.array([[0, 2, 1.0, 2], [1, 3, 1.0, 2], [4, 5, 9.0, 4]]), 2).tolist()
    [0, 1, 0, 1]
    """
    n = len(linkage) + 1
    if not 1 <= k <= n:
        raise fewer_items(n, k)
    top = 2 * n - 1
    cluster = [-1] * top
    pairs = linkage[:, :2].astype(np.intp).tolist()
    # From the root down: an undone merge opens two clusters, the others hand theirs on.
    for step in range(n - 2, -1, -1):
        own = cluster[n + step]
        a, b = pairs[step]
        if step >= n - k:
            cluster[a], cluster[b] = a, b
        else:
            if own < 0:
                own = n + step
            cluster[a] = cluster[b] = own
    out: list[int] = []
    seen: dict[int, int] = {}
    for leaf in cluster[:n]:
        out.append(seen.setdefault(leaf, len(seen)))
    return np.array(out, dtype=np.intp)


def cut_height(linkage: Array, height: float) -> Labels:
    """Return the clusters that stand once every merge above `height` is undone; heights must rise."""
    return cut_tree(linkage, 1 + int(np.sum(linkage[:, 2] > height)))


def largest_jump(heights: ArrayLike) -> int:
    """Return the number of clusters below the largest jump of rising merge heights, the highest of ties.

    Examples
    --------
    >>> largest_jump([1.0, 1.2, 5.0, 5.5])
    3
    """
    h = np.asarray(heights, dtype=np.float64)
    jumps = np.diff(h)
    ties = np.flatnonzero(jumps >= jumps.max() - 1e-12 * abs(h[-1]))
    return int(h.size - ties[-1])


def clusterer(parameters: Mapping[str, Any], n_clusters: int) -> Callable[[Array], Labels]:
    """Return the function that :meth:`Partition.recluster` calls."""
    from scipy.cluster.hierarchy import linkage

    method, metric, height = parameters["linkage"], parameters["metric"], parameters.get("height")
    check_metric(metric)
    tree: Callable[[Array], NDArray[Any]]
    if metric == "euclidean":

        def tree(values: Array) -> NDArray[Any]:
            return np.asarray(linkage(values, method))

    else:

        def tree(values: Array) -> NDArray[Any]:
            return np.asarray(linkage(condensed(values, metric), method))

    def run(values: Array) -> Labels:
        n = len(values)
        if n < 2:
            if n < 1 or n_clusters > 1:
                raise fewer_items(n, n_clusters)
            return np.zeros(n, dtype=np.intp)
        made = tree(values)
        return cut_tree(made, n_clusters) if height is None else cut_height(made, height)

    return run


def _check_linkage(method: str, metric: str) -> None:
    check_metric(metric)
    if method in EUCLIDEAN and metric != "euclidean":
        raise DynstatError(
            "S404",
            f"{method} linkage is defined for Euclidean distances alone",
            found=metric,
            expected="euclidean",
            mend="use average, complete, single or weighted with this metric",
        )


def _jumps(heights: Array) -> pd.DataFrame:
    n = heights.size + 1
    k = np.arange(n - 1, 0, -1)
    # Between k clusters and k − 1 lies the jump from the merge that made k to the next.
    jump = np.append(np.diff(heights), np.nan)
    return pd.DataFrame({"k": k, "height": heights, "jump": jump})[::-1].reset_index(drop=True)


def _cophenetic(tree: Array, values: Array, metric: str) -> float:
    from scipy.cluster.hierarchy import cophenet

    distances = condensed(values, metric)
    made = cophenet(tree)
    if distances.size < 2 or np.ptp(distances) == 0 or np.ptp(made) == 0:
        return float("nan")
    return float(np.corrcoef(made, distances)[0, 1])
