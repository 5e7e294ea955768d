"""Variance shares of many outcomes on one design: what only depends on the design is worked out once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate
from .balanced import anova_components, find_strata, reml_components
from .batched import fit_many
from .components import minque
from .crossproducts import cross_products, with_response
from .design import Design
from .formula import parse_formula
from .groups import groups_of, resampler_of
from .jackknife import jackknife_share
from .shares import components_at, variance_components
from .stream import design_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Shares:
    """REML shares of B outcomes, shape (B, k + 1), and the unbounded ones of one outcome, made when asked."""

    share: Array
    free: Callable[[int], Array]


def shares_many(
    formula: str,
    frame: pd.DataFrame,
    outcomes: Array,
    *,
    unit: str = "prompt",
    strata: str | None = "category",
    level: float = 0.95,
    method: str = "variance.shares@1",
    seed: int | None = None,
    terms: Collection[str] | None = None,
) -> list[dict[str, Estimate] | DynstatError]:
    """Estimate the panel's variance shares of many outcomes that share their rows.

    The ``share.*`` of :func:`dynstat.decompose`, to rounding, without the intervals for a population, chance
    levels and sums of squares, which are what costs there. All outcomes are fitted together, to the whole
    design and to each of its left-out parts; unbounded components are solved for only where a share, or one
    left out, lies at its boundary.

    Parameters
    ----------
    formula : str
        Intercept terms only; the outcome is called y.
    frame : DataFrame
        A row a run: the columns of the formula, `unit` and `strata`; a column y is not read.
    outcomes : ndarray, shape (n, B)
        Finite, in the order of the frame's rows.
    unit, strata, level, method
        As :func:`dynstat.decompose`.
    seed : int, optional
        Recorded; nothing is drawn here.
    terms : collection of str, optional
        Those whose shares are wanted, ``residual`` among them; all by default.

    Returns
    -------
    list of length B
        Estimates by key; or the error of an outcome whose variance cannot be decomposed.

    Raises
    ------
    DynstatError
        S401 to S404 as :func:`dynstat.decompose`; S404 for a formula with slopes or another outcome than y.
    """
    parsed = parse_formula(formula)
    if parsed.response.strip("`") != "y":
        raise DynstatError(
            "S404", "the outcome is called y here", where=formula, found=parsed.response, expected="y ~ ..."
        )
    y = np.asarray(outcomes, dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        design, table = design_of(parsed, frame.assign(y=y[:, 0]), keep=[unit, strata])
    if design.cells is not None or not all(t.intercept_only for t in design.terms):
        raise DynstatError("S404", "shares are defined for intercept terms", where=formula)
    resampler = resampler_of(design, table, unit, strata)
    groups, _ = groups_of(resampler, unit, strata)
    y = y[design.positions]
    varies = np.ptp(y, axis=0) > 1e-12 * np.maximum(np.max(np.abs(y), axis=0), 1e-300)
    constant = DynstatError(
        "S402", "the outcome is constant", where=formula, mend="choose an outcome that varies"
    )
    if not varies.any():
        return [constant] * y.shape[1]
    full = _shares(design, y[:, varies])
    left: list[_Shares] = []
    for group in groups:
        rows = resampler.without(group)
        try:
            part = design.subset(rows)
        except DynstatError as error:
            raise DynstatError(
                "S403", "the model cannot be fitted without some of the units", found=error.what
            ) from error
        left.append(_shares(part, y[rows][:, varies]))
    n = {
        "rows": design.nobs,
        **{t.label: len(t.levels) for t in design.terms},
        "units": resampler.n_units,
        "groups": len(left),
    }
    common: dict[str, Any] = {"level": level, "method": method, "n": n, "unit": unit, "target": "panel"}
    names = [*(t.label for t in design.terms), "residual"]
    wanted = [(j, name) for j, name in enumerate(names) if terms is None or name in terms]
    made = [_estimates(b, full, left, wanted, {"seed": seed, **common}) for b in range(int(varies.sum()))]
    found = iter(made)
    return [next(found) if ok else constant for ok in varies]


def _shares(design: Design, y: Array) -> _Shares:
    """Return the shares of every column of y on a design."""
    strata = find_strata(design)
    if strata is not None:
        ss = np.atleast_2d(strata.sums_of_squares(y))
        reml = reml_components(ss, strata.df, strata.design)
        unbounded = _over_sum(anova_components(ss, strata.df, strata.design))
        return _Shares(_over_sum(reml), lambda b: unbounded[b])
    fits = fit_many(design, y)
    components = np.array(
        [
            components_at(fits.theta[b], fits.sigma[b] ** 2)
            if fits.converged[b]
            else variance_components(replace(design, y=y[:, b]), with_anova=False).reml
            for b in range(y.shape[1])
        ]
    )
    cross = cross_products(design)

    def free(b: int) -> Array:
        out = minque(replace(design, y=y[:, b]), components[b], with_response(cross, design, y[:, b]))
        return np.asarray(out / out.sum(), dtype=np.float64)

    return _Shares(_over_sum(components), cache(free))


def _over_sum(components: Array) -> Array:
    return np.asarray(components / components.sum(axis=1, keepdims=True), dtype=np.float64)


def _estimates(
    b: int,
    full: _Shares,
    left: Sequence[_Shares],
    wanted: Sequence[tuple[int, str]],
    common: dict[str, Any],
) -> dict[str, Estimate]:
    out = {}
    for j, name in wanted:
        share, without = full.share[b, j], np.array([s.share[b, j] for s in left])
        inside = 0 < share < 1 and bool(np.all((without > 0) & (without < 1)))
        # Inside its range a share is left on the logit scale, which asks for no unbounded components.
        unbounded = (share, without)
        if not inside:
            unbounded = (full.free(b)[j], np.array([s.free(b)[j] for s in left]))
        made = jackknife_share(share, without, *unbounded)
        out[f"share.{name}"] = Estimate.from_pivot(
            f"share.{name}",
            made.value,
            made.pivot,
            interval=f"delete-group jackknife, t({len(left) - 1}), {made.scale} scale",
            diagnostics={"scale": made.scale},
            **common,
        )
    return out
