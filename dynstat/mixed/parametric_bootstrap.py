"""Parametric bootstrap of a mixed model: parameters, or any function of a fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError, DynstatWarning
from ..inference.resample import Rng, as_generator
from .intervals import parameter_table, spread

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
    outcomes = simulate(m, nsim, generator).to_numpy()
    how = "parametric bootstrap, outcomes redrawn from the fit"
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


def evaluate(m: LmerResult, statistic: Statistic, fits: Any) -> tuple[pd.Series, pd.DataFrame, int]:
    """Return a statistic of the fit, of all refits that succeed, and the number of those that fail."""
    estimate = named(statistic(m))
    rows, failed, total = [], 0, 0
    with warnings.catch_warnings():
        # Replicates at the boundary are no news.
        warnings.simplefilter("ignore", DynstatWarning)
        for fit in fits:
            total += 1
            try:
                rows.append(named(statistic(fit())).reindex(estimate.index))
            except DynstatError:
                failed += 1
    if not rows:
        raise DynstatError("S403", "no replicate could be fitted", where=m.formula, found=f"{total} failures")
    _warn_failed(failed, total)
    return estimate, pd.DataFrame(rows).reset_index(drop=True), failed


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
