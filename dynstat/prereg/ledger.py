"""The ledger: an append-only log of all that happens to a study, chained by hashes, with a head beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import append_line, canonical_hash, canonical_json, read_text, write_atomic

EVENTS = ("lock", "access", "bind", "run", "report", "amend", "failure", "proof")
START = "0" * 64
HEAD = ".head"


def utc_now() -> str:
    """Return the time as ``2026-01-31T12:00:00Z``."""
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def head_file(path: str | Path) -> Path:
    """Return ``ledger.head`` beside ``ledger.jsonl``, which holds number and hash of the last line."""
    return Path(path).with_suffix(HEAD)


def read_ledger(path: str | Path) -> list[dict[str, Any]]:
    """Read a ledger and check its chain against its head; a missing file is an empty ledger.

    Each line carries its number ``n``, the hash of the line before (``previous``) and its own (``sha256``,
    over the canonical JSON of the rest). A chain alone does not show that its end was cut off;
    ``ledger.head`` does. Without a head, as beside a copy or a ledger of an earlier version, only the chain
    is checked; where lines follow the one that the head names, a writer was stopped between the two.

    Raises
    ------
    DynstatError
        P306 at the first line that is edited, missing or out of order, or where the end is missing.
    """
    path = Path(path)
    try:
        return _read(path)
    except DynstatError:
        # Somebody may have been writing that line just then; who may not write here has to take what he read.
        if not path.exists() or not os.access(path, os.W_OK):
            raise
    with _held(path):
        return _read(path)


def _read(path: Path) -> list[dict[str, Any]]:
    # The head first: it is written after its line, so that a writer between the two reads cannot look like
    # a cut.
    head = _read_head(path)
    entries = _entries(path, read_text(path) if path.exists() else "")
    _check_head(path, entries, head)
    return entries


def _entries(path: Path, text: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    previous = START
    if text and not text.endswith("\n"):
        raise _broken(path, text.count("\n") + 1, "the last line ends early")
    # Not splitlines: texts may hold U+2028, which canonical JSON leaves as it is.
    for number, line in enumerate(text.split("\n")[:-1], start=1):
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
        if canonical_json(entry).decode("utf-8") != line:
            raise _broken(path, number, "the same content in another spelling, or a key twice")
        previous = str(entry["sha256"])
        entries.append(entry)
    return entries


def _read_head(path: Path) -> dict[str, Any] | None:
    file = head_file(path)
    if not file.exists():
        return None
    try:
        head = json.loads(read_text(file))
    except json.JSONDecodeError:
        head = None
    if (
        not isinstance(head, dict)
        or set(head) != {"n", "sha256"}
        or type(head["n"]) is not int
        or head["n"] < 1
        or not isinstance(head["sha256"], str)
    ):
        raise DynstatError(
            "P306",
            "the ledger's head was edited",
            where=str(file),
            expected='{"n": number of lines, "sha256": hash of the last}',
            mend="restore the file from git",
        )
    return head


def _check_head(path: Path, entries: list[dict[str, Any]], head: dict[str, Any] | None) -> None:
    if head is None:
        return
    n, found = head["n"], len(entries)
    if found < n:
        what = f"entry {n} is" if found == n - 1 else f"entries {found + 1} to {n} are"
        raise DynstatError(
            "P306",
            f"the end of the ledger is missing: {what} not there",
            where=str(path),
            found=f"{found} entries",
            expected=f"{n} entries, the last with sha256 {head['sha256'][:12]} ({head_file(path).name})",
            mend="restore the file from git, or from a folder of results, which holds a copy",
        )
    if entries[n - 1]["sha256"] != head["sha256"]:
        raise DynstatError(
            "P306",
            f"entry {n} of the ledger is not the one its head names",
            where=f"{path}:{n}",
            found=entries[n - 1]["sha256"][:12],
            expected=f"{head['sha256'][:12]} ({head_file(path).name})",
            mend="restore both files from git",
        )


class Book:
    """A ledger while one process holds it: the entries that stand, and `append`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = _read(path)

    def append(self, event: str, fields: Mapping[str, Any], time: str | None = None) -> dict[str, Any]:
        """Append one entry and return it; see :func:`append_entry`."""
        if event not in EVENTS:
            raise DynstatError("S404", f"the ledger knows no event {event!r}", expected=", ".join(EVENTS))
        entry: dict[str, Any] = {
            **fields,
            "n": len(self.entries) + 1,
            "time": time or utc_now(),
            "event": event,
            "previous": self.entries[-1]["sha256"] if self.entries else START,
        }
        entry["sha256"] = _hash(entry)
        append_line(self.path, canonical_json(entry).decode("utf-8"))
        self.entries.append(entry)
        head = canonical_json({"n": entry["n"], "sha256": entry["sha256"]}).decode("utf-8")
        write_atomic(head_file(self.path), head + "\n")
        return entry


@contextmanager
def open_ledger(path: str | Path) -> Iterator[Book]:
    """Hold a ledger, so that no other process or thread appends between what is read and what is written.

    Raises
    ------
    DynstatError
        P306 where the chain is broken or its end is missing; F002 where the file cannot be written.
    """
    path = Path(path)
    with _held(path):
        yield Book(path)


def append_entry(
    path: str | Path, event: str, fields: Mapping[str, Any], time: str | None = None
) -> dict[str, Any]:
    """Append one entry to a ledger whose chain holds, write its head, and return it.

    Several processes may append at once: each waits for the other.

    Raises
    ------
    DynstatError
        P306 where the chain is broken (nothing is appended to it); F002 where the file cannot be written;
        S404 where the event is unknown.
    """
    if event not in EVENTS:
        raise DynstatError("S404", f"the ledger knows no event {event!r}", expected=", ".join(EVENTS))
    with open_ledger(path) as book:
        return book.append(event, fields, time)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the file's own advisory lock, which the system frees should the process die."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            made = not path.exists()
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as e:
            raise DynstatError("F002", f"cannot open {path.name}: {e.strerror}", where=str(path)) from e
        try:
            _lock(handle)
            # Replaced while waiting: what is held is no longer the ledger.
            if path.exists() and os.path.samestat(os.fstat(handle), os.stat(path)):
                try:
                    yield
                finally:
                    if made and not os.fstat(handle).st_size:
                        _remove(path)
                return
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    """Take an empty file away that was made to be held, before who waits for it gets it."""
    with suppress(OSError):
        path.unlink()


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: a byte far behind the end stands for the file
        import msvcrt

        os.lseek(handle, 1 << 40, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks; a chain that two writers broke is still found on reading


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
