"""Hazard regression in discrete time: what makes a stay end, with errors of the named unit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate, TPivot
from .spells import Spells, find_spells

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from .sequences import Sequences

Floats = NDArray[np.float64]
LINKS = ("logit", "cloglog")
OUTCOMES = ("reopened", "end_of_text")


@dataclass(frozen=True)
class HazardModel:
    """Coefficients of a discrete hazard. Made by :func:`discrete_hazard`; frozen.

    Attributes
    ----------
    formula, outcome, link, unit : str
    coefficients : Series
        On the scale of the link.
    covariance : DataFrame
        Robust, of the units, corrected for their number.
    df : float
        Units − 1, of every t.
    """

    formula: str
    outcome: str
    link: str
    unit: str
    coefficients: pd.Series
    covariance: pd.DataFrame
    df: float
    level: float
    deviance: float
    n: dict[str, int]
    method: str = field(repr=False)

    def estimates(self) -> dict[str, Estimate]:
        """Return an estimate a coefficient, on the scale of the link."""
        se = np.sqrt(np.diag(self.covariance.to_numpy()))
        return {
            str(name): Estimate.from_pivot(
                str(name),
                float(value),
                TPivot(float(value), float(se[i]), self.df),
                level=self.level,
                method=self.method,
                interval=f"Mancl-DeRouen sandwich of {self.unit}, t({self.df:g})",
                unit=self.unit,
                n=self.n,
                target="panel",
            )
            for i, (name, value) in enumerate(self.coefficients.items())
        }

    def tidy(self, *, exponentiate: bool = True) -> pd.DataFrame:
        """Return a row a term: term, estimate, std.error, statistic, df, p.value, conf.low, conf.high.

        Parameters
        ----------
        exponentiate : bool
            Odds ratios (logit) or hazard ratios (cloglog); std.error stays on the scale of the link.
        """
        b, se = self.coefficients.to_numpy(), np.sqrt(np.diag(self.covariance.to_numpy()))
        q = special.stdtrit(self.df, 0.5 + self.level / 2)
        t = b / se
        g: Any = np.exp if exponentiate else np.asarray
        return pd.DataFrame(
            {
                "term": self.coefficients.index,
                "estimate": g(b),
                "std.error": se,
                "statistic": t,
                "df": self.df,
                "p.value": 2 * special.stdtr(self.df, -np.abs(t)),
                "conf.low": g(b - q * se),
                "conf.high": g(b + q * se),
            }
        )

    def glance(self) -> pd.DataFrame:
        """Return one row: outcome, link, periods, spells, events, units, df, deviance."""
        row = {"outcome": self.outcome, "link": self.link, **self.n}
        return pd.DataFrame([row | {"df": self.df, "deviance": self.deviance}])

    def plot(self) -> Figure:
        """Draw the ratios of all terms but the intercept, with their intervals.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.cycles import hazard_ratios

        return hazard_ratios(self)

    def alt_text(self) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        rows = self.tidy().itertuples()
        terms = [f"{r[1]} {r[2]:.2f} ({r[7]:.2f} to {r[8]:.2f})" for r in rows if r[1] != "Intercept"]
        return f"Forest plot of {self._ratio} for {self.outcome}: {'; '.join(terms)}."

    @property
    def _ratio(self) -> str:
        return "odds ratios" if self.link == "logit" else "hazard ratios"

    def __str__(self) -> str:
        n = self.n
        return "\n".join(
            [
                f"Discrete hazard of {self.outcome} ({self.link}): {self.formula}",
                f"{n['periods']} periods of {n['spells']} spells, {n['events']} events, "
                f"{n['units']} units of {self.unit}",
                "",
                self.tidy().to_string(index=False, float_format=lambda v: f"{v:.4g}"),
                "",
                f"{self._ratio} with {100 * self.level:g} % intervals; Mancl-DeRouen sandwich of "
                f"{self.unit}, t({self.df:g})",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def discrete_hazard(
    data: xr.Dataset | Sequences | Spells,
    codes: xr.DataArray | None = None,
    *,
    formula: str = "log(duration)",
    outcome: str = "reopened",
    link: str = "logit",
    state: str | None = None,
    unit: str = "prompt",
    level: float = 0.95,
    method: str = "markov.discrete_hazard@1",
) -> HazardModel:
    """Regress the chance that a stay ends at a step on its duration and on covariates.

    ``g(h(d, x)) = β'x(d)`` over person-period data: a row a stay and step at risk. A cause-specific hazard:
    the other end removes the stay from risk. Errors: sandwich of the scores of units, corrected as Mancl and
    DeRouen do (``(I − H_uu)⁻¹`` before the scores), t with units − 1 degrees of freedom.

    Parameters
    ----------
    data, codes, state
        As :func:`dynstat.markov.reopening`; covariates at entry come in through
        :func:`dynstat.markov.find_spells`.
    formula : str
        Right side, in the labels of runs, values at entry and ``duration``: ``"log(duration) + model"``,
        ``"C(duration) + category"``.
    outcome : {"reopened", "end_of_text"}
    link : {"logit", "cloglog"}
        Odds ratios, or the hazard ratios of a proportional hazards model in grouped time.
    unit : str
        Label of the clusters.
    level : float

    Returns
    -------
    HazardModel

    Raises
    ------
    DynstatError
        S403 fewer than three units; S402 no event, every period an event, or terms that cannot be told apart;
        S401 a formula that cannot be read; S404 arguments; S406, S407 as :func:`dynstat.markov.find_spells`.

    Notes
    -----
    Fitted by statsmodels (GLM, binomial). Source: Allison 1982, Sociol. Methodol. 13: 61-98; Mancl and
    DeRouen 2001, Biometrics 57: 126-134.
    """
    if outcome not in OUTCOMES or link not in LINKS:
        raise DynstatError(
            "S404",
            "unknown outcome or link",
            found=f"{outcome}, {link}",
            expected=f"{' | '.join(OUTCOMES)}; {' | '.join(LINKS)}",
        )
    if not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level)
    spells = data if isinstance(data, Spells) else find_spells(data, codes, state=state)
    unit_codes, units, _ = spells.codes(unit)
    rows = spells.periods()
    if rows.empty:
        raise DynstatError("S402", "no stay is at risk for a step", found=str(spells))
    cluster = unit_codes[rows["spell"].to_numpy()]
    present = int(np.unique(cluster).size)
    if present < 3:
        raise DynstatError("S403", "too few units", where=unit, found=present, expected="at least 3")
    x = _design(formula, rows)
    y = rows[outcome].to_numpy(dtype=np.float64)
    _check_fit(x, y, outcome, formula)
    beta, deviance = _fit(x.to_numpy(dtype=np.float64), y, link, formula)
    covariance = mancl_derouen(x.to_numpy(dtype=np.float64), y, beta, cluster, link)
    n = {"periods": len(rows), "spells": len(spells), "events": int(y.sum()), "units": present}
    if n["events"] < 10 * x.shape[1]:
        warnings.warn(
            f"{n['events']} events of {outcome} for {x.shape[1]} coefficients: read with care",
            DynstatWarning,
            stacklevel=2,
        )
    names = list(map(str, x.columns))
    return HazardModel(
        formula,
        outcome,
        link,
        unit,
        pd.Series(beta, names),
        pd.DataFrame(covariance, names, names),
        float(present - 1),
        level,
        deviance,
        n,
        method,
    )


def mancl_derouen(x: Floats, y: Floats, beta: Floats, cluster: NDArray[np.intp], link: str) -> Floats:
    """Return the robust covariance of binomial coefficients with working independence.

    ``A (Σ_u s_u s_u') A``, ``s_u = (I − M_u A)⁻¹ U_u``: U_u the score of unit u, M_u its information, A the
    inverse of their sum. By the identity of Woodbury this is ``D'V⁻¹(I − H_uu)⁻¹r`` without matrices of the
    unit's size.

    Parameters
    ----------
    x : ndarray, shape (n, p)
    y : ndarray, shape (n,)
    beta : ndarray, shape (p,)
    cluster : ndarray of int, shape (n,)
    link : {"logit", "cloglog"}
    """
    eta = x @ beta
    if link == "logit":
        mu = special.expit(eta)
        slope = mu * (1 - mu)
    else:
        mu = -np.expm1(-np.exp(eta))
        slope = np.exp(eta - np.exp(eta))
    variance = np.clip(mu * (1 - mu), 1e-300, None)
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(cluster[order]) != 0])
    p = x.shape[1]
    scores = np.add.reduceat((x * (slope * (y - mu) / variance)[:, None])[order], starts, axis=0)
    rows, weighted = x[order], (x * (slope**2 / variance)[:, None])[order]
    information = np.array(
        [weighted[i:j].T @ rows[i:j] for i, j in zip(starts, [*starts[1:], len(y)], strict=True)]
    )
    a = np.linalg.inv(information.sum(axis=0))
    corrected = np.linalg.solve(np.eye(p) - information @ a, scores[..., None])[..., 0]
    out: Floats = a @ (corrected.T @ corrected) @ a
    return out


