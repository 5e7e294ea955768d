"""Deviations: found by comparison at every place, declared in a strict file, with their consequences."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.prereg import declared, pointers
from dynstat.prereg.declared import EFFECTS, REASONS, load_declared
from dynstat.prereg.deviations import CLASSES, classify, diff
from dynstat.prereg.execute import execute
from dynstat.prereg.executed import executed_record, locked_record
from dynstat.prereg.ledger import read_ledger
from dynstat.prereg.lock import load_lock, lock_study
from dynstat.prereg.run_result import ExploratoryResult
from dynstat.prereg.runner import run_study

from .conftest import make_data
from .test_runner import refused, values

HEAD = 'dynstat: "deviations/1"\ndeviations:\n'


def entry(pointer, **given):
    fields = {
        "id": "V1",
        "pointer": pointer,
        "reason": "error_in_plan",
        "severity": "unchanged",
        "validity": "higher",
        "text": "told in words",
    } | given
    lines = [f"{k}: {json.dumps(v)}" for k, v in fields.items()]
    return "  - " + "\n    ".join(lines) + "\n"


def declare(study, *entries):
    (study / "deviations.yaml").write_text(HEAD + "".join(entries))


@pytest.fixture
def locked(study, inputs):
    return lock_study(study, "demo", inputs)


@pytest.fixture
def record(study, locked):
    return locked_record(load_lock(locked))


# Comparison -------------------------------------------------------------------------------------------------


def leaves(value, at=()):
    if isinstance(value, dict) and value:
        return [p for k, v in value.items() for p in leaves(v, (*at, k))]
    return [at]


def test_what_was_run_as_locked_has_no_deviation(study, locked, inputs):
    lock = load_lock(locked)
    run = execute(lock.plan, make_data(inputs), folder=study)
    assert executed_record(lock, run, study, "9999-01-01T00:00:00Z") == locked_record(lock)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_change_of_one_place_is_found_at_that_place(data):
    record = _RECORD
    place = data.draw(st.sampled_from(leaves({k: v for k, v in record.items() if k not in _NOT_COMPARED})))
    at = pointers.make(place)
    new = data.draw(st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.just("removed")))
    executed = copy.deepcopy(record)
    holder = pointers.get(executed, pointers.make(place[:-1]))
    if new == "removed" and isinstance(holder, dict):
        del holder[place[-1]]
    else:
        holder[place[-1]] = new
    found = diff(record, executed)
    old = pointers.get(record, at)
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        assert found == []
    elif isinstance(old, list):
        assert found and all(d.field.startswith(at) for d in found)
    else:
        assert [d.field for d in found] == [at]
        assert found[0].type == classify(at)[0] and found[0].detected == "auto" and not found[0].declared


_NOT_COMPARED = ("hypotheses", "gate_hypotheses")
_RECORD = {
    "analyses": {
        "S1": {"method": "m@1", "outcome": {"metric": "e@1"}, "options": {"a/b": 1.5, "c": [1, 2]}, "seed": 7}
    },
    "exploratory": {"X1": {"method": "m@1", "outcome": None, "options": {}, "seed": 8}},
    "gates": {"G1": "at least 4"},
    "data": {"missing": {"max_fraction": 0.05}},
    "registration": {"access": {"level": "none"}},
    "methods": ["m@1"],
    "metrics": ["e@1"],
    "code": {"analysis.py": "0" * 64},
    "dynstat_version": "1.0.0",
    "libraries": {"numpy": "2.0"},
    "git": {"dirty": False},
    "time": "not before the lock",
    "hypotheses": {"H1": {"parts": [{"estimand": {"analysis": "S1", "quantity": "x"}}]}, "H2": {"parts": []}},
    "gate_hypotheses": {"G1": ["H2"]},
}


@pytest.mark.parametrize(
    "pointer, value, kind, affects",
    [
        ("/analyses/S1/options/a~1b", 2, "downgrade", ("H1",)),
        ("/analyses/S1/outcome/metric", "f@1", "downgrade", ("H1",)),
        ("/analyses/S1/seed", 8, "sensitivity", ("H1",)),
        ("/analyses/S1", "not run", "downgrade", ("H1",)),
        ("/exploratory/X1", "not run", "note", ()),
        ("/gates/G1", "3", "note", ("H2",)),
        ("/data/missing/max_fraction", 0.2, "note", ("H1", "H2")),
        ("/code/analysis.py", "1" * 64, "void", ("H1", "H2")),
        ("/methods/0", "m@2", "void", ("H1", "H2")),
        ("/time", "before", "void", ("H1", "H2")),
        ("/dynstat_version", "1.1.0", "note", ()),
        ("/libraries/numpy", "2.1", "note", ()),
        ("/git/dirty", True, "note", ()),
        ("/registration/access/level", "outcomes", "note", ()),
    ],
)
def test_classes_and_the_hypotheses_that_are_affected(pointer, value, kind, affects):
    (found,) = diff(_RECORD, pointers.changed(_RECORD, pointer, value))
    assert (found.type, found.affects) == (kind, affects)
    assert found.must_be_declared == (kind != "note")
    assert diff(_RECORD, pointers.changed(_RECORD, pointer, value), planned=frozenset([pointer])) == []


def test_a_place_that_nobody_thought_of_is_no_mere_note():
    assert classify("/something/new")[0] == "downgrade" and CLASSES[0] == "note"


# The file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, code, said",
    [
        ("deviations: []\n", "Y002", "missing key 'dynstat'"),
        ('dynstat: "deviations/2"\ndeviations: []\n', "Y003", "deviations/2"),
        (HEAD + entry("/time", resaon="x"), "Y002", "did you mean 'reason'"),
        (HEAD + entry("/time", reason="laziness"), "Y003", "unforeseen_event"),
        (HEAD + entry("/time", severity="none"), "Y003", "unchanged"),
        (HEAD + entry("/time", timing="later"), "Y003", "outcomes"),
        (HEAD + entry("/time", **{"class": "minor"}), "Y003", "sensitivity"),
        (HEAD + entry("time"), "Y003", "JSON pointer"),
        (HEAD + entry(""), "Y003", "pointer is text"),
        (HEAD + entry("/time", text=" "), "Y003", "text is text"),
        (HEAD + entry("/time") + entry("/code"), "Y003", "same id"),
        (HEAD + entry("/time", affects="H1"), "Y003", "list of hypotheses"),
        (HEAD + entry("/time") + "    value: .nan\n", "Y003", "no JSON"),
    ],
)
def test_the_file_is_read_strictly(study, text, code, said):
    (study / "deviations.yaml").write_text(text)
    with pytest.raises(DynstatError) as e:
        load_declared(study / "deviations.yaml")
    assert e.value.code == code and said in str(e.value)


def test_a_file_that_is_named_must_exist(study, tmp_path):
    assert load_declared(study / "deviations.yaml", None) == []
    with pytest.raises(DynstatError, match="F001"):
        load_declared(tmp_path / "other.yaml")


# Runs -------------------------------------------------------------------------------------------------------


def test_declaring_what_was_found_answers_for_it(study, inputs, saved, tmp_path):
    text = (study / "plan.yaml").read_text().replace("{shift: 0.0}", "{break_it: true}")
    (study / "plan.yaml").write_text(text)
    lock_study(study, "broken", inputs)
    declare(study, entry("/analyses/S1", reason="unforeseen_event", validity="lower"))
    run_study(study, saved(2.0), tmp_path / "out")
    v = values(tmp_path / "out")
    assert v["deviation.n"] == 1 and v["deviation.undeclared"] == 0
    assert v["deviation.D1.declared"] is True and v["deviation.D1.detected"] == "auto"
    assert v["deviation.D1.reason"].startswith("unforeseen event: told in words (S402")
    assert v["deviation.D1.validity"] == "lower" and v["deviation.D1.registered_also"] is False
    assert v["H1.decision"] == "not_run"


def test_a_change_is_run_beside_what_was_registered(study, locked, saved, tmp_path):
    data = saved(2.0)
    run_study(study, data, tmp_path / "plain")  # leaves an access behind
    (study / "ledger.jsonl").write_bytes(
        (tmp_path / "plain" / "ledger.jsonl").read_bytes().splitlines(True)[0]
    )
    for head in study.glob("*.head"):
        head.unlink()
    file = tmp_path / "change.yaml"
    file.write_text(HEAD + entry("/analyses/S1/options/shift", value=-1.5))
    result = run_study(study, data, tmp_path / "out", deviate=file)
    assert result.outcomes["H1"] == ("supported", "supported_by_rule")
    plain, v = values(tmp_path / "plain"), values(tmp_path / "out")
    assert all(
        v[k] == plain[k] for k in plain if k.startswith(("H", "estimate.")) and not k.endswith(".flags")
    )
    assert v["H1.flags"] == "D1" and v["deviation.D1.type"] == "sensitivity"
    assert v["deviation.D1.detected"] == "declared" and v["deviation.D1.timing"] == "metadata"
    assert (v["deviation.D1.registered"], v["deviation.D1.executed"]) == ("0", "-1.5")
    assert v["amended.H1.estimate"] == pytest.approx(plain["H1.estimate"] - 1.5)
    assert v["amended.H1.decision"] == "rejected" and v["amended.H1.registered.decision"] == "supported"
    assert v["amended.H1.registered.estimate"] == plain["H1.estimate"]
    assert v["amended.H1.decides"] == "registered" and v["amended.H1.by"] == "deviation"
    # The same declaration stays one that was made before the data were opened.
    run_study(study, data, tmp_path / "again", deviate=file)
    assert values(tmp_path / "again")["deviation.D1.type"] == "sensitivity"


def test_a_change_made_with_the_outcomes_known_supports_nothing(study, locked, saved, tmp_path):
    data = saved(0.5)
    first = run_study(study, data, tmp_path / "out")
    assert first.outcomes["H1"] == ("rejected", "below_threshold")
    declare(study, entry("/analyses/S1/options/shift", value=1.5, timing="none"))
    result = run_study(study, data, tmp_path / "out")
    assert not result.kept and result.outcomes["H1"] == first.outcomes["H1"]
    v = values(tmp_path / "out")
    assert v["deviation.D1.timing"] == "outcomes" and v["deviation.D1.type"] == "downgrade"
    assert v["amended.H1.decision"] == "inconclusive" and v["amended.H1.reason_code"] == "downgraded"
    assert v["amended.H1.p_support"] < v["amended.H1.alpha"]
    assert run_study(study, data, tmp_path / "out").kept


def test_another_exclusion_runs_every_analysis_again(study, locked, saved, tmp_path):
    rule = {"E1": {"where": "n_generated < 3", "reason": "shorter"}}
    declare(study, entry("/data/exclusions", value=rule))
    run_study(study, saved(2.0), tmp_path / "out")
    v = values(tmp_path / "out")
    # Every run has two tokens: nothing is left, and the gate that was registered says so.
    assert v["H1.decision"] == "supported" and v["amended.H1.decision"] == "inadmissible"
    assert "amended.H1.estimate" not in v


def test_what_only_the_authors_can_tell_forbids_support(study, locked, saved, tmp_path):
    told = entry("/hypotheses/H1", **{"class": "downgrade", "text": "two runs were looked at before"})
    declare(study, told)
    result = run_study(study, saved(2.0), tmp_path / "out")
    assert result.outcomes["H1"] == ("inconclusive", "downgraded")
    assert result.outcomes["H3"] == ("inconclusive", "by_construction")
    v = values(tmp_path / "out")
    assert v["H1.p_support"] <= v["H1.alpha"] and v["H1.flags"] == "D1" and v["H2.flags"] == ""
    assert "D1" in v["H1.resolve"]
    low = run_study(study, saved(0.5, "low.nc"), tmp_path / "low")
    assert low.outcomes["H1"] == ("rejected", "below_threshold")  # what forbids support forbids no rejection


@pytest.mark.parametrize(
    "pointer, value, code",
    [
        ("/hypotheses/H1/parts/0/threshold", 0.1, "P301"),
        ("/analyses/S1/method", "drift_test.mean@2", "P301"),
        ("/families/main/alpha", 0.1, "P301"),
        ("/analyses/S1/options/shfit", 1.0, "Y002"),
        ("/analyses/S1/options/shift", "a lot", "Y003"),
        ("/analyses/S9/options/shift", 1.0, "Y002"),
        ("/analyses/S1/outcome/metric", "entropi@1", "Y003"),
        ("/data/exclusions", {"E1": {"where": "x < 2", "reason": "r"}}, "Y003"),
        ("/data/exclusions/E1/where", "n_generated near 2", "Y003"),
        ("/data/missing/max_fraction", 2, "Y003"),
        ("/data/missing", "none", "Y003"),
    ],
)
def test_what_cannot_be_run_beside_is_refused_before_anything_is_run(
    study, locked, saved, tmp_path, pointer, value, code
):
    declare(study, entry(pointer, value=value))
    refused(code, study, saved(2.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "access" not in [e["event"] for e in read_ledger(study / "ledger.jsonl")]


def test_a_hypothesis_that_is_not_there_is_no_effect(study, locked, saved, tmp_path):
    declare(study, entry("/analyses/S1", affects=["H1", "H7"]))
    assert "'H7'" in str(refused("Y003", study, saved(2.0), tmp_path / "out"))


def test_an_option_that_holds_options_is_planned_as_a_whole():
    changed = pointers.changed(_RECORD, "/analyses/S1/options/c/1", 9)
    assert diff(_RECORD, changed, planned=frozenset(["/analyses/S1/options/c"])) == []
    assert diff(_RECORD, changed, planned=frozenset(["/analyses/S1/options/a"]))


def test_changed_code_that_is_declared_leaves_an_exploratory_run(study, locked, saved, tmp_path):
    (study / "analysis.py").write_text((study / "analysis.py").read_text() + "\n# later\n")
    data = saved(2.0)
    refused("P308", study, data, tmp_path / "out")
    declare(study, entry("/code/other.py"))
    refused("P308", study, data, tmp_path / "out")
    declare(study, entry("/code/analysis.py"))
    result = run_study(study, data, tmp_path / "out")
    assert type(result) is ExploratoryResult and "analysis.py was changed" in result.void
    v = values(tmp_path / "out")
    assert v["study.stamp"] == "exploratory" and "analysis.py" in v["study.void"] and v["lock.sha256"]
    assert v["deviation.D1.type"] == "void" and v["deviation.D1.declared"] is True
    assert not [k for k in v if k.endswith((".decision", ".p_support"))]
    kept = run_study(study, data, tmp_path / "out")
    assert kept.kept and kept.void == result.void


def test_a_run_before_its_lock_is_void(study, inputs, saved, tmp_path):
    lock_study(study, "late", inputs, time="2999-01-01T00:00:00Z")
    result = run_study(study, saved(2.0), tmp_path / "out")
    assert type(result) is ExploratoryResult
    v = values(tmp_path / "out")
    assert v["deviation.D1.field"] == "/time" and v["deviation.undeclared"] == 1
    assert not [k for k in v if k.endswith(".decision")]


def test_another_version_of_a_library_is_a_note(study, locked, saved, tmp_path, monkeypatch):
    from dynstat.prereg import executed

    assert load_lock(locked).content["libraries"]["numpy"] == ".".join(np.__version__.split(".")[:2])
    there = executed.library_versions()
    monkeypatch.setattr(executed, "library_versions", lambda: there | {"numpy": "99.1"})
    assert run_study(study, saved(2.0), tmp_path / "out").outcomes["H1"][0] == "supported"
    v = values(tmp_path / "out")
    assert v["deviation.D1.field"] == "/libraries/numpy" and v["deviation.D1.executed"] == "99.1"
    assert v["deviation.D1.type"] == "note" and v["deviation.n"] == 1


# The page ---------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "deviations.md"


def test_the_example_of_the_page_runs(study, locked, saved, tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    file = tmp_path / "example.yaml"
    file.write_text(example)
    run_study(study, saved(2.0), tmp_path / "out", deviate=file)
    v = values(tmp_path / "out")
    assert v["deviation.D1.id"] == "V1" and v["deviation.D1.type"] == "sensitivity"
    assert v["amended.H1.decides"] == "registered" and v["amended.H1.decision"] == "rejected"


def test_the_page_names_every_class_reason_and_key():
    text = PAGE.read_text(encoding="utf-8")
    words = {*CLASSES, *REASONS, *EFFECTS, *declared._KEYS}
    assert not [w for w in words if f"`{w}`" not in text]
