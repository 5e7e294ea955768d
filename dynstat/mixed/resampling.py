"""Resample whole units of a fit: delete-group jackknife, bootstrap of units, product-weight bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, special

from ..errors import DynstatError
from ..inference.estimate import Estimate, TPivot
from ..inference.resample import Rng, as_generator, product_weights
from .crossproducts import cross_products
from .design import Design, Term
from .fit import is_singular, optimise
from .groups import groups_of, resampler_of
from .kenward_roger import random_solution
from .parametric_bootstrap import Bootstrap, Statistic, evaluate
from .pls import PenalisedLeastSquares

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Jackknife:
    """A delete-group jackknife of statistics of a fit.

    Attributes
    ----------
    estimate : Series
        Statistics of the whole fit, by name.
    left_out : DataFrame
        A row a group left out, a column a statistic.
    unit, note : str
        The unit, and where strata differ in size.
    n : dict
        Rows, units, groups.
    """

    estimate: pd.Series
    left_out: pd.DataFrame
    unit: str
    note: str
    n: dict[str, int]

    @property
    def df(self) -> int:
        """Degrees of freedom: groups less one."""
        return len(self.left_out) - 1

    @property
    def std_error(self) -> pd.Series:
        """√((G − 1)/G · Σ(ψ_g − ψ̄)²)."""
        g = len(self.left_out)
        return np.sqrt((g - 1) / g * ((self.left_out - self.left_out.mean()) ** 2).sum())

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Return estimate ± t(G − 1) · standard error of every statistic, and the jackknife's bias.

        Returns
        -------
        DataFrame
            Index: the statistics. Columns estimate, std.error, bias, df, conf.low, conf.high.
        """
        if not 0 < level < 1:
            raise DynstatError("S404", "level must lie between 0 and 1", found=level)
        reach = float(special.stdtrit(self.df, (1 + level) / 2)) * self.std_error
        return pd.DataFrame(
            {
                "estimate": self.estimate,
                "std.error": self.std_error,
                "bias": self.df * (self.left_out.mean() - self.estimate),
                "df": self.df,
                "conf.low": self.estimate - reach,
                "conf.high": self.estimate + reach,
            }
        )

    def estimates(
        self, level: float = 0.95, target: Literal["panel", "population", "sample"] = "panel"
    ) -> dict[str, Estimate]:
        """Return every statistic with its t pivot, for decision rules."""
        return {
            str(name): Estimate.from_pivot(
                str(name),
                float(self.estimate[name]),
                TPivot(float(self.estimate[name]), float(self.std_error[name]), self.df),
                level=level,
                method="mixed.jackknife@1",
                interval=f"delete-group jackknife, t({self.df})",
                unit=self.unit,
                n=self.n,
                target=target,
                diagnostics={"note": self.note} if self.note else {},
            )
            for name in self.estimate.index
        }

    def tidy(self, level: float = 0.95) -> pd.DataFrame:
        """Return a row a statistic: term, estimate, std.error, bias, df, conf.low, conf.high."""
        return self.confint(level).rename_axis("term").reset_index()

    def glance(self) -> pd.DataFrame:
        """Return one row: unit, groups, df, note, and the counts of `n`."""
        row = {"unit": self.unit, "groups": len(self.left_out), "df": self.df, "note": self.note}
        return pd.DataFrame([row | {f"n.{k}": v for k, v in self.n.items()}])

    def _repr_html_(self) -> str:
        return f"<p>delete-group jackknife over {escape(self.unit)}</p>{self.confint().to_html()}"

    def __str__(self) -> str:
        return f"delete-group jackknife over {self.unit}, {len(self.left_out)} groups\n" + (
            self.confint().to_string()
        )

    __repr__ = __str__


