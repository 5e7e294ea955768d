"""Does a chain keep its transition probabilities along the sequence?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Resampler, Rng, as_generator
from .assessing import assess, check_options
from .chain_test import ChainTest
from .homogeneity import layer_names, permuted_tables, simulated_tables
from .labels import label_codes
from .sequences import Sequences
from .tabulation import Stretches, stretches, tabulate

Codes = NDArray[np.intp]


def stationarity_test(
    sequences: Sequences,
    blocks: int | Sequence[int] = 3,
    *,
    unit: str = "prompt",
    within: str | None = None,
    statistic: str = "Pearson",
    null: str = "permutation",
    permutations: int = 999,
    replicates: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.stationarity@1",
) -> ChainTest:
    """Test whether transition probabilities stay the same along the sequences (tokens or layers).

    For every state left, a table of block × next state: G and Pearson's X² summed over the states, df by
    support.

    Permutation (default): the blocks of a unit change places, all its sequences together, independently of
    other units. Units may have chains of their own. It takes the blocks of a unit as exchangeable: where
    occupancy drifts only because sequences start far from their stationary distribution, and units differ, it
    is approximate.

    Parameters
    ----------
    sequences : Sequences
    blocks : int or sequence of int
        A number: equal parts of every sequence (3: thirds). Positions: cuts, counted in steps from the start
        of the sequence, the same for all.
    unit : str
        Column of labels; "sequence" takes every sequence alone.
    within : str, optional
        Column: statistics are computed within each of its levels ("model") and summed.
    statistic : {"Pearson", "G"}
    null : {"permutation", "simulation"}
        "simulation": sequences of the same lengths and starts drawn from the one chain fitted to all (a level
        of `within`).
    permutations : int
        Draws of the null, permuted or simulated. Where there are no more arrangements than
        this, all are made and p is exact; at least 99.
    replicates : int
        Bootstrap samples of units for the intervals of effects, at least 99.
    level : float
    rng : Generator or int

    Returns
    -------
    ChainTest

    Raises
    ------
    DynstatError
        S404 options, fewer than two blocks; S403 fewer than two units; S406 no transition, or a block without
        any; S407 unknown columns.
    """
    check_options(statistic, null, ("permutation", "simulation"), permutations, replicates)
    generator, seed = as_generator(rng)
    parts = stretches(sequences)
    block, names = _blocks(sequences, parts, blocks)
    of, units = label_codes(sequences, unit)
    stratum, strata = label_codes(sequences, within)
    k, s = len(sequences.states), parts.sequence
    tables = tabulate(
        parts.codes,
        k,
        outer=of[s],
        n_outer=len(units),
        stratum=stratum[s],
        n_strata=len(strata),
        group=block,
        n_groups=len(names),
    )
    met = tables.sum(axis=(1, 3))
    if empty := [names[b] for b in np.flatnonzero(met.sum(axis=0) == 0)]:
        raise DynstatError(
            "S406",
            "some blocks hold no transition",
            where="blocks",
            found=", ".join(empty),
            expected="sequences that reach every block",
        )
    if null == "permutation":
        name = f"blocks permuted within {unit}"
        nulls = permuted_tables(tables, met > 0, np.arange(len(units)), permutations, generator, name)
    else:
        nulls = simulated_tables(parts, tables, stratum[s], block, permutations, generator, within)
    return assess(
        title=f"Test of stationarity of transitions over {len(names)} blocks of {sequences.axis}s",
        alternative="some transition probability differs between blocks",
        key=method,
        statistic=statistic,
        unit_tables=tables,
        null=nulls,
        resampler=Resampler(of, units, np.zeros(len(units), dtype=np.intp)),
        layers=layer_names(sequences.states, strata),
        groups=names,
        states=sequences.states,
        unit=unit,
        n={"sequences": len(sequences), "transitions": int(tables.sum()), "groups": len(names)},
        replicates=replicates,
        level=level,
        rng=generator,
        seed=seed,
    )


def _blocks(
    sequences: Sequences, parts: Stretches, blocks: int | Sequence[int]
) -> tuple[Codes, tuple[str, ...]]:
    """Return the block of every transition, shape (stretches, longest − 1), and the names of blocks."""
    at = parts.start[:, None] + np.arange(parts.codes.shape[1] - 1)
    if isinstance(blocks, (int, np.integer)):
        if blocks < 2:
            raise DynstatError("S404", "one block alone", where="blocks", found=blocks, expected="at least 2")
        moves = np.diff(sequences.offsets)[parts.sequence] - 1
        names = {2: ("early", "late"), 3: ("early", "middle", "late")}.get(
            int(blocks), tuple(f"{i + 1}/{blocks}" for i in range(blocks))
        )
        # Beyond a stretch's end the number means nothing: no transition is counted there.
        return np.minimum(at * blocks // moves[:, None], blocks - 1).astype(np.intp), names
    cuts = np.asarray(blocks)
    if cuts.ndim != 1 or cuts.size < 1 or np.any(np.diff(cuts) <= 0) or cuts[0] < 1:
        raise DynstatError(
            "S404",
            "cuts must rise from 1 or more",
            where="blocks",
            found=list(blocks),
            expected="as [10, 20]",
        )
    edges = [0, *cuts.tolist()]
    names = tuple(f"{a}-{b - 1}" for a, b in zip(edges, edges[1:], strict=False)) + (f"{edges[-1]}-",)
    return np.searchsorted(cuts, at, side="right").astype(np.intp), names
