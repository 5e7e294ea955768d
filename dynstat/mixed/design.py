"""Turn a formula and a frame into arrays: outcome, fixed columns, grouping codes, random columns."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from .formula import MixedFormula, RandomTerm, marked

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
    """

    name: str
    label: str
    columns: tuple[str, ...]
    codes: NDArray[np.intp]
    levels: tuple[str, ...]
    values: Array | None

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

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.y.size)

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
                Term(
                    term.name,
                    term.label,
                    term.columns,
                    codes.astype(np.intp),
                    tuple(term.levels[i] for i in present),
                    None if term.values is None else term.values[rows],
                )
            )
        _check_terms(terms, rows.size, self.formula.text)
        x, names, gone = _full_rank(self.x[rows], self.x_names)
        return Design(
            self.formula,
            self.y[rows],
            x,
            names,
            tuple(terms),
            self.index[rows],
            self.positions[rows],
            (*self.dropped_columns, *gone),
            self.dropped_rows,
        )


def build_design(formula: MixedFormula, data: pd.DataFrame) -> Design:
    """Read the columns that `formula` names from `data`.

    Rows with a missing value in any of them are left out, as R does. Categories are coded by treatment
    contrasts, ordered categoricals by orthogonal polynomials, as R does. Linearly dependent fixed columns
    are dropped and told.

    Raises
    ------
    DynstatError
        S401 for a column that the frame lacks, S402 for a design that cannot be fitted.
    """
    used = _used_columns(formula, data)
    rows = data.loc[:, used]
    keep = ~rows.isna().any(axis=1).to_numpy()
    dropped = int((~keep).sum())
    if not keep.any():
        raise DynstatError(
            "S402",
            "no row is complete",
            where=formula.text,
            found=f"{dropped} rows with missing values",
            expected="rows with a value in every column used",
            mend="check " + ", ".join(used),
        )
    rows = rows.loc[keep]
    y = _response(formula, rows)
    x, names = _columns(formula.fixed, rows, formula.text)
    if not x.shape[1]:
        x, names = np.zeros((y.size, 0)), ()
    for what, values in (("the outcome", y), ("a fixed column", x)):
        if not np.isfinite(values).all():
            raise DynstatError(
                "S402",
                f"{what} holds infinite or undefined values",
                where=formula.text,
                found=f"{int((~np.isfinite(values)).sum())} values",
                expected="finite numbers",
                mend="drop these rows, or change the transformation",
            )
    x, names, gone = _full_rank(x, names)
    if gone:
        warnings.warn(
            f"fixed columns determined by others were dropped: {', '.join(gone)}",
            DynstatWarning,
            stacklevel=3,
        )
    if y.size <= x.shape[1] + 1:
        raise DynstatError(
            "S402",
            "fewer rows than parameters",
            where=formula.text,
            found=f"{y.size} rows",
            expected=f"more than {x.shape[1] + 1}",
            mend="simplify the fixed part, or add rows",
        )
    terms = [_term(t, rows, formula.text) for t in formula.random]
    _check_terms(terms, y.size, formula.text)
    return Design(formula, y, x, names, _lme4_order(terms), rows.index, np.flatnonzero(keep), gone, dropped)


def _used_columns(formula: MixedFormula, data: pd.DataFrame) -> list[str]:
    from formulaic import Formula

    parts = [formula.response + " - 1", formula.fixed, *(t.columns for t in formula.random)]
    wanted: list[str] = []
    for part in parts:
        try:
            wanted += sorted(str(v) for v in Formula(part).required_variables)
        except Exception as error:
            raise DynstatError(
                "S401",
                "a part of the formula cannot be read",
                where=formula.text,
                found=part,
                expected="terms as R writes them",
                mend=str(error).splitlines()[0],
            ) from error
    wanted += [v for t in formula.random for v in t.variables]
    wanted = list(dict.fromkeys(wanted))
    if missing := [v for v in wanted if v not in data.columns]:
        at = re.search(rf"(?<!\w){re.escape(missing[0])}(?!\w)", formula.text)
        raise DynstatError(
            "S401",
            f"the data hold no column {missing[0]!r}",
            where=marked(formula.text, at.start(), len(missing[0])) if at else formula.text,
            found=", ".join(missing),
            expected="one of " + ", ".join(map(str, data.columns)),
            mend="correct the name, or add the column",
        )
    return wanted


def _response(formula: MixedFormula, rows: pd.DataFrame) -> Array:
    y, names = _columns(formula.response + " - 1", rows, formula.text)
    # Words would be coded as a column a word; its name tells.
    if y.shape[1] != 1 or names[0].replace(" ", "") != formula.response.strip("`").replace(" ", ""):
        raise DynstatError(
            "S401",
            "the left side is not one number a row",
            where=formula.text,
            found=", ".join(names) or "no column",
            expected="one numeric outcome",
            mend="name one numeric column; write arithmetic as I(y + 1)",
        )
    return np.ascontiguousarray(y[:, 0])


