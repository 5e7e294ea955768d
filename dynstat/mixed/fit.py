"""Fit a linear mixed model: minimise the profiled criterion, settle the boundary, keep the record."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize

from ..errors import DynstatError, DynstatWarning
from .batched import by_newton
from .crossproducts import CONSTANT, cross_products
from .design import Design
from .formula import parse_formula
from .pls import PenalisedLeastSquares
from .result import LmerResult
from .stream import design_of

Array = NDArray[np.float64]
Criterion = Callable[[Array], float]
Scored = Callable[[Array], tuple[float, Array]]

#: lme4's tolerance for a singular fit: an element of theta's diagonal below it counts as zero.
SINGULAR_TOLERANCE = 1e-4
_FLOOR = 1e-3
# Above this many dense columns more than one BLAS thread pays.
_THREADS_FROM = 600


@dataclass(frozen=True)
class FitRecord:
    """How an optimum was found.

    Attributes
    ----------
    evaluations : int
        Calls of criterion and gradient.
    converged : bool
        Whether the projected gradient at the end is small.
    gradient : float
        Its largest element, relative to 1 + |criterion|.
    message : str
        The optimiser's last word.
    zeroed : int
        Parameters set to exactly zero because the criterion did not rise.
    """

    evaluations: int
    converged: bool
    gradient: float
    message: str
    zeroed: int


def lmer(formula: str, data: Any, REML: bool = True, weights: str | ArrayLike | None = None) -> LmerResult:
    """Fit a linear mixed model with an lme4 formula.

    Parameters
    ----------
    formula : str
        For example ``y ~ x + (1 | model) + (1 | category/prompt)``; fixed part as formulaic reads it, random
        terms ``(1|g)``, ``(x|g)``, ``(0+x|g)``, ``(x||g)``, with ``a:b`` and ``a/b`` as grouping factors.
    data : DataFrame, Dataset, mapping of arrays, iterable of frames
        Rows with a missing value in a column used are left out. What is not a frame (a Dataset opened
        lazily, dask arrays, a list of frames, a function that returns an iterator of them) is read in chunks
        and never held: see :mod:`dynstat.mixed.stream`. Such a result knows no single rows.
    REML : bool
        Restricted maximum likelihood (default) or maximum likelihood.
    weights : str or array, optional
        Column, or a number a row: the residual variance of a row is sigma² over its weight.

    Returns
    -------
    LmerResult

    Raises
    ------
    DynstatError
        S401 for the formula, S402 for a design that cannot be fitted.

    Warns
    -----
    DynstatWarning
        Singular fit; columns dropped; optimiser not converged.
    """
    return _fit(design_of(parse_formula(formula), data, weights)[0], REML)


def lmer_of(design: Design, REML: bool = True) -> LmerResult:
    """Fit a design that is at hand, as :func:`lmer` does."""
    return _fit(design, REML)


def _fit(design: Design, reml: bool) -> LmerResult:
    pls = PenalisedLeastSquares(cross_products(design), design.terms, reml)
    theta, record = optimise(pls)
    solution = pls.solve(theta)
    result = LmerResult.build(design, pls, theta, solution, record, is_singular(pls, theta))
    if result.singular:
        names = ", ".join(result.boundary_terms)
        warnings.warn(f"singular fit: {names} at the boundary", DynstatWarning, stacklevel=3)
    if not record.converged:
        warnings.warn(f"the optimiser did not converge: {record.message}", DynstatWarning, stacklevel=3)
    return result


def is_singular(pls: PenalisedLeastSquares, theta: Array) -> bool:
    """Say whether a variance is zero or a correlation ±1 (lme4's ``isSingular``)."""
    return bool(np.any(theta[pls.diagonal] < SINGULAR_TOLERANCE))


def optimise(
    pls: PenalisedLeastSquares, start: Array | None = None, *, polish: bool = True
) -> tuple[Array, FitRecord]:
    """Minimise the criterion over theta, diagonal elements at least zero.

    Terms that are intercepts: Newton steps on ratios of variances, see :mod:`dynstat.mixed.batched`. Others,
    and where these do not settle: L-BFGS-B with the analytic gradient, then Newton steps on differences of
    the gradient. The criterion is even in every standard deviation, so zero is always stationary: near-zero
    elements are tried at exactly zero, and zero ones at small positive values. Without `polish` theta is good
    to about 1e-4: enough for one of many replicates.

    Raises
    ------
    DynstatError
        S402 where the outcome does not vary, or nothing is left for the residual.
    """
    with _one_thread(pls):
        return _optimise(pls, pls.start if start is None else np.asarray(start, dtype=np.float64), polish)


def _optimise(pls: PenalisedLeastSquares, theta: Array, polish: bool) -> tuple[Array, FitRecord]:
    calls = 0
    cross = pls.cross
    total = float(cross.rest[-1, -1])
    explained = cross.x_root @ cross.beta_ols
    if not total > CONSTANT * (total + float(explained @ explained)):
        raise DynstatError(
            "S402",
            "the outcome does not vary beyond the fixed part",
            found=f"residual sum of squares {total:.3g}",
            mend="check the outcome",
        )

    def both(t: Array) -> tuple[float, Array]:
        nonlocal calls
        calls += 1
        value, gradient = pls.criterion_and_gradient(t)
        return (value, gradient) if np.isfinite(value) else (1e300, np.zeros_like(t))

    def descend(t: Array, floor: float, ftol: float = 1e-13) -> tuple[float, Array, str]:
        bounds = [(floor if d else None, 1e5) for d in pls.diagonal]
        out = optimize.minimize(
            both,
            t,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 500, "ftol": ftol if polish else 1e-9, "gtol": 1e-7, "maxcor": 20},
        )
        if not polish:
            return float(out.fun), out.x, str(out.message)
        value, point = _newton(both, out.x, float(out.fun), pls.diagonal)
        return value, point, str(out.message)

    if (found := by_newton(pls, theta)) is not None:
        theta, value, calls = found
        gradient = both(theta)[1]
        slope = np.where(theta > 0, gradient, np.minimum(gradient, 0.0))
        largest = float(np.max(np.abs(slope), initial=0.0)) / (1 + abs(value))
        if largest < 1e-7:
            return theta, FitRecord(
                calls, True, largest, "Newton steps on ratios of variances", int(np.sum(theta == 0))
            )
    # The first line search may jump to zero, where the gradient vanishes: a floor keeps it off.
    value, theta, message = descend(theta, _FLOOR)
    if value >= 1e299:
        raise DynstatError(
            "S402",
            "the criterion cannot be computed",
            found="no positive residual variance at any theta",
            mend="the random terms may reproduce the outcome exactly; leave one out",
        )
    zeroed = 0
    for _ in range(1 + int(pls.diagonal.sum())):
        value, theta, zeroed = _try_zeros(pls.criterion, theta, value, pls.diagonal)
        if polish and np.any(pls.diagonal & (theta > 0) & (theta <= _FLOOR)):
            value, theta, message = descend(theta, 0.0)
        moved = _leave_zeros(both, theta, value, pls.diagonal)
        # Beside a zero the criterion is so flat that a descent may stop where it starts.
        tried = [descend(t, 0.0, 1e-15) for t in moved]
        best = min(tried, key=lambda r: r[0], default=(np.inf, theta, message))
        if not best[0] < value:
            break
        value, theta, message = best
    gradient = both(theta)[1]
    free = ~(pls.diagonal & (theta <= 0))
    largest = float(np.max(np.abs(gradient[free]), initial=0.0)) / (1 + abs(value))
    return theta, FitRecord(calls, largest < 1e-5, largest, message, zeroed)


