"""Sequences made under the null of a test: drawn from a chain, or shuffled with what it fixes kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int16]


def draw_chain(
    matrices: Array, starts: NDArray[np.intp], lengths: NDArray[np.intp], rng: np.random.Generator
) -> Codes:
    """Draw first-order chains of given starts and lengths.

    Parameters
    ----------
    matrices : ndarray, shape (n, K, K) or (K, K)
        Transition matrix of every sequence. Rows without counts must still sum to 1.
    starts, lengths : ndarray, shape (n,)

    Returns
    -------
    ndarray of int16, shape (n, longest)
        Filled with −1.
    """
    n, longest = starts.size, int(lengths.max())
    # The last limit, 1, is left out: rounding never runs over the last state.
    limits = np.cumsum(matrices, axis=-1)[..., :-1]
    out = np.full((n, longest), -1, dtype=np.int16)
    out[:, 0] = starts
    now = starts.astype(np.intp)
    every = np.arange(n)
    for t in range(1, longest):
        row = limits[now] if limits.ndim == 2 else limits[every, now]
        now = (rng.random(n)[:, None] >= row).sum(axis=1)
        out[:, t] = now
    out[np.arange(longest)[None, :] >= lengths[:, None]] = -1
    return out


def shuffle_states(padded: Codes, rng: np.random.Generator) -> Codes:
    """Permute the states of every sequence after its first: exact null of independent states.

    Every sequence may have shares of its own, and begin as it likes.

    Parameters
    ----------
    padded : ndarray, shape (n, T)
        One stretch without gaps a row, filled with −1 at its end.
    """
    keys = rng.random(padded.shape, dtype=np.float32)
    keys[padded < 0] = 2.0
    keys[:, 0] = -1.0
    return np.take_along_axis(padded, np.argsort(keys, axis=1), axis=1)


def shuffle_transitions(padded: Codes, states: int, rng: np.random.Generator) -> Codes:
    """Shuffle every sequence so that its transition counts, first and last state stay as they are.

    Uniform over all sequences with these counts: an exact null of the first-order chain in which every
    sequence may have a transition matrix of its own. The last exits of the states form a random tree that
    leads to the last state (cycle popping), all other exits follow in random order.

    Parameters
    ----------
    padded : ndarray, shape (n, T)
        One stretch without gaps a row, filled with −1 at its end; at least one state a row.
    states : int
        K.

    Notes
    -----
    Sources: Altschul and Erickson 1985, Mol. Biol. Evol. 2: 526-538; Propp and Wilson 1998,
    J. Algorithms 27: 170-217; Besag and Mondal 2013, Biometrics 69: 488-496.
    """
    n, longest = padded.shape
    lengths = (padded >= 0).sum(axis=1)
    every = np.arange(n)
    last = padded[every, lengths - 1].astype(np.intp)
    here, there = padded[:, :-1].astype(np.intp), padded[:, 1:].astype(np.intp)
    real = there >= 0
    row = np.broadcast_to(every[:, None], here.shape)
    flat = (row[real] * states + here[real]) * states + there[real]
    left = np.bincount(flat, minlength=n * states * states).reshape(n, states, states)
    exits = _last_exits(left, last, rng)
    i, v = np.nonzero(exits != np.arange(states))
    left[i, v, exits[i, v]] -= 1
    remaining = left.sum(axis=2)
    out = np.full((n, longest), -1, dtype=np.int16)
    now = padded[:, 0].astype(np.intp)
    out[:, 0] = now
    for t in range(1, longest):
        limits = np.cumsum(left[every, now], axis=1)
        drawn = (rng.random(n) * limits[:, -1])[:, None] >= limits[:, :-1]
        plain = remaining[every, now] > 0
        # The exit kept for the end comes when no other is left.
        following = np.where(plain, drawn.sum(axis=1), exits[every, now])
        alive = t < lengths
        used = alive & plain
        left[every[used], now[used], following[used]] -= 1
        remaining[every[used], now[used]] -= 1
        now = np.where(alive, following, now)
        out[alive, t] = now[alive]
    return out


def _last_exits(
    counts: NDArray[np.intp], root: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return where every state's last exit leads, a random tree to the root; a state without one stays.

    A tree's chance is proportional to the product of its counts. Cycle popping: point every state somewhere
    by its counts, then point all states on a cycle anew until there is none.
    """
    n, k, _ = counts.shape
    weights = counts.astype(np.float64)
    weights[:, np.arange(k), np.arange(k)] = 0.0
    weights[np.arange(n), root] = 0.0
    limits = np.cumsum(weights, axis=2)
    own = np.arange(k)
    exits = np.where(limits[:, :, -1] > 0, _pick(limits, rng.random((n, k))), own)
    pending = np.arange(n)
    while pending.size:
        here = exits[pending]
        at, on_cycle = here, np.zeros(here.shape, dtype=bool)
        for _ in range(k - 1):
            at = np.take_along_axis(here, at, axis=1)
            on_cycle |= at == own
        on_cycle &= here != own
        rows, v = np.nonzero(on_cycle)
        exits[pending[rows], v] = _pick(limits[pending[rows], v], rng.random(rows.size))
        pending = pending[on_cycle.any(axis=1)]
    return exits


def _pick(limits: Array, u: Array) -> NDArray[np.intp]:
    return (u[..., None] * limits[..., -1:] >= limits[..., :-1]).sum(axis=-1)
