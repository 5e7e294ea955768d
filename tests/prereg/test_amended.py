"""Amended locks in a run: the last decides, what it changed stands beside the first registration."""

from __future__ import annotations

import pytest

from dynstat.prereg.amend import amend_study
from dynstat.prereg.lock import lock_study
from dynstat.prereg.runner import run_study

from .test_runner import values

NEW = """\
  H4:
    claim: Mean entropy exceeds a half.
    role: secondary
    family: main
    estimand: {analysis: S1, quantity: mean}
    rule: threshold
    direction: greater
    threshold: 0.5
    sesoi: {scale: nat, reason: "half"}
    if_supported: Above a half.
    if_rejected: Below a half.
    does_not_show: [why]
exploratory:
"""


def rewrite(study, old, new):
    text = (study / "plan.yaml").read_text()
    assert old in text
    (study / "plan.yaml").write_text(text.replace(old, new, 1))


@pytest.fixture
def locked(study, inputs):
    return lock_study(study, "demo", inputs)


def test_a_lock_that_was_not_amended_says_nothing_of_it(study, locked, saved, tmp_path):
    run_study(study, saved(2.0), tmp_path / "out")
    v = values(tmp_path / "out")
    assert not [k for k in v if k.startswith("amended.") or ".registration." in k or k == "lock.parent"]


def test_before_any_outcome_the_amended_claim_decides(study, locked, saved, tmp_path):
    rewrite(study, "options: {shift: 0.0}", "options: {shift: -1.5}")
    amend_study(study, "demo", "second", "the unit was wrong")
    result = run_study(study, saved(2.0), tmp_path / "out")
    assert result.stamp == "registered" and result.outcomes["H1"] == ("rejected", "below_threshold")
    v = values(tmp_path / "out")
    assert v["H1.estimate"] == pytest.approx(0.5, abs=0.05) and v["lock.panel"] == "second"
    assert v["amended.H1.registered.estimate"] == pytest.approx(v["H1.estimate"] + 1.5)
    assert v["amended.H1.registered.decision"] == "supported"
    assert v["amended.H1.decision"] == v["H1.decision"] and v["amended.H1.estimate"] == v["H1.estimate"]
    assert v["amended.H1.decides"] == "amended" and v["amended.H1.by"] == "amendment"
    assert v["amended.H1.pointers"] == "/analyses/S1/options/shift"
    assert v["H1.registration.amended"] is True and v["H1.registration.access"] == "metadata"
    assert v["deviation.D1.field"] == "/analyses/S1/options/shift" and v["deviation.D1.type"] == "note"
    assert v["deviation.D1.reason"] == "amendment second: the unit was wrong"
    assert v["deviation.undeclared"] == 0


def test_with_the_outcomes_known_an_amended_claim_is_not_supported(study, locked, saved, tmp_path):
    data = saved(0.5)
    assert run_study(study, data, tmp_path / "first").outcomes["H1"][0] == "rejected"
    rewrite(study, "threshold: 1.0", "threshold: 0.1")
    amend_study(study, "demo", "second", "it was set too high")
    result = run_study(study, data, tmp_path / "out")
    assert result.stamp == "registered_after_access"
    assert result.outcomes["H1"] == ("inconclusive", "downgraded")
    v = values(tmp_path / "out")
    assert v["H1.p_support"] <= v["H1.alpha"] and v["H1.registration.access"] == "outcomes"
    assert v["amended.H1.registered.decision"] == "rejected" and v["amended.H1.timing"] == "outcomes"
    assert v["deviation.D1.type"] == "downgrade" and v["deviation.D1.declared"] is True
    # What was not touched was registered when it was.
    first = values(tmp_path / "first")
    assert v["H2.registration.amended"] is False and v["H2.registration.access"] == "metadata"
    assert v["H2.decision"] == first["H2.decision"] and "amended.H2.decision" not in v
    assert v["H2.flags"] == ""


def test_running_the_lock_that_was_amended_is_noted(study, locked, saved, tmp_path):
    rewrite(study, "threshold: 1.0", "threshold: 0.1")
    amend_study(study, "demo", "second", "it was set too high")
    run_study(locked, saved(2.0), tmp_path / "out")
    v = values(tmp_path / "out")
    assert v["lock.panel"] == "demo" and v["deviation.n"] == 1 and v["deviation.D1.type"] == "note"
    assert v["deviation.D1.field"] == "/amends" and "second" in v["deviation.D1.executed"]


def test_a_claim_that_was_added_says_when(study, locked, saved, tmp_path):
    data = saved(2.0)
    run_study(study, data, tmp_path / "first")
    rewrite(study, "exploratory:\n", NEW)
    amend_study(study, "demo", "second", "one more")
    run_study(study, data, tmp_path / "out")
    v = values(tmp_path / "out")
    assert v["H4.registration.amended"] is True and v["H4.registration.access"] == "outcomes"
    assert "amended.H4.decision" not in v and v["H4.m"] == 4
    # The others were not touched, but their family grew: both levels stand side by side.
    assert v["H1.registration.amended"] is False and v["amended.H1.pointers"] == "/hypotheses/H4"
    assert (v["amended.H1.registered.m"], v["amended.H1.m"], v["H1.m"]) == (3, 4, 4)
    told = {v[f"deviation.D{i}.field"]: i for i in range(1, v["deviation.n"] + 1)}
    new = f"deviation.D{told['/hypotheses/H4']}"
    assert (v[f"{new}.registered"], v[f"{new}.executed"], v[f"{new}.type"]) == ("none", "added", "note")


def test_a_claim_that_was_dropped_stays_in_sight(study, locked, saved, tmp_path):
    text = (study / "plan.yaml").read_text()
    start, end = text.index("  H3:\n"), text.index("exploratory:\n")
    text = (text[:start] + text[end:]).replace(
        "  G2: {check: min_samples, n: 2, hypotheses: [H3], fails: not_testable}\n", ""
    )
    (study / "plan.yaml").write_text(text)
    amend_study(study, "demo", "second", "it says nothing")
    run_study(study, saved(2.0), tmp_path / "out")
    v = values(tmp_path / "out")
    assert "H3.claim" not in v and v["amended.H3.decision"] == "not_run"
    assert v["amended.H3.registered.decision"] == "inconclusive" and v["amended.H3.decides"] == "registered"


def test_a_first_version_whose_code_is_gone_is_told_so(study, locked, saved, tmp_path):
    rewrite(study, "options: {shift: 0.0}", "options: {shift: -1.5}")
    (study / "analysis.py").write_text((study / "analysis.py").read_text() + "\n# mended\n")
    amend_study(study, "demo", "second", "mended")
    run_study(study, saved(2.0), tmp_path / "out")
    v = values(tmp_path / "out")
    # The toy method lies outside the study's folder, so that it can be run all the same; its code is noted.
    assert v["amended.H1.registered.decision"] == "supported"
    fields = [v[f"deviation.D{i}.field"] for i in range(1, v["deviation.n"] + 1)]
    assert "/code/analysis.py" in fields
