"""Kenward-Roger: the adjusted covariance of fixed effects and degrees of freedom, without n × n matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from ..errors import DynstatError
from .crossproducts import Block
from .pls import PenalisedLeastSquares

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
#: Numbers in the largest matrices above which they no longer fit a small machine (1.6 GB).
LARGEST = 200_000_000


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
    tr(V⁻¹G_iV⁻¹G_j). What involves the residual follows from I = (V − Σ γ_i G_i)/σ². The factor of most
    levels stays block-diagonal plus low rank, so that the cost is its levels times the square of all others,
    whatever the number of rows.

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
    if (entries := _entries(pls)) > LARGEST:
        raise DynstatError(
            "S404",
            "too many random effects for Kenward-Roger",
            where=m.formula,
            found=f"matrices of {entries:.2g} numbers",
            expected=f"at most {LARGEST:.2g}",
            mend="use ddf='Satterthwaite'",
        )
    p, n = pls.cross.p, pls.cross.n
    theta = m.theta.to_numpy(dtype=float)
    weighted = _weighted(pls, theta, sigma2)
    parameters = _parameters(pls, theta, sigma2)
    gammas = np.array([g.value for g in parameters])
    m_xx = weighted.rest[weighted.fixed :, weighted.fixed :]
    r = gammas.size
    # P_i, Q_ij and the traces for the random parameters, then the residual's by substitution.
    to_x = [weighted.to_fixed(b) for b in range(len(pls.cross.blocks))]
    h = [_rows(g.pattern, to_x[g.block]) for g in parameters]
    ps = np.zeros((r + 1, p, p))
    qs = np.zeros((r + 1, r + 1, p, p))
    trace, k = np.zeros(r + 1), np.zeros((r + 1, r + 1))
    for i, one in enumerate(parameters):
        ps[i] = -to_x[one.block].T @ h[i]
        trace[i] = weighted.trace(one)
        for j, two in enumerate(parameters[i:], start=i):
            qs[i, j] = weighted.form(one.block, two.block, h[i], h[j])
            qs[j, i] = qs[i, j].T
            k[i, j] = k[j, i] = weighted.product_trace(one, two)
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
    """Return V⁻¹X over the rows of a fit, shape (n, p), weights of rows included."""
    pls, design, theta = m.pls, m.design, m.theta.to_numpy(dtype=float)
    lambdas = _lambdas(pls, theta)
    inner, _, _, half, b = _eliminate(pls, lambdas)
    zs = pls.zs
    # X less Z₂b₂ less Z₁b₁: first the effects of the other blocks, then those of the first given these.
    others = half @ (half.T @ b[:zs, zs:])
    side = pls.cross.side[..., :-1]
    first = inner @ (side[..., zs:] - side[..., :zs] @ others)
    effects = [first, *(others[lo:hi].reshape(k.levels, k.width, -1) for (lo, hi), k in _others(pls))]
    out = design.x.copy()
    for term, slot in zip(design.terms, pls.slots, strict=True):
        block = effects[slot.block][:, slot.column : slot.column + slot.width] @ pls.cross.x_root
        per_row = block[term.codes]
        out -= per_row[:, 0] if term.values is None else np.einsum("na,nak->nk", term.values, per_row)
    if design.cells is not None:
        out *= design.cells.weights[:, None]
    return out / m.solution.sigma2


class _Parameter(NamedTuple):
    """A variance or covariance: its value, its block, and B in G = Z(I ⊗ B)Z', shape (width, width)."""

    value: float
    block: int
    pattern: Array


class _Weighted(NamedTuple):
    """Blocks of M = W'V⁻¹W, W = [Z₁ R], R = [Z₂ … X]: M₁₁ = diag(own) − low·low', M₁R and M_RR.

    The block of most levels is never a full matrix: own is block-diagonal, shape (q, k, k), low has a column
    for every other random effect, shape (q, k, z).
    """

    own: Array
    low: Array
    side: Array
    rest: Array
    fixed: int
    edges: tuple[tuple[int, int], ...]

    def to_fixed(self, block: int) -> Array:
        """Return M_bX."""
        if block == 0:
            return self.side[:, self.fixed :]
        lo, hi = self.edges[block - 1]
        return self.rest[lo:hi, self.fixed :]

    def between(self, one: int, two: int) -> Array:
        """Return M_bc of two blocks, not both the first."""
        if one and two:
            return self.rest[slice(*self.edges[one - 1]), slice(*self.edges[two - 1])]
        return self.side[:, slice(*self.edges[two - 1])] if two else self.between(two, one).T

    def form(self, one: int, two: int, left: Array, right: Array) -> Array:
        """Return left' M_bc right."""
        if one or two:
            return np.asarray(left.T @ (self.between(one, two) @ right))
        q, k, z = self.low.shape
        flat = self.low.reshape(q * k, z)
        turned = (self.own @ right.reshape(q, k, -1)).reshape(right.shape)
        return np.asarray(left.T @ turned - (flat.T @ left).T @ (flat.T @ right))

    def trace(self, one: _Parameter) -> float:
        """Return tr(V⁻¹G)."""
        if one.block == 0:
            touched = one.pattern @ self.low
            return float(np.vdot(self.own.sum(axis=0), one.pattern) - np.vdot(self.low, touched))
        lo, hi = self.edges[one.block - 1]
        width = one.pattern.shape[0]
        corner = self.rest[lo:hi, lo:hi]
        total = 0.0
        for a, b in zip(*np.nonzero(one.pattern), strict=True):
            total += one.pattern[a, b] * float(np.trace(corner[a::width, b::width]))
        return total

    def product_trace(self, one: _Parameter, two: _Parameter) -> float:
        """Return tr(V⁻¹G_iV⁻¹G_j)."""
        if one.block or two.block:
            block = self.between(one.block, two.block)
            return float(np.vdot(_rows(one.pattern, block), _rows(two.pattern, block.T).T))
        q, k, z = self.low.shape
        first, second = one.pattern @ self.own, two.pattern @ self.own
        diagonal = float(np.einsum("lab,lba->", first, second))
        left, right = one.pattern @ self.low, two.pattern @ self.low
        mixed = 2 * float(np.vdot(left, self.own @ right))
        flat = self.low.reshape(q * k, z)
        a = flat.T @ left.reshape(q * k, z)
        b = a if one is two else flat.T @ right.reshape(q * k, z)
        return diagonal - mixed + float(np.vdot(a, b.T))


