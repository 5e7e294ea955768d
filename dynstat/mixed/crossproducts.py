"""One pass over the rows: the cross-products [Z X y]'[Z X y] that every fit on a design shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from .design import Design, Term

Array = NDArray[np.float64]
# Below this size dense products cost nothing; above this fill they cost less.
_SPARSE_FROM = 4000
_SPARSE_FILL = 0.1


@dataclass(frozen=True)
class Block:
    """Random columns on one grouping factor, merged over its terms.

    Attributes
    ----------
    levels, width : int
        q levels, k columns a level.
    members : tuple of (int, int)
        For every merged term its place in the design and its first column in the block.
    """

    levels: int
    width: int
    members: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Number of random effects."""
        return self.levels * self.width


@dataclass(frozen=True)
class CrossProducts:
    """Cross-products with the block of most levels kept apart.

    The fixed columns enter as an orthonormal basis of theirs and y as its residual on them: the criterion
    is the same (up to a known constant) and no digits are lost when the outcome is far from zero.

    Attributes
    ----------
    blocks : tuple of Block
        The block of most levels first.
    own : ndarray, shape (q, k, k)
        Its products with itself; levels never meet.
    side : ndarray, shape (q, k, m)
        Its products with all other random columns, the fixed columns and y, in this order.
    rest : ndarray, shape (m, m)
        Products among these.
    p, n : int
        Fixed columns and rows.
    x_root : ndarray, shape (p, p)
        R of X = QR.
    beta_ols : ndarray, shape (p,)
        Least-squares coefficients, removed from y before the products.
    pairs : sparse array, shape ((m − 1)², q), or None
        Column l holds the outer product of row l of `side` (without y) with itself: sums over levels of
        weighted outer products, and quadratic forms of every level, are then one sparse product. None where
        rows are not sparse enough, or wider than one.
    """

    blocks: tuple[Block, ...]
    own: Array
    side: Array
    rest: Array
    n: int
    p: int
    x_root: Array
    beta_ols: Array
    pairs: sparse.csr_array | None = None

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where every block but the first lies in `rest`."""
        ends = np.cumsum([0, *(b.size for b in self.blocks[1:])]).tolist()
        return list(zip(ends[:-1], ends[1:], strict=True))

    @property
    def x_logdet(self) -> float:
        """log |X'X|."""
        return 2 * float(np.sum(np.log(np.abs(np.diag(self.x_root)))))


def cross_products(design: Design) -> CrossProducts:
    """Sum the cross-products of a design over its rows."""
    blocks, codes, values = _blocks(design.terms)
    q, r = np.linalg.qr(design.x)
    residual, beta = _residual(design.y, q, r)
    first = blocks[0]
    right = np.column_stack([q, residual])
    sides = [_pair(codes[0], values[0], first, codes[j], values[j], blocks[j]) for j in range(1, len(blocks))]
    side = np.concatenate([*sides, _with_columns(codes[0], values[0], first, right)], axis=1)
    zs = sum(b.size for b in blocks[1:])
    m = zs + right.shape[1]
    rest = np.zeros((m, m))
    edges = np.cumsum([0, *(b.size for b in blocks[1:])])
    for i in range(1, len(blocks)):
        rows = slice(edges[i - 1], edges[i])
        for j in range(i, len(blocks)):
            rest[rows, edges[j - 1] : edges[j]] = _pair(
                codes[i], values[i], blocks[i], codes[j], values[j], blocks[j]
            )
        rest[rows, zs:] = _with_columns(codes[i], values[i], blocks[i], right)
    rest[zs:, zs:] = right.T @ right
    rest = np.triu(rest) + np.triu(rest, 1).T
    own = _own(codes[0], values[0], first)
    pairs = _pairs(side[:, :-1]) if all(b.width == 1 for b in blocks) else None
    return CrossProducts(
        blocks,
        own,
        side.reshape(first.levels, first.width, m),
        rest,
        design.n,
        design.x.shape[1],
        r,
        beta,
        pairs,
    )


