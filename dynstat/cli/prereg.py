"""`dynstat prereg`: start, check, lock, verify and show a study's plan."""

from __future__ import annotations

from pathlib import Path

import typer

from . import locks
from .output import emit

app = typer.Typer(help="Preregistration: plans, locks and the ledger.", no_args_is_help=True)

_STUDY = typer.Argument(..., help="A study: its name, its folder, or its plan file.")


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
    """Check a plan: keys, methods, rules, outcomes that can occur, resolution, prompts; arithmetic only."""
    from ..prereg.check import check_study, in_words

    found = check_study(study)
    emit(found, in_words(found))


@app.command("diagnose")
def diagnose(
    study: str = _STUDY,
    data: Path = typer.Option(..., "--data", help="Dataset of the plan's pilot prompts."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the numbers and leave the plan as it is."),
) -> None:
    """Run the plan on its pilot and write the standard errors to be expected into it."""
    from ..prereg.diagnose import diagnose as run
    from ..prereg.diagnose import in_words

    found = run(study, data, write=not dry_run)
    emit(found, in_words(found))


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a plan, with which editors complete and check it while it is written."""
    import json

    from ..prereg.schema import plan_schema

    found = plan_schema()
    emit(found, json.dumps(found, indent=2, ensure_ascii=False))


@app.command("show")
def show(target: str = typer.Argument(..., help="A study, a plan file, or one lock file.")) -> None:
    """Show what is registered: claims, rules with their numbers, SESOIs, gates."""
    from ..prereg.show import describe_plan, shown_plan

    content, head = shown_plan(target)
    emit(dict(content), describe_plan(content, head))


app.command("lock")(locks.lock)
app.command("amend")(locks.amend)
app.command("verify")(locks.verify)
app.command("proof")(locks.proof)
