"""The runner: a lock and data in, decisions out; refuses what does not belong, does nothing twice."""

from __future__ import annotations

import inspect
import json
import sys

import numpy as np
import pytest

from dynstat.errors import DynstatError
from dynstat.inference.decision import Decision
from dynstat.inference.estimate import Estimate, TPivot
from dynstat.prereg.ledger import read_ledger
from dynstat.prereg.lock import lock_study
from dynstat.prereg.run_result import ConfirmatoryResult, ExploratoryResult
from dynstat.prereg.runner import run_study

from .conftest import make_data, make_inputs


def values(out) -> dict:
    rows = json.loads((out / "results.json").read_text())
    assert len({r["key"] for r in rows}) == len(rows)
    return {r["key"]: r["raw"] for r in rows}


def refused(code, *arguments):
    with pytest.raises(DynstatError) as e:
        run_study(*arguments)
    assert e.value.code == code, e.value
    return e.value


@pytest.fixture
def locked(study, inputs):
    return lock_study(study, "demo", inputs)


def test_the_runner_takes_no_options():
    # Beside study and data: where to write, what to tell, what to compute on; what is declared runs beside.
    parameters = ["study", "data", "out", "progress", "jobs", "scheduler", "deviate"]
    assert list(inspect.signature(run_study).parameters) == parameters


def test_a_registered_run_decides(study, locked, saved, tmp_path):
    seen = []
    result = run_study(study, saved(2.0), tmp_path / "out", lambda *a: seen.append(a))
    assert type(result) is ConfirmatoryResult and result.stamp == "registered" and not result.kept
    assert all(isinstance(d, Decision) for d in result.decisions.values())
    assert result.outcomes == {
        "H1": ("supported", "supported_by_rule"),
        # The range is missed; the second part exceeds its SESOI and not its null.
        "H2": ("inconclusive", "not_beyond_null"),
        "H3": ("inconclusive", "by_construction"),
    }
    assert seen[0][:2] == (0, 2) and seen[-1] == (2, 2, "done")
    out = tmp_path / "out"
    assert (out / "plan.lock.json").exists()
    assert [e["event"] for e in read_ledger(out / "ledger.jsonl")] == ["lock", "access", "bind", "run"]
    v = values(out)
    assert v["study.stamp"] == "registered" and v["deviation.n"] == 0 and v["notrun.n"] == 0
    assert v["H1.decision"] == "supported" and v["H1.m"] == 3 and v["H1.alpha"] == pytest.approx(0.05 / 3)
    assert v["H1.estimate"] == pytest.approx(2.0, abs=0.02) and v["H1.n.prompts"] == 6
    assert v["H2.null.p"] if "H2.null.p" in v else v["H2.part.2.null.p"] == 0.5
    assert v["estimate.X1.mean.value"] == pytest.approx(v["H1.estimate"] + 1)
    assert v["model.one.parameters"] == 12345 and v["model.one.norm"] == "layernorm"
    assert v["definition.entropy@1.origin"] == "published"
    assert v["environment.extraction.torch"] == "2.0"
    assert v["lock.evidence"] == "L0" and v["lock.panel"] == "demo"
    assert v["flow.1"] == 24


def test_purposes_and_formats(study, locked, saved, tmp_path):
    run_study(study, saved(2.0), tmp_path / "out")
    rows = {r["key"]: r for r in json.loads((tmp_path / "out" / "results.json").read_text())}
    fields = {"key", "raw", "formatted", "analysis", "reason", "purpose", "method", "groups"}
    assert all(set(r) == fields for r in rows.values())
    assert rows["H1.estimate"]["purpose"] == "primary" and rows["H2.estimate"]["purpose"] == "secondary"
    assert (
        rows["estimate.X1.mean.value"]["purpose"] == rows["estimate.X1.mean.value"]["reason"] == "exploratory"
    )
    assert rows["estimate.S1.mean.value"]["reason"] == "specified in plan"
    assert rows["H1.claim"]["groups"] == {"hypothesis": "H1", "order": 1}
    assert rows["H1.p_support"]["formatted"] == "< .001" and rows["H1.alpha"]["formatted"] == ".0167"
    assert not [r for r in rows.values() if r["analysis"] == "X1" and "decision" in r["key"]]


