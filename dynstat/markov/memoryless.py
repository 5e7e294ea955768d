"""The memoryless two-state chain: fitted, simulated, and the test for dependence on duration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .competing import incidence
from .spells import END_OF_TEXT, REOPENED, Spells

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Replicates are worked in blocks of about this many cells.
_BLOCK = 400_000


@dataclass(frozen=True)
class Memoryless:
    """Rates of a memoryless two-state chain with end of text, a value a group of runs.

    Attributes
    ----------
    leave, end_inside : ndarray, shape (groups,)
        Chance a step to leave the state, and to reach end of text inside it.
    enter, end_outside : ndarray, shape (groups,)
        The same from outside.
    """

    leave: Floats
    end_inside: Floats
    enter: Floats
    end_outside: Floats


def fit_memoryless(spells: Spells, group: NDArray[np.intp], groups: int) -> Memoryless:
    """Fit the chain by maximum likelihood: events over steps, a group of runs at a time.

    Parameters
    ----------
    spells : Spells
    group : ndarray of int, shape (runs,)
    groups : int
    """
    filled = _carried(spells.inside)
    now, after = filled[:, :-1], filled[:, 1:]
    last = np.where(filled >= 0, np.arange(filled.shape[1]), -1).max(axis=1)
    at_end = filled[np.arange(len(filled)), last]

    def by_group(x: NDArray[np.bool_]) -> Floats:
        return np.bincount(group, x.sum(axis=1) if x.ndim == 2 else x, minlength=groups).astype(np.float64)

    def rates(here: int) -> tuple[Floats, Floats]:
        ends = by_group(spells.ended & (at_end == here))
        steps = by_group((now == here) & (after >= 0)) + ends
        moves = by_group((now == here) & (after == 1 - here))
        with np.errstate(invalid="ignore", divide="ignore"):
            return tuple(np.where(steps > 0, x / steps, 0.0) for x in (moves, ends))  # type: ignore[return-value]

    leave, end_inside = rates(1)
    enter, end_outside = rates(0)
    return Memoryless(leave, end_inside, enter, end_outside)


def simulate_memoryless(
    chain: Memoryless,
    spells: Spells,
    group: NDArray[np.intp],
    cell: NDArray[np.intp],
    cells: int,
    horizon: int,
    simulations: int,
    generator: np.random.Generator,
) -> Iterator[Ints]:
    """Simulate runs with the observed first states and the observed limits of length.

    Yields
    ------
    ndarray of int, shape (block, cells, horizon + 2, 3)
        Spells as :func:`dynstat.markov.competing.count_spells` counts them; those open at the first token are
        left out. `cell` says which runs are counted together.
    """
    runs = len(spells.runs)
    begin = spells.inside[np.arange(runs), (spells.inside >= 0).argmax(axis=1)] == 1
    # Longest first: runs whose limit is reached drop off the end of the arrays.
    order = np.argsort(-spells.limit, kind="stable")
    of = group[order]
    move = np.stack([chain.enter[of], chain.leave[of]]).astype(np.float32)
    stop = move + np.stack([chain.end_outside[of], chain.end_inside[of]]).astype(np.float32)
    width = (horizon + 2) * 3
    for size in _blocks(simulations, runs):
        keys = _simulate_block(begin[order], spells.limit[order], move, stop, size, horizon, generator)
        rep, run, duration, event = keys
        flat = (rep * cells + cell[order][run]) * width + duration * 3 + event
        yield np.bincount(flat, minlength=size * cells * width).reshape(size, cells, horizon + 2, 3)


def _simulate_block(
    begin: NDArray[np.bool_],
    limit: NDArray[np.intp],
    move: NDArray[np.float32],
    stop: NDArray[np.float32],
    size: int,
    horizon: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.intp], ...]:
    """Return replicate, run, duration and event of every simulated spell."""
    runs = begin.size
    # Run by replicate, so that the runs still going are one stretch of memory.
    state = np.repeat(begin.astype(np.int8), size)
    entry = np.full(runs * size, -1, dtype=np.int32)
    chance = np.where(begin, stop[1], stop[0]).repeat(size)
    found: list[tuple[NDArray[Any], ...]] = []
    n = runs
    for step in range(1, int(limit[0]) + 1):
        # A run of L tokens takes L - 1 steps; a run that ended has no chance left to do anything.
        still = int(np.searchsorted(-limit, -step, side="left"))
        over = still * size + np.flatnonzero(
            (state[still * size : n * size] == 1)
            & (chance[still * size : n * size] >= 0)
            & (entry[still * size : n * size] >= 0)
        )
        found.append((over, step - 1 - entry[over], np.zeros(over.size, dtype=np.intp)))
        n = still
        if not n:
            break
        u = generator.random(n * size, dtype=np.float32)
        hit = np.flatnonzero(u < chance[: n * size])
        run, now = hit // size, state[hit]
        moved = u[hit] < move[now, run]
        known = (now == 1) & (entry[hit] >= 0)
        event = np.where(moved, REOPENED, END_OF_TEXT)
        found.append((hit[known], step - entry[hit[known]], event[known]))
        chance[hit[~moved]] = -1.0
        to, at = hit[moved], run[moved]
        state[to] = 1 - state[to]
        entry[to] = step
        chance[to] = stop[state[to], at]
    place, duration, event = (np.concatenate(x).astype(np.intp) for x in zip(*found, strict=True))
    return place % size, place // size, np.minimum(duration, horizon + 1), event


def rearrange_within_runs(
    spells: Spells,
    cell: NDArray[np.intp],
    cells: int,
    horizon: int,
    permutations: int,
    generator: np.random.Generator,
) -> Iterator[Ints]:
    """Rearrange stay or leave over the steps inside, run by run: memoryless with rates of every run's own.

    In a run that has no memory every order of its stays and exits is equally likely, given their numbers, the
    time outside and the state at the end. So the order is permuted and cut into spells again. The last step
    stays where it is if it is an end of text, or the exit after which the run was never inside again.

    Yields
    ------
    ndarray of int, shape (block, cells, horizon + 2, 3)
        As :func:`simulate_memoryless`; `cell` is by spell and constant within a run.
    """
    steps = spells.duration
    order = np.lexsort((spells.start, spells.sequence))
    run = np.repeat(spells.sequence[order], steps[order])
    where = np.repeat(cell[order], steps[order])
    outcome = np.zeros(run.size, dtype=np.int8)
    ends = np.cumsum(steps[order]) - 1
    closed = spells.event[order] > 0
    outcome[ends[closed]] = spells.event[order][closed]
    last = np.r_[run[1:] != run[:-1], True] if run.size else np.zeros(0, dtype=np.bool_)
    # A run whose last spell was cut by its budget keeps that spell, of any length from 0.
    cut = np.zeros(len(spells.runs), dtype=np.bool_)
    cut[spells.sequence[spells.event == 0]] = True
    fixed = last & ~cut[run]
    place = np.arange(run.size)
    width = (horizon + 2) * 3
    # A cut spell without a step has no outcome in its run, but is a spell.
    lonely = np.zeros((cells, horizon + 2, 3), dtype=np.int64)
    stepless = cut.copy()
    stepless[run] = False
    cut_cells = np.zeros(len(spells.runs), dtype=np.intp)
    cut_cells[spells.sequence] = cell
    lonely[:, 0, 0] = np.bincount(cut_cells[stepless], minlength=cells)
    for size in _blocks(permutations, run.size):
        out = np.empty((size, cells, horizon + 2, 3), dtype=np.int64)
        for b in range(size):
            key = run + np.where(fixed, 0.75, 0.5 * generator.random(run.size))
            y = outcome[np.argsort(key)]
            # Steps since the last exit, within the run.
            breaks = np.r_[True, (y[:-1] > 0) | last[:-1]] if y.size else np.zeros(0, dtype=np.bool_)
            begin = np.maximum.accumulate(np.where(breaks, place, 0)) if y.size else place
            d = np.minimum(place - begin + 1, horizon + 1)
            spell_end = (y > 0) | last
            flat = (where * (horizon + 2) + d) * 3 + y
            counted = np.bincount(flat[spell_end], minlength=cells * width)
            # Where an exit comes last in a cut run, the spell after it has no step seen.
            empty = last & cut[run] & (y > 0)
            counted = counted.reshape(cells, horizon + 2, 3)
            counted[:, 0, 0] += np.bincount(where[empty], minlength=cells)
            out[b] = counted + lonely
        yield out


@dataclass(frozen=True)
class DurationTest:
    """Score statistics of hazards that change with duration."""

    slope: Floats
    omnibus: Floats


def duration_scores(counts: Ints | Floats, pooled: int) -> DurationTest:
    """Return score statistics of dependence on duration, summed over groups with hazards of their own.

    slope: ``z = Σ_g Σ_d x_d (y_gd − n_gd q_g) / √V`` with ``x = log2 d``, positive where exits become more
    likely the longer a spell has lasted; omnibus: Σ_d (Σ_g (y_gd − n_gd q_g))²/Σ_g n_gd q_g (1 − q_g), over
    durations up to `pooled`, the rest together.

    Parameters
    ----------
    counts : ndarray, shape (..., groups, H + 2, 3)
    pooled : int
        Durations beyond this one are added up: there single exits would weigh most.
    """
    n, y = _risk(counts)
    x = np.log2(np.arange(1, n.shape[-1] + 1))
    total = n.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(total > 0, y.sum(axis=-1) / total, 0.0)
        mean = np.where(total > 0, (n * x).sum(axis=-1) / total, 0.0)
    spread = q * (1 - q)
    residual = y - n * q[..., None]
    v = (spread * ((n * x**2).sum(axis=-1) - total * mean**2)).sum(axis=-1)
    u = (residual * x).sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(v > 0, u / np.sqrt(v), 0.0)
    info = (n * spread[..., None]).sum(axis=-2)
    resid = residual.sum(axis=-2)
    parts = [resid[..., :pooled], resid[..., pooled:].sum(axis=-1, keepdims=True)]
    infos = [info[..., :pooled], info[..., pooled:].sum(axis=-1, keepdims=True)]
    r, i = np.concatenate(parts, axis=-1), np.concatenate(infos, axis=-1)
    omnibus = np.where(i > 0, r**2 / np.where(i > 0, i, 1.0), 0.0).sum(axis=-1)
    return DurationTest(np.asarray(slope), np.asarray(omnibus))


def duration_slope(counts: Ints | Floats, iterations: int = 30) -> Floats:
    """Fit logit hazard = group + slope·log2 duration by Newton steps, batched.

    Parameters
    ----------
    counts : ndarray, shape (..., groups, H + 2, 3)

    Returns
    -------
    ndarray, shape (...)
        The slope, log odds a doubling of duration; NaN where durations do not vary or the fit diverges.
    """
    n, y = _risk(counts)
    total, events = n.sum(axis=-1), y.sum(axis=-1)
    # A group in which everything or nothing leaves says nothing on the slope.
    use = (events > 0) & (events < total)
    n, y = n * use[..., None], y * use[..., None]
    x = np.log2(np.arange(1, n.shape[-1] + 1))
    q = np.where(use, events / np.where(use, total, 1.0), 0.5)
    a = np.log(q / (1 - q))
    b = np.zeros(a.shape[:-1])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(iterations):
            p = 1.0 / (1.0 + np.exp(-(a[..., None] + b[..., None, None] * x)))
            w = n * p * (1 - p)
            r = y - n * p
            ga, gb = r.sum(axis=-1), (r * x).sum(axis=(-2, -1))
            haa, hab = w.sum(axis=-1), (w * x).sum(axis=-1)
            hbb = (w * x**2).sum(axis=(-2, -1))
            inverse = np.where(haa > 0, 1.0 / np.where(haa > 0, haa, 1.0), 0.0)
            schur = hbb - (hab**2 * inverse).sum(axis=-1)
            step = np.where(schur > 1e-10, (gb - (hab * ga * inverse).sum(axis=-1)) / schur, np.nan)
            step = np.clip(step, -2.0, 2.0)
            a = a + np.clip((ga - hab * step[..., None]) * inverse, -4.0, 4.0)
            b = b + step
            if np.nan_to_num(np.abs(step)).max(initial=0.0) < 1e-12:
                break
    return np.where(np.abs(b) < 20, b, np.nan)


def constant_incidence(counts: Ints | Floats, step: int) -> Floats:
    """Return the incidence of reopening at `step` under constant hazards, one pair a group.

    ``F(h) = Σ_g w_g q_1 (1 − (1 − q_1 − q_2)^h)/(q_1 + q_2)``, w by the number of spells at risk.

    Parameters
    ----------
    counts : ndarray, shape (..., groups, H + 2, 3)
    """
    c = np.asarray(counts, dtype=np.float64)
    curves = incidence(c)
    risk = curves.at_risk.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(risk[..., None] > 0, curves.events.sum(axis=-2) / risk[..., None], 0.0)
        any_event = q.sum(axis=-1)
        f = np.where(any_event > 0, q[..., 0] * (1 - (1 - any_event) ** step) / any_event, 0.0)
    started = curves.at_risk[..., 0]
    return np.asarray((started * f).sum(axis=-1) / started.sum(axis=-1))


def _risk(counts: Ints | Floats) -> tuple[Floats, Floats]:
    """Return spells at risk and exits by step, shape (..., groups, H)."""
    c = np.asarray(counts, dtype=np.float64)
    total = c.sum(axis=-1)
    return np.cumsum(total[..., ::-1], axis=-1)[..., ::-1][..., 1:-1], c[..., 1:-1, REOPENED]


def _carried(inside: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return codes whose gaps carry the last value on; −1 before the first value and after the last."""
    place = np.arange(inside.shape[1])
    seen = inside >= 0
    before = np.maximum.accumulate(np.where(seen, place, -1), axis=1)
    last = np.where(seen, place, -1).max(axis=1, keepdims=True, initial=-1)
    out = np.take_along_axis(inside, np.maximum(before, 0), axis=1)
    return np.where((before >= 0) & (place <= last), out, -1).astype(np.int8)


def _blocks(number: int, cells: int) -> Iterator[int]:
    size = max(1, min(number, _BLOCK // max(cells, 1)))
    done = 0
    while done < number:
        now = min(size, number - done)
        yield now
        done += now
