"""Results turned into a static Quarto document, and checked.

>>> import dynstat.reports                        # doctest: +SKIP
>>> dynstat.reports.build("OUT")                  # doctest: +SKIP
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["build", "check"]


def build(out: str | os.PathLike[str]) -> Path:
    """Write ``report.qmd`` and ``figures/`` from ``results.json`` in the folder `out`; return the report.

    Same results, same bytes. Every file is written whole or not at all.

    Raises
    ------
    DynstatError
        F001, F003, R502 where results.json is missing, unreadable or not whole; F002 where nothing can be
        written.
    """
    from .document import write

    return write(Path(out))


def check(
    target: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    tolerance: float = 1e-6,
) -> list[str]:
    """Check a report against its ``results.json``; return one line for each file and what was compared.

    Parameters
    ----------
    target : path
        A folder with ``report.qmd`` (and perhaps ``report.html``), or one of these files.
    data : path, optional
        The dataset, or a folder with the file that the results name: what was locked is run on it once more,
        and its values compared with those of results.json.
    tolerance : float
        Relative, for the numbers of that comparison.

    Raises
    ------
    DynstatError
        R501 with every problem found; F001, R502 where a file is missing or not readable; P303, P308 where
        the lock cannot be run on `data`.
    """
    from .lint import check as run

    return run(Path(target), None if data is None else Path(data), tolerance)
