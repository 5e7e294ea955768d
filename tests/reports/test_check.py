"""Every kind of fault in a report is found, named, and not confused with another."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pypandoc
import pytest
from typer.testing import CliRunner

import dynstat.reports
from dynstat.cli import app
from dynstat.errors import CODES, DynstatError
from dynstat.reports.quarto import render

from . import fixture


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fixture.save(tmp_path_factory.mktemp("whole"), fixture.results())
    dynstat.reports.build(folder)
    return folder


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def _edit(out: Path, change: Callable[[str], str]) -> None:
    file = out / "report.qmd"
    before = file.read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    file.write_text(after, encoding="utf-8")


def _problems(target: Path) -> list[str]:
    with pytest.raises(DynstatError) as e:
        dynstat.reports.check(target)
    assert e.value.code == "R501" and int(e.value.exit) == 1
    return list(e.value.problems)


def test_a_fresh_report_passes(out: Path) -> None:
    assert dynstat.reports.check(out) == dynstat.reports.check(out / "report.qmd")


FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "number": (
        lambda t: t.replace('[\\.123]{.ds key="A1.estimate"}', '[\\.124]{.ds key="A1.estimate"}', 1),
        "A1.estimate is '.123', the report says '.124'",
    ),
    "decision": (
        lambda t: t.replace('[rejected]{.ds key="A2.decision"}', '[supported]{.ds key="A2.decision"}', 1),
        "DECISION MISMATCH",
    ),
    "count": (
        lambda t: t.replace('[1]{.ds key="derived.count.rejected"}', '[0]{.ds key="derived.count.rejected"}'),
        "derived.count.rejected",
    ),
    "hash": (
        lambda t: t.replace("[5e5e5e5e5e5e]{.ds-short", "[5e5e5e5e5e5f]{.ds-short", 1),
        "data.content_hash",
    ),
    "claim": (lambda t: t.replace("explains 7", "explains 8"), "A1.claim"),
    "key": (
        lambda t: t.replace('key="A1.p_support"', 'key="A1.p_suport"'),
        "no value has the key 'A1.p_suport'",
    ),
    "reference": (
        lambda t: t.replace("@tbl-deviations", "@tbl-deviation"),
        "'tbl-deviation' resolves to no label",
    ),
    "link": (lambda t: t.replace("(#sec-card-a1)", "(#sec-card-x)"), "'sec-card-x' resolves to no label"),
    "label twice": (lambda t: t.replace("{#sec-reading}", "{#sec-methods}"), "'sec-methods' stands 2 times"),
    "table": (lambda t: t.replace("{#tbl-rejected ", "{#tbl-rejections "), "table 'tbl-rejected' is missing"),
    "figure": (
        lambda t: t.replace("figures/variance-shares.svg", "figures/x.svg"),
        "figures/x.svg does not exist",
    ),
    "alt": (lambda t: t.replace("fig-alt=", "fig-alto="), "no alt text"),
    "div": (lambda t: t.replace("\n\n:::\n", "\n\n", 1), "div not closed"),
    "div closed": (lambda t: t + "\n:::\n", "closed that was not opened"),
    "fence": (lambda t: t + "\n```\nx\n", "code fence is not closed"),
    "shortcode": (lambda t: t + "\n`{{< include /etc/passwd >}}`\n", "shortcode"),
    "row": (
        lambda t: t.replace("| runs analysed | all |", "| runs analysed | all | x |"),
        "5 cells, its header 4",
    ),
    "forbidden": (lambda t: t + "\nA1 shows a trend, marginally.\n", "forbidden word 'trend'"),
    "front matter key": (
        lambda t: t.replace("    toc: true", "    tocc: true", 1),
        "unknown key 'format.html.tocc'",
    ),
    "front matter type": (
        lambda t: t.replace("    toc: true", "    toc: maybe", 1),
        "format.html.toc must be bool",
    ),
    "front matter value": (lambda t: t.replace("theme: default", "theme: cosmo"), "theme must be 'default'"),
    "engine": (lambda t: t.replace("engine: markdown\n", ""), "engine is missing"),
    "yaml": (lambda t: t.replace("lang: en", "lang: en\nlang: de"), "stands twice"),
    "no front matter": (lambda t: t[4:], "front matter is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_named(fault: str, out: Path) -> None:
    change, said = FAULTS[fault]
    _edit(out, change)
    assert any(said in p for p in _problems(out)), _problems(out)


def test_all_faults_are_reported_at_once_and_decisions_first(out: Path) -> None:
    for name in ("number", "decision", "reference", "forbidden"):
        _edit(out, FAULTS[name][0])
    problems = _problems(out)
    assert "DECISION MISMATCH" in problems[0] and len(problems) >= 4


def test_words_quoted_from_the_plan_are_not_forbidden(tmp_path: Path) -> None:
    claims = fixture.CLAIM_WORDS | {"A1": "A marginal trend proves it."}
    folder = fixture.save(tmp_path, fixture.results(claims=claims))
    dynstat.reports.build(folder)
    assert dynstat.reports.check(folder)


@pytest.mark.parametrize(
    ("key", "raw", "expected"),
    [
        ("A2.p_reject", 0.02, "inconclusive"),
        ("A1.p_reject", 0.001, "rejected"),
        ("A1.p_support", 0.001, "supported"),
        ("A3.p_support", 0.02, "inconclusive"),
        ("A3.alpha", 0.001, "inconclusive"),
        ("A3.p_reject", None, "without p-values"),
    ],
)
def test_a_decision_that_does_not_follow_from_its_p_values_is_found(
    key: str, raw: float | None, expected: str, tmp_path: Path
) -> None:
    rows = fixture.results()
    for row in rows:
        if row["key"] == key:
            row["raw"] = raw
    folder = fixture.save(tmp_path, rows)
    dynstat.reports.build(folder)
    problem, *rest = _problems(folder)
    assert "DECISION MISMATCH" in problem and expected in problem
    assert all(f"{key} is" in r for r in rest)


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("A1.p_reject", {"formatted": ".211"}, "A1.p_reject is 0.21 and is written '.211'"),
        ("A2.p_reject", {"formatted": ".000"}, "is written '.000'"),
        ("A2.p_reject", {"raw": 0.002}, "is written '< .001'"),
        ("estimate.shares.share.model.low", {"formatted": ".04"}, None),
        ("estimate.shares.share.model.low", {"formatted": ".042"}, "is written '.042'"),
        ("A1.level", {"raw": None, "formatted": ""}, "A1 has an interval without its level"),
        ("A1.unit", {"raw": "", "formatted": ""}, "A1 has an interval without its unit"),
    ],
)
def test_a_number_written_as_another_is_found(
    key: str, change: dict[str, object], said: str | None, tmp_path: Path
) -> None:
    rows = fixture.results()
    for row in rows:
        if row["key"] == key:
            row.update(change)
    folder = fixture.save(tmp_path, rows)
    dynstat.reports.build(folder)
    if said is None:
        assert dynstat.reports.check(folder)
    else:
        assert any(said in p for p in _problems(folder))


def test_by_construction_holds_back_support(tmp_path: Path) -> None:
    rows = fixture.results()
    new = {"A3.decision": "inconclusive", "A3.reason_code": "by_construction"}
    for row in rows:
        if row["key"] in new:
            row["raw"] = row["formatted"] = new[row["key"]]
    folder = fixture.save(tmp_path, rows)
    dynstat.reports.build(folder)
    assert dynstat.reports.check(folder)


@pytest.fixture(scope="module")
def page(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("page") / "out"))
    options = ["-f", "markdown", "-s", "--embed-resources", "-o", "report.html"]
    program = pypandoc.get_pandoc_path()
    subprocess.run([program, *options, "report.qmd"], cwd=folder, check=True)
    assert dynstat.reports.check(folder)
    return folder / "report.html"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('data-key="A1.estimate">.123<', 'data-key="A1.estimate">.132<', "the report says '.132'"),
        ('data-key="A2.decision">rejected<', 'data-key="A2.decision">supported<', "DECISION MISMATCH"),
        ('id="tbl-rejected"', 'id="x"', "table 'tbl-rejected' is missing"),
        ("</body>", "<p>?@tbl-x</p></body>", "did not resolve"),
        ("</body>", '<script src="https://x.org/y.js"></script></body>', "remote resource"),
        ("</body>", '<img src="data:x"></body>', "no alt text"),
    ],
)
def test_faults_of_a_page_are_found(old: str, new: str, said: str, page: Path, out: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert old in text
    (out / "report.html").write_text(text.replace(old, new, 1), encoding="utf-8")
    assert any(said in p for p in _problems(out / "report.html"))


def _fake_quarto(folder: Path, log: str, code: int = 0, page: bool = True) -> Path:
    program = folder / "quarto"
    write = "echo '<html></html>' > report.html\n" if page else ""
    program.write_text(f"#!/bin/sh\ntest -f report.qmd || exit 9\n{write}echo '{log}' >&2\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_render_believes_the_log_and_not_the_exit_code(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "WARNING (main.lua:21045) Unable to resolve crossref @tbl-x"
    monkeypatch.setenv("QUARTO", str(_fake_quarto(tmp_path, f"\x1b[33m{log}\x1b[39m")))
    with pytest.raises(DynstatError, match="R501") as e:
        render(out)
    assert e.value.problems == ("Unable to resolve crossref @tbl-x",)
    for log in ("WARN: no such font", "[WARNING] Duplicate note reference"):
        _fake_quarto(tmp_path, log)
        with pytest.raises(DynstatError, match="R501"):
            render(out)
    for log in ("Output created: report.html", "WARNING The following string was found in the document: :::"):
        _fake_quarto(tmp_path, log)
        assert render(out) == out / "report.html"
    _fake_quarto(tmp_path, "ERROR: bad", code=1)
    with pytest.raises(DynstatError, match="exit code 1"):
        render(out)
    (out / "report.html").unlink()
    _fake_quarto(tmp_path, "fine", page=False)
    with pytest.raises(DynstatError, match="wrote no report.html"):
        render(out)


def test_render_without_quarto_or_report_is_a_clear_error(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("QUARTO", raising=False)
    with pytest.raises(DynstatError) as e:
        render(out)
    assert e.value.code == "R503" and int(e.value.exit) == int(CODES["R503"].exit) == 5
    with pytest.raises(DynstatError, match="S404"):
        render(out, "docx")
    with pytest.raises(DynstatError, match="F001"):
        render(tmp_path / "nowhere")


def test_the_command_line_builds_and_checks(out: Path) -> None:
    run = CliRunner().invoke(app, ["report", "build", str(out / "results.json")])
    assert run.exit_code == 0 and "report.qmd" in run.output
    assert CliRunner().invoke(app, ["report", "check", str(out)]).exit_code == 0
    _edit(out, FAULTS["decision"][0])
    run = CliRunner().invoke(app, ["report", "check", str(out)])
    assert isinstance(run.exception, DynstatError) and run.exception.code == "R501"


def test_a_read_only_folder_is_a_clear_error_and_nothing_is_left(out: Path) -> None:
    if os.geteuid() == 0:
        # Root may write everywhere, so a file in the folder's place stands for it.
        shutil.rmtree(out / "figures")
        (out / "figures").write_text("in the way")
    else:
        out.chmod(0o500)
        (out / "figures").chmod(0o500)
    before = (out / "report.qmd").read_bytes()
    with pytest.raises(DynstatError, match="F002"):
        dynstat.reports.build(out)
    out.chmod(0o700)
    assert (out / "report.qmd").read_bytes() == before
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


@pytest.mark.quarto
def test_real_quarto_renders_a_page_that_passes_the_check(out: Path) -> None:
    if not (shutil.which(os.environ.get("QUARTO", "quarto"))):
        pytest.skip("quarto is not installed")
    first = render(out).read_bytes()
    assert dynstat.reports.check(out / "report.html")
    assert render(out).read_bytes() == first
    rows = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert rows
