"""How far a partition falls to pieces: three indices, their formulas, and the same of structureless data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator
from .checks import check_count, check_partition
from .null_sets import structureless
from .partition import NOISE, Partition
from .reclustering import as_labels, choosing
from .stability import matched

Codes = NDArray[np.intp]

#: Every index with its formula; noise items count as clusters of one.
FORMULAS: Mapping[str, str] = {
    "clusters_per_item": "clusters / items",
    "outside_largest": "1 − size of the largest cluster / items",
    "singletons": "items alone in their cluster / items",
}


@dataclass(frozen=True)
class Fragmentation:
    """Indices of fragmentation. Made by :func:`dynstat.cluster.fragmentation`; frozen.

    Attributes
    ----------
    table : DataFrame
        A row an index: term, formula, origin, estimate, and null.mean, null.q05, null.q95, by.construction
        (the same on every structureless set) where data were given.
    """

    table: pd.DataFrame
    item: str
    _estimates: Mapping[str, Estimate]

    def estimates(self) -> dict[str, Estimate]:
        """Return an estimate an index, without interval."""
        return dict(self._estimates)

    def tidy(self) -> pd.DataFrame:
        """Return the table."""
        return self.table.copy()

    def glance(self) -> pd.DataFrame:
        """Return one row: the indices."""
        return pd.DataFrame([dict(zip(self.table["term"], self.table["estimate"], strict=True))])

    def __str__(self) -> str:
        return "\n".join(
            [
                "Fragmentation (definitions of dynstat; noise counts as clusters of one)",
                "",
                self.table.drop(columns="origin").to_string(
                    index=False, float_format=lambda v: f"{v:.3f}", na_rep=""
                ),
                "",
                "An index of its own decides nothing: where k was fixed, clusters / items is k / n.",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def fragmentation(
    partition: Partition,
    *,
    data: Any = None,
    null: str = "rotation",
    null_sets: int = 199,
    rng: Rng = 0,
) -> Fragmentation:
    """Return how far a partition falls to pieces, by three indices, with those of structureless data.

    clusters_per_item = clusters / items; outside_largest = 1 − largest / items; singletons = items alone /
    items. Noise items count as clusters of one. No formula of a "fragmentation index" is published with the
    figures that these are held against: 11/17 = .65 makes the first a guess, and no more.

    Parameters
    ----------
    partition : Partition
    data : DataFrame, DataArray, Features or array, optional
        What it was made from: then the same method is repeated on structureless data.
    null : str
        See :func:`structureless`.
    null_sets : int
        Structureless sets, at least 19.
    rng : Generator or int

    Raises
    ------
    DynstatError
        S404 arguments, or a given partition with data; S407 items differ.
    """
    check_partition(partition)
    indices = _indices(partition.labels)
    generator, seed = as_generator(rng)
    drawn = None
    if data is not None:
        check_count("null sets", null_sets, 19)
        features = matched(data, partition)
        run = choosing(partition) or partition.recluster
        sets = structureless(features, null, count=null_sets, rng=generator)
        drawn = pd.DataFrame([_indices(as_labels(run(z), len(features))) for z in sets])
    rows, made = [], {}
    for term, value in indices.items():
        row: dict[str, Any] = {
            "term": term,
            "formula": FORMULAS[term],
            "origin": "dynstat",
            "estimate": value,
        }
        beside = None
        if drawn is not None:
            column = drawn[term].to_numpy(dtype=np.float64)
            fixed = bool(np.ptp(column) < 1e-12)
            beside = {
                "name": f"structureless ({null})",
                "replicates": null_sets,
                "mean": float(column.mean()),
                "q05": float(np.quantile(column, 0.05)),
                "q95": float(np.quantile(column, 0.95)),
                "by construction": fixed,
            }
            row |= {"null.mean": beside["mean"], "null.q05": beside["q05"], "null.q95": beside["q95"]}
            row["by.construction"] = fixed
        rows.append(row)
        made[term] = Estimate(
            term,
            value,
            np.nan,
            np.nan,
            0.95,
            "cluster.fragmentation@1",
            "none",
            partition.item,
            {f"{partition.item}s": len(partition.items)},
            target="panel",
            seed=seed if drawn is not None else None,
            diagnostics={"formula": FORMULAS[term], "origin": "dynstat"},
            null=beside,
        )
    return Fragmentation(pd.DataFrame(rows), partition.item, made)


def _indices(labels: Codes) -> dict[str, float]:
    n = labels.size
    sizes = np.bincount(labels[labels != NOISE]) if (labels != NOISE).any() else np.zeros(0, dtype=np.intp)
    sizes = np.concatenate([sizes[sizes > 0], np.ones(int((labels == NOISE).sum()), dtype=np.intp)])
    return {
        "clusters_per_item": float(sizes.size / n),
        "outside_largest": float(1 - sizes.max() / n),
        "singletons": float((sizes == 1).sum() / n),
    }
