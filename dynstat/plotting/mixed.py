"""Figures of a fitted mixed model: caterpillar of its modes, residuals, profile of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError
from .style import GREY, OKABE_ITO, figure, number, shorten, style

if TYPE_CHECKING:
    from ..mixed.profiling import Profile
    from ..mixed.result import LmerResult

_LABELLED = 40  # levels that still have room for a name
_POINTS = 4000


def caterpillar(m: LmerResult, group: str | None = None, *, level: float = 0.95) -> Figure:
    """Draw the modes of the random effects with their intervals, sorted, a row of panels a factor.

    Parameters
    ----------
    m : LmerResult
    group : str, optional
        One grouping factor, as ``m.ranef()`` names it; default all.
    level : float
        Of the intervals mode ∓ z·condsd. They take theta as known, and speak of one level each.
    """
    z = _quantile(level)
    modes = m.ranef()
    names = list(dict.fromkeys(modes["grpvar"]))
    if group is not None and group not in names:
        raise DynstatError("S404", "no such grouping factor", found=group, expected=" | ".join(names))
    names = names if group is None else [group]
    tables = [modes[modes["grpvar"] == g] for g in names]
    columns = [list(dict.fromkeys(t["term"])) for t in tables]
    counts = [t["grp"].nunique() for t in tables]
    heights = [0.75 + (0.17 if n <= _LABELLED else 0.05) * n for n in counts]
    with style():
        fig = figure(height=min(0.3 + sum(heights), 40.0))
        # A factor in several columns has panels of its own, side by side.
        rows = fig.subfigures(len(names), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, name, table, own, count in zip(rows, names, tables, columns, counts, strict=True):
            axes = part.subplots(1, len(own), squeeze=False, sharey=True)[0]
            order = table[table["term"] == own[0]].sort_values("condval")["grp"].tolist()
            for ax, column in zip(axes, own, strict=True):
                here = table[table["term"] == column].set_index("grp").loc[order]
                at = np.arange(count)
                value, sd = here["condval"].to_numpy(), here["condsd"].to_numpy()
                apart = np.abs(value) > z * sd
                for mask, colour in ((apart, OKABE_ITO["blue"]), (~apart, GREY)):
                    ax.hlines(
                        at[mask], (value - z * sd)[mask], (value + z * sd)[mask], color=colour, linewidth=1.3
                    )
                    # Filled or open, so that the two kinds stay apart in grey too.
                    ax.plot(
                        value[mask],
                        at[mask],
                        "o",
                        color=colour,
                        markersize=4 if count <= _LABELLED else 2.5,
                        markerfacecolor=colour if mask is apart else "white",
                    )
                ax.axvline(0, color=OKABE_ITO["black"], linewidth=0.8, zorder=1)
                ax.set_xlabel(column)
                ax.set_ylim(-0.8, count - 0.2)
                ax.grid(axis="x", color="#EEEEEE", linewidth=0.8)
                ax.tick_params(axis="y", length=0)
                ax.spines["left"].set_visible(False)
            if count <= _LABELLED:
                axes[0].set_yticks(np.arange(count), [shorten(str(g), 24) for g in order])
            else:
                axes[0].set_yticks([])
                axes[0].set_ylabel(f"{count} levels, sorted")
            axes[0].set_title(f"{name} ({count} levels)", loc="left")
        rows[-1].supxlabel(
            f"conditional mode and {100 * level:g} % interval; filled: the interval leaves out 0", fontsize=8
        )
        return fig


def describe_caterpillar(m: LmerResult, *, level: float = 0.95) -> str:
    """Return the alt text of :func:`caterpillar`."""
    z = _quantile(level)
    parts = [f"Conditional modes of the random effects of {m.formula}, with {100 * level:g} % intervals."]
    for (group, column), t in m.ranef().groupby(["grpvar", "term"], sort=False):
        apart = int((t["condval"].abs() > z * t["condsd"]).sum())
        low, high = t.loc[t["condval"].idxmin()], t.loc[t["condval"].idxmax()]
        parts.append(
            f"{group}, {column}: {len(t)} levels from {_plain(low['condval'])} ({low['grp']}) to "
            f"{_plain(high['condval'])} ({high['grp']}), {apart} with an interval that leaves out 0."
        )
    return " ".join(parts)


def residuals(m: LmerResult) -> Figure:
    """Draw scaled residuals against fitted values, and against normal quantiles.

    With more than 4,000 rows every k-th of the sorted rows is drawn, and the axis says so.
    """
    fitted, scaled = m.fitted.to_numpy(), m.scaled_residuals.to_numpy()
    shown = _thin(fitted)
    count = f"{shown.size} of {fitted.size} rows" if shown.size < fitted.size else f"{fitted.size} rows"
    with style():
        fig = figure(height=3.1)
        left, right = fig.subplots(1, 2)
        points = {"color": OKABE_ITO["sky"], "markersize": 3, "alpha": 0.6, "markeredgewidth": 0}
        left.plot(fitted[shown], scaled[shown], "o", **points)
        centre, middle = _running_median(fitted, scaled)
        left.plot(centre, middle, color=OKABE_ITO["vermillion"], linewidth=1.6, label="running median")
        left.axhline(0, color=OKABE_ITO["black"], linewidth=0.8)
        left.set_xlabel(f"fitted value ({count})")
        left.set_ylabel("residual / residual SD")
        left.legend(loc="best")
        ordered = np.sort(scaled)
        theory = special.ndtri((np.arange(1, ordered.size + 1) - 0.5) / ordered.size)
        at = _thin(theory)
        right.plot(theory[at], ordered[at], "o", **points)
        end = max(float(np.abs(theory).max()), 1.0)
        right.plot([-end, end], [-end, end], color=OKABE_ITO["black"], linewidth=0.8, label="normal")
        right.set_xlabel("normal quantile")
        right.set_ylabel("residual / residual SD")
        right.legend(loc="upper left")
        for ax in (left, right):
            ax.grid(color="#EEEEEE", linewidth=0.8)
        return fig


def describe_residuals(m: LmerResult) -> str:
    """Return the alt text of :func:`residuals`."""
    scaled = m.scaled_residuals.to_numpy()
    low, q1, middle, q3, high = np.quantile(scaled, [0, 0.25, 0.5, 0.75, 1])
    return (
        f"Residuals of {m.formula}, {scaled.size} rows, against fitted values and normal quantiles. In "
        f"residual standard deviations ({_plain(m.sigma)}): minimum {number(low)}, quartiles {number(q1)}, "
        f"{number(middle)}, {number(q3)}, maximum {number(high)}; normal quartiles lie at ∓.67."
    )


def profile(
    m: LmerResult | Profile, parameters: Sequence[str] | str | None = None, *, level: float = 0.95
) -> Figure:
    """Draw ζ, the signed root of the rise in deviance, for every parameter.

    A straight line means a symmetric interval; the interval lies between the crossings of the dashed lines.

    Parameters
    ----------
    m : LmerResult or Profile
        A fit is profiled first, which takes a fit a point.
    parameters : str or sequence of str, optional
        As R names them, ``.sig01`` on; default all.
    level : float
        Of the intervals drawn.
    """
    from ..mixed.profiling import Profile
    from ..mixed.profiling import profile as compute

    z = _quantile(level)
    profiled = m if isinstance(m, Profile) else compute(m, parameters)
    table, limits = profiled.tidy(), profiled.confint(level)
    names = list(dict.fromkeys(table["parameter"]))
    wanted = (
        names if parameters is None else [parameters] if isinstance(parameters, str) else list(parameters)
    )
    if unknown := [p for p in wanted if p not in names]:
        raise DynstatError(
            "S404", "no such parameter in the profile", found=unknown[0], expected=" | ".join(names)
        )
    across = min(3, len(wanted))
    down = -(-len(wanted) // across)
    with style():
        fig = figure(height=0.4 + 1.75 * down)
        axes = fig.subplots(down, across, squeeze=False, sharey=True)
        for ax, name in zip(axes.flat, wanted, strict=False):
            here = table[table["parameter"] == name]
            low, high = limits.loc[name, "conf.low"], limits.loc[name, "conf.high"]
            ax.plot(here["value"], here["zeta"], color=OKABE_ITO["blue"], marker="o", markersize=2.5)
            for side in (-z, z):
                ax.axhline(side, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
            ax.axhline(0, color=OKABE_ITO["black"], linewidth=0.8)
            for limit in (low, high):
                if np.isfinite(limit):
                    ax.axvline(limit, color=OKABE_ITO["vermillion"], linewidth=0.8)
            ax.set_title(shorten(name, 28), loc="left")
            ax.set_xlabel(
                f"{_plain(limits.loc[name, 'estimate'])} [{_plain(low)}, {_plain(high)}]", fontsize=8
            )
            ax.grid(color="#EEEEEE", linewidth=0.8)
        for ax in axes.flat[len(wanted) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel("ζ")
        fig.supxlabel(f"maximum-likelihood estimate and {100 * level:g} % profile interval", fontsize=8)
        return fig


def describe_profile(profiled: Profile, *, level: float = 0.95) -> str:
    """Return the alt text of :func:`profile`."""
    rows: list[dict[str, Any]] = profiled.confint(level).reset_index(names="name").to_dict("records")
    parts = [f"Profile of {profiled.formula}: ζ of {len(rows)} parameters, with {100 * level:g} % intervals."]
    for r in rows:
        limits = f"[{_plain(r['conf.low'])}, {_plain(r['conf.high'])}]"
        parts.append(f"{r['name']}: {_plain(r['estimate'])} {limits}.")
    return " ".join(parts)


def _quantile(level: float) -> float:
    if not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level)
    return float(special.ndtri((1 + level) / 2))


def _plain(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _thin(values: NDArray[Any]) -> NDArray[np.intp]:
    order = np.argsort(values, kind="stable")
    return order if order.size <= _POINTS else order[:: -(-order.size // _POINTS)]


def _running_median(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    order = np.argsort(x, kind="stable")
    pieces = np.array_split(order, min(20, max(1, order.size // 15)))
    middle = [(float(np.median(x[p])), float(np.median(y[p]))) for p in pieces]
    return np.array([a for a, _ in middle]), np.array([b for _, b in middle])
