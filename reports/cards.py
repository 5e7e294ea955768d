"""One card a registered hypothesis: wording, rule, evidence, and what may be said."""

from __future__ import annotations

from collections.abc import Mapping

from . import multiverse
from .markup import NBSP, bullets, ds, interval, span, text
from .results import Results
from .tables import decision, flags, needed, p_value, sesoi_words, units

UNDECIDED = {
    "inconclusive": "The data do not decide this claim: they exclude neither it nor its contrary.",
    "not_testable": "These data cannot decide this claim.",
    "inadmissible": "A registered gate was not passed; nothing is said about this claim.",
    "not_run": "This claim was registered and has no result.",
    "": "This run is exploratory; nothing is said about this claim.",
}


# Inconclusive although the rule's own criteria may be met.
HELD_BACK = {
    "by_construction": "A definition or a theorem gives this number, so it says nothing about the claim.",
    "downgraded": "A deviation from the plan forbids support; the data leave the claim open.",
    "not_reached": "The registered order of tests stopped before this claim; its support was not tested.",
    "not_beyond_null": "The number is not beyond what its null gives; the data leave the claim open.",
}


def cards(results: Results, labels: Mapping[str, str]) -> str:
    """Return the cards of all hypotheses, in registration order."""
    if not results.hypotheses:
        return "The plan registers no hypothesis."
    return "\n\n".join(_card(results, h, labels[h]) for h in results.hypotheses)


def _card(results: Results, h: str, label: str) -> str:
    items = [f"**Decision:** {decision(results, h)}"]
    if not results.exploratory:
        items[0] += f" ({ds(results, f'{h}.reason_code')})"
    items += [_rule(results, h)]
    if results.decision(h) == "inadmissible":
        items.append("**Estimate:** withheld, since a registered gate was not passed")
    else:
        items += _evidence(results, h)
    items.append(f"**n:** {units(results, h)}")
    items += _beside(results, h)
    items.append(f"**Flags:** {flags(results, h)}")
    parts = [
        f"### {text(h)} {{#sec-card-{label}}}",
        f"> {ds(results, f'{h}.claim')}",
        bullets(items),
        _criteria(results, h),
        _wording(results, h),
    ]
    return "\n\n".join(p for p in parts if p)


def _rule(results: Results, h: str) -> str:
    out = f"**Rule as registered:** {ds(results, f'{h}.rule')}"
    value = results.get(f"{h}.sesoi")
    if value and value.formatted:
        out += f"; {sesoi_words(results, h, short=False)} {span(value)}"
    if (reason := results.get(f"{h}.sesoi_reason")) and reason.formatted:
        out += f" (reason: {span(reason)})"
    role = f"{ds(results, f'{h}.role')}, family {ds(results, f'{h}.family')}"
    return f"{out}; {role}"


def _evidence(results: Results, h: str) -> list[str]:
    items = _part(results, h, "")
    others = {
        f"{h}.part.{v.key.removeprefix(f'{h}.part.').split('.')[0]}" for v in results.under(f"{h}.part")
    }
    for start in sorted(others, key=lambda key: (len(key), key)):
        items += _part(results, start, f" of part {start.rsplit('.', 1)[1]}")
    if not results.exploratory and f"{h}.p_support" in results:
        p = [f"of support {p_value(results, h, 'support')}", f"of rejection {p_value(results, h, 'reject')}"]
        line = f"**p:** {', '.join(p)}"
        if f"{h}.m" in results:
            line += f"; family {ds(results, f'{h}.family')} with {ds(results, f'{h}.m')} registered"
        items.append(line)
    return items


def _part(results: Results, start: str, which: str) -> list[str]:
    shown = interval(*(results.get(f"{start}.{k}") for k in ("estimate", "low", "high")))
    items = [f"**Estimate{which}:** {ds(results, f'{start}.quantity')} = {shown}"]
    level = results.number(f"{start}.level")
    made = [f"{100 * level:g}{NBSP}%"] if level is not None else []
    for key, words in (("interval", ""), ("unit", "unit of resampling: "), ("target", "speaks about: ")):
        if f"{start}.{key}" in results:
            made.append(words + ds(results, f"{start}.{key}"))
    if made:
        items.append(f"**Interval{which}:** {'; '.join(made)}; not adjusted for the number of tests")
    if null := [] if results.exploratory else results.under(f"{start}.null"):
        items.append(
            f"**Null{which}:** " + ", ".join(f"{text(v.key.rsplit('.', 1)[1])} {span(v)}" for v in null)
        )
    return items


def _beside(results: Results, h: str) -> list[str]:
    """Return what stands beside the evidence: diagnostics of its fit, robustness, registration."""
    items = []
    if told := _fit(results, h):
        items.append(f"**Diagnostics:** {told} (all in @sec-diagnostics)")
    if not results.exploratory and (agree := multiverse.agreement(results, h)):
        items.append(f"**Robustness:** {agree} with this outcome (@tbl-multiverse)")
    named = (("time", "registered"), ("access", "access to the data then"), ("amended", "amended"))
    given = [
        f"{words}: {ds(results, f'{h}.registration.{key}')}"
        for key, words in named
        if results.raw(f"{h}.registration.{key}") not in (None, "")
    ]
    if given:
        items.append(f"**Registration:** {'; '.join(given)}")
    if f"amended.{h}.decides" in results:
        items.append("**Amended:** registered and amended result stand side by side in @tbl-amended")
    return items


def _fit(results: Results, h: str) -> str:
    """Return convergence, boundary and notes of the estimates that decide, each value once."""
    bounds = results.records(f"{h}.bound")
    first = results.get(f"{h}.quantity")
    pairs = {(first.analysis, str(first.raw))} if first else set()
    pairs |= {(v["quantity"].analysis, str(v["quantity"].raw)) for v in bounds.values() if "quantity" in v}
    parts = []
    for key, words in (("converged", "converged"), ("singular", "at the boundary"), ("notes", "noted")):
        values = {
            v.formatted: v
            for e in results.estimates
            if (e.analysis, e.key) in pairs
            and (v := e.fields.get(f"diagnostics.{key}")) is not None
            and v.formatted
        }
        if values:
            parts.append(f"{words}: {', '.join(map(span, values.values()))}")
    return "; ".join(parts)


def _criteria(results: Results, h: str) -> str:
    lines = results.under(f"{h}.criterion")
    if results.exploratory or not lines:
        return ""
    return "Criterion by criterion:\n\n" + bullets([span(v) for v in lines])


def _wording(results: Results, h: str) -> str:
    outcome = results.decision(h)
    key = {"supported": f"{h}.if_supported", "rejected": f"{h}.if_rejected"}.get(outcome, "")
    wording = results.get(key) if key else None
    said = UNDECIDED.get(outcome, "")
    if outcome == "inconclusive":
        said = HELD_BACK.get(str(results.raw(f"{h}.reason_code")), said)
    said = span(wording, missing=said)
    lines = [f"**Permitted wording:** {said}"] if said else []
    if outcome == "inconclusive" and f"{h}.resolve" in results:
        lines.append(f"**What would resolve it:** {needed(results, h)}")
    if limits := results.under(f"{h}.does_not_show"):
        lines.append("**It does not show:**\n\n" + bullets([span(v) for v in limits]))
    return "\n\n".join(lines)
