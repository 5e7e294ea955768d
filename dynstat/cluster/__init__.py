"""Clusters: partitions, stability under resampling, nulls of structure, agreement."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {
    "Features": "features",
    "Partition": "partition",
    "UnitFeatures": "unit_features",
    "as_features": "features",
    "cut_height": "linkage_trees",
    "cut_tree": "linkage_trees",
    "dip_test": "unimodality",
    "hierarchical": "linkage_trees",
    "kmeans": "centroids",
}
__all__ = [
    "Features",
    "Partition",
    "UnitFeatures",
    "as_features",
    "cut_height",
    "cut_tree",
    "dip_test",
    "hierarchical",
    "kmeans",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .centroids import kmeans as kmeans
    from .features import Features as Features
    from .features import as_features as as_features
    from .linkage_trees import cut_height as cut_height
    from .linkage_trees import cut_tree as cut_tree
    from .linkage_trees import hierarchical as hierarchical
    from .partition import Partition as Partition
    from .unimodality import dip_test as dip_test
    from .unit_features import UnitFeatures as UnitFeatures
