"""Reports of results that the runner itself wrote: registered, and exploratory."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

import dynstat.reports
from dynstat.dataset.io import save
from dynstat.errors import DynstatError
from dynstat.prereg.lock import lock_study
from dynstat.prereg.runner import run_study

from ..prereg import conftest as toy
from .hostile import HOSTILE
from .pandoc import ast, cells, walk
from .test_build import _shape


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = types.ModuleType("drift_test_methods")
    module.mean = toy._mean  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "drift_test_methods", module)
    folder = tmp_path / "drift"
    folder.mkdir()
    (folder / "plan.yaml").write_text(toy.PLAN, encoding="utf-8")
    (folder / "analysis.py").write_text(toy.ANALYSIS, encoding="utf-8")
    (folder / "prompts.csv").write_text(toy.PROMPTS, encoding="utf-8")
    return folder


def _tables(report: Path) -> dict[str, list[list[str]]]:
    tree = ast(report.read_text(encoding="utf-8"))
    return {table["c"][0][0]: cells(table) for table in walk(tree["blocks"], "Table")}


def test_a_registered_run(study: Path, tmp_path: Path) -> None:
    inputs = toy.make_inputs()
    lock_study(study, "demo", inputs)
    out = tmp_path / "out"
    ran = run_study(study, save(toy.make_data(inputs), tmp_path / "panel.nc"), out)
    tables = _tables(dynstat.reports.build(out))
    assert dynstat.reports.check(out)
    shown = {row[0]: row[4].split(maxsplit=1)[-1].replace(" ", "_") for row in tables["tbl-decisions"][1:]}
    assert shown == {h: outcome for h, (outcome, _) in ran.outcomes.items()}
    assert len(tables["tbl-exploratory"]) == 3
    assert {"entropy@1", "drift_test.mean@1"} <= {row[0] for row in tables["tbl-definitions"]}
    assert len(tables["tbl-dataflow"]) > 2 and len(tables["tbl-timeline"]) > 2
    text = (out / "report.qmd").read_text(encoding="utf-8")
    assert "Estimate of part 2:" in text and "beyond the null shuffled" in text


def test_an_exploratory_run(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_study(study, save(toy.make_data(toy.make_inputs("pilot")), tmp_path / "pilot.nc"), out)
    tables = _tables(dynstat.reports.build(out))
    assert dynstat.reports.check(out)
    assert {row[4] for row in tables["tbl-decisions"][1:]} == {"none: exploratory"}
    assert sum(len(rows) - 1 for name, rows in tables.items() if name.startswith("tbl-estimates")) == 4


def test_hostile_prompts_leave_the_report_as_it_is(study: Path, tmp_path: Path) -> None:
    inputs = toy.make_inputs()
    lock = lock_study(study, "demo", inputs)
    ledger, head = ((study / f"ledger.{name}").read_bytes() for name in ("jsonl", "head"))
    reports = []
    for name in ("plain", "hostile"):
        ds = toy.make_data(inputs)
        if name == "hostile":
            words = {c: v for c, v in ds.coords.items() if v.dims == ("prompt",) and v.dtype.kind in "OUT"}
            texts = [t.encode("utf-8", "replace").decode().replace("\0", "") for t in HOSTILE]
            for coordinate in {"text", "category", "template", "prompt_text"} & set(words):
                ds = ds.assign_coords({coordinate: ("prompt", texts[: ds.sizes["prompt"]])})
            runs = ds["text"].dims if "text" in ds.data_vars else ()
            if runs:
                ds["text"].values[:] = "{{< include /etc/passwd >}}\n::: {.x}\n|"
        run_study(lock, save(ds, tmp_path / f"{name}.nc"), tmp_path / name)
        dynstat.reports.build(tmp_path / name)
        assert dynstat.reports.check(tmp_path / name)
        # Other data of the same inputs would be a deviation of their own.
        (study / "ledger.jsonl").write_bytes(ledger)
        (study / "ledger.head").write_bytes(head)
        reports.append((tmp_path / name / "report.qmd").read_text(encoding="utf-8"))
    assert "passwd" not in reports[1]
    assert _shape(ast(reports[0])["blocks"]) == _shape(ast(reports[1])["blocks"])


@pytest.mark.parametrize("what", ["results", "ledger", "lock", "other lock"])
def test_results_that_are_not_those_of_the_run_are_found(study: Path, tmp_path: Path, what: str) -> None:
    inputs, out = toy.make_inputs(), tmp_path / "out"
    lock = lock_study(study, "demo", inputs)
    run_study(lock, save(toy.make_data(inputs), tmp_path / "panel.nc"), out)
    dynstat.reports.build(out)
    if what == "results":
        file, old, new = out / "results.json", '"study.title"', '"study.title" '
    elif what == "ledger":
        file, old, new = out / "ledger.jsonl", '"drift"', '"draft"'
    elif what == "lock":
        file, old, new = out / "plan.lock.json", '"threshold": 1.0', '"threshold": 0.1'
    else:
        file, old, new = out / "plan.lock.json", "", lock_study(study, "b", inputs).read_text("utf-8")
    words = file.read_text(encoding="utf-8")
    file.write_text(words.replace(old, new, 1) if old else new, encoding="utf-8")
    with pytest.raises(DynstatError) as e:
        dynstat.reports.check(out)
    wanted = {"results": "edited afterwards", "ledger": "P306", "lock": "P302", "other lock": "not the lock"}
    assert e.value.code == "R501" and any(wanted[what] in p for p in e.value.problems)
