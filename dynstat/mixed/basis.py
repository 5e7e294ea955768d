"""What a D-study starts from: components, their uncertainty, and which factors lie within others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .design import Design
from .formula import MixedFormula
from .population import PopulationDraws
from .shares import Shares

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """Components of a decomposition and the factors behind its terms.

    Attributes
    ----------
    variables : tuple of tuple of str
        Columns that each term combines, in the order of the decomposition, without the residual.
    inside : mapping of str to tuple of str
        For every column the columns whose levels it lies within: a prompt within its category.
    numbers : mapping of str to int
        Levels of every column.
    samples : float
        Rows a combination of all columns, on average.
    components : ndarray, shape (k + 1,)
        REML components, the residual last.
    left : ndarray, shape (G, k + 1)
        The same without each of the jackknife's groups.
    drawn : ndarray, shape (B, k + 1), or None
        The same drawn for a population.
    corrected : bool
        Whether limits from `drawn` need a bias correction, as those of a bootstrap do.
    """

    variables: tuple[tuple[str, ...], ...]
    inside: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, int]
    samples: float
    components: Array
    left: Array
    drawn: Array | None
    corrected: bool

    @classmethod
    def of(
        cls,
        design: Design,
        data: pd.DataFrame,
        formula: MixedFormula,
        full: Shares,
        left: Sequence[Shares],
        wide: PopulationDraws | None,
        order: Sequence[int],
    ) -> Basis:
        """Collect it from a decomposition; `order` leads from the design's terms to the decomposition's."""
        by_label = {t.label: tuple(t.variables) for t in formula.random}
        labels = [t.label for t in design.terms]
        used = tuple(dict.fromkeys(v for t in formula.random for v in t.variables))
        rows = data.iloc[design.positions]
        codes = {v: pd.factorize(rows[v])[0] for v in used}
        numbers = {v: int(c.max()) + 1 for v, c in codes.items()}
        inside = {
            v: tuple(o for o in used if numbers[o] < numbers[v] and _within(codes[v], codes[o])) for v in used
        }
        cells = len(rows.groupby(list(used), observed=True))
        return cls(
            tuple(by_label[labels[j]] for j in order[:-1]),
            inside,
            numbers,
            design.nobs / cells,
            full.reml[list(order)],
            np.array([s.reml for s in left])[:, order],
            None if wide is None else (wide.raw * wide.total[:, None])[:, order],
            wide is not None and "bias-corrected" in wide.interval,
        )

    def levels(self, columns: Sequence[str], numbers: Mapping[str, float]) -> float:
        """Return how many combinations of `columns` occur: those that others lie within count once."""
        outer = {o for c in columns for o in self.inside[c]}
        return float(np.prod([numbers[c] for c in columns if c not in outer]))


def _within(fine: NDArray[np.intp], coarse: NDArray[np.intp]) -> bool:
    first = np.zeros(int(fine.max()) + 1, dtype=np.intp)
    first[fine] = coarse
    return bool(np.array_equal(first[fine], coarse))
