"""Motifs: n-grams of states that are more frequent than in sequences without grammar."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.adjusted import false_discovery
from ..inference.resample import Rng, as_generator
from .conserved import AgainstNull, Motifs, beside_null, number_conserved
from .labels import label_codes, unit_codes
from .ngrams import Alphabet, count_ngrams
from .sequences import Sequences
from .surrogates import NULLS, aligned, null_sequences

Floats = NDArray[np.float64]


def motifs(
    sequences: Sequences,
    n: int = 3,
    *,
    by: str | None = "model",
    unit: str = "prompt",
    nulls: Sequence[str] = ("markov", "depth"),
    minimum: float = 1.2,
    fdr: float = 0.05,
    scale: str = "count",
    within: str | None = None,
    surrogates: int = 1999,
    replicates: int = 499,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.motifs@1",
) -> Motifs:
    """Find n-grams of states that every group shows more often than sequences without grammar do.

    Runs are collapsed, so a motif has no state twice in a row: K(K − 1)ⁿ⁻¹ are possible. Enrichment is the
    observed count over its mean among surrogates, which are made before runs are collapsed and collapsed in
    the same way. p is Monte-Carlo, q by Benjamini and Hochberg over all possible motifs of a group. A motif
    is conserved where enrichment is at least `minimum` and q at most `fdr` in every group and against every
    null.

    A homogeneous chain explains n-grams by pairs of neighbours, a shuffle between sequences by a depth
    trend: neither alone shows a grammar. See :func:`dynstat.markov.null_sequences` for what each null keeps.

    Parameters
    ----------
    sequences : Sequences
    n : int
        2 to 5.
    by : str or None
        Column of the labels; None takes all sequences as one group.
    unit : str
        Column of the labels: what is drawn by the bootstrap, and what may have a chain of its own.
    nulls : sequence of str
    minimum, fdr : float
    scale : {"count", "share"}
        Whether counts are compared, or shares among the n-grams. A null with other lengths of stay has
        more or fewer n-grams in all; shares do not see that.
    within : str, optional
        See :func:`dynstat.markov.null_sequences`.
    surrogates : int
        Of each null, at least 99. With fewer than (possible motifs)/`fdr` a single motif cannot pass.
    replicates : int
        Bootstrap samples of units for the intervals, at least 19.
    level : float
    rng : Generator or int
    method : str

    Returns
    -------
    Motifs

    Raises
    ------
    DynstatError
        S404 arguments; S406 one state only, or no sequence with n states after collapsing; S407 unknown
        labels; S403 fewer than two units.

    Notes
    -----
    The interval of the number of conserved motifs draws units anew and keeps each surrogate's distribution,
    moved and stretched to the units drawn. It is of the number that pass in data of this size. Where no
    sample has one it is 0 to 0: a sample is noisier than the data, so a motif near the bar would pass in
    some. A motif that no unit shows in some group cannot be drawn; its enrichment has a limit of its own.
    """
    checks = (
        ("n", n, 2 <= n <= 5 and n == int(n), "2 to 5"),
        ("scale", scale, scale in ("count", "share"), "count | share"),
        ("nulls", nulls, bool(nulls) and set(nulls) <= set(NULLS), " | ".join(NULLS)),
        ("surrogates", surrogates, surrogates >= 99, "at least 99"),
        ("replicates", replicates, replicates >= 19, "at least 19"),
        ("minimum", minimum, minimum > 0, "above 0"),
        ("fdr", fdr, 0 < fdr < 1, "between 0 and 1"),
    )
    for argument, value, fine, wanted in checks:
        if not fine:
            raise DynstatError("S404", f"{argument} outside its range", found=value, expected=wanted)
    k = len(sequences.states)
    codes = aligned(sequences)
    if np.unique(codes[codes >= 0]).size < 2:
        raise DynstatError("S406", "the sequences hold one state only", found=", ".join(sequences.states))
    alphabet = Alphabet.of(codes, k, n)
    of_group, groups = label_codes(sequences, by)
    resampler = unit_codes(sequences, unit)
    # Cells in order of groups, so that groups are slices.
    pair, cell = np.unique(of_group * resampler.n_units + resampler.units, return_inverse=True)
    cell_unit, starts = (
        pair % resampler.n_units,
        np.searchsorted(pair // resampler.n_units, range(len(groups))),
    )
    observed = count_ngrams(codes[None], alphabet, cell, pair.size)[0].astype(np.float64)
    totals = np.add.reduceat(observed, starts, axis=0)
    if not totals[:, -1].any():
        raise DynstatError(
            "S406",
            f"no sequence has {n} states in a row after runs are collapsed",
            mend="a smaller n, or longer sequences",
        )
    if len(groups) == 1:
        _warn("one group only: that a motif is conserved in every group says no more than in this one")
    if bare := [g for g, t in zip(groups, totals[:, -1], strict=True) if not t]:
        _warn(f"groups without any {n}-gram, in which nothing can be conserved: {', '.join(bare)}")
    if (surrogates + 1) * fdr < alphabet.possible:
        _warn(
            f"{surrogates} surrogates cannot show a single motif out of {alphabet.possible} at FDR {fdr:g}; "
            f"at least {int(np.ceil(alphabet.possible / fdr)) - 1} are needed"
        )
    generator, seed = as_generator(rng)
    weights = resampler.weights(replicates, generator)[:, cell_unit].astype(np.float64)
    against = {}
    for null in dict.fromkeys(nulls):
        drawn = null_sequences(sequences, null, surrogates, by=by, unit=unit, within=within, rng=generator)
        tally = _Tally(alphabet, cell, pair.size, starts)
        for block in drawn:
            tally.add(block)
        against[null] = _compare(
            null, observed, totals, tally, weights, starts, minimum, fdr, alphabet.possible, scale
        )
    names = tuple(" > ".join(sequences.states[int(c)] for c in g) for g in alphabet.codes)
    common: dict[str, Any] = {
        "level": level,
        "method": method,
        "unit": unit,
        "n": {"sequences": len(sequences), "units": resampler.n_units, "groups": len(groups)},
        "seed": seed,
        "target": "panel",
        "diagnostics": {"surrogates": surrogates, "possible": alphabet.possible, "scale": scale},
    }
    every = np.all([s.conserved for s in against.values()], axis=0)
    draws = np.all([s.conserved_draws for s in against.values()], axis=0)
    worst = max((beside_null(name, s) for name, s in against.items()), key=lambda b: float(b["p"]))
    estimate = number_conserved("conserved", every, draws, alphabet.possible, null=worst, **common)
    return Motifs(
        tuple(groups),
        names,
        n,
        alphabet.possible,
        totals[:, :-1],
        totals[:, -1],
        against,
        minimum,
        fdr,
        level,
        scale,
        tuple(names[m] for m in np.flatnonzero(every)),
        estimate,
        common,
    )


def _warn(text: str) -> None:
    warnings.warn(text, DynstatWarning, stacklevel=3)


class _Tally:
    """Counts of surrogates: by group for each, mean and variance by cell."""

    def __init__(
        self, alphabet: Alphabet, cell: NDArray[np.intp], cells: int, starts: NDArray[np.intp]
    ) -> None:
        self.alphabet, self.cell, self.cells, self.starts = alphabet, cell, cells, starts
        self.rows: list[Floats] = []
        self.sum = np.zeros((cells, len(alphabet.codes) + 1))
        self.squares = np.zeros_like(self.sum)

    def add(self, block: NDArray[np.int8]) -> None:
        counts = count_ngrams(block, self.alphabet, self.cell, self.cells)
        self.rows.append(np.add.reduceat(counts, self.starts, axis=1).astype(np.float64))
        self.sum += counts.sum(axis=0)
        self.squares += np.einsum("rcm,rcm->cm", counts, counts)

    def finish(self) -> tuple[Floats, Floats, Floats]:
        """Return counts (R, groups, M + 1), and mean and variance by cell."""
        rows = np.concatenate(self.rows)
        mean = self.sum / len(rows)
        return rows, mean, np.maximum(self.squares / len(rows) - mean**2, 0.0)


def _compare(
    name: str,
    observed: Floats,
    totals: Floats,
    tally: _Tally,
    weights: Floats,
    starts: NDArray[np.intp],
    minimum: float,
    fdr: float,
    possible: int,
    scale: str,
) -> AgainstNull:
    rows, mean, variance = tally.finish()
    expected = rows.mean(axis=0)
    # Data and surrogates in one table: the p of each is its rank among all.
    table = np.concatenate([totals[None], rows])
    statistic = _statistic(table, scale)
    center = _statistic(expected[None], scale)[0]
    ordered = np.sort(statistic, axis=0)
    p = np.empty_like(statistic)
    size = len(statistic)
    for g, m in np.ndindex(*center.shape):
        p[:, g, m] = (size - np.searchsorted(ordered[:, g, m], statistic[:, g, m])) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = statistic / center
        q = false_discovery(p, possible)
        passing = np.all((q <= fdr) & (ratio >= minimum), axis=1)
        # The same on bootstrap samples: the null's shape, its centre and spread from the units drawn.
        bounds = [*starts, len(observed)]
        shape = (len(weights), *center.shape)
        drawn, passed = np.empty(shape), np.empty(shape, dtype=np.bool_)
        sd = statistic[1:].std(axis=0)
        for g, (a, b) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            w = weights[:, a:b]
            seen = _statistic((w @ observed[a:b])[:, None], scale)[:, 0]
            wanted = w @ mean[a:b]
            middle = _statistic(wanted[:, None], scale)[:, 0]
            grown = np.sqrt((w @ variance[a:b])[:, :-1] / variance[a:b].sum(axis=0)[:-1])
            if scale == "share":
                grown /= wanted[:, -1:] / mean[a:b].sum(axis=0)[-1]
            drawn[:, g] = seen / middle
            score = (seen - middle) / (grown * sd[g])
            score = np.where(np.isnan(score), -np.inf, score)
            p_drawn = np.ones_like(score)
            for m in np.flatnonzero(sd[g] > 0):
                null = (ordered[:, g, m] - center[g, m]) / sd[g, m]
                above = size - np.searchsorted(null, score[:, m] - 1e-9)
                p_drawn[:, m] = np.maximum(above, 1) / size
            passed[:, g] = (false_discovery(p_drawn, possible) <= fdr) & (drawn[:, g] >= minimum)
    return AgainstNull(
        name,
        ratio[0],
        expected[:, :-1],
        p[0],
        q[0],
        drawn,
        passing[0],
        passing[1:].sum(axis=1).astype(np.float64),
        np.asarray(np.all(passed, axis=1)),
    )


def _statistic(counts: Floats, scale: str) -> Floats:
    """Return counts without the total, or their shares of it."""
    if scale == "count":
        return counts[..., :-1]
    return np.asarray(counts[..., :-1] / np.maximum(counts[..., -1:], 1e-300))
