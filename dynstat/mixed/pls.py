"""Penalised least squares on cross-products: the criterion of a linear mixed model and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from .crossproducts import CrossProducts
from .design import Term

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Slot:
    """Where the parameters of one term stand: in theta, and in which block's factor."""

    block: int
    column: int
    width: int
    start: int

    @property
    def stop(self) -> int:
        """End of its piece of theta."""
        return self.start + self.width * (self.width + 1) // 2


@dataclass(frozen=True)
class Solution:
    """Everything at one theta.

    Attributes
    ----------
    criterion : float
        The profiled REML criterion or deviance (−2 log-likelihood).
    beta, vcov : ndarray
        Fixed effects and their covariance.
    sigma2 : float
        Residual variance.
    effects : tuple of ndarray, shape (levels, k)
        Conditional modes of the random effects, a term.
    covariances : tuple of ndarray, shape (levels, k, k)
        Their conditional covariances given theta.
    penalty : float
        |u|², the squared length of the spherical effects.
    """

    criterion: float
    beta: Array
    vcov: Array
    sigma2: float
    effects: tuple[Array, ...]
    covariances: tuple[Array, ...]
    penalty: float


@dataclass(frozen=True)
class _Factor:
    lambdas: list[Array]
    own: Array  # chol of Λ₁'D Λ₁ + I, level by level
    f1: Array  # Λ₁'F, columns not yet scaled
    fr: Array  # F with scaled columns
    rr: Array  # rest with scaled columns
    h: Array  # own⁻¹ Λ₁'F, scaled
    chol: Array  # lower factor of the Schur complement, bordered by X and y
    logdet_a: float
    logdet_x: float
    r2: float


