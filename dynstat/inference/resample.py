"""The one resampler: units, strata and weights; bootstrap, jackknife and permutation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Rng = np.random.Generator | int | None


def as_generator(rng: Rng) -> tuple[np.random.Generator, int | None]:
    """Return a generator and the seed to record (None for a generator made elsewhere).

    A missing seed is drawn once and recorded, so that every result can be made again.
    """
    if isinstance(rng, np.random.Generator):
        return rng, None
    if rng is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    elif isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        seed = int(rng)
    else:
        raise DynstatError(
            "S404",
            "rng is a numpy Generator or a seed",
            found=repr(rng),
            expected="a Generator, or an integer from 0",
        )
    return np.random.default_rng(seed), seed


@dataclass(frozen=True)
class Resampler:
    """Resample whole units, within strata where given.

    Parameters
    ----------
    units : array_like, shape (n,)
        Label of the exchangeable unit of every row.
    strata : array_like, shape (n,), optional
        Units are drawn within strata; a unit lies in one stratum only.
    """

    units: NDArray[np.intp]
    levels: tuple[object, ...]
    stratum_of: NDArray[np.intp]

    @classmethod
    def of(cls, units: ArrayLike, strata: ArrayLike | None = None) -> Resampler:
        """Build a resampler from the unit (and stratum) label of every row."""
        labels, codes = np.unique(np.asarray(units), return_inverse=True)
        stratum = np.zeros(labels.size, dtype=np.intp)
        if strata is not None:
            _, s = np.unique(np.asarray(strata), return_inverse=True)
            stratum[codes] = s
            if not np.array_equal(stratum[codes], s):
                raise DynstatError(
                    "S404", "a unit lies in more than one stratum", expected="units within strata"
                )
        return cls(codes.astype(np.intp), tuple(labels.tolist()), stratum)

    @property
    def n_units(self) -> int:
        """Number of exchangeable units."""
        return len(self.levels)

    def _by_stratum(self) -> list[NDArray[np.intp]]:
        return [np.flatnonzero(self.stratum_of == s) for s in np.unique(self.stratum_of)]

    def weights(self, replicates: int, rng: Rng = None) -> NDArray[np.int64]:
        """Return bootstrap counts of units, shape (replicates, n_units), drawn within strata."""
        generator, _ = as_generator(rng)
        out = np.zeros((replicates, self.n_units), dtype=np.int64)
        for members in self._by_stratum():
            k = members.size
            out[:, members] = generator.multinomial(k, np.full(k, 1 / k), size=replicates)
        return out

    def bootstrap(self, replicates: int, rng: Rng = None) -> Iterator[NDArray[np.intp]]:
        """Yield row indices of `replicates` bootstrap samples of whole units."""
        rows = [np.flatnonzero(self.units == u) for u in range(self.n_units)]
        for counts in self.weights(replicates, rng):
            yield np.concatenate([rows[u] for u in np.repeat(np.arange(self.n_units), counts)])

    def jackknife_groups(self) -> list[NDArray[np.intp]]:
        """Return the groups of a delete-group jackknife: one unit of every stratum each.

        Strata must be of equal size, so that a deleted group leaves the balance as it was.
        """
        strata = self._by_stratum()
        sizes = {m.size for m in strata}
        if len(sizes) != 1:
            raise DynstatError(
                "S403",
                "strata hold unequal numbers of units",
                found=sorted(sizes),
                expected="one size",
                mend="drop units to the smallest stratum, or jackknife without strata",
            )
        return [np.array([m[g] for m in strata], dtype=np.intp) for g in range(sizes.pop())]

    def without(self, group: Sequence[int] | NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the indices of the rows that belong to none of the units in `group`."""
        return np.flatnonzero(~np.isin(self.units, np.asarray(group)))

    def permutations(self, replicates: int, rng: Rng = None) -> Iterator[NDArray[np.intp]]:
        """Yield permutations of unit indices within strata, shape (n_units,)."""
        generator, _ = as_generator(rng)
        for _ in range(replicates):
            order = np.arange(self.n_units)
            for members in self._by_stratum():
                order[members] = generator.permutation(members)
            yield order


def product_weights(
    factors: Sequence[ArrayLike], replicates: int, rng: Rng = None, kind: str = "exponential"
) -> Iterator[NDArray[np.float64]]:
    """Yield row weights for data with crossed factors: products of a weight a level of every factor.

    Parameters
    ----------
    factors : sequence of array_like, shape (n,)
        Labels of the rows; each factor's levels get independent weights of mean 1 and variance 1.
    replicates : int
    rng : Generator or seed
    kind : {"exponential", "poisson", "double"}
        Exponential(1) never drops a level, which matters with few; Poisson(1); 0 or 2 with equal chance.

    Notes
    -----
    The variance of a mean over rows is estimated without a model of the crossing, a little too large: noise
    of single rows counts up to 2ʳ − 1 times with r factors.

    Source: Owen and Eckles 2012, Ann. Appl. Stat. 6: 895-927.
    """
    draw = {
        "exponential": lambda g, k: g.exponential(1.0, k),
        "poisson": lambda g, k: g.poisson(1.0, k).astype(np.float64),
        "double": lambda g, k: 2.0 * g.integers(0, 2, k),
    }
    if kind not in draw:
        raise DynstatError("S404", "unknown kind of weights", found=kind, expected=" | ".join(draw))
    if not factors:
        raise DynstatError("S404", "no factor to weight", expected="at least one")
    generator, _ = as_generator(rng)
    codes = [np.unique(np.asarray(f), return_inverse=True)[1] for f in factors]
    for _ in range(replicates):
        weights = np.ones(codes[0].size)
        for c in codes:
            weights = weights * draw[kind](generator, int(c.max()) + 1)[c]
        yield weights


def monte_carlo_p(observed: float, null: ArrayLike) -> float:
    """Return the Monte-Carlo p of a large `observed`: (1 + number of null draws >= it) / (1 + draws)."""
    draws = np.asarray(null, dtype=np.float64)
    return float((1 + np.sum(draws >= observed)) / (1 + draws.size))
