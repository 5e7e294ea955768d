"""Load YAML strictly: YAML 1.2 core values, no duplicate keys, anchors, tags or non-NFC text."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from .errors import DynstatError
from .files import read_text

_INT = re.compile(r"[-+]?[0-9]+")
_OCT = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def load_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a YAML file under the strict rules.

    PyYAML's own loaders read ``1e-3`` as a string, ``no`` as False, ``12:30`` as 750, ``010`` as 8 and let
    a later key overwrite an earlier one; here scalars follow the YAML 1.2 core schema and each of those
    ambiguities in structure is an error with its line.

    Raises
    ------
    DynstatError
        F001, F003 (file); Y001 with file, line and column.
    """
    return parse_yaml(read_text(path), str(Path(path)))


def parse_yaml(text: str, where: str = "<text>") -> Any:
    """Parse YAML text under the rules of :func:`load_yaml`.

    Examples
    --------
    >>> parse_yaml("a: 1e-3\\nb: no\\nc: 010\\nd: ~")
    {'a': 0.001, 'b': 'no', 'c': 10, 'd': None}
    """
    if unicodedata.normalize("NFC", text) != text:
        raise _error("text is not in Unicode normal form C", where, "save the file as NFC")
    try:
        for token in yaml.scan(text):
            mark = f"{where}:{token.start_mark.line + 1}:{token.start_mark.column + 1}"
            if isinstance(token, (yaml.AnchorToken, yaml.AliasToken)):
                raise _error("anchors and aliases are not allowed", mark, "write the value out")
            if isinstance(token, yaml.TagToken):
                raise _error("tags are not allowed", mark, "remove the tag; quote the value if it is text")
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as e:
        at = e.problem_mark or e.context_mark
        place = f"{where}:{at.line + 1}:{at.column + 1}" if at else where
        raise _error(f"{e.problem or e.context}", place, "mend the syntax") from e
    except yaml.YAMLError as e:
        raise _error(f"not YAML: {e}".splitlines()[0], where, "remove control characters") from e
    if len(documents) > 1:
        raise _error("more than one document", where, "keep one document a file")
    return _build(documents[0], where) if documents and documents[0] is not None else None


def _error(what: str, where: str, mend: str) -> DynstatError:
    return DynstatError("Y001", what, where=where, mend=mend)


def _build(node: Any, where: str) -> Any:
    mark = f"{where}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, where) for child in node.value]
    out: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _build(key_node, where)
        line = f"{where}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
        if not isinstance(key, str):
            raise _error(f"key {key!r} is not text", line, "quote it")
        if key in out:
            raise _error(f"key {key!r} stands twice", line, "keep one of them")
        out[key] = _build(value_node, where)
    if not isinstance(node, yaml.MappingNode):
        raise _error("unexpected node", mark, "use mappings, lists and scalars")
    return out


def _scalar(text: str) -> Any:
    """Resolve a plain scalar by the YAML 1.2 core schema."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE"}:
        return True
    if text in {"false", "False", "FALSE"}:
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _OCT.fullmatch(text) or _HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lstrip("+-").lower() == ".inf":
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text.lower() == ".nan" else text


def check_keys(
    found: object,
    allowed: set[str],
    where: str,
    *,
    required: set[str] = frozenset(),  # type: ignore[assignment]
) -> dict[str, Any]:
    """Return `found` if it is a mapping with known keys only and all required ones.

    Raises
    ------
    DynstatError
        Y002, listing every unknown key with the nearest known one, and every missing key.
    """
    if not isinstance(found, dict):
        raise DynstatError("Y003", "a mapping is expected", where=where, found=type(found).__name__)
    problems = []
    for key in found:
        if key not in allowed:
            near = get_close_matches(key, allowed, n=1)
            problems.append(f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    problems += [f"missing key {key!r}" for key in sorted(required - set(found))]
    if problems:
        raise DynstatError(
            "Y002",
            problems[0],
            where=where,
            expected=", ".join(sorted(allowed)),
            problems=problems[1:],
            mend="correct or remove the key",
        )
    return found
