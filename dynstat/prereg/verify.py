"""Verify a study by its hashes: locks, amendments, proofs, ledger, code, plan, copies; no data are opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import sha256_file
from .chains import amendment, chain_of
from .evidence import EVIDENCE, evidence
from .ledger import head_file, read_ledger
from .lock import SUFFIX, Lock, check_executable, load_lock
from .plan import load_plan
from .pointers import differences
from .proofs import check_proofs
from .study import find_study, has_plan

LEDGER = "ledger.jsonl"
COPY = f"plan{SUFFIX}"
# Events of a folder of results alone: what stands before the first of them was copied from the study.
_OF_RESULTS = ("bind", "run", "failure", "report")
_OF_PROOF = ("kind", "level", "says", "checked", "after_access")


def verify_study(target: str | Path, against: Sequence[str | Path] = ()) -> dict[str, Any]:
    """Verify one lock, all locks of a study, or a folder of results, against their hashes and each other.

    Parameters
    ----------
    target : str or path
        A study, one lock file, or a folder of results (or the ``plan.lock.json`` in it).
    against : sequence of path
        Folders of results, whose ledgers began as copies of the study's: each is a witness of it.

    Returns
    -------
    dict
        ``locks`` (name, file, sha256, time, evidence, evidence_words, access, plan_changed, code: "as
        locked" or the differences, differences: JSON pointers into plan and code, amends, proofs), ``ledger``
        (number of entries), ``head`` (of the ledger: "holds", "missing" or how far it is behind),
        ``abandoned`` (locks that the ledger names and whose file is not there) and ``against``. A changed
        plan or code is told, not an error: an old lock stays valid.

    Raises
    ------
    DynstatError
        P302 (edited lock), P306 (broken or cut ledger, or one that lacks a lock or a copied entry), P310
        (amendments), P311 (proofs), P304 (nothing is locked), F001. Of several faults the first gives the
        code, and all are listed.
    """
    path = Path(target)
    if path.is_dir() and not has_plan(path) and (path / COPY).exists():
        path = path / COPY
    single = path.is_file() and path.name.endswith(SUFFIX)
    folder = path.parent if single else find_study(target)
    files = [path] if single else sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise DynstatError(
            "P304",
            "the study has no lock",
            where=str(folder),
            mend="`dynstat prereg lock STUDY --panel PANEL.yaml --name NAME`",
        )
    faults: list[DynstatError] = []
    locks: list[tuple[Path, Lock]] = []
    for file in files:
        try:
            locks.append((file, load_lock(file)))
        except DynstatError as e:
            faults.append(e)
    rows: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    witnesses: list[dict[str, Any]] = []
    try:
        entries = read_ledger(folder / LEDGER)
        _check_head(folder, entries)
        for file, lock in locks:
            try:
                rows.append(_row(folder, file, lock, entries))
            except DynstatError as e:
                faults.append(e)
        if not faults:
            home = folder if has_plan(folder) else _home(locks[0][1])
            copies = [Path(p) for p in against] + ([folder] if not has_plan(folder) and home else [])
            witnesses = [_compare(home, copy) for copy in copies if home is not None]
            if not has_plan(folder):
                _check_results(folder, entries)
    except DynstatError as e:
        faults.append(e)
    if faults:
        raise _all(faults)
    return {
        "study": str(locks[0][1].content["study"]),
        "locks": rows,
        "ledger": len(entries),
        "head": _head(folder / LEDGER, entries),
        "abandoned": [] if single else _abandoned(entries, {lock.sha256 for _, lock in locks}),
        "against": witnesses,
    }


def _all(faults: list[DynstatError]) -> DynstatError:
    if len(faults) == 1:
        return faults[0]
    first = faults[0]
    lines = [f"{f.code} {f.what}{f' ({f.where})' if f.where else ''}: {f.found}" for f in faults]
    lines += [p for f in faults for p in f.problems]
    return DynstatError(
        first.code,
        f"{len(faults)} faults, the first: {first.what}",
        where=first.where,
        problems=lines,
        mend=first.mend,
    )


def _row(folder: Path, file: Path, lock: Lock, entries: list[dict[str, Any]]) -> dict[str, Any]:
    _check_entry(folder, file, lock, entries)
    proofs = check_proofs(lock, file)
    if lock.parent is not None and has_plan(folder):
        chain_of(folder, lock)
    level = evidence(lock, file)
    stated = amendment(lock)
    plan_changed, pointers = _plan_differences(folder, lock)
    code, files = _code(lock, folder)
    return {
        "name": lock.name,
        "file": file.name,
        "sha256": lock.sha256,
        "time": lock.content["time"],
        "evidence": level,
        "evidence_words": EVIDENCE[level],
        "access": lock.content["access"]["level"],
        "plan_changed": plan_changed,
        "code": code,
        "differences": pointers + files,
        "amends": None if stated is None else {"lock": lock.parent, **stated},
        "proofs": [
            {k: p.get(k) for k in ("kind", "level", "says", "checked", "after_access")} for p in proofs
        ],
    }


def _check_entry(folder: Path, file: Path, lock: Lock, entries: list[dict[str, Any]]) -> None:
    """Check that the ledger has an entry for a lock that says the same of it, and held what the lock says."""
    of_locks = [e for e in entries if e["event"] == "lock"]
    mine = [e for e in of_locks if e.get("lock_sha256") == lock.sha256]
    problems = []
    if mine:
        for key, here in (
            ("study", lock.content["study"]),
            ("name", lock.name),
            ("plan_sha256", lock.content["plan_sha256"]),
            ("inputs_sha256", lock.inputs_sha256),
        ):
            if mine[0].get(key) != here:
                problems.append(f"entry {mine[0]['n']}: /{key} is not that of the lock")
        before = lock.content.get("ledger")
        if before and (
            len(entries) < before["n"] or entries[before["n"] - 1].get("sha256") != before["sha256"]
        ):
            problems.append(f"entry {before['n']} is not the one before the lock (/ledger of {file.name})")
        if not problems:
            return
    else:
        from .edits import shown, what_was_edited

        problems = shown(what_was_edited(lock.content, file))
    raise DynstatError(
        "P306",
        f"the ledger does not know {file.name}" if not mine else f"the ledger does not fit {file.name}",
        where=str(folder / LEDGER),
        found=f"{len(of_locks)} locks",
        expected=f"an entry for every lock, here {lock.sha256[:12]}",
        problems=problems,
        mend="restore the ledger and the lock from git",
    )


def _plan_differences(folder: Path, lock: Lock) -> tuple[bool | None, list[str]]:
    try:
        plan = load_plan(folder)
    except DynstatError:
        return None, []
    if plan.sha256 == lock.content["plan_sha256"]:
        return False, []
    return True, [d.pointer for d in differences(lock.plan, plan.content, "/plan")]


def _code(lock: Lock, folder: Path) -> tuple[str, list[str]]:
    if not has_plan(folder):
        return "not here: this is a copy", []
    try:
        check_executable(lock, folder)
    except DynstatError as e:
        from .study import code_hashes

        found = differences(lock.content["code"], code_hashes(folder), "/code")
        return "; ".join(e.problems), [d.pointer for d in found]
    return "as locked", []


def _check_head(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Raise P306 where a study's ledger has no head, though what wrote it always leaves one."""
    headed = any("places" in e or e["event"] in ("amend", "proof") for e in entries)
    if headed and has_plan(folder) and not head_file(folder / LEDGER).exists():
        raise DynstatError(
            "P306",
            "the ledger's head is missing: lines cut off its end would not show",
            where=str(head_file(folder / LEDGER)),
            found=f"{len(entries)} entries and no head",
            expected="ledger.head beside ledger.jsonl, committed with it",
            mend="restore it from git, and compare the ledger with a folder of results (--against OUT)",
        )


def _head(ledger: Path, entries: list[dict[str, Any]]) -> str:
    file = head_file(ledger)
    if not file.exists():
        return "missing"
    behind = len(entries) - json.loads(file.read_text(encoding="utf-8"))["n"]
    return f"{behind} entries behind" if behind else "holds"


def _abandoned(entries: list[dict[str, Any]], here: set[str]) -> list[dict[str, str]]:
    return [
        {"name": str(e["name"]), "sha256": str(e["lock_sha256"]), "time": str(e["time"])}
        for e in entries
        if e["event"] == "lock" and e["lock_sha256"] not in here
    ]


def _home(lock: Lock) -> Path | None:
    """Return the folder of the study that a copied lock comes from, where one of its name knows the lock."""
    try:
        folder = find_study(str(lock.content["study"]))
        locks = [json.loads(p.read_text(encoding="utf-8")) for p in folder.glob(f"*{SUFFIX}")]
    except (DynstatError, OSError, ValueError):
        return None
    return folder if any(isinstance(c, dict) and c.get("sha256") == lock.sha256 for c in locks) else None


def _compare(home: Path, out: Path) -> dict[str, Any]:
    """Compare a folder of results with its study: the copied beginning of its ledger, and its results.

    Raises
    ------
    DynstatError
        P306, naming the entries that the study's ledger lacks or has otherwise, or where results.json is not
        what the last run wrote; F001.
    """
    if not (out / LEDGER).exists():
        raise DynstatError("F001", f"{LEDGER} does not exist", where=str(out / LEDGER))
    study, copy = read_ledger(home / LEDGER), read_ledger(out / LEDGER)
    first = next((i for i, e in enumerate(copy) if e["event"] in _OF_RESULTS), len(copy))
    common = copy[:first]
    lost = [e for i, e in enumerate(common) if i >= len(study) or study[i]["sha256"] != e["sha256"]]
    if lost:
        raise DynstatError(
            "P306",
            f"the study's ledger lacks what the copy in {out.name} began with",
            where=str(home / LEDGER),
            found=f"{len(study)} entries",
            expected=f"{len(common)} entries, as in {out / LEDGER}",
            problems=[f"entry {e['n']} ({e['event']} of {e['time']}) is missing or another" for e in lost],
            mend="restore the study's ledger: the copy holds the entries",
        )
    runs = _check_results(out, copy)
    return {"folder": str(out), "entries": len(common), "runs": runs}


def _check_results(out: Path, entries: list[dict[str, Any]]) -> int:
    """Check that results.json is what the last run wrote, and return the number of runs; raise P306."""
    runs = [e for e in entries if e["event"] == "run" and e.get("results_sha256")]
    results = out / "results.json"
    if runs and (not results.exists() or sha256_file(results) != runs[-1]["results_sha256"]):
        raise DynstatError(
            "P306",
            "results.json is not what the last run wrote",
            where=str(results),
            found=sha256_file(results)[:12] if results.exists() else "no file",
            expected=f"{runs[-1]['results_sha256'][:12]} (entry {runs[-1]['n']} of {LEDGER})",
            mend="run the study again",
        )
    return len(runs)
