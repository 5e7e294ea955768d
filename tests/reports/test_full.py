"""A report of everything that a deep study adds, and nothing of it where the results do not hold it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any
from xml.etree import ElementTree

import pytest

import dynstat.reports
from dynstat.errors import DynstatError
from dynstat.files import canonical_hash, sha256_file
from dynstat.plotting.claims import ClaimRow, claims_forest, describe_claims, position
from dynstat.reports.methods import keys
from dynstat.reports.results import EstimateRow, load

from . import fixture, full
from .hostile import HOSTILE
from .pandoc import ast, cells, plain, walk
from .test_build import _seen, _shape


def _tables(tree: dict[str, Any]) -> dict[str, list[list[str]]]:
    return {table["c"][0][0]: cells(table) for table in walk(tree["blocks"], "Table")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fixture.save(tmp_path_factory.mktemp("full"), full.results())
    dynstat.reports.build(folder)
    return folder


@pytest.fixture(scope="module")
def tree(out: Path) -> dict[str, Any]:
    return ast((out / "report.qmd").read_text(encoding="utf-8"))


def test_the_check_accepts_it_and_every_row_is_in_it(out: Path) -> None:
    assert dynstat.reports.check(out)
    text = (out / "report.qmd").read_text(encoding="utf-8")
    told = ("deviation.D", "amended.", "multiverse.", "contingency.", "failure.", "plan.words.", "executed.")
    keys = [row["key"] for row in full.results() if row["key"].startswith(told) and row["formatted"]]
    # Said in words, or drawn.
    silent = (".declared", ".role", ".by", ".multiverse", ".registered", ".quantity", ".level")
    silent += ("band.1.low", "band.1.high", "M1.choices")
    missing = [k for k in keys if f'key="{k}"' not in text and not k.endswith(silent)]
    assert [k for k in missing if not k.endswith(".state")] == []
    assert {k for k in missing if k.endswith(".state")} == {f"multiverse.A2.u{i}.state" for i in range(1, 11)}


def test_deviations_amendments_and_contingencies_have_their_tables(tree: dict[str, Any]) -> None:
    tables = _tables(tree)
    assert tables["tbl-deviations"][1:] == [
        ["D1", "/dynstat_version", "0.1.0", "0.1.1", "note", "auto", "none"],
        ["D2", "/analyses/shares/seed", "7", "8", "sensitivity", "declared", "A1, A2"],
    ]
    registered, amended = tables["tbl-amended"][1][1:3]
    assert "rejected" in registered and ".021" in registered and "inconclusive" in amended
    assert [row[3] for row in tables["tbl-amended"][1:]] == ["registered", "amended"]
    assert tables["tbl-executed"][1][:2] == ["shares", "variance.shares@1"]
    assert tables["tbl-contingencies"][1][:4] == ["C1", "shares", "singular", "drop_term"]
    assert tables["tbl-fits"][1][1:3] == ["yes", "no"] and "tbl-monte-carlo" in tables
    flags = [row[-1] for row in tables["tbl-decisions"][1:]]
    assert flags == ["D2", "D2", "none", "none", "none", "none"]
    assert "#tbl-deviations" in json.dumps(tree)


def test_the_share_of_universes_stands_beside_the_decision(tree: dict[str, Any]) -> None:
    tables = _tables(tree)
    assert tables["tbl-decisions"][2][5] == "✗ rejected; 5 of 10 universes agree"
    assert tables["tbl-rejected"][1][4] == "5 of 10 universes agree"
    assert tables["tbl-inconclusive"][1][4] == "no multiverse registered"
    assert tables["tbl-multiverse"][1] == ["A2", "12", "10", "1", "1", "5", ".500", "✗ rejected"]
    rows = tables["tbl-universes-a2"][1:]
    assert len(rows) == 12 and rows[-1][3] == "missing: no such variable"
    assert rows[-2][3] == "errored: no such variable"
    assert rows[0][1].endswith("tokens: 48 (registered)")
    assert [row[0] for row in tables["tbl-multiverse-variance-a2"][1:]] == list(full.DIMENSIONS)


def test_a_large_multiverse_lists_what_failed(tmp_path: Path) -> None:
    many = {"a": [str(i) for i in range(9)], "b": [str(i) for i in range(9)]}
    folder = fixture.save(tmp_path, full.results(dimensions=many))
    tables = _tables(ast(dynstat.reports.build(folder).read_text(encoding="utf-8")))
    assert [row[0] for row in tables["tbl-universes-a2"][1:]] == ["u80", "u81"]
    assert dynstat.reports.check(folder)


def test_what_would_resolve_a_claim_is_a_number(out: Path, tree: dict[str, Any]) -> None:
    results = load(out)
    z = NormalDist().inv_cdf
    factor = (z(1 - 0.05 / 3) / z(1 - 0.21)) ** 2
    assert results.raw("derived.A1.units_needed") == math.ceil(72 * factor)
    assert results.raw("derived.A1.se_factor") == round(factor**-0.5, 2)
    words = _tables(tree)["tbl-inconclusive"][1][5]
    assert f"about {math.ceil(72 * factor)} prompts in place of 72" in words


def test_adjusted_p_values_and_families_are_shown(tree: dict[str, Any]) -> None:
    tables = _tables(tree)
    assert tables["tbl-decisions"][0][3] == "Family"
    assert [row[3] for row in tables["tbl-decisions"][1:4]] == ["main", "main", "noise"]
    assert "p of rejection < .001 at .0167 (adjusted for the family: .001)" in tables["tbl-rejected"][1][3]


def test_what_is_not_in_the_results_leaves_no_trace(tmp_path: Path) -> None:
    folder = fixture.save(tmp_path, fixture.results())
    text = dynstat.reports.build(folder).read_text(encoding="utf-8")
    traces = ("Multiverse {#", "tbl-amended", "tbl-contingencies", "Robustness", "universes", "undeclared",
              "tbl-fits", "Registration:**", "locked_plan.json")  # fmt: skip
    assert [t for t in traces if t in text] == []


def test_an_undeclared_deviation_fails_the_check(tmp_path: Path) -> None:
    folder = fixture.save(tmp_path, full.results(declared=False))
    text = dynstat.reports.build(folder).read_text(encoding="utf-8")
    assert ast(text)["blocks"][0]["c"][0][1] == ["callout-warning"]
    assert "not declared" in text
    with pytest.raises(DynstatError) as e:
        dynstat.reports.check(folder)
    assert [p for p in e.value.problems if "D2" in p] == list(e.value.problems)
    assert "/analyses/shares/seed (sensitivity) is not declared" in e.value.problems[0]


def test_the_plan_lies_beside_the_report_under_its_own_hash(tmp_path: Path) -> None:
    plan = {"id": "x", "alpha": 0.05, "ü": [1e-5]}
    rows = full.results()
    for row in rows:
        if row["key"] == "plan.sha256":
            row["raw"] = row["formatted"] = canonical_hash(plan)
    folder = fixture.save(tmp_path, rows)
    (folder / "plan.lock.json").write_text(json.dumps({"plan": plan}, indent=2), encoding="utf-8")
    text = dynstat.reports.build(folder).read_text(encoding="utf-8")
    assert sha256_file(folder / "locked_plan.json") == canonical_hash(plan)
    assert "(locked_plan.json)" in text and canonical_hash(plan) in text
    (folder / "plan.lock.json").write_text(json.dumps({"plan": plan | {"alpha": 0.1}}), encoding="utf-8")
    with pytest.raises(DynstatError, match="R502"):
        dynstat.reports.build(folder)


@pytest.fixture(scope="module")
def clean_shape(tmp_path_factory: pytest.TempPathFactory) -> Any:
    words = dict.fromkeys(("reason", "severity", "validity", "why", "note", "plan"), "x")
    rows = full.results(words=words, dimensions={f"d{i}": ["a", "b", "c"] for i in range(2)})
    folder = fixture.save(tmp_path_factory.mktemp("clean"), rows)
    return _shape(ast(dynstat.reports.build(folder).read_text(encoding="utf-8"))["blocks"])


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 12))
def test_hostile_reasons_notes_plans_and_universes_stay_text(
    start: int, clean_shape: Any, tmp_path: Path
) -> None:
    texts = [t.encode("utf-8", "replace").decode() for t in (HOSTILE * 2)[start : start + 12]]
    words = dict(zip(("reason", "severity", "validity", "why", "note", "plan"), texts, strict=False))
    words = {k: v.strip() and v for k, v in words.items()}
    names = [" ".join("".join(c for c in t if c.isprintable() and c != ".").split()) for t in texts]
    options = {f"{n or 'd'}{i}": texts[6 + 3 * i : 9 + 3 * i] for i, n in enumerate(names[:2])}
    folder = fixture.save(tmp_path, full.results(words=words, dimensions=options))
    text = dynstat.reports.build(folder).read_text(encoding="utf-8")
    assert dynstat.reports.check(folder) and "{{<" not in text
    hostile = ast(text)
    assert _shape(hostile["blocks"]) == clean_shape
    for figure in (folder / "figures").iterdir():
        ElementTree.parse(figure)
    assert _seen(words["reason"].strip()) in _seen(_words(hostile)) or not texts[0].isprintable()


def _words(tree: dict[str, Any]) -> str:
    return "\n".join(plain(b["c"]) for kind in ("Plain", "Para") for b in walk(tree["blocks"], kind))


ROWS = [
    ClaimRow(
        "A1", "share.model", 0.05, 0.04, 0.08, "supported", "in_range", (0.036, 0.131), "variance share"
    ),
    ClaimRow("A2", "log", -0.1, -0.3, 0.2, "inconclusive", "directional", (0.0, 0.4), "log ratio"),
    ClaimRow("A3", "ari", None, None, None, "not_run", "threshold", (0.5, 0.5), "index"),
    ClaimRow("A3", "d", 0.7, 0.6, 0.8, "rejected", "equivalence", (-0.1, 0.1), "index"),
]


def test_the_forest_draws_every_part_and_its_words_say_where_each_lies() -> None:
    figure = claims_forest(ROWS, level=0.95)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        f"{scale}, with 95 % interval" for scale in ("variance share", "log ratio", "index")
    ]
    ticks = [t.get_text() for ax in figure.axes for t in ax.get_yticklabels()]
    assert ticks[0] == "A1: ✓ supported\nshare.model" and ticks[2].startswith("A3: – not run")
    words = describe_claims(ROWS, level=0.95)
    assert "A1, share.model: .050 [.040, .080], inside the claimed range .036 to .131; supported." in words
    assert "A2, log: −0.1 [−0.3, 0.2], outside what is too small to matter, 0 to 0.4; inconclusive." in words
    assert "A3, ari: no estimate; not run." in words
    assert position(ROWS[3]) == "outside the claimed range −0.1 to 0.1"


def test_many_keys_are_counted_by_what_they_begin_with() -> None:
    rows = [EstimateRow("X", f"state.S{i}", "", "", {}) for i in range(9)]
    assert keys(rows[:2]) == r"state\.S0, state\.S1"
    assert keys([*rows, EstimateRow("X", "gd", "", "", {})]) == "state.… (9), gd"
