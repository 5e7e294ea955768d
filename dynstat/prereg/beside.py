"""Two versions of a claim side by side: as it was registered, and as it was amended or deviated from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..inference.decision import downgrade
from .declared import Declared, amended_plan
from .deviations import Deviation
from .execute import Execution, decide_all, execute

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.decision import Decision
    from ..inference.estimate import Estimate
    from .lock import Lock


@dataclass(frozen=True)
class Version:
    """What one version of a claim came to.

    Attributes
    ----------
    outcome, reason_code : str
        By the rule of that version.
    p_support, p_reject, alpha, m : float or None, int
    estimate : Estimate or None
        Of its first part.
    scale : str
        Of its rule.
    """

    outcome: str
    reason_code: str
    p_support: float | None
    p_reject: float | None
    alpha: float
    m: int
    estimate: Estimate | None
    scale: str

    @classmethod
    def of(cls, decision: Decision, claim: Mapping[str, Any], run: Execution) -> Version:
        """Return a version from its decision and the run that it was made from."""
        part = claim["parts"][0]
        found = run.estimates.get(part["estimand"]["analysis"], {}).get(part["estimand"]["quantity"])
        return cls(
            decision.outcome,
            decision.reason_code,
            decision.p_support,
            decision.p_reject,
            decision.alpha,
            decision.m,
            None if decision.outcome == "inadmissible" else found,
            part["sesoi"]["scale"],
        )


@dataclass(frozen=True)
class Beside:
    """Both versions of one claim, and which of them decides.

    Attributes
    ----------
    hypothesis : str
    by : {"amendment", "deviation"}
    pointers : tuple of str
        What differs.
    reason, timing : str
        Why, and what was known of the data then (an access level).
    decides : {"registered", "amended"}
    registered, amended : Version
    """

    hypothesis: str
    by: Literal["amendment", "deviation"]
    pointers: tuple[str, ...]
    reason: str
    timing: str
    decides: Literal["registered", "amended"]
    registered: Version
    amended: Version


def rerun(
    plan: Mapping[str, Any],
    base: Mapping[str, Any],
    run: Execution,
    ds: xr.Dataset,
    folder: Path,
    without: Mapping[str, str] | None = None,
) -> Execution:
    """Run another version of a plan; analyses that are equal in both are not run again.

    Parameters
    ----------
    plan, base : mapping
        The other version, and the one that `run` came of.
    without : mapping of analysis to str, optional
        Those that cannot be run, and why.
    """
    lost = dict(without or {})
    same = {
        name
        for name, spec in plan["analyses"].items()
        if plan["data"] == base["data"] and base["analyses"].get(name) == spec and name not in lost
    }
    wanted = frozenset(plan["analyses"]) - same - frozenset(lost)
    out = execute({**plan, "exploratory": {}}, ds, folder=folder, only=wanted)
    out.failed |= lost
    out.estimates |= {name: run.estimates[name] for name in same if name in run.estimates}
    out.failed |= {name: run.failed[name] for name in same if name in run.failed}
    return out


def declared_versions(
    lock: Lock,
    declared: Sequence[Declared],
    deviations: Sequence[Deviation],
    run: Execution,
    decisions: Mapping[str, Decision],
    ds: xr.Dataset,
    folder: Path,
) -> list[Beside]:
    """Run what is declared to be done otherwise, and set it beside what was registered, which decides.

    A change that was made when outcomes were known cannot support a claim here either.
    """
    plan = amended_plan(lock.plan, declared)
    if plan is lock.plan:
        return []
    second = rerun(plan, lock.plan, run, ds, folder)
    made = decide_all(lock, second)
    out = []
    for name, claim in lock.plan["hypotheses"].items():
        bearing = [d for d in deviations if d.beside and name in d.affects]
        if not bearing:
            continue
        decision = made[name]
        for d in bearing:
            if d.type == "downgrade":
                decision = downgrade(lock, decision, "a new registration, and data that it has not seen")
        out.append(
            Beside(
                name,
                "deviation",
                tuple(d.field for d in bearing),
                " / ".join(d.reason for d in bearing),
                bearing[-1].timing,
                "registered",
                Version.of(decisions[name], claim, run),
                Version.of(decision, claim, second),
            )
        )
    return out
