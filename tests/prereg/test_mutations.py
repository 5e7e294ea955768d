"""Every single change of what a study committed is found, and the message names what was changed."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest

from dynstat.errors import DynstatError
from dynstat.files import canonical_hash, canonical_json
from dynstat.prereg.amend import amend_study
from dynstat.prereg.fingerprint import edited_places, fingerprint
from dynstat.prereg.ledger import append_entry, read_ledger
from dynstat.prereg.lock import load_lock, lock_study
from dynstat.prereg.pointers import changed, get, make
from dynstat.prereg.proofs import attach_copy
from dynstat.prereg.runner import run_study
from dynstat.prereg.verify import verify_study

from .conftest import PLAN, make_inputs

STUDY = Path(__file__).parents[2] / "analyses" / "conditional_signatures"


def places(value, at=()):
    """Yield the path of everything below a value, containers too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def other(value):
    """Return a value of the same kind that differs."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1:] != "x" else "y")
    return {"other": value} if isinstance(value, dict) else [*value, "other"]


def mutations(content):
    """Yield every change, removal and addition of one field, with the pointers one of which must be told."""
    for at in places(content):
        pointer, value = make(at), get(content, make(at))
        new = other(value)
        told = [pointer] if not isinstance(value, dict | list) else [f"{pointer}/"]
        yield f"change {pointer}", changed(content, pointer, new), told
        if value != "" and not isinstance(value, (dict, list)):
            yield f"retype {pointer}", changed(content, pointer, [value]), [pointer]
        parent = make(at[:-1])
        holder = copy.deepcopy(get(content, parent))
        del holder[at[-1]]
        # A removed entry shifts those behind it: the first of them is named, or the list.
        yield f"delete {pointer}", changed(content, parent, holder), [pointer, parent or "/"]
        if isinstance(value, dict):
            grown = changed(content, pointer, {**value, "added": 1})
            yield f"add to {pointer}", grown, [f"{pointer}/added"]
        elif isinstance(value, list):
            grown = changed(content, pointer, [*value, "added"])
            yield f"add to {pointer}", grown, [f"{pointer}/{len(value)}"]
    yield "add to the lock", {**content, "added": 1}, ["/added"]


def told(error: DynstatError) -> str:
    return "\n".join([error.found, *error.problems])


@pytest.fixture
def path(study, inputs):
    lock_study(study, "early", make_inputs(salt="e"))
    return lock_study(study, "demo", inputs)


def test_every_single_field_mutation_of_a_lock_is_found_and_named(path, study):
    """By the ledger's digests alone: the plan beside it was rewritten since, and is of no help."""
    plan = study / "plan.yaml"
    plan.rename(study / "gone")
    content, n = json.loads(path.read_text()), 0
    assert "ledger" in content  # of the optional fields, the one that every further lock has
    for what, mutated, pointers in mutations(content):
        assert canonical_hash(mutated) != canonical_hash(content), what
        path.write_text(json.dumps(mutated))
        with pytest.raises(DynstatError) as e:
            load_lock(path)
        assert e.value.code == "P302" and int(e.value.exit) == 3, what
        assert any(p in told(e.value) for p in pointers), f"{what}: {told(e.value)}"
        n += 1
    assert n > 500
    (study / "gone").rename(plan)
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P302" and "demo.lock.json" in e.value.where


