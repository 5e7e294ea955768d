"""Figures of variance shares by metric and layer: heat map, and stacked bars with intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import OKABE_ITO, figure, number, shorten, style

if TYPE_CHECKING:
    from ..mixed.decomposition import Decomposition

#: Terms in the order of a table; the residual is grey.
COLOURS = ("blue", "orange", "green", "sky", "purple", "vermillion", "yellow")
_RESIDUAL = "#D0D0D0"
_NEEDED = ("metric", "layer", "term", "estimate")
# Above this many columns the numbers in the cells would touch.
_NUMBERS_UP_TO = 8


def shares_table(decompositions: Mapping[tuple[str, int], Decomposition]) -> pd.DataFrame:
    """Return the shares of many decompositions in one table, for the figures of this module.

    Parameters
    ----------
    decompositions : mapping of (metric, layer) to Decomposition

    Returns
    -------
    DataFrame
        metric, layer, term, estimate, conf.low, conf.high, chance, in the order given.
    """
    pieces = []
    for (metric, layer), made in decompositions.items():
        table = made.tidy()[["term", "estimate", "conf.low", "conf.high", "chance"]]
        pieces.append(table.assign(metric=metric, layer=layer))
    columns = ["metric", "layer", "term", "estimate", "conf.low", "conf.high", "chance"]
    return pd.concat(pieces, ignore_index=True)[columns] if pieces else pd.DataFrame(columns=columns)


def shares_heatmap(table: pd.DataFrame, *, terms: Sequence[str] | None = None) -> Figure:
    """Draw shares of variance as heat maps: a panel a term, a row a metric, a column a layer.

    Parameters
    ----------
    table : DataFrame
        Columns metric, layer, term, estimate, as :func:`shares_table` gives.
    terms : sequence of str, optional
        The terms to draw, in this order; default all.

    Notes
    -----
    Darker is more; one scale from 0 to the largest share for all panels. Where cells are few their numbers
    stand in them. A missing cell is hatched.
    """
    _check(table)
    wanted = _terms(table, terms)
    metrics, layers = _order(table["metric"]), sorted(table["layer"].unique())
    columns = 1 if len(layers) > 16 else min(2 if len(layers) > 5 else 3, len(wanted))
    rows = math.ceil(len(wanted) / columns)
    values = {t: _grid(table, t, metrics, layers) for t in wanted}
    top = max(0.05, float(np.nanmax([np.nanmax(v) if np.isfinite(v).any() else 0 for v in values.values()])))
    step = 0.05 if top <= 0.25 else 0.1 if top <= 0.5 else 0.2
    top = min(1.0, math.ceil(top / step - 1e-9) * step)
    with style():
        fig = figure(height=0.55 + rows * (0.42 + 0.27 * len(metrics)))
        axes = np.atleast_1d(fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
        image = None
        for ax, term in zip(axes, wanted, strict=False):
            image = _panel(ax, values[term], term, metrics, layers, top)
        for ax in axes[len(wanted) :]:
            ax.set_visible(False)
        for i, ax in enumerate(axes[: len(wanted)]):
            if i + columns >= len(wanted):
                ax.set_xlabel("layer")
                ax.tick_params(labelbottom=True)
        assert image is not None
        ticks = np.arange(0, top + step / 2, step)
        height = float(fig.get_size_inches()[1])
        bar = fig.colorbar(image, ax=list(axes), shrink=min(0.9, 3.2 / height), aspect=25, pad=0.015)
        bar.set_ticks(list(ticks), labels=[_tick(float(t)) for t in ticks])
        bar.set_label("share of variance")
        bar.outline.set_visible(False)
        return fig


def shares_stacked(table: pd.DataFrame, *, level: float = 0.95) -> Figure:
    """Draw shares of variance as stacked bars: a panel a metric, a bar a layer, a colour a term.

    A thin line at every segment: the interval of its share, measured from the segment's base (the last
    segment's from the top of the bar, downwards); the lines of one bar stand side by side.

    Parameters
    ----------
    table : DataFrame
        Columns metric, layer, term, estimate, and for intervals conf.low, conf.high, as :func:`shares_table`
        gives.
    level : float
        Of the intervals, for the legend.
    """
    _check(table)
    terms = _terms(table, None)
    metrics, layers = _order(table["metric"]), sorted(table["layer"].unique())
    columns = 1 if len(layers) > 10 or len(metrics) == 1 else 2
    rows = math.ceil(len(metrics) / columns)
    colours = colours_of(terms)
    with style():
        fig = figure(height=0.95 + rows * 1.95)
        axes = np.atleast_1d(fig.subplots(rows, columns, sharey=True, squeeze=False)).ravel()
        for ax, metric in zip(axes, metrics, strict=False):
            _bars(ax, table[table["metric"] == metric], layers, terms, colours)
            ax.set_title(shorten(str(metric), 40), loc="left")
        for ax in axes[len(metrics) :]:
            ax.set_visible(False)
        for i, ax in enumerate(axes[: len(metrics)]):
            if i + columns >= len(metrics):
                ax.set_xlabel("layer")
            if i % columns == 0:
                ax.set_ylabel("share of variance")
        keys: list[Any] = [Patch(color=colours[t], label=t) for t in terms]
        if {"conf.low", "conf.high"} <= set(table.columns) and table["conf.low"].notna().any():
            keys.append(Line2D([], [], color="black", linewidth=0.9, label=f"{100 * level:g} % interval"))
        fig.legend(handles=keys, loc="outside upper left", ncols=4, handlelength=1.3, columnspacing=1.4)
        return fig


def describe_by_layer(table: pd.DataFrame) -> str:
    """Return the alt text of both figures: every share by metric, layer and term, in words and numbers."""
    _check(table)
    layers = sorted(table["layer"].unique())
    metrics = _order(table["metric"])
    parts = [f"Shares of variance of {len(metrics)} metrics at {len(layers)} layers."]
    bounded = {"conf.low", "conf.high"} <= set(table.columns)
    for metric in metrics:
        for term in _terms(table, None):
            part = table[(table["metric"] == metric) & (table["term"] == term)].sort_values("layer")
            if part.empty:
                continue
            words = []
            for row in part.to_dict("records"):
                text = f"layer {row['layer']} {number(row['estimate'])}"
                if bounded and math.isfinite(row["conf.low"]):
                    text += f" [{number(row['conf.low'])}, {number(row['conf.high'])}]"
                words.append(text)
            parts.append(f"{metric}, {term}: {', '.join(words)}.")
    return " ".join(parts)


def colours_of(terms: Sequence[str]) -> dict[str, str]:
    """Return a colour a term, grey for the residual."""
    named = [t for t in terms if t != "residual"]
    picked = {t: OKABE_ITO[COLOURS[i % len(COLOURS)]] for i, t in enumerate(named)}
    return picked | {"residual": _RESIDUAL}


def _panel(ax: Any, values: Any, term: str, metrics: list[Hashable], layers: list[Any], top: float) -> Any:
    ax.set_facecolor("white")
    ax.patch.set(hatch="////", edgecolor="#BBBBBB", linewidth=0)
    edges_x, edges_y = np.arange(len(layers) + 1) - 0.5, np.arange(len(metrics) + 1) - 0.5
    image = ax.pcolormesh(
        edges_x,
        edges_y,
        np.ma.masked_invalid(values),
        cmap="Blues",
        vmin=0,
        vmax=top,
        edgecolors="white",
        linewidth=1.0,
    )
    ax.set_ylim(len(metrics) - 0.5, -0.5)
    step = max(1, math.ceil(len(layers) / 13))
    shown = range(0, len(layers), step)
    ax.set_xticks(list(shown), [str(layers[i]) for i in shown])
    ax.set_yticks(range(len(metrics)), [shorten(str(m), 24) for m in metrics])
    ax.tick_params(length=0)
    ax.set_title(term, loc="left")
    for side in ax.spines.values():
        side.set_visible(False)
    if len(layers) <= _NUMBERS_UP_TO:
        for i in range(len(metrics)):
            for j in range(len(layers)):
                if np.isfinite(values[i, j]):
                    ax.text(
                        j,
                        i,
                        number(float(values[i, j])),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if values[i, j] > 0.7 * top else "black",
                    )
    return image


def _bars(ax: Any, part: pd.DataFrame, layers: list[Any], terms: list[str], colours: dict[str, str]) -> None:
    width = 0.82
    # Whiskers side by side, inside the bar.
    offsets = (np.arange(len(terms)) - (len(terms) - 1) / 2) * width / (len(terms) + 0.5)
    thin = 0.9 if len(layers) <= 12 else 0.6
    at = {layer: i for i, layer in enumerate(layers)}
    rows = part.set_index(["layer", "term"])
    for layer in layers:
        base = 0.0
        for k, term in enumerate(terms):
            if (layer, term) not in rows.index:
                continue
            row = rows.loc[(layer, term)]
            share = float(row["estimate"])
            x = at[layer]
            ax.bar(x, share, width, base, color=colours[term], edgecolor="white", linewidth=0.6, zorder=2)
            low, high = float(row.get("conf.low", np.nan)), float(row.get("conf.high", np.nan))
            if math.isfinite(low) and math.isfinite(high):
                last = k == len(terms) - 1
                ends = [1 - high, 1 - low] if last else [base + low, base + high]
                ax.plot([x + offsets[k]] * 2, ends, color="black", linewidth=thin, zorder=4, clip_on=False)
            base += share
    step = max(1, math.ceil(len(layers) / 26))
    shown = range(0, len(layers), step)
    ax.set_xticks(list(shown), [str(layers[i]) for i in shown])
    ax.set_xlim(-0.6, len(layers) - 0.4)
    ax.set_ylim(0, 1.0)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    ax.tick_params(axis="x", length=0)


def _tick(value: float) -> str:
    text = number(value, digits=2 if round(value * 100) % 10 else 1)
    return {".0": "0", "1.0": "1"}.get(text, text)


def _grid(table: pd.DataFrame, term: str, metrics: list[Hashable], layers: list[Any]) -> Any:
    part = table[table["term"] == term]
    wide = part.pivot_table(index="metric", columns="layer", values="estimate", aggfunc="first")
    return wide.reindex(index=metrics, columns=layers).to_numpy(dtype=np.float64)


def _terms(table: pd.DataFrame, wanted: Sequence[str] | None) -> list[str]:
    known = [str(t) for t in _order(table["term"])]
    if wanted is None:
        return known
    from ..errors import DynstatError

    if missing := [t for t in wanted if t not in known]:
        raise DynstatError(
            "S404", "the table holds no such term", found=missing[0], expected=", ".join(known)
        )
    return list(wanted)


def _order(column: pd.Series) -> list[Hashable]:
    return list(dict.fromkeys(column))


def _check(table: pd.DataFrame) -> None:
    from ..errors import DynstatError

    if missing := [c for c in _NEEDED if c not in table.columns]:
        raise DynstatError("S404", f"the table holds no column {missing[0]!r}", expected=", ".join(_NEEDED))
    if table.empty:
        raise DynstatError("S404", "the table is empty", expected="a row a metric, layer and term")
