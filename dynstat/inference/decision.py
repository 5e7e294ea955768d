"""Decision: what a locked plan says about a claim, made from its estimate and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from .multiplicity import level_of_each_test
from .rules import REASONS, Rule, Verdict, judge

if TYPE_CHECKING:
    from ..prereg.lock import Lock
    from .estimate import Estimate

DECISIONS = ("supported", "rejected", "inconclusive")
STATES = ("not_testable", "inadmissible", "not_run")


@dataclass(frozen=True)
class Decision:
    """A decision, or the state that stands in its place; only a verified lock can make one.

    Build it with :func:`decide` or :func:`withhold`. What runs outside a lock is exploratory and has none.

    Attributes
    ----------
    hypothesis : str
        Id in the plan.
    outcome : str
        ``supported``, ``rejected``, ``inconclusive``; or ``not_testable``, ``inadmissible``, ``not_run``.
    reason_code : str
        A key of :data:`dynstat.inference.rules.REASONS`.
    p_support, p_reject : float or None
        None for a state.
    alpha, m : float, int
        Level of each test (the family's alpha over m) and the number of hypotheses in the family.
    criteria : tuple of str
        Each criterion with its numbers substituted.
    estimates : tuple of Estimate
        Those it was made from, in the order of the parts.
    resolve : str
        What would resolve it, where it is inconclusive.
    lock_sha256 : str
        Of the lock that made it.

    Raises
    ------
    DynstatError
        P309 where no lock is given.
    """

    hypothesis: str
    outcome: str
    reason_code: str
    p_support: float | None
    p_reject: float | None
    alpha: float
    m: int
    criteria: tuple[str, ...]
    estimates: tuple[Any, ...]
    resolve: str
    lock_sha256: str
    lock: InitVar[Lock | None] = None

    def __post_init__(self, lock: Lock | None) -> None:
        from ..prereg.lock import Lock

        # A Lock checks its hashes when it is made; here once more, since a mapping can be changed in place.
        if not isinstance(lock, Lock) or lock.sha256 != self.lock_sha256:
            raise DynstatError(
                "P309",
                "a decision is made by a verified lock only",
                where=self.hypothesis,
                found=type(lock).__name__,
                expected="Lock",
                mend="lock the plan (`dynstat prereg lock`) and use decide(lock, ...)",
            )
        lock.verify()
        if self.hypothesis not in lock.plan["hypotheses"]:
            raise DynstatError(
                "P309",
                f"the lock registers no hypothesis {self.hypothesis!r}",
                expected=", ".join(lock.plan["hypotheses"]),
            )
        if self.outcome not in DECISIONS + STATES or self.reason_code not in REASONS:
            raise DynstatError(
                "S404", "no such decision or reason", found=f"{self.outcome}, {self.reason_code}"
            )
        if self.outcome in DECISIONS:
            found = _judged(lock, self.hypothesis, self.estimates)
            downgraded = found.outcome == "supported" and self.reason_code == "downgraded"
            expected = ("inconclusive", "downgraded") if downgraded else (found.outcome, found.reason_code)
            if (self.outcome, self.reason_code) != expected:
                raise DynstatError(
                    "P309",
                    "the decision does not follow from the estimates by the locked rule",
                    where=self.hypothesis,
                    found=f"{self.outcome}, {self.reason_code}",
                    expected=f"{found.outcome}, {found.reason_code}",
                    mend="use decide(lock, ...)",
                )

    def __str__(self) -> str:
        p = (
            ""
            if self.p_support is None
            else (
                f" (p of support {self.p_support:.3g}, of rejection {self.p_reject:.3g}, at {self.alpha:.4g})"
            )
        )
        return f"{self.hypothesis}: {self.outcome}, {self.reason_code}{p}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the estimates."""
        names = (
            "hypothesis",
            "outcome",
            "reason_code",
            "p_support",
            "p_reject",
            "alpha",
            "m",
            "resolve",
            "lock_sha256",
        )
        return {k: getattr(self, k) for k in names} | {"criteria": list(self.criteria)}


def decide(lock: Lock, hypothesis: str, estimates: Estimate | Sequence[Estimate]) -> Decision:
    """Decide a registered hypothesis from its estimate, by the rule in the lock.

    Parameters
    ----------
    lock : Lock
        Verified: an edited one cannot be constructed.
    hypothesis : str
        Id in the locked plan.
    estimates : Estimate or sequence of Estimate
        One for each part, in the order of the plan.

    Raises
    ------
    DynstatError
        P309 without a lock, or for an estimate of another quantity or method; S404 for a wrong
        number of estimates.
    """
    _, alpha, m = _registered(lock, hypothesis)
    given = tuple(estimates) if isinstance(estimates, Sequence) else (estimates,)
    _check_estimates(lock, hypothesis, given)
    if any(e.pivot is None or math.isnan(e.value) for e in given):
        return withhold(lock, hypothesis, "not_testable", "no_interval", estimates=given)
    verdict = _judged(lock, hypothesis, given)
    resolve = ""
    if verdict.outcome == "inconclusive":
        resolve = _resolve(verdict.reason_code, verdict.p_support, verdict.p_reject, alpha, given[0].unit)
    return Decision(
        hypothesis,
        verdict.outcome,
        verdict.reason_code,
        verdict.p_support,
        verdict.p_reject,
        alpha,
        m,
        verdict.criteria,
        given,
        resolve,
        lock.sha256,
        lock=lock,
    )


def _judged(lock: Lock, hypothesis: str, given: tuple[Any, ...]) -> Verdict:
    """Return what the locked rule says of these estimates."""
    _check_estimates(lock, hypothesis, given)
    claim, alpha, _ = _registered(lock, hypothesis)
    return judge(
        [(Rule.from_plan(p), e) for p, e in zip(claim["parts"], given, strict=True)],
        alpha,
        join=claim["join"],
        by_construction=claim["by_construction"],
    )


def _check_estimates(lock: Lock, hypothesis: str, given: tuple[Any, ...]) -> None:
    """Check that the estimates are those of the registered quantities, by the registered methods."""
    claim, _, _ = _registered(lock, hypothesis)
    parts = claim["parts"]
    if len(given) != len(parts):
        raise DynstatError("S404", f"{hypothesis} has {len(parts)} parts", found=f"{len(given)} estimates")
    for part, estimate in zip(parts, given, strict=True):
        if estimate.key != part["estimand"]["quantity"]:
            raise DynstatError(
                "P309",
                f"{hypothesis} is registered on another quantity",
                where=hypothesis,
                found=estimate.key,
                expected=part["estimand"]["quantity"],
            )
        method = lock.plan["analyses"][part["estimand"]["analysis"]]["method"]
        if estimate.method != method:
            raise DynstatError(
                "P309",
                f"{hypothesis} is registered on another method",
                where=hypothesis,
                found=estimate.method,
                expected=method,
            )


def withhold(
    lock: Lock,
    hypothesis: str,
    state: str,
    reason_code: str,
    why: str = "",
    estimates: Sequence[Estimate] = (),
) -> Decision:
    """Return the state that stands in place of a decision: not_testable, inadmissible or not_run."""
    if state not in STATES:
        raise DynstatError("S404", f"no state is called {state!r}", expected=" | ".join(STATES))
    _, alpha, m = _registered(lock, hypothesis)
    return Decision(
        hypothesis,
        state,
        reason_code,
        None,
        None,
        alpha,
        m,
        (why or REASONS[reason_code],),
        tuple(estimates),
        why or REASONS[reason_code],
        lock.sha256,
        lock=lock,
    )


def downgrade(lock: Lock, decision: Decision, why: str) -> Decision:
    """Return a decision that a deviation touches: one that says supported becomes inconclusive.

    Parameters
    ----------
    lock : Lock
        Which made the decision.
    decision : Decision
    why : str
        The deviation, in words; what would resolve the claim.
    """
    if decision.outcome != "supported":
        return decision
    values = {f.name: getattr(decision, f.name) for f in fields(decision)}
    values |= {"outcome": "inconclusive", "reason_code": "downgraded", "resolve": why}
    return Decision(**values, lock=lock)


def _registered(lock: Lock, hypothesis: str) -> tuple[Mapping[str, Any], float, int]:
    from ..prereg.lock import Lock

    if not isinstance(lock, Lock):
        raise DynstatError(
            "P309",
            "a decision is made by a verified lock only",
            found=type(lock).__name__,
            expected="Lock",
            mend="lock the plan and load it with load_lock",
        )
    hypotheses = lock.plan["hypotheses"]
    if hypothesis not in hypotheses:
        raise DynstatError(
            "P309", f"the lock registers no hypothesis {hypothesis!r}", expected=", ".join(hypotheses)
        )
    claim = hypotheses[hypothesis]
    family = lock.plan["families"][claim["family"]]
    m = sum(h["family"] == claim["family"] for h in hypotheses.values())
    return claim, level_of_each_test(family["alpha"], m, family["correction"]), m


def _resolve(code: str, p_support: float, p_reject: float, alpha: float, unit: str) -> str:
    """Say what would resolve an inconclusive claim, by how the standard error shrinks with the units."""
    from statistics import NormalDist

    if code == "by_construction":
        return "an estimand that no definition or theorem fixes"
    if code == "not_beyond_null":
        return "an effect beyond its null; more data of the same kind alone would not do"
    p = min(p_support, p_reject)
    if p <= alpha:
        return "parts that do not contradict each other: one is shown to miss what the others meet"
    if not p < 0.5:
        return "more independent units: the estimate lies where neither test can decide"
    z = NormalDist().inv_cdf
    factor = (z(1 - alpha) / z(1 - p)) ** 2
    if factor > 100:
        return f"more than 100 times as many independent units ({unit}): the estimate lies next to an edge"
    goal = "support" if p_support < p_reject else "rejection"
    return (
        f"about {factor:.1f} times as many independent units ({unit}), were the estimate to stay where it is "
        f"(towards {goal})"
    )
