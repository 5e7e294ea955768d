"""Intraclass correlations and R² of a mixed model, for this panel and for a population."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.estimate import DrawsPivot, Estimate, Pivot
from ..inference.resample import Rng, as_generator
from .crossproducts import cross_products, with_response
from .design import Design, build_design
from .formula import parse_formula
from .groups import groups_of, resampler_of
from .jackknife import jackknife_plain, jackknife_share
from .pls import PenalisedLeastSquares
from .population import bias_corrected
from .result import LmerResult
from .variance_parts import VarianceParts, fit_parts, outcome_from, parts_at, redrawn_within, unbounded

Array = NDArray[np.float64]
#: From the parts of the model, and of the models without some predictors, to named numbers.
Statistic = Callable[[Sequence[VarianceParts]], Mapping[str, float]]


@dataclass(frozen=True)
class Asked:
    """Whose uncertainty is asked for: the columns of the jackknife's unit, the bootstrap's refits."""

    data: pd.DataFrame | None
    unit: str | None
    strata: str | None
    refits: int
    level: float
    rng: Rng


def icc(
    fit: LmerResult,
    data: pd.DataFrame | None = None,
    *,
    unit: str | None = None,
    strata: str | None = None,
    refits: int = 300,
    level: float = 0.95,
    rng: Rng = 0,
) -> dict[str, Estimate]:
    """Return intraclass correlations: adjusted, unadjusted, and of every grouping factor.

    adjusted = Σ random/(Σ random + residual); unadjusted has the variance of the fixed part in the
    denominator too; that of a factor is its own part over Σ random + residual. A slope enters by its mean
    variance over the rows.

    Parameters
    ----------
    fit : LmerResult
    data : DataFrame, optional
        The rows of the fit; needed where `unit` is given.
    unit, strata : str, optional
        For this panel: one `unit` of each of the `strata` is left out at a time (delete-group jackknife,
        logit scale; raw scale on components allowed below zero where a value touches 0 or 1).
    refits : int
        For a population: outcomes redrawn from the fit and fitted again, limits bias-corrected; 0 for none.
    level : float
        Of the intervals.
    rng : Generator or int

    Returns
    -------
    dict of str to Estimate
        ``icc.adjusted``, ``icc.unadjusted``, ``icc.<factor>`` (target ``panel``, where `unit` is given), and
        the same with ``population.`` before it.

    Raises
    ------
    DynstatError
        S404 for a unit without data; S403 for too few units.

    Source: Nakagawa, Johnson, Schielzeth 2017, J. R. Soc. Interface 14: 20170213; R's ``performance::icc``.
    """
    asked = Asked(data, unit, strata, refits, level, rng)
    return estimated("icc", lambda p: p[0].icc(), fit, [fit.design], asked)


def r2(
    fit: LmerResult,
    data: pd.DataFrame | None = None,
    *,
    unit: str | None = None,
    strata: str | None = None,
    refits: int = 300,
    level: float = 0.95,
    rng: Rng = 0,
) -> dict[str, Estimate]:
    """Return R² by Nakagawa and Schielzeth: marginal (fixed part) and conditional (fixed and random).

    marginal = var(Xβ)/total, conditional = (var(Xβ) + Σ random)/total. Parameters as of :func:`icc`.

    Returns
    -------
    dict of str to Estimate
        ``r2.marginal``, ``r2.conditional`` where `unit` is given, and the same with ``population.`` before.

    Source: Nakagawa and Schielzeth 2013, Methods Ecol. Evol. 4: 133-142; R's ``performance::r2_nakagawa``.
    """
    asked = Asked(data, unit, strata, refits, level, rng)
    return estimated("r2", lambda p: p[0].r2(), fit, [fit.design], asked)


def part_r2(
    fit: LmerResult,
    data: pd.DataFrame,
    predictors: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    conditional: bool = False,
    unit: str | None = None,
    strata: str | None = None,
    refits: int = 300,
    level: float = 0.95,
    rng: Rng = 0,
) -> dict[str, Estimate]:
    """Return how much R² falls when predictors are left out of the fixed part.

    part R² = R² of the model − R² of the model without these terms, fitted to the same rows with the same
    random part. It can fall below zero, and parts of several predictors need not add up to R².

    Parameters
    ----------
    fit : LmerResult
    data : DataFrame
        The rows of the fit.
    predictors : sequence of str, or mapping of str to sequences
        Terms of the fixed part, each left out alone; or named sets of terms, each left out together.
    conditional : bool
        Take the conditional R² in place of the marginal one.
    unit, strata, refits, level, rng
        As of :func:`icc`; the jackknife is made on the raw scale.

    Returns
    -------
    dict of str to Estimate
        ``part_r2.<name>`` where `unit` is given, and ``population.part_r2.<name>``.

    Raises
    ------
    DynstatError
        S404 for a term that the fixed part does not hold.

    Source: Stoffel, Nakagawa, Schielzeth 2021, PeerJ 9: e11414.
    """
    sets = predictors if isinstance(predictors, Mapping) else {p: [p] for p in predictors}
    rows = data.iloc[fit.design.positions]
    full = _rows_design(fit.formula, rows)
    designs = [full, *(_without(fit.formula, rows, full, list(terms)) for terms in sets.values())]
    kind = "conditional" if conditional else "marginal"

    def statistic(parts: Sequence[VarianceParts]) -> dict[str, float]:
        whole = parts[0].r2()[kind]
        return {name: whole - p.r2()[kind] for name, p in zip(sets, parts[1:], strict=True)}

    asked = Asked(rows, unit, strata, refits, level, rng)
    return estimated("part_r2", statistic, fit, designs, asked, bounded=False)


def estimated(
    prefix: str,
    statistic: Statistic,
    fit: LmerResult,
    designs: Sequence[Design],
    asked: Asked,
    *,
    bounded: bool = True,
) -> dict[str, Estimate]:
    """Estimate numbers made of variance parts, with the intervals asked for."""
    if asked.refits and asked.refits < 100:
        raise DynstatError(
            "S404", "too few refits", found=asked.refits, expected="at least 100, or 0 for none"
        )
    generator, seed = as_generator(asked.rng)
    fitted = [_fit(d, fit) for d in designs]
    parts = [p for p, _ in fitted]
    values = dict(statistic(parts))
    n = {"rows": fit.nobs, **{t.label: len(t.levels) for t in designs[0].terms}}
    common: dict[str, Any] = {
        "level": asked.level,
        "method": f"variance.{prefix}@1",
        "seed": seed,
        "diagnostics": {"singular": fit.singular, "reml": fit.reml, "fixed": parts[0].fixed},
    }
    out: dict[str, Estimate] = {}
    if asked.unit is not None:
        free = statistic([unbounded(d, p) for d, p in zip(designs, parts, strict=True)])
        left, left_free, units = _left_out(statistic, fit, designs, [t for _, t in fitted], asked)
        for name, value in values.items():
            key = f"{prefix}.{name}"
            mine = np.array([v[name] for v in left])
            counts = n | {"units": units, "groups": len(left)}
            rest = common | {"unit": asked.unit, "target": "panel", "n": counts}
            pivot: Pivot
            if prefix != "icc" and np.ptp(mine) == 0 and value == 0:
                out[key] = Estimate(key, 0.0, np.nan, np.nan, interval="none (no fixed terms)", **rest)
                continue
            if bounded:
                made = jackknife_share(value, mine, free[name], np.array([v[name] for v in left_free]))
                value, pivot = made.value, made.pivot
                how = f"{made.scale} scale"
            else:
                pivot, how = jackknife_plain(value, mine), "raw scale"
            out[key] = Estimate.from_pivot(
                key, value, pivot, interval=f"delete-group jackknife, t({len(left) - 1}), {how}", **rest
            )
    wide = _redrawn(statistic, fit, designs, fitted[0][1], asked.refits, generator)
    for j, (name, value) in enumerate(values.items()):
        key = f"population.{prefix}.{name}"
        rest = common | {"unit": "all factors", "target": "population", "n": n}
        if wide is None or np.ptp(wide[:, j]) == 0:
            why = "none" if wide is None else "none (no fixed terms)"
            out[key] = Estimate(key, value, np.nan, np.nan, interval=why, **rest)
            continue
        pivot = DrawsPivot(tuple(bias_corrected(wide[:, [j]], np.array([value]))[:, 0].tolist()))
        words = f"parametric bootstrap, {asked.refits} refits, bias-corrected percentile"
        out[key] = Estimate.from_pivot(key, value, pivot, interval=words, **rest)
    return out


def _fit(design: Design, fit: LmerResult) -> tuple[VarianceParts, Array]:
    if design is not fit.design:
        return fit_parts(design, fit.reml)
    theta = fit.theta.to_numpy()
    pls = PenalisedLeastSquares(cross_products(design), design.terms, fit.reml)
    return parts_at(design, pls, theta), theta


def _left_out(
    statistic: Statistic, fit: LmerResult, designs: Sequence[Design], thetas: Sequence[Array], asked: Asked
) -> tuple[list[Mapping[str, float]], list[Mapping[str, float]], int]:
    if asked.data is None or asked.unit is None:
        raise DynstatError(
            "S404",
            "the jackknife needs the rows of the fit",
            where="data",
            expected="the frame that was fitted",
            mend="pass data=",
        )
    resampler = resampler_of(designs[0], asked.data, asked.unit, asked.strata)
    groups, _ = groups_of(resampler, asked.unit, asked.strata)
    bounded, free = [], []
    for group in groups:
        rows = resampler.without(group)
        parts, loose = [], []
        for design, theta in zip(designs, thetas, strict=True):
            cut = design.subset(rows)
            one, _ = fit_parts(cut, fit.reml, start=_away_from_zero(cut, theta, fit.reml))
            parts.append(one)
            loose.append(unbounded(cut, one))
        bounded.append(statistic(parts))
        free.append(statistic(loose))
    return bounded, free, resampler.n_units


def _away_from_zero(design: Design, theta: Array, reml: bool) -> Array:
    """Return a start off the boundary, where the criterion is flat in every standard deviation."""
    diagonal = PenalisedLeastSquares(cross_products(design), design.terms, reml).diagonal
    return np.where(diagonal, np.maximum(theta, 0.05), theta)


def _redrawn(
    statistic: Statistic,
    fit: LmerResult,
    designs: Sequence[Design],
    theta: Array,
    refits: int,
    rng: np.random.Generator,
) -> Array | None:
    if not refits:
        return None
    crosses = [cross_products(d) for d in designs]
    pls = PenalisedLeastSquares(crosses[0], designs[0].terms, fit.reml)
    start = np.where(pls.diagonal, np.maximum(theta, 0.05), theta)
    out = []
    for _ in range(refits):
        y = outcome_from(designs[0], pls, theta, rng)
        within = redrawn_within(designs[0], pls.solve(theta).sigma2, rng)
        parts = []
        for design, cross in zip(designs, crosses, strict=True):
            swapped = with_response(cross, design, y, within)
            parts.append(fit_parts(design, fit.reml, start=start, cross=swapped, polish=False)[0])
        out.append(list(statistic(parts).values()))
    return np.array(out)


def _rows_design(formula: str, rows: pd.DataFrame) -> Design:
    return build_design(parse_formula(formula), rows)


def _without(formula: str, rows: pd.DataFrame, full: Design, terms: Sequence[str]) -> Design:
    parsed = parse_formula(formula)
    fixed = parsed.fixed
    for term in terms:
        reduced = f"{fixed} - {term}"
        if _names(reduced) == _names(fixed):
            raise DynstatError(
                "S404",
                f"the fixed part holds no term {term!r}",
                where=formula,
                found=term,
                expected=", ".join(sorted(_names(parsed.fixed) - {"1"})) or "a fixed term",
                mend="name terms as the formula does",
            )
        fixed = reduced
    made = build_design(replace(parsed, fixed=fixed), rows)
    if made.n != full.n:
        raise DynstatError("S402", "rows differ between the models", found=made.n, expected=str(full.n))
    return made


def _names(fixed: str) -> set[str]:
    from formulaic import Formula

    return {str(t) for t in Formula(fixed)}