def _newton(both: Scored, theta: Array, value: float, diagonal: NDArray[np.bool_]) -> tuple[float, Array]:
    """Polish an optimum: quasi-Newton stops near 1e-6 relative, Newton on the gradient goes to rounding."""
    for _ in range(4):
        _, gradient = both(theta)
        free = np.flatnonzero(~(diagonal & (theta < 1e-3)))
        if not free.size or np.max(np.abs(gradient[free])) < 1e-9 * (1 + abs(value)):
            break
        hessian = np.empty((free.size, free.size))
        for i, k in enumerate(free):
            step = 1e-5 * max(1.0, abs(theta[k]))
            up, down = theta.copy(), theta.copy()
            up[k] += step
            down[k] -= step
            hessian[i] = (both(up)[1][free] - both(down)[1][free]) / (2 * step)
        hessian = (hessian + hessian.T) / 2
        try:
            step_ = linalg.cho_solve(linalg.cho_factor(hessian), gradient[free])
        except linalg.LinAlgError:
            break
        trial = theta.copy()
        trial[free] -= step_
        trial[diagonal] = np.maximum(trial[diagonal], 0.0)
        new = both(trial)[0]
        if new > value + 1e-13 * (1 + abs(value)):
            break
        value, theta = new, trial
    return value, theta


def _try_zeros(
    criterion: Criterion, theta: Array, value: float, diagonal: NDArray[np.bool_]
) -> tuple[float, Array, int]:
    for k in np.flatnonzero(diagonal & (theta < 1e-2) & (theta > 0)):
        trial = theta.copy()
        trial[k] = 0.0
        new = criterion(trial)
        if new <= value + 1e-12 * (1 + abs(value)):
            theta, value = trial, new
    return value, theta, int(np.sum(diagonal & (theta == 0)))


def _leave_zeros(both: Scored, theta: Array, value: float, diagonal: NDArray[np.bool_]) -> list[Array]:
    """Return points beside a zero from which the criterion falls, if there are any.

    The criterion itself may fall by less than its rounding; its slope beside zero is known to more digits.
    """
    scale = 1 + abs(value)
    for k in np.flatnonzero(diagonal & (theta == 0)):
        trials = np.repeat(theta[None], 3, axis=0)
        trials[:, k] = (1e-3, 1e-2, 1e-1)
        scored = [both(t) for t in trials]
        if scored[0][1][k] < -1e-10 * scale:
            return [trials[1], theta + 3e-2 * (np.arange(theta.size) == k)]
        for trial, (new, _) in zip(trials, scored, strict=True):
            if new < value - 1e-11 * scale:
                return [trial]
    return []


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _one_thread(pls: PenalisedLeastSquares) -> AbstractContextManager[Any]:
    # On matrices of order 100 the threads of BLAS cost more than they give.
    if pls.cross.rest.shape[0] > _THREADS_FROM:
        return nullcontext()
    return _controller().limit(limits=1, user_api="blas")
