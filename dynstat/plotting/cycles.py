"""Figures of cycles: the reopening curve with its competitors, and the hazard by duration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ..errors import DynstatError
from .style import BAND, GREY, NO_DECISION, OKABE_ITO, figure, number, shorten, style

if TYPE_CHECKING:
    from ..markov.cycles import Reopening
    from ..markov.duration import DurationDependence
    from ..markov.hazard_models import HazardModel

_REOPENED, _ENDED, _NAIVE = OKABE_ITO["blue"], OKABE_ITO["orange"], OKABE_ITO["vermillion"]


def reopening_curve(result: Reopening, group: str = "all") -> Figure:
    """Draw what became of stays by duration: reopened from below, ended by the text from above.

    Solid blue: Aalen–Johansen with its interval at h; orange: what end of text took; between them what is
    still inside. Dashed: one minus Kaplan–Meier. Grey band: the chain without memory. Cross: naive share.
    Below: numbers at risk.

    Parameters
    ----------
    result : Reopening
    group : str
        A level of the result's `by`; all together by default.
    """
    table = _shown(result, group)
    key = "" if group == "all" else f".{group}"
    found = result.estimates()
    at, naive = found[f"reopening{key}"], found[f"naive{key}"]
    steps = np.r_[0, table["step"]]

    def from_zero(column: str, start: float = 0.0) -> Any:
        return np.r_[start, table[column].to_numpy(dtype=float)]

    with style():
        fig = figure(height=3.6)
        ax = fig.subplots()
        right = float(steps[-1]) + 0.5
        ax.fill_between(
            steps,
            from_zero("null.low"),
            from_zero("null.high"),
            step="post",
            color=BAND,
            linewidth=0,
            label="simulated without memory, middle 95 %",
        )
        ended = from_zero("ended")
        if np.nanmax(ended) > 0:
            ax.fill_between(steps, 1 - ended, 1, step="post", color=_ENDED, alpha=0.35, linewidth=0)
            ax.step(
                steps, 1 - ended, where="post", color=_ENDED, linewidth=1.2, label="end of text came first"
            )
        ax.step(
            steps,
            from_zero("kaplan.meier"),
            where="post",
            color=OKABE_ITO["black"],
            linewidth=1,
            linestyle=(0, (4, 2)),
            label="1 − Kaplan–Meier",
        )
        ax.step(steps, from_zero("estimate"), where="post", color=_REOPENED, linewidth=1.8, label="reopened")
        if np.isfinite(at.value):
            error = (
                [[max(at.value - at.low, 0)], [max(at.high - at.value, 0)]] if np.isfinite(at.low) else None
            )
            ax.errorbar(
                [result.horizon],
                [at.value],
                yerr=error,
                fmt="o",
                color=_REOPENED,
                markersize=5,
                capsize=3,
                linewidth=1.5,
                zorder=5,
                label=f"within {result.horizon}, {100 * at.level:g} % interval" if error else "_",
            )
        ax.plot(
            [right],
            [naive.value],
            marker="X",
            markersize=7,
            color=_NAIVE,
            linestyle="none",
            clip_on=False,
            label="naive share",
            zorder=5,
        )
        ax.set_xlim(0, right)
        ax.set_ylim(0, 1)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_ylabel("share of stays")
        ax.set_xlabel(f"tokens since {result.spells.state} was entered", labelpad=16)
        ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        _numbers_at_risk(ax, table, right)
        fig.legend(loc="outside upper left", ncols=3)
        return fig


def hazard_by_duration(result: DurationDependence) -> Figure:
    """Draw the hazard of leaving by duration with intervals, over what runs without memory give.

    Parameters
    ----------
    result : DurationDependence
    """
    table = result.tidy()
    table = table[table["n.risk"] > 0]
    with style():
        fig = figure(height=2.9)
        ax = fig.subplots()
        x = table["step"].to_numpy(dtype=float)
        ax.fill_between(
            x,
            table["null.low"],
            table["null.high"],
            color=BAND,
            linewidth=0,
            label="order within runs permuted, middle 95 %",
        )
        ax.vlines(x, table["conf.low"], table["conf.high"], color=NO_DECISION.colour, linewidth=1)
        ax.plot(
            x,
            table["estimate"],
            "o",
            color=NO_DECISION.colour,
            markersize=4.5,
            clip_on=False,
            label="hazard, with interval",
        )
        ax.set_ylim(0, 1)
        ax.set_xlim(0.5, x[-1] + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.set_ylabel("share that leaves at this step")
        ax.set_xlabel(f"tokens since {result.spells.state} was entered", labelpad=16)
        ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        _numbers_at_risk(ax, table, float(x[-1]) + 0.5)
        fig.legend(loc="outside upper left", ncols=2)
        return fig


def hazard_ratios(result: HazardModel) -> Figure:
    """Draw what every term of a discrete hazard multiplies odds (or hazards) by, on a log axis.

    Parameters
    ----------
    result : HazardModel
    """
    table = result.tidy()
    table = table[table["term"] != "Intercept"]
    if table.empty:
        raise DynstatError("S404", "the model holds an intercept alone", found=result.formula)
    y = np.arange(len(table))[::-1]
    with style():
        fig = figure(height=1.0 + 0.3 * len(table))
        ax = fig.subplots()
        ax.axvline(1.0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.hlines(y, table["conf.low"], table["conf.high"], color=_REOPENED, linewidth=1.4)
        ax.plot(table["estimate"], y, "o", color=_REOPENED, markersize=4.5)
        ax.set_xscale("log")
        # A narrow range has no power of ten to stand for it.
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_yticks(y, [shorten(str(term), 40) for term in table["term"]])
        ax.set_ylim(-0.6, len(table) - 0.4)
        what = "odds" if result.link == "logit" else "hazard"
        ax.set_xlabel(f"{what} ratio of {result.outcome}, {100 * result.level:g} % interval")
    return fig


def alt_text(result: Reopening | DurationDependence, group: str = "all") -> str:
    """Return alt text from the numbers that a figure of this page shows.

    Parameters
    ----------
    result : Reopening or DurationDependence
    group : str
        As given to :func:`reopening_curve`.
    """
    if hasattr(result, "hazards"):
        return _alt_hazard(result)
    table = _shown(result, group)
    key = "" if group == "all" else f".{group}"
    e = result.estimates()
    at, null = e[f"reopening{key}"], e[f"reopening{key}"].null or {}
    what = "" if group == "all" else f" of {group}"
    known = table[np.isfinite(table["estimate"])]
    last = known.iloc[-1] if len(known) else table.iloc[0]
    row = result.nulls.query("group == @group and statistic == 'naive'").iloc[0]
    return (
        f"What became of {at.n['spells']} stays in {result.spells.state}{what} in {at.n['runs']} runs. "
        f"Within {result.horizon} tokens {_span(at)} reopened; {_plain(e[f'end_of_text{key}'].value)} met "
        f"end of text first; 1 − Kaplan–Meier is {_plain(e[f'kaplan_meier{key}'].value)}. "
        f"Without memory it would be {_plain(null.get('mean', np.nan))} on average (p = "
        f"{_plain(null.get('p', np.nan), 3)}). The curve rises to {_plain(last['estimate'])} at "
        f"{int(last['step'])} tokens, with {int(last['n.risk'])} at risk. "
        f"Naive share {_plain(e[f'naive{key}'].value)}; without memory {_plain(row['q025'])} to "
        f"{_plain(row['q975'])}."
    )


def _alt_hazard(result: Any) -> str:
    table = result.tidy()
    rows = table[table["n.risk"] > 0].head(6)
    parts = [
        f"{int(r['step'])}: {_plain(r['estimate'])} [{_plain(r['conf.low'])}, {_plain(r['conf.high'])}]"
        for r in rows.to_dict("records")
    ]
    e = result.estimate
    return (
        f"Share of stays in {result.spells.state} that end by leaving at each step, of those that lasted so "
        f"long. "
        f"By duration in tokens {'; '.join(parts)}. Slope {_plain(e.value)} log odds a doubling of duration "
        f"[{_plain(e.low)}, {_plain(e.high)}], p = {_plain((e.null or {}).get('p', np.nan), 3)}."
    )


def _shown(result: Reopening, group: str) -> pd.DataFrame:
    table = result.curve[result.curve["group"] == group]
    if table.empty:
        known = list(map(str, result.curve["group"].unique()))
        raise DynstatError("S407", "no such group", found=group, expected=", ".join(known))
    # Beyond the last stay at risk the curve has nothing more to say.
    seen = table[(table["n.risk"] > 0) | (table["step"] <= result.horizon)]
    return seen if len(seen) else table.head(1)


def _numbers_at_risk(ax: Any, table: pd.DataFrame, right: float) -> None:
    """Write the numbers at risk under the axis, at its ticks."""
    risk = dict(zip(table["step"].astype(int), table["n.risk"].astype(int), strict=True))
    left = ax.get_xlim()[0]
    # Where the axis starts at entry, all that are at risk for a step stand there.
    risk[0] = risk.get(1, 0)
    ticks = [int(t) for t in ax.get_xticks() if left <= t <= right and int(t) in risk]
    # Points below the axis, so that the row stays in its place whatever the height.
    row = {
        "textcoords": "offset points",
        "va": "top",
        "fontsize": 7.5,
        "color": GREY,
        "annotation_clip": False,
    }
    for t in ticks:
        ax.annotate(f"{risk[t]:,}", (t, 0), (0, -20), xycoords=("data", "axes fraction"), ha="center", **row)
    ax.annotate("at risk", (0, 0), (-16, -20), xycoords="axes fraction", ha="right", **row)


def _plain(value: float, digits: int = 2) -> str:
    return number(float(value), digits=digits) if np.isfinite(value) else "unknown"


def _span(e: Any) -> str:
    if not np.isfinite(e.low):
        return f"{_plain(e.value)} (no interval)"
    return f"{_plain(e.value)} [{_plain(e.low)}, {_plain(e.high)}]"
