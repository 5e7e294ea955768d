"""First visits: in which order sequences meet states, beside what a depth trend alone gives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import DrawsPivot, Estimate
from ..inference.resample import Rng, as_generator, monte_carlo_p
from ..inference.unit_interval import unit_interval
from .labels import label_codes, unit_codes
from .sequences import Sequences
from .surrogates import NULLS, aligned, null_sequences
from .zero_events import shares_of_none

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEVER = "(none of them)"


@dataclass(frozen=True)
class FirstVisits:
    """Orders of first visits beside a null. Made by :func:`dynstat.markov.first_visits`; frozen.

    Attributes
    ----------
    order : tuple of str
        The order asked for.
    table : DataFrame
        A row an order and group: share, its mean under the null, their difference.
    """

    order: tuple[str, ...]
    table: pd.DataFrame
    _estimates: dict[str, Estimate]

    @property
    def estimate(self) -> Estimate:
        """The share of the order asked for, less its share under the null, over all sequences."""
        return self._estimates["difference"]

    def estimates(self) -> dict[str, Estimate]:
        """Return ``share`` and ``difference``, over all sequences and for every group."""
        return dict(self._estimates)

    def tidy(self) -> pd.DataFrame:
        """Return a row an order of first visits and group: share, share.null, difference, p.value."""
        return self.table.copy()

    def plot(self, largest: int = 12) -> Figure:
        """Draw the share of the most frequent orders beside their share under the null.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.motif_forest import orders_of_visits

        return orders_of_visits(self.table, self.order, largest=largest)

    def alt_text(self) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        share, gap = self._estimates["share"], self.estimate
        return (
            f"Dot plot of orders of first visits. {' > '.join(self.order)}: share {share.value:.2f}, "
            f"{(share.null or {})['mean']:.2f} under the null; difference {gap.value:.2f} "
            f"({gap.low:.2f} to {gap.high:.2f})."
        )

    def glance(self) -> pd.DataFrame:
        """Return one row: share, share under the null, difference with its interval and p."""
        share, e = self._estimates["share"], self.estimate
        beside = e.null or {}
        row = {"order": " > ".join(self.order), "share": share.value, "share.null": beside["mean"]}
        row |= {"difference": e.value, "conf.low": e.low, "conf.high": e.high, "p.value": beside["p"]}
        return pd.DataFrame([{**row, **e.n}])

    def __str__(self) -> str:
        share, e = self._estimates["share"], self.estimate
        null = e.null or {}
        whole = self.table[self.table["group"] == "all"].drop(columns="group").head(12)
        return "\n".join(
            [
                f"First visits in the order {' > '.join(self.order)}",
                "",
                f"share {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]",
                f"share under the null {null['mean']:.3f}",
                f"difference {e.value:.3f} [{e.low:.3f}, {e.high:.3f}] ({e.interval})",
                f"null: {null['name']}; p = {null['p']:.3g} ({null['replicates']} surrogates)",
                "",
                whole.to_string(index=False, float_format=lambda v: f"{v:.3f}"),
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def first_visits(
    sequences: Sequences,
    order: Sequence[str],
    *,
    by: str | None = "model",
    unit: str = "prompt",
    null: str = "depth",
    within: str | None = None,
    surrogates: int = 999,
    replicates: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.first_visits@1",
) -> FirstVisits:
    """Estimate how much more often states are first met in an order than a depth trend alone makes them.

    The share is that of sequences which visit every state of `order`, for the first time in that order;
    states not named are ignored. A trend over positions brings an order about by itself, without any rule
    that links a state to the one before it: so the share under the null is taken off.

    Parameters
    ----------
    sequences : Sequences
    order : sequence of str
        Two or more states by full name.
    by : str or None
        Column of the labels within which surrogates are made.
    unit : str
        Column of the labels; drawn by the bootstrap.
    null, within : str
        See :func:`dynstat.markov.null_sequences`.
    surrogates : int
        At least 99.
    replicates : int
        Bootstrap samples of units for the intervals, at least 19.
    level : float
    rng : Generator or int
    method : str

    Returns
    -------
    FirstVisits
        Its table holds every order that occurs in the data or the surrogates, over all sequences ("all") and
        by group; sequences that meet only some of the states are counted with the order of those.

    Raises
    ------
    DynstatError
        S407 for a state that is not there or unknown labels; S404 arguments; S406 sequences without a state;
        S403 fewer than two units.

    Warns
    -----
    DynstatWarning
        Where a state of the order, or all of them together, is met by no sequence.
    """
    names = tuple(map(str, order))
    if unknown := [s for s in names if s not in sequences.states]:
        raise DynstatError(
            "S407",
            "the order names states that the sequences do not have",
            found=", ".join(unknown),
            expected=", ".join(sequences.states),
        )
    if len(set(names)) != len(names) or not 2 <= len(names) <= 8:
        raise DynstatError(
            "S404", "an order holds two to eight different states", found=" > ".join(names) or "none"
        )
    for argument, count, least in (("surrogates", surrogates, 99), ("replicates", replicates, 19)):
        if count < least:
            raise DynstatError("S404", f"too few {argument}", found=count, expected=f"at least {least}")
    states = [sequences.states.index(s) for s in names]
    of_group, groups = label_codes(sequences, by)
    resampler = unit_codes(sequences, unit)
    units = resampler.n_units
    if units < 2:
        raise DynstatError(
            "S403", "one unit cannot be resampled", where=unit, found=units, expected="at least 2"
        )
    cell = of_group * units + resampler.units
    cells = len(groups) * units
    generator, seed = as_generator(rng)
    weights = resampler.weights(replicates, generator).astype(np.float64)

    base = len(names) + 1
    size = base ** len(names)
    wanted = sum((i + 1) * base ** (len(names) - 1 - i) for i in range(len(names)))
    seen = visiting_order(aligned(sequences)[None], states)[0]
    _warn_unmet(names, aligned(sequences), states)
    rows = np.bincount(cell, minlength=cells).astype(np.float64)
    every = np.zeros((len(groups), size))
    np.add.at(every, (of_group, seen), 1.0)
    hit = np.bincount(cell, weights=seen == wanted, minlength=cells)
    expected = np.zeros((len(groups), size))
    hit_null = np.zeros(cells)
    hits: list[NDArray[np.float64]] = []
    spread: dict[int, list[NDArray[np.float64]]] = {}
    for block in null_sequences(sequences, null, surrogates, by=by, unit=unit, within=within, rng=generator):
        drawn = visiting_order(block, states)
        for g in range(len(groups)):
            expected[g] += np.bincount(drawn[:, of_group == g].ravel(), minlength=size)
        found = drawn == wanted
        hit_null += np.bincount(cell, weights=found.sum(axis=0), minlength=cells)
        hits.append(np.stack([found[:, of_group == g].sum(axis=1) for g in range(len(groups))], axis=1))
        # Every order's own number a surrogate, for its p.
        for c in np.unique(drawn):
            at = drawn == c
            spread.setdefault(int(c), []).append(
                np.stack([at[:, of_group == g].sum(axis=1) for g in range(len(groups))], axis=1)
            )
    expected /= surrogates
    hit_null /= surrogates
    draws = np.concatenate(hits)
    common: dict[str, Any] = {
        "level": level,
        "method": method,
        "unit": unit,
        "n": {"sequences": len(sequences), "units": units, "groups": len(groups)},
        "seed": seed,
        "diagnostics": {"surrogates": surrogates, "order": " > ".join(names)},
    }
    estimates: dict[str, Estimate] = {}
    chosen = [("", np.arange(len(groups)))]
    if len(groups) > 1:
        chosen += [(f".{name}", np.array([g])) for g, name in enumerate(groups)]
    for suffix, which in chosen:

        def total(x: NDArray[Any], which: NDArray[np.intp] = which) -> NDArray[np.float64]:
            return np.asarray(x.reshape(len(groups), units)[which].sum(axis=0))

        n, o, e = total(rows), total(hit), total(hit_null)
        null_share = draws[:, which].sum(axis=1) / n.sum()
        share, gap = o.sum() / n.sum(), (o - e).sum() / n.sum()
        beside = {
            "name": NULLS[null],
            "p": monte_carlo_p(share, null_share),
            "replicates": surrogates,
            "mean": float(null_share.mean()),
            "q95": float(np.quantile(null_share, 0.95, method="higher")),
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            sampled = weights @ np.stack([o, o - e], axis=1) / (weights @ n)[:, None]
        here = {**common, "null": beside, "n": {**common["n"], "sequences": int(n.sum())}}
        for key, value, column, low in (("share", share, 0, 0.0), ("difference", gap, 1, -1.0)):
            name = f"{key}{suffix}"
            if 0 < share < 1:
                estimates[name] = unit_interval(
                    name, float(value), sampled[:, column], bounds=(low, 1.0), **here
                )
                continue
            away = shares_of_none(units)
            draws_at = (away if share == 0 else 1 - away) - (share - value)
            estimates[name] = Estimate.from_pivot(
                name,
                float(value),
                DrawsPivot(tuple(draws_at.tolist())),
                interval=f"Jeffreys limit for {units} units of {unit} without exception",
                target="panel",
                **here,
            )
    table = _table(names, groups, every, expected, spread, surrogates)
    return FirstVisits(names, table, estimates)


def _warn_unmet(names: tuple[str, ...], codes: NDArray[np.int8], states: Sequence[int]) -> None:
    met = np.stack([(codes == s).any(axis=1) for s in states])
    if never := [name for name, row in zip(names, met, strict=True) if not row.any()]:
        text = f"never met in any sequence: {', '.join(never)}"
    elif not met.all(axis=0).any():
        text = f"no sequence meets all of {', '.join(names)}"
    else:
        return
    warnings.warn(f"{text}; the share is 0 whatever the order", DynstatWarning, stacklevel=3)


def visiting_order(codes: NDArray[np.int8], states: Sequence[int]) -> NDArray[np.intp]:
    """Return the order of first visits as a number: digits 1..m in base m + 1, 0 after the last.

    Parameters
    ----------
    codes : ndarray of int8, shape (R, n, T)
    states : sequence of int
        The m states that count; their places are the digits.

    Returns
    -------
    ndarray of int, shape (R, n)
    """
    m, length = len(states), codes.shape[-1]
    first = np.empty((*codes.shape[:2], m), dtype=np.intp)
    for j, s in enumerate(states):
        at = codes == s
        first[..., j] = np.where(at.any(axis=-1), at.argmax(axis=-1), length)
    ranked = np.argsort(first, axis=-1, kind="stable")
    met = np.take_along_axis(first, ranked, axis=-1) < length
    digits = np.where(met, ranked + 1, 0)
    return np.asarray(digits @ ((m + 1) ** np.arange(m - 1, -1, -1)))


def _table(
    names: tuple[str, ...],
    groups: Sequence[str],
    seen: NDArray[np.float64],
    expected: NDArray[np.float64],
    spread: dict[int, list[NDArray[np.float64]]],
    surrogates: int,
) -> pd.DataFrame:
    base, m = len(names) + 1, len(names)
    rows = []
    for code in map(int, np.flatnonzero((seen.sum(axis=0) > 0) | (expected.sum(axis=0) > 0))):
        digits = [code // base ** (m - 1 - j) % base for j in range(m)]
        label = " > ".join(names[d - 1] for d in digits if d) or NEVER
        null = np.zeros((surrogates, len(groups)))
        if code in spread:
            # Blocks without this order are blocks of zeros; p does not depend on their place.
            filled = np.concatenate(spread[code])
            null[: len(filled)] = filled
        every = [("all", np.arange(len(groups)))]
        if len(groups) > 1:
            every += [(name, np.array([g])) for g, name in enumerate(groups)]
        for name, which in every:
            n = seen[which].sum()
            o, e = seen[which, code].sum(), expected[which, code].sum()
            p = monte_carlo_p(o, null[:, which].sum(axis=1))
            rows.append((label, name, int(o), o / n, e / n, (o - e) / n, p))
    columns = ["order", "group", "count", "share", "share.null", "difference", "p.value"]
    table = pd.DataFrame(rows, columns=columns)
    place = {name: i for i, name in enumerate(["all", *groups])}
    keys = table.assign(place=table["group"].map(place))
    rank = keys.sort_values(["place", "share"], ascending=[True, False], kind="stable").index
    return table.loc[rank].reset_index(drop=True)
