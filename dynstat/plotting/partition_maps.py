"""Figure of a partition that has no tree: its items by two components, or by their one feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..errors import DynstatError
from .cluster_marks import listed, look
from .style import figure, shorten, style

if TYPE_CHECKING:
    from ..cluster.partition import Partition

Array = NDArray[np.float64]
_NAMED = 80


def partition_map(partition: Partition) -> Figure:
    """Draw items by their first two principal components, or by their one feature, marked by cluster.

    Parameters
    ----------
    partition : Partition
        With the features it was made from.

    Raises
    ------
    DynstatError
        S404 for a partition without features.
    """
    xy, names = _components(partition)
    n = len(partition.items)
    clusters = [*range(partition.n_clusters), *([-1] if partition.noise.any() else [])]
    with style():
        fig = figure(height=4.2 if xy.shape[1] > 1 else min(1.1 + (0.2 if n <= _NAMED else 0.03) * n, 12.0))
        ax = fig.subplots()
        # With one feature every item has a row of its own, in order of its value.
        y = xy[:, 1] if xy.shape[1] > 1 else np.argsort(np.argsort(xy[:, 0], kind="stable")).astype(float)
        for c in clusters:
            mark, mask = look(c), partition.labels == c
            words = f"noise ({mask.sum()})" if c < 0 else f"cluster {c} ({mask.sum()})"
            ax.plot(
                xy[mask, 0], y[mask], mark.marker, color=mark.colour, markersize=6, label=words, alpha=0.85
            )
        ax.set_xlabel(names[0])
        if xy.shape[1] > 1:
            ax.set_ylabel(names[1])
            ax.grid(color="#EEEEEE", linewidth=0.8)
            ax.margins(0.12)
        else:
            if n <= _NAMED:
                order = np.argsort(xy[:, 0], kind="stable")
                ax.set_yticks(np.arange(n), [shorten(partition.items[i], 28) for i in order], fontsize=8)
                ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
            else:
                ax.set_yticks([])
                ax.set_ylabel(f"{n} {partition.item}s, sorted")
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
            ax.margins(x=0.04)
            ax.set_ylim(-0.7, n - 0.3)
        if n <= 20 and xy.shape[1] > 1:
            _name_points(ax, xy[:, 0], y, partition.items)
        fig.legend(loc="outside upper left", ncols=4, handlelength=1.2, columnspacing=1.4)
        return fig


def describe_partition_map(partition: Partition) -> str:
    """Return the alt text of :func:`partition_map`."""
    _, names = _components(partition)
    k = partition.n_clusters
    parts = [
        f"{len(partition.items)} {partition.item}s by {' and '.join(names)}, in {k} cluster"
        f"{'' if k == 1 else 's'}."
    ]
    parts += [f"Cluster {c} ({partition.sizes[c]}): {listed(partition.members(c))}." for c in range(k)]
    if partition.noise.any():
        parts.append(f"Noise: {listed(partition.members(-1))}.")
    return " ".join(parts)


def _components(partition: Partition) -> tuple[Array, list[str]]:
    features = partition.features
    if features is None:
        raise DynstatError(
            "S404",
            "the partition holds no features to draw it by",
            found=partition.method,
            expected="a partition made from features",
        )
    if features.values.shape[1] == 1:
        return features.values, [features.names[0]]
    centred = features.values - features.values.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is free: the largest coordinate is positive.
    xy = u[:, :2] * s[:2]
    xy = xy * np.sign(xy[np.abs(xy).argmax(axis=0), range(xy.shape[1])])
    share = s**2 / np.sum(s**2)
    return xy, [f"component {i + 1} ({100 * share[i]:.0f} % of variance)" for i in range(xy.shape[1])]


def _name_points(ax: Axes, x: Array, y: Array, names: Sequence[str]) -> None:
    """Name points, each at the side where it crosses the fewest points and names before it."""
    sx, sy = float(np.ptp(x)) or 1.0, float(np.ptp(y)) or 1.0
    # Sizes of a name as shares of the axes, from its length.
    boxes = [
        (px / sx - 0.012, py / sy - 0.015, px / sx + 0.012, py / sy + 0.015)
        for px, py in zip(x, y, strict=True)
    ]
    for i, name in enumerate(names):
        words = shorten(name, 22)
        w, h = 0.0165 * len(words), 0.052
        best: tuple[int, Any, Any] | None = None
        for dx, dy, ha, va in (
            (1, 0, "left", "center"),
            (-1, 0, "right", "center"),
            (0, 1, "center", "bottom"),
            (0, -1, "center", "top"),
        ):
            cx = x[i] / sx + dx * (0.018 + w / 2)
            cy = y[i] / sy + dy * (0.022 + h / 2)
            box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            hits = sum(b[0] < box[2] and box[0] < b[2] and b[1] < box[3] and box[1] < b[3] for b in boxes)
            if best is None or hits < best[0]:
                best = (hits, box, (dx, dy, ha, va))
        assert best is not None
        boxes.append(best[1])
        dx, dy, ha, va = best[2]
        ax.annotate(
            words, (x[i], y[i]), xytext=(6 * dx, 6 * dy), textcoords="offset points", ha=ha, va=va, fontsize=7
        )
