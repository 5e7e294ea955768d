"""Distances between items by the metrics of scipy, refused where one has no value."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DynstatError
from .partition import Array

# pdist's metrics of numbers; mahalanobis has no value wherever items are as few as features.
METRICS = (
    "braycurtis",
    "canberra",
    "chebyshev",
    "cityblock",
    "correlation",
    "cosine",
    "euclidean",
    "hamming",
    "jensenshannon",
    "minkowski",
    "seuclidean",
    "sqeuclidean",
)


def check_metric(metric: str) -> None:
    """Raise S404 for a metric that is not one of :data:`METRICS`."""
    if metric not in METRICS:
        raise DynstatError("S404", "unknown metric", found=metric, expected=" | ".join(METRICS))


def check_distance(value: Any, name: str) -> None:
    """Raise S404 for what is no number from 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
        raise DynstatError("S404", f"{name} is no distance", found=value, expected="a number from 0")


def condensed(values: Array, metric: str, items: tuple[str, ...] = ()) -> Array:
    """Return the n(n − 1)/2 distances in pdist's order.

    Raises
    ------
    DynstatError
        S405 where a distance has no value, as the correlation of an item whose features are all equal.
    """
    from scipy.spatial.distance import pdist

    out = np.asarray(pdist(values, metric))  # type: ignore[call-overload]
    if not np.isfinite(out).all():
        rows, columns = np.triu_indices(len(values), 1)
        bad = int(np.flatnonzero(~np.isfinite(out))[0])
        names = items or tuple(str(i + 1) for i in range(len(values)))
        raise DynstatError(
            "S405",
            f"the {metric} distance of two items has no value",
            where=f"{names[rows[bad]]}, {names[columns[bad]]}",
            found=out[bad],
            mend="an item whose features are all equal has no correlation, one of zeros no cosine",
        )
    return out


def distances(values: Array, metric: str, items: tuple[str, ...] = ()) -> Array:
    """Return the square matrix of :func:`condensed`."""
    n = len(values)
    out = np.zeros((n, n))
    if n > 1:
        rows, columns = np.triu_indices(n, 1)
        out[rows, columns] = out[columns, rows] = condensed(values, metric, items)
    return out
