"""D-study: what standard error planned numbers of prompts, samples and models would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.estimate import DrawsPivot, Estimate, TPivot
from .basis import Basis
from .decomposition import Decomposition
from .jackknife import jackknife_plain
from .population import bias_corrected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Target = Literal["panel", "population"]
Of = Literal["model", "difference", "mean"]
#: The column of the residual: runs of one cell.
SAMPLE = "sample"
QUANTITIES = ("se.model", "se.difference", "se.mean", "g", "phi")


@dataclass(frozen=True)
class DStudy:
    """Precision of planned designs. Made by :func:`dynstat.dstudy`; frozen.

    Attributes
    ----------
    target : {"panel", "population"}
    measured : str
        The object of measurement.
    plans : DataFrame
        The planned numbers, a row a design.
    values : DataFrame
        The same rows: se.model, se.difference, se.mean, g, phi.
    """

    target: str
    measured: str
    plans: pd.DataFrame
    values: pd.DataFrame
    _estimates: tuple[Mapping[str, Estimate], ...]

    def estimates(self, plan: int = 0) -> dict[str, Estimate]:
        """Return the estimates of one planned design by key: ``dstudy.se.model``, ..., ``dstudy.phi``."""
        return dict(self._estimates[plan])

    def tidy(self) -> pd.DataFrame:
        """Return a row a design and quantity: the numbers, quantity, estimate, conf.low, conf.high."""
        rows = []
        for plan, made in zip(self.plans.to_dict("records"), self._estimates, strict=True):
            for key, e in made.items():
                rows.append(
                    plan
                    | {
                        "quantity": key.removeprefix("dstudy."),
                        "estimate": e.value,
                        "conf.low": e.low,
                        "conf.high": e.high,
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, quantity: str = "se.difference", along: str = "prompt") -> Figure:
        """Draw a quantity along one planned number, a line a combination of the others.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.precision import planned_precision

        return planned_precision(self.tidy(), along=along, quantity=quantity)

    def __str__(self) -> str:
        held = "categories held" if self.target == "panel" else "all factors drawn"
        table = self.plans.join(self.values).to_string(index=False, float_format=lambda v: f"{v:.4g}")
        return f"D-study of {self.measured} ({self.target}: {held})\n\n{table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def dstudy(
    decomposition: Decomposition,
    numbers: Mapping[str, Sequence[int]] | None = None,
    *,
    measured: str = "model",
    target: Target = "panel",
    level: float = 0.95,
) -> DStudy:
    """Project a variance decomposition on designs with other numbers of prompts, samples, models.

    A design has, for every column of the formula, a number of levels, and `sample` runs a cell; all factors
    are crossed except where one lies within another in the data (prompts in categories). A component enters
    the error of a mean divided by the number of its levels that are averaged.

    - ``se.model``: standard error of the mean of one model; ``se.difference``: of two models' difference;
      ``se.mean``: of the mean over all models.
    - ``g`` = τ/(τ + δ), the generalizability coefficient: τ the variance between models of what is measured,
      δ the error of a difference over two; ``phi`` = τ/(τ + Δ), the index of dependability: Δ the squared
      ``se.model``.

    Parameters
    ----------
    decomposition : Decomposition
    numbers : mapping of str to sequence of int
        For example ``{"prompt": [24, 72, 144], "sample": [1, 4], "model": [6]}``: every combination is a
        design. Prompts are counted over all categories. Columns left out keep their number in the data.
    measured : str
        The object of measurement.
    target : {"panel", "population"}
        Panel: strata (categories) and models are those at hand, so that the interaction of model and category
        is part of what is measured. Population: all factors are drawn anew.
    level : float
        Of the intervals: for the panel by delete-group jackknife on the log scale (logit for g and phi), for
        a population by the decomposition's draws.

    Raises
    ------
    DynstatError
        S404 for a column that the formula lacks, numbers below one, a term with the measured factor that is
        missing.

    References
    ----------
    Brennan 2001, Generalizability Theory, ch. 4 and 5; Shavelson and Webb 1991, Generalizability Theory.
    """
    basis = decomposition.basis
    grid = _grid(basis, numbers or {}, measured)
    held = _held(decomposition, measured, target)
    made, values = [], []
    for plan in grid:
        weights = _weights(basis, plan, measured, held)
        values.append(dict(zip(QUANTITIES, _project(weights, basis.components[None])[0], strict=True)))
        made.append(_with_intervals(basis, weights, decomposition, plan, target, level))
    plans = pd.DataFrame([{k: plan[k] for k in plan} for plan in grid])
    return DStudy(target, measured, plans, pd.DataFrame(values), tuple(made))


