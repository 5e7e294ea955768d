"""Proofs beside a lock that others hold a copy of it, or have stamped its time; attached by command only.

``NAME.proof.json`` lists them, the ledger has an entry for each, and a time stamp lies beside the lock as
``NAME.lock.json.tsr`` or ``NAME.lock.json.ots``. Nothing is fetched: what can be checked offline is checked.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from ..files import atomic_path, canonical_hash, read_text, sha256_bytes, sha256_file, write_atomic
from .evidence import git
from .ledger import open_ledger, read_ledger, utc_now
from .stamps import OTS, read_stamp
from .study import has_plan, is_installed

if TYPE_CHECKING:
    from .lock import Lock

SCHEMA = "proof/1"
_LOCK = ".lock.json"
_NOT_CHECKED = {
    "rfc3161": "not checked: the authority's signature (`openssl ts -verify`)",
    OTS: "not checked: that the block chain holds it (`ots verify`)",
}


def attach_stamp(path: str | Path, stamp: str | Path, *, time: str | None = None) -> dict[str, Any]:
    """Store a time stamp of a lock beside it and in the ledger; return its record.

    Parameters
    ----------
    path : path
        The lock file.
    stamp : path
        An RFC 3161 response or token, or an OpenTimestamps proof, of the lock file or of the lock's sha256.
    time : str, optional
        UTC, now where not given.

    Raises
    ------
    DynstatError
        P311 where it stamps something else; F003 where it cannot be read; S404 where it is attached already;
        P302, P306, F001, F002.
    """
    lock, path = _lock(path)
    stamp = Path(stamp)
    try:
        data = stamp.read_bytes()
    except FileNotFoundError:
        raise DynstatError("F001", f"{stamp.name} does not exist", where=str(stamp)) from None
    except OSError as e:
        raise DynstatError("F003", f"{stamp.name} cannot be read: {e.strerror}", where=str(stamp)) from e
    found = read_stamp(data, str(stamp))
    checked = _what_it_stamps(found.digest, lock, path)
    if not checked:
        raise DynstatError(
            "P311",
            "the time stamp is of something else",
            where=str(stamp),
            found=f"digest {found.digest}",
            expected=f"{sha256_file(path)}, the SHA-256 of {path.name}",
            mend="stamp the lock file itself",
        )
    ending = ".ots" if found.kind == OTS else ".tsr"
    with open_ledger(path.parent / "ledger.jsonl") as book:
        known = _read(path)
        if any(p.get("sha256") == sha256_bytes(data) for p in known):
            raise DynstatError("S404", "this time stamp is attached already", where=str(stamp))
        count = sum(p.get("kind") == found.kind for p in known)
        name = f"{path.name}{f'.{count + 1}' if count else ''}{ending}"
        record = {
            "kind": found.kind,
            "level": "L3" if found.complete else "L0",
            "file": name,
            "sha256": sha256_bytes(data),
            "time": found.time,
            "says": found.says,
            "checked": f"{checked}; {_NOT_CHECKED[found.kind]}",
        }
        if stamp.resolve() != (path.parent / name).resolve():
            write_atomic(path.parent / name, data)
        return _store(lock, path, book, known, record, time)


def attach_copy(
    path: str | Path,
    *,
    registry: str = "",
    identifier: str = "",
    pushed: bool = False,
    time: str | None = None,
) -> dict[str, Any]:
    """Note that a third party holds a copy of a lock: a registry's record, or the remote of its repository.

    Parameters
    ----------
    path : path
        The lock file.
    registry, identifier : str
        As ``osf`` and ``https://osf.io/abcde``. Nothing of it can be checked offline.
    pushed : bool
        The commit that holds the lock as it is must be known to this clone as a remote's.

    Raises
    ------
    DynstatError
        S404 where nothing, both, or half is given, or the commit is in no remote branch; P302, P306, F002.
    """
    lock, path = _lock(path)
    if pushed == bool(registry or identifier) or bool(registry) != bool(identifier):
        raise DynstatError(
            "S404",
            "say one thing: a registry with an identifier, or that the commit was pushed",
            expected="--registry NAME --identifier ID, or --pushed, or --file STAMP",
        )
    if pushed:
        record = _remote(path)
    else:
        record = {
            "kind": "registry",
            "level": "L2",
            "registry": registry,
            "identifier": identifier,
            "says": f"{registry} holds a copy under {identifier}",
            "checked": "not checked: the record itself (offline)",
        }
    with open_ledger(path.parent / "ledger.jsonl") as book:
        known = _read(path)
        if any({k: p.get(k) for k in record} == record for p in known):
            raise DynstatError("S404", "this copy is noted already", where=str(path))
        return _store(lock, path, book, known, record, time)


def proofs_of(lock: Lock, path: Path) -> list[dict[str, Any]]:
    """Return the proofs of a lock that hold; what was edited or is missing is left out.

    Beside a copy of a lock, as in a folder of results, what the copied ledger says of them.
    """
    entries = _entries(lock, path)
    if not has_plan(path.parent):
        return [{"kind": e["kind"], "level": e["level"]} for e in entries]
    stored = {e["record_sha256"] for e in entries}
    try:
        known = _read(path)
    except DynstatError:
        return []
    return [p for p in known if canonical_hash(p) in stored and not _faults(p, lock, path)]


def check_proofs(lock: Lock, path: Path) -> list[dict[str, Any]]:
    """Return all proofs of a lock, each compared with the ledger and the file it names.

    Raises
    ------
    DynstatError
        P311, naming every difference by JSON pointer.
    """
    if not has_plan(path.parent):
        return proofs_of(lock, path)
    entries, known, problems = _entries(lock, path), _read(path), []
    stored = [e["record_sha256"] for e in entries]
    found = [canonical_hash(p) for p in known]
    for i, proof in enumerate(known):
        if found[i] not in stored:
            problems.append(f"/proofs/{i} is not as it was attached")
        problems += [f"/proofs/{i}/{fault}" for fault in _faults(proof, lock, path)]
    for entry in entries:
        if entry["record_sha256"] not in found:
            problems.append(f"the proof of ledger entry {entry['n']} ({entry['kind']}) is not there")
    if problems:
        raise DynstatError(
            "P311",
            f"the proofs of {path.name} are not those that were attached",
            where=str(proof_file(path)),
            problems=problems,
            mend="restore the files from git",
        )
    return known


def proof_file(path: Path) -> Path:
    """Return ``NAME.proof.json`` of ``NAME.lock.json``."""
    return path.with_name(path.name.removesuffix(_LOCK) + ".proof.json")


def _lock(path: str | Path) -> tuple[Lock, Path]:
    from .lock import load_lock

    path = Path(path)
    if is_installed(path.parent) or not has_plan(path.parent):
        raise DynstatError(
            "F002",
            "proofs are kept beside the lock in its study's folder, and not in a package or a copy",
            where=str(path),
            mend="name the lock in the study's own folder",
        )
    return load_lock(path), path


def _what_it_stamps(digest: str, lock: Lock, path: Path) -> str:
    if digest == sha256_file(path):
        return f"checked: it stamps the SHA-256 of {path.name}"
    return "checked: it stamps the sha256 field of the lock" if digest == lock.sha256 else ""


def _remote(path: Path) -> dict[str, Any]:
    folder = path.parent
    status = git(folder, "status", "--porcelain", "--ignored", "--", path.name)
    commit = (git(folder, "log", "-1", "--format=%H", "--", path.name) or "").strip()
    held = (
        "" if not commit else git(folder, "branch", "-r", "--contains", commit, "--format=%(refname:short)")
    )
    branches = sorted(b for b in (held or "").split() if "/" in b)
    if status is None or status.strip() or not branches:
        raise DynstatError(
            "S404",
            f"{path.name} is in no branch of a remote, as far as this clone knows",
            where=str(path),
            found="not committed as it is" if not commit or status else f"commit {commit[:12]}",
            mend="commit it, `git push`, and say it again",
        )
    url = (git(folder, "remote", "get-url", branches[0].partition("/")[0]) or "").strip()
    return {
        "kind": "git",
        "level": "L2",
        # No name or token of whoever pushed it.
        "remote": re.sub(r"(?<=://)[^/@]*@", "", url),
        "branch": branches[0],
        "commit": commit,
        "says": f"commit {commit[:12]} is in {branches[0]}",
        "checked": "checked: this clone knows the commit as the remote's; not checked: the remote itself",
    }


def _store(
    lock: Lock, path: Path, book: Any, known: list[dict[str, Any]], record: dict[str, Any], time: str | None
) -> dict[str, Any]:
    seen = [
        e["level"]
        for e in book.entries
        if e["event"] == "access" and e.get("inputs_sha256") == lock.inputs_sha256
    ]
    # A stamp that was made after the outcomes were seen shows no more than that the lock is older than it.
    record = {"attached": time or utc_now(), "after_access": "outcomes" in seen, **record}
    content = {"dynstat": SCHEMA, "lock_sha256": lock.sha256, "proofs": [*known, record]}
    with atomic_path(proof_file(path)) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        temporary.write_text(text, encoding="utf-8", newline="\n")
        book.append(
            "proof",
            {
                "study": lock.content["study"],
                "name": lock.name,
                "lock_sha256": lock.sha256,
                "kind": record["kind"],
                "level": record["level"],
                "record_sha256": canonical_hash(record),
            },
            time=record["attached"],
        )
    return record


def _entries(lock: Lock, path: Path) -> list[dict[str, Any]]:
    entries = read_ledger(path.parent / "ledger.jsonl")
    return [e for e in entries if e["event"] == "proof" and e.get("lock_sha256") == lock.sha256]


def _read(path: Path) -> list[dict[str, Any]]:
    file = proof_file(path)
    if not file.exists():
        return []
    try:
        value = json.loads(read_text(file), object_pairs_hook=_no_key_twice)
    except ValueError:
        value = None
    if (
        not isinstance(value, dict)
        or set(value) != {"dynstat", "lock_sha256", "proofs"}
        or value["dynstat"] != SCHEMA
        or value["lock_sha256"] != json.loads(read_text(path)).get("sha256")
        or not isinstance(value["proofs"], list)
        or not all(isinstance(p, dict) for p in value["proofs"])
    ):
        raise DynstatError(
            "P311",
            f"{file.name} was edited",
            where=str(file),
            expected=f"/dynstat {SCHEMA}, /lock_sha256 of {path.name}, /proofs",
            mend="restore it from git",
        )
    return value["proofs"]


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(out := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return out


def _faults(proof: dict[str, Any], lock: Lock, path: Path) -> list[str]:
    """Return what of the file that a record names is not so."""
    if "file" not in proof:
        return []
    file = path.parent / Path(str(proof["file"])).name
    if not file.exists():
        return [f"file: {file.name} is missing"]
    if sha256_file(file) != proof.get("sha256"):
        return [f"sha256: {file.name} was changed"]
    try:
        digest = read_stamp(file.read_bytes()).digest
    except DynstatError as e:
        return [f"file: {e.what}"]
    return [] if _what_it_stamps(digest, lock, path) else [f"file: {file.name} stamps something else"]
