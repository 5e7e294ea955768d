"""`dynstat prereg` commands."""

from __future__ import annotations

import typer

app = typer.Typer(help="prereg", no_args_is_help=True)
