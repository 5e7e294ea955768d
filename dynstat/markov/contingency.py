"""G and Pearson statistics of stacked two-way tables, with the degrees of freedom that the support allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Counts = NDArray[np.intp]


@dataclass(frozen=True)
class Statistics:
    """Statistics of every layer of a stack of tables: G, Pearson's X², df; shapes (..., layers)."""

    g: Array
    pearson: Array
    df: Counts

    def of(self, name: str) -> Array:
        """Return the layers' statistics called "G" or "Pearson"."""
        return self.g if name == "G" else self.pearson


def statistics(tables: ArrayLike) -> Statistics:
    """Return G and Pearson's X² of homogeneity in every two-way table of a stack.

    With counts O of r rows and c columns, E = row total × column total / total:
    X² = Σ (O − E)²/E, G = 2 Σ O ln(O/E), both over cells with E > 0.

    df = (rows with a count − 1)·(columns with a count − 1), never below 0: a column that no row of this
    table has met is no possible outcome and costs no freedom.

    Parameters
    ----------
    tables : array_like, shape (..., layers, r, c)
        For transitions: layer = the state left, row = group (or the state before), column = next state.

    Examples
    --------
    >>> s = statistics([[[10, 20, 0], [20, 10, 0]]])
    >>> round(float(s.pearson[0]), 4), int(s.df[0])
    (6.6667, 1)
    """
    o = np.asarray(tables, dtype=np.float64)
    rows, columns = o.sum(axis=-1), o.sum(axis=-2)
    total = rows.sum(axis=-1)
    expected = rows[..., :, None] * columns[..., None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(expected > 0, o * o / expected, 0.0)
    pearson = total * (share.sum(axis=(-2, -1)) - (total > 0))
    g = 2 * (
        special.xlogy(o, o).sum(axis=(-2, -1))
        - special.xlogy(rows, rows).sum(axis=-1)
        - special.xlogy(columns, columns).sum(axis=-1)
        + special.xlogy(total, total)
    )
    df = np.maximum((rows > 0).sum(axis=-1) - 1, 0) * np.maximum((columns > 0).sum(axis=-1) - 1, 0)
    # Differences of large sums leave rounding of either sign where all rows agree.
    return Statistics(np.maximum(g, 0.0), np.maximum(pearson, 0.0), df.astype(np.intp))


def chi_square_p(statistic: float, df: int) -> float:
    """Return the upper tail of χ²(df); 1 where no freedom is left."""
    return float(special.chdtrc(df, statistic)) if df > 0 else 1.0


def phi_square(pearson: Array, tables: Array) -> Array:
    """Return V² = X² / Σ_layers n·min(rows − 1, columns − 1), rows and columns by support (Cramér's V²).

    Parameters
    ----------
    pearson : ndarray, shape (..., layers)
    tables : ndarray, shape (..., layers, r, c)

    Returns
    -------
    ndarray, shape (...)
        In [0, 1]; 0 where no layer can differ.
    """
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    most = np.minimum((rows > 0).sum(axis=-1), (columns > 0).sum(axis=-1)) - 1
    largest = (rows.sum(axis=-1) * np.maximum(most, 0)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(largest > 0, pearson.sum(axis=-1) / largest, 0.0))


def total_variation(tables: Array) -> tuple[Array, Array]:
    """Return how far the rows lie from their pooled distribution: overall and a layer.

    A layer: TV = Σ_r (n_r/n) · ½ Σ_c |p_rc − p_c|; overall: mean of the layers weighted by n.

    Returns
    -------
    overall : ndarray, shape (...)
    layers : ndarray, shape (..., layers)
        In [0, 1]; 0 in a layer without counts.
    """
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    n = rows.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = rows[..., :, None] * (columns / n[..., None])[..., None, :]
        absolute = np.where(n > 0, 0.5 * np.abs(tables - expected).sum(axis=(-2, -1)), 0.0)
        layers = np.where(n > 0, absolute / n, 0.0)
        whole = n.sum(axis=-1)
        overall = np.where(whole > 0, absolute.sum(axis=-1) / whole, 0.0)
    return np.asarray(overall), np.asarray(layers)