def with_response(cross: CrossProducts, design: Design, y: Array) -> CrossProducts:
    """Return the cross-products of the same design with another outcome (O(n))."""
    blocks, codes, values = _blocks(design.terms)
    q, r = np.linalg.qr(design.x)
    residual, beta = _residual(y, q, r)
    side, rest = cross.side.copy(), cross.rest.copy()
    side[..., -1] = _with_columns(codes[0], values[0], blocks[0], residual[:, None]).reshape(side.shape[:2])
    for (a, b), block, c, v in zip(cross.offsets, blocks[1:], codes[1:], values[1:], strict=True):
        rest[a:b, -1] = _with_columns(c, v, block, residual[:, None])[:, 0]
    p = cross.p
    rest[rest.shape[0] - 1 - p : -1, -1] = q.T @ residual
    rest[-1, -1] = residual @ residual
    rest[-1, :-1] = rest[:-1, -1]
    return replace(cross, side=side, rest=rest, beta_ols=beta)


def _pairs(side: Array) -> sparse.csr_array | None:
    q, m = side.shape
    counts = np.count_nonzero(side, axis=1)
    if q * m < _SPARSE_FROM or float(np.sum(counts.astype(float) ** 2)) > _SPARSE_FILL * q * m * m:
        return None
    rows, cols, values = [], [], []
    for count in np.unique(counts[counts > 0]):
        levels = np.flatnonzero(counts == count)
        at = np.nonzero(side[levels])[1].reshape(levels.size, count)
        here = np.take_along_axis(side[levels], at, axis=1)
        rows.append((at[:, :, None] * m + at[:, None, :]).ravel())
        cols.append(np.repeat(levels, count * count))
        values.append((here[:, :, None] * here[:, None, :]).ravel())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols)))
    return sparse.csr_array(sparse.coo_array(entries, shape=(m * m, q)))


def _residual(y: Array, q: Array, r: Array) -> tuple[Array, Array]:
    if not q.shape[1]:
        return y.copy(), np.zeros(0)
    beta = linalg.solve_triangular(r, q.T @ y)
    residual = y - q @ (q.T @ y)
    return residual, beta


def _blocks(
    terms: tuple[Term, ...],
) -> tuple[tuple[Block, ...], list[NDArray[np.intp]], list[Array | None]]:
    """Merge terms on the same factor and put the one of most levels first."""
    members: list[list[int]] = []
    for i, term in enumerate(terms):
        for group in members:
            if terms[group[0]].name == term.name:
                group.append(i)
                break
        else:
            members.append([i])
    members.sort(key=lambda g: -len(terms[g[0]].levels))
    blocks, codes, values = [], [], []
    for group in members:
        starts = np.cumsum([0, *(terms[i].width for i in group)]).tolist()
        blocks.append(Block(len(terms[group[0]].levels), starts[-1], tuple(zip(group, starts, strict=False))))
        codes.append(terms[group[0]].codes)
        if len(group) == 1:
            values.append(terms[group[0]].values)
        else:
            ones = np.ones((terms[0].codes.size, 1))
            parts = [v if (v := terms[i].values) is not None else ones for i in group]
            values.append(np.column_stack(parts))
    return tuple(blocks), codes, values


def _column(values: Array | None, a: int) -> Array | None:
    return None if values is None else values[:, a]


def _times(a: Array | None, b: Array | None) -> Array | None:
    if a is None:
        return b
    return a if b is None else a * b


def _pair(
    ci: NDArray[np.intp], vi: Array | None, bi: Block, cj: NDArray[np.intp], vj: Array | None, bj: Block
) -> Array:
    out = np.empty((bi.levels, bi.width, bj.levels, bj.width))
    cell = ci * bj.levels + cj
    for a in range(bi.width):
        for b in range(bj.width):
            weights = _times(_column(vi, a), _column(vj, b))
            out[:, a, :, b] = np.bincount(cell, weights, bi.levels * bj.levels).reshape(bi.levels, bj.levels)
    return out.reshape(bi.size, bj.size)


def _own(codes: NDArray[np.intp], values: Array | None, block: Block) -> Array:
    out = np.empty((block.levels, block.width, block.width))
    for a in range(block.width):
        for b in range(block.width):
            out[:, a, b] = np.bincount(codes, _times(_column(values, a), _column(values, b)), block.levels)
    return out


def _with_columns(codes: NDArray[np.intp], values: Array | None, block: Block, columns: Array) -> Array:
    out = np.empty((block.levels, block.width, columns.shape[1]))
    for a in range(block.width):
        for j in range(columns.shape[1]):
            out[:, a, j] = np.bincount(codes, _times(_column(values, a), columns[:, j]), block.levels)
    return out.reshape(block.size, columns.shape[1])
