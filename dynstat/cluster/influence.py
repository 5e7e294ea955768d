"""What one item does to a partition, and whether one item stands apart from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.estimate import Estimate, TPivot
from ..inference.resample import Rng, as_generator, monte_carlo_p
from .chance import INDICES
from .checks import check_count, check_level, check_units
from .concordance import without_noise
from .jaccard import best_jaccard, contingency
from .null_sets import structureless
from .partition import Partition
from .reclustering import as_labels, choosing
from .stability import matched
from .unit_features import UnitFeatures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class LeaveOneOut:
    """A partition with one item left out at a time. Made by :func:`dynstat.cluster.leave_one_out`; frozen.

    Attributes
    ----------
    table : DataFrame
        A row an item: item, cluster, ari (of the others' clusters with and without it), jaccard (of the
        cluster that is found worst), clusters (found without it).
    estimate : Estimate
        ``ari.smallest``, with its null where sets were drawn.
    """

    table: pd.DataFrame
    estimate: Estimate
    item: str

    @property
    def most_influential(self) -> str | None:
        """The item whose omission changes the clusters of the others most; None where none changes them."""
        row = self.table.loc[self.table["ari"].idxmin()]
        return None if row["ari"] >= 1 else str(row["item"])

    def estimates(self) -> dict[str, Estimate]:
        """Return ``ari.smallest`` and ``ari.<item>``."""
        single = {
            f"ari.{row['item']}": replace(
                self.estimate, key=f"ari.{row['item']}", value=row["ari"], null=None
            )
            for row in self.table.to_dict("records")
        }
        return {"ari.smallest": self.estimate, **single}

    def tidy(self) -> pd.DataFrame:
        """Return the table, the most influential item first; the ARI is named ``estimate``."""
        return self._sorted().rename(columns={"ari": "estimate"})

    def _sorted(self) -> pd.DataFrame:
        return self.table.sort_values("ari", kind="stable", ignore_index=True)

    def glance(self) -> pd.DataFrame:
        """Return one row: items, most influential, smallest and mean ARI, p."""
        row = {
            "items": len(self.table),
            "most.influential": self.most_influential,
            "ari.smallest": self.estimate.value,
            "ari.mean": float(self.table["ari"].mean()),
            "p.value": (self.estimate.null or {}).get("p", np.nan),
        }
        return pd.DataFrame([row])

    def plot(self) -> Figure:
        """Draw the ARI without every item.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.agreement import left_out

        return left_out(self)

    def alt_text(self) -> str:
        """Return what the figure shows, in words and numbers."""
        rows = "; ".join(f"{r['item']} {r['ari']:.2f}" for r in self._sorted().to_dict("records"))
        return f"Adjusted Rand index of the others' clusters with and without every {self.item}. {rows}."

    def __str__(self) -> str:
        most, null = self.most_influential, self.estimate.null
        said = (
            f"most influential: {most} (ARI of the others {self.estimate.value:.3f})"
            if most is not None
            else f"no {self.item} changes the clusters of the others"
        )
        lines = [
            f"Clusters with one {self.item} left out",
            "",
            self._sorted().to_string(index=False, float_format=lambda v: f"{v:.3f}"),
            "",
            said,
        ]
        if null:
            lines.append(
                f"{null['name']}: smallest ARI {null['mean']:.2f} on average, as high as here with "
                f"p = {null['p']:.3g} ({null['replicates']} sets)"
            )
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def leave_one_out(
    data: Any,
    partition: Partition,
    *,
    recluster: Callable[[Array], Any] | None = None,
    null: str = "rotation",
    null_sets: int = 199,
    rng: Rng = 0,
) -> LeaveOneOut:
    """Leave out one item at a time, cluster the others again, and compare with their clusters in the whole.

    Where one item changes the clusters of all others, they are that item's. The null beside: the smallest ARI
    that the same method leaves on structureless data; p = (1 + sets whose smallest ARI is at least as
    high)/(1 + sets), small where the clusters hold better than those of one population.

    Parameters
    ----------
    data : DataFrame, DataArray, Features or array
        What the partition was made from.
    partition : Partition
    recluster : callable, optional
        Values to labels, in place of the partition's own method.
    null : str
        See :func:`structureless`.
    null_sets : int
        0 for no null.
    rng : Generator or int

    Raises
    ------
    DynstatError
        S403 fewer than four items; S404 arguments; S405 fewer items than clusters once one is left out; S407
        data and partition do not hold the same items.

    Notes
    -----
    Origin: dynstat. The index is Hubert and Arabie's (1985, J. Classif. 2: 193-218).
    """
    features = matched(data, partition)
    x, n = features.values, len(features)
    if n < 4:
        raise DynstatError("S403", f"too few {features.item}s", found=n, expected="at least 4")
    if null_sets != 0:
        check_count("null sets", null_sets, 19)
    generator, seed = as_generator(rng)
    run = recluster or choosing(partition) or partition.recluster
    ari, jaccard, clusters = _without_each(x, partition.labels, run)
    table = pd.DataFrame(
        {
            "item": features.items,
            "cluster": partition.labels,
            "ari": ari,
            "jaccard": jaccard,
            "clusters": clusters,
        }
    )
    beside = None
    if null_sets:
        sets = structureless(features, null, count=null_sets, rng=generator)
        drawn = np.array([_without_each(z, as_labels(run(z), n), run)[0].min() for z in sets])
        beside = {
            "name": f"structureless ({null})",
            "p": monte_carlo_p(float(ari.min()) - 1e-12, drawn),
            "replicates": null_sets,
            "mean": float(drawn.mean()),
            "q05": float(np.quantile(drawn, 0.05)),
        }
    estimate = Estimate(
        "ari.smallest",
        float(ari.min()),
        np.nan,
        np.nan,
        0.95,
        "cluster.leave_one_out@1",
        "none",
        features.item,
        {f"{features.item}s": n},
        target="panel",
        seed=seed,
        diagnostics={"most influential": features.items[int(np.argmin(ari))]},
        null=beside,
    )
    return LeaveOneOut(table, estimate, features.item)


