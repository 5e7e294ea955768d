"""Read a plan's text, YAML, TOML or JSON alike, with the line and column of every key."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..strictyaml import parse_yaml
from .checker import Place, Pointer, yaml_places
from .study import PLAN_NAMES as NAMES

_STRING = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_ATOM = re.compile(r"[^\s,\]}]+")
# What of TOML may hold brackets, signs and line breaks that are none: long texts first, comments last.
_LONG = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL
)
_KEY = r"(?:[\w-]+|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*')"
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_LINE = re.compile(rf"[ \t]*(?:\[\[?[ \t]*(?P<head>{_DOTTED})[ \t]*\]\]?|(?P<key>{_DOTTED})[ \t]*=)")


def plan_file(folder: Path) -> Path | None:
    """Return the plan of a folder: plan.yaml, plan.toml or plan.json; None where there is none.

    Raises
    ------
    DynstatError
        P301 where there are several: nobody could say which one is meant.
    """
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise DynstatError(
            "P301",
            "a study has one plan",
            where=str(folder),
            found=", ".join(p.name for p in found),
            expected=" or ".join(NAMES),
            mend="keep one of them",
        )
    return found[0] if found else None


def parse_source(text: str, where: str) -> tuple[Any, dict[Pointer, Place]]:
    """Return the value of a plan's text and where its keys stand, by the ending of its name.

    Parameters
    ----------
    text : str
        TOML for ``.toml``, JSON for ``.json``, else YAML.
    where : str
        The file's name, for messages.

    Raises
    ------
    DynstatError
        Y001 with line and column where the text is not valid, a key stands twice, or a value has no JSON.
    """
    try:
        if where.endswith(".toml"):
            return _toml(text, where)
        if where.endswith(".json"):
            return _json(text, where)
        return parse_yaml(text, where), yaml_places(text)
    except RecursionError:
        raise _error("nested too deeply", where, 1, 1, "no plan is that deep") from None


def _error(what: str, where: str, line: int, column: int, mend: str) -> DynstatError:
    return DynstatError("Y001", what, where=f"{where}:{line}:{column}", mend=mend)


def _json(text: str, where: str) -> tuple[Any, dict[Pointer, Place]]:
    _check_form(text, where)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as e:
        raise _error(f"not JSON: {e.msg}", where, e.lineno, e.colno, "mend the syntax") from None
    places: dict[Pointer, Place] = {}
    starts = [0, *(m.end() for m in re.finditer("\n", text))]

    def place(index: int) -> Place:
        from bisect import bisect_right

        line = bisect_right(starts, index)
        return line, index - starts[line - 1] + 1

    def walk(index: int, at: Pointer) -> int:
        """Note the places below one value and return the index behind it; the text is known to be JSON."""
        index = _skip(text, index)
        places.setdefault(at, place(index))
        opening = text[index]
        if opening == '"':
            return _STRING.raw_decode(text, index)[1]
        if opening not in "{[":
            match = _ATOM.match(text, index)
            assert match is not None
            if match[0] in ("NaN", "Infinity", "-Infinity"):
                raise _error(f"{match[0]} is no JSON", where, *place(index), "write a finite number")
            return match.end()
        index, count, seen = _skip(text, index + 1), 0, set()
        while text[index] not in "}]":
            if opening == "{":
                key, end = _STRING.raw_decode(text, index)
                if key in seen:
                    raise _error(f"key {key!r} stands twice", where, *place(index), "keep one of them")
                seen.add(key)
                places[(*at, key)] = place(index)
                index = walk(_skip(text, end) + 1, (*at, key))
            else:
                index = walk(index, (*at, count))
                count += 1
            index = _skip(text, index)
            if text[index] == ",":
                index = _skip(text, index + 1)
        return index + 1

    walk(0, ())
    return value, places


def _skip(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    assert match is not None
    return match.end()


def _toml(text: str, where: str) -> tuple[Any, dict[Pointer, Place]]:
    import tomllib

    _check_form(text, where)
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(e))
        end = text.count("\n") + 1
        line, column = (int(found[1]), int(found[2])) if found else (end, len(text) - text.rfind("\n"))
        what = re.sub(r"\s*\(at [^)]*\)$", "", str(e))
        twice = "overwrite" in what or "twice" in what or "already" in what
        what = f"a key stands twice ({what})" if twice else f"not TOML: {what}"
        raise _error(what, where, line, column, "keep one of them" if twice else "mend the syntax") from None
    return value, _toml_places(text, value)


def _toml_places(text: str, value: Any) -> dict[Pointer, Place]:
    """Find headers and keys line by line: what stands inside an inline table has the place of its key."""
    places: dict[Pointer, Place] = {(): (1, 1)}
    bare = _LONG.sub(_blank, text)
    table: Pointer = ()
    for number, line in enumerate(bare.split("\n"), start=1):
        match = _LINE.match(line)
        if match is None:
            continue
        name = "head" if match["head"] else "key"
        at = () if name == "head" else table
        here = value
        for part in table if name == "key" else ():
            here = here[part]
        for key in re.findall(_KEY, match[name]):
            key = _plain_key(key)
            if not isinstance(here, dict) or key not in here:
                break
            here, at = here[key], (*at, key)
            if isinstance(here, list) and name == "head" and "[[" in line:
                # The entry of an array of tables that this header begins.
                index = sum(1 for p in places if p[:-1] == at and isinstance(p[-1], int))
                last = at == tuple(_plain_key(k) for k in re.findall(_KEY, match[name]))
                index = index if last else index - 1
                if not 0 <= index < len(here):
                    break
                places.setdefault(at, (number, match.start(name) + 1))
                here, at = here[index], (*at, index)
            elif isinstance(here, list) and name == "head":
                count = sum(1 for p in places if p[:-1] == at and isinstance(p[-1], int))
                if not count:
                    break
                here, at = here[count - 1], (*at, count - 1)
            places.setdefault(at, (number, match.start(name) + 1))
        if name == "head":
            table = at
    return places


def _blank(match: re.Match[str]) -> str:
    text = match[0]
    if text[0] == "#" or text[:3] in ('"""', "'''"):
        return re.sub(r"[^\n]", " ", text)
    return text


def _plain_key(key: str) -> str:
    if key[0] == "'":
        return key[1:-1]
    if key[0] != '"':
        return key
    import tomllib

    return next(iter(tomllib.loads(f"{key} = 1")))


def _check_form(text: str, where: str) -> None:
    if unicodedata.normalize("NFC", text) != text:
        raise DynstatError(
            "Y001", "text is not in Unicode normal form C", where=where, mend="save the file as NFC"
        )
