"""Hartigans' dip: how far a sample is from every unimodal distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator, monte_carlo_p
from .checks import check_count
from .features import as_features

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

# Replicates of the null are worked on in pieces of about this many numbers.
_PIECE = 600_000


def sample_of(values: Any, least: int = 3) -> tuple[Array, tuple[str, ...], str]:
    """Return a one-dimensional sample, the names of its items and what an item is.

    Parameters
    ----------
    values : mapping of name to number, or anything that :func:`as_features` takes
        One feature, not all equal.
    least : int
        The fewest values allowed.

    Raises
    ------
    DynstatError
        S403 fewer than `least`; S404 more than one feature; S405 all values equal, or some not finite.
    """
    if isinstance(values, Mapping) and not hasattr(values, "dims"):
        import pandas as pd

        values = pd.Series({str(k): v for k, v in values.items()}, dtype=np.float64)
    found = as_features(values)
    if found.values.shape[1] != 1:
        raise DynstatError(
            "S404", "more than one feature", found=", ".join(found.names[:6]), expected="one number an item"
        )
    if len(found) < least:
        raise DynstatError("S403", "too few values", found=len(found), expected=f"at least {least}")
    return found.values[:, 0], found.items, found.item


def dip_statistic(values: ArrayLike) -> Array:
    """Return Hartigans' dip of every row: the largest distance to the nearest unimodal distribution function.

    dip = min over unimodal G of sup over x of |F(x) − G(x)|, at least 1/(2n).

    The modal interval is narrowed in cycles: between its ends the greatest convex minorant and the least
    concave majorant of F are held against each other; outside, F against the minorant on the left and the
    majorant on the right. All rows go through the cycles together.

    Parameters
    ----------
    values : array_like, shape (n,) or (B, n)
        n at least 2; ties are allowed.

    Returns
    -------
    ndarray, shape () or (B,)

    Source: Hartigan and Hartigan 1985, Ann. Stat. 13: 70-84; Hartigan 1985, AS 217, Appl. Stat. 34: 320-325.

    Examples
    --------
    >>> float(dip_statistic([0.0, 1.0, 2.0, 3.0])), float(dip_statistic([0.0, 0.0, 1.0, 1.0]))
    (0.125, 0.25)
    """
    x = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    if x.ndim not in (1, 2) or x.shape[-1] < 2 or not np.isfinite(x).all():
        raise DynstatError("S404", "the dip needs finite rows of two values or more", found=x.shape)
    rows = np.atleast_2d(x)
    step = max(1, _PIECE // rows.shape[1])
    pieces = [_dips(rows[i : i + step]) for i in range(0, rows.shape[0], step)]
    out = np.concatenate(pieces) / (2.0 * rows.shape[1])
    return out if x.ndim == 2 else np.asarray(out[0])


def _dips(x: Array) -> Array:
    """Return 2n times the dip of sorted rows."""
    height = np.ones(x.shape[0])
    live = np.flatnonzero(x[:, 0] < x[:, -1])
    x = x[live]
    n = x.shape[1]
    below = _hull(x)
    # The majorant is the minorant of the sample turned round.
    above = n - 1 - _hull(-x[:, ::-1])[:, ::-1]
    low, high = np.zeros(live.size, dtype=np.intp), np.full(live.size, n - 1, dtype=np.intp)
    with np.errstate(divide="ignore", invalid="ignore"):
        while live.size:
            convex = _Pieces.of(below, high, low)
            concave = _Pieces.of(above, low, high)
            distance, left, right = _farthest(x, convex, concave, low, high)
            go = distance >= height[live]
            new = np.maximum(_misfit(x, convex, low, left, 1.0), _misfit(x, concave, right, high, -1.0))
            height[live[go]] = np.maximum(height[live[go]], new[go])
            go &= (left != low) | (right != high)
            x, below, above, live = x[go], below[go], above[go], live[go]
            low, high = left[go], right[go]
    return height


def _hull(x: Array) -> Codes:
    """Return for every point j the knot before it on the convex minorant of the points up to j."""
    b, n = x.shape
    knot = np.zeros((b, n), dtype=np.intp)
    every = np.arange(b)
    for j in range(1, n):
        knot[:, j] = j - 1
        rows = every if j > 1 else every[:0]
        while rows.size:
            k = knot[rows, j]
            before = knot[rows, k]
            # A knot stays where the slope after it is larger than the slope up to it.
            stays = (k == 0) | (
                (x[rows, j] - x[rows, k]) * (k - before) < (x[rows, k] - x[rows, before]) * (j - k)
            )
            rows, before = rows[~stays], before[~stays]
            knot[rows, j] = before
    return knot


@dataclass(frozen=True)
class _Pieces:
    """The knots of a minorant or majorant between two ends, and the knots around every point."""

    knot: NDArray[np.bool_]
    before: Codes  # the last knot at or before
    after: Codes  # the first knot at or after
    start: Codes  # the last knot before

    @classmethod
    def of(cls, chain: Codes, start: Codes, end: Codes) -> _Pieces:
        b, n = chain.shape
        rows, at = np.arange(b), start.copy()
        knot = np.zeros((b, n), dtype=bool)
        knot[rows, at] = True
        moving = rows[at != end]
        while moving.size:
            at[moving] = chain[moving, at[moving]]
            knot[moving, at[moving]] = True
            moving = moving[at[moving] != end[moving]]
        place = np.arange(n)
        before = np.maximum.accumulate(np.where(knot, place, 0), axis=1)
        after = np.minimum.accumulate(np.where(knot, place, n - 1)[:, ::-1], axis=1)[:, ::-1]
        back = np.concatenate([np.zeros((b, 1), dtype=np.intp), before[:, :-1]], axis=1)
        return cls(knot, before, after, back)


def _farthest(
    x: Array, convex: _Pieces, concave: _Pieces, low: Codes, high: Codes
) -> tuple[Array, Codes, Codes]:
    """Return the largest distance of majorant and minorant, and the modal interval it leaves."""
    place = np.arange(x.shape[1])
    inner = (place > low[:, None]) & (place < high[:, None])
    g0, g1 = convex.before, convex.after
    l0, l1 = concave.before, concave.after
    at = np.take_along_axis
    on_concave = (place - g0 + 1) - (x - at(x, g0, 1)) * (g1 - g0) / (at(x, g1, 1) - at(x, g0, 1))
    on_convex = (x - at(x, l0, 1)) * (l1 - l0) / (at(x, l1, 1) - at(x, l0, 1)) - (place - l0 - 1)
    d = np.where(concave.knot, on_concave, np.where(convex.knot, on_convex, -np.inf))
    d = np.where(inner & ~np.isnan(d), d, -np.inf)
    # Of equal distances the last one counts.
    k = d.shape[1] - 1 - np.argmax(d[:, ::-1], axis=1)
    rows = np.arange(x.shape[0])
    distance = d[rows, k]
    none = distance < 0
    straight = ~(inner & (convex.knot | concave.knot)).any(axis=1)
    distance = np.where(none, np.where(straight, 1.0, 0.0), distance)
    left = np.where(none, low, g0[rows, k])
    right = np.where(none, high, l1[rows, k])
    return distance, left, right


def _misfit(x: Array, pieces: _Pieces, start: Codes, end: Codes, sign: float) -> Array:
    """Return the largest distance of F to its minorant (sign 1) or majorant (sign −1) from start to end."""
    place = np.arange(x.shape[1])
    inside = (place > start[:, None]) & (place < end[:, None]) & ~pieces.knot
    jb, je = pieces.before, pieces.after
    at = np.take_along_axis
    xb, xe = at(x, jb, 1), at(x, je, 1)
    t = sign * ((place - jb) - (x - xb) * ((je - jb) / (xe - xb))) + 1.0
    return np.max(np.where(inside & (xe != xb), t, 1.0), axis=1)


@dataclass(frozen=True)
class DipTest:
    """A test of unimodality. Made by :func:`dynstat.cluster.dip_test`; frozen.

    Attributes
    ----------
    estimate : Estimate
        ``dip``, without an interval; the null beside it holds p.
    """

    estimate: Estimate

    @property
    def statistic(self) -> float:
        """The dip."""
        return self.estimate.value

    @property
    def p_value(self) -> float:
        """The Monte-Carlo p under the uniform distribution."""
        return float((self.estimate.null or {})["p"])

    def estimates(self) -> dict[str, Estimate]:
        """Return ``dip``."""
        return {"dip": self.estimate}

    def tidy(self) -> pd.DataFrame:
        """Return one row: term, estimate, p.value, p.se, n, replicates."""
        import pandas as pd

        null = self.estimate.null or {}
        row = {
            "term": "dip",
            "estimate": self.statistic,
            "p.value": self.p_value,
            "p.se": null["p_se"],
            "n": self.estimate.n["items"],
            "replicates": null["replicates"],
        }
        return pd.DataFrame([row])

    def glance(self) -> pd.DataFrame:
        """Return the same row."""
        return self.tidy()

    def __str__(self) -> str:
        null = self.estimate.null or {}
        return "\n".join(
            [
                "Hartigans' dip test for unimodality",
                "",
                f"D = {self.statistic:.5g}, n = {self.estimate.n['items']}, p-value = {self.p_value:.4g} "
                f"(± {null['p_se']:.2g}, {null['replicates']} uniform samples)",
                "alternative: at least two modes",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def dip_null(n: int, replicates: int, rng: Rng = 0) -> Array:
    """Return dips of uniform samples of size n, shape (replicates,), sorted."""
    generator, _ = as_generator(rng)
    return np.sort(dip_statistic(generator.random((replicates, n))))


def dip_test(
    values: Any,
    *,
    null_sets: int = 9999,
    rng: Rng = 0,
    null: ArrayLike | None = None,
    item: str = "",
) -> DipTest:
    """Test whether one sample can come from a distribution with one mode.

    The dip is compared with the dips of uniform samples of the same size, the unimodal distribution that
    gives the largest dips as n grows: p = (1 + number at least as large)/(1 + null_sets). Under a normal or
    an exponential distribution the test is conservative. The dip equals that of R's diptest; R's p comes from
    a table by interpolation and agrees within the error of both.

    Parameters
    ----------
    values : Series, mapping, array or labelled array
        One number an item, at least three. The scale matters (take logs of ratios first): linear changes
        alone leave the dip as it is.
    null_sets : int
        At least 99.
    rng : Generator or int
    null : array_like, optional
        From :func:`dip_null` with the same n, where many samples of one size are tested.
    item : str
        What a value stands for. Default: the name of the index, or "item".

    Raises
    ------
    DynstatError
        S403 fewer than three values; S404 arguments; S405 all values equal, or some not finite.

    Source: Hartigan and Hartigan 1985, Ann. Stat. 13: 70-84.
    """
    x, _, named = sample_of(values)
    check_count("null sets", null_sets, 99)
    generator, seed = as_generator(rng)
    draws = dip_null(x.size, null_sets, generator) if null is None else np.asarray(null, dtype=np.float64)
    observed = float(dip_statistic(x))
    # Dips of tied samples meet the same value by different sums.
    p = monte_carlo_p(observed - 1e-12, draws)
    beside: dict[str, Any] = {
        "name": "uniform",
        "p": p,
        "p_se": float(np.sqrt(p * (1 - p) / draws.size)),
        "replicates": int(draws.size),
        "mean": float(draws.mean()),
        "q95": float(np.quantile(draws, 0.95)),
    }
    estimate = Estimate(
        "dip",
        observed,
        np.nan,
        np.nan,
        0.95,
        "cluster.dip@1",
        "none",
        item or named,
        {"items": x.size},
        seed=None if null is not None else seed,
        diagnostics={"smallest possible": 1 / (2 * x.size), "ties": int(x.size - np.unique(x).size)},
        null=beside,
    )
    return DipTest(estimate)
