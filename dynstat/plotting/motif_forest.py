"""The forest of motifs: enrichment by group beside each null, with the lines at 1 and at the minimum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..errors import DynstatError
from .chain_tests import without_owner
from .style import BAND, GREY, OKABE_ITO, figure, number, shorten, style

_MARKS = (
    ("blue", "o"),
    ("vermillion", "s"),
    ("green", "^"),
    ("purple", "D"),
    ("orange", "v"),
    ("sky", "P"),
    ("black", "X"),
)
_CONSERVED = "★ "


def motif_forest(
    table: pd.DataFrame, *, minimum: float = 1.2, level: float = 0.95, largest: int = 12, short: bool = True
) -> Figure:
    """Draw the enrichment of motifs with intervals: a row a motif, a mark a group, a panel a null.

    Filled marks pass the rule in their group (enrichment at least `minimum`, q at most the FDR); a star
    before a name says that the motif passes in every group against every null.

    Parameters
    ----------
    table : DataFrame
        From :meth:`dynstat.markov.conserved.Motifs.tidy`.
    minimum : float
        Dashed line.
    level : float
        Of the intervals, for the axis label.
    largest : int
        At most so many motifs: conserved ones first, then by the smallest enrichment over groups and nulls.
    short : bool
        Whether names of states are shortened to the initials of their words, given below the figure.
    """
    shown = _chosen(table, largest)
    nulls, groups = list(dict.fromkeys(table["null"])), list(dict.fromkeys(table["group"]))
    if len(groups) > 24:
        raise DynstatError("S404", "too many groups to draw", found=len(groups), expected="at most 24")
    states = list(dict.fromkeys(s for m in table["motif"] for s in m.split(" > ")))
    key = initials(states) if short else {s: s for s in states}
    spread = 0.7 / len(groups)
    short_groups = without_owner(map(str, groups))
    with style():
        fig = figure(
            height=1.25 + 0.1 * math.ceil(len(states) / 3) + max(0.26, 0.085 * len(groups)) * len(shown)
        )
        axes = np.atleast_1d(fig.subplots(1, len(nulls), sharey=True, sharex=True))
        for ax, null in zip(axes, nulls, strict=True):
            part = table[table["null"] == null].set_index(["motif", "group"])
            for i in range(0, len(shown), 2):
                ax.axhspan(i - 0.5, i + 0.5, color=BAND, alpha=0.35, linewidth=0)
            ax.axvline(1.0, color=GREY, linewidth=0.8)
            ax.axvline(minimum, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
            for g, group in enumerate(groups):
                colour, marker = OKABE_ITO[_MARKS[g % 7][0]], _MARKS[(g + g // 7) % 7][1]
                label = shorten(short_groups[str(group)], 22)
                for i, motif in enumerate(shown):
                    if (motif, group) not in part.index:
                        continue
                    row = part.loc[(motif, group)]
                    if not (math.isfinite(row["estimate"]) and row["estimate"] > 0):
                        continue
                    y = i + spread * (g - (len(groups) - 1) / 2)
                    low = row["conf.low"] if row["conf.low"] > 0 else row["estimate"]
                    high = row["conf.high"] if math.isfinite(row["conf.high"]) else row["estimate"]
                    ax.plot([low, high], [y, y], color=colour, linewidth=1)
                    ax.plot(
                        row["estimate"],
                        y,
                        marker=marker,
                        markersize=4.5,
                        color=colour,
                        markerfacecolor=colour if row["enriched"] else "white",
                        linestyle="none",
                        label=label,
                    )
                    label = "_"
            ax.set_xscale("log")
            ax.set_title(f"null: {null}", loc="left")
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        _ticks(axes, table[table["motif"].isin(shown)], minimum)
        conserved = set(table.loc[table["conserved"], "motif"])
        names = [
            (_CONSERVED if m in conserved else "") + " > ".join(key[s] for s in m.split(" > ")) for m in shown
        ]
        axes[0].set_yticks(range(len(shown)), names)
        axes[0].set_ylim(len(shown) - 0.5, -0.5)
        fig.supxlabel(_caption(level, minimum, key if short else {}), fontsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        if len(groups) > 1:
            fig.legend(handles, labels, loc="outside upper left", ncols=min(len(groups), 3))
        return fig


def orders_of_visits(table: pd.DataFrame, order: Sequence[str], *, largest: int = 12) -> Figure:
    """Draw the share of sequences by the order in which they first meet states, beside that under the null.

    Parameters
    ----------
    table : DataFrame
        From :meth:`dynstat.markov.visiting_order.FirstVisits.tidy`.
    order : sequence of str
        The order asked about; a star marks it.
    largest : int
        At most so many orders.
    """
    asked = " > ".join(order)
    whole = table[table["group"] == "all"].sort_values(["share", "share.null"], ascending=False)
    first = whole["order"] == asked
    shown = pd.concat([whole[first], whole[~first].head(largest - int(first.sum()))])
    key = initials(list(order))
    names = [
        (_CONSERVED if o == asked else "") + " > ".join(key.get(s, s) for s in o.split(" > "))
        for o in shown["order"]
    ]
    y = range(len(shown))
    with style():
        fig = figure(height=1.3 + 0.24 * len(shown))
        ax = fig.subplots()
        ax.hlines(y, shown["share.null"], shown["share"], color=GREY, linewidth=0.8)
        ax.plot(shown["share"], y, "o", color=OKABE_ITO["blue"], markersize=4.5, label="share of sequences")
        ax.plot(shown["share.null"], y, "|", color=GREY, markersize=9, label="mean under the null")
        ax.set_yticks(y, names)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlim(left=0)
        words = " · ".join(f"{v} {k}" for k, v in key.items() if k != v)
        ax.set_xlabel(f"share; {_CONSERVED.strip()} the order asked about\n{words}".rstrip())
        fig.legend(loc="outside upper left", ncols=2)
    return fig


def initials(states: list[str]) -> dict[str, str]:
    """Return short names that stay different: initials of the words, with letters added where two agree.

    Examples
    --------
    >>> initials(["STABLE", "SURFACE_BRANCHING", "HIDDEN_TURBULENCE"])
    {'STABLE': 'S', 'SURFACE_BRANCHING': 'SB', 'HIDDEN_TURBULENCE': 'HT'}
    """
    for letters in range(1, 20):
        out = {s: "".join(w[:letters] for w in s.replace("-", "_").split("_")) for s in states}
        if len(set(out.values())) == len(states):
            return out
    return {s: s for s in states}


def alt_text(table: pd.DataFrame, *, possible: int, largest: int = 12) -> str:
    """Return alt text: the number conserved out of those possible, and the range of every motif drawn."""
    conserved = list(dict.fromkeys(table.loc[table["conserved"], "motif"]))
    groups = table["group"].nunique()
    parts = [
        f"Enrichment of {len(_chosen(table, largest))} motifs in {groups} groups beside "
        f"{table['null'].nunique()} nulls: {len(conserved)} of {possible} possible motifs conserved."
    ]
    for motif in _chosen(table, largest):
        rows = table[table["motif"] == motif]
        ranges = [
            f"{null} {_range(part)}, passes in {int(part['enriched'].sum())} of {len(part)}"
            for null, part in rows.groupby("null", sort=False)
        ]
        parts.append(f"{motif}{' (conserved)' if motif in conserved else ''}: {'; '.join(ranges)}.")
    return " ".join(parts)


def _range(part: pd.DataFrame) -> str:
    low, high = (
        number(float(v), leading_zero=True) for v in (part["estimate"].min(), part["estimate"].max())
    )
    return f"{low} to {high}" if low != high else low


def _chosen(table: pd.DataFrame, largest: int) -> list[str]:
    if table.empty:
        raise DynstatError("S404", "the table holds no motif", expected="rows of Motifs.tidy()")
    per = table.groupby("motif", sort=False).agg({"conserved": "any", "enriched": "sum", "estimate": "min"})
    return [
        str(m)
        for m in per.sort_values(["conserved", "enriched", "estimate"], ascending=False).index[:largest]
    ]


def _ticks(axes: np.ndarray, table: pd.DataFrame, minimum: float) -> None:
    seen = table.loc[table["estimate"] > 0, ["estimate", "conf.high"]].to_numpy(dtype=float)
    top = float(np.nanmax(seen[np.isfinite(seen)], initial=2.0))
    # A wide range, or many panels, leaves room for every second power of two.
    left = max(min(0.2, 0.8 * float(np.min(seen[seen[:, 0] > 0, 0], initial=1.0))), 0.01)
    every = 2.0 ** np.arange(-6, 7)[:: 2 if top > 12 or left < 0.06 or len(axes) > 2 else 1]
    places = [v for v in every if left <= v <= max(2 * top, 2)]
    for ax in axes:
        ax.minorticks_off()
        ax.set_xticks(places, [f"{v:g}" for v in places])
        ax.set_xlim(left, min(1.15 * max(top, 1.1 * minimum, 2.0), 100))


def _caption(level: float, minimum: float, key: dict[str, str]) -> str:
    lines = [
        f"enrichment over the null, with {100 * level:g} % interval; dashed: {minimum:g}; filled: passes"
    ]
    words = [f"{v} {k}" for k, v in key.items() if k != v]
    lines += [" · ".join(words[i : i + 3]) for i in range(0, len(words), 3)]
    return "\n".join(lines)
