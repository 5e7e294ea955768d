"""How far apart are the transition matrices of groups, noise taken off?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.adjusted import holm
from ..inference.estimate import Estimate
from ..inference.resample import Resampler, Rng, as_generator
from ..inference.wording import p_equals
from .assessing import amount, chunks, noise_free
from .homogeneity import permuted_tables
from .labels import label_codes
from .permuting import NullDraws, arrange
from .sequences import Sequences
from .tabulation import stretches, tabulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TransitionDistances:
    """Distances between the transition matrices of groups. Made by :func:`transition_distance`; frozen.

    Attributes
    ----------
    by, unit : str
    groups : tuple of str
    plain, distances : DataFrame
        Groups × groups: total variation as it is, and with its noise taken off.
    largest : Estimate
        Of the distances with noise taken off; null: all labels permuted within units.
    """

    by: str
    unit: str
    groups: tuple[str, ...]
    plain: pd.DataFrame
    distances: pd.DataFrame
    largest: Estimate
    _pairs: Mapping[tuple[str, str], Estimate]
    _adjusted: Mapping[tuple[str, str], float]

    def estimates(self) -> dict[str, Estimate]:
        """Return ``largest_distance`` and ``distance.<a>|<b>`` of every pair."""
        return {"largest_distance": self.largest} | {e.key: e for e in self._pairs.values()}

    def tidy(self) -> pd.DataFrame:
        """Return a row a pair: group1, group2, estimate, conf.low, conf.high, plain, p.value, p.adjusted."""
        return pd.DataFrame(
            [
                {
                    "group1": a,
                    "group2": b,
                    "estimate": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "plain": e.diagnostics["plain"],
                    "p.value": (e.null or {})["p"],
                    "p.adjusted": self._adjusted[a, b],
                }
                for (a, b), e in self._pairs.items()
            ]
        )

    def glance(self) -> pd.DataFrame:
        """Return one row: the largest distance with its interval, its pair, the null, n."""
        e, null = self.largest, self.largest.null or {}
        return pd.DataFrame(
            [
                {
                    "largest": e.value,
                    "conf.low": e.low,
                    "conf.high": e.high,
                    "pair": e.diagnostics["pair"],
                    "plain": e.diagnostics["plain"],
                    "p.value": null["p"],
                    "null.mean": null["mean"],
                    "null.q95": null["q95"],
                    "permutations": null["replicates"],
                    "unit": self.unit,
                    **e.n,
                }
            ]
        )

    def plot(self) -> Figure:
        """Draw the distance of every pair with its interval.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.chain_tests import transition_distances as draw

        return draw(self)

    def alt_text(self) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.chain_tests import alt_text

        return alt_text(self)

    def __str__(self) -> str:
        e, null = self.largest, self.largest.null or {}
        return "\n".join(
            [
                f"Distances between transition matrices by {self.by} (total variation, noise taken off)",
                "",
                self.distances.to_string(float_format=lambda v: f"{v:.3f}"),
                "",
                f"largest of {len(self._pairs)}, the noise of picking it taken off too: {e.value:.3f} "
                f"[{e.low:.3f}, {e.high:.3f}] ({e.diagnostics['pair']}; {e.interval}); with its noise "
                f"{e.diagnostics['plain']:.3f}",
                f"null, {null['name']}: mean {null['mean']:.3f}, 95 % below {null['q95']:.3f}, "
                f"{p_equals(null['p'])} ({null['replicates']} permutations)",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def transition_distance(
    sequences: Sequences,
    by: str = "model",
    *,
    unit: str = "prompt",
    permutations: int = 999,
    replicates: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.distance@1",
) -> TransitionDistances:
    """Measure how far apart the transition matrices of groups that share their units are.

    d(a, b) = Σ_i w_i · ½ Σ_j |P_a,ij − P_b,ij| over states i that both leave, w_i the mean of the two groups'
    shares of transitions out of i, scaled to sum 1: the mean total variation of a step. In [0, 1].

    Noise alone gives d > 0, and more so the largest of many. It is taken off each pair and the largest as
    √max(0, d² − min(b, N)): b what drawing units adds to d², N its mean under the null. The null of a pair
    exchanges its two labels unit by unit at random; that of the largest permutes all labels within every
    unit, and asks whether any two groups differ at all. Interval: bootstrap of units, replicates
    √max(0, d*² − b − min(b, N)), quantiles with t tails.

    Parameters
    ----------
    sequences : Sequences
    by : str
        Column of labels whose levels are compared: the model.
    unit : str
        Column of labels: what is resampled, and within which labels are exchanged.
    permutations : int
        Of the labels, for the nulls, at least 99. Where there are no more arrangements, all are made.
    replicates : int
        Bootstrap samples of units, at least 99.
    level : float
    rng : Generator or int

    Returns
    -------
    TransitionDistances

    Raises
    ------
    DynstatError
        S407 unknown columns, or groups without common units; S403 one group, or fewer than two common units;
        S404 options; S406 no transition, or two groups that leave no state in common.
    """
    for name, value in (("permutations", permutations), ("replicates", replicates)):
        if value < 99:
            raise DynstatError("S404", f"too few {name}", found=value, expected="at least 99")
    generator, seed = as_generator(rng)
    parts = stretches(sequences)
    group, groups = label_codes(sequences, by)
    of, units = label_codes(sequences, unit)
    if len(groups) < 2:
        raise DynstatError(
            "S403", "one group alone", where=by, found=groups[0], expected="at least two groups"
        )
    k, g, s = len(sequences.states), len(groups), parts.sequence
    tables = tabulate(
        parts.codes,
        k,
        outer=of[s],
        n_outer=len(units),
        stratum=np.zeros_like(s),
        n_strata=1,
        group=group[s][:, None],
        n_groups=g,
    )
    present = np.zeros((len(units), g), dtype=bool)
    present[of, group] = True
    first, second = np.triu_indices(g, 1)
    _comparable(tables, present, first, second, groups, by, unit)
    counts = np.moveaxis(tables, 2, 1)
    observed = pair_distances(counts.sum(axis=0)[None], first, second)[0]
    omnibus = permuted_tables(
        tables,
        present,
        np.arange(len(units)),
        permutations,
        generator,
        f"labels of {by} permuted within {unit}",
    )
    largest_null = np.concatenate(
        [pair_distances(np.moveaxis(t, 2, 1), first, second).max(axis=1) for t in omnibus.tables]
    )
    pair_null = [
        _exchanged(counts[:, [a, b]], present[:, [a, b]], permutations, generator)
        for a, b in zip(first, second, strict=True)
    ]
    resampler = Resampler(of, units, np.zeros(len(units), dtype=np.intp))
    drawn = _bootstrap(counts, first, second, resampler, replicates, generator)
    pair_means = np.array([np.mean(d**2) for d, _ in pair_null])
    values, boot, noise = noise_free(observed**2, drawn**2, pair_means, len(units))
    top_value, top_boot, top_noise = noise_free(
        observed.max() ** 2, drawn.max(axis=1) ** 2, np.mean(largest_null**2), len(units)
    )
    common: dict[str, Any] = {
        "level": level,
        "method": method,
        "unit": unit,
        "seed": seed,
        "n": {
            "sequences": len(sequences),
            "transitions": int(tables.sum()),
            "groups": g,
            "units": len(units),
        },
    }
    pairs: dict[tuple[str, str], Estimate] = {}
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        draws, exact = pair_null[i]
        null = NullDraws(draws, float(observed[i]), exact)
        pairs[groups[a], groups[b]] = amount(
            f"distance.{groups[a]}|{groups[b]}",
            float(values[i]),
            boot[:, i],
            diagnostics={"plain": float(observed[i]), "noise": float(np.sqrt(noise[i]))},
            null=null.summary(f"labels of the two exchanged within {unit}"),
            **common,
        )
    adjusted = holm([(e.null or {})["p"] for e in pairs.values()])
    top = int(np.argmax(observed))
    whole = NullDraws(largest_null, float(observed.max()), omnibus.exact)
    largest = amount(
        "largest_distance",
        float(top_value),
        top_boot,
        diagnostics={
            "plain": float(observed.max()),
            "noise": float(np.sqrt(top_noise)),
            "pair": f"{groups[first[top]]} and {groups[second[top]]}",
        },
        null=whole.summary(omnibus.name),
        **common,
    )
    return TransitionDistances(
        by=by,
        unit=unit,
        groups=groups,
        plain=_square(observed, first, second, groups),
        distances=_square(values, first, second, groups),
        largest=largest,
        _pairs=pairs,
        _adjusted=dict(zip(pairs, adjusted.tolist(), strict=True)),
    )


def pair_distances(counts: Array, first: NDArray[np.intp], second: NDArray[np.intp]) -> Array:
    """Return the mean total variation of a step between pairs of groups.

    Parameters
    ----------
    counts : ndarray, shape (..., groups, K, K)
    first, second : ndarray, shape (pairs,)

    Returns
    -------
    ndarray, shape (..., pairs)
        0 where two groups leave no state in common.
    """
    out_of = counts.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(out_of[..., None] > 0, counts / out_of[..., None], 0.0)
        share = out_of / out_of.sum(axis=-1, keepdims=True)
    a, b = out_of[..., first, :], out_of[..., second, :]
    w = np.where((a > 0) & (b > 0), share[..., first, :] + share[..., second, :], 0.0)
    tv = 0.5 * np.abs(p[..., first, :, :] - p[..., second, :, :]).sum(axis=-1)
    total = w.sum(axis=-1)
    return np.asarray(np.where(total > 0, (w * tv).sum(axis=-1) / np.where(total > 0, total, 1.0), 0.0))


def _exchanged(
    counts: Array, present: NDArray[np.bool_], permutations: int, rng: np.random.Generator
) -> tuple[Array, bool]:
    """Return distances of one pair with labels exchanged unit by unit; counts: (units, 2, K, K)."""
    k = counts.shape[-1]
    at, label = np.nonzero(present)
    ways = arrange(label, at, permutations, rng)
    flat = counts[at, label].reshape(at.size, k * k)
    one = (ways.labels == 0).astype(np.float64) @ flat
    both = np.stack([one, flat.sum(axis=0) - one], axis=1).reshape(-1, 2, k, k)
    return pair_distances(both, np.array([0]), np.array([1]))[:, 0], ways.exact


def _bootstrap(
    counts: Array,
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    resampler: Resampler,
    replicates: int,
    rng: np.random.Generator,
) -> Array:
    flat = counts.reshape(counts.shape[0], -1)
    weights = resampler.weights(replicates, rng).astype(np.float64)
    parts = chunks(replicates, first.size * counts.shape[-1] ** 2)
    return np.concatenate(
        [pair_distances((weights[c] @ flat).reshape(-1, *counts.shape[1:]), first, second) for c in parts]
    )


def _comparable(
    tables: Array,
    present: NDArray[np.bool_],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    groups: tuple[str, ...],
    by: str,
    unit: str,
) -> None:
    """Raise where two groups share too few units, or leave no state in common."""
    left = tables.sum(axis=(0, 3)) > 0
    shared = present.T.astype(int) @ present
    for a, b in zip(first, second, strict=True):
        both = f"{groups[a]} and {groups[b]}"
        if shared[a, b] < 2:
            raise DynstatError(
                "S403" if shared[a, b] else "S407",
                f"two groups share too few units of {unit}",
                where=by,
                found=f"{both}: {shared[a, b]}",
                expected="at least two that hold sequences of both",
                mend="compare groups that are measured on the same units",
            )
        if not np.any(left[:, a] & left[:, b]):
            raise DynstatError("S406", "two groups leave no state in common", where=by, found=both)


def _square(
    values: Array, first: NDArray[np.intp], second: NDArray[np.intp], groups: tuple[str, ...]
) -> pd.DataFrame:
    out = np.zeros((len(groups), len(groups)))
    out[first, second] = out[second, first] = values
    return pd.DataFrame(out, list(groups), list(groups))
