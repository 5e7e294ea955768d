"""Figures of one dimension: values with their largest gap beside its nulls, and the gap statistic by k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from .style import BAND, GREY, OKABE_ITO, figure, number, shorten, style

if TYPE_CHECKING:
    from ..cluster.dispersion import GapStatistic
    from ..cluster.largest_gap import LargestGap

_LEGIBLE = 24


def gap_against_nulls(test: LargestGap) -> Figure:
    """Draw the values with the largest gap between them, and its share of the range beside every null.

    Parameters
    ----------
    test : LargestGap
    """
    cells = test.cells.iloc[::-1]
    named = len(cells) <= _LEGIBLE
    with style():
        fig = figure(height=0.9 + 0.24 * min(len(cells), _LEGIBLE))
        left, right = fig.subplots(1, 2, width_ratios=[3, 2])
        place = np.arange(len(cells))
        upper = (cells["group"] == "upper").to_numpy()
        value = cells["value"].to_numpy(dtype=float)
        left.axvspan(value[~upper].max(), value[upper].min(), color=BAND, linewidth=0)
        for mask, colour, marker in ((upper, "vermillion", "s"), (~upper, "blue", "o")):
            left.plot(
                value[mask], place[mask], linestyle="", marker=marker, color=OKABE_ITO[colour], markersize=6
            )
        if test.log:
            left.set_xscale("log")
            left.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        left.set_yticks(place if named else [], [shorten(str(c)) for c in cells["cell"]] if named else [])
        left.tick_params(axis="y", length=0)
        left.spines["left"].set_visible(False)
        left.grid(axis="x", color="#EEEEEE", linewidth=0.8)
        what = f"{test.gap.value:.3g}×" if test.log else f"{test.gap.value:.3g}"
        left.set_xlabel(f"value of every {test.item};\nband: largest gap, {what}")
        rows = test.populations.to_dict("records")
        for i, row in enumerate(rows):
            right.plot([0, row["q95"]], [i, i], color=GREY, linewidth=5, solid_capstyle="butt")
            words = f"p = {number(row['p.value'], digits=3)}"
            right.annotate(words, (1.02, i), va="center", fontsize=8, xycoords=("axes fraction", "data"))
        right.axvline(test.gap_share, color=OKABE_ITO["black"], linewidth=1.2)
        right.set_yticks(range(len(rows)), [r["population"] for r in rows])
        right.set_ylim(len(rows) - 0.5, -0.5)
        right.set_xlim(0, 1)
        right.tick_params(axis="y", length=0)
        right.spines["left"].set_visible(False)
        right.set_xlabel("gap over range; grey: 95 % of\nsamples of one population")
        return fig


def gap_by_k(statistic: GapStatistic) -> Figure:
    """Draw the gap statistic with its standard error by number of clusters; the k chosen is filled.

    Parameters
    ----------
    statistic : GapStatistic
    """
    table = statistic.table
    with style():
        fig = figure(height=2.6)
        ax = fig.subplots()
        k, gap, se = (table[c].to_numpy(dtype=float) for c in ("k", "gap", "se"))
        ax.plot(k, gap, color=OKABE_ITO["black"], linewidth=1)
        ax.vlines(k, gap - se, gap + se, color=OKABE_ITO["black"], linewidth=1)
        chosen = k == statistic.k
        ax.plot(k[~chosen], gap[~chosen], "o", color="white", markeredgecolor="black", markersize=6)
        ax.plot(k[chosen], gap[chosen], "D", color=OKABE_ITO["blue"], markersize=7)
        ax.set_xticks(k, [f"{v:g}" for v in k])
        ax.set_xlabel(f"number of clusters; filled: {statistic.k}, chosen by {statistic.rule}")
        ax.set_ylabel("gap, ± its standard error")
        ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        return fig
