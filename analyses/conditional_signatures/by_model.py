"""One number a model, with its percentile interval over prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dynstat.errors import DynstatError
from dynstat.inference.estimate import DrawsPivot, Estimate
from dynstat.inference.resample import Resampler


def prompt_weights(ds: xr.Dataset, replicates: int, seed: int) -> NDArray[np.int64]:
    """Return bootstrap counts, shape (replicates, prompt), of whole prompts drawn within categories."""
    weights = Resampler.of(ds["prompt"].values, ds["category"].values).weights(replicates, seed)
    # The resampler sorts its units; the prompts of the dataset stand in their own order.
    return weights[:, np.argsort(np.argsort(ds["prompt"].values))]


def of_values(
    key: str,
    values: NDArray[Any],
    statistic: Callable[..., Any],
    weights: NDArray[np.int64],
    *,
    method: str,
    seed: int,
) -> Estimate:
    """Estimate a statistic of the runs of one model.

    Parameters
    ----------
    values : ndarray, shape (prompt, sample)
        Runs without a value (NaN) are left out.
    statistic : callable
        From a flat array to a number, e.g. ``numpy.median``.
    weights : ndarray of int, shape (replicates, prompt)

    Raises
    ------
    DynstatError
        S402 where no run has a value.
    """
    there = np.isfinite(values)
    if not there.any():
        raise DynstatError("S402", "a model has no run with a value", where=key, found="0 runs")
    prompts = np.nonzero(there)[0]
    used = values[there]
    draws = [float(statistic(np.repeat(used, w[prompts]))) for w in weights if w[prompts].any()]
    n = {"runs": int(used.size), "prompts": int(np.unique(prompts).size)}
    return _estimate(key, float(statistic(used)), draws, n, method, seed)


def of_sums(
    key: str,
    top: NDArray[Any],
    bottom: NDArray[Any],
    weights: NDArray[np.int64],
    *,
    method: str,
    seed: int,
    points: int,
) -> Estimate:
    """Estimate a ratio of sums over prompts: ``sum top / sum bottom``.

    Parameters
    ----------
    top, bottom : ndarray, shape (prompt,)
        Sums over the points of each prompt, of one model.
    weights : ndarray of int, shape (replicates, prompt)
    points : int
        How many points the sums are made of, for the record.

    Raises
    ------
    DynstatError
        S402 where the sum of `bottom` is 0.
    """
    if not bottom.sum() > 0:
        raise DynstatError("S402", "a model has no point with a value", where=key, found="0 points")
    down = weights @ bottom
    draws = ((weights @ top)[down > 0] / down[down > 0]).tolist()
    n = {"points": int(points), "prompts": int((bottom > 0).sum())}
    return _estimate(key, float(top.sum() / bottom.sum()), draws, n, method, seed)


def _estimate(
    key: str, value: float, draws: list[float], n: dict[str, int], method: str, seed: int
) -> Estimate:
    return Estimate.from_pivot(
        key,
        value,
        DrawsPivot(tuple(draws)),
        method=method,
        interval="percentile bootstrap over prompts",
        unit="prompt",
        n=n,
        target="panel",
        seed=seed,
    )
