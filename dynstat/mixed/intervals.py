"""confint: intervals of a fit's parameters by profile, Wald or parametric bootstrap, in R's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DynstatError
from .contrasts import coefficients

if TYPE_CHECKING:
    from .result import LmerResult

KINDS = ("profile", "Wald", "boot")


def confint(
    m: LmerResult,
    parameters: Sequence[str] | str | None = None,
    *,
    method: str = "profile",
    level: float = 0.95,
    ddf: str = "asymptotic",
    **bootstrap_options: Any,
) -> pd.DataFrame:
    """Return intervals of fixed effects, standard deviations and correlations.

    Parameters
    ----------
    parameters : str or sequence of str, optional
        R's names (``sd_(Intercept)|model``, ``sigma``, ``x``), ``theta_`` for all standard deviations and
        correlations, ``beta_`` for all fixed effects. All by default.
    method : {"profile", "Wald", "boot"}
        Profile likelihood (the default, as in R); estimate ± quantile · standard error, for fixed effects
        only; parametric bootstrap.
    level : float
    ddf : str
        Of Wald intervals: ``asymptotic`` (R's), ``Kenward-Roger`` (adjusted errors and t), ``Satterthwaite``.
    **bootstrap_options
        ``nsim``, ``rng``, ``kind`` of :func:`dynstat.bootstrap`.

    Returns
    -------
    DataFrame
        Index: R's parameter names, in R's order. Columns effect, group, term, estimate, conf.low, conf.high.
        ``attrs`` says how they were made. Profile estimates are those of maximum likelihood.
    """
    if not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level)
    kind = method.lower()
    if bootstrap_options and kind != "boot":
        raise DynstatError(
            "S404",
            "an option of the bootstrap with another method",
            found=", ".join(bootstrap_options),
            expected="method='boot'",
        )
    if kind == "profile":
        from .profiling import profile

        out = profile(m, parameters).confint(level)
    elif kind == "wald":
        out = _wald(m, level, ddf)
    elif kind == "boot":
        from .parametric_bootstrap import bootstrap

        limits = bootstrap_options.pop("kind", "perc")
        drawn = bootstrap(m, **bootstrap_options)
        out = parameter_table(m).join(drawn.confint(level, limits)[["conf.low", "conf.high"]])
        out.attrs |= {"nsim": len(drawn.draws), "seed": drawn.seed, "failed": drawn.failed, "kind": limits}
    else:
        raise DynstatError(
            "S404", "unknown method", where="confint", found=method, expected=" | ".join(KINDS)
        )
    out.attrs |= {"method": kind, "level": level}
    if kind != "profile" and parameters is not None:
        from .profiling import chosen

        names = [str(n) for n in out.index]
        keep = chosen(names, parameters, len(names) - len(m.fixef))
        out = out.loc[[n for n in names if n in keep]]
    return out


def parameter_table(m: LmerResult) -> pd.DataFrame:
    """Return a row a parameter in R's order and names: effect, group, term, estimate."""
    from .constrained import parameter_names

    rows = [
        {"effect": "ran_pars", "group": name.group, "term": name.label, "estimate": value}
        for name, value in zip(
            parameter_names(m.design.terms),
            spread(m.pls, m.theta.to_numpy()[None, :], np.array([m.sigma]))[0],
            strict=True,
        )
    ]
    rows += [
        {"effect": "fixed", "group": None, "term": str(n), "estimate": float(v)} for n, v in m.fixef.items()
    ]
    index = [n.name for n in parameter_names(m.design.terms)] + [str(n) for n in m.fixef.index]
    return pd.DataFrame(rows, index=index)


def spread(pls: Any, theta: Any, sigma: Any) -> Any:
    """Return standard deviations and correlations of many fits, the residual's last.

    Parameters
    ----------
    theta : ndarray, shape (B, k)
    sigma : ndarray, shape (B,)

    Returns
    -------
    ndarray, shape (B, number of parameters)
        In R's order: by columns of every term's lower triangle. A correlation with a zero deviation is NaN.
    """
    out = []
    for slot in pls.slots:
        k = slot.width
        lam = np.zeros((theta.shape[0], k, k))
        at = slot.start
        for j in range(k):
            for i in range(j, k):
                lam[:, i, j] = theta[:, at]
                at += 1
        cov = lam @ np.swapaxes(lam, 1, 2)
        sd = np.sqrt(np.einsum("bii->bi", cov))
        for j in range(k):
            out.append(sd[:, j] * sigma)
            for i in range(j + 1, k):
                with np.errstate(divide="ignore", invalid="ignore"):
                    out.append(cov[:, i, j] / (sd[:, i] * sd[:, j]))
    return np.column_stack([*out, sigma])


def _wald(m: LmerResult, level: float, ddf: str) -> pd.DataFrame:
    out = parameter_table(m)
    out["conf.low"], out["conf.high"] = np.nan, np.nan
    if len(m.fixef):
        table = coefficients(m, ddf=ddf, level=level).set_index("term")
        for column in ("conf.low", "conf.high"):
            out.loc[table.index, column] = table[column]
    return out
