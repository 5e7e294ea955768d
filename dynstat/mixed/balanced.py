"""Balanced designs: orthogonal strata, their sums of squares, and REML from these alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from .design import Design
from .levels import same_partition

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Strata:
    """The analysis of variance of a balanced design with random factors and a general mean.

    Where factors are equally replicated, orthogonal, and closed under their common coarsening (a Tjur
    design), the rows split into orthogonal strata on each of which the covariance is a multiple of one
    number. The sums of squares hold all that REML needs.

    Attributes
    ----------
    names : tuple of str
        A name a stratum, ``residual`` last; factors that no term names are called ``meet``.
    df : ndarray, shape (s,)
        Degrees of freedom.
    design : ndarray, shape (s, k + 1)
        Expected mean squares: E(MS) = design @ components, the residual component last.
    term_of : tuple of int
        For every stratum the term whose stratum it is; −1 for none.

    References
    ----------
    Tjur 1984, Int. Stat. Rev. 52: Analysis of variance models in orthogonal designs.
    """

    names: tuple[str, ...]
    df: Array
    design: Array
    term_of: tuple[int, ...]
    _codes: tuple[Codes, ...]
    _below: tuple[tuple[int, ...], ...]
    _each: float = 1.0
    _within: float = 0.0

    def sums_of_squares(self, y: ArrayLike) -> Array:
        """Return the sum of squares of every stratum, shape (s,) or (B, s) for y of shape (n, B).

        Where a row stands for several observations y holds their means; what the design's cells hold
        within is added to the residual's.
        """
        values = np.asarray(y, dtype=np.float64)
        columns = values.reshape(values.shape[0], -1)
        columns = columns - columns.mean(axis=0)
        out = np.zeros((columns.shape[1], len(self.names)))
        n = columns.shape[0]
        for i, codes in enumerate(self._codes):
            levels = int(codes.max()) + 1
            sums = sparse.csr_matrix((np.ones(n), (codes, np.arange(n))), (levels, n)) @ columns
            out[:, i] = np.sum(sums**2, axis=0) * levels / n * self._each
            # In exact arithmetic never below zero.
            out[:, i] = np.maximum(out[:, i] - out[:, list(self._below[i])].sum(axis=1), 0.0)
        out[:, -1] = np.maximum(np.sum(columns**2, axis=0) * self._each - out[:, :-1].sum(axis=1), 0.0)
        out[:, -1] += self._within
        return out[0] if values.ndim == 1 else out


def find_strata(design: Design) -> Strata | None:
    """Return the strata of a balanced design, None where it is not one.

    Balanced means here: intercepts only, a general mean as the fixed part, equal replication of every
    factor, orthogonal factors.
    """
    terms = design.terms
    if design.x.shape[1] != 1 or np.ptp(design.x[:, 0]) > 0 or not all(t.intercept_only for t in terms):
        return None
    n, cells = design.nobs, design.cells
    if design.cross is not None or (cells is not None and not cells.equal):
        return None
    factors: list[Codes] = [t.codes for t in terms]
    names = [t.label for t in terms]
    owners = list(range(len(terms)))
    if any(not _equal(c) for c in factors):
        return None
    i = 1
    while i < len(factors):
        for j in range(i):
            meet = _meet(factors[i], factors[j])
            if meet is None:
                return None
            if meet.max() == 0 or any(_same(meet, f) for f in factors):
                continue
            if not _equal(meet):
                return None
            factors.append(meet)
            names.append("meet")
            owners.append(-1)
        i += 1
    order = sorted(range(len(factors)), key=lambda f: int(factors[f].max()))
    factors, names = [factors[f] for f in order], [names[f] for f in order]
    owners = [owners[f] for f in order]
    below = [tuple(j for j in range(i) if coarser(factors[j], factors[i])) for i in range(len(factors))]
    df: list[int] = []
    for i, codes in enumerate(factors):
        df.append(int(codes.max()) - sum(df[j] for j in below[i]))
    df.append(n - 1 - sum(df))
    if min(df) < 1:
        return None
    a = np.zeros((len(df), len(terms) + 1))
    a[:, -1] = 1.0
    for i, codes in enumerate(factors):
        for t, term in enumerate(terms):
            if _same(codes, term.codes) or coarser(codes, term.codes):
                a[i, t] = n / len(term.levels)
    if np.linalg.matrix_rank(a) < a.shape[1]:
        return None
    held = (1.0, 0.0) if cells is None else (n / design.n, float(cells.within.sum()))
    return Strata(
        (*names, "residual"),
        np.asarray(df, dtype=np.float64),
        a,
        (*owners, -1),
        tuple(factors),
        tuple(below),
        *held,
    )


def anova_components(ss: Array, df: Array, design: Array) -> Array:
    """Return components from mean squares without bounds, shape (B, k + 1).

    The solution of E(MS) = design @ v; where there are more strata than components, weighted least squares
    with weights df/λ² at the REML fit, which is MINQUE there.
    """
    ms = np.atleast_2d(ss) / df
    if design.shape[0] == design.shape[1]:
        return np.asarray(np.linalg.solve(design, ms.T).T, dtype=np.float64)
    lam = reml_components(ss, df, design) @ design.T
    weighted = (df / lam**2)[:, :, None] * design
    normal = np.einsum("bsi,sj->bij", weighted, design)
    right = np.einsum("bsi,bs->bi", weighted, ms)
    return np.linalg.solve(normal, right[..., None])[..., 0]


def reml_components(ss: Array, df: Array, design: Array, *, tolerance: float = 1e-12) -> Array:
    """Minimise Σ df log λ + SS/λ with λ = design @ v over v >= 0, for many outcomes at once.

    Parameters
    ----------
    ss : ndarray, shape (B, s) or (s,)
        Sums of squares.
    df, design : ndarray
        As in :class:`Strata`.

    Returns
    -------
    ndarray, shape (B, k + 1)
        REML components, the residual last. Projected Fisher scoring; components at zero stay there while
        the derivative is positive.
    """
    ss = np.atleast_2d(np.asarray(ss, dtype=np.float64))
    scale = ss.sum(axis=1) / df.sum()
    scale = np.where(scale > 0, scale, 1.0)
    s = ss / scale[:, None]
    b, k = s.shape[0], design.shape[1]
    floor = np.zeros(k)
    # The residual stays above zero: the criterion has no minimum without it.
    floor[-1] = 1e-10
    ms = s / df
    if design.shape[0] == k:
        v = np.maximum(np.linalg.solve(design, ms.T).T, floor)
    else:
        v = np.zeros((b, k))
    v[:, -1] = np.maximum(v[:, -1], np.minimum(1.0, ms[:, -1]) + 1e-8)
    value = _criterion(v, s, df, design)
    todo = np.arange(b)
    for _ in range(300):
        if not todo.size:
            break
        lam = v[todo] @ design.T
        g = (df / lam - s[todo] / lam**2) @ design
        h = np.einsum("bs,si,sj->bij", df / lam**2, design, design, optimize=True)
        active = (v[todo] <= floor) & (g > 0)
        free = np.where(active, 0.0, g)
        h[active[:, :, None] | active[:, None, :]] = 0.0
        diag = np.arange(k)
        h[:, diag, diag] = np.where(active, 1.0, h[:, diag, diag])
        step = np.linalg.solve(h, free[..., None])[..., 0]
        moved = np.zeros(todo.size, dtype=bool)
        size = np.ones(todo.size)
        old = v[todo].copy()
        for _ in range(40):
            wait = np.flatnonzero(~moved)
            if not wait.size:
                break
            trial = np.maximum(old[wait] - size[wait, None] * step[wait], floor)
            new = _criterion(trial, s[todo[wait]], df, design)
            good = new <= value[todo[wait]]
            v[todo[wait[good]]] = trial[good]
            value[todo[wait[good]]] = new[good]
            moved[wait[good]] = True
            size[wait[~good]] /= 2
        change = np.max(np.abs(v[todo] - old), axis=1)
        todo = todo[moved & (change > tolerance)]
    v[:, :-1][v[:, :-1] < 1e-12] = 0.0
    return v * scale[:, None]


def _criterion(v: Array, s: Array, df: Array, design: Array) -> Array:
    lam = v @ design.T
    return np.sum(df * np.log(lam) + s / lam, axis=1)


def _equal(codes: Codes) -> bool:
    counts = np.bincount(codes)
    return bool(np.all(counts == counts[0]))


def _same(a: Codes, b: Codes) -> bool:
    return int(a.max()) == int(b.max()) and same_partition(a, b)


def coarser(a: Codes, b: Codes) -> bool:
    """Say whether every level of b lies in one level of a."""
    first = np.zeros(int(b.max()) + 1, dtype=np.intp)
    first[b] = a
    return int(a.max()) < int(b.max()) and bool(np.array_equal(first[b], a))


def _meet(a: Codes, b: Codes) -> Codes | None:
    """Return the finest factor coarser than both, None where a and b are not orthogonal."""
    na, nb = int(a.max()) + 1, int(b.max()) + 1
    table = sparse.coo_matrix((np.ones(a.size), (a, b)), (na, nb)).tocsr()
    graph = sparse.bmat([[None, table], [table.T, None]])
    _, parts = connected_components(graph, directed=False)
    meet = parts[a].astype(np.intp)
    cells = table.tocoo()
    size = np.bincount(meet)
    expected = np.bincount(a)[cells.row] * np.bincount(b)[cells.col] / size[parts[cells.row]]
    if not np.allclose(cells.data, expected):
        return None
    # Within a part every pair of levels must meet, or the counts above would leave rows unexplained.
    pairs = np.bincount(parts[:na], minlength=size.size) * np.bincount(parts[na:], minlength=size.size)
    return meet if cells.nnz == int(pairs.sum()) else None
