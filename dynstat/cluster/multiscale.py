"""AU and BP of dendrogram nodes by multiscale bootstrap over features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate, TPivot
from ..inference.resample import Rng, as_generator
from .checks import check_count
from .features import Features, as_features
from .linkage_trees import cut_tree, linkage_name, linkages
from .many_cuts import LINKAGES
from .partition import Partition, check_k
from .scale_fit import FEWEST_SCALES, multiscale_fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

METHOD = "cluster.multiscale_bootstrap@1"
SCALES = tuple(float(x) for x in np.round(np.arange(0.5, 1.45, 0.1), 1))
_CHUNK = 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class MultiscaleBootstrap:
    """AU and BP for the nodes of a dendrogram. Made by :func:`pvclust`; frozen.

    Attributes
    ----------
    linkage : ndarray, shape (items − 1, 4)
        scipy's, of all features.
    items : tuple of str
    edges : DataFrame
        A row a node in order of merges, as R's: si, au, bp, se.si, se.au, se.bp, v, c, pchi.
    count : DataFrame
        Replicates, a column a scale, in which the node was there.
    scales : ndarray
        Relative sizes r, after rounding to whole features.
    replicates : ndarray of int
        Usable ones, of every scale.
    """

    linkage: Array
    items: tuple[str, ...]
    edges: pd.DataFrame
    count: pd.DataFrame
    scales: Array
    replicates: NDArray[np.intp]
    method: str
    metric: str
    item: str
    seed: int | None
    n: dict[str, int]
    notes: tuple[str, ...] = ()

    def members(self, node: int) -> tuple[str, ...]:
        """Return the items below a node, 0 for the first merge.

        Raises
        ------
        DynstatError
            S407 for a node that is not there.
        """
        if not 0 <= node < len(self.linkage):
            raise DynstatError("S407", f"no node {node}", expected=f"0 to {len(self.linkage) - 1}")
        n = len(self.items)
        below: list[int] = []
        stack = [n + node]
        while stack:
            top = stack.pop()
            if top < n:
                below.append(top)
            else:
                stack.extend(int(x) for x in self.linkage[top - n, :2])
        return tuple(self.items[i] for i in sorted(below))

    def pick(self, alpha: float = 0.95) -> tuple[tuple[str, ...], ...]:
        """Return the largest clusters with AU of at least `alpha`, the whole left out, as R's ``pvpick``."""
        good = np.flatnonzero(self.edges["au"].to_numpy()[:-1] >= alpha)[::-1]
        out: list[tuple[str, ...]] = []
        for node in good:
            mine = self.members(int(node))
            if not any(set(mine) <= set(other) for other in out):
                out.append(mine)
        return tuple(out)

    def tidy(self) -> pd.DataFrame:
        """Return a row a node: node, size, members, height, AU (``estimate``) with error and limits, BP."""
        rows = []
        for i, e in enumerate(self._estimates()):
            edge = self.edges.iloc[i]
            rows.append(
                {
                    "node": i,
                    "size": int(self.linkage[i, 3]),
                    "members": ", ".join(self.members(i)),
                    "height": float(self.linkage[i, 2]),
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "std.error": float(edge["se.au"]),
                    **{c: float(edge[c]) for c in ("bp", "se.bp", "v", "c", "pchi")},
                }
            )
        return pd.DataFrame(rows)

    def glance(self) -> pd.DataFrame:
        """Return one row: counts, linkage, metric, and how many nodes have an AU of at least .95."""
        row: dict[str, Any] = {**self.n, "linkage": self.method, "metric": self.metric}
        return pd.DataFrame([row | {"au.95": int((self.edges["au"][:-1] >= 0.95).sum()), "seed": self.seed}])

    def estimates(self) -> dict[str, Estimate]:
        """Return ``au.<node>`` for every node but the last, which holds all items."""
        return {e.key: e for e in self._estimates()[:-1]}

    def _estimates(self) -> list[Estimate]:
        out = []
        for i, row in enumerate(self.edges.to_dict("records")):
            pivot = TPivot(row["au"], row["se.au"], np.inf, bounds=(0.0, 1.0))
            made = Estimate.from_pivot(
                f"au.{i}",
                row["au"],
                pivot,
                interval="normal, Monte-Carlo error of the multiscale fit",
                method=METHOD,
                unit="feature",
                n=self.n,
                seed=self.seed,
                diagnostics={"bp": row["bp"], "pchi": row["pchi"], "members": list(self.members(i))},
            )
            out.append(made)
        return out

    def cut(self, k: int) -> Partition:
        """Return the partition of k clusters."""
        how = {"linkage": self.method, "metric": self.metric, "k": check_k(k, len(self.items), self.item)}
        labels = cut_tree(self.linkage, k)
        return Partition(labels, self.items, "hierarchical", how, self.item, linkage=self.linkage)

    def plot(self, k: int = 1) -> Figure:
        """Draw the dendrogram with AU and BP at its nodes, cut into k clusters."""
        from ..plotting.cluster_trees import dendrogram

        return dendrogram(self.cut(k), au=self.edges["au"], bp=self.edges["bp"])

    def alt_text(self, k: int = 1) -> str:
        """Return what :meth:`plot` shows, in words and numbers."""
        from ..plotting.cluster_trees import describe_dendrogram

        return describe_dendrogram(self.cut(k), au=self.edges["au"], bp=self.edges["bp"])

    def __str__(self) -> str:
        table = self.edges[["au", "bp", "se.au", "se.bp", "pchi"]].copy()
        table.insert(0, "size", self.linkage[:, 3].astype(int))
        lines = [
            f"Multiscale bootstrap over {self.n['features']} features of {self.n['items']} {self.item}s",
            f"linkage {self.method}, distance {self.metric}, {len(self.scales)} scales, "
            f"{int(self.replicates.max())} replicates each",
            "",
            table.to_string(float_format=lambda v: f"{v:.3f}"),
        ]
        return "\n".join([*lines, *([""] if self.notes else []), *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def pvclust(
    data: Any,
    *,
    method: str = "average",
    metric: str = "euclidean",
    replicates: int = 1000,
    scales: Sequence[float] = SCALES,
    rng: Rng = 0,
) -> MultiscaleBootstrap:
    """Give every node of the dendrogram of items its AU and BP by multiscale bootstrap over features.

    At every scale r, floor(n·r) of the n features are drawn with replacement, the items clustered anew, and
    counted in how many of `replicates` replicates the node is there again. AU and BP follow by
    :func:`multiscale_fit`, as in R's pvclust, where items are the columns and features the rows.

    AU corrects BP's bias towards rejecting clusters. Both treat features as exchangeable and independent
    draws, which a handful of metrics is not; with few features the scales take few values and AU is coarse.
    1 − AU is the p of "this cluster is not there", one node at a time.

    Parameters
    ----------
    data : DataFrame, DataArray or array
        Items by features; see :func:`dynstat.cluster.as_features`.
    method : str
        single, complete, average, weighted or ward.
    metric : {"euclidean", "sqeuclidean", "cityblock", "correlation", "abscor", "uncentered"}
        R's default is correlation. abscor: 1 − |correlation|; uncentered: 1 − cosine.
    replicates : int
        Replicates a scale, at least 100.
    scales : sequence of float
    rng : Generator or int

    Warns
    -----
    DynstatWarning
        Fewer than 20 features; replicates left out because a distance had no value; one scale alone.

    Raises
    ------
    DynstatError
        S404 arguments; S405 fewer than three items; S403 fewer than two features.

    Notes
    -----
    Sources: Shimodaira 2004, Ann. Stat. 32: 2616-2641; Suzuki and Shimodaira 2006, Bioinformatics 22:
    1540-1542 (pvclust 2.2-0, whose arithmetic this follows).
    """
    features = as_features(data)
    x = features.values
    n_items, p = x.shape
    name = linkage_name(method, LINKAGES)
    if n_items < 3:
        raise DynstatError("S405", "too few items for a dendrogram", found=n_items, expected="at least 3")
    if p < 2:
        raise DynstatError(
            "S403", "one feature cannot be resampled", found=features.names[0], expected="20 features or more"
        )
    check_count("replicates", replicates, 100)
    sizes = _sizes(p, scales)
    generator, seed = as_generator(rng)
    parts, finish = _parts(features, metric, name)
    whole = finish(np.ones((1, p)) @ parts)
    if not np.isfinite(whole).all():
        raise DynstatError(
            "S405",
            f"the {metric} distance of two items has no value",
            found="an item whose features are all equal",
            mend="drop it, or take euclidean distances",
        )
    tree = linkages(whole, name)[0]
    keys = _item_keys(n_items)
    nodes = _node_keys(tree[None], keys)[0]
    count = np.zeros((n_items - 1, len(sizes)), dtype=np.intp)
    usable = np.full(len(sizes), replicates, dtype=np.intp)
    step = max(1, _CHUNK // whole.shape[1])
    for s, size in enumerate(sizes):
        for start in range(0, replicates, step):
            b = min(step, replicates - start)
            weights = generator.multinomial(size, np.full(p, 1 / p), size=b).astype(np.float64)
            d = finish(weights @ parts)
            good = np.isfinite(d).all(axis=1)
            usable[s] -= b - int(good.sum())
            if good.any():
                again = _node_keys(linkages(d[good], name), keys)
                count[:, s] += np.array([np.sum(np.any(again == node, axis=1)) for node in nodes])
    r = sizes / p
    notes = _notes(p, usable, replicates, len(sizes))
    for note in notes:
        warnings.warn(note, DynstatWarning, stacklevel=2)
    # R counts a replicate without distances as one without the node.
    edges = multiscale_fit(count, r, replicates)
    columns = pd.DataFrame(count, columns=[f"r{i + 1}" for i in range(len(sizes))])
    n = {"items": n_items, "features": p, "scales": len(sizes), "replicates": replicates}
    return MultiscaleBootstrap(
        tree, features.items, edges, columns, r, usable, name, metric, features.item, seed, n, tuple(notes)
    )


def _sizes(p: int, scales: Sequence[float]) -> NDArray[np.intp]:
    """Return the numbers of features drawn: floor(p·r), each once, as pvclust takes them."""
    r = np.asarray(scales, dtype=np.float64)
    if r.ndim != 1 or r.size == 0 or not np.isfinite(r).all() or (r <= 0).any():
        raise DynstatError("S404", "scales are no list of positive numbers", found=list(scales))
    sizes = np.floor(p * r + 1e-9).astype(np.intp)
    if (sizes < 1).any():
        raise DynstatError(
            "S404", "a scale leaves no feature", found=float(r.min()), expected=f"at least 1/{p}"
        )
    return np.array(list(dict.fromkeys(sizes.tolist())), dtype=np.intp)


def _parts(features: Features, metric: str, linkage: str) -> tuple[Array, Any]:
    """Return what every feature adds to each pair's distance, and the function from sums to distances.

    All replicates are then one matrix product: counts of features by parts.
    """
    x = features.values
    i, j = np.triu_indices(len(features), 1)
    if linkage == "ward" and metric != "euclidean":
        raise DynstatError("S404", "Ward's linkage needs euclidean distances", found=metric)
    if metric in ("euclidean", "sqeuclidean", "cityblock"):
        gap = (x[i] - x[j]).T
        if metric == "cityblock":
            return np.ascontiguousarray(np.abs(gap)), lambda total: total
        if metric == "sqeuclidean":
            return np.ascontiguousarray(gap**2), lambda total: total
        return np.ascontiguousarray(gap**2), np.sqrt
    if metric not in ("correlation", "abscor", "uncentered"):
        raise DynstatError(
            "S404",
            f"unknown distance {metric!r}",
            expected="euclidean | sqeuclidean | cityblock | correlation | abscor | uncentered",
        )
    # Correlations do not see the mean of an item; taking it off keeps the digits of the sums below.
    x = x if metric == "uncentered" else x - x.mean(axis=1, keepdims=True)
    m, n = i.size, len(features)
    parts = np.concatenate([(x[i] * x[j]).T, (x**2).T, x.T, np.ones((x.shape[1], 1))], axis=1)

    def finish(total: Array) -> Array:
        cross, square, first = total[:, :m], total[:, m : m + n], total[:, m + n : m + 2 * n]
        size = total[:, -1:]
        if metric != "uncentered":
            cross = cross - first[:, i] * first[:, j] / size
            square = square - first**2 / size
            # What rounding leaves of an item that is constant in the draw is no variance.
            square = np.where(square <= 1e-12 * total[:, m : m + n], np.nan, square)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.clip(cross / np.sqrt(square[:, i] * square[:, j]), -1.0, 1.0)
        return np.asarray(1 - (np.abs(cosine) if metric == "abscor" else cosine))

    return np.ascontiguousarray(parts), finish


def _item_keys(n: int) -> NDArray[np.uint64]:
    """Return a key an item; a set of items has the XOR of theirs. Bits, or random above 64 items."""
    if n <= 64:
        return np.left_shift(np.uint64(1), np.arange(n, dtype=np.uint64))
    return np.random.default_rng(0).integers(0, 2**64, size=n, dtype=np.uint64)


def _node_keys(trees: Array, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the key of the items below every node, shape (B, n − 1)."""
    b, merges = trees.shape[0], trees.shape[1]
    n = merges + 1
    out = np.empty((b, n + merges), dtype=np.uint64)
    out[:, :n] = keys
    rows = np.arange(b)
    left, right = trees[:, :, 0].astype(np.intp), trees[:, :, 1].astype(np.intp)
    for step in range(merges):
        out[:, n + step] = out[rows, left[:, step]] ^ out[rows, right[:, step]]
    return out[:, n:]


def _notes(p: int, usable: NDArray[np.intp], replicates: int, scales: int) -> list[str]:
    notes = []
    if p < 20:
        notes.append(
            f"AU over {p} features is coarse: {scales} scales of {p} columns, and features are taken as "
            "independent draws from many"
        )
    if scales < FEWEST_SCALES:
        notes.append(f"{scales} scales are too few for AU: every node has 0 or 1")
    if (lost := int((replicates - usable).sum())) > 0:
        notes.append(f"{lost} replicates without finite distances count as without the node")
    return notes
