"""Whether the chance to leave a state depends on how long it has lasted."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..errors import DynstatError
from ..inference.estimate import Estimate
from ..inference.resample import Resampler, Rng, as_generator, monte_carlo_p
from ..inference.unit_interval import unit_interval
from ..inference.wording import p_equals
from .competing import incidence
from .cycle_intervals import interval
from .cycle_nulls import p_against
from .memoryless import duration_scores, duration_slope, rearrange_within_runs
from .run_groups import ALL, RunGroups
from .spells import REOPENED, Spells, find_spells

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from .sequences import Sequences


@dataclass(frozen=True)
class DurationDependence:
    """Hazards by duration and their test. Made by :func:`duration_dependence`; frozen.

    Attributes
    ----------
    spells : Spells
    hazards : DataFrame
        A row a step: step, n.risk, reopened, estimate (hazard), conf.low, conf.high, null.mean (under
        the order within runs permuted), null.low, null.high (middle 95 %).
    estimate : Estimate
        ``duration_slope``: log odds of leaving a doubling of duration. Its null holds the p.
    omnibus : float
        p that hazards differ between durations in any way.
    """

    spells: Spells
    hazards: pd.DataFrame
    estimate: Estimate
    omnibus: float
    _hazards: dict[str, Estimate] = field(repr=False)

    def estimates(self) -> dict[str, Estimate]:
        """Return ``duration_slope`` and ``hazard.<step>``."""
        return {"duration_slope": self.estimate, **self._hazards}

    def tidy(self) -> pd.DataFrame:
        """Return a row a step: step, n.risk, reopened, estimate, conf.low, conf.high and the null."""
        return self.hazards.copy()

    def glance(self) -> pd.DataFrame:
        """Return one row: slope, odds.ratio, conf.low, conf.high, p.value, p.omnibus, spells, units."""
        e = self.estimate
        row = {"slope": e.value, "odds.ratio": np.exp(e.value), "conf.low": e.low, "conf.high": e.high}
        row |= {"p.value": (e.null or {})["p"], "p.omnibus": self.omnibus}
        return pd.DataFrame([row | {"spells": e.n["spells"], "units": e.n["units"]}])

    def plot(self) -> Figure:
        """Draw the hazard of leaving by duration, with its memoryless null.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.cycles import hazard_by_duration

        return hazard_by_duration(self)

    def alt_text(self) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.cycles import alt_text

        return alt_text(self)

    def __str__(self) -> str:
        e, null = self.estimate, self.estimate.null or {}
        return "\n".join(
            [
                f"Hazard of leaving {self.spells.state} by duration",
                str(self.spells),
                "",
                self.hazards.head(12).to_string(index=False, float_format=lambda v: f"{v:.4g}"),
                "",
                f"slope {e.value:.3f} [{e.low:.3f}, {e.high:.3f}] log odds a doubling "
                f"(odds ratio {np.exp(e.value):.3f}); {e.interval}",
                f"{null['name']}: mean slope {null['mean']:.3f}, {p_equals(null['p'])}, any shape "
                f"{p_equals(self.omnibus)} ({null['how']}, {null['replicates']} times)",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def duration_dependence(
    data: xr.Dataset | Sequences | Spells,
    codes: xr.DataArray | None = None,
    *,
    state: str | None = None,
    rates_by: str | None = None,
    unit: str = "prompt",
    alternative: str = "two-sided",
    replicates: int = 999,
    permutations: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.duration_dependence@1",
) -> DurationDependence:
    """Test whether leaving a state becomes likelier or less likely the longer it has lasted.

    ``logit h_g(d) = α_g + β·log2 d``, g the groups of `rates_by`; a chain without memory has β = 0. The p
    compares the score statistic of β (and a sum of squared scores over durations, for any shape) with the
    same when every run's stays and exits are put in a random order: exact without memory, whatever the rates
    of single runs. Runs that differ pull β itself down, since those that leave late are those that rarely
    leave: β = 0 is then no fair mark for its interval, and the null's mean slope is given beside it.

    Parameters
    ----------
    data, codes, state
        As :func:`dynstat.markov.reopening`.
    rates_by : str, optional
        Label of groups with intercepts of their own; by default model, where runs carry it.
    unit : str
        Whose bootstrap gives the interval.
    alternative : {"two-sided", "greater", "less"}
        Greater: leaving becomes likelier with duration.
    replicates : int
        Bootstrap samples of the unit, at least 99.
    permutations : int
        Orders within runs drawn, at least 99.
    level : float
    rng : Generator or int

    Returns
    -------
    DurationDependence

    Raises
    ------
    DynstatError
        S404 arguments; S406 no stay with a known start, or none that was left; S407 unknown state or label;
        S403 one unit.
    """
    for name, count in (("replicates", replicates), ("permutations", permutations)):
        if count < 99:
            raise DynstatError("S404", f"too few {name}", found=count, expected="at least 99")
    if alternative not in ("two-sided", "greater", "less"):
        raise DynstatError(
            "S404", "unknown alternative", found=alternative, expected="two-sided | greater | less"
        )
    spells = data if isinstance(data, Spells) else find_spells(data, codes, state=state)
    generator, seed = as_generator(rng)
    horizon = max(int(spells.duration.max()), 1)
    groups = RunGroups.of(spells, None, rates_by)
    resampler = Resampler.of(spells.codes(unit)[2])
    if resampler.n_units < 2:
        raise DynstatError("S403", "one unit cannot be resampled", where=unit, expected="at least 2")
    per_unit = groups.count(spells, resampler, horizon)
    u = resampler.n_units
    if not spells.duration.any() or not (spells.event == REOPENED).any():
        raise DynstatError(
            "S406",
            f"no stay in {spells.state} was left, so leaving cannot depend on duration",
            found=str(spells),
        )
    observed = groups.by_rate(per_unit.sum(axis=0), ALL)
    flat = per_unit.reshape(u, -1).astype(np.float64)
    weights = resampler.weights(replicates, generator)
    slopes, hazards = [], []
    block = max(1, 4_000_000 // flat.shape[1])
    for i in range(0, replicates, block):
        drawn = groups.by_rate((weights[i : i + block] @ flat).reshape(-1, groups.n, horizon + 2, 3), ALL)
        slopes.append(duration_slope(drawn))
        hazards.append(_hazard(drawn))
    boot = np.concatenate(hazards)
    null_slopes, null_z, null_any, null_hazard = [], [], [], []
    cell = groups.of_run[spells.sequence]
    pooled = _pool_at(observed)
    for counts in rearrange_within_runs(spells, cell, groups.n, horizon, permutations, generator):
        merged = groups.by_rate(counts, ALL)
        score = duration_scores(merged, pooled)
        null_slopes.append(duration_slope(merged))
        null_z.append(score.slope)
        null_any.append(score.omnibus)
        null_hazard.append(_hazard(merged))
    score = duration_scores(observed, pooled)
    z, null = float(score.slope), np.concatenate(null_z)
    p = p_against(z, null, alternative)
    slope_draws = np.concatenate(null_slopes)
    beside = {
        "name": "memoryless two-state chain",
        "how": "order within runs permuted",
        "p": p,
        "alternative": alternative,
        "replicates": permutations,
        "mean": float(np.nanmean(slope_draws)) if np.isfinite(slope_draws).any() else float("nan"),
        "sd": float(np.nanstd(slope_draws, ddof=1)) if np.isfinite(slope_draws).any() else float("nan"),
        "z": z,
    }
    n = {"spells": len(spells), "runs": len(spells.runs), "units": u}
    estimate = unit_interval(
        "duration_slope",
        float(duration_slope(observed)),
        np.concatenate(slopes),
        level=level,
        method=method,
        unit=unit,
        n=n,
        seed=seed,
        null=beside,
    )
    curves = incidence(observed.sum(axis=0))
    at = _hazard(observed)
    # By unit: how many stays were left at a step and how many were not.
    by_unit = incidence(per_unit.sum(axis=1))
    left = _hazard(per_unit.sum(axis=0) - per_unit)
    common = {"level": level, "method": method, "unit": unit, "n": n, "seed": seed}
    made = {}
    for d in range(horizon):
        out = by_unit.events[:, d, 0]
        fates = np.column_stack([out, by_unit.at_risk[:, d] - out])
        key = f"hazard.{d + 1}"
        made[key] = interval(key, float(at[d]), boot[:, d], left[:, d], fates, 0, common)
    spread = np.concatenate(null_hazard)
    seen = np.isfinite(spread).any(axis=0)
    low, high, mean = (np.full(horizon, np.nan) for _ in range(3))
    low[seen], high[seen] = np.nanquantile(spread[:, seen], [0.025, 0.975], axis=0)
    mean[seen] = np.nanmean(spread[:, seen], axis=0)
    table = pd.DataFrame(
        {
            "step": np.arange(1, horizon + 1),
            "n.risk": curves.at_risk.astype(int),
            "reopened": curves.events[:, 0].astype(int),
            "estimate": at,
            "conf.low": [e.low for e in made.values()],
            "conf.high": [e.high for e in made.values()],
            "null.mean": mean,
            "null.low": low,
            "null.high": high,
        }
    )
    omnibus = monte_carlo_p(float(score.omnibus) - 1e-9, np.concatenate(null_any))
    return DurationDependence(spells, table, estimate, omnibus, made)


def _hazard(counts: np.ndarray) -> np.ndarray:
    """Return the hazard of reopening by step over all groups; NaN where nobody is at risk."""
    curves = incidence(counts.sum(axis=-3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(curves.at_risk > 0, curves.events[..., 0] / curves.at_risk, np.nan)


def _pool_at(counts: np.ndarray) -> int:
    """Return the step from which durations are pooled: fewer than five exits or stays expected."""
    curves = incidence(counts.astype(np.float64))
    risk, out = curves.at_risk, curves.events[..., 0]
    total = risk.sum(axis=-1, keepdims=True)
    q = np.where(total > 0, out.sum(axis=-1, keepdims=True) / np.where(total > 0, total, 1.0), 0.0)
    information = (risk * q * (1 - q)).sum(axis=0)
    return int(np.argmax(information < 5)) if (information < 5).any() else information.size
