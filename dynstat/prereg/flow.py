"""What of the data enters the analyses: exclusions, missing runs, and gates before any result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DynstatError

if TYPE_CHECKING:
    import xarray as xr

    from .execute import Execution

_COMPARE = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal}


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
    out.missing_fraction = fraction
    if fraction > policy["max_fraction"]:
        why = f"{fraction:.3f} of the runs are missing, at most {policy['max_fraction']} are allowed"
        out.states.update({h: ("inadmissible", "too_much_missing", why) for h in plan["hypotheses"]})
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
    quality = quality.reshape(*quality.shape[:3], int(np.prod(quality.shape[3:])))
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


def check_gate(name: str, gate: Mapping[str, Any], ds: xr.Dataset, out: Execution) -> None:
    """Check a registered gate, and note where a state takes the place of a decision."""
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
    out.gates[name] = (wanted, found)