def fits_memory(m: LmerResult) -> bool:
    """Say whether the matrices of :func:`kenward_roger` are of a size to be held."""
    return _entries(m.pls) <= LARGEST


def _entries(pls: PenalisedLeastSquares) -> float:
    rest = pls.cross.rest.shape[0]
    return float(rest) * (rest + pls.cross.blocks[0].size)


def _parameters(pls: PenalisedLeastSquares, theta: Array, sigma2: float) -> list[_Parameter]:
    """List the covariance parameters: a one on B's diagonal for a variance, two off it for a covariance."""
    out = []
    for t, slot in enumerate(pls.slots):
        width = pls.cross.blocks[slot.block].width
        lam = pls.template(theta, t)
        cov = sigma2 * lam @ lam.T
        for a in range(slot.width):
            for b in range(a, slot.width):
                pattern = np.zeros((width, width))
                pattern[slot.column + a, slot.column + b] = pattern[slot.column + b, slot.column + a] = 1.0
                out.append(_Parameter(float(cov[a, b]), slot.block, pattern))
    return out


def _rows(pattern: Array, matrix: Array) -> Array:
    """Return (I ⊗ B) times the rows of a block."""
    width = pattern.shape[0]
    if width == 1:
        return matrix * pattern[0, 0]
    return (pattern @ matrix.reshape(-1, width, matrix.shape[1])).reshape(matrix.shape)


def _lambdas(pls: PenalisedLeastSquares, theta: Array) -> list[Array]:
    """Return the relative factor of every block."""
    out = [np.zeros((b.width, b.width)) for b in pls.cross.blocks]
    for t, slot in enumerate(pls.slots):
        cut = slice(slot.column, slot.column + slot.width)
        out[slot.block][cut, cut] = pls.template(theta, t)
    return out


def _others(pls: PenalisedLeastSquares) -> list[tuple[tuple[int, int], Block]]:
    return list(zip(pls.cross.offsets, pls.cross.blocks[1:], strict=True))


def _eliminate(pls: PenalisedLeastSquares, lambdas: list[Array]) -> tuple[Array, Array, Array, Array, Array]:
    """Return what the first block leaves behind, V₁ = I + Z₁Λ₁Λ₁'Z₁' and R the other columns.

    Λ₁A₁⁻¹Λ₁' a level, (Z₁'V₁⁻¹Z₁) a level, Z₁'V₁⁻¹R, a root J of K = Λ₂(I + Λ₂'B₂₂Λ₂)⁻¹Λ₂' = JJ', and
    B = R'V₁⁻¹R.
    """
    cross, lam, zs = pls.cross, lambdas[0], pls.zs
    side, rest = cross.side[..., :-1], cross.rest[:-1, :-1]
    a = lam.T @ cross.own @ lam + np.eye(lam.shape[0])
    inner = lam @ np.linalg.solve(a, np.broadcast_to(lam.T, a.shape))
    reduced = inner @ side
    m = rest.shape[0]
    b = rest - side.reshape(-1, m).T @ reduced.reshape(-1, m)
    own = cross.own - cross.own @ inner @ cross.own
    turned = side - cross.own @ reduced
    big = np.zeros((zs, zs))
    for ((lo, hi), block), small in zip(_others(pls), lambdas[1:], strict=True):
        at = np.arange(lo, hi).reshape(block.levels, block.width)
        for i in range(block.width):
            for j in range(block.width):
                big[at[:, i], at[:, j]] = small[i, j]
    diagonal = all(block.width == 1 for block in cross.blocks[1:])
    scale = np.diag(big)
    scaled = b[:zs, :zs] * scale * scale[:, None] if diagonal else big.T @ b[:zs, :zs] @ big
    scaled[np.arange(zs), np.arange(zs)] += 1.0
    half = linalg.solve_triangular(np.linalg.cholesky(scaled), big.T, lower=True, check_finite=False).T
    return inner, own, turned, half, b


def _weighted(pls: PenalisedLeastSquares, theta: Array, sigma2: float) -> _Weighted:
    """Compute the blocks of M, with X's orthonormal basis in place of X."""
    _, own, turned, half, b = _eliminate(pls, _lambdas(pls, theta))
    zs = pls.zs
    low = turned[..., :zs] @ half
    inside = half.T @ b[:zs]
    q, k, m = turned.shape
    side = (turned.reshape(q * k, m) - low.reshape(q * k, -1) @ inside) / sigma2
    rest = (b - inside.T @ inside) / sigma2
    return _Weighted(
        own / sigma2, low / np.sqrt(sigma2), side, rest, zs, tuple(edges for edges, _ in _others(pls))
    )


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
