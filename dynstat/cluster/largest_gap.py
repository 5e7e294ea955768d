"""Two groups in one dimension at small n: the largest gap, its null, its interval, its parts left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator
from .checks import check_count, check_level, check_resampled
from .gap_interval import CellGap, gap_estimate
from .spacings import cached_null, check_populations, gap_share, p_from, split_at_largest_gap
from .unimodality import sample_of
from .unit_features import UnitFeatures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LargestGap:
    """Whether one sample falls into two groups. Made by :func:`dynstat.cluster.largest_gap_test`; frozen.

    Attributes
    ----------
    cells : DataFrame
        A row a cell, largest first: cell, value (on the scale of the data), replicates, group.
    populations : DataFrame
        A row a population of the null: population, p.value, p.se, mean, q95 of the gap share under it.
    left_out : DataFrame
        A row a cell left out: cell, kept (the same groups of the others), gap, gap_share, and p.<population>.
    log : bool
        Whether gaps are of logs: then ``gap_factor`` is exp of the gap.
    """

    cells: pd.DataFrame
    populations: pd.DataFrame
    left_out: pd.DataFrame
    log: bool
    next_gap: float
    item: str
    _estimates: Mapping[str, Estimate]

    @property
    def gap_share(self) -> float:
        """The largest gap over the range."""
        return next(e.value for k, e in self._estimates.items() if k.startswith("gap_share"))

    @property
    def gap(self) -> Estimate:
        """The gap between the groups: a factor for logs, else a difference."""
        return self._estimates["gap_factor" if self.log else "gap"]

    @property
    def groups(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The cells above and below the gap."""
        upper = self.cells["group"] == "upper"
        return tuple(self.cells["cell"][upper]), tuple(self.cells["cell"][~upper])

    def p_value(self, population: str) -> float:
        """Return the p under one population."""
        return float(self.populations.set_index("population").loc[population, "p.value"])

    def estimates(self) -> dict[str, Estimate]:
        """Return the gap, its worst case with a cell left out, and ``gap_share.<population>``."""
        return dict(self._estimates)

    def tidy(self) -> pd.DataFrame:
        """Return a row a population: gap share, population, p.value, p.se, p.left_out."""
        table = self.populations
        out = pd.DataFrame(
            {
                "term": "gap_share",
                "estimate": self.gap_share,
                "population": table["population"],
                "p.value": table["p.value"],
                "p.se": table["p.se"],
            }
        )
        out["p.left_out"] = [float(self.left_out[f"p.{name}"].max()) for name in table["population"]]
        return out

    def glance(self) -> pd.DataFrame:
        """Return one row: cells, gap with its interval, next gap, gap share, largest p, kept with one out."""
        e = self.gap
        row = {
            "cells": len(self.cells),
            e.key: e.value,
            "conf.low": e.low,
            "conf.high": e.high,
            "next": self.next_gap,
            "gap_share": self.gap_share,
            "p.largest": float(self.populations["p.value"].max()),
            "kept.left_out": bool(self.left_out["kept"].all()),
        }
        return pd.DataFrame([row])

    @property
    def verdict(self) -> str:
        """What the gap shows at .05, and how large a gap would have to be at this n."""
        t = self.populations
        by: dict[bool, list[str]] = {True: [], False: []}
        for name, p in zip(t["population"], t["p.value"], strict=True):
            by[bool(p <= 0.05)].append(f"{name} (p = {p:.2g})")
        said = [f"beyond what one population gives: {', '.join(by[True]) or 'none'}"]
        if by[False]:
            said.append(f"not beyond: {', '.join(by[False])}")
        need = f"{t['q95'].min():.2f} to {t['q95'].max():.2f}" if len(t) > 1 else f"{t['q95'].iloc[0]:.2f}"
        parts = [
            f"{len(self.cells)} {self.item}s: a gap of {self.gap_share:.2f} of the range is "
            f"{'; '.join(said)}.",
            f"At this n it must reach {need} of the range, by population, for p of .05.",
        ]
        if self.gap.pivot is None:
            parts.append("The gap itself has no interval: nothing varies inside a cell.")
        if not self.left_out["kept"].all():
            parts.append(
                f"The groups change without {', '.join(self.left_out['cell'][~self.left_out['kept']])}."
            )
        return " ".join(parts)

    def plot(self) -> Figure:
        """Draw the values with the gap, and the gap share beside every null.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.gaps import gap_against_nulls

        return gap_against_nulls(self)

    def alt_text(self) -> str:
        """Return what the figure shows, in words and numbers."""
        upper, lower = self.groups
        e = self.gap
        parts = [
            f"Largest gap of {len(self.cells)} {self.item}s: {', '.join(upper)} above, {', '.join(lower)} "
            f"below, {_amount(e.value, self.log)} apart (next largest gap "
            f"{_amount(self.next_gap, self.log)}), {self.gap_share:.3f} of the range."
        ]
        for row in self.populations.to_dict("records"):
            parts.append(
                f"{row['population']} population: 95 % of samples below {row['q95']:.3f}, "
                f"p = {row['p.value']:.3g}."
            )
        return " ".join(parts)

    def __str__(self) -> str:
        upper, lower = self.groups
        e = self.gap
        kept = self.left_out["kept"]
        lost = ", ".join(self.left_out["cell"][~kept])
        limits = (
            f"{100 * e.level:g} % interval {e.low:.4g} to {e.high:.4g} ({e.interval})"
            if e.pivot is not None
            else f"interval: {e.interval}"
        )
        return "\n".join(
            [
                f"Largest gap of {len(self.cells)} {self.item}s{' on the log scale' if self.log else ''}",
                "",
                f"above: {', '.join(upper)}",
                f"below: {', '.join(lower)}",
                f"{e.key} = {e.value:.4g}; {limits}",
                f"next largest: {self.next_gap:.4g}",
                f"gap/range = {self.gap_share:.4g}, if all come from one population that is",
                *(
                    f"  {r['population']:<12} p = {r['p.value']:.4g} (± {r['p.se']:.1g}), "
                    f"with any one left out at most {self.left_out['p.' + r['population']].max():.3g}"
                    for r in self.populations.to_dict("records")
                ),
                "the same two groups with any one left out" if kept.all() else f"other groups without {lost}",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def largest_gap_test(
    values: Any,
    *,
    population: str | Sequence[str] = "all",
    cell: Any = None,
    log: bool = False,
    value: Callable[[Array], Array] | None = None,
    null_sets: int = 99_999,
    replicates: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    item: str = "",
) -> LargestGap:
    """Test whether the largest gap of a small sample is larger than one population gives.

    The statistic is the largest gap between neighbours over the range. It keeps linear changes, so under a
    population known but for location and scale nothing is fitted and p is exact: (1 + number of samples with
    a share at least as large)/(1 + null_sets). A tail heavier than the normal's makes large gaps ordinary:
    read p under every population.

    The gap itself is the smallest value above less the largest below (`log`: their ratio). Its interval:
    from replicates in cells, t with the pooled variance within cells, the largest standard error of a pair of
    cells across the gap; for `UnitFeatures`, bootstrap of the units with the groups held. Both choose the
    pair nearest across the gap, which makes the lower limit conservative (one-sided 95 % limits from units
    covered in 94 to 100 % of data sets) and the upper one too low where several cells lie at the edge (75 to
    98 %). Without either there is none: one value a cell says nothing of its error.

    Parameters
    ----------
    values : Series, mapping, array, labelled array, or UnitFeatures
        One number an item; at least three cells.
    population : str or sequence of str
        normal, uniform, t3, exponential; "all".
    cell : mapping of item to cell, or sequence, shape (n,), optional
        Cells whose replicates are averaged first (seeds of one recipe). Default: every item is a cell.
    log : bool
        Take logs first (positive values only): for ratios.
    value : callable, optional
        For `UnitFeatures` of several features: (..., items, features) to (..., items), before logs.
    null_sets : int
        Samples of every null, at least 99.
    replicates : int
        Of the units.
    level : float
    rng : Generator or int
    item : str
        What a cell stands for. Default: the name of the index, or "item".

    Raises
    ------
    DynstatError
        S403 fewer than three cells; S404 arguments, logs of values that are not positive; S405 all cells
        equal, or values that are not finite; S407 items without a cell.

    Source: Dixon 1950, Ann. Math. Stat. 21: 488-506 (gap over range); the populations are dynstat's choice.
    """
    names = check_populations(population)
    check_count("null sets", null_sets, 99)
    check_count("replicates", replicates, 99)
    check_level(level)
    generator, seed = as_generator(rng)
    stream = int(generator.integers(2**31)) if seed is None else seed
    if isinstance(values, UnitFeatures):
        named = values.item
        x, labels, draws = _from_units(values, value, replicates, stream)
    else:
        x, labels, named = sample_of(values)
        draws = None
    item = item or named
    x, draws = _logs(x, labels, log), None if draws is None else _log_draws(draws, log)
    cells, code = _cells(labels, cell)
    means = np.bincount(code, x) / np.bincount(code)
    if means.size < 3:
        raise DynstatError("S403", "too few cells", found=means.size, expected="at least 3")
    if np.ptp(means) == 0:
        raise DynstatError("S405", "all values are equal", found=means[0])
    full = CellGap(x, code, np.arange(means.size), means, draws)
    gap, upper = split_at_largest_gap(means)
    share = float(gap_share(means))
    nulls = {p: cached_null(means.size, p, null_sets, stream) for p in names}
    common: dict[str, Any] = {
        "level": level,
        "method": "cluster.largest_gap@1",
        "n": {item + "s": int(means.size), "values": int(x.size)}
        | ({} if not isinstance(values, UnitFeatures) else {"units": len(values.units)}),
        "seed": seed,
    }
    unit = values.unit if isinstance(values, UnitFeatures) else "replicate" if cell is not None else item
    key = "gap_factor" if log else "gap"
    made = {key: gap_estimate(key, gap, full, upper, log, unit, common)}
    left = _left_out(full, cells, upper, names, null_sets, stream)
    made[f"{key}.left_out"] = _worst(key, full, upper, left, log, unit, common)
    rows = []
    for p, null in nulls.items():
        at = p_from(share, null)
        se = float(np.sqrt(at * (1 - at) / null.size))
        q95, mean = float(np.quantile(null, 0.95)), float(null.mean())
        rows.append({"population": p, "p.value": at, "p.se": se, "mean": mean, "q95": q95})
        made[f"gap_share.{p}"] = Estimate(
            f"gap_share.{p}",
            share,
            np.nan,
            np.nan,
            interval="none",
            unit=item,
            diagnostics={"p.left_out": float(left[f"p.{p}"].max())},
            null={"name": f"{p} population", "p": at, "p_se": se, "replicates": null_sets, "q95": q95},
            **common,
        )
    order = np.argsort(-means, kind="stable")
    table = pd.DataFrame(
        {
            "cell": [cells[i] for i in order],
            "value": np.exp(means[order]) if log else means[order],
            "replicates": np.bincount(code)[order],
            "group": np.where(upper[order], "upper", "lower"),
        }
    )
    gaps = np.sort(np.diff(np.sort(means)))
    second = float(np.exp(gaps[-2]) if log else gaps[-2])
    return LargestGap(table, pd.DataFrame(rows), left, log, second, item, made)


def _left_out(
    full: CellGap, cells: Sequence[str], upper: Mask, names: Sequence[str], null_sets: int, seed: int
) -> pd.DataFrame:
    rows = []
    for c, name in enumerate(cells):
        rest = full.without(c)
        m = full.means[rest.chosen]
        row: dict[str, Any] = {"cell": name, "kept": False, "gap": np.nan, "gap_share": np.nan}
        if m.size >= 3 and np.ptp(m) > 0:
            gap, mask = split_at_largest_gap(m)
            share = float(gap_share(m))
            row |= {"kept": bool(np.array_equal(mask, upper[rest.chosen])), "gap": gap, "gap_share": share}
        for p in names:
            known = row["kept"]
            row[f"p.{p}"] = (
                p_from(row["gap_share"], cached_null(m.size, p, null_sets, seed)) if known else 1.0
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _worst(
    key: str,
    full: CellGap,
    upper: Mask,
    left: pd.DataFrame,
    log: bool,
    unit: str,
    common: Mapping[str, Any],
) -> Estimate:
    """Return the gap with the lowest lower limit among those with one cell left out.

    Where leaving one out changes the groups, there is no gap between them: a difference of 0, a factor of 1.
    """
    name = f"{key}.left_out"
    if not left["kept"].all():
        lost = ", ".join(left["cell"][~left["kept"]])
        return Estimate(
            name,
            1.0 if log else 0.0,
            np.nan,
            np.nan,
            interval="none (other groups with one cell left out)",
            unit=unit,
            diagnostics={"groups change without": lost},
            **common,
        )
    made = []
    for c in range(full.means.size):
        rest = full.without(c)
        e = gap_estimate(name, rest.distance(upper), rest, upper, log, unit, common)
        made.append(replace(e, diagnostics={**e.diagnostics, "left out": str(left["cell"][c])}))
    bound = [e.low if np.isfinite(e.low) else e.value for e in made]
    return made[int(np.argmin(bound))]


def _from_units(
    units: UnitFeatures, value: Callable[[Array], Array] | None, replicates: int, seed: int
) -> tuple[Array, tuple[str, ...], Array]:
    check_resampled(units)
    weights = units.resampler().weights(replicates, seed)
    built, draws = units.build(), units.build(weights)
    if value is None:
        if built.shape[-1] != 1:
            raise DynstatError(
                "S404", "more than one feature", found=", ".join(units.columns), mend="give value="
            )
        return built[:, 0], units.items, draws[..., 0]
    return np.asarray(value(built)), units.items, np.asarray(value(draws))


def _logs(x: Array, names: Sequence[str], log: bool) -> Array:
    if not log:
        return x
    if (x <= 0).any():
        bad = ", ".join(f"{n}: {v:g}" for n, v in zip(names, x, strict=True) if v <= 0)
        raise DynstatError("S404", "logs need positive values", found=bad, mend="log=False, or drop these")
    return np.log(x)


def _log_draws(draws: Array, log: bool) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(draws) if log else draws


def _cells(labels: Sequence[str], cell: Any) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    if cell is None:
        return tuple(labels), np.arange(len(labels))
    if isinstance(cell, pd.Series):
        cell = {str(k): v for k, v in cell.items()}
    if isinstance(cell, Mapping):
        missing = [n for n in labels if n not in cell]
        if missing:
            raise DynstatError("S407", "some items have no cell", found=", ".join(missing))
        cell = [cell[n] for n in labels]
    given = list(cell)
    if len(given) == len(labels) and (lost := [n for n, c in zip(labels, given, strict=True) if pd.isna(c)]):
        raise DynstatError("S407", "some items have no cell", found=", ".join(lost))
    names = [str(c) for c in given]
    if len(names) != len(labels):
        raise DynstatError(
            "S407", "cells and values differ in number", found=len(names), expected=len(labels)
        )
    code, found = pd.factorize(pd.Series(names))
    return tuple(map(str, found)), code.astype(np.intp)


def _amount(value: float, log: bool) -> str:
    return f"a factor of {value:.3g}" if log else f"{value:.3g}"
