"""Tests of fixed effects: t and F tests of linear contrasts, the coefficient table, equivalence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ..errors import DynstatError
from ..inference.estimate import Estimate, TPivot
from .kenward_roger import FTest, KenwardRoger, fits_memory, kenward_roger
from .satterthwaite import Satterthwaite, satterthwaite

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
Contrast: TypeAlias = ArrayLike | Mapping[str, float] | pd.DataFrame | Sequence[Mapping[str, float]]
Ddf = Literal["Kenward-Roger", "Satterthwaite", "asymptotic"]
METHODS = ("Kenward-Roger", "Satterthwaite", "asymptotic")


class Asymptotic(NamedTuple):
    """Wald tests: the normal and chi-squared limits, infinite degrees of freedom."""

    vcov: Array
    beta: Array
    name: str = "asymptotic"

    def df(self, contrast: ArrayLike) -> float:
        """Return infinity."""
        return float("inf")

    def f_test(self, contrasts: Array, rhs: Array | float = 0.0) -> FTest:
        """Return the Wald chi-squared statistic over its degrees of freedom."""
        distance = contrasts @ self.beta - rhs
        wald = distance @ np.linalg.solve(contrasts @ self.vcov @ contrasts.T, distance)
        return FTest(float(wald / contrasts.shape[0]), contrasts.shape[0], float("inf"))


Approximation = KenwardRoger | Satterthwaite | Asymptotic


def approximation(m: LmerResult, ddf: str | None = None) -> Approximation:
    """Return the reference distribution of tests on fixed effects.

    Parameters
    ----------
    ddf : {"Kenward-Roger", "Satterthwaite", "asymptotic"} or None
        None takes Kenward-Roger for a REML fit and Satterthwaite for one by maximum likelihood or one too
        large for it. "KR" is short for Kenward-Roger.
    """
    if ddf is None:
        ddf = "Kenward-Roger" if m.reml and fits_memory(m) else "Satterthwaite"
    kinds = {"kenward-roger": "kr", "kr": "kr", "satterthwaite": "s", "asymptotic": "z", "wald": "z"}
    kind = kinds.get(str(ddf).lower())
    if kind is None:
        raise DynstatError(
            "S404", "unknown degrees of freedom", where="ddf", found=ddf, expected=" | ".join(METHODS)
        )
    if not len(m.fixef):
        raise DynstatError("S404", "the model has no fixed effects", where=m.formula, mend="add `1 +`")
    if kind == "kr":
        return kenward_roger(m)
    return satterthwaite(m) if kind == "s" else Asymptotic(m.solution.vcov, m.solution.beta)


def coefficients(
    m: LmerResult, *, ddf: str | None = None, level: float = 0.95, reference: Approximation | None = None
) -> pd.DataFrame:
    """Return the fixed effects with t tests and intervals, as lmerTest's ``summary(m)$coefficients``.

    Returns
    -------
    DataFrame
        term, estimate, std.error, statistic, df, p.value, conf.low, conf.high.
    """
    reference = reference or approximation(m, ddf)
    names = [str(n) for n in m.fixef.index]
    return _t_table(reference, np.eye(len(names)), np.zeros(len(names)), names, level)


def contest(
    m: LmerResult,
    contrasts: Contrast,
    *,
    rhs: ArrayLike = 0.0,
    joint: bool = True,
    ddf: str | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Test linear contrasts of the fixed effects, L β = rhs.

    Parameters
    ----------
    contrasts : array_like, mapping, list of mappings or DataFrame
        L: a row a contrast and a column a coefficient; or weights by name of coefficient, unnamed ones zero.
        Row names of a frame name the contrasts.
    rhs : float or array_like
        Values under the null hypothesis.
    joint : bool
        One F test of all rows (the default), or a t test a row.
    ddf : str, optional
        See :func:`approximation`.
    level : float
        Of the intervals of single contrasts.

    Returns
    -------
    DataFrame
        Joint: sumsq, meansq, NumDF, DenDF, statistic, p.value. Single: term, estimate, std.error,
        statistic, df, p.value, conf.low, conf.high.

    Source: Kuznetsova, Brockhoff, Christensen 2017, J. Stat. Softw. 82(13), ``contest``.
    """
    matrix, names = as_matrix(m, contrasts)
    values = np.broadcast_to(np.asarray(rhs, dtype=np.float64), (matrix.shape[0],))
    reference = approximation(m, ddf)
    if not joint:
        return _t_table(reference, matrix, values, names, level)
    matrix, values = _independent(matrix, values)
    return pd.DataFrame([f_row(m, reference, matrix, values)])


