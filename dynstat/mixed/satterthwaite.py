"""Satterthwaite's degrees of freedom of fixed effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .kenward_roger import FTest

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
# Of theta: central differences of an analytic gradient lose the square of this.
_STEP = 1e-4


@dataclass(frozen=True)
class Satterthwaite:
    """What Satterthwaite tests of one fit need.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Covariance of the fixed effects.
    jacobian : ndarray, shape (r, p, p)
        Its derivative by the covariance parameters (theta, sigma).
    parameters : ndarray, shape (r, r)
        Their asymptotic covariance, 2 H⁻¹ with H the Hessian of the criterion.
    beta : ndarray, shape (p,)
    """

    name = "Satterthwaite"

    vcov: Array
    jacobian: Array
    parameters: Array
    beta: Array

    def df(self, contrast: ArrayLike) -> float:
        """Return 2 v²/Var(v) of one contrast, v = l'Cov(β)l, shape (p,)."""
        c = np.asarray(contrast, dtype=np.float64)
        gradient = np.einsum("iab,a,b->i", self.jacobian, c, c)
        variance = float(c @ self.vcov @ c)
        spread = float(gradient @ self.parameters @ gradient)
        return float("inf") if spread <= 0 else 2 * variance**2 / spread

    def f_test(self, contrasts: Array, rhs: Array | float = 0.0) -> FTest:
        """Test L β = rhs jointly; rows of L must be independent, shape (q, p).

        L is turned to uncorrelated contrasts with degrees of freedom ν_m; the F statistic has
        2E/(E − q) of them, E = Σ ν_m/(ν_m − 2), as in lmerTest.
        """
        distance = contrasts @ self.beta - rhs
        values, vectors = np.linalg.eigh(contrasts @ self.vcov @ contrasts.T)
        statistic = float(np.sum((vectors.T @ distance) ** 2 / values) / values.size)
        nu = np.array([self.df(row) for row in vectors.T[::-1] @ contrasts])
        return FTest(statistic, values.size, _pooled(nu))


def satterthwaite(m: LmerResult) -> Satterthwaite:
    """Compute what Satterthwaite degrees of freedom need, from the criterion as a function of (theta, sigma).

    At the optimum the criterion's second derivatives are, with d the divisor of σ̂² = r²/d and s = log σ̂²(θ):
    ∂θ∂θ' = profiled + d s_θ s_θ', ∂θ∂σ = −2 d s_θ/σ, ∂σ∂σ = 4 d/σ². The profiled part is a difference of
    the analytic gradient. Directions in which the criterion is flat are left out.

    Returns
    -------
    Satterthwaite

    Source: Kuznetsova, Brockhoff, Christensen 2017, J. Stat. Softw. 82(13); Fai and Cornelius 1996.
    """
    pls, theta, sigma2 = m.pls, m.theta.to_numpy(dtype=float), m.solution.sigma2
    sigma, d, r, p = np.sqrt(sigma2), pls.df, theta.size, pls.cross.p
    hessian, jacobian = np.zeros((r + 1, r + 1)), np.zeros((r + 1, p, p))
    slope = np.zeros(r)
    for i in range(r):
        h = _STEP * max(1.0, abs(theta[i]))
        up, down = theta.copy(), theta.copy()
        up[i] += h
        down[i] -= h
        a, b = pls.solve(up), pls.solve(down)
        slope[i] = (np.log(a.sigma2) - np.log(b.sigma2)) / (2 * h)
        jacobian[i] = sigma2 * (a.vcov / a.sigma2 - b.vcov / b.sigma2) / (2 * h)
        hessian[i, :r] = (pls.criterion_and_gradient(up)[1] - pls.criterion_and_gradient(down)[1]) / (2 * h)
    hessian[:r, :r] = (hessian[:r, :r] + hessian[:r, :r].T) / 2 + d * np.outer(slope, slope)
    hessian[:r, r] = hessian[r, :r] = -2 * d * slope / sigma
    hessian[r, r] = 4 * d / sigma2
    jacobian[r] = 2 * m.solution.vcov / sigma
    # In units of the parameters' own size, so that no unit of y and no large ratio looks flat.
    scale = np.append(np.maximum(1.0, np.abs(theta)), sigma)
    values, vectors = np.linalg.eigh(hessian * scale * scale[:, None])
    # lmerTest's tolerance: flat and downward directions carry no information.
    keep = values > 1e-8
    root = scale[:, None] * vectors[:, keep]
    parameters = 2 * (root / values[keep]) @ root.T
    return Satterthwaite(m.solution.vcov, jacobian, parameters, m.solution.beta)


def _pooled(nu: Array) -> float:
    if nu.size == 1 or np.all(np.abs(np.diff(nu)) < 1e-8):
        return float(nu.mean())
    if np.any(nu <= 2):
        return 2.0
    finite = np.where(np.isfinite(nu), nu / (nu - 2), 1.0)
    e = float(finite.sum())
    return float("inf") if e <= nu.size else 2 * e / (e - nu.size)
