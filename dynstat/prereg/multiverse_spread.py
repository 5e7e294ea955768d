"""How much of the spread of the estimate over universes goes with which choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


def spread_by_choice(estimates: Array, choices: pd.DataFrame) -> pd.DataFrame:
    """Split the sum of squares of the estimate over universes among the dimensions.

    The share of a dimension is what the sum of squares of the residuals grows by when it is dropped from the
    model of all main effects, over the total (type II); ``rest`` is what main effects leave: interactions of
    choices. In a full cross the shares add up to 1 and are those of the table of means,
    Σ_o n_o (mean_o − mean)² over the total; where universes are missing they need not.

    Parameters
    ----------
    estimates : ndarray, shape (n,)
        Finite ones are used.
    choices : DataFrame, shape (n, dimensions)
        Labels of the options.

    Returns
    -------
    DataFrame
        Columns dimension, df, sum_of_squares, share; a row a dimension, ``rest`` last. Shares are NaN where
        the estimate does not vary, or a dimension does not (df 0).
    """
    there = np.isfinite(estimates)
    y, labels = np.asarray(estimates, dtype=np.float64)[there], choices[there]
    total = float(np.sum((y - y.mean()) ** 2)) if y.size else 0.0
    # Below this it is rounding: universes that agree to the last digit have no spread to split.
    vary = y.size > 1 and total > y.size * (1e-12 * max(float(np.max(np.abs(y))), 1e-300)) ** 2
    columns = {str(name): _effects(labels[name].tolist()) for name in labels.columns}
    full, rank = _residual(y, list(columns.values()))
    rows = []
    for name in columns:
        without, fewer = _residual(y, [c for other, c in columns.items() if other != name])
        ss, df = max(without - full, 0.0), rank - fewer
        rows.append((name, df, ss, ss / total if vary and df else np.nan))
    rows.append(("rest", max(y.size - 1 - rank, 0), full, full / total if vary else np.nan))
    return pd.DataFrame(rows, columns=["dimension", "df", "sum_of_squares", "share"])


def is_full_cross(choices: pd.DataFrame) -> bool:
    """Return whether every combination of the options that occur occurs, all equally often."""
    size = int(np.prod([choices[c].nunique() for c in choices.columns])) if len(choices) else 0
    counts = choices.value_counts()
    return size > 0 and len(counts) == size and counts.nunique() == 1


def _effects(labels: Sequence[str]) -> Array:
    names = list(dict.fromkeys(labels))[1:]
    return np.array([[x == n for n in names] for x in labels], dtype=np.float64).reshape(
        len(labels), len(names)
    )


def _residual(y: Array, columns: Sequence[Array]) -> tuple[float, int]:
    """Return the residual sum of squares beside the mean, and the rank without it."""
    if not y.size:
        return 0.0, 0
    x = np.column_stack([np.ones(y.size), *columns])
    fit, _, rank, _ = np.linalg.lstsq(x, y - y.mean(), rcond=None)
    return float(np.sum((y - y.mean() - x @ fit) ** 2)), int(rank) - 1
