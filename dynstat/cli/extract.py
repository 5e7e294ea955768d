"""`dynstat extract`: run a panel of models over prompts and store what they did."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DynstatError
from .output import emit, progress_bar, say


def extract(
    panel: Annotated[Path, typer.Argument(help="Panel file (panel.yaml).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for shards; a stopped run goes on there.")],
    lock: Annotated[
        list[Path] | None, typer.Option("--lock", help="Locked plan; needed for confirmation prompts.")
    ] = None,
    model_path: Annotated[
        list[str] | None,
        typer.Option("--model-path", metavar="ID=PATH", help="Folder or GGUF file of a model of the panel."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the estimate, and stop.")
    ] = False,
) -> None:
    """Run the models of a panel over its prompts and write metrics as labelled shards."""
    emit(*_summary(extract_to(panel, out, lock or (), _places(model_path or []), dry_run), dry_run))


def extract_to(
    panel: Path,
    out: Path,
    locks: Sequence[Path] = (),
    places: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Extract a panel into a folder, printing the estimate before and progress meanwhile.

    Returns
    -------
    dict
        ``panel``, ``inputs_sha256``, ``store``, ``runs``, ``shards`` in all and those ``written`` now.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise DynstatError(
                "X209", f"extraction needs {package}", mend="pip install 'dynstat[extraction]'"
            )
    from dynstat.extraction.panel import load_panel
    from dynstat.extraction.plan import Plan
    from dynstat.extraction.run import extract_panel as run

    plan = Plan(load_panel(panel).with_paths(places or {}))
    estimate = plan.estimate(out)
    say(f"{plan.panel.id}: {estimate}")
    if not dry_run:
        with progress_bar("extract") as progress:
            run(plan.panel, out, locks=locks, progress=progress, plan=plan)
    return {
        "panel": plan.panel.id,
        "inputs_sha256": plan.hash,
        "store": str(out),
        "runs": estimate.runs,
        "written": 0 if dry_run else estimate.missing,
        "shards": estimate.batches,
    }


def _summary(done: dict[str, Any], dry_run: bool) -> tuple[dict[str, Any], str]:
    if dry_run:
        return done, f"nothing written; {done['shards']} shards make the panel"
    return done, f"wrote {done['written']} of {done['shards']} shards to {done['store']}"


def _places(given: list[str]) -> dict[str, str]:
    out = {}
    for item in given:
        name, equals, place = item.partition("=")
        if not (name and equals and place):
            raise DynstatError("Y003", "--model-path needs ID=PATH", where="--model-path", found=item)
        out[name] = place
    return out
