"""Stability of clusters when the units inside the items (prompts within models) are drawn anew."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate, TPivot
from ..inference.resample import Rng, as_generator
from .checks import check_count, check_level, check_partition, check_resampled, check_units
from .coclustering import co_clustering, jeffreys, recluster_many
from .features import Features, standardized
from .jaccard import best_jaccard, contingency
from .linkage_trees import hierarchical
from .partition import Partition, check_k

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .unit_features import UnitFeatures

Array = NDArray[np.float64]
Labels = NDArray[np.intp]

METHOD = "cluster.unit_stability@1"
# Hennig's limits: at most half is dissolved, above three quarters is recovered.
DISSOLVED, RECOVERED = 0.5, 0.75


@dataclass(frozen=True, eq=False, repr=False)
class UnitStability:
    """Stability of a partition when units inside the items are resampled. Made by :func:`unit_stability`.

    Attributes
    ----------
    partition : Partition
        Of all units.
    labels : ndarray of int, shape (replicates, items)
    frequency, low, high : ndarray, shape (items, items)
        Share of replicates in which two items lie in one cluster, with its Monte-Carlo interval.
    jaccard : ndarray, shape (replicates, clusters)
    unit : str
    paired : bool
    level : float
    seed : int or None
    n : mapping
    notes : tuple of str
    """

    partition: Partition
    labels: Labels
    frequency: Array
    low: Array
    high: Array
    jaccard: Array
    unit: str
    paired: bool
    level: float
    seed: int | None
    n: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[str, ...]:
        """Labels of the items."""
        return self.partition.items

    def tidy(self) -> pd.DataFrame:
        """Return a row a cluster: members, mean Jaccard with limits, counts dissolved and recovered."""
        rows = []
        for c, e in enumerate(self._jaccards()):
            j = self.jaccard[:, c]
            rows.append(
                {
                    "cluster": c,
                    "size": int(self.partition.sizes[c]),
                    "members": ", ".join(self.partition.members(c)),
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "dissolved": int(np.sum(j <= DISSOLVED)),
                    "recovered": int(np.sum(j > RECOVERED)),
                }
            )
        return pd.DataFrame(rows)

    def pairs(self) -> pd.DataFrame:
        """Return a row a pair, most frequent first: item_1, item_2, frequency, conf.low, conf.high, together.

        ``together`` says whether they are so with all units.
        """
        i, j = np.triu_indices(len(self.items), 1)
        own = self.partition.labels
        table = pd.DataFrame(
            {
                "item_1": np.array(self.items, dtype=object)[i],
                "item_2": np.array(self.items, dtype=object)[j],
                "frequency": self.frequency[i, j],
                "conf.low": self.low[i, j],
                "conf.high": self.high[i, j],
                "together": (own[i] == own[j]) & (own[i] >= 0),
            }
        )
        return table.sort_values("frequency", ascending=False, kind="stable", ignore_index=True)

    def glance(self) -> pd.DataFrame:
        """Return one row: counts, clusters, smallest mean Jaccard, unit, paired, seed."""
        least = float(self.jaccard.mean(axis=0).min()) if self.jaccard.size else np.nan
        row = {**self.n, "clusters": self.partition.n_clusters, "min.jaccard": least, "unit": self.unit}
        return pd.DataFrame([row | {"paired": self.paired, "seed": self.seed}])

    def estimates(self) -> dict[str, Estimate]:
        """Return ``jaccard.<cluster>`` and ``together.<item>|<item>``; intervals are of the simulation."""
        out = {e.key: e for e in self._jaccards()}
        i, j = np.triu_indices(len(self.items), 1)
        for a, b in zip(i.tolist(), j.tolist(), strict=True):
            key = f"together.{self.items[a]}|{self.items[b]}"
            out[key] = Estimate(
                key,
                float(self.frequency[a, b]),
                float(self.low[a, b]),
                float(self.high[a, b]),
                interval="Jeffreys, Monte-Carlo error of the share of replicates",
                **self._common(),
            )
        return out

    def _common(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "method": METHOD,
            "unit": self.unit,
            "n": self.n,
            "target": "panel",
            "seed": self.seed,
            "diagnostics": {"paired": self.paired, "notes": list(self.notes)},
        }

    def _jaccards(self) -> list[Estimate]:
        out = []
        b = self.jaccard.shape[0]
        for c in range(self.partition.n_clusters):
            j = self.jaccard[:, c]
            pivot = TPivot(float(j.mean()), float(j.std(ddof=1)) / b**0.5, b - 1, bounds=(0.0, 1.0))
            words = f"t({b - 1}), Monte-Carlo error of the mean over replicates"
            key = f"jaccard.{c}"
            out.append(Estimate.from_pivot(key, float(j.mean()), pivot, interval=words, **self._common()))
        return out

    def plot(self, **options: Any) -> Figure:
        """Draw the co-clustering heat map; see :func:`dynstat.plotting.coclustering.heat_map`."""
        from ..plotting.coclustering import heat_map

        order = None if self.partition.linkage is None else self.partition.linkage
        return heat_map(self.frequency, self.items, linkage=order, **options)

    def alt_text(self) -> str:
        """Return what :meth:`plot` shows, in words and numbers."""
        from ..plotting.coclustering import describe_heat_map

        return describe_heat_map(self.frequency, self.items)

    def __str__(self) -> str:
        how = "the same for all items" if self.paired else "drawn for every item by itself"
        shown = self.pairs()
        shown = shown[shown["frequency"] >= 0.5].head(12)
        lines = [
            f"Clusters when {self.unit}s are resampled ({how}): {self.n['replicates']} replicates, "
            f"{self.n['items']} {self.partition.item}s, {self.n['units']} {self.unit}s",
            "",
            self.tidy().to_string(index=False, float_format=lambda v: f"{v:.3f}")
            if self.partition.n_clusters
            else "(every item is noise with all units: no cluster to follow)",
            "",
            "pairs together in half of the replicates or more",
            shown.to_string(index=False, float_format=lambda v: f"{v:.3f}") if len(shown) else "(none)",
        ]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def unit_stability(
    units: UnitFeatures,
    partition: Partition | None = None,
    *,
    k: int | None = None,
    method: str = "ward",
    metric: str = "euclidean",
    replicates: int = 1000,
    paired: bool = True,
    level: float = 0.95,
    rng: Rng = 0,
) -> UnitStability:
    """Draw the units inside the items anew, rebuild the features, recluster, and count who stays together.

    Every replicate draws as many units as there are, with replacement and within strata, averages the
    features over them and clusters the items with the same method. Jaccard of a cluster: Hennig's, the best
    match in the replicate, averaged.

    What the frequency is: the share of replicates of the panel, its units drawn anew, in which the two items
    fall together. It says whether the units suffice to place these items; it is not the probability that the
    two belong together, and with many units it tends to 0 or 1 in data without any structure, because every
    cut divides the items somewhere. Hold it against its null with :func:`pair_survival`.
    The intervals are of the simulation: Jeffreys' for the share of replicates, t for the mean Jaccard.

    Parameters
    ----------
    units : UnitFeatures
    partition : Partition, optional
        Its method and parameters are repeated. Default: hierarchical, from `method`, `metric` and `k`.
    k : int
        Clusters, where no partition is given.
    method, metric : str
        Linkage and distance.
    replicates : int
        At least 100.
    paired : bool
        Whether one draw of units serves all items, as where all models read the same prompts. Otherwise
        every item has a draw of its own.
    level : float
        Of the intervals.
    rng : Generator or int

    Raises
    ------
    DynstatError
        S403 for one unit, strata that hold one unit each, or items that mostly lose all their units; S404
        arguments; S405 fewer items than clusters; S407 a partition of other items.

    Warns
    -----
    DynstatWarning
        Replicates were left out, because an item had no unit in them; all items were noise in some.
    """
    whole = partition_of(units, partition, k, method, metric)
    check_level(level)
    if whole.n_clusters == 0:
        warnings.warn("every item is noise with all units: there is no cluster to follow", DynstatWarning, 2)
    generator, seed = as_generator(rng)
    values, left_out = resampled_features(units, replicates, generator, paired=paired)
    if units.standardize:
        values = standardized(values)
    labels = recluster_many(whole, values)
    b = labels.shape[0]
    frequency = co_clustering(labels)
    low, high = jeffreys(np.rint(frequency * b), b, level)
    notes = []
    if left_out:
        notes.append(f"{left_out} replicates left out: an item had no {units.unit} in them")
    if blank := int(np.sum(np.all(labels < 0, axis=1))):
        notes.append(f"{blank} replicates in which every item was noise count as together with nothing")
    for note in notes:
        warnings.warn(note, DynstatWarning, stacklevel=2)
    n = {"items": len(units.items), "units": len(units.units), "replicates": b}
    return UnitStability(
        whole,
        labels,
        frequency,
        low,
        high,
        best_jaccard(contingency(whole.labels, labels))[:, :-1],
        units.unit,
        paired,
        level,
        seed,
        n,
        tuple(notes),
    )


def stability_table(over_units: UnitStability, over_items: Any, *, limit: float = RECOVERED) -> pd.DataFrame:
    """Set the stability of clusters over units beside that over items.

    Parameters
    ----------
    over_units : UnitStability
    over_items : result of ``clusterboot`` or ``stability_test``, DataFrame or sequence of float
        Mean Jaccard of the same clusters under resampling of items, in their order; of a result or frame the
        column ``estimate`` (or ``jaccard``).
    limit : float
        The mean Jaccard from which a cluster counts as recovered; Hennig's .75. It is no test: clusters of
        structureless data reach it too, so a :class:`StabilityTest` brings its p along.

    Returns
    -------
    DataFrame
        A row a cluster: cluster, size, members, jaccard.units, jaccard.items, p.items (of a test), finding.

    Raises
    ------
    DynstatError
        S407 where the clusters are not the same.
    """
    table = over_units.tidy()
    tested = None
    found = over_items.tidy() if hasattr(over_items, "tidy") else over_items
    other = getattr(getattr(over_items, "partition", None), "labels", None)
    if other is not None and not np.array_equal(other, over_units.partition.labels):
        raise DynstatError(
            "S407", "the two stabilities are of different partitions", expected="one partition"
        )
    if isinstance(found, pd.DataFrame):
        column = next((c for c in ("estimate", "jaccard") if c in found.columns), None)
        if column is None:
            raise DynstatError(
                "S404",
                "no column of mean Jaccards",
                found=", ".join(map(str, found.columns)),
                expected="estimate",
            )
        if "cluster" in found.columns:
            found = found[found["cluster"].astype(str).isin(table["cluster"].astype(str))]
            # A test has its most stable cluster first.
            found = found.sort_values("cluster", key=lambda c: c.astype(int), kind="stable")
        tested = found["p.value"].to_numpy() if "p.value" in found.columns else None
        found = found[column]
    try:
        means = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DynstatError(
            "S404", "these are no mean Jaccards", found=type(found).__name__, expected="a number a cluster"
        ) from error
    if means.shape != (len(table),):
        raise DynstatError(
            "S407", "the clusters are not the same", found=f"{means.size} clusters", expected=len(table)
        )
    out = table[["cluster", "size", "members"]].copy()
    out["jaccard.units"] = table["estimate"]
    out["jaccard.items"] = means
    if tested is not None:
        out["p.items"] = tested
    unit, item = over_units.unit, over_units.partition.item
    words = {
        (True, True): f"recovered over {unit}s and over {item}s",
        (True, False): f"recovered over {unit}s, not over {item}s: it hangs on which {item}s are there",
        (False, True): f"recovered over {item}s, not over {unit}s: it hangs on which {unit}s were read",
        (False, False): "recovered over neither",
    }
    pairs = zip(table["estimate"] >= limit, means >= limit, strict=True)
    out["finding"] = [words[bool(a), bool(b)] for a, b in pairs]
    return out


def partition_of(
    units: UnitFeatures, partition: Partition | None, k: int | None, method: str, metric: str
) -> Partition:
    """Return the partition of all units, made or checked."""
    check_units(units)
    if partition is None:
        if k is None:
            raise DynstatError("S404", "no number of clusters", expected="k= or a partition")
        return hierarchical(units.features(), method, k=k, metric=metric)
    check_partition(partition)
    if k is not None and k != partition.n_clusters:
        raise DynstatError("S404", "k is not that of the partition", found=k, expected=partition.n_clusters)
    if partition.items != units.items:
        raise DynstatError(
            "S407",
            "the partition is of other items, or in another order",
            found=", ".join(partition.items[:4]),
            expected=", ".join(units.items[:4]),
        )
    return partition


def resampled_features(
    units: UnitFeatures, replicates: int, rng: np.random.Generator, *, paired: bool = True
) -> tuple[Array, int]:
    """Return features of items from resampled units, not standardised, and how many replicates were left out.

    Shape (replicates, items, columns).
    """
    check_count("replicates", replicates, 100)
    check_resampled(units)
    resampler = units.resampler()
    raw = replace(units, standardize=False)
    whole = raw.features()
    if paired:
        values = raw.build(resampler.weights(replicates, rng))
    else:
        values = np.empty((replicates, *whole.values.shape))
        for i in range(len(units.items)):
            one = replace(raw, values=raw.values[i : i + 1], items=(raw.items[i],))
            values[:, i] = one.build(resampler.weights(replicates, rng))[:, 0]
    good = np.isfinite(values).all(axis=(1, 2))
    left_out = int(replicates - good.sum())
    if left_out > replicates / 2:
        bad = ~np.isfinite(values).all(axis=2)
        item = units.items[int(bad.mean(axis=0).argmax())]
        raise DynstatError(
            "S403",
            f"in most replicates an item has no {units.unit} left",
            where=f"{units.item} {item}",
            found=f"{left_out} of {replicates} replicates",
            mend=f"drop that {units.item}, or the features that few {units.unit}s have",
        )
    return (values[good] if left_out else values), left_out


def check_features(features: Features, k: int) -> None:
    """Refuse fewer items than clusters, or clusters that say nothing."""
    n = len(features)
    if n < 3:
        raise DynstatError("S405", "too few items", found=n, expected="at least 3")
    if not 2 <= check_k(k, n, features.item) < n:
        raise DynstatError(
            "S405",
            "that many clusters say nothing of pairs",
            found=f"{n} items, k = {k}",
            expected="2 to n − 1",
        )
