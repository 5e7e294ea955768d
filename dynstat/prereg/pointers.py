"""Places in an expanded plan by JSON pointer (RFC 6901): read one, change one, list differences of two."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..errors import DynstatError


class _Missing:
    """What stands at a place that one of two plans lacks; false, and one object only."""

    def __repr__(self) -> str:
        return "(absent)"

    def __bool__(self) -> bool:
        return False

    def __copy__(self) -> _Missing:
        return self

    def __deepcopy__(self, memo: object) -> _Missing:
        return self


MISSING: Final = _Missing()


class Difference(NamedTuple):
    """One place where two plans differ; `old` or `new` is :data:`MISSING` where it is in one plan only."""

    pointer: str
    old: Any
    new: Any


def make(parts: Sequence[str | int]) -> str:
    """Return the pointer of a path.

    Examples
    --------
    >>> make(["analyses", "S1", "outcome"]), make([]), make(["a/b", 0, "~"])
    ('/analyses/S1/outcome', '', '/a~1b/0/~0')
    """
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in parts)


def split(pointer: str) -> list[str]:
    """Return the parts of a pointer.

    Raises
    ------
    DynstatError
        Y003 where the text is no pointer.

    Examples
    --------
    >>> split("/analyses/S1"), split(""), split("/a~1b/0/~0")
    (['analyses', 'S1'], [], ['a/b', '0', '~'])
    """
    if not isinstance(pointer, str) or (pointer and pointer[0] != "/") or re.search(r"~(?![01])", pointer):
        raise DynstatError(
            "Y003",
            "not a JSON pointer (RFC 6901)",
            where=str(pointer),
            expected="'' or /KEY/KEY..., where ~1 stands for / and ~0 for ~",
        )
    return [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]


def get(plan: Any, pointer: str) -> Any:
    """Return what stands at a pointer; the empty pointer is the whole.

    Raises
    ------
    DynstatError
        Y002 where there is nothing, naming the last place that exists and what is known there; Y003.

    Examples
    --------
    >>> get({"analyses": {"S1": {"seed": 7}}}, "/analyses/S1/seed")
    7
    """
    here = plan
    parts = split(pointer)
    for depth, part in enumerate(parts):
        here = _step(here, part, parts, depth)
    return here


def exists(plan: Any, pointer: str) -> bool:
    """Return whether something, be it null, stands at a pointer."""
    try:
        get(plan, pointer)
    except DynstatError:
        return False
    return True


def changed(plan: Any, pointer: str, value: Any) -> Any:
    """Return a deep copy with `value` at a pointer that exists; the plan itself stays as it was.

    Raises
    ------
    DynstatError
        Y002 where there is nothing to change; Y003.

    Examples
    --------
    >>> changed({"a": [1, {"b": 2}]}, "/a/1/b", 3)
    {'a': [1, {'b': 3}]}
    """
    parts = split(pointer)
    get(plan, pointer)
    value = copy.deepcopy(value)
    if not parts:
        return value
    out = copy.deepcopy(plan)
    holder = out
    for part in parts[:-1]:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    holder[int(parts[-1]) if isinstance(holder, list) else parts[-1]] = value
    return out


def differences(old: Any, new: Any, at: str = "") -> list[Difference]:
    """Return every deepest place where two plans differ, in the order of the old one, then of the new.

    Mappings are compared key by key and lists entry by entry. What one side lacks is one difference, however
    much lies below it. True and 1 differ, 1 and 1.0 do not (JSON has one kind of number).

    Examples
    --------
    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 2}, "d": [3]})
    [Difference(pointer='/a/b', old=1, new=2), Difference(pointer='/c', old=2, new=(absent)), \
Difference(pointer='/d', old=(absent), new=[3])]
    """
    return list(_differences(old, new, at))


def _differences(old: Any, new: Any, at: str) -> Iterator[Difference]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _differences(old.get(key, MISSING), new.get(key, MISSING), at + make([key]))
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        for i in range(max(len(old), len(new))):
            one, other = (side[i] if i < len(side) else MISSING for side in (old, new))
            yield from _differences(one, other, f"{at}/{i}")
    elif not _same(old, new):
        yield Difference(at, old, new)


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _step(here: Any, part: str, parts: Sequence[str], depth: int) -> Any:
    known: list[str] = []
    if isinstance(here, Mapping):
        if part in here:
            return here[part]
        known = [str(k) for k in here]
    elif isinstance(here, (list, tuple)):
        # RFC 6901 has no leading zeros, so that no place has two names.
        if re.fullmatch(r"0|[1-9][0-9]*", part) and int(part) < len(here):
            return here[int(part)]
        known = [str(i) for i in range(len(here))]
    from .checker import did_you_mean

    raise DynstatError(
        "Y002",
        f"nothing stands at {make(parts[: depth + 1])}{did_you_mean(part, known) if known else ''}",
        where=make(parts),
        found=part,
        mend=f"{make(parts[:depth]) or 'the plan'} exists",
    )
