"""The ledger: an append-only log of locks, accesses, bindings, runs and reports, chained by hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import append_line, canonical_hash, canonical_json, read_text, write_atomic

EVENTS = ("lock", "access", "bind", "run", "report")
START = "0" * 64


def utc_now() -> str:
    """Return the time as ``2026-01-31T12:00:00Z``."""
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """Read a ledger and check its chain; a missing file is an empty ledger.

    Each line carries its number ``n``, the hash of the line before (``previous``) and its own (``sha256``,
    over the canonical JSON of the rest).

    Raises
    ------
    DynstatError
        P306 at the first line that is edited, missing or out of order.
    """
    path = Path(path)
    if not path.exists():
        return []
    entries: list[dict[str, Any]] = []
    previous = START
    text = read_text(path)
    if text and not text.endswith("\n"):
        raise _broken(path, text.count("\n") + 1, "the last line ends early")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            raise _broken(path, number, "not JSON") from None
        if not isinstance(entry, dict):
            raise _broken(path, number, "not a mapping")
        body = {k: v for k, v in entry.items() if k != "sha256"}
        if entry.get("n") != number or entry.get("previous") != previous:
            raise _broken(path, number, "does not follow the line before")
        if entry.get("event") not in EVENTS or _hash(body) != entry.get("sha256"):
            raise _broken(path, number, "its hash does not match its content")
        previous = str(entry["sha256"])
        entries.append(entry)
    return entries


def append_entry(
    path: str | Path, event: str, fields: Mapping[str, Any], time: str | None = None
) -> dict[str, Any]:
    """Append one entry to a ledger whose chain holds, and return it.

    Raises
    ------
    DynstatError
        P306 where the chain is broken (nothing is appended to it); F002 where the file cannot be written.
    """
    if event not in EVENTS:
        raise DynstatError("S404", f"the ledger knows no event {event!r}", expected=", ".join(EVENTS))
    path = Path(path)
    entries = read_ledger(path)
    entry: dict[str, Any] = {
        **fields,
        "n": len(entries) + 1,
        "time": time or utc_now(),
        "event": event,
        "previous": entries[-1]["sha256"] if entries else START,
    }
    entry["sha256"] = _hash(entry)
    if not path.exists():
        write_atomic(path, "")
    append_line(path, canonical_json(entry).decode("utf-8"))
    return entry


def _hash(body: Mapping[str, Any]) -> str:
    try:
        return canonical_hash(dict(body))
    except ValueError:  # a number that no canonical JSON has: the line was not written by dynstat
        return ""


def _broken(path: Path, line: int, why: str) -> DynstatError:
    return DynstatError(
        "P306",
        "the ledger's chain is broken",
        where=f"{path}:{line}",
        found=why,
        expected="every line unchanged, in order",
        mend="restore the file from git",
    )
