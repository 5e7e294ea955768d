"""Indices of agreement corrected for chance, and their exact distribution when labels are dealt at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial, prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ..inference.resample import Rng, as_generator

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Sizes = tuple[int, ...]

# Above so many ways to fill the table, p is taken by permutations.
_STATES = 20_000
# Values nearer than this are one value: sums over cells are rounded to 8 decimals when counted.
_SAME = 1e-7


def contingency(a: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:
    """Return the numbers of items in every cluster of `a` and of `b`, shape (clusters of a, of b)."""
    code_a = np.unique(np.asarray(a), return_inverse=True)[1]
    code_b = np.unique(np.asarray(b), return_inverse=True)[1]
    width = int(code_b.max(initial=-1)) + 1
    flat = np.bincount(code_a * width + code_b, minlength=(int(code_a.max(initial=-1)) + 1) * width)
    return flat.reshape(-1, width)


def rand_from_pairs(together: Array | float, rows: ArrayLike, columns: ArrayLike) -> Array:
    """Return the ARI from Σ C(n_ij, 2) and the cluster sizes of both partitions.

    ARI = (S − E)/(½(A + B) − E), A = Σ C(a_i, 2), B = Σ C(b_j, 2), E = A·B/C(n, 2); 1 where both are one
    cluster or both all single items. Source: Hubert and Arabie 1985, J. Classif. 2: 193-218.
    """
    a, b = np.asarray(rows, dtype=np.float64), np.asarray(columns, dtype=np.float64)
    pairs = a.sum() * (a.sum() - 1) / 2
    in_a, in_b = float(np.sum(a * (a - 1)) / 2), float(np.sum(b * (b - 1)) / 2)
    expected = in_a * in_b / pairs if pairs else 0.0
    top = (in_a + in_b) / 2 - expected
    s = np.asarray(together, dtype=np.float64)
    return np.ones_like(s) if top == 0 else np.asarray((s - expected) / top)


def information_from_cells(sums: Array | float, rows: ArrayLike, columns: ArrayLike) -> Array:
    """Return the AMI from Σ n_ij log n_ij and the cluster sizes of both partitions.

    AMI = (MI − E[MI])/(½(H_a + H_b) − E[MI]), E under the hypergeometric model; 1 where both are one
    cluster or both all single items. Source: Vinh, Epps and Bailey 2010, JMLR 11: 2837-2854.
    """
    a, b = np.asarray(rows, dtype=np.int64), np.asarray(columns, dtype=np.int64)
    s = np.asarray(sums, dtype=np.float64)
    n = int(a.sum())
    if (a.size == b.size == 1) or (a.size == b.size == n):
        return np.ones_like(s)
    ha, hb = (np.log(n) - float(special.xlogy(c, c).sum()) / n for c in (a, b))
    information = s / n - np.log(n) + ha + hb
    chance = expected_information(tuple(sorted(a.tolist())), tuple(sorted(b.tolist())))
    top = (ha + hb) / 2 - chance
    # As scikit-learn: a top of rounding size keeps its sign and divides no zero.
    tiny = np.finfo(np.float64).eps
    top = min(top, -tiny) if top < 0 else max(top, tiny)
    return np.asarray((information - chance) / top)


@lru_cache(maxsize=256)
def expected_information(rows: Sizes, columns: Sizes) -> float:
    """Return the expected mutual information (nats) of partitions of these sizes, dealt at random."""
    n, log_factorial, total = sum(rows), special.gammaln(np.arange(sum(rows) + 1) + 1.0), 0.0
    f = log_factorial
    for a in set(rows):
        for b in set(columns):
            k = np.arange(max(1, a + b - n), min(a, b) + 1)
            log_p = f[a] + f[b] + f[n - a] + f[n - b] - f[n] - f[k] - f[a - k] - f[b - k] - f[n - a - b + k]
            term = float(np.sum(k / n * np.log(n * k / (a * b)) * np.exp(log_p)))
            total += rows.count(a) * columns.count(b) * term
    return total


@dataclass(frozen=True)
class Index:
    """An index that is a function of a sum over the cells of the table, the sizes held."""

    name: str
    cell: Callable[[Any], Any]
    value: Callable[[Any, ArrayLike, ArrayLike], Array]

    def of(self, a: ArrayLike, b: ArrayLike) -> float:
        table = contingency(a, b)
        return float(self.value(self.cell(table).sum(), table.sum(axis=1), table.sum(axis=0)))


INDICES: Mapping[str, Index] = {
    "ari": Index("ari", lambda t: t * (t - 1) / 2, rand_from_pairs),
    "ami": Index("ami", lambda t: special.xlogy(t, t), information_from_cells),
}


@dataclass(frozen=True)
class PermutationNull:
    """The values an index takes when labels are dealt to items at random, with their probabilities.

    Attributes
    ----------
    values, probability : ndarray
        In increasing order; draws of equal weight where not `exact`.
    exact : bool
        Every dealing counted, or `replicates` drawn.
    """

    values: Array
    probability: Array
    exact: bool
    replicates: int
    seed: int | None

    def p(self, observed: float) -> float:
        """Return the probability of at least `observed`; by the +1 rule where drawn."""
        reached = self.values >= observed - _SAME
        if self.exact:
            return min(1.0, float(self.probability[reached].sum()))
        return float((1 + reached.sum()) / (1 + self.values.size))

    @property
    def smallest_p(self) -> float:
        """The p of the largest value there is."""
        return self.p(float(self.values[-1]))

    def quantile(self, q: float) -> float:
        """Return the smallest value whose cumulated probability reaches q."""
        at = np.searchsorted(np.cumsum(self.probability), q - 1e-12)
        return float(self.values[min(int(at), self.values.size - 1)])

    def critical(self, alpha: float) -> float:
        """Return the smallest value with p at most alpha; NaN where none reaches it."""
        candidates = np.unique(self.values)
        tail = np.array([self.p(v) for v in candidates])
        ok = np.flatnonzero(tail <= alpha)
        return float(candidates[ok[0]]) if ok.size else float("nan")


def permutation_null(
    a: ArrayLike, b: ArrayLike, index: str = "ari", *, permutations: int = 9999, rng: Rng = 0
) -> PermutationNull:
    """Return the distribution of an index when the labels of `b` are dealt to the items at random.

    Exact where the ways to fill the contingency table cluster by cluster are few enough (any n in the tens
    with clusters of ordinary number): every dealing is counted, by the sizes that are left in `b` after every
    cluster of `a`. Else permutations are drawn.
    """
    table = contingency(a, b)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    counted = _count_tables(tuple(sorted(rows.tolist())), tuple(sorted(columns.tolist())), index)
    if counted is not None:
        sums, probability = counted
        values = INDICES[index].value(sums, rows, columns)
        order = np.argsort(values, kind="stable")
        return PermutationNull(values[order], probability[order], True, 0, None)
    generator, seed = as_generator(rng)
    sums = _drawn(np.asarray(a), np.asarray(b), INDICES[index], permutations, generator)
    values = np.sort(INDICES[index].value(sums, rows, columns))
    return PermutationNull(values, np.full(permutations, 1 / permutations), False, permutations, seed)


def _drawn(a: Array, b: Array, index: Index, permutations: int, generator: np.random.Generator) -> Array:
    code_a, code_b = (np.unique(v, return_inverse=True)[1] for v in (a, b))
    ka, kb = int(code_a.max()) + 1, int(code_b.max()) + 1
    out = np.empty(permutations)
    step = max(1, 2_000_000 // max(ka * kb, code_a.size))
    for start in range(0, permutations, step):
        size = min(step, permutations - start)
        dealt = generator.permuted(np.tile(code_b, (size, 1)), axis=1)
        flat = (np.arange(size)[:, None] * ka + code_a) * kb + dealt
        tables = np.bincount(flat.ravel(), minlength=size * ka * kb).reshape(size, -1)
        out[start : start + size] = index.cell(tables).sum(axis=1)
    return out


@lru_cache(maxsize=256)
def _count_tables(rows: Sizes, columns: Sizes, index: str) -> tuple[Array, Array] | None:
    """Return the sums over cells that occur and their probabilities, None where they are too many.

    One cluster of `a` after the other takes its items from the clusters of `b`. What is still to come
    depends on the sizes left alone, in any order; ways are counted in whole numbers.
    """
    n = sum(rows)
    cell = INDICES[index].cell
    cost = [round(float(cell(np.float64(k))), 10) for k in range(n + 1)]
    states: dict[Sizes, dict[float, int]] = {columns: {0.0: 1}}
    for size in sorted(rows, reverse=True)[:-1]:
        after: dict[Sizes, dict[float, int]] = {}
        work = 0
        for left, sums in states.items():
            for taken, ways in _takings(left, size):
                work += len(sums)
                if work > 20 * _STATES:
                    return None
                rest = tuple(sorted(r - t for r, t in zip(left, taken, strict=True)))
                extra = sum(cost[t] for t in taken)
                into = after.setdefault(rest, {})
                for s, w in sums.items():
                    key = round(s + extra, 8)
                    into[key] = into.get(key, 0) + w * ways
        states = after
        if sum(map(len, states.values())) > _STATES:
            return None
    final: dict[float, int] = {}
    for left, sums in states.items():
        extra = sum(cost[t] for t in left)
        for s, w in sums.items():
            key = round(s + extra, 8)
            final[key] = final.get(key, 0) + w
    total = factorial(n) // prod(factorial(r) for r in rows)
    keys = sorted(final)
    return np.array(keys), np.array([final[k] / total for k in keys])


def _takings(left: Sizes, size: int) -> Sequence[tuple[Sizes, int]]:
    """Return the ways to take `size` items from groups of the sizes left, with their numbers of ways."""
    out: list[tuple[Sizes, int]] = []
    room = [*np.cumsum(left[::-1])[::-1].tolist(), 0]

    def go(at: int, still: int, taken: list[int], ways: int) -> None:
        if len(out) > _STATES:
            return
        if at == len(left):
            out.append((tuple(taken), ways))
            return
        for t in range(max(0, still - room[at + 1]), min(left[at], still) + 1):
            go(at + 1, still - t, [*taken, t], ways * comb(left[at], t))

    go(0, size, [], 1)
    return out
