"""Judge a universe by the registered rule at the registered level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..inference.family_tests import tests_of, verdict_of
from ..inference.multiplicity import adjust

if TYPE_CHECKING:
    import xarray as xr

    from .execute import Execution
    from .multiverse_run import Judge


def judge_of(plan: Mapping[str, Any], hypothesis: str, ds: xr.Dataset, run: Execution | None) -> Judge:
    """Return the function from the estimates of a claim's parts to its outcome and reason code.

    Under Bonferroni's correction (or none) the level is that of the plan. Where the level depends on the p of
    the other hypotheses, these stay as registered, and only this one's p is that of the universe.

    Parameters
    ----------
    run : Execution, optional
        The registered run; where a correction needs the other hypotheses and it is not given, it is run here.
    """
    claims, families = plan["hypotheses"], plan["families"]
    claim = claims[hypothesis]
    alone = all(f.get("correction", "bonferroni") in ("bonferroni", "none") for f in families.values())
    others: dict[str, tuple[Any, ...]] = {}
    if not alone:
        if run is None:
            from .execute import execute

            run = execute(plan, ds, only=frozenset(plan["analyses"]))
        others = {h: e for h in claims if h != hypothesis and (e := _estimates(plan, h, run))}
    fixed = adjust(families, claims, {}, {})[hypothesis] if alone else None

    def by_rule(estimates: tuple[Any, ...]) -> tuple[str, str]:
        tests = fixed or tests_of(plan, {**others, hypothesis: estimates})[hypothesis]
        verdict = verdict_of(claim, estimates, tests)
        return verdict.outcome, verdict.reason_code

    return by_rule


def _estimates(plan: Mapping[str, Any], h: str, run: Execution) -> tuple[Any, ...]:
    """Return the estimates that a registered hypothesis is decided on, none where it has no p-value."""
    where = [(p["estimand"]["analysis"], p["estimand"]["quantity"]) for p in plan["hypotheses"][h]["parts"]]
    found = tuple(run.estimates[a][q] for a, q in where if q in run.estimates.get(a, {}))
    unfit = h in run.states or len(found) < len(where)
    return () if unfit or any(e.pivot is None or np.isnan(e.value) for e in found) else found
