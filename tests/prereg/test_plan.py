"""Plans: every problem at once and in its place, defaults written out, one hash for one meaning."""

from __future__ import annotations

import json
import re

import pytest

from dynstat.errors import DynstatError
from dynstat.prereg.check import check_study
from dynstat.prereg.plan import load_plan, parse_plan
from dynstat.prereg.show import describe_plan, shown_plan
from dynstat.prereg.study import find_study, register_methods
from dynstat.prereg.template import new_study
from dynstat.strictyaml import parse_yaml


def problems(study, old: str, new: str) -> list[str]:
    file = study / "plan.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(DynstatError) as e:
        load_plan(study)
    assert e.value.code == "P301"
    return list(e.value.problems)


def test_defaults_are_written_out(study):
    plan = load_plan(study).content
    assert plan["analyses"]["S1"]["options"] == {"shift": 0.0, "break_it": False, "kind": "plain"}
    assert plan["analyses"]["S1"]["outcome"] == {"metric": "entropy@1"}
    assert plan["families"]["main"] == {"alpha": 0.05, "correction": "bonferroni"}
    assert plan["gates"]["G1"]["hypotheses"] == ["H1", "H2", "H3"]
    assert plan["gates"]["G1"]["fails"] == "inadmissible"
    assert plan["data"]["missing"] == {"policy": "drop_prompt", "max_fraction": 0.05}
    assert [h["order"] for h in plan["hypotheses"].values()] == [1, 2, 3]
    assert plan["hypotheses"]["H2"]["join"] == "any" and len(plan["hypotheses"]["H2"]["parts"]) == 2
    assert plan["hypotheses"]["H2"]["parts"][1]["sesoi"]["value"] == 0.1


def test_a_plan_with_its_defaults_spelt_out_has_the_same_hash(study):
    first = load_plan(study)
    file = study / "plan.yaml"
    text = (
        file.read_text()
        .replace(
            "options: {shift: 0.0}\n    seed: 7\nhyp", "options: {kind: plain, shift: 0}\n    seed: 7\nhyp"
        )
        .replace("0.05}\ngates", "5e-2, correction: bonferroni}\ngates")
    )
    assert text != file.read_text()
    file.write_text("# a comment changes the file, not the plan\n" + text)
    second = load_plan(study)
    assert second.sha256 == first.sha256 and second.source_sha256 != first.source_sha256


def test_json_spelling_has_the_same_hash(study):
    plan = load_plan(study)
    value = parse_yaml((study / "plan.yaml").read_text())
    assert parse_plan(json.dumps(value)).sha256 == plan.sha256
    assert parse_plan(json.dumps(value, indent=1)).sha256 == plan.sha256


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("title:", "titel:", r"plan\.yaml:3:1: titel: unknown key, did you mean 'title'\?"),
        ("rule: threshold", "rule: treshold", r"hypotheses\.H1\.rule: .*did you mean 'threshold'"),
        ("threshold: 1.0", "treshold: 1.0", r"did you mean 'threshold'"),
        (
            "quantity: mean}\n    rule: threshold",
            "quantity: meen}\n    rule: threshold",
            r"did you mean 'mean'",
        ),
        ("analysis: S1", "analysis: S2", r"H1\.estimand\.analysis: no analysis 'S2', known: S1"),
        (
            "drift_test.mean@1",
            "drift_test.maen@1",
            r"analyses\.S1\.method: .*did you mean 'drift_test\.mean@1'",
        ),
        ("drift_test.mean@1", "drift_test.mean", r"name the version: drift_test\.mean@1"),
        ("entropy@1", "entrpy@1", r"analyses\.S1\.outcome\.metric: .*did you mean"),
        (
            "{metric: entropy@1}",
            "{metric: entropy@1, layer: last}",
            r"outcome\.layer: entropy@1 has no option",
        ),
        ("{shift: 0.0}", "{shfit: 0.0}", r"options\.shfit: .*did you mean 'shift'"),
        ("{shift: 0.0}", "{shift: big}", r"options\.shift: .*wrong type"),
        ("{shift: 0.0}", "{kind: mean}", r"options\.kind: .*does not accept"),
        ("alpha: 0.05", "alpha: 0.5", r"families\.main\.alpha: 0\.5 lies outside \(0, 0\.5\)"),
        ("alpha: 0.05", "alpha: .nan", r"a finite number is expected"),
        (
            "{alpha: 0.05}",
            "{alpha: 0.05}\n  other: {alpha: 0.05}",
            r"families\.other: no hypothesis belongs to this family",
        ),
        ("family: main", "family: mian", r"no family 'mian' is declared, did you mean 'main'"),
        ("range: [0.4, 0.6]", "range: [0.6, 0.4]", r"a range is \[low, high\]"),
        ("range: [0.4, 0.6]", "threshold: 1", r"needs 'range'"),
        ("direction: greater\n    threshold", "threshold", r"rule threshold needs 'direction'"),
        ("value: 1e-1", "value: 0", r"sesoi\.value: 0 lies outside"),
        ('value: 1e-1, scale: nat, reason: "a tenth"', 'scale: nat, reason: ""', r"must not be empty"),
        ('does_not_show: ["why", "other models"]', "does_not_show: []", r"at least 1 entry is needed"),
        ("if_rejected: Neither.", "", r"missing key 'if_rejected'"),
        ("check: min_units", "check: min_unit", r"did you mean 'min_units'"),
        ("hypotheses: [H3]", "hypotheses: [H9]", r"no hypothesis 'H9'"),
        ("n_generated < 2", "entropy < 2", r"on one of n_prompt"),
        ("level: metadata", "level: some", r"is not one of none, metadata"),
        ("split: pilot", "split: panel", r"the pilot must be other prompts"),
        ("seed: 7", "seed: -1", r"a whole number from 0"),
        ("resampling: prompt", "resampling: token", r"is not one of prompt, template, model"),
        ("id: drift", "id: Drift!", r"small letters"),
        ("  H1:\n", "  lock:\n", r"hypotheses\.lock: results\.json uses this word"),
    ],
)
def test_each_fault_is_named_with_its_place(study, old, new, expected):
    found = problems(study, old, new)
    assert any(re.search(expected, p) for p in found), found
    assert all(re.match(r"(\w+/)?plan\.yaml:\d+:\d+: ", p) for p in found)