@pytest.mark.parametrize("name", ["demo", "demo-2"])
def test_every_mutation_of_the_committed_locks_is_found_and_named(name, tmp_path):
    """`demo` was made before the ledger held digests of places, and its plan was amended since."""
    folder = tmp_path / "conditional_signatures"
    shutil.copytree(STUDY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / f"{name}.lock.json"
    content = load_lock(file).content
    for i, (what, mutated, pointers) in enumerate(mutations(content)):
        if i % 61:  # one in so many: each reads the whole plan
            continue
        file.write_text(json.dumps(mutated))
        with pytest.raises(DynstatError) as e:
            load_lock(file)
        assert e.value.code == "P302", what
        if name == "demo-2":
            assert any(p in told(e.value) for p in pointers), f"{what}: {told(e.value)}"


def test_a_rehashed_lock_is_unknown_to_the_ledger_and_what_it_changed_is_named(path, study):
    content = changed(json.loads(path.read_text()), "/plan/hypotheses/H1/parts/0/threshold", 0.1)
    content["plan_sha256"] = canonical_hash(content["plan"])
    content["sha256"] = canonical_hash({k: v for k, v in content.items() if k != "sha256"})
    path.write_text(json.dumps(content))
    load_lock(path)
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P306" and "/plan/hypotheses/H1/parts/0/threshold" in told(e.value)


def test_a_key_that_stands_twice_is_found_though_the_last_one_is_right(path):
    text = path.read_text()
    path.write_text(text.replace('"study": "drift"', '"study": "another", "study": "drift"'))
    with pytest.raises(DynstatError) as e:
        load_lock(path)
    assert e.value.code == "P302" and "'study' stands twice" in e.value.found


def test_several_edited_locks_are_told_in_one_pass(path, study):
    for file in study.glob("*.lock.json"):
        file.write_text(json.dumps(changed(json.loads(file.read_text()), "/plan/title", "another")))
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    words = told(e.value)
    assert "early.lock.json" in words and "demo.lock.json" in words and words.count("/plan/title") == 2


def test_every_field_of_every_line_of_a_ledger_is_held(path, study):
    ledger = study / "ledger.jsonl"
    append_entry(ledger, "access", {"level": "structure", "inputs_sha256": "x", "nested": {"a": [1, None]}})
    lines = ledger.read_text(encoding="utf-8").split("\n")[:-1]
    for number, line in enumerate(lines, start=1):
        for what, mutated, _ in mutations(json.loads(line)):
            if canonical_hash(mutated) == canonical_hash(json.loads(line)):
                continue
            edited = [*lines[: number - 1], canonical_json(mutated).decode(), *lines[number:], ""]
            ledger.write_text("\n".join(edited), encoding="utf-8")
            with pytest.raises(DynstatError) as e:
                read_ledger(ledger)
            assert e.value.code == "P306" and e.value.where.endswith(f":{number}"), what


def test_a_line_rehashed_to_its_end_breaks_the_next_line_or_the_head(path, study):
    ledger = study / "ledger.jsonl"
    lines = ledger.read_text(encoding="utf-8").split("\n")[:-1]
    for number in (1, 2):
        body = {k: v for k, v in json.loads(lines[number - 1]).items() if k != "sha256"} | {"access": "none"}
        line = canonical_json(body | {"sha256": canonical_hash(body)}).decode()
        ledger.write_text("\n".join([*lines[: number - 1], line, *lines[number:], ""]), encoding="utf-8")
        with pytest.raises(DynstatError) as e:
            verify_study(study)
        assert e.value.code == "P306" and e.value.where.endswith(":2")


def test_a_ledger_cut_with_its_head_is_found_by_the_locks_and_the_copies(
    path, study, saved, inputs, tmp_path
):
    ledger, head = study / "ledger.jsonl", study / "ledger.head"
    run_study(study, saved(), tmp_path / "out")
    assert [e["event"] for e in read_ledger(ledger)] == ["lock", "lock", "access"]
    assert verify_study(study, [tmp_path / "out"])["against"][0]["entries"] == 3
    lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
    # The access goes, and a head is made that fits: only the copy tells.
    ledger.write_text("".join(lines[:2]), encoding="utf-8")
    last = json.loads(lines[1])
    head.write_text(json.dumps({"n": 2, "sha256": last["sha256"]}))
    assert verify_study(study)["head"] == "holds"
    with pytest.raises(DynstatError) as e:
        verify_study(study, [tmp_path / "out"])
    assert e.value.code == "P306" and "entry 3 (access of" in e.value.problems[0]
    # A lock goes: its file tells.
    ledger.write_text(lines[0], encoding="utf-8")
    head.write_text(json.dumps({"n": 1, "sha256": json.loads(lines[0])["sha256"]}))
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P306" and "does not know demo.lock.json" in e.value.what
    # The first lock is written out of the history: the state that the second one holds tells.
    ledger.unlink()
    head.unlink()
    second = {k: v for k, v in json.loads(lines[1]).items() if k not in ("n", "previous", "sha256", "event")}
    append_entry(ledger, "access", {"level": "none", "inputs_sha256": "x"})
    append_entry(ledger, "lock", second, time=second.pop("time"))
    (study / "early.lock.json").unlink()
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P306" and "/ledger of demo.lock.json" in e.value.problems[0]


def test_a_lock_whose_file_is_gone_is_told(path, study):
    (study / "early.lock.json").unlink()
    found = verify_study(study)
    assert [a["name"] for a in found["abandoned"]] == ["early"] and len(found["locks"]) == 1


def test_a_missing_head_is_found_where_there_was_one_and_told_where_not(path, study, tmp_path):
    (study / "ledger.head").unlink()
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P306" and "head is missing" in e.value.what
    shutil.copytree(STUDY, tmp_path / "old", ignore=shutil.ignore_patterns("__pycache__", "ledger.head"))
    ledger = tmp_path / "old" / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text(encoding="utf-8").splitlines(keepends=True)[:2]))
    assert verify_study(tmp_path / "old" / "demo.lock.json")["head"] == "missing"


def test_a_changed_plan_and_changed_code_are_named_by_pointer(path, study):
    (study / "plan.yaml").write_text(PLAN.replace("threshold: 1.0", "threshold: 1.5"), encoding="utf-8")
    (study / "analysis.py").write_text((study / "analysis.py").read_text() + "# edited\n")
    (study / "more.py").write_text("")
    row = next(r for r in verify_study(study)["locks"] if r["name"] == "demo")
    assert row["plan_changed"] is True
    assert row["differences"] == [
        "/plan/hypotheses/H1/parts/0/threshold",
        "/code/analysis.py",
        "/code/more.py",
    ]


