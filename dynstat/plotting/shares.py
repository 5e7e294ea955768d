"""Figure of variance shares: an estimate and its interval a term, for this panel and for a population."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import BAND, DECISIONS, GREY, NO_DECISION, OKABE_ITO, figure, number, style


@dataclass(frozen=True)
class ShareRow:
    """One term of the decomposition.

    Attributes
    ----------
    term : str
        As in the formula, e.g. ``model:category``.
    panel, population : tuple of float or None
        Estimate, lower and upper limit; None where not computed; limits may be NaN.
    chance : float or None
        What the share tends to when the term has no effect.
    claimed : tuple of float or None
        The registered range, drawn as a grey band.
    decision : str
        A decision about the panel's share, or "" where there is none.
    hypothesis : str
        Its id, e.g. ``A1``.
    """

    term: str
    panel: tuple[float, float, float] | None
    population: tuple[float, float, float] | None = None
    chance: float | None = None
    claimed: tuple[float, float] | None = None
    decision: str = ""
    hypothesis: str = ""


def variance_shares(rows: Sequence[ShareRow], *, level: float = 0.95) -> Figure:
    """Draw the shares of variance, one row a term.

    A filled marker and thick line: estimate and interval for this panel (colour and marker by decision).
    An open circle and thin line below it: the same for a population of models. Open square: chance level.
    Grey band: the range that the claim names. The numbers stand at the right.

    Parameters
    ----------
    rows : sequence of ShareRow
        From top to bottom.
    level : float
        Of the intervals, for the axis label.
    """
    with style():
        fig = figure(height=1.15 + 0.5 * len(rows))
        ax = fig.subplots()
        for index, row in enumerate(rows):
            _row(ax, -index, row)
        ax.set_ylim(-len(rows) + 0.45, 0.55)
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
        ax.set_yticks([-i for i in range(len(rows))], [_label(row) for row in rows])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#EEEEEE", linewidth=0.8)
        ax.set_xlabel(f"share of variance, with {100 * level:g} % interval")
        ax.spines["left"].set_visible(False)
        fig.legend(
            handles=_keys(rows), loc="outside upper left", ncols=4, handlelength=1.6, columnspacing=1.4
        )
        return fig


def describe_shares(rows: Sequence[ShareRow], *, level: float = 0.95) -> str:
    """Return the alt text of :func:`variance_shares`: what it shows, in words and numbers."""
    parts = [f"Shares of variance with {100 * level:g} % intervals, {len(rows)} terms."]
    for row in rows:
        words = [f"{row.term}:"]
        if row.panel:
            words.append(f"this panel {_numbers(row.panel)}")
        if row.population:
            words.append(f"population {_numbers(row.population)}")
        if row.chance is not None:
            words.append(f"chance level {number(row.chance)}")
        if row.claimed:
            words.append("claimed range {} to {}".format(*(number(x, digits=3) for x in row.claimed)))
        if row.hypothesis and row.decision:
            words.append(f"{row.hypothesis} {row.decision.replace('_', ' ')}")
        parts.append(words[0] + " " + ", ".join(words[1:]) + ".")
    return " ".join(parts)


def _row(ax, y: float, row: ShareRow) -> None:  # type: ignore[no-untyped-def]
    mark = DECISIONS.get(row.decision, NO_DECISION)
    if row.claimed:
        ax.fill_between(row.claimed, y - 0.4, y + 0.4, color=BAND, linewidth=0, zorder=1)
    if row.panel:
        _interval(ax, row.panel, y + 0.13, mark.colour, width=2.2)
        ax.plot(
            row.panel[0],
            y + 0.13,
            marker=mark.marker,
            color=mark.colour,
            markersize=6.5,
            zorder=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
        )
        ax.annotate(
            _numbers(row.panel),
            (1.02, y + 0.13),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
            fontsize=8,
        )
    if row.population:
        _interval(ax, row.population, y - 0.17, GREY, width=1.0)
        ax.plot(
            row.population[0],
            y - 0.17,
            marker="o",
            color=GREY,
            markerfacecolor="white",
            markersize=5,
            zorder=5,
        )
        ax.annotate(
            _numbers(row.population),
            (1.02, y - 0.17),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
            fontsize=8,
            color=GREY,
        )
    if row.chance is not None:
        ax.plot(
            row.chance,
            y + 0.13,
            marker="s",
            color=OKABE_ITO["black"],
            markerfacecolor="none",
            markersize=8,
            markeredgewidth=0.9,
            zorder=6,
            linestyle="none",
            clip_on=False,
        )


def _interval(ax, values: tuple[float, float, float], y: float, colour: str, width: float) -> None:  # type: ignore[no-untyped-def]
    _, low, high = values
    if math.isfinite(low) and math.isfinite(high):
        ax.plot([low, high], [y, y], color=colour, linewidth=width, solid_capstyle="butt", zorder=4)


def _label(row: ShareRow) -> str:
    if not (row.hypothesis and row.decision):
        return row.term
    return f"{row.term}\n{row.hypothesis}: {row.decision.replace('_', ' ')}"


def _numbers(values: tuple[float, float, float]) -> str:
    value, low, high = values
    if not (math.isfinite(low) and math.isfinite(high)):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def _keys(rows: Sequence[ShareRow]) -> list[Line2D | Patch]:
    keys: list[Line2D | Patch] = [
        Line2D([], [], color=OKABE_ITO["black"], marker="o", linewidth=2.2, markersize=6, label="this panel")
    ]
    if any(row.population for row in rows):
        keys.append(
            Line2D(
                [],
                [],
                color=GREY,
                marker="o",
                markerfacecolor="white",
                linewidth=1,
                markersize=5,
                label="population of models",
            )
        )
    if any(row.chance is not None for row in rows):
        keys.append(
            Line2D(
                [],
                [],
                color=OKABE_ITO["black"],
                marker="s",
                markerfacecolor="none",
                markersize=7,
                linestyle="none",
                label="chance level",
            )
        )
    if any(row.claimed for row in rows):
        keys.append(Patch(color=BAND, label="claimed range"))
    return keys
