"""What every command prints with: data to stdout, words to stderr, progress that can be watched."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from ..errors import DynstatError

_json = False


def json_mode(on: bool) -> None:
    """Switch the output of :func:`emit` to JSON."""
    global _json
    _json = on


def emit(value: Mapping[str, Any], text: str) -> None:
    """Print `value` as JSON under ``--json``, else `text`."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False) if _json else text)


def say(text: str) -> None:
    """Print a message to stderr."""
    typer.echo(text, err=True)


def emit_error(error: DynstatError) -> None:
    """Print an error: JSON to stdout under ``--json``, else its lines to stderr."""
    if _json:
        typer.echo(json.dumps({"error": error.as_dict()}, indent=2, ensure_ascii=False))
    else:
        say(f"{error}\n  more:      dynstat explain {error.code}")


def emit_failure(code: str, what: str, exit_code: int) -> None:
    """Print a failure that no code of the table stands for, under ``--json`` only (words: stderr)."""
    if _json:
        typer.echo(json.dumps({"error": {"code": code, "what": what, "exit": int(exit_code)}}, indent=2))


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield ``progress(done, total, what)``: a bar on a terminal, a line every tenth elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=None)

            def update(done: int, total: int, what: str) -> None:
                bar.update(task, completed=done, total=total, description=f"{title}: {what}")

            yield update
        return
    state = {"tenth": -1, "start": time.monotonic()}

    def line(done: int, total: int, what: str) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > state["tenth"]:
            state["tenth"] = tenth
            say(f"{title}: {done} of {total} ({what}), {time.monotonic() - state['start']:.0f} s")

    yield line
