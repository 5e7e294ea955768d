"""Planned contingencies: what a plan says for a fit that is singular, does not converge or fails."""

from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pytest

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.estimate import Estimate, TPivot
from dynstat.prereg.contingencies import analyse
from dynstat.prereg.lock import lock_study
from dynstat.prereg.runner import run_study
from dynstat.registry import METHODS, Method, Option

from .conftest import make_data
from .test_runner import values

FULL = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category) + (1|model:prompt)"


def spec(**change):
    return {
        "method": "variance.shares@1",
        "outcome": {"metric": "run_mean@1", "of": "entropy", "layer": 0, "phase": "generated"},
        "options": METHODS.get("variance.shares@1").fill({"formula": FULL, "population": "none"}),
        "seed": 3,
    } | change


@pytest.fixture
def flat(inputs):
    """Data in which neither model nor category matters, so that components are estimated at zero."""
    return make_data(inputs, 2.0, samples=3, seed=4)


def quietly(of, ds):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return analyse(of, ds)


def test_a_singular_fit_without_a_contingency_is_told_and_stands(flat):
    made = quietly(spec(), flat)
    assert not made.failed and not made.contingencies
    assert made.estimates["share.model"].diagnostics["singular"] is True
    assert made.estimates["share.model"].diagnostics["converged"] is True
    assert any(w.startswith("singular fit") for w in made.warnings)


def test_dropping_a_term_gives_the_fit_of_the_formula_without_it(flat):
    rule = {"when": "singular", "do": "drop_term", "term": "model:category", "reason": "it may be zero"}
    made = quietly(spec(on_failure=[rule]), flat)
    (used,) = made.contingencies
    assert (used.when, used.do, used.reason) == ("singular", "drop_term", "it may be zero")
    assert "singular" in used.found
    without = FULL.replace(" + (1|model:category)", "")
    options = METHODS.get("variance.shares@1").fill({"formula": without, "population": "none"})
    same = quietly(spec(options=options), flat)
    assert set(made.estimates) == set(same.estimates) and "share.model:category" not in made.estimates
    for key, e in made.estimates.items():
        assert e.value == pytest.approx(same.estimates[key].value, abs=1e-6, nan_ok=True)
        assert e.high == pytest.approx(same.estimates[key].high, abs=1e-4, nan_ok=True)


def test_a_nested_term_is_dropped_by_the_name_that_plans_use(flat):
    rule = {"when": "singular", "do": "drop_term", "term": "category:prompt", "reason": "r"}
    made = quietly(spec(on_failure=[rule]), flat)
    assert "(1 | category)" in made.options["formula"] and "share.category:prompt" not in made.estimates


def flagged(ds, *, outcome, seed, singular, converged, broken):
    if broken:
        raise DynstatError("S402", "cannot be fitted")
    warnings.warn("read with care", DynstatWarning, stacklevel=1)
    return {
        "x": Estimate.from_pivot(
            "x",
            1.0,
            TPivot(1.0, 0.1, 9),
            method="flagged_test.x@1",
            interval="t",
            unit="prompt",
            n={"prompts": 10},
            diagnostics={"singular": np.bool_(singular), "converged": converged},
        )
    }


@pytest.fixture
def toy(monkeypatch):
    module = types.ModuleType("flagged_test_methods")
    module.flagged = flagged
    monkeypatch.setitem(sys.modules, "flagged_test_methods", module)
    options = {"singular": Option(False), "converged": Option(True), "broken": Option(False)}
    METHODS.add(
        Method(
            "flagged_test.x",
            1,
            "flagged_test_methods:flagged",
            summary="x",
            origin="published",
            reference="none",
            options=options,
            quantities=("x",),
        )
    )

    def make(*rules, **given):
        filled = METHODS.get("flagged_test.x@1").fill(given)
        on_failure = [{"reason": "r", **r} for r in rules]
        return {
            "method": "flagged_test.x@1",
            "outcome": None,
            "options": filled,
            "seed": 1,
            "on_failure": on_failure,
        }

    return make


@pytest.mark.parametrize(
    "when, given, mended",
    [
        ("singular", {"singular": True}, {"singular": False}),
        ("not_converged", {"converged": False}, {"converged": True}),
        ("failed", {"broken": True}, {"broken": False}),
    ],
)
def test_each_state_is_met_by_its_own_contingency_only(toy, when, given, mended):
    rule = {"when": when, "do": "use_options", "options": mended}
    made = quietly(toy(rule, **given), None)
    assert [c.when for c in made.contingencies] == [when] and not made.failed and "x" in made.estimates
    assert made.options == toy()["options"] and made.contingencies[0].changed == mended
    assert made.warnings == ("read with care",)
    for other in {"singular", "not_converged", "failed"} - {when}:
        assert not quietly(toy({**rule, "when": other}, **given), None).contingencies
    assert not quietly(toy(rule), None).contingencies  # nothing is wrong: nothing is put in place


def test_contingencies_are_used_in_order_and_once_each(toy):
    first = {"when": "failed", "do": "use_options", "options": {"broken": False, "singular": True}}
    second = {"when": "singular", "do": "accept"}
    made = quietly(toy(first, second, broken=True), None)
    assert [(c.when, c.do) for c in made.contingencies] == [("failed", "use_options"), ("singular", "accept")]
    again = {"when": "failed", "do": "use_options", "options": {"singular": True}}
    made = quietly(toy(again, broken=True), None)
    assert len(made.contingencies) == 1 and made.failed.startswith("S402") and not made.estimates


def test_an_accepted_fit_stands_as_it_is(toy):
    made = quietly(toy({"when": "not_converged", "do": "accept"}, converged=False), None)
    assert [c.do for c in made.contingencies] == ["accept"] and made.contingencies[0].changed == {}
    assert made.estimates["x"].value == 1.0


def test_a_used_contingency_is_in_the_results_and_no_deviation(study, inputs, saved, tmp_path):
    text = (study / "plan.yaml").read_text()
    step = "on_failure: [{when: failed, do: use_options, options: {break_it: false}, reason: it can break}]"
    text = text.replace("options: {shift: 0.0}", f"options: {{break_it: true}}\n    {step}")
    (study / "plan.yaml").write_text(text)
    lock_study(study, "demo", inputs)
    assert run_study(study, saved(2.0), tmp_path / "out").outcomes["H1"][0] == "supported"
    v = values(tmp_path / "out")
    assert v["contingency.n"] == 1 and v["deviation.n"] == 0 and v["notrun.n"] == 0
    assert v["contingency.C1.analysis"] == "S1" and v["contingency.C1.when"] == "failed"
    assert v["contingency.C1.do"] == "use_options" and v["contingency.C1.changed"] == '{"break_it":false}'
    # Methods are told as executed, the plan as registered.
    assert v["executed.S1.options"] == '{"break_it":false,"kind":"plain","shift":0}'
    assert "break_it: true" in " ".join(str(x) for k, x in v.items() if k.startswith("plan.words"))
    assert v["contingency.C1.reason"] == "it can break" and "S402" in v["contingency.C1.found"]
