"""The hypotheses of a plan: what each must say before it can be decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..inference.rules import DIRECTED, NEEDS_SESOI, RULES, unfit
from .analyses import check_quantity
from .checker import Checker, Pointer, did_you_mean

_COMMON = ("claim", "role", "family", "if_supported", "if_rejected", "does_not_show")
_PART = ("estimand", "rule", "sesoi")
_PART_OPTIONAL = ("direction", "range", "threshold", "beyond_null", "expected")
_OPTIONAL = ("by_construction", "power")


def expand_hypothesis(
    c: Checker, value: Any, at: Pointer, families: Mapping[str, Any], analyses: Mapping[str, Any]
) -> dict[str, Any]:
    """Check one hypothesis and return it as parts joined by ``all`` or ``any``.

    A hypothesis with one rule is written flat and becomes one part. ``power`` (of the hypothesis) and
    ``expected`` (of a part) stand in what is returned only where they are given.
    """
    known = value.get("by_construction") if isinstance(value, dict) else None
    joins = [k for k in ("all", "any") if isinstance(value, dict) and k in value]
    if joins:
        spec = c.mapping(value, at, (*_COMMON, *joins), _OPTIONAL)
        join = joins[0]
        if len(joins) == 2:
            c.problem(at, "parts are joined by all or by any, not both")
        given = [(p, (*at, join, i)) for i, p in enumerate(c.sequence(value[join], (*at, join), 1))]
        parts = [
            _part(c, c.mapping(p, here, _PART, _PART_OPTIONAL), here, analyses, known) for p, here in given
        ]
    else:
        spec = c.mapping(value, at, (*_COMMON, *_PART), (*_PART_OPTIONAL, *_OPTIONAL))
        join, parts = "all", [_part(c, spec, at, analyses, known)] if spec else []
    family = spec.get("family")
    if not isinstance(family, str) or family not in families:
        c.problem((*at, "family"), f"no family {family!r} is declared{did_you_mean(family, families)}")
    out: dict[str, Any] = {
        "claim": c.text(spec.get("claim"), (*at, "claim")),
        "role": c.choice(spec.get("role"), (*at, "role"), ("primary", "secondary")),
        "family": family if isinstance(family, str) else "",
        "join": join,
        "by_construction": _optional(c, spec.get("by_construction"), (*at, "by_construction")),
        "parts": parts,
        "if_supported": c.text(spec.get("if_supported"), (*at, "if_supported")),
        "if_rejected": c.text(spec.get("if_rejected"), (*at, "if_rejected")),
        "does_not_show": c.texts(spec.get("does_not_show"), (*at, "does_not_show"), 1),
    }
    if spec.get("power") is not None:
        out["power"] = c.number(spec["power"], (*at, "power"), 0.5, 1, open_ends=True)
    return out


def _part(
    c: Checker, spec: Mapping[str, Any], at: Pointer, analyses: Mapping[str, Any], by_construction: Any
) -> dict[str, Any]:
    rule = c.choice(spec.get("rule"), (*at, "rule"), tuple(RULES))
    estimand = c.mapping(spec.get("estimand"), (*at, "estimand"), ("analysis", "quantity"))
    analysis, quantity = str(estimand.get("analysis")), str(estimand.get("quantity"))
    if analysis not in analyses:
        c.problem(
            (*at, "estimand", "analysis"), f"no analysis {analysis!r}{did_you_mean(analysis, analyses)}"
        )
    else:
        check_quantity(c, quantity, (*at, "estimand", "quantity"), analyses[analysis])
    needed = {"in_range": "range", "threshold": "threshold"}.get(rule)
    for key in ("range", "threshold"):
        if key == needed and key not in spec:
            c.problem(at, f"rule {rule} needs {key!r}")
        if key != needed and key in spec:
            c.problem((*at, key), f"rule {rule} has no {key}")
    if rule not in DIRECTED and "direction" in spec:
        c.problem((*at, "direction"), f"rule {rule} has no direction")
    if rule in DIRECTED and "direction" not in spec:
        c.problem(at, f"rule {rule} needs 'direction' (greater or less)")
    span = None
    if needed == "range" and "range" in spec:
        ends = c.sequence(spec["range"], (*at, "range"), 2)
        span = [c.number(v, (*at, "range", i)) for i, v in enumerate(ends)]
        if len(span) != 2 or not span[0] < span[1]:
            c.problem((*at, "range"), "a range is [low, high] with low < high")
    out: dict[str, Any] = {
        "estimand": {"analysis": analysis, "quantity": quantity},
        "rule": rule,
        "direction": c.choice(spec["direction"], (*at, "direction"), ("greater", "less"))
        if rule in DIRECTED and "direction" in spec
        else None,
        "range": span,
        "threshold": c.number(spec["threshold"], (*at, "threshold"))
        if needed == "threshold" and "threshold" in spec
        else None,
        "sesoi": _sesoi(c, spec.get("sesoi"), (*at, "sesoi"), rule),
        "beyond_null": _optional(c, spec.get("beyond_null"), (*at, "beyond_null")),
    }
    if why := unfit(rule, quantity, out["sesoi"]["scale"], str(by_construction or "")):
        c.problem((*at, "rule"), why)
    if spec.get("expected") is not None:
        expected = c.mapping(spec["expected"], (*at, "expected"), ("value", "reason"))
        out["expected"] = {
            "value": c.number(expected.get("value"), (*at, "expected", "value")),
            "reason": c.text(expected.get("reason"), (*at, "expected", "reason")),
        }
    return out


def _optional(c: Checker, value: Any, at: Pointer) -> str:
    return "" if value is None else c.text(value, at, empty=True)


def _sesoi(c: Checker, value: Any, at: Pointer, rule: str) -> dict[str, Any]:
    # A range or a threshold is itself what decides; its reason and scale are still owed.
    own = rule in NEEDS_SESOI
    spec = c.mapping(value, at, ("value", "scale", "reason") if own else ("scale", "reason"))
    return {
        "value": c.number(spec["value"], (*at, "value"), 0, open_ends=True)
        if own and "value" in spec
        else None,
        "scale": c.text(spec.get("scale"), (*at, "scale")),
        "reason": c.text(spec.get("reason"), (*at, "reason")),
    }
