"""k-means from several starts, its seed recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import DynstatError
from ..inference.resample import Rng
from .features import as_features
from .partition import Array, Labels, Partition, check_k, fewer_items, in_order


def kmeans(data: Any, k: int, *, n_init: int = 10, rng: Rng = 0) -> Partition:
    """Cluster items around k means: the best of `n_init` starts of Lloyd's algorithm from k-means++ seeds.

    Parameters
    ----------
    data : DataFrame, Series, DataArray, array, Features or UnitFeatures
        See :func:`as_features`.
    k : int
        Number of clusters.
    n_init : int
        Number of starts.
    rng : Generator or int
        The seed is recorded and serves :meth:`Partition.recluster` too; from a Generator one is drawn.

    Returns
    -------
    Partition
        Statistics ``within_ss`` and ``between_share`` (1 − within/total sum of squares, as R's ``kmeans``).

    Raises
    ------
    DynstatError
        S404 for k or n_init; S405 for fewer items, or fewer different items, than clusters.
    """
    features = as_features(data)
    k = check_k(k, len(features), features.item)
    if isinstance(n_init, bool) or not isinstance(n_init, (int, np.integer)) or n_init < 1:
        raise DynstatError("S404", "n_init is no number of starts", found=n_init, expected="from 1")
    different = len(np.unique(features.values, axis=0))
    if different < k:
        raise fewer_items(different, k, f"different {features.item}")
    seed = drawn_seed(rng)
    parameters = {"k": k, "n_init": int(n_init), "seed": seed}
    labels = clusterer(parameters, k)(features.values)
    within = sum(
        float(((x - x.mean(axis=0)) ** 2).sum()) for x in (features.values[labels == c] for c in range(k))
    )
    total = float(((features.values - features.values.mean(axis=0)) ** 2).sum())
    share = 1 - within / total if total > 0 else float("nan")
    return Partition(
        labels,
        features.items,
        "kmeans",
        parameters,
        features.item,
        features,
        statistics={"within_ss": within, "between_share": share},
        seed=seed,
    )


def drawn_seed(rng: Rng) -> int:
    """Return a seed that scikit-learn takes: the one given, or one drawn."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**31))
    if rng is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)) or not 0 <= rng < 2**32:
        raise DynstatError("S404", "rng is no seed", found=rng, expected="0 to 4294967295")
    return int(rng)


def clusterer(parameters: Mapping[str, Any], n_clusters: int) -> Callable[[Array], Labels]:
    """Return the function that :meth:`Partition.recluster` calls."""
    from sklearn.cluster import KMeans

    model = KMeans(n_clusters, n_init=parameters["n_init"], random_state=parameters["seed"])

    def run(values: Array) -> Labels:
        if len(values) < n_clusters:
            raise fewer_items(len(values), n_clusters)
        with warnings.catch_warnings():
            # Fewer different items than clusters happens in resamples; the labels that come back count.
            warnings.simplefilter("ignore")
            return in_order(model.fit(values).labels_)

    return run
