"""confint: intervals of a fit's parameters by profile, Wald or parametric bootstrap, in R's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..errors import DynstatError
from ..inference.resample import Rng, as_generator
from .contrasts import coefficients

if TYPE_CHECKING:
    from .result import LmerResult

KINDS = ("auto", "mean squares", "profile", "Wald", "boot")
# Beyond so many levels the mean squares of an unbalanced design cost more than they are worth by default.
_MOST_LEVELS = 1500
_DRAWS = 20_000


def confint(
    m: LmerResult,
    parameters: Sequence[str] | str | None = None,
    *,
    method: str = "auto",
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
    method : {"auto", "mean squares", "profile", "Wald", "boot"}
        ``mean squares``: standard deviations by redrawn mean squares (a generalised interval), fixed effects
        by t with Kenward-Roger. ``profile``: profile likelihood, R's default. ``Wald``: estimate ± quantile ·
        standard error, for fixed effects only. ``boot``: parametric bootstrap. ``auto`` takes the mean
        squares where every random term is an intercept with degrees of freedom of its own and the fit holds
        its rows, else the profile: with few levels the profile of a standard deviation falls short of its
        level (docs/mixed.md). ``attrs["method"]`` says which it was.
    level : float
    ddf : str
        Of Wald intervals: ``asymptotic`` (R's), ``Kenward-Roger`` (adjusted errors and t), ``Satterthwaite``.
    **bootstrap_options
        ``nsim``, ``rng``, ``kind`` of :func:`dynstat.bootstrap`; ``rng`` for mean squares too (seed 0
        unless given; 20,000 draws).

    Returns
    -------
    DataFrame
        Index: R's parameter names, in R's order. Columns effect, group, term, estimate, conf.low, conf.high.
        ``attrs`` says how they were made. Profile estimates are those of maximum likelihood.
    """
    if not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level)
    kind = method.lower()
    out = None
    if kind in ("auto", "mean squares"):
        rng = bootstrap_options.pop("rng", 0)
        out = _mean_squares(m, level, rng, required=kind == "mean squares")
        kind = "profile" if out is None else "mean squares"
    if bootstrap_options and kind != "boot":
        raise DynstatError(
            "S404",
            "an option of the bootstrap with another method",
            found=", ".join(bootstrap_options),
            expected="method='boot'",
        )
    if out is not None:
        pass
    elif kind == "profile":
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


def _mean_squares(m: LmerResult, level: float, rng: Rng, *, required: bool) -> pd.DataFrame | None:
    """Return intervals by redrawn mean squares and Kenward-Roger's t, None where they cannot be had."""
    from .balanced import find_strata, reml_components
    from .mean_squares import MeanSquares, mean_squares

    design = m.design
    why, squares = "", None
    if any(t.codes.size == 0 for t in design.terms):
        why = "the fit holds sums in place of rows"
    elif any(slot.width > 1 for slot in m.pls.slots) or not m.pls.slots:
        why = "a random term is no intercept"
    elif (strata := find_strata(design)) is not None:
        squares = MeanSquares(strata.sums_of_squares(design.y), strata.df, strata.design)
    elif required or sum(b.size for b in m.pls.cross.blocks) <= _MOST_LEVELS:
        squares = mean_squares(design)
        why = "" if squares else "a random term has no degrees of freedom of its own"
    if squares is None:
        if required:
            raise DynstatError(
                "S404", "no interval by mean squares for this fit", found=why, mend="use method='profile'"
            )
        return None
    generator, seed = as_generator(rng)
    chi2 = generator.chisquare(squares.df, (_DRAWS, squares.df.size))
    drawn = reml_components(squares.ss * squares.df / chi2, squares.df, squares.design)
    low, high = np.sqrt(np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0))
    out = _wald(m, level, "Kenward-Roger")
    at = np.flatnonzero(out["effect"].to_numpy() == "ran_pars")
    out.iloc[at, out.columns.get_loc("conf.low")] = low
    out.iloc[at, out.columns.get_loc("conf.high")] = high
    out.attrs |= {"seed": seed, "draws": _DRAWS, "fixed": "t, Kenward-Roger"}
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
