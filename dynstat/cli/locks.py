"""`dynstat prereg lock`, `amend`, `verify`, `proof`: what fixes a plan, and what shows that it was fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .output import emit

_STUDY = typer.Argument(..., help="A study: its name, its folder, or its plan.yaml.")
_PANEL = typer.Option(..., "--panel", help="Panel file whose prompts, weights and settings the lock binds.")
_NAME = typer.Option(..., "--name", help="Name of the lock: analyses/STUDY/NAME.lock.json.")


def lock(study: str = _STUDY, panel: Path = _PANEL, name: str = _NAME) -> None:
    """Lock a plan for a panel; the lock and the ledger beside it belong under version control."""
    from dynstat.extraction.panel import load_panel

    from ..prereg.lock import load_lock, lock_study

    path = lock_study(study, name, load_panel(panel).inputs())
    made = load_lock(path)
    evidence = made.content["evidence"]
    advice = (
        "commit the lock and the ledger now"
        if evidence == "L1"
        else ("the working tree was not clean: evidence stays self-asserted (L0)")
    )
    emit(
        {
            "file": str(path),
            "sha256": made.sha256,
            "plan_sha256": made.content["plan_sha256"],
            "inputs_sha256": made.inputs_sha256,
            "evidence": evidence,
            "access": made.content["access"]["level"],
        },
        f"locked {path} (sha256 {made.sha256[:12]}, evidence {evidence}, access "
        f"{made.content['access']['level']}); {advice}",
    )


def verify(target: str = typer.Argument(..., help="A study, or one lock file.")) -> None:
    """Verify locks against their hashes, the ledger and the code."""
    from ..prereg.verify import verify_study

    found = verify_study(target)
    emit(
        found,
        "\n".join(
            [
                f"{found['study']}: {len(found['locks'])} lock(s) and {found['ledger']} ledger entries hold",
                *(_row(r) for r in found["locks"]),
            ]
        ),
    )


def _row(row: dict[str, Any]) -> str:
    plan = {True: "changed since", False: "as locked", None: "not readable here"}[row["plan_changed"]]
    return (
        f"  {row['file']}: sha256 {row['sha256'][:12]}, {row['time']}, evidence {row['evidence']}, access "
        f"{row['access']}; plan.yaml {plan}; code {row['code']}"
    )
