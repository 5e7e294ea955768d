"""The tables of claims that every report has: all, rejected, inconclusive, not run; and the data flow."""

from __future__ import annotations

from collections.abc import Mapping

from . import multiverse
from .markup import MISSING, ds, interval, span, table, text
from .results import STATES, Results
from .words import GLYPH, counted, plural

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
    found, unit = results.under(f"{h}.n"), str(results.raw(f"{h}.unit") or "")
    return ", ".join(f"{span(v)} {text(counted(v.key.rsplit('.', 1)[1], unit))}" for v in found) or MISSING


def main_units(results: Results, h: str) -> str:
    """Return how many units the interval counts; n at every level where the results do not say which."""
    unit = str(results.raw(f"{h}.unit") or "")
    for key in ("units", unit, f"{unit}s"):
        if unit and " " not in unit and (value := results.get(f"{h}.n.{key}")) is not None:
            return f"{span(value)} {text(plural(unit))}"
    return units(results, h)


def link(results: Results, h: str, cards: Mapping[str, str]) -> str:
    """Return the id of a hypothesis, linked to its card."""
    return f"[{text(h)}](#sec-card-{cards[h]})"


def flags(results: Results, h: str) -> str:
    """Return the deviations and other flags of a hypothesis."""
    value = results.get(f"{h}.flags")
    return f"[{span(value)}](#tbl-deviations)" if value and value.formatted else "none"


def sesoi_words(results: Results, h: str, *, short: bool = True) -> str:
    """Return what the number of a rule is: a range, a threshold, or the smallest effect of interest."""
    bounds = results.records(f"{h}.bound").values()
    kinds = {str(fields["kind"].raw) for fields in bounds if "kind" in fields}
    words = {"in_range": "range claimed", "threshold": "threshold"}
    one = words.get(kinds.pop(), "") if len(kinds) == 1 else ""
    return one or ("SESOI" if short else "smallest effect of interest")


def p_value(results: Results, h: str, test: str) -> str:
    """Return the p of a test (``support``, ``reject``), the level it is compared with, and the adjusted p."""
    out = ds(results, f"{h}.p_{test}")
    if (level := test_level(results, h, test)) in results:
        out += f" at {ds(results, level)}"
    if results.raw(f"{h}.p_{test}_adjusted") is not None:
        out += f" (adjusted for the family: {ds(results, f'{h}.p_{test}_adjusted')})"
    return out


def test_level(results: Results, h: str, test: str) -> str:
    """Return the key of the level of a test; rejection has one of its own under a stepwise correction."""
    own = f"{h}.alpha_reject"
    return own if test == "reject" and results.raw(own) is not None else f"{h}.alpha"


def decisions(results: Results, cards: Mapping[str, str]) -> str:
    """Return the table of every registered hypothesis, in registration order."""
    many = len(results.families) > 1
    rows = []
    for h in results.hypotheses:
        family = [ds(results, f"{h}.family")] if many else []
        agree = multiverse.agreement(results, h)
        outcome = decision(results, h) + (f"; {agree}" if agree and not results.exploratory else "")
        rows.append(
            [
                link(results, h, cards),
                ds(results, f"{h}.claim"),
                ds(results, f"{h}.role"),
                *family,
                estimate(results, h),
                outcome,
                MISSING if results.exploratory else ds(results, f"{h}.reason_code"),
                flags(results, h),
            ]
        )
    levels = (
        "no decisions"
        if results.exploratory
        else "decisions are made at the adjusted level that each card names"
    )
    header = ["ID", "Claim as registered", "Role", "Estimate [interval]", "Decision", "Reason", "Flags"]
    widths = [5, 27, 12, 18, 14, 17, 7]
    if many:
        header.insert(3, "Family")
        widths.insert(3, 9)
    return table(
        "tbl-decisions",
        f"Every registered hypothesis, in the order of registration. Estimate with its "
        f"{_level(results)}interval, unadjusted; {levels}.",
        header,
        rows or [_empty(len(header), "The plan registers no hypothesis.")],
        widths,
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
    robust = multiverse.has(results) and not results.exploratory
    rows = [
        [
            link(results, h, cards),
            ds(results, f"{h}.claim"),
            ds(results, f"{h}.reason_code"),
            _evidence(results, h, both=outcome == "inconclusive"),
            *([multiverse.agreement(results, h) or "no multiverse registered"] if robust else []),
            said(results, h) if last[1] == "if_rejected" else needed(results, h),
            flags(results, h),
        ]
        for h in _with(results, outcome)
    ]
    header = ["ID", "Claim as registered", "Reason", "Evidence", last[0], "Flags"]
    widths = [5, 22, 17, 26, 23, 7]
    if robust:
        header.insert(4, "Robustness")
        widths.insert(4, 12)
    return table(
        f"tbl-{outcome}",
        caption,
        header,
        rows or [_empty(len(header), _none(results, none))],
        widths,
    )


def said(results: Results, h: str) -> str:
    """Return what may still be said of a rejected claim, with its limits."""
    limits = [span(v) for v in results.under(f"{h}.does_not_show")]
    shown = ds(results, f"{h}.if_rejected")
    return f"{shown} It does not show: {' / '.join(limits)}" if limits else shown


def needed(results: Results, h: str) -> str:
    """Return what would resolve an inconclusive claim: a number of units or a standard error where known."""
    out = ds(results, f"{h}.resolve")
    parts = []
    if f"derived.{h}.units_needed" in results:
        words = text(plural(str(results.raw(f"{h}.unit") or "unit")))
        need, now = ds(results, f"derived.{h}.units_needed"), ds(results, f"{h}.n.units")
        parts.append(f"about {need} {words} in place of {now}")
    if f"derived.{h}.se_factor" in results:
        parts.append(f"a standard error {ds(results, f'derived.{h}.se_factor')} times the present one")
    return f"{out}; that is {', or '.join(parts)}" if parts else out


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
        parts.append(f"{sesoi_words(results, h)} {ds(results, f'{h}.sesoi')}")
    if both and f"{h}.p_support" in results:
        parts.append(f"p of support {p_value(results, h, 'support')}")
    if f"{h}.p_reject" in results:
        parts.append(f"p of rejection {p_value(results, h, 'reject')}")
    parts.append(f"n: {main_units(results, h)}")
    return "; ".join(parts)
