"""The largest gap of a small sample in one dimension, and its exact null under several populations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Rng, as_generator

Array = NDArray[np.float64]

#: Populations of the null. Location and scale do not matter: gap over range keeps linear changes.
POPULATIONS: Mapping[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda g, shape: g.standard_normal(shape),
    "uniform": lambda g, shape: g.random(shape),
    "t3": lambda g, shape: g.standard_t(3, shape),
    "exponential": lambda g, shape: g.standard_exponential(shape),
}
_PIECE = 2_000_000


def gap_share(values: Array) -> Array:
    """Return the largest gap between neighbours over the range, along the last axis.

    Shape (..., n) to (...), between 1/(n − 1) and 1; NaN where all values are equal.
    """
    x = np.sort(values, axis=-1)
    with np.errstate(invalid="ignore"):
        share = np.diff(x, axis=-1).max(axis=-1) / (x[..., -1] - x[..., 0])
    return np.asarray(share)


def split_at_largest_gap(values: Array) -> tuple[float, NDArray[np.bool_]]:
    """Return the largest gap and the mask of the values above it; of equal gaps the lowest."""
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])
    at = int(np.argmax(gaps))
    upper = np.zeros(values.size, dtype=bool)
    upper[order[at + 1 :]] = True
    return float(gaps[at]), upper


def gap_share_null(n: int, population: str, replicates: int, rng: Rng = 0) -> Array:
    """Return gap shares of samples of size n from a population, shape (replicates,), sorted.

    Parameters
    ----------
    n : int
        At least 3.
    population : {"normal", "uniform", "t3", "exponential"}
    replicates : int
    rng : Generator or int
    """
    generator, _ = as_generator(rng)
    draw = POPULATIONS[population]
    step = max(1, _PIECE // n)
    pieces = [gap_share(draw(generator, (min(step, replicates - i), n))) for i in range(0, replicates, step)]
    return np.sort(np.concatenate(pieces))


@lru_cache(maxsize=64)
def cached_null(n: int, population: str, replicates: int, seed: int) -> Array:
    """Return :func:`gap_share_null` from a stream of its own for every population and n."""
    stream = np.random.default_rng([seed, n, list(POPULATIONS).index(population)])
    out = gap_share_null(n, population, replicates, stream)
    out.flags.writeable = False
    return out


def p_from(share: float, null: Array) -> float:
    """Return (1 + number of draws at least as large)/(1 + draws), from sorted draws.

    Digits lost in taking differences do not make a share smaller than one that is equal to it.
    """
    return float((1 + null.size - np.searchsorted(null, share * (1 - 1e-12), side="left")) / (1 + null.size))


def uniform_tail(share: float, n: int) -> float:
    """Return the exact probability that a uniform sample of size n has a gap share of at least `share`.

    Given the range, the n − 1 gaps are uniform on the simplex:
    P = Σ_j (−1)^(j+1) C(n − 1, j) (1 − j·share)₊^(n − 2). Source: David and Nagaraja 2003, section 6.4.

    Examples
    --------
    >>> round(uniform_tail(0.629, 8), 4)
    0.0183
    """
    from math import comb

    total = 0.0
    for j in range(1, n):
        if 1 - j * share <= 0:
            break
        total += (-1) ** (j + 1) * comb(n - 1, j) * (1 - j * share) ** (n - 2)
    return min(1.0, total)


def check_populations(population: str | Sequence[str]) -> tuple[str, ...]:
    """Return the populations asked for; "all" gives every one."""
    names = (population,) if isinstance(population, str) else tuple(population)
    if names == ("all",):
        return tuple(POPULATIONS)
    unknown = [n for n in names if n not in POPULATIONS]
    if unknown or not names:
        raise DynstatError(
            "S404",
            "unknown population of the null",
            found=", ".join(map(str, unknown)) or "none",
            expected=" | ".join([*POPULATIONS, "all"]),
        )
    return names
