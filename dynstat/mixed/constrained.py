"""The deviance with one standard deviation or correlation held, minimised over everything else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ..errors import DynstatError
from .crossproducts import cross_products
from .design import Design, Term
from .fit import _one_thread
from .pls import PenalisedLeastSquares

Array = NDArray[np.float64]
_FLOOR = 0.05


class ParameterName(NamedTuple):
    """A standard deviation or correlation: R's name, broom.mixed's group and term, and where it stands."""

    name: str
    group: str
    label: str
    kind: str
    term: int
    first: int
    second: int


def parameter_names(terms: Sequence[Term]) -> list[ParameterName]:
    """Name all standard deviations and correlations in lme4's order, the residual's last."""
    out = []
    seen: dict[str, int] = {}
    for t, term in enumerate(terms):
        # VarCorr numbers a second term on one factor, confint does not.
        count = seen.get(term.name, 0)
        seen[term.name] = count + 1
        group = f"{term.name}.{count}" if count else term.name
        for a, one in enumerate(term.columns):
            out.append(ParameterName(f"sd_{one}|{term.name}", group, f"sd__{one}", "sd", t, a, a))
            for b in range(a + 1, term.width):
                other = term.columns[b]
                out.append(
                    ParameterName(
                        f"cor_{other}.{one}|{term.name}", group, f"cor__{one}.{other}", "cor", t, a, b
                    )
                )
    out.append(ParameterName("sigma", "Residual", "sd__Observation", "sigma", -1, 0, 0))
    return out


@dataclass(frozen=True)
class Component:
    """One standard deviation or correlation of a model.

    Attributes
    ----------
    named : ParameterName
    estimate, low, high : float
        At maximum likelihood, and the parameter's range.
    pls : PenalisedLeastSquares
        The deviance with the term's columns so ordered that the parameter is the first element of its factor
        (a standard deviation) or fixes its second row (a correlation).
    theta : ndarray
        The optimum in that order.
    slot : int
        Place of the term's first element in theta.
    width : int
        Its random columns.
    sigma2 : float
        Residual variance at the optimum.
    """

    named: ParameterName
    estimate: float
    low: float
    high: float
    pls: PenalisedLeastSquares
    theta: Array
    slot: int
    width: int
    sigma2: float

    @property
    def kind(self) -> str:
        """sd, cor or sigma."""
        return self.named.kind


def components(
    design: Design, pls: PenalisedLeastSquares, theta: Array, sigma2: float, wanted: Collection[str]
) -> list[Component]:
    """List the wanted standard deviations and correlations in lme4's order, the residual last."""
    out = []
    for named in parameter_names(design.terms):
        if named.name not in wanted:
            continue
        if named.kind == "sigma":
            out.append(Component(named, float(np.sqrt(sigma2)), 0.0, np.inf, pls, theta, 0, 0, sigma2))
            continue
        t, a, b = named.term, named.first, named.second
        width = design.terms[t].width
        lam = pls.template(theta, t)
        cov = sigma2 * lam @ lam.T
        order = [a, *([b] if b > a else []), *(i for i in range(width) if i not in (a, b))]
        turned, at = _reordered(design, pls, theta, t, order)
        if named.kind == "sd":
            estimate, low, high = np.sqrt(cov[a, a]), 0.0, np.inf
        else:
            both = np.sqrt(cov[a, a] * cov[b, b])
            estimate, low, high = (np.clip(cov[a, b] / both, -1, 1) if both > 0 else np.nan), -1.0, 1.0
        out.append(
            Component(named, float(estimate), low, high, turned, at, pls.slots[t].start, width, sigma2)
        )
    return out


