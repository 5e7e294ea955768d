"""LmerResult: a fitted linear mixed model, in R's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from .design import Design, Term
from .pls import PenalisedLeastSquares, Solution

if TYPE_CHECKING:
    from .fit import FitRecord

Array = NDArray[np.float64]
EFFECTS = ("fixed", "ran_pars", "ran_vals")


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
        for term, modes, cov in zip(
            self.design.terms, self.solution.effects, self.solution.covariances, strict=True
        ):
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

    def tidy(self, effects: str | Sequence[str] = ("fixed", "ran_pars")) -> pd.DataFrame:
        """Return a row a term in broom.mixed's columns.

        Parameters
        ----------
        effects : str or sequence of str
            Any of ``fixed``, ``ran_pars`` (standard deviations and correlations), ``ran_vals`` (modes).

        Returns
        -------
        DataFrame
            effect, group, level, term, estimate, std.error, statistic.
        """
        wanted = (effects,) if isinstance(effects, str) else tuple(effects)
        if bad := [e for e in wanted if e not in EFFECTS]:
            raise DynstatError("S404", "unknown kind of effect", found=bad[0], expected=" | ".join(EFFECTS))
        out = []
        if "fixed" in wanted:
            se = np.sqrt(np.diag(self.vcov))
            out.append(
                pd.DataFrame(
                    {
                        "effect": "fixed",
                        "term": list(self.fixef.index),
                        "estimate": self.fixef.to_numpy(),
                        "std.error": se,
                        "statistic": self.fixef.to_numpy() / se,
                    }
                )
            )
        if "ran_pars" in wanted:
            out.append(
                pd.DataFrame(
                    [
                        {
                            "effect": "ran_pars",
                            "group": row.grp,
                            "estimate": row.sdcor,
                            "term": (
                                "sd__Observation"
                                if row.grp == "Residual"
                                else f"sd__{row.var1}"
                                if row.var2 is None
                                else f"cor__{row.var1}.{row.var2}"
                            ),
                        }
                        for row in self.varcorr.itertuples()
                    ]
                )
            )
        if "ran_vals" in wanted:
            modes = self.ranef().rename(
                columns={"grpvar": "group", "grp": "level", "condval": "estimate", "condsd": "std.error"}
            )
            out.append(modes.assign(effect="ran_vals"))
        columns = ["effect", "group", "level", "term", "estimate", "std.error", "statistic"]
        return pd.concat([o.reindex(columns=columns) for o in out], ignore_index=True)

    def glance(self) -> pd.DataFrame:
        """Return one row: nobs, sigma, logLik, AIC, BIC, REMLcrit or deviance, df.residual."""
        return pd.DataFrame(
            [
                {
                    "nobs": self.nobs,
                    "sigma": self.sigma,
                    "logLik": self.loglik,
                    "AIC": self.aic,
                    "BIC": self.bic,
                    "REMLcrit" if self.reml else "deviance": self.criterion,
                    "df.residual": self.nobs - self.npar,
                }
            ]
        )

    def augment(self) -> pd.DataFrame:
        """Return a row an observation: outcome, grouping factors, .fitted, .resid, .fixed."""
        groups = {t.name: np.asarray(t.levels, dtype=object)[t.codes] for t in self.design.terms}
        return pd.DataFrame(
            {
                self.design.formula.response: self.design.y,
                **groups,
                ".fitted": self.fitted.to_numpy(),
                ".resid": self.residuals.to_numpy(),
                ".fixed": self.design.x @ self.solution.beta,
            },
            index=self.design.index,
        )

    def __str__(self) -> str:
        from .summary import summary_text

        return summary_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


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
