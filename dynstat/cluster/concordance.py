"""How far two partitions agree, corrected for chance, with the exact p of no agreement."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import AdjustedDrawsPivot, Estimate
from ..inference.resample import Rng, as_generator
from .chance import INDICES, permutation_null
from .checks import check_count, check_level, check_resampled
from .coclustering import recluster_many
from .partition import NOISE, Partition
from .unit_features import UnitFeatures

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class PairedLabels:
    """Two partitions of the same items as labels, noise dealt with."""

    a: Codes
    b: Codes
    first: Codes  # a with noise as it was
    matched: Codes  # b in the order of a, noise as it was
    items: int
    noise: int
    how: str


def paired_labels(a: Any, b: Any, noise: str = "single") -> PairedLabels:
    """Return the labels of two partitions item by item.

    Partitions and Series are matched by their items; arrays by place.

    Parameters
    ----------
    noise : {"single", "drop"}
        Items that are noise (−1) in either: each a cluster of its own, or left out.

    Raises
    ------
    DynstatError
        S407 different items; S403 fewer than three items; S404 an unknown way with noise.
    """
    if noise not in ("single", "drop"):
        raise DynstatError("S404", "unknown way with noise", found=noise, expected="single | drop")
    first, second = _partition(a), _partition(b)
    named = [hasattr(v, "items") and not isinstance(v, list | tuple | np.ndarray) for v in (a, b)]
    labels = second.labels
    if all(named) and first.items != second.items:
        if set(first.items) != set(second.items):
            apart = sorted(set(first.items) ^ set(second.items))
            raise DynstatError(
                "S407",
                "the partitions are of different items",
                found=", ".join(apart[:6]) + (", ..." if len(apart) > 6 else ""),
                expected="the same items in both",
                mend="keep the items they share",
            )
        place = {name: i for i, name in enumerate(second.items)}
        labels = labels[[place[name] for name in first.items]]
    if labels.size != first.labels.size:
        raise DynstatError(
            "S407",
            "the partitions differ in length",
            found=f"{first.labels.size} and {labels.size}",
            expected="the same items in both",
        )
    bad = (first.labels == NOISE) | (labels == NOISE)
    x, y = without_noise(first.labels, labels, noise)
    if x.size < 3:
        raise DynstatError(
            "S403",
            "too few items to compare",
            found=f"{x.size} items" + (f", {int(bad.sum())} noise left out" if noise == "drop" else ""),
            expected="at least 3",
        )
    words = "noise as single items" if noise == "single" else "noise left out"
    return PairedLabels(x, y, first.labels, labels, int(x.size), int(bad.sum()), words)


def _partition(value: Any) -> Partition:
    return value if isinstance(value, Partition) else Partition.given(_series(value))


def _series(value: Any) -> Any:
    import pandas as pd

    return pd.Series(value) if isinstance(value, Mapping) else value


def without_noise(a: Codes, b: Codes, how: str = "single") -> tuple[Codes, Codes]:
    """Return labels of the same items with noise (−1) as clusters of one, or dropped from both."""
    if how == "drop":
        kept = (a != NOISE) & (b != NOISE)
        return a[kept], b[kept]
    return _alone(a), _alone(b)


def _alone(labels: Codes) -> Codes:
    out, bad = labels.copy(), labels == NOISE
    out[bad] = labels.max(initial=-1) + 1 + np.arange(bad.sum())
    return out


def adjusted_rand(a: Any, b: Any, **options: Any) -> Estimate:
    """Return the adjusted Rand index of two partitions, with its permutation p and, given draws, an interval.

    1 for the same partition, 0 on average when labels are dealt at random. Equal to scikit-learn's and
    mclust's.

    Parameters
    ----------
    a, b : Partition, Series, mapping of item to label, or array_like
        The same items, at least three.
    draws : array_like of int, shape (B, items), optional
        Labels of `a` in replicates of a bootstrap of units inside the items (prompts), reclustered.
    draws_b : array_like of int, shape (B, items), optional
        Labels of `b` in the same replicates, where `b` was made from the same units.
    units : UnitFeatures or int
        What `a` was made from: units are drawn anew and its method repeated. Or the number of units behind
        `draws`.
    replicates : int
        Of `UnitFeatures`, at least 99.
    unit : str
        What the units behind `draws` are.
    noise : {"single", "drop"}
    permutations : int
        Where p is not exact.
    rng : Generator or int
    level : float

    Returns
    -------
    Estimate
        ``ari``. The null beside it: p (one-sided), exact or drawn, the smallest p that these cluster sizes
        allow, and the smallest index that reaches .05. Without `units` there is no interval: one partition of
        each kind says nothing of its error, and a jackknife over items would hold the clusters as found.

    Notes
    -----
    The interval speaks of the partition that features without noise of units would give. Noise only takes
    from agreement: with unstable partitions the ARI of 17 items was .15 where .31 is true, and the upper
    limits (.95) of the plain percentile covered in 0 to 100 % of data sets. So the upper half of the
    replicates is divided by the self-agreement of the partition, the mean index of its replicates with
    itself: limits covered in 98 to 100 %, one-sided, in seven settings at self-agreements of .24 to .73, and
    in 85 % at .25 where 1 was true; below .4 a warning says so. A partition that does not agree with itself
    has an upper limit near 1 and can bound nothing. Origin dynstat.

    Raises
    ------
    DynstatError
        S403 fewer than three items; S404 arguments; S407 different items.

    Examples
    --------
    >>> e = adjusted_rand([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1])
    >>> round(e.value, 3), round(e.null["p"], 3)
    (0.324, 0.4)
    """
    return compare("ari", a, b, **options)


def adjusted_mutual_information(a: Any, b: Any, **options: Any) -> Estimate:
    """Return the adjusted mutual information of two partitions; see :func:`adjusted_rand` for all options.

    Normalised by the mean of the entropies. Equal to scikit-learn's. It weighs small clusters more than the
    ARI does.
    """
    return compare("ami", a, b, **options)


def compare(
    index: str,
    a: Any,
    b: Any,
    *,
    draws: ArrayLike | None = None,
    draws_b: ArrayLike | None = None,
    units: UnitFeatures | int | None = None,
    replicates: int = 999,
    unit: str = "prompt",
    noise: str = "single",
    permutations: int = 9999,
    rng: Rng = 0,
    level: float = 0.95,
    key: str = "",
) -> Estimate:
    """Return an index of agreement; :func:`adjusted_rand` says how."""
    check_count("permutations", permutations, 99)
    check_level(level)
    pair = paired_labels(a, b, noise)
    value = INDICES[index].of(pair.a, pair.b)
    generator, seed = as_generator(rng)
    null = permutation_null(pair.a, pair.b, index, permutations=permutations, rng=generator)
    beside = {
        "name": "labels dealt to items at random",
        "p": null.p(value),
        "exact": null.exact,
        "replicates": null.replicates,
        "q95": null.quantile(0.95),
        "smallest p": null.smallest_p,
        "smallest index at .05": null.critical(0.05),
        "largest index": float(null.values[-1]),
    }
    counts = {"items": pair.items, "clusters a": len(set(pair.a)), "clusters b": len(set(pair.b))}
    notes: dict[str, Any] = {"noise": f"{pair.noise} items, {pair.how}"}
    common: dict[str, Any] = {
        "level": level,
        "method": "cluster.agreement@1",
        "target": "panel",
        "seed": seed if draws is not None or units is not None or not null.exact else None,
        "diagnostics": notes,
        "null": beside,
    }
    if isinstance(units, UnitFeatures):
        draws, unit, many = _reclustered(a, units, replicates, generator), units.unit, len(units.units)
    elif draws is not None and units is None:
        raise DynstatError("S404", "the number of units is not said", expected="units=")
    else:
        many = units or 0
    if draws is None:
        why = "none (one partition of each kind; give units)"
        return Estimate(key or index, value, np.nan, np.nan, interval=why, unit="item", n=counts, **common)
    if many < 2:
        raise DynstatError("S403", "one unit cannot be resampled", where=unit, found=many)
    moved, again = _moved(index, draws, draws_b, noise, pair)
    notes |= {"replicates": len(moved), "self-agreement": again}
    if again < 0.4:
        warnings.warn(
            f"the partition agrees with its own replicates at {again:.2f} only: its agreement with others is "
            "not known, and the interval may be too short",
            DynstatWarning,
            stacklevel=3,
        )
    pivot = AdjustedDrawsPivot(tuple(_attenuated(value, moved, again).tolist()), many)
    how = (
        f"bootstrap of {many} units of {unit}, expanded percentile, upper half over the self-agreement "
        f"{again:.2f} of the replicates"
    )
    return Estimate.from_pivot(
        key or index, value, pivot, interval=how, unit=unit, n=counts | {"units": many}, **common
    )


def _attenuated(value: float, draws: Array, again: float) -> Array:
    """Return draws whose upper half allows for what noise takes from agreement.

    A partition found from noisy features agrees less with anything than the one without noise would, about
    by the factor that its replicates agree with itself: index(found, b) ≈ index(true, b)·index(found, true).
    """
    ordered = np.sort(draws)
    half = ordered.size // 2
    low, high = np.minimum(ordered[:half], value), np.maximum(ordered[half:], value)
    factor = max(again, 1e-3)
    return np.concatenate([low, np.where(high > 0, np.minimum(high / factor, 1.0), high)])


def _reclustered(a: Any, units: UnitFeatures, replicates: int, rng: Rng) -> Codes:
    check_count("replicates", replicates, 99)
    if not isinstance(a, Partition) or a.items != units.items:
        raise DynstatError(
            "S407",
            "the first partition was not made from these units",
            found=type(a).__name__,
            expected=f"a Partition of {', '.join(units.items[:4])}, ...",
        )
    check_resampled(units)
    sets = units.build(units.resampler().weights(replicates, rng))
    good = np.isfinite(sets).all(axis=(1, 2))
    if good.mean() < 0.5:
        raise DynstatError(
            "S403",
            f"in most replicates an item has no {units.unit} left",
            found=f"{int((~good).sum())} of {replicates} replicates",
            mend="drop the items that few units have",
        )
    return recluster_many(a, sets[good])


def _moved(
    index: str, draws: ArrayLike, draws_b: ArrayLike | None, noise: str, pair: PairedLabels
) -> tuple[Array, float]:
    """Return the index in every replicate, and how far replicates agree with what they replicate."""
    first = np.asarray(draws)
    other = np.tile(pair.matched, (len(first), 1)) if draws_b is None else np.asarray(draws_b)
    if first.ndim != 2 or first.shape != other.shape or first.shape[1] != pair.matched.size:
        raise DynstatError(
            "S407",
            "draws are of other items",
            found=f"{first.shape} and {other.shape}",
            expected=f"(B, {pair.matched.size})",
        )
    of = INDICES[index].of
    moved = np.array([of(*without_noise(x, y, noise)) for x, y in zip(first, other, strict=True)])
    again = float(np.mean([of(*without_noise(x, pair.first, noise)) for x in first]))
    if draws_b is not None:
        again *= float(np.mean([of(*without_noise(y, pair.matched, noise)) for y in other]))
    return moved, min(again, 1.0)
