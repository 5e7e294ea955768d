"""Agreement of several partitions of the same items, with what so few items can and cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.adjusted import false_discovery, holm
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator, monte_carlo_p
from .chance import INDICES
from .checks import check_count
from .concordance import compare, paired_labels, without_noise
from .features import as_features
from .null_sets import structureless
from .partition import Partition
from .stability import same_items

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


_ADJUST = {"holm": holm, "BH": false_discovery}


@dataclass(frozen=True)
class Agreement:
    """Agreement of partitions, pair by pair. Made by :func:`dynstat.cluster.agreement`; frozen.

    Attributes
    ----------
    table : DataFrame
        A row a pair: a, b, items, ari, ami, p.ari, p.ami, exact, p.adjusted (of the ARI), smallest.p,
        ari.at.05 (NaN where no ARI reaches it); with data also null.median and p.structureless.
    names : tuple of str
    adjust : str
        holm or BH.
    alpha : float
    structureless : int
        Sets of structureless data, 0 for none.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    adjust: str
    alpha: float
    noise: str
    structureless: int
    item: str
    sizes: Mapping[str, tuple[int, ...]]
    _estimates: Mapping[str, Estimate]

    def estimates(self) -> dict[str, Estimate]:
        """Return ``ari.<a>.<b>`` and ``ami.<a>.<b>`` of every pair."""
        return dict(self._estimates)

    @property
    def verdict(self) -> str:
        """What these partitions show, and what so few items cannot show."""
        return _verdict(self)

    def tidy(self) -> pd.DataFrame:
        """Return a row a pair and index: a, b, term, estimate, conf.low, conf.high, p.value, exact."""
        rows = []
        for row in self.table.to_dict("records"):
            for index in INDICES:
                e = self._estimates[f"{index}.{row['a']}.{row['b']}"]
                null = e.null or {}
                rows.append(
                    {
                        "a": row["a"],
                        "b": row["b"],
                        "term": index,
                        "estimate": e.value,
                        "conf.low": e.low,
                        "conf.high": e.high,
                        "p.value": null["p"],
                        "exact": null["exact"],
                    }
                )
        return pd.DataFrame(rows)

    def glance(self) -> pd.DataFrame:
        """Return one row: partitions, pairs, items, mean ARI, pairs beyond chance, smallest p, verdict."""
        t = self.table
        row = {
            "partitions": len(self.names),
            "pairs": len(t),
            "items": int(t["items"].max()),
            "ari.mean": float(t["ari"].mean()),
            "beyond.chance": int((t["p.adjusted"] <= self.alpha).sum()),
            "smallest.p": float(t["smallest.p"].min()),
            "verdict": self.verdict,
        }
        return pd.DataFrame([row])

    def matrix(self, index: str = "ari") -> pd.DataFrame:
        """Return an index of every two partitions as a square table."""
        out = pd.DataFrame(np.eye(len(self.names)), self.names, self.names)
        for row in self.table.to_dict("records"):
            out.loc[row["a"], row["b"]] = out.loc[row["b"], row["a"]] = row[index]
        return out

    def plot(self) -> Figure:
        """Draw the ARI of every pair as a table of colours, with its exact p.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.agreement import agreement_heat_map

        return agreement_heat_map(self)

    def alt_text(self) -> str:
        """Return what the figure shows, in words and numbers."""
        rows = "; ".join(
            f"{r['a']} and {r['b']}: {r['ari']:.2f}, p = {r['p.ari']:.2g}"
            for r in self.table.to_dict("records")
        )
        return f"Adjusted Rand index of every two of {len(self.names)} partitions. {rows}. {self.verdict}"

    def __str__(self) -> str:
        shown = self.table.drop(columns=["p.ami"])
        return "\n".join(
            [
                f"Agreement of {len(self.names)} partitions (p one-sided, {self.adjust} over "
                f"{len(self.table)} pair{'s' * (len(self.table) > 1)}; {self.noise})",
                "",
                shown.to_string(index=False, float_format=lambda v: f"{v:.3g}", na_rep="none"),
                "",
                self.verdict,
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def agreement(
    partitions: Mapping[str, Any],
    *,
    reference: str | None = None,
    data: Any = None,
    null: str = "rotation",
    null_sets: int = 199,
    noise: str = "single",
    adjust: str = "holm",
    alpha: float = 0.05,
    permutations: int = 9999,
    rng: Rng = 0,
) -> Agreement:
    """Compare partitions of the same items pair by pair: ARI and AMI, exact permutation p, a verdict.

    The permutation null deals labels to items at random. It is the null of partitions made from *different*
    data: metrics, panels, audits. Methods that saw the same data agree beyond it whether or not there are
    groups; for those give `data`, and every method is repeated on structureless data of the same mean and
    covariance: p.structureless = (1 + number of sets where the two agree at least as well)/(1 + sets).

    Parameters
    ----------
    partitions : mapping of name to Partition, Series, mapping or array
    reference : str, optional
        Compare all others with this one. Default: every pair.
    data : DataFrame, DataArray, array, Features or UnitFeatures, optional
        What all partitions were made from.
    null : str
        See :func:`dynstat.cluster.structureless`.
    null_sets : int
        Sets of structureless data, at least 19.
    noise : {"single", "drop"}
        See :func:`adjusted_rand`.
    adjust : {"holm", "BH"}
        Over the pairs.
    alpha : float
        Of the verdict.
    permutations : int
        Where p is not exact.
    rng : Generator or int

    Raises
    ------
    DynstatError
        S404 arguments; S407 different items, or an unknown reference; S403 fewer than three items.

    Notes
    -----
    Indices as in :func:`adjusted_rand` and :func:`adjusted_mutual_information`, published; p.structureless
    and the verdict are dynstat's.
    """
    if not isinstance(partitions, Mapping):
        raise DynstatError(
            "S404",
            "partitions need names",
            found=type(partitions).__name__,
            expected='a mapping, e.g. {"entropy": a, "curvature": b}',
        )
    names = tuple(map(str, partitions))
    if len(names) < 2:
        raise DynstatError("S404", "one partition agrees with nothing", found=len(names), expected="two")
    if adjust not in _ADJUST:
        raise DynstatError("S404", "unknown adjustment", found=adjust, expected=" | ".join(_ADJUST))
    if not 0 < alpha < 1:
        raise DynstatError("S404", "alpha must lie between 0 and 1", found=alpha)
    if reference is not None and reference not in names:
        raise DynstatError("S407", "unknown reference", found=reference, expected=", ".join(names))
    parts = {str(k): v for k, v in partitions.items()}
    chosen = [(a, b) for a, b in combinations(names, 2) if reference is None or reference in (a, b)]
    generator, seed = as_generator(rng)
    made: dict[str, Estimate] = {}
    rows: list[dict[str, Any]] = []
    for a, b in chosen:
        options: dict[str, Any] = {"noise": noise, "permutations": permutations, "rng": generator}
        ari = compare("ari", parts[a], parts[b], key=f"ari.{a}.{b}", **options)
        ami = compare("ami", parts[a], parts[b], key=f"ami.{a}.{b}", **options)
        made |= {e.key: replace(e, seed=seed) for e in (ari, ami)}
        one, two = ari.null or {}, ami.null or {}
        rows.append(
            {
                "a": a,
                "b": b,
                "items": ari.n["items"],
                "ari": ari.value,
                "ami": ami.value,
                "p.ari": one["p"],
                "p.ami": two["p"],
                "exact": one["exact"],
                "smallest.p": one["smallest p"],
                "ari.at.05": one["smallest index at .05"],
            }
        )
    table = pd.DataFrame(rows)
    table.insert(7, "p.adjusted", _ADJUST[adjust](table["p.ari"].to_numpy()))
    if data is not None:
        drawn = _on_structureless(parts, chosen, data, null, null_sets, noise, generator)
        table["null.median"] = np.median(drawn, axis=0)
        table["p.structureless"] = [
            monte_carlo_p(v - 1e-12, d) for v, d in zip(table["ari"], drawn.T, strict=True)
        ]
    first = parts[names[0]]
    item = first.item if isinstance(first, Partition) else "item"
    sizes = {k: _sizes(v) for k, v in parts.items()}
    words = "noise as single items" if noise == "single" else "noise left out"
    many = null_sets if data is not None else 0
    return Agreement(table, names, adjust, alpha, words, many, item, sizes, made)


def _sizes(value: Any) -> tuple[int, ...]:
    labels = paired_labels(value, value).a
    return tuple(sorted(np.bincount(labels).tolist(), reverse=True))


def _on_structureless(
    parts: Mapping[str, Any],
    chosen: list[tuple[str, str]],
    data: Any,
    null: str,
    null_sets: int,
    noise: str,
    generator: np.random.Generator,
) -> Array:
    check_count("null sets", null_sets, 19)
    given = [k for k, v in parts.items() if not isinstance(v, Partition) or v.method == "given"]
    if given:
        raise DynstatError(
            "S404",
            "a given partition cannot be made again on structureless data",
            found=", ".join(given),
            mend="leave data out, or give partitions made by a method",
        )
    features = as_features(data)
    for part in parts.values():
        same_items(features, part)
    sets = structureless(features, null, count=null_sets, rng=generator)
    out = np.empty((null_sets, len(chosen)))
    for i, x in enumerate(sets):
        labels = {k: p.recluster(x) for k, p in parts.items()}
        for j, (a, b) in enumerate(chosen):
            out[i, j] = INDICES["ari"].of(*without_noise(labels[a], labels[b], noise))
    return out


def _verdict(result: Agreement) -> str:
    t, alpha = result.table, result.alpha
    level = f"{alpha:g}".lstrip("0")
    n = int(t["items"].max())
    beyond = int((t["p.adjusted"] <= alpha).sum())
    hopeless = t["smallest.p"] > alpha
    pairs = "1 pair" if len(t) == 1 else f"{len(t)} pairs"
    parts = [f"{n} {result.item}s: {beyond} of {pairs} agree beyond chance at {level} ({result.adjust})."]
    if hopeless.all():
        parts.append(
            f"None could: with clusters of these sizes the smallest p is {t['smallest.p'].min():.2g}, "
            "so the data cannot show agreement, nor its absence."
        )
    else:
        if hopeless.any():
            count = int(hopeless.sum())
            words = "1 pair" if count == 1 else f"{count} pairs"
            parts.append(f"For {words} none could, whatever the labels: the smallest p is above {level}.")
        reach = t["ari.at.05"][~hopeless]
        if reach.notna().any():
            low, high = float(reach.min()), float(reach.max())
            span = f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
            parts.append(
                f"At these cluster sizes an ARI must reach {span} for an unadjusted p of .05; weaker "
                "agreement passes unseen."
            )
    if result.structureless:
        found = int((t["p.structureless"] <= alpha).sum())
        parts.append(
            f"All saw the same data, so they agree by that alone: on structureless data their median ARI is "
            f"{t['null.median'].min():.2f} to {t['null.median'].max():.2f}, and {found} of {pairs} agree "
            f"better than that at {level} (not adjusted)."
        )
    parts.append("Agreement says that the items fall the same way twice, not that there are groups.")
    return " ".join(parts)
