"""Figure of HDBSCAN's condensed tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ..errors import DynstatError
from .cluster_marks import listed, look, plain
from .style import GREY, figure, number, style

if TYPE_CHECKING:
    from ..cluster.partition import Partition

Array = NDArray[np.float64]


def condensed_tree(partition: Partition) -> Figure:
    """Draw HDBSCAN's condensed tree: bars as wide as a cluster has items, downward as density rises.

    Chosen clusters are hatched, framed and numbered; the others are grey. Items that coincide would never
    leave; their bar ends at the edge.

    Parameters
    ----------
    partition : Partition
        Made by :func:`dynstat.cluster.hdbscan`.

    Raises
    ------
    DynstatError
        S404 for a partition without a condensed tree.
    """
    bars = _bars(partition)
    n = len(partition.items)
    with style():
        fig = figure(height=4.0)
        ax = fig.subplots()
        deepest = max(b.level[-1] for b in bars)
        for bar in bars:
            mark = look(bar.cluster)
            chosen = bar.cluster >= 0
            left = bar.centre - bar.width / 2
            right = bar.centre + bar.width / 2
            ax.fill_betweenx(
                bar.level,
                left,
                right,
                step="post",
                facecolor="white" if chosen else "#E3E3E3",
                edgecolor=mark.colour if chosen else GREY,
                hatch=mark.hatch if chosen else None,
                linewidth=1.8 if chosen else 0.8,
                zorder=3 if chosen else 2,
            )
            if chosen:
                ax.annotate(
                    str(bar.cluster),
                    (bar.centre, (bar.level[0] + bar.level[-1]) / 2),
                    ha="center",
                    va="center",
                    fontsize=9,
                    bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": mark.colour},
                    zorder=5,
                )
        ax.set_ylim(deepest * 1.03, 0)
        ax.set_xlim(-0.02 * n, 1.02 * n)
        ax.set_xlabel(f"number of {partition.item}s (width of a bar; {n} at the top)")
        ax.set_ylabel("density λ = 1 / distance")
        ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        handles: list[Any] = []
        for c in range(partition.n_clusters):
            mark = look(c)
            kept = (
                "" if partition.persistence is None else f", persistence {number(partition.persistence[c])}"
            )
            handles.append(
                Patch(
                    facecolor="white",
                    edgecolor=mark.colour,
                    hatch=mark.hatch,
                    linewidth=1.5,
                    label=f"{c}: {partition.sizes[c]} {partition.item}s{kept}",
                )
            )
        noise = int(partition.noise.sum())
        words = f"not chosen; {noise} {partition.item}{'' if noise == 1 else 's'} noise"
        handles.append(Patch(facecolor="#E3E3E3", edgecolor=GREY, label=words))
        fig.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.8, columnspacing=1.4)
        return fig


def describe_condensed_tree(partition: Partition) -> str:
    """Return the alt text of :func:`condensed_tree`."""
    bars = _bars(partition)
    n, noise = len(partition.items), int(partition.noise.sum())
    parts = [
        f"Condensed tree of {n} {partition.item}s: {len(bars)} bar{'' if len(bars) == 1 else 's'}, "
        f"{partition.n_clusters} chosen as clusters, {noise} of the {partition.item}s noise."
    ]
    for bar in sorted((b for b in bars if b.cluster >= 0), key=lambda b: b.cluster):
        c = bar.cluster
        kept = "" if partition.persistence is None else f", persistence {number(partition.persistence[c])}"
        parts.append(
            f"Cluster {c} from density {plain(bar.level[0])} to {plain(bar.level[-1])} "
            f"({partition.sizes[c]}{kept}): {listed(partition.members(c))}."
        )
    if noise:
        parts.append(f"Noise: {listed(partition.members(-1))}.")
    return " ".join(parts)


class _Bar(NamedTuple):
    centre: float
    level: Array
    width: Array
    cluster: int


def _bars(partition: Partition) -> list[_Bar]:
    """Lay the condensed tree out: children side by side under the end of their parent."""
    tree = partition.condensed_tree
    if tree is None:
        raise DynstatError(
            "S404", "the partition has no condensed tree", found=partition.method, expected="one by hdbscan"
        )
    n = len(partition.items)
    finite = tree["lambda_val"].to_numpy()[np.isfinite(tree["lambda_val"].to_numpy())]
    edge = 1.1 * float(finite.max()) if finite.size else 1.0
    todo: list[tuple[int, float, int, float, int]] = [
        (n, 0.0, n, n / 2, int(tree.attrs.get("root_cluster", -1)))
    ]
    bars = []
    while todo:
        node, born, size, centre, cluster = todo.pop()
        rows = tree[tree["parent"] == node].sort_values("lambda_val", kind="stable")
        level = np.minimum(rows["lambda_val"].to_numpy(dtype=np.float64), edge)
        left = size - np.cumsum(rows["child_size"].to_numpy())
        split = rows[rows["child"] >= n]
        died = float(np.minimum(split["lambda_val"].to_numpy(), edge)[0]) if len(split) else float(level[-1])
        keep = level < died
        bars.append(
            _Bar(
                centre,
                np.concatenate([[born], level[keep], [died]]),
                np.concatenate([[size], left[keep], [left[keep][-1] if keep.any() else size]]).astype(float),
                cluster,
            )
        )
        x = centre - split["child_size"].sum() / 2
        for child in split.itertuples():
            width = int(child.child_size)  # type: ignore[arg-type]
            own = int(child.cluster) if child.selected else -1  # type: ignore[arg-type]
            todo.append((int(child.child), died, width, x + width / 2, own))  # type: ignore[arg-type]
            x += width
    return bars
