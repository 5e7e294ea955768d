"""The tests of a locked plan's families, made from all their estimates at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from .multiplicity import STAGED, Adjusted, adjust
from .rules import Rule, Verdict, judge, p_values_of

if TYPE_CHECKING:
    from ..prereg.lock import Lock


@dataclass(frozen=True)
class FamilyTests:
    """Adjusted p-values and levels of every registered hypothesis, from the estimates of all of them.

    Attributes
    ----------
    estimates : mapping of hypothesis to tuple of Estimate
        One for each part; a hypothesis without estimates, or with one that has no interval, has none here and
        counts as registered all the same.
    adjusted : mapping of hypothesis to Adjusted

    Raises
    ------
    DynstatError
        P309 without a lock, or for estimates of other quantities or methods.

    Notes
    -----
    Where tests go on from one hypothesis to the next, only one that is *supported* may open the way: one
    whose p of support is small and which cannot be supported, being true by construction or having a part
    that its own test rejects, counts there as if its p were 1.
    """

    estimates: Mapping[str, tuple[Any, ...]]
    lock: InitVar[Lock | None] = None
    adjusted: Mapping[str, Adjusted] = field(init=False)
    lock_sha256: str = field(init=False)

    def __post_init__(self, lock: Lock | None) -> None:
        for h, given in self.estimates.items():
            check_estimates(lock, h, given)
        object.__setattr__(self, "adjusted", tests_of(locked(lock).plan, self.estimates))
        object.__setattr__(self, "lock_sha256", locked(lock).sha256)


def tests_of(plan: Mapping[str, Any], estimates: Mapping[str, Sequence[Any]]) -> dict[str, Adjusted]:
    """Return the tests of all hypotheses of an expanded plan, locked or not; no decision follows from them.

    Parameters
    ----------
    plan : mapping
        Expanded.
    estimates : mapping of hypothesis to sequence of Estimate
        One for each part, with pivots; hypotheses that are missing have no p-value.
    """
    claims, families = plan["hypotheses"], plan["families"]
    corrections = {h: correction_of(plan, h) for h in claims}
    support: dict[str, float] = {}
    reject: dict[str, float] = {}
    for h, given in estimates.items():
        support[h], reject[h] = p_values_of(parts_of(claims[h], given), join=claims[h]["join"])
        if claims[h]["by_construction"] and corrections[h] not in ("bonferroni", "none"):
            support[h] = 1.0
    while True:
        adjusted = adjust(families, claims, support, reject)
        aside = [
            h
            for h, given in estimates.items()
            if corrections[h] in STAGED
            and support[h] <= adjusted[h].level_support
            and verdict_of(claims[h], given, adjusted[h]).reason_code == "interval_straddles"
        ]
        if not aside:
            return adjusted
        support |= dict.fromkeys(aside, 1.0)


def verdict_of(claim: Mapping[str, Any], given: Sequence[Any], tests: Adjusted) -> Verdict:
    """Return what the rule of a claim says at the levels of its family."""
    return judge(
        parts_of(claim, given),
        tests.level_support,
        join=claim["join"],
        by_construction=claim["by_construction"],
        alpha_reject=tests.level_reject,
        blocked="" if tests.reached else tests.note,
    )


def parts_of(claim: Mapping[str, Any], given: Sequence[Any]) -> list[tuple[Rule, Any]]:
    """Pair the rules of a claim with its estimates."""
    return [(Rule.from_plan(p), e) for p, e in zip(claim["parts"], given, strict=True)]


def correction_of(plan: Mapping[str, Any], hypothesis: str) -> str:
    """Return the correction of a hypothesis's family; ``gatekeeping`` where another family waits for it."""
    name = plan["hypotheses"][hypothesis]["family"]
    if any(spec.get("after") == name for spec in plan["families"].values()):
        return "gatekeeping"
    return str(plan["families"][name].get("correction", "bonferroni"))


def locked(lock: Lock | None) -> Lock:
    """Return a lock, or raise P309 where there is none."""
    from ..prereg.lock import Lock

    if not isinstance(lock, Lock):
        raise DynstatError(
            "P309",
            "a decision is made by a verified lock only",
            found=type(lock).__name__,
            expected="Lock",
            mend="lock the plan and load it with load_lock",
        )
    return lock


def check_estimates(lock: Lock | None, hypothesis: str, given: Sequence[Any]) -> None:
    """Check that the estimates are those of the registered quantities, by the registered methods."""
    plan = locked(lock).plan
    if hypothesis not in plan["hypotheses"]:
        raise DynstatError(
            "P309",
            f"the lock registers no hypothesis {hypothesis!r}",
            expected=", ".join(plan["hypotheses"]),
        )
    parts = plan["hypotheses"][hypothesis]["parts"]
    if len(given) != len(parts):
        raise DynstatError("S404", f"{hypothesis} has {len(parts)} parts", found=f"{len(given)} estimates")
    for part, estimate in zip(parts, given, strict=True):
        quantity = part["estimand"]["quantity"]
        method = plan["analyses"][part["estimand"]["analysis"]]["method"]
        for what, found, expected in (
            ("quantity", estimate.key, quantity),
            ("method", estimate.method, method),
        ):
            if found != expected:
                raise DynstatError(
                    "P309",
                    f"{hypothesis} is registered on another {what}",
                    where=hypothesis,
                    found=found,
                    expected=expected,
                )
