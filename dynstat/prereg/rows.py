"""Rows of results.json: a key, a number or text, and how it is printed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..inference.wording import number


class Rows:
    """Collect rows; keys are unique."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._keys: set[str] = set()

    def add(
        self,
        key: str,
        raw: Any,
        formatted: str | None = None,
        *,
        analysis: str = "",
        reason: str = "specified in plan",
        purpose: str = "provenance",
        method: str = "",
        **groups: Any,
    ) -> None:
        """Add one value; what JSON cannot hold becomes null, with its words kept in `formatted`."""
        if key in self._keys:
            raise ValueError(f"results key {key} stands twice")
        self._keys.add(key)
        raw = _plain(raw)
        self.rows.append(
            {
                "key": key,
                "raw": raw,
                "formatted": _text(raw) if formatted is None else formatted,
                "analysis": analysis,
                "reason": reason,
                "purpose": purpose,
                "method": method,
                "groups": groups,
            }
        )

    def extend(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows that another part of the house has made whole."""
        for row in rows:
            if row["key"] in self._keys:
                raise ValueError(f"results key {row['key']} stands twice")
            self._keys.add(row["key"])
            self.rows.append(dict(row))

    def note(self, key: str, raw: Any, formatted: str | None = None, **groups: Any) -> None:
        """Add a value of provenance."""
        self.add(key, raw, formatted, reason="provenance", **groups)


def is_scalar(value: Any) -> bool:
    """Return whether a value can stand in one row."""
    return value is None or isinstance(value, (str, bool, int, float, np.generic))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _text(raw: Any) -> str:
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return "yes" if raw else "no"
    if isinstance(raw, float):
        return number(raw)
    if isinstance(raw, int):
        return f"{raw:,}" if abs(raw) >= 10_000 else str(raw)
    return str(raw)
