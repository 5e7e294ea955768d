"""What shows when a lock was made: from its maker's word alone to the time stamp of a third party."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .study import is_installed

if TYPE_CHECKING:
    from .lock import Lock

#: What each level is called wherever it is printed.
EVIDENCE = {
    "L0": "self-asserted",
    "L1": "git, local clock",
    "L2": "third-party copy",
    "L3": "third-party time",
}


def evidence(lock: Lock, path: Path) -> str:
    """Return the evidence level of a lock where it lies.

    Parameters
    ----------
    lock : Lock
    path : Path
        Its file. Within git, L1 needs the lock itself committed as it is; a proof stored beside it, whole and
        known to the ledger, raises the level to its own.

    Raises
    ------
    DynstatError
        P302 where a proof beside the lock was edited or is missing; P306.
    """
    from .proofs import proofs_of

    proved = [str(p["level"]) for p in proofs_of(lock, path)]
    return max([_of_git(lock, path), *proved])


def in_words(level: str) -> str:
    """Return ``L1 (git, local clock)``."""
    return f"{level} ({EVIDENCE[level]})"


def _of_git(lock: Lock, path: Path) -> str:
    if lock.content["evidence"] != "L1" or is_installed(path.parent):
        return str(lock.content["evidence"])
    status = git(path.parent, "status", "--porcelain", "--ignored", "--", path.name)
    return "L1" if status is None or not status.strip() else "L0"


def git_state(folder: Path) -> dict[str, Any]:
    """Return commit and dirty flag of the repository around a folder; both None where there is none."""
    commit = git(folder, "rev-parse", "HEAD")
    status = git(folder, "status", "--porcelain")
    if commit is None or status is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


def git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, None where it fails or is not there."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
