"""A fitted mixed model as tables and as a labelled dataset, in broom.mixed's closed vocabulary of columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from ..errors import DynstatError

if TYPE_CHECKING:
    import xarray as xr

    from .result import LmerResult

EFFECTS = ("fixed", "ran_pars", "ran_vals")
#: Every column that :func:`tidy` can return, in this order.
TIDY_COLUMNS = (
    "effect",
    "group",
    "level",
    "term",
    "estimate",
    "std.error",
    "statistic",
    "df",
    "p.value",
    "conf.low",
    "conf.high",
)
#: Every column that :func:`glance` can return; REMLcrit for a REML fit, deviance for one by ML.
GLANCE_COLUMNS = ("nobs", "sigma", "logLik", "AIC", "BIC", "REMLcrit", "deviance", "df.residual")
#: Every column that :func:`augment` adds to those of the data.
AUGMENT_COLUMNS = (
    ".fitted",
    ".resid",
    ".hat",
    ".cooksd",
    ".fixed",
    ".mu",
    ".offset",
    ".sqrtXwt",
    ".sqrtrwt",
    ".weights",
    ".wtres",
)


def tidy(
    m: LmerResult,
    effects: str | Sequence[str] = ("fixed", "ran_pars"),
    *,
    conf_int: bool = False,
    conf_level: float = 0.95,
    conf_method: str = "Wald",
    ddf: str | None = None,
) -> pd.DataFrame:
    """Return a row a term.

    Parameters
    ----------
    effects : str or sequence of str
        Any of ``fixed``, ``ran_pars`` (standard deviations and correlations), ``ran_vals`` (modes).
    conf_int : bool
        Add conf.low and conf.high.
    conf_level : float
    conf_method : {"Wald", "profile"}
        Wald intervals of standard deviations are meaningless next to zero: they are NaN, as in broom.mixed.
    ddf : str, optional
        ``Kenward-Roger`` or ``Satterthwaite``: adds df and p.value of the fixed effects, whose intervals then
        use them. Default: neither, as lme4.

    Returns
    -------
    DataFrame
        Columns from :data:`TIDY_COLUMNS`.
    """
    wanted = (effects,) if isinstance(effects, str) else tuple(effects)
    if bad := [e for e in wanted if e not in EFFECTS]:
        raise DynstatError("S404", "unknown kind of effect", found=bad[0], expected=" | ".join(EFFECTS))
    if conf_method not in ("Wald", "profile"):
        raise DynstatError("S404", "unknown kind of interval", found=conf_method, expected="Wald | profile")
    if not 0 < conf_level < 1:
        raise DynstatError("S404", "conf_level must lie between 0 and 1", found=conf_level)
    makers = {"fixed": _fixed, "ran_pars": _ran_pars, "ran_vals": _ran_vals}
    z = float(special.ndtri((1 + conf_level) / 2))
    out = [makers[e](m, z) for e in EFFECTS if e in wanted]
    if ddf is not None and "fixed" in wanted and len(m.fixef):
        from .contrasts import coefficients

        out[0] = coefficients(m, ddf=ddf, level=conf_level).assign(effect="fixed")
    if conf_int and conf_method == "profile":
        from .profiling import profile

        limits = profile(m).confint(conf_level)
        out = [_with_limits(o, limits) for o in out]
    columns = [c for c in TIDY_COLUMNS if conf_int or not c.startswith("conf.")]
    columns = [c for c in columns if ddf is not None or c not in ("df", "p.value")]
    # Where a kind of effect lacks a column all of it is missing, which pandas would take for words.
    return pd.concat([o.reindex(columns=columns).astype(_dtypes(columns)) for o in out], ignore_index=True)


def _dtypes(columns: list[str]) -> dict[str, type]:
    return {c: object if c in ("effect", "group", "level", "term") else float for c in columns}


def _fixed(m: LmerResult, z: float) -> pd.DataFrame:
    estimate = m.fixef.to_numpy()
    se = np.sqrt(np.diag(m.vcov)) if estimate.size else np.zeros(0)
    return pd.DataFrame(
        {
            "effect": "fixed",
            "term": list(m.fixef.index),
            "estimate": estimate,
            "std.error": se,
            "statistic": estimate / se,
            "conf.low": estimate - z * se,
            "conf.high": estimate + z * se,
        }
    )


def _ran_pars(m: LmerResult, z: float) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for row in m.varcorr.itertuples():
        if row.grp == "Residual":
            term = "sd__Observation"
        else:
            term = f"sd__{row.var1}" if row.var2 is None else f"cor__{row.var1}.{row.var2}"
        rows.append({"effect": "ran_pars", "group": row.grp, "term": term, "estimate": row.sdcor})
    return pd.DataFrame(rows)


def _ran_vals(m: LmerResult, z: float) -> pd.DataFrame:
    names = {"grpvar": "group", "grp": "level", "condval": "estimate", "condsd": "std.error"}
    modes = m.ranef().rename(columns=names).assign(effect="ran_vals")
    modes["conf.low"] = modes["estimate"] - z * modes["std.error"]
    modes["conf.high"] = modes["estimate"] + z * modes["std.error"]
    return modes


def _with_limits(table: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    if table.empty or table["effect"].iloc[0] == "ran_vals":
        return table
    group = table["group"] if "group" in table else [None] * len(table)
    keys = [
        (e, g if isinstance(g, str) else None, t)
        for e, g, t in zip(table["effect"], group, table["term"], strict=True)
    ]
    found = {
        (r["effect"], r["group"] if isinstance(r["group"], str) else None, r["term"]): r
        for r in limits.to_dict("records")
    }
    return table.assign(
        **{
            side: [found[k][side] if k in found else np.nan for k in keys]
            for side in ("conf.low", "conf.high")
        }
    )


def glance(m: LmerResult) -> pd.DataFrame:
    """Return one row: size, residual standard deviation, likelihood and information criteria."""
    row = {
        "nobs": m.nobs,
        "sigma": m.sigma,
        "logLik": m.loglik,
        "AIC": m.aic,
        "BIC": m.bic,
        "REMLcrit" if m.reml else "deviance": m.criterion,
        "df.residual": m.nobs - m.npar,
    }
    return pd.DataFrame([row])


def augment(m: LmerResult) -> pd.DataFrame:
    """Return a row an observation: the data used, and the columns :data:`AUGMENT_COLUMNS`.

    Beyond :data:`dynstat.mixed.influence.LARGEST` effects .hat and .cooksd are NaN.
    """
    from .columns import variables
    from .influence import LARGEST, cooks_distance, leverage

    design = m.design
    formula = design.formula
    used = [*variables(formula.response), *variables(formula.fixed)]
    grouped = [v for t in formula.random for v in (*variables(t.columns), *t.variables)]
    used += sorted(grouped, key=formula.text.find)
    if design.data is None:
        out = pd.DataFrame({formula.response: design.y}, index=design.index)
    else:
        out = design.data.iloc[design.positions].loc[:, list(dict.fromkeys(used))].copy()
        if formula.response not in out.columns:
            out.insert(0, formula.response, design.y)
    weights = np.ones(design.n) if design.cells is None else design.cells.weights
    small = sum(len(t.levels) * t.width for t in design.terms) + design.x.shape[1] <= LARGEST
    hat = leverage(m) if small else np.full(design.n, np.nan)
    fitted, residuals = m.fitted.to_numpy(), m.residuals.to_numpy()
    added = {
        ".fitted": fitted,
        ".resid": residuals,
        ".hat": hat,
        ".cooksd": cooks_distance(m, hat),
        ".fixed": design.x @ m.solution.beta,
        ".mu": fitted,
        ".offset": 0.0,
        ".sqrtXwt": np.sqrt(weights),
        ".sqrtrwt": np.sqrt(weights),
        ".weights": weights,
        ".wtres": residuals * np.sqrt(weights),
    }
    return out.assign(**added)


def to_xarray(m: LmerResult) -> xr.Dataset:
    """Return the fit as a labelled dataset.

    Variables fixef (term), vcov (term, term_2), theta (theta), sdcor and varcov (parameter), fitted and
    residuals (row), and for every grouping factor g ranef_g and condsd_g (g, column_g).
    """
    import xarray as xr

    index = m.design.index
    rows = np.arange(len(index)) if isinstance(index, pd.MultiIndex) else np.asarray(index)
    terms = [str(t) for t in m.fixef.index]
    names = [
        ".".join(str(v) for v in (r.grp, r.var1, r.var2) if v is not None) for r in m.varcorr.itertuples()
    ]
    data: dict[str, Any] = {
        "fixef": ("term", m.fixef.to_numpy()),
        "vcov": (("term", "term_2"), m.vcov.to_numpy()),
        "theta": ("theta_name", m.theta.to_numpy()),
        "sdcor": ("parameter", m.varcorr["sdcor"].to_numpy(float)),
        "varcov": ("parameter", m.varcorr["vcov"].to_numpy(float)),
        "fitted": ("row", m.fitted.to_numpy()),
        "residuals": ("row", m.residuals.to_numpy()),
    }
    coords: dict[str, Any] = {
        "term": terms,
        "term_2": terms,
        "theta_name": [str(t) for t in m.theta.index],
        "parameter": names,
        "row": rows,
    }
    for group, modes in m.ranef().groupby("grpvar", sort=False):
        # A slash or a colon cannot stand in every file format's names.
        name = re.sub(r"\W+", "_", str(group)).strip("_")
        table = modes.pivot(index="grp", columns="term")
        columns, levels = list(dict.fromkeys(modes["term"])), list(dict.fromkeys(modes["grp"]))
        dims = (name, f"column_{name}")
        for short, column in (("ranef", "condval"), ("condsd", "condsd")):
            values = table[column].loc[levels, columns].to_numpy()
            data[f"{short}_{name}"] = (dims, values, {"group": str(group)})
        coords |= {dims[0]: levels, dims[1]: columns}
    attrs = {
        "formula": m.formula,
        "method": "REML" if m.reml else "ML",
        "criterion": m.criterion,
        "sigma": m.sigma,
        "nobs": m.nobs,
        "singular": int(m.singular),
        "warnings": "\n".join(m.warnings),
    }
    return xr.Dataset(data, coords, attrs)
