"""What plans cut into clusters: features of models with the units inside them, and their partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..errors import DynstatError
from .linkage_trees import hierarchical
from .partition import Partition
from .reclustering import as_labels, choosing
from .unit_features import UnitFeatures

Spec = Mapping[str, Any]


def plan_units(
    ds: xr.Dataset,
    outcome: Spec | None,
    method: str,
    *,
    also: Iterable[Spec] = (),
    by: str = "",
    standardize: bool = True,
    unit: str = "prompt",
    strata: str = "category",
) -> UnitFeatures:
    """Return the features of models that a plan names, with the units that are drawn.

    Raises
    ------
    DynstatError
        Y002 without an outcome, or metrics that differ in the tokens they leave out; S404 a template in more
        than one category; what :meth:`UnitFeatures.from_dataset` raises.
    """
    if not outcome:
        raise DynstatError(
            "Y002",
            f"{method} needs an outcome",
            where=method,
            expected="outcome: {metric: ratio_norm@1, ...}",
        )
    specs = [dict(outcome), *map(dict, also)]
    for name in ("special", "first"):
        if len(said := {str(s.get(name, "drop")) for s in specs}) > 1:
            raise DynstatError(
                "Y002", f"the metrics differ in {name}", where=method, found=", ".join(sorted(said))
            )
    units = UnitFeatures.from_dataset(
        ds, specs, strata=strata or None, by=by or None, standardize=standardize
    )
    return units if unit == "prompt" else _grouped(units, ds, unit)


def _grouped(units: UnitFeatures, ds: xr.Dataset, name: str) -> UnitFeatures:
    """Return units that are levels of a label of prompts; prompts of one level are averaged."""
    if name not in ds.coords or ds[name].dims != ("prompt",):
        raise DynstatError("S404", f"prompts have no label {name!r}", found=name)
    levels, code = np.unique(ds[name].values.astype(str), return_inverse=True)
    strata = None
    if units.strata is not None:
        held = [sorted({units.strata[i] for i in np.flatnonzero(code == c)}) for c in range(levels.size)]
        if torn := [str(levels[c]) for c, h in enumerate(held) if len(h) > 1]:
            raise DynstatError(
                "S404",
                f"a {name} lies in more than one {units.stratum}",
                found=", ".join(torn[:4]),
                mend='strata: ""',
            )
        strata = tuple(h[0] for h in held)
    present = np.isfinite(units.values)
    shape = (units.values.shape[0], levels.size, units.values.shape[2])
    total, count = np.zeros(shape), np.zeros(shape)
    for u, c in enumerate(code):
        total[:, c] += np.where(present[:, u], units.values[:, u], 0.0)
        count[:, c] += present[:, u]
    values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return replace(units, values=values, units=tuple(map(str, levels)), strata=strata, unit=name)


def cut(units: UnitFeatures, linkage: str, k: int) -> Partition:
    """Return the models in k clusters, or cut at the largest jump of merge heights where k is 0."""
    return hierarchical(units, linkage, k=k) if k else hierarchical(units, linkage, gap=True)


def cut_again(
    partition: Partition, units: UnitFeatures, weights: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the labels of every draw of the units, and which draws left every model a value."""
    values = units.build(weights)
    whole = np.isfinite(values).all(axis=(1, 2))
    run = choosing(partition) or partition.recluster
    n = len(partition.items)
    labels = np.zeros((len(values), n), dtype=np.intp)
    for b in np.flatnonzero(whole):
        labels[b] = as_labels(run(values[b]), n)
    return labels, np.asarray(whole)


def label_of_models(ds: xr.Dataset, name: str) -> pd.Series[Any]:
    """Return a label of the models by model; S404 where there is none of that name."""
    if name not in ds.coords or ds[name].dims != ("model",):
        raise DynstatError(
            "S404",
            f"models have no label {name!r}",
            found=name,
            expected=", ".join(str(c) for c in ds.coords if ds[c].dims == ("model",)),
        )
    return pd.Series(ds[name].values.astype(str), [str(m) for m in ds["model"].values], name=name)


def in_words(partition: Partition) -> str:
    """Return the clusters in words."""
    return "; ".join(", ".join(partition.members(c)) for c in range(partition.n_clusters))
