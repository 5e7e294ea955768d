"""Intervals of variance shares for a population, from redrawn mean squares or redrawn outcomes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from ..errors import DynstatError
from .balanced import reml_components
from .crossproducts import cross_products, with_response
from .design import Design
from .fit import optimise
from .mean_squares import MeanSquares, mean_squares
from .pls import PenalisedLeastSquares
from .shares import Shares, components_at
from .variance_parts import fixed_variance, redrawn_within

Array = NDArray[np.float64]
#: "first" is what "auto" was in variance.shares@1: generalised in balanced data, else bootstrap.
Kind = Literal["auto", "first", "generalised", "bootstrap", "none"]


class PopulationDraws(NamedTuple):
    """Draws whose quantiles are the limits, shape (B, k + 1), and how they were made, in words.

    `raw` holds the shares before any bias correction, row by row of one draw, `fixed` the variance of the
    fixed part over the sum of the components there, and `total` this sum.
    """

    draws: Array
    interval: str
    raw: Array
    fixed: Array
    total: Array


def population_draws(
    design: Design, fitted: Shares, kind: Kind, replicates: int, refits: int, rng: np.random.Generator
) -> PopulationDraws:
    """Return draws whose quantiles limit the shares of a population.

    ``generalised``: the mean squares are held and their chi-squares redrawn; REML of SS·df/χ² is a
    generalised pivotal quantity of the share. In unbalanced designs the type II mean squares with their own
    expectations take their place; they are then chi-square and independent only nearly. ``bootstrap``:
    outcomes are redrawn from the fit and fitted again, limits bias-corrected. ``auto`` takes the first where
    every term has degrees of freedom; ``first`` takes it in balanced designs alone.

    Source: Weerahandi 1993, JASA 88: 899-905; Burdick, Borror, Montgomery 2005, Design and Analysis of Gauge
    R&R Studies; Efron and Tibshirani 1993, section 14.3, with acceleration 0.
    """
    strata = fitted.strata
    if kind in ("auto", "first", "generalised"):
        squares: MeanSquares | None = None
        if strata is not None and fitted.ss is not None:
            squares = MeanSquares(fitted.ss, strata.df, strata.design)
        elif kind != "first":
            squares = mean_squares(design)
        if squares is None and kind == "generalised":
            raise DynstatError(
                "S404",
                "a term has no degrees of freedom of its own",
                where=design.formula.text,
                expected="terms that others do not determine",
                mend="use population='bootstrap'",
            )
        if squares is not None:
            return _generalised(design, fitted, squares, replicates, rng)
    count = replicates if strata is not None else refits
    raw, fixed, total = _simulate(design, fitted, fitted.reml, count, rng)
    words = "parametric bootstrap, bias-corrected percentile"
    return PopulationDraws(bias_corrected(raw, fitted.share), words, raw, fixed, total)


def _generalised(
    design: Design, fitted: Shares, squares: MeanSquares, replicates: int, rng: np.random.Generator
) -> PopulationDraws:
    ss, df, expected = squares
    chi2 = rng.chisquare(df, (replicates, df.size))
    v = reml_components(ss * df / chi2, df, expected)
    words = "generalised interval, redrawn mean squares"
    if fitted.strata is None:
        words += " (type II, approximate)"
    total = v.sum(axis=1)
    fixed = np.zeros(replicates)
    if fitted.fixed:
        fixed = _redrawn_fixed(design, fitted, v, rng) / total
    return PopulationDraws(_shares(v), words, _shares(v), fixed, total)


def _redrawn_fixed(design: Design, fitted: Shares, components: Array, rng: np.random.Generator) -> Array:
    """Draw the variance of the fixed part: effects about their estimate, with the covariance of every draw.

    The covariance at the fit, scaled by what the draw makes of the total variance.
    """
    beta = np.asarray(fitted.beta, dtype=np.float64)
    root = linalg.cholesky(np.asarray(fitted.vcov) + 0.0, lower=True)
    scale = np.sqrt(components.sum(axis=1) / fitted.reml.sum())
    effects = beta + scale[:, None] * (rng.normal(size=(components.shape[0], beta.size)) @ root.T)
    counts = None if design.cells is None else design.cells.counts.astype(np.int64)
    cov = np.atleast_2d(np.cov(design.x, rowvar=False, fweights=counts))
    return np.asarray(np.einsum("bi,ij,bj->b", effects, cov, effects), dtype=np.float64)


def chance_draws(
    design: Design, fitted: Shares, replicates: int, refits: int, rng: np.random.Generator
) -> Array:
    """Return REML shares of outcomes that are noise alone, shape (B, k + 1)."""
    noise = np.zeros_like(fitted.reml)
    noise[-1] = 1.0
    return simulate_shares(design, fitted, noise, replicates if fitted.strata is not None else refits, rng)


def simulate_shares(
    design: Design, fitted: Shares, components: Array, replicates: int, rng: np.random.Generator
) -> Array:
    """Draw outcomes from the model with given components and return their REML shares, shape (B, k + 1)."""
    return _simulate(design, fitted, components, replicates, rng)[0]


def _simulate(
    design: Design, fitted: Shares, components: Array, replicates: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Return shares, the fixed part's variance over the components' sum, and this sum, of redraws."""
    if fitted.strata is not None:
        strata = fitted.strata
        ss = (strata.design @ components) * rng.chisquare(strata.df, (replicates, strata.df.size))
        v = reml_components(ss, strata.df, strata.design)
        return _shares(v), np.zeros(replicates), v.sum(axis=1)
    cross = cross_products(design)
    sd = np.sqrt(components)
    # A row that stands for several observations holds their mean.
    spread = 1.0 if design.cells is None else 1 / design.cells.root
    out, fixed = np.empty((replicates, components.size)), np.empty(replicates)
    # A start away from zero: there the criterion is flat in every standard deviation.
    start = np.maximum(sd[:-1] / sd[-1], 0.05)
    for b in range(replicates):
        y = rng.normal(0.0, sd[-1], design.n) * spread
        for term, s in zip(design.terms, sd[:-1], strict=True):
            y += rng.normal(0.0, s, len(term.levels))[term.codes]
        within = redrawn_within(design, components[-1], rng)
        pls = PenalisedLeastSquares(with_response(cross, design, y, within), design.terms)
        theta = optimise(pls, start, polish=False)[0]
        solution = pls.solve(theta)
        out[b] = components_at(theta, solution.sigma2)
        # The outcome was drawn about zero; adding Xβ to it adds β to its estimate and changes nothing else.
        fixed[b] = fixed_variance(design, solution.beta + fitted.beta) / out[b].sum()
    return _shares(out), fixed, out.sum(axis=1)


def bias_corrected(draws: Array, observed: Array) -> Array:
    """Return draws whose plain quantiles are the bias-corrected limits of the columns of `draws`.

    The quantile of probability p is taken at Φ(2z₀ + Φ⁻¹(p)), z₀ = Φ⁻¹(share of draws below the estimate,
    ties halved).
    """
    b = draws.shape[0]
    grid = special.ndtri((np.arange(b) + 0.5) / b)
    below = (np.mean(draws < observed, axis=0) + np.mean(draws <= observed, axis=0)) / 2
    z0 = special.ndtri(np.clip(below, 1 / (2 * b), 1 - 1 / (2 * b)))
    return np.column_stack(
        [np.quantile(draws[:, j], special.ndtr(2 * z0[j] + grid)) for j in range(draws.shape[1])]
    )


def _shares(components: Array) -> Array:
    return components / components.sum(axis=1, keepdims=True)
