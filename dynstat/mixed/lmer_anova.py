"""Analysis of variance of the fixed part: types I, II and III, term by term, as lmerTest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Rng
from .columns import _r_factor, make_columns, variables
from .contrasts import approximation, f_row

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
TYPES = {"1": "I", "2": "II", "3": "III", "I": "I", "II": "II", "III": "III"}


@dataclass(frozen=True)
class FixedTerm:
    """One term of the fixed part.

    Attributes
    ----------
    name : str
        As R names it, variables joined by colons.
    columns : tuple of int
        Its columns in X; empty where all were dropped.
    factors, numerics : frozenset of str
        What it multiplies.
    """

    name: str
    columns: tuple[int, ...]
    factors: frozenset[str]
    numerics: frozenset[str]

    def inside(self, other: FixedTerm) -> bool:
        """Say whether the other term contains this one: more factors, the same numeric variables."""
        return self.factors < other.factors and self.numerics == other.numerics


def anova(
    m: LmerResult,
    *others: LmerResult,
    type: str | int = "III",
    ddf: str | None = None,
    refit: bool = True,
    nsim: int = 1000,
    rng: Rng = None,
) -> pd.DataFrame:
    """Test the terms of the fixed part; with further fits, compare the models.

    Parameters
    ----------
    *others : LmerResult
        Fits to compare by likelihood ratio; see :func:`dynstat.mixed.compare`, to which `refit`, `nsim` and
        `rng` go.
    type : {"III", "II", "I"}
        What a term is adjusted for. III: all others, cells weighted equally. II: all terms that do not
        contain it. I: the terms before it.
    ddf : str, optional
        Kenward-Roger (the default for REML fits) or Satterthwaite (for ML fits).

    Returns
    -------
    DataFrame
        term, sumsq, meansq, NumDF, DenDF, statistic, p.value; a term whose columns were all dropped has no
        values.

    Source: Kuznetsova, Brockhoff, Christensen 2017, J. Stat. Softw. 82(13); the hypotheses are SAS's.
    """
    if others:
        from .comparison import compare

        return compare(m, *others, refit=refit, nsim=nsim, rng=rng)
    kind = TYPES.get(str(type))
    if kind is None:
        raise DynstatError(
            "S404", "unknown type of analysis of variance", found=type, expected="I | II | III"
        )
    hypotheses = term_contrasts(m, kind)
    reference = approximation(m, ddf) if hypotheses else None
    rows = []
    for name, matrix in hypotheses.items():
        row: dict[str, object] = {"term": name}
        if matrix.shape[0] and reference is not None:
            row |= f_row(m, reference, matrix)
        rows.append(row)
    columns = ["term", "sumsq", "meansq", "NumDF", "DenDF", "statistic", "p.value"]
    out = pd.DataFrame(rows, columns=columns)
    out.attrs |= {"type": kind, "ddf": reference.name if reference is not None else ""}
    return out


def term_contrasts(m: LmerResult, kind: str) -> dict[str, Array]:
    """Return the hypothesis L β = 0 of every term, shape (df, p)."""
    terms = fixed_terms(m)
    if len(terms) <= 1:
        kind = "I"
    nested = any(a.inside(b) for a in terms for b in terms)
    if kind == "III" and (nested or m.design.n):
        return _type_three(m, terms)
    root, p = m.pls.cross.x_root, m.pls.cross.p
    out = {}
    for i, term in enumerate(terms):
        own = list(term.columns)
        matrix = np.zeros((len(own), p))
        later = [
            c
            for j, other in enumerate(terms)
            for c in other.columns
            if (j > i if kind == "I" else term.inside(other))
        ]
        if kind != "I" and not later:
            matrix[np.arange(len(own)), own] = 1.0
        elif own:
            # A triangular factor's rows adjust its columns for all before them. They are scaled as
            # lmerTest scales them: a joint Satterthwaite test depends on it.
            order = [c for c in range(p) if c not in own and c not in later] + own + later
            first = order.index(own[0])
            rows = np.asarray(np.linalg.qr(root[:, order], mode="r"))[first : first + len(own)]
            matrix[:, order] = rows / np.diag(rows[:, first:])[:, None]
        out[term.name] = matrix
    return out


def fixed_terms(m: LmerResult) -> list[FixedTerm]:
    """List the terms of the fixed part but the intercept, in order."""
    spec, kept = _spec(m)
    if spec is None:
        # A constant alone, which is read without a parser.
        return []
    categorical = _categories(spec)
    out = []
    for part in spec.terms:
        names = [str(f.expr) for f in part.factors]
        if names == ["1"]:
            continue
        cut = spec.term_slices[part]
        columns = tuple(kept.index(i) for i in range(cut.start, cut.stop) if i in kept)
        factors = frozenset(n for n in names if n in categorical)
        out.append(
            FixedTerm(
                ":".join(_r_factor(n) for n in names), columns, factors, frozenset(n for n in names) - factors
            )
        )
    return out


def _spec(m: LmerResult) -> tuple[Any, list[int]]:
    coding = m.design.coding
    if coding is None:
        raise DynstatError(
            "S404",
            "the terms of the fixed part are not known",
            where=m.formula,
            found="a fit without rows",
            mend="test contrasts with contest()",
        )
    return coding.spec, [int(k) for k in coding.kept]


def _categories(spec: Any) -> dict[str, tuple[str, ...]]:
    """Return the levels of every categorical factor, by formulaic's name."""
    return {
        str(name): tuple(str(v) for v in state["categories"])
        for name, (_, state) in spec.encoder_state.items()
        if "categories" in state
    }


