"""What a model looks like on the panel: median ratio_norm, GD ratio, shares of the five states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from dynstat.errors import DynstatError
from dynstat.inference.estimate import Estimate
from dynstat.metrics.labelled import kappa, run_metric, states
from dynstat.metrics.selection import WINDOWS, token_mask
from dynstat.metrics.states import STATES, Thresholds

from .by_model import of_sums, of_values, prompt_weights

METHOD = "conditional_signatures.signature@1"


def signature(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    turbulence: float,
    branching: float,
    synchronisation: float,
    bootstrap: int,
) -> dict[str, Estimate]:
    """Describe every model by three kinds of number, each with its interval over prompts.

    Parameters
    ----------
    ds : xarray.Dataset
    outcome : mapping
        ``metric: ratio_norm@1`` and its options; the median is given on the raw scale.
    seed : int
        Of the bootstrap.
    turbulence, branching, synchronisation : float
        Thresholds of the state rule, learned on the pilot and fixed in the plan.
    bootstrap : int
        Samples of whole prompts, drawn within categories.

    Returns
    -------
    dict of str to Estimate
        ``ratio_norm.<model>`` (median over runs, at least 1), ``gd_ratio.<model>`` (mean kappa_G over mean
        kappa_D, all layers, generated tokens; [0, inf)), ``state.<STATE>.<model>`` (share of points, [0, 1]).

    Raises
    ------
    DynstatError
        Y002 for another metric, D103 for a dataset without the variables, S402 for a model without values.
    """
    if not outcome or not str(outcome.get("metric")).startswith("ratio_norm@"):
        raise DynstatError(
            "Y002", f"{METHOD} is about ratio_norm", where=METHOD, expected="metric: ratio_norm@1"
        )
    weights = prompt_weights(ds, bootstrap, seed)
    ratio = run_metric(ds, {**outcome, "scale": "raw"}).values
    poles = kappa(ds)
    g, d = poles["kappa_G"].values, poles["kappa_D"].values
    codes = states(ds, Thresholds.fixed(turbulence, branching, synchronisation)).values
    plain = token_mask(ds)[..., None] & np.isfinite(g) & np.isfinite(d)
    known = token_mask(ds, window=WINDOWS["causal"])[..., None] & (codes >= 0)
    axes = (1, 2, 3)  # sample, token, layer of one model
    out: dict[str, Estimate] = {}
    for i, model in enumerate(ds["model"].values.astype(str)):

        def sums(key: str, top: np.ndarray, bottom: np.ndarray, points: int) -> None:
            out[key] = of_sums(key, top, bottom, weights, method=METHOD, seed=seed, points=points)

        key = f"ratio_norm.{model}"
        out[key] = of_values(key, ratio[i], np.median, weights, method=METHOD, seed=seed)
        top, bottom = (np.where(plain[i], x[i], 0.0).sum(axis=axes) for x in (g, d))
        sums(f"gd_ratio.{model}", top, bottom, int(plain[i].sum()))
        total = known[i].sum(axis=axes)
        for code, name in enumerate(STATES):
            hits = (known[i] & (codes[i] == code)).sum(axis=axes)
            sums(f"state.{name}.{model}", hits, total, int(total.sum()))
    return out
