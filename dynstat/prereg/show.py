"""A plan in words, as `prereg show` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..inference.rules import Rule
from ..inference.wording import level
from .chains import amendment, registration_of
from .check import family_levels
from .evidence import evidence, in_words
from .lock import SUFFIX, Lock, load_lock
from .plan import load_plan


def shown_plan(target: str | Path) -> tuple[Mapping[str, Any], str]:
    """Return the expanded plan of a study or lock, and in words where it stands."""
    if str(target).endswith(SUFFIX):
        lock = load_lock(target)
        return lock.plan, "\n".join(_standing(lock, Path(target)))
    plan = load_plan(target)
    return plan.content, f"not a lock: the plan as it stands (sha256 {plan.sha256})"


def _standing(lock: Lock, path: Path) -> list[str]:
    lines = [
        f"locked {lock.content['time']} for panel {lock.name} (sha256 {lock.sha256})",
        f"evidence {in_words(evidence(lock, path))}; access by then: {lock.content['access']['level']}",
    ]
    stated = amendment(lock)
    if stated is not None:
        lines.append(f"amends {lock.parent} ({stated['reason']}), in {', '.join(stated['pointers'])}")
        for name in lock.plan["hypotheses"]:
            r, how = registration_of([lock], name), stated["hypotheses"][name]["how"]
            lines.append(f"   {name}: {how}, registered {r.time} at access {r.access}")
        lines += [f"   {name}: dropped" for name in stated["dropped"]]
    return lines


def describe_plan(content: Mapping[str, Any], head: str) -> str:
    """Return families, hypotheses, their rules, contingencies, multiverses and gates as text."""
    hypotheses = sorted(content["hypotheses"].items(), key=lambda item: item[1]["order"])
    lines = [
        f"{content['id']}: {content['title']}",
        head,
        f"prompts: {content['data']['prompts']['file']} (split {content['data']['prompts']['split']}); "
        f"units: {content['data']['units']['inference']}",
        *(_family(name, family) for name, family in family_levels(content).items()),
        "",
    ]
    for name, h in hypotheses:
        lines.append(f"{name} ({h['role']}): {h['claim']}")
        for part in h["parts"]:
            where = part["estimand"]
            lines.append(
                f"   {where['quantity']} of {where['analysis']} "
                f"({content['analyses'][where['analysis']]['method']})"
            )
            lines.append(f"   {Rule.from_plan(part).describe()}")
            lines.append(f"   reason: {part['sesoi']['reason']}")
            if "expected" in part:
                lines.append(f"   expected: {part['expected']['value']:g} ({part['expected']['reason']})")
        if len(h["parts"]) > 1:
            lines.append(f"   parts joined by {h['join']}")
        if h["by_construction"]:
            lines.append(f"   true by construction, so never supported: {h['by_construction']}")
        if "power" in h:
            lines.append(f"   to be supported with a chance of {h['power']:g}, if true")
        lines += [f"   does not show: {text}" for text in h["does_not_show"]]
        for key, d in content.get("robustness", {}).get(name, {}).get("dimensions", {}).items():
            options = " | ".join(map(str, d["options"]))
            lines.append(f"   multiverse, {key} ({d['type'].replace('_', ' ')}): {options}: {d['reason']}")
    for name, spec in content["analyses"].items():
        lines += [f"{name}, if {_contingency(rule)}" for rule in spec.get("on_failure", ())]
    for name, gate in content["gates"].items():
        lines.append(
            f"{name}: {gate['check']} {gate['unit']} at least {gate['n']}, else {gate['fails']} "
            f"({', '.join(gate['hypotheses'])})"
        )
    return "\n".join(lines)


def _family(name: str, family: Mapping[str, Any]) -> str:
    m, first = family["m"], f"family {name}: {', '.join(family['hypotheses'])}; "
    at = "each test at" if family["correction"] in ("bonferroni", "none") else "the strictest test at"
    order = f", in the order {', '.join(family['order'])}" if "order" in family else ""
    after = f", after family {family['after']}" if "after" in family else ""
    return (
        f"{first}{m} {'hypothesis' if m == 1 else 'hypotheses'}, alpha {level(family['alpha'])}, "
        f"{family['correction'].replace('_', ' ')}{order}{after}, {at} {level(family['level'])}"
    )


def _contingency(rule: Mapping[str, Any]) -> str:
    what = {
        "drop_term": f"drop the term {rule.get('term')}",
        "use_options": "use " + ", ".join(f"{k} {v}" for k, v in rule.get("options", {}).items()),
        "accept": "accept the fit",
    }[rule["do"]]
    return f"{rule['when'].replace('_', ' ')}: {what} ({rule['reason']})"
