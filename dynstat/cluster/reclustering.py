"""The same clustering again, on resampled items of one data set or of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from .jaccard import ABSENT, best_jaccard, contingency
from .many_cuts import LINKAGES, cut_many
from .partition import Partition
from .schemes import Draws

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Clusterer = Callable[[Array], Any]

#: Above this many items one call of scipy a replicate is faster than steps over all replicates together.
_FEW = 120
# Labels held at once.
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Reclustering:
    """How labels are made from values.

    Attributes
    ----------
    k : int
        Clusters asked for; sets of at most k items stay single items. 0 where the method finds it.
    linkage : str or None
        Set where many sets can be cut at once.
    run : callable
        Values to labels, −1 for noise.
    first : callable
        Values to the partition that is judged: a choice of k is made anew there.
    """

    k: int
    linkage: str | None
    run: Clusterer
    first: Callable[[Array], tuple[Codes, Reclustering]]

    @classmethod
    def of(cls, partition: Partition) -> Reclustering:
        """Take the method of a partition; k stays as it was found."""
        parameters = partition.parameters
        k = 0 if partition.method in ("hdbscan", "given") else partition.n_clusters
        if parameters.get("height") is not None:
            k = 0
        many = (
            partition.method == "hierarchical"
            and parameters["linkage"] in LINKAGES
            and parameters.get("metric", "euclidean") == "euclidean"
            and k > 0
        )
        made = cls(
            k,
            parameters["linkage"] if many else None,
            partition.recluster,
            lambda x: (as_labels(partition.recluster(x), len(x)), made),
        )
        return made

    @classmethod
    def by(cls, recluster: Clusterer) -> Reclustering:
        """Take a function of values to labels, or to a :class:`Partition` (then k is chosen anew by it)."""

        def first(x: Array) -> tuple[Codes, Reclustering]:
            found = recluster(x)
            if isinstance(found, Partition) and found.method != "given":
                return found.labels, cls.of(found)
            return as_labels(found, len(x)), made

        made = cls(0, None, recluster, first)
        return made

    def together(self, n: int) -> bool:
        """Whether many sets of n items are clustered at once."""
        return self.linkage is not None and n <= _FEW

    def labels(self, x: Array, draws: Draws) -> tuple[Codes, Codes]:
        """Cluster every replicate.

        Returns
        -------
        items, labels : ndarray of int, shape (B, m)
            The item at every position (any where not compared) and its label, −2 where not compared.
        """
        n = len(x)
        if self.together(n):
            assert self.linkage is not None
            if draws.values is None and (draws.once or draws.items.shape[1] < n):
                labels = cut_many(x[None], self.k, self.linkage, present=draws.present(n))[0]
                return np.broadcast_to(np.arange(n), labels.shape), labels
            values = x[draws.items] if draws.values is None else draws.values
            labels = cut_many(values, self.k, self.linkage)
            return draws.items, np.where(draws.items < 0, ABSENT, labels)
        items = draws.items.copy()
        out = np.full(items.shape, ABSENT, dtype=np.intp)
        for b, row in enumerate(items):
            drawn = np.unique(row) if draws.once else row
            values = x[drawn] if draws.values is None else draws.values[b]
            items[b, : drawn.size] = drawn
            out[b, : drawn.size] = self._one(values)
        return items, np.where(items < 0, ABSENT, out)

    def _one(self, values: Array) -> Codes:
        # Too few different items to form the clusters: each is one.
        if len(values) <= self.k:
            return np.arange(len(values))
        if self.linkage is not None:
            return _cut_one(values, self.k, self.linkage)
        return as_labels(self.run(values), len(values))


def _cut_one(values: Array, k: int, linkage: str) -> Codes:
    """Return k clusters of one set, labels in no order: what `recluster` gives, without numbering it."""
    from scipy.cluster import hierarchy

    n = len(values)
    tree = hierarchy.linkage(values, linkage)
    above = np.arange(2 * n - 1)
    merged = tree[: n - k, :2].astype(np.intp)
    above[merged] = np.arange(n, 2 * n - k)[:, None]
    # Every step doubles the distance that is looked up, until all are at their top.
    while True:
        higher = above[above]
        if np.array_equal(higher, above):
            break
        above = higher
    tops = np.zeros(2 * n - 1, dtype=np.intp)
    tops[above[:n]] = 1
    return np.asarray((np.cumsum(tops) - 1)[above[:n]])


def choosing(partition: Partition) -> Clusterer | None:
    """Return values to Partition by the same method, its choice of k made anew; None where k was given."""
    parameters = partition.parameters
    if partition.method == "hierarchical" and parameters.get("gap"):
        from .linkage_trees import hierarchical

        linkage, metric = parameters["linkage"], parameters["metric"]
        return lambda x: hierarchical(x, linkage, gap=True, metric=metric)
    if partition.method == "gaussian_mixture" and partition.criterion is not None:
        from .mixtures import gaussian_mixture

        table = partition.criterion
        k = sorted({int(v) for v in table["k"]})
        shapes = list(dict.fromkeys(table["covariance"]))
        if len(k) > 1 or len(shapes) > 1:
            n_init, seed = parameters["n_init"], parameters["seed"]
            return lambda x: gaussian_mixture(x, k, covariance=shapes, n_init=n_init, rng=seed)
    return None


def as_labels(found: Any, n: int) -> Codes:
    """Return labels 0, 1, ... with −1 for noise from what a clustering function gave.

    Raises
    ------
    DynstatError
        S404 where they are not one whole number an item.
    """
    raw = np.asarray(found.labels if isinstance(found, Partition) else found)
    if raw.shape != (n,) or raw.dtype.kind not in "iu":
        raise DynstatError(
            "S404",
            "the clustering function gave no labels",
            found=f"{raw.dtype} of shape {raw.shape}",
            expected=f"{n} whole numbers, -1 for noise",
        )
    out = np.full(n, -1, dtype=np.intp)
    inside = raw >= 0
    if inside.any():
        out[inside] = np.unique(raw[inside], return_inverse=True)[1]
    return out


def mean_jaccards(x: Array, how: Reclustering, items: Codes) -> Array:
    """Return the mean Jaccard of the clusters of many data sets, the most stable first.

    Every set is clustered whole and in every resample (items drawn several times are used once).

    Parameters
    ----------
    x : ndarray, shape (M, n, p)
    how : Reclustering
    items : ndarray of int, shape (B, m)
        Items of every resample, the same for all sets.

    Returns
    -------
    ndarray, shape (M, K)
        NaN beyond the clusters of a set; one cluster of all items is none.
    """
    m, n, _ = x.shape
    draws = Draws(items, once=True)
    if not how.together(n):
        rows = []
        for one in x:
            try:
                reference, inner = how.first(one)
            except DynstatError as error:
                # Nothing there for the method to find: structureless sets may be so.
                if error.code != "S405":
                    raise
                reference, inner = np.full(n, -1, dtype=np.intp), how
            if reference.min() == reference.max():
                rows.append(np.empty(0))
            else:
                rows.append(_means(*inner.labels(one, draws), reference))
        out = np.full((m, max(1, *(r.size for r in rows))), np.nan)
        for i, row in enumerate(rows):
            out[i, : row.size] = -np.sort(-row)
        return out
    assert how.linkage is not None
    present = draws.present(n)
    b = len(present)
    reference = cut_many(x, how.k, how.linkage)
    out = np.empty((m, how.k))
    step = max(1, _CHUNK // (b * n))
    for start in range(0, m, step):
        some = slice(start, start + step)
        labels = cut_many(x[some], how.k, how.linkage, present=present)
        table = contingency(np.repeat(reference[some], b, axis=0), labels.reshape(-1, n))
        found = best_jaccard(table)[:, :-1].reshape(len(labels), b, -1).mean(axis=1)
        out[some] = -np.sort(-found, axis=1)
    return out


def _means(items: Codes, labels: Codes, reference: Codes) -> Array:
    table = contingency(reference[items], labels)
    return np.asarray(best_jaccard(table)[:, :-1].mean(axis=0))