def test_changed_code_does_not_run(path, study, saved, tmp_path):
    (study / "analysis.py").write_text((study / "analysis.py").read_text() + "# edited\n")
    with pytest.raises(DynstatError) as e:
        run_study(study, saved(), tmp_path / "out")
    assert e.value.code == "P308" and int(e.value.exit) == 3 and "analysis.py was changed" in told(e.value)


def test_a_swapped_dataset_does_not_run_and_what_is_other_is_named(path, study, saved, tmp_path):
    run_study(study, saved(), tmp_path / "out")
    with pytest.raises(DynstatError) as e:
        run_study(study, saved(2.5, "swapped.nc"), tmp_path / "out")
    assert e.value.code == "P303" and int(e.value.exit) == 3 and "other data" in e.value.what
    with pytest.raises(DynstatError) as e:
        run_study(path, saved(2.0, "models.nc", make_inputs(salt="f")), tmp_path / "else")
    assert e.value.code == "P303" and "models" in e.value.found


def test_edited_results_are_found_from_their_folder(path, study, saved, tmp_path):
    out = tmp_path / "out"
    run_study(study, saved(), out)
    file = out / "results.json"
    file.write_text(file.read_text().replace("supported", "rejected", 1))
    with pytest.raises(DynstatError) as e:
        verify_study(study, [out])
    assert e.value.code == "P306" and "results.json is not what the last run wrote" in e.value.what


def test_a_folder_of_results_is_verified_by_itself(path, study, saved, tmp_path):
    run_study(study, saved(), tmp_path / "out")
    found = verify_study(tmp_path / "out")
    assert found["locks"][0]["code"] == "not here: this is a copy" and found["head"] == "holds"


def test_results_of_a_study_that_is_known_by_name_are_witnesses_of_it(tmp_path):
    for name, file in (("demo.lock.json", "plan.lock.json"), ("ledger.jsonl", "ledger.jsonl")):
        shutil.copy(STUDY / name, tmp_path / file)
    n = len(read_ledger(STUDY / "ledger.jsonl"))
    found = verify_study(tmp_path)
    assert found["against"][0]["entries"] == n and found["locks"][0]["sha256"].startswith("bb57694bfd0a")
    append_entry(tmp_path / "ledger.jsonl", "bind", {"content_sha256": "c"})
    append_entry(tmp_path / "ledger.jsonl", "failure", {"what": "stopped"})
    assert verify_study(tmp_path)["against"][0]["entries"] == n
    (tmp_path / "ledger.head").unlink()
    shutil.copy(STUDY / "ledger.jsonl", tmp_path / "ledger.jsonl")
    append_entry(tmp_path / "ledger.jsonl", "access", {"level": "outcomes"})  # of the study, which lost it
    with pytest.raises(DynstatError) as e:
        verify_study(tmp_path)
    assert e.value.code == "P306" and f"entry {n + 1} (access of" in e.value.problems[0]


def test_mutations_of_amendments_and_proofs_are_found(path, study):
    (study / "plan.yaml").write_text(PLAN.replace("threshold: 1.0", "threshold: 1.5"), encoding="utf-8")
    amended = amend_study(study, "demo", "second", "mistyped")
    attach_copy(amended, registry="osf", identifier="https://osf.io/abcde")
    assert verify_study(study)["locks"][0]["evidence_words"] == "self-asserted"
    content = json.loads(amended.read_text())
    plan = study / "plan.yaml"
    plan.rename(study / "gone")
    for what, mutated, pointers in mutations(content):
        if not what.partition(" /")[2].startswith(("amends", "parent", "ledger")):
            continue
        amended.write_text(json.dumps(mutated))
        with pytest.raises(DynstatError) as e:
            load_lock(amended)
        assert e.value.code == "P302" and any(p in told(e.value) for p in (*pointers, "/parent and")), what
    (study / "gone").rename(plan)
    amended.write_text(json.dumps(content))
    file = study / "second.proof.json"
    proofs = json.loads(file.read_text())
    for what, mutated, _ in mutations(proofs):
        file.write_text(json.dumps(mutated))
        with pytest.raises(DynstatError) as e:
            verify_study(study)
        assert e.value.code == "P311" and "proof" in str(e.value), what
    file.unlink()
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P311" and "(registry) is not there" in e.value.problems[0]
    file.write_text(json.dumps(proofs))
    (study / "demo.lock.json").unlink()
    with pytest.raises(DynstatError) as e:
        verify_study(study)
    assert e.value.code == "P310" and "amends is missing" in e.value.what


def test_digests_of_places_name_nothing_where_nothing_changed(path):
    content = json.loads(path.read_text())
    entry = read_ledger(path.parent / "ledger.jsonl")[-1]
    assert entry["places"] == fingerprint(content) and edited_places(content, entry["places"]) == []
