"""Rows of what happened in a run: deviations, contingencies, failures, versions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..files import canonical_json
from ..inference.wording import is_bounded, level, number, p_value
from .provenance import in_words
from .rows import Rows

if TYPE_CHECKING:
    from .beside import Beside, Version
    from .deviations import Deviation
    from .execute import Execution

_DEVIATION = (
    "id",
    "field",
    "registered",
    "executed",
    "detected",
    "type",
    "reason",
    "severity",
    "validity",
    "timing",
    "declared",
    "registered_also",
    "consequence",
)


def add_deviations(rows: Rows, deviations: Sequence[Deviation]) -> None:
    """Add ``deviation.n``, ``deviation.undeclared`` and ``deviation.Dk.*``."""
    rows.note("deviation.n", len(deviations))
    rows.note("deviation.undeclared", sum(d.must_be_declared for d in deviations))
    for i, d in enumerate(deviations, start=1):
        for name in _DEVIATION:
            rows.note(f"deviation.D{i}.{name}", getattr(d, name), affects=", ".join(d.affects))


def add_executed(rows: Rows, run: Execution) -> None:
    """Add ``executed.S.*``: method, outcome, options and seed of every analysis that ran."""
    for analysis, ran in sorted(run.ran.items()):
        for name in ("method", "outcome", "options", "seed"):
            value, shown = ran[name], str(ran[name]) if name == "seed" else None
            if isinstance(value, Mapping):
                shown = in_words(value)
                value = canonical_json(dict(value)).decode()
            rows.note(f"executed.{analysis}.{name}", value, shown)


def add_contingencies(rows: Rows, run: Execution) -> None:
    """Add ``contingency.n`` and ``contingency.Ck.*``: planned ones that were used."""
    rows.note("contingency.n", len(run.contingencies))
    for i, (analysis, c) in enumerate(run.contingencies, start=1):
        changed = canonical_json(dict(c.changed)).decode() if c.changed else ""
        for name, value in (
            ("analysis", analysis),
            ("when", c.when),
            ("do", c.do),
            ("changed", changed),
            ("reason", c.reason),
            ("found", c.found),
        ):
            rows.add(
                f"contingency.C{i}.{name}",
                value,
                value.replace("_", " ") if name in ("when", "do") else None,
                analysis=analysis,
            )


def add_failures(rows: Rows, run: Execution, ledger: Sequence[Mapping[str, Any]]) -> None:
    """Add what could not be run here, and the runs on these data that did not end."""
    rows.note("notrun.n", len(run.failed))
    for i, (analysis, why) in enumerate(sorted(run.failed.items()), start=1):
        rows.note(f"notrun.{i}", f"{analysis}: {why}", analysis_id=analysis)
    for i, text in enumerate(run.warnings, start=1):
        rows.note(f"warning.{i}", text)
    failures = [e for e in ledger if e["event"] == "failure"]
    rows.note("failure.n", len(failures))
    for i, e in enumerate(failures, start=1):
        rows.note(f"failure.{i}", str(e.get("what", "")), time=e["time"])


def add_beside(rows: Rows, beside: Sequence[Beside], orders: Mapping[str, int]) -> None:
    """Add ``amended.H.*`` (the amended version) and ``amended.H.registered.*`` (the one first registered)."""
    seen: dict[str, int] = {}
    for b in beside:
        seen[b.hypothesis] = seen.get(b.hypothesis, 0) + 1
        # A claim that was amended and deviated from as well has a second pair.
        start = f"amended.{b.hypothesis}" + (f".{seen[b.hypothesis]}" if seen[b.hypothesis] > 1 else "")

        def add(key: str, raw: Any, formatted: str | None = None, b: Beside = b, start: str = start) -> None:
            rows.add(
                f"{start}.{key}",
                raw,
                formatted,
                hypothesis=b.hypothesis,
                order=orders.get(b.hypothesis, 0),
            )

        add("by", b.by)
        add("pointers", ", ".join(b.pointers))
        add("reason", b.reason)
        add("timing", b.timing)
        add("decides", b.decides)
        _version(add, "", b.amended)
        _version(add, "registered.", b.registered)


def _version(add: Any, prefix: str, v: Version) -> None:
    add(f"{prefix}decision", v.outcome, v.outcome.replace("_", " "))
    add(f"{prefix}reason_code", v.reason_code)
    add(f"{prefix}alpha", v.alpha, level(v.alpha))
    add(f"{prefix}m", v.m)
    for key in ("p_support", "p_reject"):
        p = getattr(v, key)
        if p is not None:
            add(f"{prefix}{key}", p, p_value(p))
    e = v.estimate
    if e is None:
        return
    bounded = is_bounded(e.key, v.scale)
    add(f"{prefix}quantity", e.key)
    for key, value in (("estimate", e.value), ("low", e.low), ("high", e.high)):
        add(prefix + key, value, number(float(value), bounded))
    for key in ("level", "interval", "unit", "target"):
        add(prefix + key, getattr(e, key))
