"""The opening of a report: verdict box, banners, timeline."""

from __future__ import annotations

from . import deviations
from .markup import MISSING, bullets, callout, ds, short, span, table, text
from .results import DECISIONS, STATES, Results
from .words import EVIDENCE, GLYPH, WORD

BANNER = (
    "This run is **exploratory**: no locked plan fits these data. It shows estimates and makes no decision "
    "about any claim. Nothing in it supports or rejects anything."
)
VOID = "It shows estimates and makes no decision about any claim."
AFTER_ACCESS = (
    "The plan was locked **after its data had been accessed**. The decisions follow the plan's rules, and "
    "were not registered before the data could be seen."
)


def banner(results: Results) -> str:
    """Return the warnings that stand above everything, or nothing."""
    found = []
    if results.raw("study.void"):
        words = (
            f"This run left the locked plan in a way that voids its decisions: {ds(results, 'study.void')}."
        )
        found.append(callout("warning", "Exploratory: no decisions", f"{words} {VOID}"))
    elif results.exploratory:
        found.append(callout("warning", "Exploratory: no decisions", BANNER))
    elif results.stamp == "registered_after_access":
        found.append(_after_access(results))
    return "\n\n".join(block for block in (*found, deviations.warning(results)) if block)


def registered_late(results: Results) -> list[str]:
    """Return the claims that were registered with outcomes known, where others were not; or none."""
    levels = {h: results.raw(f"{h}.registration.access") for h in results.hypotheses}
    late = [h for h, level in levels.items() if level in (None, "outcomes")]
    return late if len(late) < len(levels) else []


def _after_access(results: Results) -> str:
    late = registered_late(results)
    if not late:
        return callout("warning", "Not registered before the data", AFTER_ACCESS)
    kept = ", ".join(text(h) for h in results.hypotheses if h not in late)
    words = (
        "The last lock was made **after its data had been accessed**: it amends one that was made before. "
        f"Registered only then: {', '.join(map(text, late))}. Unchanged since a lock before access: {kept}."
    )
    return callout("warning", "Not all registered before the data", words)


def verdict(results: Results) -> str:
    """Return the verdict box: counts, lock, evidence, data, deviations."""
    if results.exploratory:
        count = ds(results, "derived.count.hypotheses")
        counts = f"**Claims in the plan:** {count}, none decided (exploratory run)"
    else:
        parts = [
            f"{GLYPH.get(d, '')} {ds(results, f'derived.count.{d}')} {WORD[d]}".strip()
            for d in (*DECISIONS, *STATES)
        ]
        count = ds(results, "derived.count.hypotheses")
        counts = f"**Registered claims:** {count}, of these {', '.join(parts)}"
    return callout(
        "important", "Verdict", bullets([counts, _lock(results), _data(results), deviations.summary(results)])
    )


def timeline(results: Results) -> str:
    """Return the timeline of the study."""
    rows = [
        [text(v.groups.get("time", MISSING)), text(v.groups["event"]) if v.groups.get("event") else span(v)]
        for v in results.under("timeline")
    ]
    known = [
        f"**{name}:** {ds(results, key)}"
        for name, key in (
            ("Authors of the plan", "study.authors"),
            ("Prior knowledge of the data, as registered", "study.prior_knowledge"),
            ("Access at the lock", "lock.access_note"),
            ("Notes of the plan", "study.notes"),
        )
        if results.raw(key)
    ]
    blocks = [bullets(known)] if known else []
    if rows:
        blocks.append(table("tbl-timeline", "Timeline, times in UTC.", ["Time", "Event"], rows, [30, 70]))
    return "\n\n".join(blocks) or "The results record no timeline."


def _lock(results: Results) -> str:
    if "lock.sha256" not in results or not results.raw("lock.sha256"):
        return "**Lock:** none"
    level = str(results.raw("lock.evidence") or "")
    parts = [
        f"**Lock:** {short(results, 'lock.sha256')} of {ds(results, 'lock.time')}, "
        f"evidence level {ds(results, 'lock.evidence')}"
    ]
    if level in EVIDENCE:
        parts.append(f" ({EVIDENCE[level]})")
    if results.raw("lock.access"):
        parts.append(f"; access to the data at the lock: {ds(results, 'lock.access')}")
    if results.raw("lock.commit"):
        parts.append(f"; commit {short(results, 'lock.commit')}")
    if results.raw("lock.parent"):
        parts.append(f"; it amends lock {short(results, 'lock.parent')} (@sec-deviations)")
    if results.raw("lock.dirty") is True:
        parts.append("; **the working tree had uncommitted changes**")
    return "".join(parts)


def _data(results: Results) -> str:
    if not results.raw("data.content_hash"):
        return "**Data:** no content hash recorded"
    bound = "" if results.exploratory else "; bound to the lock at its first run"
    return f"**Data:** content hash {short(results, 'data.content_hash')}{bound}"
