"""Collect every problem of a plan in one pass, each with its place in the file."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

import yaml

from ..errors import DynstatError

Pointer = tuple[str | int, ...]


class Checker:
    """Check values of a parsed plan, note what is wrong and go on.

    Parameters
    ----------
    text : str
        The source, from which the lines of keys are found.
    where : str
        Its name.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self._found: list[tuple[int, str]] = []
        self._lines: dict[Pointer, int] = {}
        self._silent: set[Pointer] = set()  # places whose absence is reported: what lies below adds nothing
        node = yaml.compose(text, Loader=yaml.SafeLoader) if text else None
        if node is not None:
            self._note(node, ())

    def _note(self, node: Any, at: Pointer) -> None:
        self._lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._lines[(*at, key.value)] = key.start_mark.line + 1
                self._note(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                self._note(value, (*at, i))

    def problem(self, at: Pointer, text: str) -> None:
        """Note a problem at a place, unless what holds the place was already found missing."""
        if any(at[:k] in self._silent for k in range(len(at) + 1)):
            return
        line = next((self._lines[at[:k]] for k in range(len(at), -1, -1) if at[:k] in self._lines), 0)
        name = ".".join(map(str, at)) or "plan"
        place = f"{self.where}:{line}" if line else self.where
        self._found.append((line, f"{place}: {name}: {text}"))

    @property
    def problems(self) -> list[str]:
        """All problems, in the order of the file."""
        return [text for _, text in sorted(self._found, key=lambda pair: pair[0])]

    def raise_all(self) -> None:
        """Raise P301 with all problems, if there are any."""
        if self.problems:
            count = len(self.problems)
            raise DynstatError(
                "P301",
                "the plan has one problem" if count == 1 else f"the plan has {count} problems",
                where=self.where,
                mend="docs/preregistration.md gives the keys",
                problems=self.problems,
            )

    def mapping(
        self,
        value: Any,
        at: Pointer,
        required: Iterable[str] = (),
        optional: Iterable[str] = (),
        *,
        free: bool = False,
    ) -> dict[str, Any]:
        """Return a mapping with known keys; with `free`, any keys."""
        if not isinstance(value, dict):
            self.problem(at, f"a mapping is expected, found {_kind(value)}")
            self._silent.add(at)
            return {}
        if free:
            if not value:
                self.problem(at, "at least one entry is needed")
            return value
        required = list(required)
        known = [*required, *optional]
        for key in value:
            if key not in known:
                self.problem((*at, key), f"unknown key{did_you_mean(key, known)}")
        for key in required:
            if key not in value:
                self.problem(at, f"missing key {key!r}")
                self._silent.add((*at, key))
        return value

    def text(self, value: Any, at: Pointer, *, empty: bool = False) -> str:
        """Return text, by default not blank."""
        if not isinstance(value, str):
            self.problem(at, f"text is expected, found {_kind(value)}")
            return ""
        if not empty and not value.strip():
            self.problem(at, "must not be empty")
        return value.strip()

    def choice(self, value: Any, at: Pointer, allowed: Collection[str]) -> str:
        """Return one of the allowed words."""
        if value not in allowed or not isinstance(value, str):
            hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
            self.problem(at, f"{value!r} is not one of {', '.join(allowed)}{hint}")
            return next(iter(allowed))
        return value

    def number(
        self,
        value: Any,
        at: Pointer,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        open_ends: bool = False,
    ) -> float:
        """Return a finite number within [low, high], or within (low, high)."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            self.problem(at, f"a finite number is expected, found {_kind(value)}")
            return math.nan
        inside = low < value < high if open_ends else low <= value <= high
        if not inside:
            self.problem(
                at,
                f"{value} lies outside {'(' if open_ends else '['}{low}, {high}{')' if open_ends else ']'}",
            )
        return value

    def integer(self, value: Any, at: Pointer, low: int, high: int = 2**53 - 1) -> int:
        """Return an integer within [low, high]; larger ones have no exact JSON number."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.problem(at, f"a whole number from {low} to {high} is expected, found {value!r}")
            return low
        return value

    def sequence(self, value: Any, at: Pointer, least: int = 0) -> list[Any]:
        """Return a list with at least `least` entries."""
        if not isinstance(value, list):
            self.problem(at, f"a list is expected, found {_kind(value)}")
            return []
        if len(value) < least:
            self.problem(at, f"at least {least} {'entry is' if least == 1 else 'entries are'} needed")
        return value

    def texts(self, value: Any, at: Pointer, least: int = 0) -> list[str]:
        """Return a list of texts."""
        return [self.text(v, (*at, i)) for i, v in enumerate(self.sequence(value, at, least))]

    def take(self, error: DynstatError, at: Pointer) -> None:
        """Note an error of another part as a problem of the plan."""
        mend = f" ({error.mend})" if error.mend else ""
        expected = f"; expected {error.expected}" if error.expected and not error.mend else ""
        self.problem(at, f"{error.what}{expected}{mend}")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` where a known word is near; the words themselves where they are few."""
    words = list(known)
    near = get_close_matches(str(word), words, n=1)
    if near:
        return f", did you mean {near[0]!r}?"
    return f", known: {', '.join(words)}" if len(words) <= 6 else ""


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"
