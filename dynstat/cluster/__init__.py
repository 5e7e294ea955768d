"""Clusters: partitions, stability under resampling, nulls of structure, agreement."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Public names by the module that holds them.
_PUBLIC: dict[str, str] = {}
__all__: list[str] = []


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    pass
