"""Variance components that may fall below zero: MINQUE from cross-products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ..errors import DynstatError
from .crossproducts import CrossProducts, cross_products
from .design import Design

Array = NDArray[np.float64]


def minque(design: Design, weights: Array, cross: CrossProducts | None = None) -> Array:
    """Estimate variance components without bounds, by minimum norm quadratic unbiased estimation.

    With V = Σ w_i Z_i Z_i' + w_0 I and P the projection of REML at these weights, the components solve
    Σ_j tr(P G_i P G_j) σ²_j = y'P G_i P y over all i, the residual (G = I) among them. With
    M = Z'PZ, tr(P G_i P G_j) = |M_ij|²_F and y'P G_i P y = |Z_i'Py|²; what involves the residual follows
    from P = P V P. No matrix has the size of the rows. In balanced data the result does not depend on the
    weights and equals the solution of the expected mean squares.

    Parameters
    ----------
    design : Design
        Intercept terms only.
    weights : ndarray, shape (k + 1,)
        Prior components in the order of the terms, the residual last and above zero; the REML estimates
        make it the first step of unbounded REML.

    Returns
    -------
    ndarray, shape (k + 1,)

    Raises
    ------
    DynstatError
        S402 where terms are confounded.

    References
    ----------
    Rao 1971, J. Multivar. Anal. 1: 257-275; Searle, Casella, McCulloch 1992, Variance Components, ch. 11.
    """
    if not all(t.intercept_only for t in design.terms):
        raise DynstatError(
            "S404",
            "unbounded components need intercept terms",
            where=design.formula.text,
            expected="(1 | group) terms",
            mend="drop the slopes",
        )
    cross = cross_products(design) if cross is None else cross
    z, zx, zy, xx, slices = dense_products(cross, len(design.terms))
    k = len(design.terms)
    w = np.asarray(weights, dtype=np.float64)
    residual = float(w[-1])
    gamma = np.concatenate([np.full(s.stop - s.start, w[t] / residual) for t, s in sorted_slices(slices)])
    root = np.sqrt(gamma)
    # P = (I − W T⁻¹ W')/w₀ with W = [ZΛ X], T = W'W + diag(I, 0).
    wz = np.vstack([root[:, None] * z, zx.T])
    t = np.block([[root[:, None] * z * root + np.eye(z.shape[0]), root[:, None] * zx], [zx.T * root, xx]])
    chol = linalg.cholesky(t, lower=True)
    half = linalg.solve_triangular(chol, wz, lower=True)
    wy = np.concatenate([root * zy, np.zeros(xx.shape[0])])
    half_y = linalg.solve_triangular(chol, wy, lower=True)
    m = (z - half.T @ half) / residual
    zpy = (zy - half.T @ half_y) / residual
    ypy = (float(cross.rest[-1, -1]) - float(half_y @ half_y)) / residual
    s = np.empty((k + 1, k + 1))
    u = np.empty(k + 1)
    trace = np.empty(k)
    for i in range(k):
        a = slices[i]
        u[i] = float(np.sum(zpy[a] ** 2))
        trace[i] = float(np.trace(m[a, a]))
        for j in range(i + 1):
            s[i, j] = s[j, i] = float(np.sum(m[a, slices[j]] ** 2))
    s[k, :k] = s[:k, k] = (trace - s[:k, :k] @ w[:k]) / residual
    trace_p = (cross.n - cross.p - float(w[:k] @ trace)) / residual
    s[k, k] = (trace_p - float(w[:k] @ s[:k, k])) / residual
    u[k] = (ypy - float(w[:k] @ u[:k])) / residual
    if np.linalg.cond(s / np.sqrt(np.outer(np.diag(s), np.diag(s)))) > 1e10:
        raise DynstatError(
            "S402",
            "the components cannot be told apart",
            where=design.formula.text,
            found="terms that are confounded in these rows",
            mend="leave a term out, or take more samples a cell",
        )
    return np.asarray(np.linalg.solve(s, u), dtype=np.float64)


def dense_products(cross: CrossProducts, n_terms: int) -> tuple[Array, Array, Array, Array, list[slice]]:
    """Return Z'Z, Z'X, Z'y, X'X and the slice of every term, for intercept terms."""
    first = cross.blocks[0]
    zs = sum(b.size for b in cross.blocks)
    z = np.zeros((zs, zs))
    q = first.size
    side = cross.side.reshape(q, -1)
    z[np.arange(q), np.arange(q)] = cross.own.reshape(-1)
    z[:q, q:] = side[:, : zs - q]
    z[q:, :q] = z[:q, q:].T
    z[q:, q:] = cross.rest[: zs - q, : zs - q]
    zx = np.vstack([side[:, zs - q : -1], cross.rest[: zs - q, zs - q : -1]])
    zy = np.concatenate([side[:, -1], cross.rest[: zs - q, -1]])
    slices = [slice(0, 0)] * n_terms
    at = 0
    for block in cross.blocks:
        slices[block.members[0][0]] = slice(at, at + block.size)
        at += block.size
    return z, zx, zy, cross.rest[zs - q : -1, zs - q : -1], slices


def sorted_slices(slices: list[slice]) -> list[tuple[int, slice]]:
    """Return (term, slice) by position."""
    return sorted(enumerate(slices), key=lambda item: item[1].start)
