"""How long states are stayed in: survival of stays by state, beside a dwell without memory."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..errors import DynstatError
from .style import BAND, GREY, OKABE_ITO, figure, number, shorten, style


def dwell_curves(table: pd.DataFrame, *, group: str = "all", level: float = 0.95) -> Figure:
    """Draw the Kaplan–Meier curve of stays, a panel a state, with its band and the geometric curve (dashed).

    Parameters
    ----------
    table : DataFrame
        From :meth:`dynstat.markov.sojourns.Dwell.survival`.
    group : str
    level : float
        Of the bands, for the label.
    """
    part = table[table["group"] == group]
    if part.empty:
        raise DynstatError(
            "S407", "no such group", found=group, expected=", ".join(map(str, table["group"].unique()))
        )
    states = list(dict.fromkeys(part["state"]))
    columns = len(states) if len(states) < 4 else 2 if len(states) == 4 else 3
    rows = math.ceil(len(states) / columns)
    with style():
        fig = figure(height=0.75 + 1.8 * rows)
        axes = np.atleast_1d(fig.subplots(rows, columns, sharey=True)).ravel()
        for ax, state in zip(axes, states, strict=False):
            one = part[part["state"] == state]
            time = one["time"].to_numpy()
            ax.fill_between(time, one["conf.low"], one["conf.high"], step="post", color=BAND, linewidth=0)
            ax.step(
                time, one["estimate"], where="post", color=OKABE_ITO["blue"], linewidth=1.5, label="stays"
            )
            ax.step(
                time,
                one["geometric"],
                where="post",
                color=OKABE_ITO["vermillion"],
                linewidth=1.2,
                linestyle=(0, (4, 2)),
                label="geometric: leaving without memory",
            )
            title = f"{shorten(str(state))}\n{int(one['at.risk'].iloc[0])} stays"
            ax.set_title(title, loc="left", fontsize=8)
            ax.axhline(0.5, color=GREY, linewidth=0.5)
            ax.set_ylim(0, 1.02)
            ax.set_xlim(0, max(int(time[-1]), 1))
            ax.locator_params(axis="x", integer=True, nbins=6)
        for ax in axes[len(states) :]:
            ax.set_visible(False)
        fig.supxlabel("steps in the state", fontsize=9)
        fig.supylabel(f"share still there, {100 * level:g} % band", fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper left", ncols=2)
        return fig


def alt_text(table: pd.DataFrame, *, group: str = "all") -> str:
    """Return alt text: of every state how many stays, and the shares after one, two and four steps."""
    part = table[table["group"] == group]
    parts = [f"Survival of stays in {part['state'].nunique()} states beside a geometric dwell."]
    for state, one in part.groupby("state", sort=False):
        by = one.set_index("time")
        shares = [
            f"after {k} {_share(by, k, 'estimate')} (geometric {_share(by, k, 'geometric')})"
            for k in (1, 2, 4)
            if k in by.index
        ]
        parts.append(f"{state}, {int(one['at.risk'].iloc[0])} stays: {', '.join(shares)}.")
    return " ".join(parts)


def _share(by: pd.DataFrame, k: int, column: str) -> str:
    return number(float(by[column].loc[k]))
