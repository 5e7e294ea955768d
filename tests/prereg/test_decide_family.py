"""Whole families under a lock: what each correction decides, and that no decision escapes its family."""

from __future__ import annotations

import dataclasses

import pytest

from dynstat.errors import DynstatError
from dynstat.inference.decision import Decision, decide, decide_family, downgrade
from dynstat.inference.estimate import Estimate, TPivot
from dynstat.inference.family_tests import FamilyTests
from dynstat.prereg.lock import load_lock, lock_study

from .conftest import PLAN

REST = {"method": "drift_test.mean@1", "interval": "t", "unit": "prompt", "n": {}}


def at(value: float, key: str = "mean", null: float | None = None) -> Estimate:
    beyond = None if null is None else {"name": "shuffled", "p": null}
    return Estimate.from_pivot(key, value, TPivot(value, 0.1, 50), null=beyond, **REST)


@pytest.fixture
def locked(study, inputs):
    def make(family: str, plan: str = PLAN):
        text = plan.replace("main: {alpha: 0.05}", family)
        assert text != plan or family == "main: {alpha: 0.05}"
        (study / "plan.yaml").write_text(text, encoding="utf-8")
        return load_lock(lock_study(study, "demo", inputs))

    return make


def estimates(h1: float, h2: tuple[float, float] = (0.5, 0.0), h3: float = 2.0) -> dict:
    return {"H1": [at(h1)], "H2": [at(h2[0]), at(h2[1], "nulled", 0.5)], "H3": [at(h3)]}


def clear() -> list[Estimate]:
    """Return estimates that support H2."""
    return [at(0.5), at(5.0, "nulled", 0.001)]


def test_with_bonferroni_the_family_says_what_each_alone_says(locked):
    lock = locked("main: {alpha: 0.05}")
    given = estimates(1.3)
    together = decide_family(lock, given)
    assert list(together) == ["H1", "H2", "H3"]
    for h, found in together.items():
        assert found == decide(lock, h, given[h])
        assert found.alpha == found.alpha_reject == 0.05 / 3 and len(found.criteria) < 8
        assert found.p_support_adjusted == min(1.0, 3 * found.p_support)
    assert together["H1"].outcome == "supported" and together["H3"].reason_code == "by_construction"


def test_holm_lets_a_claim_through_that_bonferroni_holds_back(locked):
    # H3 is true by construction and must help nobody: two steps, of divisors 4 and 4.
    plan = PLAN.replace("    by_construction: entropy is never negative\n", "")
    lock = locked("main: {alpha: 0.05, correction: holm}", plan)
    made = decide_family(
        lock, {"H1": [at(1.202)], "H2": [at(0.5), at(5.0, "nulled", 0.001)], "H3": [at(2.0)]}
    )
    assert [d.outcome for d in made.values()] == ["supported"] * 3
    assert made["H1"].alpha == 0.025 and 0.05 / 3 < made["H1"].p_support < 0.025
    assert made["H1"].p_support_adjusted == pytest.approx(2 * made["H1"].p_support)
    assert (
        made["H1"].criteria[-1].startswith("Family main (holm, 3 registered): adjusted for the family, p = ")
    )
    assert (
        "at most .025: met" in made["H1"].criteria[0] and "at most .0125: not met" in made["H1"].criteria[1]
    )
    assert made["H1"].as_dict()["p_reject_adjusted"] == 1.0


def test_what_is_true_by_construction_helps_nobody(locked):
    lock = locked("main: {alpha: 0.05, correction: holm}")
    made = decide_family(
        lock, {"H1": [at(1.202)], "H2": [at(0.5), at(5.0, "nulled", 0.001)], "H3": [at(2.0)]}
    )
    assert made["H3"].reason_code == "by_construction" and made["H3"].p_support_adjusted == 1.0
    assert made["H1"].outcome == "inconclusive" and made["H1"].alpha == 0.0125
    assert "and the other hypotheses where they are" in made["H1"].resolve


def test_a_fixed_sequence_says_why_a_claim_was_not_reached(locked):
    lock = locked("main: {alpha: 0.05, correction: fixed_sequence, order: [H2, H1, H3]}")
    made = decide_family(lock, estimates(2.0, h2=(0.42, 0.12)))
    assert made["H2"].reason_code in ("interval_straddles", "not_beyond_null")
    assert (made["H1"].outcome, made["H1"].reason_code) == ("inconclusive", "not_reached")
    assert made["H1"].resolve == "support of what is tested first: H2 before it was not supported"
    assert made["H1"].criteria[-2] == "Not reached, so never supported: H2 before it was not supported."
    # A claim that was not reached can still be rejected.
    assert decide_family(lock, estimates(0.1, h2=(0.42, 0.12)))["H1"].outcome == "rejected"
    assert decide_family(lock, estimates(2.0) | {"H2": clear()})["H1"].outcome == "supported"


