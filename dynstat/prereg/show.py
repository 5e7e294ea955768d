"""A plan in words, as `prereg show` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..inference.multiplicity import level_of_each_test
from ..inference.rules import Rule
from ..inference.wording import level
from .lock import SUFFIX, load_lock
from .plan import load_plan


def shown_plan(target: str | Path) -> tuple[Mapping[str, Any], str]:
    """Return the expanded plan of a study or lock, and a line on where it stands."""
    if str(target).endswith(SUFFIX):
        lock = load_lock(target)
        return lock.plan, f"locked {lock.content['time']} for panel {lock.name} (sha256 {lock.sha256})"
    plan = load_plan(target)
    return plan.content, f"not a lock: the plan as it stands (sha256 {plan.sha256})"


def describe_plan(content: Mapping[str, Any], head: str) -> str:
    """Return the hypotheses, their rules and the gates as text."""
    hypotheses = sorted(content["hypotheses"].items(), key=lambda item: item[1]["order"])
    family = next(iter(content["families"].values()))
    each = level_of_each_test(family["alpha"], len(hypotheses), family["correction"])
    lines = [
        f"{content['id']}: {content['title']}",
        head,
        f"prompts: {content['data']['prompts']['file']} (split {content['data']['prompts']['split']}); "
        f"units: {content['data']['units']['inference']}",
        f"{len(hypotheses)} hypotheses, family alpha {level(family['alpha'])}, each test at {level(each)}",
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
        if len(h["parts"]) > 1:
            lines.append(f"   parts joined by {h['join']}")
        lines += [f"   does not show: {text}" for text in h["does_not_show"]]
    for name, gate in content["gates"].items():
        lines.append(
            f"{name}: {gate['check']} {gate['unit']} at least {gate['n']}, else {gate['fails']} "
            f"({', '.join(gate['hypotheses'])})"
        )
    return "\n".join(lines)
