"""Estimate: a number with its interval and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError

Side = Literal["lower", "upper"]


@dataclass(frozen=True)
class TPivot:
    """A t (or normal) pivot on a transformed scale.

    The limit at one-sided level a is ``g⁻¹(center ∓ t(1−a, df)·se)``, cut to `bounds`.

    Attributes
    ----------
    center, se : float
        On the scale g.
    df : float
        Degrees of freedom; infinity for a normal pivot.
    scale : {"identity", "logit", "log"}
        g.
    bounds : tuple of float
        Limits are cut to these (p-values are not).
    span : tuple of float
        The logit scale's own range (a, b): g(x) = logit((x − a)/(b − a)); for "log", g(x) = ln(x − a).
    """

    center: float
    se: float
    df: float
    scale: Literal["identity", "logit", "log"] = "identity"
    bounds: tuple[float, float] = (-np.inf, np.inf)
    span: tuple[float, float] = (0.0, 1.0)

    def limit(self, alpha: float, side: Side) -> float:
        """Return the one-sided limit at level 1 − alpha."""
        # Infinite degrees of freedom are normal; NaN stays NaN, so that it decides nothing.
        q = float(special.ndtri(1 - alpha) if np.isposinf(self.df) else special.stdtrit(self.df, 1 - alpha))
        x = self.center + (q if side == "upper" else -q) * self.se
        return float(np.clip(self._back(x), *self.bounds))

    def p_above(self, value: float) -> float:
        """Return the one-sided p of H0: parameter <= value (small: the parameter lies above)."""
        return self._tail(self.center - self._onto(value))

    def p_below(self, value: float) -> float:
        """Return the one-sided p of H0: parameter >= value (small: the parameter lies below)."""
        return self._tail(self._onto(value) - self.center)

    def _onto(self, value: float) -> float:
        low, high = self.span
        if self.scale == "identity":
            return float(value)
        return _forward((value - low) / (high - low) if self.scale == "logit" else value - low, self.scale)

    def _back(self, x: float) -> float:
        low, high = self.span
        if self.scale == "identity":
            return float(x)
        y = _inverse(x, self.scale)
        return low + (high - low) * y if self.scale == "logit" else low + y

    def _tail(self, distance: float) -> float:
        # The lower tail of the negative keeps its digits where 1 - cdf would round to 0.
        if self.se == 0:
            return 0.0 if distance > 0 else 1.0
        t = -distance / self.se
        return float(special.ndtr(t) if np.isposinf(self.df) else special.stdtr(self.df, t))


@dataclass(frozen=True)
class DrawsPivot:
    """Resampling draws; limits are their quantiles, p-values their tail shares (with the +1 rule)."""

    draws: tuple[float, ...]

    def _array(self) -> NDArray[np.float64]:
        return np.asarray(self.draws, dtype=np.float64)

    def limit(self, alpha: float, side: Side) -> float:
        """Return the one-sided limit at level 1 − alpha."""
        return float(np.quantile(self._array(), 1 - alpha if side == "upper" else alpha))

    def p_above(self, value: float) -> float:
        """Return the share of draws at or below `value`; a draw without a value counts as one of them."""
        d = self._array()
        return float((np.sum(~(d > value)) + 1) / (d.size + 1))

    def p_below(self, value: float) -> float:
        """Return the share of draws at or above `value`; a draw without a value counts as one of them."""
        d = self._array()
        return float((np.sum(~(d < value)) + 1) / (d.size + 1))


@dataclass(frozen=True)
class AdjustedDrawsPivot:
    """Resampling draws of few units, whose quantiles are taken at adjusted levels.

    With n units a bootstrap distribution is too narrow by √((n − 1)/n) and has no t tails. The limit at
    one-sided level a is the quantile at Φ(z₀ + (z₀ + z)/(1 − a₀(z₀ + z))), z = ∓√(n/(n − 1))·t(1−a, n − 1):
    the expanded percentile (z₀ = a₀ = 0), with the bias and acceleration of BCa on top. A monotone change
    of scale changes nothing.

    Attributes
    ----------
    draws : tuple of float
    units : int
        n, at least 2; infinitely many give the plain percentile (or BCa).
    bias, acceleration : float
        z₀ and a₀.

    Source: Efron 1987, JASA 82: 171-185; Hesterberg 2015, The American Statistician 69: 371-386.
    """

    draws: tuple[float, ...]
    units: float
    bias: float = 0.0
    acceleration: float = 0.0

    def limit(self, alpha: float, side: Side) -> float:
        """Return the one-sided limit at level 1 − alpha."""
        q = 1 - alpha if side == "upper" else alpha
        z = float(special.ndtri(q))
        if np.isfinite(self.units):
            z = float(np.sqrt(self.units / (self.units - 1)) * special.stdtrit(self.units - 1, q))
        z += self.bias
        # Beyond the pole of the correction the outermost draw is all there is.
        denominator = 1 - self.acceleration * z
        shifted = self.bias + z / denominator if denominator > 0 else np.copysign(np.inf, z)
        return float(np.quantile(np.asarray(self.draws), special.ndtr(shifted)))

    def p_above(self, value: float) -> float:
        """Return the one-sided p of H0: parameter <= value, from the adjusted share of draws at or below."""
        return self._tail(float(np.sum(~(np.asarray(self.draws) > value))), 1.0)

    def p_below(self, value: float) -> float:
        """Return the one-sided p of H0: parameter >= value, from the adjusted share of draws at or above."""
        return self._tail(float(np.sum(~(np.asarray(self.draws) < value))), -1.0)

    def _tail(self, count: float, sign: float) -> float:
        share = (count + 1) / (len(self.draws) + 1)
        if share >= 1:  # every draw lies there: the adjustment would be infinity over infinity
            return 1.0
        u = sign * float(special.ndtri(share)) - self.bias
        denominator = 1 + self.acceleration * u
        z = sign * (u / denominator - self.bias if denominator > 0 else np.copysign(np.inf, u))
        if np.isfinite(self.units) and np.isfinite(z):
            return float(special.stdtr(self.units - 1, z * np.sqrt((self.units - 1) / self.units)))
        return float(special.ndtr(z))


@dataclass(frozen=True)
class BetaPivot:
    """A Beta posterior of a probability: limits are its quantiles, p-values its tails.

    Attributes
    ----------
    a, b : float
        Parameters of the posterior.
    closed : {"", "lower", "upper"}
        The side on which no limit lies inside: 0 without an event, 1 with nothing else.
    """

    a: float
    b: float
    closed: Literal["", "lower", "upper"] = ""

    def limit(self, alpha: float, side: Side) -> float:
        """Return the one-sided limit at level 1 − alpha."""
        if side == self.closed:
            return 0.0 if side == "lower" else 1.0
        return float(special.betaincinv(self.a, self.b, 1 - alpha if side == "upper" else alpha))

    def p_above(self, value: float) -> float:
        """Return the posterior chance of at most `value`; 1 where no limit lies below."""
        return (
            1.0
            if self.closed == "lower"
            else float(special.betainc(self.a, self.b, np.clip(value, 0.0, 1.0)))
        )

    def p_below(self, value: float) -> float:
        """Return the posterior chance of at least `value`; 1 where no limit lies above."""
        return (
            1.0
            if self.closed == "upper"
            else float(special.betaincc(self.a, self.b, np.clip(value, 0.0, 1.0)))
        )


@dataclass(frozen=True)
class WaitPivot:
    """The pivot of a mean waiting time scale/(1 − p), from that of the probability p to wait one step more.

    Attributes
    ----------
    stay : BetaPivot
        Of p.
    scale : float
        Duration of a step.
    """

    stay: BetaPivot
    scale: float = 1.0

    def limit(self, alpha: float, side: Side) -> float:
        """Return the one-sided limit at level 1 − alpha; infinity where p has no upper limit below 1."""
        p = self.stay.limit(alpha, side)
        return self.scale / (1 - p) if p < 1 else np.inf

    def p_above(self, value: float) -> float:
        """Return the one-sided p of H0: parameter <= value."""
        return self.stay.p_above(1 - self.scale / value if value > 0 else 0.0)

    def p_below(self, value: float) -> float:
        """Return the one-sided p of H0: parameter >= value."""
        return self.stay.p_below(1 - self.scale / value if value > 0 else 0.0)


Pivot = TPivot | DrawsPivot | AdjustedDrawsPivot | BetaPivot | WaitPivot


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, level, method, unit of resampling, n at every level, seed, diagnostics.

    Every statistic of dynstat ends in one. Build it with :meth:`from_pivot`.

    Attributes
    ----------
    key : str
        Short name, e.g. ``share.model``.
    value, low, high, level : float
        The estimate and its two-sided interval at `level`.
    method : str
        Method id ``name@version``.
    interval : str
        How the interval was made, in words ("delete-group jackknife, t(11), logit scale").
    unit : str
        The unit of resampling ("prompt", "checkpoint", ...).
    n : mapping of str to int
        Counts at every level: rows, models, prompts, ...
    target : {"panel", "population", "sample"}
        What the interval speaks about.
    seed : int or None
        Of the random part, None where there is none.
    pivot : Pivot or None
        From which limits at any level are taken; None where no interval exists (then no decision either).
    diagnostics : mapping
        Convergence, boundary, replicates, Monte-Carlo error.
    null : mapping or None
        The null beside it: ``{"name", "p", "replicates", "mean", ...}`` where the claim names one.
    """

    key: str
    value: float
    low: float
    high: float
    level: float
    method: str
    interval: str
    unit: str
    n: Mapping[str, int]
    target: Literal["panel", "population", "sample"] = "sample"
    seed: int | None = None
    pivot: Pivot | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    null: Mapping[str, Any] | None = None

    @classmethod
    def from_pivot(
        cls, key: str, value: float, pivot: Pivot, *, level: float = 0.95, **rest: Any
    ) -> Estimate:
        """Build an estimate whose two-sided interval at `level` comes from `pivot`."""
        if not 0 < level < 1:
            raise DynstatError("S404", "level must lie between 0 and 1", found=level)
        a = (1 - level) / 2
        return cls(
            key=key,
            value=float(value),
            low=pivot.limit(a, "lower"),
            high=pivot.limit(a, "upper"),
            level=level,
            pivot=pivot,
            **rest,
        )

    def limit(self, alpha: float, side: Side) -> float:
        """Return the one-sided limit at level 1 − alpha; NaN without a pivot."""
        return self.pivot.limit(alpha, side) if self.pivot else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON (without the pivot's draws)."""
        out = {
            k: getattr(self, k)
            for k in ("key", "value", "low", "high", "level", "method", "interval", "unit", "target", "seed")
        }
        return out | {
            "n": dict(self.n),
            "diagnostics": dict(self.diagnostics),
            "null": dict(self.null) if self.null else None,
        }

    def __str__(self) -> str:
        n = ", ".join(f"{v} {k}" for k, v in self.n.items())
        return (
            f"{self.key} = {self.value:.4g} [{self.low:.4g}, {self.high:.4g}] "
            f"({100 * self.level:g} % {self.interval}; unit: {self.unit}; n: {n}; {self.method})"
        )

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p><code>{escape(str(self))}</code></p>"


def _forward(x: float, scale: str) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "logit":
            return float(special.logit(np.clip(x, 0.0, 1.0)))
        return float(np.log(max(x, 0.0))) if scale == "log" else float(x)


def _inverse(x: float, scale: str) -> float:
    if scale == "logit":
        return float(special.expit(x))
    with np.errstate(over="ignore"):
        return float(np.exp(x)) if scale == "log" else float(x)
