"""Rules in words: as registered, and each criterion with the numbers of an estimate substituted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .wording import is_bounded, level, number, p_equals

if TYPE_CHECKING:
    from .rules import EstimateLike, Rule


def describe(rule: Rule) -> str:
    """Return a registered rule in words with its numbers."""
    less = rule.direction == "less"
    beyond = "below" if less else "above"
    low, high = (_number(rule, x) for x in rule.ends)
    size = _number(rule, rule.sesoi)
    signed = low if less else high
    text = {
        "directional": f"directional ({rule.direction}): supported when the effect lies {beyond} 0 and is "
        f"not shown to be smaller than {size} in size; rejected when it is",
        "minimum_effect": f"minimum effect ({rule.direction}): supported when the effect lies {beyond} "
        f"{signed}; rejected when it lies on the other side",
        "threshold": f"threshold ({rule.direction}): supported when the quantity lies {beyond} "
        f"{_number(rule, rule.threshold)}; rejected when it lies on the other side",
        "equivalence": f"equivalence: supported when the effect lies between {low} and {high}; rejected when "
        "it lies outside",
        "nonzero": "nonzero: supported when the effect differs from 0 and is not shown to lie between "
        f"{low} and {high}; rejected when it is",
        "in_range": f"in range: supported when the quantity lies between {low} and {high}; rejected when "
        "it lies outside",
    }[rule.kind]
    return text + (f"; never supported unless beyond the null {rule.beyond_null}" if rule.beyond_null else "")


def criteria_of(
    rule: Rule,
    estimate: EstimateLike,
    alpha: float,
    p_null: float,
    many: bool,
    alpha_reject: float | None = None,
) -> list[str]:
    """Return the criteria of support, of rejection and of the null, with numbers and whether they are met.

    Parameters
    ----------
    p_null : float
        Against the named null; 1 where it was not computed.
    many : bool
        Whether the claim has several parts, so that each line names its quantity.
    alpha_reject : float, optional
        Level of the test of rejection where it differs from that of support.
    """
    pivot, less = estimate.pivot, rule.direction == "less"
    p_support, p_reject = rule.p_values(pivot)
    strict = alpha if alpha_reject is None else alpha_reject
    lower, upper = (_number(rule, pivot.limit(alpha, side)) for side in ("lower", "upper"))
    a, b = (_number(rule, x) for x in rule.ends)
    side, other = ("upper", "lower") if less else ("lower", "upper")
    near = upper if less else lower
    far = _number(rule, pivot.limit(strict, other))
    beyond, short = ("below", "above") if less else ("above", "below")
    at, at_far = (f"at one-sided level {number(1 - a, True)}" for a in (alpha, strict))
    apart = "" if strict == alpha else f" {at_far}"
    edge = _number(rule, rule.threshold) if rule.kind == "threshold" else a if less else b
    if rule.kind == "directional":
        support = (
            f"the {side} limit {at} lies {beyond} 0 and the {other} limit{apart} reaches {edge}: "
            f"{side} {near}, {other} {far}"
        )
        reject = f"the {other} limit{apart} lies {short} {edge}: {far}"
    elif rule.kind in ("minimum_effect", "threshold"):
        support = f"the {side} limit {at} lies {beyond} {edge}: {near}"
        reject = f"the {other} limit{apart} lies {short} {edge}: {far}"
    elif rule.kind == "nonzero":
        low, high = (_number(rule, pivot.limit(alpha / 2, s)) for s in ("lower", "upper"))
        support = (
            f"the two-sided interval at level {number(1 - alpha, True)} leaves out 0 and the effect is not "
            f"shown to lie between {a} and {b}: {low} to {high}"
        )
        inner, outer = (_number(rule, pivot.limit(strict, s)) for s in ("lower", "upper"))
        reject = f"both limits {at_far} lie between {a} and {b}: {inner} and {outer}"
    else:
        support = f"both limits {at} lie between {a} and {b}: {lower} and {upper}"
        reject = (
            f"the quantity lies below {a} or above {b}, both tails counted: estimate "
            f"{_number(rule, estimate.value)}"
        )
    # Support of these two gives way to rejection; elsewhere the two tests cannot both be passed.
    supported = p_support <= alpha and p_reject > strict
    about = f"{estimate.key}: s" if many else "S"
    then = f"{estimate.key}: r" if many else "R"
    out = [
        f"{about}upported if {support}; {_verdict(p_support, alpha, supported)}",
        f"{then}ejected if {reject}; {_verdict(p_reject, strict, p_reject <= strict)}",
    ]
    if rule.beyond_null:
        start = f"{estimate.key}: b" if many else "B"
        computed = (estimate.null or {}).get("name") == rule.beyond_null
        found = (
            _verdict(p_null, alpha, p_null <= alpha) if computed else "no such null was computed: not met."
        )
        out.append(f"{start}eyond the null {rule.beyond_null}; {found}")
    return out


def _number(rule: Rule, x: float | None) -> str:
    return number(x, is_bounded(scale=rule.scale))


def _verdict(p: float, alpha: float, met: bool) -> str:
    return f"{p_equals(p)}, to be at most {level(alpha)}: {'met' if met else 'not met'}."
