"""Figures of tests about chains: sizes of differences beside what noise alone gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ..inference.estimate import Estimate
from ..inference.wording import p_equals
from .style import GREY, OKABE_ITO, figure, number, shorten, style

if TYPE_CHECKING:
    from ..markov.chain_test import ChainTest
    from ..markov.distance import TransitionDistances


def chain_test(result: ChainTest) -> Figure:
    """Draw the total variation of every layer with its interval, and where noise alone stays (95 %)."""
    e = result.estimates()
    keys = ["total_variation", *(f"total_variation.{t}" for t in result.rows["term"])]
    names = ["all states", *result.rows["term"]]
    return _forest(
        [e[k] for k in keys],
        names,
        "total variation of next states",
        f"{result.title}, {p_equals(result.p_value)}",
    )


def transition_distances(result: TransitionDistances) -> Figure:
    """Draw the distance of every pair with its interval, and where noise alone stays (95 %)."""
    e = result.estimates()
    pairs = [k for k in e if k.startswith("distance.")]
    apart = [k.removeprefix("distance.").split("|") for k in pairs]
    short = without_owner([name for pair in apart for name in pair])
    names = [" – ".join(shorten(short[name], 20) for name in pair) for pair in apart]
    return _forest(
        [e["largest_distance"], *(e[k] for k in pairs)],
        [f"largest of {len(pairs)}", *names],
        "total variation of a step",
        f"Distances between transition matrices by {result.by}",
    )


def without_owner(names: Iterable[str]) -> dict[str, str]:
    """Return names of models without their owner ("openai/gpt2": "gpt2") where that leaves them apart.

    Examples
    --------
    >>> without_owner(["openai/gpt2", "facebook/opt-125m"])
    {'openai/gpt2': 'gpt2', 'facebook/opt-125m': 'opt-125m'}
    """
    every = list(dict.fromkeys(names))
    short = [name.rpartition("/")[2] for name in every]
    return dict(zip(every, short if len(set(short)) == len(every) else every, strict=True))


def alt_text(result: ChainTest | TransitionDistances) -> str:
    """Return the alt text of either figure, made from its numbers."""
    estimates = result.estimates()
    head = estimates.get("largest_distance") or estimates["total_variation"]
    null = head.null or {}
    what = "largest distance" if head.key == "largest_distance" else "total variation of all states"
    return (
        f"Forest plot of {len(estimates) - (head.key != 'largest_distance')} sizes of difference with "
        f"{100 * head.level:g} % intervals; {what} {number(head.value)} "
        f"({number(head.low)} to {number(head.high)}), noise alone stays below {number(float(null['q95']))} "
        f"in 95 % of cases under the null: {null['name']}."
    )


def _forest(estimates: Sequence[Estimate], names: Sequence[str], label: str, title: str) -> Figure:
    with style():
        fig = figure(1.3 + 0.24 * len(names))
        ax = fig.subplots()
        y = np.arange(len(names))[::-1]
        value = np.array([e.value for e in estimates])
        low, high = np.array([e.low for e in estimates]), np.array([e.high for e in estimates])
        noise = np.array([float((e.null or {})["q95"]) for e in estimates])
        ax.hlines(y, low, high, color=OKABE_ITO["blue"], linewidth=1.4)
        ax.plot(value, y, "o", color=OKABE_ITO["blue"], markersize=4.5, label="noise taken off")
        plain = [float(e.diagnostics["plain"]) for e in estimates]
        ax.plot(plain, y, "o", color=GREY, markerfacecolor="none", markersize=4.5, label="as counted")
        ax.plot(noise, y, "|", color=GREY, markersize=9, label="as counted under the null: 95 % lie below")
        ax.set_yticks(y, [shorten(n, 44) for n in names])
        ax.set_ylim(-0.7, len(names) - 0.3)
        ax.set_xlim(left=0)
        ax.set_xlabel(label)
        ax.set_title(title, loc="left")
        fig.legend(loc="outside upper left", ncols=3)
    return fig