class PenalisedLeastSquares:
    """The profiled criterion of one design and outcome as a function of theta.

    With V₀ = I + ZΛΛ'Z' and A = Λ'Z'ZΛ + I, the deviance is log|A| + n(1 + log(2πr²/n)) and the REML
    criterion log|A| + log|X'V₀⁻¹X| + (n−p)(1 + log(2πr²/(n−p))), where r² = y'P₀y. The block of most levels
    is eliminated level by level; what remains is one dense Cholesky factor, so that an evaluation does not
    depend on the number of rows.

    Source: Bates, Mächler, Bolker, Walker 2015, J. Stat. Softw. 67(1), sections 3.2 to 3.4.
    """

    def __init__(self, cross: CrossProducts, terms: Sequence[Term], reml: bool = True) -> None:
        self.cross, self.reml, self.terms = cross, reml, tuple(terms)
        place = {t: (b, col) for b, block in enumerate(cross.blocks) for t, col in block.members}
        slots, start = [], 0
        for t, term in enumerate(terms):
            slots.append(Slot(*place[t], term.width, start))
            start = slots[-1].stop
        self.slots = tuple(slots)
        self.n_theta = start
        self.df = cross.n - cross.p if reml else cross.n
        self.zs = sum(b.size for b in cross.blocks[1:])
        diagonal = np.zeros(start, dtype=bool)
        for slot in slots:
            at = slot.start
            for width in range(slot.width, 0, -1):
                diagonal[at] = True
                at += width
        self.diagonal = diagonal
        self._columns_scale = all(b.width == 1 for b in cross.blocks[1:])

    @property
    def start(self) -> Array:
        """Identity factors, where lme4 starts too."""
        return self.diagonal.astype(np.float64)

    def template(self, theta: Array, term: int) -> Array:
        """Return the relative factor Λ of one term, shape (k, k), filled by columns as lme4 does."""
        slot = self.slots[term]
        out = np.zeros((slot.width, slot.width))
        rows, cols = _lower(slot.width)
        out[rows, cols] = theta[slot.start : slot.stop]
        return out

    def criterion(self, theta: Array) -> float:
        """Return the profiled criterion; infinity where it cannot be computed."""
        factor = self._factor(np.asarray(theta, dtype=np.float64))
        return np.inf if factor is None else self._criterion(factor)

    def criterion_and_gradient(self, theta: Array) -> tuple[float, Array]:
        """Return the profiled criterion and its derivative by theta.

        With d V₀ = Z(dΛ Λ' + Λ dΛ')Z', u the spherical effects and v = Z'P₀y, the derivative is
        2⟨Z'P₀ZΛ − (df/r²) v u', dΛ⟩ over the levels of each factor (ML: V₀⁻¹ in place of the first P₀).
        """
        factor = self._factor(np.asarray(theta, dtype=np.float64))
        if factor is None:
            return np.inf, np.zeros(self.n_theta)
        return self._criterion(factor), self._gradient(factor)

    def solve(self, theta: Array) -> Solution:
        """Return estimates, modes and conditional covariances at `theta`."""
        theta = np.asarray(theta, dtype=np.float64)
        factor = self._factor(theta)
        if factor is None:
            raise linalg.LinAlgError("the penalised system is singular")
        cross = self.cross
        sigma2 = factor.r2 / self.df
        u1, coef = self._spherical(factor)
        root = factor.chol[self.zs : -1, self.zs : -1].T @ cross.x_root if cross.p else np.zeros((0, 0))
        beta = cross.beta_ols.copy()
        vcov = np.zeros((0, 0))
        if cross.p:
            beta = beta + linalg.solve_triangular(cross.x_root, coef[self.zs :])
            inverse = linalg.solve_triangular(root, np.eye(cross.p))
            vcov = sigma2 * inverse @ inverse.T
        spherical = [u1] + [
            coef[a:b].reshape(-1, blk.width)
            for (a, b), blk in zip(cross.offsets, cross.blocks[1:], strict=True)
        ]
        inner = _inverse(factor.chol[: self.zs, : self.zs])
        k = _solve_upper(factor.own, factor.h)[..., : self.zs]
        own = _inverse_levels(factor.own) + np.einsum("lai,ij,lbj->lab", k, inner, k, optimize=True)
        conditional = [own]
        for (a, b), block in zip(cross.offsets, cross.blocks[1:], strict=True):
            piece = inner[a:b, a:b].reshape(block.levels, block.width, block.levels, block.width)
            conditional.append(
                np.einsum("laib->liab", piece)[np.arange(block.levels), np.arange(block.levels)]
            )
        effects, covariances = [], []
        for t, slot in enumerate(self.slots):
            lam = self.template(theta, t)
            cut = slice(slot.column, slot.column + slot.width)
            effects.append(spherical[slot.block][:, cut] @ lam.T)
            covariances.append(sigma2 * lam @ conditional[slot.block][:, cut, cut] @ lam.T)
        penalty = float(sum(np.sum(u**2) for u in spherical))
        return Solution(
            self._criterion(factor), beta, vcov, sigma2, tuple(effects), tuple(covariances), penalty
        )

    # -- one evaluation ---------------------------------------------------------------------------------

    def _lambdas(self, theta: Array) -> list[Array]:
        out = [np.zeros((b.width, b.width)) for b in self.cross.blocks]
        for t, slot in enumerate(self.slots):
            cut = slice(slot.column, slot.column + slot.width)
            out[slot.block][cut, cut] = self.template(theta, t)
        return out

    def _scale(self, matrix: Array, lambdas: list[Array]) -> Array:
        """Multiply the columns of the other blocks by their factors; X and y stay."""
        if self._columns_scale:
            scale = np.ones(matrix.shape[-1])
            for (a, b), lam in zip(self.cross.offsets, lambdas[1:], strict=True):
                scale[a:b] = lam[0, 0]
            return matrix * scale
        out = matrix.copy()
        for (a, b), block, lam in zip(self.cross.offsets, self.cross.blocks[1:], lambdas[1:], strict=True):
            piece = matrix[..., a:b].reshape(*matrix.shape[:-1], block.levels, block.width)
            out[..., a:b] = (piece @ lam).reshape(*matrix.shape[:-1], b - a)
        return out

    def _factor(self, theta: Array) -> _Factor | None:
        if not np.isfinite(theta).all():
            return None
        cross, zs = self.cross, self.zs
        lambdas = self._lambdas(theta)
        lam1 = lambdas[0]
        try:
            own: Array = np.asarray(np.linalg.cholesky(lam1.T @ cross.own @ lam1 + np.eye(lam1.shape[0])))
        except np.linalg.LinAlgError:
            return None
        f1 = cross.side * lam1[0, 0] if lam1.size == 1 else lam1.T @ cross.side
        fr = self._scale(cross.side, lambdas)
        rr = self._scale(cross.rest, lambdas)
        scaled = fr * lam1[0, 0] if lam1.size == 1 else lam1.T @ fr
        h = scaled / own if lam1.size == 1 else np.linalg.solve(own, scaled)
        both = self._scale(np.ascontiguousarray(rr.T), lambdas)
        both[np.arange(zs), np.arange(zs)] += 1.0
        chol, info = linalg.lapack.dpotrf(both - self._eliminated(lambdas, own, h), lower=1, clean=1)
        if info != 0 or not np.isfinite(chol[-1, -1]) or chol[-1, -1] <= 0:
            return None
        logs = 2 * np.log(np.diagonal(chol))
        own_logs = 2 * np.log(np.diagonal(own, axis1=1, axis2=2))
        return _Factor(
            lambdas,
            own,
            f1,
            fr,
            rr,
            h,
            chol,
            float(own_logs.sum() + logs[:zs].sum()),
            float(logs[zs:-1].sum()) + cross.x_logdet,
            float(chol[-1, -1] ** 2),
        )

    def _eliminated(self, lambdas: list[Array], own: Array, h: Array) -> Array:
        """Return h'h over the levels of the first block."""
        pairs = self.cross.pairs
        if pairs is None:
            flat = h.reshape(-1, h.shape[-1])
            return flat.T @ flat
        m = h.shape[-1]
        weights = (lambdas[0][0, 0] / own[:, 0, 0]) ** 2
        side, scale = self.cross.side[:, 0], self._scale(np.ones(m), lambdas)
        out = np.empty((m, m))
        out[:-1, :-1] = (pairs @ weights).reshape(m - 1, m - 1)
        out[:, -1] = out[-1, :] = (weights * side[:, -1]) @ side
        return out * scale * scale[:, None]

    def _criterion(self, f: _Factor) -> float:
        fixed = f.logdet_x if self.reml else 0.0
        fixed -= self.cross.log_weights
        return f.logdet_a + fixed + self.df * (1 + float(np.log(2 * np.pi * f.r2 / self.df)))

    def _spherical(self, f: _Factor) -> tuple[Array, Array]:
        """Return u of the first block, shape (q, k), and (u of the others, coefficients of X's basis)."""
        m = f.chol.shape[0] - 1
        coef = (
            linalg.solve_triangular(f.chol[:m, :m], f.chol[m, :m], lower=True, trans="T")
            if m
            else np.zeros(0)
        )
        right = f.h[..., -1] - f.h[..., :-1] @ coef
        return _solve_upper(f.own, right[..., None])[..., 0], coef

    def _gradient(self, f: _Factor) -> Array:
        cross, first = self.cross, self.cross.blocks[0]
        t = f.chol.shape[0] - 1 if self.reml else self.zs
        inner = _inverse(f.chol[:t, :t])
        u1, coef = self._spherical(f)
        ratio = self.df / f.r2

        lam1 = f.lambdas[0]
        z1z1 = cross.own @ lam1
        v1 = cross.side[..., -1] - np.einsum("lab,lb->la", z1z1, u1) - f.fr[..., :-1] @ coef
        f2 = f.f1.reshape(first.size, -1)
        shift = cross.rest[:, -1] - f.rr[:, :-1] @ coef - u1.ravel() @ f2
        # For width one only the diagonal is wanted, for all blocks in one pass.
        plain = np.einsum("ij,ij->i", f.rr[: self.zs, :t], inner[: self.zs])
        if cross.pairs is not None:
            trace1, less = self._sparse_traces(f, inner)
            plain -= less
            j2 = f2  # not read: every block has width one
        else:
            k = _solve_upper(f.own, f.h[..., :t])
            j = (k.reshape(first.size, t) @ inner).reshape(k.shape)
            t11 = _inverse_levels(f.own) + j @ np.swapaxes(k, 1, 2)
            crossed = (
                np.vdot(f.fr[..., :t], j) if lam1.size == 1 else np.einsum("lai,lbi->ab", f.fr[..., :t], j)
            )
            trace1 = np.einsum("lab,lbc->ac", z1z1, t11) - crossed
            j2 = j.reshape(first.size, t)
            plain -= np.einsum("ij,ij->j", f2[:, : self.zs], j2[:, : self.zs])
        scores = [2 * (trace1 - ratio * np.einsum("la,lb->ab", v1, u1))]
        for (a, b), block in zip(cross.offsets, cross.blocks[1:], strict=True):
            w = block.width
            trace = np.full((w, w), plain[a:b].sum())
            for r in range(w if w > 1 else 0):
                for c in range(w):
                    trace[r, c] = np.vdot(f.rr[a + r : b : w, :t], inner[a + c : b : w, :]) - np.vdot(
                        f2[:, a + r : b : w], j2[:, a + c : b : w]
                    )
            v = shift[a:b]
            u = coef[a:b].reshape(-1, w)
            scores.append(2 * (trace - ratio * v.reshape(-1, w).T @ u))
        out = np.empty(self.n_theta)
        for slot in self.slots:
            rows, cols = _lower(slot.width)
            out[slot.start : slot.stop] = scores[slot.block][slot.column + rows, slot.column + cols]
        return out

    def _sparse_traces(self, f: _Factor, inner: Array) -> tuple[Array, Array]:
        """Return the first block's trace and what it takes from the others', from the sparse pairs.

        With G = diag(λ₁/own²), J = GFS·inner (S the column scales): the level's own part of the inverse is
        1/own² + g²·f'S inner S f, and Σ_l λ₁ f_lj J_lj = λ₁ Σ_i inner_ji S_i (F'GF)_ji.
        """
        pairs = self.cross.pairs
        assert pairs is not None
        m = f.chol.shape[0] - 1
        own, lam = f.own[:, 0, 0], f.lambdas[0][0, 0]
        g = lam / own**2
        scale = self._scale(np.ones(m + 1), f.lambdas)[:m]
        padded = np.zeros((m, m))
        padded[: inner.shape[0], : inner.shape[0]] = inner
        forms = pairs.T @ (padded * scale * scale[:, None]).ravel()
        trace = lam * float(self.cross.own[:, 0, 0] @ (1 / own**2 + g**2 * forms)) - float(g @ forms)
        inside = (pairs @ g).reshape(m, m)
        less = lam * np.einsum("ij,ij,j->i", padded[: self.zs], inside[: self.zs], scale)
        return np.array([[trace]]), less


@cache
def _lower(width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of a lower triangle, column by column."""
    cols, rows = np.triu_indices(width)
    return rows, cols


def _inverse(chol: Array) -> Array:
    """Invert a matrix from its lower Cholesky factor."""
    if not chol.size:
        return np.zeros_like(chol)
    out, _ = linalg.lapack.dpotri(chol, lower=1)
    return np.tril(out) + np.tril(out, -1).T


def _inverse_levels(own: Array) -> Array:
    if own.shape[-1] == 1:
        return 1 / own**2
    inverse = np.linalg.inv(own)
    return np.asarray(np.swapaxes(inverse, 1, 2) @ inverse, dtype=np.float64)


def _solve_upper(own: Array, right: Array) -> Array:
    if own.shape[-1] == 1:
        return right / own
    return np.asarray(np.linalg.solve(np.swapaxes(own, 1, 2), right), dtype=np.float64)
