"""Rows of what a deep study adds: plan in words, bands, deviations, amendments, contingencies, multiverse."""

from __future__ import annotations

from typing import Any

from . import fixture
from .fixture import Rows, p_value, share

DIMENSIONS = {"scale": ["log", "raw"], "alignment": ["causal", "centred"], "tokens": ["48", "32", "16"]}


def results(
    *,
    declared: bool = True,
    words: dict[str, str] | None = None,
    dimensions: dict[str, list[str]] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Return the rows of :func:`fixture.results` and those of everything that a deeper study may hold.

    Parameters
    ----------
    declared : bool
        Whether the deviation above a note is declared.
    words : mapping of str to str
        Replaces texts from outside: reason, severity, why, note, plan, choice.
    dimensions : mapping of str to list of str
        Of the multiverse of A2.
    """
    said = {
        "reason": "the server was lost",
        "severity": "none",
        "validity": "none: the seed moves the third digit",
        "why": "no such variable",
        "note": "as the pilot suggested",
        "plan": "method variance.shares@1, seed 7",
    } | (words or {})
    r = Rows()
    r.rows = fixture.results(**options)
    stamp = next(row["raw"] for row in r.rows if row["key"] == "study.stamp")
    _plan(r, said)
    if stamp == "exploratory":
        return r.rows
    _deviations(r, said, declared)
    _amended(r, said)
    _families(r)
    executed = {"method": "variance.shares@1", "outcome": "metric: ratio_norm@1, layer: last", "seed": "7"}
    for key, value in {**executed, "options": said["note"]}.items():
        r.put(f"executed.shares.{key}", value)
    for key, value in {"analysis": "shares", "when": "singular", "do": "drop_term", "term": "(1|x)"}.items():
        r.put(f"contingency.C1.{key}", value)
    r.put("contingency.C1.reason", said["reason"])
    r.put("failure.1", said["why"])
    _multiverse(r, said, dimensions or DIMENSIONS)
    start = {"analysis": "shares", "groups": {"estimate": "share.model", "term": "model", "target": "panel"}}
    for key, raw in (("converged", True), ("singular", False), ("monte_carlo_se", 0.002)):
        formatted = "yes" if raw is True else "no" if raw is False else ".002"
        r.put(f"estimate.shares.share.model.diagnostics.{key}", raw, formatted, **start)
    r.put("study.notes", said["note"])
    return r.rows


def _plan(r: Rows, said: dict[str, str]) -> None:
    lines = [
        ("Data", "units", "inference: prompt; resampling: prompt"),
        ("Analyses", "shares", said["plan"]),
        ("Analyses", "shares", "outcome ratio_norm@1 (layer: last)"),
    ]
    for i, (section, subject, words) in enumerate(lines, 1):
        r.put(f"plan.words.{i}", words, groups={"section": section, "subject": subject})
    for order, (h, (low, high, term)) in enumerate(fixture.RANGES.items(), 1):
        groups = {"hypothesis": h, "order": order}
        for key, raw in {
            "kind": "in_range",
            "direction": "none",
            "scale": "variance share",
            "quantity": f"share.{term}",
            "low": low,
            "high": high,
        }.items():
            shown = share(raw) if isinstance(raw, float) else raw
            r.put(f"{h}.bound.1.{key}", raw, shown, analysis="shares", groups=groups)


def _deviations(r: Rows, said: dict[str, str], declared: bool) -> None:
    by_key = {row["key"]: row for row in r.rows}
    by_key["deviation.n"].update(raw=2, formatted="2")
    r.put("deviation.undeclared", 0 if declared else 1)
    records = [
        ("/dynstat_version", "0.1.0", "0.1.1", "note", False, "", said["reason"]),
        ("/analyses/shares/seed", "7", "8", "sensitivity", declared, "A1, A2", said["reason"]),
    ]
    for i, (field, old, new, kind, known, affects, reason) in enumerate(records, 1):
        values: dict[str, Any] = {
            "field": field,
            "registered": old,
            "executed": new,
            "detected": "auto" if kind == "note" else "declared",
            "type": kind,
            "reason": reason,
            "timing": "outcomes",
            "severity": said["severity"],
            "validity": said["validity"],
        }
        for key, raw in values.items():
            r.put(f"deviation.D{i}.{key}", raw, groups={"affects": affects})
        r.put(f"deviation.D{i}.declared", known, "yes" if known else "no", groups={"affects": affects})
        r.put(f"deviation.D{i}.registered_also", True, "yes", groups={"affects": affects})
    for h in ("A1", "A2"):
        by_key[f"{h}.flags"].update(raw="D2", formatted="D2")


def _amended(r: Rows, said: dict[str, str]) -> None:
    groups = {"hypothesis": "A2", "order": 2}
    for start, outcome, x in (
        ("amended.A2", "inconclusive", 0.031),
        ("amended.A2.registered", "rejected", 0.021),
    ):
        r.put(f"{start}.decision", outcome, groups=groups)
        r.put(f"{start}.reason_code", "interval_straddles" if x > 0.03 else "out_of_range", groups=groups)
        for key, value in (("estimate", x), ("low", x / 2), ("high", 2 * x)):
            r.put(f"{start}.{key}", value, share(value), groups=groups)
    rest = {"by": "deviation", "pointers": "/analyses/shares/seed", "decides": "registered"}
    for key, value in {**rest, "reason": said["reason"], "timing": "outcomes"}.items():
        r.put(f"amended.A2.{key}", value, groups=groups)
    for key, value in {"decides": "amended", "pointers": "/gates/G1", "estimate": 0.02}.items():
        r.put(f"amended.A2.2.{key}", value, groups=groups)
    for key, value in {"time": "2026-11-20T06:00:00Z", "access": "none"}.items():
        r.put(f"A2.registration.{key}", value, groups=groups)


def _families(r: Rows) -> None:
    by_key = {row["key"]: row for row in r.rows}
    by_key["A3.family"].update(raw="noise", formatted="noise")
    for h in fixture.RANGES:
        for test in ("support", "reject"):
            raw = min(1.0, 3 * by_key[f"{h}.p_{test}"]["raw"])
            groups = by_key[f"{h}.claim"]["groups"]
            r.put(f"{h}.p_{test}_adjusted", raw, p_value(raw), groups=groups)
    groups = by_key["A1.claim"]["groups"]
    r.put("A1.n.units", 72, groups=groups)


def _multiverse(r: Rows, said: dict[str, str], dimensions: dict[str, list[str]]) -> None:
    combined: list[dict[str, str]] = [{}]
    for name, options in dimensions.items():
        combined = [c | {name: option} for c in combined for option in options]
    states = ["run"] * len(combined)
    states[-1], states[-2] = "missing", "errored"
    agree = 0
    for i, (choices, state) in enumerate(zip(combined, states, strict=True), 1):
        start, groups = f"multiverse.A2.u{i}", {"hypothesis": "A2", "universe": f"u{i}"}
        for name, option in choices.items():
            r.put(f"{start}.choice.{name}", option, groups=groups)
        r.put(f"{start}.state", state, groups=groups)
        r.put(f"{start}.role", "registered" if i == 1 else "counted", groups=groups)
        r.put(f"{start}.multiverse", 1, groups=groups)
        ran = state == "run"
        x = 0.01 * i
        for key, value in (("estimate", x), ("low", x / 2), ("high", 3 * x)):
            r.put(f"{start}.{key}", value if ran else None, share(value) if ran else "", groups=groups)
        outcome = ("rejected" if i < 6 else "inconclusive") if ran else ""
        agree += outcome == "rejected"
        r.put(f"{start}.outcome", outcome, groups=groups)
        r.put(f"{start}.why", "" if ran else said["why"], groups=groups)
    run = states.count("run")
    for key, raw in {"n": len(states), "run": run, "missing": 1, "errored": 1, "agree": agree}.items():
        r.put(f"multiverse.A2.{key}", raw, groups={"hypothesis": "A2"})
    r.put("multiverse.A2.share_agree", agree / run, share(agree / run), groups={"hypothesis": "A2"})
    groups = {"hypothesis": "A2"}
    for key, value in (("quantity", "share.category"), ("level", 0.983), ("band.1.low", 0.093)):
        r.put(f"multiverse.A2.{key}", value, groups=groups)
    r.put("multiverse.A2.band.1.high", 0.291, groups=groups)
    r.put("multiverse.A2.M1.choices", "all as registered", groups=groups)
    r.put("multiverse.A2.left_out.1", "tokens = 16", groups={**groups, "reason": said["reason"]})
    for name, options in dimensions.items():
        start = f"multiverse.A2.dimension.{name}"
        rest = {"type": "equivalent", "registered": options[0], "places": "/x", "reason": said["reason"]}
        for key, value in rest.items():
            r.put(f"{start}.{key}", value, groups=groups)
        for i, option in enumerate(options, 1):
            r.put(f"{start}.option.{i}", option, groups=groups)
    for name in dimensions:
        r.put(f"multiverse.A2.variance.{name}", 0.25, ".250", groups={"hypothesis": "A2"})
