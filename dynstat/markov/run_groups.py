"""Groups of runs: those that are reported, and those that share the rates of a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.resample import Resampler
from .competing import count_spells
from .spells import Spells

# The group of all runs, as in the tables of dwell times and motifs.
ALL = "all"


@dataclass(frozen=True)
class RunGroups:
    """Runs by the group that is reported and the group whose rates they share: a cell each pair that occurs.

    Attributes
    ----------
    n : int
        Number of cells.
    of_run, rate_of_run : ndarray of int, shape (runs,)
        Cell, and group of rates.
    rates : int
        Number of groups of rates.
    groups : tuple of str
        Reported groups, after :data:`ALL`, all together.
    group_of : tuple of str, rate_of : ndarray of int
        Group and group of rates of every cell.
    """

    n: int
    of_run: NDArray[np.intp]
    rate_of_run: NDArray[np.intp]
    rates: int
    groups: tuple[str, ...]
    group_of: tuple[str, ...]
    rate_of: NDArray[np.intp]

    @classmethod
    def of(cls, spells: Spells, by: str | None, rates_by: str | None) -> RunGroups:
        """Group runs by labels; rates by model unless another label is named."""
        runs = len(spells.runs)
        none = (np.zeros(runs, dtype=np.intp), ("",))
        if rates_by is None and "model" in spells.runs.columns:
            rates_by = "model"
        rate, rate_levels = none if rates_by is None else spells.codes(rates_by)[:0:-1]
        group, levels = none if by is None else spells.codes(by)[:0:-1]
        pairs, of_run = np.unique(group * len(rate_levels) + rate, return_inverse=True)
        names = tuple(levels[p // len(rate_levels)] for p in pairs)
        every = (ALL,) if by is None else (ALL, *levels)
        rate_of = (pairs % len(rate_levels)).astype(np.intp)
        return cls(pairs.size, of_run.astype(np.intp), rate, len(rate_levels), every, names, rate_of)

    def members(self, group: str) -> NDArray[np.intp]:
        """Return the cells of a group."""
        return np.array([i for i, g in enumerate(self.group_of) if group in (ALL, g)], dtype=np.intp)

    def by_rate(self, counts: NDArray[Any], group: str) -> NDArray[Any]:
        """Return counts of a group with cells of the same rates added, shape (..., rates, H + 2, 3)."""
        chosen = self.members(group)
        out = np.zeros((*counts.shape[:-3], self.rates, *counts.shape[-2:]), dtype=counts.dtype)
        for i in chosen:
            out[..., self.rate_of[i], :, :] += counts[..., i, :, :]
        return out

    def count(self, spells: Spells, resampler: Resampler, horizon: int) -> NDArray[np.int64]:
        """Count spells by unit, cell, duration and event, shape (units, cells, horizon + 2, 3)."""
        u = resampler.n_units
        at = resampler.units[spells.sequence] * self.n + self.of_run[spells.sequence]
        counts = count_spells(spells.duration, spells.event, at, u * self.n, horizon)
        return counts.reshape(u, self.n, horizon + 2, 3)