def test_diagnostics_are_printed_as_their_estimate_is():
    from dynstat.prereg.results import _diagnostic

    assert _diagnostic("chance_mean", 0.001569, True) == ".002"
    assert _diagnostic("share_reml", 0.0, True) == ".000"
    assert _diagnostic("chance_p", 0.0004998, True) == "< .001"
    assert _diagnostic("chance_mean", 0.001569, False) == "0.001569"
    assert _diagnostic("component", 0.005932877, True) is None  # a variance has no bound
    assert _diagnostic("singular", True, True) is None and _diagnostic("replicates", 300, True) is None


def test_results_can_be_read_by_the_report(study, locked, saved, tmp_path):
    results = pytest.importorskip("dynstat.reports.results")
    run_study(study, saved(0.2), tmp_path / "out")
    found = results.load(tmp_path / "out")
    assert found.hypotheses == ["H1", "H2", "H3"] and found.decision("H1") == "rejected"


def test_rejected_and_straddling(study, locked, saved, tmp_path):
    low = run_study(study, saved(0.5, "low.nc"), tmp_path / "a")
    assert low.outcomes["H1"] == ("rejected", "below_threshold")
    assert low.outcomes["H2"] == ("supported", "supported_by_rule")
    # A wide spread between prompts leaves the interval on both sides of 1.
    entropy = np.repeat(np.linspace(0.2, 2.1, 6, dtype=np.float32)[None, :, None, None, None], 2, axis=0)
    entropy = np.broadcast_to(entropy, (2, 6, 2, 3, 2)).copy()
    wide = run_study(study, saved(1.0, "wide.nc", entropy=entropy), tmp_path / "b")
    assert wide.outcomes["H1"] == ("inconclusive", "interval_straddles")
    assert "times as many" in values(tmp_path / "b")["H1.resolve"]


def test_without_a_lock_the_run_is_exploratory(study, saved, tmp_path):
    result = run_study(study, saved(2.0), tmp_path / "out")
    assert type(result) is ExploratoryResult and result.stamp == "exploratory"
    assert not hasattr(result, "decisions") and not hasattr(result, "outcomes")
    v = values(tmp_path / "out")
    assert "H1.claim" in v and "H1.estimate" in v
    assert not [
        k for k in v if k.endswith((".decision", ".p_support", ".reason_code")) or k.startswith("lock.")
    ]
    assert not (tmp_path / "out" / "plan.lock.json").exists()
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {r["purpose"] for r in rows if r["key"].startswith("estimate.")} == {"exploratory"}


def test_seeing_outcomes_before_the_lock_is_recorded_and_printed(study, inputs, saved, tmp_path):
    data = saved(2.0)
    run_study(study, data, tmp_path / "early")
    run_study(study, data, tmp_path / "again")
    accesses = [e for e in read_ledger(study / "ledger.jsonl") if e["event"] == "access"]
    assert len(accesses) == 1 and accesses[0]["level"] == "outcomes"
    lock_study(study, "late", inputs)
    assert run_study(study, data, tmp_path / "late").stamp == "registered_after_access"


def test_a_pilot_raises_no_access_level(study, inputs, saved, tmp_path):
    pilot = make_inputs("pilot", "f")
    assert run_study(study, saved(of=pilot), tmp_path / "out").stamp == "exploratory"
    assert json.loads(lock_study(study, "demo", inputs).read_text())["access"]["level"] == "metadata"


def test_calling_the_registered_split_a_pilot_for_a_while_hides_no_access(study, inputs, saved, tmp_path):
    plan = (study / "plan.yaml").read_text()
    swapped = plan.replace("split: panel}", "split: x}").replace("split: pilot}", "split: panel}")
    (study / "plan.yaml").write_text(swapped.replace("split: x}", "split: pilot}"))
    run_study(study, saved(2.0), tmp_path / "look")
    (study / "plan.yaml").write_text(plan)
    assert json.loads(lock_study(study, "demo", inputs).read_text())["access"]["level"] == "outcomes"


