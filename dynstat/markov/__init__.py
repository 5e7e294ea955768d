"""Chains of states: counts, estimates with intervals of the named unit, tests, cycles, dwell, motifs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {
    "ChainTest": "chain_test",
    "Sequences": "sequences",
    "TransitionDistances": "distance",
    "count_transitions": "counts",
    "homogeneity_test": "homogeneity",
    "order_test": "order",
    "stationarity_test": "stationarity",
    "transition_distance": "distance",
    "unit_codes": "sequences",
}
__all__ = [
    "ChainTest",
    "Sequences",
    "TransitionDistances",
    "count_transitions",
    "homogeneity_test",
    "order_test",
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
    from .distance import TransitionDistances, transition_distance
    from .homogeneity import homogeneity_test
    from .order import order_test
    from .sequences import Sequences, unit_codes
    from .stationarity import stationarity_test