def test_states_count_in_the_family_and_shut_it(locked):
    lock = locked("main: {alpha: 0.05, correction: fixed_sequence, order: [H2, H1, H3]}")
    state = ("inadmissible", "gate_failed", "gate G1: found 2")
    made = decide_family(lock, estimates(2.0), {"H2": state})
    assert made["H2"].outcome == "inadmissible" and made["H2"].estimates == () and made["H2"].m == 3
    assert made["H1"].reason_code == "not_reached"
    made = decide_family(lock, {"H1": [at(2.0)], "H2": None})
    assert made["H2"].outcome == made["H3"].outcome == "not_run"
    made = decide_family(lock, {"H2": [at(float("nan")), at(1.0, "nulled")], "H1": [at(2.0)]})
    assert (made["H2"].outcome, made["H2"].reason_code) == ("not_testable", "no_interval")
    assert made["H1"].reason_code == "not_reached"


def test_a_gate_that_is_not_passed_leaves_its_family_unreached(locked):
    plan = PLAN.replace(
        "family: main\n    estimand: {analysis: S1, quantity: mean}\n    rule: directional",
        "family: later\n    estimand: {analysis: S1, quantity: mean}\n    rule: directional",
    )
    plan = plan.replace("    by_construction: entropy is never negative\n", "")
    families = "main: {alpha: 0.05}\n  later: {alpha: 0.05, correction: gatekeeping, after: main}"
    lock = locked(families, plan)
    made = decide_family(lock, estimates(2.0) | {"H2": clear()})
    assert made["H3"].outcome == "supported" and made["H3"].m == 1 and made["H3"].alpha == 0.025
    shut = decide_family(lock, estimates(1.01) | {"H2": clear()})
    assert shut["H3"].reason_code == "not_reached" and shut["H3"].resolve.endswith(
        "H1 before it was not supported"
    )
    assert made["H1"].alpha == 0.05 / 4  # two claims at the head, half of alpha for support


def test_bh_decides_at_the_level_of_its_last_step(locked):
    lock = locked("main: {alpha: 0.05, correction: bh}")
    made = decide_family(lock, {"H1": [at(1.19)], "H2": [at(0.5), at(0.0, "nulled", 0.5)], "H3": [at(2.0)]})
    assert made["H1"].outcome == "inconclusive"  # H2 is the only other decision: level 1 of 3
    made = decide_family(
        lock, {"H1": [at(1.195)], "H2": [at(0.5), at(9.0, "nulled", 0.001)], "H3": [at(2.0)]}
    )
    assert made["H1"].outcome == "supported" and made["H1"].alpha == pytest.approx(2 * 0.05 / 3)


def test_a_decision_of_a_family_needs_its_family(locked):
    lock = locked("main: {alpha: 0.05, correction: holm}")
    given = estimates(1.3)
    made = decide_family(lock, given)["H1"]
    fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
    assert Decision(**fields, lock=lock) == made
    other = FamilyTests({"H1": (at(3.0),)}, lock=lock)
    for refuse in (
        lambda: decide(lock, "H1", given["H1"]),
        lambda: Decision(**(fields | {"tests": None}), lock=lock),
        lambda: Decision(**(fields | {"tests": other}), lock=lock),
        lambda: Decision(**(fields | {"outcome": "rejected", "reason_code": "below_threshold"}), lock=lock),
        lambda: FamilyTests({"H1": (at(3.0, "nulled"),)}, lock=lock),
        lambda: FamilyTests({}, lock=None),
        lambda: decide_family(lock, {"H9": None}),
    ):
        with pytest.raises(DynstatError) as e:
            refuse()
        assert e.value.code == "P309"
    strong = decide_family(lock, estimates(3.0))["H1"]
    assert downgrade(lock, strong, "seen before").reason_code == "downgraded"


def test_a_report_of_a_fixed_sequence_passes_its_check(study, inputs, saved, tmp_path, capsys):
    """The decisions that a report recomputes from p-values and levels are those of the family."""
    from .test_docs_and_cli import call

    order = "main: {alpha: 0.05, correction: fixed_sequence, order: [H2, H1, H3]}"
    (study / "plan.yaml").write_text(PLAN.replace("main: {alpha: 0.05}", order), encoding="utf-8")
    lock_study(study, "demo", inputs)
    out = tmp_path / "out"
    assert call(capsys, "run", study, "--data", saved(2.0), "-o", out)[0] == 0
    results = (out / "results.json").read_text(encoding="utf-8")
    assert "not_reached" in results and "H1.p_support_adjusted" in results and "H1.alpha_reject" in results
    code, text = call(capsys, "report", "check", out)
    assert code == 0, text


def test_without_correction_each_claim_stands_alone_at_alpha(locked):
    lock = locked("main: {alpha: 0.05, correction: none, reason: three questions of their own}")
    given = estimates(1.17)
    together = decide_family(lock, given)
    assert together["H1"] == decide(lock, "H1", given["H1"]) and together["H1"].outcome == "supported"
    assert together["H1"].alpha == 0.05 and together["H1"].p_support_adjusted == together["H1"].p_support
