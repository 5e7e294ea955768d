"""Decision rules: from an estimate, a rule and a level to supported, rejected or inconclusive.

Nothing here imports numpy: plans are checked against these rules on machines that only read them. A rule
asks the estimate's pivot for limits and for one-sided p-values: ``p_above(v)`` of the null that the parameter
lies at or below v, ``p_below(v)`` that it lies at or above v.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import DynstatError
from .criteria import criteria_of, describe
from .multiplicity import joined
from .wording import is_never_negative, level, p_equals

RULES: dict[str, str] = {
    "directional": "the effect has the registered sign and is not shown to be smaller than the SESOI",
    "minimum_effect": "the effect exceeds the SESOI in the registered direction",
    "threshold": "the quantity lies beyond the registered threshold",
    "equivalence": "the effect lies within plus or minus the SESOI",
    "nonzero": "the effect differs from zero and is not shown to lie within plus or minus the SESOI",
    "in_range": "the quantity lies within the registered range",
}
DIRECTED = ("directional", "minimum_effect", "threshold")
NEEDS_SESOI = ("directional", "minimum_effect", "equivalence", "nonzero")

REASONS: dict[str, str] = {
    "supported_by_rule": "supported: every criterion of the registered rule is met",
    "too_small": "rejected: the effect is smaller than the SESOI",
    "opposite_sign": "rejected: the effect has the opposite sign",
    "practically_equivalent": "rejected: the effect lies within plus or minus the SESOI",
    "not_equivalent": "rejected: the effect lies outside plus or minus the SESOI",
    "out_of_range": "rejected: the quantity lies outside the registered range",
    "below_threshold": "rejected: the quantity lies below the threshold it was claimed to exceed",
    "above_threshold": "rejected: the quantity lies above the threshold it was claimed to stay under",
    "interval_straddles": "inconclusive: the interval covers values on both sides of what decides",
    "not_beyond_null": "inconclusive: the number is not beyond what its null gives, or no null was computed",
    "by_construction": "inconclusive: a definition or theorem makes it so, hence it can support nothing",
    "not_reached": "inconclusive: the registered order of tests stopped before it, at a hypothesis that was "
    "not supported",
    "downgraded": "inconclusive: its rule says supported, and a deviation from the plan forbids it",
    "one_sample_a_cell": "not testable: one sample a cell cannot part the residual from the interaction",
    "no_interval": "not testable: the estimate has no interval on these data",
    "gate_failed": "inadmissible or not testable: a registered gate failed",
    "too_much_missing": "inadmissible: more runs are missing than the plan allows",
    "analysis_failed": "not run: the registered analysis could not be fitted to these data",
    "no_estimate": "not run: the analysis gave no estimate of this quantity",
}

Outcome = Literal["supported", "rejected", "inconclusive"]


class PivotLike(Protocol):
    """What a rule asks of a pivot."""

    def limit(self, alpha: float, side: Any) -> float: ...
    def p_above(self, value: float) -> float: ...
    def p_below(self, value: float) -> float: ...


class EstimateLike(Protocol):
    """What a rule asks of an estimate."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def pivot(self) -> Any: ...
    @property
    def null(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True)
