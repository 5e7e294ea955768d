"""Diagnosis: the expected SE is that of the pilot, scaled; it goes into the plan and nothing else does."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dynstat.errors import DynstatError
from dynstat.inference.estimate import DrawsPivot, Estimate, TPivot
from dynstat.prereg.check import check_study
from dynstat.prereg.diagnose import diagnose, in_words, standard_error
from dynstat.prereg.plan import load_plan
from dynstat.prereg.plan_edit import write_expected_se

VALUE = {"mean": 0.0123, "made": 'by hand: "so" # no comment'}


def estimate(pivot) -> Estimate:
    return Estimate.from_pivot("q", 1.0, pivot, method="m@1", interval="t", unit="prompt", n={})


def test_the_standard_error_of_a_pivot():
    for df in (3, 12, math.inf):
        assert standard_error(estimate(TPivot(1.0, 0.25, df))) == pytest.approx(0.25, rel=1e-9)
    draws = np.random.default_rng(1).normal(1, 0.25, 40_000)
    assert standard_error(estimate(DrawsPivot(tuple(draws)))) == pytest.approx(0.25, rel=0.02)
    # On the logit scale the delta method, up to the curvature.
    p, se = 0.3, 0.02
    logit = TPivot(math.log(p / (1 - p)), se / (p * (1 - p)), math.inf, scale="logit")
    assert standard_error(estimate(logit)) == pytest.approx(se, rel=0.01)
    assert standard_error(estimate(TPivot(1.0, 0.0, 3))) is None
    empty = Estimate("q", math.nan, math.nan, math.nan, 0.95, "m@1", "", "prompt", {})
    assert standard_error(empty) is None


@pytest.fixture
def pilot(study, saved, inputs):
    """Write a dataset of the pilot prompts, and prompts of which there are four times as many to decide."""
    rows = [f"p{i},panel prompt {i},c{i % 2},panel\n" for i in range(24)]
    rows += [f"q{i},pilot prompt {i},c{i % 2},pilot\n" for i in range(6)]
    (study / "prompts.csv").write_text("id,text,category,split\n" + "".join(rows))
    from dynstat.dataset.io import save

    path = saved(2.0, "pilot.nc")
    import dynstat

    ds = dynstat.open(path).load()
    ds = ds.assign_coords(prompt=[f"q{i}" for i in range(6)])
    return save(ds, path.with_name("pilot_prompts.nc"))


def test_diagnose_scales_the_pilot_and_writes_only_that(study, pilot, saved):
    before = (study / "plan.yaml").read_text()
    shown = diagnose(study, pilot, write=False)
    assert (study / "plan.yaml").read_text() == before and not shown["written"]
    found = diagnose(study, pilot)
    rows = {r["quantity"]: r for r in found["expected"]}
    import dynstat

    x = dynstat.open(pilot)["entropy"].mean(("model", "sample", "token", "layer")).values
    se = stats.sem(x)
    assert rows["mean"]["pilot_se"] == pytest.approx(se, rel=1e-4)
    assert rows["mean"]["se"] == pytest.approx(se * math.sqrt(6 / 24), rel=1e-4)
    after = load_plan(study).content
    assert after["analyses"]["S1"]["expected_se"]["mean"] == pytest.approx(rows["mean"]["se"], rel=1e-3)
    assert "6 over 24 prompts" in after["analyses"]["S1"]["expected_se"]["made"]
    text = (study / "plan.yaml").read_text()
    added = [line for line in text.splitlines() if line not in before.splitlines()]
    assert len(added) == 4 and all(line in text for line in before.splitlines())
    assert "expected 0.0" in "\n".join(in_words(found).splitlines()) or "expected SE" in in_words(found)
    rows = check_study(study)["resolution"]
    assert all(r["se_expected"] is not None for r in rows)
    again = diagnose(study, pilot)
    assert not again["written"] and (study / "plan.yaml").read_text() == text


def test_the_data_that_decide_are_refused(study, saved):
    with pytest.raises(DynstatError) as e:
        diagnose(study, saved(2.0))
    assert e.value.code == "P303" and "registered to decide" in e.value.what


def test_an_analysis_that_fails_on_the_pilot_is_told_and_not_written(study, pilot):
    text = (
        (study / "plan.yaml")
        .read_text()
        .replace("{shift: 0.0}\n    seed: 7\nhyp", "{break_it: true}\n    seed: 7\nhyp")
    )
    (study / "plan.yaml").write_text(text)
    found = diagnose(study, pilot)
    assert not found["written"] and (study / "plan.yaml").read_text() == text
    assert all("S402" in r["made"] for r in found["expected"]) and "failed on the pilot" in in_words(found)


LAYOUTS = {
    "block": (
        "  S1:\n"
        "    method: drift_test.mean@1\n"
        "    outcome: {metric: entropy@1}\n"
        "    options: {shift: 0.0}\n"
        "    seed: 7\n"
    ),
    "comments": (
        "  S1:  # the analysis\n"
        "    # why\n"
        "    method: drift_test.mean@1\n"
        "    outcome:\n"
        "      metric: entropy@1  # what\n"
        "    seed: 7   # lucky\n"
        "    # after\n"
        "\n"
    ),
    "last is a block": (
        "  S1:\n    method: drift_test.mean@1\n    seed: 7\n    outcome:\n      metric: entropy@1\n# done\n"
    ),
    "flow": ("  S1: {method: drift_test.mean@1, outcome: {metric: entropy@1}, seed: 7}  # short\n"),
    "flow lines": (
        "  S1: {\n"
        "    method: drift_test.mean@1,  # one\n"
        "    outcome: {metric: entropy@1},\n"
        "    seed: 7,  # two\n"
        "    }\n"
    ),
    "there already": (
        "  S1:\n"
        "    method: drift_test.mean@1\n"
        "    expected_se:  # old\n"
        "      mean: 1\n"
        "      made: >-\n"
        "        long ago\n"
        "    # kept\n"
        "    outcome: {metric: entropy@1}\n"
        "    seed: 7\n"
    ),
    "there in flow": (
        "  S1: {method: drift_test.mean@1, expected_se: {mean: 1, made: x}, "
        "outcome: {metric: entropy@1}, seed: 7}\n"
    ),
}


def with_layout(study, layout: str) -> str:
    text = (study / "plan.yaml").read_text()
    start, end = text.index("  S1:\n"), text.index("hypotheses:\n")
    text = text[:start] + LAYOUTS[layout] + text[end:]
    (study / "plan.yaml").write_text(text)
    return text


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_layout_keeps_its_comments(study, layout, line_end):
    text = with_layout(study, layout).replace("\n", line_end)
    (study / "plan.yaml").write_bytes(text.encode())
    before = load_plan(study).content
    assert write_expected_se(study / "plan.yaml", {"S1": VALUE})
    after = load_plan(study).content
    assert after["analyses"]["S1"].pop("expected_se") == VALUE
    before["analyses"]["S1"].pop("expected_se", None)
    assert after == before
    new = (study / "plan.yaml").read_bytes().decode()
    assert new.count("\r\n") == (new.count("\n") if line_end == "\r\n" else 0)
    for comment in (
        "# the analysis",
        "# why",
        "# what",
        "# lucky",
        "# after",
        "# done",
        "# short",
        "# one",
        "# two",
        "# kept",
    ):
        assert (comment in text) == (comment in new), comment
    assert not write_expected_se(study / "plan.yaml", {"S1": VALUE})


@settings(max_examples=25, deadline=None)
@given(rng=st.randoms(use_true_random=False), data=st.data())
def test_other_lines_never_change(rng, data, tmp_path_factory):
    """Any layout of the analyses: every line that was there is still there, in its order."""
    import yaml

    value = {"method": "variance.shares@1", "outcome": {"metric": "ratio_norm@1"}, "seed": 1}
    keys = list(value)
    rng.shuffle(keys)
    block = yaml.safe_dump(
        {"analyses": {"S1": {k: value[k] for k in keys}}},
        default_flow_style=rng.choice([None, False, False]),
        indent=rng.choice([2, 4]),
        sort_keys=False,
    )
    lines = []
    for line in block.splitlines():
        lines.append(line + data.draw(st.sampled_from(["", "  # note", "   "])))
        if rng.random() < 0.3:
            lines.append(data.draw(st.sampled_from(["", "    # between", "# at the margin"])))
    text = PLAN_REST + "\n".join(lines) + "\n"
    path = tmp_path_factory.mktemp("layout") / "plan.yaml"
    path.write_text(text)
    from dynstat.prereg.plan import parse_plan

    parse_plan(text)
    assert write_expected_se(path, {"S1": {"share.model": 0.01, "made": "by hand"}})
    kept = iter(path.read_text().splitlines())
    if "{method" not in text and "S1: {" not in text:
        assert all(any(line == other for other in kept) for line in text.splitlines())


PLAN_REST = """\
dynstat: "prereg/1"
id: shares
title: Shares
authors: [{name: A. Person}]
registration:
  purpose: confirmatory
  access: {level: metadata, note: known}
  prior_knowledge: none