def delete_group_jackknife(
    m: LmerResult,
    statistic: Statistic | None = None,
    *,
    unit: str,
    strata: str | None = None,
    data: pd.DataFrame | None = None,
) -> Jackknife:
    """Fit again without each group of units and take the spread of any statistic of the fit.

    Parameters
    ----------
    statistic : callable, optional
        Takes a fit and returns a number, a Series, a mapping or an array; fixed effects by default.
    unit, strata : str
        Columns of the data. With strata a group is one unit of each (:meth:`Resampler.jackknife_groups`).
    data : DataFrame, optional
        The frame that was fitted, where the fit does not keep it.

    Returns
    -------
    Jackknife

    Source: Shao and Tu 1995, The Jackknife and Bootstrap, section 2.3; Wolter 2007, ch. 4.
    """
    design, frame = _rows_of(m, data)
    resampler = resampler_of(design, frame, unit, strata)
    groups, note = groups_of(resampler, unit, strata)
    fits = (lambda g=g: fit_design(design.subset(resampler.without(g)), m) for g in groups)
    estimate, left_out, failed = evaluate(m, statistic or _fixed, fits)
    if failed:
        raise DynstatError(
            "S403",
            "the model cannot be fitted without some of the units",
            where=m.formula,
            found=f"{failed} of {len(groups)} groups",
            expected="a model that each group can be missing from",
            mend="take more units, or a simpler model",
        )
    n = {"row": m.nobs, unit: resampler.n_units, "group": len(groups)}
    return Jackknife(estimate, left_out, unit, note, n)


def unit_bootstrap(
    m: LmerResult,
    statistic: Statistic | None = None,
    *,
    unit: str,
    strata: str | None = None,
    nsim: int = 1000,
    rng: Rng = None,
    data: pd.DataFrame | None = None,
) -> Bootstrap:
    """Draw whole units with replacement and fit again.

    A unit drawn twice enters as two units: levels of random terms that lie within it are doubled too, levels
    of terms that cross it are not.

    Parameters
    ----------
    statistic : callable, optional
        As in :func:`delete_group_jackknife`; fixed effects by default. Not for variance shares: with few runs
        a cell percentile limits cover the residual's share far too seldom (docs/mixed.md).
    unit, strata : str
        Columns of the data; units are drawn within strata.
    nsim : int
    rng : Generator or seed

    Returns
    -------
    Bootstrap

    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8.
    """
    if nsim < 2:
        raise DynstatError("S404", "a bootstrap needs replicates", found=nsim, expected="at least 2")
    design, frame = _rows_of(m, data)
    resampler = resampler_of(design, frame, unit, strata)
    generator, seed = as_generator(rng)
    rows = [np.flatnonzero(resampler.units == u) for u in range(resampler.n_units)]
    inside = [_within(term, resampler.units) for term in design.terms]

    def fits() -> Iterator[Callable[[], LmerResult]]:
        for counts in resampler.weights(nsim, generator):
            drawn = np.repeat(np.arange(resampler.n_units), counts)
            taken = np.concatenate([rows[u] for u in drawn])
            copies = np.repeat(np.arange(drawn.size), [rows[u].size for u in drawn])
            yield partial(_fit_copied, m, design, taken, copies, inside)

    estimate, draws, failed = evaluate(m, statistic or _fixed, fits())
    how = f"bootstrap of whole units of {unit}" + (f" within {strata}" if strata else "")
    return Bootstrap(estimate, draws, how, seed, failed)


