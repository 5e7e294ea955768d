"""Cross-products summed over chunks of rows, for covariates of many values: two passes, no row is kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg

from ..errors import DynstatError, DynstatWarning
from .cells import precision
from .columns import Coding, make_columns, variables
from .crossproducts import Block, _blocks, _sums, assemble
from .design import Design, Term, _check_terms, _full_rank, _lme4_order
from .formula import MixedFormula
from .levels import interaction

Array = NDArray[np.float64]
Start = Callable[[], Iterable[pd.DataFrame]]
# Fewer rows than this are compressed whatever they are; of more, a look at so many decides.
_LOOK = 20_000


def wants_sums(formula: MixedFormula, first: pd.DataFrame) -> bool:
    """Say whether most rows of a first chunk differ, so that compressing them to cells would not pay."""
    names = [n for n in _names(formula) if n in first.columns]
    if len(first) <= _LOOK or not names:
        return False
    # Rows from the whole chunk: neighbours may differ only in the factors that run fastest.
    some = first[names].iloc[:: max(1, len(first) // _LOOK)]
    return bool((~some.duplicated()).mean() > 0.5)


def sum_over(formula: MixedFormula, start: Start, weights: str | None = None) -> Design:
    """Return a design without rows that carries the cross-products of all chunks.

    The first pass finds levels, the second sums. The outcome enters as its residual on a provisional fit to
    the first chunk, so that no digits are lost when it is far from zero; X'X is held as a triangular factor.

    Parameters
    ----------
    formula : MixedFormula
    start : callable
        Starts a pass over the chunks; called twice.
    weights : str or None
        Column of precision weights.

    Raises
    ------
    DynstatError
        S404 where the chunks can be read only once, or a transformation needs all rows at once.
    """
    if (first := start()) is start():
        if isinstance(first, Iterator):
            raise DynstatError(
                "S404",
                "these chunks can be read only once",
                where=formula.text,
                found="an iterator, and covariates that take many values",
                expected="a list of frames, or a function that returns an iterator",
                mend="pass the function, not its result",
            )
    found = _scan(formula, start)
    response = formula.response.strip("`")
    coding = _coding(formula.fixed, found.examples, formula.text)
    stubs = [_stub(t, found, formula) for t in formula.random]
    terms = _lme4_order([s.term for s in stubs])
    by_name = {(s.term.name, s.term.columns): s for s in stubs}
    p = len(coding.names)
    root_x = np.zeros((0, p))
    sums: tuple[Array, Array, Array] | None = None
    beta0 = np.zeros(p)
    n, dropped, log_weights = 0, 0, 0.0
    used = [response, *_names(formula), *([weights] if weights else [])]
    for chunk in start():
        keep = chunk[used].notna().all(axis=1).to_numpy()
        dropped += int((~keep).sum())
        chunk = chunk.loc[keep]
        if not len(chunk):
            continue
        x = coding.columns(chunk) if p else np.zeros((len(chunk), 0))
        y = chunk[response].to_numpy(dtype=np.float64)
        root = None
        if weights:
            each = precision(chunk[weights].to_numpy(dtype=np.float64))
            root = each.root
            log_weights += float(each.log_weights.sum())
        if sums is None and p:
            beta0 = np.linalg.lstsq(x, y, rcond=None)[0]
        right = np.column_stack([x, y - x @ beta0])
        if not np.isfinite(right).all():
            raise DynstatError(
                "S402",
                "a chunk holds infinite or undefined values",
                where=formula.text,
                found=f"{int((~np.isfinite(right).all(axis=1)).sum())} rows",
                expected="finite numbers",
                mend="drop these rows, or change the transformation",
            )
        if root is not None:
            right = right * root[:, None]
        here = tuple(by_name[t.name, t.columns].rows(t, chunk) for t in terms)
        blocks, codes, values = _blocks(here, root)
        more = _sums(blocks, codes, values, right)
        sums = more if sums is None else (sums[0] + more[0], sums[1] + more[1], sums[2] + more[2])
        root_x = np.asarray(np.linalg.qr(np.vstack([root_x, right[:, :p]]), mode="r"))
        n += y.size
    assert sums is not None  # _scan found rows
    side, rest, own = sums
    kept, gone = _full_rank(root_x, coding.names)
    _checks(formula, terms, n, kept.size, gone)
    side, rest, r, beta = _orthogonal(side, rest, root_x, kept, beta0)
    blocks = _blocks(terms)[0]
    _refuse_twins(formula, terms, blocks, side, rest)
    cross = assemble(blocks, own, side, rest, n, r, beta, log_weights)
    empty = np.zeros(0, dtype=np.intp)
    return Design(
        formula,
        np.zeros(0),
        np.zeros((0, kept.size)),
        tuple(coding.names[i] for i in kept),
        terms,
        pd.RangeIndex(0),
        empty,
        gone,
        dropped,
        replace(coding, kept=kept),
        (),
        None,
        None,
        cross,
    )


@dataclass(frozen=True)
class _Found:
    examples: pd.DataFrame
    combinations: dict[tuple[str, ...], pd.DataFrame]


@dataclass(frozen=True)
class _Stub:
    """A random term without rows, and how rows find their level."""

    term: Term
    index: pd.Index
    place: NDArray[np.intp]

    def rows(self, term: Term, chunk: pd.DataFrame) -> Term:
        """Return the term over the rows of a chunk."""
        at = self.index.get_indexer(_index(chunk, term.variables))
        values = None if term.coding is None else term.coding.columns(chunk)
        return replace(term, codes=self.place[at], values=values)


def _names(formula: MixedFormula) -> list[str]:
    parts = [formula.fixed, *(t.columns for t in formula.random)]
    names = [v for part in parts for v in variables(part)] + [v for t in formula.random for v in t.variables]
    return list(dict.fromkeys(names))


def _index(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.Index:
    if len(names) == 1:
        return pd.Index(frame[names[0]])
    return pd.MultiIndex.from_frame(frame[list(names)])


def _scan(formula: MixedFormula, start: Start) -> _Found:
    """Find the levels of every factor, and rows that show every level of the covariates."""
    response = formula.response.strip("`")
    names = _names(formula)
    covariates = [
        v for part in [formula.fixed, *(t.columns for t in formula.random)] for v in variables(part)
    ]
    seen: dict[str, set[Any]] = {v: set() for v in covariates}
    examples: list[pd.DataFrame] = []
    combinations: dict[tuple[str, ...], list[pd.DataFrame]] = {t.variables: [] for t in formula.random}
    for chunk in start():
        if missing := [v for v in [response, *names] if v not in chunk.columns]:
            raise DynstatError(
                "S401",
                f"the data hold no column {missing[0]!r}",
                where=formula.text,
                found=", ".join(map(str, chunk.columns)),
                mend="correct the name, or add the column; an outcome is transformed before the fit",
            )
        chunk = chunk.loc[chunk[[response, *names]].notna().all(axis=1), names]
        if not examples:
            examples.append(chunk.head(50))
        for v in covariates:
            if pd.api.types.is_numeric_dtype(chunk[v].dtype) and chunk[v].dtype != bool:
                continue
            firsts = chunk.drop_duplicates(v)
            new = ~firsts[v].isin(list(seen[v])).to_numpy()
            if new.any():
                examples.append(firsts.loc[new])
                seen[v].update(firsts.loc[new, v].tolist())
        for key, tables in combinations.items():
            tables.append(chunk[list(key)].drop_duplicates())
            if len(tables) > 20:
                tables[:] = [pd.concat(tables).drop_duplicates()]
    if not examples or not sum(len(e) for e in examples):
        raise DynstatError(
            "S402",
            "no row is complete",
            where=formula.text,
            expected="rows with a value in every column used",
        )
    joined = {
        key: pd.concat(tables).drop_duplicates().reset_index(drop=True)
        for key, tables in combinations.items()
    }
    return _Found(pd.concat(examples, ignore_index=True), joined)


def _coding(source: str, examples: pd.DataFrame, text: str) -> Coding:
    _, coding = make_columns(source, examples, text)
    if coding.spec is not None and coding.spec.transform_state:
        raise DynstatError(
            "S404",
            "a transformation needs all rows at once",
            where=text,
            found=", ".join(map(str, coding.spec.transform_state)),
            expected="functions of one row, such as log(x)",
            mend="compute the columns before, or fit a DataFrame in memory",
        )
    return coding


def _stub(term: Any, found: _Found, formula: MixedFormula) -> _Stub:
    table = found.combinations[term.variables]
    place, levels = interaction(table, term.variables, formula.text)
    index = _index(table, term.variables)
    empty = np.zeros(0, dtype=np.intp)
    if term.columns == "1":
        own = Term(term.name, term.label, ("(Intercept)",), empty, levels, None, term.variables)
    else:
        coding = _coding(term.columns, found.examples, formula.text)
        values = np.zeros((0, len(coding.names)))
        own = Term(term.name, term.label, coding.names, empty, levels, values, term.variables, coding)
    return _Stub(own, index, place)


def _checks(formula: MixedFormula, terms: tuple[Term, ...], n: int, p: int, gone: tuple[str, ...]) -> None:
    for term in terms:
        _check_terms([term], n, formula.text)
    if n <= p + 1:
        raise DynstatError("S402", "fewer rows than parameters", where=formula.text, found=f"{n} rows")
    if gone:
        warnings.warn(
            f"fixed columns determined by others were dropped: {', '.join(gone)}",
            DynstatWarning,
            stacklevel=5,
        )


def _refuse_twins(
    formula: MixedFormula, terms: tuple[Term, ...], blocks: tuple[Block, ...], side: Array, rest: Array
) -> None:
    """Refuse two factors that divide the rows in the same way: every level of one meets one of the other."""
    edges = np.cumsum([0, *(b.size for b in blocks[1:])])
    for j in range(1, len(blocks)):
        for i in range(j):
            if blocks[i].levels != blocks[j].levels or blocks[i].width > 1 or blocks[j].width > 1:
                continue
            rows = side if i == 0 else rest[edges[i - 1] : edges[i]]
            if np.all(np.count_nonzero(rows[:, edges[j - 1] : edges[j]], axis=1) == 1):
                a, b = (terms[blocks[k].members[0][0]].label for k in (i, j))
                raise DynstatError(
                    "S402",
                    f"(1|{a}) and (1|{b}) divide the rows in the same way",
                    where=formula.text,
                    found=f"{blocks[i].levels} levels each",
                    expected="terms that differ",
                    mend="leave one of them out",
                )


def _orthogonal(
    side: Array, rest: Array, root_x: Array, kept: NDArray[np.intp], beta0: Array
) -> tuple[Array, Array, Array, Array]:
    """Turn products with [X, y − Xβ₀] into products with an orthonormal basis of X and y's residual on it."""
    p = root_x.shape[1]
    zs = rest.shape[0] - 1 - p
    r: Array = np.asarray(np.linalg.qr(root_x[:, kept], mode="r"))
    back = linalg.solve_triangular(r, np.eye(kept.size))
    columns = zs + kept
    keep = np.concatenate([np.arange(zs), columns, [rest.shape[0] - 1]])
    side, rest = side[:, keep], rest[np.ix_(keep, keep)]
    turn = np.eye(keep.size)
    turn[zs:-1, zs:-1] = back
    side, rest = side @ turn, turn.T @ rest @ turn
    # What is left of y's fit to X; products are turned, never replaced by what they should be: a general mean
    # lies in the span of every factor, and nearly all of X'V⁻¹X cancels.
    inside = rest[zs:-1, -1].copy()
    turn = np.eye(keep.size)
    turn[zs:-1, -1] = -inside
    side, rest = side @ turn, turn.T @ rest @ turn
    rest = (rest + rest.T) / 2
    # β₀ may use columns that were dropped: what it says in those kept.
    start = np.linalg.lstsq(root_x[:, kept], root_x @ beta0, rcond=None)[0] if kept.size else np.zeros(0)
    return side, rest, r, start + back @ inside
