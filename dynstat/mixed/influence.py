"""Leverage and influence of the rows of a mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..errors import DynstatError
from .prediction import needs_rows

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
#: Random effects and fixed columns up to which the whole inverse is formed.
LARGEST = 4000
_ROWS = 4096


def leverage(m: LmerResult) -> Array:
    """Return R's ``hatvalues``: the derivative of every fitted value by its own outcome, shape (n,).

    With W = [ZΛ X] (rows times the root of their weights), the diagonal of W (W'W + diag(I, 0))⁻¹ W'.

    Raises
    ------
    DynstatError
        S404 beyond :data:`LARGEST` effects, whose joint inverse would not fit in memory.
    """
    needs_rows(m)
    design = m.design
    pieces, size = [], 0
    for t, term in enumerate(design.terms):
        lam = m.pls.template(m.theta.to_numpy(), t)
        values = np.ones((design.n, 1)) if term.values is None else term.values
        columns = term.codes[:, None] * term.width + np.arange(term.width)
        rows = np.repeat(np.arange(design.n), term.width)
        entries = ((values @ lam).ravel(), (rows, columns.ravel()))
        width = len(term.levels) * term.width
        pieces.append(sparse.csr_array(sparse.coo_array(entries, shape=(design.n, width))))
        size += width
    if size + design.x.shape[1] > LARGEST:
        raise DynstatError(
            "S404",
            "too many effects for the leverage of single rows",
            found=f"{size + design.x.shape[1]} random and fixed effects",
            expected=f"at most {LARGEST}",
        )
    w = sparse.csr_array(sparse.hstack([*pieces, sparse.csr_array(design.x)]))
    if design.cells is not None:
        w = sparse.csr_array(w.multiply(design.cells.root[:, None]))
    inner = (w.T @ w).toarray()
    inner[np.arange(size), np.arange(size)] += 1.0
    inverse = np.linalg.inv(inner)
    out = np.empty(design.n)
    for start in range(0, design.n, _ROWS):
        rows_ = w[start : start + _ROWS]
        out[start : start + _ROWS] = rows_.multiply(rows_ @ inverse).sum(axis=1)
    return out


def cooks_distance(m: LmerResult, hat: Array | None = None) -> Array:
    """Return Cook's distance of every row, (r/(1 − h))² h/(σ² p), shape (n,), as lme4 does."""
    h = leverage(m) if hat is None else hat
    p = max(m.design.x.shape[1], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (m.scaled_residuals.to_numpy() / (1 - h)) ** 2 * h / p