def product_weight_bootstrap(
    m: LmerResult,
    factors: Sequence[str],
    *,
    nsim: int = 1000,
    rng: Rng = None,
    weights: str = "exponential",
    data: pd.DataFrame | None = None,
) -> Bootstrap:
    """Reweight the fixed effects by a weight a level of every crossed factor (Owen and Eckles).

    With X̃ = V̂⁻¹X, replicate w solves X̃'W(y − Xβ) = 0, W the products of the levels' weights; W = I gives
    the fit's own fixed effects. It asks nothing of the variance of y but the crossing, so that it checks
    model-based errors. A little conservative: noise of single rows counts up to 2ʳ − 1 times with r factors.

    Parameters
    ----------
    factors : sequence of str
        Columns of the data that cross, for example model and prompt.
    nsim : int
    rng : Generator or seed
    weights : {"exponential", "poisson", "double"}
        See :func:`dynstat.inference.resample.product_weights`.

    Returns
    -------
    Bootstrap

    Source: Owen and Eckles 2012, Ann. Appl. Stat. 6: 895-927.
    """
    if nsim < 2:
        raise DynstatError("S404", "a bootstrap needs replicates", found=nsim, expected="at least 2")
    names = [factors] if isinstance(factors, str) else list(factors)
    design, frame = _rows_of(m, data)
    for name in names:
        resampler_of(design, frame, name, None)
    labels = [frame.iloc[design.positions][name].astype(str).to_numpy() for name in names]
    generator, seed = as_generator(rng)
    turned = random_solution(m)
    terms = [str(n) for n in m.fixef.index]
    draws = np.empty((nsim, len(terms)))
    failed = []
    for b, w in enumerate(product_weights(labels, nsim, generator, weights)):
        left = turned * w[:, None]
        try:
            draws[b] = linalg.solve(left.T @ design.x, left.T @ design.y)
        except linalg.LinAlgError:
            failed.append(b)
    kept = np.delete(draws, failed, axis=0)
    how = f"product-weight bootstrap ({weights}) over {' x '.join(names)}"
    return Bootstrap(m.fixef.astype(float), pd.DataFrame(kept, columns=terms), how, seed, len(failed))


def fit_design(design: Design, like: LmerResult) -> LmerResult:
    """Fit a design as another fit was, starting from its optimum."""
    from .result import LmerResult

    pls = PenalisedLeastSquares(cross_products(design), design.terms, like.reml)
    start = like.theta.to_numpy(dtype=float)
    theta, record = optimise(pls, np.where(pls.diagonal, np.maximum(start, 0.05), start))
    return LmerResult.build(design, pls, theta, pls.solve(theta), record, is_singular(pls, theta))


def _fixed(m: LmerResult) -> Any:
    return m.fixef


def _rows_of(m: LmerResult, data: pd.DataFrame | None) -> tuple[Design, pd.DataFrame]:
    frame = m.design.data if data is None else data
    if m.design.cross is not None or frame is None:
        raise DynstatError(
            "S404",
            "resampling units needs the rows of the fit",
            where=m.formula,
            mend="fit a frame, or give it as data=",
        )
    return m.design, frame


def _within(term: Term, units: NDArray[np.intp]) -> bool:
    """Say whether every level of a term lies in one unit."""
    first = np.zeros(len(term.levels), dtype=np.intp)
    first[term.codes] = units
    return bool(np.array_equal(first[term.codes], units))


def _fit_copied(
    m: LmerResult, design: Design, rows: NDArray[np.intp], copies: NDArray[np.intp], inside: Sequence[bool]
) -> LmerResult:
    return fit_design(_copied(design, rows, copies, inside), m)


def _copied(
    design: Design, rows: NDArray[np.intp], copies: NDArray[np.intp], inside: Sequence[bool]
) -> Design:
    """Return the design of rows drawn with repetition, every copy of a unit with levels of its own."""
    out = design.subset(rows)
    terms = []
    for term, old, own in zip(out.terms, design.terms, inside, strict=True):
        if not own:
            terms.append(term)
            continue
        joint = copies.astype(np.int64) * len(old.levels) + old.codes[rows]
        values, codes = np.unique(joint, return_inverse=True)
        labels = tuple(f"{old.levels[v % len(old.levels)]}#{v // len(old.levels)}" for v in values)
        terms.append(replace(term, codes=codes.astype(np.intp), levels=labels))
    return replace(out, terms=tuple(terms))
