"""ratio_norm against its length-matched null, summarised a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from dynstat.errors import DynstatError
from dynstat.inference.estimate import Estimate
from dynstat.metrics.labelled_ct import ct_series
from dynstat.metrics.nulls import length_matched
from dynstat.registry import parse_metric

from .by_model import of_values, prompt_weights

METHOD = "conditional_signatures.null_z@1"


def null_z(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    replicates: int,
    bootstrap: int,
    alpha: float,
) -> dict[str, Estimate]:
    """Summarise, for every model, how far ratio_norm lies beyond what run length alone gives.

    Parameters
    ----------
    ds : xarray.Dataset
        With ``step_length`` and ``turning_angle``.
    outcome : mapping
        ``metric: ratio_norm@1`` and its options.
    seed : int
        Of the null and of the bootstrap.
    replicates, bootstrap : int
        Draws of the null a run; bootstrap samples of prompts.
    alpha : float
        A run counts as beyond the null where its Monte-Carlo p is at most this.

    Returns
    -------
    dict of str to Estimate
        ``median_z.<model>``, in standard deviations of the null, and ``share_beyond.<model>``, in [0, 1].

    Raises
    ------
    DynstatError
        Y002 for another metric, D103 for a dataset without the states' geometry, S402 where a model has no
        run with a value.

    Notes
    -----
    The null draws as many values as the run has from ct / run mean of all runs of the panel. Intervals are
    percentile intervals over prompts, whole prompts drawn within categories.
    """
    if not outcome or not str(outcome.get("metric")).startswith("ratio_norm@"):
        raise DynstatError(
            "Y002", f"{METHOD} is about ratio_norm", where=METHOD, expected="metric: ratio_norm@1"
        )
    _, options = parse_metric(outcome)
    null_seed, draw_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
    null = length_matched(
        *ct_series(ds, options), replicates=replicates, scale=options["scale"], rng=null_seed
    )
    weights = prompt_weights(ds, bootstrap, draw_seed)
    out: dict[str, Estimate] = {}
    for i, model in enumerate(ds["model"].values.astype(str)):
        beyond = np.where(np.isfinite(null.p[i]), null.p[i] <= alpha, np.nan)
        for name, values, statistic in (
            ("median_z", null.z[i], np.median),
            ("share_beyond", beyond, np.mean),
        ):
            key = f"{name}.{model}"
            out[key] = of_values(key, values, statistic, weights, method=METHOD, seed=seed)
    return out
