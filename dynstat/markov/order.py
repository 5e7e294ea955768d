"""How much of the past does the next state depend on?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Resampler, Rng, as_generator
from .assessing import NullTables, assess, check_options, chunks
from .chain_test import ChainTest
from .homogeneity import layer_names, transition_matrices
from .labels import label_codes
from .null_chains import draw_chain, shuffle_states, shuffle_transitions
from .sequences import Sequences
from .tabulation import Stretches, stretches, tabulate

Array = NDArray[np.float64]
Codes = NDArray[np.intp]


def order_test(
    sequences: Sequences,
    order: int = 1,
    *,
    unit: str = "prompt",
    within: str | None = None,
    statistic: str = "Pearson",
    null: str = "permutation",
    permutations: int = 999,
    replicates: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.order@1",
) -> ChainTest:
    """Test a chain of the given order against the next higher one.

    Order 0 against 1: the table of state × next state. Order 1 against 2: for every state, the table of the
    state before × the next state. G and Pearson's X² summed over the tables, df by support.

    Permutation (default), exact with any differences between sequences: every sequence is shuffled so that
    what a chain of this order fixes stays as it is. Order 0: the states after the first in random order.
    Order 1: uniform over all sequences with the same transition counts, first and last state. Mixing
    sequences of different chains looks like memory to χ² and to one simulated chain; here it does not. A
    trend along the sequence does: see :func:`stationarity_test`. Memories that cancel between sequences are
    seen only by statistics computed apart: ``within="sequence"``.

    Parameters
    ----------
    sequences : Sequences
    order : {0, 1}
        Of the null.
    unit : str
        Column of labels that intervals of effects resample.
    within : str, optional
        Column: statistics are computed within each of its levels ("model") and summed.
    statistic : {"Pearson", "G"}
        Pearson's keeps closer to χ² in the sparse tables of order 2.
    null : {"permutation", "simulation"}
        "simulation": sequences of the same lengths and starts drawn from the one chain of this order fitted
        to all (a level of `within`).
    permutations : int
        Draws of the null, sequences shuffled or simulated; at least 99.
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
        S404 options; S406 sequences too short; S403 fewer than two units; S407 unknown columns.
    """
    check_options(statistic, null, ("permutation", "simulation"), permutations, replicates)
    if order not in (0, 1):
        raise DynstatError(
            "S404", "order of the null", found=order, expected="0 (against 1) or 1 (against 2)"
        )
    generator, seed = as_generator(rng)
    parts = stretches(sequences, order)
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
        order=order,
    )
    made = _made(parts, stratum[s], len(strata), order, null, permutations, generator)
    if null == "permutation":
        name = (
            "states after the first shuffled within every sequence"
            if order == 0
            else "sequences shuffled with their transition counts kept"
        )
    else:
        name = f"sequences drawn from the chain of order {order}" + (f" of every {within}" if within else "")
    alone = strata if within else ("all",)
    return assess(
        title=f"Test of a chain of order {order} against order {order + 1}",
        alternative=f"the next state depends on {'the state' if order == 0 else 'the two states'} before",
        key=method,
        statistic=statistic,
        unit_tables=tables,
        null=NullTables(made, name, False, np.inf, keeps=True),
        resampler=Resampler(of, units, np.zeros(len(units), dtype=np.intp)),
        layers=alone if order == 0 else layer_names(sequences.states, strata),
        groups=sequences.states,
        states=sequences.states,
        unit=unit,
        n={"sequences": len(sequences), "transitions": int(tables.sum()), "groups": k},
        replicates=replicates,
        level=level,
        rng=generator,
        seed=seed,
    )


def _made(
    parts: Stretches,
    stratum: Codes,
    n_strata: int,
    order: int,
    null: str,
    number: int,
    rng: np.random.Generator,
) -> Iterator[Array]:
    """Yield tables of sequences made under the null, in chunks."""
    n, longest = parts.codes.shape
    k = parts.states
    layers = n_strata * (k if order else 1)
    starts, lengths = parts.codes[:, 0].astype(np.intp), parts.lengths
    matrices = _null_matrices(parts, stratum, n_strata, order) if null == "simulation" else None
    for c in chunks(number, max(layers * k * k, n * longest * 4)):
        b = c.stop - c.start
        if matrices is not None:
            codes = draw_chain(matrices[np.tile(stratum, b)], np.tile(starts, b), np.tile(lengths, b), rng)
        elif order == 0:
            codes = shuffle_states(np.tile(parts.codes, (b, 1)), rng)
        else:
            codes = shuffle_transitions(np.tile(parts.codes, (b, 1)), k, rng)
        yield tabulate(
            codes,
            k,
            outer=np.repeat(np.arange(b), n),
            n_outer=b,
            stratum=np.tile(stratum, b),
            n_strata=n_strata,
            order=order,
        )


def _null_matrices(parts: Stretches, stratum: Codes, n_strata: int, order: int) -> Array:
    """Return the chain of the null a stratum, as transition matrices, shape (strata, K, K)."""
    k = parts.states
    counts = tabulate(
        parts.codes, k, outer=stratum, n_outer=n_strata, stratum=np.zeros_like(stratum), n_strata=1, order=0
    )[:, 0]
    if order == 0:
        counts = np.repeat(counts.sum(axis=1, keepdims=True), k, axis=1)
    return transition_matrices(counts)
