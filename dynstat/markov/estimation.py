"""Estimate a chain, with intervals from the unit that is exchangeable."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..inference.resample import Resampler, Rng, as_generator
from . import derived
from .chain_result import MarkovChain
from .counts import count_transitions
from .labels import unit_codes
from .sequences import Sequences

Interval = Literal["bootstrap", "dirichlet", "sandwich"]


def chain(
    sequences: Sequences,
    *,
    unit: str = "prompt",
    interval: Interval = "bootstrap",
    replicates: int = 1000,
    lag: int = 1,
    level: float = 0.95,
    absorbing: Sequence[str] | None = None,
    groups: Mapping[str, str] | None = None,
    prior: float = 0.5,
    rng: Rng = 0,
    method: str = "markov.chain@1",
) -> MarkovChain:
    """Estimate a first-order chain and all that follows from it, each with its interval.

    p_ij = n_ij / n_i·, pooled over all sequences (maximum likelihood, given first states). One set of
    replicates of the count table serves every quantity.

    Parameters
    ----------
    sequences : Sequences
    unit : str
        Column of labels: the exchangeable unit, drawn with all its sequences, of all models. "sequence" takes
        every sequence alone, which is right only where no two share a prompt.
    interval : {"bootstrap", "dirichlet", "sandwich"}
        Bootstrap of units (:func:`dynstat.inference.unit_interval.unit_interval`). Dirichlet: posterior of
        the rows, every transition taken as independent of all others. Sandwich: leave-one-unit-out variance
        (CR3), t quantiles on the same scales as the bootstrap; no random numbers.
    replicates : int
        Of bootstrap and posterior; at least 99.
    lag : int
        Steps between the two ends of a transition. Times are in steps, whatever the lag.
    level : float
    absorbing : sequence of str, optional
        States at which the walk ends: probabilities to end in each and mean steps until then. By default
        those that are never left once entered, where there are such.
    groups : mapping of str to str, optional
        State to group, for lumpability.
    prior : float
        Of every cell of a row under "dirichlet"; ½ is Jeffreys'.
    rng : Generator or int
    method : str

    Returns
    -------
    MarkovChain

    Raises
    ------
    DynstatError
        S406 one state only, or no transition; S403 fewer than two units (bootstrap, sandwich); S404 an
        argument; S407 a state or label that the data do not hold.

    Warns
    -----
    DynstatWarning
        A state never seen, never left, or absorbing; more than one closed class.

    Notes
    -----
    A transition with fewer than five events, or fewer than five others in its row, gets Jeffreys' limits on
    counts shrunk by the design effect between units (:func:`dynstat.markov.rare_events.effective_trials`),
    and so do the self-transition, exit, dwell and lift made from it.

    A replicate without a transition out of a state leaves that state's row undefined: transition, exit,
    dwell, lift and passages from or to it are NaN there, left out of its interval and counted in
    ``undefined``; its stationary share is 0. `diagnostics` names such states, and counts replicates that are
    not ergodic; where these hold two closed classes, the stationary distribution is NaN too.

    Coverage of nominal 95 % for data whose units differ: see :mod:`dynstat.inference.unit_interval`.
    """
    if interval not in ("bootstrap", "dirichlet", "sandwich"):
        raise DynstatError(
            "S404", "unknown interval", found=interval, expected="bootstrap | dirichlet | sandwich"
        )
    if replicates < 99 and interval != "sandwich":
        raise DynstatError("S404", "too few replicates", found=replicates, expected="at least 99")
    if not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level)
    if prior <= 0:
        raise DynstatError("S404", "a prior must be positive", found=prior)
    states = sequences.states
    by_sequence = count_transitions(sequences, lag)
    counts = by_sequence.sum(axis=0, dtype=np.int64)
    notes = _look_at(sequences, counts, lag)
    at = _absorbing(states, absorbing, counts)
    grouping = _grouping(states, groups)
    resampler = _resampler(sequences, unit, interval)
    by_unit = _sum_units(by_sequence, resampler)
    generator, seed = as_generator(rng)
    if interval == "bootstrap":
        drawn = draw_counts(by_unit, resampler, replicates, generator)
    elif interval == "dirichlet":
        drawn = _posterior(counts, prior, replicates, generator)
    else:
        drawn, seed = counts - by_unit, None
    n = {"units": resampler.n_units, "sequences": len(sequences), "transitions": int(counts.sum())}
    return MarkovChain(
        states=states,
        counts=counts,
        matrix=derived.transition_matrix(counts),
        axis=sequences.axis,
        lag=lag,
        unit=unit,
        interval=interval,
        level=level,
        n=n,
        seed=seed,
        method=method,
        absorbing=at,
        groups=grouping,
        diagnostics=_diagnose(states, counts, drawn, interval) | notes,
        unit_counts=by_unit,
        replicates=drawn,
        prior=prior,
    )


def draw_counts(
    unit_counts: NDArray[Any], resampler: Resampler, replicates: int, rng: Rng = 0
) -> NDArray[np.float64]:
    """Return the pooled count tables of bootstrap samples of units.

    Parameters
    ----------
    unit_counts : ndarray, shape (units, K, K)
    resampler : Resampler
    replicates : int
    rng : Generator or int

    Returns
    -------
    ndarray, shape (replicates, K, K)
        One product of matrices: weights times tables.
    """
    weights = resampler.weights(replicates, rng).astype(np.float64)
    units, k = unit_counts.shape[0], unit_counts.shape[-1]
    flat = np.ascontiguousarray(unit_counts, dtype=np.float64).reshape(units, k * k)
    return np.asarray((weights @ flat).reshape(replicates, k, k))


def _sum_units(by_sequence: NDArray[np.int32], resampler: Resampler) -> NDArray[np.float64]:
    units, k = resampler.n_units, by_sequence.shape[-1]
    out = np.zeros((units, k, k))
    np.add.at(out, resampler.units, by_sequence)
    return out


def _posterior(
    counts: NDArray[np.int64], prior: float, replicates: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return count tables whose rows follow the posterior, the rows' totals held; empty rows stay empty."""
    seen = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    shape = np.where(seen, counts + prior, 0.0)
    gamma = rng.standard_gamma(np.broadcast_to(shape, (replicates, *counts.shape)))
    rows = counts.sum(axis=1)[:, None]
    return np.asarray(gamma / gamma.sum(axis=-1, keepdims=True) * rows)


