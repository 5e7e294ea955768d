"""Decision: what a locked plan says about a claim, made from its estimate and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from .family_tests import FamilyTests, check_estimates, correction_of, locked, parts_of, verdict_of
from .multiplicity import Adjusted, level_of_each_test
from .rules import REASONS, Verdict, p_values_of
from .wording import level, p_equals

if TYPE_CHECKING:
    from ..prereg.lock import Lock
    from .estimate import Estimate

DECISIONS = ("supported", "rejected", "inconclusive")
STATES = ("not_testable", "inadmissible", "not_run")


@dataclass(frozen=True)
class Decision:
    """A decision, or the state that stands in its place; only a verified lock can make one.

    Build it with :func:`decide_family`, :func:`decide` or :func:`withhold`. What runs outside a lock is
    exploratory and has none.

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
        Level of the test of support (with ``bonferroni`` of each test: the family's alpha over m) and the
        number of hypotheses in the family.
    criteria : tuple of str
        Each criterion with its numbers substituted.
    estimates : tuple of Estimate
        Those it was made from, in the order of the parts.
    resolve : str
        What would resolve it, where it is inconclusive.
    lock_sha256 : str
        Of the lock that made it.
    p_support_adjusted, p_reject_adjusted : float or None
        Adjusted within the family: compare them with the family's alpha.
    alpha_reject : float or None
        Level of the test of rejection; None for a state.
    tests : FamilyTests or None
        The tests of the whole family, where its correction needs them.

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
    p_support_adjusted: float | None = None
    p_reject_adjusted: float | None = None
    alpha_reject: float | None = None
    tests: FamilyTests | None = field(default=None, repr=False, compare=False)
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
            check_estimates(lock, self.hypothesis, self.estimates)
            levels = _levels(lock, self.hypothesis, self.estimates, self.tests)
            found = verdict_of(lock.plan["hypotheses"][self.hypothesis], self.estimates, levels)
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
            "p_support_adjusted",
            "p_reject_adjusted",
            "alpha_reject",
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
        P309 without a lock, for an estimate of another quantity or method, or where the family's correction
        needs all its hypotheses (:func:`decide_family`); S404 for a wrong number of estimates.
    """
    _registered(lock, hypothesis)
    given = tuple(estimates) if isinstance(estimates, Sequence) else (estimates,)
    check_estimates(lock, hypothesis, given)
    if _without_interval(given):
        return withhold(lock, hypothesis, "not_testable", "no_interval", estimates=given)
    return _decided(lock, hypothesis, given, None)


def decide_family(
    lock: Lock,
    estimates: Mapping[str, Sequence[Estimate] | None],
    states: Mapping[str, tuple[str, str, str]] | None = None,
) -> dict[str, Decision]:
    """Decide every registered hypothesis of a lock at once, as corrections of whole families need it.

    Parameters
    ----------
    lock : Lock
    estimates : mapping of hypothesis to sequence of Estimate, or None
        One for each part, in the order of the plan. A hypothesis that is missing, or None, was not run.
    states : mapping of hypothesis to (state, reason code, why), optional
        What stands in place of a decision; it outweighs estimates, which are then shown only where the state
        is not_testable.

    Returns
    -------
    dict of hypothesis to Decision
        In the order of registration. With ``bonferroni`` and ``none`` each is what :func:`decide` gives.

    Raises
    ------
    DynstatError
        P309 without a lock, for a hypothesis that is not registered, or for estimates of another quantity or
        method; S404 for a wrong number of estimates, or families that cannot be tested.
    """
    states = states or {}
    claims = locked(lock).plan["hypotheses"]
    for h in (*estimates, *states):
        _registered(lock, h)
    given = {h: tuple(found) for h, found in estimates.items() if found is not None}
    for h, found in given.items():
        if h not in states:
            check_estimates(lock, h, found)
    sound = {h: found for h, found in given.items() if h not in states and not _without_interval(found)}
    tests = FamilyTests(sound, lock=lock)
    out = {}
    for h in sorted(claims, key=lambda name: claims[name]["order"]):
        if h in states:
            state, code, why = states[h]
            shown = given.get(h, ()) if state == "not_testable" else ()
            out[h] = withhold(lock, h, state, code, why, shown)
        elif h not in given:
            out[h] = withhold(lock, h, "not_run", "no_estimate")
        elif h not in sound:
            out[h] = withhold(lock, h, "not_testable", "no_interval", estimates=given[h])
        else:
            out[h] = _decided(lock, h, given[h], tests)
    return out


def _without_interval(given: Sequence[Any]) -> bool:
    return any(e.pivot is None or not math.isfinite(e.value) for e in given)


def _decided(lock: Lock, h: str, given: tuple[Any, ...], tests: FamilyTests | None) -> Decision:
    claim, _, m = _registered(lock, h)
    levels = _levels(lock, h, given, tests)
    verdict = verdict_of(claim, given, levels)
    correction, family = correction_of(lock.plan, h), claim["family"]
    criteria = list(verdict.criteria)
    if correction not in ("bonferroni", "none"):
        criteria.append(
            f"Family {family} ({correction.replace('_', ' ')}, {m} registered): adjusted for the family, "
            f"{p_equals(levels.p_support or 0.0)} of support and {p_equals(levels.p_reject or 0.0)} of "
            f"rejection, each to be at most {level(levels.alpha)}."
        )
    resolve = ""
    if verdict.outcome == "inconclusive":
        resolve = _resolve(verdict, levels, given[0].unit, correction)
    return Decision(
        h,
        verdict.outcome,
        verdict.reason_code,
        verdict.p_support,
        verdict.p_reject,
        levels.level_support,
        m,
        tuple(criteria),
        given,
        resolve,
        lock.sha256,
        p_support_adjusted=levels.p_support,
        p_reject_adjusted=levels.p_reject,
        alpha_reject=levels.level_reject,
        tests=None if correction in ("bonferroni", "none") else tests,
        lock=lock,
    )


def _levels(lock: Lock, h: str, given: tuple[Any, ...], tests: FamilyTests | None) -> Adjusted:
    """Return the levels of a hypothesis, from its family's tests where the correction needs them all."""
    claim, each, m = _registered(lock, h)
    if correction_of(lock.plan, h) in ("bonferroni", "none"):
        alpha = lock.plan["families"][claim["family"]]["alpha"]
        by = m if correction_of(lock.plan, h) == "bonferroni" else 1
        p = [min(1.0, by * q) for q in p_values_of(parts_of(claim, given), join=claim["join"])]
        return Adjusted(p[0], p[1], alpha, each, each, m)
    if tests is None or tests.lock_sha256 != lock.sha256 or tests.estimates.get(h) != given:
        raise DynstatError(
            "P309",
            f"family {claim['family']} is corrected over all its hypotheses at once",
            where=h,
            mend="use decide_family(lock, estimates)",
        )
    return tests.adjusted[h]


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
    """Return a claim, the strictest level its tests may be held to, and m."""
    plan = locked(lock).plan
    hypotheses = plan["hypotheses"]
    if hypothesis not in hypotheses:
        raise DynstatError(
            "P309", f"the lock registers no hypothesis {hypothesis!r}", expected=", ".join(hypotheses)
        )
    claim = hypotheses[hypothesis]
    family = plan["families"][claim["family"]]
    m = sum(h["family"] == claim["family"] for h in hypotheses.values())
    correction = family["correction"]
    return claim, level_of_each_test(family["alpha"], m, correction), m


def _resolve(verdict: Verdict, levels: Adjusted, unit: str, correction: str) -> str:
    """Say what would resolve an inconclusive claim, by how the standard error shrinks with the units."""
    from statistics import NormalDist

    code = verdict.reason_code
    if code == "by_construction":
        return "an estimand that no definition or theorem fixes"
    if code == "not_reached":
        return f"support of what is tested first: {levels.note}"
    if code == "not_beyond_null":
        return "an effect beyond its null; more data of the same kind alone would not do"
    tests = {
        "support": (verdict.p_support, levels.level_support),
        "rejection": (verdict.p_reject, levels.level_reject),
    }
    if any(p <= a for p, a in tests.values()):
        return "parts that do not contradict each other: one is shown to miss what the others meet"
    goal = "support" if verdict.p_support < verdict.p_reject else "rejection"
    p, alpha = tests[goal]
    if not p < 0.5:
        return "more independent units: the estimate lies where neither test can decide"
    z = NormalDist().inv_cdf
    factor = (z(1 - alpha) / z(1 - p)) ** 2
    if factor > 100:
        return f"more than 100 times as many independent units ({unit}): the estimate lies next to an edge"
    others = "" if correction in ("bonferroni", "none") else ", and the other hypotheses where they are"
    return (
        f"about {factor:.1f} times as many independent units ({unit}), were the estimate to stay where it is"
        f"{others} (towards {goal})"
    )
