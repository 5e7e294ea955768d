"""Predictions of a mixed model: its own rows or new ones, with all, some or none of the random effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from .columns import make_columns, variables
from .design import Term
from .formula import parse_formula
from .levels import level_words

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]


def predict(
    m: LmerResult, newdata: pd.DataFrame | None = None, re: str = "all", allow_new_levels: bool = False
) -> pd.Series:
    """Predict the outcome of a fitted model.

    Parameters
    ----------
    m : LmerResult
    newdata : DataFrame, optional
        Rows to predict; default the rows of the fit. A row with a missing value in a column used is NaN.
    re : str
        ``"all"`` random effects (R's ``re.form = NULL``), ``"none"`` (``NA``: the fixed part alone), or a
        formula of some, such as ``"~ (1 | prompt)"``.
    allow_new_levels : bool
        Take effects of levels that the fit did not see as zero, their mean. Otherwise they are an error.

    Returns
    -------
    Series
        By the labels of the rows.

    Raises
    ------
    DynstatError
        S401 for columns that are missing, S404 for levels not seen and for an `re` that the model lacks.
    """
    chosen = chosen_columns(m, re)
    if newdata is None:
        needs_rows(m)
        values = m.design.x @ m.solution.beta
        for term, effects, columns in zip(m.design.terms, m.solution.effects, chosen, strict=True):
            if columns:
                values = values + _contribution(term, effects[term.codes], term.values, columns)
        return pd.Series(values, m.design.index, name=".fitted")
    values = _fixed(m, newdata)
    for term, effects, columns in zip(m.design.terms, m.solution.effects, chosen, strict=True):
        if not columns:
            continue
        codes, missing = _codes(term, newdata, m.formula)
        if not allow_new_levels and np.any(new := (codes < 0) & ~missing):
            raise _new_levels(term, newdata, new, m.formula)
        # One more level at the end, for those not seen: zero, the mean of all.
        padded = np.concatenate([effects, np.zeros((1, term.width))])
        z = None if term.coding is None else term.coding.columns(newdata)
        values = values + _contribution(term, padded[codes], z, columns)
        values[missing] = np.nan
    return pd.Series(values, newdata.index, name=".fitted")


def chosen_columns(m: LmerResult, re: str) -> list[list[int]]:
    """Return the places of the random columns that `re` names, a list a term of the model."""
    terms = m.design.terms
    if re == "all":
        return [list(range(t.width)) for t in terms]
    if re == "none":
        return [[] for _ in terms]
    if not isinstance(re, str) or not re.strip().startswith("~"):
        raise DynstatError(
            "S404",
            "random effects are chosen in words or by a formula",
            where="re",
            found=repr(re),
            expected='"all", "none", or a formula such as "~ (1 | group)"',
            mend='R\'s NULL is "all", R\'s NA is "none"',
        )
    response = m.design.formula.response
    asked = parse_formula(f"{response} {re.strip()}")
    if asked.fixed not in ("1", "0"):
        raise DynstatError(
            "S404",
            "a choice of random effects holds random terms only",
            where=re,
            found=asked.fixed,
            mend="the fixed part is always predicted; leave it out",
        )
    out: list[list[int]] = [[] for _ in terms]
    for term in asked.random:
        names: tuple[str, ...] = ("(Intercept)",)
        if term.columns != "1":
            if m.design.data is None:
                needs_rows(m)
                continue
            rows = m.design.data.iloc[m.design.positions]
            if unknown := [v for v in variables(term.columns) if v not in rows.columns]:
                raise _not_in_model(re, unknown[0], m)
            names = make_columns(term.columns, rows, re)[1].names
        for name in names:
            for own, places in zip(terms, out, strict=True):
                if own.name == term.name and name in own.columns:
                    places.append(own.columns.index(name))
                    break
            else:
                raise _not_in_model(re, f"({name} | {term.name})", m)
    return out


def _fixed(m: LmerResult, newdata: pd.DataFrame) -> Array:
    coding = m.design.coding
    if coding is None:
        raise DynstatError(
            "S404",
            "this fit does not know how its columns were made",
            where=m.formula,
            found="a fit from streamed sums",
            mend="give lmer a frame",
        )
    _check_columns(coding.variables, newdata, m.formula)
    return coding.columns(newdata) @ m.solution.beta


def _contribution(term: Term, effects: Array, values: Array | None, columns: Sequence[int]) -> Array:
    if values is None:
        return effects[:, 0]
    return np.sum(effects[:, columns] * values[:, columns], axis=1)


def _codes(term: Term, newdata: pd.DataFrame, text: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the level of every row (−1: not seen), and where a grouping column is missing."""
    needed = term.variables + (() if term.coding is None else term.coding.variables)
    _check_columns(needed, newdata, text)
    keys = newdata.loc[:, list(term.variables)]
    missing = keys.isna().any(axis=1).to_numpy()
    # Labels are made once a combination, not once a row.
    which = keys.groupby(list(term.variables), sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _, first, inverse = np.unique(which, return_index=True, return_inverse=True)
    words = [level_words(keys[v].iloc[first]) for v in term.variables]
    place = {level: i for i, level in enumerate(term.levels)}
    codes = np.array([place.get(":".join(parts), -1) for parts in zip(*words, strict=True)], np.intp)
    return codes[inverse], missing


def _check_columns(names: Sequence[str], newdata: pd.DataFrame, text: str) -> None:
    if not isinstance(newdata, pd.DataFrame):
        raise DynstatError(
            "S404", "new data are not a frame", found=type(newdata).__name__, expected="a pandas DataFrame"
        )
    if lacking := [n for n in names if n not in newdata.columns]:
        raise DynstatError(
            "S401",
            f"new data hold no column {lacking[0]!r}",
            where=text,
            found=", ".join(map(str, newdata.columns)),
            expected=", ".join(names),
            mend='add the column, or predict with re="none" where it is a grouping factor',
        )


def _new_levels(term: Term, newdata: pd.DataFrame, new: NDArray[np.bool_], text: str) -> DynstatError:
    words = [level_words(newdata.loc[new, v]) for v in term.variables]
    labels = list(dict.fromkeys(":".join(parts) for parts in zip(*words, strict=True)))
    shown = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
    return DynstatError(
        "S404",
        f"new data hold levels of {term.label} that the fit did not see",
        where=text,
        found=shown,
        expected=f"some of its {len(term.levels)} levels",
        mend="allow_new_levels=True takes their effects as zero, the mean of all levels",
    )


def _not_in_model(re: str, what: str, m: LmerResult) -> DynstatError:
    own = [f"({c} | {t.name})" for t in m.design.terms for c in t.columns]
    return DynstatError(
        "S404", "the model lacks a random effect asked for", where=re, found=what, expected=", ".join(own)
    )


def needs_rows(m: LmerResult) -> None:
    """Refuse a fit from streamed sums or compressed rows, which has no single rows (S404)."""
    cells = m.design.cells
    whole = cells is None or bool(np.all(cells.counts == 1))
    if m.design.coding is None or m.design.data is None or not m.design.n or not whole:
        raise DynstatError(
            "S404",
            "this fit keeps no single rows",
            where=m.formula,
            found="a fit from chunks, whose rows were summed",
            expected="a fit of a frame",
            mend="predict(newdata=...) where that is enough; else give lmer a frame",
        )
