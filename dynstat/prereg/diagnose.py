"""Say before the lock how exact the estimates will be: from a pilot, scaled to the registered units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from ..registry import METHODS
from .check import prompt_file
from .plan import Plan, load_plan
from .source import plan_file
from .study import find_study, is_installed

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.estimate import Estimate

# One standard error of a normal covers this much below its upper end.
_ONE_SE = 0.8413447460685429


@dataclass(frozen=True)
class Expected:
    """The standard error that one quantity is expected to have.

    Attributes
    ----------
    analysis, quantity : str
    pilot_value, pilot_se : float
    n_pilot, n : int
        Units of resampling in the pilot and as registered.
    se : float or None
        Expected; None where the pilot gives none.
    made : str
        How, in words.
    """

    analysis: str
    quantity: str
    pilot_value: float
    pilot_se: float | None
    n_pilot: int
    n: int
    se: float | None
    made: str


def diagnose(study: str | Path, data: str | Path, *, write: bool = True) -> dict[str, Any]:
    """Run a plan's analyses on pilot data and write the standard errors to be expected into the plan.

    A standard error falls with the root of the number of independent units: that of the pilot is multiplied
    by √(units of the pilot / registered units). Where a method offers a simulation (`simulate` of its entry),
    the registered design is simulated from the pilot's fit instead. Only quantities that a hypothesis is
    about are written.

    Parameters
    ----------
    study : str or path
        A study that is not part of the installed package (unless `write` is False).
    data : str or path
        A dataset of the plan's pilot prompts.
    write : bool
        Whether to write; the file changes in `expected_se` alone.

    Returns
    -------
    dict
        ``study``, ``file``, ``written``, ``expected`` (a row a quantity), ``sha256`` of the plan before and
        after.

    Raises
    ------
    DynstatError
        P303 where the data hold registered prompts, or none of the pilot's; F002; what the analyses raise.
    """
    import dynstat

    folder = find_study(study)
    path = plan_file(folder)
    assert path is not None
    if write and is_installed(folder):
        raise DynstatError(
            "F002",
            "the study belongs to the installed package, where nothing is written",
            where=str(folder),
            mend="copy the study's folder, or say --dry-run",
        )
    plan = load_plan(path)
    ds = dynstat.open(Path(data))
    registered, pilot = (_prompts(plan, role, folder) for role in ("prompts", "pilot"))
    _check_prompts(ds, registered, pilot, plan, data)
    rows = _expected(plan, ds, registered, folder)
    values: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.se is not None:
            values.setdefault(row.analysis, {})[row.quantity] = float(f"{row.se:.4g}")
            values[row.analysis]["made"] = row.made
    values = {
        a: {k: v for k, v in spec.items() if k != "made"} | {"made": spec["made"]}
        for a, spec in values.items()
    }
    changed = False
    if write and values:
        from .plan_edit import write_expected_se

        changed = write_expected_se(path, values)
    return {
        "study": plan.id,
        "file": path.name,
        "written": changed,
        "expected": [asdict(row) for row in rows],
        "sha256": {"before": plan.sha256, "after": load_plan(path).sha256},
    }


def in_words(found: Mapping[str, Any]) -> str:
    """Return what :func:`diagnose` found as lines of text."""
    lines = []
    for row in found["expected"]:
        if row["se"] is None:
            lines.append(f"  {row['analysis']} {row['quantity']}: {row['made']}")
        else:
            se = "none" if row["pilot_se"] is None else f"{row['pilot_se']:.3g}"
            lines.append(
                f"  {row['analysis']} {row['quantity']}: pilot {row['pilot_value']:.4g} (SE {se}, "
                f"{row['n_pilot']} units), expected SE {row['se']:.3g} with {row['n']}"
            )
    done = f"written into {found['file']}" if found["written"] else f"{found['file']} stays as it was"
    return "\n".join(
        [f"{found['study']}: {done}", *lines, "  `dynstat prereg check` tells what these can decide"]
    )


def standard_error(estimate: Estimate) -> float | None:
    """Return the standard error of an estimate, from its pivot where that is no normal one.

    Half of the distance between the limits at one-sided level .841, which for a t or normal pivot on its own
    scale is exactly the standard error; on a transformed scale it is that of the estimate's own.
    """
    from scipy import special

    pivot = estimate.pivot
    if pivot is None or math.isnan(estimate.value):
        return None
    df = getattr(pivot, "df", math.inf)
    alpha = 1 - _ONE_SE
    if math.isfinite(df):  # the level at which the quantile of t is 1
        alpha = 1 - float(special.stdtr(df, 1.0))
    half = (pivot.limit(alpha, "upper") - pivot.limit(alpha, "lower")) / 2
    return float(half) if math.isfinite(half) and half > 0 else None


def _expected(plan: Plan, ds: xr.Dataset, registered: list[dict[str, Any]], folder: Path) -> list[Expected]:
    from .execute import Execution, execute
    from .flow import leave_out

    content = plan.content
    wanted: dict[str, list[str]] = {}
    for claim in content["hypotheses"].values():
        for part in claim["parts"]:
            where = part["estimand"]
            quantities = wanted.setdefault(where["analysis"], [])
            if where["quantity"] not in quantities:
                quantities.append(where["quantity"])
    unit = content["data"]["units"]["resampling"]
    n = _units(registered, unit)
    kept = leave_out(content, ds, Execution())
    n_pilot, split = _units_of(kept, unit), content["data"]["pilot"]["split"]
    run = execute(content, ds, folder=folder, only=frozenset(wanted))
    out = []
    for analysis, quantities in sorted(wanted.items()):
        if analysis in run.failed:
            failed = f"the analysis failed on the pilot: {run.failed[analysis]}"
            out += [Expected(analysis, q, math.nan, None, 0, n, None, failed) for q in quantities]
            continue
        simulated = _simulated(content["analyses"][analysis], kept, registered) if n else {}
        for quantity in quantities:
            estimate = run.estimates[analysis].get(quantity)
            if estimate is None:
                out.append(Expected(analysis, quantity, math.nan, None, n_pilot, n, None, "no such estimate"))
                continue
            se = standard_error(estimate)
            expected, made = se, f"split {split}: the SE of the same {n_pilot} {unit}s"
            if n and se is not None:
                expected = se * math.sqrt(n_pilot / n)
                made = f"split {split}: SE times the root of {n_pilot} over {n} {unit}s"
            if simulated.get(quantity):
                expected = simulated[quantity]
                made = f"split {split}: the registered {n} {unit}s simulated from its fit"
            if expected is None:
                made = "the pilot gives no standard error (at a bound, or no interval)"
            out.append(
                Expected(analysis, quantity, estimate.value, se, n_pilot, n or n_pilot, expected, made)
            )
    return out


def _simulated(spec: Mapping[str, Any], ds: xr.Dataset, registered: list[dict[str, Any]]) -> dict[str, float]:
    """Return simulated standard errors where the method offers them and the pilot allows it."""
    simulate = METHODS.get(spec["method"]).simulator()
    if simulate is None:
        return {}
    try:
        found = simulate(
            ds, outcome=spec["outcome"], seed=spec["seed"], prompts=registered, **spec["options"]
        )
    except DynstatError:  # the scaled standard error of the pilot stands in
        return {}
    return {k: v for k, v in found.items() if math.isfinite(v) and v > 0}


def _units(prompts: list[dict[str, Any]], unit: str) -> int:
    """Return the registered number of units; 0 for models, which the panel names and not the plan."""
    if unit == "model":
        return 0
    return len({p["id"] if unit == "prompt" else p.get("template") or p["id"] for p in prompts})


def _units_of(ds: xr.Dataset, unit: str) -> int:
    import numpy as np

    return int(ds.sizes[unit]) if unit in ds.sizes else len(np.unique(ds[unit].values))


def _prompts(plan: Plan, role: str, folder: Path) -> list[dict[str, Any]]:
    from ..dataset.prompts import read_prompts

    spec = plan.content["data"][role]
    return read_prompts(prompt_file(spec["file"], folder), split=spec["split"])


def _check_prompts(
    ds: xr.Dataset,
    registered: list[dict[str, Any]],
    pilot: list[dict[str, Any]],
    plan: Plan,
    data: str | Path,
) -> None:
    """Refuse the data that will decide: to look at them before the lock is what a plan forbids."""
    found = {str(p) for p in ds["prompt"].values}
    decide = found & {p["id"] for p in registered}
    if decide or not found & {p["id"] for p in pilot}:
        raise DynstatError(
            "P303",
            "the data hold prompts that are registered to decide"
            if decide
            else "the data hold none of the plan's pilot prompts",
            where=str(data),
            found=", ".join(sorted(decide or found)[:5]),
            expected=f"prompts of split {plan.content['data']['pilot']['split']} of "
            f"{plan.content['data']['pilot']['file']}",
            mend="extract the pilot: the same panel with the pilot's file and split",
        )
