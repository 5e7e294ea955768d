"""How a cluster is marked in every figure: colour, marker and hatch, never colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .style import GREY, OKABE_ITO

_COLOURS = [OKABE_ITO[c] for c in ("blue", "vermillion", "green", "purple", "orange", "sky", "black")]
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_HATCHES = ("///", "\\\\\\", "...", "xxx", "---", "+++", "|||", "ooo")


class Look(NamedTuple):
    """Marks of one cluster."""

    colour: str
    marker: str
    hatch: str


def look(cluster: int) -> Look:
    """Return how a cluster is drawn: colour, marker and hatch together repeat after hundreds."""
    if cluster < 0:
        return Look(GREY, "x", "")
    return Look(
        _COLOURS[cluster % len(_COLOURS)],
        _MARKERS[cluster % len(_MARKERS)],
        _HATCHES[cluster % len(_HATCHES)],
    )


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names in a row, the first `most` of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def plain(value: float) -> str:
    """Return a number to three digits."""
    return f"{value:.3g}".replace("-", "−")
