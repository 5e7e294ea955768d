"""Confirmation prompts: read under a lock only, and every reading is written down."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError

from .panel import Panel, panel_hash

SPLIT = "confirmation"
LEDGER = "ledger.jsonl"
LEDGER_FILES = (LEDGER, "ledger.head")


def admit(
    panel: Panel, inputs: Mapping[str, Any], store: Path, locks: Sequence[str | os.PathLike[str]]
) -> None:
    """Let a panel of confirmation prompts pass if locked plans bind it, and write the access down.

    The entry goes into the ledger of each lock's study; where the study lies in the installed package,
    which nothing writes into, into the ledger of the store.

    Parameters
    ----------
    panel : Panel
        It reads prompts of split ``confirmation``.
    inputs : mapping
        What a lock must bind.
    store : Path
        Where the shards go.
    locks : sequence of path
        At least one; all of them must bind these inputs.

    Raises
    ------
    DynstatError
        X211 (no lock, or one of other inputs), P302 (an edited lock), P306 (an edited ledger).
    """
    from dynstat.prereg.ledger import append_entry, read_ledger
    from dynstat.prereg.lock import load_lock
    from dynstat.prereg.study import is_installed

    found = panel_hash(inputs)
    if not locks:
        raise _no_lock(panel, "no lock", "give the locked plans that will use the data: --lock LOCK")
    loaded = [(Path(path).absolute(), load_lock(Path(path))) for path in locks]
    for path, lock in loaded:
        if lock.inputs_sha256 != found:
            raise _no_lock(
                panel,
                f"{path.name} binds other inputs ({lock.inputs_sha256[:16]})",
                f"lock the plan for this panel, whose inputs are {found[:16]}",
            )
    ledgers = [store / LEDGER if is_installed(path.parent) else path.parent / LEDGER for path, _ in loaded]
    for ledger in ledgers:
        read_ledger(ledger)
    for (_, lock), ledger in zip(loaded, ledgers, strict=True):
        ledger.parent.mkdir(parents=True, exist_ok=True)
        append_entry(ledger, "access", {
            "study": str(lock.content["study"]),
            "lock_sha256": lock.sha256,
            "inputs_sha256": found,
            "level": "outcomes",
            "action": "extract",
        })  # fmt: skip


def check_running_text(file: Path) -> Path:
    """Refuse a table of prompts where text is read without a lock: to calibrate, or to train translators.

    Raises
    ------
    DynstatError
        F001, Y003.
    """
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as f:
            names = {name.strip() for name in next(csv.reader([f.readline()]), [])}
    except OSError as e:
        raise DynstatError("F001", f"{file.name} cannot be read: {e.strerror}", where=str(file)) from e
    if {"id", "text"} <= names:
        raise DynstatError(
            "Y003",
            "a table of prompts is no running text",
            where=str(file),
            found=f"columns {', '.join(sorted(names))}",
            expected="running text, such as data:texts/held_out.txt",
            mend="name a text; prompts, and those of split confirmation above all, are read by a panel",
        )
    return file


def _no_lock(panel: Panel, found: str, mend: str) -> DynstatError:
    return DynstatError(
        "X211",
        "confirmation prompts are read under a lock only",
        where=str(panel.file),
        found=found,
        expected="locks that bind this panel's inputs",
        mend=mend,
    )
