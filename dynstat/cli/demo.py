"""`dynstat demo`: the whole road on the embedded panel."""

from __future__ import annotations

from pathlib import Path

import typer

from .output import emit, progress_bar, say


def demo(
    out: Path = typer.Option(..., "-o", "--out", help="Folder for data, results and report."),
) -> None:
    """Extract the embedded panel, run the registered study on it, and write the report.

    Six small models read and continue 72 prompts; the study `conditional_signatures` is run under its
    committed lock. A second run goes on where the first stopped and does nothing twice.
    """
    from .. import data_path, study_path
    from .extract import extract_to
    from .run import run_to

    store, data = out / "store", out / "panel.nc"
    extract_to(data_path("panels/demo.yaml"), store)
    combine_store(store, data)
    summary = run_to(study_path("conditional_signatures/demo-2.lock.json"), data, out)
    emit(summary | {"out": str(out)}, f"{out / 'report.qmd'}\nread it: quarto render {out / 'report.qmd'}")


def combine_store(store: Path, target: Path) -> None:
    """Combine the shards of a store into one file, unless the file already holds just these shards."""
    import dynstat

    from ..dataset.io import shard_names

    names = shard_names(store)
    if target.exists() and dynstat.open(target).attrs.get("shards") == names:
        say(f"{target} is up to date")
        return
    with progress_bar("combine") as progress:
        progress(0, 1, "shards")
        ds = dynstat.open(store)
        ds.attrs["shards"] = names
        dynstat.save(ds, target)
        progress(1, 1, "shards")
