"""Amendments: what differs is told, what is unchanged stays registered, and the last one is in force."""

from __future__ import annotations

import json
import threading

import pytest

from dynstat.errors import DynstatError
from dynstat.files import canonical_hash
from dynstat.prereg.amend import amend_study
from dynstat.prereg.chains import amendment, chain_of, find_fitting, registration_of
from dynstat.prereg.ledger import append_entry, read_ledger
from dynstat.prereg.lock import load_lock, lock_study
from dynstat.prereg.plan import load_plan
from dynstat.prereg.verify import verify_study
from dynstat.strictyaml import parse_yaml

from .conftest import ANALYSIS, PLAN, make_inputs
from .test_plan_spellings import to_toml

T1, T2, T3 = (f"2026-01-0{i}T00:00:00Z" for i in (1, 2, 3))


@pytest.fixture
def first(study, inputs):
    return load_lock(lock_study(study, "demo", inputs, time=T1))


@pytest.fixture
def seen(study, inputs):
    """Let the outcomes of these inputs be seen."""

    def see():
        fields = {"inputs_sha256": canonical_hash(inputs), "level": "outcomes"}
        append_entry(study / "ledger.jsonl", "access", fields)

    return see


def edit(study, change):
    plan = parse_yaml(PLAN)
    change(plan)
    (study / "plan.yaml").write_text(json.dumps(plan), encoding="utf-8")


def how(lock):
    return {h: s["how"] for h, s in amendment(lock)["hypotheses"].items()}


def test_an_amendment_says_what_differs_why_and_what_was_known(study, first, seen):
    before = (study / "demo.lock.json").read_bytes()
    seen()
    edit(study, lambda p: p["hypotheses"]["H1"].update(threshold=1.5))
    lock = load_lock(amend_study(study, "demo", "second", "  mistyped  ", time=T2))
    stated = amendment(lock)
    assert stated["pointers"] == ["/plan/hypotheses/H1/parts/0/threshold"]
    assert (stated["reason"], stated["timing"]) == ("mistyped", "outcomes")
    assert lock.parent == first.sha256 and lock.inputs_sha256 == first.inputs_sha256
    assert (study / "demo.lock.json").read_bytes() == before
    entry = read_ledger(study / "ledger.jsonl")[-1]
    assert (entry["event"], entry["timing"], entry["reason"]) == ("amend", "outcomes", "mistyped")
    assert (entry["lock_sha256"], entry["parent_sha256"]) == (lock.sha256, first.sha256)
    assert [e["event"] for e in read_ledger(study / "ledger.jsonl")] == ["lock", "access", "lock", "amend"]
    row = next(r for r in verify_study(study)["locks"] if r["name"] == "second")
    assert row["amends"]["lock"] == first.sha256


def test_a_claim_keeps_its_registration_and_one_added_after_the_outcomes_carries_that(study, first, seen):
    def add(plan):
        plan["hypotheses"]["H4"] = dict(plan["hypotheses"]["H1"], claim="Something seen.")
        plan["hypotheses"]["H3"]["claim"] = "Entropy is above zero."

    edit(study, add)
    second = load_lock(amend_study(study, "demo", "second", "one more claim", time=T2))
    assert how(second) == {"H1": "unchanged", "H2": "unchanged", "H3": "changed", "H4": "added"}
    seen()
    (study / "plan.yaml").write_text(
        (study / "plan.yaml").read_text().replace("Something seen.", "Something else."), encoding="utf-8"
    )
    third = load_lock(amend_study(study, study / "second.lock.json", "third", "what was seen", time=T3))
    chain = chain_of(study, third)
    assert [lock.name for lock in chain] == ["demo", "second", "third"]
    for of in (chain, [third]):
        found = {h: registration_of(of, h) for h in third.plan["hypotheses"]}
        assert {h: (r.access, r.time, r.amended) for h, r in found.items()} == {
            "H1": ("metadata", T1, False),
            "H2": ("metadata", T1, False),
            "H3": ("metadata", T2, True),
            "H4": ("outcomes", T3, True),
        }
        assert found["H1"].lock == first.sha256 and found["H3"].lock == second.sha256
        assert found["H4"].lock == third.sha256
    assert registration_of([first], "H1").amended is False
    with pytest.raises(DynstatError) as e:
        registration_of(chain, "H9")
    assert e.value.code == "S404"


