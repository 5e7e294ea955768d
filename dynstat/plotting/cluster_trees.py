"""Figure of a hierarchical partition: its dendrogram, with values at nodes and clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from . import condensed_trees, partition_maps
from .cluster_marks import listed, look, plain
from .style import GREY, OKABE_ITO, figure, number, shorten, style

if TYPE_CHECKING:
    from ..cluster.partition import Partition

Array = NDArray[np.float64]
_NAMED = 80  # items that still have room for a name


def draw(partition: Partition, **options: Any) -> Figure:
    """Draw the figure that fits the method of a partition."""
    if partition.linkage is not None:
        return dendrogram(partition, **options)
    if partition.condensed_tree is not None:
        return condensed_trees.condensed_tree(partition, **options)
    return partition_maps.partition_map(partition, **options)


def describe(partition: Partition, **options: Any) -> str:
    """Return the alt text of :func:`draw`."""
    if partition.linkage is not None:
        return describe_dendrogram(partition, **options)
    if partition.condensed_tree is not None:
        return condensed_trees.describe_condensed_tree(partition)
    return partition_maps.describe_partition_map(partition)


NodeValues: TypeAlias = Mapping[int, float] | pd.Series | ArrayLike | None
_Box: TypeAlias = tuple[float, float, float, float]


def dendrogram(
    partition: Partition,
    *,
    au: NodeValues = None,
    bp: NodeValues = None,
    stability: NodeValues = None,
    strong: float = 0.95,
) -> Figure:
    """Draw the tree of a hierarchical partition, its items in rows, the height of merges to the right.

    Parameters
    ----------
    partition : Partition
        With a linkage.
    au, bp : mapping, Series or array, optional
        A value a node: by number of the merge, from 0 in the order of the linkage, or all n − 1 in a row (the
        root's is not drawn: it holds all items in every replicate).
        AU stands before BP, as ``au | bp``; where numbers would overlap, those of lower nodes are left out.
    stability : mapping, Series or array, optional
        A mean Jaccard a cluster, by its number; stands at the cluster's stem.
    strong : float
        Nodes with at least this AU (or BP, where there is no AU) have a filled square.

    Returns
    -------
    matplotlib.figure.Figure
        The dashed line cuts the tree; the number in a circle and the marker of the items name the cluster.

    Raises
    ------
    DynstatError
        S404 for a partition without a tree; S407 for values of nodes or clusters that are not there.
    """
    tree = _linkage(partition)
    n = len(partition.items)
    nodes = {"au": _of_nodes(au, n - 1), "bp": _of_nodes(bp, n - 1)}
    jaccard = _by_number(stability, partition.n_clusters, "cluster")
    at, height, cluster, order = _places(tree, partition.labels)
    cut = _cut(tree, partition.n_clusters)
    with style():
        fig = figure(height=min(1.15 + (0.2 if n <= _NAMED else 0.06) * n, 18.0))
        ax = fig.subplots()
        for step in range(n - 1):
            _join(ax, step, tree, at, height, cluster)
        top = float(height.max()) or 1.0
        if 1 < partition.n_clusters < n:
            ax.axvline(cut, color=OKABE_ITO["black"], linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for leaf in range(n):
            mark = look(int(partition.labels[leaf]))
            ax.plot(
                0, at[leaf], marker=mark.marker, color=mark.colour, markersize=4.5, clip_on=False, zorder=4
            )
        labels = _stems(ax, partition, tree, at, height, cluster, cut, top, jaccard)
        _node_values(ax, nodes, at, height, n, strong, labels)
        if n <= _NAMED:
            size = 8 if n <= 40 else 6.5
            names = [shorten(partition.items[i], 28) for i in order]
            ax.set_yticks(np.arange(n), names, fontsize=size)
        else:
            ax.set_yticks([])
            ax.set_ylabel(f"{n} {partition.item}s")
        ax.tick_params(axis="y", length=0, pad=6)
        ax.set_ylim(n - 0.4, -0.6)
        ax.set_xlim(0, top * (1.14 if nodes["au"] or nodes["bp"] else 1.04))
        ax.spines["left"].set_visible(False)
        p = partition.parameters
        ax.set_xlabel(f"height of the merge ({p.get('linkage', 'tree')}, {p.get('metric', 'distance')})")
        handles = _tree_keys(nodes, jaccard, strong, partition.n_clusters)
        fig.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.6, columnspacing=1.4)
        return fig


def describe_dendrogram(
    partition: Partition,
    *,
    au: NodeValues = None,
    bp: NodeValues = None,
    stability: NodeValues = None,
    strong: float = 0.95,
) -> str:
    """Return the alt text of :func:`dendrogram`."""
    tree = _linkage(partition)
    n, k = len(partition.items), partition.n_clusters
    jaccard = _by_number(stability, k, "cluster")
    h = tree[:, 2]
    parts = [
        f"Dendrogram of {n} {partition.item}s, {partition.parameters.get('linkage', '')} linkage, in {k} "
        f"cluster{'' if k == 1 else 's'}."
    ]
    if 1 < k < n:
        parts.append(
            f"The merge that made {k} is at height {plain(h[n - 1 - k])}, the next at {plain(h[n - k])}."
        )
    elif k == 1:
        parts.append(f"The last merge stands at {plain(h[-1])}.")
    for c in range(k):
        more = f", mean Jaccard {number(jaccard[c])}" if c in jaccard else ""
        parts.append(f"Cluster {c} ({partition.sizes[c]}{more}): {listed(partition.members(c))}.")
    for name, values in (("AU", _of_nodes(au, n - 1)), ("BP", _of_nodes(bp, n - 1))):
        if values:
            over = sum(v >= strong for v in values.values())
            highest = max(values)
            parts.append(
                f"{name} is at least {number(strong)} at {over} of {len(values)} nodes; "
                f"{number(values[highest])} at the highest below the root."
            )
    return " ".join(parts)


def _linkage(partition: Partition) -> Array:
    if partition.linkage is None:
        raise DynstatError(
            "S404", "the partition has no tree", found=partition.method, expected="a hierarchical partition"
        )
    return partition.linkage


def _by_number(values: NodeValues, n: int, what: str) -> dict[int, float]:
    if values is None:
        return {}
    if isinstance(values, (Mapping, pd.Series)):
        out = {int(k): float(v) for k, v in values.items()}  # type: ignore[arg-type]
    else:
        array = np.asarray(values, dtype=np.float64).ravel()
        if array.size != n:
            raise DynstatError("S407", f"one value a {what} is needed", found=array.size, expected=n)
        out = dict(enumerate(array.tolist()))
    if wrong := [k for k in out if not 0 <= k < n]:
        raise DynstatError("S407", f"there is no such {what}", found=wrong, expected=f"0 to {n - 1}")
    return {k: v for k, v in out.items() if np.isfinite(v)}


def _of_nodes(values: NodeValues, n: int) -> dict[int, float]:
    """Return values of nodes without the root's: it holds all items in every replicate."""
    return {k: v for k, v in _by_number(values, n, "merge").items() if k < n - 1}


def _places(tree: Array, labels: NDArray[np.intp]) -> tuple[Array, Array, NDArray[np.intp], list[int]]:
    """Return row and height of every node, its cluster (−1 above the cut), and the items in order of rows."""
    n = len(tree) + 1
    order: list[int] = []
    stack = [2 * n - 2]
    while stack:
        node = stack.pop()
        if node < n:
            order.append(node)
        else:
            a, b = (int(v) for v in tree[node - n, :2])
            stack += [b, a]
    at, height = np.zeros(2 * n - 1), np.zeros(2 * n - 1)
    cluster = np.full(2 * n - 1, -1, dtype=np.intp)
    at[order] = np.arange(n)
    cluster[:n] = labels
    for step, (a, b, h, _) in enumerate(tree):
        i, j = int(a), int(b)
        at[n + step] = (at[i] + at[j]) / 2
        height[n + step] = h
        cluster[n + step] = cluster[i] if cluster[i] == cluster[j] else -1
    return at, height, cluster, order


def _cut(tree: Array, k: int) -> float:
    n = len(tree) + 1
    if k in (1, n):
        return 0.0
    return float((tree[n - 1 - k, 2] + tree[n - k, 2]) / 2)


def _join(ax: Axes, step: int, tree: Array, at: Array, height: Array, cluster: NDArray[np.intp]) -> None:
    n = len(tree) + 1
    node = n + step
    a, b = (int(v) for v in tree[step, :2])
    colour = look(int(cluster[node])).colour if cluster[node] >= 0 else OKABE_ITO["black"]
    ax.plot([height[node]] * 2, [at[a], at[b]], color=colour, linewidth=1.3, solid_capstyle="butt", zorder=2)
    for child in (a, b):
        own = look(int(cluster[child])).colour if cluster[child] >= 0 else OKABE_ITO["black"]
        ax.plot([height[child], height[node]], [at[child]] * 2, color=own, linewidth=1.3, zorder=2)


def _stems(
    ax: Axes,
    partition: Partition,
    tree: Array,
    at: Array,
    height: Array,
    cluster: NDArray[np.intp],
    cut: float,
    top: float,
    jaccard: dict[int, float],
) -> list[_Box]:
    """Write the number of every cluster at its stem; return the room that it takes."""
    n = len(tree) + 1
    taken = []
    for c in range(partition.n_clusters):
        # The last node of a cluster is its whole.
        node = int(np.flatnonzero(cluster == c)[-1])
        x = cut if 1 < partition.n_clusters < n else min(height[node] + 0.02 * top, top)
        words = f"{c}" + (f"  J {number(jaccard[c])}" if c in jaccard else "")
        ax.annotate(
            words,
            (x, at[node]),
            ha="center",
            va="center",
            fontsize=8,
            bbox={
                "boxstyle": "round,pad=0.22",
                "facecolor": "white",
                "edgecolor": look(c).colour,
                "linewidth": 1.2,
            },
            zorder=6,
        )
        half = (0.012 + 0.006 * len(words)) * top
        taken.append((x - half, at[node] - 0.55, x + half, at[node] + 0.55))
    return taken


def _node_values(
    ax: Axes,
    nodes: dict[str, dict[int, float]],
    at: Array,
    height: Array,
    n: int,
    strong: float,
    labels: list[_Box],
) -> None:
    first = nodes["au"] or nodes["bp"]
    if not first:
        return
    top = float(height.max())
    taken = list(labels)
    # The highest nodes first: where numbers would overlap, the lower node's are left out.
    for step in range(n - 2, -1, -1):
        parts = [number(v[step]) for v in nodes.values() if step in v]
        held = first.get(step, -1.0) >= strong
        if not parts:
            continue
        if held:
            ax.plot(height[n + step], at[n + step], "s", color=OKABE_ITO["black"], markersize=4.5, zorder=5)
        words = " | ".join(parts)
        # In heights and rows: the room that the words take, the axis being some 400 points wide.
        wide = 0.0095 * len(words) * top
        x, y = height[n + step], at[n + step]
        # Above the stem to the right, or below it, or to the left of the node.
        for dx, dy, box in (
            (3, 3, (x, y - 0.75, x + wide, y - 0.05)),
            (3, -3, (x, y + 0.05, x + wide, y + 0.75)),
            (-3, 3, (x - wide, y - 0.75, x, y - 0.05)),
        ):
            if any(b[0] < box[2] and box[0] < b[2] and b[1] < box[3] and box[1] < b[3] for b in taken):
                continue
            taken.append(box)
            ax.annotate(
                words,
                (x, y),
                xytext=(dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                va="bottom" if dy > 0 else "top",
                fontsize=6.5,
                color=GREY,
                bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "linewidth": 0, "alpha": 0.85},
                zorder=5,
            )
            break


def _tree_keys(
    nodes: dict[str, dict[int, float]], jaccard: dict[int, float], strong: float, k: int
) -> list[Any]:
    line: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    keys = [
        Line2D([], [], marker=look(c).marker, color=look(c).colour, label=f"cluster {c}", **line)
        for c in range(min(k, 9))
    ]
    names = [name.upper() for name, values in nodes.items() if values]
    if names:
        words = f"{names[0]} at least {number(strong)} (numbers: {' | '.join(names)})"
        keys.append(Line2D([], [], marker="s", color=OKABE_ITO["black"], label=words, **line))
    if jaccard:
        keys.append(Line2D([], [], linestyle="none", label="J: mean Jaccard of the cluster"))
    return keys
