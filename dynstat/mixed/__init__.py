"""Linear mixed models: formula, penalised least squares on cross-products, variance decomposition."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "lmer": "fit",
    "decompose": "decomposition",
    "Decomposition": "decomposition",
    "LmerResult": "result",
    "dstudy": "decision_study",
    "plan_for": "decision_study",
    "icc": "explained",
    "part_r2": "explained",
    "r2": "explained",
}
__all__ = ["Decomposition", "LmerResult", "decompose", "dstudy", "icc", "lmer", "part_r2", "plan_for", "r2"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .decision_study import dstudy, plan_for
    from .decomposition import Decomposition, decompose
    from .explained import icc, part_r2, r2
    from .fit import lmer
    from .result import LmerResult
