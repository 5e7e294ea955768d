"""The JSON Schema of a plan, for editors: keys, choices and options as they are typed.

It is made from the same tables as the check (rules, corrections, registries) and tested against it: what the
schema accepts may still be wrong (a name that is not declared, a number that does not fit another), what it
refuses is refused by the check too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..inference.methods_structure import MetricOption, MetricsOption
from ..inference.multiplicity import CORRECTIONS
from ..inference.rules import DIRECTED, NEEDS_SESOI, RULES
from ..metrics.options import Accepts
from ..registry import METHODS, METRICS, Entry, Method, Option
from .analyses import DO, WHEN
from .plan import ACCESS_LEVELS, SCHEMA, UNITS
from .robustness import TYPES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT = {"type": "string", "pattern": r"\S"}
_ANY_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
_SEED = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_OUTCOME = {"$ref": "#/$defs/outcome"}
_FLAGS = ("special", "first")


def plan_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a plan, as one document without references to others."""
    return {
        "$schema": DIALECT,
        "title": "dynstat plan",
        "description": "What a study registers; docs/preregistration.md explains the keys.",
        "$defs": {"outcome": _outcome(), "methods": _methods(), "part": _parts()},
        **_object(
            {
                "dynstat": {"const": SCHEMA},
                "id": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
                "title": _TEXT,
                "authors": _list(_object({"name": _TEXT}, {"orcid": _or_null(_TEXT)})),
                "registration": _registration(),
                "data": _data(),
                "families": _map(_family()),
                "analyses": _map(_analysis()),
                "hypotheses": _map(_hypothesis(), "^[A-Za-z][A-Za-z0-9]*$"),
            },
            {
                "gates": _or_empty(_map(_gate())),
                "exploratory": _or_empty(_map(_analysis(note=_ANY_TEXT))),
                "notes": _ANY_TEXT,
                "robustness": _or_null(_map(_robustness())),
            },
        ),
    }


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _map(values: Mapping[str, Any], pattern: str | None = None) -> dict[str, Any]:
    names = {"propertyNames": {"pattern": pattern}} if pattern else {}
    return {"type": "object", "minProperties": 1, "additionalProperties": dict(values), **names}


def _list(items: Mapping[str, Any], least: int = 1) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), "minItems": least}


def _one_of(words: Iterable[Any]) -> dict[str, Any]:
    return {"enum": list(words)}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"type": "null"}]}


def _or_empty(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), {"enum": [None, {}, "", False, 0, []]}]}


def _registration() -> dict[str, Any]:
    return _object(
        {
            "purpose": {"const": "confirmatory"},
            "access": _object({"level": _one_of(ACCESS_LEVELS), "note": _TEXT}),
            "prior_knowledge": _TEXT,
        }
    )


def _data() -> dict[str, Any]:
    prompts = _object({"file": _TEXT, "split": _TEXT})
    policy = {flag: _one_of(("drop", "keep")) for flag in _FLAGS}
    return _object(
        {
            "schema": {"const": "dynstat-data-1"},
            "prompts": prompts,
            "pilot": prompts,
            "units": _object({"inference": _one_of(UNITS), "resampling": _one_of(UNITS)}),
        },
        {
            "exclusions": _or_empty(_map(_object({"where": _TEXT, "reason": _TEXT}))),
            "missing": _object(
                {},
                {
                    "policy": {"const": "drop_prompt"},
                    "max_fraction": {"type": "number", "minimum": 0, "maximum": 1},
                },
            ),
            "token_policy": _object({}, policy),
        },
    )


def _family() -> dict[str, Any]:
    alpha = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}
    return _object(
        {"alpha": alpha},
        {
            "correction": {
                "enum": list(CORRECTIONS),
                "description": "which error of the family is held, and how; bonferroni where not given",
            },
            "order": _or_null(_list(_TEXT)),
            "after": _or_null(_TEXT),
            "reason": _or_null(_TEXT),
        },
    ) | {
        "if": {"properties": {"correction": {"const": "none"}}, "required": ["correction"]},
        "then": {"required": ["reason"]},
    }


def _gate() -> dict[str, Any]:
    rest = {"hypotheses": _list(_TEXT), "fails": _one_of(("inadmissible", "not_testable"))}
    n = {"type": "integer", "minimum": 1}
    units = _one_of(("prompt", "model", "template", "category"))
    return {
        "oneOf": [
            _object({"check": {"const": "min_units"}, "n": n}, {"unit": units, **rest}),
            _object({"check": {"const": "min_samples"}, "n": n}, {"unit": {"const": "cell"}, **rest}),
        ]
    }


def _analysis(**extra: Any) -> dict[str, Any]:
    version = {"type": "string", "pattern": r".@\d+$"}
    out = _object(
        {"method": {"anyOf": [_one_of(m.id for m in _known_methods()), version]}, "seed": _SEED},
        {
            "outcome": _or_null(_OUTCOME),
            "options": _or_empty({"type": "object"}),
            "on_failure": _or_null(_list(_contingency())),
            "expected_se": _or_null(
                {
                    "type": "object",
                    "properties": {"made": _TEXT},
                    "required": ["made"],
                    "additionalProperties": _POSITIVE,
                    "minProperties": 2,
                }
            ),
            **extra,
        },
    )
    return out | {"allOf": [{"$ref": "#/$defs/methods"}]}


