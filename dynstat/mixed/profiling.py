"""Profile likelihood of a mixed model: fixed effects, standard deviations and correlations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, optimize, special

from ..errors import DynstatError
from .constrained import Component, components, minimise_with, parameter_names
from .crossproducts import CrossProducts
from .fit import optimise
from .pls import PenalisedLeastSquares

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
_ITERATIONS = 60


class Curve(NamedTuple):
    """The deviance as a function of one parameter, minimised over all others.

    Attributes
    ----------
    name, group, term : str
        R's name, and broom.mixed's group and term.
    effect : str
        ``fixed`` or ``ran_pars``.
    estimate : float
        At maximum likelihood.
    low, high : float
        The parameter's range.
    step : float
        A first distance to look at.
    deviance : callable
    """

    name: str
    group: str | None
    term: str
    effect: str
    estimate: float
    low: float
    high: float
    step: float
    deviance: Callable[[float], float]


@dataclass(frozen=True)
class Profile:
    """Profile of a fit's parameters.

    Attributes
    ----------
    curves : tuple of Curve
    base : float
        The deviance at maximum likelihood.
    formula : str
    """

    curves: tuple[Curve, ...]
    base: float
    formula: str

    def zeta(self, name: str, value: float) -> float:
        """Return the signed root of the rise in deviance where one parameter is held at `value`."""
        return _zeta(self._curve(name), self.base, value)

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Return the values at which the deviance has risen by the χ²(1) quantile.

        A limit is the end of the parameter's range (0 for a standard deviation, ±1 for a correlation) where
        the deviance never rises that far.

        Returns
        -------
        DataFrame
            Index: R's parameter names. Columns effect, group, term, estimate (ML), conf.low, conf.high.
        """
        if not 0 < level < 1:
            raise DynstatError("S404", "level must lie between 0 and 1", found=level)
        cut = float(special.ndtri((1 + level) / 2))
        rows = [
            {
                "effect": c.effect,
                "group": c.group,
                "term": c.term,
                "estimate": c.estimate,
                "conf.low": _limit(c, self.base, -cut),
                "conf.high": _limit(c, self.base, cut),
            }
            for c in self.curves
        ]
        return pd.DataFrame(rows, index=[c.name for c in self.curves])

    def tidy(self, points: int = 5, cut: float = 2.6) -> pd.DataFrame:
        """Return points of every curve, for drawing it.

        Parameters
        ----------
        points : int
            On each side of the estimate, at equal steps of ζ up to `cut`.

        Returns
        -------
        DataFrame
            parameter, value, zeta; increasing in value.
        """
        targets = np.linspace(-cut, cut, 2 * points + 1)
        rows = []
        for c in self.curves:
            values = sorted({c.estimate if z == 0 else _limit(c, self.base, float(z)) for z in targets})
            rows += [
                {"parameter": c.name, "value": v, "zeta": 0.0 if v == c.estimate else _zeta(c, self.base, v)}
                for v in values
            ]
        return pd.DataFrame(rows)

    def _curve(self, name: str) -> Curve:
        for c in self.curves:
            if c.name == name:
                return c
        raise DynstatError(
            "S404",
            "no such parameter in the profile",
            found=name,
            expected=", ".join(c.name for c in self.curves),
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"

    def __str__(self) -> str:
        return f"Profile of {self.formula}: {', '.join(c.name for c in self.curves)}"

    __repr__ = __str__


def profile(m: LmerResult, parameters: Sequence[str] | str | None = None) -> Profile:
    """Profile the deviance of a fit.

    A REML fit is profiled by maximum likelihood, as R does: REML criteria of different fixed parts cannot be
    compared. Points are computed when asked for; each is one minimisation over the other parameters.

    Parameters
    ----------
    parameters : str or sequence of str, optional
        R's names, for example ``sd_(Intercept)|model``, ``cor_x.(Intercept)|model``, ``sigma``, ``x``;
        ``theta_`` all standard deviations and correlations, ``beta_`` all fixed effects. All by default.

    Returns
    -------
    Profile

    Source: Bates, Mächler, Bolker, Walker 2015, J. Stat. Softw. 67(1), section 5.1.
    """
    pls = PenalisedLeastSquares(m.pls.cross, m.design.terms, reml=False)
    theta = optimise(pls, np.maximum(m.theta.to_numpy(), pls.diagonal * 0.05))[0]
    solution = pls.solve(theta)
    random = [named.name for named in parameter_names(m.design.terms)]
    wanted = chosen([*random, *(str(n) for n in m.fixef.index)], parameters, len(random))
    curves = []
    for part in components(m.design, pls, theta, solution.sigma2, wanted):
        named = part.named
        step = 0.2 if part.kind == "cor" else max(0.3 * part.estimate, 0.1 * np.sqrt(solution.sigma2))
        curves.append(
            Curve(
                named.name,
                named.group,
                named.label,
                "ran_pars",
                part.estimate,
                part.low,
                part.high,
                step,
                _component_deviance(part),
            )
        )
    errors = np.sqrt(np.diag(solution.vcov))
    for k, term in enumerate(str(n) for n in m.fixef.index):
        if term in wanted:
            curves.append(
                Curve(
                    term,
                    None,
                    term,
                    "fixed",
                    float(solution.beta[k]),
                    -np.inf,
                    np.inf,
                    2 * float(errors[k]),
                    _fixed_deviance(pls, theta, k),
                )
            )
    return Profile(tuple(curves), solution.criterion, m.formula)


def chosen(names: list[str], parameters: Sequence[str] | str | None, n_random: int) -> set[str]:
    """Return which of a model's parameters are asked for; the first `n_random` are of its random part."""
    if parameters is None:
        return set(names)
    asked = [parameters] if isinstance(parameters, str) else list(parameters)
    out: set[str] = set()
    for name in asked:
        if name == "theta_":
            out |= set(names[:n_random])
        elif name == "beta_":
            out |= set(names[n_random:])
        elif name in names:
            out.add(name)
        else:
            raise DynstatError(
                "S404", "no such parameter", found=name, expected=", ".join(["theta_", "beta_", *names])
            )
    return out


def _component_deviance(part: Component) -> Callable[[float], float]:
    state: dict[str, Array | None] = {"start": None}

    def deviance(value: float) -> float:
        out, state["start"] = minimise_with(part, value, state["start"])
        return out

    return deviance


def _fixed_deviance(pls: PenalisedLeastSquares, theta: Array, k: int) -> Callable[[float], float]:
    turn, root, old = _without(pls.cross, k)
    state = {"start": theta}

    def deviance(value: float) -> float:
        cross = _offset(pls.cross, turn, root, old - value)
        reduced = PenalisedLeastSquares(cross, pls.terms, reml=False)
        start = np.where(pls.diagonal, np.maximum(state["start"], 0.05), state["start"])
        state["start"], _ = optimise(reduced, start)
        return reduced.criterion(state["start"])

    return deviance


def _without(cross: CrossProducts, k: int) -> tuple[Array, Array, float]:
    """Return what leaves column k of X out: a basis of the others, their root, and the OLS estimate of k.

    The first p − 1 columns of the basis span the other columns, the last is what column k adds to them,
    scaled so that one unit of it is one unit of the coefficient.
    """
    others = np.delete(cross.x_root, k, axis=1)
    basis, root = np.linalg.qr(others, mode="complete")
    p = cross.p
    unique = basis[:, -1]
    turn = np.column_stack([basis[:, : p - 1], unique * (unique @ cross.x_root[:, k])])
    return turn, root[: p - 1], float(cross.beta_ols[k])


def _offset(cross: CrossProducts, turn: Array, root: Array, distance: float) -> CrossProducts:
    """Return the cross-products of y less a multiple of column k, on the other fixed columns."""
    p, m = cross.p, cross.rest.shape[0]
    zs = m - p - 1
    change = np.zeros((m, m - 1))
    change[:zs, :zs] = np.eye(zs)
    change[zs:-1, zs:-1] = turn[:, :-1]
    change[zs:-1, -1] = distance * turn[:, -1]
    change[-1, -1] = 1.0
    return replace(
        cross,
        side=cross.side @ change,
        rest=change.T @ cross.rest @ change,
        p=p - 1,
        x_root=root,
        beta_ols=linalg.solve_triangular(root, np.zeros(p - 1)) if p > 1 else np.zeros(0),
        pairs=None,
    )


def _zeta(curve: Curve, base: float, value: float) -> float:
    rise = max(curve.deviance(value) - base, 0.0)
    return float(np.sign(value - curve.estimate) * np.sqrt(rise))


def _limit(curve: Curve, base: float, target: float) -> float:
    """Return where ζ equals `target`: bracketed secant steps, ζ being nearly straight."""
    side = np.sign(target)
    end = curve.high if side > 0 else curve.low
    known, z_known = curve.estimate, 0.0
    if known == end:
        return float(end)
    step = curve.step * abs(target) / 2
    trial = known
    for _ in range(_ITERATIONS):
        trial = known + side * step
        trial = min(trial, end) if side > 0 else max(trial, end)
        z = _zeta(curve, base, trial)
        if side * (z - target) >= 0:
            break
        if trial == end:
            return float(end)
        # Aim a little beyond, by the slope of the last stretch.
        slope = (z - z_known) / (trial - known)
        known, z_known = trial, z
        step = min(1.2 * abs((target - z) / slope) if slope > 0 else 2 * step, 4 * step)
    else:
        return float(side * np.inf)
    at_ends = {known: z_known - target, trial: z - target}

    def distance(value: float) -> float:
        return at_ends[value] if value in at_ends else _zeta(curve, base, value) - target

    size = abs(trial - known)
    return float(optimize.brentq(distance, known, trial, xtol=1e-9 * size, rtol=1e-12, maxiter=_ITERATIONS))
