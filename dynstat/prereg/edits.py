"""Name what in a lock is not as it was locked, by JSON pointer, from what lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from .fingerprint import edited_places
from .ledger import read_ledger
from .plan import load_plan
from .pointers import differences


def what_was_edited(content: Mapping[str, Any], path: Path) -> list[str]:
    """Return the JSON pointers of what in a lock is not as it was locked, as far as its neighbours know.

    The ledger beside it holds a digest of each place, and the plan, while it is the one that was locked, all
    values.
    """
    name = path.name.removesuffix(".lock.json")
    try:
        entries = [e for e in read_ledger(path.parent / "ledger.jsonl") if e["event"] == "lock"]
    except DynstatError:
        return []
    mine = [e for e in entries if e.get("lock_sha256") == content.get("sha256")]
    mine = mine or [e for e in entries if e.get("name") == name]
    if not mine:
        return []
    entry = mine[-1]
    found = edited_places(content, entry.get("places", ""))
    try:
        plan = load_plan(path.parent)
    except DynstatError:
        return found
    if plan.sha256 != entry.get("plan_sha256") or "plan" not in content:
        return found
    exact = [d.pointer for d in differences(plan.content, content["plan"], "/plan")]
    return exact + [p for p in found if not p.startswith("/plan/")]


def shown(pointers: list[str], most: int = 12) -> list[str]:
    """Return one line a pointer, no more than `most`."""
    rest = len(pointers) - most
    return [f"{p} is not as it was locked" for p in pointers[:most]] + (
        [f"and {rest} more"] if rest > 0 else []
    )
