"""The two records that are compared: what a lock says will be run, and what was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .deviations import Deviation, diff
from .libraries import library_versions
from .pointers import make

if TYPE_CHECKING:
    from .execute import Execution
    from .lock import Lock

_ANALYSIS = ("method", "outcome", "options", "seed")
_AS_LOCKED = "not before the lock"


def find_deviations(lock: Lock, run: Execution, folder: Path, timing: str, started: str) -> list[Deviation]:
    """Return every difference between a lock and a run under it.

    Parameters
    ----------
    lock : Lock
    run : Execution
    folder : Path
        Of the study, whose code is hashed again.
    timing : str
        Access level at the run, from the ledger.
    started : str
        UTC time of the run.
    """
    planned = frozenset(
        make(["analyses", name, "options", option]) for name, c in run.contingencies for option in c.changed
    )
    reasons = {make(["analyses", name]): why for name, why in run.failed.items()}
    reasons |= {make(["exploratory", name]): why for name, why in run.failed.items()}
    for name, (asked, met) in run.gates.items():
        reasons[make(["gates", name])] = f"gate {name}: {asked}, found {met}"
    found = diff(
        locked_record(lock),
        executed_record(lock, run, folder, started),
        planned=planned,
        reasons=reasons,
        timing=timing,
    )
    return [_behind_a_gate(d, run) for d in found]


def _behind_a_gate(d: Deviation, run: Execution) -> Deviation:
    """Note an analysis that could not run where a registered gate had already set all its claims aside."""
    lost = [make(["analyses", name]) for name in run.failed]
    if d.field not in lost or not d.affects or not set(d.affects) <= set(run.states):
        return d
    why = f"{d.reason}; registered gates had set aside every claim that rests on it"
    return replace(d, type="note", reason=why, registered_also=True)


def locked_record(lock: Lock) -> dict[str, Any]:
    """Return what a lock says will be run, in the shape of :func:`executed_record`."""
    plan, content = lock.plan, lock.content
    return {
        **{
            group: {name: {k: spec[k] for k in _ANALYSIS} for name, spec in plan[group].items()}
            for group in ("analyses", "exploratory")
        },
        "gates": {name: _asked(gate) for name, gate in plan["gates"].items()},
        "data": {"missing": {"max_fraction": plan["data"]["missing"]["max_fraction"]}},
        "registration": {"access": {"level": plan["registration"]["access"]["level"]}},
        "methods": list(content["methods"]),
        "metrics": list(content["metrics"]),
        "code": dict(content["code"]),
        "dynstat_version": content["dynstat_version"],
        "libraries": dict(content.get("libraries", {})),
        "git": {"dirty": False},
        "time": _AS_LOCKED,
        # Not compared, for they stand in both records: what the places bear upon.
        "hypotheses": plan["hypotheses"],
        "gate_hypotheses": {name: gate["hypotheses"] for name, gate in plan["gates"].items()},
    }


def executed_record(lock: Lock, run: Execution, folder: Path, started: str) -> dict[str, Any]:
    """Return what was run: options, seeds, gates, missing runs, code, versions, access, time."""
    from .. import __version__
    from ..registry import METHODS, METRICS
    from .study import code_hashes, has_plan

    plan, content = lock.plan, lock.content
    out = locked_record(lock)
    for group in ("analyses", "exploratory"):
        out[group] = {name: run.ran.get(name, "not run") for name in plan[group]}
    for name, (_, found) in run.gates.items():
        out["gates"][name] = str(found)
    allowed = plan["data"]["missing"]["max_fraction"]
    if run.missing_fraction > allowed:
        out["data"]["missing"]["max_fraction"] = round(run.missing_fraction, 3)
    out["registration"]["access"]["level"] = content["access"]["level"]
    out["methods"] = [m for m in content["methods"] if m in {e.id for e in METHODS}]
    out["metrics"] = [m for m in content["metrics"] if m in {e.id for e in METRICS}]
    if has_plan(folder):
        out["code"] = code_hashes(folder)
    out["dynstat_version"] = __version__
    here = library_versions()
    out["libraries"] = {name: here.get(name, "not installed") for name in out["libraries"]}
    out["git"]["dirty"] = bool(content["git"]["dirty"])
    # The clock of the lock may be another machine's: seconds are all that is compared.
    if started < str(content["time"]):
        out["time"] = f"{started}, the lock {content['time']}"
    return out


def _asked(gate: Mapping[str, Any]) -> str:
    if gate["check"] == "min_samples":
        return f"at least {gate['n']} samples a cell"
    return f"at least {gate['n']} {gate['unit']} labels"
