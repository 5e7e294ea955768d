"""Figures: one function each, one style."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "save_svg": "style",
    "style": "style",
    "variance_shares": "shares",
    "claims_forest": "claims",
    "ratio_norm_by_model": "trajectories",
    "layer_profile": "trajectories",
    "planned_precision": "precision",
    "shares_heatmap": "shares_by_layer",
    "shares_stacked": "shares_by_layer",
    "shares_table": "shares_by_layer",
    "caterpillar": "mixed",
    "dendrogram": "cluster_trees",
    "condensed_tree": "condensed_trees",
    "partition_map": "partition_maps",
    "reopening_curve": "cycles",
    "hazard_by_duration": "cycles",
    "readouts_by_layer": "readouts",
    "readouts_table": "readouts",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    # matplotlib is heavy: `import dynstat.plotting` alone must not load it.
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
