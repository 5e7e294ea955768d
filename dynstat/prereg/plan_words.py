"""The registered plan as rows of results.json: in words, section by section, and the numbers of its rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..files import canonical_json
from ..inference.rules import Rule
from ..inference.wording import is_bounded, level, number

if TYPE_CHECKING:
    from .rows import Rows


def add_plan(rows: Rows, plan: Mapping[str, Any]) -> None:
    """Add ``plan.words.N`` (a line of the plan, with its section and subject) and ``H.bound.N.*``.

    ``H.bound.N`` is the rule of the Nth part of a hypothesis: ``kind``, ``direction``, ``scale``,
    ``quantity``, and ``low`` and ``high``, the edges of the band that decides.
    """
    for i, (section, subject, words) in enumerate(plan_in_words(plan), start=1):
        rows.note(f"plan.words.{i}", words, section=section, subject=subject)
    for name, claim in sorted(plan["hypotheses"].items(), key=lambda item: item[1]["order"]):
        for i, part in enumerate(claim["parts"], start=1):
            rule = Rule.from_plan(part)
            low, high = edges(rule)
            bounded = is_bounded(scale=rule.scale)
            for key, raw, shown in (
                ("kind", rule.kind, None),
                ("direction", rule.direction if part["direction"] else "none", None),
                ("scale", rule.scale, rule.scale.replace("_", " ")),
                ("quantity", part["estimand"]["quantity"], None),
                ("low", low, number(low, bounded)),
                ("high", high, number(high, bounded)),
            ):
                rows.add(
                    f"{name}.bound.{i}.{key}",
                    raw,
                    shown,
                    analysis=part["estimand"]["analysis"],
                    purpose=claim["role"],
                    hypothesis=name,
                    order=claim["order"],
                )


def edges(rule: Rule) -> tuple[float, float]:
    """Return the edges of the band that decides; equal for a threshold.

    For ``in_range`` and ``equivalence`` the claim lies inside, for ``nonzero`` outside; for ``directional``
    and ``minimum_effect`` the band runs from 0 to the smallest effect of interest in the direction claimed.
    """
    if rule.kind == "threshold":
        assert rule.threshold is not None
        return rule.threshold, rule.threshold
    if rule.kind in ("directional", "minimum_effect"):
        assert rule.sesoi is not None
        return (-rule.sesoi, 0.0) if rule.direction == "less" else (0.0, rule.sesoi)
    low, high = rule.ends
    return low, high


def plan_in_words(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (section, subject, words) for everything that an expanded plan fixes, in the order to read it."""
    yield from _study(plan)
    yield from _data(plan["data"])
    for name, family in plan["families"].items():
        yield "Families", name, _family(family)
    for name, gate in plan["gates"].items():
        yield "Gates", name, _gate(gate)
    for section, analyses in (("Analyses", plan["analyses"]), ("Exploratory", plan["exploratory"])):
        for name, spec in analyses.items():
            for words in _analysis(spec):
                yield section, name, words
    for name, claim in sorted(plan["hypotheses"].items(), key=lambda item: item[1]["order"]):
        for words in _claim(claim):
            yield "Hypotheses", name, words
    for name, given in plan.get("robustness", {}).items():
        for dimension, spec in given.get("dimensions", {}).items():
            yield "Multiverse", name, _dimension(dimension, spec)
        for left in given.get("constraints", []):
            reason = f"; reason: {left['reason']}" if left.get("reason") else ""
            yield "Multiverse", name, f"left out: {_pairs(left['leave_out'])}{reason}"
        if limit := given.get("limit"):
            yield "Multiverse", name, f"a sample of the universes: {_pairs(limit)}"


def _study(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    registration = plan["registration"]
    access = registration["access"]
    yield "Study", "id", plan["id"]
    yield "Study", "purpose", registration["purpose"]
    yield "Study", "access to the data when the plan was written", f"{access['level']}. {access['note']}"


def _data(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key, label in (("prompts", "prompts"), ("pilot", "pilot, never locked")):
        if data.get(key):
            yield "Data", label, f"{data[key]['file']}, split {data[key]['split']}"
    units = data["units"]
    yield "Data", "units", f"inference: {units['inference']}; resampling: {units['resampling']}"
    for name, rule in data["exclusions"].items():
        yield "Data", f"exclusion {name}", f"{rule['where']}. Reason: {rule['reason']}"
    missing = data["missing"]
    yield (
        "Data",
        "missing runs",
        f"{missing['policy'].replace('_', ' ')}; no claim is decided where more than "
        f"{number(missing['max_fraction'], True)} of the runs are missing",
    )
    tokens = data["token_policy"]
    yield "Data", "tokens", f"special: {tokens['special']}; first: {tokens['first']}"


def _family(family: Mapping[str, Any]) -> str:
    words = [f"alpha {level(family['alpha'])}, correction {family['correction'].replace('_', ' ')}"]
    if family.get("order"):
        words.append(f"in the order {', '.join(family['order'])}")
    if family.get("after"):
        words.append(f"after family {family['after']}")
    if family.get("reason"):
        words.append(f"reason: {family['reason']}")
    return "; ".join(words)


def _gate(gate: Mapping[str, Any]) -> str:
    return (
        f"{gate['check'].replace('_', ' ')}: at least {gate['n']} ({gate['unit']}); where it fails: "
        f"{gate['fails'].replace('_', ' ')}; holds for {', '.join(gate['hypotheses'])}"
    )


def _analysis(spec: Mapping[str, Any]) -> Iterator[str]:
    yield f"method {spec['method']}, seed {spec['seed']}"
    if spec["outcome"]:
        options = {k: v for k, v in spec["outcome"].items() if k != "metric"}
        yield f"outcome {spec['outcome']['metric']} ({_pairs(options)})"
    if spec["options"]:
        yield f"options {_pairs(spec['options'])}"
    for step in spec.get("on_failure", []):
        what = step.get("term") or (_pairs(step["options"]) if step.get("options") else "")
        reason = f"; reason: {step['reason']}" if step.get("reason") else ""
        do = f"{step['do'].replace('_', ' ')} {what}".strip()
        yield f"planned for the case {step['when'].replace('_', ' ')}: {do}{reason}"
    for quantity, se in spec.get("expected_se", {}).items():
        if quantity != "made":
            yield f"expected standard error of {quantity}: {_word(se)}"
    if spec.get("note"):
        yield str(spec["note"])


def _claim(claim: Mapping[str, Any]) -> Iterator[str]:
    yield f"{claim['claim']} ({claim['role']}, family {claim['family']})"
    for part in claim["parts"]:
        where = part["estimand"]
        yield f"{where['quantity']} of {where['analysis']}: {Rule.from_plan(part).describe()}"
        yield f"reason for these numbers: {part['sesoi']['reason']}"
        if expected := part.get("expected"):
            yield f"expected effect {_word(expected['value'])}; reason: {expected['reason']}"
    if len(claim["parts"]) > 1:
        yield f"parts joined by {claim['join']}"
    if claim["by_construction"]:
        yield f"true by construction: {claim['by_construction']}"
    if claim.get("power"):
        yield f"planned power {_word(claim['power'])}"


def _dimension(name: str, spec: Mapping[str, Any]) -> str:
    options = ", ".join(_word(option) for option in spec["options"])
    kind = spec["type"].replace("_", " ")
    reason = f"; reason: {spec['reason']}" if spec.get("reason") else ""
    return f"{name} ({spec['pointer']}, {kind}): {options}{reason}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {_word(value)}" for key, value in values.items())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value).decode()
