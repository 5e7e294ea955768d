"""Linear mixed models: formula, penalised least squares on cross-products, variance decomposition."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "lmer": "fit",
    "decompose": "decomposition",
    "Decomposition": "decomposition",
    "LmerResult": "result",
    "CategoryVariances": "by_category",
    "category_variances": "by_category",
    "dstudy": "decision_study",
    "plan_for": "decision_study",
    "icc": "explained",
    "part_r2": "explained",
    "r2": "explained",
}
__all__ = [
    "CategoryVariances",
    "Decomposition",
    "LmerResult",
    "category_variances",
    "decompose",
    "dstudy",
    "icc",
    "lmer",
    "part_r2",
    "plan_for",
    "r2",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .by_category import CategoryVariances, category_variances
    from .decision_study import dstudy, plan_for
    from .decomposition import Decomposition, decompose
    from .explained import icc, part_r2, r2
    from .fit import lmer
    from .result import LmerResult
