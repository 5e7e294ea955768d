"""One variance between models a category, and the contrast of one category with the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate, TPivot
from ..inference.resample import Resampler, Rng, as_generator, monte_carlo_p
from .balanced import reml_components
from .design import build_design
from .formula import parse_formula
from .groups import groups_of
from .jackknife import jackknife_plain
from .shares import variance_components

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class CategoryVariances:
    """A variance between models for every category. Made by :func:`dynstat.category_variances`; frozen.

    Attributes
    ----------
    contrast : str
        The category that is held against the others.
    components : DataFrame
        A row a category, a column a term (the residual last): REML, every category fitted alone.
    estimate : Estimate
        ``log_ratio``: log of the contrast's variance between models over the mean of the others'.
    """

    contrast: str
    components: pd.DataFrame
    estimate: Estimate
    _variances: Mapping[str, Estimate]

    def estimates(self) -> dict[str, Estimate]:
        """Return ``log_ratio`` and ``variance.<category>``."""
        return {"log_ratio": self.estimate, **self._variances}

    def tidy(self) -> pd.DataFrame:
        """Return a row a category: category, contrast, estimate, conf.low, conf.high, share."""
        total = self.components.sum(axis=1)
        rows = []
        for name in self.components.index:
            e = self._variances[f"variance.{name}"]
            rows.append(
                {
                    "category": name,
                    "contrast": name == self.contrast,
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "share": e.value / total[name],
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> Figure:
        """Draw the variance of every category with its interval.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.precision import category_variances as draw

        return draw(self.tidy(), level=self.estimate.level)

    def __str__(self) -> str:
        e, null = self.estimate, self.estimate.null or {}
        return "\n".join(
            [
                "Variance between models a category",
                "",
                self.tidy().to_string(index=False, float_format=lambda v: f"{v:.4g}"),
                "",
                f"log ratio of {self.contrast} over the mean of the others: {e.value:.3f} "
                f"[{e.low:.3f}, {e.high:.3f}] ({e.interval})",
                f"{null['name']}: p = {null['p']:.3g} ({null['replicates']} permutations)",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def category_variances(
    frame: pd.DataFrame,
    contrast: str,
    *,
    formula: str = "y ~ 1 + (1|model) + (1|prompt) + (1|model:prompt)",
    category: str = "category",
    unit: str = "prompt",
    term: str = "model",
    permutations: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "variance.category_contrast@1",
) -> CategoryVariances:
    """Estimate the variance between models within every category, and hold one category against the others.

    log ratio = log V_contrast − log mean(V of every other category), each category fitted alone by REML.

    Interval: delete-group jackknife, one prompt of every category left out at a time, t with groups − 1
    degrees of freedom, on the log scale; where a left-out variance is 0, the error of the ratio itself over
    the ratio (delta method). Where the estimate is 0 there is none. It speaks of this panel: models are held.
    Null: category means are removed and whole prompts dealt anew to the categories, which keep their sizes;
    p = (1 + number of permutations with a log ratio at least as large)/(1 + permutations).

    Parameters
    ----------
    frame : DataFrame
        A row a run.
    contrast : str
        A level of `category`.
    formula : str
        Of one category: intercept terms, `term` among them.
    category, unit : str
        Columns. A unit lies in one category.
    term : str
        The term whose variance is compared.
    permutations : int
        At least 99.
    level : float
        Of all intervals.
    rng : Generator or int
        Of the permutations.

    Raises
    ------
    DynstatError
        S404 arguments; S403 fewer than three units in a category; S402 a category cannot be fitted alone,
        with one sample a cell for example.
    """
    if permutations < 99:
        raise DynstatError("S404", "too few permutations", found=permutations, expected="at least 99")
    rows, resampler = _rows(frame, formula, category, unit)
    names = np.unique(rows[category].astype(str))
    if contrast not in names or names.size < 2:
        raise DynstatError(
            "S404",
            f"no category is called {contrast!r}" if contrast not in names else "one category alone",
            where=category,
            found=contrast,
            expected=", ".join(names),
        )
    generator, seed = as_generator(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        fitter = _Fitter.of(rows, formula, unit, term, resampler)
        at = int(np.flatnonzero(names == contrast)[0])
        own = resampler.stratum_of
        everything = fitter.components(own[None])[0]
        groups, uneven = groups_of(resampler, unit, category)
        labels = np.tile(own, (len(groups), 1))
        for i, group in enumerate(groups):
            labels[i, group] = -1
        left = fitter.components(labels)[:, :, fitter.at]
        free = fitter.centred(own)
        dealt = np.array([own[generator.permutation(own.size)] for _ in range(permutations)])
        null = _log_ratio(free.components(dealt)[:, :, fitter.at], at)
    variances = everything[:, fitter.at]
    value = float(_log_ratio(variances[None], at)[0])
    n = {
        "rows": len(rows),
        "categories": int(names.size),
        "units": resampler.n_units,
        "groups": len(groups),
        term: int(rows[term].nunique()) if term in rows else fitter.levels,
    }
    common: dict[str, Any] = {
        "level": level,
        "method": method,
        "unit": unit,
        "n": n,
        "target": "panel",
        "seed": seed,
    }
    finite = null[np.isfinite(null)]
    diagnostics = {"permutations": permutations, "notes": uneven, "balanced": fitter.complete}
    estimate = _ratio_estimate(value, _log_ratio(left, at), common, diagnostics)
    beside = {
        "name": "whole prompts permuted between categories after removing category means",
        "p": monte_carlo_p(value, null),
        "replicates": permutations,
        "mean": float(finite.mean()) if finite.size else float("nan"),
        "sd": float(finite.std(ddof=1)) if finite.size > 1 else float("nan"),
        "q95": float(np.quantile(null, 0.95, method="higher")),
    }
    estimate = replace(estimate, null=beside)
    made = {
        f"variance.{name}": _variance_estimate(f"variance.{name}", float(variances[c]), left[:, c], common)
        for c, name in enumerate(names)
    }
    table = pd.DataFrame(everything, names, [*fitter.terms, "residual"])
    return CategoryVariances(contrast, table.rename_axis(category), estimate, made)


def _rows(frame: pd.DataFrame, formula: str, category: str, unit: str) -> tuple[pd.DataFrame, Resampler]:
    parsed = parse_formula(formula)
    for column in (category, unit):
        if column not in frame.columns:
            raise DynstatError(
                "S404",
                f"the data hold no column {column!r}",
                found=column,
                expected=", ".join(map(str, frame.columns)),
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        positions = build_design(parsed, frame).positions
    rows = frame.iloc[positions]
    if missing := int(rows[[category, unit]].isna().any(axis=1).sum()):
        raise DynstatError(
            "S404", "some rows belong to no unit or category", found=f"{missing} rows", mend="drop them"
        )
    return rows, Resampler.of(rows[unit].astype(str), rows[category].astype(str))


def _log_ratio(variances: Array, at: int) -> Array:
    """Return log V_at − log mean of the others, by row; −inf where V_at is 0."""
    others = np.delete(variances, at, axis=1).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log(variances[:, at]) - np.log(others)
    # Both zero: no evidence either way.
    return np.asarray(np.where(np.isnan(out), 0.0, out))


def _ratio_estimate(value: float, left: Array, common: Mapping[str, Any], diagnostics: Any) -> Estimate:
    g = left.size
    rest = {**common, "diagnostics": diagnostics}
    if not np.isfinite(value) or np.any(left == np.inf):
        return Estimate("log_ratio", value, np.nan, np.nan, interval="none (a variance of zero)", **rest)
    if np.isfinite(left).all():
        pivot, how = jackknife_plain(value, left), "log scale"
    else:
        ratio = float(np.exp(value))
        raw = jackknife_plain(ratio, np.exp(left))
        pivot, how = TPivot(value, raw.se / ratio, g - 1), "delta method (a left-out variance is zero)"
    return Estimate.from_pivot(
        "log_ratio", value, pivot, interval=f"delete-group jackknife, t({g - 1}), {how}", **rest
    )


def _variance_estimate(key: str, value: float, left: Array, common: Mapping[str, Any]) -> Estimate:
    g = left.size
    if value > 0 and np.all(left > 0):
        plain = jackknife_plain(float(np.log(value)), np.log(left))
        pivot, how = TPivot(plain.center, plain.se, plain.df, "log"), "log scale"
    else:
        plain = jackknife_plain(value, left)
        pivot, how = TPivot(plain.center, plain.se, plain.df, "identity", (0.0, np.inf)), "raw scale"
    return Estimate.from_pivot(
        key, value, pivot, interval=f"delete-group jackknife, t({g - 1}), {how}", **common
    )


class _Fitter:
    """REML components of every category for many ways of dealing units to categories."""

    def __init__(
        self, rows: pd.DataFrame, formula: str, term: str, terms: Sequence[str], resampler: Resampler
    ) -> None:
        self.rows, self.formula, self.term = rows, formula, term
        self.terms, self.resampler = tuple(terms), resampler
        self.at = self.terms.index(term)
        self.categories = int(resampler.stratum_of.max()) + 1
        self.levels = 0
        self.cells: Array | None = None

    @classmethod
    def of(cls, rows: pd.DataFrame, formula: str, unit: str, term: str, resampler: Resampler) -> _Fitter:
        parsed = parse_formula(formula)
        labels = [t.label for t in parsed.random]
        if term not in labels:
            raise DynstatError(
                "S404", f"the formula has no term {term}", where=formula, expected=", ".join(labels)
            )
        out = cls(rows, formula, term, labels, resampler)
        for c in range(out.categories):
            # Every category alone must be a model that can be fitted; the error names what is wrong.
            build_design(parsed, rows[resampler.stratum_of[resampler.units] == c])
        usual = labels == [term, unit, f"{term}:{unit}"] and parsed.fixed in ("1", "")
        if usual and term in rows:
            out.cells = _cells(rows, parsed.response, term, resampler)
            out.levels = int(rows[term].nunique())
        return out

    @property
    def complete(self) -> bool:
        """Whether every model meets every unit equally often: then closed forms serve."""
        return self.cells is not None

    def centred(self, own: Codes) -> _Fitter:
        """Return the same on outcomes less the mean of their category."""
        name = parse_formula(self.formula).response
        category = own[self.resampler.units]
        y = self.rows[name].to_numpy(dtype=np.float64)
        mean = np.bincount(category, y) / np.bincount(category)
        rows = self.rows.assign(**{name: y - mean[category]})
        out = _Fitter(rows, self.formula, self.term, self.terms, self.resampler)
        if self.cells is not None:
            out.cells = _cells(rows, name, self.term, self.resampler)
        return out

    def components(self, labels: Codes) -> Array:
        """Return components for every row of `labels` (the category of every unit, −1 for none).

        Shape (B, categories, terms + 1).
        """
        out = np.empty((labels.shape[0], self.categories, len(self.terms) + 1))
        for c in range(self.categories):
            if self.cells is not None:
                chosen = labels == c
                # Left-out groups may differ in size; permutations never do.
                for size in np.unique(chosen.sum(axis=1)):
                    these = np.flatnonzero(chosen.sum(axis=1) == size)
                    out[these, c] = _balanced(self.cells, chosen[these].astype(float), int(size))
            else:
                for b in range(labels.shape[0]):
                    out[b, c] = self._fit(labels[b] == c)
        return out

    def _fit(self, chosen: NDArray[np.bool_]) -> Array:
        design = build_design(parse_formula(self.formula), self.rows[chosen[self.resampler.units]])
        order = [[t.label for t in design.terms].index(name) for name in self.terms]
        return variance_components(design, with_anova=False).reml[[*order, len(order)]]


def _cells(rows: pd.DataFrame, response: str, term: str, resampler: Resampler) -> Array | None:
    """Return outcomes as models × units × samples, None where the cells differ in size."""
    model = pd.factorize(rows[term], sort=True)[0]
    m, p = int(model.max()) + 1, resampler.n_units
    cell = model * p + resampler.units
    counts = np.bincount(cell, minlength=m * p)
    if response not in rows or counts.min() != counts.max() or counts[0] < 2:
        return None
    y = rows[response].to_numpy(dtype=np.float64)
    return y[np.argsort(cell, kind="stable")].reshape(m, p, counts[0])


def _balanced(cells: Array, chosen: Array, size: int) -> Array:
    """Return REML components of model, unit, model:unit, residual for many choices of units.

    From sums of squares: in balanced data they hold all that REML needs. `chosen` has shape (B, units).
    """
    m, _, s = cells.shape
    means = cells.mean(axis=2)
    within = np.sum((cells - means[:, :, None]) ** 2, axis=(0, 2))
    # Taking the grand mean off first keeps the digits of the differences below.
    means = means - means.mean()
    unit_mean = means.mean(axis=0)
    model_mean = chosen @ means.T / size
    grand = model_mean.mean(axis=1)
    ss_model = size * s * np.sum((model_mean - grand[:, None]) ** 2, axis=1)
    ss_unit = m * s * (chosen @ unit_mean**2 - size * grand**2)
    every = s * (chosen @ np.sum(means**2, axis=0) - m * size * grand**2)
    ss_both = np.maximum(every - ss_model - ss_unit, 0.0)
    ss = np.column_stack([ss_model, np.maximum(ss_unit, 0.0), ss_both, chosen @ within])
    df = np.array([m - 1, size - 1, (m - 1) * (size - 1), m * size * (s - 1)], dtype=np.float64)
    design = np.array(
        [[size * s, 0.0, s, 1.0], [0.0, m * s, s, 1.0], [0.0, 0.0, s, 1.0], [0.0, 0.0, 0.0, 1.0]]
    )
    return reml_components(ss, df, design)
