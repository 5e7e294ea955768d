"""What else a study's ledger holds for the same inputs: other locks, and other data that were run before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .admission import accesses_to
from .chains import chain_of, find_locks
from .deviations import Deviation, classify
from .lock import Lock


def rivals(lock: Lock, folder: Path, entries: Sequence[Mapping[str, Any]]) -> list[Deviation]:
    """Return a note for every other lock of the same inputs, also where its file is gone.

    Locks that this one amends, and those that amend it and lie in the folder, are told elsewhere.

    Parameters
    ----------
    lock : Lock
        The one that is run.
    folder : Path
        Of the study.
    entries : sequence of mapping
        Of the study's ledger.
    """
    here = {other.sha256: other for _, other in find_locks(folder)}
    told = {link.sha256 for link in chain_of(folder, lock)}
    told |= {other.sha256 for other in here.values() if other.parent == lock.sha256}
    out = []
    for entry in entries:
        if entry["event"] != "lock" or entry.get("inputs_sha256") != lock.inputs_sha256:
            continue
        sha256 = str(entry.get("lock_sha256"))
        if sha256 in told:
            continue
        gone = "" if sha256 in here else "; its file is gone"
        out.append(
            Deviation(
                f"/locks/{entry.get('name')}",
                f"lock {lock.sha256[:12]} ({lock.name})",
                f"not run: lock {sha256[:12]} ({entry.get('name')}) of {entry['time']}{gone}",
                "auto",
                *classify("/locks/"),
                timing=str(lock.content["access"]["level"]),
            )
        )
    return out


def other_data(lock: Lock, content_sha256: str, entries: Sequence[Mapping[str, Any]]) -> list[Deviation]:
    """Return a deviation where the first data that were run of these inputs were not those of this run.

    Data that are extracted twice differ in their last digits on another machine, and data that were changed
    differ too. No hash tells the two apart, so the authors have to.

    Parameters
    ----------
    lock : Lock
    content_sha256 : str
        Of the data of this run.
    entries : sequence of mapping
        Of the study's ledger.
    """
    seen = [e["content_sha256"] for e in accesses_to(entries, lock.inputs_sha256) if "content_sha256" in e]
    if not seen or seen[0] == content_sha256:
        return []
    return [
        Deviation(
            "/data/content",
            f"data {seen[0][:12]}, which were run first",
            f"data {content_sha256[:12]}",
            "auto",
            *classify("/data/content"),
            timing="outcomes",
            affects=tuple(lock.plan["hypotheses"]),
        )
    ]
