"""The variance of an outcome in parts: fixed part, every random term, residual."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .components import minque
from .crossproducts import CrossProducts, cross_products
from .design import Design
from .fit import optimise
from .pls import PenalisedLeastSquares

Array = NDArray[np.float64]


@dataclass(frozen=True)
class VarianceParts:
    """Parts of the variance of one fit.

    Attributes
    ----------
    labels : tuple of str
        Names of the grouping factors, one for all terms on it.
    random : ndarray, shape (labels,)
        Mean over the rows of z'Σz; of an intercept its variance.
    residual, fixed : float
        σ², and the variance of Xβ over the rows (denominator n − 1).
    """

    labels: tuple[str, ...]
    random: Array
    residual: float
    fixed: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return float(np.sum(self.random)) + self.residual + self.fixed

    def icc(self) -> dict[str, float]:
        """Return ``adjusted``, ``unadjusted``, and one a factor.

        adjusted = Σ random/(Σ random + residual); unadjusted divides by the total, fixed part included; that
        of a factor is its part over Σ random + residual.
        """
        random = float(np.sum(self.random))
        rest = random + self.residual
        return {"adjusted": random / rest, "unadjusted": random / self.total} | {
            name: float(v) / rest for name, v in zip(self.labels, self.random, strict=True)
        }

    def r2(self) -> dict[str, float]:
        """Return ``marginal`` = fixed/total and ``conditional`` = (fixed + Σ random)/total."""
        return {
            "marginal": self.fixed / self.total,
            "conditional": (self.fixed + float(np.sum(self.random))) / self.total,
        }


def fixed_variance(design: Design, beta: Array) -> float:
    """Return the variance of Xβ over the rows; exactly 0 for a general mean alone."""
    if not beta.size or (design.x.shape[1] == 1 and np.ptp(design.x[:, 0]) == 0):
        return 0.0
    values = design.x @ beta
    if design.cells is None:
        return float(np.var(values, ddof=1))
    return float(np.cov(values, fweights=design.cells.counts.astype(np.int64)))


def parts_at(design: Design, pls: PenalisedLeastSquares, theta: Array) -> VarianceParts:
    """Return the parts of a fit with relative parameters `theta`.

    Source: Nakagawa and Schielzeth 2013, Methods Ecol. Evol. 4: 133-142; Johnson 2014, ibid. 5: 944-946.
    """
    solution = pls.solve(theta)
    parts: dict[str, float] = {}
    for t, term in enumerate(design.terms):
        factor = pls.template(theta, t)
        scaled = factor[:1] if term.values is None else term.values @ factor
        squares = np.sum(scaled**2, axis=1)
        counts = None if term.values is None or design.cells is None else design.cells.counts
        mean = float(np.average(squares, weights=counts)) * solution.sigma2
        parts[term.label] = parts.get(term.label, 0.0) + mean
    return VarianceParts(
        tuple(parts), np.array(list(parts.values())), solution.sigma2, fixed_variance(design, solution.beta)
    )


def fit_parts(
    design: Design,
    reml: bool = True,
    *,
    start: Array | None = None,
    cross: CrossProducts | None = None,
    polish: bool = True,
) -> tuple[VarianceParts, Array]:
    """Fit a design and return its parts and theta."""
    pls = PenalisedLeastSquares(cross_products(design) if cross is None else cross, design.terms, reml)
    theta, _ = optimise(pls, start, polish=polish)
    return parts_at(design, pls, theta), theta


def unbounded(design: Design, parts: VarianceParts) -> VarianceParts:
    """Return the parts with components allowed below zero (MINQUE at the fit); with slopes, unchanged."""
    if not all(t.intercept_only for t in design.terms):
        return parts
    free = minque(design, np.append(parts.random, parts.residual))
    return replace(parts, random=free[:-1], residual=float(free[-1]))


def redrawn_within(design: Design, sigma2: float, rng: np.random.Generator) -> float:
    """Draw an outcome's sum of squares inside the cells of a design; 0 where rows are observations."""
    if design.cells is None or not (df := float(np.sum(design.cells.counts - 1))):
        return 0.0
    return float(sigma2 * rng.chisquare(df))


def outcome_from(design: Design, pls: PenalisedLeastSquares, theta: Array, rng: np.random.Generator) -> Array:
    """Draw an outcome from a fit, all random effects drawn anew (means, where rows stand for several)."""
    solution = pls.solve(theta)
    sigma = float(np.sqrt(solution.sigma2))
    y = design.x @ solution.beta + rng.normal(0.0, sigma, design.n) / (
        1.0 if design.cells is None else design.cells.root
    )
    for t, term in enumerate(design.terms):
        effects = rng.normal(0.0, sigma, (len(term.levels), term.width)) @ pls.template(theta, t).T
        rows = effects[term.codes]
        y += rows[:, 0] if term.values is None else np.sum(rows * term.values, axis=1)
    return np.asarray(y, dtype=np.float64)
