"""The whole report: its sections in order, its front matter, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from dynstat.escape import escape_markdown
from dynstat.files import read_text, write_atomic

from . import (
    appendix,
    cards,
    checklist,
    deviations,
    estimates,
    figures,
    identity,
    methods,
    multiverse,
    tables,
    verdict,
)
from .markup import bullets, slug, yaml_string
from .results import Results, load
from .words import GLOSSARY

_STYLE = Path(__file__).parent / "style" / "report.css"


def write(out: Path) -> Path:
    """Write figures, locked_plan.json and report.qmd into `out`; see :func:`dynstat.reports.build`."""
    results = load(out)
    return write_atomic(out / "report.qmd", compose(results, out, linked=appendix.write_plan(results, out)))


def compose(results: Results, out: Path, *, linked: bool = False) -> str:
    """Return the report's text; figures are drawn into ``out/figures`` on the way.

    Parameters
    ----------
    results : Results
    out : Path
    linked : bool
        Whether locked_plan.json lies beside the report.
    """
    labels: dict[str, str] = {}
    for h in results.hypotheses:
        labels[h] = slug(h, labels)
    curves = figures.curves(results, out)
    parts = [
        front_matter(results),
        verdict.banner(results),
        verdict.verdict(results),
        _section("Timeline", "timeline", verdict.timeline(results)),
        _section(
            "Registered claims",
            "claims",
            _wide(tables.decisions(results, labels)),
            figures.claims(results, out),
            _wide(tables.rejected(results, labels)),
            _wide(tables.inconclusive(results, labels)),
            _wide(tables.not_run(results, labels)),
        ),
        _section("Each claim", "cards", cards.cards(results, labels)),
        _section(
            "Deviations",
            "deviations",
            _wide(deviations.log(results)),
            _wide(deviations.amended(results)),
            deviations.failures(results),
        ),
        _section("Data flow", "dataflow", tables.dataflow(results)),
        _section(
            "Data and models",
            "identity",
            identity.data(results),
            _wide(identity.models(results)),
            figures.overviews(results, out),
        ),
        _section("Methods as executed", "methods", _wide(methods.methods(results))),
        _section("Definitions", "definitions", _wide(methods.definitions(results))),
        _section(
            "Estimates",
            "estimates",
            estimates.caution(results),
            figures.shares(results, out),
            _wide(estimates.shares(results)),
            _wide(estimates.others(results)),
        ),
        _section("Diagnostics", "diagnostics", _wide(methods.diagnostics(results))),
        _section("Multiverse", "multiverse", _wide(multiverse.section(results, curves)))
        if multiverse.has(results)
        else "",
        _section("Exploratory", "exploratory", estimates.exploratory(results)),
        _section("Reproduction", "reproduction", identity.environment(results)),
        _section("How to read this report", "reading", bullets([f"**{k}:** {v}" for k, v in GLOSSARY])),
        _section("Checklist", "checklist", checklist.checklist(results)),
        _section("Appendix: the plan", "plan", appendix.plan(results, linked)),
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
    if results.stamp == "registered_after_access" and verdict.registered_late(results):
        subtitle = "Report of a registered study, amended after its data were accessed"
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


def _section(title: str, label: str, *blocks: str) -> str:
    body = "\n\n".join(b for b in blocks if b)
    return f"## {title} {{#sec-{label}}}\n\n{body}"


def _wide(block: str) -> str:
    # It scrolls on a narrow screen, which a keyboard must be able to reach.
    return block and f':::: {{.column-page .ds-wide tabindex="0"}}\n\n{block}\n\n::::'
