"""Calibration of the tests of one dimension, of agreement and of one item apart; cases of `structure`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dynstat.cluster.chance import INDICES, permutation_null
from dynstat.cluster.influence import anomaly_test
from dynstat.cluster.spacings import POPULATIONS, gap_share, gap_share_null
from dynstat.cluster.unimodality import dip_null, dip_statistic
from dynstat.cluster.unit_features import UnitFeatures

Array = NDArray[np.float64]
Run = Callable[[int, np.random.Generator], Mapping[str, float]]
Rule = Literal["at most", "within", "shown"]
ALPHA = 0.05
DRAWS = 19_999


def p_of(statistic: Array, null: Array) -> Array:
    """Return Monte-Carlo p of many statistics against one sorted null."""
    reached = null.size - np.searchsorted(null, statistic * (1 - 1e-12), side="left")
    return np.asarray((1 + reached) / (1 + null.size))


def gap_under(
    population: str, nulls: tuple[str, ...], n: int, seeds: int, count: int, rng: np.random.Generator
) -> Mapping[str, float]:
    """Return how often the largest gap is significant under every one of the nulls.

    With `seeds`, cells are means of so many replicates, whose noise has half the spread of the cells.
    """
    x = POPULATIONS[population](rng, (count, n))
    if seeds:
        x = x + rng.normal(0, 0.5, (count, n, seeds)).mean(axis=2)
    p = np.max([p_of(gap_share(x), gap_share_null(n, null, DRAWS, rng)) for null in nulls], axis=0)
    return {"rejected": float(np.mean(p <= ALPHA))}


def gap_power(
    apart: float, nulls: tuple[str, ...], count: int, rng: np.random.Generator
) -> Mapping[str, float]:
    """Return how often two normal groups of three and five cells are found under every one of the nulls."""
    x = rng.standard_normal((count, 8)) + apart * (np.arange(8) < 3)
    p = np.max([p_of(gap_share(x), gap_share_null(8, null, DRAWS, rng)) for null in nulls], axis=0)
    return {"rejected": float(np.mean(p <= ALPHA))}


def dip_under(population: str, n: int, count: int, rng: np.random.Generator) -> Mapping[str, float]:
    """Return how often the dip is significant."""
    x = POPULATIONS[population](rng, (count, n))
    return {"rejected": float(np.mean(p_of(dip_statistic(x), dip_null(n, 9999, rng)) <= ALPHA))}


def rand_at_random(
    n: int, clusters: tuple[int, int], index: str, count: int, rng: np.random.Generator
) -> Mapping[str, float]:
    """Return how often two partitions that know nothing of each other agree beyond chance."""
    hits = 0
    for _ in range(count):
        a, b = (rng.integers(0, k, n) for k in clusters)
        hits += permutation_null(a, b, index).p(INDICES[index].of(a, b)) <= ALPHA
    return {"rejected": hits / count}


def item_apart(items: int, units: int, count: int, rng: np.random.Generator) -> Mapping[str, float]:
    """Return how often one of exchangeable items is said to stand apart; units differ in level."""
    names, labels = tuple(map(str, range(items))), tuple(map(str, range(units)))
    hits = 0
    for _ in range(count):
        level = rng.normal(0, 2, (1, units, 1))
        values = level + rng.standard_t(3, (items, units, 3)) * rng.gamma(2, size=(1, units, 1))
        test = anomaly_test(UnitFeatures(values, names, labels, ("x", "y", "z")), permutations=99, rng=rng)
        hits += (test.estimate.null or {})["p"] <= ALPHA
    return {"rejected": hits / count}


def lines() -> list[tuple[str, Rule, Run, int, int]]:
    """Return name, rule, function, and the counts of the full and the quick run of every case."""
    out: list[tuple[str, Rule, Run, int, int]] = []
    every = tuple(POPULATIONS)
    for n in (8, 17):
        for population in every:
            run = partial(gap_under, population, (population,), n, 0)
            out.append((f"largest gap of {n}, {population}, its own null", "within", run, 10_000, 2000))
        for population in every[1:]:
            run = partial(gap_under, population, ("normal",), n, 0)
            out.append((f"largest gap of {n}, {population}, null normal", "shown", run, 10_000, 0))
        for population in every:
            run = partial(gap_under, population, every, n, 0)
            out.append((f"largest gap of {n}, {population}, all four nulls", "at most", run, 10_000, 0))
    run = partial(gap_under, "normal", ("normal",), 8, 3)
    out.append(("largest gap of 8 means of 3 seeds, normal, its own null", "within", run, 10_000, 2000))
    for apart in (5.0, 7.8, 12.0):
        for nulls in (("normal",), every):
            word = nulls[0] if len(nulls) == 1 else "all four"
            run = partial(gap_power, apart, nulls)
            out.append((f"power, 3 + 5 cells {apart:g} SD apart, largest gap, {word}", "shown", run, 4000, 0))
    for n in (8, 17, 60):
        out.append((f"dip of {n}, uniform", "within", partial(dip_under, "uniform", n), 4000, 1000))
        for population in ("normal", "t3", "exponential"):
            run = partial(dip_under, population, n)
            out.append((f"dip of {n}, {population}", "shown", run, 4000, 0))
    for index in INDICES:
        run = partial(rand_at_random, 17, (3, 4), index)
        out.append((f"{index} of 17 items in 3 and 4 clusters", "at most", run, 2000, 300))
    out.append(("one of 8 items apart, 20 units", "within", partial(item_apart, 8, 20), 1500, 150))
    return out
