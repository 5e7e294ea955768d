"""`report render`: run Quarto and believe its log, not its exit code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from dynstat.errors import DynstatError

FORMATS = {"html": ".html", "typst": ".pdf"}
# Quarto exits 0 although a reference stays unresolved or a warning was given; only its log says so.
_UNRESOLVED = re.compile(r"(?:unable to resolve|unresolved)[^\n]*", re.I)
_WARNING = re.compile(r"^\s*\[?(?:WARNING|WARN)\b[^\n]*", re.M)
# Three colons in a quoted text, which escaping has made harmless, are asked about all the same.
_HARMLESS = re.compile(r"string was found in the document: :::")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def find() -> str:
    """Return the path of Quarto: environment variable ``QUARTO``, else on the search path.

    Raises
    ------
    DynstatError
        R503 where there is none.
    """
    named = os.environ.get("QUARTO", "")
    found = shutil.which(named) if named else shutil.which("quarto")
    if found is None:
        raise DynstatError(
            "R503",
            "Quarto was not found",
            where=named or "the search path",
            expected="the program `quarto`",
            mend="install it from quarto.org, or name it in the environment variable QUARTO; report.qmd is "
            "complete without it",
        )
    return found


def complaints(log: str) -> list[str]:
    """Return what Quarto's log complains of: unresolved references, and every other warning.

    Examples
    --------
    >>> complaints("WARNING (main.lua:2) Unable to resolve crossref @tbl-x")
    ['Unable to resolve crossref @tbl-x']
    >>> complaints("[WARNING] Deprecated: x\\nOutput created: report.html")
    ['[WARNING] Deprecated: x']
    """
    found = [m[0].strip() for m in _UNRESOLVED.finditer(log)]
    for m in _WARNING.finditer(log):
        if not _UNRESOLVED.search(m[0]) and not _HARMLESS.search(m[0]):
            found.append(m[0].strip())
    return list(dict.fromkeys(found))


def render(out: Path, to: str = "html") -> Path:
    """Render ``report.qmd`` in the folder `out` and return the page.

    Raises
    ------
    DynstatError
        S404 for an unknown format; F001 without a report; R503 without Quarto; R501 where Quarto stops,
        warns or leaves a reference unresolved.
    """
    if to not in FORMATS:
        raise DynstatError("S404", f"no format is called {to!r}", expected=" | ".join(FORMATS))
    source = out / "report.qmd"
    if not source.is_file():
        raise DynstatError(
            "F001", "report.qmd does not exist", where=str(source), mend="run `dynstat report build`"
        )
    program = find()
    # In the report's own folder: from elsewhere the page differs by some bytes.
    run = subprocess.run(
        [program, "render", "report.qmd", "--to", to],
        cwd=out,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    log = _COLOUR.sub("", run.stdout)
    problems = complaints(log)
    if run.returncode or problems:
        what = f"Quarto stopped with exit code {run.returncode}" if run.returncode else "Quarto gave warnings"
        raise DynstatError(
            "R501",
            what,
            where=str(source),
            problems=problems or log.strip().splitlines()[-10:],
            mend="build the report anew with `dynstat report build`",
        )
    page = source.with_suffix(FORMATS[to])
    if not page.is_file():
        raise DynstatError("R501", f"Quarto ended well and wrote no {page.name}", where=str(out))
    return page
