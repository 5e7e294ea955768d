"""Cycles: the probability that a state is left within h tokens, with end of text competing."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.estimate import Estimate
from ..inference.resample import Resampler, Rng, as_generator
from ..inference.wording import p_equals
from .competing import Incidence, incidence
from .cycle_intervals import fates_at, interval
from .cycle_nulls import QUANTITIES, SIDES, null_beside, null_rows
from .memoryless import (
    constant_incidence,
    fit_memoryless,
    rearrange_within_runs,
    simulate_memoryless,
)
from .run_groups import ALL, RunGroups
from .spells import Spells, find_spells

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from .sequences import Sequences

Floats = NDArray[np.float64]
_WORDS = {
    "reopening": "reopens (Aalen-Johansen)",
    "end_of_text": "text ends first",
    "kaplan_meier": "1 - Kaplan-Meier (end of text censored)",
    "naive": "naive share, whole record",
    "departure": "reopens, less constant hazards",
}


@dataclass(frozen=True)
class Reopening:
    """How likely a state is left within h tokens. Made by :func:`reopening`; frozen.

    Attributes
    ----------
    spells : Spells
    horizon : int
        h, in tokens.
    curve : DataFrame
        A row a group ("all" first) and step: step, n.risk, reopened, end_of_text (counts at the step),
        estimate (Aalen–Johansen incidence of reopening), conf.low, conf.high, ended (incidence of end of
        text), inside, kaplan.meier (one minus it), null.low, null.high (middle 95 % of the simulated chain
        without memory).
    nulls : DataFrame
        A row a group, statistic and null: observed, mean, sd, q025, q975, p.
    """

    spells: Spells
    horizon: int
    curve: pd.DataFrame
    nulls: pd.DataFrame
    by: str | None
    _estimates: dict[str, Estimate] = field(repr=False)

    def estimates(self) -> dict[str, Estimate]:
        """Return reopening, end_of_text, kaplan_meier, naive, departure; then ``<one of these>.<group>``."""
        return dict(self._estimates)

    def tidy(self) -> pd.DataFrame:
        """Return a row a group and quantity: group, term, estimate, conf.low, conf.high, n, p.value."""
        rows = []
        for key, e in self._estimates.items():
            term, _, group = key.partition(".")
            rows.append(
                {
                    "group": group or ALL,
                    "term": term,
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "spells": e.n["spells"],
                    "p.value": (e.null or {}).get("p", np.nan),
                }
            )
        return pd.DataFrame(rows)

    def glance(self) -> pd.DataFrame:
        """Return one row: state, horizon, spells, reopened, end_of_text, censored, left_open, runs, units."""
        e = self._estimates["reopening"]
        row = {"state": self.spells.state, "horizon": self.horizon, "spells": len(self.spells)}
        return pd.DataFrame(
            [row | self.spells.counts() | {"runs": len(self.spells.runs), "units": e.n["units"]}]
        )

    def plot(self, group: str = ALL) -> Figure:
        """Draw the curve with its competitors, the memoryless null and the numbers at risk.

        Parameters
        ----------
        group : str
            A level of `by`; all together by default.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.cycles import reopening_curve

        return reopening_curve(self, group)

    def alt_text(self, group: str = ALL) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.cycles import alt_text

        return alt_text(self, group)

    def __str__(self) -> str:
        e = self._estimates["reopening"]
        table = self.tidy()
        table["term"] = table["term"].map(_WORDS)
        if self.by is None:
            table = table.drop(columns="group")
        null = e.null or {}
        return "\n".join(
            [
                f"Reopening of {self.spells.state} within {self.horizon} tokens",
                str(self.spells),
                "",
                table.to_string(index=False, float_format=lambda v: f"{v:.4g}", na_rep=""),
                "",
                f"{100 * e.level:g} % {e.interval}",
                f"{null.get('name')}: mean {null.get('mean', np.nan):.4g}, {null.get('alternative')} "
                f"{p_equals(null.get('p', np.nan))} ({null.get('how')}, {null.get('replicates')} times)",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def reopening(
    data: xr.Dataset | Sequences | Spells,
    codes: xr.DataArray | None = None,
    *,
    horizon: int,
    state: str | None = None,
    by: str | None = None,
    unit: str = "prompt",
    rates_by: str | None = None,
    null: str = "within_runs",
    alternative: str = "two-sided",
    replicates: int = 999,
    permutations: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.reopening@1",
) -> Reopening:
    """Estimate the probability that a stay in a state ends within h tokens while the text goes on.

    A stay starts where the state is entered; those open at a run's first token are left out. It reopens, or
    end of text takes it (a competing event), or the token budget censors it. Estimator: Aalen–Johansen,
    ``F(h) = Σ_{d≤h} S(d − 1) reopened(d)/at risk(d)``. Beside it: one minus Kaplan–Meier, which counts end of
    text as censoring and so answers what would happen if texts never ended; the naive share of stays that
    reopened in the record, which the budget pulls down; and ``departure``, F(h) less its value under hazards
    that are constant within each group of `rates_by`.

    Interval: bootstrap of the unit with all its runs. Null: a chain of two states without memory. Either each
    run's stays and exits are put in a random order (``within_runs``: exact, every run has rates of its own;
    the naive share cannot move), or runs are simulated from rates of entering, leaving and ending fitted to
    each group of `rates_by`, with the observed first states and limits (``simulated``). The simulated one
    takes differences between runs for memory. Both are in ``nulls``.

    Parameters
    ----------
    data : xarray.Dataset, Sequences or Spells
    codes : xarray.DataArray
        With a dataset, see :func:`dynstat.markov.find_spells`.
    horizon : int
        h, in tokens, from 1.
    state : str, optional
        By default COLLAPSE, or what `codes` are named for.
    by : str, optional
        A label of runs (model, category): estimates for every level beside those of all.
    unit : str
        The label of the exchangeable unit.
    rates_by : str, optional
        Label of the groups with rates of their own; by default model, where runs carry it.
    null : {"within_runs", "simulated"}
        Which of the two gives the p of the estimates.
    alternative : {"two-sided", "greater", "less"}
        Of that p: greater for more reopening than without memory.
    replicates : int
        Bootstrap samples of the unit, at least 99.
    permutations : int
        Orders within runs drawn, and sets of runs simulated: the draws of each null, at least 99.
    level : float
    rng : Generator or int

    Returns
    -------
    Reopening

    Raises
    ------
    DynstatError
        S404 arguments; S406 no stay with a known start; S407 unknown state or label; S403 one unit.

    Warns
    -----
    DynstatWarning
        Where h lies beyond the longest stay on record and some had not ended: the value is then NaN.

    Notes
    -----
    Origin dynstat: Paper 2 gives a share of 84 % and says neither what ends a cycle nor what censors one.
    Source: Aalen and Johansen 1978, Scand. J. Stat. 5: 141-150.
    """
    _check(horizon, null, alternative, replicates, permutations)
    spells = data if isinstance(data, Spells) else find_spells(data, codes, state=state)
    generator, seed = as_generator(rng)
    longest = max(int(spells.duration.max()), horizon)
    cells = RunGroups.of(spells, by, rates_by)
    resampler = Resampler.of(spells.codes(unit)[2])
    u = resampler.n_units
    if u < 2:
        raise DynstatError("S403", "one unit cannot be resampled", where=unit, expected="at least 2")
    cell = cells.of_run[spells.sequence]
    per_unit = cells.count(spells, resampler, longest)
    everything = per_unit.sum(axis=0)
    flat = per_unit.reshape(u, -1).astype(np.float64)
    weights = resampler.weights(replicates, generator)
    block = max(1, 4_000_000 // flat.shape[1])
    boot = _collect(
        ((weights[i : i + block] @ flat).reshape(-1, *everything.shape) for i in range(0, replicates, block)),
        cells,
        horizon,
    )
    chain = fit_memoryless(spells, cells.rate_of_run, cells.rates)
    simulated = _collect(
        simulate_memoryless(
            chain, spells, cells.rate_of_run, cells.of_run, cells.n, longest, permutations, generator
        ),
        cells,
        horizon,
    )
    rearranged = _collect(
        rearrange_within_runs(spells, cell, cells.n, longest, permutations, generator), cells, horizon
    )
    observed = _collect([everything[None]], cells, horizon)
    without = _collect([everything[None] - per_unit], cells, horizon)
    found: dict[str, Estimate] = {}
    curves, nulls = [], []
    for group in cells.groups:
        rows = np.isin(cells.of_run, cells.members(group))
        own = np.unique(resampler.units[rows])
        n = {
            "spells": int(np.isin(cell, cells.members(group)).sum()),
            "runs": int(rows.sum()),
            "units": own.size,
        }
        # A unit without a run of the group is none of its units.
        left = {k: v[own] for k, v in without[group].items()}
        counted = per_unit[own][:, cells.members(group)].sum(axis=1)
        common: dict[str, Any] = {"level": level, "method": method, "unit": unit, "n": n, "seed": seed}
        values = {q: float(observed[group][q][0]) for q in QUANTITIES}
        table = pd.concat(
            [
                null_rows(group, values, simulated[group], "simulated", alternative),
                null_rows(group, values, rearranged[group], "within_runs", alternative),
            ]
        )
        nulls.append(table)
        for q in QUANTITIES:
            key = q if group == ALL else f"{q}.{group}"
            # Order within runs cannot change how many stays reopen.
            how = "simulated" if q == "naive" else null
            beside = null_beside(table, q, how, permutations, alternative)
            fates = counted[:, :, [1, 2, 0]].sum(axis=1) if q == "naive" else fates_at(counted, horizon)
            kind = int(q == "end_of_text")
            span = (-1.0, 1.0) if q == "departure" else (0.0, 1.0)
            found[key] = interval(key, values[q], boot[group][q], left[q], fates, kind, common, beside, span)
        parts = {k: v[group] for k, v in (("observed", observed), ("boot", boot), ("simulated", simulated))}
        curves.append(_curve(group, **parts, left=left, counted=counted, common=common))
    keys = ["reopening" if g == ALL else f"reopening.{g}" for g in cells.groups]
    if unknown := [k.partition(".")[2] or "all" for k in keys if not np.isfinite(found[k].value)]:
        warnings.warn(
            f"the probability within {horizon} tokens is not known ({', '.join(unknown)}): no stay in "
            f"{spells.state} is on record for so long, and some had not ended (the longest: "
            f"{int(spells.duration.max())})",
            DynstatWarning,
            stacklevel=2,
        )
    return Reopening(
        spells,
        horizon,
        pd.concat(curves, ignore_index=True),
        pd.concat(nulls, ignore_index=True),
        by,
        found,
    )


def _check(horizon: int, null: str, alternative: str, replicates: int, permutations: int) -> None:
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
        raise DynstatError("S404", "horizon counts tokens", found=horizon, expected="a whole number from 1")
    if null not in ("within_runs", "simulated"):
        raise DynstatError("S404", "unknown null", found=null, expected="within_runs | simulated")
    if alternative not in SIDES:
        raise DynstatError("S404", "unknown alternative", found=alternative, expected=" | ".join(SIDES))
    for name, count in (("replicates", replicates), ("permutations", permutations)):
        if count < 99:
            raise DynstatError("S404", f"too few {name}", found=count, expected="at least 99")


def _collect(blocks: Iterable[NDArray[Any]], cells: RunGroups, horizon: int) -> dict[str, dict[str, Floats]]:
    """Return every quantity and the curves of every group, a row a replicate."""
    parts: dict[str, list[dict[str, Floats]]] = {g: [] for g in cells.groups}
    for counts in blocks:
        for g in cells.groups:
            merged = cells.by_rate(counts, g)
            curves: Incidence = incidence(merged.sum(axis=-3))
            first, other, km = curves.at(horizon)
            with np.errstate(divide="ignore", invalid="ignore"):
                departure = first - constant_incidence(merged, horizon)
            parts[g].append(
                {
                    "reopening": first,
                    "end_of_text": other,
                    "kaplan_meier": km,
                    "naive": curves.naive,
                    "departure": departure,
                    "curve": curves.incidence[..., 0],
                    "ended": curves.incidence[..., 1],
                    "km_curve": curves.kaplan_meier,
                    "at_risk": curves.at_risk,
                    "events": curves.events,
                }
            )
    return {g: {k: np.concatenate([p[k] for p in ps]) for k in ps[0]} for g, ps in parts.items()}


def _curve(
    group: str,
    observed: dict[str, Floats],
    boot: dict[str, Floats],
    simulated: dict[str, Floats],
    left: dict[str, Floats],
    counted: NDArray[np.int64],
    common: dict[str, Any],
) -> pd.DataFrame:
    f, ended = observed["curve"][0], observed["ended"][0]
    limits = [
        interval("", f[i], boot["curve"][:, i], left["curve"][:, i], fates_at(counted, i + 1), 0, common)
        for i in range(f.size)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(simulated["curve"], [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "group": group,
            "step": np.arange(1, f.size + 1),
            "n.risk": observed["at_risk"][0].astype(int),
            "reopened": observed["events"][0, :, 0].astype(int),
            "end_of_text": observed["events"][0, :, 1].astype(int),
            "estimate": f,
            "conf.low": [e.low for e in limits],
            "conf.high": [e.high for e in limits],
            "ended": ended,
            "inside": 1.0 - f - ended,
            "kaplan.meier": observed["km_curve"][0],
            "null.low": low,
            "null.high": high,
        }
    )