class Rule:
    """One rule with its numbers.

    Attributes
    ----------
    kind : str
        A key of :data:`RULES`.
    direction : {"greater", "less"}
        For ``directional``, ``minimum_effect`` and ``threshold``.
    sesoi : float or None
        Smallest effect of interest, positive, on the estimate's scale.
    threshold : float or None
        For ``threshold``.
    range : tuple of float or None
        For ``in_range``.
    beyond_null : str
        Name of the null that the estimate must exceed, "" for none.
    scale : str
        In words; decides how numbers are written.

    Raises
    ------
    DynstatError
        S404 where a number is missing or impossible.
    """

    kind: str
    direction: str = "greater"
    sesoi: float | None = None
    threshold: float | None = None
    range: tuple[float, float] | None = None
    beyond_null: str = ""
    scale: str = ""

    def __post_init__(self) -> None:
        if self.kind not in RULES:
            raise DynstatError("S404", f"no rule is called {self.kind!r}", expected=" | ".join(RULES))
        if self.direction not in ("greater", "less"):
            raise DynstatError("S404", "direction is greater or less", found=self.direction)
        if self.kind in NEEDS_SESOI and not (self.sesoi is not None and self.sesoi > 0):
            raise DynstatError("S404", f"{self.kind} needs a SESOI above 0", found=self.sesoi)
        if self.kind == "threshold" and self.threshold is None:
            raise DynstatError("S404", "threshold needs its threshold")
        if self.kind == "in_range" and not (self.range and self.range[0] < self.range[1]):
            raise DynstatError("S404", "in_range needs a range [low, high] with low < high", found=self.range)

    @classmethod
    def from_plan(cls, part: Mapping[str, Any]) -> Rule:
        """Build a rule from a hypothesis (or a part of one) of an expanded plan."""
        span = part.get("range")
        return cls(
            kind=part["rule"],
            direction=part.get("direction") or "greater",
            sesoi=part["sesoi"].get("value"),
            threshold=part.get("threshold"),
            range=(span[0], span[1]) if span else None,
            beyond_null=part.get("beyond_null") or "",
            scale=part["sesoi"].get("scale", ""),
        )

    def describe(self) -> str:
        """Return the registered rule in words with its numbers."""
        return describe(self)

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of what decides: the range of ``in_range``, else plus and minus the SESOI."""
        d = self.sesoi or 0.0
        return self.range if self.kind == "in_range" and self.range else (-d, d)

    def p_values(self, given: PivotLike) -> tuple[float, float]:
        """Return the p-values of support and of rejection.

        Small p of support: the data exclude the null of the claim. Small p of rejection: they exclude the
        claim. ``directional`` and ``nonzero`` are supported only where not rejected at the same level.

        The test that a parameter lies *outside* [a, b] (rejection of ``in_range`` and ``equivalence``) has
        the parameter inside as its null, and at a boundary two ways to err: the near tail and the far one.
        Its p counts both, ``min(p_above(a) + p_above(b), p_below(a) + p_below(b))``: for a symmetric pivot
        the exact level at either boundary (Hodges & Lehmann 1954), at most twice the one-sided p, and next
        to that p itself where the range is wide against the standard error.
        """
        d, less, pivot = self.sesoi or 0.0, self.direction == "less", _Sane(given)
        if self.kind in ("directional", "minimum_effect", "threshold"):
            null = {
                "directional": 0.0,
                "minimum_effect": -d if less else d,
                "threshold": self.threshold or 0.0,
            }
            edge = -d if less else d
            if self.kind == "threshold":
                edge = null["threshold"]
            above, below = (pivot.p_below, pivot.p_above) if less else (pivot.p_above, pivot.p_below)
            p = above(null[self.kind]), below(edge)
        elif self.kind == "nonzero":
            p = 2 * min(pivot.p_above(0.0), pivot.p_below(0.0)), _inside(pivot, -d, d)
        else:
            a, b = self.ends
            p = _inside(pivot, a, b), _outside(pivot, a, b)
        return _probability(p[0]), _probability(p[1])

    def rejection_code(self, pivot: PivotLike, alpha: float) -> str:
        """Return why the claim is rejected, where it is."""
        if self.kind in ("directional", "minimum_effect"):
            opposite = pivot.p_above(0.0) if self.direction == "less" else pivot.p_below(0.0)
            return "opposite_sign" if opposite <= alpha else "too_small"
        if self.kind == "threshold":
            return "above_threshold" if self.direction == "less" else "below_threshold"
        return {
            "nonzero": "practically_equivalent",
            "equivalence": "not_equivalent",
            "in_range": "out_of_range",
        }[self.kind]


def unfit(kind: str, quantity: str, scale: str = "", by_construction: str = "") -> str:
    """Return why a rule cannot decide on a quantity, "" where it can.

    A quantity that is never negative differs from zero always and exceeds it whatever the data: `nonzero`
    and `directional` would test a null that cannot be true.
    """
    if kind == "nonzero" or (kind == "directional" and not by_construction):
        if is_never_negative(quantity, scale):
            return (
                f"{quantity} is never negative, so {kind} says nothing of it: use minimum_effect or threshold"
            )
    return ""


class _Sane:
    """A pivot whose NaN is the p-value 1, before two of them are compared: max and min would hide it."""

    def __init__(self, pivot: PivotLike) -> None:
        self._pivot = pivot

    def p_above(self, value: float) -> float:
        return _probability(self._pivot.p_above(value))

    def p_below(self, value: float) -> float:
        return _probability(self._pivot.p_below(value))


def _inside(pivot: _Sane, a: float, b: float) -> float:
    return max(pivot.p_above(a), pivot.p_below(b))


def _outside(pivot: _Sane, a: float, b: float) -> float:
    return min(pivot.p_above(a) + pivot.p_above(b), pivot.p_below(a) + pivot.p_below(b))


def _probability(p: float) -> float:
    # NaN must never decide: it compares false with everything, which a later edit could turn around.
    return 1.0 if math.isnan(p) else min(1.0, max(0.0, p))


@dataclass(frozen=True)
class Verdict:
    """What a claim's rule says at one level.

    Attributes
    ----------
    outcome : {"supported", "rejected", "inconclusive"}
    reason_code : str
        A key of :data:`REASONS`.
    p_support, p_reject : float
        Of the joined tests; compare both with `alpha`.
    alpha, alpha_reject : float
        The levels of the tests of support and of rejection; equal but for the stepwise corrections.
    criteria : tuple of str
        Every criterion with its numbers substituted.
    """

    outcome: Outcome
    reason_code: str
    p_support: float
    p_reject: float
    alpha: float
    criteria: tuple[str, ...]
    alpha_reject: float = math.nan


def p_values_of(parts: Sequence[tuple[Rule, EstimateLike]], *, join: str = "all") -> tuple[float, float]:
    """Return the p-values of support and of rejection of a claim of one or more parts, before any level."""
    found = [rule.p_values(estimate.pivot) for rule, estimate in parts]
    guarded = [max(p, null_p(rule, e)) for (p, _), (rule, e) in zip(found, parts, strict=True)]
    first, second = ("largest", "smallest") if join == "all" else ("smallest", "largest")
    return joined(guarded, first), joined([p for _, p in found], second)


def judge(
    parts: Sequence[tuple[Rule, EstimateLike]],
    alpha: float,
    *,
    join: str = "all",
    by_construction: str = "",
    alpha_reject: float | None = None,
    blocked: str = "",
) -> Verdict:
    """Judge a claim of one or more parts at one level.

    Parameters
    ----------
    parts : sequence of (Rule, Estimate)
        Every estimate needs a pivot.
    alpha : float
        Level of each test, in (0, 0.5); see :func:`dynstat.inference.multiplicity.level_of_each_test`.
    join : {"all", "any"}
        ``all`` supports with its largest p (the p of a named null among them) and rejects with k times its
        smallest; ``any`` supports with k times its smallest and rejects with its largest. k counts the parts.
    by_construction : str
        What makes the claim true; then it can be rejected and never supported.
    alpha_reject : float, optional
        Level of the tests of rejection where it differs from `alpha`, that of support.
    blocked : str
        What stopped a registered order of tests before this claim; then it can be rejected and never
        supported.

    Notes
    -----
    No claim is both supported and rejected: support needs a part (``any``) or all parts (``all``) whose own
    rejection test, at the level of rejection, does not reject.

    Raises
    ------
    DynstatError
        S404 for an empty list, an unknown `join`, a level outside its range; S403 for an estimate without
        pivot.
    """
    if not parts or join not in ("all", "any"):
        raise DynstatError("S404", "a claim needs parts joined by all or any", found=join)
    at = alpha if alpha_reject is None else alpha_reject
    for a in (alpha, at):
        if not 0 < a < 0.5:
            raise DynstatError("S404", "the level of a test must lie between 0 and 0.5", found=a)
    support, reject, nulls, vetoed = [], [], [], []
    for rule, estimate in parts:
        if estimate.pivot is None:
            raise DynstatError(
                "S403", f"{estimate.key} has no interval, so no rule can be applied to it", where=estimate.key
            )
        p_support, p_reject = rule.p_values(estimate.pivot)
        support.append(p_support)
        reject.append(p_reject)
        nulls.append(null_p(rule, estimate))
        vetoed.append(p_reject <= at)

    guarded = [max(p, q) for p, q in zip(support, nulls, strict=True)]
    k = len(parts)
    if join == "all":
        p_support, p_reject = joined(guarded, "largest"), joined(reject, "smallest")
        holds = p_support <= alpha and not any(vetoed)
        null_fails = max(nulls) > alpha
        binding = reject.index(min(reject))
    else:
        p_support, p_reject = joined(guarded, "smallest"), joined(reject, "largest")
        holds = any(k * p <= alpha and not v for p, v in zip(guarded, vetoed, strict=True))
        null_fails = not holds and any(k * p <= alpha and not v for p, v in zip(support, vetoed, strict=True))
        binding = reject.index(max(reject))

    outcome: Outcome = "inconclusive"
    if p_reject <= at:
        rule, estimate = parts[binding]
        outcome, code = "rejected", rule.rejection_code(estimate.pivot, at)
    elif by_construction:
        code = "by_construction"
    elif blocked:
        code = "not_reached"
    elif null_fails:
        code = "not_beyond_null"
    elif holds:
        outcome, code = "supported", "supported_by_rule"
    else:
        code = "interval_straddles"
    criteria = [
        line
        for (rule, estimate), q in zip(parts, nulls, strict=True)
        for line in criteria_of(rule, estimate, alpha, q, many=k > 1, alpha_reject=at)
    ]
    if k > 1:
        joined_by = ("the largest p", f"{k} times the smallest p")
        first, second = joined_by if join == "all" else joined_by[::-1]
        most = f"each to be at most {level(alpha)}"
        if at != alpha:
            most = f"to be at most {level(alpha)} and {level(at)}"
        criteria.append(
            f"Joined by {join}: supported with {first} ({p_equals(p_support)}), rejected with {second} "
            f"({p_equals(p_reject)}), {most}."
        )
    if by_construction:
        criteria.append(f"True by construction, so never supported: {by_construction}")
    if blocked:
        criteria.append(f"Not reached, so never supported: {blocked}.")
    return Verdict(outcome, code, p_support, p_reject, alpha, tuple(criteria), at)


def null_p(rule: Rule, estimate: EstimateLike) -> float:
    """Return the Monte-Carlo p against the named null: 0 where none is named, 1 where it was not computed."""
    if not rule.beyond_null:
        return 0.0
    null = estimate.null or {}
    if null.get("name") != rule.beyond_null or null.get("p") is None:
        return 1.0
    return _probability(float(null["p"]))
