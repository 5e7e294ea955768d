"""How it was measured: definitions with their origin, methods as executed, diagnostics of the estimates."""

from __future__ import annotations

from collections import Counter

from .markup import MISSING, NBSP, bullets, callout, ds, field, span, table, text
from .results import EstimateRow, Results
from .words import counted

_MOST_KEYS = 8
_MC_ERROR = ("monte_carlo_se", "mc_se", "p_se", "mc_error")


def definitions(results: Results) -> str:
    """Return the table of every definition with its origin."""
    ids = list(
        dict.fromkeys(
            v.key.removeprefix("definition.").rpartition(".")[0] for v in results.under("definition")
        )
    )
    if not ids:
        return "The results record no definitions."
    rows = [
        [
            text(i),
            *(
                ds(results, f"definition.{i}.{k}")
                for k in ("long_name", "origin", "formula", "options", "reference")
            ),
        ]
        for i in ids
    ]
    return table(
        "tbl-definitions",
        "Every definition used, with its origin: published, or chosen by dynstat.",
        ["Definition", "Name", "Origin", "Formula", "Options", "Source"],
        rows,
        [13, 15, 9, 23, 13, 27],
    )


def methods(results: Results) -> str:
    """Return the methods as executed, one row for each interval procedure."""
    seen: dict[tuple[str, ...], list[EstimateRow]] = {}
    for e in results.estimates:
        value = e.fields.get("value")
        marks = tuple(e.words(k) for k in ("level", "interval", "unit", "target", "seed"))
        seen.setdefault((e.analysis, value.method if value else "", *marks), []).append(e)
    if not seen:
        return "The results hold no estimates."
    rows = []
    for (analysis, method, *_), group in seen.items():
        first = group[0]
        counts = ", ".join(
            f"{span(first.fields[k])} {text(counted(k[2:], first.words('unit')))}"
            for k in ("n.units", "n.groups")
            if k in first.fields
        )
        rows.append(
            [
                text(analysis),
                text(method),
                keys(group),
                field(first, "interval"),
                field(first, "unit"),
                counts or MISSING,
                field(first, "seed"),
            ]
        )
    made = table(
        "tbl-methods",
        "How each interval was made, from how many units, with which seed.",
        ["Analysis", "Method", "Estimates", "Interval", "Unit", "Drawn", "Seed"],
        rows,
        [9, 16, 26, 19, 8, 13, 9],
    )
    return "\n\n".join([*_executed(results), made, *_counts(results)])


def _executed(results: Results) -> list[str]:
    """Return the table of what each analysis ran: method, outcome, options and seed."""
    keys_ = ("method", "outcome", "options", "seed")
    rows = [
        [text(analysis), *(span(fields.get(k)) for k in keys_)]
        for analysis, fields in results.records("executed").items()
    ]
    caption = "Analyses as executed; where they differ from the plan, a deviation says so."
    header = ["Analysis", "Method", "Outcome", "Options", "Seed"]
    return [table("tbl-executed", caption, header, rows, [10, 20, 30, 30, 10])] if rows else []


def keys(group: list[EstimateRow]) -> str:
    """Return the keys of estimates; where they are many, what they begin with and how many begin so."""
    if len(group) <= _MOST_KEYS:
        return ", ".join(text(e.key) for e in group)
    heads = Counter(e.key.partition(".")[0] for e in group)
    return ", ".join(f"{text(head)}.… ({n})" if n > 1 else text(head) for head, n in heads.items())


def _counts(results: Results) -> list[str]:
    """Return the table of n at every level, a row for each different set of counts of an analysis."""
    seen: dict[tuple[str, ...], list[EstimateRow]] = {}
    for e in results.estimates:
        if levels := _levels(e):
            seen.setdefault((e.analysis, *(f"{k} {e.words(k)}" for k in levels)), []).append(e)
    rows = []
    for (analysis, *_), group in seen.items():
        first = group[0]
        words = [f"{span(first.fields[k])} {text(counted(k[2:]))}" for k in _levels(first)]
        rows.append([text(analysis), keys(group), ", ".join(words)])
    caption = "How many of what each analysis saw, at every level."
    return [table("tbl-counts", caption, ["Analysis", "Estimates", "n"], rows, [10, 45, 45])] if rows else []