def test_other_data_in_another_folder_are_named_and_fail_the_check(study, inputs, saved, tmp_path):
    lock_study(study, "demo", inputs)
    run_study(study, saved(0.5), tmp_path / "first")
    other = saved(2.0, name="other.nc")
    result = run_study(study, other, tmp_path / "second")
    (found,) = [d for d in result.deviations if d.field == "/data/content"]
    assert found.must_be_declared and set(found.affects) == {"H1", "H2", "H3"}
    assert values(tmp_path / "second")["deviation.undeclared"] == 1
    again = run_study(study, tmp_path / "panel.nc", tmp_path / "third")
    assert not [d for d in again.deviations if d.field == "/data/content"]


def test_another_lock_of_the_same_inputs_is_named_also_where_its_file_is_gone(study, inputs, saved, tmp_path):
    lock_study(study, "one", inputs)
    other = lock_study(study, "two", inputs)
    data = saved(2.0)
    for n, gone in enumerate(("", "its file is gone")):
        result = run_study(study / "one.lock.json", data, tmp_path / f"out{n}")
        (found,) = [d for d in result.deviations if d.field == "/locks/two"]
        assert found.type == "note" and found.executed.endswith(gone or "Z")
        other.unlink(missing_ok=True)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_number_that_is_not_finite_decides_nothing(study, inputs, saved, tmp_path, monkeypatch, value):
    def broken(ds, **options):
        pivot = TPivot(float(value), 1e-9, 5)
        common = {"method": "drift_test.mean@1", "interval": "t", "unit": "prompt", "n": {}, "seed": 7}
        return {q: Estimate.from_pivot(q, float(value), pivot, **common) for q in ("mean", "nulled")}

    lock_study(study, "demo", inputs)
    monkeypatch.setattr(sys.modules["drift_test_methods"], "mean", broken)
    result = run_study(study, saved(2.0), tmp_path / "out")
    assert {o for o, _ in result.outcomes.values()} == {"not_testable"}


def test_a_second_run_keeps_the_results(study, locked, saved, tmp_path):
    data = saved(2.0)
    first = run_study(study, data, tmp_path / "out")
    before = (tmp_path / "out" / "results.json").stat().st_mtime_ns
    again = run_study(locked, data, tmp_path / "out")
    assert again.kept and again.outcomes == first.outcomes
    assert (tmp_path / "out" / "results.json").stat().st_mtime_ns == before
    # Results edited by hand are not kept.
    file = tmp_path / "out" / "results.json"
    file.write_text(file.read_text().replace('"supported"', '"rejected"', 1))
    assert not run_study(study, data, tmp_path / "out").kept
    assert values(tmp_path / "out")["H1.decision"] == "supported"


def test_same_inputs_give_the_same_results(study, locked, saved, tmp_path):
    data = saved(2.0)
    for name in "ab":
        run_study(study, data, tmp_path / name)
    drop = lambda rows: [r for r in rows if not r["key"].startswith(("timeline", "study.date"))]  # noqa: E731
    a, b = (drop(json.loads((tmp_path / n / "results.json").read_text())) for n in "ab")
    assert a == b


