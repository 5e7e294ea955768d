"""Linear mixed models: formula, penalised least squares on cross-products, variance decomposition."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "lmer": "fit",
    "decompose": "decomposition",
    "Decomposition": "decomposition",
    "LmerResult": "result",
}
__all__ = ["Decomposition", "LmerResult", "decompose", "lmer"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .decomposition import Decomposition, decompose
    from .fit import lmer
    from .result import LmerResult
