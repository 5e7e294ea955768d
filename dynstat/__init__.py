"""R-style statistics for the internal dynamics of transformer language models."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names by the module that holds them; resolved on first use so that `dynstat --help` stays light.
_PUBLIC = {
    "open": "dynstat.dataset.io",
    "save": "dynstat.dataset.io",
    "combine": "dynstat.dataset.combine",
    "verify": "dynstat.dataset.verify",
    "content_hash": "dynstat.dataset.content",
    "cube": "dynstat.dataset.frames",
    "to_frame": "dynstat.dataset.frames",
    "from_frame": "dynstat.dataset.frames",
    "lmer": "dynstat.mixed",
    "lmer_many": "dynstat.mixed",
    "decompose": "dynstat.mixed",
    "category_variances": "dynstat.mixed",
    "dstudy": "dynstat.mixed",
    "plan_for": "dynstat.mixed",
    "anova": "dynstat.mixed.lmer_anova",
    "bootstrap": "dynstat.mixed",
    "confint": "dynstat.mixed",
    "contest": "dynstat.mixed",
    "delete_group_jackknife": "dynstat.mixed",
    "equivalence": "dynstat.mixed",
    "krmodcomp": "dynstat.mixed",
    "product_weight_bootstrap": "dynstat.mixed",
    "profile": "dynstat.mixed",
    "ranova": "dynstat.mixed",
    "unit_bootstrap": "dynstat.mixed",
    "icc": "dynstat.mixed",
    "r2": "dynstat.mixed",
    "part_r2": "dynstat.mixed",
    "Partition": "dynstat.cluster",
    "UnitFeatures": "dynstat.cluster",
    "agreement": "dynstat.cluster",
    "clusterboot": "dynstat.cluster",
    "consensus": "dynstat.cluster",
    "dip_test": "dynstat.cluster",
    "gap_statistic": "dynstat.cluster",
    "gaussian_mixture": "dynstat.cluster",
    "hdbscan": "dynstat.cluster",
    "hierarchical": "dynstat.cluster",
    "kmeans": "dynstat.cluster",
    "largest_gap_test": "dynstat.cluster",
    "pair_survival": "dynstat.cluster",
    "pvclust": "dynstat.cluster",
    "stability_test": "dynstat.cluster",
    "unit_stability": "dynstat.cluster",
    "Sequences": "dynstat.markov",
    "chain": "dynstat.markov",
    "dwell": "dynstat.markov",
    "first_visits": "dynstat.markov",
    "homogeneity_test": "dynstat.markov",
    "motifs": "dynstat.markov",
    "order_test": "dynstat.markov",
    "reopening": "dynstat.markov",
    "stationarity_test": "dynstat.markov",
    "transition_distance": "dynstat.markov",
    "Estimate": "dynstat.inference.estimate",
    "Decision": "dynstat.inference.decision",
    "DynstatError": "dynstat.errors",
    "DynstatWarning": "dynstat.errors",
}
__all__ = ["__version__", "data_path", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'dynstat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def data_path(name: str = "") -> Path:
    """Return the path of something in dynstat's data: in the installed package, else in the checkout.

    Raises
    ------
    DynstatError
        F001 where neither holds it.
    """
    return _resource("data", name)


def study_path(name: str = "") -> Path:
    """Return the folder of a study (or a file in it), looked up like :func:`data_path`."""
    return _resource("analyses", name)


def _resource(folder: str, name: str) -> Path:
    from .errors import DynstatError

    roots = [Path(__file__).parent / folder, Path(__file__).parent.parent / folder]
    for root in roots:
        if (found := root / name).exists():
            return found
    raise DynstatError(
        "F001",
        f"{folder} holds no {name!r}",
        where=" or ".join(map(str, roots)),
        mend="check the name, or reinstall dynstat",
    )


if TYPE_CHECKING:
    from .cluster import Partition as Partition
    from .cluster import UnitFeatures as UnitFeatures
    from .cluster import agreement as agreement
    from .cluster import clusterboot as clusterboot
    from .cluster import consensus as consensus
    from .cluster import dip_test as dip_test
    from .cluster import gap_statistic as gap_statistic
    from .cluster import gaussian_mixture as gaussian_mixture
    from .cluster import hdbscan as hdbscan
    from .cluster import hierarchical as hierarchical
    from .cluster import kmeans as kmeans
    from .cluster import largest_gap_test as largest_gap_test
    from .cluster import pair_survival as pair_survival
    from .cluster import pvclust as pvclust
    from .cluster import stability_test as stability_test
    from .cluster import unit_stability as unit_stability
    from .dataset.combine import combine as combine
    from .dataset.content import content_hash as content_hash
    from .dataset.frames import cube as cube
    from .dataset.frames import from_frame as from_frame
    from .dataset.frames import to_frame as to_frame
    from .dataset.io import open as open
    from .dataset.io import save as save
    from .dataset.verify import verify as verify
    from .errors import DynstatError as DynstatError
    from .errors import DynstatWarning as DynstatWarning
    from .inference.decision import Decision as Decision
    from .inference.estimate import Estimate as Estimate
    from .markov import Sequences as Sequences
    from .markov import chain as chain
    from .markov import dwell as dwell
    from .markov import first_visits as first_visits
    from .markov import homogeneity_test as homogeneity_test
    from .markov import motifs as motifs
    from .markov import order_test as order_test
    from .markov import reopening as reopening
    from .markov import stationarity_test as stationarity_test
    from .markov import transition_distance as transition_distance
    from .mixed import bootstrap as bootstrap
    from .mixed import category_variances as category_variances
    from .mixed import confint as confint
    from .mixed import contest as contest
    from .mixed import decompose as decompose
    from .mixed import delete_group_jackknife as delete_group_jackknife
    from .mixed import dstudy as dstudy
    from .mixed import equivalence as equivalence
    from .mixed import icc as icc
    from .mixed import krmodcomp as krmodcomp
    from .mixed import lmer as lmer
    from .mixed import part_r2 as part_r2
    from .mixed import plan_for as plan_for
    from .mixed import product_weight_bootstrap as product_weight_bootstrap
    from .mixed import profile as profile
    from .mixed import r2 as r2
    from .mixed import ranova as ranova
    from .mixed import unit_bootstrap as unit_bootstrap
    from .mixed.lmer_anova import anova as anova