def _known_methods() -> list[Method]:
    """Return the methods of dynstat, whose options are known; one that a study registers has its own."""
    known = (m for m in METHODS if m.path.startswith("dynstat.") and "dynstat.analyses" not in m.path)
    return sorted(known, key=lambda m: m.id)


def _methods() -> dict[str, Any]:
    return {
        "allOf": [
            {
                "if": {"properties": {"method": {"const": m.id}}, "required": ["method"]},
                "then": {
                    "properties": {
                        "options": _or_empty(_object({}, _options(m))),
                        **({} if m.takes_outcome else {"outcome": {"type": "null"}}),
                    },
                    "description": m.summary,
                },
            }
            for m in _known_methods()
        ]
    }


def _outcome() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["metric"],
        "properties": {"metric": _one_of(sorted(m.id for m in METRICS))},
        "allOf": [
            {
                "if": {"properties": {"metric": {"const": m.id}}, "required": ["metric"]},
                "then": {**_object({"metric": {"const": m.id}}, _options(m)), "description": m.long_name},
            }
            for m in sorted(METRICS, key=lambda m: m.id)
        ],
    }


def _options(entry: Entry) -> dict[str, Any]:
    return {name: _option(option) for name, option in entry.options.items()}


def _option(option: Option) -> dict[str, Any]:
    out: dict[str, Any] = {"description": option.doc} if option.doc else {}
    if _plain(option.default):
        out["default"] = option.default
    if isinstance(option, MetricsOption):
        return out | {"type": "array", "items": _OUTCOME}
    if isinstance(option, MetricOption):
        return out | {"anyOf": [_OUTCOME, {"const": {}}]}
    if type(option) is not Option or isinstance(option.allowed, Accepts):
        return out  # what it accepts is decided by code
    if option.allowed is not None:
        return out | _one_of(option.allowed)
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    kind = kinds.get(type(option.default))
    return out | ({"type": kind} if kind else {})


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, dict))


def _contingency() -> dict[str, Any]:
    base = {"when": _one_of(WHEN), "reason": _TEXT}
    owed: dict[str, dict[str, Any]] = {
        "drop_term": {"term": _TEXT},
        "use_options": {"options": {"type": "object", "minProperties": 1}},
    }
    return {"oneOf": [_object({**base, "do": {"const": do}, **owed.get(do, {})}) for do in DO]}


def _hypothesis() -> dict[str, Any]:
    common: dict[str, Any] = {
        "claim": _TEXT,
        "role": _one_of(("primary", "secondary")),
        "family": _TEXT,
        "if_supported": _TEXT,
        "if_rejected": _TEXT,
        "does_not_show": _list(_TEXT),
    }
    optional = {
        "by_construction": _or_null(_ANY_TEXT),
        "power": _or_null({"type": "number", "exclusiveMinimum": 0.5, "exclusiveMaximum": 1}),
    }
    rules = [_rule(kind) for kind in RULES]
    return {
        "oneOf": [
            *(_object({**common, **required}, {**optional, **rest}) for required, rest in rules),
            *(
                _object({**common, join: _list({"$ref": "#/$defs/part"})}, optional)
                for join in ("all", "any")
            ),
        ]
    }


def _parts() -> dict[str, Any]:
    return {"oneOf": [_object(*_rule(kind)) for kind in RULES]}


def _rule(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the required and the optional keys of one rule."""
    required: dict[str, Any] = {
        "estimand": _object({"analysis": _TEXT, "quantity": _TEXT}),
        "rule": {"const": kind, "description": RULES[kind]},
        "sesoi": _object(
            {**({"value": _POSITIVE} if kind in NEEDS_SESOI else {}), "scale": _TEXT, "reason": _TEXT}
        ),
    }
    if kind in DIRECTED:
        required["direction"] = _one_of(("greater", "less"))
    if kind == "threshold":
        required["threshold"] = _NUMBER
    if kind == "in_range":
        required["range"] = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
    expected = _or_null(_object({"value": _NUMBER, "reason": _TEXT}))
    return required, {"beyond_null": _or_null(_ANY_TEXT), "expected": expected}


def _robustness() -> dict[str, Any]:
    dimension = _object({"pointer": _TEXT, "type": _one_of(TYPES), "options": _list({}), "reason": _TEXT})
    constraint = _object({"leave_out": {"type": "object", "minProperties": 1}, "reason": _TEXT})
    limit = _object({"n": {"type": "integer", "minimum": 1}, "seed": _SEED})
    return _object(
        {"dimensions": _map(dimension)},
        {"constraints": _or_null(_list(constraint)), "limit": _or_null(limit)},
    )
