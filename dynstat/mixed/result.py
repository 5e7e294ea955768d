"""LmerResult: a fitted linear mixed model, in R's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .design import Design, Term
from .pls import PenalisedLeastSquares, Solution

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from ..inference.estimate import Estimate
    from ..inference.resample import Rng
    from .contrasts import Contrast
    from .fit import FitRecord
    from .parametric_bootstrap import Bootstrap, Statistic
    from .profiling import Profile
    from .resampling import Jackknife

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LmerResult:
    """A fitted linear mixed model. Made by :func:`dynstat.lmer`; frozen.

    Attributes
    ----------
    formula : str
    reml : bool
    nobs : int
    fixef : Series
        Fixed effects by term, named as R names them.
    vcov : DataFrame
        Their covariance.
    sigma : float
        Residual standard deviation.
    theta : Series
        Relative covariance parameters in lme4's names and order.
    criterion : float
        The REML criterion, or the deviance (−2 log-likelihood) of an ML fit.
    varcorr : DataFrame
        Columns grp, var1, var2, vcov, sdcor, as R's ``as.data.frame(VarCorr(m))``.
    fitted, residuals : Series
        Conditional on the random effects, by row label.
    singular : bool
        Whether a variance is zero or a correlation ±1.
    boundary_terms : tuple of str
        The terms where that is so.
    record : FitRecord
        How the optimum was found.
    design : Design
        What was read from the data, names of dropped columns and the number of dropped rows among it.
    solution : Solution
        Estimates and modes as arrays.
    pls : PenalisedLeastSquares
        The criterion on the fit's cross-products, from which tests and intervals are computed.
    """

    formula: str
    reml: bool
    nobs: int
    fixef: pd.Series
    vcov: pd.DataFrame
    sigma: float
    theta: pd.Series
    criterion: float
    varcorr: pd.DataFrame
    fitted: pd.Series
    residuals: pd.Series
    singular: bool
    boundary_terms: tuple[str, ...]
    record: FitRecord
    design: Design
    solution: Solution
    pls: PenalisedLeastSquares

    @classmethod
    def build(
        cls,
        design: Design,
        pls: PenalisedLeastSquares,
        theta: Array,
        solution: Solution,
        record: FitRecord,
        singular: bool,
    ) -> LmerResult:
        """Name the numbers of a solution."""
        from .fit import SINGULAR_TOLERANCE

        names = list(design.x_names)
        shift = np.zeros(design.n)
        for term, effects in zip(design.terms, solution.effects, strict=True):
            per_row = effects[term.codes]
            shift += per_row[:, 0] if term.values is None else np.sum(per_row * term.values, axis=1)
        fitted = design.x @ solution.beta + shift
        boundary = tuple(
            _shown(term)
            for t, term in enumerate(design.terms)
            if np.any(np.diag(pls.template(theta, t)) < SINGULAR_TOLERANCE)
        )
        return cls(
            formula=design.formula.text,
            reml=pls.reml,
            nobs=design.nobs,
            fixef=pd.Series(solution.beta, names, name="fixef", dtype=float),
            vcov=pd.DataFrame(solution.vcov, names, names),
            sigma=float(np.sqrt(solution.sigma2)),
            theta=pd.Series(theta, theta_names(design.terms), name="theta"),
            criterion=solution.criterion,
            varcorr=_varcorr(design.terms, pls, theta, solution.sigma2),
            fitted=pd.Series(fitted, design.index, name=".fitted"),
            residuals=pd.Series(design.y - fitted, design.index, name=".resid"),
            singular=singular,
            boundary_terms=boundary,
            record=record,
            design=design,
            solution=solution,
            pls=pls,
        )

    @property
    def scaled_residuals(self) -> pd.Series:
        """Residuals over their standard deviation, R's ``residuals(m, "pearson", scaled = TRUE)``."""
        cells = self.design.cells
        root = 1.0 if cells is None else cells.root
        return (self.residuals * root / self.sigma).rename(".scaled")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was warned of: rows and columns left out, boundaries, an optimiser that did not end."""
        out = list(self.design.notes)
        if self.singular:
            out.append(f"singular fit: {', '.join(self.boundary_terms)} at the boundary")
        if not self.record.converged:
            out.append(f"the optimiser did not converge: {self.record.message}")
        return tuple(out)

    @property
    def npar(self) -> int:
        """Number of parameters: fixed effects, theta, residual variance."""
        return len(self.fixef) + len(self.theta) + 1

    @property
    def loglik(self) -> float:
        """Log-likelihood; the restricted one of a REML fit."""
        return -self.criterion / 2

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return self.criterion + 2 * self.npar

    @property
    def bic(self) -> float:
        """Schwarz' criterion with the number of rows."""
        return self.criterion + float(np.log(self.nobs)) * self.npar

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels by grouping factor."""
        return {t.name: len(t.levels) for t in self.design.terms}

    def ranef(self, condvar: bool = True) -> pd.DataFrame:
        """Return the conditional modes, a row a level and column.

        Columns grpvar, term, grp, condval, and condsd (their conditional standard deviation given theta)
        unless `condvar` is false, as R's ``as.data.frame(ranef(m))``.
        """
        pieces = []
        order = list(dict.fromkeys(t.name for t in self.design.terms))
        at = sorted(range(len(self.design.terms)), key=lambda t: order.index(self.design.terms[t].name))
        for t in at:
            term, modes, cov = self.design.terms[t], self.solution.effects[t], self.solution.covariances[t]
            for c, column in enumerate(term.columns):
                piece = {
                    "grpvar": term.name,
                    "term": column,
                    "grp": list(term.levels),
                    "condval": modes[:, c],
                }
                if condvar:
                    piece["condsd"] = np.sqrt(np.maximum(cov[:, c, c], 0))
                pieces.append(pd.DataFrame(piece))
        return pd.concat(pieces, ignore_index=True)

    def predict(
        self, newdata: pd.DataFrame | None = None, re: str = "all", allow_new_levels: bool = False
    ) -> pd.Series:
        """Predict; see :func:`dynstat.mixed.predict`."""
        from .prediction import predict

        return predict(self, newdata, re, allow_new_levels)

    def simulate(self, n: int = 1, rng: Rng = None, re: str = "none") -> pd.DataFrame:
        """Draw outcomes; see :func:`dynstat.mixed.simulate`."""
        from .simulation import simulate

        return simulate(self, n, rng, re)

    def refit(self, y: ArrayLike | pd.Series) -> LmerResult:
        """Fit another outcome; see :func:`dynstat.mixed.refit`."""
        from .refitting import refit

        return refit(self, y)

    def update(
        self,
        formula: str | None = None,
        data: pd.DataFrame | None = None,
        REML: bool | None = None,
        weights: str | ArrayLike | None = None,
    ) -> LmerResult:
        """Fit another formula, data or criterion; see :func:`dynstat.mixed.update`."""
        from .refitting import update

        return update(self, formula, data, REML, weights)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        conf_int: bool = False,
        conf_level: float = 0.95,
        conf_method: str = "Wald",
        ddf: str | None = None,
    ) -> pd.DataFrame:
        """Return a row a term in broom.mixed's columns; see :func:`dynstat.mixed.broom.tidy`."""
        from .broom import tidy

        return tidy(self, effects, conf_int=conf_int, conf_level=conf_level, conf_method=conf_method, ddf=ddf)

    def confint(
        self,
        parameters: Sequence[str] | str | None = None,
        *,
        method: str = "auto",
        level: float = 0.95,
        **options: Any,
    ) -> pd.DataFrame:
        """Return intervals by mean squares, profile, Wald or bootstrap; see :func:`dynstat.confint`."""
        from .intervals import confint

        return confint(self, parameters, method=method, level=level, **options)

    def profile(self, parameters: Sequence[str] | str | None = None) -> Profile:
        """Profile the deviance; see :func:`dynstat.profile`."""
        from .profiling import profile

        return profile(self, parameters)

    def anova(
        self, *others: LmerResult, type: str | int = "III", ddf: str | None = None, **options: Any
    ) -> pd.DataFrame:
        """Test the terms of the fixed part, or compare with other fits; see :func:`dynstat.anova`."""
        from .lmer_anova import anova

        return anova(self, *others, type=type, ddf=ddf, **options)

    def ranova(self, *, reduce_terms: bool = True, nsim: int = 1000, rng: Rng = None) -> pd.DataFrame:
        """Test every random term; see :func:`dynstat.ranova`."""
        from .comparison import ranova

        return ranova(self, reduce_terms=reduce_terms, nsim=nsim, rng=rng)

    def contest(
        self,
        contrasts: Contrast,
        *,
        rhs: ArrayLike = 0.0,
        joint: bool = True,
        ddf: str | None = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Test linear contrasts of the fixed effects; see :func:`dynstat.contest`."""
        from .contrasts import contest

        return contest(self, contrasts, rhs=rhs, joint=joint, ddf=ddf, level=level)

    def equivalence(
        self, contrast: ArrayLike | Mapping[str, float], low: float, high: float, **options: Any
    ) -> Estimate:
        """Test whether a contrast lies between two bounds; see :func:`dynstat.equivalence`."""
        from .contrasts import equivalence

        return equivalence(self, contrast, low, high, **options)

    def bootstrap(
        self, statistic: Statistic | None = None, *, nsim: int = 1000, rng: Rng = None
    ) -> Bootstrap:
        """Redraw outcomes from the fit and fit them again; see :func:`dynstat.bootstrap`."""
        from .parametric_bootstrap import bootstrap

        return bootstrap(self, statistic, nsim=nsim, rng=rng)

    def jackknife(
        self, statistic: Statistic | None = None, *, unit: str, strata: str | None = None
    ) -> Jackknife:
        """Leave out groups of units; see :func:`dynstat.delete_group_jackknife`."""
        from .resampling import delete_group_jackknife

        return delete_group_jackknife(self, statistic, unit=unit, strata=strata)

    def glance(self) -> pd.DataFrame:
        """Return one row: nobs, sigma, logLik, AIC, BIC, REMLcrit or deviance, df.residual."""
        from .broom import glance

        return glance(self)

    def augment(self) -> pd.DataFrame:
        """Return a row an observation: data, .fitted, .resid, .hat, .cooksd, .fixed and weights."""
        from .broom import augment

        return augment(self)

    def to_xarray(self) -> xr.Dataset:
        """Return the fit as a labelled dataset; see :func:`dynstat.mixed.broom.to_xarray`."""
        from .broom import to_xarray

        return to_xarray(self)

    def plot(self, kind: str = "caterpillar", **options: Any) -> Figure:
        """Draw the fit; see :mod:`dynstat.plotting.mixed`.

        Parameters
        ----------
        kind : {"caterpillar", "residuals", "profile"}
            Modes with their intervals; diagnostics of residuals; ζ of every parameter.
        """
        from ..plotting import mixed

        kinds = {"caterpillar": mixed.caterpillar, "residuals": mixed.residuals, "profile": mixed.profile}
        if kind not in kinds:
            raise DynstatError("S404", "unknown kind of figure", found=kind, expected=" | ".join(kinds))
        return kinds[kind](self, **options)

    def __str__(self) -> str:
        from .summary import summary_text

        return summary_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from .summary import summary_html

        return summary_html(self)


def _shown(term: Term) -> str:
    return f"({' + '.join(c.replace('(Intercept)', '1') for c in term.columns)}|{term.label})"


def theta_names(terms: Sequence[Term]) -> list[str]:
    """Return the names of theta as lme4 gives them: by term, columns of the factor below its diagonal."""
    out = []
    for term in terms:
        for c, column in enumerate(term.columns):
            for row in term.columns[c:]:
                out.append(f"{term.name}.{row}" if row == column else f"{term.name}.{row}.{column}")
    return out


def _varcorr(terms: Sequence[Term], pls: PenalisedLeastSquares, theta: Array, sigma2: float) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    seen: dict[str, int] = {}
    for t, term in enumerate(terms):
        # A second term on one factor gets a number, as in lme4.
        count = seen.get(term.name, 0)
        seen[term.name] = count + 1
        group = term.name if count == 0 else f"{term.name}.{count}"
        lam = pls.template(theta, t)
        cov = sigma2 * lam @ lam.T
        sd = np.sqrt(np.diag(cov))
        for i, column in enumerate(term.columns):
            rows.append({"grp": group, "var1": column, "var2": None, "vcov": cov[i, i], "sdcor": sd[i]})
        for i in range(term.width):
            for j in range(i + 1, term.width):
                r = cov[i, j] / (sd[i] * sd[j]) if sd[i] * sd[j] > 0 else np.nan
                rows.append(
                    {
                        "grp": group,
                        "var1": term.columns[i],
                        "var2": term.columns[j],
                        "vcov": cov[i, j],
                        "sdcor": r,
                    }
                )
    rows.append({"grp": "Residual", "var1": None, "var2": None, "vcov": sigma2, "sdcor": np.sqrt(sigma2)})
    frame = pd.DataFrame(rows)
    for column in ("var1", "var2"):
        # pandas would turn None into NaN, which is true in a condition.
        frame[column] = pd.Series([r[column] for r in rows], dtype=object)
    return frame
