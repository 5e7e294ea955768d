"""Figure of all claims: estimate, interval and the band that decides, a row a part, a panel a scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import BAND, DECISIONS, GREY, NO_DECISION, OKABE_ITO, figure, number, shorten, style

# Which side of the band a claim needs: inside it, outside it, or beyond an edge.
CLAIMED_INSIDE = ("in_range", "equivalence")
BOUNDED = ("variance share", "probability", "share", "accuracy")


@dataclass(frozen=True)
class ClaimRow:
    """One part of a claim.

    Attributes
    ----------
    hypothesis, quantity : str
    value, low, high : float or None
        Estimate and interval; None where none may be shown.
    decision : str
        A decision or state, "" in an exploratory run.
    kind : str
        The rule, "" where unknown.
    band : tuple of float or None
        Edges of what decides: the range claimed, or what is too small to matter; equal for a threshold.
    scale : str
        In words; rows of one scale share an axis.
    """

    hypothesis: str
    quantity: str
    value: float | None
    low: float | None = None
    high: float | None = None
    decision: str = ""
    kind: str = ""
    band: tuple[float, float] | None = None
    scale: str = ""


def claims_forest(rows: Sequence[ClaimRow], *, level: float | None = None) -> Figure:
    """Draw every claim with its interval over the band by which it is decided.

    Marker and colour show the decision, which also stands beside in words. Grey: the range that a claim
    names. Hatched: effects too small to matter. Dashed: a threshold, or zero.

    Parameters
    ----------
    rows : sequence of ClaimRow
        In the order of registration.
    level : float, optional
        Of the intervals, where it is the same for all.
    """
    scales = list(dict.fromkeys(row.scale for row in rows))
    groups = [[row for row in rows if row.scale == scale] for scale in scales]
    with style():
        fig = figure(height=0.6 + sum(0.55 + 0.46 * len(group) for group in groups))
        axes = fig.subplots(
            len(groups), squeeze=False, gridspec_kw={"height_ratios": [0.55 + 0.46 * len(g) for g in groups]}
        )[:, 0]
        for ax, scale, group in zip(axes, scales, groups, strict=True):
            for index, row in enumerate(group):
                _row(ax, -index, row)
            ax.set_ylim(-len(group) + 0.45, 0.55)
            ax.set_xlim(*_limits(group, scale))
            if scale in BOUNDED:
                ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
            ax.set_yticks([-i for i in range(len(group))], [_label(row) for row in group])
            ax.tick_params(axis="y", length=0)
            ax.grid(axis="x", color="#EEEEEE", linewidth=0.8)
            ax.spines["left"].set_visible(False)
            ax.set_xlabel(f"{scale or 'estimate'}, with {_percent(level)}interval")
        fig.legend(
            handles=_keys(rows), loc="outside upper left", ncols=4, handlelength=1.6, columnspacing=1.4
        )
        return fig


def describe_claims(rows: Sequence[ClaimRow], *, level: float | None = None) -> str:
    """Return the alt text of :func:`claims_forest`: what it shows, in words and numbers."""
    parts = [f"Estimates of {len(rows)} parts of claims with {_percent(level)}intervals."]
    for row in rows:
        words = f"{row.hypothesis}, {row.quantity}: "
        if row.value is None:
            words += "no estimate"
        else:
            words += _numbers(row)
            if where := position(row):
                words += f", {where}"
        if row.decision:
            words += f"; {row.decision.replace('_', ' ')}"
        parts.append(words + ".")
    return " ".join(parts)


def position(row: ClaimRow) -> str:
    """Return where the estimate lies against the band, in words; "" where there is none."""
    if row.band is None or row.value is None:
        return ""
    low, high = row.band
    a, b = _number(row, low), _number(row, high)
    if row.kind == "threshold" or low == high:
        return f"{'above' if row.value > low else 'not above'} the threshold {a}"
    what = "the claimed range" if row.kind in CLAIMED_INSIDE else "what is too small to matter,"
    return f"{'inside' if low <= row.value <= high else 'outside'} {what} {a} to {b}"


def _row(ax, y: float, row: ClaimRow) -> None:  # type: ignore[no-untyped-def]
    mark = DECISIONS.get(row.decision, NO_DECISION)
    if row.band is not None:
        low, high = row.band
        if low == high:
            ax.plot([low, low], [y - 0.4, y + 0.4], color=GREY, linestyle="--", linewidth=1.2, zorder=2)
        elif row.kind in CLAIMED_INSIDE:
            ax.fill_between([low, high], y - 0.4, y + 0.4, color=BAND, linewidth=0, zorder=1)
        else:
            ax.fill_between(
                [low, high], y - 0.4, y + 0.4, facecolor="none", edgecolor="#B0B0B0", hatch="////", zorder=1
            )
            ax.plot([0, 0], [y - 0.4, y + 0.4], color=GREY, linestyle="--", linewidth=1.2, zorder=2)
    text = "no estimate"
    if row.value is not None:
        if row.low is not None and row.high is not None:
            ax.plot(
                [row.low, row.high], [y, y], color=mark.colour, linewidth=2.2, solid_capstyle="butt", zorder=4
            )
        ax.plot(
            row.value,
            y,
            marker=mark.marker,
            color=mark.colour,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=5,
            clip_on=False,
        )
        text = _numbers(row)
    ax.annotate(
        text,
        (1.02, y),
        xycoords=("axes fraction", "data"),
        va="center",
        annotation_clip=False,
        fontsize=8,
        color=OKABE_ITO["black"] if row.value is not None else GREY,
    )


def _label(row: ClaimRow) -> str:
    glyph = DECISIONS[row.decision].glyph + " " if row.decision in DECISIONS else ""
    said = f"{glyph}{row.decision.replace('_', ' ')}" if row.decision else "no decision"
    return f"{shorten(row.hypothesis, 16)}: {said}\n{shorten(row.quantity, 30)}"


def _limits(rows: Sequence[ClaimRow], scale: str) -> tuple[float, float]:
    if scale in BOUNDED:
        return -0.02, 1.02
    found = [x for row in rows for x in (row.value, row.low, row.high, *(row.band or ())) if x is not None]
    found = [x for x in found if math.isfinite(x)] or [0.0, 1.0]
    if any(row.kind not in (*CLAIMED_INSIDE, "threshold") for row in rows):
        found.append(0.0)
    low, high = min(found), max(found)
    margin = 0.06 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _number(row: ClaimRow, x: float) -> str:
    if row.scale in (*BOUNDED, "correlation"):
        return number(x, digits=3)
    return f"{x:.4g}".replace("-", "−")


def _numbers(row: ClaimRow) -> str:
    assert row.value is not None
    if row.low is None or row.high is None:
        return _number(row, row.value)
    return f"{_number(row, row.value)} [{_number(row, row.low)}, {_number(row, row.high)}]"


def _percent(level: float | None) -> str:
    return f"{100 * level:g} % " if level is not None else ""


def _keys(rows: Sequence[ClaimRow]) -> list[Line2D | Patch]:
    keys: list[Line2D | Patch] = []
    for decision in dict.fromkeys(row.decision for row in rows if row.value is not None):
        mark = DECISIONS.get(decision, NO_DECISION)
        keys.append(
            Line2D(
                [],
                [],
                color=mark.colour,
                marker=mark.marker,
                linewidth=2.2,
                markersize=6,
                label=decision.replace("_", " ") or "estimate",
            )
        )
    bands = [row for row in rows if row.band is not None and row.band[0] != row.band[1]]
    if any(row.kind in CLAIMED_INSIDE for row in bands):
        keys.append(Patch(color=BAND, label="claimed range"))
    if any(row.kind not in CLAIMED_INSIDE for row in bands):
        keys.append(
            Patch(facecolor="none", edgecolor="#B0B0B0", hatch="////", label="smaller than the SESOI")
        )
    if any(row.band is not None and row.kind not in CLAIMED_INSIDE for row in rows):
        keys.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="threshold, or zero"))
    return keys
