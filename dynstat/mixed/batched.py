"""Fit one mixed model to many outcomes at once: damped Newton on ratios of variances, batched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from .balanced import Strata, find_strata, reml_components
from .crossproducts import CONSTANT, CrossProducts, cross_products, row_products, with_response
from .design import Design
from .reduced import Batch, Reduced, reduce_products

if TYPE_CHECKING:
    from .pls import PenalisedLeastSquares

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Ratios of variances beyond this (theta beyond 1e5) mean that nothing is left for the residual.
_LARGEST = 1e10
_SINGULAR = 1e-4
# Entries of one batch of matrices: larger batches leave the cache.
_BATCH_ENTRIES = 120_000
_ITERATIONS = 60
# A step that promises less cannot be judged by the criterion, whose own rounding is of this order.
_ROUNDING = 1e-9
# Where other columns are more, one quasi-Newton step is cheaper than all second derivatives.
_NEWTON_COLUMNS = 300


@dataclass(frozen=True)
class ManyFits:
    """Estimates of B outcomes on one design with k parameters in theta and p fixed columns.

    Attributes
    ----------
    criterion : ndarray, shape (B,)
        REML criterion or deviance; NaN where the outcome is constant.
    theta : ndarray, shape (B, k)
    sigma : ndarray, shape (B,)
        Residual standard deviation.
    beta, beta_se : ndarray, shape (B, p)
    converged, singular : ndarray of bool, shape (B,)
    constant, exact : ndarray of bool, shape (B,)
        The outcome does not vary beyond the fixed part; its random terms reproduce it and leave nothing for
        the residual. Of such outcomes beta alone is given, by least squares; never an exception.
    method : str
        How: ``strata`` (balanced), ``newton`` (batched) or ``scalar`` (slopes, very large designs).
    """

    criterion: Array
    theta: Array
    sigma: Array
    beta: Array
    beta_se: Array
    converged: Flags
    singular: Flags
    constant: Flags
    exact: Flags
    method: str


def fit_many(design: Design, outcomes: Array, reml: bool = True, *, method: str = "auto") -> ManyFits:
    """Fit the model of a design to every column of `outcomes`.

    Parameters
    ----------
    design : Design
        Its own outcome is not read.
    outcomes : ndarray, shape (n, B)
        Finite numbers, a row a row of the design.
    reml : bool
    method : {"auto", "strata", "newton", "scalar"}
        ``auto`` takes the fastest that the design allows.

    Notes
    -----
    With γ = θ² the criterion is D(γ) + df·log r²(γ), D without y. After the first block is eliminated, both
    and their first two derivatives come from matrices whose order is the number of the other columns; levels
    of equal weight are summed once for all outcomes. The first step is MINQUE's (Fisher scoring with the
    residual free), later ones are Newton's; γ >= 0 by projection. In balanced designs the strata's sums of
    squares hold everything.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    if y.ndim != 2 or y.shape[0] != design.n:
        raise ValueError(f"outcomes must have shape ({design.n}, B)")
    simple = all(t.intercept_only for t in design.terms)
    if method in ("auto", "strata") and reml and simple and design.cells is None:
        if (strata := find_strata(design)) is not None:
            return _by_strata(design, y, strata)
    cross = cross_products(design)
    reduced = reduce_products(cross) if simple and method != "scalar" else None
    if reduced is None:
        return _one_by_one(design, cross, y, reml)
    return _batched(design, cross, reduced, y, reml)


