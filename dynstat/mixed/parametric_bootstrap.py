"""Parametric bootstrap of a mixed model: parameters, or any function of a fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError, DynstatWarning
from ..inference.resample import Rng, as_generator
from ..parallel import each
from .crossproducts import with_response
from .fit import optimise
from .intervals import parameter_table, spread
from .pls import PenalisedLeastSquares

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
Statistic = Callable[["LmerResult"], Any]
LIMITS = ("perc", "basic", "norm")


@dataclass(frozen=True)
class Bootstrap:
    """Draws of statistics of a fit.

    Attributes
    ----------
    estimate : Series
        The statistics of the fit itself, by name.
    draws : DataFrame
        A row a replicate, a column a statistic.
    how : str
        How outcomes or rows were redrawn, in words.
    seed : int or None
        None for a generator made elsewhere.
    failed : int
        Replicates that could not be fitted, left out of `draws`.
    """

    estimate: pd.Series
    draws: pd.DataFrame
    how: str
    seed: int | None
    failed: int = 0

    def confint(self, level: float = 0.95, kind: str = "perc") -> pd.DataFrame:
        """Return intervals of every statistic.

        Parameters
        ----------
        kind : {"perc", "basic", "norm"}
            Quantiles of the draws at (B + 1)α; the same reflected about the estimate; normal with the draws'
            standard deviation, less their bias.

        Returns
        -------
        DataFrame
            Index: the statistics. Columns estimate, std.error, bias, conf.low, conf.high.
        """
        if not 0 < level < 1:
            raise DynstatError("S404", "level must lie between 0 and 1", found=level)
        if kind not in LIMITS:
            raise DynstatError("S404", "unknown limits", found=kind, expected=" | ".join(LIMITS))
        out = {}
        for name in self.draws.columns:
            values, centre = self.draws[name].to_numpy(dtype=float), float(self.estimate[name])
            # A correlation has no value in replicates with a zero deviation.
            values = values[np.isfinite(values)]
            error, bias = np.nan, np.nan
            low = high = np.nan
            if values.size > 1:
                error, bias = float(values.std(ddof=1)), float(values.mean() - centre)
                tail = (1 - level) / 2
                low, high = np.quantile(values, [tail, 1 - tail], method="weibull")
                if kind == "basic":
                    low, high = 2 * centre - high, 2 * centre - low
                elif kind == "norm":
                    reach = float(special.ndtri(1 - tail)) * error
                    low, high = centre - bias - reach, centre - bias + reach
            out[name] = {
                "estimate": centre,
                "std.error": error,
                "bias": bias,
                "conf.low": float(low),
                "conf.high": float(high),
            }
        return pd.DataFrame.from_dict(out, orient="index")

    def tidy(self, level: float = 0.95, kind: str = "perc") -> pd.DataFrame:
        """Return a row a statistic: term, estimate, std.error, bias, conf.low, conf.high."""
        return self.confint(level, kind).rename_axis("term").reset_index()

    def glance(self) -> pd.DataFrame:
        """Return one row: nsim, failed, seed, how."""
        row = {"nsim": len(self.draws), "failed": self.failed, "seed": self.seed, "how": self.how}
        return pd.DataFrame([row])

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.how)}</p>{self.confint().to_html()}"

    def __str__(self) -> str:
        table = self.confint()
        return f"{self.how}; {len(self.draws)} replicates, seed {self.seed}\n{table.to_string()}"

    __repr__ = __str__


def bootstrap(
    m: LmerResult, statistic: Statistic | None = None, *, nsim: int = 1000, rng: Rng = None
) -> Bootstrap:
    """Redraw outcomes from the fit and fit them again (R's ``bootMer``).

    Parameters
    ----------
    statistic : callable, optional
        Takes a fit and returns a number, a Series, a mapping or an array. By default all standard deviations,
        correlations and fixed effects, for which all replicates are fitted in one batch.
    nsim : int
        Replicates, at least 2.
    rng : Generator or seed
        Recorded.

    Returns
    -------
    Bootstrap

    Warns
    -----
    DynstatWarning
        Where replicates could not be fitted.
    """
    from .simulation import simulate

    if nsim < 2:
        raise DynstatError("S404", "a bootstrap needs replicates", found=nsim, expected="at least 2")
    generator, seed = as_generator(rng)
    how = "parametric bootstrap, outcomes redrawn from the fit"
    if statistic is None and _summed(m):
        return Bootstrap(
            parameter_table(m)["estimate"].astype(float), _from_cells(m, nsim, generator), how, seed
        )
    outcomes = simulate(m, nsim, generator).to_numpy()
    if statistic is not None:
        from .refitting import refit

        fits = (lambda b=b: refit(m, outcomes[:, b]) for b in range(nsim))
        estimate, draws, failed = evaluate(m, statistic, fits)
        return Bootstrap(estimate, draws, how, seed, failed)
    estimate, draws = refitted(m, outcomes)
    good = np.isfinite(draws["sigma"].to_numpy())
    failed = int((~good).sum())
    _warn_failed(failed, nsim)
    return Bootstrap(estimate, draws.loc[good].reset_index(drop=True), how, seed, failed)


def refitted(m: LmerResult, outcomes: Array) -> tuple[pd.Series, pd.DataFrame]:
    """Fit the model to every column of `outcomes`; return its own parameters and theirs by R's names."""
    from .batched import fit_many

    many = fit_many(m.design, outcomes, m.reml)
    table = parameter_table(m)
    sigma = np.where(many.converged | np.isfinite(many.criterion), many.sigma, np.nan)
    values = np.column_stack([spread(m.pls, many.theta, sigma), many.beta])
    return table["estimate"].astype(float), pd.DataFrame(values, columns=list(table.index))


def _summed(m: LmerResult) -> bool:
    cells = m.design.cells
    return m.design.cross is None and cells is not None and bool(np.any(cells.counts != 1))


def _from_cells(m: LmerResult, nsim: int, generator: np.random.Generator) -> pd.DataFrame:
    """Redraw the means of cells and the sum of squares within them, and fit each draw.

    A mean of weight w has noise σ²/w, the sum within is σ²χ² with an observation a cell less.
    """
    design, cells = m.design, m.design.cells
    assert cells is not None
    theta = m.theta.to_numpy(dtype=float)
    start = np.where(m.pls.diagonal, np.maximum(theta, 0.05), theta)
    table = parameter_table(m)
    out = np.empty((nsim, len(table)))
    for b in range(nsim):
        y = design.x @ m.solution.beta + m.sigma * generator.standard_normal(design.n) / cells.root
        for t, term in enumerate(design.terms):
            drawn = generator.standard_normal((len(term.levels), term.width))
            effects = (m.sigma * drawn @ m.pls.template(theta, t).T)[term.codes]
            y += effects[:, 0] if term.values is None else np.sum(effects * term.values, axis=1)
        spare = design.nobs - design.n
        within = m.sigma**2 * generator.chisquare(spare) if spare else 0.0
        pls = PenalisedLeastSquares(with_response(m.pls.cross, design, y, within), design.terms, m.reml)
        at = optimise(pls, start, polish=False)[0]
        solution = pls.solve(at)
        out[b] = [*spread(pls, at[None, :], np.sqrt([solution.sigma2]))[0], *solution.beta]
    return pd.DataFrame(out, columns=list(table.index))


def evaluate(m: LmerResult, statistic: Statistic, fits: Any) -> tuple[pd.Series, pd.DataFrame, int]:
    """Return a statistic of the fit, of all refits that succeed, and the number of those that fail."""
    estimate = named(statistic(m))
    found = list(each(_replicate, ((statistic, fit) for fit in fits)))
    rows = [row.reindex(estimate.index) for row in found if row is not None]
    total, failed = len(found), len(found) - len(rows)
    if not rows:
        raise DynstatError("S403", "no replicate could be fitted", where=m.formula, found=f"{total} failures")
    _warn_failed(failed, total)
    return estimate, pd.DataFrame(rows).reset_index(drop=True), failed


def _replicate(task: tuple[Statistic, Any]) -> pd.Series | None:
    statistic, fit = task
    with warnings.catch_warnings():
        # Replicates at the boundary are no news.
        warnings.simplefilter("ignore", DynstatWarning)
        try:
            return named(statistic(fit()))
        except DynstatError:
            return None


def named(value: Any) -> pd.Series:
    """Return what a statistic gave as a Series of numbers."""
    if isinstance(value, pd.Series):
        return value.astype(float).set_axis([str(i) for i in value.index])
    if isinstance(value, Mapping):
        return pd.Series({str(k): float(v) for k, v in value.items()})
    numbers = np.atleast_1d(np.asarray(value, dtype=np.float64)).ravel()
    names = ["statistic"] if numbers.size == 1 else [f"statistic.{i + 1}" for i in range(numbers.size)]
    return pd.Series(numbers, names)


def _warn_failed(failed: int, total: int) -> None:
    if failed:
        warnings.warn(
            f"{failed} of {total} replicates could not be fitted and are left out",
            DynstatWarning,
            stacklevel=3,
        )
