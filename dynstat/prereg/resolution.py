"""Resolution: whether the standard error that is to be expected can decide a claim, by the normal formula."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from ..inference.rules import Rule
from .witness import NormalPivot

POWER = 0.8
_NORMAL = NormalDist()
_OUTCOMES = ("supported", "rejected", "inconclusive")


@dataclass(frozen=True)
class Resolution:
    """What one part of a claim needs, and what it is expected to get.

    Attributes
    ----------
    hypothesis, quantity, rule : str
    level, power : float
        Of the test of support; the chance of support that is asked for.
    distance : float or None
        From the true value that is assumed to what must be excluded; None where the plan states none.
    assumed : float or None
        That true value.
    basis : str
        In words.
    se_needed, se_expected : float or None
        None where the distance, or an expected standard error, is not stated; or it is not above 0.
    probabilities : mapping or None
        Of supported, rejected and inconclusive, for a normal estimate at the assumed value.
    """

    hypothesis: str
    quantity: str
    rule: str
    level: float
    power: float
    distance: float | None
    assumed: float | None
    basis: str
    se_needed: float | None
    se_expected: float | None
    probabilities: Mapping[str, float] | None

    @property
    def short(self) -> bool:
        """Whether the expected standard error is larger than the one that is needed."""
        return (
            self.se_needed is not None
            and self.se_expected is not None
            and (self.se_expected > self.se_needed * (1 + 1e-9))
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"short": self.short}


def resolution(plan: Mapping[str, Any], hypothesis: str, level: float) -> list[Resolution]:
    """Return the resolution of every part of a claim of an expanded plan.

    SESOI / SE must be at least z(1 − a) + z(power) for ``directional``, where a is the level; the SESOI, or
    half of the range, at least z(1 − a) + z((1 + power)/2) for ``equivalence`` and ``in_range``, whose
    interval must clear two edges. The other rules speak of an effect beyond an edge: without an expected
    effect in the plan nothing can be said of them. Parts joined by ``any`` are supported at a/k.
    """
    claim = plan["hypotheses"][hypothesis]
    power = float(claim.get("power", POWER))
    if claim["join"] == "any":
        level /= len(claim["parts"])
    return [_part(plan, hypothesis, part, level, power) for part in claim["parts"]]


def _part(
    plan: Mapping[str, Any], hypothesis: str, part: Mapping[str, Any], level: float, power: float
) -> Resolution:
    rule, where = Rule.from_plan(part), part["estimand"]
    expected = part["expected"]["value"] if "expected" in part else None
    z = _NORMAL.inv_cdf(1 - level) + _NORMAL.inv_cdf(power)
    low, high = rule.ends
    sign = -1 if rule.direction == "less" else 1
    distance: float | None
    if rule.kind == "directional":
        distance, assumed, basis = rule.sesoi, sign * (rule.sesoi or 0.0), "the SESOI"
    elif rule.kind in ("equivalence", "in_range"):
        z = _NORMAL.inv_cdf(1 - level) + _NORMAL.inv_cdf((1 + power) / 2)
        distance, assumed = (high - low) / 2, (low + high) / 2
        basis = "the SESOI" if rule.kind == "equivalence" else "half of the range"
    elif expected is None:
        distance = assumed = None
        basis = "no expected effect is stated"
    else:
        edge = {"threshold": rule.threshold, "minimum_effect": sign * (rule.sesoi or 0.0)}.get(rule.kind)
        if edge is None:  # nonzero: two-sided
            z = _NORMAL.inv_cdf(1 - level / 2) + _NORMAL.inv_cdf(power)
            distance, basis = abs(expected), "the expected effect"
        else:
            distance, basis = sign * (expected - edge), f"the expected value {expected:g} less {edge:g}"
        assumed = expected
    assumed = expected if expected is not None else assumed
    se = plan["analyses"][where["analysis"]].get("expected_se", {}).get(where["quantity"])
    return Resolution(
        hypothesis,
        where["quantity"],
        rule.kind,
        level,
        power,
        distance,
        assumed,
        basis,
        distance / z if distance is not None and distance > 0 else None,
        se,
        probabilities(rule, assumed, se, level) if se is not None and assumed is not None else None,
    )


def probabilities(rule: Rule, true: float, se: float, level: float) -> dict[str, float]:
    """Return the chances of the three decisions for a normal estimate of a true value.

    The edges between decisions are found by bisection along the estimate, from 9 standard errors below the
    true value to 9 above.

    Examples
    --------
    >>> p = probabilities(Rule("directional", sesoi=2.5), 2.5, 1.0, 0.05)
    >>> [round(p[k], 2) for k in ("supported", "rejected", "inconclusive")]
    [0.8, 0.05, 0.15]
    """

    def decided(z: float) -> str:
        p_support, p_reject = rule.p_values(NormalPivot(true + z * se, se))
        return "rejected" if p_reject <= level else "supported" if p_support <= level else "inconclusive"

    out = dict.fromkeys(_OUTCOMES, 0.0)
    steps = [-9 + 0.1 * i for i in range(181)]
    start, here = -float("inf"), decided(steps[0])
    for left, right in zip(steps, steps[1:], strict=False):
        after = decided(right)
        if after != here:
            for _ in range(40):
                middle = (left + right) / 2
                left, right = (middle, right) if decided(middle) == here else (left, middle)
            out[here] += _NORMAL.cdf(right) - (_NORMAL.cdf(start) if start > -9 else 0.0)
            start, here = right, after
    out[here] += 1 - (_NORMAL.cdf(start) if start > -9 else 0.0)
    return out
