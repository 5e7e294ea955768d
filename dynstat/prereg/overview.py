"""Values for the overview figures of a report: ratio_norm of every run, entropy over depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .rows import Rows

if TYPE_CHECKING:
    import xarray as xr


def add_overview(rows: Rows, plan: Mapping[str, Any], ds: xr.Dataset) -> None:
    """Add what the overview figures draw, as far as the plan is about ratio_norm and the data hold it.

    ``overview.ratio_norm.<model>.<n>`` is the raw ratio_norm of a run under the options of the plan's first
    outcome of that metric; ``overview.entropy.<model>.<layer>`` the mean entropy over generated tokens, with
    the relative depth in its groups. They describe the data and decide nothing.
    """
    outcomes = [a["outcome"] for _, a in sorted(plan["analyses"].items()) if a["outcome"]]
    spec = next((o for o in outcomes if o["metric"].startswith("ratio_norm@")), None)
    models = ds["model"].values.astype(str)
    if spec is not None and {"step_length", "turning_angle"} <= set(ds.data_vars):
        from ..metrics.labelled import run_metric

        values = run_metric(ds, {**spec, "scale": "raw"}).transpose("model", ...).values
        for model, of_model in zip(models, values.reshape(len(models), -1), strict=True):
            for n, value in enumerate(of_model, start=1):
                _add(rows, f"overview.ratio_norm.{model}.{n}", value, model=model)
    if spec is not None and "entropy" in ds.data_vars:
        _entropy(rows, models, ds)


def _entropy(rows: Rows, models: np.ndarray, ds: xr.Dataset) -> None:
    from ..metrics.labelled import run_metric

    depth = ds["relative_depth"].transpose("model", "layer").values
    for j, layer in enumerate(ds["layer"].values):
        mean = run_metric(ds, {"metric": "run_mean@1", "of": "entropy", "layer": int(layer)})
        values = mean.transpose("model", ...).values.reshape(len(models), -1)
        for i, model in enumerate(models):
            there = values[i][np.isfinite(values[i])]
            if depth[i, j] >= 0 and there.size:
                _add(
                    rows,
                    f"overview.entropy.{model}.{int(layer)}",
                    there.mean(),
                    model=model,
                    depth=float(depth[i, j]),
                )


def _add(rows: Rows, key: str, value: float, **groups: Any) -> None:
    # Six digits draw the same figure in half the bytes.
    rows.add(key, float(f"{value:.6g}"), reason="exploratory", purpose="exploratory", **groups)
