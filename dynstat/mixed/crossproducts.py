"""One pass over the rows: the cross-products [Z X y]'[Z X y] that every fit on a design shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from ..errors import DynstatError
from .design import Design, Term
from .rank import easy_root, solve_normal

Array = NDArray[np.float64]
# Below this size dense products cost nothing; above this fill they cost less.
_SPARSE_FROM = 4000
_SPARSE_FILL = 0.1
# Rows summed at once, and rows from which sums are made exact.
_STRETCH = 1 << 17
_EXACT_FROM = 20_000
# Products held densely: 3 GB.
_MOST_PRODUCTS = 400_000_000
#: Residual sums of squares below this part of the outcome's own are rounding.
CONSTANT = 1e-26


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
    log_weights : float
        Sum of the logarithms of the rows' weights: they lower the criterion.
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
    log_weights: float = 0.0

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
    """Sum the cross-products of a design over its rows; return those summed before where it holds no rows."""
    if design.cross is not None:
        return design.cross
    root = _root(design)
    blocks, codes, values = _blocks(design.terms, root)
    x = design.x if root is None else design.x * root[:, None]
    y = design.y if root is None else design.y * root
    easy = (r := easy_root(x)) is not None
    if r is not None:
        beta = solve_normal(r, x.T @ y)
        beta = beta + solve_normal(r, x.T @ (y - x @ beta))
        residual = y - x @ beta
    else:
        q, r = np.linalg.qr(x)
        residual, beta = _residual(y, q, r)
    within, log_weights = 0.0, 0.0
    if design.cells is not None:
        within, log_weights = float(design.cells.within.sum()), float(design.cells.log_weights.sum())
    if easy:
        # A general mean lies in the span of every factor, so that nearly all of X'V⁻¹X cancels: counts must
        # be exact. They are where columns are summed as they stand and turned afterwards.
        side, rest, own = turned(*_sums(blocks, codes, values, _beside(x, residual)), r)
    else:
        side, rest, own = _sums(blocks, codes, values, np.column_stack([q, residual]))
    rest[-1, -1] += within
    return assemble(blocks, own, side, rest, design.nobs, r, beta, log_weights)


def turned(side: Array, rest: Array, own: Array, r: Array) -> tuple[Array, Array, Array]:
    """Turn products with [X, y] into products with [X R⁻¹, y]."""
    p = r.shape[0]
    if p:
        back = linalg.solve_triangular(r, np.eye(p))
        columns = slice(rest.shape[0] - 1 - p, rest.shape[0] - 1)
        side[:, columns] = side[:, columns] @ back
        rest[:, columns] = rest[:, columns] @ back
        rest[columns] = back.T @ rest[columns]
    return side, rest, own


def assemble(
    blocks: tuple[Block, ...],
    own: Array,
    side: Array,
    rest: Array,
    n: int,
    x_root: Array,
    beta: Array,
    log_weights: float = 0.0,
) -> CrossProducts:
    """Put summed products together: own (q, k, k), side (q·k, m), rest (m, m)."""
    pairs = _pairs(side[:, :-1]) if all(b.width == 1 for b in blocks) else None
    first = blocks[0]
    side = side.reshape(first.levels, first.width, -1)
    return CrossProducts(blocks, own, side, rest, n, x_root.shape[0], x_root, beta, pairs, log_weights)


def _sums(
    blocks: tuple[Block, ...], codes: list[NDArray[np.intp]], values: list[Array | None], right: Array
) -> tuple[Array, Array, Array]:
    """Return the products of the first block with all others, of these with each other, and its own.

    Long designs are summed in stretches: adding millions of numbers one by one loses digits.
    """
    first = blocks[0]
    others = sum(b.size for b in blocks[1:]) + right.shape[1]
    if max(first.size, others) * others > _MOST_PRODUCTS:
        raise DynstatError(
            "S402",
            "two factors have too many levels to hold their products",
            found=" and ".join(f"{b.size:,} random effects" for b in blocks[:2]),
            expected=f"at most {_MOST_PRODUCTS:,} products",
            mend="leave one of them out, or nest it in the other's blocks and fit these apart",
        )
    n, most = (
        right.shape[0],
        max(_STRETCH, 4 * first.size * (right.shape[1] + sum(b.size for b in blocks[1:]))),
    )
    if n > 2 * most:
        total: tuple[Array, Array, Array] | None = None
        for at in range(0, n, most):
            cut = slice(at, at + most)
            part = [None if v is None else v[cut] for v in values]
            some = _sums(blocks, [c[cut] for c in codes], part, right[cut])
            if total is None:
                total = some
            else:
                for into, piece in zip(total, some, strict=True):
                    into += piece
        assert total is not None
        return total
    split = _split(right[:, -1])
    sides = [_pair(codes[0], values[0], first, codes[j], values[j], blocks[j]) for j in range(1, len(blocks))]
    side = np.concatenate([*sides, _with_columns(codes[0], values[0], first, right, split)], axis=1)
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
        rest[rows, zs:] = _with_columns(codes[i], values[i], blocks[i], right, split)
    rest[zs:, zs:] = right.T @ right
    high, low = split
    rest[zs:-1, -1] = right[:, :-1].T @ high + right[:, :-1].T @ low
    rest = np.triu(rest) + np.triu(rest, 1).T
    return side, rest, _own(codes[0], values[0], first)


def with_response(cross: CrossProducts, design: Design, y: Array, within: float = 0.0) -> CrossProducts:
    """Return the cross-products of the same design with another outcome (O(n)).

    `within` is the outcome's sum of squares inside the design's cells, where it has any.
    """
    side, rest, yy, beta, _ = row_products(design, cross)(np.asarray(y, dtype=np.float64)[:, None])
    new_side, new_rest = cross.side.copy(), cross.rest.copy()
    new_side[..., -1] = side.reshape(new_side.shape[:2])
    new_rest[:-1, -1] = new_rest[-1, :-1] = rest[:, 0]
    new_rest[-1, -1] = yy[0] + within
    return replace(cross, side=new_side, rest=new_rest, beta_ols=beta[:, 0])


def row_products(
    design: Design, cross: CrossProducts
) -> Callable[[Array], tuple[Array, Array, Array, Array, NDArray[np.bool_]]]:
    """Return a function from outcomes (n, B) to their products with the design.

    It gives the first block's (its size, B), the other columns' (m, B), the residual sum of squares (B,),
    least-squares coefficients (p, B), and whether the outcome lies in the span of the fixed columns.
    """
    root = _root(design)
    blocks, codes, values = _blocks(design.terms, root)
    x = design.x if root is None else design.x * root[:, None]
    r = easy_root(x)
    q = np.linalg.qr(x)[0] if r is None else x @ linalg.solve_triangular(r, np.eye(x.shape[1]))
    indicators = [_indicator(b, c, v, design.n) for b, c, v in zip(blocks, codes, values, strict=True)]

    def products(y: Array) -> tuple[Array, Array, Array, Array, NDArray[np.bool_]]:
        if root is not None:
            y = y * root[:, None]
        inside = q.T @ y
        residual = y - q @ inside
        # Once more: what rounding left in the span would be taken for signal.
        again = q.T @ residual
        residual -= q @ again
        yy = np.einsum("ij,ij->j", residual, residual)
        total = np.einsum("ij,ij->j", y, y)
        beta = linalg.solve_triangular(cross.x_root, inside + again) if cross.p else inside
        side = indicators[0] @ residual
        rest = np.concatenate([*(z @ residual for z in indicators[1:]), q.T @ residual])
        return side, rest, yy, beta, yy <= CONSTANT * total

    return products


def _indicator(block: Block, codes: NDArray[np.intp], values: Array | None, n: int) -> sparse.csr_array:
    """Return Z' of a block as a sparse array, shape (levels · width, n)."""
    rows = (codes[:, None] * block.width + np.arange(block.width)).ravel()
    data = np.ones(n) if values is None else np.ascontiguousarray(values).ravel()
    cols = np.repeat(np.arange(n), block.width)
    return sparse.csr_array((data, (rows, cols)), shape=(block.size, n))


