"""The four regimes of ratio_norm: published ranges, midpoint cuts, or cuts of one's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .run_entries import REGIMES

# Observed ranges as published, closed; "about 2.97" is taken as all that rounds to it within .025.
PUBLISHED_RANGES: dict[str, tuple[float, float]] = {
    "UNDERACTIVE": (1.55, 1.70),
    "ADAPTIVE": (2.27, 2.92),
    "TRANSITION": (2.945, 2.995),
    "CHAOTIC": (4.42, 35.55),
}
# Arithmetic midpoints between neighbouring ranges, TRANSITION being the point 2.97.
MIDPOINT_CUTS = (1.985, 2.945, 3.695)
# Ratios may have passed through float32; a published end point must not fall out by its rounding.
_ROUNDING = 1e-6


def regime(
    ratio: ArrayLike, *, mode: str = "published", cuts: Sequence[float] | None = None
) -> NDArray[np.int8]:
    """Return the regime of every ratio_norm.

    Parameters
    ----------
    ratio : array_like, shape (...)
        Raw scale.
    mode : {"published", "midpoint", "cuts"}
        Closed published ranges and UNASSIGNED between them; a partition at 1.985, 2.945, 3.695; a
        partition at `cuts`.
    cuts : sequence of three floats
        Ascending; a ratio at a cut belongs to the upper regime.

    Returns
    -------
    ndarray of int8, shape (...)
        Index in ``REGIMES`` (UNASSIGNED, UNDERACTIVE, ADAPTIVE, TRANSITION, CHAOTIC), -1 where the ratio
        is NaN.

    Raises
    ------
    DynstatError
        S404 for an unknown mode or cuts that do not ascend.

    Notes
    -----
    Ranges: Paper 1, observed in its panel and no partition; the cuts are dynstat's. iid noise lies at
    1.04-1.07, below all of them, and tail shape with run length reaches every one.

    Examples
    --------
    >>> [REGIMES[i] for i in regime([1.6, 2.0, 35.55])]
    ['UNDERACTIVE', 'UNASSIGNED', 'CHAOTIC']
    """
    x = np.asarray(ratio, dtype=np.float64)
    if mode == "published":
        out = np.zeros(x.shape, dtype=np.int8)
        for name, (low, high) in PUBLISHED_RANGES.items():
            out[(x >= low * (1 - _ROUNDING)) & (x <= high * (1 + _ROUNDING))] = REGIMES.index(name)
    else:
        edges = _cuts(mode, cuts)
        out = (1 + np.searchsorted(edges, x, side="right")).astype(np.int8)
    return np.where(np.isnan(x), np.int8(-1), out).astype(np.int8)


def _cuts(mode: str, cuts: Sequence[float] | None) -> NDArray[np.float64]:
    if mode == "midpoint":
        return np.asarray(MIDPOINT_CUTS)
    if mode != "cuts":
        raise DynstatError(
            "S404", f"unknown mode {mode!r}", found=mode, expected="published | midpoint | cuts"
        )
    edges = np.asarray([] if cuts is None else cuts, dtype=np.float64)
    if edges.shape != (3,) or not (np.diff(edges) > 0).all():
        raise DynstatError("S404", "cuts must be three ascending numbers", found=cuts)
    return edges
