"""Deal labels anew within blocks: at random, or in every possible way where those are few."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Arrangements:
    """Ways to deal the labels.

    Attributes
    ----------
    labels : ndarray, shape (B, items)
        The label of every item; in exact enumeration the observed one is among them.
    exact : bool
        Whether these are all.
    total : float
        How many different ones there are (inf where too many to count).
    """

    labels: NDArray[np.int16]
    exact: bool
    total: float


def count_arrangements(labels: Codes, blocks: Codes) -> float:
    """Return in how many different ways the labels can be dealt within their blocks."""
    log = 0.0
    for block in np.unique(blocks):
        sizes = np.bincount(labels[blocks == block])
        log += math.lgamma(sizes.sum() + 1) - sum(math.lgamma(s + 1) for s in sizes)
    return float(round(math.exp(log))) if log < 30 else math.inf


def arrange(
    labels: Codes, blocks: Codes, permutations: int, rng: np.random.Generator, most: int | None = None
) -> Arrangements:
    """Deal the labels of the items anew within their blocks.

    Every arrangement is made once where there are at most `most` (default: `permutations`); otherwise
    `permutations` are drawn at random.
    """
    total = count_arrangements(labels, blocks)
    if total <= (permutations if most is None else most):
        return Arrangements(np.array(list(_every(labels, blocks)), dtype=np.int16), True, total)
    small = labels.astype(np.int16)
    if blocks.min() == blocks.max():
        return Arrangements(rng.permuted(np.tile(small, (permutations, 1)), axis=1), False, total)
    order = np.argsort(blocks, kind="stable")
    _, rank = np.unique(blocks[order], return_inverse=True)
    # Sorting block number + uniform noise permutes within blocks, all permutations at once.
    drawn = np.argsort(rank + rng.random((permutations, labels.size)), axis=1)
    out = np.empty((permutations, labels.size), dtype=np.int16)
    out[:, order] = small[order][drawn]
    return Arrangements(out, False, total)


def _every(labels: Codes, blocks: Codes) -> Iterator[Codes]:
    members = [np.flatnonzero(blocks == b) for b in np.unique(blocks)]
    ways = [list(_multiset(tuple(sorted(labels[m].tolist())))) for m in members]
    for chosen in itertools.product(*ways):
        out = np.empty(labels.size, dtype=np.intp)
        for m, way in zip(members, chosen, strict=True):
            out[m] = way
        yield out


def _multiset(items: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the different orders of sorted items."""
    if not items:
        yield ()
        return
    for first in sorted(set(items)):
        rest = list(items)
        rest.remove(first)
        for tail in _multiset(tuple(rest)):
            yield (first, *tail)


def group_tables(labels: NDArray[np.int16], counts: Array, groups: int) -> Array:
    """Return the counts of the groups, shape (B, groups, features).

    Parameters
    ----------
    labels : ndarray, shape (B, items)
    counts : ndarray, shape (items, features)
    groups : int
    """
    out = np.empty((labels.shape[0], groups, counts.shape[1]))
    for g in range(groups - 1):
        out[:, g] = (labels == g).astype(np.float64) @ counts
    # What is dealt out is always the whole: the last group is what the others leave.
    out[:, -1] = counts.sum(axis=0) - out[:, :-1].sum(axis=1)
    return out


@dataclass(frozen=True)
class NullDraws:
    """Draws of one statistic under a null, and the p they give to the value observed."""

    draws: Array
    observed: float
    exact: bool

    @property
    def p(self) -> float:
        """Share of arrangements at least as large where all were made; (1 + hits)/(1 + draws) otherwise."""
        # Equal tables summed in another order differ in the last digit.
        hits = np.sum(self.draws >= self.observed - 1e-9 * max(1.0, abs(self.observed)))
        if self.exact:
            return float(hits / self.draws.size)
        return float((1 + hits) / (1 + self.draws.size))

    @property
    def smallest_p(self) -> float:
        """The smallest p that any data with this arrangement of labels can get from these draws."""
        if not self.exact:
            return 1 / (1 + self.draws.size)
        top = float(self.draws.max())
        return float(np.mean(self.draws >= top - 1e-9 * max(1.0, abs(top))))

    def summary(self, name: str) -> dict[str, object]:
        """Return the null as an Estimate carries it."""
        return {
            "name": name,
            "p": self.p,
            "replicates": int(self.draws.size),
            "exact": self.exact,
            "smallest_p": self.smallest_p,
            "mean": float(self.draws.mean()),
            "sd": float(self.draws.std(ddof=1)) if self.draws.size > 1 else float("nan"),
            "q95": float(np.quantile(self.draws, 0.95, method="higher")),
        }
