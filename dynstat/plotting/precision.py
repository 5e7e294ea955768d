"""Figures of a D-study (error by planned number) and of one variance a category."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from ..errors import DynstatError
from .style import NO_DECISION, OKABE_ITO, figure, number, shorten, style

_LINES = (
    ("black", "o"),
    ("vermillion", "s"),
    ("blue", "^"),
    ("green", "D"),
    ("purple", "v"),
    ("orange", "P"),
)
_WORDS = {
    "se.model": "standard error of a model's mean",
    "se.difference": "standard error of a difference",
    "se.mean": "standard error of the mean over models",
    "g": "generalizability coefficient",
    "phi": "index of dependability",
}


def planned_precision(table: pd.DataFrame, *, along: str, quantity: str = "se.difference") -> Figure:
    """Draw a quantity of a D-study along one planned number, a line a combination of the others.

    Vertical lines: intervals.

    Parameters
    ----------
    table : DataFrame
        From :meth:`dynstat.mixed.decision_study.DStudy.tidy`.
    along : str
        The column that runs along the axis.
    quantity : str
        ``se.model``, ``se.difference``, ``se.mean``, ``g`` or ``phi``.
    """
    part = table[table["quantity"] == quantity]
    if part.empty or along not in part:
        raise DynstatError(
            "S404",
            "the table holds no such quantity or column",
            found=f"{quantity}, {along}",
            expected=", ".join([*_WORDS, *map(str, table.columns[:-4])]),
        )
    fixed = ("quantity", "estimate", "conf.low", "conf.high", along)
    others = [c for c in part.columns if c not in fixed and part[c].nunique() > 1]
    lines = list(part.groupby(others, sort=False)) if others else [((), part)]
    if len(lines) > len(_LINES):
        raise DynstatError("S404", "too many lines", found=len(lines), expected=f"at most {len(_LINES)}")
    with style():
        fig = figure(height=3.0)
        ax = fig.subplots()
        places = sorted(part[along].unique())
        spread = 0.012 * (math.log(places[-1] / places[0]) or 1.0)
        for i, (key, rows) in enumerate(lines):
            rows = rows.sort_values(along)
            colour, marker = OKABE_ITO[_LINES[i][0]], _LINES[i][1]
            # Side by side, so that intervals do not lie on each other.
            x = rows[along] * math.exp(spread * (i - (len(lines) - 1) / 2))
            name = ", ".join(f"{k} {v:g}" for k, v in zip(others, key, strict=True))
            ax.plot(x, rows["estimate"], color=colour, marker=marker, markersize=5, linewidth=1, label=name)
            ax.vlines(x, rows["conf.low"], rows["conf.high"], color=colour, linewidth=1)
        ax.set_xscale("log")
        ax.minorticks_off()
        ax.set_xticks(places, [f"{p:g}" for p in places])
        ax.set_ylim(bottom=0)
        if quantity in ("g", "phi"):
            ax.set_ylim(0, 1)
        ax.set_xlabel(f"planned number of {along}s")
        ax.set_ylabel(_WORDS.get(quantity, quantity))
        ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        if others:
            fig.legend(loc="outside upper left", ncols=4)
        return fig


def category_variances(table: pd.DataFrame, *, level: float = 0.95) -> Figure:
    """Draw one variance between models a category, with its interval; the contrast in blue.

    Parameters
    ----------
    table : DataFrame
        From :meth:`dynstat.mixed.by_category.CategoryVariances.tidy`.
    level : float
        Of the intervals, for the axis label.
    """
    with style():
        fig = figure(height=0.85 + 0.32 * len(table))
        ax = fig.subplots()
        for i, row in enumerate(table.to_dict("records")):
            chosen = bool(row["contrast"])
            colour = OKABE_ITO["blue"] if chosen else NO_DECISION.colour
            ax.plot([row["conf.low"], row["conf.high"]], [i, i], color=colour, linewidth=2)
            ax.plot(row["estimate"], i, marker="D" if chosen else "o", color=colour, markersize=6.5)
        names = [
            shorten(str(r["category"])) + (" (contrast)" if r["contrast"] else "")
            for _, r in table.iterrows()
        ]
        ax.set_yticks(range(len(table)), names)
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.set_xlim(left=0)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color="#EEEEEE", linewidth=0.8)
        ax.set_xlabel(f"variance between models, with {100 * level:g} % interval")
        return fig


def describe_rows(table: pd.DataFrame, names: Sequence[str], title: str) -> str:
    """Return alt text: the title, and every row's estimate with its interval."""
    parts = [title]
    for row in table.to_dict("records"):
        parts.append(f"{_named(row, names)}: {_value(row)}.")
    return " ".join(parts)


def _named(row: Mapping[str, object], names: Sequence[str]) -> str:
    return ", ".join(f"{n} {row[n]}" for n in names)


def _value(row: Mapping[str, float]) -> str:
    limits = (row["conf.low"], row["conf.high"])
    shown = number(row["estimate"], digits=3, leading_zero=True)
    if not all(math.isfinite(v) for v in limits):
        return shown
    low, high = (number(v, digits=3, leading_zero=True) for v in limits)
    return f"{shown} [{low}, {high}]"