def test_other_data_under_the_lock_are_refused(study, locked, saved, tmp_path):
    out = tmp_path / "out"
    run_study(study, saved(2.0), out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    other = saved(2.0, "other.nc", seed=1)
    error = refused("P303", study, other, out)
    assert int(error.exit) == 3
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    refused("P303", locked, saved(name="of.nc", of=make_inputs(salt="9")), tmp_path / "new")
    refused("P303", study, saved(name="of2.nc", of=make_inputs(salt="9")), out)


def test_an_edited_header_is_found(study, locked, inputs, tmp_path):
    from dynstat.dataset.io import save

    ds = make_data(make_inputs(salt="9"))
    ds.attrs["inputs"] = make_data(inputs).attrs["inputs"]
    error = refused("P303", study, save(ds, tmp_path / "x.nc"), tmp_path / "out")
    assert "weights_sha256 of one" in error.problems
    assert not (tmp_path / "out").exists()


def test_an_edited_lock_is_refused(study, locked, saved, tmp_path):
    data = saved(2.0)
    run_study(study, data, tmp_path / "out")
    locked.write_text(locked.read_text().replace('"threshold": 1.0', '"threshold": 0.1', 1))
    refused("P302", study, data, tmp_path / "out")
    refused("P302", locked, data, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_lock_without_its_ledger_entry_is_refused(study, locked, saved, tmp_path):
    (study / "ledger.jsonl").unlink()
    refused("P306", study, saved(2.0), tmp_path / "out")


def test_a_broken_ledger_is_refused(study, locked, saved, tmp_path):
    ledger = study / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("demo", "dema", 1))
    refused("P306", study, saved(2.0), tmp_path / "out")


def test_changed_code_is_refused(study, locked, saved, tmp_path):
    (study / "analysis.py").write_text((study / "analysis.py").read_text() + "\n# later\n")
    refused("P308", study, saved(2.0), tmp_path / "out")


def test_a_changed_plan_does_not_touch_what_was_locked(study, locked, saved, tmp_path):
    (study / "plan.yaml").write_text(
        (study / "plan.yaml").read_text().replace("threshold: 1.0", "threshold: 9.0")
    )
    assert run_study(study, saved(2.0), tmp_path / "out").outcomes["H1"][0] == "supported"


def test_another_version_of_dynstat_is_a_noted_deviation(study, locked, saved, tmp_path, monkeypatch):
    import dynstat

    monkeypatch.setattr(dynstat, "__version__", "9.9.9")
    assert run_study(study, saved(2.0), tmp_path / "out").outcomes["H1"][0] == "supported"
    v = values(tmp_path / "out")
    assert (
        v["deviation.n"] == 1 and v["deviation.D1.type"] == "note" and v["deviation.D1.executed"] == "9.9.9"
    )


def test_one_sample_a_cell_is_not_testable(study, locked, saved, tmp_path):
    result = run_study(study, saved(2.0, samples=1), tmp_path / "out")
    assert result.outcomes["H3"] == ("not_testable", "one_sample_a_cell")
    assert result.outcomes["H1"][0] == "supported"
    v = values(tmp_path / "out")
    assert v["deviation.n"] == 1 and v["deviation.D1.field"] == "/gates/G2" and v["H3.flags"] == "D1"
    assert v["H1.flags"] == ""


def test_exclusions_missing_runs_and_gates(study, locked, saved, tmp_path):
    n = np.full((2, 6, 2), 2, np.int32)
    n[0, 0, 0] = 1  # one short run takes its prompt out of every model
    result = run_study(study, saved(2.0, "a.nc", n_generated=n), tmp_path / "a")
    v = values(tmp_path / "a")
    assert result.outcomes["H1"][0] == "supported" and v["H1.n.prompts"] == 5
    assert [v[f"flow.{i}"] for i in range(1, 5)] == [24, 1, 0, 20] and v["deviation.n"] == 0

    n[:, :3, :] = 1
    result = run_study(study, saved(2.0, "b.nc", n_generated=n), tmp_path / "b")
    assert {o for o, _ in result.outcomes.values()} == {"inadmissible"}
    v = values(tmp_path / "b")
    assert v["deviation.D1.field"] == "/gates/G1"
    assert v["deviation.D1.type"] == "note" and v["deviation.D1.executed"] == "3"
    assert "H1.estimate" not in v and "found 3" in v["H1.criterion.1"]
    # The data of the first run were others.
    assert (v["deviation.D2.field"], v["deviation.undeclared"]) == ("/data/content", 1)

    quality = np.zeros((2, 6, 2, 3, 2), np.int8)
    quality[0, 1, 0] = 4
    result = run_study(study, saved(2.0, "c.nc", quality=quality), tmp_path / "c")
    v = values(tmp_path / "c")
    assert v["flow.3"] == 1 and v["H1.n.prompts"] == 5 and result.outcomes["H1"][0] == "supported"
    quality[:, :3, 0] = 4
    result = run_study(study, saved(2.0, "d.nc", quality=quality), tmp_path / "d")
    assert result.outcomes["H1"] == ("inadmissible", "too_much_missing")


def test_an_analysis_that_fails_is_not_run_and_a_deviation(study, inputs, saved, tmp_path):
    text = (study / "plan.yaml").read_text().replace("{shift: 0.0}", "{break_it: true}")
    (study / "plan.yaml").write_text(text)
    lock_study(study, "broken", inputs)
    result = run_study(study, saved(2.0), tmp_path / "out")
    assert result.outcomes["H1"] == ("not_run", "analysis_failed")
    v = values(tmp_path / "out")
    assert v["deviation.D1.type"] == "downgrade" and v["deviation.undeclared"] == 1
    assert v["deviation.D1.executed"] == "not run" and "S402" in v["deviation.D1.reason"]
    assert v["notrun.n"] == 1 and "S402" in v["notrun.1"]


def test_a_folder_of_another_run_is_refused(study, inputs, saved, tmp_path):
    data = saved(2.0)
    run_study(study, data, tmp_path / "out")
    lock_study(study, "demo", inputs)
    refused("P303", study, data, tmp_path / "out")


def test_two_locks_of_the_same_inputs_must_be_told_apart(study, locked, inputs, saved, tmp_path):
    second = lock_study(study, "second", inputs)
    refused("S404", study, saved(2.0), tmp_path / "out")
    assert run_study(second, saved(2.0), tmp_path / "out").outcomes["H1"][0] == "supported"


def test_a_half_made_folder_is_taken_up(study, locked, saved, tmp_path, monkeypatch):
    from dynstat.prereg import admission

    data = saved(2.0)
    real = admission.append_entry

    def killed(path, event, fields, time=None):
        if event == "bind":
            raise KeyboardInterrupt
        return real(path, event, fields, time)

    monkeypatch.setattr(admission, "append_entry", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, data, tmp_path / "out")
    monkeypatch.undo()
    assert run_study(study, data, tmp_path / "out").outcomes["H1"][0] == "supported"


def test_a_copied_lock_runs_by_its_study(study, locked, saved, tmp_path, monkeypatch):
    from dynstat.prereg import admission

    data = saved(2.0)
    run_study(study, data, tmp_path / "out")
    monkeypatch.setattr(admission, "find_study", lambda name: {"drift": study}[name])
    assert run_study(tmp_path / "out" / "plan.lock.json", data, tmp_path / "out").kept


def test_a_read_only_folder_is_one_clear_error(study, locked, saved, tmp_path, monkeypatch):
    import dynstat.files

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    data = saved(2.0)
    monkeypatch.setattr(dynstat.files.tempfile, "mkstemp", refuse)
    refused("F002", study, data, tmp_path / "out")


def test_a_foreign_lock_in_the_folder_is_refused_even_without_its_ledger(
    study, locked, inputs, saved, tmp_path
):
    second = lock_study(study, "second", inputs)
    data, out = saved(2.0), tmp_path / "out"
    out.mkdir()
    (out / "plan.lock.json").write_bytes(second.read_bytes())
    refused("P303", locked, data, out)
    assert [p.name for p in out.iterdir()] == ["plan.lock.json"]


@pytest.mark.parametrize("how", ["removed", "cut to the study's"])
def test_results_whose_ledger_no_longer_binds_data_are_refused(study, locked, saved, tmp_path, how):
    out = tmp_path / "out"
    run_study(study, saved(2.0), out)
    before = (out / "results.json").read_bytes()
    if how == "removed":
        (out / "ledger.jsonl").unlink()
    else:
        lines = (out / "ledger.jsonl").read_text().splitlines(keepends=True)
        (out / "ledger.jsonl").write_text("".join(lines[:2]))
    refused("P306", study, saved(2.0, "other.nc", seed=1), out)
    assert (out / "results.json").read_bytes() == before


def test_an_edited_copy_of_the_lock_is_refused(study, locked, saved, tmp_path):
    data, out = saved(2.0), tmp_path / "out"
    run_study(study, data, out)
    copy = out / "plan.lock.json"
    copy.write_text(copy.read_text().replace('"threshold": 1.0', '"threshold": 0.1', 1))
    refused("P302", study, data, out)


def test_data_that_lack_samples_of_the_panel_are_refused(study, inputs, saved, tmp_path):
    inputs["settings"]["samples"] = [{"id": f"s{i}", "seed": i} for i in range(2)]
    lock_study(study, "demo", inputs)
    error = refused("P303", study, saved(2.0, "less.nc", samples=1), tmp_path / "out")
    assert error.problems == ("1 samples, expected s0, s1",)
    assert run_study(study, saved(2.0), tmp_path / "out").stamp == "registered"


def test_every_key_of_the_results_begins_with_a_reserved_word_or_a_hypothesis(study, locked, saved, tmp_path):
    from dynstat.prereg.plan import RESERVED

    run_study(study, saved(2.0), tmp_path / "out")
    first = {k.split(".")[0] for k in values(tmp_path / "out")}
    assert {"study", "estimate", "flow", "timeline"} <= first <= RESERVED | {"H1", "H2", "H3"}


def test_where_no_prompt_is_left_nothing_is_analysed(study, locked, saved, tmp_path):
    result = run_study(study, saved(2.0, n_generated=np.full((2, 6, 2), 1, np.int32)), tmp_path / "out")
    assert {o for o, _ in result.outcomes.values()} == {"inadmissible"}
    v = values(tmp_path / "out")
    assert "no prompt is left" in v["notrun.1"] and not [k for k in v if k.startswith("estimate.")]
    # The gate was registered: what could not be run behind it is no deviation that anybody owes a word on.
    kinds = {v[f"deviation.D{i + 1}.field"]: v[f"deviation.D{i + 1}.type"] for i in range(v["deviation.n"])}
    assert kinds["/analyses/S1"] == "note" and v["deviation.undeclared"] == 0
    assert str(result).startswith("drift: registered, ") and "H1: inadmissible (gate_failed)" in str(result)


def test_a_result_without_a_lock_cannot_be_given_decisions(tmp_path):
    with pytest.raises(TypeError):
        ExploratoryResult(tmp_path, "x", False, decisions={})
    with pytest.raises(DynstatError, match="P309"):
        ConfirmatoryResult(tmp_path, "x", "exploratory", False, {})
    with pytest.raises(DynstatError, match="P309"):
        ConfirmatoryResult(tmp_path, "x", "registered", False, {}, {"H1": "supported"})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("inside"), MemoryError()])
def test_a_run_that_ends_early_is_in_the_ledger_and_leaves_no_results(
    study, locked, saved, tmp_path, monkeypatch, error
):
    import dynstat.prereg.execute as execute_module

    def broken(*_, **__):
        raise error

    data, out = saved(2.0), tmp_path / "out"
    monkeypatch.setattr(execute_module, "analyse", broken)
    with pytest.raises(type(error)):
        run_study(study, data, out)
    assert sorted(p.name for p in out.iterdir() if p.suffix != ".head") == ["ledger.jsonl", "plan.lock.json"]
    last = read_ledger(out / "ledger.jsonl")[-1]
    assert last["event"] == "failure" and last["lock_sha256"] and last["time"]
    assert last["what"] == (
        "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
    )
    monkeypatch.undo()
    assert run_study(study, data, out).outcomes["H1"][0] == "supported"
    v = values(out)
    assert v["failure.n"] == 1 and v["failure.1"] == last["what"]
    # A run after that which fails leaves the results of the one before as they were.
    before = (out / "results.json").read_bytes()
    (study / "deviations.yaml").write_text('dynstat: "deviations/1"\ndeviations: []\n')
    assert run_study(study, data, out).kept and (out / "results.json").read_bytes() == before
