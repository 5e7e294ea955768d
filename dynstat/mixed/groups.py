"""Which units a jackknife of shares leaves out together, and the shares without them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Resampler
from .design import Design
from .shares import Shares, variance_components


def resampler_of(design: Design, data: pd.DataFrame, unit: str, strata: str | None) -> Resampler:
    """Return a resampler of the units of a design's rows; S404 for a column that is not there or has gaps."""
    for column in (unit, strata):
        if column is not None and column not in data.columns:
            raise DynstatError(
                "S404",
                f"the data hold no column {column!r}",
                where="unit or strata",
                found=column,
                expected=", ".join(map(str, data.columns)),
                mend="name the columns by unit= and strata=",
            )
    rows = data.iloc[design.positions]
    for column in (unit, strata):
        if column is not None and (missing := int(rows[column].isna().sum())):
            raise DynstatError(
                "S404",
                f"some rows belong to no {column}",
                where=column,
                found=f"{missing} missing values",
                expected=f"a {column} in every row used",
                mend="name it, or drop these rows",
            )
    units = rows[unit].astype(str)
    if strata is None:
        resampler = Resampler.of(units.to_numpy())
    else:
        # A unit is what its stratum and its name say together, so that names may repeat between strata.
        joint = rows[strata].astype(str) + "\x1f" + units
        resampler = Resampler.of(joint.to_numpy(), rows[strata].astype(str).to_numpy())
    return resampler


def groups_of(resampler: Resampler, unit: str, strata: str | None) -> tuple[list[NDArray[np.intp]], str]:
    """Return the groups of units to leave out, and a note where strata differ in size."""
    members = [np.flatnonzero(resampler.stratum_of == s) for s in np.unique(resampler.stratum_of)]
    smallest = min(m.size for m in members)
    if smallest < 3:
        raise DynstatError(
            "S403",
            "too few units for a jackknife",
            where=f"{unit} in {strata or 'no strata'}",
            found=f"{smallest} in a stratum",
            expected="at least 3",
            mend="take more units",
        )
    if strata is None:
        return [np.array([u]) for u in range(resampler.n_units)], ""
    if len({m.size for m in members}) == 1:
        return resampler.jackknife_groups(), ""
    # As many groups as the smallest stratum has units; larger strata put two of theirs into some groups.
    dealt = [np.concatenate([m[g::smallest] for m in members]) for g in range(smallest)]
    sizes = sorted({int(m.size) for m in members})
    return dealt, f"strata hold {sizes[0]} to {sizes[-1]} units; some groups leave out two of a stratum"


def left_out(
    design: Design, resampler: Resampler, groups: list[NDArray[np.intp]], full: Shares
) -> list[Shares]:
    """Estimate the shares without each group of units."""
    start = np.maximum(np.sqrt(full.reml[:-1] / full.reml[-1]), 0.05)
    out = []
    for group in groups:
        try:
            part = design.subset(resampler.without(group))
        except DynstatError as error:
            raise DynstatError(
                "S403",
                "the model cannot be fitted without some of the units",
                where=design.formula.text,
                found=error.what,
                expected="a model that each group of units can be missing from",
                mend="take more units",
            ) from error
        out.append(variance_components(part, start=start, with_anova=False))
    return out


def shared_names(design: Design, data: pd.DataFrame, unit: str, strata: str | None) -> str:
    """Return a note where a term takes units of several strata that share a name for one."""
    merging = [t.label for t in design.formula.random if unit in t.variables and strata not in t.variables]
    rows = data.iloc[design.positions]
    if strata is None or not merging or rows.groupby(unit, observed=True)[strata].nunique().max() <= 1:
        return ""
    return (
        f"names of {unit} repeat between levels of {strata}: {', '.join(merging)} takes each name for one "
        f"{unit}; make the names unique where they are not"
    )