def _batched(design: Design, cross: CrossProducts, reduced: Reduced, y: Array, reml: bool) -> ManyFits:
    k, p, count = len(design.terms), cross.p, y.shape[1]
    out = _empty(count, k, p, "newton")
    rows = row_products(design, cross)
    # The place of every term's block; terms are intercepts, so a block is a term.
    order = [block.members[0][0] for block in cross.blocks]
    width = max(1, _BATCH_ENTRIES // max(reduced.c0.size, 1))
    inverse = linalg.solve_triangular(cross.x_root, np.eye(p)) if p else np.zeros((0, 0))
    for at in range(0, count, width):
        cut = slice(at, min(at + width, count))
        side, rest, yy, beta, flat = rows(y[:, cut])
        scale = np.sqrt(np.where(flat, 1.0, yy / cross.n))
        batch = reduced.with_outcomes(side / scale, rest / scale, yy / scale**2, reml, cross)
        usable = np.flatnonzero(~flat)
        gamma, done = newton(batch, usable)
        value = batch.value(gamma, np.arange(batch.size))
        r2, coef, wxx = batch.estimates(gamma)
        df = cross.n - p if reml else cross.n
        largest = gamma.max(axis=1)
        # Rounding can keep the last decades from being walked.
        exact = (r2 < 1e-20) | (largest >= 0.99 * _LARGEST) | (~done & (largest > 1e-2 * _LARGEST))
        bad = flat | exact
        out.beta[cut] = beta.T + np.where(bad, 0.0, scale)[:, None] * (coef @ inverse.T)
        se = np.sqrt(
            np.maximum(np.einsum("ij,bjk,ik->bi", inverse, wxx, inverse), 0)
            * (np.maximum(r2, 0) / df)[:, None]
        )
        out.beta_se[cut] = np.where(bad[:, None], np.nan, se * scale[:, None])
        theta = np.sqrt(gamma)
        out.theta[cut.start : cut.stop, order] = np.where(bad[:, None], np.nan, theta)
        out.sigma[cut] = np.where(bad, 0.0, np.sqrt(np.maximum(r2, 0) / df) * scale)
        out.criterion[cut] = np.where(bad, np.nan, value + df * np.log(scale**2))
        out.constant[cut], out.exact[cut] = flat, exact & ~flat
        out.converged[cut] = done & ~bad
        out.singular[cut] = ~bad & np.any(theta < _SINGULAR, axis=1)
    return out


def by_newton(pls: PenalisedLeastSquares, start: Array) -> tuple[Array, float, int] | None:
    """Minimise one criterion as :func:`fit_many` does; None for slopes and for very many columns.

    Returns theta, the criterion and the number of evaluations.
    """
    cross = pls.cross
    if any(b.width > 1 for b in cross.blocks) or cross.rest.shape[0] > _NEWTON_COLUMNS:
        return None
    if (reduced := reduce_products(cross)) is None:
        return None
    yy = float(cross.rest[-1, -1])
    scale = np.sqrt(yy / cross.n)
    batch = reduced.with_outcomes(
        cross.side[:, 0, -1:] / scale,
        cross.rest[:-1, -1:] / scale,
        np.array([yy / scale**2]),
        pls.reml,
        cross,
    )
    order = [block.members[0][0] for block in cross.blocks]
    gamma, done = newton(batch, np.arange(1), start[order][None] ** 2, 1e-15)
    if not done[0] or np.any(gamma >= 0.99 * _LARGEST):
        return None
    theta = np.empty(len(order))
    theta[order] = np.sqrt(gamma[0])
    value = pls.criterion(theta)
    return (theta, value, batch.evaluations) if np.isfinite(value) else None


def newton(
    batch: Batch, usable: NDArray[np.intp], start: Array | None = None, settle: float = _ROUNDING
) -> tuple[Array, Flags]:
    """Minimise the criterion of every usable outcome over γ >= 0; return γ and where it settled."""
    gamma = np.ones((batch.size, batch.k)) if start is None else start.copy()
    done = np.zeros(batch.size, dtype=bool)
    value = np.full(batch.size, np.inf)
    _descend(batch, usable, gamma, value, done, settle)
    edge = usable[np.any(gamma[usable] < 1e-6, axis=1) | ~done[usable]]
    if edge.size:
        # At the boundary there may be a second optimum; each is sought from far inside too.
        other, level = np.full_like(gamma, 0.05), np.full(batch.size, np.inf)
        found = np.zeros(batch.size, dtype=bool)
        _descend(batch, edge, other, level, found, settle)
        better = edge[level[edge] < value[edge]]
        gamma[better], value[better], done[better] = other[better], level[better], found[better]
    return gamma, done


def _descend(
    batch: Batch, todo: NDArray[np.intp], gamma: Array, value: Array, done: Flags, settle: float
) -> None:
    value[todo] = batch.value(gamma[todo], todo)
    calm = np.zeros(value.size, dtype=np.intp)
    for iteration in range(_ITERATIONS):
        if not todo.size:
            return
        now, old = gamma[todo], value[todo]
        state = batch.derivatives(now, todo)
        held = (now <= 0) & (state.gradient > 0)
        step = _newton_step(state.gradient, state.hessian, held)
        # Those that would leave go to zero; the step of the others is taken anew without them.
        hit = (now + step < 0) & (state.gradient > 0) & ~held
        again = hit.any(axis=1)
        if again.any():
            step[again] = _newton_step(state.gradient[again], state.hessian[again], (held | hit)[again])
            step = np.where(hit, -now, step)
        scoring = np.isnan(step).any(axis=1) | (iteration == 0)
        if scoring.any():
            other = np.where(held, 0.0, batch.minque_step(now, state))
            slope = np.diagonal(state.information, axis1=1, axis2=2)
            down = np.where(held, 0.0, -state.gradient / np.maximum(slope, 1e-300))
            uphill = np.sum(state.gradient * (np.clip(now + other, 0.0, _LARGEST) - now), axis=1) >= 0
            step[scoring] = np.where(uphill[:, None], down, other)[scoring]
        # What the step promises; the last one is taken without another look.
        gain = -np.sum(state.gradient * step, axis=1) / 2
        small = ~scoring & (np.abs(gain) < _ROUNDING + 1e-14 * np.abs(old))
        calm[todo] += small
        trial = np.clip(now + step, 0.0, _LARGEST)
        new = batch.value(trial, todo)
        wait = np.flatnonzero(~(new <= old) & ~small)
        size = 1.0
        while wait.size and size > 1e-9:
            size /= 4
            trial[wait] = np.clip(now[wait] + size * step[wait], 0.0, _LARGEST)
            new[wait] = batch.value(trial[wait], todo[wait])
            wait = wait[~(new[wait] <= old[wait])]
        take = (new <= old) | (small & np.isfinite(new))
        gamma[todo[take]], value[todo[take]] = trial[take], new[take]
        stuck = np.zeros(todo.size, dtype=bool)
        stuck[wait] = True
        free = np.where(held, 0.0, state.gradient * np.maximum(now, 1e-3))
        flat = np.max(np.abs(free), axis=1) < 1e-6 * (1 + np.abs(old))
        over = small & ((np.abs(gain) < settle) | (calm[todo] > 3))
        done[todo[over | (stuck & flat)]] = True
        todo = todo[~(over | stuck)]


def _newton_step(gradient: Array, hessian: Array, held: Flags) -> Array:
    """Return −H⁻¹g over the parameters not held; NaN rows where H is not positive definite there."""
    bad: Flags = np.isnan(hessian.sum(axis=(1, 2)) + gradient.sum(axis=1))
    h = np.where(bad[:, None, None], 0.0, hessian)
    h[held[:, :, None] | held[:, None, :]] = 0.0
    diag = np.arange(h.shape[1])
    h[:, diag, diag] = np.where(held, 1.0, h[:, diag, diag])
    own = h[:, diag, diag]
    bad = bad | (own <= 0).any(axis=1)
    root = np.sqrt(np.where(own > 0, own, 1.0))
    h = h / (root[:, :, None] * root[:, None, :])
    h[bad] = np.eye(h.shape[1])
    low, vectors = np.linalg.eigh(h)
    bad |= low[:, 0] < 1e-7
    low = np.maximum(low, 1e-7)
    right = np.where(held | bad[:, None], 0.0, gradient) / root
    step = -np.einsum("bij,bj,bkj,bk->bi", vectors, 1 / low, vectors, right) / root
    step[bad] = np.nan
    return step


def _by_strata(design: Design, y: Array, strata: Strata) -> ManyFits:
    n, count, k = design.n, y.shape[1], len(design.terms)
    out = _empty(count, k, 1, "strata")
    mean = y.mean(axis=0)
    ss = np.atleast_2d(strata.sums_of_squares(y))
    flat = ss.sum(axis=1) <= CONSTANT * np.sum(y**2, axis=0)
    ss = np.where(flat[:, None], 1.0, ss)
    v = reml_components(ss, strata.df, strata.design)
    exact = np.any(v[:, :-1] >= 0.99 * _LARGEST * v[:, -1:], axis=1)
    bad = flat | exact
    lam = np.where(bad[:, None], 1.0, v @ strata.design.T)
    sizes = np.array([len(t.levels) for t in design.terms])
    out.criterion[:] = (
        np.sum(strata.df * np.log(lam) + ss / lam, axis=1) + np.log(n) + (n - 1) * np.log(2 * np.pi)
    )
    out.criterion[bad] = np.nan
    theta = np.sqrt(v[:, :-1] / v[:, -1:])
    out.theta[:] = np.where(bad[:, None], np.nan, theta)
    out.sigma[:] = np.where(bad, 0.0, np.sqrt(v[:, -1]))
    # The column may hold another constant than one.
    unit = float(design.x[0, 0])
    out.beta[:, 0] = mean / unit
    spread = np.sqrt(np.sum(v[:, :-1] / sizes, axis=1) + v[:, -1] / n) / abs(unit)
    out.beta_se[:, 0] = np.where(bad, np.nan, spread)
    out.criterion[:] += 2 * np.log(abs(unit))
    out.constant[:], out.exact[:] = flat, exact & ~flat
    out.converged[:] = ~bad
    out.singular[:] = ~bad & np.any(theta < _SINGULAR, axis=1)
    return out


def _one_by_one(design: Design, cross: CrossProducts, y: Array, reml: bool) -> ManyFits:
    from ..errors import DynstatError
    from .fit import is_singular, optimise
    from .pls import PenalisedLeastSquares

    k = PenalisedLeastSquares(cross, design.terms, reml).n_theta
    out = _empty(y.shape[1], k, cross.p, "scalar")
    for b in range(y.shape[1]):
        pls = PenalisedLeastSquares(with_response(cross, design, y[:, b]), design.terms, reml)
        out.beta[b] = pls.cross.beta_ols
        try:
            theta, record = optimise(pls)
        except DynstatError:
            out.constant[b] = pls.cross.rest[-1, -1] <= CONSTANT * float(y[:, b] @ y[:, b])
            out.exact[b], out.sigma[b] = not out.constant[b], 0.0
            continue
        if np.any(theta[pls.diagonal] >= 0.99 * np.sqrt(_LARGEST)):
            out.exact[b], out.sigma[b] = True, 0.0
            continue
        solution = pls.solve(theta)
        out.criterion[b], out.theta[b] = solution.criterion, theta
        out.sigma[b], out.beta[b] = np.sqrt(solution.sigma2), solution.beta
        out.beta_se[b] = np.sqrt(np.diag(solution.vcov))
        out.converged[b], out.singular[b] = record.converged, is_singular(pls, theta)
    return out


def _empty(count: int, k: int, p: int, method: str) -> ManyFits:
    def flags() -> Flags:
        return np.zeros(count, dtype=bool)

    def numbers(*shape: int) -> Array:
        return np.full((count, *shape), np.nan)

    return ManyFits(
        numbers(), numbers(k), numbers(), numbers(p), numbers(p), flags(), flags(), flags(), flags(), method
    )
