"""What the motif test found: counts beside every null, and the motifs that every group shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.estimate import DrawsPivot, Estimate
from ..inference.unit_interval import unit_interval
from .surrogates import NULLS
from .zero_events import shares_of_none

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class AgainstNull:
    """N-gram counts beside one null; arrays of shape (groups, motifs), draws (B, groups, motifs)."""

    name: str
    enrichment: Floats
    expected: Floats
    p: Floats
    q: Floats
    draws: Floats
    conserved: Flags
    by_chance: Floats
    conserved_draws: Flags


@dataclass(frozen=True)
class Motifs:
    """N-grams of collapsed sequences held against nulls. Made by :func:`dynstat.markov.motifs`; frozen.

    Attributes
    ----------
    groups : tuple of str
    names : tuple of str
        Motifs, ``A > B > C`` by full names.
    possible : int
        Number of possible motifs, K(K − 1)ⁿ⁻¹.
    counts : ndarray, shape (groups, motifs)
    totals : ndarray, shape (groups,)
        All n-grams of a group.
    against : mapping of str to AgainstNull
    minimum, fdr : float
        The rule for "conserved".
    conserved : tuple of str
        Motifs that pass in every group against every null.
    estimate : Estimate
        Their number.
    """

    groups: tuple[str, ...]
    names: tuple[str, ...]
    n: int
    possible: int
    counts: Floats
    totals: Floats
    against: Mapping[str, AgainstNull]
    minimum: float
    fdr: float
    level: float
    scale: str
    conserved: tuple[str, ...]
    estimate: Estimate
    _common: Mapping[str, Any]

    def enrichment(self, motif: str, group: str, null: str) -> Estimate:
        """Return one enrichment with its interval by unit.

        Raises
        ------
        DynstatError
            S407 for a motif, group or null that is not there.
        """
        for value, known in ((motif, self.names), (group, self.groups), (null, tuple(self.against))):
            if value not in known:
                raise DynstatError("S407", "not in these results", found=value, expected=" | ".join(known))
        side, g, m = self.against[null], self.groups.index(group), self.names.index(motif)
        beside = {
            "name": NULLS[null],
            "p": float(side.p[g, m]),
            "q": float(side.q[g, m]),
            "replicates": int(self._common["diagnostics"]["surrogates"]),
            "mean": 1.0,
        }
        key, draws = f"enrichment.{null}.{group}.{motif}", side.draws[:, g, m]
        if self.counts[g, m] == 0 and side.expected[g, m] > 0:
            units = int(self._common["n"]["units"])
            away = units * shares_of_none(units) / side.expected[g, m]
            return Estimate.from_pivot(
                key,
                0.0,
                DrawsPivot(tuple(away.tolist())),
                interval=f"Jeffreys limit for {units} units without the motif",
                null=beside,
                **self._common,
            )
        return unit_interval(
            key,
            float(side.enrichment[g, m]),
            draws,
            bounds=(0.0, np.inf),
            null=beside,
            **self._common,
        )

    def estimates(self) -> dict[str, Estimate]:
        """Return ``conserved``, ``conserved.<null>``, and enrichments of motifs that pass a null."""
        out = {"conserved": self.estimate}
        for name, side in self.against.items():
            out[f"conserved.{name}"] = number_conserved(
                f"conserved.{name}",
                side.conserved,
                side.conserved_draws,
                self.possible,
                null=beside_null(name, side),
                **self._common,
            )
        chosen = np.any([s.conserved for s in self.against.values()], axis=0)
        for m in np.flatnonzero(chosen):
            for null in self.against:
                for group in self.groups:
                    e = self.enrichment(self.names[m], group, null)
                    out[e.key] = e
        return out

    @cached_property
    def _table(self) -> pd.DataFrame:
        rows = []
        for null, side in self.against.items():
            for m, g in zip(*np.nonzero(((self.counts > 0) | (side.expected > 0)).T), strict=True):
                e = self.enrichment(self.names[m], self.groups[g], null)
                q = float(side.q[g, m])
                rows.append(
                    {
                        "motif": self.names[m],
                        "group": self.groups[g],
                        "null": null,
                        "count": int(self.counts[g, m]),
                        "expected": float(side.expected[g, m]),
                        "estimate": e.value,
                        "conf.low": e.low,
                        "conf.high": e.high,
                        "p.value": float(side.p[g, m]),
                        "q.value": q,
                        "enriched": bool(q <= self.fdr and e.value >= self.minimum),
                        "conserved": self.names[m] in self.conserved,
                    }
                )
        return pd.DataFrame(rows)

    def tidy(self) -> pd.DataFrame:
        """Return a row a motif, group and null: counts, enrichment with its interval, p and q, conserved."""
        return self._table.copy()

    def glance(self) -> pd.DataFrame:
        """Return one row: conserved motifs, those possible, and what they rest on."""
        e = self.estimate
        row = {"conserved": int(e.value), "conf.low": e.low, "conf.high": e.high, "possible": self.possible}
        row |= {f"conserved.{name}": int(side.conserved.sum()) for name, side in self.against.items()}
        row |= {"n": self.n, "minimum": self.minimum, "fdr": self.fdr, **self._common["n"]}
        return pd.DataFrame([row])

    def plot(self, **options: Any) -> Figure:
        """Draw the motif forest; see :func:`dynstat.plotting.motif_forest.motif_forest`.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from ..plotting.motif_forest import motif_forest

        return motif_forest(self.tidy(), minimum=self.minimum, level=self.level, **options)

    def alt_text(self, largest: int = 12) -> str:
        """Return in words and numbers what :meth:`plot` shows."""
        from ..plotting.motif_forest import alt_text

        return alt_text(self.tidy(), possible=self.possible, largest=largest)

    def __str__(self) -> str:
        e, size = self.estimate, self._common["n"]
        lines = [
            f"Motifs of {self.n} states after collapsing runs: {self.possible} possible, "
            f"{int((self.counts.sum(axis=0) > 0).sum())} seen",
            f"{size['sequences']} sequences, {size['units']} units of {e.unit}, {len(self.groups)} groups: "
            + ", ".join(f"{g} {int(t)} n-grams" for g, t in zip(self.groups, self.totals, strict=True)),
            "",
            f"Conserved (enrichment at least {self.minimum:g}, FDR {self.fdr:g}, in every group, "
            f"against every null): {int(e.value)} of {self.possible} [{e.low:.3g}, {e.high:.3g}]",
        ]
        for name, side in self.against.items():
            lines.append(
                f"  against {name} alone ({NULLS[name]}): {int(side.conserved.sum())}; by chance "
                f"{side.by_chance.mean():.2g} on average, p = {beside_null(name, side)['p']:.3g}"
            )
        for motif in self.conserved:
            m = self.names.index(motif)
            values = "; ".join(
                f"{name} {side.enrichment[:, m].min():.2f} to {side.enrichment[:, m].max():.2f}"
                for name, side in self.against.items()
            )
            lines.append(f"  {motif}: enrichment over groups {values}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def number_conserved(key: str, conserved: Flags, draws: Flags, possible: int, **rest: Any) -> Estimate:
    """Return how many motifs are conserved, with its interval by unit.

    Where neither the data nor any bootstrap sample has one, both limits are 0: a sample adds the noise of
    drawing units to that of the data, so a motif near the bar would pass in some. The limits are of the
    number that pass in data of this size, not of motifs too weak for it; `interval` says so.

    Parameters
    ----------
    conserved : ndarray of bool, shape (motifs,)
    draws : ndarray of bool, shape (B, motifs)
    possible : int
    **rest
        As :func:`dynstat.inference.unit_interval.unit_interval`.
    """
    number = draws.sum(axis=1)
    e = unit_interval(key, float(conserved.sum()), number, bounds=(0.0, float(possible)), **rest)
    some = int(np.count_nonzero(number))
    how = e.interval
    if not some and not conserved.any():
        how = f"{how}; no motif passes in any of {number.size} samples"
    return replace(e, interval=how, diagnostics={**e.diagnostics, "samples_with_one": some})


def beside_null(name: str, side: AgainstNull) -> dict[str, Any]:
    """Return the number conserved against this null alone, beside that of its own surrogates."""
    number = int(side.conserved.sum())
    return {
        "name": NULLS[name],
        "p": float((1 + np.sum(side.by_chance >= number)) / (1 + side.by_chance.size)),
        "replicates": int(side.by_chance.size),
        "mean": float(side.by_chance.mean()),
        "q95": float(np.quantile(side.by_chance, 0.95, method="higher")),
    }
