"""Chains of states: counts, estimates with intervals of the named unit, tests, cycles, dwell, motifs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {
    "ChainTest": "chain_test",
    "DurationDependence": "duration",
    "HazardModel": "hazard_models",
    "Reopening": "cycles",
    "Sequences": "sequences",
    "Spells": "spells",
    "TransitionDistances": "distance",
    "count_transitions": "counts",
    "discrete_hazard": "hazard_models",
    "duration_dependence": "duration",
    "find_spells": "spells",
    "homogeneity_test": "homogeneity",
    "order_test": "order",
    "reopening": "cycles",
    "stationarity_test": "stationarity",
    "transition_distance": "distance",
    "unit_codes": "sequences",
}
__all__ = [
    "ChainTest",
    "DurationDependence",
    "HazardModel",
    "Reopening",
    "Sequences",
    "Spells",
    "TransitionDistances",
    "count_transitions",
    "discrete_hazard",
    "duration_dependence",
    "find_spells",
    "homogeneity_test",
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
    from .chain_test import ChainTest
    from .counts import count_transitions
    from .cycles import Reopening, reopening
    from .distance import TransitionDistances, transition_distance
    from .duration import DurationDependence, duration_dependence
    from .hazard_models import HazardModel, discrete_hazard
    from .homogeneity import homogeneity_test
    from .order import order_test
    from .sequences import Sequences, unit_codes
    from .spells import Spells, find_spells
    from .stationarity import stationarity_test
