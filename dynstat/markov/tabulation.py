"""Cut sequences into stretches without gaps, and count their transitions into stacks of tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from .sequences import Sequences

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True)
class Stretches:
    """Parts of sequences without gaps, longer than one step.

    Attributes
    ----------
    codes : ndarray of int16, shape (n, longest)
        States, −1 after the end.
    sequence, start : ndarray, shape (n,)
        The sequence a stretch belongs to, and where in it the stretch begins.
    states : int
        K.
    """

    codes: NDArray[np.int16]
    sequence: Codes
    start: Codes
    states: int

    @property
    def lengths(self) -> Codes:
        """Steps of every stretch."""
        return (self.codes >= 0).sum(axis=1)


def stretches(sequences: Sequences, order: int = 0) -> Stretches:
    """Return the stretches that hold a transition, for tests of chains.

    Raises
    ------
    DynstatError
        S406 where fewer than two states occur, or no stretch is long enough for `order`.
    """
    codes = sequences.codes
    k = len(sequences.states)
    seen = np.unique(codes[codes >= 0])
    if seen.size < 2:
        raise DynstatError(
            "S406",
            "the sequences hold fewer than two states",
            found=", ".join(sequences.states[i] for i in seen) or "none",
            expected="at least two states that occur",
        )
    of = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    real = codes >= 0
    fresh = np.concatenate([[True], of[1:] != of[:-1]])
    begins = real & (fresh | np.concatenate([[True], ~real[:-1]]))
    stretch = np.cumsum(begins) - 1
    head = np.flatnonzero(begins)
    lengths = np.bincount(stretch[real], minlength=head.size)
    keep = lengths > 1
    if lengths.max(initial=0) < order + 2:
        raise DynstatError(
            "S406",
            f"no sequence is long enough for chains of order {order + 1}",
            found=f"longest stretch without a gap: {lengths.max(initial=0)} steps",
            expected=f"at least {order + 2} steps",
        )
    place = np.cumsum(keep) - 1
    rows = real & keep[stretch]
    out = np.full((int(keep.sum()), int(lengths.max())), -1, dtype=np.int16)
    out[place[stretch[rows]], np.flatnonzero(rows) - head[stretch[rows]]] = codes[rows]
    sequence = of[head[keep]].astype(np.intp)
    return Stretches(out, sequence, (head[keep] - sequences.offsets[sequence]).astype(np.intp), k)


def tabulate(
    codes: NDArray[np.int16],
    states: int,
    *,
    outer: Codes,
    n_outer: int,
    stratum: Codes,
    n_strata: int,
    group: Codes | None = None,
    n_groups: int = 1,
    order: int = 1,
) -> Array:
    """Count windows of states into tables.

    A window (a, b, c) adds to ``out[outer, layer, row, c]``. With `group`: layer = (stratum, b),
    row = the group of the transition b → c. Without (order 0): layer = stratum, row = b. Order 1: layer =
    (stratum, b), row = a.

    Parameters
    ----------
    codes : ndarray, shape (n, T)
        Stretches, −1 after the end.
    outer, stratum : ndarray, shape (n,)
    group : ndarray, shape (n, 1) or (n, T − 1), optional
        The group of the transition from step t to t + 1.

    Returns
    -------
    ndarray of float, shape (n_outer, layers, rows, K)
    """
    c = codes.astype(np.intp)
    width = 2 if group is not None else order + 2
    windows = [c[:, i : c.shape[1] - width + 1 + i] for i in range(width)]
    real = windows[-1] >= 0
    if group is not None:
        layer, n_layers = stratum[:, None] * states + windows[0], n_strata * states
        row, rows = np.broadcast_to(group, real.shape), n_groups
    elif order == 0:
        layer, n_layers, row, rows = (
            np.broadcast_to(stratum[:, None], real.shape),
            n_strata,
            windows[0],
            states,
        )
    else:
        layer, n_layers = stratum[:, None] * states + windows[1], n_strata * states
        row, rows = windows[0], states
    flat = ((outer[:, None] * n_layers + layer) * rows + row) * states + windows[-1]
    size = n_outer * n_layers * rows * states
    counts = np.bincount(flat[real], minlength=size)
    return counts.reshape(n_outer, n_layers, rows, states).astype(np.float64)
