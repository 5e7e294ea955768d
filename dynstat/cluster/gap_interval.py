"""The gap between two groups of cells, and its interval from replicates in cells or units inside items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.estimate import Estimate, TPivot
from ..inference.unit_interval import unit_interval

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CellGap:
    """Values in cells, some cells of the whole: what a gap and its interval are made from."""

    x: Array
    code: NDArray[np.intp]
    chosen: NDArray[np.intp]
    means: Array
    draws: Array | None

    def without(self, c: int) -> CellGap:
        return replace(self, chosen=self.chosen[self.chosen != c])

    def distance(self, upper: Mask) -> float:
        """Return the smallest mean above less the largest below."""
        m, u = self.means[self.chosen], upper[self.chosen]
        return float(m[u].min() - m[~u].max())

    def pivot(self, upper: Mask) -> tuple[TPivot, str] | None:
        """Return the t pivot from replicates in the chosen cells, None without any."""
        mine = np.isin(self.code, self.chosen)
        counts = np.bincount(self.code[mine], minlength=self.means.size)
        df = int((counts[self.chosen] - 1).sum())
        if df < 1:
            return None
        s2 = float(np.sum((self.x[mine] - self.means[self.code[mine]]) ** 2) / df)
        u, low = self.chosen[upper[self.chosen]], self.chosen[~upper[self.chosen]]
        # The pair nearest across the gap is not known in truth; the widest error of any pair covers it.
        se = np.sqrt(s2 * (1 / counts[u].min() + 1 / counts[low].min()))
        return TPivot(self.distance(upper), float(se), df), f"replicates in cells, pooled variance, t({df})"

    def gaps(self, upper: Mask) -> Array | None:
        """Return the distance in every draw of the units, the groups held."""
        if self.draws is None:
            return None
        sizes = np.bincount(self.code)
        cells = np.stack([self.draws[:, self.code == c].sum(axis=1) / sizes[c] for c in self.chosen], axis=1)
        u = upper[self.chosen]
        return np.asarray(cells[:, u].min(axis=1) - cells[:, ~u].max(axis=1))


def gap_estimate(
    key: str, gap: float, side: CellGap, upper: Mask, log: bool, unit: str, common: Mapping[str, Any]
) -> Estimate:
    """Return the gap with its interval, from replicates in cells, else from units, else none."""
    shown = float(np.exp(gap)) if log else gap
    pivot = side.pivot(upper)
    if pivot is not None:
        how = pivot[1] + (", log scale" if log else "")
        p = replace(pivot[0], scale="log" if log else "identity")
        return Estimate.from_pivot(key, shown, p, interval=how, unit="replicate", **common)
    draws = side.gaps(upper)
    if draws is not None:
        made = np.exp(draws) if log else draws
        bounds = (0.0, np.inf) if log else (-np.inf, np.inf)
        return unit_interval(key, shown, made, bounds=bounds, unit=unit, **common)
    why = "none (one value a cell, and no units inside)"
    return Estimate(key, shown, np.nan, np.nan, interval=why, unit=unit, **common)
