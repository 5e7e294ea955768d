"""The specification curve: estimates of all universes in order, and below them what was chosen in each."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ..errors import DynstatError
from ..inference.wording import is_bounded
from ..inference.wording import number as written
from .style import BAND, DECISIONS, GREY, NO_DECISION, OKABE_ITO, Mark, figure, shorten, style

#: Outcomes of universes in the order of their rows; the last three have no outcome (``run``: exploratory).
OUTCOMES: dict[str, Mark] = {
    **DECISIONS,
    "run": NO_DECISION,
    "missing": Mark(GREY, "1", "?"),
    "errored": Mark(GREY, "x", "!"),
}
_STAR = "★"
_STRIPE = "#F4F4F4"
_MOST = 400


@dataclass(frozen=True)
class Choice:
    """One dimension: its name, the labels of its options (the registered one first) and its type."""

    name: str
    options: tuple[str, ...]
    type: str = "equivalent"


@dataclass(frozen=True)
class Specification:
    """One universe.

    Attributes
    ----------
    choices : tuple of str
        Label of the option of every dimension, in their order.
    estimate, low, high : float
        NaN where there is none.
    outcome : str
        A key of :data:`OUTCOMES`.
    registered : bool
    group : str
        Universes of one multiverse stand together; "" where there is only one, ``beside`` for options that
        are shown and not counted.
    """

    choices: tuple[str, ...]
    estimate: float
    low: float
    high: float
    outcome: str
    registered: bool = False
    group: str = ""


class _Row(NamedTuple):
    """A row of the matrix: its dimension, its label, where it holds, and its colour."""

    group: str
    label: str
    at: list[float]
    colour: str


def specification_curve(
    specifications: Sequence[Specification],
    choices: Sequence[Choice],
    *,
    quantity: str = "estimate",
    level: float = 0.95,
    bands: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Draw the estimates in ascending order, and below a row an outcome and a row an option.

    Colour and shape of a mark, and the row it stands in below, tell the outcome. A star on the axis and a
    line through all rows mark the registered universe, a star beside an option the registered one. Grey
    band: what the rule compares with (its range, or plus and minus the SESOI); dashed line: a threshold.
    Several multiverses stand side by side, M1 (with the registered universe), M2 and so on, N for options
    beside. Universes without an estimate stand at the right end of theirs.

    Parameters
    ----------
    specifications : sequence of Specification
        At most 400.
    choices : sequence of Choice
    quantity : str
        What is estimated, for the axis.
    level : float
        Of the intervals.
    bands : sequence of (low, high)
    """
    if not 0 < len(specifications) <= _MOST:
        raise DynstatError(
            "S404",
            "a curve shows 1 to 400 universes",
            found=len(specifications),
            mend="draw some of the multiverses",
        )
    blocks = _blocks(specifications)
    places, titles, width = _places(blocks)
    rows = _rows(places, choices)
    point = 355.0 / width  # points of paper a universe
    with style():
        top, each = 2.3, 0.155
        fig = figure(height=top + 0.75 + each * len(rows))
        curve, matrix = fig.subplots(2, 1, sharex=True, height_ratios=[top, each * len(rows)])
        _curve(curve, places, point, bands)
        _matrix(matrix, rows, point)
        for s, x in places:
            if s.registered:
                for ax in (curve, matrix):
                    ax.axvline(x, color=OKABE_ITO["black"], linewidth=0.7, zorder=1)
                curve.annotate(
                    _STAR,
                    (x, 1.0),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    va="bottom",
                    fontsize=10,
                    annotation_clip=False,
                )
        if len(titles) > 1:
            for text, (left, right) in titles:
                curve.annotate(
                    text,
                    ((left + right) / 2, 1.09),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    annotation_clip=False,
                )
                for ax in (curve, matrix):
                    if left > 0:
                        ax.axvline(left - 0.5 * _gap(width), color=GREY, linewidth=0.6, linestyle=(0, (2, 2)))
        if is_bounded(quantity):
            curve.yaxis.set_major_formatter(lambda y, _: f"{y:g}".replace("0.", ".", 1))
        curve.set_ylabel(f"{shorten(quantity, 34)}\nwith {100 * level:g} % interval")
        matrix.set_xlim(-0.03 * width - 0.5, 1.02 * width - 0.5)
        caption = _caption(titles, bands, any(s.registered for s in specifications))
        fig.supxlabel(textwrap.fill(caption, 100), fontsize=8)
        return fig


def describe_curve(
    specifications: Sequence[Specification],
    choices: Sequence[Choice],
    *,
    quantity: str = "estimate",
    level: float = 0.95,
    bands: Sequence[tuple[float, float]] = (),
) -> str:
    """Return the alt text of :func:`specification_curve`: what it shows, in words and numbers."""
    bounded = is_bounded(quantity)

    def say(x: float) -> str:
        return written(float(x), bounded)

    named = "; ".join(f"{c.name} {', '.join(c.options)}" for c in choices)
    parts = [
        f"Specification curve of {quantity} over {len(specifications)} universes, with {100 * level:g} % "
        f"intervals. Choices, the registered one first: {named}."
    ]
    for low, high in bands:
        where = say(low) if low == high else f"from {say(low)} to {say(high)}"
        parts.append(f"The rule compares with {'the threshold' if low == high else 'the band'} {where}.")
    for s in specifications:
        if s.registered and math.isfinite(s.estimate):
            parts.append(
                f"Registered universe: {_words(s.outcome)}, {say(s.estimate)} [{say(s.low)}, {say(s.high)}]."
            )
        elif s.registered:
            parts.append(f"Registered universe: {_words(s.outcome)}.")
    for number, (group, members) in enumerate(_blocks(specifications), start=1):
        values = [s.estimate for s in members if math.isfinite(s.estimate)]
        counted = Counter(s.outcome for s in members)
        outcomes = ", ".join(f"{counted[o]} {_words(o)}" for o in OUTCOMES if counted[o])
        name = "Beside" if group == "beside" else f"Multiverse {number}" + (f" ({group})" if group else "")
        spread = f"estimate {say(values[0])}; " if len(values) == 1 else ""
        if len(values) > 1:
            spread = f"estimates {say(min(values))} to {say(max(values))}, median {say(median(values))}; "
        plural = "universe" if len(members) == 1 else "universes"
        parts.append(f"{name}: {len(members)} {plural}, {spread}{outcomes}.")
    return " ".join(parts)


