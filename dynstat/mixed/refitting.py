"""Fit a mixed model again: another outcome, or another formula, data or criterion."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..errors import DynstatError, DynstatWarning
from .formula import MixedFormula, Token, parse_formula, split_terms, tokenise
from .prediction import needs_rows

if TYPE_CHECKING:
    from .result import LmerResult


def refit(m: LmerResult, y: ArrayLike | pd.Series) -> LmerResult:
    """Fit the same design to another outcome; only sums that hold the outcome are made anew.

    Parameters
    ----------
    m : LmerResult
    y : array_like, shape (n,)
        A value for every row of the fit; a Series with the labels of these rows may stand in any order.

    Raises
    ------
    DynstatError
        S404 where lengths or labels differ or a value is not finite.
    """
    from .crossproducts import with_response
    from .fit import is_singular, optimise
    from .pls import PenalisedLeastSquares
    from .result import LmerResult

    needs_rows(m)
    values = _outcome(m, y)
    design = m.design.with_outcome(values)
    pls = PenalisedLeastSquares(with_response(m.pls.cross, m.design, values), design.terms, m.reml)
    theta, record = optimise(pls)
    out = LmerResult.build(design, pls, theta, pls.solve(theta), record, is_singular(pls, theta))
    for note in out.warnings[len(design.notes) :]:
        warnings.warn(note, DynstatWarning, stacklevel=3)
    return out


def update(
    m: LmerResult,
    formula: str | None = None,
    data: pd.DataFrame | None = None,
    REML: bool | None = None,
    weights: str | ArrayLike | None = None,
) -> LmerResult:
    """Fit again with another formula, other data, or the other criterion.

    Parameters
    ----------
    m : LmerResult
    formula : str, optional
        A whole formula, or one with dots for what was there: ``". ~ . - x + (1 | prompt)"``.
    data : DataFrame, optional
        Default the frame of the fit, as it was then.
    REML : bool, optional
        Default as in the fit.
    weights : str or array, optional
        Of the rows; default those of the fit, which new data do not have.

    Raises
    ------
    DynstatError
        S404 where a weighted fit is to read rows whose weights it does not know.
    """
    from .fit import lmer

    text = m.formula if formula is None else merge(m.design.formula, formula)
    reml = m.reml if REML is None else REML
    cells = m.design.cells
    known = weights is None and cells is not None and bool(np.any(cells.weights != cells.counts))
    if data is None:
        needs_rows(m)
        data = m.design.data
        assert data is not None
    elif known:
        raise _unknown_weights(m, len(data))
    if not known:
        return lmer(text, data, REML=reml) if weights is None else lmer(text, data, reml, weights)
    assert cells is not None
    each = np.ones(len(data))
    each[m.design.positions] = cells.weights
    out = lmer(text, data, reml, each)
    if new := np.setdiff1d(out.design.positions, m.design.positions).size:
        # Rows that were left out for a column which the new formula does not name.
        raise _unknown_weights(m, new)
    return out


def _unknown_weights(m: LmerResult, n: int) -> DynstatError:
    return DynstatError(
        "S404",
        "the weights of these rows are not known",
        where=m.formula,
        found=f"{n} rows without a weight",
        mend="give weights= to update",
    )


def merge(old: MixedFormula, new: str) -> str:
    """Return the formula that `new` makes of `old`: a dot stands for the old side, as in R.

    Examples
    --------
    >>> old = parse_formula("y ~ x + z + (1 | g) + (1 | h)")
    >>> merge(old, ". ~ . - x - (1 | h) + (0 + z | g)")
    'y ~ 1 + z + (1 | g) + (0 + z | g)'
    >>> merge(old, "log(y) ~ .")
    'log(y) ~ x + z + (1 | g) + (1 | h)'
    """
    tokens = tokenise(new)
    tildes = [i for i, t in enumerate(tokens) if t.text == "~"]
    if len(tildes) != 1:
        raise DynstatError("S401", "the formula needs one ~", where=new, mend="write . ~ . + x")
    left, right = tokens[: tildes[0]], tokens[tildes[0] + 1 :]
    response = old.response if [t.text for t in left] in ([], ["."]) else _text(new, left)
    if not any(t.text == "." for t in right):
        return f"{response} ~ {new[tokens[tildes[0]].end :].strip()}"
    fixed, taken = "", False
    random = [(t.columns, t.name) for t in old.random]
    if not any(t.text == "." for _, piece in split_terms(right) for t in piece[:1]):
        random = []
    for sign, piece in split_terms(right):
        minus = sign is not None and sign.text == "-"
        if not piece:
            raise DynstatError("S401", "a term is missing", where=new, mend="write a term on both sides")
        if any("|" in t.text for t in piece):
            terms = [(t.columns, t.name) for t in parse_formula(f"y ~ {_text(new, piece)}").random]
            if minus:
                if gone := [t for t in terms if t not in random]:
                    raise DynstatError(
                        "S401",
                        "the model lacks a random term to be left out",
                        where=new,
                        found=f"({gone[0][0]} | {gone[0][1]})",
                        expected=", ".join(f"({c} | {g})" for c, g in random),
                    )
                random = [t for t in random if t not in terms]
            else:
                random += [t for t in terms if t not in random]
            continue
        text = _text(new, piece)
        if "." in [t.text for t in piece]:
            text = old.fixed if text == "." else text.replace(".", f"({old.fixed})", 1)
        taken = taken or minus
        fixed = f"{fixed} {sign.text if sign else '+'} {text}" if fixed or minus else text
    if taken:
        from formulaic import Formula

        left_over = [str(t) for t in Formula(fixed)]
        fixed = " + ".join(left_over if "1" in left_over else ["0", *left_over])
    return " + ".join([f"{response} ~ {fixed or '1'}", *(f"({c} | {g})" for c, g in random)])


def _text(source: str, tokens: list[Token]) -> str:
    return source[tokens[0].start : tokens[-1].end]


def _outcome(m: LmerResult, y: ArrayLike | pd.Series) -> np.ndarray:
    index = m.design.index
    if isinstance(y, pd.Series) and not y.index.equals(index):
        if not index.isin(y.index).all() or not y.index.is_unique:
            raise DynstatError(
                "S404",
                "the outcome lacks rows of the fit",
                where="y",
                found=f"{int((~index.isin(y.index)).sum())} labels not found",
                expected=f"the labels of {len(index)} rows, each once",
            )
        y = y.loc[index]
    values = np.asarray(y, dtype=np.float64)
    if values.shape != (m.design.n,) or not np.isfinite(values).all():
        raise DynstatError(
            "S404",
            "the outcome is not one finite number a row",
            where="y",
            found=f"shape {values.shape}, {int((~np.isfinite(values)).sum())} not finite",
            expected=f"({m.design.n},)",
            mend="update(data=...) leaves out rows with missing values",
        )
    return values
