"""The tables that every report has: decisions, rejected, inconclusive, not run, deviations, data flow."""

from __future__ import annotations

from collections.abc import Mapping

from .markup import MISSING, ds, interval, span, table, text
from .results import STATES, Results
from .words import GLYPH, counted

REQUIRED_TABLES = (
    "tbl-decisions",
    "tbl-rejected",
    "tbl-inconclusive",
    "tbl-not-run",
    "tbl-deviations",
    "tbl-dataflow",
)
EXPLORATORY = "none: exploratory"


def decision(results: Results, h: str) -> str:
    """Return the decision with its glyph; a fixed phrase where the run is exploratory."""
    if results.exploratory:
        return EXPLORATORY
    glyph = GLYPH.get(results.decision(h), "")
    return f"{glyph} {ds(results, f'{h}.decision', missing='not run')}".strip()


def estimate(results: Results, h: str) -> str:
    """Return the estimate with its interval; nothing where a gate was not passed."""
    if results.decision(h) == "inadmissible":
        return MISSING
    keys = (results.get(f"{h}.{part}") for part in ("estimate", "low", "high"))
    return interval(*keys)


def units(results: Results, h: str) -> str:
    """Return n at every level, in the order of the results."""
    found = results.under(f"{h}.n")
    return ", ".join(f"{span(v)} {text(counted(v.key.rsplit('.', 1)[1]))}" for v in found) or MISSING


def link(results: Results, h: str, cards: Mapping[str, str]) -> str:
    """Return the id of a hypothesis, linked to its card."""
    return f"[{text(h)}](#sec-card-{cards[h]})"


def flags(results: Results, h: str) -> str:
    """Return the deviations and other flags of a hypothesis."""
    value = results.get(f"{h}.flags")
    return span(value) if value and value.formatted else "none"


def decisions(results: Results, cards: Mapping[str, str]) -> str:
    """Return the table of every registered hypothesis, in registration order."""
    rows = [
        [
            link(results, h, cards),
            ds(results, f"{h}.claim"),
            ds(results, f"{h}.role"),
            estimate(results, h),
            decision(results, h),
            MISSING if results.exploratory else ds(results, f"{h}.reason_code"),
            flags(results, h),
        ]
        for h in results.hypotheses
    ]
    levels = (
        "no decisions"
        if results.exploratory
        else "decisions are made at the adjusted level that each card names"
    )
    return table(
        "tbl-decisions",
        f"Every registered hypothesis, in the order of registration. Estimate with its "
        f"{_level(results)}interval, unadjusted; {levels}.",
        ["ID", "Claim as registered", "Role", "Estimate [interval]", "Decision", "Reason", "Flags"],
        rows or [_empty(7, "The plan registers no hypothesis.")],
        [5, 27, 12, 18, 14, 17, 7],
    )


def rejected(results: Results, cards: Mapping[str, str]) -> str:
    """Return the table of rejected claims; a sentence where there is none."""
    return _with_evidence(
        results,
        cards,
        "rejected",
        "Rejected claims. p is that of the test of rejection, compared with the level of each test.",
        ("What may still be said", "if_rejected"),
        "No registered claim was rejected.",
    )


def inconclusive(results: Results, cards: Mapping[str, str]) -> str:
    """Return the table of inconclusive claims, with what would resolve them."""
    return _with_evidence(
        results,
        cards,
        "inconclusive",
        "Inconclusive claims, and what would resolve them.",
        ("What would resolve it", "resolve"),
        "No registered claim is inconclusive.",
    )


def _with_evidence(
    results: Results,
    cards: Mapping[str, str],
    outcome: str,
    caption: str,
    last: tuple[str, str],
    none: str,
) -> str:
    """Return ``tbl-OUTCOME``; `last` is the header and the key of what follows the evidence."""
    rows = [
        [
            link(results, h, cards),
            ds(results, f"{h}.claim"),
            ds(results, f"{h}.reason_code"),
            _evidence(results, h, both=outcome == "inconclusive"),
            ds(results, f"{h}.{last[1]}"),
            flags(results, h),
        ]
        for h in _with(results, outcome)
    ]
    return table(
        f"tbl-{outcome}",
        caption,
        ["ID", "Claim as registered", "Reason", "Evidence", last[0], "Flags"],
        rows or [_empty(6, _none(results, none))],
        [5, 22, 17, 26, 23, 7],
    )


