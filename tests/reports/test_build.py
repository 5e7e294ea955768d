"""The report, read by Pandoc: what stands in it, in which order, and that nothing from outside acts in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pypandoc
import pytest

import dynstat.reports
from dynstat.errors import DynstatError
from dynstat.escape import escape_markdown, visible
from dynstat.reports.results import load
from dynstat.reports.tables import REQUIRED_TABLES
from dynstat.reports.words import FORBIDDEN

from . import fixture
from .hostile import HOSTILE
from .pandoc import ast, cells, plain, walk


def _tables(tree: dict[str, Any]) -> dict[str, list[list[str]]]:
    return {table["c"][0][0]: cells(table) for table in walk(tree["blocks"], "Table")}


def _headings(tree: dict[str, Any]) -> list[tuple[int, str, str]]:
    return [(h["c"][0], h["c"][1][0], plain(h["c"][2])) for h in walk(tree["blocks"], "Header")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fixture.save(tmp_path_factory.mktemp("registered"), fixture.results())
    dynstat.reports.build(folder)
    return folder


@pytest.fixture(scope="module")
def tree(out: Path) -> dict[str, Any]:
    return ast((out / "report.qmd").read_text(encoding="utf-8"))


def test_the_sections_stand_in_the_order_an_auditor_reads(tree: dict[str, Any]) -> None:
    top = [name for level, name, _ in _headings(tree) if level == 2]
    assert top == [
        "verdict",
        "sec-timeline",
        "sec-claims",
        "sec-cards",
        "sec-deviations",
        "sec-dataflow",
        "sec-identity",
        "on-this-panel",
        "sec-methods",
        "sec-definitions",
        "sec-estimates",
        "sec-diagnostics",
        "all-diagnostics",
        "sec-exploratory",
        "no-decisions-here",
        "sec-reproduction",
        "sec-reading",
        "sec-checklist",
        "sec-plan",
        "sec-hashes",
    ]
    assert [t for level, _, t in _headings(tree) if level == 3] == list(fixture.OUTCOMES)


def test_every_table_is_a_table_to_pandoc_and_every_cell_is_traced(tree: dict[str, Any]) -> None:
    tables = _tables(tree)
    assert set(REQUIRED_TABLES) <= set(tables) and "" not in tables
    assert len(tables) == 18
    assert len(walk(tree["blocks"], "Figure")) == len(walk(tree["blocks"], "Image")) == 2
    header, *rows = tables["tbl-decisions"]
    assert header == [
        "ID",
        "Claim as registered",
        "Role",
        "Estimate [interval]",
        "Decision",
        "Reason",
        "Flags",
    ]
    assert [row[0] for row in rows] == list(fixture.OUTCOMES)
    assert [row[1] for row in rows] == list(fixture.CLAIM_WORDS.values())
    assert [row[4] for row in rows] == [
        "○ inconclusive",
        "✗ rejected",
        "✓ supported",
        "not testable",
        "inadmissible",
        "not run",
    ]
    assert rows[0][3] == ".123\u00a0[.041,\u00a0.304]"
    assert [r[0] for r in tables["tbl-rejected"][1:]] == ["A2"]
    assert "p of rejection < .001" in tables["tbl-rejected"][1][3]
    assert "72 prompts" in tables["tbl-rejected"][1][3]
    assert [r[0] for r in tables["tbl-inconclusive"][1:]] == ["A1"]
    assert [r[0] for r in tables["tbl-not-run"][1:]] == ["A4", "A5", "A6"]
    assert tables["tbl-deviations"][1][:2] == ["0", "0 deviations were found."]
    assert tables["tbl-dataflow"][3] == ["3", "runs analysed", "all", "864"]
    shares = {row[0]: row for row in tables["tbl-shares"][1:]}
    assert shares["category:prompt"][1:] == [
        ".181\u00a0[.112,\u00a0.272]",
        ".190\u00a0[.101,\u00a0.301]",
        ".181",
        ".181",
        ".021",
    ]
    assert shares["model:category"][2] == "—"
    assert [row[0] for row in tables["tbl-models"][1:]] == list(fixture.MODELS)
    origins = {row[0]: row[2] for row in tables["tbl-definitions"][1:]}
    assert origins == {"ratio_norm@1": "dynstat", "entropy@1": "published"}
    assert [row[:2] for row in tables["tbl-exploratory"][1:]] == [["late_ct", "0.4\u00a0[0.1,\u00a00.7]"]]
    hashes = [row[1] for row in tables["tbl-hashes"][1:]]
    assert "5e" * 32 in hashes and "7a" * 32 in hashes


def test_no_inadmissible_claim_shows_statistics(out: Path) -> None:
    rows = fixture.results()
    for row in rows:
        if row["key"].startswith("A1."):
            row["raw"] = {"A1.decision": "inadmissible"}.get(row["key"], row["raw"])
            row["formatted"] = {"A1.decision": "inadmissible"}.get(row["key"], row["formatted"])
    folder = fixture.save(out.parent / "inadmissible", rows)
    tables = _tables(ast(dynstat.reports.build(folder).read_text(encoding="utf-8")))
    assert tables["tbl-decisions"][1][3] == "—"
    assert "A1" in [r[0] for r in tables["tbl-not-run"]]
    report = (folder / "report.qmd").read_text(encoding="utf-8")
    assert "not passed for A1, A5. What is shown here describes the data" in report


def test_every_value_in_the_report_carries_its_key(tree: dict[str, Any], out: Path) -> None:
    results = load(out)
    spans = [s for s in walk(tree["blocks"], "Span") if {"ds", "ds-short"} & set(s["c"][0][1])]
    assert len(spans) > 300
    for s in spans:
        value = results.get(dict(s["c"][0][2])["key"])
        assert value is not None
        shown = plain(s["c"][1]).replace("\u00a0", " ")
        assert shown == value.formatted if "ds" in s["c"][0][1] else value.formatted.startswith(shown)
    used = {dict(s["c"][0][2])["key"] for s in spans}
    for h in fixture.RANGES:
        wanted = {
            f"{h}.{k}"
            for k in (
                "claim",
                "rule",
                "estimate",
                "low",
                "high",
                "p_support",
                "p_reject",
                "alpha",
                "m",
                "interval",
                "unit",
                "target",
                "does_not_show.1",
                "criterion.1",
                "criterion.2",
            )
        }
        assert wanted <= used


def test_the_figure_comes_from_the_results_and_says_so_in_words(tree: dict[str, Any], out: Path) -> None:
    _, figure = walk(tree["blocks"], "Figure")
    assert figure["c"][0][0] == "fig-variance-shares"
    (image,) = walk(figure, "Image")
    assert image["c"][2][0] == "figures/variance-shares.svg"
    alt = dict(figure["c"][0][2] + image["c"][0][2])["fig-alt"]
    for term, (panel, _, _) in fixture.SHARES.items():
        assert f"{term}: this panel {panel[0]:.2f}".replace("0.", ".") in alt
    assert "claimed range .036 to .131, A1 inconclusive" in alt
    svg = (out / "figures" / "variance-shares.svg").read_text(encoding="utf-8")
    assert "A2: rejected" in svg and "<desc" in svg


def test_the_same_results_give_the_same_bytes(out: Path, tmp_path: Path) -> None:
    other = fixture.save(tmp_path / "elsewhere", fixture.results())
    code = f"import dynstat.reports; dynstat.reports.build({str(other)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in ("report.qmd", "figures/variance-shares.svg", "figures/claims.svg"):
        assert (other / name).read_bytes() == (out / name).read_bytes()
    assert sorted(p.name for p in other.iterdir()) == ["figures", "report.qmd", "results.json"]


def test_empty_tables_are_printed_with_a_sentence(tmp_path: Path) -> None:
    folder = fixture.save(tmp_path, fixture.results(keep=("A3",)))
    tables = _tables(ast(dynstat.reports.build(folder).read_text(encoding="utf-8")))
    for label, sentence in {
        "tbl-rejected": "No registered claim was rejected.",
        "tbl-inconclusive": "No registered claim is inconclusive.",
        "tbl-not-run": "Every registered claim was run and could be tested.",
        "tbl-deviations": "0 deviations were found.",
    }.items():
        assert len(tables[label]) == 2 and tables[label][1][1] == sentence
    assert dynstat.reports.check(folder)


def test_an_exploratory_run_has_a_banner_and_no_decision(tmp_path: Path) -> None:
    folder = fixture.save(tmp_path, fixture.results("exploratory"))
    text = dynstat.reports.build(folder).read_text(encoding="utf-8")
    tree = ast(text)
    first = tree["blocks"][0]
    assert first["t"] == "Div" and "callout-warning" in first["c"][0][1]
    tables = _tables(tree)
    assert {row[4] for row in tables["tbl-decisions"][1:]} == {"none: exploratory"}
    for label in ("tbl-rejected", "tbl-inconclusive", "tbl-not-run"):
        assert tables[label][1][1] == "No decision is made in an exploratory run."
    body = "\n".join(plain(b["c"]) for b in walk(tree["blocks"], "Plain"))
    assert (
        "✓" not in body
        and "✗" not in body
        and "Permitted wording"
        not in "".join(plain(b["c"]) for b in walk(tree["blocks"], "Para") if "supported" in plain(b["c"]))
    )
    assert "decision" not in {k.rsplit(".", 1)[-1] for k in re.findall(r'key="([^"]+)"', text)}
    svg = (folder / "figures" / "variance-shares.svg").read_text(encoding="utf-8")
    assert "rejected" not in svg and "supported" not in svg
    assert dynstat.reports.check(folder)


def test_a_plan_locked_after_access_says_so(tmp_path: Path) -> None:
    folder = fixture.save(tmp_path, fixture.results("registered_after_access"))
    tree = ast(dynstat.reports.build(folder).read_text(encoding="utf-8"))
    assert "callout-warning" in tree["blocks"][0]["c"][0][1]
    answers = {row[0]: row[1] for row in _tables(tree)["tbl-checklist"]}
    assert answers["The lock was made before the data were accessed"] == "no"


def test_claims_that_a_lock_held_before_the_access_are_told_from_later_ones(tmp_path: Path) -> None:
    rows = fixture.results("registered_after_access")
    claims = [r["key"].partition(".")[0] for r in rows if r["key"].endswith(".claim")]
    for h in claims:
        given = {"raw": "outcomes" if h == claims[-1] else "structure"}
        model = next(r for r in rows if r["key"] == f"{h}.claim")
        rows.append(model | given | {"key": f"{h}.registration.access", "formatted": given["raw"]})
    folder = fixture.save(tmp_path, rows)
    text = dynstat.reports.build(folder).read_text(encoding="utf-8")
    first = plain(ast(text)["blocks"][0]["c"][1][1]["c"])
    assert f"Registered only then: {claims[-1]}." in first and f"access: {', '.join(claims[:-1])}." in first
    assert "amended after its data were accessed" in text.partition("format:")[0]


def test_what_is_said_of_many_deviations_is_said_once(tmp_path: Path) -> None:
    rows = fixture.results(deviations=3)
    for i in (1, 2, 3):
        model = next(r for r in rows if r["key"] == f"deviation.D{i}.field")
        reason = "other" if i == 2 else "one reason"
        for key, value in {"reason": reason, "detected": "auto", "type": "note"}.items():
            rows = [r for r in rows if r["key"] != f"deviation.D{i}.{key}"]
            rows.append(model | {"key": f"deviation.D{i}.{key}", "raw": value, "formatted": value})
    text = dynstat.reports.build(fixture.save(tmp_path, rows)).read_text(encoding="utf-8")
    assert text.count("one reason") == 1 and "and the same for [D3](#dev-d3):" in text
    assert text.count("**Reason:**") == 2


def test_deviations_are_listed(tmp_path: Path) -> None:
    folder = fixture.save(tmp_path, fixture.results(deviations=2))
    tables = _tables(ast(dynstat.reports.build(folder).read_text(encoding="utf-8")))
    assert [row[0] for row in tables["tbl-deviations"][1:]] == ["D1", "D2"]
    assert tables["tbl-deviations"][1][1:4] == ["/analyses/shares/seed", "7", "8"]


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 12))
def test_hostile_claims_titles_and_models_change_nothing_but_their_own_words(
    start: int, tree: dict[str, Any], tmp_path: Path
) -> None:
    texts = [t.encode("utf-8", "replace").decode() for t in (HOSTILE * 2)[start : start + 12]]
    claims = dict(zip(fixture.OUTCOMES, texts[:6], strict=True))
    names = [" ".join("".join(c for c in t if c.isprintable()).split()) or "m" for t in texts[6:]]
    models = dict(zip([f"{n}#{i}" for i, n in enumerate(names)], fixture.MODELS.values(), strict=True))
    folder = fixture.save(tmp_path, fixture.results(claims=claims, models=models, title=texts[0]))
    text = dynstat.reports.build(folder).read_text(encoding="utf-8")
    assert dynstat.reports.check(folder)
    hostile = ast(text)
    assert _shape(hostile["blocks"]) == _shape(tree["blocks"])
    rows = _tables(hostile)["tbl-decisions"][1:]
    assert [_seen(row[1]) for row in rows] == [_seen(visible(t)) for t in texts[:6]]
    assert [_seen(row[0]) for row in _tables(hostile)["tbl-models"][1:]] == [
        _seen(visible(m)) for m in models
    ]
    assert _seen(plain(hostile["meta"]["title"]["c"])).strip() == _seen(visible(texts[0])).strip()


def test_no_file_is_read_and_nothing_of_it_comes_into_the_page(tmp_path: Path) -> None:
    named = [t for t in HOSTILE if "secret" in t]
    assert len(named) > 12 and len(set(HOSTILE)) > 100
    for start in range(0, len(named), 6):
        folder = tmp_path / str(start)
        texts = (named * 2)[start : start + 6]
        claims = dict(zip(fixture.OUTCOMES, texts, strict=True))
        fixture.save(folder, fixture.results(claims=claims, title=texts[0]))
        dynstat.reports.build(folder)
        for name in ("secret.txt", "secret.tex", "secret"):
            (folder / name).write_text("S3SAM")
        options = ["-f", "markdown", "-s", "--embed-resources", "--citeproc", "-o", "report.html"]
        run = subprocess.run(
            [pypandoc.get_pandoc_path(), *options, "report.qmd"], cwd=folder, capture_output=True, check=True
        )
        assert "S3SAM" not in (folder / "report.html").read_text(encoding="utf-8")
        assert "secret" not in run.stderr.decode()


def _seen(words: str) -> str:
    return words.replace("\u00a0", " ").replace("\u2068", "").replace("\u2069", "")


def _shape(node: Any) -> Any:
    """Return the tree without its words: types, labels and nesting of blocks."""
    if isinstance(node, dict):
        kind = node.get("t")
        if kind in {"Str", "Space", "SoftBreak"}:
            return None
        if kind == "Header":
            return ["Header", node["c"][0], node["c"][1][0]]
        if kind in {"Plain", "Para"}:
            return [kind, [s for x in node["c"] if (s := _shape(x))]]
        if kind in {"Span", "Link"}:
            return [kind, node["c"][0][1], [s for x in node["c"][1] if (s := _shape(x))]]
        if kind in {"Image", "Figure"}:
            return [kind, node["c"][0][0]]
        return [kind, _shape(node.get("c"))]
    return [_shape(x) for x in node] if isinstance(node, list) else None


def test_dynstats_own_words_are_never_forbidden(out: Path) -> None:
    root = Path(dynstat.reports.__file__).parent
    for file in root.glob("*.py"):
        if file.name != "words.py":
            assert not FORBIDDEN.search(file.read_text(encoding="utf-8")), file.name
    words = ("proved", "proves", "trend", "trending", "marginally", "failed to reach", "Marginal")
    assert all(FORBIDDEN.search(w) for w in words)
    assert not any(FORBIDDEN.search(w) for w in ("improved", "provided", "provenance", "margin", "trendy"))


def test_a_failing_build_leaves_the_old_report(out: Path, tmp_path: Path) -> None:
    folder = fixture.save(tmp_path, fixture.results())
    report = dynstat.reports.build(folder)
    before = report.read_bytes()
    (folder / "results.json").write_text("[{]")
    with pytest.raises(DynstatError, match="R502"):
        dynstat.reports.build(folder)
    assert report.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.append(dict(r[0])), "stands 2 times"),
        (lambda r: r.pop(0), "study.id"),
        (lambda r: r[0].pop("groups"), "expected"),
        (lambda r: r[0].update(extra=1), "extra"),
        (lambda r: r[0].update(formatted=3), "formatted must be text"),
        (lambda r: r[0].update(raw=[1]), "raw must be"),
        (lambda r: r[0].update(key="a\nb"), "not printable"),
        (lambda r: r[2].update(raw="sure"), "study.stamp"),
        (lambda r: r[3].update(raw="today"), "study.date"),
        (lambda r: r[2].update(raw="exploratory"), "exploratory run"),
        (lambda r: [x.update(raw="maybe") for x in r if x["key"] == "A1.decision"], "maybe"),
        (lambda r: r.remove(next(x for x in r if x["key"] == "deviation.n")), "deviation.n"),
        (lambda r: r.clear(), "not a list"),
    ],
)
def test_results_that_are_not_whole_are_refused(change: Any, said: str, tmp_path: Path) -> None:
    rows = fixture.results()
    change(rows)
    with pytest.raises(DynstatError) as e:
        dynstat.reports.build(fixture.save(tmp_path, rows))
    assert e.value.code == "R502" and said in str(e.value)


def test_nan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps([{"raw": float("nan")}]))
    with pytest.raises(DynstatError, match="R502.*NaN"):
        dynstat.reports.build(tmp_path)
    with pytest.raises(DynstatError, match="F001"):
        dynstat.reports.build(tmp_path / "nowhere")


def test_pandoc_writes_a_page_that_the_check_accepts(out: Path, tmp_path: Path) -> None:
    page = out / "report.html"
    program = pypandoc.get_pandoc_path()
    options = ["-f", "markdown", "-s", "--embed-resources", "-o", str(page)]
    subprocess.run([program, *options, "report.qmd"], cwd=out, check=True)
    lines = dynstat.reports.check(page)
    page.unlink()
    assert int(lines[0].split()[1]) > 300


def test_overview_figures_are_drawn_where_the_results_hold_their_values(tmp_path: Path) -> None:
    r = fixture.Rows()
    r.rows = fixture.results()
    for m, model in enumerate(fixture.MODELS):
        for i in range(8):
            r.put(f"overview.ratio_norm.{model}.{i}", 1.5 + m + i / 9, groups={"model": model})
            r.put(
                f"overview.entropy.{model}.{i}",
                None if i == 0 else 7 - i * m / 9,
                groups={"model": model, "depth": i / 7},
            )
    folder = fixture.save(tmp_path, r.rows)
    tree = ast(dynstat.reports.build(folder).read_text(encoding="utf-8"))
    figures = walk(tree["blocks"], "Figure")
    names = ["fig-claims", "fig-ratio-norm", "fig-entropy-profile", "fig-variance-shares"]
    assert [f["c"][0][0] for f in figures] == names
    assert (
        "phi-curated-s0: median"
        in dict(figures[1]["c"][0][2] + walk(figures[1], "Image")[0]["c"][0][2])["fig-alt"]
    )
    assert dynstat.reports.check(folder)
    assert "median" in (folder / "figures" / "ratio-norm.svg").read_text(encoding="utf-8")


def test_the_docs_name_every_required_table() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    assert all(f"`{label}`" in docs for label in REQUIRED_TABLES)


def test_exploratory_shares_of_a_registered_run_stay_apart(tmp_path: Path) -> None:
    rows = fixture.results()
    for row in [r for r in rows if r["key"].startswith("estimate.shares.share.")]:
        key = row["key"].replace("estimate.shares.", "estimate.X1.")
        rows.append(row | {"key": key, "analysis": "X1", "purpose": "exploratory", "reason": "exploratory"})
    folder = fixture.save(tmp_path, rows)
    tree = ast(dynstat.reports.build(folder).read_text(encoding="utf-8"))
    assert len(walk(tree["blocks"], "Figure")) == 2 and "tbl-shares-2" not in _tables(tree)
    assert [r[0] for r in _tables(tree)["tbl-exploratory"][1:]] == ["late_ct"]
    assert [r[0] for r in _tables(tree)["tbl-exploratory-2"][1:]] == [f"share.{t}" for t in fixture.SHARES]


def test_warnings_of_the_methods_are_printed(tmp_path: Path) -> None:
    rows = fixture.results()
    rest = {k: v for k, v in rows[0].items() if k not in ("key", "raw", "formatted")}
    words = "shares: singular fit: (1|category) at the boundary"
    rows.append({"key": "warning.1", "raw": words, "formatted": words, **rest})
    report = dynstat.reports.build(fixture.save(tmp_path / "a", rows)).read_text("utf-8")
    methods = report[report.index("{#sec-diagnostics}") : report.index("{#sec-exploratory}")]
    assert f'[{escape_markdown(words)}]{{.ds key="warning.1"}}' in methods
    assert "No method gave a warning." not in methods
    assert dynstat.reports.check(tmp_path / "a")
    silent = dynstat.reports.build(fixture.save(tmp_path / "b", fixture.results())).read_text("utf-8")
    assert "No method gave a warning." in silent


def test_counts_say_what_they_count(tmp_path: Path) -> None:
    rows = fixture.results()
    for row in rows:
        for old, new in (("models", "units"), ("prompts", "model:prompt")):
            if row["key"] == f"A1.n.{old}":
                row["key"] = f"A1.n.{new}"
    report = dynstat.reports.build(fixture.save(tmp_path, rows)).read_text("utf-8")
    assert '[6]{.ds key="A1.n.units"} prompts drawn or left out, ' in report
    assert '[72]{.ds key="A1.n.model:prompt"} model × prompt cells' in report
