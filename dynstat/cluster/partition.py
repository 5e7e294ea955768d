"""A partition of labelled items, whatever made it, and the way to make the same on other data."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .features import Features

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Labels = NDArray[np.intp]
NOISE = -1
# Modules whose clusterer(parameters, n_clusters) gives a function of a matrix to labels.
_CLUSTERERS = {
    "hierarchical": "linkage_trees",
    "kmeans": "centroids",
    "gaussian_mixture": "mixtures",
    "hdbscan": "density",
}
_TITLES = {
    "hierarchical": "Hierarchical clustering",
    "kmeans": "k-means",
    "gaussian_mixture": "Gaussian mixture",
    "hdbscan": "HDBSCAN",
    "given": "Given partition",
}


def in_order(labels: ArrayLike) -> Labels:
    """Return labels 0, 1, ... in order of first appearance, as R's ``cutree`` numbers them; −1 stays.

    Examples
    --------
    >>> in_order([7, 7, -1, 2, 7, 5]).tolist()
    [0, 0, -1, 1, 0, 2]
    """
    out: list[int] = []
    seen: dict[int, int] = {}
    for value in np.asarray(labels).tolist():
        out.append(NOISE if value == NOISE else seen.setdefault(value, len(seen)))
    return np.array(out, dtype=np.intp)


@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """Items in clusters. Made by ``hierarchical``, ``hdbscan``, ``kmeans``, ``gaussian_mixture``; frozen.

    Attributes
    ----------
    labels : ndarray of int, shape (items,)
        0, 1, ... in order of first appearance; −1 for noise.
    items : tuple of str
    method : str
        hierarchical, hdbscan, kmeans, gaussian_mixture or given.
    parameters : mapping
        What :meth:`recluster` needs.
    item : str
        What an item is, e.g. ``"model"``.
    features : Features or None
        What was clustered.
    probabilities : ndarray or None
        hdbscan: strength of membership, 0 for noise; gaussian_mixture: posterior of the item's own cluster.
    outlier_scores : ndarray or None
        hdbscan: GLOSH, 0 to 1.
    persistence : ndarray or None
        hdbscan: of every cluster, 0 to 1.
    linkage : ndarray, shape (items − 1, 4), or None
        hierarchical: scipy's. Ward's heights are R's ``ward.D2``.
    condensed_tree : DataFrame or None
        hdbscan: parent, child, lambda_val, child_size, selected, cluster.
    criterion : DataFrame or None
        What the choice of k was made from: merge heights with their jumps, or BIC by k and covariance.
    statistics : mapping
        Numbers of the method: cophenetic correlation, within sum of squares, log-likelihood, DBCV.
    seed : int or None
    """

    labels: Labels
    items: tuple[str, ...]
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    item: str = "item"
    features: Features | None = None
    probabilities: Array | None = None
    outlier_scores: Array | None = None
    persistence: Array | None = None
    linkage: Array | None = None
    condensed_tree: pd.DataFrame | None = None
    criterion: pd.DataFrame | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None

    @classmethod
    def given(
        cls, labels: ArrayLike | pd.Series, items: Sequence[str] | None = None, *, item: str = ""
    ) -> Partition:
        """Take a partition from elsewhere: labels of any kind, −1 or missing for noise.

        Parameters
        ----------
        labels : array_like or Series
            A Series brings the items in its index.
        items : sequence of str, optional
            Default: the index, or "1", "2", ...
        item : str
            What an item is. Default: the name of the index, or "item".

        Raises
        ------
        DynstatError
            S404 for labels in a table; S407 where labels and items differ in number or an item stands twice;
            S405 for no item.
        """
        if isinstance(labels, pd.Series):
            items = tuple(map(str, labels.index)) if items is None else items
            item = item or str(labels.index.name or "item")
        flat = np.asarray(labels, dtype=object)
        if flat.ndim != 1:
            raise DynstatError(
                "S404", "labels are no row", found=f"{flat.ndim} dims", expected="one label an item"
            )
        raw = pd.Series(flat)
        names = tuple(map(str, items)) if items is not None else tuple(str(i + 1) for i in range(len(raw)))
        if len(names) != len(raw) or len(set(names)) < len(names):
            raise DynstatError(
                "S407",
                "labels and items do not match",
                found=f"{len(raw)} labels, {len(set(names))} different items",
                expected="one label an item",
            )
        if not names:
            raise DynstatError("S405", "there is nothing in the partition", found="no item")
        noise = raw.isna().to_numpy() | (raw == NOISE).to_numpy()
        codes = pd.factorize(raw.where(~noise, None).astype(str))[0]
        return cls(in_order(np.where(noise, NOISE, codes)), names, "given", item=item or "item")

    @property
    def n_clusters(self) -> int:
        """Number of clusters, noise not counted."""
        return int(self.labels.max(initial=NOISE)) + 1

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Number of items in every cluster, shape (n_clusters,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.n_clusters)

    @property
    def noise(self) -> NDArray[np.bool_]:
        """Mask of the items that belong to no cluster."""
        return np.asarray(self.labels == NOISE)

    def members(self, cluster: int) -> tuple[str, ...]:
        """Return the items of a cluster; −1 gives the noise.

        Raises
        ------
        DynstatError
            S407 for a cluster that is not there.
        """
        if not NOISE <= cluster < self.n_clusters:
            raise DynstatError(
                "S407", f"no cluster {cluster}", found=cluster, expected=f"0 to {self.n_clusters - 1}, or -1"
            )
        return tuple(self.items[i] for i in np.flatnonzero(self.labels == cluster))

    def recluster(self, values: Array) -> Labels:
        """Return the labels that the same method gives on other values: array in, array out.

        k stays as it was found, also where a gap or BIC chose it; a cut by height stays at its height; random
        starts begin from the recorded seed. Values are not checked.

        Parameters
        ----------
        values : ndarray, shape (any number of items, features)

        Returns
        -------
        ndarray of int
            In order of first appearance, −1 for noise.

        Raises
        ------
        DynstatError
            S405 for fewer items than clusters; S404 for a partition that was given.
        """
        return self._clusterer(values)

    @cached_property
    def _clusterer(self) -> Callable[[Array], Labels]:
        if self.method not in _CLUSTERERS:
            raise DynstatError(
                "S404",
                "a given partition has no method to repeat",
                found=self.method,
                expected=" | ".join(_CLUSTERERS),
            )
        module = importlib.import_module(f".{_CLUSTERERS[self.method]}", __package__)
        made: Callable[[Array], Labels] = module.clusterer(self.parameters, self.n_clusters)
        return made

    def __getstate__(self) -> dict[str, Any]:
        # The function that reclusters is made anew where it is needed: functions do not travel.
        return {k: v for k, v in self.__dict__.items() if k != "_clusterer"}

    def tidy(self) -> pd.DataFrame:
        """Return a row a cluster: cluster, size, members, and persistence or mean probability; noise last."""
        rows: list[dict[str, Any]] = []
        for c in [*range(self.n_clusters), *([NOISE] if self.noise.any() else [])]:
            mask = self.labels == c
            row: dict[str, Any] = {
                "cluster": c,
                "size": int(mask.sum()),
                "members": ", ".join(self.members(c)),
            }
            if self.persistence is not None:
                row["persistence"] = float(self.persistence[c]) if c >= 0 else np.nan
            if self.probabilities is not None:
                row["probability"] = float(self.probabilities[mask].mean())
            rows.append(row)
        return pd.DataFrame(rows)

    def glance(self) -> pd.DataFrame:
        """Return one row: method, items, clusters, noise, seed and the statistics of the method."""
        row = {
            "method": self.method,
            "items": len(self.items),
            "clusters": self.n_clusters,
            "noise": int(self.noise.sum()),
            "seed": self.seed,
            **self.statistics,
        }
        return pd.DataFrame([row])

    def augment(self) -> pd.DataFrame:
        """Return a row an item: its label, cluster, and probability and outlier score where there are any."""
        out = {self.item: list(self.items), "cluster": self.labels}
        if self.probabilities is not None:
            out["probability"] = self.probabilities
        if self.outlier_scores is not None:
            out["outlier_score"] = self.outlier_scores
        return pd.DataFrame(out)

    def plot(self, **options: Any) -> Figure:
        """Draw the dendrogram, the condensed tree, or else the items by their first two components.

        Parameters
        ----------
        **options
            Of :func:`dynstat.plotting.dendrogram`, ``condensed_tree`` or ``partition_map``.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.cluster_trees import draw

        return draw(self, **options)

    def alt_text(self, **options: Any) -> str:
        """Return what :meth:`plot` shows with the same options, in words and numbers."""
        from ..plotting.cluster_trees import describe

        return describe(self, **options)

    def __str__(self) -> str:
        shown = {k: v for k, v in self.parameters.items() if v is not None}
        known = {k: v for k, v in self.statistics.items() if np.isfinite(v)}
        noise = int(self.noise.sum())
        lines = [
            f"{_TITLES.get(self.method, self.method)}: {len(self.items)} {self.item}s in {self.n_clusters} "
            f"cluster{'' if self.n_clusters == 1 else 's'}{f', {noise} noise' if noise else ''}",
        ]
        if shown:
            lines.append(", ".join(f"{k} = {v}" for k, v in shown.items()))
        if known:
            lines.append(", ".join(f"{k} = {v:.4g}" for k, v in known.items()))
        lines.append("")
        for row in self.tidy().to_dict("records"):
            name = "noise" if row["cluster"] == NOISE else f"cluster {row['cluster']}"
            kept = f", persistence {row['persistence']:.3f}" if row.get("persistence", np.nan) >= 0 else ""
            lines.append(f"{name} ({row['size']}{kept}): {row['members']}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def fewer_items(found: int, k: int, item: str = "item", what: str = "") -> DynstatError:
    """Return the error for fewer items than clusters (or than `what` needs)."""
    return DynstatError(
        "S405",
        "fewer items than clusters" if not what else f"fewer items than {what} needs",
        found=f"{found} {item}{'' if found == 1 else 's'}",
        expected=f"at least {k}, for {what or f'{k} clusters'}",
        mend="ask for fewer or smaller clusters",
    )


def check_k(k: Any, found: int, item: str = "item") -> int:
    """Return k as int, or say what is wrong with it."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise DynstatError("S404", "k is no number of clusters", found=k, expected="a whole number from 1")
    if found < k:
        raise fewer_items(found, int(k), item)
    return int(k)