def plan_for(
    decomposition: Decomposition,
    *,
    se: float,
    of: Of = "difference",
    vary: str = "prompt",
    numbers: Mapping[str, Sequence[int]] | None = None,
    measured: str = "model",
    target: Target = "panel",
) -> pd.DataFrame:
    """Return how many levels of `vary` a wanted standard error needs.

    The squared error is a + b/n in the number n of `vary`, so n = ⌈b/(se² − a)⌉; where se² <= a no number is
    enough.

    Parameters
    ----------
    se : float
        The wanted standard error, in the unit of the outcome.
    of : {"model", "difference", "mean"}
        Of one model's mean, of the difference of two, of the mean over models.
    vary : str
        The column to choose, ``sample`` for runs a cell.
    numbers : mapping of str to sequence of int
        Of the other columns; every combination is a row.

    Returns
    -------
    DataFrame
        The other numbers; `vary` (NA where no number is enough); ``se``, what that number gives; ``floor``,
        the standard error that no number of `vary` falls below.
    """
    if not se > 0:
        raise DynstatError("S404", "a standard error lies above zero", where="se", found=se)
    if of not in ("model", "difference", "mean"):
        raise DynstatError(
            "S404", "unknown error", where="of", found=of, expected="model | difference | mean"
        )
    basis = decomposition.basis
    if vary in (numbers or {}):
        raise DynstatError(
            "S404", f"{vary} is what is asked for", where="numbers", mend=f"leave {vary} out of numbers"
        )
    held = _held(decomposition, measured, target)
    at = QUANTITIES.index(f"se.{of}")

    def squared(plan: Mapping[str, float], n: float) -> float:
        weights = _weights(basis, {**plan, vary: n}, measured, held)
        return float(_project(weights, basis.components[None])[0, at] ** 2)

    rows = []
    for plan in _grid(basis, {**(numbers or {}), vary: [1]}, measured):
        floor = squared(plan, np.inf)
        slope = squared(plan, 1) - floor
        other = {k: v for k, v in plan.items() if k != vary}
        if se**2 <= floor * (1 + 1e-12):
            rows.append({**other, vary: pd.NA, "se": np.nan, "floor": np.sqrt(floor)})
            continue
        n = max(1, int(np.ceil(slope / (se**2 - floor) - 1e-9)))
        rows.append({**other, vary: n, "se": np.sqrt(squared(plan, n)), "floor": np.sqrt(floor)})
    return pd.DataFrame(rows).astype({vary: "Int64"})


def _grid(basis: Basis, numbers: Mapping[str, Sequence[int]], measured: str) -> list[dict[str, float]]:
    known = {**basis.numbers, SAMPLE: basis.samples}
    if measured not in basis.numbers or (measured,) not in basis.variables:
        raise DynstatError(
            "S404",
            f"the formula has no term of {measured} alone",
            where="measured",
            found=measured,
            expected=", ".join(v[0] for v in basis.variables if len(v) == 1),
            mend="name the factor that is measured, and give it a term",
        )
    for name, wanted in numbers.items():
        if name not in known:
            raise DynstatError(
                "S404",
                f"the formula has no column {name!r}",
                where="numbers",
                found=name,
                expected=", ".join(known),
                mend=f"{SAMPLE} stands for the runs of one cell",
            )
        if not len(wanted) or not all(n >= 1 for n in wanted):
            raise DynstatError(
                "S404", "planned numbers are at least 1", where=name, found=list(wanted), expected="1, 2, ..."
            )
    values: list[list[float]] = [
        [_tidy_number(n) for n in numbers.get(name, [known[name]])] for name in known
    ]
    return [dict(zip(known, combination, strict=True)) for combination in product(*values)]


def _tidy_number(n: float) -> float:
    return int(n) if float(n).is_integer() else float(n)


def _held(decomposition: Decomposition, measured: str, target: Target) -> frozenset[str]:
    if target not in ("panel", "population"):
        raise DynstatError("S404", "unknown target", found=target, expected="panel | population")
    if target == "population":
        return frozenset()
    strata = {decomposition.strata} & set(decomposition.basis.numbers) if decomposition.strata else set()
    return frozenset({measured, *strata, *decomposition.basis.inside[measured]})