def minimise_with(part: Component, value: float, start: Array | None) -> tuple[float, Array]:
    """Return the least deviance with the parameter at `value`, and where it lies, as the next start.

    Free variables are the other elements of theta; with a standard deviation s = σΛ₁₁ held also log σ; with a
    correlation ρ held (Λ₂₁, Λ₂₂) = t(ρ, √(1 − ρ²)), t >= 0, σ profiled out.
    """
    pls, slot = part.pls, part.slot
    if part.kind == "sigma" and value <= 0:
        return np.inf, part.theta
    held = {"sd": [slot], "cor": [slot + 1, slot + part.width], "sigma": []}[part.kind]
    free = np.array([i for i in range(pls.n_theta) if i not in held], dtype=np.intp)
    first = np.where(pls.diagonal, np.maximum(part.theta, _FLOOR), part.theta)[free]
    if part.kind == "sd":
        first = np.append(first, 0.5 * np.log(part.sigma2))
    elif part.kind == "cor":
        first = np.append(first, np.hypot(*part.theta[held]))
    if start is not None:
        first = start
    bounds: list[tuple[float | None, float | None]] = [
        (0.0, None) if pls.diagonal[i] else (None, None) for i in free
    ]
    if part.kind == "sd":
        bounds.append((None, None))
    elif part.kind == "cor":
        bounds.append((0.0, None))
    # A parameter at zero has no slope: every search starts a little above.
    lifted = np.array(
        [max(x, _FLOOR) if low == 0.0 else x for x, (low, _) in zip(first, bounds, strict=True)]
    )

    def objective(z: Array) -> tuple[float, Array]:
        theta = np.zeros(pls.n_theta)
        theta[free] = z[: free.size]
        if part.kind == "cor":
            span = np.array([value, np.sqrt(max(1 - value**2, 0.0))])
            theta[held] = z[-1] * span
            out, slope = pls.criterion_and_gradient(theta)
            return (out if np.isfinite(out) else 1e300), np.append(slope[free], slope[held] @ span)
        sigma = value if part.kind == "sigma" else float(np.exp(np.clip(z[-1], -300, 300)))
        if part.kind == "sd":
            theta[slot] = value / sigma
        out, slope, by_log = _at_sigma(pls, theta, sigma)
        if not np.isfinite(out):
            return 1e300, np.zeros_like(z)
        if part.kind == "sigma":
            return out, slope[free]
        return out, np.append(slope[free], by_log - slope[slot] * theta[slot])

    if not lifted.size:
        return objective(lifted)[0], lifted
    with _one_thread(pls):
        best = optimize.minimize(
            objective,
            lifted,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 20},
        )
    return float(best.fun), np.asarray(best.x, dtype=np.float64)


def _at_sigma(pls: PenalisedLeastSquares, theta: Array, sigma: float) -> tuple[float, Array, float]:
    """Return the criterion with the residual standard deviation given, its gradient in theta and in log σ.

    It is log-determinants + d log(2πσ²) + r²/σ²: the profiled one with d/r² in place of 1/σ², so that its
    gradient is the profiled gradient of a fit whose r² is dσ².
    """
    factor = pls._factor(theta)
    if factor is None:
        return np.inf, np.zeros(pls.n_theta), 0.0
    d, r2 = pls.df, factor.r2
    profiled = pls._criterion(factor)
    value = profiled - d * (1 + np.log(r2 / d)) + d * np.log(sigma**2) + r2 / sigma**2
    slope = pls._gradient(replace(factor, r2=d * sigma**2))
    return float(value), slope, float(2 * d - 2 * r2 / sigma**2)


def _reordered(
    design: Design, pls: PenalisedLeastSquares, theta: Array, t: int, order: list[int]
) -> tuple[PenalisedLeastSquares, Array]:
    """Return the criterion and theta with the random columns of term t in another order."""
    if order == sorted(order):
        return pls, theta
    term = design.terms[t]
    if term.values is None or design.cross is not None:
        raise DynstatError(
            "S404",
            "correlated random columns cannot be profiled without the rows",
            where=f"({' + '.join(term.columns)} | {term.label})",
            mend="profile a fit to a frame, or ask for other parameters",
        )
    new = replace(
        term,
        columns=tuple(term.columns[i] for i in order),
        values=np.ascontiguousarray(term.values[:, order]),
    )
    terms = (*design.terms[:t], new, *design.terms[t + 1 :])
    turned = PenalisedLeastSquares(cross_products(replace(design, terms=terms)), terms, pls.reml)
    # Λ of the reordered columns by a QR factorisation, which a singular covariance does not upset.
    root = np.asarray(np.linalg.qr(pls.template(theta, t)[order].T, mode="r")).T
    root = root * np.where(np.diag(root) < 0, -1.0, 1.0)
    out, slot = theta.copy(), pls.slots[t]
    rows = [(i, j) for j in range(term.width) for i in range(j, term.width)]
    out[slot.start : slot.stop] = [root[i, j] for i, j in rows]
    return turned, out
