"""Short digests of every place of a lock, kept in the ledger, so that what was edited can be named.

A hash over a whole lock says that something was changed, and not what. The ledger's entry of a lock
therefore holds four bytes for each of its places: of a value, the digest of its JSON pointer and its
canonical JSON; of a mapping or list, of its pointer and its keys or length. Four bytes tell places apart and
prove nothing; the proof is the SHA-256 of the whole.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from ..files import canonical_json
from .pointers import make

_BYTES = 4


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return the digests of all places of a lock, sorted, as base64 text."""
    return b64encode(b"".join(sorted({digest for _, digest in _places(content, ())}))).decode("ascii")


def edited_places(content: Mapping[str, Any], stored: str) -> list[str]:
    """Return the JSON pointers of what is not as it was when `stored` was made.

    A changed or added value is named by its own pointer, a removed one by that of what it was removed from.

    Examples
    --------
    >>> stored = fingerprint({"a": {"b": 1, "c": [2, 3]}})
    >>> edited_places({"a": {"b": 0, "c": [2, 3]}}, stored), edited_places({"a": {"b": 1}}, stored)
    (['/a/b'], ['/a (a key is missing)'])
    """
    try:
        raw = b64decode(stored, validate=True)
    except (ValueError, TypeError):
        return []
    known = {raw[i : i + _BYTES] for i in range(0, len(raw), _BYTES)}
    found = [(at, value) for at, value, digest in _valued(content, ()) if digest not in known]
    out = []
    for at, value in found:
        # A mapping that grew, or holds what changed, is told by what it holds.
        if any(len(below) > len(at) and below[: len(at)] == at for below, _ in found):
            continue
        lost = " (a key is missing)" if isinstance(value, Mapping) else ""
        lost = " (an entry is missing)" if isinstance(value, list) else lost
        out.append((make(at) or "/") + lost)
    return out


def _places(value: Any, at: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], bytes]]:
    for here, _, digest in _valued(value, at):
        yield here, digest


def _valued(value: Any, at: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any, bytes]]:
    if isinstance(value, Mapping):
        yield at, value, _digest(at, ["keys", *sorted(value)])
        for key in value:
            yield from _valued(value[key], (*at, key))
    elif isinstance(value, list):
        yield at, value, _digest(at, ["entries", len(value)])
        for i, entry in enumerate(value):
            yield from _valued(entry, (*at, i))
    else:
        yield at, value, _digest(at, ["value", value])


def _digest(at: tuple[str | int, ...], what: list[Any]) -> bytes:
    try:
        text = canonical_json([make(at), what])
    except (ValueError, TypeError, RecursionError):  # a number that no lock can hold
        text = repr((at, what)).encode("utf-8", "replace")
    return sha256(text).digest()[:_BYTES]
