"""Chains of states: counts, estimates with intervals of the named unit, tests, cycles, dwell, motifs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {
    "Sequences": "sequences",
    "count_transitions": "counts",
    "unit_codes": "sequences",
}
__all__ = ["Sequences", "count_transitions", "unit_codes"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .counts import count_transitions
    from .sequences import Sequences, unit_codes
