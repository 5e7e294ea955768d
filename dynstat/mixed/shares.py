"""Variance shares of one design: REML, unbounded, and the analysis of variance, by the shorter way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anova import Anova, from_strata, type_two
from .balanced import Strata, anova_components, find_strata, reml_components
from .components import minque
from .crossproducts import cross_products
from .design import Design
from .fit import optimise
from .pls import PenalisedLeastSquares
from .variance_parts import fixed_variance

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Components of every term and the residual (last), in the order of the design's terms.

    Attributes
    ----------
    reml : ndarray, shape (k + 1,)
        REML components, zero or above.
    free : ndarray, shape (k + 1,)
        Components allowed below zero.
    anova : Anova or None
        Sums of squares; None where they were not asked for.
    strata : Strata or None
        Of a balanced design.
    ss : ndarray or None
        Sums of squares of the strata.
    fixed : float
        Variance of the fixed part over the rows, outside the shares; 0 for a general mean alone.
    beta, vcov : ndarray or 0
        Fixed effects behind it and their covariance; 0 in balanced designs.
    """

    reml: Array
    free: Array
    anova: Anova | None
    strata: Strata | None = None
    ss: Array | None = None
    fixed: float = 0.0
    beta: Array | float = 0.0
    vcov: Array | float = 0.0

    @property
    def share(self) -> Array:
        """REML components over their sum."""
        return self.reml / self.reml.sum()

    @property
    def free_share(self) -> Array:
        """Unbounded components over their sum, some of them below zero or above one."""
        return self.free / self.free.sum()


def variance_components(design: Design, *, start: Array | None = None, with_anova: bool = True) -> Shares:
    """Estimate the components of a design with intercept terms.

    Balanced designs go by their strata, others by penalised least squares; both minimise the same REML
    criterion. `start` is a theta to begin from, `with_anova` asks for sums of squares where they cost
    something.
    """
    strata = find_strata(design)
    if strata is not None:
        ss = strata.sums_of_squares(design.y)
        reml = reml_components(ss, strata.df, strata.design)[0]
        free = anova_components(ss, strata.df, strata.design)[0]
        return Shares(reml, free, from_strata(strata, ss), strata, ss)
    cross = cross_products(design)
    pls = PenalisedLeastSquares(cross, design.terms)
    theta, _ = optimise(pls, start)
    solution = pls.solve(theta)
    reml = components_at(theta, solution.sigma2)
    anova = type_two(design) if with_anova else None
    fixed = fixed_variance(design, solution.beta)
    return Shares(
        reml, minque(design, reml, cross), anova, fixed=fixed, beta=solution.beta, vcov=solution.vcov
    )


def components_at(theta: Array, sigma2: float) -> Array:
    """Return the components of a fit with intercept terms, the residual last.

    What the optimiser leaves of a component at its boundary is rounding, set to exactly 0: ties with 0 and
    the scale of the jackknife depend on it.
    """
    out = sigma2 * np.append(theta**2, 1.0)
    out[:-1][out[:-1] < 1e-12 * out.sum()] = 0.0
    return np.asarray(out, dtype=np.float64)
