"""The plan in words: everything fixed is said, and the bands are those by which the rules decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.inference.estimate import TPivot
from dynstat.inference.rules import Rule
from dynstat.prereg.plan_words import add_plan, edges, plan_in_words
from dynstat.prereg.rows import Rows
from dynstat.prereg.show import shown_plan


@pytest.mark.parametrize("study", ["conditional_signatures"])
def test_every_leaf_of_a_plan_that_decides_is_said(study: str) -> None:
    plan, _ = shown_plan(study)
    words = "\n".join(f"{a} {b} {c}" for a, b, c in plan_in_words(plan))
    for claim in plan["hypotheses"].values():
        assert claim["claim"] in words
        assert all(part["sesoi"]["reason"] in words for part in claim["parts"])
    for spec in {**plan["analyses"], **plan["exploratory"]}.values():
        assert f"method {spec['method']}, seed {spec['seed']}" in words
        assert all(f"{k}: " in words for k in spec["options"])
    assert all(f"{f['alpha']}".lstrip("0") in words for f in plan["families"].values())
    assert all(f"Gates {name} " in words for name in plan["gates"])


def test_contingencies_and_dimensions_are_said() -> None:
    plan = dict(shown_plan("conditional_signatures")[0])
    plan["analyses"] = {
        "S1": plan["analyses"]["S1"]
        | {"on_failure": [{"when": "not_converged", "do": "drop_term", "term": "(1|a)", "reason": "why"}]}
    }
    scale = {"pointer": "outcome.scale", "type": "equivalent", "options": ["log", "raw"], "reason": "both"}
    plan["robustness"] = {
        "A1": {
            "dimensions": {"scale": scale},
            "constraints": [{"leave_out": {"scale": "raw"}, "reason": "never so"}],
            "limit": {"n": 9, "seed": 1, "reason": "time"},
        }
    }
    lines = [words for _, _, words in plan_in_words(plan)]
    assert "planned for the case not converged: drop term (1|a); reason: why" in lines
    assert "scale (outcome.scale, equivalent): log, raw; reason: both" in lines
    assert "left out: scale: raw; reason: never so" in lines
    assert "a sample of the universes: n: 9, seed: 1, reason: time" in lines
    rows = Rows()
    add_plan(rows, plan)
    found = {row["key"]: row["raw"] for row in rows.rows}
    assert (found["A2.bound.1.low"], found["A2.bound.1.high"]) == (0.093, 0.291)


@given(
    st.sampled_from(["directional", "minimum_effect", "threshold", "equivalence", "nonzero", "in_range"]),
    st.sampled_from(["greater", "less"]),
    st.floats(0.1, 5),
)
def test_a_certain_estimate_inside_or_outside_the_band_is_decided_by_it(
    kind: str, direction: str, size: float
) -> None:
    rule = Rule(
        kind,
        direction,
        sesoi=None if kind in ("threshold", "in_range") else size,
        threshold=size if kind == "threshold" else None,
        range=(size, 2 * size) if kind == "in_range" else None,
    )
    low, high = edges(rule)
    sign = -1 if direction == "less" and kind in ("directional", "minimum_effect", "threshold") else 1
    beyond = (high if sign > 0 else low) + sign * size
    within = (low + high) / 2
    inside = kind in ("in_range", "equivalence")
    for value, claimed in ((within, inside), (beyond, not inside)):
        if kind == "threshold" and value == within:
            continue
        p_support, p_reject = rule.p_values(TPivot(value, size * 1e-6, 1e6))
        rejected = p_reject < 0.01
        assert rejected != claimed and (p_support < 0.01 and not rejected) == claimed
