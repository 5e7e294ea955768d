"""Overview figures of the data: the path of the states and the profile over layers, by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from .style import GREY, OKABE_ITO, figure, shorten, style

# Line patterns beside colours, so that eight models stay apart in grey.
_CYCLE = [
    (colour, dash)
    for dash in ("-", (0, (4, 1.5)), (0, (1, 1)))
    for colour in ("blue", "vermillion", "green", "purple", "orange", "sky", "black")
]


def ratio_norm_by_model(values: Mapping[str, Sequence[float] | NDArray[Any]]) -> Figure:
    """Draw ratio_norm of every run by model, on a log axis, with the median of each model.

    Parameters
    ----------
    values : mapping of str to array
        Values of ratio_norm (at least 1, dimensionless) a model; values that are not finite and positive
        are left out.
    """
    with style():
        fig = figure(height=0.9 + 0.42 * len(values))
        ax = fig.subplots()
        kept = []
        for index, (_, raw) in enumerate(values.items()):
            x = _positive(raw)
            kept.append(x)
            # A fixed spread in the order of the values: no chance in a figure, and no dots hidden.
            offset = ((np.argsort(np.argsort(x)) * 0.618034) % 1 - 0.5) * 0.5
            ax.plot(
                x, -index + offset, "o", color=OKABE_ITO["sky"], markersize=3, alpha=0.6, markeredgewidth=0
            )
            if x.size:
                middle = float(np.median(x))
                ax.plot(
                    [middle, middle], [-index - 0.36, -index + 0.36], color=OKABE_ITO["black"], linewidth=2
                )
                ax.annotate(
                    f"{middle:#.3g}".rstrip("."),
                    (1.02, -index),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    annotation_clip=False,
                    fontsize=8,
                )
        ax.set_xscale("log")
        _log_ticks(ax, np.concatenate(kept) if kept else np.array([]))
        ax.set_ylim(-len(values) + 0.4, 0.6)
        ax.set_yticks(
            [-i for i in range(len(values))],
            [f"{shorten(m)} (n = {x.size})" for m, x in zip(values, kept, strict=True)],
        )
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color="#EEEEEE", linewidth=0.8)
        ax.set_xlabel("ratio_norm of each run (log scale); bar and number: median")
        ax.spines["left"].set_visible(False)
        return fig


def describe_ratio_norm(values: Mapping[str, Sequence[float] | NDArray[Any]]) -> str:
    """Return the alt text of :func:`ratio_norm_by_model`."""
    parts = [f"Values of ratio_norm of every run for {len(values)} models, log scale."]
    for model, raw in values.items():
        x = _positive(raw)
        parts.append(
            f"{model}: median {np.median(x):.3g}, from {x.min():.3g} to {x.max():.3g}, {x.size} runs."
            if x.size
            else f"{model}: no value."
        )
    return " ".join(parts)


def layer_profile(
    profiles: Mapping[str, tuple[Sequence[float] | NDArray[Any], Sequence[float] | NDArray[Any]]],
    *,
    label: str = "entropy (nat)",
) -> Figure:
    """Draw the mean of a layer-level metric over relative depth, one line a model, named at its end.

    Parameters
    ----------
    profiles : mapping of str to (depth, value)
        Relative depth in [0, 1] (0: input of the first block, 1: the last output) and the mean there.
    label : str
        Name and unit of the metric.
    """
    with style():
        fig = figure(height=3.4)
        ax = fig.subplots()
        ends = []
        for (colour, dash), (model, (depth, value)) in zip(
            _cycle(len(profiles)), profiles.items(), strict=True
        ):
            x, y = np.asarray(depth, float), np.asarray(value, float)
            ax.plot(x, y, color=OKABE_ITO[colour], linestyle=dash, marker="o", markersize=3, linewidth=1.4)
            seen = np.flatnonzero(np.isfinite(y))
            if seen.size:
                ends.append((float(y[seen[-1]]), model, OKABE_ITO[colour]))
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("relative depth (0: input of the first block, 1: output of the last)")
        ax.set_ylabel(f"mean {label}")
        ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        _name_ends(ax, ends)
        return fig


def describe_profile(
    profiles: Mapping[str, tuple[Sequence[float] | NDArray[Any], Sequence[float] | NDArray[Any]]],
    *,
    label: str = "entropy (nat)",
) -> str:
    """Return the alt text of :func:`layer_profile`."""
    parts = [f"Mean {label} over relative depth for {len(profiles)} models."]
    for model, (_, value) in profiles.items():
        y = np.asarray(value, float)
        y = y[np.isfinite(y)]
        parts.append(f"{model}: from {y[0]:.3g} to {y[-1]:.3g}." if y.size else f"{model}: no value.")
    return " ".join(parts)


def _positive(raw: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    x = np.asarray(raw, dtype=np.float64).ravel()
    return x[np.isfinite(x) & (x > 0)]


def _cycle(n: int) -> list[tuple[str, Any]]:
    return [_CYCLE[i % len(_CYCLE)] for i in range(n)]


def _log_ticks(ax: Any, x: NDArray[np.float64]) -> None:
    if not x.size:
        return
    low, high = float(x.min()) / 1.08, float(x.max()) * 1.08
    ax.set_xlim(low, high)
    wide = high / low > 30
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 1.5, 2, 3, 5, 7)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _name_ends(ax: Any, ends: list[tuple[float, str, str]]) -> None:
    """Write each model at the end of its line, pushed apart where two would overlap."""
    if not ends:
        return
    low, high = ax.get_ylim()
    gap = (high - low) * 0.058
    placed: list[float] = []
    for y, _, _ in sorted(ends):
        placed.append(max(y, placed[-1] + gap) if placed else y)
    shift = max(0.0, placed[-1] - high)
    beside = ax.get_yaxis_transform()  # x in axes fractions, y in data
    for at, (y, model, colour) in zip(placed, sorted(ends), strict=True):
        at -= shift
        ax.plot([1.0, 1.04, 1.055], [y, at, at], color=colour, linewidth=1.2, transform=beside, clip_on=False)
        ax.annotate(
            shorten(model),
            (1.065, at),
            xycoords=beside,
            va="center",
            fontsize=8,
            color=GREY,
            annotation_clip=False,
        )
