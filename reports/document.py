"""The whole report: its sections in order, its front matter, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from dynstat.escape import escape_markdown
from dynstat.files import read_text, write_atomic

from . import cards, figures, identity, tables, verdict
from .markup import bullets, slug, table, yaml_string
from .results import Results, load
from .words import GLOSSARY

_STYLE = Path(__file__).parent / "style" / "report.css"


def write(out: Path) -> Path:
    """Write figures and report.qmd into `out` from its results.json; see :func:`dynstat.reports.build`."""
    results = load(out)
    return write_atomic(out / "report.qmd", compose(results, out))


def compose(results: Results, out: Path) -> str:
    """Return the report's text; figures are drawn into ``out/figures`` on the way."""
    labels: dict[str, str] = {}
    for h in results.hypotheses:
        labels[h] = slug(h, labels)
    parts = [
        front_matter(results),
        verdict.banner(results),
        verdict.verdict(results),
        _section("Timeline", "timeline", verdict.timeline(results)),
        _section(
            "Registered claims",
            "claims",
            _wide(tables.decisions(results, labels)),
            _wide(tables.rejected(results, labels)),
            _wide(tables.inconclusive(results, labels)),
            _wide(tables.not_run(results, labels)),
        ),
        _section(
            "Estimates",
            "estimates",
            identity.caution(results),
            figures.shares(results, out),
            _wide(identity.shares(results)),
            _wide(identity.others(results)),
        ),
        _section("Each claim", "cards", cards.cards(results, labels)),
        _section("Deviations", "deviations", _wide(tables.deviations(results))),
        _section("Data flow", "dataflow", tables.dataflow(results)),
        _section(
            "Data and models",
            "identity",
            identity.data(results),
            _wide(identity.models(results)),
            figures.overviews(results, out),
        ),
        _section("Definitions", "definitions", _wide(identity.definitions(results))),
        _section("Methods as executed", "methods", _wide(identity.methods(results))),
        _section("Exploratory", "exploratory", identity.exploratory(results)),
        _section("Reproduction", "reproduction", identity.environment(results)),
        _section("How to read this report", "reading", bullets([f"**{k}:** {v}" for k, v in GLOSSARY])),
        _section("Checklist", "checklist", checklist(results)),
        _section("Appendix: hashes", "hashes", identity.hashes(results)),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def front_matter(results: Results) -> str:
    """Return the YAML block at the top of the report."""
    subtitle = {
        "registered": "Report of a registered study",
        "registered_after_access": "Report of a study that was locked after its data were accessed",
        "exploratory": "Exploratory report: estimates without decisions",
    }[results.stamp]
    style = "\n".join(f"          {line}".rstrip() for line in read_text(_STYLE).strip().splitlines())
    given = str(results.raw("study.date"))
    date = f"date: {yaml_string(given)}\n" if given else ""
    # Titles are read as Markdown too, so they are escaped like any other text.
    return f"""---
title: {yaml_string(escape_markdown(str(results.raw("study.title"))))}
subtitle: {yaml_string(subtitle)}
{date}lang: en
engine: markdown
number-sections: true
format:
  html:
    toc: true
    embed-resources: true
    html-math-method: mathml
    theme: default
    include-in-header:
      - text: |
          <style>
{style}
          </style>
  typst:
    toc: true
---"""


def checklist(results: Results) -> str:
    """Return the short checklist: yes, no or not applicable, with where to look."""
    locked = bool(results.raw("lock.sha256"))
    seeds = any(e.number("seed") is not None for e in results.estimates)
    rows = [
        ["The plan was locked", _answer(locked), "@sec-timeline"],
        [
            "The lock was made before the data were accessed",
            "not applicable" if results.exploratory else _answer(results.stamp == "registered"),
            "@sec-timeline",
        ],
        [
            "The working tree was clean at the lock",
            _answer(results.raw("lock.dirty") is False) if locked else "not applicable",
            "@sec-reproduction",
        ],
        ["Every registered claim is reported, in the order of registration", "yes", "@tbl-decisions"],
        [
            "Rejected and inconclusive claims have tables of their own",
            "yes",
            "@tbl-rejected, @tbl-inconclusive",
        ],
        [
            "No deviation from the plan",
            _answer(not results.raw("derived.count.deviations")),
            "@tbl-deviations",
        ],
        [
            "The data are identified by their content",
            _answer(bool(results.raw("data.content_hash"))),
            "@sec-hashes",
        ],
        [
            "Every model has a revision and a hash of its weights",
            _answer(_identified(results)),
            "@sec-identity",
        ],
        ["Seeds of random parts are recorded", _answer(seeds), "@sec-methods"],
        ["Every definition names its origin", _answer(bool(results.under("definition"))), "@sec-definitions"],
    ]
    return table("tbl-checklist", "Checklist.", ["Item", "Answer", "Where"], rows, [56, 18, 26])


def _identified(results: Results) -> bool:
    return bool(results.models) and all(
        results.raw(f"model.{m}.revision") and results.raw(f"model.{m}.weights_sha256")
        for m in results.models
    )


def _answer(yes: bool) -> str:
    return "yes" if yes else "**no**"


def _section(title: str, label: str, *blocks: str) -> str:
    body = "\n\n".join(b for b in blocks if b)
    return f"## {title} {{#sec-{label}}}\n\n{body}"


def _wide(block: str) -> str:
    return block and f":::: {{.column-page .ds-wide}}\n\n{block}\n\n::::"
