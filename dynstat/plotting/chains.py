"""Figures of a chain: a graph of its states, and its matrix with intervals in the cells."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from numpy.typing import NDArray

from ..errors import DynstatError
from .style import GREY, OKABE_ITO, figure, number, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..inference.estimate import Estimate
    from ..markov.chain_result import MarkovChain

_SHADES = LinearSegmentedColormap.from_list("chain", ["#FFFFFF", OKABE_ITO["sky"], OKABE_ITO["blue"]])
# Points of arrow width a unit of probability.
_WIDTH = 9.0
# Square points of the disc of a state that is always occupied.
_AREA = 9000.0


def transition_graph(chain: MarkovChain, *, threshold: float = 0.05, intervals: bool | None = None) -> Figure:
    """Draw the chain as a graph: disc area = occupancy, arrow width = transition probability.

    Parameters
    ----------
    chain : MarkovChain
    threshold : float
        Arrows are drawn from this probability on; the caption says so and how many are left out.
    intervals : bool, optional
        Write the interval at every arrow; by default with up to three states. :func:`transition_matrix_map`
        has all of them.

    Returns
    -------
    matplotlib.figure.Figure
        Probabilities stand nearer the state they lead from. The self-transition stands with the state's name.

    Raises
    ------
    DynstatError
        S404 for a threshold outside [0, 1).
    """
    if not 0 <= threshold < 1:
        raise DynstatError("S404", "a threshold is a probability", found=threshold, expected="0 to 1")
    states, p = chain.states, chain.matrix
    k = len(states)
    shown = _drawn(chain, threshold)
    with_limits = k <= 3 if intervals is None else intervals
    share = np.nan_to_num(chain.occupancy.to_numpy())
    with style():
        height = 2.9 if k == 2 else 5.0
        fig = figure(height)
        ax = fig.add_subplot()
        at = _places(k)
        radius = np.sqrt(np.maximum(share, 0.004) * _AREA / np.pi)
        for i in range(k):
            for j in range(k):
                if i != j and shown[i, j]:
                    _arrow(ax, at[i], at[j], float(p[i, j]), (radius[i], radius[j]))
                    e = chain[f"transition.{states[i]}.{states[j]}"]
                    _label(ax, at[i], at[j], _written(e, "\n") if with_limits else number(e.value))
        ax.scatter(
            at[:, 0],
            at[:, 1],
            s=np.pi * radius**2,
            color=OKABE_ITO["sky"],
            edgecolor=OKABE_ITO["blue"],
            linewidth=1,
            zorder=3,
        )
        for i, name in enumerate(states):
            own = chain[f"self_transition.{name}"]
            stays = f"stays {_written(own)}" if np.isfinite(own.value) else "never left"
            text = f"{name}\n{number(share[i])} of steps\n{stays}"
            _name(ax, at[i], float(radius[i]), text)
        ax.set_xlim(-2.1, 2.1)
        ax.set_ylim(*((-0.5, 0.9) if k == 2 else (-1.3, 1.6)))
        ax.set_aspect("equal")
        ax.set_axis_off()
        fig.supxlabel(textwrap.fill(_caption(chain, threshold, shown), 108), fontsize=8, color=GREY)
    return fig


def transition_matrix_map(chain: MarkovChain) -> Figure:
    """Draw the transition matrix as a heat map with the interval written in every cell.

    Parameters
    ----------
    chain : MarkovChain

    Returns
    -------
    matplotlib.figure.Figure
        A row a state left, a column a state entered, last the occupancy that the diagonal is held against.
        Cells with under five events are starred; rows that are undefined say so.
    """
    states = chain.states
    k = len(states)
    p = np.column_stack([chain.matrix, np.full(k, np.nan)])
    with style():
        fig = figure(max(2.4, 1.5 + 0.55 * k))
        ax = fig.add_subplot()
        ax.imshow(np.ma.masked_invalid(p), cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
        size = 8 if k <= 5 else max(5, 12 - k)
        for i, a in enumerate(states):
            for j, b in enumerate(states):
                e = chain[f"transition.{a}.{b}"]
                if not np.isfinite(e.value):
                    ax.text(j, i, "undefined", ha="center", va="center", fontsize=size, color=GREY)
                    continue
                star = "*" if e.diagnostics.get("few_events") else ""
                colour = "white" if e.value > 0.75 else "black"
                ax.text(j, i, _written(e, f"{star}\n"), ha="center", va="center", fontsize=size, color=colour)
            own = chain[f"occupancy.{a}"]
            ax.text(k, i, _written(own, "\n"), ha="center", va="center", fontsize=size)
        ax.axvline(k - 0.5, color=GREY, linewidth=1)
        wide = 14 if k <= 5 else 9
        ax.set_xticks(range(k + 1), [_folded(s, wide) for s in (*states, "(occupancy)")])
        ax.set_yticks(range(k), [_folded(s, 20) for s in states])
        ax.tick_params(length=0)
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
        ax.set_xlabel("to")
        ax.set_ylabel("from")
        for spine in ax.spines.values():
            spine.set_visible(False)
        note = f"{100 * chain.level:g} % intervals, {_how(chain)}."
        if any(chain[f"transition.{a}.{b}"].diagnostics.get("few_events") for a in states for b in states):
            note += " * under five events (or under five others): Jeffreys' limits on counts shrunk to the "
            note += f"effective number of {chain.unit}s."
        fig.supxlabel(textwrap.fill(note, 108), fontsize=8, color=GREY)
    return fig


def alt_text(chain: MarkovChain, kind: str = "graph", *, threshold: float = 0.05) -> str:
    """Return in words what a figure of the chain shows.

    Parameters
    ----------
    chain : MarkovChain
    kind : {"graph", "matrix"}
    threshold : float
        Of the graph's arrows.
    """
    head = {
        "graph": "Graph of the transitions between states",
        "matrix": "Heat map of transition probabilities",
    }[kind]
    parts = [f"{head} of {chain.n['sequences']} sequences, {100 * chain.level:g} % intervals, {_how(chain)}."]
    for i, name in enumerate(chain.states):
        own = chain[f"self_transition.{name}"]
        share = number(float(chain.occupancy.iloc[i]))
        if not np.isfinite(own.value):
            parts.append(f"{name}: {share} of steps, never left.")
            continue
        exits = [
            f"to {b} {number(float(chain.matrix[i, j]))}"
            for j, b in enumerate(chain.states)
            if i != j and (kind == "matrix" or chain.matrix[i, j] >= threshold)
        ]
        parts.append(
            f"{name}: {share} of steps, stays {_written(own)}"
            + (", " + ", ".join(exits) if exits else "")
            + "."
        )
    return " ".join(parts)


def _drawn(chain: MarkovChain, threshold: float) -> NDArray[np.bool_]:
    p = np.nan_to_num(chain.matrix)
    return np.asarray((p >= threshold) & (p > 0))


def _how(chain: MarkovChain) -> str:
    if chain.interval == "dirichlet":
        return "Dirichlet posterior, every transition taken as independent"
    return f"{chain.interval} of {chain.n['units']} {chain.unit}s"


def _caption(chain: MarkovChain, threshold: float, shown: NDArray[np.bool_]) -> str:
    apart = ~np.eye(len(chain.states), dtype=bool)
    hidden = int(np.sum(apart & ~shown & (np.nan_to_num(chain.matrix) > 0)))
    text = (
        f"Disc area: share of steps. Arrow width: probability of the next step along {chain.axis}s, written "
        f"at the state it leaves; arrows from {number(threshold)} on"
    )
    text += f" ({hidden} rarer ones left out)." if hidden else "."
    return f"{text} {100 * chain.level:g} % intervals, {_how(chain)}."


def _places(k: int) -> NDArray[np.float64]:
    if k == 2:
        return np.array([[-1.05, 0.0], [1.05, 0.0]])
    angle = np.pi / 2 - 2 * np.pi * np.arange(k) / k
    return np.column_stack([1.35 * np.cos(angle), np.sin(angle)])


def _arrow(
    ax: Axes, a: NDArray[np.float64], b: NDArray[np.float64], p: float, radii: tuple[float, float]
) -> None:
    arrow = FancyArrowPatch(
        (float(a[0]), float(a[1])),
        (float(b[0]), float(b[1])),
        connectionstyle="arc3,rad=0.16",
        arrowstyle=f"-|>,head_length={3 + 3 * p},head_width={1.6 + 3 * p}",
        linewidth=max(0.6, _WIDTH * p),
        color="#8C8C8C",
        shrinkA=radii[0] + 2,
        shrinkB=radii[1] + 3,
        mutation_scale=1.6,
        zorder=1,
    )
    ax.add_patch(arrow)


def _label(ax: Axes, a: NDArray[np.float64], b: NDArray[np.float64], text: str) -> None:
    """Write at the arrow, a third of the way from where it starts, on its own side of the line."""
    way = b - a
    # The control point of arc3 lies rad times the distance to the right of the middle.
    control = (a + b) / 2 + 0.16 * np.array([way[1], -way[0]])
    t = 0.36
    x, y = (1 - t) ** 2 * a + 2 * t * (1 - t) * control + t**2 * b
    ax.text(
        x,
        y,
        text,
        ha="center",
        va="center",
        fontsize=7.5,
        zorder=4,
        bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def _name(ax: Axes, at: NDArray[np.float64], radius: float, text: str) -> None:
    """Write beside the disc, away from the middle."""
    x, y = at
    side = "center" if abs(x) < 0.3 else ("left" if x > 0 else "right")
    if abs(y) < 0.05 and abs(x) > 0.9:
        offset, side, vertical = (0.0, radius + 4), "center", "bottom"
    elif side == "center":
        offset, vertical = (0.0, np.sign(y) * (radius + 4)), ("bottom" if y > 0 else "top")
    else:
        offset, vertical = (np.sign(x) * (radius + 4), np.sign(y) * 6), "center"
    ax.annotate(
        text, (x, y), xytext=offset, textcoords="offset points", ha=side, va=vertical, fontsize=8, zorder=5
    )


def _written(e: Estimate, between: str = " ") -> str:
    """Write an estimate with its interval; a third digit where two would hide its width."""
    digits = 3 if e.high - e.low < 0.025 else 2
    return (
        f"{number(e.value, digits=digits)}{between}"
        f"[{number(e.low, digits=digits)}, {number(e.high, digits=digits)}]"
    )


def _folded(name: str, width: int) -> str:
    """Fold a state's name at its underscores."""
    return "\n".join(textwrap.wrap(name.replace("_", "_ "), width)).replace("_ ", "_").replace("_\n", "_\n")
