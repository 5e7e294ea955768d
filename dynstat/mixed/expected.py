"""How exact variance shares of a registered design will be: simulated from the fit of a pilot."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DynstatError, DynstatWarning
from ..inference.methods import SHARES_FORMULA
from .fit import lmer
from .formula import parse_formula
from .methods import run_frame
from .shares_many import shares_many

REPLICATES = 200


def expected_shares(
    ds: xr.Dataset,
    *,
    outcome: Mapping[str, Any],
    seed: int,
    prompts: Iterable[Mapping[str, Any]],
    formula: str = SHARES_FORMULA,
    unit: str = "prompt",
    strata: str = "category",
    **_: Any,
) -> dict[str, float]:
    """Return the standard errors of ``share.*`` that the registered prompts are expected to give.

    The models, samples and components are those of the pilot, the prompts those registered; see
    :func:`simulated_errors`.

    Parameters
    ----------
    ds : xarray.Dataset
        Of the pilot.
    outcome, formula, unit, strata
        As registered.
    seed : int
    prompts : iterable of mapping
        The registered ones: id, category, template.

    Raises
    ------
    DynstatError
        S407 where they hold categories that the pilot lacks; what the fit raises.
    """
    from ..metrics.labelled import run_metric

    pilot = run_frame(ds, run_metric(ds, outcome))
    rows = [
        {"prompt": p["id"], "category": p["category"], "template": p.get("template") or ""} for p in prompts
    ]
    samples = pilot[[c for c in ("sample", "temperature", "seed") if c in pilot]].drop_duplicates()
    frame = (
        pd.DataFrame({"model": pilot["model"].unique()})
        .merge(pd.DataFrame(rows), how="cross")
        .merge(samples, how="cross")
    )
    return simulated_errors(formula, pilot, frame, unit=unit, strata=strata, seed=seed)


def simulated_errors(
    formula: str,
    pilot: pd.DataFrame,
    frame: pd.DataFrame,
    *,
    unit: str = "prompt",
    strata: str | None = "category",
    seed: int = 0,
    replicates: int = REPLICATES,
) -> dict[str, float]:
    """Return standard deviations of variance shares over outcomes simulated on a design.

    The model is fitted to the pilot. What the registered units bring is drawn anew from its components, the
    residual too; the effects of all other terms (models, categories, their interaction) are held at their
    conditional modes, since they stay the same in this panel.

    Parameters
    ----------
    formula : str
        Intercept terms only; the outcome is called y.
    pilot, frame : DataFrame
        A row a run; `frame` needs no y.
    unit : str
        Terms that hold it (or the prompt) are drawn.
    seed, replicates : int

    Raises
    ------
    DynstatError
        S407 where a level of a held term is not in the pilot; what the fits raise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        fit = lmer(formula, pilot)
    rng = np.random.default_rng(seed)
    y = fit.sigma * rng.standard_normal((len(frame), replicates)) + float(fit.solution.beta[0])
    variables = {t.name: t.variables for t in parse_formula(formula).random}
    for t, term in enumerate(fit.design.terms):
        own = variables[term.name]
        labels = frame[list(own)].astype(str).agg(":".join, axis=1)
        if {"prompt", unit} & set(own):
            codes, levels = pd.factorize(labels)
            scale = float(fit.sigma * fit.pls.template(fit.theta.to_numpy(), t)[0, 0])
            y += scale * rng.standard_normal((len(levels), replicates))[codes]
            continue
        modes = dict(zip(map(str, term.levels), fit.solution.effects[t][:, 0], strict=True))
        if missing := sorted(set(labels) - set(modes)):
            raise DynstatError(
                "S407",
                f"the pilot has no {term.name} {missing[0]!r}",
                found=", ".join(modes),
                mend="a pilot needs every category of the registered prompts",
            )
        y += labels.map(modes).to_numpy(dtype=np.float64)[:, None]
    found = [e for e in shares_many(formula, frame, y, unit=unit, strata=strata) if isinstance(e, dict)]
    return {key: float(np.std([e[key].value for e in found], ddof=1)) for key in found[0]}
