"""Locks and ledgers: nothing of them can be changed unnoticed, and nothing of them is overwritten."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.files import canonical_hash, sha256_bytes
from dynstat.inference.decision import Decision, decide, withhold
from dynstat.prereg.ledger import append_entry, read_ledger
from dynstat.prereg.lock import Lock, check_executable, evidence, load_lock, lock_study, make_lock
from dynstat.prereg.plan import load_plan
from dynstat.prereg.study import _package, code_hashes, foreign_code
from dynstat.prereg.verify import verify_study
from dynstat.registry import METHODS

from .conftest import make_inputs


@pytest.fixture
def path(study, inputs):
    return lock_study(study, "demo", inputs)


def leaves(value, at=()):
    if isinstance(value, dict):
        for k, v in value.items():
            yield from leaves(v, (*at, k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from leaves(v, (*at, i))
    yield at


def test_a_lock_holds_what_is_registered(path, study, inputs):
    lock = load_lock(path)
    plan = load_plan(study)
    assert lock.plan == plan.content and lock.content["plan_sha256"] == plan.sha256
    assert lock.content["inputs"] == inputs and lock.inputs_sha256 == canonical_hash(inputs)
    assert set(lock.content["code"]) == {"analysis.py"}
    assert lock.content["methods"] == ["drift_test.mean@1"] and lock.content["metrics"] == ["entropy@1"]
    assert lock.content["evidence"] == "L0" and lock.content["access"]["level"] == "metadata"
    assert read_ledger(study / "ledger.jsonl")[0]["lock_sha256"] == lock.sha256
    assert verify_study(study)["locks"][0]["code"] == "as locked"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_change_of_a_lock_is_found(path, data):
    content = json.loads(path.read_text())
    places = [p for p in leaves(content) if p]
    place = data.draw(st.sampled_from(places))
    changed = copy.deepcopy(content)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    old = holder[place[-1]]
    how = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if how == "remove":
        del holder[place[-1]]
    elif how == "add" and isinstance(old, dict):
        old["added"] = 1
    elif how == "add" and isinstance(old, list):
        old.append("added")
    else:
        new = data.draw(
            st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1, 1), st.text(max_size=4))
        )
        # 1 and 1.0 (and 0 and -0.0) are one number in canonical JSON, and so no change.
        if canonical_hash(new) == canonical_hash(old):
            return
        holder[place[-1]] = new
    with pytest.raises(DynstatError) as e:
        Lock(changed)
    assert e.value.code == "P302" and int(e.value.exit) == 3


def test_a_rehashed_lock_that_the_ledger_does_not_know_is_found(path, study):
    content = json.loads(path.read_text())
    content["plan"]["hypotheses"]["H1"]["parts"][0]["threshold"] = 0.1
    content["plan_sha256"] = canonical_hash(content["plan"])
    content["sha256"] = canonical_hash({k: v for k, v in content.items() if k != "sha256"})
    path.write_text(json.dumps(content))
    load_lock(path)
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P306"


@pytest.mark.parametrize("text", ["{", "[]", "{}", "NaN", '{"dynstat": NaN}'])
def test_what_is_no_lock_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(DynstatError) as e:
        load_lock(path)
    assert e.value.code == "P302" and "demo.lock.json" in str(e.value)


def test_a_lock_is_never_overwritten(path, study, inputs):
    before = path.read_bytes(), (study / "ledger.jsonl").read_bytes()
    with pytest.raises(DynstatError) as e:
        lock_study(study, "demo", inputs)
    assert e.value.code == "P305"
    assert before == (path.read_bytes(), (study / "ledger.jsonl").read_bytes())
    lock_study(study, "audit", make_inputs(salt="d"))
    assert len(verify_study(study)["locks"]) == 2


def test_a_failed_write_leaves_neither_lock_nor_entry(study, inputs, monkeypatch):
    import dynstat.files

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dynstat.files.os, "fsync", full)
    with pytest.raises(DynstatError) as e:
        lock_study(study, "demo", inputs)
    assert e.value.code == "F002"
    assert not list(study.glob("*.lock.json")) and not list(study.glob(".*"))


def test_the_pilot_cannot_be_locked(study):
    with pytest.raises(DynstatError) as e:
        lock_study(study, "demo", make_inputs("pilot"))
    assert e.value.code == "P301" and not (study / "ledger.jsonl").exists()


def test_an_access_before_the_lock_raises_its_level(study, inputs):
    append_entry(
        study / "ledger.jsonl", "access", {"inputs_sha256": canonical_hash(inputs), "level": "outcomes"}
    )
    lock = load_lock(lock_study(study, "demo", inputs))
    assert lock.content["access"]["level"] == "outcomes"
    other = load_lock(lock_study(study, "other", make_inputs(salt="e")))
    assert other.content["access"]["level"] == "metadata"


def test_installed_studies_are_not_written_to(study, inputs, monkeypatch, tmp_path):
    import dynstat

    monkeypatch.setattr(dynstat, "__file__", str(tmp_path / "site" / "dynstat" / "__init__.py"))
    installed = tmp_path / "site" / "dynstat" / "analyses" / "drift"
    installed.parent.mkdir(parents=True)
    study.rename(installed)
    with pytest.raises(DynstatError) as e:
        lock_study(installed, "demo", inputs)
    assert e.value.code == "F002" and not (installed / "ledger.jsonl").exists()


def test_changed_code_is_told_by_verify_and_refused_by_the_runner(path, study):
    (study / "analysis.py").write_text((study / "analysis.py").read_text() + "# edited\n")
    (study / "helper.py").write_text("")
    assert "analysis.py was changed; helper.py is new" in verify_study(study)["locks"][0]["code"]
    with pytest.raises(DynstatError) as e:
        check_executable(load_lock(path), study)
    assert e.value.code == "P308"
    (study / "plan.yaml").write_text((study / "plan.yaml").read_text().replace("one nat.", "one nat!", 1))
    assert verify_study(study)["locks"][0]["plan_changed"] is True


def test_a_method_that_is_gone_is_refused(path, study, inputs):
    plan = load_plan(study)
    content = json.loads(json.dumps(plan.content))
    content["analyses"]["S1"]["method"] = "drift_test.mean@2"
    changed = make_lock(type(plan)(content, "", "x"), "demo", inputs, folder=study)
    with pytest.raises(DynstatError) as e:
        check_executable(changed, study)
    assert e.value.code == "P308" and "drift_test.mean@2" in e.value.problems[0]


def test_evidence_is_l1_only_where_all_is_committed(study, inputs):
    def git(*arguments):
        who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=study, check=True, capture_output=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "plan")
    path = lock_study(study, "demo", inputs)
    lock = load_lock(path)
    assert lock.content["evidence"] == "L1" and len(lock.content["git"]["commit"]) == 40
    assert evidence(lock, path) == "L0"  # the lock itself is not committed yet
    git("add", "-A")
    git("commit", "-q", "-m", "lock")
    assert evidence(lock, path) == "L1"
    (study / "notes.txt").write_text("dirty")
    assert load_lock(lock_study(study, "second", inputs)).content["git"]["dirty"] is True


# ledger


def test_the_ledger_is_chained(tmp_path):
    file = tmp_path / "ledger.jsonl"
    for i in range(4):
        append_entry(file, "access", {"level": "outcomes", "what": f"é {i}"})
    entries = read_ledger(file)
    assert [e["n"] for e in entries] == [1, 2, 3, 4]
    assert [e["previous"] for e in entries[1:]] == [e["sha256"] for e in entries[:-1]]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_edit_of_a_ledger_is_found(tmp_path, data):
    file = tmp_path / "ledger.jsonl"
    for old in (file, tmp_path / "ledger.head"):
        old.unlink(missing_ok=True)
    for i in range(3):
        append_entry(file, "access", {"what": f"x{i}"}, time="2026-01-01T00:00:00Z")
    text = file.read_text()
    where = data.draw(st.integers(0, len(text) - 2))
    char = data.draw(st.sampled_from('a0{}", :\n'))
    if text[where] == char:
        return
    file.write_text(text[:where] + char + text[where + 1 :])
    with pytest.raises(DynstatError) as e:
        read_ledger(file)
    assert e.value.code == "P306"


@pytest.mark.parametrize("change", ["drop_first", "drop_middle", "swap", "cut", "repeat"])
def test_lines_cannot_be_dropped_or_moved(tmp_path, change):
    file = tmp_path / "ledger.jsonl"
    for i in range(3):
        append_entry(file, "access", {"what": i})
    a, b, c = file.read_text().splitlines(keepends=True)
    text = {
        "drop_first": b + c,
        "drop_middle": a + c,
        "swap": b + a + c,
        "cut": (a + b + c)[:-9],
        "repeat": a + b + b + c,
    }[change]
    file.write_text(text)
    with pytest.raises(DynstatError) as e:
        append_entry(file, "access", {"what": 9})
    assert e.value.code == "P306" and file.read_text() == text


# decisions


def test_only_a_lock_can_decide(path, study):
    from dynstat.inference.estimate import Estimate, TPivot

    estimate = Estimate.from_pivot(
        "mean", 2.0, TPivot(2.0, 0.1, 5), method="drift_test.mean@1", interval="t", unit="prompt", n={}
    )
    lock = load_lock(path)
    made = decide(lock, "H1", estimate)
    assert (made.outcome, made.m, made.alpha) == ("supported", 3, 0.05 / 3)
    for refuse in (
        lambda: decide(load_plan(study), "H1", estimate),
        lambda: decide(None, "H1", estimate),
        lambda: Decision("H1", "supported", "supported_by_rule", 0.0, 1.0, 0.05, 1, (), (), "", lock.sha256),
        lambda: Decision(
            "H1", "supported", "supported_by_rule", 0.0, 1.0, 0.05, 1, (), (), "", "f" * 64, lock=lock
        ),
        lambda: decide(lock, "H9", estimate),
        lambda: decide(
            lock,
            "H1",
            Estimate.from_pivot("other", 2.0, TPivot(2.0, 0.1, 5), method="m@1", interval="", unit="", n={}),
        ),
        lambda: withhold(None, "H1", "not_run", "no_estimate"),
    ):
        with pytest.raises(DynstatError) as e:
            refuse()
        assert e.value.code == "P309"
    with pytest.raises(DynstatError) as e:
        decide(lock, "H1", dataclasses.replace(estimate, method="drift_test.median@1"))
    assert e.value.code == "P309"
    lock.plan["hypotheses"]["H1"]["parts"][0]["threshold"] = 0.5
    with pytest.raises(DynstatError) as e:
        decide(lock, "H1", estimate)
    assert e.value.code == "P302"
    lock = load_lock(path)
    with pytest.raises(DynstatError):
        decide(lock, "H2", estimate)
    assert "supported" in str(made) and made.as_dict()["criteria"]


def test_a_decision_says_what_would_resolve_it(path):
    from dynstat.inference.estimate import Estimate, TPivot

    lock = load_lock(path)

    def at(value, pivot=True, key="mean"):
        rest = {"method": "drift_test.mean@1", "interval": "t", "unit": "prompt", "n": {}}
        if not pivot:
            return Estimate(key, value, value, value, 0.95, **rest)
        return Estimate.from_pivot(key, value, TPivot(value, 0.1, 5), **rest)

    made = decide(lock, "H1", at(1.1))
    assert made.outcome == "inconclusive" and "times as many independent units (prompt)" in made.resolve
    assert decide(lock, "H1", at(1.1, pivot=False)).outcome == "not_testable"
    assert decide(lock, "H1", at(float("nan"))).reason_code == "no_interval"
    assert decide(lock, "H3", at(2.0)).reason_code == "by_construction"


def test_a_panel_of_other_prompts_cannot_be_locked(study, inputs):
    inputs["prompts"]["sha256"] = "c" * 64
    with pytest.raises(DynstatError) as e:
        lock_study(study, "demo", inputs)
    assert e.value.code == "P301" and "another prompt file" in e.value.what
    assert sorted(p.name for p in study.iterdir()) == ["analysis.py", "plan.yaml", "prompts.csv"]


def test_a_plan_that_was_tried_on_its_own_prompts_cannot_be_locked(study, inputs):
    file = study / "prompts.csv"
    file.write_text(file.read_text().replace("pilot prompt 1", "panel prompt 3"))
    inputs["prompts"]["sha256"] = sha256_bytes(file.read_bytes())
    with pytest.raises(DynstatError) as e:
        lock_study(study, "demo", inputs)
    assert e.value.code == "P301" and "overlap" in e.value.what


def test_a_decision_cannot_be_made_against_its_rule(path):
    """Not even with the lock in hand: what does not follow from the estimates is no decision."""
    from dynstat.inference.estimate import Estimate, TPivot

    lock = load_lock(path)
    rest = {"method": "drift_test.mean@1", "interval": "t", "unit": "prompt", "n": {}}
    low = (Estimate.from_pivot("mean", 0.1, TPivot(0.1, 0.1, 5), **rest),)
    made = decide(lock, "H1", low)
    assert made.outcome == "rejected"
    fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
    assert Decision(**fields, lock=lock) == made
    for change in (
        {"outcome": "supported", "reason_code": "supported_by_rule"},
        {"reason_code": "too_small"},
        {"hypothesis": "H3"},
    ):
        with pytest.raises(DynstatError) as e:
            Decision(**(fields | change), lock=lock)
        assert e.value.code == "P309"


def test_a_method_whose_code_no_lock_would_hash_is_refused(study, inputs, tmp_path, monkeypatch):
    (tmp_path / "elsewhere_drift.py").write_text("def mean(ds, **options):\n    return {}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = METHODS.get("drift_test.mean@1")
    moved = dataclasses.replace(entry, path="elsewhere_drift:mean")
    assert foreign_code({entry.id: moved.path}, study)
    monkeypatch.setitem(METHODS._entries, entry.id, moved)
    with pytest.raises(DynstatError) as e:
        lock_study(study, "demo", inputs)
    assert e.value.code == "P307" and "elsewhere_drift" in str(e.value)
    assert not (study / "demo.lock.json").exists() and not (study / "ledger.jsonl").exists()
    own = _package(study)
    assert not foreign_code({"x": f"{own}.meth:mean", "y": "dynstat.metrics.entries:entropy"}, study)
    assert foreign_code({"z": "dynstat.analyses.conditional_signatures.signature:signature"}, study)


def test_compiled_modules_are_code_too(study):
    before = code_hashes(study)
    (study / "hidden.pyc").write_bytes(b"1")
    (study / "__pycache__").mkdir()
    (study / "__pycache__" / "analysis.cpython-311.pyc").write_bytes(b"1")
    assert set(code_hashes(study)) - set(before) == {"hidden.pyc"}