def _design(formula: str, rows: pd.DataFrame) -> pd.DataFrame:
    import formulaic

    if "~" in formula:
        raise DynstatError(
            "S401", "the formula is a right side alone", found=formula, mend="leave out what stands before ~"
        )
    try:
        out = formulaic.model_matrix(formula, rows, na_action="raise")
    except Exception as error:
        raise DynstatError(
            "S401",
            "the formula cannot be read on these data",
            where=formula,
            found=" ".join(str(error).split())[:200],
            expected=f"columns {', '.join(map(str, rows.columns))}",
        ) from error
    return pd.DataFrame(out)


def _check_fit(x: pd.DataFrame, y: Floats, outcome: str, formula: str) -> None:
    events = int(y.sum())
    if events in (0, y.size):
        raise DynstatError(
            "S402", f"every period has the same outcome for {outcome}", found=f"{events} of {y.size} periods"
        )
    if np.linalg.matrix_rank(x.to_numpy(dtype=np.float64)) < x.shape[1]:
        raise DynstatError(
            "S402",
            "terms cannot be told apart",
            where=formula,
            found=", ".join(map(str, x.columns)),
            mend="drop a term, or levels that repeat another",
        )


def _fit(x: Floats, y: Floats, link: str, formula: str) -> tuple[Floats, float]:
    import statsmodels.api as sm

    links = {"logit": sm.families.links.Logit, "cloglog": sm.families.links.CLogLog}
    # Equal rows weigh as one, which makes a pooled hazard by duration as cheap as its table.
    unique, inverse = np.unique(x, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    trials = np.bincount(inverse).astype(np.float64)
    events = np.bincount(inverse, weights=y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sm.GLM(
            np.column_stack([events, trials - events]), unique, family=sm.families.Binomial(links[link]())
        )
        fit = model.fit(maxiter=100, tol=1e-12, tol_criterion="params")
    beta = np.asarray(fit.params, dtype=np.float64)
    mu = special.expit(unique @ beta) if link == "logit" else -np.expm1(-np.exp(unique @ beta))
    if not fit.converged or not np.isfinite(beta).all() or np.minimum(mu, 1 - mu).min() < 1e-8:
        raise DynstatError(
            "S402",
            "the fit runs off: a term foretells the outcome without fail",
            where=formula,
            mend="pool durations or levels without events",
        )
    mu = mu[inverse]
    deviance = -2.0 * float((special.xlogy(y, mu) + special.xlogy(1 - y, 1 - mu)).sum())
    return beta, deviance
