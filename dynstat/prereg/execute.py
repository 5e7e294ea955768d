"""Carry out what a plan registers: leave out, check gates, run analyses, decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..inference.decision import Decision, decide_family
from ..parallel import each
from .contingencies import Analysed, Contingency, analyse
from .deviations import Deviation
from .flow import check_gate, leave_out
from .study import register_methods

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.estimate import Estimate
    from .lock import Lock

__all__ = ["Execution", "Progress", "analyse", "decide_all", "execute", "leave_out"]
Progress = Callable[[int, int, str], None]


@dataclass
class Execution:
    """What came of a plan on one dataset.

    Attributes
    ----------
    flow : list of (label, model or "", count)
        From what was found to what was analysed.
    estimates : mapping of analysis to mapping of key to Estimate
    failed : mapping of analysis to str
        Why an analysis gave no estimates.
    states : mapping of hypothesis to (state, reason code, why)
        Where a gate stands in place of a decision.
    gates : mapping of gate to (what it asks, what was found)
        Those that failed.
    missing_fraction : float
        Of the runs, after exclusions.
    ran : mapping of analysis to mapping
        Method, outcome, options and seed as executed, from what the estimates say of themselves.
    contingencies : list of (analysis, Contingency)
        Planned ones that were used.
    deviations : list of Deviation
        Filled by the runner.
    warnings : list of str
    """

    flow: list[tuple[str, str, int]] = field(default_factory=list)
    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    states: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    gates: dict[str, tuple[str, int]] = field(default_factory=dict)
    missing_fraction: float = 0.0
    ran: dict[str, dict[str, Any]] = field(default_factory=dict)
    contingencies: list[tuple[str, Contingency]] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def execute(
    plan: Mapping[str, Any],
    ds: xr.Dataset,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    only: frozenset[str] | None = None,
) -> Execution:
    """Run every analysis of an expanded plan on a dataset; what cannot be run is recorded, not raised.

    Parameters
    ----------
    plan : mapping
        The content of a plan, from a lock where there is one.
    ds : xarray.Dataset
    progress : callable, optional
        ``progress(done, total, what)`` after each analysis.
    folder : Path, optional
        Of the study, whose methods other processes must register too (:func:`dynstat.parallel.workers`).
    only : frozenset of str, optional
        The analyses to run; all by default.
    """
    out = Execution()
    ds = leave_out(plan, ds, out)
    for name, gate in plan["gates"].items():
        check_gate(name, gate, ds, out)
    analyses = {
        name: spec
        for name, spec in sorted({**plan["analyses"], **plan["exploratory"]}.items())
        if only is None or name in only
    }
    names = list(analyses)
    if progress:
        progress(0, len(names), names[0] if names else "")
    found = each(partial(_run, ds=ds, folder=folder), analyses.values())
    for done, (name, made) in enumerate(zip(names, found, strict=True), start=1):
        _note(out, name, analyses[name], made)
        if progress:
            progress(done, len(names), names[done] if done < len(names) else "done")
    return out


def decide_all(lock: Lock, run: Execution) -> dict[str, Decision]:
    """Decide every hypothesis of a lock in registration order; gates come first, then missing estimates."""
    estimates: dict[str, tuple[Estimate, ...]] = {}
    states = dict(run.states)
    for name, claim in lock.plan["hypotheses"].items():
        wanted = [(p["estimand"]["analysis"], p["estimand"]["quantity"]) for p in claim["parts"]]
        estimates[name] = tuple(run.estimates[a][q] for a, q in wanted if q in run.estimates.get(a, {}))
        lost = [(a, q) for a, q in wanted if q not in run.estimates.get(a, {})]
        if lost and name not in states:
            a, q = lost[0]
            code = "analysis_failed" if any(b in run.failed for b, _ in wanted) else "no_estimate"
            states[name] = ("not_run", code, run.failed.get(a, f"{a} gave no {q}"))
    return decide_family(lock, estimates, states)


def _run(spec: Mapping[str, Any], *, ds: xr.Dataset, folder: Path | None) -> Analysed:
    if not ds.sizes["prompt"]:
        return Analysed({}, failed="S402 no prompt is left to analyse")
    if folder is not None:
        register_methods(folder)
    return analyse(spec, ds)


def _note(out: Execution, name: str, spec: Mapping[str, Any], made: Analysed) -> None:
    out.contingencies += [(name, c) for c in made.contingencies]
    if made.failed:
        out.failed[name] = made.failed
        return
    out.estimates[name] = dict(made.estimates)
    out.warnings += [f"{name}: {text}" for text in made.warnings]
    out.ran[name] = {
        "method": _told(spec["method"], {e.method for e in made.estimates.values()}),
        "outcome": spec["outcome"],
        "options": dict(made.options),
        "seed": _told(spec["seed"], {e.seed for e in made.estimates.values() if e.seed is not None}),
    }


def _told(registered: Any, found: set[Any]) -> Any:
    """Return what the estimates say they were made with; what was registered where they say nothing else."""
    other = sorted(found - {registered})
    return registered if not other else other[0] if len(found) == 1 else ", ".join(map(str, other))
