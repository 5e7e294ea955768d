"""Kenward-Roger: the adjusted covariance of fixed effects and degrees of freedom, without n × n matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from ..errors import DynstatError
from .pls import PenalisedLeastSquares

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
#: Above this many random effects the dense products no longer fit a machine.
LARGEST = 20_000


class FTest(NamedTuple):
    """A joint test: F statistic with its scale taken in, its degrees of freedom, and that scale."""

    statistic: float
    num_df: int
    den_df: float
    scale: float = 1.0


@dataclass(frozen=True)
class KenwardRoger:
    """What Kenward-Roger tests of one fit need.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        The adjusted covariance of the fixed effects, Φ_A.
    plain : ndarray, shape (p, p)
        The unadjusted one, Φ.
    p : ndarray, shape (r, p, p)
        P_i = −X'V⁻¹G_iV⁻¹X for the r covariance parameters, the residual variance last.
    w : ndarray, shape (r, r)
        The asymptotic covariance of these parameters.
    beta : ndarray, shape (p,)
    """

    name = "Kenward-Roger"

    vcov: Array
    plain: Array
    p: Array
    w: Array
    beta: Array

    def df(self, contrast: ArrayLike) -> float:
        """Return the degrees of freedom of one contrast, shape (p,)."""
        return self.f_test(np.atleast_2d(np.asarray(contrast, dtype=np.float64))).den_df

    def f_test(self, contrasts: Array, rhs: Array | float = 0.0) -> FTest:
        """Test L β = rhs jointly; rows of L must be independent, shape (q, p)."""
        q = contrasts.shape[0]
        theta = contrasts.T @ np.linalg.solve(contrasts @ self.plain @ contrasts.T, contrasts)
        u = theta @ self.plain @ self.p @ self.plain
        traces = np.einsum("iaa->i", u)
        a1 = float(traces @ self.w @ traces)
        a2 = float(np.einsum("ij,iab,jba->", self.w, u, u, optimize=True))
        b = (a1 + 6 * a2) / (2 * q)
        g = ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
        bottom = 3 * q + 2 * (1 - g)
        c1, c2, c3 = g / bottom, (q - g) / bottom, (q + 2 - g) / bottom
        v0, v1, v2 = 1 + c1 * b, 1 - c2 * b, 1 - c3 * b
        v0 = 0.0 if abs(v0) < 1e-10 else v0
        shrink = 1 - a2 / q
        ratio = 1.0 if abs(shrink) < 1e-14 and abs(v1) < 1e-14 else shrink / v1
        rho = ratio**2 * v0 / v2 / q
        den = 4 + (q + 2) / (q * rho - 1)
        scale = 1.0 if abs(den - 2) < 1e-2 else den * shrink / (den - 2)
        distance = contrasts @ self.beta - rhs
        wald = distance @ np.linalg.solve(contrasts @ self.vcov @ contrasts.T, distance)
        return FTest(float(scale * wald / q), q, float(den), float(scale))


def kenward_roger(m: LmerResult) -> KenwardRoger:
    """Compute the Kenward-Roger adjustment of a REML fit from its cross-products.

    With W = [Z X] and M = W'V⁻¹W = (C − C_Z Λ A⁻¹ Λ'C_Z')/σ², C = W'W, A = Λ'Z'ZΛ + I, every ingredient is a
    product of blocks of M: for V = σ²I + Σ γ_i G_i, P_i = −X'V⁻¹G_iV⁻¹X, Q_ij = X'V⁻¹G_iV⁻¹G_jV⁻¹X and
    tr(V⁻¹G_iV⁻¹G_j). What involves the residual follows from I = (V − Σ γ_i G_i)/σ². The cost depends on the
    number of levels, not of rows.

    Parameters
    ----------
    m : LmerResult
        A REML fit.

    Returns
    -------
    KenwardRoger

    Raises
    ------
    DynstatError
        S404 for a fit by maximum likelihood.

    Source: Kenward and Roger 1997, Biometrics 53: 983-997; Halekoh and Højsgaard 2014, J. Stat. Softw. 59(9).
    """
    if not m.reml:
        raise DynstatError(
            "S404",
            "Kenward-Roger needs a REML fit",
            where=m.formula,
            found="a fit by maximum likelihood",
            expected="REML=True",
            mend="fit again with REML=True, or use Satterthwaite",
        )
    pls, sigma2 = m.pls, m.solution.sigma2
    effects = sum(b.size for b in pls.cross.blocks)
    if effects > LARGEST:
        raise DynstatError(
            "S404",
            "too many random effects for Kenward-Roger",
            where=m.formula,
            found=effects,
            expected=f"at most {LARGEST}",
            mend="use ddf='Satterthwaite'",
        )
    p, n = pls.cross.p, pls.cross.n
    gammas, indices, grams = _parameters(pls, m.theta.to_numpy(), sigma2)
    m_zz, m_zx, m_xx = _weighted(pls, m.theta.to_numpy(), sigma2)
    r = gammas.size
    # P_i and Q_ij for the random parameters, then the residual's by substitution.
    h = [_apply(m_zx, index, gram) for index, gram in zip(indices, grams, strict=True)]
    ps = np.zeros((r + 1, p, p))
    qs = np.zeros((r + 1, r + 1, p, p))
    trace, k = np.zeros(r + 1), np.zeros((r + 1, r + 1))
    for i in range(r):
        rows = indices[i].ravel()
        ps[i] = -m_zx[rows].T @ h[i]
        block = m_zz[np.ix_(rows, rows)].reshape(*indices[i].shape, *indices[i].shape)
        trace[i] = np.einsum("lalb,ba->", block, grams[i])
        for j in range(i, r):
            between = m_zz[np.ix_(rows, indices[j].ravel())]
            qs[i, j] = h[i].T @ between @ h[j]
            qs[j, i] = qs[i, j].T
            if grams[i].size == grams[j].size == 1:
                k[i, j] = np.vdot(between, between)
            else:
                four = between.reshape(*indices[i].shape, *indices[j].shape)
                left = np.einsum("ab,lbmc->lamc", grams[i], four)
                k[i, j] = np.einsum("lamc,cd,lamd->", left, grams[j], four)
            k[j, i] = k[i, j]
    ps[r] = -(m_xx + np.einsum("i,iab->ab", gammas, ps[:r])) / sigma2
    for i in range(r):
        qs[r, i] = (-ps[i] - np.einsum("j,jab->ab", gammas, qs[:r, i])) / sigma2
        qs[i, r] = qs[r, i].T
        k[i, r] = k[r, i] = (trace[i] - gammas @ k[:r, i]) / sigma2
    qs[r, r] = (-ps[r] - np.einsum("j,jab->ab", gammas, qs[:r, r])) / sigma2
    k[r, r] = ((n - gammas @ trace[:r]) / sigma2 - gammas @ k[:r, r]) / sigma2

    phi = np.linalg.inv(m_xx)
    phi = (phi + phi.T) / 2
    around = phi @ ps
    information = (
        k - 2 * np.einsum("ab,ijba->ij", phi, qs) + np.einsum("iab,jba->ij", around, around, optimize=True)
    )
    w = 2 * _inverse(information)
    middle = np.einsum("ij,ijab->ab", w, qs, optimize=True) - np.einsum(
        "ij,iab,jbc->ac", w, ps, around, optimize=True
    )
    adjusted = phi + 2 * phi @ (middle + middle.T) / 2 @ phi
    # From the orthonormal basis of the cross-products back to the columns of X.
    back = linalg.solve_triangular(pls.cross.x_root, np.eye(p)) if p else np.zeros((0, 0))
    root = pls.cross.x_root
    return KenwardRoger(
        back @ adjusted @ back.T,
        back @ phi @ back.T,
        np.einsum("ba,ibc,cd->iad", root, ps, root, optimize=True),
        w,
        m.solution.beta,
    )


def random_solution(m: LmerResult) -> Array:
    """Return V⁻¹X over the rows of a fit, shape (n, p).

    V⁻¹X = (X − ZΛA⁻¹Λ'Z'X)/σ², weights of rows included.
    """
    pls, design, theta = m.pls, m.design, m.theta.to_numpy()
    c = _products(pls)
    q = c.shape[0] - pls.cross.p
    scaled = _scale_rows(pls, theta, c[:q])
    a = _scale_rows(pls, theta, np.ascontiguousarray(scaled[:, :q].T))
    a[np.arange(q), np.arange(q)] += 1.0
    spherical = linalg.cho_solve(linalg.cho_factor(a), scaled[:, q:] @ pls.cross.x_root)
    starts = np.cumsum([0, *(b.size for b in pls.cross.blocks)])
    out = design.x.copy()
    for t, (term, slot) in enumerate(zip(design.terms, pls.slots, strict=True)):
        block = pls.cross.blocks[slot.block]
        rows = spherical[starts[slot.block] : starts[slot.block + 1]]
        shaped = rows.reshape(block.levels, block.width, -1)[:, slot.column : slot.column + slot.width]
        effects = np.einsum("ab,lbk->lak", pls.template(theta, t), shaped)[term.codes]
        out -= effects[:, 0] if term.values is None else np.einsum("na,nak->nk", term.values, effects)
    if design.cells is not None:
        out *= design.cells.weights[:, None]
    return out / m.solution.sigma2


def _parameters(
    pls: PenalisedLeastSquares, theta: Array, sigma2: float
) -> tuple[Array, list[NDArray[np.intp]], list[Array]]:
    """Return for every covariance parameter its value, the random columns it touches, and its pattern.

    G = Z (I ⊗ B) Z' over the levels of a term: B has a one on the diagonal for a variance, two off it for a
    covariance. Columns are counted through the blocks in order, shape (levels, width).
    """
    starts = np.cumsum([0, *(b.size for b in pls.cross.blocks)])
    values, indices, grams = [], [], []
    for t, slot in enumerate(pls.slots):
        block = pls.cross.blocks[slot.block]
        lam = pls.template(theta, t)
        cov = sigma2 * lam @ lam.T
        index = (
            starts[slot.block]
            + np.arange(block.levels)[:, None] * block.width
            + slot.column
            + np.arange(slot.width)
        )
        for a in range(slot.width):
            for b in range(a, slot.width):
                pattern = np.zeros((slot.width, slot.width))
                pattern[a, b] = pattern[b, a] = 1.0
                values.append(cov[a, b])
                indices.append(index)
                grams.append(pattern)
    return np.asarray(values), indices, grams


def _apply(matrix: Array, index: NDArray[np.intp], pattern: Array) -> Array:
    """Return (I ⊗ B) times the rows of one term."""
    rows = matrix[index.ravel()]
    if pattern.size == 1:
        return rows
    return np.einsum("ab,lbx->lax", pattern, rows.reshape(*index.shape, -1)).reshape(rows.shape)


def _weighted(pls: PenalisedLeastSquares, theta: Array, sigma2: float) -> tuple[Array, Array, Array]:
    """Return Z'V⁻¹Z, Z'V⁻¹X and X'V⁻¹X, with X's orthonormal basis in place of X."""
    c = _products(pls)
    q = c.shape[0] - pls.cross.p
    scaled = _scale_rows(pls, theta, c[:q])
    a = _scale_rows(pls, theta, np.ascontiguousarray(scaled[:, :q].T))
    a[np.arange(q), np.arange(q)] += 1.0
    root = linalg.solve_triangular(np.linalg.cholesky(a), scaled, lower=True, check_finite=False)
    weighted = (c - root.T @ root) / sigma2
    return weighted[:q, :q], weighted[:q, q:], weighted[q:, q:]


def _products(pls: PenalisedLeastSquares) -> Array:
    """Return W'W for W = [Z X], the block of most levels first."""
    cross = pls.cross
    first = cross.blocks[0]
    rest = cross.rest[:-1, :-1]
    side = cross.side[..., :-1].reshape(first.size, -1)
    out = np.zeros((first.size + rest.shape[0],) * 2)
    at = np.arange(first.size).reshape(first.levels, first.width)
    for a in range(first.width):
        for b in range(first.width):
            out[at[:, a], at[:, b]] = cross.own[:, a, b]
    out[: first.size, first.size :] = side
    out[first.size :, : first.size] = side.T
    out[first.size :, first.size :] = rest
    return out