def krmodcomp(large: LmerResult, small: LmerResult, *, ddf: str | None = None) -> pd.DataFrame:
    """Test a smaller fixed part within a larger one by an F test (pbkrtest's ``KRmodcomp``).

    Only the larger fit is used, of the smaller one its fixed columns: the hypothesis is Lβ = 0 with L a basis
    of what is orthogonal to the coefficients of the smaller model.

    Returns
    -------
    DataFrame
        As :func:`contest`.

    Source: Halekoh and Højsgaard 2014, J. Stat. Softw. 59(9), section 3.
    """
    x, x0 = large.design.x, small.design.x
    if not x.size or x.shape[0] != x0.shape[0]:
        raise DynstatError(
            "S404", "both fits must hold the same rows", found=f"{x.shape[0]} and {x0.shape[0]} rows"
        )
    coef = np.linalg.lstsq(x, x0, rcond=None)[0]
    if not np.allclose(x @ coef, x0, atol=1e-8 * max(1.0, float(np.abs(x0).max(initial=0.0)))):
        raise DynstatError(
            "S404",
            "the smaller fixed part is not inside the larger",
            found=small.formula,
            where=large.formula,
        )
    basis = np.linalg.qr(coef, mode="complete")[0] if coef.shape[1] else np.eye(x.shape[1])
    matrix = basis[:, coef.shape[1] :].T
    if not matrix.shape[0]:
        raise DynstatError("S404", "the fixed parts are the same", where=large.formula)
    return contest(large, matrix, ddf=ddf)


def f_row(
    m: LmerResult, reference: Approximation, matrix: Array, rhs: Array | float = 0.0
) -> dict[str, float]:
    """Return one row of an analysis of variance: the joint test of independent rows."""
    f = reference.f_test(matrix, rhs)
    p = (
        special.fdtrc(f.num_df, f.den_df, f.statistic)
        if np.isfinite(f.den_df)
        else special.chdtrc(f.num_df, f.statistic * f.num_df)
    )
    mean_square = f.statistic / f.scale * m.sigma**2
    return {
        "sumsq": mean_square * f.num_df,
        "meansq": mean_square,
        "NumDF": f.num_df,
        "DenDF": f.den_df,
        "statistic": f.statistic,
        "p.value": float(p),
    }


def equivalence(
    m: LmerResult,
    contrast: ArrayLike | Mapping[str, float],
    low: float,
    high: float,
    *,
    key: str = "contrast",
    level: float = 0.95,
    ddf: str | None = None,
    unit: str = "row",
    target: Literal["panel", "population", "sample"] = "sample",
) -> Estimate:
    """Test by two one-sided t tests whether a contrast lies between `low` and `high`.

    The contrast is equivalent at one-sided level α where both tests reject, that is where its 1 − 2α interval
    lies inside the bounds. The estimate carries its t pivot, so that every decision rule applies to it.

    Parameters
    ----------
    contrast : array_like or mapping
        One row of weights, by position or by name of coefficient.
    low, high : float
        Bounds of equivalence, in the units of the outcome.
    key, level, unit, target
        Of the estimate.
    ddf : str, optional
        See :func:`approximation`; Kenward-Roger for REML fits.

    Returns
    -------
    Estimate
        ``diagnostics``: p_above_low, p_below_high, p_equivalence (the larger), df, std.error.

    Source: Schuirmann 1987, J. Pharmacokinet. Biopharm. 15: 657-680.
    """
    if not low < high:
        raise DynstatError(
            "S404",
            "the bounds of equivalence are not in order",
            found=f"{low}, {high}",
            expected="low < high",
        )
    matrix, _ = as_matrix(m, contrast)
    if matrix.shape[0] != 1:
        raise DynstatError("S404", "equivalence is of one contrast", found=f"{matrix.shape[0]} rows")
    reference = approximation(m, ddf)
    row = matrix[0]
    pivot = TPivot(float(row @ reference.beta), float(np.sqrt(row @ reference.vcov @ row)), reference.df(row))
    above, below = pivot.p_above(low), pivot.p_below(high)
    return Estimate.from_pivot(
        key,
        pivot.center,
        pivot,
        level=level,
        method="mixed.equivalence@1",
        interval=f"{reference.name} t({pivot.df:.4g})",
        unit=unit,
        n={"row": m.nobs, **m.ngroups},
        target=target,
        diagnostics={
            "std.error": pivot.se,
            "df": pivot.df,
            "low_bound": float(low),
            "high_bound": float(high),
            "p_above_low": above,
            "p_below_high": below,
            "p_equivalence": max(above, below),
            "singular": m.singular,
        },
    )


