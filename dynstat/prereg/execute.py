"""Carry out what a plan registers: leave out, check gates, run analyses, decide."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DynstatError, DynstatWarning
from ..inference.decision import Decision, decide, withhold
from ..registry import METHODS

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.estimate import Estimate
    from .lock import Lock

Progress = Callable[[int, int, str], None]
_COMPARE = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal}


@dataclass(frozen=True)
class Deviation:
    """One difference between what was registered and what was executed, found automatically.

    Attributes
    ----------
    field : str
        JSON pointer into the plan or the lock.
    type : {"note", "gate", "not_run"}
        A note changes no decision; the others name why one is missing.
    affects : tuple of str
        Ids of the hypotheses.
    """

    field: str
    registered: str
    executed: str
    type: str
    reason: str
    affects: tuple[str, ...] = ()


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
    """

    flow: list[tuple[str, str, int]] = field(default_factory=list)
    estimates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    states: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    deviations: list[Deviation] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def execute(plan: Mapping[str, Any], ds: xr.Dataset, progress: Progress | None = None) -> Execution:
    """Run every analysis of an expanded plan on a dataset; what cannot be run is recorded, not raised.

    Parameters
    ----------
    plan : mapping
        The content of a plan, from a lock where there is one.
    ds : xarray.Dataset
    progress : callable, optional
        ``progress(done, total, what)`` after each analysis.
    """
    out = Execution()
    ds = leave_out(plan, ds, out)
    for name, gate in plan["gates"].items():
        _gate(name, gate, ds, out)
    analyses = {**plan["analyses"], **plan["exploratory"]}
    for done, (name, spec) in enumerate(sorted(analyses.items())):
        if progress:
            progress(done, len(analyses), name)
        try:
            out.estimates[name], told = _analyse(spec, ds)
            out.warnings += [f"{name}: {text}" for text in told]
        except DynstatError as e:
            out.failed[name] = f"{e.code} {e.what}"
            if name in plan["analyses"]:
                out.deviations.append(
                    Deviation(
                        f"/analyses/{name}",
                        spec["method"],
                        "not run",
                        "not_run",
                        out.failed[name],
                        tuple(
                            h
                            for h, c in plan["hypotheses"].items()
                            if any(p["estimand"]["analysis"] == name for p in c["parts"])
                        ),
                    )
                )
    if progress:
        progress(len(analyses), len(analyses), "done")
    return out


def decide_all(lock: Lock, run: Execution) -> dict[str, Decision]:
    """Decide every hypothesis of a lock in registration order; gates come first, then missing estimates."""
    out = {}
    for name, claim in sorted(lock.plan["hypotheses"].items(), key=lambda item: item[1]["order"]):
        wanted = [(p["estimand"]["analysis"], p["estimand"]["quantity"]) for p in claim["parts"]]
        found = [run.estimates[a][q] for a, q in wanted if q in run.estimates.get(a, {})]
        if name in run.states:
            state, code, why = run.states[name]
            out[name] = withhold(lock, name, state, code, why, found if state == "not_testable" else ())
        elif len(found) < len(wanted):
            lost = [
                run.failed.get(a, f"{a} gave no {q}") for a, q in wanted if q not in run.estimates.get(a, {})
            ]
            failed = any(a in run.failed for a, _ in wanted)
            out[name] = withhold(
                lock, name, "not_run", "analysis_failed" if failed else "no_estimate", lost[0]
            )
        else:
            out[name] = decide(lock, name, found)
    return out


