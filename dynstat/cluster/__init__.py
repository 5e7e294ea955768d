"""Clusters: partitions, stability under resampling, nulls of structure, agreement."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {
    "ClusterStability": "stability",
    "Features": "features",
    "Partition": "partition",
    "UnitFeatures": "unit_features",
    "as_features": "features",
    "clusterboot": "stability",
    "cut_height": "linkage_trees",
    "cut_tree": "linkage_trees",
    "dip_test": "unimodality",
    "gaussian_mixture": "mixtures",
    "hdbscan": "density",
    "hierarchical": "linkage_trees",
    "kmeans": "centroids",
    "structureless": "structureless",
}
__all__ = [
    "ClusterStability",
    "Features",
    "Partition",
    "UnitFeatures",
    "as_features",
    "clusterboot",
    "cut_height",
    "cut_tree",
    "dip_test",
    "gaussian_mixture",
    "hdbscan",
    "hierarchical",
    "kmeans",
    "structureless",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .centroids import kmeans as kmeans
    from .density import hdbscan as hdbscan
    from .features import Features as Features
    from .features import as_features as as_features
    from .linkage_trees import cut_height as cut_height
    from .linkage_trees import cut_tree as cut_tree
    from .linkage_trees import hierarchical as hierarchical
    from .mixtures import gaussian_mixture as gaussian_mixture
    from .partition import Partition as Partition
    from .stability import ClusterStability as ClusterStability
    from .stability import clusterboot as clusterboot
    from .structureless import structureless as structureless
    from .unimodality import dip_test as dip_test
    from .unit_features import UnitFeatures as UnitFeatures
