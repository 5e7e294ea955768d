"""The estimated chain: every quantity an Estimate, all from the same replicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError
from ..inference.estimate import AdjustedDrawsPivot, BetaPivot, DrawsPivot, Estimate, TPivot, WaitPivot
from ..inference.unit_interval import unit_interval
from . import derived
from .lumping import lumpability_null
from .rare_events import FEW, effective_trials, rare_pivot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
_INF = float("inf")


@dataclass(frozen=True, eq=False)
class MarkovChain:
    """A first-order chain. Made by :func:`dynstat.markov.chain`; frozen.

    Attributes
    ----------
    states : tuple of str
    counts : ndarray of int64, shape (K, K)
    matrix : ndarray, shape (K, K)
        Maximum likelihood; NaN rows where a state was never left.
    axis, lag, unit, interval, level, n, seed, method
        What a step is; steps of a transition; unit of resampling; "bootstrap", "dirichlet" or "sandwich";
        level of the intervals; numbers of units, sequences, transitions; seed; method id.
    absorbing : tuple of int
        Positions of the states at which the walk ends.
    groups : tuple of str or None
        Group of every state, for lumpability.
    diagnostics : mapping
        Replicates; how many were not ergodic, or held no transition out of a state (by state); states never
        seen, never left, absorbing.
    unit_counts : ndarray, shape (units, K, K)
    replicates : ndarray, shape (B, K, K)
        Count tables of the replicates.
    """

    states: tuple[str, ...]
    counts: NDArray[np.int64]
    matrix: Array
    axis: str
    lag: int
    unit: str
    interval: str
    level: float
    n: Mapping[str, int]
    seed: int | None
    method: str
    absorbing: tuple[int, ...]
    groups: tuple[str, ...] | None
    diagnostics: Mapping[str, Any]
    unit_counts: Array = field(repr=False)
    replicates: Array = field(repr=False)
    prior: float = 0.5

    @property
    def log_likelihood(self) -> float:
        """Σ n_ij ln p_ij given first states, in nats."""
        return float(derived.log_likelihood(self.counts))

    @property
    def occupancy(self) -> pd.Series[float]:
        """The share of transitions that end in every state."""
        return pd.Series(derived.occupancy(self.counts), self.states, name="occupancy")

    def frame(self, what: str = "matrix") -> pd.DataFrame:
        """Return ``matrix``, ``counts``, or a table of limits (``low``, ``high``), labelled by states."""
        if what in ("low", "high"):
            rows = [[getattr(self[f"transition.{a}.{b}"], what) for b in self.states] for a in self.states]
            return pd.DataFrame(rows, self.states, self.states)
        return pd.DataFrame(getattr(self, what), self.states, self.states)

    def __getitem__(self, key: str) -> Estimate:
        if key not in self._estimates:
            near = [k for k in self._estimates if k.split(".")[0] == key.split(".")[0]]
            raise DynstatError(
                "S407",
                "the chain has no such estimate",
                found=key,
                expected=", ".join(near[:8] or sorted({k.split(".")[0] for k in self._estimates})),
            )
        return self._estimates[key]

    def estimates(self) -> dict[str, Estimate]:
        """Return every quantity by key.

        ``transition.FROM.TO``; ``self_transition.S``, ``lift.S``, ``exit.S``, ``dwell.S`` (steps),
        ``occupancy.S``, ``stationary.S``, ``recurrence.S`` (steps); ``first_passage.FROM.TO`` (steps);
        ``timescale.k`` (steps; of the k-th eigenvalue), ``spectral_gap``, ``entropy_rate`` (nats);
        ``absorption.FROM.IN`` and ``absorption_steps.FROM`` where there are absorbing states; ``lumpability``
        where groups were given.
        """
        return dict(self._estimates)

    @cached_property
    def _estimates(self) -> dict[str, Estimate]:
        values = _quantities(self, self.counts.astype(np.float64), batch=False)
        draws = _quantities(self, self.replicates, batch=True)
        occupancy = values["occupancy"][0]
        effective = effective_trials(self.unit_counts).n
        out: dict[str, Estimate] = {}
        for family, names in _names(self).items():
            value, replicates = (
                np.ravel(values[family][0]),
                draws[family][0].reshape(len(self.replicates), -1),
            )
            for i, name in enumerate(names):
                if name is None:
                    continue
                key = ".".join((family, *name))
                bounds = values[family][1]
                if family == "lift":
                    bounds = (-float(occupancy[i]), 1 - float(occupancy[i]))
                out[key] = self._made(key, float(value[i]), replicates[:, i], bounds)
        if self.groups is not None:
            codes = np.unique(np.array(self.groups), return_inverse=True)[1].tolist()
            null = lumpability_null(self.unit_counts, codes, rng=self.seed or 0)
            out["lumpability"] = replace(out["lumpability"], null=null)
        if self.interval != "dirichlet":
            out |= self._rare(out, effective)
        return out

    def _made(self, key: str, value: float, draws: Array, bounds: tuple[float, float]) -> Estimate:
        n: dict[str, int] = dict(self.n)
        # Only drawn models speak of models that were not measured.
        target: Any = "population" if self.unit == "model" else "panel"
        rest: dict[str, Any] = {
            "level": self.level,
            "method": self.method,
            "n": n,
            "seed": self.seed,
        }
        if self.interval == "bootstrap":
            return unit_interval(key, value, draws, bounds=bounds, unit=self.unit, target=target, **rest)
        kept = draws[np.isfinite(draws)]
        notes = {"replicates": draws.size, "undefined": draws.size - kept.size}
        rest |= {"diagnostics": notes, "target": target}
        if not np.isfinite(value) or kept.size < max(2, 0.975 * draws.size):
            why = "none (undefined)"
            return Estimate(key, value, np.nan, np.nan, interval=why, unit=self.unit, **rest)
        if self.interval == "dirichlet":
            words = f"Dirichlet({self.prior:g}) posterior, transitions taken as independent"
            pivot = DrawsPivot(tuple(kept.tolist()))
            return Estimate.from_pivot(key, value, pivot, interval=words, unit="transition", **rest)
        pivot_t, words = _leave_one_out(value, kept, bounds)
        return Estimate.from_pivot(key, value, pivot_t, interval=words, unit=self.unit, **rest)

    def _rare(self, made: Mapping[str, Estimate], effective: Array) -> dict[str, Estimate]:
        """Return estimates of transitions with under five events, and of what is made from them alone."""
        out: dict[str, Estimate] = {}
        trials = self.counts.sum(axis=1)
        for i, j in zip(
            *np.nonzero(np.minimum(self.counts, trials[:, None] - self.counts) < FEW), strict=True
        ):
            if not trials[i]:
                continue
            source, target = self.states[i], self.states[j]
            events = int(self.counts[i, j])
            pivot = rare_pivot(events, float(trials[i]), float(effective[i, j]), len(self.states))
            words = f"Jeffreys on counts shrunk to {effective[i, j]:.3g} of {trials[i]} ({events} events)"
            out |= self._again(made[f"transition.{source}.{target}"], pivot, words)
            if i != j:
                continue
            out |= self._again(made[f"self_transition.{source}"], pivot, words)
            closed = {"lower": "upper", "upper": "lower"}.get(pivot.closed, "")
            leave = BetaPivot(pivot.b, pivot.a, closed)  # type: ignore[arg-type]
            out |= self._again(made[f"exit.{source}"], leave, words)
            # Posterior of the self-transition at even steps, less resampled occupancies, in unrelated order.
            occupied = self._occupancies(i)
            grid = (np.arange(occupied.size) + 0.5) / occupied.size
            stay = special.betaincinv(pivot.a, pivot.b, grid)
            if pivot.closed == "lower":
                # No event: 0 is as likely as anything below the median.
                stay = np.where(grid < 0.5, 0.0, stay)
            mixed = np.random.default_rng(0).permutation(stay)
            out |= self._again(made[f"dwell.{source}"], WaitPivot(pivot, self.lag), words)
            lift = DrawsPivot(tuple((mixed - occupied).tolist()))
            out |= self._again(made[f"lift.{source}"], lift, words + ", less resampled occupancy")
        return out

    def _occupancies(self, i: int) -> Array:
        """Return draws of the occupancy of state i: replicates, or normal ones where units were left out."""
        share = derived.occupancy(self.replicates)[:, i]
        if self.interval == "bootstrap":
            return np.asarray(share)
        m = share.size
        se = float(np.sqrt((m - 1) / m * np.sum((share - share.mean()) ** 2)))
        return float(self.occupancy.iloc[i]) + se * special.ndtri((np.arange(999) + 0.5) / 999)

    def _again(
        self, e: Estimate, pivot: BetaPivot | DrawsPivot | WaitPivot, words: str
    ) -> dict[str, Estimate]:
        rest = {k: getattr(e, k) for k in ("method", "unit", "n", "target", "seed", "null")}
        notes = dict(e.diagnostics) | {"few_events": True}
        return {
            e.key: Estimate.from_pivot(
                e.key, e.value, pivot, level=self.level, interval=words, diagnostics=notes, **rest
            )
        }

    def tidy(self) -> pd.DataFrame:
        """Return a row a quantity: term, from, to, estimate, conf.low, conf.high, n, few_events, undefined.

        ``n`` is the number of events of a transition.
        """
        rows = []
        names = [(f, p) for f, parts in _names(self).items() for p in parts if p is not None]
        for family, parts in names:
            e = self._estimates[".".join((family, *parts))]
            events: Any = pd.NA
            if family == "transition":
                events = int(self.counts[self.states.index(parts[0]), self.states.index(parts[1])])
            rows.append(
                {
                    "term": family,
                    "from": parts[0] if parts else "",
                    "to": parts[1] if len(parts) > 1 else "",
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "n": events,
                    "few_events": bool(e.diagnostics.get("few_events", False)),
                    "undefined": int(e.diagnostics.get("undefined", 0)),
                }
            )
        return pd.DataFrame(rows).astype({"n": "Int64"})

    def glance(self) -> pd.DataFrame:
        """Return one row: sizes, log-likelihood, spectral gap, entropy rate, replicates."""
        return pd.DataFrame(
            [
                {
                    "states": len(self.states),
                    **self.n,
                    "logLik": self.log_likelihood,
                    "spectral_gap": self["spectral_gap"].value,
                    "entropy_rate": self["entropy_rate"].value,
                    "interval": self.interval,
                    "unit": self.unit,
                    "replicates": self.diagnostics["replicates"],
                    "not_ergodic": self.diagnostics["not_ergodic"],
                }
            ]
        )

    def plot(self, kind: str = "graph", **options: Any) -> Figure:
        """Draw the chain as a ``graph`` of states, or as a ``matrix`` with intervals in its cells.

        See :mod:`dynstat.plotting.chains`.
        """
        from ..plotting.chains import transition_graph, transition_matrix_map

        if kind not in ("graph", "matrix"):
            raise DynstatError("S404", "unknown kind of figure", found=kind, expected="graph | matrix")
        return (transition_graph if kind == "graph" else transition_matrix_map)(self, **options)

    def alt_text(self, kind: str = "graph", **options: Any) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.chains import alt_text

        return alt_text(self, kind, **options)

    def __str__(self) -> str:
        n = self.n
        percent = f"{100 * self.level:g} %"
        by = self.unit if self.interval != "dirichlet" else "transition"
        lines = [
            f"First-order Markov chain along {self.axis}s, lag {self.lag}",
            f"{n['transitions']} transitions in {n['sequences']} sequences; intervals: {percent} "
            f"{self.interval}, unit {by} ({n['units']} units)",
            "",
            "Transition probabilities (row: from):",
            self.frame().to_string(float_format=lambda v: f"{v:.3f}"),
            "",
            "States:",
            self._state_table().to_string(),
            "",
            f"spectral gap {_text(self['spectral_gap'])}, entropy rate {_text(self['entropy_rate'])} nats "
            f"a step, log-likelihood {self.log_likelihood:.4f}",
        ]
        d = self.diagnostics
        if d["not_ergodic"] or d["empty_row"]:
            empty = ", ".join(f"{s} {c}" for s, c in d["empty_row"].items())
            lines.append(
                f"{d['not_ergodic']} of {d['replicates']} replicates not ergodic"
                + (f"; without a transition out of: {empty}" if empty else "")
            )
        for kind in ("never_seen", "never_left", "absorbing"):
            if kind in d:
                lines.append(f"{kind.replace('_', ' ')}: {', '.join(d[kind])}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def _state_table(self) -> pd.DataFrame:
        columns = ("self_transition", "lift", "dwell", "stationary")
        rows = [[_text(self[f"{c}.{s}"]) for c in columns] for s in self.states]
        return pd.DataFrame(rows, self.states, [c.replace("_", " ") for c in columns])


def _text(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def _quantities(
    c: MarkovChain, counts: Array, *, batch: bool
) -> dict[str, tuple[Array, tuple[float, float]]]:
    """Return every quantity of count tables with its bounds; the leading axis is the replicate."""
    p = derived.transition_matrix(counts)
    pi = derived.stationary(p)
    moduli = derived.eigenvalue_moduli(p)
    own = np.diagonal(p, axis1=-2, axis2=-1)
    unit, positive = (0.0, 1.0), (0.0, _INF)
    out: dict[str, tuple[Array, tuple[float, float]]] = {
        "transition": (p, unit),
        "self_transition": (own, unit),
        "lift": (derived.lift(counts), unit),
        "exit": (1 - own, unit),
        "dwell": (derived.dwell(p), (1.0, _INF)),
        "occupancy": (derived.occupancy(counts), unit),
        "stationary": (pi, unit),
        "recurrence": (derived.recurrence_time(p, pi=pi), (1.0, _INF)),
        "first_passage": (derived.mean_first_passage(p, pi=pi), positive),
        "timescale": (derived.implied_timescales(p, c.lag, moduli=moduli), positive),
        "spectral_gap": (derived.spectral_gap(p, moduli=moduli), unit),
        "entropy_rate": (derived.entropy_rate(p, pi=pi), (0.0, float(np.log(len(c.states))))),
    }
    for name in ("dwell", "recurrence", "first_passage"):
        values, bounds = out[name]
        out[name] = (c.lag * values, (c.lag * bounds[0], _INF))
    if c.absorbing:
        probability, steps = derived.absorption(p, c.absorbing)
        out["absorption"] = (probability, unit)
        out["absorption_steps"] = (c.lag * steps, positive)
    if c.groups is not None:
        codes = np.unique(np.array(c.groups), return_inverse=True)[1]
        out["lumpability"] = (derived.lumpability(counts, codes.tolist()), unit)
    if not batch:
        return out
    return {k: (np.asarray(v), b) for k, (v, b) in out.items()}


def _names(c: MarkovChain) -> dict[str, list[tuple[str, ...] | None]]:
    """Return the states (or the number) that every entry of every quantity is named by, None for no entry."""
    states = c.states
    pairs: list[tuple[str, ...] | None] = [(a, b) for a in states for b in states]
    out: dict[str, list[tuple[str, ...] | None]] = {"transition": pairs}
    for family in ("self_transition", "lift", "exit", "dwell", "occupancy", "stationary", "recurrence"):
        out[family] = [(a,) for a in states]
    out["first_passage"] = [None if a == b else (a, b) for a in states for b in states]
    out["timescale"] = [(str(i),) for i in range(2, len(states) + 1)]
    out["spectral_gap"] = out["entropy_rate"] = [()]
    if c.absorbing:
        ends = [states[i] for i in c.absorbing]
        out["absorption"] = [None if a in ends else (a, b) for a in states for b in ends]
        out["absorption_steps"] = [None if a in ends else (a,) for a in states]
    if c.groups is not None:
        out["lumpability"] = [()]
    return out


def _leave_one_out(
    value: float, left: Array, bounds: tuple[float, float]
) -> tuple[TPivot | AdjustedDrawsPivot, str]:
    """Return a t pivot on the scale of the bounds from estimates without one unit each."""
    low, high = bounds
    m = left.size
    se = float(np.sqrt((m - 1) / m * np.sum((left - left.mean()) ** 2)))
    words = f"sandwich (CR3, leave one unit out), t({m - 1})"
    if np.isfinite(low) and not low < value < high:
        return TPivot(value, se, m - 1, bounds=bounds), words
    if np.isfinite(low) and np.isfinite(high):
        centre = float(np.log((value - low) / (high - value)))
        slope = (high - low) / ((value - low) * (high - value))
        return TPivot(centre, se * slope, m - 1, "logit", bounds, bounds), words + ", logit scale"
    if np.isfinite(low):
        return (
            TPivot(float(np.log(value - low)), se / (value - low), m - 1, "log", bounds, (low, _INF)),
            words + ", log scale",
        )
    return TPivot(value, se, m - 1), words
