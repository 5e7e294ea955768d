"""`dynstat explain CODE`: what an error code means."""

from __future__ import annotations

import typer

from ..errors import CODES, DynstatError
from .output import emit


def explain(code: str = typer.Argument(..., help="An error code such as D102, or `all`.")) -> None:
    """Explain an error code: its meaning, its exit code and the way out."""
    wanted = sorted(CODES) if code == "all" else [code.upper()]
    if wanted[0] not in CODES:
        raise DynstatError("S404", f"no error code is called {code!r}", expected=", ".join(sorted(CODES)))
    rows = {
        c: {"title": CODES[c].title, "exit": int(CODES[c].exit), "text": CODES[c].explanation} for c in wanted
    }
    emit(rows, "\n".join(f"{c}  {r['title']} (exit {r['exit']})\n    {r['text']}" for c, r in rows.items()))
