"""Transition counts: one K × K table a sequence, at any lag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from .sequences import Sequences

# Steps handled at a time: index, codes and the tables they fall in stay in the second-level cache.
_CHUNK = 1 << 16


def count_transitions(sequences: Sequences, lag: int = 1) -> NDArray[np.int32]:
    """Count the transitions of every sequence.

    ``counts[s, i, j]`` is the number of t with state i at t and state j at t + lag in sequence s. Windows
    slide by one step; a transition whose start or end is a gap, or that would leave the sequence, is not
    counted. With a lag above 1 the steps between may hold a gap.

    Parameters
    ----------
    sequences : Sequences
    lag : int
        At least 1.

    Returns
    -------
    ndarray of int32, shape (n, K, K)
        Sequences of length up to `lag` have none. Sums over axis 0 are the counts of a group.

    Raises
    ------
    DynstatError
        S404 for a lag below 1.

    Examples
    --------
    >>> s = Sequences.from_lists([["low", "low", "high"], ["high", None, "low"]], states=["low", "high"])
    >>> count_transitions(s).tolist()
    [[[1, 1], [0, 0]], [[0, 0], [0, 0]]]
    >>> count_transitions(s, lag=2).sum(axis=0).tolist()
    [[0, 1], [1, 0]]
    """
    if lag != int(lag) or lag < 1:
        raise DynstatError("S404", "a lag is a whole number of steps", found=lag, expected="at least 1")
    lag = int(lag)
    n, k = len(sequences), len(sequences.states)
    out = np.zeros((n, k, k), dtype=np.int32)
    offsets, codes = sequences.offsets, sequences.codes
    # Gaps count as one more state, whose row and column are dropped: no branch per step.
    side = k + 1
    cells = side * side
    first = 0
    while first < n:
        # Whole sequences, as many as fill the chunk, one at least; few, where tables are large.
        last = int(np.searchsorted(offsets, offsets[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), n, first + max(1, (1 << 20) // cells))
        bounds = offsets[first : last + 1]
        block = codes[bounds[0] : bounds[-1]]
        if block.size:
            # The first row and column stand for the gap: codes −1 to K − 1 become 0 to K.
            index = np.multiply(block, side, dtype=np.intp)
            if block.size > lag:
                index[:-lag] += block[lag:]
            index += side + 1
            lengths = np.diff(bounds)
            ends = bounds[1:] - bounds[0]
            for back in range(1, min(lag, int(lengths.max())) + 1):
                # Starts whose end would lie in the next sequence: into the cell of gaps.
                index[ends[lengths >= back] - back] = 0
            index += np.repeat(np.arange(0, lengths.size * cells, cells, dtype=np.intp), lengths)
            table = np.bincount(index, minlength=lengths.size * cells).reshape(-1, side, side)
            out[first:last] = table[:, 1:, 1:]
        first = last
    return out
