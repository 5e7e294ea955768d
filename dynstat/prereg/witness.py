"""Witnesses: results that would support a claim, reject it, or leave it open, made up and judged by its rule.

A registered claim that no result can reject is none, and so is one whose decision does not depend on the
result. Both are looked for before anything is measured: results are made up as normal estimates (value,
standard error, p against the named null) around the numbers of the rule, and judged. Numpy-free.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

from ..inference.decision import DECISIONS
from ..inference.rules import Rule, judge
from ..inference.wording import is_bounded, is_never_negative

_NORMAL = NormalDist()
#: What a mutation changes: of a result, then of the registered rule.
MUTATIONS = ("value", "se", "sesoi", "direction")
# Distances below it leave no room for a standard error.
_SMALLEST = 1e-100
_Key = tuple[str, str]  # analysis and quantity


@dataclass(frozen=True)
class NormalPivot:
    """A normal estimate with its standard error."""

    value: float
    se: float

    def limit(self, alpha: float, side: str) -> float:
        """Return the one-sided limit at level 1 − alpha."""
        z = _NORMAL.inv_cdf(1 - alpha)
        return self.value + (z if side == "upper" else -z) * self.se

    def p_above(self, value: float) -> float:
        """Return the one-sided p of H0: parameter <= value."""
        return 0.5 * math.erfc((self.value - value) / self.se / math.sqrt(2))

    def p_below(self, value: float) -> float:
        """Return the one-sided p of H0: parameter >= value."""
        return 0.5 * math.erfc((value - self.value) / self.se / math.sqrt(2))


@dataclass(frozen=True)
class Made:
    """A made-up estimate, of which a rule asks what it asks of a real one."""

    key: str
    value: float
    se: float
    null: Mapping[str, Any] | None = None

    @property
    def pivot(self) -> NormalPivot:
        """The normal pivot."""
        return NormalPivot(self.value, self.se)


@dataclass(frozen=True)
class Reach:
    """What a claim can come to.

    Attributes
    ----------
    witnesses : mapping of outcome to mapping of quantity to Made
        A result of each outcome that occurs.
    missing : tuple of str
        Outcomes that no result has.
    flips : mapping of outcome to tuple of str
        Of each witness, what alone, changed, changes the decision: members of :data:`MUTATIONS`.
    """

    witnesses: Mapping[str, Mapping[str, Made]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    flips: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def reach(claim: Mapping[str, Any], alpha: float) -> Reach:
    """Look for a result of every outcome of a claim of an expanded plan, and change each in one thing.

    Parameters
    ----------
    claim : mapping
        A hypothesis of an expanded plan.
    alpha : float
        The level of its tests.
    """
    found: dict[str, dict[_Key, Made]] = {}
    for results in _results(claim, alpha):
        outcome = _outcome(claim, results, alpha)
        # Of several witnesses of "inconclusive" the first is a wide interval, which speaks for itself.
        found.setdefault(outcome, results)
        if len(found) == len(DECISIONS):
            break
    flips = {
        outcome: tuple(_flips(claim, results, alpha, outcome, list(found.values())))
        for outcome, results in found.items()
    }
    keyed = {o: {q: made for (_, q), made in results.items()} for o, results in found.items()}
    return Reach(keyed, tuple(o for o in DECISIONS if o not in found), flips)


def bounds_of(quantity: str, scale: str) -> tuple[float, float]:
    """Return between which values a quantity must lie: a share between 0 and 1, a difference of such ±1."""
    low = 0.0 if is_never_negative(quantity, scale) else -1.0 if is_bounded(quantity, scale) else -math.inf
    return low, 1.0 if is_bounded(quantity, scale) else math.inf


def _key(part: Mapping[str, Any]) -> _Key:
    return part["estimand"]["analysis"], part["estimand"]["quantity"]


def _outcome(claim: Mapping[str, Any], results: Mapping[_Key, Made], alpha: float) -> str:
    parts = [(Rule.from_plan(p), results[_key(p)]) for p in claim["parts"]]
    return judge(parts, alpha, join=claim["join"], by_construction=claim["by_construction"]).outcome


def _results(claim: Mapping[str, Any], alpha: float) -> Iterator[dict[_Key, Made]]:
    """Yield results: of every estimand the estimate that says least, supports most, rejects most.

    Parts with one estimand share its estimate, and estimates of different estimands are free of each other.
    So `all` parts can be supported together (`any`: rejected together) where each estimand can do it for its
    own parts, and one search an estimand finds out.
    """
    parts: dict[_Key, list[Mapping[str, Any]]] = {}
    for part in claim["parts"]:
        parts.setdefault(_key(part), []).append(part)
    k = len(claim["parts"])
    supports, rejects, says_least = {}, {}, {}
    for key, group in parts.items():
        rules = [Rule.from_plan(p) for p in group]
        scored = []
        for made in _candidates(key[1], group):
            p = [rule.p_values(made.pivot) for rule in rules]
            beaten = made.null is None or made.null["p"] < 0.5
            support = [
                ps if pr > alpha and (beaten or not r.beyond_null) else 1.0
                for r, (ps, pr) in zip(rules, p, strict=True)
            ]
            reject = [pr for _, pr in p]
            counts = [tuple(sum(x <= a for x in q) for a in (alpha / k, alpha)) for q in (support, reject)]
            scored.append((counts[0], counts[1], made))
        supports[key] = max(scored, key=lambda row: row[0])[2]
        rejects[key] = max(scored, key=lambda row: row[1])[2]
        # The same estimate with a standard error that leaves everything open.
        near = rejects[key] if claim["by_construction"] else supports[key]
        says_least[key] = replace(near, se=max(row[2].se for row in scored))
    yield from (says_least, supports, rejects)


def _candidates(quantity: str, parts: Sequence[Mapping[str, Any]]) -> Iterator[Made]:
    """Yield estimates around the numbers of the rules, within the natural bounds of the quantity."""
    edges = sorted({e for part in parts for e in _edges(Rule.from_plan(part))})
    gaps = [b - a for a, b in itertools.pairwise(edges) if b > a]
    step = min(gaps, default=0.0) or max(map(abs, edges))
    step = step if step > _SMALLEST else 1.0
    low, high = bounds_of(quantity, parts[0]["sesoi"].get("scale", ""))
    inside = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    outside = [edges[0] - step, edges[-1] + step]
    # Where a bound lies close to an edge, what is still possible lies between them.
    outside += [(edges[0] + low) / 2 if math.isfinite(low) else edges[0] - 10 * step]
    outside += [(edges[-1] + high) / 2 if math.isfinite(high) else edges[-1] + 10 * step]
    values = [v for v in [*inside, *outside, *edges, low, high] if math.isfinite(v) and low <= v <= high]
    names = list(dict.fromkeys(part["beyond_null"] for part in parts if part["beyond_null"]))
    nulls = [{"name": names[0], "p": p} for p in (0.0, 1.0)] if names else [None]
    size = min([step, *(d for v in values for e in edges if (d := abs(v - e)) > 1e-9 * step)])
    for se in (100 * step, size / 100, size / 3):
        for value, null in itertools.product(values, nulls):
            yield Made(quantity, value, se, null)


def _edges(rule: Rule) -> tuple[float, ...]:
    if rule.kind == "threshold":
        return (rule.threshold or 0.0,)
    if rule.kind == "directional":
        return (0.0, (rule.sesoi or 0.0) * (-1 if rule.direction == "less" else 1))
    if rule.kind == "minimum_effect":
        return ((rule.sesoi or 0.0) * (-1 if rule.direction == "less" else 1),)
    return (*rule.ends, 0.0) if rule.kind == "nonzero" else rule.ends


def _flips(
    claim: Mapping[str, Any],
    results: Mapping[_Key, Made],
    alpha: float,
    outcome: str,
    others: Sequence[Mapping[_Key, Made]],
) -> Iterator[str]:
    """Yield what, changed alone, changes the decision on a result."""
    for name in MUTATIONS:
        if name in ("value", "se"):
            changed = (_outcome(claim, r, alpha) for r in _changed_results(claim, results, name, others))
        else:
            changed = (_outcome(c, results, alpha) for c in _changed_claims(claim, name))
        if any(o != outcome for o in changed):
            yield name


def _changed_results(
    claim: Mapping[str, Any], results: Mapping[_Key, Made], name: str, others: Sequence[Mapping[_Key, Made]]
) -> Iterator[dict[_Key, Made]]:
    """Yield results with other values (or other standard errors) of the estimates, all else as it was."""
    # One estimate alone may decide nothing: first all take the values (or errors) of another witness.
    for other in others:
        yield {key: replace(made, **{name: getattr(other[key], name)}) for key, made in results.items()}
    for key, made in results.items():
        parts = [p for p in claim["parts"] if _key(p) == key]
        for x in dict.fromkeys(getattr(m, name) for m in _candidates(key[1], parts)):
            yield {**results, key: replace(made, **{name: x})}


def _changed_claims(claim: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield the claim with other numbers in its rules, or with the directions turned around."""
    if name == "direction":
        if any(p["direction"] for p in claim["parts"]):
            turned = {"greater": "less", "less": "greater", None: None}
            yield {**claim, "parts": [p | {"direction": turned[p["direction"]]} for p in claim["parts"]]}
        return
    for change in (1e-6, 0.1, 0.5, 2.0, 10.0, 1e6):
        yield {**claim, "parts": [_scaled(p, change) for p in claim["parts"]]}
    for sign in (-1, 1):
        yield {**claim, "parts": [_shifted(p, sign * f) for p in claim["parts"] for f in (10.0,)]}


def _scaled(part: Mapping[str, Any], factor: float) -> dict[str, Any]:
    out = dict(part)
    if part["sesoi"]["value"] is not None:
        out["sesoi"] = part["sesoi"] | {"value": part["sesoi"]["value"] * factor}
    if part["range"]:
        low, high = part["range"]
        middle, half = (low + high) / 2, (high - low) / 2 * factor
        out["range"] = [middle - half, middle + half]
    if part["threshold"] is not None:
        out["threshold"] = part["threshold"] * factor
    return out


def _shifted(part: Mapping[str, Any], by: float) -> dict[str, Any]:
    out = dict(part)
    if part["range"]:
        width = part["range"][1] - part["range"][0]
        out["range"] = [x + by * width for x in part["range"]]
    if part["threshold"] is not None:
        out["threshold"] = part["threshold"] + by * (abs(part["threshold"]) or 1.0)
    return out
