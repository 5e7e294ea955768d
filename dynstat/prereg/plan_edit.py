"""Write one key into a plan's file and touch nothing else: comments, order and layout stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import DynstatError
from ..files import write_atomic
from . import pointers
from .plan import parse_plan
from .source import parse_source

KEY = "expected_se"
_BARE = re.compile(r"[A-Za-z][\w.]*")


def write_expected_se(path: Path, values: Mapping[str, Mapping[str, Any]]) -> bool:
    """Write ``expected_se`` of analyses into a plan.yaml, plan.toml or plan.json; return whether it changed.

    The file is read again before it is written: it must still be a valid plan, and nothing but these keys may
    differ. It is replaced whole or not at all.

    Parameters
    ----------
    path : Path
    values : mapping of analysis to mapping
        Quantities with their standard errors, and ``made``.

    Raises
    ------
    DynstatError
        F002 where the plan is written in a way that cannot be edited safely; then the lines to add stand in
        the message, and the file stays as it was.
    """
    raw = path.read_bytes().decode("utf-8")
    line_end = "\r\n" if "\r\n" in raw else "\n"
    old = raw.replace("\r\n", "\n")
    text = old
    edit = {".toml": _toml, ".json": _json}.get(path.suffix, _yaml)
    try:
        for analysis, value in values.items():
            text = edit(text, analysis, dict(value))
        _check(old, text, path.name, values)
    except (DynstatError, yaml.YAMLError, LookupError) as e:
        lines = [f"{a}: {KEY}: {_inline(v)}" for a, v in values.items()]
        raise DynstatError(
            "F002",
            f"{path.name} cannot be edited safely, and stays as it was",
            where=str(path),
            found=str(e).splitlines()[0],
            mend="write these keys into the analyses by hand",
            problems=lines,
        ) from e
    if text != old:
        write_atomic(path, text.replace("\n", line_end).encode("utf-8"))
    return text != old


def _check(old: str, new: str, name: str, values: Mapping[str, Mapping[str, Any]]) -> None:
    before, after = parse_source(old, name)[0], parse_source(new, name)[0]
    allowed = [pointers.make(["analyses", a, KEY]) for a in values]
    for place in (d.pointer for d in pointers.differences(before, after)):
        if not any(place == p or place.startswith(p + "/") for p in allowed):
            raise DynstatError("F002", f"{place} would change too")
    for analysis, value in values.items():
        if pointers.get(after, pointers.make(["analyses", analysis, KEY])) != dict(value):
            raise DynstatError("F002", f"{KEY} of {analysis} would not be read as it was written")
    parse_plan(new, name)


# -- YAML ------------------------------------------------------------------------------------------------


def _yaml(text: str, analysis: str, value: dict[str, Any]) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    node = _child(_child(root, "analyses"), analysis)
    pair = next(((k, v) for k, v in node.value if k.value == KEY), None)
    if node.flow_style:
        if pair:
            return text[: pair[0].start_mark.index] + f"{KEY}: {_inline(value)}" + text[_end(pair[1], text) :]
        at = _end(node.value[-1][1], text)
        return text[:at] + f", {KEY}: {_inline(value)}" + text[at:]
    indent = " " * node.value[0][0].start_mark.column
    lines = [f"{KEY}:", *(f"{indent}  {_key(k)}: {_scalar(v)}" for k, v in value.items())]
    if pair:
        start, end = pair[0].start_mark.index, _end(pair[1], text)
        return text[:start] + "\n".join(lines) + text[end:]
    # Behind the line on which the last value ends: a comment that stands there stays with it.
    last = _end(node.value[-1][1], text)
    at = text.find("\n", last)
    at = len(text) if at < 0 else at
    return text[:at] + f"\n{indent}" + "\n".join(lines) + text[at:]


def _child(node: Any, key: str) -> Any:
    found = next((v for k, v in node.value if k.value == key), None)
    if not isinstance(found, yaml.MappingNode) or not found.value:
        raise LookupError(f"{key} is no mapping with keys")
    return found


def _end(node: Any, text: str) -> int:
    """Return where a value ends: the marks of block values reach on to what follows them."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        end = int(node.end_mark.index)
        while end > node.start_mark.index and text[end - 1] in " \n":
            end -= 1
        return end
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last, text)


def _inline(value: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{_key(k)}: {_scalar(v)}" for k, v in value.items()) + "}"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# -- TOML and JSON ---------------------------------------------------------------------------------------


def _toml(text: str, analysis: str, value: dict[str, Any]) -> str:
    """Append a table; TOML lets the table of an analysis go on at the end of the file."""
    name = analysis if re.fullmatch(r"[\w-]+", analysis) else json.dumps(analysis)
    head = f"[analyses.{name}.{KEY}]"
    lines = text.rstrip("\n").split("\n")
    if head in lines:
        start = lines.index(head)
        end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("[")), len(lines))
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
            end -= 1  # what stands before the next table belongs to that
        body = [f"{json.dumps(k)} = {_scalar(v)}" for k, v in value.items()]
        return "\n".join([*lines[: start + 1], *body, *lines[end:]]) + "\n"
    body = [f"{json.dumps(k)} = {_scalar(v)}" for k, v in value.items()]
    return "\n".join([*lines, "", head, *body]) + "\n"


def _json(text: str, analysis: str, value: dict[str, Any]) -> str:
    """Write the whole anew, two spaces deep: JSON has no comments, and its layout says nothing."""
    plan = json.loads(text)
    plan["analyses"][analysis][KEY] = value
    return json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
