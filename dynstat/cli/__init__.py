"""The command line: each verb group in a file of its own; commands parse, call and print."""

from __future__ import annotations

import sys
import traceback

import typer

from ..errors import DynstatError, ExitCode
from . import data, demo, explain, extract, prereg, report, run
from .output import emit_error, emit_failure, json_mode, say

INTERRUPTED = 130

app = typer.Typer(
    name="dynstat",
    help="Statistics for the internal dynamics of language models: extract, analyse, report.\n\n"
    "`--json` anywhere prints the result as JSON; messages go to stderr. "
    "Exit codes: 0 done (also when a claim is rejected), 1 a check failed, 2 usage, 3 lock or data changed, "
    "4 not locked, 5 unreadable input, 70 internal.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


app.command("extract")(extract.extract)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("explain")(explain.explain)
app.add_typer(data.app, name="data")
app.add_typer(prereg.app, name="prereg")
app.add_typer(report.app, name="report")


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with a code of :class:`dynstat.errors.ExitCode`."""
    args = list(sys.argv[1:] if argv is None else argv)
    json_mode("--json" in args)
    args = [a for a in args if a != "--json"]
    try:
        app(args=args, standalone_mode=True)
    except DynstatError as e:
        emit_error(e)
        sys.exit(int(e.exit))
    except SystemExit as e:
        _leave(e)
    except Exception as e:  # a fault of dynstat: its own exit code, so that no script takes it for a check
        traceback.print_exc()
        emit_failure("internal", f"{type(e).__name__}: {e}", ExitCode.INTERNAL)
        sys.exit(int(ExitCode.INTERNAL))


def _leave(stop: SystemExit) -> None:
    """Leave with the code of `stop`, after what typer has caught and left unsaid."""
    cause = stop.__context__
    if isinstance(cause, BrokenPipeError):  # the reader of a pipe has seen enough
        sys.exit(int(ExitCode.OK))
    if stop.code == INTERRUPTED:
        words = "stopped; what was finished is kept, run the same command to go on"
        say(words)
        emit_failure("interrupted", words, INTERRUPTED)
    elif stop.code == ExitCode.USAGE and (usage := getattr(cause, "format_message", None)):
        emit_failure("usage", usage(), ExitCode.USAGE)
    sys.exit(stop.code)
