"""The variance decompositions as methods of a plan: from a dataset and an outcome to estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DynstatError
from ..inference.estimate import Estimate
from ..inference.methods import SHARES_FORMULA, SPLIT_FORMULA
from .by_category import category_variances
from .decomposition import decompose

_PROMPT = ("category", "template")
_SAMPLE = ("temperature", "seed")
_LATER = ("icc", "r2", "sd")


def variance_shares(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    formula: str = SHARES_FORMULA,
    **options: Any,
) -> dict[str, Estimate]:
    """Decompose the variance of a run-level outcome over models, categories and prompts.

    Parameters
    ----------
    ds : xarray.Dataset
        At least two samples a cell of model and prompt.
    outcome : mapping
        The metric and its options, as :func:`dynstat.metrics.labelled.run_metric` reads them.
    seed : int
        Of the population's interval and the chance level.
    formula, **options
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``share.<term>``, ``population.share.<term>``, ``eta2.<term>``, ``omega2.<term>``.

    Raises
    ------
    DynstatError
        Y002 without an outcome; what :func:`dynstat.decompose` raises.
    """
    return _decompose(ds, outcome, seed, formula, "variance.shares@1", options)


def variance_residual_split(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any] | None,
    seed: int,
    formula: str = SPLIT_FORMULA,
    **options: Any,
) -> dict[str, Estimate]:
    """Decompose with temperature and model:prompt:temperature as terms; what is left is the seed.

    Needs at least two temperatures, and two samples in some cells of model, prompt and temperature.
    """
    return _decompose(ds, outcome, seed, formula, "variance.residual_split@1", options)


def category_contrast(
    ds: xr.Dataset, *, outcome: Mapping[str, Any] | None, seed: int, contrast: str, **options: Any
) -> dict[str, Estimate]:
    """Hold the variance between models within one category of prompts against that within the others.

    Parameters
    ----------
    ds : xarray.Dataset
        At least two samples a cell of model and prompt.
    outcome : mapping
        The metric and its options.
    seed : int
        Of the permutations.
    contrast : str
        The category.
    **options
        As the registry lists them.

    Returns
    -------
    dict of str to Estimate
        ``log_ratio`` with its null, and ``variance.<category>``.
    """
    frame = _frame(ds, outcome, "variance.category_contrast@1")
    return category_variances(frame, contrast, rng=seed, **options).estimates()


def run_frame(ds: xr.Dataset, outcome: xr.DataArray) -> pd.DataFrame:
    """Return a row a run: model, category, template, prompt, sample, temperature, seed, y.

    Runs without a value are left out. Temperatures become labels: they are levels of a factor here.
    """
    values = outcome.transpose("model", "prompt", "sample")
    shape = values.shape
    axes = {name: np.asarray(ds[name].values) for name in ("model", "prompt", "sample")}
    at = np.indices(shape).reshape(3, -1)
    columns: dict[str, Any] = {name: axes[name][at[i]] for i, name in enumerate(axes)}
    for names, axis in ((_PROMPT, 1), (_SAMPLE, 2)):
        for name in names:
            if name in ds.coords:
                columns[name] = np.asarray(ds[name].values)[at[axis]]
    frame = pd.DataFrame(columns)
    if "temperature" in frame:
        frame["temperature"] = frame["temperature"].map("{:g}".format)
    frame["y"] = np.asarray(values.values, dtype=np.float64).ravel()
    return frame[np.isfinite(frame["y"])].reset_index(drop=True)


def _decompose(
    ds: xr.Dataset,
    outcome: Mapping[str, Any] | None,
    seed: int,
    formula: str,
    method: str,
    options: Mapping[str, Any],
) -> dict[str, Estimate]:
    frame = _frame(ds, outcome, method)
    names = {"population_replicates": "replicates", "population_refits": "refits"}
    given = {names.get(k, k): v for k, v in options.items()}
    if given.get("population") == "auto":
        given["population"] = "first"
    made = decompose(formula, frame, rng=seed, method=method, **given).estimates()
    # What a version returns is fixed: later summaries of the decomposition are not among it.
    return {k: v for k, v in made.items() if k.removeprefix("population.").split(".")[0] not in _LATER}


def _frame(ds: xr.Dataset, outcome: Mapping[str, Any] | None, method: str) -> pd.DataFrame:
    from ..metrics.labelled import run_metric

    if not outcome:
        raise DynstatError(
            "Y002",
            f"{method} needs an outcome",
            where=method,
            expected="outcome: {metric: ratio_norm@1, ...}",
        )
    frame = run_frame(ds, run_metric(ds, outcome))
    if frame.empty:
        raise DynstatError(
            "S402",
            "no run has a value",
            where=str(dict(outcome)),
            found="0 runs",
            mend="check the options of the outcome against the length of the runs",
        )
    return frame