def nest(section, *keys, **values):
    def change(plan):
        here = plan[section]
        for key in keys:
            here = here[key]
        here.update(values)

    return change


@pytest.mark.parametrize(
    "change, expected",
    [
        (nest("data", missing={"max_fraction": 0.1}), "changed changed changed"),
        (nest("data", "exclusions", E2={"where": "n_prompt < 2", "reason": "r"}), "changed changed changed"),
        (nest("families", "main", alpha=0.01), "changed changed changed"),
        (nest("analyses", "S1", seed=8), "changed changed changed"),
        (nest("gates", "G2", n=3), "unchanged unchanged changed"),
        (nest("hypotheses", "H2", role="primary"), "unchanged changed unchanged"),
        (nest("exploratory", "X1", seed=9), "unchanged unchanged unchanged"),
        (lambda p: p["hypotheses"].pop("H2"), "changed - changed"),
        (lambda p: p.update(title="Another"), "unchanged unchanged unchanged"),
    ],
)
def test_unchanged_means_all_that_decides(study, first, change, expected):
    edit(study, change)
    lock = load_lock(amend_study(study, "demo", "second", "why"))
    assert how(lock) == {h: w for h, w in zip(("H1", "H2", "H3"), expected.split(), strict=True) if w != "-"}
    assert amendment(lock)["dropped"] == (["H2"] if "-" in expected else [])
    assert chain_of(study, lock)[0].sha256 == first.sha256


def h4(plan, family="main"):
    plan["hypotheses"]["H4"] = dict(plan["hypotheses"]["H1"], claim="One more.", family=family)


def with_family(correction, **more):
    def change(plan):
        plan["families"]["main"] = {"alpha": 0.05, "correction": correction, **more}

    return change


def beside(plan):
    plan["families"]["other"] = {"alpha": 0.05}
    h4(plan, "other")


@pytest.mark.parametrize(
    "before, change, kept",
    [
        (with_family("bonferroni"), h4, True),
        (with_family("holm"), h4, True),
        (with_family("bh"), h4, False),  # a strong member makes the tests of the others easier
        (with_family("bonferroni"), beside, True),
        (with_family("bh"), beside, True),
        (
            with_family("fixed_sequence", order=["H1", "H2", "H3"]),
            lambda p: (h4(p), p["families"]["main"].update(order=["H1", "H2", "H3", "H4"])),
            True,
        ),
        (
            with_family("fixed_sequence", order=["H1", "H2", "H3"]),
            lambda p: (h4(p), p["families"]["main"].update(order=["H4", "H1", "H2", "H3"])),
            False,
        ),
    ],
)
def test_a_new_member_leaves_the_others_where_it_cannot_help_them(study, inputs, before, change, kept):
    edit(study, before)
    lock_study(study, "demo", inputs)
    edit(study, lambda p: (before(p), change(p)))
    lock = load_lock(amend_study(study, "demo", "second", "one more"))
    old = "unchanged" if kept else "changed"
    assert how(lock) == {"H1": old, "H2": old, "H3": old, "H4": "added"}
    assert len(chain_of(study, lock)) == 2


def test_changed_code_of_the_study_changes_what_rests_on_it(study, first):
    (study / "helper.py").write_text("x = 1\n")
    lock = load_lock(amend_study(study, "demo", "second", "a helper"))
    assert amendment(lock)["pointers"] == ["/code/helper.py"] and set(how(lock).values()) == {"changed"}


def test_the_access_level_is_never_below_that_of_the_amended_lock(study, first, seen, inputs):
    seen()
    late = load_lock(lock_study(study, "late", inputs))
    (study / "ledger.jsonl").unlink()
    (study / "ledger.head").unlink()
    append_entry(study / "ledger.jsonl", "lock", {"lock_sha256": late.sha256, "name": "late"})
    edit(study, lambda p: p.update(title="Another"))
    assert amendment(load_lock(amend_study(study, "late", "later", "r")))["timing"] == "outcomes"


