"""From tables, their null and their units to a test: statistics, p-values, effects with intervals."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.adjusted import holm
from ..inference.estimate import AdjustedDrawsPivot, Estimate
from ..inference.resample import Resampler
from .chain_test import ChainTest
from .contingency import chi_square_p, phi_square, statistics, total_variation
from .permuting import NullDraws

Array = NDArray[np.float64]
#: Tables measured at a time, in cells: what is held at once stays small.
CELLS = 4_000_000
STATISTICS = ("Pearson", "G")


@dataclass(frozen=True)
class Measured:
    """Statistics of many stacks of tables; the first axis counts draws."""

    g: Array
    pearson: Array
    phi2: Array
    tv: Array
    tv_layers: Array

    def of(self, name: str) -> Array:
        """Return "G" or "Pearson" by layer."""
        return self.g if name == "G" else self.pearson


def measure(tables: Iterable[Array]) -> Measured:
    """Measure chunks of stacks, each of shape (draws, layers, rows, K)."""
    parts = []
    for chunk in tables:
        s = statistics(chunk)
        overall, layers = total_variation(chunk)
        parts.append((s.g, s.pearson, phi_square(s.pearson, chunk), overall, layers))
    return Measured(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def chunks(number: int, cells: int) -> list[slice]:
    """Return slices that cut `number` stacks of `cells` cells into parts that fit the memory."""
    step = max(1, CELLS // max(cells, 1))
    return [slice(i, min(i + step, number)) for i in range(0, number, step)]


@dataclass(frozen=True)
class NullTables:
    """Tables under the null, in chunks, and what that null is called; `keeps`: see :func:`noise_free`."""

    tables: Iterable[Array]
    name: str
    exact: bool
    total: float
    keeps: bool = False


def check_options(
    statistic: str, null: str, nulls: tuple[str, ...], permutations: int, replicates: int
) -> None:
    """Raise S404 for options that no test of chains takes."""
    if statistic not in STATISTICS:
        raise DynstatError("S404", "unknown statistic", found=statistic, expected=" | ".join(STATISTICS))
    if null not in nulls:
        raise DynstatError("S404", "unknown null", found=null, expected=" | ".join(nulls))
    for name, value in (("permutations", permutations), ("replicates", replicates)):
        if value < 99:
            raise DynstatError("S404", f"too few {name}", found=value, expected="at least 99")


def noise_free(
    square: Array, drawn: Array, null: Array, units: int, *, keeps: bool = False
) -> tuple[Array, Array, Array]:
    """Take the noise off squared amounts, and off their bootstrap replicates.

    What drawing units adds to a square, b, is what the data's own noise has added to it; under the null it is
    never more than the null's mean N. amount = √max(0, square − min(b, N)), replicates
    √max(0, drawn − b − min(b, N)): N alone would be too much where groups differ, as the null mixes them.

    Parameters
    ----------
    square : ndarray, shape (...)
    drawn : ndarray, shape (replicates, ...)
    null : ndarray, shape (...)
        N, the mean square under the null.
    units : int
        Drawn at a time: b is enlarged by units/(units − 1).
    keeps : bool
        The null keeps more than noise (order: what mixing sequences gives); then all of N is taken off.

    Returns
    -------
    tuple
        Amounts, replicates, squared noise taken off the amounts.
    """
    added = np.maximum(drawn.mean(axis=0) - square, 0.0) * units / (units - 1)
    off = np.asarray(null if keeps else np.minimum(added, null))
    return _root(square - off), _root(drawn - added - off), off


def _root(x: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(x, 0.0)))


def amount(key: str, value: float, draws: Array, *, unit: str, n: Mapping[str, int], **rest: Any) -> Estimate:
    """Return an amount that may well be 0 with its interval: quantiles of unit-bootstrap draws, t tails.

    A t pivot on the logit scale, as for probabilities inside their bounds, could never reach 0.
    """
    units = int(n["units"])
    how = f"bootstrap of {units} units of {unit}, expanded percentile, t({units - 1})"
    pivot = AdjustedDrawsPivot(tuple(draws.tolist()), units)
    return Estimate.from_pivot(key, value, pivot, interval=how, unit=unit, n=dict(n), target="panel", **rest)


def assess(
    *,
    title: str,
    alternative: str,
    key: str,
    statistic: str,
    unit_tables: Array,
    null: NullTables,
    resampler: Resampler,
    layers: tuple[str, ...],
    groups: tuple[str, ...],
    states: tuple[str, ...],
    unit: str,
    n: Mapping[str, int],
    replicates: int,
    level: float,
    rng: np.random.Generator,
    seed: int | None,
) -> ChainTest:
    """Build the result of a test.

    Parameters
    ----------
    unit_tables : ndarray, shape (units, layers, rows, K)
        Counts of every unit; their sum is tested.
    null : NullTables
        What the sum could have been.
    resampler : Resampler
        Over the units, for intervals.
    """
    tables = unit_tables.sum(axis=0)
    observed = measure([tables[None]])
    df = statistics(tables).df
    if df.sum() == 0:
        raise DynstatError(
            "S406",
            "no transition can tell the rows of any table apart",
            found="one next state, or one row with counts, in every table",
            expected="a state that is left from two rows for two next states",
        )
    if resampler.n_units < 2:
        raise DynstatError(
            "S403", f"one {unit} alone", where="unit", found=resampler.levels[0], expected="at least two"
        )
    drawn = measure(null.tables)
    whole = {
        s: NullDraws(drawn.of(s).sum(axis=1), float(observed.of(s).sum()), null.exact) for s in STATISTICS
    }
    chosen = whole[statistic]
    alpha = 1 - level
    if chosen.smallest_p > alpha:
        warnings.warn(
            f"{title}: with {null.total:g} arrangements no p below {chosen.smallest_p:.3g} is possible, "
            f"so nothing can be significant at {alpha:.3g}; more units are needed",
            DynstatWarning,
            stacklevel=3,
        )
    boot = _bootstrap(unit_tables, resampler, replicates, rng)
    n = {**n, "units": resampler.n_units}
    common: dict[str, Any] = {"level": level, "unit": unit, "n": n, "seed": seed}
    effects = {
        "cramers_v": _effect("cramers_v", observed.phi2, drawn.phi2, boot.phi2, key, null, common),
        "total_variation": _effect(
            "total_variation", observed.tv**2, drawn.tv**2, boot.tv**2, key, null, common
        ),
    }
    rows, p_layers = [], []
    for i, name in enumerate(layers):
        if tables[i].sum() == 0:
            continue
        mine = NullDraws(drawn.of(statistic)[:, i], float(observed.of(statistic)[0, i]), null.exact)
        p = mine.p if df[i] > 0 else np.nan
        e = _effect(
            f"total_variation.{name}",
            observed.tv_layers[:, i] ** 2,
            drawn.tv_layers[:, i] ** 2,
            boot.tv_layers[:, i] ** 2,
            key,
            null,
            common,
        )
        effects[e.key] = e
        p_layers.append(p)
        rows.append(
            {
                "term": name,
                "estimate": e.value,
                "conf.low": e.low,
                "conf.high": e.high,
                "g": float(observed.g[0, i]),
                "pearson": float(observed.pearson[0, i]),
                "df": int(df[i]),
                "p.value": p,
                "p.adjusted": np.nan,
                "p.chi.square": chi_square_p(float(observed.of(statistic)[0, i]), int(df[i])),
                "n": int(tables[i].sum()),
            }
        )
    for row, adjusted in zip(rows, holm(p_layers), strict=True):
        row["p.adjusted"] = float(adjusted)
    table = pd.DataFrame(rows)
    total = int(df.sum())
    return ChainTest(
        title=title,
        alternative=alternative,
        statistic=statistic,
        statistics={s: whole[s].observed for s in STATISTICS},
        df=total,
        p_null={s: whole[s].p for s in STATISTICS},
        p_chi_square={s: chi_square_p(whole[s].observed, total) for s in STATISTICS},
        null=chosen.summary(null.name) | {"total": null.total},
        rows=table,
        tables=tables,
        layers=layers,
        groups=groups,
        states=states,
        unit=unit,
        n=n,
        seed=seed,
        level=level,
        _effects=effects,
    )


def _bootstrap(
    unit_tables: Array, resampler: Resampler, replicates: int, rng: np.random.Generator
) -> Measured:
    """Measure the sums of units drawn with replacement."""
    shape = unit_tables.shape[1:]
    flat = unit_tables.reshape(unit_tables.shape[0], -1)
    parts = chunks(replicates, max(flat.shape))
    return measure(
        (resampler.weights(c.stop - c.start, rng).astype(np.float64) @ flat).reshape(-1, *shape)
        for c in parts
    )


def _effect(
    key: str,
    observed: Array,
    drawn: Array,
    boot: Array,
    method: str,
    null: NullTables,
    common: Mapping[str, Any],
) -> Estimate:
    """Return the root of a squared size, its noise taken off, with interval and null."""
    square = float(observed[0])
    value, draws, noise = noise_free(
        observed[0], boot, drawn.mean(), int(common["n"]["units"]), keeps=null.keeps
    )
    beside = NullDraws(np.sqrt(drawn), float(np.sqrt(square)), null.exact).summary(null.name)
    return amount(
        key,
        float(value),
        draws,
        method=method,
        diagnostics={"plain": float(np.sqrt(square)), "noise": float(np.sqrt(noise))},
        null=beside,
        **common,
    )
