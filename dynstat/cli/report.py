"""`dynstat report` commands: build, render, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import emit, say

app = typer.Typer(help="Write, render and check reports.", no_args_is_help=True)


@app.command("build")
def build(
    out: Annotated[
        Path, typer.Argument(metavar="OUT|RESULTS", help="A folder with results.json, or that file.")
    ],
) -> None:
    """Write report.qmd and its figures from results.json, then check them."""
    from dynstat import reports

    report = reports.build(out.parent if out.suffix == ".json" else out)
    lines = reports.check(report)
    emit({"report": str(report), "checked": lines}, f"{report}\n" + "\n".join(lines))


@app.command("render")
def render(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder with report.qmd.")],
    to: Annotated[str, typer.Option("--to", help="html, or typst for a PDF.")] = "html",
) -> None:
    """Render report.qmd with Quarto; a warning or unresolved reference in its log is an error."""
    from dynstat.reports import quarto

    page = quarto.render(out, to)
    say("rendered with Quarto; no warning, no reference unresolved")
    emit({"page": str(page)}, str(page))


@app.command("check")
def check(
    target: Annotated[
        Path, typer.Argument(metavar="OUT|FILE", help="A folder with a report, a .qmd or .html file.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="The dataset, or a folder with it: run what was locked once more and compare every value.",
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Relative tolerance of numbers that are recomputed.")
    ] = 1e-6,
) -> None:
    """Check a report against its results.json, and with --data these against the data."""
    from dynstat import reports
    from dynstat.reports import rerun

    lines = reports.check(target, data=data, tolerance=tolerance)
    if data is None and (beside := rerun.beside(target if target.is_dir() else target.parent)) is not None:
        say(f"results.json was not recomputed: `--data {beside}` runs what was locked on the data again")
    emit({"checked": lines}, "\n".join(lines))