data:
  schema: dynstat-data-1
  prompts: {file: prompts.csv, split: panel}
  pilot: {file: prompts.csv, split: pilot}
  units: {inference: prompt, resampling: prompt}
families: {main: {alpha: 0.05}}
hypotheses:
  H1:
    claim: A share.
    role: primary
    family: main
    estimand: {analysis: S1, quantity: share.model}
    rule: in_range
    range: [0.1, 0.3]
    sesoi: {scale: variance_share, reason: a reason}
    if_supported: One.
    if_rejected: Other.
    does_not_show: [why]
"""


def test_json_and_toml_are_written_too(study):
    from dynstat.strictyaml import load_yaml

    value = load_yaml(study / "plan.yaml")
    (study / "plan.yaml").unlink()
    (study / "plan.json").write_text(json.dumps(value))
    assert write_expected_se(study / "plan.json", {"S1": VALUE})
    assert load_plan(study).content["analyses"]["S1"]["expected_se"] == VALUE
    (study / "plan.json").unlink()
    import runpy
    from pathlib import Path

    to_toml = runpy.run_path(str(Path(__file__).with_name("test_plan_spellings.py")))["to_toml"]
    path = study / "plan.toml"
    path.write_text("# mine\n" + to_toml(value))
    for number in (0.01, 0.02):
        assert write_expected_se(path, {"S1": VALUE | {"mean": number}})
        assert load_plan(study).content["analyses"]["S1"]["expected_se"]["mean"] == number
    assert path.read_text().startswith("# mine\n") and path.read_text().count("expected_se") == 1
    # Analyses in one inline table cannot be gone on with at the end of the file.
    short = (
        "analyses = { S1 = { method = 'drift_test.mean@1', outcome = { metric = 'entropy@1' }, seed = 7 } }"
    )
    head, _, tail = to_toml({**value, "analyses": None}).partition("[registration]")
    path.write_text(f"{head}{short}\n[registration]{tail}")
    load_plan(study)
    before = path.read_text()
    with pytest.raises(DynstatError) as e:
        write_expected_se(path, {"S1": VALUE})
    assert e.value.code == "F002" and "0.0123" in str(e.value) and path.read_text() == before


def test_the_command(study, pilot, capsys):
    from dynstat.cli import main

    for extra, written in ((["--dry-run"], "stays as it was"), ([], "written into plan.yaml")):
        with pytest.raises(SystemExit) as e:
            main(["prereg", "diagnose", str(study), "--data", str(pilot), *extra])
        assert not e.value.code and written in capsys.readouterr().out
