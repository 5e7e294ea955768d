"""Recompute the results from the data: run what was locked once more, and compare value by value."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError

from .results import Results, Value, load

TOLERANCE = 1e-6
#: Two p-values both below this are alike, however many orders lie between them.
_TINY = 1e-9
_COMPARED = ("estimate.", "flow.", "multiverse.", "amended.", "data.n.", "contingency.", "notrun.")
_EXACT = ("data.content_hash", "plan.sha256", "lock.sha256")
# What depends on when and where the run was made, not on the data; so do notes on versions and amendments.
_PASSING = (".registration.time", ".registration.access")
_DECIDING = (".decision", ".outcome", ".reason_code")


def recompute(folder: Path, data: Path, tolerance: float = TOLERANCE) -> tuple[list[str], str]:
    """Run the lock beside the results on the data again; return the problems and a line on what was compared.

    Parameters
    ----------
    folder : Path
        With results.json, and plan.lock.json where the run was registered.
    data : Path
        The dataset, or a folder that holds the file which the results name.
    tolerance : float
        Relative, for numbers.

    Raises
    ------
    DynstatError
        Where the lock cannot be run on these data: P303 for other data, P308 for changed code.
    """
    from dynstat.prereg.runner import run_study

    results = load(folder)
    lock = folder / "plan.lock.json"
    target: str | Path = lock if lock.is_file() else str(results.raw("study.id"))
    source = found(results, data)
    with tempfile.TemporaryDirectory(prefix="dynstat-recompute-") as temporary:
        again = Path(temporary) / "out"
        declared = folder / "deviations.yaml"
        run_study(target, source, again, deviate=declared if declared.is_file() else None)
        problems, n = differences(results, load(again), tolerance)
    return problems, (
        f"results.json: {n:,} values recomputed from {source.name}, numbers within {tolerance:g} (relative), "
        f"{len(problems)} differ"
    )


def found(results: Results, data: Path) -> Path:
    """Return the dataset: `data` itself, or the file in this folder that the results name."""
    named = data / str(results.raw("data.path") or "")
    return named if data.is_dir() and named.is_file() else data


def beside(folder: Path) -> Path | None:
    """Return the dataset that lies beside the results under the name they give it, or None."""
    name = str(load(folder).raw("data.path") or "")
    return folder / name if name and (folder / name).is_file() else None


def differences(old: Results, new: Results, tolerance: float) -> tuple[list[str], int]:
    """Return a problem for every value that the new run gives otherwise, and the number of values."""
    if not 0 <= tolerance < 1:
        raise DynstatError("S404", "a tolerance lies between 0 and 1", found=tolerance)
    worse, rest, n = [], [], 0
    for value in old:
        if not _is_compared(value):
            continue
        n += 1
        other = new.get(value.key)
        if other is None:
            rest.append(f"recomputed: {value.key} is {value.formatted!r} and has no value now")
        elif not alike(value.raw, other.raw, tolerance):
            words = f"{value.key} is {_words(value)}, from the data it is {_words(other)}"
            if value.key.endswith(_DECIDING):
                worse.append(f"DECISION MISMATCH recomputed: {words}")
            else:
                rest.append(f"recomputed: {words}")
    return worse + rest, n


def alike(a: Any, b: Any, tolerance: float) -> bool:
    """Return whether two raw values are the same, numbers up to a relative tolerance.

    Examples
    --------
    >>> alike(1.0, 1.0 + 1e-9, 1e-6), alike(0.5, 0.51, 1e-6), alike(1e-20, 1e-16, 1e-6), alike("a", None, 0.0)
    (True, False, True, False)
    """
    if not (_is_number(a) and _is_number(b)):
        return type(a) is type(b) and bool(a == b)
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=_TINY)


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def _is_compared(value: Value) -> bool:
    if value.key in _EXACT:
        return True
    if value.key.endswith(_PASSING) or ".flags" in value.key:
        return False
    return value.key.startswith(_COMPARED) or "hypothesis" in value.groups


def _words(value: Value) -> str:
    return repr(value.raw) if _is_number(value.raw) else repr(value.formatted)
