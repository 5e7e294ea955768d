"""Chains of states: counts, estimates with intervals of the named unit, tests, cycles, dwell, motifs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {
    "ChainTest": "chain_test",
    "DurationDependence": "duration",
    "Dwell": "sojourns",
    "FirstVisits": "visiting_order",
    "HazardModel": "hazard_models",
    "MarkovChain": "chain_result",
    "Motifs": "conserved",
    "Reopening": "cycles",
    "Sequences": "sequences",
    "Spells": "spells",
    "TransitionDistances": "distance",
    "chain": "estimation",
    "count_transitions": "counts",
    "discrete_hazard": "hazard_models",
    "duration_dependence": "duration",
    "dwell": "sojourns",
    "find_spells": "spells",
    "first_visits": "visiting_order",
    "homogeneity_test": "homogeneity",
    "motifs": "enrichment",
    "null_sequences": "surrogates",
    "order_test": "order",
    "reopening": "cycles",
    "stationarity_test": "stationarity",
    "transition_distance": "distance",
    "unit_codes": "labels",
}
__all__ = [
    "ChainTest",
    "DurationDependence",
    "Dwell",
    "FirstVisits",
    "HazardModel",
    "MarkovChain",
    "Motifs",
    "Reopening",
    "Sequences",
    "Spells",
    "TransitionDistances",
    "chain",
    "count_transitions",
    "discrete_hazard",
    "duration_dependence",
    "dwell",
    "find_spells",
    "first_visits",
    "homogeneity_test",
    "motifs",
    "null_sequences",
    "order_test",
    "reopening",
    "stationarity_test",
    "transition_distance",
    "unit_codes",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .chain_result import MarkovChain
    from .chain_test import ChainTest
    from .conserved import Motifs
    from .counts import count_transitions
    from .cycles import Reopening, reopening
    from .distance import TransitionDistances, transition_distance
    from .duration import DurationDependence, duration_dependence
    from .enrichment import motifs
    from .estimation import chain
    from .hazard_models import HazardModel, discrete_hazard
    from .homogeneity import homogeneity_test
    from .labels import unit_codes
    from .order import order_test
    from .sequences import Sequences
    from .sojourns import Dwell, dwell
    from .spells import Spells, find_spells
    from .stationarity import stationarity_test
    from .surrogates import null_sequences
    from .visiting_order import FirstVisits, first_visits
