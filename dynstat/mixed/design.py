"""Turn a formula and a frame into arrays: outcome, fixed columns, grouping codes, random columns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from .columns import Coding, check_levels, is_one_number, make_columns, mark, variables
from .formula import MixedFormula, RandomTerm
from .levels import Seen, check_finite, interaction, same_partition
from .rank import easy_root

if TYPE_CHECKING:
    from .cells import Cells
    from .crossproducts import CrossProducts

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """One random term over the rows of a design.

    Attributes
    ----------
    name, label : str
        lme4's name of the grouping factor, and the name from the outside in.
    columns : tuple of str
        Names of its random columns, ``(Intercept)`` first where there is one.
    codes : ndarray of int, shape (n,)
        Level of every row.
    levels : tuple of str
        Labels of the levels that occur.
    values : ndarray, shape (n, k), or None
        The random columns; None stands for an intercept alone.
    variables : tuple of str
        The columns of the frame whose combination is the factor.
    coding : Coding or None
        How `values` are made from rows.
    """

    name: str
    label: str
    columns: tuple[str, ...]
    codes: NDArray[np.intp]
    levels: tuple[str, ...]
    values: Array | None
    variables: tuple[str, ...] = ()
    coding: Coding | None = None

    @property
    def width(self) -> int:
        """Number of random columns a level."""
        return len(self.columns)

    @property
    def intercept_only(self) -> bool:
        """Whether the term is ``(1 | g)``."""
        return self.values is None


@dataclass(frozen=True)
class Design:
    """All that a fit reads from the data.

    Attributes
    ----------
    formula : MixedFormula
    y : ndarray, shape (n,)
    x : ndarray, shape (n, p)
        Fixed columns of full rank.
    x_names : tuple of str
        As R names them.
    terms : tuple of Term
        In lme4's order: by number of levels, largest first, where they differ.
    index : pandas.Index
        Labels of the rows used.
    positions : ndarray of int, shape (n,)
        Their places in the frame given.
    dropped_columns : tuple of str
        Fixed columns left out because others determine them.
    dropped_rows : int
        Rows left out because a value is missing.
    coding : Coding or None
        How the fixed columns are made from rows.
    notes : tuple of str
        What was warned of while reading the data.
    data : DataFrame or None
        The frame given, for :meth:`LmerResult.update`; shares its memory.
    cells : Cells or None
        What every row stands for where rows are weighted or stand for several observations.
    cross : CrossProducts or None
        Sums over chunks of rows that are not held: y, x and codes are then empty.
    """

    formula: MixedFormula
    y: Array
    x: Array
    x_names: tuple[str, ...]
    terms: tuple[Term, ...]
    index: pd.Index
    positions: NDArray[np.intp]
    dropped_columns: tuple[str, ...] = ()
    dropped_rows: int = 0
    coding: Coding | None = None
    notes: tuple[str, ...] = ()
    data: pd.DataFrame | None = None
    cells: Cells | None = None
    cross: CrossProducts | None = None

    @property
    def n(self) -> int:
        """Number of rows held: the length of `y`."""
        return int(self.y.size)

    @property
    def nobs(self) -> int:
        """Number of observations: a row of `cells` can stand for many."""
        if self.cross is not None:
            return self.cross.n
        return self.n if self.cells is None else self.cells.nobs

    def with_outcome(self, y: Array) -> Design:
        """Return the same design with another outcome, shape (n,)."""
        formula, data = self.formula, self.data
        if data is not None:
            # A frame that still told of the old outcome would mislead update(). An outcome that was computed
            # becomes a column of that name.
            name = formula.response.strip("`")
            old = data[name].to_numpy(dtype=float) if name in data.columns else np.full(len(data), np.nan)
            column = old.copy()
            column[self.positions] = y
            data = data.assign(**{name: column})
            if variables(formula.response) != (name,):
                left = f"`{name}`"
                text = formula.text.replace(formula.response, left, 1)
                formula = replace(formula, response=left, text=text)
        return replace(self, formula=formula, y=y, data=data, cross=None)

    def subset(self, rows: NDArray[np.intp]) -> Design:
        """Return the design of some rows, empty levels dropped.

        Raises
        ------
        DynstatError
            S402 where a term can no longer be estimated.
        """
        terms = []
        for term in self.terms:
            present, codes = np.unique(term.codes[rows], return_inverse=True)
            terms.append(
                replace(
                    term,
                    codes=codes.astype(np.intp),
                    levels=tuple(term.levels[i] for i in present),
                    values=None if term.values is None else term.values[rows],
                )
            )
        cells = None if self.cells is None else self.cells.subset(rows)
        _check_terms(terms, rows.size if cells is None else cells.nobs, self.formula.text)
        kept, gone = _full_rank(self.x[rows], self.x_names)
        return replace(
            self,
            y=self.y[rows],
            x=self.x[rows][:, kept],
            x_names=tuple(self.x_names[i] for i in kept),
            terms=tuple(terms),
            index=self.index[rows],
            positions=self.positions[rows],
            dropped_columns=(*self.dropped_columns, *gone),
            coding=None if self.coding is None else replace(self.coding, kept=self.coding.kept[kept]),
            cells=cells,
        )


def build_design(formula: MixedFormula, data: pd.DataFrame, cells: Cells | None = None) -> Design:
    """Read the columns that `formula` names from `data`.

    Rows with a missing value in any of them are left out, as R does. Categories are coded by treatment
    contrasts, ordered categoricals by orthogonal polynomials, as R does. Linearly dependent fixed columns
    are dropped and told. `cells` says what every row of the frame stands for.

    Raises
    ------
    DynstatError
        S401 for a column that the frame lacks, S402 for a design that cannot be fitted.
    """
    used = _used_columns(formula, data)
    rows = data.loc[:, used]
    keep = ~rows.isna().any(axis=1).to_numpy()
    dropped = int((~keep).sum())
    notes: list[str] = []
    if not keep.any():
        raise _nothing_complete(formula, rows)
    if dropped:
        notes.append(f"{dropped} of {len(rows)} rows have missing values and were left out")
        rows = rows.loc[keep]
    if cells is not None:
        cells = cells.subset(np.flatnonzero(keep))
    nobs = int(keep.sum()) if cells is None else cells.nobs
    y = _response(formula, rows)
    x, coding = make_columns(formula.fixed, rows, formula.text)
    check_levels(coding)
    check_finite(y[:, None], (formula.response,), "the outcome", formula.text)
    check_finite(x, coding.names, "a fixed column", formula.text)
    kept, gone = _full_rank(x, coding.names)
    if gone:
        notes.append(
            f"the fixed-effect model matrix is rank deficient: {len(gone)} column"
            f"{'s' if len(gone) > 1 else ''} determined by others dropped ({', '.join(gone)})"
        )
        x = x[:, kept]
        coding = replace(coding, kept=coding.kept[kept])
    if nobs <= x.shape[1] + 1:
        raise DynstatError(
            "S402",
            "fewer rows than parameters",
            where=formula.text,
            found=f"{nobs} rows",
            expected=f"more than {x.shape[1] + 1}",
            mend="simplify the fixed part, or add rows",
        )
    seen: Seen = {}
    terms = [_term(t, rows, formula.text, notes, seen) for t in formula.random]
    _check_terms(terms, nobs, formula.text)
    for note in notes:
        warnings.warn(note, DynstatWarning, stacklevel=4)
    return Design(
        formula,
        y,
        x,
        tuple(coding.names[i] for i in coding.kept),
        _lme4_order(terms),
        rows.index,
        np.flatnonzero(keep),
        gone,
        dropped,
        coding,
        tuple(notes),
        data.copy(deep=False),
        cells,
    )


def _used_columns(formula: MixedFormula, data: pd.DataFrame) -> list[str]:
    if not isinstance(data, pd.DataFrame):
        raise DynstatError(
            "S404",
            "the data are not a frame",
            found=type(data).__name__,
            expected="a pandas DataFrame with a row an observation",
            mend="dynstat.to_frame(ds, level=...) makes one from a Dataset",
        )
    parts = [formula.response, formula.fixed, *(t.columns for t in formula.random)]
    wanted = [v for part in parts for v in variables(part)] + [v for t in formula.random for v in t.variables]
    wanted = list(dict.fromkeys(wanted))
    if missing := [v for v in wanted if v not in data.columns]:
        raise DynstatError(
            "S401",
            f"the data hold no column {missing[0]!r}",
            where=mark(formula.text, missing[0]),
            found=", ".join(missing),
            expected="one of " + ", ".join(map(str, data.columns)),
            mend="correct the name, or add the column",
        )
    if twice := [v for v in wanted if isinstance(data[v], pd.DataFrame)]:
        raise DynstatError(
            "S401",
            f"the data hold several columns {twice[0]!r}",
            where=mark(formula.text, twice[0]),
            found=", ".join(twice),
            expected="one column a name",
            mend="rename or drop the others",
        )
    return wanted


def _nothing_complete(formula: MixedFormula, rows: pd.DataFrame) -> DynstatError:
    empty = [str(c) for c in rows.columns if rows[c].isna().all()]
    outcome = set(empty) & set(variables(formula.response))
    what = "the outcome is missing in every row" if outcome and len(rows) else "no row is complete"
    return DynstatError(
        "S402",
        what,
        where=mark(formula.text, empty[0]) if empty and len(rows) else formula.text,
        found=f"{len(rows)} rows, none complete"
        + (f"; nothing but missing values in {', '.join(empty)}" if empty and len(rows) else ""),
        expected="rows with a value in every column used",
        mend="check " + ", ".join(empty or map(str, rows.columns)),
    )


def _response(formula: MixedFormula, rows: pd.DataFrame) -> Array:
    name = formula.response.strip("`")
    if name in rows.columns and rows[name].dtype.kind in "fiu":
        return rows[name].to_numpy(dtype=np.float64, copy=True)
    y, coding = make_columns(formula.response + " - 1", rows, formula.text)
    if not is_one_number(coding):
        raise DynstatError(
            "S401",
            "the left side is not one number a row",
            where=mark(formula.text, formula.response),
            found=", ".join(coding.names[:6]) or "no column",
            expected="one numeric outcome",
            mend="name one numeric column; write arithmetic as I(y + 1)",
        )
    return np.ascontiguousarray(y[:, 0])


def _full_rank(x: Array, names: tuple[str, ...]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the places of the columns that those before them do not determine, and the names of the rest."""
    if easy_root(x) is not None:
        return np.arange(x.shape[1]), ()
    kept: list[int] = []
    basis = np.zeros((x.shape[0], 0))
    for j in range(x.shape[1]):
        column = x[:, j]
        rest = column - basis @ (basis.T @ column)
        rest -= basis @ (basis.T @ rest)
        norm = np.linalg.norm(rest)
        # R's tolerance for a pivot of the QR decomposition.
        if norm > 1e-7 * max(float(np.linalg.norm(column)), np.finfo(float).tiny):
            kept.append(j)
            basis = np.column_stack([basis, rest / norm])
    return np.array(kept, dtype=np.intp), tuple(names[j] for j in range(x.shape[1]) if j not in kept)