def _columns(source: str, rows: pd.DataFrame, text: str) -> tuple[Array, tuple[str, ...]]:
    from formulaic import model_matrix

    for column in rows.columns:
        dtype = rows[column].dtype
        if isinstance(dtype, pd.CategoricalDtype) and dtype.ordered:
            # R codes ordered factors by polynomials; a name inside a function keeps what the user wrote.
            source = re.sub(
                rf"(?<![\w.(`]){re.escape(str(column))}(?![\w.(`])", f"C({column}, contr.poly)", source
            )
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            matrix = model_matrix(source, rows, na_action="ignore")
    except Exception as error:
        raise DynstatError(
            "S401",
            "a part of the formula cannot be computed",
            where=text,
            found=source,
            mend=str(error).splitlines()[0],
        ) from error
    names = tuple(_r_name(str(c)) for c in matrix.columns)
    return np.asarray(matrix, dtype=np.float64).reshape(len(rows), -1), names


def _r_name(name: str) -> str:
    if name == "Intercept":
        return "(Intercept)"
    name = re.sub(r"C\(([^(),]+), contr\.poly\)\[(?:T\.)?([^\]]*)\]", r"\1\2", name)
    return re.sub(r"\[(?:T\.)?([^\]]*)\]", r"\1", name)


def _full_rank(x: Array, names: tuple[str, ...]) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """Keep every column that the columns before it do not determine."""
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
    gone = tuple(names[j] for j in range(x.shape[1]) if j not in kept)
    return x[:, kept], tuple(names[j] for j in kept), gone


def _term(term: RandomTerm, rows: pd.DataFrame, text: str) -> Term:
    codes, levels = _interaction(rows, term.variables)
    if term.columns == "1":
        return Term(term.name, term.label, ("(Intercept)",), codes, levels, None)
    values, names = _columns(term.columns, rows, text)
    if not np.isfinite(values).all():
        raise DynstatError(
            "S402",
            "a random column holds infinite or undefined values",
            where=text,
            found=term.columns,
            expected="finite numbers",
            mend="drop these rows",
        )
    if term.split and len(names) > 1:
        warnings.warn(
            f"({term.columns} | {term.name}) of a double bar has {len(names)} columns; as in lme4 they stay "
            "correlated, a double bar separates numeric columns only",
            DynstatWarning,
            stacklevel=4,
        )
    return Term(term.name, term.label, names, codes, levels, values)


def _interaction(rows: pd.DataFrame, variables: tuple[str, ...]) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return codes and labels of the combinations that occur, the last variable running fastest."""
    codes = np.zeros(len(rows), dtype=np.int64)
    labels: NDArray[Any] = np.array([""], dtype=object)
    for i, variable in enumerate(variables):
        column = rows[variable]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.cat.remove_unused_categories()
            new, cats = column.cat.codes.to_numpy().astype(np.int64), column.cat.categories
        else:
            new, cats = pd.factorize(column, sort=True)
        words = np.array([str(c) for c in cats], dtype=object)
        joint, codes = np.unique(codes * len(words) + new, return_inverse=True)
        left, right = labels[joint // len(words)], words[joint % len(words)]
        labels = (
            right
            if i == 0
            else np.array([f"{a}:{b}" for a, b in zip(left, right, strict=True)], dtype=object)
        )
    return codes.astype(np.intp), tuple(labels.tolist())


def _check_terms(terms: list[Term], n: int, text: str) -> None:
    for term in terms:
        shown = f"({' + '.join(c.replace('(Intercept)', '1') for c in term.columns)}|{term.label})"
        if len(term.levels) < 2:
            raise DynstatError(
                "S402",
                f"the factor of {shown} has one level",
                where=text,
                found=term.levels[0],
                expected="at least two levels",
                mend="leave the term out",
            )
        if len(term.levels) * term.width >= n:
            raise DynstatError(
                "S402",
                f"{shown} is confounded with the residual",
                where=text,
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


def same_partition(a: NDArray[np.intp], b: NDArray[np.intp]) -> bool:
    """Say whether two codings divide the rows alike."""
    _, first, inverse = np.unique(a, return_index=True, return_inverse=True)
    return bool(np.array_equal(b[first][inverse], b) and np.unique(b[first]).size == first.size)


def _lme4_order(terms: list[Term]) -> tuple[Term, ...]:
    sizes = [len(t.levels) for t in terms]
    if all(a >= b for a, b in zip(sizes, sizes[1:], strict=False)):
        return tuple(terms)
    # lme4 takes rev(order(levels)): among ties the later term comes first.
    return tuple(terms[i] for i in sorted(range(len(terms)), key=lambda i: sizes[i])[::-1])
