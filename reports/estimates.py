"""The estimates: shares of variance, everything else by analysis, and what is exploratory, apart."""

from __future__ import annotations

from .figures import by_key, chance, share_analyses
from .markup import MISSING, NBSP, callout, field, interval, span, table, text
from .results import EstimateRow, Results
from .words import counted, plural

_SHARES = ("share.", "population.share.", "eta2.", "omega2.", "chance.")


def caution(results: Results) -> str:
    """Return a sentence where the estimates below belong to claims that a gate has stopped, or nothing."""
    stopped = [text(h) for h in results.hypotheses if results.decision(h) == "inadmissible"]
    if not stopped:
        return ""
    return (
        f"A registered gate was not passed for {', '.join(stopped)}. What is shown here describes "
        "the data; it is no evidence for or against these claims."
    )


def shares(results: Results) -> str:
    """Return a table of all shares: panel, population, eta², omega², chance level; one an analysis."""
    blocks = []
    for number, analysis in enumerate(share_analyses(results)):
        estimates = by_key(results, analysis)
        rows = []
        for key, panel in estimates.items():
            if not key.startswith("share."):
                continue
            term = key[len("share.") :]
            at = chance(estimates, term)
            rows.append(
                [
                    text(term),
                    _interval(panel),
                    _interval(estimates.get(f"population.{key}")),
                    _value(estimates.get(f"eta2.{term}")),
                    _value(estimates.get(f"omega2.{term}")),
                    span(at[0].fields[at[1]]) if at else MISSING,
                ]
            )
        level = next((n for e in estimates.values() if (n := e.number("level")) is not None), None)
        words = f"{100 * level:g}{NBSP}% intervals" if level is not None else "intervals"
        label = "tbl-shares" if number == 0 else f"tbl-shares-{number + 1}"
        blocks.append(
            table(
                label,
                f"Shares of variance of analysis {text(analysis)}, with unadjusted {words}; beside them eta² "
                "and omega² of the fixed-effects analysis of variance, and the chance level of the share.",
                ["Term", "This panel", "Population of models", "eta²", "omega²", "Chance level"],
                rows,
                [22, 23, 23, 10, 11, 11],
            )
        )
    return "\n\n".join(blocks)


def others(results: Results) -> str:
    """Return the estimates that are no variance share and not exploratory, a table an analysis."""
    drawn = set(share_analyses(results))
    by_analysis: dict[str, list[EstimateRow]] = {}
    for e in results.estimates:
        if e.analysis in drawn and e.key.startswith(_SHARES):
            continue
        if e.purpose != "exploratory" or results.exploratory:
            by_analysis.setdefault(e.analysis, []).append(e)
    blocks = []
    for number, (analysis, rows) in enumerate(by_analysis.items()):
        label = "tbl-estimates" if number == 0 else f"tbl-estimates-{number + 1}"
        blocks.append(_table(label, f"Estimates of analysis {text(analysis)}", rows))
    return "\n\n".join(blocks)


def exploratory(results: Results) -> str:
    """Return the exploratory estimates of a registered run: no decisions, no p-values."""
    by_analysis: dict[str, list[EstimateRow]] = {}
    for e in results.estimates:
        if e.purpose == "exploratory":
            by_analysis.setdefault(e.analysis, []).append(e)
    body = "No estimate outside the plan was made."
    if results.exploratory:
        body = "The whole run is exploratory: every estimate above is one, and none has a decision."
    elif by_analysis:
        tables = [
            _table(
                "tbl-exploratory" if number == 0 else f"tbl-exploratory-{number + 1}",
                f"Exploratory estimates of analysis {text(analysis)}",
                rows,
            )
            for number, (analysis, rows) in enumerate(by_analysis.items())
        ]
        body = (
            "Estimates outside the registered hypotheses. They have no decision and stand in no family.\n\n"
            + "\n\n".join(tables)
        )
    return callout("note", "No decisions here", body)


def _table(label: str, caption: str, rows: list[EstimateRow]) -> str:
    """Return a table of estimates of one analysis; what is the same in all rows stands in the caption."""
    same: list[str] = []
    header, columns, widths = ["Estimate", "Value [interval]"], [], [34, 26]
    for key, name, words in (
        ("level", "Level", "level of the intervals: "),
        ("unit", "Unit", "unit of resampling: "),
        ("target", "Speaks about", "speaks about: "),
    ):
        shown = [field(e, key) for e in rows]
        plain = {e.words(key) for e in rows}
        if len(plain) == 1:
            if plain != {""}:
                same.append(words + shown[0])
        else:
            header.append(name)
            columns.append(shown)
            widths.append(13)
    header.append("n")
    columns.append([_units(e) for e in rows])
    widths.append(14)
    lines = [
        [text(e.key), _interval(e), *cells] for e, cells in zip(rows, zip(*columns, strict=True), strict=True)
    ]
    return table(label, "; ".join([f"{caption}, unadjusted", *same]) + ".", header, lines, widths)


def _units(e: EstimateRow) -> str:
    """Return how many units the interval counts, or the first count that the estimate names."""
    unit = e.words("unit")
    for key in ("units", unit, f"{unit}s"):
        if unit and " " not in unit and f"n.{key}" in e.fields:
            return f"{span(e.fields[f'n.{key}'])} {text(plural(unit))}"
    first = next((k for k in e.fields if k.startswith("n.")), "")
    return f"{span(e.fields[first])} {text(counted(first[2:], unit))}" if first else MISSING


def _interval(row: EstimateRow | None) -> str:
    return interval(*(row.fields.get(k) for k in ("value", "low", "high"))) if row else MISSING


def _value(row: EstimateRow | None) -> str:
    return span(row.fields.get("value")) if row else MISSING
