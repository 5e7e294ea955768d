"""Metrics of the user's own: a Python file beside a panel that registers them, or functions of a session.

Nothing here imports numpy or torch: a panel is checked on machines that only read it.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from dynstat.dataset.schema import ALWAYS, COORDINATES, is_mark
from dynstat.errors import DynstatError
from dynstat.files import sha256_bytes
from dynstat.imports import imported
from dynstat.registry import METRICS, Metric

OF_STATES = ("states", "steps")
OF_LOGITS = ("logits", "next_logits", "final_logits", "next_token")
# What a value of the token may be made of beside states of all layers: the other two belong to one layer.
OF_LAST_LOGITS = ("final_logits", "next_token")
# What is hashed is the file alone, so it may lean on nothing of the user's beside it.
LIBRARIES = frozenset({"dynstat", "numpy", "scipy", "torch"}) | sys.stdlib_module_names
_SESSION = "dynstat_user_metrics_session"
# What is registered now by a file, and everything that was ever read, by the hash of the file.
_active: dict[Path, str] = {}
_known: dict[str, tuple[Metric, ...]] = {}


def register(file: Path, sha256: str = "") -> str:
    """Run a user's file of metrics, so that a panel can name them, and return the hash of the file.

    The file is imported under a name made of its hash, so that what is registered is what was hashed; a file
    that changed meanwhile replaces what it registered before.

    Parameters
    ----------
    file : Path
        Python that calls ``METRICS.add(Metric(...))`` of `dynstat.registry` and defines the functions.
    sha256 : str, optional
        Hash that the file had when its panel was read. Its functions of then are put back, so that a panel
        means the same until its end, whoever edits the file.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    DynstatError
        F001 (no such file), X222 (it cannot be imported, an entry is not one that can be measured, or the
        file is not the one that its panel was read with).
    """
    file = file.absolute()
    content, sha = (b"", sha256) if sha256 in _known else _read(file)
    if sha256 not in ("", sha):
        raise _fails(
            f"{file.name} changed since its panel was read",
            file,
            found=sha,
            expected=sha256,
            mend="put it back, or read the panel again: it is another panel now",
        )
    if _active.get(file) == sha:
        return sha
    old = _active.get(file, "")
    before = _known.get(old, ())
    forget(file)
    try:
        if sha in _known:
            for entry in _known[sha]:
                METRICS.add(entry)
        else:
            _known[sha] = _imported(file, content, f"dynstat_user_metrics_{sha[:12]}")
    except DynstatError:
        for entry in before:
            METRICS.add(entry)
            _active[file] = old
        raise
    _active[file] = sha
    return sha


def _read(file: Path) -> tuple[bytes, str]:
    try:
        content = file.read_bytes()
    except OSError as e:
        raise DynstatError("F001", f"{file.name} cannot be read: {e.strerror}", where=str(file)) from e
    return content, sha256_bytes(content)


def forget(file: Path) -> None:
    """Take out of the registry what a file has registered, unless another file of the same content has."""
    sha = _active.pop(file.absolute(), "")
    if sha not in _active.values():
        METRICS.discard(*_known.get(sha, ()))


def _imported(file: Path, content: bytes, name: str) -> tuple[Metric, ...]:
    _check_imports(file, content)
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module
    before = {m.id for m in METRICS}
    added: list[Metric] = []
    try:
        try:
            exec(compile(content, str(file), "exec"), vars(module))
        except DynstatError as e:  # as a name and version that are registered already
            raise _fails(f"{file.name} cannot be imported: {e.what}", e.where or file, mend=e.mend) from e
        except (Exception, SystemExit) as e:
            raise _fails(f"{file.name} cannot be imported: {type(e).__name__}: {e}", file) from e
        added = [m for m in METRICS if m.id not in before]
        METRICS.discard(*added)
        if not added:
            raise _fails(f"{file.name} registers no metric", file, expected="METRICS.add(Metric(...))")
        whole = [_checked(m, module, str(file)) for m in added]
        for entry in whole:
            METRICS.add(entry)
        return tuple(whole)
    except DynstatError:
        METRICS.discard(*(m for m in METRICS if m.id not in before))
        sys.modules.pop(name, None)
        raise


def _check_imports(file: Path, content: bytes) -> None:
    try:
        tree = ast.parse(content, str(file))
    except (SyntaxError, ValueError) as e:
        line = getattr(e, "lineno", None)
        raise _fails(f"{file.name} is not Python: {e}", f"{file}:{line}" if line else file) from None
    found = [f"line {line}: {n}" for line, n in imported(tree) if n.partition(".")[0] not in LIBRARIES]
    if found:
        raise _fails(
            f"{file.name} imports what its hash does not hold",
            file,
            found=", ".join(found),
            expected="the standard library, numpy, scipy, torch and dynstat",
            mend="write into the file what it needs: a panel is bound to the hash of this file alone",
        )


def _fails(what: str, where: object, **more: Any) -> DynstatError:
    return DynstatError(
        "X222", what, where=str(where), **({"mend": "docs/extraction.md shows a whole file"} | more)
    )


def _checked(metric: Metric, module: ModuleType, where: str) -> Metric:
    """Return an entry whose path leads into the module, or say everything that is wrong with it."""
    name = metric.path.rpartition(":")[2]
    function = getattr(module, name, None)
    problems = list(_faults(metric))
    if metric.path not in (name, f"{module.__name__}:{name}"):
        problems.append(f"path: {metric.path!r} leads out of the file; give the function's name")
    elif not callable(function):
        problems.append(f"path: there is no function {name!r}")
    else:
        problems += _misfits(metric, function)
    if problems:
        raise _fails(f"metric {metric.id!r}: {problems[0]}", where, problems=problems[1:])
    return replace(metric, path=f"{module.__name__}:{name}")


def _faults(metric: Metric) -> Iterator[str]:
    ours = {m.name for m in METRICS if m.origin != "user"}
    if not metric.name.isidentifier() or "__" in metric.name:
        yield "name: letters, digits and single _"
    elif metric.name in ours or metric.name in ALWAYS or metric.name in COORDINATES:
        yield "name: dynstat uses it"
    if isinstance(metric.version, bool) or not isinstance(metric.version, int) or metric.version < 1:
        yield "version: a whole number, at least 1"
    if metric.origin != "user":
        yield "origin: 'user'"
    if not metric.long_name or not metric.units or not metric.reference:
        yield "long_name, units ('1' where there are none) and reference: text"
    if metric.level not in ("layer", "token") or metric.dtype != "float32" or metric.flags:
        yield "level 'layer' or 'token', dtype 'float32' and no flags: a number for every point or token"
    inputs, of_logits = metric.inputs, OF_LAST_LOGITS if metric.level == "token" else OF_LOGITS
    if not inputs or len(set(inputs)) < len(inputs):
        yield f"inputs: at least one, each once, of {', '.join(OF_STATES + of_logits)}"
    elif not (set(inputs) <= set(OF_STATES) or set(inputs) <= set(of_logits)):
        yield f"inputs: of {', '.join(OF_STATES)}, or of {', '.join(of_logits)}, at level {metric.level!r}"
    if wrong := [mark for mark in metric.undefined if not is_mark(mark)]:
        yield f"undefined: {wrong[0]!r} is not a mark of docs/schema.md"
    if metric.level == "token" and "last_layer" in metric.undefined:
        yield "undefined: 'last_layer' is no mark of a value of the token"
    if "next_logits" in inputs and "last_layer" not in metric.undefined:
        yield "undefined: 'last_layer' belongs in it, since no layer follows the last"
    if "next_token" in inputs and "last_token" not in metric.undefined:
        yield "undefined: 'last_token' belongs in it, since no token follows the last"
    if "steps" in inputs and not any(m.startswith("first_tokens:") for m in metric.undefined):
        yield "undefined: 'first_tokens:1' belongs in it, since no step leads to the first token"
    if not metric.valid_min <= metric.valid_max:
        yield "valid_min: not above valid_max"


def _misfits(metric: Metric, function: Callable[..., Any]) -> Iterator[str]:
    try:
        inspect.signature(function).bind(*metric.inputs, **dict.fromkeys(metric.options))
    except TypeError as e:
        called = ", ".join((*metric.inputs, *(f"{o}=" for o in metric.options)))
        yield f"{function.__name__} cannot be called with ({called}): {e}"
    except ValueError:  # compiled functions may have no signature
        pass


def from_function(function: Callable[..., Any]) -> Metric:
    """Return the metric of a plain function: its parameters name its inputs, its first line what it is.

    Units are "1", the range has no bounds, and the value is undefined where an input is: what else there is
    to say takes a `Metric`.

    Raises
    ------
    DynstatError
        X222 where a parameter is no input.
    """
    name = getattr(function, "__name__", "")
    parameters = inspect.signature(function).parameters
    inputs = tuple(p.name for p in parameters.values() if p.default is p.empty)
    marks = {"steps": "first_tokens:1", "next_logits": "last_layer", "next_token": "last_token"}
    first = (inspect.getdoc(function) or name.replace("_", " ")).splitlines()[0].rstrip(".")
    return Metric(
        name=name,
        version=1,
        path=name,
        summary=first,
        origin="user",
        reference="the user's own function",
        long_name=first,
        inputs=inputs,
        undefined=tuple(marks[i] for i in inputs if i in marks),
    )


@contextmanager
def registered(metrics: Sequence[Metric | Callable[..., Any]]) -> Iterator[list[str]]:
    """Register metrics of a session for as long as a block runs; yields their names.

    A function may be defined again in a notebook, so nothing of it stays in the registry.

    Parameters
    ----------
    metrics : sequence of Metric or callable
        Functions are read as :func:`from_function` says. The path of a `Metric` may be ``module:function``.

    Raises
    ------
    DynstatError
        X222 (an entry that cannot be measured).
    """
    session = sys.modules.setdefault(_SESSION, ModuleType(_SESSION))
    added: list[Metric] = []
    try:
        for given in metrics:
            entry = given if isinstance(given, Metric) else from_function(given)
            function = given if not isinstance(given, Metric) else _resolved(entry)
            setattr(session, entry.name, function)
            entry = _checked(replace(entry, path=entry.name), session, f"metrics: {entry.name}")
            if entry.id in {m.id for m in METRICS}:
                raise _fails(
                    f"metric {entry.id!r} is registered already", entry.name, mend="raise the version"
                )
            added.append(METRICS.add(entry))
        yield [m.id for m in added]
    finally:
        METRICS.discard(*added)


def _resolved(metric: Metric) -> Callable[..., Any]:
    try:
        return metric.resolve()
    except Exception as e:
        raise _fails(
            f"metric {metric.id!r}: {metric.path!r} does not lead to a function: {type(e).__name__}: {e}",
            metric.id,
            expected="module:function",
        ) from e
