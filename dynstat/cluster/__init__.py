"""Clusters: partitions, stability under resampling, nulls of structure, agreement."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {
    "Agreement": "agreement_table",
    "AnomalyTest": "influence",
    "ClusterStability": "stability",
    "Consensus": "consensus_matrix",
    "DipTest": "unimodality",
    "Features": "features",
    "Fragmentation": "fragments",
    "GapStatistic": "dispersion",
    "LargestGap": "largest_gap",
    "LeaveOneOut": "influence",
    "MultiscaleBootstrap": "multiscale",
    "PairSurvival": "pairs",
    "Partition": "partition",
    "StabilityTest": "stability_null",
    "UnitFeatures": "unit_features",
    "UnitStability": "within_items",
    "adjusted_mutual_information": "concordance",
    "adjusted_rand": "concordance",
    "agreement": "agreement_table",
    "anomaly_test": "influence",
    "as_features": "features",
    "clusterboot": "stability",
    "co_clustering": "coclustering",
    "consensus": "consensus_matrix",
    "cut_height": "linkage_trees",
    "cut_tree": "linkage_trees",
    "dip_test": "unimodality",
    "fragmentation": "fragments",
    "gap_statistic": "dispersion",
    "gaussian_mixture": "mixtures",
    "hdbscan": "density",
    "hierarchical": "linkage_trees",
    "kmeans": "centroids",
    "largest_gap_test": "largest_gap",
    "leave_one_out": "influence",
    "multiscale_fit": "scale_fit",
    "pac": "consensus_matrix",
    "pair_survival": "pairs",
    "pvclust": "multiscale",
    "stability_table": "within_items",
    "stability_test": "stability_null",
    "structureless": "null_sets",
    "unit_stability": "within_items",
}
__all__ = [
    "Agreement",
    "AnomalyTest",
    "ClusterStability",
    "Consensus",
    "DipTest",
    "Features",
    "Fragmentation",
    "GapStatistic",
    "LargestGap",
    "LeaveOneOut",
    "MultiscaleBootstrap",
    "PairSurvival",
    "Partition",
    "StabilityTest",
    "UnitFeatures",
    "UnitStability",
    "adjusted_mutual_information",
    "adjusted_rand",
    "agreement",
    "anomaly_test",
    "as_features",
    "clusterboot",
    "co_clustering",
    "consensus",
    "cut_height",
    "cut_tree",
    "dip_test",
    "fragmentation",
    "gap_statistic",
    "gaussian_mixture",
    "hdbscan",
    "hierarchical",
    "kmeans",
    "largest_gap_test",
    "leave_one_out",
    "multiscale_fit",
    "pac",
    "pair_survival",
    "pvclust",
    "stability_table",
    "stability_test",
    "structureless",
    "unit_stability",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .agreement_table import Agreement as Agreement
    from .agreement_table import agreement as agreement
    from .centroids import kmeans as kmeans
    from .coclustering import co_clustering as co_clustering
    from .concordance import adjusted_mutual_information as adjusted_mutual_information
    from .concordance import adjusted_rand as adjusted_rand
    from .consensus_matrix import Consensus as Consensus
    from .consensus_matrix import consensus as consensus
    from .consensus_matrix import pac as pac
    from .density import hdbscan as hdbscan
    from .dispersion import GapStatistic as GapStatistic
    from .dispersion import gap_statistic as gap_statistic
    from .features import Features as Features
    from .features import as_features as as_features
    from .fragments import Fragmentation as Fragmentation
    from .fragments import fragmentation as fragmentation
    from .influence import AnomalyTest as AnomalyTest
    from .influence import LeaveOneOut as LeaveOneOut
    from .influence import anomaly_test as anomaly_test
    from .influence import leave_one_out as leave_one_out
    from .largest_gap import LargestGap as LargestGap
    from .largest_gap import largest_gap_test as largest_gap_test
    from .linkage_trees import cut_height as cut_height
    from .linkage_trees import cut_tree as cut_tree
    from .linkage_trees import hierarchical as hierarchical
    from .mixtures import gaussian_mixture as gaussian_mixture
    from .multiscale import MultiscaleBootstrap as MultiscaleBootstrap
    from .multiscale import pvclust as pvclust
    from .null_sets import structureless as structureless
    from .pairs import PairSurvival as PairSurvival
    from .pairs import pair_survival as pair_survival
    from .partition import Partition as Partition
    from .scale_fit import multiscale_fit as multiscale_fit
    from .stability import ClusterStability as ClusterStability
    from .stability import clusterboot as clusterboot
    from .stability_null import StabilityTest as StabilityTest
    from .stability_null import stability_test as stability_test
    from .unimodality import DipTest as DipTest
    from .unimodality import dip_test as dip_test
    from .unit_features import UnitFeatures as UnitFeatures
    from .within_items import UnitStability as UnitStability
    from .within_items import stability_table as stability_table
    from .within_items import unit_stability as unit_stability