def _levels(e: EstimateRow) -> list[str]:
    return [k for k in e.fields if k.startswith("n.") and k not in ("n.units", "n.groups")]


def diagnostics(results: Results) -> str:
    """Return what says how far to believe the numbers: warnings, fits, contingencies, Monte-Carlo error."""
    blocks = [warnings(results), fits(results), contingencies(results), monte_carlo(results)]
    found = [
        [
            text(e.analysis),
            text(e.key),
            ", ".join(f"{text(k.partition('.')[2])}{NBSP}{span(v)}" for k, v in given),
        ]
        for e in results.estimates
        if (given := [(k, v) for k, v in e.fields.items() if k.startswith(("diagnostics.", "null."))])
    ]
    if found:
        whole = table(
            "tbl-diagnostics",
            "Diagnostics of the estimates, all of them.",
            ["Analysis", "Estimate", "Diagnostics"],
            found,
            [16, 24, 60],
        )
        blocks.append(callout("note", "All diagnostics", whole, closed=True))
    return "\n\n".join(b for b in blocks if b)


def warnings(results: Results) -> str:
    """Return what the methods warned of (a singular fit, few levels): a callout, or a sentence."""
    given = [span(v) for v in results.under("warning")]
    if not given:
        return "No method gave a warning."
    return callout("note", "Warnings of the methods", bullets(given))


def fits(results: Results) -> str:
    """Return, for every analysis that says so, whether its fits converged and ended at the boundary."""
    rows = []
    for analysis in dict.fromkeys(e.analysis for e in results.estimates):
        of = [e for e in results.estimates if e.analysis == analysis]
        cells = [_said(of, key) for key in ("converged", "singular", "notes")]
        if any(cells):
            rows.append([text(analysis), *(cell or MISSING for cell in cells)])
    if not rows:
        return ""
    return table(
        "tbl-fits",
        "Fits: whether they converged, and whether a component ended at zero (the boundary).",
        ["Analysis", "Converged", "At the boundary", "What was noted"],
        rows,
        [14, 14, 18, 54],
    )


def _said(of: list[EstimateRow], key: str) -> str:
    """Return the different values of a diagnostic among the estimates of an analysis, each once."""
    values = [e.fields[f"diagnostics.{key}"] for e in of if f"diagnostics.{key}" in e.fields]
    return ", ".join(span(v) for v in {v.formatted: v for v in values if v.formatted}.values())


def contingencies(results: Results) -> str:
    """Return the planned contingencies that were used; they are part of the plan, hence no deviations."""
    found = results.records("contingency")
    if not found:
        return ""
    names = ("analysis", "when", "do")
    rows = []
    for i, fields in found.items():
        more = [f"{text(k)}: {span(v)}" for k, v in fields.items() if k not in names and v.formatted]
        rows.append([text(i), *(span(fields.get(k)) for k in names), "; ".join(more) or MISSING])
    return table(
        "tbl-contingencies",
        "Contingencies that were planned and used.",
        ["ID", "Analysis", "When", "What was done", "Details"],
        rows,
        [8, 14, 18, 20, 40],
    )


def monte_carlo(results: Results) -> str:
    """Return the Monte-Carlo error of what was simulated or resampled, where a method gives it."""
    rows = []
    for e in results.estimates:
        errors = [(k, v) for k, v in e.fields.items() if k.rpartition(".")[2] in _MC_ERROR and v.formatted]
        if errors:
            draws = [(k, v) for k, v in e.fields.items() if k.endswith("replicates") and v.formatted]
            rows.append(
                [
                    text(e.analysis),
                    text(e.key),
                    ", ".join(f"{text(k)}{NBSP}{span(v)}" for k, v in errors),
                    ", ".join(f"{text(k)}{NBSP}{span(v)}" for k, v in draws) or MISSING,
                ]
            )
    if not rows:
        return ""
    return table(
        "tbl-monte-carlo",
        "Monte-Carlo error: how far a number may move with another seed.",
        ["Analysis", "Estimate", "Standard error", "Draws"],
        rows,
        [14, 26, 30, 30],
    )