def _type_three(m: LmerResult, terms: Sequence[FixedTerm]) -> dict[str, Array]:
    """Return type III hypotheses from the over-parametrised design.

    With X in treatment contrasts and X̃ the same with a column for every level, X̃ = XB. Row j of B says
    which function of the over-parametrised model coefficient j estimates. These functions of a term are made
    orthogonal to those of the terms that contain it, then read as functions of X's coefficients, and those
    as functions of the coefficients in whatever contrasts the model has.
    """
    columns = _factor_columns(m, terms)
    spec, _ = _spec(m)
    n = m.design.n
    treated: list[Array] = []
    full: list[Array] = []
    places: list[int] = []
    owners: list[int] = []
    position = {t.name: i for i, t in enumerate(terms)}
    for structure in spec.structure:
        names = [str(f.expr) for f in structure.term.factors]
        if names == ["1"]:
            treated.append(np.ones(n))
            places.append(len(full))
            owners.append(-1)
            full.append(np.ones(n))
            continue
        label = ":".join(_r_factor(x) for x in names)
        start = len(full)
        at: dict[tuple[int, ...], int] = {}
        for combination in product(*(range(columns[x].shape[1]) for x in names)):
            at[combination] = start + len(at)
            full.append(_multiply([columns[x][:, c] for x, c in zip(names, combination, strict=True)]))
        for scoped in structure.scoped_terms:
            reduced = {str(f.factor.expr): bool(f.reduced) for f in scoped.factors}
            choices = [
                range(columns[x].shape[1])[1:] if reduced[x] else range(columns[x].shape[1]) for x in reduced
            ]
            for chosen in product(*choices):
                level = dict(zip(reduced, chosen, strict=True))
                # A scoped term that lacks a factor stands for its first level's column.
                combination = tuple(level.get(x, 0) for x in names)
                treated.append(_multiply([columns[x][:, c] for x, c in level.items()]))
                places.append(at[combination])
                owners.append(position[label])
    x = np.column_stack(treated)
    kept = _independent_columns(x)
    x, places, owner = x[:, kept], [places[i] for i in kept], np.array([owners[i] for i in kept])
    inverse = np.linalg.pinv(x)
    functions = (inverse @ np.column_stack(full)).T
    functions[np.abs(functions) < 1e-9] = 0.0
    for i in sorted(range(len(terms)), key=lambda i: -(len(terms[i].factors) + len(terms[i].numerics))):
        above = np.isin(owner, [j for j, other in enumerate(terms) if terms[i].inside(other)])
        own = owner == i
        if above.any() and own.any():
            basis = functions[:, above]
            functions[:, own] -= basis @ np.linalg.lstsq(basis, functions[:, own], rcond=1e-9)[0]
    functions = functions[places]
    to_model = inverse @ m.design.x
    out = {}
    for i, term in enumerate(terms):
        matrix = functions[:, owner == i].T @ to_model
        matrix = matrix[np.abs(matrix).sum(axis=1) > 1e-8]
        out[term.name] = _full_row_rank(matrix)
    return out


def _factor_columns(m: LmerResult, terms: Sequence[FixedTerm]) -> dict[str, Array]:
    """Return indicators of all levels of every factor, and the values of every numeric one, over the rows."""
    spec, _ = _spec(m)
    if m.design.data is None or not m.design.n:
        raise DynstatError(
            "S404",
            "type III needs the rows of the fit",
            where=m.formula,
            mend="use type='II', or test contrasts with contest()",
        )
    rows = m.design.data.iloc[m.design.positions]
    levels = _categories(spec)
    out: dict[str, Array] = {}
    for name in sorted(set().union(*(t.factors | t.numerics for t in terms))):
        if name not in levels:
            out[name] = make_columns(f"0 + {_r_factor(name)}", rows, m.formula)[0]
            continue
        used = [v for v in variables(name) if v in rows.columns]
        codes, labels = pd.factorize(rows[used[0]]) if len(used) == 1 else (np.zeros(0, dtype=int), [])
        order = [levels[name].index(str(v)) if str(v) in levels[name] else -1 for v in labels]
        places = np.array([*order, -1])[codes]
        if not order or np.any(places < 0):
            raise DynstatError(
                "S404",
                "type III cannot read the levels of a factor",
                where=m.formula,
                found=_r_factor(name),
                mend="make it a column of the data, or use type='II'",
            )
        out[name] = np.eye(len(levels[name]))[places]
    return out


def _multiply(columns: Sequence[Array]) -> Array:
    return np.asarray(np.prod(np.column_stack(columns), axis=1), dtype=np.float64)


def _independent_columns(x: Array) -> list[int]:
    kept: list[int] = []
    basis = np.zeros((x.shape[0], 0))
    for j in range(x.shape[1]):
        left = x[:, j] - basis @ (basis.T @ x[:, j])
        left -= basis @ (basis.T @ left)
        norm = float(np.linalg.norm(left))
        if norm > 1e-7 * max(float(np.linalg.norm(x[:, j])), 1e-300):
            kept.append(j)
            basis = np.column_stack([basis, left / norm])
    return kept


def _full_row_rank(matrix: Array) -> Array:
    if not matrix.size:
        return matrix
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    keep = s > 1e-8 * s[0]
    return matrix if keep.all() else np.asarray(u[:, keep].T @ matrix)
