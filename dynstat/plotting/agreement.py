"""Figures of agreement and of single items: two partitions as colours, items left out, items apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from .style import BAND, OKABE_ITO, figure, number, shorten, style

if TYPE_CHECKING:
    from ..cluster.agreement_table import Agreement
    from ..cluster.influence import AnomalyTest, LeaveOneOut


def agreement_heat_map(result: Agreement) -> Figure:
    """Draw the ARI of every two partitions, its p below; bold where the adjusted p is at most alpha.

    Parameters
    ----------
    result : Agreement
    """
    names = list(result.names)
    size = len(names)
    colours = LinearSegmentedColormap.from_list("agreement", ["white", OKABE_ITO["sky"]])
    with style():
        fig = figure(height=0.9 + 0.48 * size, width=min(6.5, 2.2 + 0.75 * size))
        ax = fig.subplots()
        grid = np.full((size, size), np.nan)
        place = {name: i for i, name in enumerate(names)}
        rows = result.table.to_dict("records")
        for row in rows:
            i, j = sorted((place[row["a"]], place[row["b"]]), reverse=True)
            grid[i, j] = row["ari"]
            beyond = row["p.adjusted"] <= result.alpha
            p = "p < .001" if row["p.ari"] < 0.0005 else f"p = {number(row['p.ari'], digits=3)}"
            words = f"{number(row['ari'])}\n{p}"
            weight = "bold" if beyond else "normal"
            ax.text(j, i, words, ha="center", va="center", fontsize=8, fontweight=weight)
        ax.imshow(np.ma.masked_invalid(grid), cmap=colours, vmin=0, vmax=1, aspect="auto")
        for edge in range(size + 1):
            ax.axhline(edge - 0.5, color="white", linewidth=1.5)
            ax.axvline(edge - 0.5, color="white", linewidth=1.5)
        short = [shorten(n, 22) for n in names]
        ax.set_xticks(
            range(size - 1), short[:-1], rotation=30 if size > 4 else 0, ha="right" if size > 4 else "center"
        )
        ax.set_yticks(range(1, size), short[1:])
        ax.set_xlim(-0.5, size - 1.5)
        ax.set_ylim(size - 0.5, 0.5)
        ax.tick_params(length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        ax.set_xlabel(f"adjusted Rand index; bold: beyond chance ({result.adjust})")
        return fig


def left_out(result: LeaveOneOut) -> Figure:
    """Draw the agreement of the others' clusters with those of the whole, an item left out at a time.

    Parameters
    ----------
    result : LeaveOneOut
    """
    table = result.table.sort_values("ari", kind="stable")
    with style():
        fig = figure(height=0.8 + 0.22 * len(table))
        ax = fig.subplots()
        for i, row in enumerate(table.to_dict("records")):
            moved = row["ari"] < 1
            colour = OKABE_ITO["vermillion"] if moved else OKABE_ITO["black"]
            ax.plot([row["ari"], 1], [i, i], color=colour, linewidth=1.5)
            ax.plot(row["ari"], i, "s" if moved else "o", color=colour, markersize=6, clip_on=False)
        ax.set_yticks(range(len(table)), [shorten(str(v)) for v in table["item"]])
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.set_xlim(min(0.0, float(table["ari"].min())), 1.02)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color="#EEEEEE", linewidth=0.8)
        ax.set_xlabel("adjusted Rand index of the others' clusters, with and without the item")
        return fig


def distances_apart(result: AnomalyTest) -> Figure:
    """Draw the distance of every item to the mean of the others beside what exchangeable items reach.

    Parameters
    ----------
    result : AnomalyTest
    """
    table, q95 = result.table, float((result.estimate.null or {})["q95"])
    with style():
        fig = figure(height=0.9 + 0.22 * len(table))
        ax = fig.subplots()
        ax.axvspan(0, q95, color=BAND, linewidth=0)
        for i, row in enumerate(table.to_dict("records")):
            beyond = row["distance"] > q95
            colour = OKABE_ITO["vermillion"] if beyond else OKABE_ITO["black"]
            ax.plot(row["distance"], i, "s" if beyond else "o", color=colour, markersize=6, clip_on=False)
        ax.set_yticks(range(len(table)), [shorten(str(v)) for v in table["item"]])
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.set_xlim(0, 1.05 * max(float(table["distance"].max()), q95))
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("distance to the mean of the others;\ngrey: 95 % of the largest, items exchangeable")
        return fig
