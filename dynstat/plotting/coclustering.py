"""Figures of items that stay together: heat map of pairs, distributions of consensus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .style import BAND, GREY, OKABE_ITO, figure, number, shorten, style

# Above these many items numbers, then names, would lie on each other.
_NUMBERED, _NAMED = 24, 90


def heat_map(
    frequency: ArrayLike,
    items: Sequence[str],
    *,
    linkage: ArrayLike | None = None,
    outlined: Iterable[Sequence[str]] = (),
    label: str = "share of replicates in one cluster",
) -> Figure:
    """Draw how often two items fall in one cluster, items in the order of the dendrogram.

    Darker is more often; the number stands in the cell where it can be read. Outlined pairs are those that
    survive. The diagonal is left grey, a pair never seen is crossed.

    Parameters
    ----------
    frequency : array_like, shape (n, n)
    items : sequence of str
    linkage : array_like, optional
        scipy's, for the order. Default: average linkage of 1 − frequency.
    outlined : pairs of str
    label : str
        Of the colour bar.

    Raises
    ------
    DynstatError
        S404 where shapes do not fit.
    """
    shares = np.asarray(frequency, dtype=np.float64)
    n = len(items)
    if shares.shape != (n, n):
        raise DynstatError("S404", "the matrix does not fit the items", found=shares.shape, expected=(n, n))
    order = _order(shares, linkage)
    shown = shares[np.ix_(order, order)].copy()
    names = [items[i] for i in order]
    np.fill_diagonal(shown, np.nan)
    tick = 9.0 if n <= 12 else 8.0 if n <= 24 else max(3.0, 260 / n)
    length = 26 if n <= 24 else 18
    with style():
        fig = figure(height=min(1.6 + 0.42 * n, 6.2))
        ax = fig.subplots()
        ramp = LinearSegmentedColormap.from_list("together", ["#FFFFFF", OKABE_ITO["sky"], "#003F66"])
        colours = ramp.with_extremes(bad=BAND)
        image = ax.imshow(shown, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        if n <= _NUMBERED:
            size = 8.0 if n <= 12 else 5.8 if n <= 18 else 4.4
            for i, j in zip(*np.nonzero(~np.eye(n, dtype=bool)), strict=True):
                _cell(ax, int(i), int(j), shown[i, j], size)
        pairs = list(outlined)
        if pairs:
            place = {name: i for i, name in enumerate(names)}
            inside = np.zeros((n, n), dtype=bool)
            for one, other in pairs:
                inside[place[one], place[other]] = inside[place[other], place[one]] = True
            # A block of survivors is one box, its diagonal included.
            beside = np.diagonal(inside, 1)
            inside[range(n), range(n)] = np.append(beside, False) | np.insert(beside, 0, False)
            _outline(ax, inside)
            ax.set_title("outlined: survives", loc="left", color=OKABE_ITO["vermillion"])
        if n <= _NAMED:
            short = [shorten(name, length) for name in names]
            ax.set_xticks(range(n), short, rotation=90, fontsize=tick)
            ax.set_yticks(range(n), short, fontsize=tick)
        else:
            ax.set_xticks([])
            ax.set_yticks([])
        ax.tick_params(length=0)
        for side in ("left", "bottom"):
            ax.spines[side].set_visible(False)
        bar = fig.colorbar(image, ax=ax, shrink=0.9 if n <= 10 else 0.6, pad=0.02, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["0", ".5", "1"])
        bar.set_label(label)
        bar.outline.set_linewidth(0.6)  # type: ignore[operator]
        return fig


def describe_heat_map(
    frequency: ArrayLike, items: Sequence[str], *, outlined: Iterable[Sequence[str]] = ()
) -> str:
    """Return the alt text of :func:`heat_map`: the most frequent pairs, and those that survive."""
    shares = np.asarray(frequency, dtype=np.float64)
    i, j = np.triu_indices(len(items), 1)
    values = shares[i, j]
    top = np.argsort(-np.nan_to_num(values), kind="stable")[:6]
    words = "; ".join(f"{items[i[t]]} with {items[j[t]]} {number(values[t])}" for t in top)
    pairs = [f"{a} with {b}" for a, b in outlined]
    rest = f"; and {len(pairs) - 12} more" if len(pairs) > 12 else ""
    kept = f" Outlined, as they survive: {'; '.join(pairs[:12])}{rest}." if pairs else ""
    return (
        f"Heat map of how often two of {len(items)} items fall in one cluster. "
        f"{int(np.sum(values >= 0.95))} of {values.size} pairs reach .95, "
        f"{int(np.sum(values >= 0.5))} reach .50. "
        f"Most frequent: {words}.{kept}"
    )


def consensus_distributions(
    grid: ArrayLike,
    curves: Mapping[int, ArrayLike],
    bands: Mapping[int, tuple[ArrayLike, ArrayLike]] | None = None,
    *,
    pac: Mapping[int, float] | None = None,
) -> Figure:
    """Draw the distribution of consensus values for every k, with the band of structureless data.

    A panel a k. A flat middle (few pairs between never and always) is a clear partition; the grey band holds
    the middle 95 % of structureless data at every value.

    Parameters
    ----------
    grid : array_like, shape (g,)
        Consensus values.
    curves : mapping of k to array_like, shape (g,)
        Cumulative share of pairs at most there.
    bands : mapping of k to (low, high), optional
    pac : mapping of k to float, optional
        Written into the panel.
    """
    x = np.asarray(grid, dtype=np.float64)
    ks = sorted(curves)
    columns = min(3, len(ks))
    rows = -(-len(ks) // columns)
    with style():
        fig = figure(height=0.5 + 1.75 * rows)
        axes = np.atleast_1d(fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).ravel()
        for ax, k in zip(axes, ks, strict=False):
            for at in (0.1, 0.9):
                ax.axvline(at, color=BAND, linewidth=0.8, linestyle=":")
            if bands and k in bands:
                low, high = (np.asarray(b, dtype=np.float64) for b in bands[k])
                ax.fill_between(x, low, high, color=BAND, linewidth=0, step="post")
            ax.step(x, np.asarray(curves[k]), where="post", color=OKABE_ITO["blue"], linewidth=1.6)
            title = f"k = {k}" + (f", PAC {number(pac[k])}" if pac and k in pac else "")
            ax.set_title(title, loc="left")
            ax.set_xlim(0, 1)
            ax.set_ylim(0, 1.02)
            ax.set_xticks([0, 0.1, 0.5, 0.9, 1], ["0", ".1", ".5", ".9", "1"])
            ax.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
        for at, ax in enumerate(axes):
            ax.set_visible(at < len(ks))
            # The lowest panel of every column has the numbers.
            if at < len(ks) <= at + columns:
                ax.tick_params(labelbottom=True)
        beside = "; grey: the middle 95 % of structureless sets" if bands else ""
        fig.supxlabel(f"consensus of a pair{beside}", fontsize=9)
        fig.supylabel("share of pairs at most there", fontsize=9)
        return fig


def describe_consensus(
    pac: Mapping[int, float], null: Mapping[int, float] | None = None, p: Mapping[int, float] | None = None
) -> str:
    """Return the alt text of :func:`consensus_distributions`: PAC for every k beside its null."""
    parts = []
    for k in sorted(pac):
        beside = f" (structureless {number(null[k])}" if null else ""
        tail = f", p = {number(p[k], digits=3)})" if null and p else ")" if null else ""
        parts.append(f"k = {k}: {number(pac[k])}{beside}{tail}")
    return (
        "Cumulative distributions of the consensus of pairs, a panel for every number of clusters. "
        "Share of ambiguous pairs (PAC) at " + "; ".join(parts) + "."
    )


def _order(shares: NDArray[np.float64], linkage: ArrayLike | None) -> NDArray[np.intp]:
    from scipy.cluster.hierarchy import leaves_list
    from scipy.cluster.hierarchy import linkage as join
    from scipy.spatial.distance import squareform

    if linkage is None:
        if len(shares) < 3:
            return np.arange(len(shares))
        away = 1 - np.nan_to_num(shares)
        np.fill_diagonal(away, 0.0)
        linkage = join(squareform(away, checks=False), "average")
    return np.asarray(leaves_list(np.asarray(linkage, dtype=np.float64)), dtype=np.intp)


def _outline(ax: Any, inside: NDArray[np.bool_]) -> None:
    """Draw the border between marked cells and all others: a box about every block, not about every cell."""
    n = len(inside)
    padded = np.pad(inside, 1)
    lines = []
    for i, j in np.argwhere(padded[1:, :] != padded[:-1, :]):
        lines.append([(j - 1.5, i - 0.5), (j - 0.5, i - 0.5)])
    for i, j in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        lines.append([(j - 0.5, i - 1.5), (j - 0.5, i - 0.5)])
    width = 2.0 if n <= 24 else 1.2
    ax.add_collection(
        LineCollection(
            lines, colors=OKABE_ITO["vermillion"], linewidths=width, capstyle="projecting", zorder=5
        )
    )


def _cell(ax: Any, i: int, j: int, value: float, size: float) -> None:
    if np.isnan(value):
        ax.text(j, i, "×", ha="center", va="center", fontsize=size, color=GREY)
        return
    # Two digits must not turn .996 into certainty.
    text = "1" if value == 1 else "0" if value == 0 else ">.99" if value > 0.995 else number(value)
    if 0 < value < 0.005:
        text = "<.01"
    ax.text(
        j,
        i,
        text,
        ha="center",
        va="center",
        fontsize=size,
        color="white" if value > 0.6 else OKABE_ITO["black"],
    )
