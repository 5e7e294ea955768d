"""p-values adjusted for the number of tests, apart from plans: these need arrays, plans must load none."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted after Holm (1979), as R's ``p.adjust``: NaN stays NaN and is not counted.

    Examples
    --------
    >>> holm([0.01, float("nan"), 0.04, 0.03]).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    out = np.full(values.shape, np.nan)
    given = np.flatnonzero(~np.isnan(values))
    order = given[np.argsort(values[given], kind="stable")]
    steps = values[order] * np.arange(order.size, 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out


def false_discovery(p: ArrayLike, m: int | None = None) -> NDArray[np.float64]:
    """Return p-values adjusted after Benjamini and Hochberg (1995), along the last axis.

    Parameters
    ----------
    p : array_like, shape (..., tests)
        NaN stays NaN and is not counted, as in R's ``p.adjust(p, "BH")``.
    m : int, optional
        Number of tests in all; those beyond `p` count as p = 1.

    Examples
    --------
    >>> false_discovery([0.01, float("nan"), 0.04, 0.02]).round(3).tolist()
    [0.03, nan, 0.04, 0.03]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, axis=-1, kind="stable")  # NaN last
    ascending = np.take_along_axis(values, order, axis=-1)
    count = np.sum(~np.isnan(values), axis=-1, keepdims=True) if m is None else m
    steps = ascending * (count / np.arange(1, values.shape[-1] + 1))
    best = np.minimum.accumulate(np.where(np.isnan(steps), np.inf, steps)[..., ::-1], axis=-1)[..., ::-1]
    out = np.empty_like(values)
    np.put_along_axis(out, order, np.where(np.isnan(ascending), np.nan, np.minimum(best, 1.0)), axis=-1)
    return out