def _look_at(sequences: Sequences, counts: NDArray[np.int64], lag: int) -> dict[str, Any]:
    """Refuse what is no chain, and warn of states of which the data say nothing."""
    states = sequences.states
    seen = np.bincount(sequences.codes[sequences.codes >= 0], minlength=len(states)) > 0
    if seen.sum() < 2:
        raise DynstatError(
            "S406",
            "the sequences hold one state only" if seen.any() else "the sequences hold no state",
            found=", ".join(s for s, here in zip(states, seen, strict=True) if here) or "none",
            expected="at least two states",
        )
    if not counts.sum():
        raise DynstatError(
            "S406",
            "the sequences hold no transition",
            found=f"longest sequence {int(sequences.lengths.max())} steps, lag {lag}",
            expected="two neighbouring steps with a state in some sequence",
        )
    visited = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    left = counts.sum(axis=1) > 0
    moves = counts.sum(axis=1) > np.diag(counts)
    kinds = {
        "never_seen": ~visited,
        "never_left": visited & ~left,
        "absorbing": left & ~moves,
    }
    means = {
        "never_seen": "is never seen in a transition: its row, passages from and to it are undefined",
        "never_left": "occurs only where sequences end: its row is undefined, and so are the stationary "
        "distribution and all that needs it",
        "absorbing": "is entered and never left: the data hold no exit from it",
    }
    notes: dict[str, Any] = {}
    for kind, which in kinds.items():
        names = [s for s, hit in zip(states, which, strict=True) if hit]
        if names:
            notes[kind] = names
            warnings.warn(f"{', '.join(names)} {means[kind]}", DynstatWarning, stacklevel=3)
    classes = int(derived.structure(derived.transition_matrix(counts)).classes)
    if classes > 1:
        notes["closed_classes"] = classes
        warnings.warn(
            f"the chain falls apart into {classes} closed classes: it has no one stationary distribution",
            DynstatWarning,
            stacklevel=3,
        )
    return notes


def _absorbing(
    states: tuple[str, ...], named: Sequence[str] | None, counts: NDArray[np.int64]
) -> tuple[int, ...]:
    if named is None:
        stays = np.diag(counts)
        # Entered from elsewhere and never left.
        entered = counts.sum(axis=0) > stays
        return tuple(np.flatnonzero(entered & (counts.sum(axis=1) == stays)).tolist())
    _known(states, named)
    return tuple(sorted(states.index(s) for s in set(named)))


def _grouping(states: tuple[str, ...], groups: Mapping[str, str] | None) -> tuple[str, ...] | None:
    if groups is None:
        return None
    _known(states, list(groups))
    if missing := [s for s in states if s not in groups]:
        raise DynstatError("S407", "some states have no group", found=", ".join(missing))
    if not 1 < len(set(groups.values())) < len(states):
        raise DynstatError(
            "S404",
            "a grouping needs at least two groups, and fewer than states",
            found=f"{len(set(groups.values()))} groups of {len(states)} states",
        )
    return tuple(str(groups[s]) for s in states)


def _known(states: tuple[str, ...], named: Sequence[str]) -> None:
    if unknown := [s for s in named if s not in states]:
        raise DynstatError(
            "S407", "no such state", found=", ".join(map(str, unknown)), expected=", ".join(states)
        )


def _resampler(sequences: Sequences, unit: str, interval: Interval) -> Resampler:
    resampler = unit_codes(sequences, unit)
    if resampler.n_units < 2 and interval != "dirichlet":
        raise DynstatError(
            "S403",
            f"one {unit} tells nothing of how {unit}s differ",
            where=unit,
            found=f"{resampler.n_units} {unit}, {len(sequences)} sequences",
            expected="at least two units",
            mend='interval="dirichlet", which takes every transition as independent of all others',
        )
    return resampler


def _diagnose(
    states: tuple[str, ...], counts: NDArray[np.int64], drawn: NDArray[np.float64], interval: Interval
) -> dict[str, Any]:
    """Count the replicates in which something is undefined, by state."""
    empty = (drawn.sum(axis=-1) == 0) & (counts.sum(axis=1) > 0)
    kind = derived.structure(derived.transition_matrix(drawn))
    return {
        "replicates": int(drawn.shape[0]),
        "empty_row": {s: int(c) for s, c in zip(states, empty.sum(axis=0), strict=True) if c},
        "not_irreducible": int(np.sum(~kind.irreducible)),
        "not_ergodic": int(np.sum(~kind.aperiodic)),
        "several_classes": int(np.sum(kind.classes > 1)),
        "interval": interval,
    }
