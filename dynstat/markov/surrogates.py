"""Sequences without grammar, made from the observed ones: the nulls of motifs, first visits and dwell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError
from ..inference.resample import Rng, as_generator
from .labels import label_codes
from .null_chains import shuffle_transitions
from .sequences import Sequences

Codes = NDArray[np.int8]
Floats = NDArray[np.float64]

# What each null says; the words stand in results and figures.
NULLS = {
    "markov": "first-order Markov chain of every unit, shrunk towards its group",
    "markov_group": "one first-order Markov chain a group",
    "markov_shuffle": "shuffle within a sequence that keeps its transition counts",
    "depth": "shuffle between sequences that keeps occupancy by position and the states of each sequence",
    "depth_pooled": "shuffle between sequences that keeps occupancy by position alone",
    "depth_markov": "exchange of continuations that keeps transition counts by position",
}
_BLOCK_CELLS = 1 << 19
_SWEEPS = 24


def null_sequences(
    sequences: Sequences,
    null: str = "markov",
    surrogates: int = 999,
    *,
    by: str | None = "model",
    unit: str = "prompt",
    within: str | None = None,
    rng: Rng = 0,
) -> Iterator[Codes]:
    """Yield blocks of surrogate sequences that keep some of the data's order and lose the rest.

    ================  ===============================================  =====================================
    null              keeps                                            exact where
    ================  ===============================================  =====================================
    markov            first state of a sequence; tendencies of a unit  (simulated) units have chains of
                                                                       their own, rows Dirichlet round the
                                                                       group's
    markov_group      first state of a sequence; transitions of the    (simulated) all sequences of a group
                      group on average                                 share one chain
    markov_shuffle    first state, last state and transition counts    every sequence is first-order Markov,
                      of every sequence                                each with its own chain
    depth             occupancy at every position; how often each      states are independent given position
                      sequence is in each state                        and sequence: log p = position +
                                                                       sequence, for each state
    depth_pooled      occupancy at every position                      sequences of a group are exchangeable
                                                                       and have no order at all
    depth_markov      transition counts at every position              a group shares one first-order chain
                                                                       whose matrix changes with position
    ================  ===============================================  =====================================

    Groups are handled apart. Gaps stay where they are. Positions are counted from the start of the
    sequence; by layer they are the layers.

    Parameters
    ----------
    sequences : Sequences
    null : str
    surrogates : int
    by, unit : str
        Columns of the labels; `by` None takes all sequences as one.
    within : str, optional
        Of the depth nulls: states are exchanged only between sequences with the same label here.
    rng : Generator or int

    Yields
    ------
    ndarray of int8, shape (block, n, T)
        −1 where the data have no state. Blocks sum to `surrogates`.

    Raises
    ------
    DynstatError
        S404 for an unknown null or fewer than one surrogate; S406 without a state; S407 for an unknown
        column.

    Notes
    -----
    "depth" exchanges states between pairs of sequences (Strona et al. 2014, Nature Communications 5: 4114),
    backward from the data and then forward for every surrogate, which makes Monte-Carlo p exact however far
    it mixes (Besag and Clifford 1989, Biometrika 76: 633-642).
    """
    if null not in NULLS:
        raise DynstatError("S404", "unknown null", found=null, expected=" | ".join(NULLS))
    if surrogates < 1:
        raise DynstatError("S404", "too few surrogates", found=surrogates, expected="at least 1")
    generator, _ = as_generator(rng)
    codes = aligned(sequences)
    groups = label_codes(sequences, by)[0]
    units = label_codes(sequences, unit)[0]
    strata = label_codes(sequences, within)[0]
    makers = [
        (rows, maker(null, codes[rows], len(sequences.states), units[rows], strata[rows], generator))
        for rows in (np.flatnonzero(groups == g) for g in range(int(groups.max(initial=-1)) + 1))
    ]
    for size in blocks(surrogates, codes.size):
        out = np.full((size, *codes.shape), -1, dtype=np.int8)
        for rows, make in makers:
            out[:, rows] = make(size)
        yield out


def blocks(surrogates: int, cells: int) -> list[int]:
    """Return sizes of blocks that sum to `surrogates` and hold a bounded number of cells each."""
    size = max(1, min(surrogates, _BLOCK_CELLS // max(cells, 1)))
    full, rest = divmod(surrogates, size)
    return [size] * full + [rest] * (rest > 0)


def aligned(sequences: Sequences) -> Codes:
    """Return padded codes whose column is the position: from the start, or the layer; shape (n, T).

    S406 where no sequence holds a state.
    """
    if len(sequences.states) > 127:
        raise DynstatError("S404", "too many states", found=len(sequences.states), expected="at most 127")
    if not (sequences.codes >= 0).any():
        raise DynstatError(
            "S406", "the sequences hold no state", found=f"{len(sequences)} sequences, gaps alone"
        )
    codes = sequences.padded().astype(np.int8)
    if sequences.axis != "layer" or "start" not in sequences.labels:
        return codes
    start = sequences.labels["start"].to_numpy()
    if start.dtype.kind not in "iu" or start.min() == start.max():
        return codes
    shift = (start - start.min()).astype(np.intp)
    out = np.full((len(codes), int((shift + sequences.lengths).max())), -1, dtype=np.int8)
    rows, at = np.nonzero(codes >= 0)
    out[rows, at + shift[rows]] = codes[rows, at]
    return out


def maker(
    null: str,
    codes: Codes,
    k: int,
    units: NDArray[np.intp],
    strata: NDArray[np.intp],
    rng: np.random.Generator,
) -> Callable[[int], Codes]:
    """Return a function of a number of surrogates that gives surrogates of one group, (surrogates, n, T)."""
    if null in ("markov", "markov_group"):
        local = np.zeros(len(codes), dtype=np.intp)
        if null == "markov":
            local = np.unique(units, return_inverse=True)[1].astype(np.intp)
        tables = _tables(codes, k, local)
        shape = dirichlet_concentration(tables) if null == "markov" else np.full(k, np.inf)
        return lambda size: _simulated(codes, tables, shape, local, size, rng)
    if null == "markov_shuffle":
        return lambda size: _same_transitions(codes, k, size, rng)
    if null == "depth_pooled":
        return lambda size: _by_position(codes, strata, size, rng)
    if null == "depth_markov":
        return lambda size: _exchanged(codes, strata, k, size, rng)
    return _Swaps(codes, strata, k, rng).draw


def _tables(codes: Codes, k: int, units: NDArray[np.intp]) -> Floats:
    """Return transition counts by unit, shape (U, K, K)."""
    a, b = codes[:, :-1], codes[:, 1:]
    rows, at = np.nonzero((a >= 0) & (b >= 0))
    n = int(units.max(initial=-1)) + 1
    index = (units[rows] * k + a[rows, at]) * k + b[rows, at]
    return np.bincount(index, minlength=n * k * k).reshape(n, k, k).astype(np.float64)


def dirichlet_concentration(tables: Floats) -> Floats:
    """Fit how alike units are: the concentration of a Dirichlet round the pooled row, by state.

    The maximum of the Dirichlet-multinomial likelihood of the units' counts over a grid from 0.3 to 1,000,
    the mean held at the pooled proportions; infinite where the grid's end is no worse than any other value.

    Parameters
    ----------
    tables : ndarray, shape (U, K, K)

    Returns
    -------
    ndarray, shape (K,)
    """
    grid = np.concatenate([np.geomspace(0.3, 1000.0, 36), [1e9]])
    total = tables.sum(axis=0)
    out = np.full(len(total), np.inf)
    for i, row in enumerate(total):
        support = row > 0
        if support.sum() < 2:
            continue
        n = tables[:, i][:, support]
        alpha = grid[:, None] * (row[support] / row.sum())
        value = special.gammaln(grid)[:, None] - special.gammaln(grid[:, None] + n.sum(axis=1))
        value = value.sum(axis=1)
        value += (special.gammaln(alpha[:, None] + n) - special.gammaln(alpha[:, None])).sum(axis=(1, 2))
        # Digits are lost in the differences at 1e9; the multinomial itself is the limit.
        value[-1] = (n * np.log(row[support] / row.sum())).sum()
        best = int(np.argmax(value))
        out[i] = np.inf if best == grid.size - 1 else grid[best]
    return out


def _simulated(
    codes: Codes,
    tables: Floats,
    concentration: Floats,
    units: NDArray[np.intp],
    size: int,
    rng: np.random.Generator,
) -> Codes:
    k = tables.shape[1]
    total = tables.sum(axis=0)
    left = total.sum(axis=1) > 0
    # A state that is never left is stayed in.
    pooled = np.where(left[:, None], total / np.maximum(total.sum(axis=1, keepdims=True), 1), np.eye(k))
    if np.isinf(concentration).all():
        matrix = np.broadcast_to(pooled, (size, len(tables), k, k))
    else:
        alpha = np.where(np.isfinite(concentration), concentration, 1.0)[:, None] * pooled + tables
        drawn = rng.standard_gamma(np.broadcast_to(alpha, (size, *alpha.shape)))
        drawn /= np.maximum(drawn.sum(axis=-1, keepdims=True), 1e-300)
        fixed = np.isinf(concentration)[:, None] | (drawn.sum(axis=-1, keepdims=True) < 0.5)
        matrix = np.where(fixed, pooled, drawn)
    # The last bound is left out, so that rounding never runs over the last state.
    bounds = np.cumsum(matrix, axis=-1).reshape(-1, k)[:, :-1]
    row_of = (np.arange(size)[:, None] * len(tables) + units) * k
    out = np.repeat(codes[None], size, axis=0)
    for t in range(1, codes.shape[1]):
        moves = np.flatnonzero((codes[:, t] >= 0) & (codes[:, t - 1] >= 0))
        now = out[:, moves, t - 1]
        u = rng.random(now.shape)
        limits = bounds[row_of[:, moves] + now]
        out[:, moves, t] = (u[..., None] >= limits).sum(axis=-1)
    return out


def _same_transitions(codes: Codes, k: int, size: int, rng: np.random.Generator) -> Codes:
    """Shuffle every stretch between gaps so that its transition counts and its ends stay."""
    out = np.repeat(codes[None], size, axis=0)
    valid = codes >= 0
    heads = valid & ~np.concatenate([np.zeros((len(codes), 1), dtype=np.bool_), valid[:, :-1]], axis=1)
    if not heads.any():
        return out
    row, at = np.nonzero(valid)
    owner = (np.cumsum(heads.ravel()).reshape(heads.shape) - 1)[row, at]
    step = at - np.nonzero(heads)[1][owner]
    pieces = np.full((int(owner[-1]) + 1, int(step.max()) + 1), -1, dtype=np.int16)
    pieces[owner, step] = codes[row, at]
    drawn = shuffle_transitions(np.tile(pieces, (size, 1)), k, rng).reshape(size, *pieces.shape)
    out[:, row, at] = drawn[:, owner, step]
    return out


def _by_position(codes: Codes, strata: NDArray[np.intp], size: int, rng: np.random.Generator) -> Codes:
    out = np.repeat(codes[None], size, axis=0)
    for s in np.unique(strata):
        for t in range(codes.shape[1]):
            rows = np.flatnonzero((strata == s) & (codes[:, t] >= 0))
            if rows.size > 1:
                out[:, rows, t] = rng.permuted(out[:, rows, t], axis=1)
    return out


class _Swaps:
    """Exchanges of states between pairs of sequences: columns and rows stay the same multisets.

    Which sequences meet at which step is drawn once. The data are carried through the steps backward, and
    surrogates from there forward: then data and surrogates are exchangeable, however few the steps.
    """

    def __init__(self, codes: Codes, strata: NDArray[np.intp], k: int, rng: np.random.Generator) -> None:
        self.k, self.rng = k, rng
        n, length = codes.shape
        self.steps: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp] | None]] = []
        for step in range(_SWEEPS):
            order = rng.permutation(n)
            order = order[np.argsort(strata[order], kind="stable")][int(rng.integers(2)) :]
            first, second = order[: order.size - 1 : 2], order[1::2]
            same = strata[first] == strata[second]
            first, second = first[same], second[same]
            three = None
            if step % 4 == 3 and length > 2:
                three = np.argsort(rng.random((first.size, length)), axis=1)[:, :3]
            self.steps.append((first, second, three))
        self.root = codes[None].copy()
        for one in reversed(self.steps):
            self._take(self.root, *one)

    def draw(self, size: int) -> Codes:
        x = np.repeat(self.root, size, axis=0)
        for one in self.steps:
            self._take(x, *one)
        return x

    def _take(
        self, x: Codes, first: NDArray[np.intp], second: NDArray[np.intp], three: NDArray[np.intp] | None
    ) -> None:
        if three is not None:
            # Three positions at which both hold the same three states may be exchanged as a whole.
            a, b = x[:, first[:, None], three], x[:, second[:, None], three]
            fine = (a >= 0).all(axis=2) & (np.sort(a, axis=2) == np.sort(b, axis=2)).all(axis=2)
            fine &= self.rng.random(fine.shape) < 0.5
            x[:, first[:, None], three] = np.where(fine[..., None], b, a)
            x[:, second[:, None], three] = np.where(fine[..., None], a, b)
            return
        a, b = x[:, first], x[:, second]
        differ = (a >= 0) & (b >= 0) & (a != b)
        low, high = np.minimum(a, b), np.maximum(a, b)
        # Positions at which the pair holds the same two states may trade places freely.
        keys = np.where(differ, low.astype(np.intp) * self.k + high, self.k * self.k)
        turned = _shuffle_within(keys, a > b, self.rng)
        x[:, first] = np.where(differ, np.where(turned, high, low), a)
        x[:, second] = np.where(differ, np.where(turned, low, high), b)


def _exchanged(codes: Codes, strata: NDArray[np.intp], k: int, size: int, rng: np.random.Generator) -> Codes:
    """Exchange what follows between sequences that are in the same state at the same position."""
    n, length = codes.shape
    donor = np.repeat(np.arange(n)[None], size, axis=0)
    out = np.repeat(codes[None], size, axis=0)
    ends = codes.shape[1] - (codes[:, ::-1] >= 0).argmax(axis=1)
    for t in range(1, length):
        # The state before t, as followed so far; sequences that have ended, or are in a gap, keep apart.
        before = codes[donor, t - 1].astype(np.intp)
        keys = strata[donor] * (k + 1) + before + 1
        alive = (before >= 0) & (ends[donor] > t)
        apart = (int(strata.max()) + 1) * (k + 1) + np.arange(n)
        donor = _shuffle_within(np.where(alive, keys, apart), donor, rng)
        out[:, :, t] = codes[donor, t]
    return out


def _shuffle_within(keys: NDArray[np.intp], values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Permute `values` along the last axis among equal `keys`."""
    there = np.argsort(keys, axis=-1, kind="stable")
    drawn = np.argsort(keys + rng.random(keys.shape), axis=-1)
    out = np.empty_like(values)
    np.put_along_axis(out, there, np.take_along_axis(values, drawn, axis=-1), axis=-1)
    return out
