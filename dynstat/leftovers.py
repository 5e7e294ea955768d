"""Temporary files say whose they are, so that those of dead processes can be told from those of live ones."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

# Whoever wrote it, a file is left over when nobody has written to it for so long: writing one takes seconds,
# and who is so late fails clean, since the name he would rename is gone.
STALE_SECONDS = 24 * 3600.0
_NAME = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[^.]*(\.[^.]*)?")


def mark() -> str:
    """Return the words in a temporary name that say whose it is: machine and process."""
    return f"{_machine()}-{os.getpid()}"


def leftovers(folder: str | os.PathLike[str], target: str = "") -> list[Path]:
    """List the temporary files in a folder whose writers are dead.

    A writer on this machine is dead when no process has its number. Of one elsewhere, or whose number went to
    another process, only silence tells: nothing written for `STALE_SECONDS`.

    Parameters
    ----------
    folder : path
    target : str, optional
        Only those that were to become a file of this name.

    Returns
    -------
    list of Path
        Sorted by name.
    """
    start = f".{Path(target).stem}." if target else "."
    return sorted(p for p in Path(folder).glob(".*") if p.name.startswith(start) and _is_dead(p))


def remove_leftovers(folder: str | os.PathLike[str], target: str = "") -> list[str]:
    """Remove the temporary files of dead writers, and return their names; several may do so at once."""
    gone = []
    for path in leftovers(folder, target):
        # In a folder that is shared, those of others may not be ours to remove; they do no harm.
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
            gone.append(path.name)
    return gone


def _is_dead(path: Path) -> bool:
    found = _NAME.fullmatch(path.name)
    if found is None:
        return False
    if found[1] == _machine() and not _lives(int(found[2])):
        return True
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:  # renamed or removed meanwhile
        return False


def _lives(process: int) -> bool:
    if os.name == "nt":  # there os.kill ends the process that it asks after
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@cache
def _machine() -> str:
    """Name what a process number belongs to: the host since its last start, and the container on it."""
    parts = [platform.node()]
    for source in (_boot, _namespace):
        try:
            parts.append(source())
        except OSError:
            continue
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:8]


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")
