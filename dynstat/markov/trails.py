"""Shuffle a sequence so that its transition counts stay: every such sequence is equally likely."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]
Indices = NDArray[np.intp]


def shuffle_trails(codes: Codes, k: int, size: int, rng: np.random.Generator) -> Codes:
    """Draw sequences with the same first state and the same transition counts, all equally likely.

    Changes of state and stays are drawn apart. The changes are a trail: all orders of the exits of every
    state are equally likely, and orders that do not use every exit are drawn again (Kandel, Matias, Unger and
    Winkler 1996, Discrete Applied Mathematics 71: 171-185). The steps spent staying in a state are then dealt
    to its visits, every split equally likely.

    Parameters
    ----------
    codes : ndarray of int8, shape (n, T)
        −1 is a gap: the parts between gaps are shuffled apart, and stay where they are.
    k : int
        Number of states.
    size : int
    rng : Generator

    Returns
    -------
    ndarray of int8, shape (size, n, T)
    """
    n, length = codes.shape
    out = np.repeat(codes[None], size, axis=0)
    valid = codes >= 0
    if length < 3 or not valid.any():
        return out
    heads = valid & ~np.concatenate([np.zeros((n, 1), dtype=np.bool_), valid[:, :-1]], axis=1)
    row, start = np.nonzero(heads)
    part = np.cumsum(heads.ravel()).reshape(heads.shape) - 1
    at_row, at = np.nonzero(valid)
    owner = part[at_row, at]
    pieces = np.full((row.size, length), -1, dtype=np.int8)
    pieces[owner, at - start[owner]] = codes[at_row, at]
    drawn = _shuffled(pieces, k, size, rng)
    out[:, at_row, at] = drawn[:, owner, at - start[owner]]
    return out


def shuffle_within(keys: Indices, values: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Permute `values` along the last axis among equal `keys`."""
    there = np.argsort(keys, axis=-1, kind="stable")
    drawn = np.argsort(keys + rng.random(keys.shape), axis=-1)
    out = np.empty_like(values)
    np.put_along_axis(out, there, np.take_along_axis(values, drawn, axis=-1), axis=-1)
    return out


def _shuffled(pieces: Codes, k: int, size: int, rng: np.random.Generator) -> Codes:
    """Shuffle sequences that start in column 0 and hold no gap."""
    n, length = pieces.shape
    lengths = (pieces >= 0).sum(axis=1)
    new = np.concatenate([pieces[:, :1] >= 0, pieces[:, 1:] != pieces[:, :-1]], axis=1) & (pieces >= 0)
    visits = new.sum(axis=1)
    row, at = np.nonzero(new)
    walk = np.full((n, int(visits.max())), k, dtype=np.intp)
    walk[row, (np.cumsum(new, axis=1) - 1)[row, at]] = pieces[row, at]
    walks = _trails(walk, visits, k, size, rng).reshape(size * n, -1)
    stays = _stays(pieces, new, walks, k, size, rng)
    # Every visit is repeated as often as it lasts; the rest of the row is padding.
    flat = np.repeat(walks.ravel(), stays.ravel())
    out = np.full((size, n, length), -1, dtype=np.int8)
    out[np.broadcast_to(np.arange(length) < lengths[:, None], out.shape)] = flat
    return out


def _trails(walk: Indices, visits: Indices, k: int, size: int, rng: np.random.Generator) -> Indices:
    """Draw orders of visits with the same changes; `k` pads."""
    n, longest = walk.shape
    out = np.repeat(walk[None], size, axis=0).reshape(-1, longest)
    if longest < 3:
        return out
    inside = np.arange(longest - 1) < visits[:, None] - 1
    source = np.where(inside, walk[:, :-1], k)
    exits_of = (source[:, :, None] == np.arange(k + 1)).sum(axis=1)
    offset = np.cumsum(exits_of, axis=1) - exits_of
    by_source = np.argsort(source, axis=1, kind="stable")
    source = np.take_along_axis(source, by_source, axis=1)
    target = np.take_along_axis(walk[:, 1:], by_source, axis=1)
    pending = np.arange(size * n)
    while pending.size:
        which = pending % n
        drawn = np.argsort(source[which] + rng.random((pending.size, longest - 1)), axis=1)
        exits = np.take_along_axis(target[which], drawn, axis=1)
        used = np.zeros((pending.size, k + 1), dtype=np.intp)
        path = walk[which]
        rows = np.arange(pending.size)
        whole = np.ones(pending.size, dtype=np.bool_)
        for t in range(longest - 1):
            moving = inside[which, t]
            now = path[:, t]
            left = used[rows, now] < exits_of[which, now]
            whole &= left | ~moving
            moving = moving & left
            place = np.minimum(offset[which, now] + used[rows, now], longest - 2)
            path[:, t + 1] = np.where(moving, exits[rows, place], path[:, t + 1])
            used[rows, now] += moving
        out[pending[whole]] = path[whole]
        pending = pending[~whole]
    return out


def _stays(
    pieces: Codes, new: NDArray[np.bool_], walks: Indices, k: int, size: int, rng: np.random.Generator
) -> Indices:
    """Return how long every visit lasts, 0 for padding: the further steps of a state dealt to its visits."""
    n = len(pieces)
    # Stars (further steps) and bars (boundaries between visits) of each state, in one line a sequence.
    one = (pieces[:, :, None] == np.arange(k)).astype(np.intp)
    seen = (one * new[:, :, None]).sum(axis=1)
    bars, stars = np.maximum(seen - 1, 0), one.sum(axis=1) - seen
    per = bars + stars
    longest = int(per.sum(axis=1).max())
    lasts = (walks < k).astype(np.intp)
    if not longest:
        return lasts
    ends = np.cumsum(per, axis=1)
    place = np.arange(longest)
    state = (place[None, :, None] >= ends[:, None, :]).sum(axis=2)
    padded = np.concatenate([ends - per, ends[:, -1:]], axis=1)
    within = place - np.take_along_axis(padded, state, axis=1)
    is_bar = within < np.take_along_axis(np.concatenate([bars, np.zeros((n, 1), dtype=np.intp)], 1), state, 1)
    keys = np.repeat(state[None], size, axis=0).reshape(-1, longest)
    bar = shuffle_within(keys, np.repeat(is_bar[None], size, axis=0).reshape(-1, longest), rng)
    before = np.cumsum(bar, axis=1)
    # Bars of the states before: their number does not change with the shuffle.
    earlier = np.concatenate([np.zeros((n, 1), dtype=np.intp), np.cumsum(bars, axis=1)], axis=1)
    ordinal = before - np.tile(np.take_along_axis(earlier, state, axis=1), (size, 1))
    rows, at = np.nonzero((keys < k) & ~bar)
    # The j-th visit of a state, as a column of the walk.
    by_state = np.argsort(walks, axis=1, kind="stable")
    first = np.tile(np.cumsum(seen, axis=1) - seen, (size, 1))
    s = keys[rows, at]
    column = by_state[rows, first[rows, s] + ordinal[rows, at]]
    np.add.at(lasts, (rows, column), 1)
    return lasts