def _analyse(spec: Mapping[str, Any], ds: xr.Dataset) -> tuple[dict[str, Estimate], list[str]]:
    """Return the estimates of an analysis and what it warned of, which belongs into the results."""
    method = METHODS.get(spec["method"])
    function = method.resolve()
    outcome = dict(spec["outcome"]) if spec["outcome"] else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DynstatWarning)
        estimates = dict(function(ds, outcome=outcome, seed=int(spec["seed"]), **spec["options"]))
    for w in caught:
        if not issubclass(w.category, DynstatWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    return estimates, [str(w.message) for w in caught if issubclass(w.category, DynstatWarning)]


def leave_out(plan: Mapping[str, Any], ds: xr.Dataset, out: Execution) -> xr.Dataset:
    """Leave out prompts by the plan's exclusions and missing rule, and note the flow."""
    _count(out, "found: runs", ds, np.ones(_shape(ds), dtype=bool))
    keep = np.ones(ds.sizes["prompt"], dtype=bool)
    missing = _missing_runs(ds)
    for name, rule in sorted(plan["data"]["exclusions"].items()):
        variable, sign, value = re.split(" ", rule["where"])
        # A missing run holds fill values, which must not meet an exclusion by accident.
        met = _COMPARE[sign](_run_values(ds, variable), float(value)) & ~missing
        dropped = met.any(axis=(0, 2)) & keep
        keep &= ~dropped
        out.flow.append((f"excluded by {name} ({rule['where']}): prompts", "", int(dropped.sum())))
    missing |= _without_outcome(plan, ds)
    dropped = missing.any(axis=(0, 2)) & keep
    policy = plan["data"]["missing"]
    fraction = float(missing[:, keep].mean()) if keep.any() else 0.0
    keep &= ~dropped
    out.flow.append(
        ("left out whole, since a run is missing or has no outcome: prompts", "", int(dropped.sum()))
    )
    if fraction > policy["max_fraction"]:
        every = tuple(plan["hypotheses"])
        why = f"{fraction:.3f} of the runs are missing, at most {policy['max_fraction']} are allowed"
        out.states.update({h: ("inadmissible", "too_much_missing", why) for h in every})
        out.deviations.append(
            Deviation(
                "/data/missing/max_fraction",
                str(policy["max_fraction"]),
                f"{fraction:.3f}",
                "gate",
                why,
                every,
            )
        )
    ds = ds.isel(prompt=np.flatnonzero(keep))
    _count(out, "analysed: runs", ds, np.ones(_shape(ds), dtype=bool))
    return ds


def _count(out: Execution, label: str, ds: xr.Dataset, runs: np.ndarray) -> None:
    counts = [int(n) for n in runs.sum(axis=(1, 2))]
    if len(set(counts)) <= 1:
        out.flow.append((label, "", sum(counts)))
    else:
        out.flow.extend((label, str(m), n) for m, n in zip(ds["model"].values, counts, strict=True))


def _shape(ds: xr.Dataset) -> tuple[int, int, int]:
    return ds.sizes["model"], ds.sizes["prompt"], ds.sizes["sample"]


def _run_values(ds: xr.Dataset, name: str) -> np.ndarray:
    if name not in ds:
        raise DynstatError("D103", f"an exclusion needs {name}, which the dataset lacks", where=name)
    return np.asarray(ds[name].transpose("model", "prompt", "sample").values)


def _missing_runs(ds: xr.Dataset) -> np.ndarray:
    """Return, for every run, whether it was not extracted or holds a point that is not finite."""
    from ..dataset.schema import NONFINITE, NOT_EXTRACTED, OK, TRUNCATED

    if "quality" not in ds:
        raise DynstatError(
            "D103",
            "the dataset has no variable `quality`",
            where="quality",
            mend="a panel written by `dynstat extract` has it",
        )
    quality = ds["quality"].transpose("model", "prompt", "sample", ...).values
    quality = quality.reshape(*quality.shape[:3], -1)
    there = np.isin(quality, (OK, TRUNCATED)).any(axis=-1)
    return np.asarray(~there | np.isin(quality, (NONFINITE, NOT_EXTRACTED)).any(axis=-1))


def _without_outcome(plan: Mapping[str, Any], ds: xr.Dataset) -> np.ndarray:
    """Return, for every run, whether a registered outcome has no value, as where a run is too short for it.

    A method would leave such runs out without a word, and so decide on those that happen to have a value.
    """
    from ..metrics.labelled import run_metric

    out = np.zeros(_shape(ds), dtype=bool)
    for spec in plan["analyses"].values():
        try:
            values = run_metric(ds, spec["outcome"]) if spec["outcome"] else None
        except DynstatError:  # no metric of runs, or a variable is missing: the analysis itself will tell
            continue
        if values is not None and set(values.dims) == {"model", "prompt", "sample"}:
            out |= ~np.isfinite(values.transpose("model", "prompt", "sample").values)
    return out


def _gate(name: str, gate: Mapping[str, Any], ds: xr.Dataset, out: Execution) -> None:
    if gate["check"] == "min_samples":
        there = ~_missing_runs(ds)
        found = int(there.sum(axis=2).min()) if there.size else 0
        wanted = f"at least {gate['n']} samples a cell"
    else:
        unit = gate["unit"]
        found = ds.sizes[unit] if unit in ds.sizes else len(np.unique(ds[unit].values))
        wanted = f"at least {gate['n']} {unit} labels"
    if found >= gate["n"]:
        return
    why = f"gate {name}: {wanted}, found {found}"
    code = "gate_failed"
    if gate["check"] == "min_samples" and gate["fails"] == "not_testable" and found < 2:
        code = "one_sample_a_cell"
    for h in gate["hypotheses"]:
        # The first gate that fails names the reason; inadmissible outweighs not testable.
        if h not in out.states or (out.states[h][0] == "not_testable" and gate["fails"] == "inadmissible"):
            out.states[h] = (gate["fails"], code, why)
    out.deviations.append(
        Deviation(f"/gates/{name}", wanted, str(found), "gate", why, tuple(gate["hypotheses"]))
    )
