"""Dwell: how long states are stayed in, with censored stays, beside chains without memory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator, monte_carlo_p
from ..inference.unit_interval import unit_interval
from .labels import label_codes, unit_codes
from .semi_markov import fit_dwell
from .sequences import Sequences
from .stay_tables import at_risk, chances, count_stays, hazard_statistic, survival_curve
from .surrogates import NULLS, aligned, null_sequences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
LEFT = ("drop", "start")


@dataclass(frozen=True)
class Stays:
    """Stays of one state in one group (or "all"): counts by length, fits, test."""

    state: str
    group: str
    exits: Floats
    censored: Floats
    left_open: int
    memoryless: float
    mean: Estimate
    median: Estimate
    self_transition: Estimate
    survival: pd.DataFrame
    fits: pd.DataFrame


@dataclass(frozen=True)
class Dwell:
    """Dwell times by state. Made by :func:`dynstat.markov.dwell`; frozen.

    Attributes
    ----------
    stays : tuple of Stays
        States over all sequences ("all"), then by group where there are several.
    null : str
        Of the test of a constant hazard.
    left_open : str
        How stays that were under way at the first step are taken.
    """

    stays: tuple[Stays, ...]
    null: str
    left_open: str
    _size: Mapping[str, int]

    def estimates(self) -> dict[str, Estimate]:
        """Return ``mean``, ``median`` and ``self_transition`` a state, and a state and group."""
        return {e.key: e for s in self.stays for e in (s.mean, s.median, s.self_transition)}

    @cached_property
    def _table(self) -> pd.DataFrame:
        rows = []
        for s in self.stays:
            beside = s.mean.null or {}
            fit = s.fits.set_index("distribution")
            rows.append(
                {
                    "state": s.state,
                    "group": s.group,
                    "stays": int(s.exits.sum() + s.censored.sum()),
                    "ended": int(s.exits.sum()),
                    "left.open": s.left_open,
                    "estimate": s.mean.value,
                    "conf.low": s.mean.low,
                    "conf.high": s.mean.high,
                    "median": s.median.value,
                    "geometric": float(fit.loc["geometric", "mean"]),
                    "memoryless": s.memoryless,
                    "longest": len(s.survival) - 1,
                    "beyond": float(s.survival["estimate"].iloc[-1]),
                    "delta.negative_binomial": float(fit.loc["negative_binomial", "delta"]),
                    "delta.weibull": float(fit.loc["weibull", "delta"]),
                    "p.value": beside.get("p", np.nan),
                }
            )
        return pd.DataFrame(rows)

    def tidy(self) -> pd.DataFrame:
        """Return a row a state and group.

        ``estimate`` is the mean dwell (up to ``longest`` steps, beyond which the share ``beyond`` goes on),
        ``geometric`` that of the fitted memoryless dwell, ``memoryless`` 1/(1 − p_ii) from all transitions,
        ``delta.*`` AIC less the geometric's as if stays were independent, ``p.value`` that of a constant
        hazard.
        """
        return self._table.copy()

    def glance(self) -> pd.DataFrame:
        """Return one row: sizes, the null and how left-open stays are taken."""
        return pd.DataFrame([{**self._size, "null": self.null, "left_open": self.left_open}])

    def survival(self) -> pd.DataFrame:
        """Return the Kaplan–Meier curve: state, group, time, at.risk, ended, estimate, limits, geometric."""
        return pd.concat([s.survival for s in self.stays], ignore_index=True)

    def plot(self, group: str = "all") -> Figure:
        """Draw the survival of stays by state beside the memoryless curve.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.dwell_curves import dwell_curves

        return dwell_curves(self.survival(), group=group)

    def alt_text(self, group: str = "all") -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.dwell_curves import alt_text

        return alt_text(self.survival(), group=group)

    def __str__(self) -> str:
        table = self.tidy()
        shown = table[table["group"] == "all"].drop(columns="group")
        short = shown.rename(
            columns={
                "delta.negative_binomial": "ΔAIC nb",
                "delta.weibull": "ΔAIC weibull",
                "estimate": "mean",
            }
        )
        size, mean = self._size, self.stays[0].mean
        head = f"Dwell in {len(shown)} states: {size['sequences']} sequences, {size['units']} units of"
        return "\n".join(
            [
                f"{head} {mean.unit}",
                "",
                short.to_string(index=False, float_format=lambda v: f"{v:.3g}"),
                "",
                f"limits of the mean: {100 * mean.level:g} % {mean.interval}",
                f"p: hazard of leaving constant, against {NULLS[self.null]}",
                f"stays under way at the first step: {_WORDS[self.left_open]}",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


_WORDS = {"drop": "left out", "start": "taken to begin there"}


def dwell(
    sequences: Sequences,
    *,
    by: str | None = "model",
    unit: str = "prompt",
    left_open: str = "drop",
    null: str = "markov",
    surrogates: int = 999,
    replicates: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.dwell@1",
) -> Dwell:
    """Estimate how long states are stayed in, and test whether they are left without memory.

    Lengths of stays by Kaplan and Meier. A stay of k steps that ended was left at its k-th chance; one that
    is under way where the sequence ends (or a gap begins) was seen to outlast k − 1 chances and is censored
    there. Mean = Σ S(k) over k = 0 .. longest − 1, the restricted mean where S does not reach 0; median = the
    first k with S(k) at most 1/2, NaN where there is none. Beside it the geometric dwell with
    h = exits/chances, and 1/(1 − p_ii) from all transitions, left-open stays included.

    Test of a constant hazard: G = 2 Σ over lengths of the binomial log-likelihood ratio of exits among stays
    at risk, its p from surrogate sequences. With null "markov" every unit has a chain of its own, so that
    units which differ do not look like memory; "markov_shuffle" is exact but sees only stays within one
    sequence.

    Parameters
    ----------
    sequences : Sequences
    by : str or None
        Column of the labels: surrogates are made within groups; states are described over all and by group.
    unit : str
        Column of the labels, drawn by the bootstrap with all its sequences.
    left_open : {"drop", "start"}
        Stays under way at the first step: left out, or taken to begin there (by layer, where the input is a
        true beginning). Those after a gap are always left out.
    null : str
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
    Dwell

    Raises
    ------
    DynstatError
        S404 arguments; S406 no stay is left to describe; S407 unknown labels; S403 fewer than two units.

    Warns
    -----
    DynstatWarning
        Names states without a stay, and states that are never left.
    """
    if left_open not in LEFT or surrogates < 99 or replicates < 19:
        raise DynstatError(
            "S404",
            "argument outside its range",
            found=f"left_open={left_open}, surrogates={surrogates}, replicates={replicates}",
            expected="left_open drop | start, surrogates at least 99, replicates at least 19",
        )
    k = len(sequences.states)
    codes = aligned(sequences)
    of_group, groups = label_codes(sequences, by)
    resampler = unit_codes(sequences, unit)
    units = resampler.n_units
    cell = of_group * units + resampler.units
    drop = left_open == "drop"
    tables, skipped = count_stays(codes[None], cell, len(groups) * units, k, drop=drop)
    if not tables.any():
        raise DynstatError(
            "S406",
            "no stay is left to describe",
            found=f"{int(skipped.sum())} stays, all under way at the first step of their sequence",
            mend='left_open="start", where sequences begin there',
        )
    _warn_unseen(sequences.states, tables[0].sum(axis=0))
    # (groups, units, state, ended or censored, length)
    shape = (len(groups), units, *tables.shape[2:])
    tables = tables[0].reshape(shape).astype(np.float64)
    skipped = skipped[0].reshape(len(groups), units, k)
    left, stayed = chances(codes, cell, len(groups) * units, k, (len(groups), units))
    generator, seed = as_generator(rng)
    weights = resampler.weights(replicates, generator).astype(np.float64)
    drawn: list[NDArray[np.float64]] = []
    for block in null_sequences(sequences, null, surrogates, by=by, unit=unit, rng=generator):
        t, _ = count_stays(block, of_group, len(groups), k, drop=drop)
        whole = t.sum(axis=1, keepdims=True)
        drawn.append(hazard_statistic(np.concatenate([whole, t], axis=1) if len(groups) > 1 else whole))
    null_g = np.concatenate(drawn)
    made = []
    parts: list[tuple[str, NDArray[np.intp]]] = [("all", np.arange(len(groups)))]
    if len(groups) > 1:
        parts += [(name, np.array([g])) for g, name in enumerate(groups)]
    for place, (name, which) in enumerate(parts):
        for s, state in enumerate(sequences.states):
            by_unit = tables[which, :, s].sum(axis=0)
            if not by_unit.any():
                continue
            g = float(hazard_statistic(by_unit.sum(axis=0)))
            beside = {
                "name": NULLS[null],
                "p": monte_carlo_p(g - 1e-9, null_g[:, place, s]),
                "replicates": surrogates,
                "statistic": g,
                "mean": float(null_g[:, place, s].mean()),
            }
            common: dict[str, Any] = {
                "level": level,
                "method": method,
                "unit": unit,
                "n": {"stays": int(by_unit.sum()), "units": units, "sequences": len(sequences)},
                "seed": seed,
                "null": beside,
            }
            total = left[which, :, s].sum()
            going = stayed[which, :, s].sum()
            made.append(
                _describe(
                    state,
                    name,
                    by_unit,
                    weights,
                    int(skipped[which, :, s].sum()),
                    float(total / (total - going)) if total > going else np.inf,
                    common,
                )
            )
    size = {"sequences": len(sequences), "units": units, "groups": len(groups), "surrogates": surrogates}
    return Dwell(tuple(made), null, left_open, size)


def _warn_unseen(states: tuple[str, ...], tables: NDArray[np.int64]) -> None:
    """Name the states without a stay to describe and those that no stay was seen to leave, (K, 2, T)."""
    seen, ended = tables.any(axis=(1, 2)), tables[:, 0].any(axis=1)
    for text, which in (
        ("no stay to describe, left out", ~seen),
        ("never left; the mean speaks of the steps on record alone", seen & ~ended),
    ):
        if named := [s for s, w in zip(states, np.atleast_1d(which), strict=True) if w]:
            warnings.warn(f"{', '.join(named)}: {text}", DynstatWarning, stacklevel=3)


def _median(curves: Floats) -> Floats:
    # Products of shares round: one half is met from within a hair.
    below = curves <= 0.5 + 1e-12
    return np.where(below.any(axis=-1), below.argmax(axis=-1), np.nan)


def _describe(
    state: str,
    group: str,
    by_unit: Floats,
    weights: Floats,
    left_open: int,
    memoryless: float,
    common: Mapping[str, Any],
) -> Stays:
    whole = by_unit.sum(axis=0)
    exits, risk = at_risk(whole)
    longest = int(np.flatnonzero(risk > 0)[-1]) + 1
    curve = survival_curve(whole)[: longest + 1]
    sampled = np.tensordot(weights, by_unit, axes=(1, 0))
    curves = survival_curve(sampled)[:, : longest + 1]
    # A draw without a stay in this state says nothing.
    curves[~sampled.any(axis=(1, 2))] = np.nan
    mean, means = float(curve[:-1].sum()), curves[:, :-1].sum(axis=1)
    key = f"{state}" if group == "all" else f"{state}.{group}"
    notes = {"longest": longest, "beyond": float(curve[-1]), "restricted": bool(curve[-1] > 0)}
    rest = {"diagnostics": notes, **common}
    middle = float(_median(curve))
    estimates = (
        unit_interval(f"mean.{key}", mean, means, bounds=(1.0, np.inf), **rest),
        unit_interval(f"median.{key}", middle, _median(curves), bounds=(1.0, float(longest)), **rest),
        unit_interval(f"self_transition.{key}", 1 - 1 / mean, 1 - 1 / means, bounds=(0.0, 1.0), **rest),
    )
    fits = fit_dwell(whole[0], whole[1])
    h = float(exits.sum() / risk.sum())
    n, level = common["n"]["units"], common["level"]
    z = np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 + level) / 2)
    limits = np.nanquantile(curves, special.ndtr(np.array([-z, z])), axis=0)
    time = np.arange(longest + 1)
    table = pd.DataFrame(
        {
            "state": state,
            "group": group,
            "time": time,
            "at.risk": np.concatenate([[risk[0]], risk[:longest]]).astype(np.int64),
            "ended": np.concatenate([[0], exits[:longest]]).astype(np.int64),
            "estimate": curve,
            "conf.low": limits[0],
            "conf.high": limits[1],
            "geometric": (1 - h) ** time,
        }
    )
    return Stays(state, group, whole[0], whole[1], left_open, memoryless, *estimates, table, fits)