def not_run(results: Results, cards: Mapping[str, str]) -> str:
    """Return the table of claims that have a state in place of a decision."""
    rows = [
        [
            link(results, h, cards),
            ds(results, f"{h}.claim"),
            ds(results, f"{h}.decision", missing="not run"),
            ds(results, f"{h}.reason_code"),
            ds(results, f"{h}.resolve"),
        ]
        for h in _with(results, *STATES)
    ]
    failed = [span(v) for v in results.under("notrun") if v.key != "notrun.n"]
    why = f" Analyses that could not be run: {'; '.join(failed)}." if failed else ""
    return table(
        "tbl-not-run",
        f"Registered claims that are not testable on these data, inadmissible, or not run.{why}",
        ["ID", "Claim as registered", "State", "Reason", "What it would need"],
        rows or [_empty(5, _none(results, "Every registered claim was run and could be tested."))],
        [6, 32, 14, 18, 30],
    )


def deviations(results: Results) -> str:
    """Return the log of deviations; it says 0 where there are none."""
    ids = list(
        dict.fromkeys(v.key.split(".")[1] for v in results.under("deviation") if v.key != "deviation.n")
    )
    rows = [
        [
            text(i),
            *(
                ds(results, f"deviation.{i}.{k}")
                for k in ("field", "registered", "executed", "type", "reason")
            ),
        ]
        for i in ids
    ]
    return table(
        "tbl-deviations",
        "Deviations: differences between what was locked and what ran.",
        ["ID", "Field", "Registered", "Executed", "Type", "Reason"],
        rows or [_empty(6, "0 deviations were found.", first=ds(results, "derived.count.deviations"))],
        [6, 24, 18, 18, 12, 22],
    )


def dataflow(results: Results) -> str:
    """Return the flow of the data from what was found to what was analysed."""
    rows = [
        [
            text(v.groups.get("step", number)),
            text(v.groups.get("label", "")),
            text(v.groups.get("model", "all")),
            span(v),
        ]
        for number, v in enumerate(results.under("flow"), 1)
    ]
    return table(
        "tbl-dataflow",
        "Data flow: what was found, left out, missing and analysed.",
        ["Step", "What", "Model", "Count"],
        rows or [_empty(4, "The results record no data flow.")],
        [8, 50, 28, 14],
        align="lllr",
    )


def _with(results: Results, *wanted: str) -> list[str]:
    return [h for h in results.hypotheses if results.decision(h) in wanted]


def _none(results: Results, sentence: str) -> str:
    return "No decision is made in an exploratory run." if results.exploratory else sentence


def _empty(width: int, sentence: str, first: str = MISSING) -> list[str]:
    return [first, sentence, *[""] * (width - 2)]


def _level(results: Results) -> str:
    keys = {f"{100 * n:g} % " for h in results.hypotheses if (n := results.number(f"{h}.level")) is not None}
    return keys.pop() if len(keys) == 1 else ""


def _evidence(results: Results, h: str, both: bool = False) -> str:
    parts = [estimate(results, h)]
    if f"{h}.sesoi" in results and results.get(f"{h}.sesoi").formatted:  # type: ignore[union-attr]
        parts.append(f"SESOI {ds(results, f'{h}.sesoi')}")
    if both and f"{h}.p_support" in results:
        parts.append(f"p of support {ds(results, f'{h}.p_support')}")
    if f"{h}.p_reject" in results:
        parts.append(f"p of rejection {ds(results, f'{h}.p_reject')}")
    if f"{h}.alpha" in results:
        parts.append(f"each at {ds(results, f'{h}.alpha')}" if both else f"at {ds(results, f'{h}.alpha')}")
    parts.append(f"n: {units(results, h)}")
    return "; ".join(parts)