def as_matrix(m: LmerResult, contrasts: Contrast) -> tuple[Array, list[str]]:
    """Read contrasts given in any of the accepted forms; return L, shape (q, p), and the rows' names."""
    names = [str(n) for n in m.fixef.index]
    rows: list[dict[str, float]] | None = None
    labels: list[str] | None = None
    if isinstance(contrasts, pd.DataFrame):
        rows = [{str(k): float(v) for k, v in r.items()} for r in contrasts.to_dict("records")]
        labels = [str(i) for i in contrasts.index]
    elif isinstance(contrasts, Mapping):
        rows = [{str(k): float(v) for k, v in contrasts.items()}]
    elif isinstance(contrasts, Sequence) and all(isinstance(r, Mapping) for r in contrasts):
        listed = cast(Sequence[Mapping[str, float]], contrasts)
        rows = [{str(k): float(v) for k, v in r.items()} for r in listed]
    if rows is not None:
        if unknown := [k for r in rows for k in r if k not in names]:
            raise DynstatError(
                "S404",
                "a contrast names no coefficient of the model",
                found=unknown[0],
                expected=", ".join(names),
            )
        matrix = np.array([[r.get(n, 0.0) for n in names] for r in rows], dtype=np.float64)
    else:
        matrix = np.atleast_2d(np.asarray(contrasts, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise DynstatError(
            "S404",
            "contrasts do not fit the model",
            found=f"{matrix.shape[-1]} columns",
            expected=f"{len(names)}: {', '.join(names)}",
        )
    if not np.isfinite(matrix).all() or not np.any(matrix, axis=1).all():
        raise DynstatError(
            "S404", "a contrast is zero or not finite", expected="finite weights, not all of them zero"
        )
    return matrix, labels or [_label(row, names) for row in matrix]


def _independent(matrix: Array, rhs: Array) -> tuple[Array, Array]:
    """Return an independent set of rows that asks the same; contradicting rows are an error."""
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    keep = s > 1e-10 * s[0]
    if keep.all():
        return matrix, rhs
    turned = u.T @ rhs
    if np.any(np.abs(turned[~keep]) > 1e-8 * (1 + np.abs(rhs).max())):
        raise DynstatError("S404", "the contrasts contradict each other", found=rhs.tolist())
    return u[:, keep].T @ matrix, turned[keep]


def _t_table(
    reference: Approximation, matrix: Array, rhs: Array, names: Sequence[str], level: float
) -> pd.DataFrame:
    if not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level)
    estimate = matrix @ reference.beta
    error = np.sqrt(np.einsum("ij,jk,ik->i", matrix, reference.vcov, matrix))
    df = np.array([reference.df(row) for row in matrix])
    statistic = (estimate - rhs) / error
    finite = np.isfinite(df)
    safe = np.where(finite, df, 1.0)
    quantile = np.where(finite, special.stdtrit(safe, (1 + level) / 2), special.ndtri((1 + level) / 2))
    tail = np.where(finite, special.stdtr(safe, -np.abs(statistic)), special.ndtr(-np.abs(statistic)))
    return pd.DataFrame(
        {
            "term": list(names),
            "estimate": estimate,
            "std.error": error,
            "statistic": statistic,
            "df": df,
            "p.value": 2 * tail,
            "conf.low": estimate - quantile * error,
            "conf.high": estimate + quantile * error,
        }
    )


def _label(row: Array, names: Sequence[str]) -> str:
    parts = []
    for weight, name in zip(row, names, strict=True):
        if weight:
            size = "" if abs(weight) == 1 else f"{abs(weight):g}*"
            parts.append(("- " if weight < 0 else "+ ") + size + name)
    return " ".join(parts).removeprefix("+ ")
