"""HDBSCAN with its persistence, probabilities, outlier scores and condensed tree, labelled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DynstatError, DynstatWarning
from .distances import check_distance, check_metric, distances
from .features import as_features
from .partition import NOISE, Array, Labels, Partition, fewer_items, in_order

_ALL_DISTANCES = 2000


def hdbscan(
    data: Any,
    min_cluster_size: int = 5,
    *,
    min_samples: int | None = None,
    metric: str = "euclidean",
    selection: str = "eom",
    epsilon: float = 0.0,
    allow_single_cluster: bool = False,
) -> Partition:
    """Cluster items by density, and leave as noise what lies in no dense place.

    Parameters
    ----------
    data : DataFrame, Series, DataArray, array, Features or UnitFeatures
        See :func:`as_features`.
    min_cluster_size : int
        At least 2; fewer items together are noise.
    min_samples : int, optional
        The core distance is that to the `min_samples`-th neighbour. Default: `min_cluster_size`.
    metric : str
        As :data:`dynstat.cluster.distances.METRICS`, scipy's names.
    selection : str
        ``eom`` takes the clusters with the largest excess of mass, ``leaf`` the leaves of the condensed tree.
    epsilon : float
        Clusters closer than this are not parted.
    allow_single_cluster : bool
        Whether everything may be one cluster. Without it one cloud comes out as noise or in two.

    Returns
    -------
    Partition
        `persistence` a cluster, `probabilities` and `outlier_scores` (GLOSH) an item, `condensed_tree`
        (parent, child, lambda_val = 1/distance, child_size; selected: the child is a chosen cluster; cluster:
        its label, −1 for none). Statistic ``relative_validity``: DBCV on the spanning tree, −1 to 1; it
        compares settings on the same data.

    Warns
    -----
    DynstatWarning
        All items are noise; some items are equal: copies make density, so resample without copies.

    Raises
    ------
    DynstatError
        S404 for an argument outside its range; S405 for fewer items than one cluster needs, or distances that
        have no value.

    Notes
    -----
    The spanning tree is exact and the same at every run. Source: Campello, Moulavi and Sander 2013, PAKDD:
    160-172; package ``hdbscan`` (McInnes, Healy and Astels 2017, JOSS 2: 205).
    """
    from hdbscan import HDBSCAN

    features = as_features(data)
    parameters = _checked(min_cluster_size, min_samples, metric, selection, epsilon, allow_single_cluster)
    n = len(features)
    if n < max(min_cluster_size, 2):
        raise fewer_items(n, int(min_cluster_size), features.item, "one cluster")
    values = features.values
    copies = n - len(np.unique(values, axis=0))
    if copies:
        warnings.warn(
            f"{copies} of {n} {features.item}s equal another in every feature: copies make density",
            DynstatWarning,
            stacklevel=2,
        )
    model = HDBSCAN(**_arguments(parameters, n), gen_min_span_tree=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Items that coincide have infinite density; 0/0 in the scores then stands for "not apart".
        with np.errstate(all="ignore"):
            model.fit(_fed(values, parameters, features.items))
            scores = np.nan_to_num(np.asarray(model.outlier_scores_, dtype=np.float64))
            validity = float(model.relative_validity_)
    raw = model.labels_
    labels = in_order(raw)
    old = [int(raw[np.flatnonzero(labels == c)[0]]) for c in range(int(labels.max()) + 1)]
    if not old:
        warnings.warn(
            f"all items are noise (min_cluster_size = {min_cluster_size})", DynstatWarning, stacklevel=2
        )
    return Partition(
        labels,
        features.items,
        "hdbscan",
        parameters,
        features.item,
        features,
        probabilities=np.asarray(model.probabilities_, dtype=np.float64),
        outlier_scores=scores,
        persistence=np.asarray(model.cluster_persistence_, dtype=np.float64)[old],
        condensed_tree=_tree(model.condensed_tree_.to_pandas(), labels),
        statistics={"relative_validity": validity if old else float("nan")},
    )


def clusterer(parameters: Mapping[str, Any], n_clusters: int) -> Callable[[Array], Labels]:
    """Return the function that :meth:`Partition.recluster` calls."""
    from hdbscan.hdbscan_ import hdbscan as fit

    def run(values: Array) -> Labels:
        n = len(values)
        if n < parameters["min_cluster_size"]:
            return np.full(n, NOISE, dtype=np.intp)
        return in_order(fit(_fed(values, parameters), **_arguments(parameters, n))[0])

    return run


def _by_tree(parameters: Mapping[str, Any], n: int) -> bool:
    """Whether all distances would take more memory than they are worth."""
    return n > _ALL_DISTANCES and parameters["metric"] == "euclidean"


def _fed(values: Array, parameters: Mapping[str, Any], items: tuple[str, ...] = ()) -> Array:
    if _by_tree(parameters, len(values)):
        return values
    return distances(values, parameters["metric"], items)


def _arguments(parameters: Mapping[str, Any], n: int) -> dict[str, Any]:
    tree = _by_tree(parameters, n)
    return {
        "min_cluster_size": parameters["min_cluster_size"],
        "min_samples": parameters["min_samples"],
        "cluster_selection_method": parameters["selection"],
        "cluster_selection_epsilon": parameters["epsilon"],
        "allow_single_cluster": parameters["allow_single_cluster"],
        # Both ways the spanning tree is exact, and copies have distance 0.
        "metric": "euclidean" if tree else "precomputed",
        "algorithm": "prims_kdtree" if tree else "generic",
        "core_dist_n_jobs": 1,
    }


def _checked(
    size: Any, samples: Any, metric: str, selection: str, epsilon: Any, single: Any
) -> dict[str, Any]:
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 2:
        raise DynstatError(
            "S404", "min_cluster_size is too small", found=size, expected="a whole number from 2"
        )
    if samples is not None and (
        not isinstance(samples, (int, np.integer)) or isinstance(samples, bool) or samples < 1
    ):
        raise DynstatError(
            "S404", "min_samples is too small", found=samples, expected="a whole number from 1"
        )
    if selection not in ("eom", "leaf"):
        raise DynstatError("S404", "unknown selection of clusters", found=selection, expected="eom | leaf")
    check_distance(epsilon, "epsilon")
    check_metric(metric)
    return {
        "min_cluster_size": int(size),
        "min_samples": None if samples is None else int(samples),
        "metric": metric,
        "selection": selection,
        "epsilon": float(epsilon),
        "allow_single_cluster": bool(single),
    }


def _tree(tree: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Mark in the condensed tree which node every cluster is: the smallest that holds all its items."""
    n = labels.size
    tree = tree.sort_values(["parent", "lambda_val", "child"], kind="stable").reset_index(drop=True)
    parents = dict(zip(tree["child"].tolist(), tree["parent"].tolist(), strict=True))

    def path(node: int) -> list[int]:
        out = []
        while node in parents:
            node = parents[node]
            out.append(node)
        return out[::-1]

    chosen: dict[int, int] = {}
    for c in range(int(labels.max(initial=NOISE)) + 1):
        paths = [path(int(i)) for i in np.flatnonzero(labels == c)]
        shared = 0
        while all(len(p) > shared for p in paths) and len({p[shared] for p in paths}) == 1:
            shared += 1
        chosen[paths[0][shared - 1]] = c
    child = tree["child"].to_numpy()
    item = child < n
    of_node = np.array([chosen.get(int(v), NOISE) for v in child])
    tree["cluster"] = np.where(item, labels[np.where(item, child, 0)], of_node)
    tree["selected"] = ~item & (of_node >= 0)
    # The root is nobody's child; a row of its own would not be a merge, so it is an attribute.
    tree.attrs["root_cluster"] = chosen.get(n, NOISE)
    return tree[["parent", "child", "lambda_val", "child_size", "selected", "cluster"]]
