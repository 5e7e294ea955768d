"""The families of a plan: level, correction, and the order in which they and their members are tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..inference.multiplicity import CORRECTIONS, family_problems
from .checker import Checker, Pointer, did_you_mean


def expand_family(c: Checker, value: Any, at: Pointer) -> dict[str, Any]:
    """Check one family and write its defaults out; `order`, `after` and `reason` stand only where given."""
    spec = c.mapping(value, at, ("alpha",), ("correction", "order", "after", "reason"))
    out: dict[str, Any] = {
        "alpha": c.number(spec.get("alpha"), (*at, "alpha"), 0, 0.5, open_ends=True),
        "correction": c.choice(spec.get("correction", "bonferroni"), (*at, "correction"), CORRECTIONS),
    }
    if spec.get("order") is not None:
        out["order"] = c.texts(spec["order"], (*at, "order"), 1)
    for key in ("after", "reason"):
        if spec.get(key) is not None:
            out[key] = c.text(spec[key], (*at, key))
    if out["correction"] == "none" and "reason" not in out:
        c.problem(
            at, "correction none needs a 'reason': its error rate is that of each test, not the family's"
        )
    return out


def check_families(c: Checker, families: Mapping[str, Any], hypotheses: Mapping[str, Any]) -> None:
    """Check families against their members and against each other.

    Every family has a member; an order names each of them once; ``after`` names another family, and no two
    wait for each other.
    """
    for key, family in families.items():
        at: Pointer = ("families", key)
        members = [h for h, claim in hypotheses.items() if claim["family"] == key]
        if not members:
            c.problem(at, "no hypothesis belongs to this family")
        order = family.get("order", ())
        if order and family["correction"] != "fixed_sequence":
            c.problem((*at, "order"), f"correction {family['correction']} has no order")
        for i, name in enumerate(order):
            if name not in members:
                c.problem((*at, "order", i), f"no hypothesis of this family{did_you_mean(name, members)}")
            elif name in order[:i]:
                c.problem((*at, "order", i), f"{name} stands twice")
        if order and (missing := [h for h in members if h not in order]):
            c.problem((*at, "order"), f"every hypothesis has its turn, {', '.join(missing)} has none")
        after = family.get("after")
        if after is not None and (after == key or after not in families):
            others = [k for k in families if k != key]
            c.problem((*at, "after"), f"no other family {after!r} is declared{did_you_mean(after, others)}")
    if c.faultless(("families",)) and all(claim["family"] in families for claim in hypotheses.values()):
        for key, text in family_problems(families, hypotheses):
            c.problem(("families", key), text)