def _without_each(x: Array, labels: Codes, run: Callable[[Array], Any]) -> tuple[Array, Array, Codes]:
    n = x.shape[0]
    ari, jaccard, clusters = np.empty(n), np.empty(n), np.empty(n, dtype=np.intp)
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        found = as_labels(run(x[rest]), n - 1)
        before = labels[rest]
        ari[i] = INDICES["ari"].of(*without_noise(before, found))
        each = best_jaccard(contingency(before[None], found[None]))[0, :-1]
        there = np.unique(before[before >= 0])
        jaccard[i] = each[there].min() if there.size else np.nan
        clusters[i] = found.max(initial=-1) + 1
    return ari, jaccard, clusters


@dataclass(frozen=True)
class AnomalyTest:
    """Whether one item stands apart. Made by :func:`dynstat.cluster.anomaly_test`; frozen.

    Attributes
    ----------
    table : DataFrame
        A row an item, farthest first: item, distance, p.value (of a largest distance so large).
    estimate : Estimate
        ``anomaly``: the largest distance less the 95 % quantile of the largest under exchangeability.
    """

    table: pd.DataFrame
    estimate: Estimate

    @property
    def farthest(self) -> str:
        """The item at the largest distance."""
        return str(self.table["item"].iloc[0])

    def estimates(self) -> dict[str, Estimate]:
        """Return ``anomaly``."""
        return {"anomaly": self.estimate}

    def tidy(self) -> pd.DataFrame:
        """Return the table; the distance is named ``estimate``."""
        return self.table.rename(columns={"distance": "estimate"})

    def glance(self) -> pd.DataFrame:
        """Return one row: farthest, estimate, conf.low, conf.high, p.value."""
        e = self.estimate
        row = {"farthest": self.farthest, "estimate": e.value, "conf.low": e.low, "conf.high": e.high}
        return pd.DataFrame([row | {"p.value": (e.null or {})["p"]}])

    def plot(self) -> Figure:
        """Draw the distance of every item beside the 95 % quantile of the largest under exchangeability.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.agreement import distances_apart

        return distances_apart(self)

    def alt_text(self) -> str:
        """Return what the figure shows, in words and numbers."""
        null = self.estimate.null or {}
        rows = "; ".join(
            f"{r['item']} {r['distance']:.3g}, p = {r['p.value']:.2g}" for r in self.table.to_dict("records")
        )
        return (
            f"Distance of every item to the mean of the others: {rows}. 95 % of the largest distances are "
            f"below {null['q95']:.3g} with {null['name']}."
        )

    def __str__(self) -> str:
        e, null = self.estimate, self.estimate.null or {}
        return "\n".join(
            [
                "Largest leave-one-out distance",
                "",
                self.table.to_string(index=False, float_format=lambda v: f"{v:.4g}"),
                "",
                f"{self.farthest}: {null['distance']:.4g}, against {null['q95']:.4g} (95 % quantile, "
                f"{null['name']}); p = {null['p']:.3g} ({null['replicates']} permutations)",
                f"difference {e.value:.4g} [{e.low:.4g}, {e.high:.4g}] ({e.interval})",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def anomaly_test(
    units: UnitFeatures, *, permutations: int = 999, level: float = 0.95, rng: Rng = 0
) -> AnomalyTest:
    """Test whether one item lies farther from the mean of the others than exchangeable items do.

    d_i = ‖x_i − mean of x_j, j ≠ i‖ over the features; the statistic is the largest. Where items are
    exchangeable, what an item did on a unit (prompt) could have been any item's: values are dealt anew to the
    items within every unit, features built again, p = (1 + permutations with a largest distance at least as
    large)/(1 + permutations). That null is strong: any difference between items is against it, not the one of
    the farthest alone. Interval: delete-unit jackknife of d of that item, corrected for bias, t,
    the quantile held.

    Parameters
    ----------
    units : UnitFeatures
        At least three items and three units. Features of unequal scale need ``standardize=True``.
    permutations : int
        At least 99.
    level : float
    rng : Generator or int

    Raises
    ------
    DynstatError
        S403 fewer items or units; S404 arguments; S405 an item without values.

    Notes
    -----
    Origin: dynstat (claim V10). Jackknife and its correction for bias: Efron and Tibshirani 1993, chapters 10
    and 11.
    """
    check_units(units)
    check_count("permutations", permutations, 99)
    check_level(level)
    features = units.features()
    n, m = len(features), len(units.units)
    if min(n, m) < 3:
        raise DynstatError(
            "S403",
            "too few items or units",
            found=f"{n} {units.item}s, {m} {units.unit}s",
            expected="at least 3 of each",
        )
    generator, seed = as_generator(rng)
    d = _distances(features.values)
    far = int(np.argmax(d))
    drawn = np.array([_distances(_dealt(units, generator).build()).max() for _ in range(permutations)])
    q95 = float(np.quantile(drawn, 0.95))
    left = _distances(units.build(1.0 - np.eye(m)))[:, far]
    value = float(d[far]) - q95
    common: dict[str, Any] = {
        "level": level,
        "method": "cluster.anomaly@1",
        "unit": units.unit,
        "n": {f"{units.item}s": n, "units": m},
        "target": "panel",
        "seed": seed,
        "diagnostics": {"farthest": features.items[far]},
        "null": {
            "name": f"{units.item}s exchanged within every {units.unit}",
            "p": monte_carlo_p(float(d[far]) - 1e-12, drawn),
            "replicates": permutations,
            "distance": float(d[far]),
            "q95": q95,
            "mean": float(drawn.mean()),
        },
    }
    if np.isfinite(left).all():
        se = float(np.sqrt((m - 1) / m * np.sum((left - left.mean()) ** 2)))
        # Noise lengthens a distance: the jackknife takes the first order of that from the centre.
        center = value + (m - 1) * (float(d[far]) - float(left.mean()))
        how = f"delete-{units.unit} jackknife, corrected for bias, t({m - 1}), quantile held"
        estimate = Estimate.from_pivot("anomaly", value, TPivot(center, se, m - 1), interval=how, **common)
    else:
        how = f"none (a stratum holds one {units.unit})"
        estimate = Estimate("anomaly", value, np.nan, np.nan, interval=how, **common)
    order = np.argsort(-d, kind="stable")
    table = pd.DataFrame(
        {
            "item": [features.items[i] for i in order],
            "distance": d[order],
            "p.value": [monte_carlo_p(float(d[i]) - 1e-12, drawn) for i in order],
        }
    )
    return AnomalyTest(table, estimate)


def _distances(values: Array) -> Array:
    """Return the distance of every item to the mean of the others; shape (..., items, features)."""
    n = values.shape[-2]
    apart = (values - values.mean(axis=-2, keepdims=True)) * (n / (n - 1))
    return np.asarray(np.sqrt((apart * apart).sum(axis=-1)))


def _dealt(units: UnitFeatures, generator: np.random.Generator) -> UnitFeatures:
    """Return units whose values are dealt anew to the items that have them, unit by unit."""
    there = np.asarray(~np.isnan(units.values).all(axis=2))
    if there.all():
        order = np.argsort(generator.random(there.shape), axis=0)
        return replace(units, values=np.take_along_axis(units.values, order[:, :, None], axis=0))
    values = units.values.copy()
    for u in range(there.shape[1]):
        who = np.flatnonzero(there[:, u])
        values[who, u] = units.values[generator.permutation(who), u]
    return replace(units, values=values)
