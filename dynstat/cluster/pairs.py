"""Which pairs of items stay together beyond what structureless data show."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.adjusted import false_discovery
from ..inference.estimate import Estimate
from ..inference.resample import Rng, as_generator
from .checks import check_count, check_level, check_units
from .coclustering import jeffreys, together
from .linkage_trees import hierarchical, linkage_name
from .many_cuts import LINKAGES, cut_many
from .pair_nulls import NULLS, Clouds, rank_p, scaled
from .partition import Partition
from .within_items import check_features, resampled_features

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .unit_features import UnitFeatures

Array = NDArray[np.float64]

METHOD = "cluster.pair_survival@1"


@dataclass(frozen=True, eq=False, repr=False)
class PairSurvival:
    """The pairs that survive. Made by :func:`pair_survival`; frozen.

    Attributes
    ----------
    partition : Partition
        Of all units.
    frequency : ndarray, shape (items, items)
        Share of replicates in which two items lie in one cluster.
    table : DataFrame
        A row a pair, most frequent first: item_1, item_2, frequency, conf.low, conf.high, rank, null.median,
        p, q, p.any, together, survives.
    null : ndarray, shape (clouds, pairs)
        Pair frequencies of every cloud, sorted, highest first.
    null_kind : str
    thresholds : tuple of float
        Of the frequency and of q.
    """

    partition: Partition
    frequency: Array
    table: pd.DataFrame
    null: Array
    null_kind: str
    thresholds: tuple[float, float]
    unit: str
    level: float
    seed: int | None
    n: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[str, ...]:
        """Labels of the items."""
        return self.partition.items

    def pairs_found(self) -> tuple[tuple[str, str], ...]:
        """Return the pairs that survive, each in the order of the items, in that order."""
        kept = self.table[self.table["survives"]]
        place = {name: i for i, name in enumerate(self.items)}
        found = zip(kept["item_1"], kept["item_2"], strict=True)
        return tuple(sorted(((str(a), str(b)) for a, b in found), key=lambda p: (place[p[0]], place[p[1]])))

    def exactly(self, pairs: Iterable[Sequence[str]]) -> bool:
        """Return whether just these pairs survive: each of them, and no other.

        Raises
        ------
        DynstatError
            S407 for an item that is not there, or one named twice in a pair.
        """
        wanted = set()
        for pair in pairs:
            two = frozenset(pair)
            if len(pair) != 2 or len(two) != 2 or not two <= set(self.items):
                named = ", ".join(map(str, pair))
                raise DynstatError(
                    "S407", "no such pair", found=named, expected="two of " + ", ".join(self.items)
                )
            wanted.add(two)
        return wanted == {frozenset(p) for p in self.pairs_found()}

    def tidy(self) -> pd.DataFrame:
        """Return :attr:`table`: frequency named ``estimate``, p ``p.value``, q ``q.value``."""
        return self.table.rename(columns={"frequency": "estimate", "p": "p.value", "q": "q.value"})

    def glance(self) -> pd.DataFrame:
        """Return one row: counts, clusters, pairs that survive, pairs expected to in structureless clouds."""
        row = {**self.n, "clusters": self.partition.n_clusters, "survive": int(self.table["survives"].sum())}
        often = (self.null >= self.thresholds[0]).sum(axis=1)
        return pd.DataFrame([row | {"null.frequent": float(often.mean()), "seed": self.seed}])

    def estimates(self) -> dict[str, Estimate]:
        """Return ``together.<item>|<item>`` for every pair, with its null, and ``surviving_pairs``."""
        common: dict[str, Any] = {
            "level": self.level,
            "method": METHOD,
            "unit": self.unit,
            "n": self.n,
            "target": "panel",
            "seed": self.seed,
        }
        out = {}
        for row in self.table.to_dict("records"):
            key = f"together.{row['item_1']}|{row['item_2']}"
            at = int(row["rank"]) - 1
            out[key] = Estimate(
                key,
                row["frequency"],
                row["conf.low"],
                row["conf.high"],
                interval="Jeffreys, Monte-Carlo error of the share of replicates",
                diagnostics={"rank": int(row["rank"]), "q": row["q"], "survives": bool(row["survives"])},
                null={
                    "name": NULLS[self.null_kind],
                    "p": row["p"],
                    "replicates": self.null.shape[0],
                    "mean": float(self.null[:, at].mean()),
                    "sd": float(self.null[:, at].std(ddof=1)),
                    "q95": float(np.quantile(self.null[:, at], 0.95, method="higher")),
                },
                **common,
            )
        count = int(self.table["survives"].sum())
        out["surviving_pairs"] = Estimate(
            "surviving_pairs",
            count,
            np.nan,
            np.nan,
            interval="none (a count of decisions)",
            diagnostics={"pairs": [list(p) for p in self.pairs_found()], "notes": list(self.notes)},
            **common,
        )
        return out

    def plot(self, **options: Any) -> Figure:
        """Draw the co-clustering heat map with the survivors outlined."""
        from ..plotting.coclustering import heat_map

        return heat_map(
            self.frequency, self.items, linkage=self.partition.linkage, outlined=self.pairs_found(), **options
        )

    def alt_text(self) -> str:
        """Return what :meth:`plot` shows, in words and numbers."""
        from ..plotting.coclustering import describe_heat_map

        return describe_heat_map(self.frequency, self.items, outlined=self.pairs_found())

    @property
    def verdict(self) -> str:
        """One sentence that says which pairs survive, and against what."""
        f, q = self.thresholds
        found = self.pairs_found()
        names = "; ".join(f"{a} with {b}" for a, b in found[:8]) if found else "no pair"
        if len(found) > 8:
            names = f"{len(found)} ({names}; and {len(found) - 8} more)"
        return (
            f"Of {len(self.table)} pairs {names} {'survives' if len(found) <= 1 else 'survive'} "
            f"(frequency at least {f:g}, q at most {q:g}, against {self.null.shape[0]} structureless clouds)."
        )

    def __str__(self) -> str:
        p = self.partition
        shown = self.table.head(max(10, int(self.table["survives"].sum())))
        shown = shown[["item_1", "item_2", "frequency", "null.median", "p", "q", "survives"]]
        lines = [
            f"Pairs under resampling of {self.unit}s: {self.n['items']} {p.item}s, {p.n_clusters} clusters "
            f"({p.parameters.get('linkage')} linkage), {self.n['replicates']} replicates of "
            f"{self.n['units']} {self.unit}s",
            "",
            shown.to_string(index=False, float_format=lambda v: f"{v:.3g}"),
            *([f"... {len(self.table) - len(shown)} more"] if len(self.table) > len(shown) else []),
            "",
            self.verdict,
        ]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def pair_survival(
    units: UnitFeatures,
    *,
    k: int,
    method: str = "ward",
    metric: str = "euclidean",
    frequency: float = 0.95,
    q: float = 0.05,
    replicates: int = 1000,
    null_sets: int | None = None,
    null_replicates: int = 200,
    null: str = "rotation",
    coherent: bool = False,
    paired: bool = True,
    level: float = 0.95,
    rng: Rng = 0,
) -> PairSurvival:
    """Say which pairs of items stay together when units are resampled, beyond structureless data.

    k and the linkage are fixed. A pair survives where it lies in one cluster in at least `frequency` of the
    replicates (:func:`unit_stability`) and its q is at most `q`.

    Structureless cloud: X are the features of the items from all units, Δ_b = X_b − X what replicate b adds.
    A cloud keeps the units' noise and replaces the items: X* is X turned at random in the space of the items
    (:func:`structureless`, kind "rotation": mean and covariance kept exactly), and its replicates are
    X* + Δ_b, with the same draws b. That is the bootstrap of data whose item i has mean X*_i and its own
    residuals x_iu − X_i about it, so noise keeps its size in every item and its dependence between items that
    read the same units. Where the items come from one Gaussian population (of any covariance) and noise does
    not depend on where an item lies, data and clouds are exchangeable.

    p of a pair: its frequency f is reached by r pairs of the data (ties counted in). p is the share, with the
    data counted in, of clouds in which at least r pairs reach f, that is, in which the r-th highest pair
    does. q: Benjamini and Hochberg's over all pairs. ``p.any``, beside it: the share of clouds in which any
    pair reaches f; small values hold the family-wise error without regard to rank.

    p falls with rank as well as with frequency, so a pair may survive while one of higher frequency does not.
    `coherent` takes those in: all pairs at least as frequent as a survivor survive. In structureless data
    that adds no error, since something survives exactly where it did before.

    q speaks against structureless data as a whole. Where some pairs are real, the best of the others is held
    against a lower rank of the clouds, and may pass more often than `q` says: read the list of survivors as
    "there is structure here, and these pairs carry it".

    Parameters
    ----------
    units : UnitFeatures
    k : int
        Clusters, 2 to items − 1.
    method, metric : str
        single, complete, average, weighted or ward, with euclidean, sqeuclidean, cityblock, cosine,
        correlation.
    frequency, q : float
        Thresholds.
    replicates : int
        Of the frequency.
    null_sets : int, optional
        Default: as many as let a single pair among all reach `q`, between 999 and 2999.
    null_replicates : int
        Replicates a cloud; p compares them with the same first replicates of the data.
    null : {"rotation", "gaussian"}
        How X* is made; "gaussian" fits mean and covariance, which with few items is conservative.
    coherent : bool
        Whether what is more frequent than a survivor survives too. Off, each pair answers for itself.
    paired : bool
        Whether one draw of units serves all items.
    level : float
        Of the Monte-Carlo intervals.
    rng : Generator or int

    Raises
    ------
    DynstatError
        S403 for one unit; S404 arguments; S405 fewer than three items, or k outside 2 to items − 1.

    Warns
    -----
    DynstatWarning
        Too few clouds for one pair to reach `q`; replicates left out; units so many that frequencies are all
        0 or 1, so that nothing can be told from structureless data.

    Notes
    -----
    Origin: dynstat. Sources of the parts: Langsrud 2005, Stat. Comput. 15: 53-60 (rotation); Benjamini and
    Hochberg 1995, J. R. Stat. Soc. B 57: 289-300.
    """
    check_units(units)
    check_level(level)
    features = units.features()
    check_features(features, k)
    name = linkage_name(method, LINKAGES)
    for label, value in (("frequency", frequency), ("q", q)):
        if not 0 < value < 1 and not (label == "frequency" and value == 1):
            raise DynstatError("S404", f"{label} must lie between 0 and 1", found=value)
    if not 50 <= null_replicates <= replicates:
        raise DynstatError(
            "S404", "null_replicates out of range", found=null_replicates, expected=f"50 to {replicates}"
        )
    if null not in NULLS:
        raise DynstatError("S404", "unknown kind of null", found=null, expected=" | ".join(NULLS))
    m = len(features) * (len(features) - 1) // 2
    count = int(min(max(999, np.ceil(m / q)), 2999)) if null_sets is None else null_sets
    check_count("null sets", count, 99)
    generator, seed = as_generator(rng)
    raw, left_out = resampled_features(units, replicates, generator, paired=paired)
    labels = cut_many(scaled(raw, units), k, name, metric)
    b = labels.shape[0]
    used = min(null_replicates, b)
    shared = together(labels[None])[0]
    i, j = np.triu_indices(len(features), 1)
    first = together(labels[None, :used])[0][i, j] / used
    centre = replace(units, standardize=False).build()
    make = Clouds(units, centre, raw[:used] - centre, k, name, metric, null)
    spread = make.frequencies(count, generator)
    rank, p, p_any = rank_p(first, spread)
    adjusted = false_discovery(p)
    low, high = jeffreys(shared[i, j], b, level)
    seen = shared[i, j] / b
    whole = hierarchical(features, name, k=k, metric=metric)
    survives = (seen >= frequency) & (adjusted <= q)
    passed_over = 0
    if survives.any():
        above = (seen >= seen[survives].min()) & ~survives
        passed_over = 0 if coherent else int(above.sum())
        survives |= above & coherent
    table = pd.DataFrame(
        {
            "item_1": np.array(units.items, dtype=object)[i],
            "item_2": np.array(units.items, dtype=object)[j],
            "frequency": seen,
            "conf.low": low,
            "conf.high": high,
            "rank": rank,
            "null.median": np.median(spread, axis=0)[rank - 1],
            "p": p,
            "q": adjusted,
            "p.any": p_any,
            "together": whole.labels[i] == whole.labels[j],
            "survives": survives,
        }
    ).sort_values(["frequency", "rank"], ascending=[False, True], kind="stable", ignore_index=True)
    notes = _notes(count, m, q, left_out, units.unit, first, spread, frequency)
    if passed_over:
        notes.append(
            f"{passed_over} pairs are at least as frequent as a survivor and do not survive, since clouds "
            "reach that at their rank: coherent=True takes them in"
        )
    for note in notes:
        warnings.warn(note, DynstatWarning, stacklevel=2)
    n = {
        "items": len(features),
        "units": len(units.units),
        "replicates": b,
        "null_sets": count,
        "null_replicates": used,
    }
    return PairSurvival(
        whole, shared / b, table, spread, null, (frequency, q), units.unit, level, seed, n, tuple(notes)
    )


def _notes(
    clouds: int, pairs: int, q: float, left_out: int, unit: str, seen: Array, null: Array, frequency: float
) -> list[str]:
    notes = []
    if (need := int(np.ceil(pairs / (q * (1 + clouds))))) > 1:
        notes.append(
            f"{clouds} clouds let {need} pairs or more reach q = {q:g} together, fewer never; "
            f"{int(np.ceil(pairs / q)) - 1} would let one"
        )
    if left_out:
        notes.append(f"{left_out} replicates left out: an item had no {unit} in them")
    often = float(np.mean(null[:, 0] >= frequency))
    if often > 0.5 and np.any(seen >= frequency):
        notes.append(
            f"the highest pair reaches {frequency:g} in {100 * often:.0f} % of structureless clouds too: "
            "that frequency alone shows nothing here"
        )
    return notes