def _root(design: Design) -> Array | None:
    return None if design.cells is None else design.cells.root


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
    terms: tuple[Term, ...], root: Array | None = None
) -> tuple[tuple[Block, ...], list[NDArray[np.intp]], list[Array | None]]:
    """Merge terms on the same factor, the one of most levels first; rows are multiplied by `root`."""
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
        if root is not None:
            last = values[-1]
            values[-1] = root[:, None] if last is None else last * root[:, None]
    return tuple(blocks), codes, values


def _beside(x: Array, y: Array) -> Array:
    """Return [x y] stored by columns: they are summed one by one."""
    out = np.empty((y.size, x.shape[1] + 1), order="F")
    out[:, :-1], out[:, -1] = x, y
    return out


def _split(column: Array) -> tuple[Array, Array]:
    """Split a column into a part whose sums of any rows are exact, and a remainder too small to matter.

    A factor inside another repeats its sums; what one holds beyond the other is a small difference of large
    sums, which the rounding of sums in different orders would drown.
    """
    most = float(np.max(np.abs(column), initial=0.0))
    if most == 0 or not np.isfinite(most):
        return column, np.zeros_like(column)
    unit = 2.0 ** (np.ceil(np.log2(most * column.size)) - 51)
    high = np.round(column / unit) * unit
    return high, column - high


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


def _with_columns(
    codes: NDArray[np.intp],
    values: Array | None,
    block: Block,
    columns: Array,
    split: tuple[Array, Array],
) -> Array:
    out = np.empty((block.levels, block.width, columns.shape[1]))
    for a in range(block.width):
        for j in range(columns.shape[1]):
            weights = _times(_column(values, a), columns[:, j])
            assert weights is not None
            # Columns of X are whole numbers or far from the span of the factors; the outcome is neither.
            if weights.size < _EXACT_FROM or j < columns.shape[1] - 1:
                out[:, a, j] = np.bincount(codes, weights, block.levels)
                continue
            high, low = split if values is None else _split(weights)
            out[:, a, j] = np.bincount(codes, high, block.levels)
            if low.any():
                out[:, a, j] += np.bincount(codes, low, block.levels)
    return out.reshape(block.size, columns.shape[1])
