"""`dynstat prereg`: start, check, lock, verify and show a study's plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .output import emit

app = typer.Typer(help="Preregistration: plans, locks and the ledger.", no_args_is_help=True)

_STUDY = typer.Argument(..., help="A study: its name, its folder, or its plan.yaml.")
_PANEL = typer.Option(..., "--panel", help="Panel file whose prompts, weights and settings the lock binds.")
_NAME = typer.Option(..., "--name", help="Name of the lock: analyses/STUDY/NAME.lock.json.")


@app.command("new")
def new(folder: Path = typer.Argument(..., help="Folder to make; its name becomes the study's id.")) -> None:
    """Start a study: a plan that passes the check, to be rewritten."""
    from ..prereg.template import new_study

    made = new_study(folder)
    emit(
        {"folder": str(made)},
        f"wrote {made / 'plan.yaml'} and analysis.py; rewrite every text, then check it",
    )


@app.command("check")
def check(study: str = _STUDY) -> None:
    """Check a plan: keys, methods, options, rules, prompts; lists every problem with its line."""
    from ..prereg.check import check_study

    found = check_study(study)
    emit(
        found,
        "\n".join(
            [
                f"{found['id']}: the plan is valid (sha256 {found['sha256'][:12]})",
                f"  {found['m']} hypotheses ({', '.join(found['hypotheses'])}), alpha {found['alpha']:g}: "
                f"each of the {2 * found['m']} tests at {found['level']:.4g}",
                f"  {found['prompts']['n']} prompts (split {found['prompts']['split']}), "
                f"{found['pilot']['n']} pilot prompts, disjoint",
            ]
        ),
    )


@app.command("lock")
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


@app.command("verify")
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


@app.command("show")
def show(target: str = typer.Argument(..., help="A study, a plan.yaml, or one lock file.")) -> None:
    """Show what is registered: claims, rules with their numbers, SESOIs, gates."""
    from ..prereg.show import describe_plan, shown_plan

    content, head = shown_plan(target)
    emit(dict(content), describe_plan(content, head))
