"""Verify a study: its locks, its ledger, its code, and whether the plan still is what was locked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DynstatError
from .ledger import read_ledger
from .lock import SUFFIX, check_executable, evidence, find_locks, load_lock
from .plan import load_plan
from .study import find_study


def verify_study(target: str | Path) -> dict[str, Any]:
    """Verify one lock, or all locks of a study, against their hashes, the ledger and the code.

    Returns
    -------
    dict
        ``locks`` (name, file, sha256, time, evidence, access, plan_changed, code: "as locked" or the
        differences) and ``ledger`` (number of entries). A changed plan or code is told, not an error: an old
        lock stays valid.

    Raises
    ------
    DynstatError
        P302 (edited lock), P306 (broken ledger, or one that lacks a lock), P304 (nothing is locked), F001.
    """
    path = Path(target)
    single = path.is_file() and path.name.endswith(SUFFIX)
    folder = path.parent if single else find_study(target)
    locks = [(path, load_lock(path))] if single else find_locks(folder)
    if not locks:
        raise DynstatError(
            "P304",
            "the study has no lock",
            where=str(folder),
            mend="`dynstat prereg lock STUDY --panel PANEL.yaml --name NAME`",
        )
    entries = read_ledger(folder / "ledger.jsonl")
    known = {e.get("lock_sha256") for e in entries if e["event"] == "lock"}
    rows = []
    for file, lock in locks:
        if lock.sha256 not in known:
            raise DynstatError(
                "P306",
                f"the ledger does not know {file.name}",
                where=str(folder / "ledger.jsonl"),
                found=f"{len(known)} locks",
                expected="an entry for every lock",
                mend="restore the ledger from git",
            )
        rows.append(
            {
                "name": lock.name,
                "file": file.name,
                "sha256": lock.sha256,
                "time": lock.content["time"],
                "evidence": evidence(lock, file),
                "access": lock.content["access"]["level"],
                "plan_changed": _plan_changed(folder, lock.content["plan_sha256"]),
                "code": _code(lock, folder),
            }
        )
    return {"study": str(locks[0][1].content["study"]), "locks": rows, "ledger": len(entries)}


def _plan_changed(folder: Path, stated: str) -> bool | None:
    try:
        return load_plan(folder).sha256 != stated
    except DynstatError:
        return None


def _code(lock: Any, folder: Path) -> str:
    if not (folder / "plan.yaml").exists():
        return "not here: this is a copy"
    try:
        check_executable(lock, folder)
    except DynstatError as e:
        return "; ".join(e.problems)
    return "as locked"
