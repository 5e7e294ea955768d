"""The multiverse that a plan declares for a hypothesis: its shape, and options held to the registries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DynstatError
from ..registry import METHODS, METRICS
from . import pointers
from .analyses import plain
from .checker import Checker, Pointer, did_you_mean

TYPES = ("equivalent", "non_equivalent", "uncertain")


def expand_robustness(c: Checker, value: Any, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Check the section ``robustness`` of a plan whose other sections are expanded.

    Every dimension leads to a place of the analyses that the hypothesis uses (or of the data), has a type, a
    reason, and options that differ; the universes can be counted.
    """
    out: dict[str, Any] = {}
    for key, spec in c.mapping(value, ("robustness",), free=True).items():
        at: Pointer = ("robustness", key)
        if key not in plan["hypotheses"]:
            c.problem(at, f"no hypothesis {key!r}{did_you_mean(key, plan['hypotheses'])}")
        given = c.mapping(spec, at, ("dimensions",), ("constraints", "limit"))
        dimensions = c.mapping(given.get("dimensions"), (*at, "dimensions"), free=True)
        out[key] = {
            "dimensions": {
                name: _dimension(c, d, (*at, "dimensions", name), plan, key) for name, d in dimensions.items()
            }
        }
        if given.get("constraints") is not None:
            out[key]["constraints"] = [
                _constraint(c, v, (*at, "constraints", i))
                for i, v in enumerate(c.sequence(given["constraints"], (*at, "constraints"), 1))
            ]
        if given.get("limit") is not None:
            limit = c.mapping(given["limit"], (*at, "limit"), ("n", "seed"))
            out[key]["limit"] = {
                "n": c.integer(limit.get("n"), (*at, "limit", "n"), 1),
                "seed": c.integer(limit.get("seed"), (*at, "limit", "seed"), 0),
            }
        if c.faultless():
            _count(c, {**plan, "robustness": out}, key, at)
    return out


def _dimension(c: Checker, value: Any, at: Pointer, plan: Mapping[str, Any], of: str) -> dict[str, Any]:
    spec = c.mapping(value, at, ("pointer", "type", "options", "reason"))
    pointer = c.text(spec.get("pointer"), (*at, "pointer"))
    options = c.sequence(spec.get("options"), (*at, "options"), 1)
    places = _places(plan, pointer, of)
    if places and not any(pointers.exists(plan, p) for p in places):
        try:
            pointers.get(plan, places[0])
        except DynstatError as e:
            c.problem((*at, "pointer"), e.what)
        places = []
    checked = []
    for i, option in enumerate(options):
        for place in places:
            option = _option(c, option, place, (*at, "options", i), plan)
        checked.append(plain(option))
    return {
        "pointer": pointer,
        "type": c.choice(spec.get("type"), (*at, "type"), TYPES),
        "options": checked,
        "reason": c.text(spec.get("reason"), (*at, "reason")),
    }


def _places(plan: Mapping[str, Any], pointer: str, hypothesis: str) -> list[str]:
    """Return where a dimension leads: a path inside every analysis of the hypothesis, or a JSON pointer."""
    if pointer.startswith("/"):
        return [pointer]
    parts = plan["hypotheses"].get(hypothesis, {}).get("parts", ())
    analyses = dict.fromkeys(p["estimand"]["analysis"] for p in parts)
    return [pointers.make(["analyses", a, *pointer.split(".")]) for a in analyses if a in plan["analyses"]]


def _option(c: Checker, option: Any, place: str, at: Pointer, plan: Mapping[str, Any]) -> Any:
    """Hold one option to the registry entry that it is an option of; return it with its defaults."""
    parts = pointers.split(place)
    if len(parts) < 3 or parts[0] != "analyses" or parts[1] not in plan["analyses"]:
        return option
    analysis, tail = plan["analyses"][parts[1]], parts[2:]
    outcome = analysis["outcome"] or {}
    try:
        if tail == ["outcome"]:
            given = dict(option) if isinstance(option, dict) else {}
            entry = METRICS.get(str(given.pop("metric", "")))
            return {"metric": entry.id, **plain(entry.fill(given))}
        if tail == ["method"]:
            METHODS.get(str(option)).fill(analysis["options"])
        elif tail == ["outcome", "metric"]:
            METRICS.get(str(option)).fill({k: v for k, v in outcome.items() if k != "metric"})
        elif tail[0] == "outcome" and len(tail) == 2 and outcome:
            return METRICS.get(outcome["metric"]).fill({tail[1]: option})[tail[1]]
        elif tail[0] == "options" and len(tail) == 2 and analysis["method"]:
            return METHODS.get(analysis["method"]).fill({tail[1]: option})[tail[1]]
        if tail in (["method"], ["outcome", "metric"]) and "@" not in str(option):
            c.problem(at, f"{option!r} names no version")
    except DynstatError as e:
        c.take(e, at)
    return option


def _constraint(c: Checker, value: Any, at: Pointer) -> dict[str, Any]:
    spec = c.mapping(value, at, ("leave_out", "reason"))
    return {
        "leave_out": dict(c.mapping(spec.get("leave_out"), (*at, "leave_out"), free=True)),
        "reason": c.text(spec.get("reason"), (*at, "reason")),
    }


def _count(c: Checker, plan: Mapping[str, Any], hypothesis: str, at: Pointer) -> None:
    from .multiverse_spec import universes_of

    try:
        universes_of(plan, hypothesis)
    except DynstatError as e:
        found = f" (found {e.found})" if e.found else ""
        # The place is a path inside the section, such as H1.dimensions.scale: the line of that key.
        inside = tuple(e.where.removeprefix("robustness.").split("."))
        c.problem(("robustness", *inside) if inside[:1] == at[1:] else at, f"{e.what}{found}")
