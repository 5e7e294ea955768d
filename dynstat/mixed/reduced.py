"""Cross-products with the largest factor eliminated, for many outcomes and ratios of variances at once.

With γ the ratios of variances to the residual's, the criterion is D(γ) + df·log r²(γ), D without the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .crossproducts import CrossProducts

Array = NDArray[np.float64]
Places = NDArray[np.intp]
# Entries of the summed outer products beyond which a batch does not pay.
_MOST_ENTRIES = 4_000_000


@dataclass(frozen=True)
class State:
    """Gradient and Hessian at γ, and the pieces of MINQUE's equations.

    Attributes
    ----------
    gradient, traces, squares : ndarray, shape (b, k)
        `traces`: tr(P₀G_i); `squares`: |Z_i'P₀y|².
    hessian, information : ndarray, shape (b, k, k)
        `information`: tr(P₀G_i P₀G_j).
    r2 : ndarray, shape (b,)
    """

    gradient: Array
    hessian: Array
    traces: Array
    squares: Array
    information: Array
    r2: Array


@dataclass(frozen=True)
class Reduced:
    """What all outcomes share.

    Level l of the first factor enters by the weight γ/(1 + γ d_l), d_l its number of rows: the outer products
    of levels of equal d are summed once.

    Attributes
    ----------
    d, levels : ndarray, shape (u,)
        Distinct d, and how many levels have it.
    group : ndarray of int, shape (q,)
        The place of every level among them.
    side : ndarray, shape (q, m)
        Products of the first factor with the m other columns.
    outer : ndarray, shape (u, m·m)
    c0 : ndarray, shape (m, m)
    edges : tuple of (int, int)
        Columns of the other factors; the fixed columns follow.
    """

    d: Array
    levels: Array
    group: Places
    side: Array
    outer: Array
    c0: Array
    edges: tuple[tuple[int, int], ...]

    def with_outcomes(self, side: Array, rest: Array, yy: Array, reml: bool, cross: CrossProducts) -> Batch:
        """Add outcomes: side (q, B), rest (m, B), yy (B,)."""
        u = self.d.size
        outer_y = np.stack([(self.side[self.group == i].T @ side[self.group == i]).T for i in range(u)])
        squares = np.stack([np.sum(side[self.group == i] ** 2, axis=0) for i in range(u)])
        return Batch(self, outer_y, squares, np.ascontiguousarray(rest.T), yy, reml, cross)


def reduce_products(cross: CrossProducts) -> Reduced | None:
    """Sum outer products over levels of equal weight; None where they would be too many."""
    own = cross.own[:, 0, 0]
    d, group, levels = np.unique(own, return_inverse=True, return_counts=True)
    m = cross.rest.shape[0] - 1
    if d.size * m * m > _MOST_ENTRIES:
        return None
    side = np.ascontiguousarray(cross.side[:, 0, :-1])
    outer = np.stack([side[group == i].T @ side[group == i] for i in range(d.size)]).reshape(d.size, m * m)
    return Reduced(
        d, levels.astype(np.float64), group, side, outer, cross.rest[:-1, :-1], tuple(cross.offsets)
    )


class Batch:
    """The criterion D(γ) + df·log r²(γ) of B outcomes, each at its own γ."""

    def __init__(
        self,
        reduced: Reduced,
        outer_y: Array,
        squares_y: Array,
        rest_y: Array,
        yy: Array,
        reml: bool,
        cross: CrossProducts,
    ) -> None:
        self.reduced, self.reml = reduced, reml
        self.outer_y, self.squares_y, self.rest_y, self.yy = outer_y, squares_y, rest_y, yy
        self.size, self.k = yy.size, 1 + len(reduced.edges)
        self.zs = reduced.edges[-1][1] if reduced.edges else 0
        self.df = cross.n - cross.p if reml else cross.n
        self.fixed = (cross.x_logdet if reml else 0.0) + self.df * (1 + np.log(2 * np.pi / self.df))
        self.fixed -= cross.log_weights
        #: Calls of the criterion or its derivatives, whatever the number of outcomes in them.
        self.evaluations = 0

    def value(self, gamma: Array, which: Places) -> Array:
        """Return the criterion at γ of shape (b, k); infinity where it cannot be computed."""
        self.evaluations += 1
        _, cy, cyy, scale, a = self._system(gamma, which)
        b, m = cy.shape
        bordered = np.empty((b, m + 1, m + 1))
        bordered[:, :m, :m] = a
        bordered[:, m, :m] = bordered[:, :m, m] = scale * cy
        bordered[:, m, m] = cyy
        try:
            diagonal = np.diagonal(np.linalg.cholesky(bordered), axis1=1, axis2=2)
        except np.linalg.LinAlgError:
            if b == 1:
                return np.array([np.inf])
            return np.concatenate([self.value(gamma[i : i + 1], which[i : i + 1]) for i in range(b)])
        logs = 2 * np.log(diagonal)
        own = np.log1p(gamma[:, :1] * self.reduced.d) @ self.reduced.levels
        t = m if self.reml else self.zs
        return np.asarray(self.fixed + own + logs[:, :t].sum(axis=1) + self.df * logs[:, m])

    def derivatives(self, gamma: Array, which: Places) -> State:
        """Return the first two derivatives of the criterion by γ.

        With C the products after elimination, Ċ = −K̇ and W the inverse of C + G⁻¹ (as it is for γ = 0 too):
        tr(P₀G₁) = Σ d/(1 + γ₁d) − tr(WK̇), M = C − CWC = Z'P₀Z over the other factors, z = Z'P₀y; ∂W = WK̇W
        gives all second derivatives.
        """
        self.evaluations += 1
        r, k, zs = self.reduced, self.k, self.zs
        c, cy, cyy, scale, a = self._system(gamma, which)
        b, m = cy.shape
        w = np.linalg.inv(a) * (scale[:, :, None] * scale[:, None, :])
        share = gamma[:, :1] * r.d
        coef = _times(w, cy)
        r2 = cyy - np.sum(cy * coef, axis=1)
        kd, ky, kyy = self._weighted(1 / (1 + share) ** 2, which)
        kdd, kyd, kyyd = self._weighted(-2 * r.d / (1 + share) ** 3, which)
        kc = _times(kd, coef) - ky  # −K̇c with c = (−coef, 1)
        traces, squares = np.empty((b, k)), np.empty((b, k))
        information, curve = np.empty((b, k, k)), np.empty((b, k, k))
        squares[:, 0] = kyy - np.sum(ky * coef, axis=1) + np.sum(coef * kc, axis=1)
        bent = kyyd - 2 * np.sum(kyd * coef, axis=1) + np.sum(coef * _times(kdd, coef), axis=1)
        curve[:, 0, 0] = -bent - 2 * np.sum(kc * _times(w, kc), axis=1)
        # What log-determinants see: for ML not the fixed columns.
        t = m if self.reml else zs
        wd = w if self.reml else np.linalg.inv(a[:, :t, :t]) * (scale[:, :t, None] * scale[:, None, :t])
        wk = wd @ kd[:, :t, :t]
        traces[:, 0] = (r.d / (1 + share)) @ r.levels - np.einsum("bii->b", wk)
        information[:, 0, 0] = (
            (r.d / (1 + share)) ** 2 @ r.levels
            + np.sum(wd * kdd[:, :t, :t], axis=(1, 2))
            + np.sum(wk * np.swapaxes(wk, 1, 2), axis=(1, 2))
        )
        if k > 1:
            q = _left(c[:, :zs, :t], wd, scale)
            projected = q @ c[:, :t, :zs]
            whole = q if self.reml else _left(c[:, :zs], w, scale)
            inner = projected if self.reml else whole @ c[:, :, :zs]
            z, dz = _times(whole, cy), _times(whole, kc)
            moved = np.sum((q @ kd[:, :t, :t]) * q, axis=2)
            for i, (lo, hi) in enumerate(r.edges, start=1):
                zi = z[:, lo:hi]
                traces[:, i] = np.einsum("bjj->b", projected[:, lo:hi, lo:hi])
                squares[:, i] = np.sum(zi**2, axis=1)
                information[:, 0, i] = information[:, i, 0] = moved[:, lo:hi].sum(axis=1)
                curve[:, 0, i] = curve[:, i, 0] = -2 * np.sum(zi * dz[:, lo:hi], axis=1)
                for j, (left, right) in enumerate(r.edges[:i], start=1):
                    information[:, i, j] = information[:, j, i] = np.sum(
                        projected[:, lo:hi, left:right] ** 2, axis=(1, 2)
                    )
                    curve[:, i, j] = curve[:, j, i] = 2 * np.sum(
                        zi * _times(inner[:, lo:hi, left:right], z[:, left:right]), axis=1
                    )
        ratio = self.df / np.where(r2 > 0, r2, np.nan)
        gradient = traces - ratio[:, None] * squares
        hessian = -information + ratio[:, None, None] * curve
        hessian -= (ratio**2 / self.df)[:, None, None] * squares[:, :, None] * squares[:, None, :]
        return State(gradient, hessian, traces, squares, information, r2)

    def minque_step(self, gamma: Array, state: State) -> Array:
        """Return the step to MINQUE's ratios with weights γ: Fisher scoring with the residual free."""
        k = self.k
        lean = state.traces - np.einsum("bij,bj->bi", state.information, gamma)
        trace = self.df - np.sum(gamma * state.traces, axis=1)
        s = np.empty((gamma.shape[0], k + 1, k + 1))
        s[:, :k, :k] = state.information
        s[:, k, :k] = s[:, :k, k] = lean
        s[:, k, k] = trace - np.sum(gamma * lean, axis=1)
        u = np.column_stack([state.squares, state.r2 - np.sum(gamma * state.squares, axis=1)])
        root = np.sqrt(np.maximum(np.einsum("bii->bi", s), 1e-300))
        s /= root[:, :, None] * root[:, None, :]
        s[:, np.arange(k + 1), np.arange(k + 1)] += 1e-12
        s[~np.isfinite(s).all(axis=(1, 2))] = np.eye(k + 1)
        v = np.linalg.solve(s, np.nan_to_num(u / root)[:, :, None])[:, :, 0] / root
        residual = v[:, k]
        positive = residual > 0
        target = v[:, :k] / np.where(positive, residual, 1.0)[:, None]
        return np.where(positive[:, None], target, 4 * gamma + 0.1) - gamma

    def estimates(self, gamma: Array) -> tuple[Array, Array, Array]:
        """Return r² (B,), the coefficients of the fixed basis (B, p) and (X'V₀⁻¹X)⁻¹ (B, p, p)."""
        _, cy, cyy, scale, a = self._system(gamma, np.arange(self.size))
        w = np.linalg.inv(a) * (scale[:, :, None] * scale[:, None, :])
        coef = _times(w, cy)
        return cyy - np.sum(cy * coef, axis=1), coef[:, self.zs :], w[:, self.zs :, self.zs :]

    def _system(self, gamma: Array, which: Places) -> tuple[Array, Array, Array, Array, Array]:
        r = self.reduced
        k, ky, kyy = self._weighted(gamma[:, :1] / (1 + gamma[:, :1] * r.d), which)
        c, cy, cyy = r.c0 - k, self.rest_y[which] - ky, self.yy[which] - kyy
        scale = np.ones(cy.shape)
        for i, (lo, hi) in enumerate(r.edges, start=1):
            scale[:, lo:hi] = np.sqrt(gamma[:, i : i + 1])
        a = c * (scale[:, :, None] * scale[:, None, :])
        a[:, np.arange(self.zs), np.arange(self.zs)] += 1.0
        return c, cy, cyy, scale, a

    def _weighted(self, weights: Array, which: Places) -> tuple[Array, Array, Array]:
        r = self.reduced
        m = self.rest_y.shape[1]
        k = (weights @ r.outer).reshape(weights.shape[0], m, m)
        if r.d.size == 1:
            return k, weights * self.outer_y[0, which], weights[:, 0] * self.squares_y[0, which]
        ky = np.einsum("bu,ubm->bm", weights, self.outer_y[:, which])
        return k, ky, np.einsum("bu,ub->b", weights, self.squares_y[:, which])


def _left(c: Array, w: Array, scale: Array) -> Array:
    """Return the rows of I − CW; where γC is large as W/γ, which does not cancel."""
    zs = c.shape[1]
    at = np.arange(zs)
    gamma = scale[:, :zs] ** 2
    strong = gamma * c[:, at, at] > 1
    out = -(c @ w)
    out[:, at, at] += 1.0
    safe = np.where(strong, gamma, 1.0)
    return np.where(strong[:, :, None], w[:, :zs] / safe[:, :, None], out)


def _times(matrices: Array, vectors: Array) -> Array:
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])