def _scale_rows(pls: PenalisedLeastSquares, theta: Array, matrix: Array) -> Array:
    """Return Λ' times the rows of `matrix`."""
    lambdas = [np.zeros((b.width, b.width)) for b in pls.cross.blocks]
    for t, slot in enumerate(pls.slots):
        cut = slice(slot.column, slot.column + slot.width)
        lambdas[slot.block][cut, cut] = pls.template(theta, t)
    out, start = np.empty_like(matrix), 0
    for block, lam in zip(pls.cross.blocks, lambdas, strict=True):
        rows = matrix[start : start + block.size]
        if block.width == 1:
            out[start : start + block.size] = rows * lam[0, 0]
        else:
            shaped = rows.reshape(block.levels, block.width, -1)
            out[start : start + block.size] = (lam.T @ shaped).reshape(rows.shape)
        start += block.size
    return out


def _inverse(information: Array) -> Array:
    """Invert a symmetric matrix, generalised where it is singular to rounding."""
    scale = 1 / np.sqrt(np.maximum(np.diag(information), np.finfo(float).tiny))
    scaled = information * scale * scale[:, None]
    values = np.linalg.eigvalsh(scaled)
    if values.min() > 1e-10 * values.max():
        inverse = np.linalg.inv(scaled)
    else:
        inverse = np.linalg.pinv(scaled, rcond=1e-10, hermitian=True)
    out = inverse * scale * scale[:, None]
    return np.asarray((out + out.T) / 2, dtype=np.float64)
