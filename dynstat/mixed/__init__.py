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
    "bootstrap": "parametric_bootstrap",
    "compare": "comparison",
    "confint": "intervals",
    "contest": "contrasts",
    "delete_group_jackknife": "resampling",
    "equivalence": "contrasts",
    "krmodcomp": "contrasts",
    "product_weight_bootstrap": "resampling",
    "profile": "profiling",
    "ranova": "comparison",
    "unit_bootstrap": "resampling",
    "lmer_many": "many",
    "predict": "prediction",
    "refit": "refitting",
    "simulate": "simulation",
    "update": "refitting",
    "icc": "explained",
    "part_r2": "explained",
    "r2": "explained",
}
__all__ = [
    "CategoryVariances",
    "Decomposition",
    "LmerResult",
    "bootstrap",
    "category_variances",
    "compare",
    "confint",
    "contest",
    "decompose",
    "delete_group_jackknife",
    "dstudy",
    "equivalence",
    "icc",
    "krmodcomp",
    "lmer",
    "lmer_many",
    "part_r2",
    "plan_for",
    "predict",
    "product_weight_bootstrap",
    "profile",
    "r2",
    "ranova",
    "refit",
    "simulate",
    "unit_bootstrap",
    "update",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    from .by_category import CategoryVariances, category_variances
    from .comparison import compare, ranova
    from .contrasts import contest, equivalence, krmodcomp
    from .decision_study import dstudy, plan_for
    from .decomposition import Decomposition, decompose
    from .explained import icc, part_r2, r2
    from .fit import lmer
    from .intervals import confint
    from .many import lmer_many
    from .parametric_bootstrap import bootstrap
    from .prediction import predict
    from .profiling import profile
    from .refitting import refit, update
    from .resampling import delete_group_jackknife, product_weight_bootstrap, unit_bootstrap
    from .result import LmerResult
    from .simulation import simulate
