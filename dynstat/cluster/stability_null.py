"""Stability beside what data without clusters give: a Monte-Carlo test of structure."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator, monte_carlo_p
from .checks import check_count
from .null_sets import KINDS, check_kind, structureless_many
from .partition import Partition
from .reclustering import Clusterer, Reclustering, choosing, mean_jaccards
from .schemes import draw
from .stability import ClusterStability, clusterboot, matched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# Means that are equal may differ by the order of their sums.
_SAME = 1e-12
#: Hennig's words for a mean Jaccard, by their lower limits.
WORDS = ((0.85, "highly stable"), (0.75, "valid"), (0.6, "a pattern"), (0.5, "not to be trusted"))
STATISTICS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda a: np.asarray(np.nanmean(a, axis=-1)),
    "min": lambda a: np.asarray(np.nanmin(a, axis=-1)),
    "max": lambda a: np.asarray(np.nanmax(a, axis=-1)),
}


def word(jaccard: float) -> str:
    """Return Hennig's word for a mean Jaccard; it means nothing without the null's p.

    Examples
    --------
    >>> [word(v) for v in (0.5, 0.55, 0.6, 0.75, 0.85)]
    ['dissolved', 'not to be trusted', 'a pattern', 'valid', 'highly stable']
    """
    if jaccard <= 0.5:
        return "dissolved"
    return next(name for limit, name in WORDS if jaccard >= limit)


@dataclass(frozen=True, eq=False)
class StabilityTest:
    """Stability of clusters and of the clusters of structureless data. Made by `stability_test`; frozen.

    Attributes
    ----------
    stability : ClusterStability
        Of the data, with as many replicates as every set of the null.
    null : str
        A kind of :func:`dynstat.cluster.structureless`.
    statistic : {"mean", "min", "max"}
        Over the clusters' mean Jaccards.
    value, p : float
        The statistic of the data; the share of sets of the null that reach it, with the +1 rule.
    draws : ndarray, shape (null_sets,)
        The statistic in the null.
    ranked : ndarray, shape (null_sets, K)
        Mean Jaccards in the null, the most stable cluster of every set first; 0 where a set has fewer.
    seed : int or None
    """

    stability: ClusterStability
    null: str
    statistic: str
    value: float
    p: float
    draws: Array
    ranked: Array
    seed: int | None

    @property
    def partition(self) -> Partition:
        """The partition that is judged."""
        return self.stability.partition

    def estimates(self) -> dict[str, Estimate]:
        """Return ``stability.<statistic>`` and ``jaccard.<cluster>``, each with its null."""
        made = self.stability.estimates()
        out: dict[str, Estimate] = {}
        b = self.stability.replicates
        per = self.stability.jaccard.mean(axis=1)
        key = f"stability.{self.statistic}"
        # Each statistic is one of means over replicates: for the mean, that of the replicates' means.
        se = float(per.std(ddof=1) / np.sqrt(b)) if self.statistic == "mean" else float("nan")
        first = next(iter(made.values()))
        if self.statistic == "mean":
            whole = self.stability._estimate(key, per, (0.0, 1.0))
        else:
            at = int((np.argmin if self.statistic == "min" else np.argmax)(self.stability.mean))
            whole = replace(made[f"jaccard.{at}"], key=key)
            se = float(whole.diagnostics["monte_carlo_se"])
        out[key] = replace(
            whole,
            method="cluster.stability_test@1",
            n={**first.n, "clusters": self.partition.n_clusters},
            seed=self.seed,
            diagnostics={**whole.diagnostics, "monte_carlo_se": se},
            null=self._null(self.draws, self.p),
        )
        for c, (rank, p_any) in enumerate(zip(*self._ranks(), strict=True)):
            column = self.ranked[:, rank] if rank < self.ranked.shape[1] else np.zeros(len(self.draws))
            beside = self._null(column, monte_carlo_p(self.stability.mean[c] - _SAME, column))
            out[f"jaccard.{c}"] = replace(
                made[f"jaccard.{c}"],
                method="cluster.stability_test@1",
                seed=self.seed,
                null={**beside, "rank": rank + 1, "p.any": p_any},
            )
        return out

    def _ranks(self) -> tuple[list[int], list[float]]:
        mean = self.stability.mean
        rank = np.empty(mean.size, dtype=int)
        rank[np.argsort(-mean, kind="stable")] = np.arange(mean.size)
        return rank.tolist(), [monte_carlo_p(v - _SAME, self.ranked[:, 0]) for v in mean]

    def _null(self, draws: Array, p: float) -> dict[str, Any]:
        return {
            "name": KINDS[self.null],
            "kind": self.null,
            "p": p,
            # Of the sets of the null alone; another seed draws other resamples too.
            "p.se": float(np.sqrt(p * (1 - p) / draws.size)),
            "replicates": int(draws.size),
            "mean": float(draws.mean()),
            "sd": float(draws.std(ddof=1)),
            "q50": float(np.quantile(draws, 0.5)),
            "q95": float(np.quantile(draws, 0.95)),
        }

    def tidy(self) -> pd.DataFrame:
        """Return a row a cluster, the most stable first.

        Columns: cluster, size, estimate (mean Jaccard), conf.low, conf.high (Monte-Carlo), dissolved,
        recovered (counts of replicates), word (Hennig's), null.q50, null.q95 (of the null's cluster of the
        same rank), p.value (that cluster reaches this one), p.any (any cluster of a structureless set does).
        """
        made = self.estimates()
        rows = []
        for c in np.argsort(-self.stability.mean, kind="stable"):
            e, values = made[f"jaccard.{c}"], self.stability.jaccard[:, c]
            assert e.null is not None
            rows.append(
                {
                    "cluster": int(c),
                    "size": int(self.partition.sizes[c]),
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "dissolved": int(np.sum(values <= self.stability.dissolution)),
                    "recovered": int(np.sum(values > self.stability.recovery)),
                    "word": word(e.value),
                    "null.q50": e.null["q50"],
                    "null.q95": e.null["q95"],
                    "p.value": e.null["p"],
                    "p.any": e.null["p.any"],
                }
            )
        return pd.DataFrame(rows)

    def glance(self) -> pd.DataFrame:
        """Return one row: statistic, estimate, p.value, the null and its quantiles, counts, seed."""
        beside = self._null(self.draws, self.p)
        row = {
            "statistic": self.statistic,
            "estimate": self.value,
            "p.value": self.p,
            "null": self.null,
            "null.q50": beside["q50"],
            "null.q95": beside["q95"],
            "null.sets": self.draws.size,
            "replicates": self.stability.replicates,
            "scheme": self.stability.scheme,
            "items": len(self.partition.items),
            "clusters": self.partition.n_clusters,
            "seed": self.seed,
        }
        return pd.DataFrame([row])

    def plot(self) -> Figure:
        """Draw every cluster's mean Jaccard over the null's distribution of the same rank.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.cluster_stability import stability_against_null

        return stability_against_null(self)

    def alt_text(self) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.cluster_stability import alt_text

        return alt_text(self)

    @property
    def verdict(self) -> str:
        """One sentence: whether the clusters are more stable than those of structureless data."""
        n, item = len(self.partition.items), self.partition.item
        reached = int(np.sum(self.draws >= self.value))
        how = "More stable" if self.p <= 0.05 else "Not shown to be more stable"
        return (
            f"{how} than clusters of structureless data (p = {self.p:.3g}): {reached} of {self.draws.size} "
            f"structureless sets of {n} {item}s reach the {self.statistic} Jaccard of {self.value:.3f}."
        )

    def __str__(self) -> str:
        s, p = self.stability, self.partition
        return "\n".join(
            [
                f"Test of stability: {len(p.items)} {p.item}s in {p.n_clusters} clusters ({p.method})",
                f"{s.replicates} replicates ({s.scheme}) of the data and each of {self.draws.size} null sets",
                f"null: {KINDS[self.null]}",
                "",
                self.tidy().to_string(index=False, float_format=lambda v: f"{v:.3f}"),
                "",
                f"{self.statistic} Jaccard {self.value:.3f}, null 50 % {np.quantile(self.draws, 0.5):.3f}, "
                f"95 % {np.quantile(self.draws, 0.95):.3f}, p = {self.p:.3g} "
                f"(± {np.sqrt(self.p * (1 - self.p) / self.draws.size):.2g})",
                self.verdict,
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def stability_test(
    data: Any,
    partition: Partition,
    *,
    null: str = "rotation",
    statistic: str = "mean",
    null_sets: int = 499,
    replicates: int | None = None,
    scheme: str = "boot",
    subset: int | None = None,
    recluster: Clusterer | None = None,
    level: float = 0.95,
    rng: Rng = 0,
) -> StabilityTest:
    """Test whether clusters are more stable than those the same method finds in structureless data.

    Sets of the null are drawn by :func:`structureless`; each is clustered by the partition's method and
    resampled with the same draws as the data. p = (1 + sets whose statistic reaches that of the data) /
    (1 + sets).

    Which null. ``rotation`` (default) asks whether one Gaussian of any mean and covariance could have given
    this: nothing is fitted, the test is exact at every n. ``gaussian`` asks the same with a fitted covariance
    and is conservative at few items. Neither speaks of skew or long tails: items of a skewed population can
    be called structured; ``column_permuted`` keeps the margins, and calls correlation structure.

    A choice of k that was made on these data must be made on every set of the null too. A cut by gap and a
    choice by BIC are; for a k that was chosen by eye, or features that were chosen for their clusters, p is
    too small.

    Parameters
    ----------
    data : DataFrame, DataArray, Features or array
    partition : Partition
    null : {"rotation", "gaussian", "column_permuted", "uniform", "uniform_pca"}
    statistic : {"mean", "min", "max"}
        Over the clusters: of all, of the least stable, of the most stable.
    null_sets : int
        Sets of the null, at least 19.
    replicates : int, optional
        Of every set and of the data: the same number, else p would not be exact. At least 10. Default: 200
        for linkages cut at k of up to 120 items, 50 for the rest. Few resamples of few items cost power: too
        many sets of the null are found again in all of them.
    scheme : {"boot", "subset"}
    subset : int, optional
        As in :func:`clusterboot`.
    recluster : callable, optional
        Values to labels or to a Partition, in place of the partition's method.
    level : float
        Of the Monte-Carlo intervals.
    rng : Generator or int

    Returns
    -------
    StabilityTest

    Raises
    ------
    DynstatError
        S404 arguments; S405 one cluster of all items, all noise, or fewer than four items; S407 items differ.

    Notes
    -----
    Origin: the Jaccards are Hennig's (2007, Comput. Stat. Data Anal. 52: 258-271), the test against matched
    structureless sets is dynstat's; rotation is Langsrud's (2005, Stat. Comput. 15: 53-60).

    199 sets of 17 items in a linkage take .2 s, of 60 items 3 s; other methods run once for every replicate
    of every set.

    Examples
    --------
    >>> import numpy as np
    >>> from dynstat.cluster import hierarchical
    >>> cloud = np.random.default_rng(1).normal(size=(17, 3))
    >>> found = stability_test(cloud, hierarchical(cloud, "ward", k=2), null_sets=199)
    >>> bool(found.p > 0.05)
    True
    """
    check_kind(null)
    if statistic not in STATISTICS:
        raise DynstatError("S404", "unknown statistic", found=statistic, expected=" | ".join(STATISTICS))
    if scheme not in ("boot", "subset"):
        raise DynstatError("S404", "no scheme for a null", found=scheme, expected="boot | subset")
    check_count("null sets", null_sets, 19)
    if replicates is not None:
        check_count("replicates", replicates, 10)
    features = matched(data, partition)
    x = features.values
    if len(x) < 4:
        raise DynstatError("S405", "too few items for a null", found=len(x), expected="at least 4")
    if partition.n_clusters == 1 and not partition.noise.any():
        raise DynstatError(
            "S405", "one cluster holds every item: it is as stable in any data", found="1 cluster"
        )
    generator, seed = as_generator(rng)
    whole = recluster or choosing(partition)
    how = Reclustering.by(whole) if whole is not None else Reclustering.of(partition)
    draws = draw(x, scheme, replicates or (200 if how.together(len(x)) else 50), generator, subset=subset)
    with warnings.catch_warnings():
        # Said by `matched` already.
        warnings.simplefilter("ignore", DynstatWarning)
        stability = clusterboot(
            features, partition, scheme=scheme, indices=draws.items, recluster=recluster, level=level
        )
    stability = replace(stability, seed=seed)
    sets = structureless_many(x[None], null, null_sets, generator)[0]
    ranked = mean_jaccards(sets, how, draws.items)
    compute = STATISTICS[statistic]
    # A set without clusters has none that is stable.
    ranked[np.isnan(ranked).all(axis=1), 0] = 0.0
    null_draws = compute(ranked)
    ranked = np.nan_to_num(ranked)
    value = float(compute(stability.mean))
    return StabilityTest(
        stability, null, statistic, value, monte_carlo_p(value - _SAME, null_draws), null_draws, ranked, seed
    )