def _term(term: RandomTerm, rows: pd.DataFrame, text: str, notes: list[str], seen: Seen) -> Term:
    codes, levels = interaction(rows, term.variables, text, seen)
    if term.columns == "1":
        return Term(term.name, term.label, ("(Intercept)",), codes, levels, None, term.variables)
    values, coding = make_columns(term.columns, rows, text)
    check_levels(coding)
    check_finite(values, coding.names, "a random column", text)
    if term.split and len(coding.names) > 1:
        notes.append(
            f"({term.columns} | {term.name}) of a double bar has {len(coding.names)} columns; as in lme4 "
            "they stay correlated, a double bar separates numeric columns only"
        )
    return Term(term.name, term.label, coding.names, codes, levels, values, term.variables, coding)


def _check_terms(terms: list[Term], n: int, text: str) -> None:
    for term in terms:
        shown = f"({' + '.join(c.replace('(Intercept)', '1') for c in term.columns)}|{term.label})"
        if len(term.levels) < 2:
            raise DynstatError(
                "S402",
                f"the factor of {shown} has one level",
                where=mark(text, term.variables[0]) if term.variables else text,
                found=term.levels[0],
                expected="at least two levels",
                mend="leave the term out",
            )
        if len(term.levels) * term.width >= n:
            raise DynstatError(
                "S402",
                f"{shown} is confounded with the residual",
                where=mark(text, term.variables[0]) if term.variables else text,
                found=f"{len(term.levels) * term.width} random effects in {n} rows",
                expected="fewer random effects than rows",
                mend="take at least two samples a cell, or leave the term out",
            )
    for i, a in enumerate(terms):
        for b in terms[:i]:
            if (
                a.intercept_only
                and b.intercept_only
                and len(a.levels) == len(b.levels)
                and same_partition(a.codes, b.codes)
            ):
                raise DynstatError(
                    "S402",
                    f"(1|{b.label}) and (1|{a.label}) divide the rows in the same way",
                    where=text,
                    found=f"{len(a.levels)} levels each",
                    expected="terms that differ",
                    mend="leave one of them out",
                )


def _lme4_order(terms: list[Term]) -> tuple[Term, ...]:
    sizes = [len(t.levels) for t in terms]
    if all(a >= b for a, b in zip(sizes, sizes[1:], strict=False)):
        return tuple(terms)
    # lme4 takes rev(order(levels)): among ties the later term comes first.
    return tuple(terms[i] for i in sorted(range(len(terms)), key=lambda i: sizes[i])[::-1])
