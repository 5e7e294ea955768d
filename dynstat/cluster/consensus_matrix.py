"""Consensus clustering: who stays together in subsamples of items, beside structureless data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator
from .checks import check_count
from .coclustering import together
from .features import Features, as_features
from .linkage_trees import cut_tree, linkage_name, linkages
from .many_cuts import LINKAGES, cut_many
from .null_sets import KINDS, check_kind, structureless_many
from .partition import Partition, check_k

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

METHOD = "cluster.consensus@1"
_GRID = np.linspace(0, 1, 101)
_CHUNK = 20_000


def pac(matrix: ArrayLike, low: float = 0.1, high: float = 0.9) -> float:
    """Return the proportion of ambiguous clustering: the share of pairs with `low` < consensus < `high`.

    Parameters
    ----------
    matrix : array_like, shape (n, n)
        Consensus or co-clustering; pairs without a value are left out.
    low, high : float

    Returns
    -------
    float
        0 (every pair is nearly always or nearly never together) to 1. NaN where no pair has a value. It falls
        as k nears n whatever the data, so it is read beside its null.

    Raises
    ------
    DynstatError
        S404 for a matrix that is not square, or limits out of order.

    Notes
    -----
    Source: Şenbabaoğlu, Michailidis and Li 2014, Sci. Rep. 4: 6207.

    Examples
    --------
    >>> pac([[1, 0.95, 0.5], [0.95, 1, 0], [0.5, 0, 1]])
    0.3333333333333333
    """
    m = np.asarray(matrix, dtype=np.float64)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or m.shape[0] < 2:
        raise DynstatError(
            "S404", "no matrix of pairs", found=f"shape {m.shape}", expected="n × n, n at least 2"
        )
    if not 0 <= low < high <= 1:
        raise DynstatError(
            "S404", "limits out of order", found=f"{low}, {high}", expected="0 <= low < high <= 1"
        )
    return float(_pac(m[np.triu_indices(len(m), 1)][None], low, high)[0])


@dataclass(frozen=True, eq=False, repr=False)
class Consensus:
    """Consensus of pairs for several k. Made by :func:`consensus`; frozen.

    Attributes
    ----------
    matrices : mapping of k to ndarray, shape (items, items)
        Share of the subsamples holding both items in which they lie in one cluster.
    table : DataFrame
        A row a k: k, pac, null.median, null.low, null.high, p, area, delta.area.
    partitions : mapping of k to Partition
        Average linkage of 1 − consensus, cut into k.
    grid, curves, bands
        Consensus values, cumulative share of pairs, and 95 % band of structureless data, by k.
    """

    matrices: Mapping[int, Array]
    table: pd.DataFrame
    partitions: Mapping[int, Partition]
    grid: Array
    curves: Mapping[int, Array]
    bands: Mapping[int, tuple[Array, Array]]
    items: tuple[str, ...]
    item: str
    method: str
    metric: str
    null: str
    seed: int | None
    n: dict[str, int]

    def matrix(self, k: int) -> pd.DataFrame:
        """Return the consensus matrix of k clusters with its labels."""
        return pd.DataFrame(self.matrices[self._known(k)], list(self.items), list(self.items))

    def clusters(self, k: int) -> pd.DataFrame:
        """Return a row a cluster: cluster, size, members, consensus.

        Consensus of a cluster: the mean over its pairs; NaN for a single item.
        """
        p, m = self.partitions[self._known(k)], self.matrices[k]
        rows = []
        for c in range(k):
            inside = np.flatnonzero(p.labels == c)
            i, j = np.triu_indices(inside.size, 1)
            mean = float(np.nanmean(m[inside[i], inside[j]])) if i.size else np.nan
            rows.append(
                {"cluster": c, "size": inside.size, "members": ", ".join(p.members(c)), "consensus": mean}
            )
        return pd.DataFrame(rows)

    def item_consensus(self, k: int) -> pd.DataFrame:
        """Return a row an item and a column a cluster: mean consensus with the cluster's other items."""
        p, m = self.partitions[self._known(k)], self.matrices[k].copy()
        np.fill_diagonal(m, np.nan)
        out = np.full((len(self.items), k), np.nan)
        for c in range(k):
            part = m[:, p.labels == c]
            some = np.isfinite(part).any(axis=1)
            out[some, c] = np.nanmean(part[some], axis=1)
        return pd.DataFrame(out, pd.Index(self.items, name=self.item), [f"cluster {c}" for c in range(k)])

    def tidy(self) -> pd.DataFrame:
        """Return :attr:`table`, PAC named ``estimate``, p ``p.value``."""
        return self.table.rename(columns={"pac": "estimate", "p": "p.value"})

    def glance(self) -> pd.DataFrame:
        """Return one row: counts, linkage, null, the k with the smallest p and that p."""
        best = self.table.loc[self.table["p"].idxmin()]
        row = {**self.n, "linkage": self.method, "null": self.null, "k.least.p": int(best["k"])}
        return pd.DataFrame([row | {"least.p": float(best["p"]), "seed": self.seed}])

    def estimates(self) -> dict[str, Estimate]:
        """Return ``pac.<k>`` with its null; there is no interval, as the items themselves are the sample."""
        out = {}
        for row in self.table.to_dict("records"):
            key = f"pac.{int(row['k'])}"
            out[key] = Estimate(
                key,
                row["pac"],
                np.nan,
                np.nan,
                level=0.95,
                method=METHOD,
                interval="none (beside its null)",
                unit=self.item,
                n=self.n,
                seed=self.seed,
                diagnostics={"area": row["area"], "delta_area": row["delta.area"]},
                null={
                    "name": KINDS[self.null],
                    "p": row["p"],
                    "replicates": self.n["null_sets"],
                    "mean": row["null.mean"],
                    "median": row["null.median"],
                },
            )
        return out

    def plot(self) -> Figure:
        """Draw the distribution of consensus for every k, with the band of structureless data."""
        from ..plotting.coclustering import consensus_distributions

        found = dict(zip(self.table["k"], self.table["pac"], strict=True))
        return consensus_distributions(self.grid, self.curves, self.bands, pac=found)

    def plot_matrix(self, k: int) -> Figure:
        """Draw the consensus matrix of k clusters."""
        from ..plotting.coclustering import heat_map

        tree = self.partitions[self._known(k)].linkage
        return heat_map(self.matrices[k], self.items, linkage=tree, label="consensus over subsamples")

    def alt_text(self) -> str:
        """Return what :meth:`plot` shows, in words and numbers."""
        from ..plotting.coclustering import describe_consensus

        by_k = self.table.set_index("k")
        return describe_consensus(by_k["pac"].to_dict(), by_k["null.median"].to_dict(), by_k["p"].to_dict())

    def _known(self, k: int) -> int:
        if k not in self.matrices:
            raise DynstatError("S404", f"k = {k} was not made", expected=", ".join(map(str, self.matrices)))
        return k

    def __str__(self) -> str:
        n = self.n
        return "\n".join(
            [
                f"Consensus of {n['items']} {self.item}s: {n['replicates']} subsamples of {n['drawn']}, "
                f"{self.method} linkage",
                f"null: {KINDS[self.null]}; {n['null_sets']} sets, p small where PAC is lower than theirs",
                "",
                self.table.drop(columns="null.mean").to_string(
                    index=False, float_format=lambda v: f"{v:.3g}"
                ),
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def consensus(
    data: Any,
    k: int | Sequence[int] = (2, 3, 4, 5, 6),
    *,
    method: str = "average",
    metric: str = "euclidean",
    share: float = 0.8,
    replicates: int = 500,
    null_sets: int = 199,
    null: str = "rotation",
    null_replicates: int = 100,
    rng: Rng = 0,
) -> Consensus:
    """Cluster subsamples of items for several k; hold the clearness of partitions against structureless data.

    ``M_k(i, j)`` is the share of the subsamples holding i and j in which they lie in one of k clusters. For
    every k: its distribution over pairs, PAC (:func:`pac`), the area under the distribution
    ``A_k = ∫₀¹ CDF_k(x) dx``, and its relative growth from the k before (of the first k: A_k itself). Monti's
    sum over the sorted values, Σ (x_i − x_{i−1}) CDF(x_i), comes to the same with many pairs; where all are 0
    or 1 it is 1 whatever the shares.

    No k is chosen: growth of the area and low PAC single out some k in any data. ``p``: the share, with the
    data counted in, of structureless sets whose PAC, over the same subsamples, is at most that of the data;
    under the rotation null it is exact for one Gaussian population, for each k by itself. Over several k,
    hold the smallest p against level / number of k.

    Parameters
    ----------
    data : DataFrame, DataArray, array or UnitFeatures
        Items by features.
    k : int or sequence of int
        Numbers of clusters, from 2.
    method, metric : str
        Of the subsamples: single, complete, average, weighted or ward.
    share : float
        Of the items in a subsample, drawn without replacement.
    replicates : int
        Subsamples, at least 50.
    null_sets : int
        Structureless sets, at least 19.
    null : str
        A kind of :func:`structureless`.
    null_replicates : int
        Subsamples a structureless set; p compares them with the same first ones of the data.
    rng : Generator or int

    Raises
    ------
    DynstatError
        S404 arguments; S405 fewer items in a subsample than clusters.

    Notes
    -----
    Source: Monti, Tamayo, Mesirov and Golub 2003, Machine Learning 52: 91-118. The null and
    its p are dynstat's.
    """
    features = as_features(data)
    name = linkage_name(method, LINKAGES)
    check_kind(null)
    n = len(features)
    check_count("replicates", replicates, 50)
    check_count("null sets", null_sets, 19)
    if not 50 <= null_replicates <= replicates:
        raise DynstatError(
            "S404", "null_replicates out of range", found=null_replicates, expected=f"50 to {replicates}"
        )
    if not 0 < share < 1:
        raise DynstatError("S404", "share must lie between 0 and 1", found=share)
    asked: Any = [k] if np.ndim(k) == 0 else k
    wanted = sorted({check_count("clusters", v, 2) for v in asked})
    if not wanted:
        raise DynstatError("S404", "no numbers of clusters", found=k, expected="whole numbers from 2")
    drawn = int(round(share * n))
    if drawn < 3:
        raise DynstatError("S405", "too few items in a subsample", found=drawn, expected="at least 3")
    check_k(wanted[-1], drawn, f"{features.item} in a subsample")
    generator, seed = as_generator(rng)
    subsets = np.sort(generator.random((replicates, n)).argsort(axis=1)[:, :drawn], axis=1)
    own = _matrices(features.values[None], subsets, wanted, name, metric)[:, 0]
    first = _pairs(_matrices(features.values[None], subsets[:null_replicates], wanted, name, metric)[:, 0])
    beside = np.empty((len(wanted), null_sets, n * (n - 1) // 2))
    step = max(1, _CHUNK // null_replicates)
    for start in range(0, null_sets, step):
        count = min(step, null_sets - start)
        some = structureless_many(features.values[None], null, count, generator)[0]
        made = _matrices(some, subsets[:null_replicates], wanted, name, metric)
        beside[:, start : start + count] = _pairs(made)
    rows, curves, bands, parts = [], {}, {}, {}
    before = np.nan
    for at, k in enumerate(wanted):
        values = _pairs(own[at])
        null_pac, compared = _pac(beside[at]), _pac(first[at][None])[0]
        area = _area(values)
        rows.append(
            {
                "k": k,
                "pac": float(_pac(values[None])[0]),
                "null.median": float(np.median(null_pac)),
                "null.mean": float(null_pac.mean()),
                "null.low": float(np.quantile(null_pac, 0.025)),
                "null.high": float(np.quantile(null_pac, 0.975)),
                "p": float((1 + np.sum(null_pac <= compared + 1e-12)) / (1 + null_sets)),
                "area": area,
                "delta.area": area if at == 0 else (area - before) / before,
            }
        )
        before = area
        curves[k] = _distribution(values[None])[0]
        low, high = np.quantile(_distribution(beside[at]), [0.025, 0.975], axis=0)
        bands[k] = (low, high)
        parts[k] = _partition(own[at], k, features)
    counts = {"items": n, "drawn": drawn, "replicates": replicates, "null_sets": null_sets}
    return Consensus(
        {k: own[at] for at, k in enumerate(wanted)},
        pd.DataFrame(rows),
        parts,
        _GRID,
        curves,
        bands,
        features.items,
        features.item,
        name,
        metric,
        null,
        seed,
        counts | {"null_replicates": null_replicates},
    )


def _matrices(sets: Array, subsets: NDArray[np.intp], ks: Sequence[int], method: str, metric: str) -> Array:
    """Return consensus matrices of many sets over the same subsamples, shape (K, sets, n, n)."""
    c, n, p = sets.shape
    b, drawn = subsets.shape
    values = sets[:, subsets].reshape(c * b, drawn, p)
    labels = cut_many(values, ks, method, metric).reshape(len(ks), c, b, drawn)
    inside = np.zeros((b, n))
    np.put_along_axis(inside, subsets, 1.0, axis=1)
    count = inside.T @ inside
    out = np.empty((len(ks), c, n, n))
    for at in range(len(ks)):
        whole = np.full((c, b, n), -1, dtype=np.intp)
        np.put_along_axis(whole, np.broadcast_to(subsets, (c, b, drawn)), labels[at], axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[at] = together(whole) / count
    return out


def _pairs(matrices: Array) -> Array:
    i, j = np.triu_indices(matrices.shape[-1], 1)
    return np.asarray(matrices[..., i, j])


def _pac(pairs: Array, low: float = 0.1, high: float = 0.9) -> Array:
    """Return the share of ambiguous pairs of every row, pairs without a value left out."""
    known = np.isfinite(pairs).sum(axis=1)
    between = ((pairs > low + 1e-12) & (pairs < high - 1e-12)).sum(axis=1)
    return np.asarray(np.where(known > 0, between / np.maximum(known, 1), np.nan))


def _area(pairs: Array) -> float:
    """Return ∫₀¹ CDF(x) dx, which is 1 less the mean."""
    return float(1 - np.nanmean(pairs))


def _distribution(pairs: Array) -> Array:
    """Return the cumulative share of pairs at every value of the grid, shape (rows, grid)."""
    out = np.empty((pairs.shape[0], _GRID.size))
    for row, values in enumerate(pairs):
        x = np.sort(values[np.isfinite(values)])
        out[row] = np.searchsorted(x, _GRID + 1e-12, side="right") / max(x.size, 1)
    return out


def _partition(matrix: Array, k: int, features: Features) -> Partition:
    away = 1 - np.nan_to_num(_pairs(matrix))
    tree = linkages(away[None], "average")[0]
    how = {"linkage": "average", "metric": "1 − consensus", "k": k}
    return Partition(cut_tree(tree, k), features.items, "hierarchical", how, features.item, linkage=tree)