def test_the_last_of_a_chain_is_in_force(study, first, inputs):
    sha = canonical_hash(inputs)
    assert find_fitting(study, sha)[0].name == "demo"
    edit(study, lambda p: p.update(title="Another"))
    amend_study(study, "demo", "a-second", "r")
    edit(study, lambda p: p.update(title="A third"))
    amend_study(study, "a-second", "b-third", "r")
    lock, path = find_fitting(study, sha)
    assert lock.name == "b-third" and path.name == "b-third.lock.json"
    assert find_fitting(study, "0" * 64) == (None, None)
    lock_study(study, "beside", inputs)
    with pytest.raises(DynstatError) as e:
        find_fitting(study, sha)
    assert e.value.code == "S404" and "b-third" in e.value.found and "demo" not in e.value.found


def refused(code, *arguments):
    with pytest.raises(DynstatError) as e:
        amend_study(*arguments)
    assert e.value.code == code
    return e.value


def test_what_is_no_amendment_is_refused(study, first, inputs):
    files = sorted(p.name for p in study.iterdir() if p.is_file())
    assert "nothing to amend" in refused("S404", study, "demo", "second", "r").what
    edit(study, lambda p: p.update(title="Another"))
    refused("S404", study, "demo", "second", "  ")
    refused("P305", study, "demo", "demo", "r")
    refused("P304", study, "nothing", "second", "r")
    refused("S404", study, study.parent / "demo.lock.json", "second", "r")
    assert sorted(p.name for p in study.iterdir() if p.is_file()) == files
    amend_study(study, "demo", "second", "r")
    edit(study, lambda p: p.update(title="A third"))
    assert "amend second" in refused("S404", study, "demo", "third", "r").mend
    (study / "prompts.csv").write_text((study / "prompts.csv").read_text() + "z,more,c0,pilot\n")
    refused("P301", study, "second", "third", "r")


def test_a_broken_chain_is_found(study, first):
    edit(study, lambda p: p.update(title="Another"))
    lock = load_lock(amend_study(study, "demo", "second", "r"))
    content = json.loads((study / "second.lock.json").read_text())
    content["amends"]["pointers"] = []
    content["amends"]["hypotheses"]["H1"] = {"how": "added"}
    content["sha256"] = canonical_hash({k: v for k, v in content.items() if k != "sha256"})
    (study / "second.lock.json").write_text(json.dumps(content))
    with pytest.raises(DynstatError) as e:
        chain_of(study, load_lock(study / "second.lock.json"))
    assert e.value.code == "P310" and len(e.value.problems) == 2
    (study / "second.lock.json").write_text(json.dumps(lock.content))
    (study / "demo.lock.json").unlink()
    with pytest.raises(DynstatError) as e:
        chain_of(study, lock)
    assert e.value.code == "P310" and first.sha256[:12] in e.value.expected


def test_two_who_lock_one_name_at_once_leave_one_lock(study, inputs):
    codes = []

    def go():
        try:
            lock_study(study, "demo", inputs)
            codes.append("")
        except DynstatError as e:
            codes.append(e.code)

    load_plan(study)  # the study's methods are registered once
    threads = [threading.Thread(target=go) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(codes) == ["", *["P305"] * 5]
    assert len(read_ledger(study / "ledger.jsonl")) == 1 and verify_study(study)["ledger"] == 1


def test_the_hash_of_a_lock_is_that_of_the_plan_and_not_of_its_spelling(study, tmp_path, inputs):
    written = {
        "plan.yaml": "# a comment\n" + PLAN.replace("alpha: 0.05", "alpha: 5.0e-2"),
        "plan.toml": to_toml(parse_yaml(PLAN)),
        "plan.json": json.dumps(parse_yaml(PLAN), indent=1),
    }
    locks, sources = [], set()
    for name, text in written.items():
        folder = tmp_path / name.replace(".", "-") / "drift"
        folder.mkdir(parents=True)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / "analysis.py").write_text(ANALYSIS, encoding="utf-8")
        (folder / "prompts.csv").write_bytes((study / "prompts.csv").read_bytes())
        locks.append(load_lock(lock_study(folder, "demo", make_inputs(), time=T1)))
        entry = read_ledger(folder / "ledger.jsonl")[0]
        assert entry["lock_sha256"] == locks[-1].sha256
        sources.add(entry["plan_source_sha256"])
        assert verify_study(folder)["locks"][0]["plan_changed"] is False
    assert len({lock.sha256 for lock in locks}) == 1 and len(sources) == 3
