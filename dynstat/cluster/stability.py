"""Bootstrapped stability: how well every cluster is found again in resampled data."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate, TPivot
from ..inference.resample import Rng, as_generator
from .checks import check_count, check_level, check_partition
from .features import Features, as_features
from .jaccard import ABSENT, adjusted_rand_of, best_jaccard, contingency
from .partition import Partition
from .reclustering import Clusterer, Reclustering
from .schemes import SCHEMES, draw, given

Array = NDArray[np.float64]

#: Fewest replicates from which a mean is worth giving.
_LEAST = 10


@dataclass(frozen=True, eq=False)
class ClusterStability:
    """Jaccard of every cluster in every replicate. Made by :func:`dynstat.cluster.clusterboot`; frozen.

    Attributes
    ----------
    partition : Partition
        The clusters that are looked for again.
    jaccard : ndarray, shape (replicates, clusters)
    noise : ndarray, shape (replicates,), or None
        Jaccard of the noise with noise, where the partition holds any.
    rand : ndarray, shape (replicates,)
        Adjusted Rand index of the whole partition on the items of the replicate; noise is one cluster more.
    scheme : str
    multiple : bool
        Items drawn several times were kept as several.
    dissolution, recovery : float
        A cluster is dissolved where its Jaccard is at most the first, recovered where above the second.
    level : float
    seed : int or None
    """

    partition: Partition
    jaccard: Array
    noise: Array | None
    rand: Array
    scheme: str
    multiple: bool
    dissolution: float
    recovery: float
    level: float
    seed: int | None

    @property
    def replicates(self) -> int:
        """Number of replicates."""
        return len(self.jaccard)

    @property
    def mean(self) -> Array:
        """Mean Jaccard a cluster, as ``bootmean`` of fpc."""
        return np.asarray(self.jaccard.mean(axis=0))

    def estimates(self) -> dict[str, Estimate]:
        """Return ``jaccard.<cluster>``, ``jaccard.noise`` where there is noise, and ``rand``.

        Intervals are Monte-Carlo: of the mean over endless resamples of these very items. They say nothing of
        other items, and nothing of what structureless data would give: that is what
        :func:`dynstat.cluster.stability_test` is for.
        """
        columns = {f"jaccard.{c}": self.jaccard[:, c] for c in range(self.jaccard.shape[1])}
        if self.noise is not None:
            columns["jaccard.noise"] = self.noise
        bounds = dict.fromkeys(columns, (0.0, 1.0)) | {"rand": (-1.0, 1.0)}
        return {
            key: self._estimate(key, values, bounds[key])
            for key, values in {**columns, "rand": self.rand}.items()
        }

    def _estimate(self, key: str, values: Array, bounds: tuple[float, float]) -> Estimate:
        b = values.size
        se = float(values.std(ddof=1) / np.sqrt(b))
        return Estimate.from_pivot(
            key,
            float(values.mean()),
            TPivot(float(values.mean()), se, b - 1, bounds=bounds),
            level=self.level,
            method="cluster.stability@1",
            interval=f"Monte-Carlo, t({b - 1}): the mean over endless resamples of these items",
            unit=self.partition.item,
            n={f"{self.partition.item}s": len(self.partition.items), "replicates": b},
            target="sample",
            seed=self.seed,
            diagnostics={"scheme": self.scheme, "monte_carlo_se": se},
        )

    def tidy(self) -> pd.DataFrame:
        """Return a row a cluster, then noise and the whole partition.

        Columns: cluster, size, estimate (mean Jaccard; adjusted Rand for ``all``), conf.low, conf.high
        (Monte-Carlo), q05, median (over replicates), dissolved, recovered (counts).
        """
        rows = []
        noise = int(self.partition.noise.sum())
        for key, e in self.estimates().items():
            name = key.removeprefix("jaccard.")
            values = (
                self.rand if key == "rand" else self.noise if name == "noise" else self.jaccard[:, int(name)]
            )
            assert values is not None
            whole = key == "rand"
            rows.append(
                {
                    "cluster": "all (adjusted Rand)" if whole else name,
                    "size": len(self.partition.items)
                    if whole
                    else noise
                    if name == "noise"
                    else int(self.partition.sizes[int(name)]),
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "q05": float(np.quantile(values, 0.05)),
                    "median": float(np.median(values)),
                    "dissolved": pd.NA if whole else int(np.sum(values <= self.dissolution)),
                    "recovered": pd.NA if whole else int(np.sum(values > self.recovery)),
                }
            )
        return pd.DataFrame(rows)

    def glance(self) -> pd.DataFrame:
        """Return one row: scheme, replicates, items, clusters, noise, least, mean, largest Jaccard, rand."""
        mean = self.mean
        row = {
            "scheme": self.scheme,
            "replicates": self.replicates,
            "items": len(self.partition.items),
            "clusters": self.partition.n_clusters,
            "noise": int(self.partition.noise.sum()),
            "least": float(mean.min()),
            "mean": float(mean.mean()),
            "largest": float(mean.max()),
            "rand": float(self.rand.mean()),
            "seed": self.seed,
        }
        return pd.DataFrame([row])

    def plot(self) -> Any:
        """Draw the mean Jaccard of every cluster over its distribution in the replicates.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.cluster_stability import replicates

        return replicates(self)

    def alt_text(self) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.cluster_stability import describe_replicates

        return describe_replicates(self)

    def __str__(self) -> str:
        p = self.partition
        table = self.tidy()
        return "\n".join(
            [
                f"Cluster stability: {len(p.items)} {p.item}s in {p.n_clusters} clusters"
                + (f", {int(p.noise.sum())} noise" if p.noise.any() else "")
                + f" ({p.method})",
                f"{self.replicates} replicates, {self.scheme}: {SCHEMES[self.scheme]}"
                + (" (several times where drawn so)" if self.multiple else ""),
                f"mean Jaccard with Monte-Carlo {100 * self.level:g} % limits; dissolved: Jaccard <= "
                f"{self.dissolution:g}; recovered: > {self.recovery:g}",
                "",
                table.to_string(index=False, float_format=lambda v: f"{v:.3f}", na_rep=""),
                "",
                "Data without clusters reach high values too: stability_test() gives the null beside.",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def clusterboot(
    data: Any,
    partition: Partition,
    *,
    replicates: int = 100,
    scheme: str = "boot",
    subset: int | None = None,
    multiple: bool = False,
    indices: ArrayLike | None = None,
    perturbed: ArrayLike | None = None,
    recluster: Clusterer | None = None,
    dissolution: float = 0.5,
    recovery: float = 0.75,
    level: float = 0.95,
    rng: Rng = 0,
) -> ClusterStability:
    """Cluster changed data again and again, and see how well every cluster is found, as R's ``clusterboot``.

    Of cluster C in one replicate: max over its clusters D of |C ∩ D| / |C ∪ D|, on the items that are in the
    replicate; 0 where none of C is. Noise is compared with noise only.

    Schemes. ``boot``: items drawn with replacement, each used once (several times with ``multiple``).
    ``subset``: `subset` items without replacement. ``noise``: every item replaced with chance .05 by noise,
    uniform within 4 standard deviations along principal axes; only the others are compared. ``jitter``:
    normal noise on every item, its standard deviation along a principal axis the 5 % quantile of the gaps
    between neighbours. ``bojit``: boot with ``multiple``, and jitter.

    Parameters
    ----------
    data : DataFrame, DataArray, Features or array
        What the partition was made from.
    partition : Partition
    replicates : int
        At least 10.
    scheme : {"boot", "subset", "noise", "jitter", "bojit"}
    subset : int, optional
        Items in a subset. Default: half, rounded down.
    multiple : bool
        boot: keep items drawn several times as several.
    indices : array_like of int, shape (replicates, items drawn), optional
        Draws made elsewhere, in place of random ones; from 0. With `perturbed`, −1 marks a position that is
        clustered and not compared.
    perturbed : array_like, shape (replicates, items drawn, features), optional
        Changed values made elsewhere.
    recluster : callable, optional
        Values to labels (−1 for noise), in place of the partition's own method. Needed where the partition
        was given.
    dissolution, recovery : float
        Limits of the counts.
    level : float
    rng : Generator or int

    Returns
    -------
    ClusterStability
        It names no cluster "stable": see :func:`dynstat.cluster.stability_test`.

    Warns
    -----
    DynstatWarning
        One cluster that holds every item.

    Raises
    ------
    DynstatError
        S404 arguments, indices out of range or of the wrong shape; S405 all items are noise, or too few;
        S407 data and partition do not hold the same items.

    Notes
    -----
    Sources: Hennig 2007, Comput. Stat. Data Anal. 52: 258-271; Hennig 2008, J. Multivar. Anal. 99: 1154-1176.

    Examples
    --------
    >>> import numpy as np
    >>> from dynstat.cluster import hierarchical
    >>> x = np.random.default_rng(0).normal(size=(12, 2)) + np.repeat([[0], [9]], 6, axis=0)
    >>> found = clusterboot(x, hierarchical(x, "ward", k=2), replicates=50)
    >>> found.mean.round(2).tolist()
    [1.0, 1.0]
    """
    features = matched(data, partition)
    x = features.values
    if scheme not in SCHEMES:
        raise DynstatError("S404", "unknown scheme", found=scheme, expected=" | ".join(SCHEMES))
    check_level(level)
    if partition.n_clusters == 1 and not partition.noise.any():
        warnings.warn(
            "one cluster holds every item: it is found again in any data", DynstatWarning, stacklevel=2
        )
    if indices is None and perturbed is None:
        check_count("replicates", replicates, _LEAST)
        if subset is not None and not 1 < subset < len(x):
            raise DynstatError("S404", "no such subset", found=subset, expected=f"2 to {len(x) - 1} items")
        generator, seed = as_generator(rng)
        draws = draw(x, scheme, replicates, generator, subset=subset, multiple=multiple)
    else:
        seed = None
        draws = given(x, scheme, indices, perturbed, multiple)
        check_count("replicates", len(draws.items), 2)
    how = Reclustering.by(recluster) if recluster is not None else Reclustering.of(partition)
    items, labels = how.labels(x, draws)
    table = contingency(np.where(labels == ABSENT, ABSENT, partition.labels[items]), labels)
    found = best_jaccard(table)
    return ClusterStability(
        partition,
        found[:, :-1],
        found[:, -1] if partition.noise.any() else None,
        adjusted_rand_of(table),
        scheme,
        multiple or scheme == "bojit",
        dissolution,
        recovery,
        level,
        seed,
    )


def matched(data: Any, partition: Partition) -> Features:
    """Return the features of the items of a partition, checked.

    Raises
    ------
    DynstatError
        S404 for what is no partition; S405 all items are noise; S407 data and partition do not hold the same
        items.
    """
    check_partition(partition)
    features = as_features(data)
    same_items(features, partition)
    if partition.n_clusters == 0:
        raise DynstatError(
            "S405", "all items are noise: there is no cluster to look for", found=partition.method
        )
    return features


def same_items(features: Features, partition: Partition) -> None:
    """Raise S407 where features and a partition are not of the same items, in one order."""
    # Rows of a plain array have numbers for names: those are matched by place.
    counted = tuple(str(i + 1) for i in range(len(features)))
    named = features.items != counted
    if len(features) != len(partition.items) or (named and features.items != partition.items):
        raise DynstatError(
            "S407",
            "data and partition do not hold the same items",
            found=f"{len(features)} {features.item}s: {', '.join(features.items[:4])}, ...",
            expected=f"{len(partition.items)}, in this order: {', '.join(partition.items[:4])}, ...",
        )
