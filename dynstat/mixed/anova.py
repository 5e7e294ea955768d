"""Analysis of variance of a decomposition's terms: eta² and omega² beside the shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from .balanced import Strata, coarser
from .components import dense_products
from .crossproducts import cross_products
from .design import Design

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Anova:
    """Type II sums of squares of all terms as fixed factors.

    Attributes
    ----------
    ss, df : ndarray, shape (k + 1,)
        In the order of the design's terms, the residual last.
    total : float
        Sum of squares about the fixed part.
    """

    ss: Array
    df: Array
    total: float

    @property
    def eta2(self) -> Array:
        """SS / SS_total, the residual last."""
        return self.ss / self.total

    @property
    def omega2(self) -> Array:
        """(SS − df·MS_residual) / (SS_total + MS_residual), terms only; below zero where F < 1."""
        ms = self.ss[-1] / self.df[-1]
        return (self.ss[:-1] - self.df[:-1] * ms) / (self.total + ms)

    @property
    def chance(self) -> Array:
        """Expected eta² of an outcome that no term touches: df / Σ df."""
        return self.df / (self.df[-1] + np.sum(self.df[:-1]))


def type_two(design: Design) -> Anova:
    """Return type II sums of squares: each term after all terms that do not contain it.

    A term contains another where its levels lie within the other's. In balanced data every order gives the
    same sums (:func:`from_strata`), and they add up to the total; otherwise they need not.

    Source: Searle 1971, Linear Models, ch. 8; Fox 2016, Applied Regression Analysis, section 8.2.
    """
    cross = cross_products(design)
    z, zx, zy, xx, slices = dense_products(cross, len(design.terms))
    if cross.p:
        z = z - zx @ linalg.solve(xx, zx.T, assume_a="pos")
    total = float(cross.rest[-1, -1])
    cache: dict[tuple[int, ...], tuple[float, int]] = {(): (0.0, 0)}

    def explained(terms: tuple[int, ...]) -> tuple[float, int]:
        if terms not in cache:
            at = np.concatenate([np.arange(slices[t].start, slices[t].stop) for t in terms])
            values, vectors = linalg.eigh(z[np.ix_(at, at)])
            keep = values > 1e-9 * values[-1]
            scores = vectors[:, keep].T @ zy[at]
            cache[terms] = (float(np.sum(scores**2 / values[keep])), int(keep.sum()))
        return cache[terms]

    everything = range(len(design.terms))
    ss, df = [], []
    for t in everything:
        others = tuple(
            o for o in everything if o != t and not coarser(design.terms[t].codes, design.terms[o].codes)
        )
        with_t, without = explained(tuple(sorted((*others, t)))), explained(others)
        ss.append(max(with_t[0] - without[0], 0.0))
        df.append(with_t[1] - without[1])
    full = explained(tuple(everything))
    ss.append(max(total - full[0], 0.0))
    df.append(cross.n - cross.p - full[1])
    return Anova(np.asarray(ss), np.asarray(df, dtype=np.float64), total)


def from_strata(strata: Strata, ss: Array) -> Anova:
    """Return the same from the strata of a balanced design."""
    k = strata.design.shape[1] - 1
    order = [strata.term_of.index(t) for t in range(k)] + [len(strata.names) - 1]
    return Anova(ss[order], strata.df[order], float(np.sum(ss)))
