"""Results against the data: what was locked is run once more, and every value must come out again."""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import dynstat.reports
from dynstat.cli import app
from dynstat.dataset.io import save
from dynstat.errors import DynstatError
from dynstat.prereg.lock import lock_study
from dynstat.prereg.runner import run_study
from dynstat.reports.rerun import alike, differences
from dynstat.reports.results import load

from ..prereg import conftest as toy
from . import fixture


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study, its data and its results: the results lie in OUT, the data beside them."""
    module = types.ModuleType("drift_test_methods")
    module.mean = toy._mean  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("rerun")
    study = folder / "drift"
    study.mkdir()
    for name, text in (("plan.yaml", toy.PLAN), ("analysis.py", toy.ANALYSIS), ("prompts.csv", toy.PROMPTS)):
        (study / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "drift_test_methods", module)
        patch.chdir(folder)
        inputs = toy.make_inputs()
        lock = lock_study(study, "demo", inputs)
        out = folder / "out"
        out.mkdir()
        run_study(lock, save(toy.make_data(inputs), out / "panel.nc"), out)
        dynstat.reports.build(out)
        yield out


def _edited(whole: Path, folder: Path, change: dict[str, Any]) -> Path:
    out = Path(shutil.copytree(whole, folder / "out"))
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))
    for row in rows:
        if row["key"] in change:
            row["raw"] = change[row["key"]]
            row["formatted"] = str(row["raw"])
    (out / "results.json").write_text(json.dumps(rows), encoding="utf-8")
    return out


def test_results_come_out_of_the_data_again(whole: Path) -> None:
    lines = dynstat.reports.check(whole, data=whole / "panel.nc")
    assert "values recomputed from panel.nc" in lines[-1] and "0 differ" in lines[-1]
    assert dynstat.reports.check(whole, data=whole) == lines  # found by its name
    assert dynstat.reports.check(whole) == lines[:-1]
    run = CliRunner().invoke(app, ["report", "check", str(whole), "--data", str(whole / "panel.nc")])
    assert run.exit_code == 0 and "0 differ" in run.output
    run = CliRunner().invoke(app, ["report", "check", str(whole / "report.qmd")])
    assert run.exit_code == 0 and "was not recomputed" in run.output


def test_the_commands_of_the_page_run(whole: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    dynstat (report (?:build|check) .*?)(?: +#.*)?$", page, re.M)
    assert len(lines) == 3
    for line in lines:
        words = {"OUT": str(whole), "PATH": str(whole / "panel.nc")}
        run = CliRunner().invoke(app, [words.get(w, w) for w in line.split()])
        assert run.exit_code == 0, (line, run.output)


def test_a_changed_number_is_found_although_the_report_agrees_with_it(whole: Path, tmp_path: Path) -> None:
    out = _edited(whole, tmp_path, {"estimate.S1.mean.value": 9.0})
    (out / "report.qmd").unlink()
    (out / "ledger.jsonl").unlink()
    (out / "ledger.head").unlink(missing_ok=True)
    dynstat.reports.build(out)
    with pytest.raises(DynstatError) as e:
        dynstat.reports.check(out)
    assert [p for p in e.value.problems if "ledger.jsonl holds no run" in p] == list(e.value.problems)
    with pytest.raises(DynstatError) as e:
        dynstat.reports.check(out, data=out / "panel.nc")
    assert any(
        "recomputed: estimate.S1.mean.value is 9.0, from the data it is" in p for p in e.value.problems
    )


def test_a_changed_decision_is_the_worse_fault(whole: Path, tmp_path: Path) -> None:
    results = load(whole)
    h = results.hypotheses[0]
    other = "rejected" if results.decision(h) != "rejected" else "supported"
    out = _edited(whole, tmp_path, {f"{h}.decision": other})
    with pytest.raises(DynstatError) as e:
        dynstat.reports.check(out, data=out)
    first = [p for p in e.value.problems if "recomputed" in p][0]
    assert first.startswith("DECISION MISMATCH recomputed") and e.value.problems.index(first) < 4


def test_other_data_are_refused(whole: Path, tmp_path: Path) -> None:
    other = save(toy.make_data(toy.make_inputs("pilot")), tmp_path / "other.nc")
    with pytest.raises(DynstatError, match="P303"):
        dynstat.reports.check(whole, data=other)


def test_numbers_are_alike_within_the_tolerance_and_nothing_else_is(tmp_path: Path) -> None:
    old = load(fixture.save(tmp_path / "a", fixture.results()))
    rows = fixture.results()
    for row in rows:
        if row["key"] == "A1.estimate":
            row["raw"] *= 1 + 1e-4
    new = load(fixture.save(tmp_path / "b", [r for r in rows if r["key"] != "A2.low"]))
    problems, n = differences(old, new, 1e-6)
    assert n > 100 and len(problems) == 2
    assert "A1.estimate" in problems[0] and "no value now" in problems[1]
    assert len(differences(old, new, 1e-3)[0]) == 1
    assert not alike(True, 1, 0.1) and not alike(None, 0.0, 0.1) and alike(None, None, 0.0)
    with pytest.raises(DynstatError, match="S404"):
        differences(old, new, -1.0)
