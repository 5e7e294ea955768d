"""The result of a test about chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..inference.estimate import Estimate
from ..inference.wording import p_equals

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ChainTest:
    """A test about chains: order, homogeneity between groups, stationarity. Frozen.

    Attributes
    ----------
    title : str
        What was tested.
    alternative : str
        What a small p speaks for.
    statistic : {"Pearson", "G"}
        The one that :attr:`p_value` is of.
    statistics : mapping
        "G" and "Pearson" summed over all layers.
    df : int
        By support: a layer counts (rows met − 1)·(next states met − 1).
    p_null : mapping
        p of both statistics against the null of :attr:`null`.
    p_chi_square : mapping
        The textbook's p of both: right only where all transitions are independent given the state.
    null : mapping
        name, replicates (draws made), exact (all arrangements were made), smallest_p (that could be
        reached), total.
    rows : DataFrame
        A row a layer (the state left): what :meth:`tidy` shows below the overall row.
    tables : ndarray, shape (layers, rows, K)
        The counts tested.
    layers, groups, states : tuple of str
        Names along the axes of `tables`.
    unit : str
        What is permuted or resampled as a whole.
    n : mapping
        sequences, transitions, units, groups.
    seed : int or None
    level : float
        Of all intervals; 1 − level is the level of the test.
    """

    title: str
    alternative: str
    statistic: str
    statistics: Mapping[str, float]
    df: int
    p_null: Mapping[str, float]
    p_chi_square: Mapping[str, float]
    null: Mapping[str, Any]
    rows: pd.DataFrame
    tables: NDArray[np.float64]
    layers: tuple[str, ...]
    groups: tuple[str, ...]
    states: tuple[str, ...]
    unit: str
    n: Mapping[str, int]
    seed: int | None
    level: float
    _effects: Mapping[str, Estimate]

    @property
    def p_value(self) -> float:
        """p of the chosen statistic against the null."""
        return self.p_null[self.statistic]

    def estimates(self) -> dict[str, Estimate]:
        """Return the sizes of the effect, noise taken off, each with its interval and the null beside it.

        ``cramers_v``, ``total_variation`` and ``total_variation.<layer>``; ``diagnostics["plain"]`` holds the
        value with its noise.
        """
        return dict(self._effects)

    def tidy(self) -> pd.DataFrame:
        """Return a row overall, then a row a layer.

        term, estimate (total variation, noise taken off), conf.low, conf.high, g, pearson, df, p.value,
        p.adjusted (Holm over the layers; NaN overall), p.chi.square, n.
        """
        e = self._effects["total_variation"]
        first = {
            "term": "overall",
            "estimate": e.value,
            "conf.low": e.low,
            "conf.high": e.high,
            "g": self.statistics["G"],
            "pearson": self.statistics["Pearson"],
            "df": self.df,
            "p.value": self.p_value,
            "p.adjusted": np.nan,
            "p.chi.square": self.p_chi_square[self.statistic],
            "n": int(self.tables.sum()),
        }
        return pd.concat([pd.DataFrame([first]), self.rows], ignore_index=True)

    def glance(self) -> pd.DataFrame:
        """Return one row: statistic, parameter (df), p.value, the other statistics and p, effect, null, n."""
        v = self._effects["cramers_v"]
        return pd.DataFrame(
            [
                {
                    "statistic": self.statistics[self.statistic],
                    "parameter": self.df,
                    "p.value": self.p_value,
                    "g": self.statistics["G"],
                    "pearson": self.statistics["Pearson"],
                    "p.g": self.p_null["G"],
                    "p.pearson": self.p_null["Pearson"],
                    "p.g.chi.square": self.p_chi_square["G"],
                    "p.pearson.chi.square": self.p_chi_square["Pearson"],
                    "cramers.v": v.value,
                    "conf.low": v.low,
                    "conf.high": v.high,
                    "null": self.null["name"],
                    "permutations": self.null["replicates"],
                    "exact": self.null["exact"],
                    "smallest.p": self.null["smallest_p"],
                    "unit": self.unit,
                    **self.n,
                }
            ]
        )

    def plot(self) -> Figure:
        """Draw how far the rows of every layer lie apart, with intervals, beside what noise alone gives.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.chain_tests import chain_test as draw

        return draw(self)

    def alt_text(self) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.chain_tests import alt_text

        return alt_text(self)

    def __str__(self) -> str:
        s, null, v = self.statistics, self.null, self._effects["cramers_v"]
        tv = self._effects["total_variation"]
        sign = "X-squared" if self.statistic == "Pearson" else "G"
        how = "all arrangements" if null["exact"] else f"{null['replicates']} times"
        counts = ", ".join(f"{value} {key}" for key, value in self.n.items() if key != "units")
        table = self.rows.drop(columns=["g"]).rename(columns={"estimate": "TV"})
        percent = f"{100 * self.level:g} %"
        chi = [f"{k} {s[k]:.4f}, {p_equals(self.p_chi_square[k])}" for k in ("Pearson", "G")]
        return "\n".join(
            [
                f"\t{self.title}",
                "",
                f"data:  {counts}, {self.n['units']} units of {self.unit}",
                f"{sign} = {s[self.statistic]:.4f}, df = {self.df}, p-value = {self.p_value:.4g}",
                f"null hypothesis: {null['name']} ({how}; smallest p possible {null['smallest_p']:.3g})",
                f"alternative hypothesis: {self.alternative}",
                f"chi-square, transitions taken as independent: {'; '.join(chi)}",
                "sample estimates, noise taken off:",
                f"  Cramer's V {v.value:.3f}, {percent} interval {v.low:.3f} to {v.high:.3f}",
                f"  total variation {tv.value:.3f}, {percent} interval {tv.low:.3f} to {tv.high:.3f}",
                "",
                table.to_string(index=False, float_format=lambda x: f"{x:.4g}"),
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
