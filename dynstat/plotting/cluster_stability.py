"""Figures of cluster stability: clusters against the null, and Jaccards over replicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import BAND, GREY, NO_DECISION, OKABE_ITO, figure, number, style

if TYPE_CHECKING:
    from ..cluster.stability import ClusterStability
    from ..cluster.stability_null import StabilityTest

#: Hennig's limits of a mean Jaccard, and what the textbook calls a cluster from there on.
TEXTBOOK = ((0.6, "pattern"), (0.75, "valid"), (0.85, "highly stable"))
_EDGE = "#8A8A8A"


def stability_against_null(test: StabilityTest) -> Figure:
    """Draw every cluster's mean Jaccard over what structureless data give.

    Grey: the middle 90 % and the median of the null's cluster of the same rank; point and line: the data with
    Monte-Carlo interval; dotted: the textbook's limits.

    Parameters
    ----------
    test : StabilityTest
    """
    table = test.tidy()
    with style():
        fig = figure(height=1.35 + 0.36 * len(table))
        ax = fig.subplots()
        for i, row in enumerate(table.to_dict("records")):
            column = test.ranked[:, i] if i < test.ranked.shape[1] else np.zeros(1)
            low, middle, high = np.quantile(column, [0.05, 0.5, 0.95])
            ax.add_artist(_bar(low, high, i))
            ax.plot([middle, middle], [i - 0.26, i + 0.26], color=_EDGE, linewidth=1.5)
            clear = row["p.value"] <= 0.05
            colour = OKABE_ITO["blue"] if clear else NO_DECISION.colour
            ax.plot([row["conf.low"], row["conf.high"]], [i, i], color=colour, linewidth=1.5)
            marker = "D" if clear else "o"
            ax.plot(row["estimate"], i, marker=marker, color=colour, markersize=5.5, clip_on=False, zorder=3)
            ax.annotate(
                f"p = {number(row['p.value'], digits=3)}",
                (1.0, i),
                xycoords=("axes fraction", "data"),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                annotation_clip=False,
            )
        _textbook(ax)
        names = [f"cluster {c} (n = {n})" for c, n in zip(table["cluster"], table["size"], strict=True)]
        ax.set_yticks(range(len(table)), names)
        ax.set_ylim(len(table) - 0.5, -0.5)
        least = min(float(np.quantile(test.ranked, 0.02)), float(table["conf.low"].min()), 0.55)
        ax.set_xlim(max(0.0, least - 0.03), 1.005)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        n, item = len(test.partition.items), test.partition.item
        ax.set_xlabel(
            f"mean Jaccard over {test.stability.replicates} replicates; {n} {item}s, "
            f"{test.draws.size} structureless sets"
        )
        level = f"{100 * test.stability.level:g} %"
        fig.legend(
            handles=[
                Line2D([], [], color=OKABE_ITO["blue"], marker="D", markersize=5, label="data, p ≤ .05"),
                Line2D([], [], color="black", marker="o", markersize=5, label=f"data (Monte-Carlo {level})"),
                Patch(color=BAND, label=f"null ({test.null}): 5 to 95 %"),
                Line2D([], [], color=_EDGE, linewidth=1.5, label="its median"),
            ],
            loc="outside upper left",
            ncols=4,
            columnspacing=1.2,
        )
        return fig


def replicates(found: ClusterStability) -> Figure:
    """Draw mean Jaccards with Monte-Carlo intervals over the distribution in the replicates.

    Parameters
    ----------
    found : ClusterStability
    """
    table = found.tidy().iloc[:-1]
    columns = [*found.jaccard.T, *([] if found.noise is None else [found.noise])]
    with style():
        fig = figure(height=1.1 + 0.36 * len(table))
        ax = fig.subplots()
        for i, (row, values) in enumerate(zip(table.to_dict("records"), columns, strict=True)):
            low, high = np.quantile(values, [0.05, 0.95])
            ax.add_artist(_bar(float(low), float(high), i))
            ax.plot([row["conf.low"], row["conf.high"]], [i, i], color="black", linewidth=1.5)
            ax.plot(row["estimate"], i, marker="o", color="black", markersize=5.5, clip_on=False)
        # Without the words: they say nothing where the null is not beside.
        _textbook(ax, words=False)
        names = [
            f"{'' if c == 'noise' else 'cluster '}{c} (n = {n})"
            for c, n in zip(table["cluster"], table["size"], strict=True)
        ]
        ax.set_yticks(range(len(table)), names)
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.set_xlim(0, 1.005)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        n, item = len(found.partition.items), found.partition.item
        ax.set_xlabel(
            f"Jaccard over {found.replicates} replicates ({found.scheme}), {n} {item}s: mean, 5 to 95 %"
        )
        return fig


def describe_replicates(found: ClusterStability) -> str:
    """Return in words and numbers what :func:`replicates` shows."""
    columns = [*found.jaccard.T, *([] if found.noise is None else [found.noise])]
    parts = [
        f"Jaccard of {found.partition.n_clusters} clusters of {len(found.partition.items)} "
        f"{found.partition.item}s over {found.replicates} replicates ({found.scheme}); no null is drawn."
    ]
    for row, values in zip(found.tidy().iloc[:-1].to_dict("records"), columns, strict=True):
        low, high = np.quantile(values, [0.05, 0.95])
        name = "Noise" if row["cluster"] == "noise" else f"Cluster {row['cluster']}"
        parts.append(
            f"{name} of {row['size']}: mean {number(row['estimate'])}, 5 to 95 % of replicates "
            f"{number(low)} to {number(high)}."
        )
    return " ".join(parts)


def alt_text(test: StabilityTest) -> str:
    """Return in words and numbers what :func:`stability_against_null` shows."""
    parts = [
        f"Stability of {test.partition.n_clusters} clusters of {len(test.partition.items)} "
        f"{test.partition.item}s against {test.draws.size} structureless sets ({test.null})."
    ]
    for row in test.tidy().to_dict("records"):
        parts.append(
            f"Cluster {row['cluster']} of {row['size']}: mean Jaccard {number(row['estimate'])} "
            f"[{number(row['conf.low'])}, {number(row['conf.high'])}]; the null's cluster of that rank has "
            f"median {number(row['null.q50'])} and 95 % quantile {number(row['null.q95'])}; "
            f"p = {number(row['p.value'], digits=3)}."
        )
    parts.append(f"{test.statistic} over clusters: {number(test.value)}, p = {number(test.p, digits=3)}.")
    return " ".join(parts)


def _bar(low: float, high: float, at: float) -> Patch:
    from matplotlib.patches import Rectangle

    return Rectangle((low, at - 0.26), max(high - low, 1e-3), 0.52, facecolor=BAND, edgecolor="none")


def _textbook(ax: Axes, words: bool = True) -> None:
    for at, name in TEXTBOOK:
        ax.axvline(at, color=GREY, linewidth=0.8, linestyle=":")
        ax.annotate(
            f"{number(at)} {name}" if words else number(at),
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=7,
            color=GREY,
            ha="left" if at == 0.85 else "right",
            annotation_clip=False,
        )
