"""Where a result comes from: definitions, versions, commands, and the ledger in words."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..files import canonical_json
from ..registry import METHODS, METRICS
from .rows import Rows

if TYPE_CHECKING:
    import xarray as xr

    from .lock import Lock

# What of the extraction can move a value; times and hosts cannot.
EXTRACTION = ("torch", "transformers", "tokenizers", "gguf", "numpy", "device", "threads")
LIBRARIES = ("numpy", "scipy", "pandas", "xarray", "netCDF4", "formulaic")


def add_definitions(rows: Rows, plan: Mapping[str, Any]) -> None:
    """Add every metric and method that the plan uses, with what they are made from."""
    analyses = [*plan["analyses"].values(), *plan["exploratory"].values()]
    options = {
        a["outcome"]["metric"]: {k: v for k, v in a["outcome"].items() if k != "metric"}
        for a in analyses
        if a["outcome"]
    }
    wanted = list(options) + [m for a in analyses for m in METHODS.get(a["method"]).metrics]
    seen: list[str] = []
    while wanted:
        name = wanted.pop(0)
        if name not in METRICS or METRICS.get(name).id in seen:
            continue
        entry = METRICS.get(name)
        seen.append(entry.id)
        wanted += [i for i in entry.inputs if i in METRICS]
        used = options.get(entry.id) or {k: o.default for k, o in entry.options.items()}
        for field, value in (
            ("long_name", entry.long_name),
            ("origin", entry.origin),
            ("reference", entry.reference),
            ("formula", entry.formula),
            ("options", canonical_json(_jsonable(used)).decode() if used else ""),
        ):
            shown = in_words(used) if field == "options" else None
            rows.note(f"definition.{entry.id}.{field}", value, shown, metric=entry.id)
    for spec in {a["method"]: a for a in analyses}.values():
        method = METHODS.get(spec["method"])
        for field, value in (
            ("long_name", method.summary),
            ("origin", method.origin),
            ("reference", method.reference),
            ("formula", ""),
            ("options", canonical_json(spec["options"]).decode() if spec["options"] else ""),
        ):
            shown = in_words(spec["options"]) if field == "options" else None
            rows.note(f"definition.{method.id}.{field}", value, shown, method_id=method.id)


def event_words(entry: Mapping[str, Any]) -> str:
    """Return an entry of the ledger in words."""
    event = entry["event"]
    if event == "lock":
        return f"plan locked for panel {entry['name']} (lock {entry['lock_sha256'][:12]})"
    if event == "access":
        split = f" of split {entry['split']}" if entry.get("split") else ""
        return f"access to data{split}, level {entry['level']} (inputs {entry['inputs_sha256'][:12]})"
    if event == "bind":
        return f"data bound (content {entry['content_sha256'][:12]})"
    if event == "run":
        return f"run, {entry['stamp'].replace('_', ' ')}"
    if event == "failure":
        return f"run ended early: {entry.get('what', '')}"
    if event == "amend":
        return f"lock amended (lock {str(entry.get('lock_sha256', ''))[:12]})"
    return "proof of time attached" if event == "proof" else "report built"


def reproduction(
    plan: Mapping[str, Any], lock: Lock | None, data_name: str, deviated: bool = False
) -> list[str]:
    """Return the commands that make the results again; `deviated` where a declaration lies beside them."""
    # A file's name comes from outside, and commands are copied into shells.
    store = "STORE" if data_name in ("", "store") else shlex.quote(data_name)
    commands = [] if lock is None else [f"dynstat prereg verify {plan['id']}"]
    return [
        *commands,
        "dynstat extract PANEL.yaml -o STORE",
        f"dynstat run {plan['id']} --data {store} -o OUT"
        + (" --deviate deviations.yaml" if deviated else ""),
        "dynstat report build OUT",
    ]


def add_environment(rows: Rows, ds: xr.Dataset) -> None:
    """Add the versions of the libraries of this run and of the extraction."""

    rows.note("environment.dynstat", __version__)
    rows.note("environment.python", platform.python_version())
    for name in LIBRARIES:
        try:
            rows.note(f"environment.{name}", version(name))
        except PackageNotFoundError:
            continue
    for name, values in _extraction(str(ds.attrs.get("provenance", ""))).items():
        rows.note(f"environment.extraction.{name}", ", ".join(sorted(values)))


def _extraction(text: str) -> dict[str, set[str]]:
    """Return the versions and device of the extraction, from one record or a list of them, a shard each."""
    try:
        records = json.loads(text or "[]")
    except json.JSONDecodeError:
        return {}
    found: dict[str, set[str]] = {}
    for record in records if isinstance(records, list) else [records]:
        for name in EXTRACTION:
            if isinstance(record, dict) and name in record:
                found.setdefault(name, set()).add(str(record[name]))
    return found


def in_words(options: Mapping[str, Any]) -> str:
    """Return options as ``name: value, name: value``, which a table can break over lines.

    Examples
    --------
    >>> in_words({"layer": "last", "tokens": 48})
    'layer: last, tokens: 48'
    """
    shown = {
        k: v if isinstance(v, str) else canonical_json(_jsonable(v)).decode() for k, v in options.items()
    }
    return ", ".join(f"{k}: {v}" for k, v in shown.items())


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    return [_jsonable(v) for v in value] if isinstance(value, (list, tuple)) else value