def _blocks(specifications: Sequence[Specification]) -> list[tuple[str, list[Specification]]]:
    """Return the groups in their order, each sorted by its estimate, those without one last."""
    out: dict[str, list[Specification]] = {}
    for s in specifications:
        if s.outcome not in OUTCOMES:
            raise DynstatError("S404", "no such outcome", found=s.outcome, expected=" | ".join(OUTCOMES))
        out.setdefault(s.group, []).append(s)
    beside = out.pop("beside", None)
    blocks = [*out.items(), *([("beside", beside)] if beside else [])]
    return [(g, sorted(m, key=lambda s: (not math.isfinite(s.estimate), s.estimate))) for g, m in blocks]


def _gap(n: float) -> float:
    return max(1.5, 0.03 * n)


def _places(
    blocks: Sequence[tuple[str, Sequence[Specification]]],
) -> tuple[list[tuple[Specification, float]], list[tuple[str, tuple[float, float]]], float]:
    gap = _gap(sum(len(m) for _, m in blocks))
    places, titles, x = [], [], 0.0
    for number, (group, members) in enumerate(blocks, start=1):
        left = x
        for s in members:
            places.append((s, x))
            x += 1
        titles.append(("N" if group == "beside" else f"M{number}", (left, x - 1)))
        x += gap
    return places, titles, x - gap


def _curve(
    ax: Any,
    places: Sequence[tuple[Specification, float]],
    point: float,
    bands: Sequence[tuple[float, float]],
) -> None:
    for low, high in bands:
        if low == high:
            ax.axhline(low, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        else:
            ax.axhspan(low, high, color=BAND, linewidth=0, zorder=0)
    size = min(max(0.95 * point, 2.4), 6.0)
    for outcome, mark in OUTCOMES.items():
        part = [(s, x) for s, x in places if s.outcome == outcome and math.isfinite(s.estimate)]
        if not part:
            continue
        limits = [(x, s.low, s.high) for s, x in part if math.isfinite(s.low) and math.isfinite(s.high)]
        if limits:
            ax.vlines(
                *zip(*limits, strict=True),
                color=mark.colour,
                linewidth=min(max(0.45 * point, 0.5), 2),
                alpha=0.6,
                zorder=2,
            )
        ax.plot(
            [x for _, x in part],
            [s.estimate for s, _ in part],
            linestyle="none",
            marker=mark.marker,
            markersize=size,
            color=mark.colour,
            markeredgecolor="white" if point > 5 else mark.colour,
            markeredgewidth=0.4 if point > 5 else 0,
            zorder=3,
        )
    ax.margins(y=0.08)
    ax.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    ax.spines["bottom"].set_visible(False)


def _rows(places: Sequence[tuple[Specification, float]], choices: Sequence[Choice]) -> list[_Row]:
    out = []
    for outcome, mark in OUTCOMES.items():
        at = [x for s, x in places if s.outcome == outcome]
        if at:
            out.append(_Row("", f"{mark.glyph} {_words(outcome)} ({len(at)})".strip(), at, mark.colour))
    for j, c in enumerate(choices):
        for i, option in enumerate(c.options):
            text = f"{shorten(c.name, 18)}: {shorten(option, 16)}" + (f" {_STAR}" if i == 0 else "")
            out.append(_Row(c.name, text, [x for s, x in places if s.choices[j] == option], GREY))
    return out


def _matrix(ax: Any, rows: Sequence[_Row], point: float) -> None:
    stripe, last = False, None
    for y, row in enumerate(rows):
        # A stripe a dimension, so that its options are seen together.
        stripe = stripe if row.group == last else not stripe
        last = row.group
        if stripe:
            ax.axhspan(y - 0.5, y + 0.5, color=_STRIPE, linewidth=0, zorder=0)
        ax.vlines(
            row.at, y - 0.34, y + 0.34, color=row.colour, linewidth=min(max(0.62 * point, 0.6), 4), zorder=2
        )
    ax.set_yticks(range(len(rows)), [row.label for row in rows])
    ax.tick_params(axis="both", length=0, labelbottom=False)
    ax.tick_params(axis="y", labelsize=7.5)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_ylim(len(rows) - 0.5, -0.5)


def _caption(
    titles: Sequence[tuple[str, tuple[float, float]]], bands: Sequence[tuple[float, float]], starred: bool
) -> str:
    several = [t for t, _ in titles if t != "N"]
    words = ["universes by their estimate" + (", a block a multiverse" if len(several) > 1 else "")]
    if any(t == "N" for t, _ in titles):
        words.append("N: options beside, not counted")
    if starred:
        words.append(f"{_STAR} registered")
    if any(low < high for low, high in bands):
        words.append("grey: what the rule compares with")
    if any(low == high for low, high in bands):
        words.append("dashed: threshold of the rule")
    return "; ".join(words)


def _words(outcome: str) -> str:
    return outcome.replace("_", " ")
