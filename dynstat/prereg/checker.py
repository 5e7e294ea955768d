"""Collect every problem of a plan in one pass, each with its place in the file."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from ..errors import DynstatError

Pointer = tuple[str | int, ...]
Place = tuple[int, int]  # line and column, from 1


class Checker:
    """Check values of a parsed plan, note what is wrong and go on.

    Parameters
    ----------
    text : str
        The source, from which the lines of keys are found.
    where : str
        Its name.
    places : mapping of path to (line, column), optional
        Where its keys stand; found by reading `text` as YAML where not given.
    """

    def __init__(self, text: str, where: str, places: Mapping[Pointer, Place] | None = None) -> None:
        self.where = where
        self._found: list[tuple[Place, str]] = []
        self._at_fault: set[Pointer] = set()
        self._places = yaml_places(text) if places is None else places
        self._silent: set[Pointer] = set()  # places whose absence is reported: what lies below adds nothing

    def problem(self, at: Pointer, text: str) -> None:
        """Note a problem at a place, unless what holds the place was already found missing."""
        self._at_fault.add(at)
        if any(at[:k] in self._silent for k in range(len(at) + 1)):
            return
        place = next((self._places[at[:k]] for k in range(len(at), -1, -1) if at[:k] in self._places), (0, 0))
        name = ".".join(map(str, at)).encode("utf-8", "backslashreplace").decode() or "plan"
        start = ":".join(map(str, (self.where, *place) if place[0] else (self.where,)))
        self._found.append((place, f"{start}: {name}: {text}"))

    def storable(self, value: Any, at: Pointer = ()) -> None:
        """Note what canonical JSON cannot hold, and so no lock could, where nothing else was found wrong."""
        if isinstance(value, dict):
            for key, v in value.items():
                self.storable(key, (*at, key))
                self.storable(v, (*at, key))
        elif isinstance(value, list):
            for i, v in enumerate(value):
                self.storable(v, (*at, i))
        elif at not in self._at_fault and (odd := _odd(value)):
            self.problem(at, odd)

    def faultless(self, at: Pointer = ()) -> bool:
        """Return whether nothing was found wrong at a place or below it."""
        return not any(place[: len(at)] == at for place in self._at_fault)

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
        if not isinstance(value, str) or value not in allowed:
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


def yaml_places(text: str) -> dict[Pointer, Place]:
    """Return line and column of every key and entry of a YAML text."""
    node = yaml.compose(text, Loader=yaml.SafeLoader) if text else None
    return {} if node is None else {(): _mark(node)} | dict(_places_below(node, ()))


def _places_below(node: Any, at: Pointer) -> Iterator[tuple[Pointer, Place]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*at, key.value), _mark(key)
            yield from _places_below(value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*at, i), _mark(value)
            yield from _places_below(value, (*at, i))


def _mark(node: Any) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``, did you mean 'x'?`` where a known word is near; the words themselves where they are few."""
    words = list(known)
    near = get_close_matches(str(word), words, n=1)
    if near:
        return f", did you mean {near[0]!r}?"
    return f", known: {', '.join(words)}" if len(words) <= 6 else ""


def _odd(value: Any) -> str:
    if isinstance(value, str):
        return "half a character (a lone surrogate)" if any(0xD800 <= ord(c) <= 0xDFFF for c in value) else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"a finite number is expected, found {_kind(value)}"
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return "" if abs(value) < 2**53 else f"{value} is larger than a whole number of JSON can be"
    return f"{_kind(value)} has no JSON: quote it"


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"
