"""Sums of squares of any design and their expectations: the way to a population from unbalanced data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from .balanced import coarser
from .components import dense_products
from .crossproducts import cross_products
from .design import Design

Array = NDArray[np.float64]


class MeanSquares(NamedTuple):
    """Type II sums of squares, their degrees of freedom, and E(MS) = design @ components.

    In the order of the design's terms, the residual last; `design` has shape (k + 1, k + 1).
    """

    ss: Array
    df: Array
    design: Array


def mean_squares(design: Design) -> MeanSquares | None:
    """Return the mean squares of every term after all terms that do not contain it; None where one has no df.

    With Q the projection on what a term adds to X and those terms, SS = y'Qy, df = tr Q, and the coefficient
    of component j is tr(Z_j'QZ_j)/df. In balanced data these are the textbook's.

    Source: Searle 1971, Linear Models, ch. 10 and 11.
    """
    cross = cross_products(design)
    z, zx, zy, xx, slices = dense_products(cross, len(design.terms))
    if cross.p:
        z = z - zx @ linalg.solve(xx, zx.T, assume_a="pos")
    k = len(design.terms)
    cache: dict[tuple[int, ...], tuple[float, float, Array]] = {(): (0.0, 0.0, np.zeros(k))}

    def projected(terms: tuple[int, ...]) -> tuple[float, float, Array]:
        if terms not in cache:
            at = np.concatenate([np.arange(slices[t].start, slices[t].stop) for t in terms])
            values, vectors = linalg.eigh(z[np.ix_(at, at)])
            keep = values > 1e-9 * values[-1]
            root = vectors[:, keep] / np.sqrt(values[keep])
            scores = root.T @ zy[at]
            loads = root.T @ z[at]
            traces = np.array([float(np.sum(loads[:, slices[j]] ** 2)) for j in range(k)])
            cache[terms] = (float(scores @ scores), float(keep.sum()), traces)
        return cache[terms]

    ss, df, rows = [], [], []
    for t in range(k):
        others = tuple(
            o for o in range(k) if o != t and not coarser(design.terms[t].codes, design.terms[o].codes)
        )
        a, b = projected(tuple(sorted((*others, t)))), projected(others)
        if a[1] - b[1] < 1:
            return None
        ss.append(max(a[0] - b[0], 0.0))
        df.append(a[1] - b[1])
        rows.append(np.append(np.maximum(a[2] - b[2], 0.0) / df[-1], 1.0))
    full = projected(tuple(range(k)))
    ss.append(max(float(cross.rest[-1, -1]) - full[0], 0.0))
    df.append(cross.n - cross.p - full[1])
    rows.append(np.append(np.zeros(k), 1.0))
    # What the terms before it hold is projected out exactly; rounding leaves a trace.
    matrix = np.array(rows)
    matrix[matrix < 1e-9 * matrix.max()] = 0.0
    if df[-1] < 1 or np.linalg.matrix_rank(matrix) <= k:
        return None
    return MeanSquares(np.array(ss), np.array(df), matrix)
