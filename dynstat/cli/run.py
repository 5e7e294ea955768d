"""`dynstat run`: a registered study on data, from estimates to decisions and the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .output import emit, progress_bar, say

if TYPE_CHECKING:
    from ..prereg.run_result import RunResult

ROLES = ("panel",)


def run(
    study: str = typer.Argument(..., help="A study (its lock is found by the data), or a lock file."),
    data: str = typer.Option(..., "--data", help="[ROLE=]PATH of a dataset file or folder of shards."),
    out: Path = typer.Option(..., "-o", "--out", help="Folder for results and report."),
    jobs: int = typer.Option(1, "--jobs", "-j", min=1, help="Processes; the results are those of one."),
    scheduler: str = typer.Option("", "--scheduler", help="Address of a Dask scheduler to use instead."),
    deviate: Path | None = typer.Option(
        None, "--deviate", help="Declared deviations; what they change runs beside what was registered."
    ),
) -> None:
    """Run a study: estimates, decisions where a lock fits the data, results.json and the report."""
    found = run_to(study, role_path(data), out, jobs=jobs, scheduler=scheduler, deviate=deviate)
    emit(found, str(found["report"]))


def run_to(
    study: str | Path,
    data: Path,
    out: Path,
    *,
    jobs: int = 1,
    scheduler: str = "",
    deviate: Path | None = None,
) -> dict[str, Any]:
    """Run a study and write its report, telling on stderr what was decided; return what ``--json`` prints."""
    from ..prereg.run_result import ConfirmatoryResult
    from ..prereg.runner import run_study

    with progress_bar("run") as progress:
        result = run_study(study, data, out, progress, jobs=jobs, scheduler=scheduler, deviate=deviate)
    report = write_report(result)
    say(summary(result))
    return {
        "study": result.study,
        "stamp": result.stamp,
        "kept": result.kept,
        "out": str(result.out),
        "report": str(report),
        "decisions": (
            {h: list(o) for h, o in result.outcomes.items()} if isinstance(result, ConfirmatoryResult) else {}
        ),
    }


def role_path(text: str) -> Path:
    """Return the path of ``[ROLE=]PATH``; an existing path that holds an equals sign is a path."""
    from ..errors import DynstatError

    role, sign, path = text.partition("=")
    if not sign or Path(text).exists():
        return Path(text)
    if role not in ROLES:
        raise DynstatError(
            "S404",
            f"no data role is called {role!r}",
            found=text,
            expected=", ".join(ROLES),
            mend="write --data PATH",
        )
    return Path(path)


def write_report(result: RunResult) -> Path:
    """Build the report beside the results and note it in the ledger; a kept run keeps its report."""
    from dynstat.reports import build

    from ..files import sha256_file
    from ..prereg.ledger import append_entry

    report = result.out / "report.qmd"
    if result.kept and report.exists():
        return report
    report = Path(build(result.out))
    append_entry(result.out / "ledger.jsonl", "report", {"report_sha256": sha256_file(report)})
    return report


def summary(result: RunResult) -> str:
    """Return in words what a run decided."""
    from ..inference.rules import REASONS
    from ..prereg.run_result import ConfirmatoryResult

    lines = [f"{result.study}: {result.stamp.replace('_', ' ')}"]
    if result.kept:
        lines.append("the results of an equal run are there already: kept, nothing computed")
    if isinstance(result, ConfirmatoryResult):
        for h, (outcome, code) in result.outcomes.items():
            lines.append(f"{h}: {outcome.replace('_', ' ')} ({REASONS[code].partition(': ')[2]})")
    elif result.void:
        lines.append(f"the lock cannot decide ({result.void}): estimates only, no decisions")
    else:
        lines.append("no lock fits these data: estimates only, no decisions")
    undeclared = sum(d.must_be_declared for d in result.deviations)
    if undeclared:
        lines.append(
            f"{undeclared} deviation{'s' * (undeclared > 1)} not declared: `dynstat report check` fails "
            "until deviations.yaml beside the plan answers for it"
        )
    return "\n  ".join(lines)
