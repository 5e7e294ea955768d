"""Variance decomposition: the share of every term and the residual, for this panel and for a population."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import DrawsPivot, Estimate
from ..inference.resample import Rng, as_generator
from .basis import Basis
from .design import Design
from .fit import lmer_of
from .formula import parse_formula
from .groups import groups_of, left_out, resampler_of, shared_names
from .jackknife import jackknife_plain, jackknife_share
from .population import Kind, chance_draws, population_draws
from .result import LmerResult
from .share_summaries import deviation_estimates, summary_estimates
from .shares import Shares, variance_components
from .stream import design_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
_FEW_LEVELS = 5
_KINDS = ("auto", "first", "generalised", "bootstrap", "none")


@dataclass(frozen=True)
class Decomposition:
    """Shares of variance. Made by :func:`dynstat.decompose`; frozen.

    Attributes
    ----------
    fit : LmerResult
        The REML fit behind the shares.
    terms : tuple of str
        In the order of the formula, ``residual`` last.
    shares : Series
        REML components over their sum: they add up to one.
    components : Series
        REML variance components.
    free_components : Series
        The same allowed below zero (the solution of the expected mean squares in balanced data).
    chance : DataFrame
        Per term the mean and 95 % quantile of the share of an outcome that is noise alone, and the
        Monte-Carlo p of the share under it.
    notes : tuple of str
        What to keep in mind: boundary, few levels.
    unit, strata : str
        What the panel's intervals draw, and within what.
    basis : Basis
        What :func:`dynstat.dstudy` starts from.
    """

    formula: str
    fit: LmerResult
    terms: tuple[str, ...]
    shares: pd.Series
    components: pd.Series
    free_components: pd.Series
    chance: pd.DataFrame
    balanced: bool
    notes: tuple[str, ...]
    unit: str
    strata: str | None
    basis: Basis
    _estimates: Mapping[str, Estimate]

    def estimates(self) -> dict[str, Estimate]:
        """Return all estimates by key.

        ``share.<term>``, ``eta2.<term>``, ``omega2.<term>``; ``icc.adjusted``, ``icc.unadjusted``,
        ``r2.marginal``, ``r2.conditional`` (what :func:`dynstat.mixed.icc` and :func:`dynstat.mixed.r2`
        define; the ICC of one factor is its share); with ``population.`` before them all but eta2 and omega2;
        and ``population.sd.<term>``, standard deviations.
        """
        return dict(self._estimates)

    def tidy(self) -> pd.DataFrame:
        """Return a row a term.

        Columns: term, levels, component, estimate (the share), conf.low, conf.high, interval (this panel),
        population.low, population.high, chance, eta2, omega2.
        """
        rows = []
        levels = {t.label: len(t.levels) for t in self.fit.design.terms}
        none = Estimate("", np.nan, np.nan, np.nan, 0.95, "", "", "", {})
        for term in self.terms:
            share = self._estimates[f"share.{term}"]
            wide = self._estimates.get(f"population.share.{term}", none)
            rows.append(
                {
                    "term": term,
                    "levels": levels.get(term, self.fit.nobs),
                    "component": self.components[term],
                    "estimate": share.value,
                    "conf.low": share.low,
                    "conf.high": share.high,
                    "interval": share.interval,
                    "population.low": wide.low,
                    "population.high": wide.high,
                    "chance": self.chance.loc[term, "mean"],
                    "eta2": self._estimates[f"eta2.{term}"].value,
                    "omega2": self._estimates.get(f"omega2.{term}", none).value,
                }
            )
        return pd.DataFrame(rows)

    def glance(self) -> pd.DataFrame:
        """Return one row: the fit's, with `balanced` and `singular`."""
        return self.fit.glance().assign(balanced=self.balanced, singular=self.fit.singular)

    def plot(self) -> Figure:
        """Draw every share with its intervals, for this panel and for a population, and its chance level.

        Returns
        -------
        matplotlib.figure.Figure
            `dynstat.plotting.save_svg` writes it; `dynstat.plotting.shares.describe_shares` gives alt text.
        """
        from ..plotting.shares import ShareRow, variance_shares

        def three(key: str) -> tuple[float, float, float] | None:
            e = self._estimates.get(key)
            return (e.value, e.low, e.high) if e else None

        rows = [
            ShareRow(
                t, three(f"share.{t}"), three(f"population.share.{t}"), float(self.chance.loc[t, "mean"])
            )
            for t in self.terms
        ]
        return variance_shares(rows, level=next(iter(self._estimates.values())).level)

    def __str__(self) -> str:
        table = self.tidy().drop(columns="interval")
        level = next(iter(self._estimates.values())).level
        lines = [
            f"Variance decomposition ({100 * level:g} % intervals)",
            f"Formula: {self.formula}",
            "",
            table.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep=""),
        ]
        return "\n".join(lines + ([""] + [f"note: {n}" for n in self.notes] if self.notes else []))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def decompose(
    formula: str,
    data: Any,
    *,
    unit: str = "prompt",
    strata: str | None = "category",
    level: float = 0.95,
    population: Kind = "auto",
    replicates: int = 2000,
    refits: int = 300,
    rng: Rng = 0,
    method: str = "variance.shares@1",
) -> Decomposition:
    """Decompose the variance of an outcome over the terms of a mixed model.

    Two targets stand side by side and are never mixed. *This panel*: what the estimator tends to as units
    grow, the other factors held; delete-group jackknife over `unit`, one of every stratum left out at a
    time. *A population*: all factors drawn anew; see :func:`dynstat.mixed.population.population_draws`.

    Parameters
    ----------
    formula : str
        Intercept terms only, e.g. ``y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category) +
        (1|model:prompt)``. Variance that fixed terms explain is outside the shares.
    data : DataFrame, Dataset, mapping of arrays, iterable of frames
        A row a run (a token, a layer). What is not a frame is read in chunks and compressed to a row for
        every combination of the columns used: memory does not grow with the rows.
    unit, strata : str
        Columns of the exchangeable unit and of the strata it is drawn in (None: no strata). One unit of every
        stratum is left out at a time; where strata differ in size, as many groups as the smallest has units.
    level : float
        Of all intervals.
    population : {"auto", "first", "generalised", "bootstrap", "none"}
        How the population's interval is made; ``first`` is the ``auto`` of variance.shares@1, which takes the
        bootstrap in unbalanced data.
    replicates, refits : int
        Draws for it and for the chance level: `replicates` where a draw is cheap, `refits` where every draw
        is a fit (the bootstrap and the chance level of unbalanced data).
    rng : Generator or int
        Recorded where it is a seed.
    method : str
        Id written into the estimates.

    Raises
    ------
    DynstatError
        S401 formula; S402 a term is confounded, with the residual for example (one sample a cell); S403
        fewer than three units in a stratum; S404 slopes, unknown columns.

    Warns
    -----
    DynstatWarning
        Singular fit; a factor with fewer than five levels; strata of unequal size; names of units that repeat
        between strata where a term reads the name alone, as ``(1|model:prompt)`` does.
    """
    if population not in _KINDS:
        raise DynstatError(
            "S404", "unknown kind of population interval", found=population, expected=" | ".join(_KINDS)
        )
    if min(replicates, refits) < 100:
        raise DynstatError(
            "S404", "too few replicates", found=min(replicates, refits), expected="at least 100"
        )
    if not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level)
    generator, seed = as_generator(rng)
    parsed = parse_formula(formula)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        design, frame = design_of(parsed, data, keep=[unit, strata])
    # What the fit warns of is said again below, from the place of the call.
    if slope := next((t for t in design.terms if not t.intercept_only), None):
        raise DynstatError(
            "S404",
            "shares are defined for intercept terms",
            where=formula,
            found=f"slopes on {slope.name}",
            expected="(1 | group)",
            mend="a slope's variance depends on where x is zero; leave it out",
        )
    labels = _outer_first([t.label for t in parsed.random])
    order = [[t.label for t in design.terms].index(name) for name in labels] + [len(labels)]
    resampler = resampler_of(design, frame, unit, strata)
    groups, uneven = groups_of(resampler, unit, strata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        fit = lmer_of(design)
    notes = _notes(design, fit, [uneven, shared_names(design, frame, unit, strata)])
    full = variance_components(design)
    left = left_out(design, resampler, groups, full)

    n = {
        "rows": design.nobs,
        **{t.label: len(t.levels) for t in design.terms},
        "units": resampler.n_units,
        "groups": len(left),
    }
    chance = chance_draws(design, full, replicates, refits, generator)
    wide = None
    if population != "none":
        wide = population_draws(design, full, population, replicates, refits, generator)
    common: dict[str, Any] = {"level": level, "method": method, "n": n}
    names = [*labels, "residual"]
    table = pd.DataFrame(
        {
            "mean": chance.mean(axis=0)[order],
            "q95": np.quantile(chance, 0.95, axis=0)[order],
            "p": ((1 + np.sum(chance >= full.share, axis=0)) / (1 + chance.shape[0]))[order],
        },
        index=names,
    )
    out: dict[str, Estimate] = {}
    for name, j in zip(names, order, strict=True):
        made = jackknife_share(
            full.share[j],
            np.array([s.share[j] for s in left]),
            full.free_share[j],
            np.array([s.free_share[j] for s in left]),
        )
        how = (
            "logit scale"
            if made.scale == "logit"
            else "raw scale, components allowed below zero, cut to [0, 1]"
        )
        out[f"share.{name}"] = Estimate.from_pivot(
            f"share.{name}",
            made.value,
            made.pivot,
            interval=f"delete-group jackknife, t({len(left) - 1}), {how}",
            unit=unit,
            target="panel",
            seed=seed,
            diagnostics={
                "scale": made.scale,
                "share_reml": float(full.share[j]),
                "share_unbounded": float(full.free_share[j]),
                "component": float(full.reml[j]),
                "singular": fit.singular,
                "converged": fit.record.converged,
                "balanced": full.strata is not None,
                "chance_mean": float(table.loc[name, "mean"]),
                "chance_q95": float(table.loc[name, "q95"]),
                "chance_p": float(table.loc[name, "p"]),
                "chance_replicates": chance.shape[0],
                "notes": "; ".join(notes),
            },
            **common,
        )
    if wide is not None:
        for name, j in zip(names, order, strict=True):
            out[f"population.share.{name}"] = Estimate.from_pivot(
                f"population.share.{name}",
                full.share[j],
                DrawsPivot(tuple(wide.draws[:, j].tolist())),
                interval=wide.interval,
                unit="all factors",
                target="population",
                seed=seed,
                diagnostics={"replicates": wide.draws.shape[0], "notes": "; ".join(notes)},
                **common,
            )
        out |= deviation_estimates(full, wide, names, order, {"seed": seed, **common})
    out |= _anova_estimates(full, left, names, order, unit, seed, common)
    out |= summary_estimates(full, left, wide, {"unit": unit, "seed": seed, **common})
    series = {
        k: pd.Series(v[order], names, name=k)
        for k, v in {"share": full.share, "component": full.reml, "unbounded": full.free}.items()
    }
    return Decomposition(
        formula,
        fit,
        tuple(names),
        series["share"],
        series["component"],
        series["unbounded"],
        table,
        full.strata is not None,
        notes,
        unit,
        strata,
        Basis.of(design, frame, parsed, full, left, wide, order),
        out,
    )


def _outer_first(labels: list[str]) -> list[str]:
    """Return the terms in the order of the formula, a before a:b."""
    out: list[str] = []
    for label in labels:
        at = next((i for i, other in enumerate(out) if other.startswith(label + ":")), len(out))
        out.insert(at, label)
    return out


def _anova_estimates(
    full: Shares,
    left: list[Shares],
    names: list[str],
    order: list[int],
    unit: str,
    seed: int | None,
    common: Mapping[str, Any],
) -> dict[str, Estimate]:
    anova = full.anova
    assert anova is not None  # asked for above
    out: dict[str, Estimate] = {}
    rest = {"unit": unit, "target": "panel", "seed": seed, **common}
    pieces = [s.anova for s in left if s.anova is not None]
    for name, j in zip(names, order, strict=True):
        for key, value, among in (
            ("eta2", anova.eta2[j], [a.eta2[j] for a in pieces]),
            (
                "omega2",
                anova.omega2[j] if name != "residual" else None,
                [a.omega2[j] for a in pieces] if name != "residual" else [],
            ),
        ):
            if value is None:
                continue
            diagnostics: dict[str, Any] = {"df": float(anova.df[j]), "ss": float(anova.ss[j]), "type": "II"}
            if key == "eta2":
                diagnostics["chance"] = float(anova.chance[j])
            if len(among) == len(left):
                out[f"{key}.{name}"] = Estimate.from_pivot(
                    f"{key}.{name}",
                    float(value),
                    jackknife_plain(float(value), np.array(among)),
                    interval=f"delete-group jackknife, t({len(left) - 1}), raw scale",
                    diagnostics=diagnostics,
                    **rest,
                )
            else:
                out[f"{key}.{name}"] = Estimate(
                    f"{key}.{name}",
                    float(value),
                    np.nan,
                    np.nan,
                    interval="none (unbalanced data)",
                    diagnostics=diagnostics,
                    **rest,
                )
    return out


def _notes(design: Design, fit: LmerResult, first: list[str]) -> tuple[str, ...]:
    few = [f"{t.label} ({len(t.levels)})" for t in design.terms if len(t.levels) < _FEW_LEVELS]
    notes = [note for note in first if note]
    if few:
        notes.append(f"fewer than {_FEW_LEVELS} levels: {', '.join(few)}; their components are known poorly")
    if fit.singular:
        notes.append(f"singular fit: {', '.join(fit.boundary_terms)} at the boundary")
    if not fit.record.converged:
        notes.append(f"the optimiser did not converge: {fit.record.message}")
    if design.dropped_columns:
        notes.append(f"fixed columns determined by others were dropped: {', '.join(design.dropped_columns)}")
    for note in notes:
        warnings.warn(note, DynstatWarning, stacklevel=3)
    return tuple(notes)