@dataclass(frozen=True)
class _Weights:
    """What every component is multiplied by: in τ, δ, Δ, and the squared error of the mean over all."""

    tau: Array
    relative: Array
    absolute: Array
    mean: Array


def _weights(basis: Basis, plan: Mapping[str, float], measured: str, held: frozenset[str]) -> _Weights:
    k = len(basis.variables)
    out = _Weights(*(np.zeros(k + 1) for _ in range(4)))
    own = {measured, *basis.inside[measured]}
    every = tuple(basis.numbers)
    for j, columns in enumerate((*basis.variables, every)):
        residual = j == k
        runs = plan[SAMPLE] if residual else 1.0
        facets = [c for c in columns if c not in own]
        share = 1.0 / (basis.levels(facets, plan) * runs)
        drawn = residual or any(c not in held for c in facets)
        touches = measured in columns or residual
        if touches and not drawn and facets:
            out.tau[j] = share  # an interaction with what is held belongs to what is measured
        elif set(columns) <= own and not residual:
            out.tau[j] = 1.0
        elif drawn:
            out.absolute[j] = share
            out.relative[j] = share if touches or set(columns) & own else 0.0
        if residual or any(c not in held for c in columns):
            out.mean[j] = 1.0 / (basis.levels(columns, plan) * runs)
    return out


def _project(weights: _Weights, components: Array) -> Array:
    """Return the QUANTITIES of every row of `components`, shape (B, 5)."""
    tau, delta = components @ weights.tau, components @ weights.relative
    absolute, mean = components @ weights.absolute, components @ weights.mean
    with np.errstate(invalid="ignore", divide="ignore"):
        g = np.where(tau > 0, tau / (tau + delta), 0.0)
        phi = np.where(tau > 0, tau / (tau + absolute), 0.0)
    return np.column_stack([np.sqrt(absolute), np.sqrt(2 * delta), np.sqrt(mean), g, phi])


def _with_intervals(
    basis: Basis,
    weights: _Weights,
    decomposition: Decomposition,
    plan: Mapping[str, float],
    target: Target,
    level: float,
) -> dict[str, Estimate]:
    value = _project(weights, basis.components[None])[0]
    any_share = next(iter(decomposition.estimates().values()))
    common: dict[str, Any] = {
        "level": level,
        "method": "variance.dstudy@1",
        "n": dict(any_share.n),
        "target": target,
        "seed": any_share.seed,
        "diagnostics": {f"planned_{k}": v for k, v in plan.items()},
    }
    out: dict[str, Estimate] = {}
    for j, name in enumerate(QUANTITIES):
        key = f"dstudy.{name}"
        if target == "panel":
            among = _project(weights, basis.left)[:, j]
            out[key] = _jackknifed(key, float(value[j]), among, name, decomposition.unit, common)
        elif basis.drawn is None:
            out[key] = Estimate(key, float(value[j]), np.nan, np.nan, interval="none", unit="", **common)
        else:
            draws = _project(weights, basis.drawn)[:, j]
            if basis.corrected:
                draws = bias_corrected(draws[:, None], value[[j]])[:, 0]
            words = "draws of the decomposition's population interval"
            out[key] = Estimate.from_pivot(
                key, value[j], DrawsPivot(tuple(draws.tolist())), interval=words, unit="all factors", **common
            )
    return out


def _jackknifed(
    key: str, value: float, among: Array, name: str, unit: str, common: Mapping[str, Any]
) -> Estimate:
    g = among.size
    rest = {**common, "unit": unit}
    error = name.startswith("se.")
    inside = np.all(among > 0) and value > 0 and (error or (np.all(among < 1) and value < 1))
    if not inside:
        pivot = jackknife_plain(value, among)
        bounds = (0.0, np.inf if error else 1.0)
        pivot = TPivot(pivot.center, pivot.se, pivot.df, "identity", bounds)
        how = "raw scale"
    else:
        change = np.log if error else _logit
        plain = jackknife_plain(float(change(np.array(value))), change(among))
        pivot = TPivot(plain.center, plain.se, plain.df, "log" if error else "logit")
        how = f"{pivot.scale} scale"
    return Estimate.from_pivot(
        key, value, pivot, interval=f"delete-group jackknife, t({g - 1}), {how}", **rest
    )


def _logit(x: Array) -> Array:
    return np.asarray(np.log(x) - np.log1p(-x))