def test_all_faults_are_told_in_one_pass(study):
    text = (study / "plan.yaml").read_text()
    (study / "plan.yaml").write_text(
        text.replace("title:", "titel:").replace("alpha: 0.05", "alpha: 2").replace("seed: 7", "seed: x")
    )
    with pytest.raises(DynstatError) as e:
        load_plan(study)
    assert len(e.value.problems) == 5  # the unknown key, the missing one, alpha, two seeds
    assert int(e.value.exit) == 2


def test_a_missing_section_is_one_problem_not_twenty(study):
    text = (study / "plan.yaml").read_text()
    start, end = text.index("data:\n"), text.index("families:")
    (study / "plan.yaml").write_text(text[:start] + text[end:])
    with pytest.raises(DynstatError) as e:
        load_plan(study)
    assert [p.split(": ", 1)[1] for p in e.value.problems] == ["plan: missing key 'data'"]


def test_token_policy_and_outcome_must_agree(study):
    text = (
        (study / "plan.yaml")
        .read_text()
        .replace("{metric: entropy@1}", "{metric: ratio_norm@1, special: keep}", 1)
    )
    (study / "plan.yaml").write_text(text)
    with pytest.raises(DynstatError) as e:
        load_plan(study)
    assert "outcome.special: 'keep', where data.token_policy says 'drop'" in e.value.problems[0]


def test_check_tells_the_family_and_finds_overlap(study):
    found = check_study(study)
    assert (found["m"], found["prompts"]["n"], found["pilot"]["n"]) == (3, 6, 2)
    assert found["level"] == pytest.approx(0.05 / 3)
    text = (study / "prompts.csv").read_text().replace("pilot prompt 1", "panel prompt 3")
    (study / "prompts.csv").write_text(text)
    with pytest.raises(DynstatError) as e:
        check_study(study)
    assert e.value.code == "P301" and "panel prompt 3" in e.value.problems[0]


def test_show_prints_rules_with_numbers(study):
    text = describe_plan(*shown_plan(study))
    for piece in (
        "threshold (greater)",
        "between 0.4 and 0.6",
        "beyond the null shuffled",
        "joined by any",
        "G2",
    ):
        assert piece in text


def test_the_template_passes_the_check_but_for_its_numbers(tmp_path):
    folder = new_study(tmp_path / "my-study")
    assert load_plan(folder).id == "my-study"
    with pytest.raises(DynstatError) as e:
        new_study(folder)
    assert e.value.code == "F002"


def test_analysis_may_point_beside_itself(tmp_path):
    from dynstat.registry import METHODS

    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "plan.yaml").write_text("")
    (folder / "analysis.py").write_text(
        "from dynstat.registry import METHODS, Method\n"
        "METHODS.add(Method(name='beside_test.f', version=1, path=f'{__package__}.functions:f', summary='',"
        " origin='dynstat', reference=''))\n"
    )
    (folder / "functions.py").write_text("def f():\n    return 5\n")
    register_methods(folder)
    assert METHODS.get("beside_test.f@1").resolve()() == 5
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "analysis.py").write_text("1 / 0\n")
    with pytest.raises(DynstatError) as e:
        register_methods(folder.parent / "broken")
    assert e.value.code == "P307"


@pytest.mark.parametrize(
    "line", ["import numpy as np", "from .functions import f", "def f():\n    import scipy", "f("]
)
def test_analysis_may_import_the_registry_only(tmp_path, line):
    (tmp_path / "analysis.py").write_text(f"from dynstat.registry import METHODS\n{line}\n")
    with pytest.raises(DynstatError) as e:
        register_methods(tmp_path)
    assert e.value.code == "P307"


def test_a_study_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DynstatError) as e:
        find_study("no_such_study")
    assert e.value.code == "F001"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DynstatError):
        find_study(tmp_path / "empty")


def test_the_hints_of_the_template_are_valid_once_they_are_no_comments(tmp_path):
    folder = new_study(tmp_path / "my-study")
    text = (folder / "plan.yaml").read_text()
    opened = re.sub(r"^( +)# (on_failure|expected): ", r"\1\2: ", text, flags=re.M)
    assert opened.count("\n    on_failure:") == opened.count("\n    expected:") == 1
    assert parse_plan(opened).content["hypotheses"]["H1"]["parts"][0]["expected"]["value"] == 0.2
