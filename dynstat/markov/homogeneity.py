"""Do groups share one chain? Labels are permuted where they are exchangeable."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Resampler, Rng, as_generator
from .assessing import NullTables, assess, check_options, chunks
from .chain_test import ChainTest
from .labels import label_codes
from .null_chains import draw_chain
from .permuting import arrange, group_tables
from .sequences import Sequences
from .tabulation import Stretches, stretches, tabulate

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

#: Labels that belong to a prompt by the schema: they cannot vary within one.
_OF_THE_PROMPT = ("category", "template", "split")


def homogeneity_test(
    sequences: Sequences,
    by: str = "category",
    *,
    unit: str = "prompt",
    within: str | None = None,
    permute: str | None = None,
    statistic: str = "Pearson",
    null: str = "permutation",
    permutations: int = 999,
    replicates: int = 999,
    level: float = 0.95,
    rng: Rng = 0,
    method: str = "markov.homogeneity@1",
) -> ChainTest:
    """Test whether groups of sequences share their transition probabilities.

    For every state left, a table of group × next state: G and Pearson's X² summed over the states, df by
    support (:func:`dynstat.markov.contingency.statistics`).

    Permutation (default). A label that belongs to the unit (a category to its prompt) is permuted between
    whole units, each with all its sequences of all models. A label that varies within units (the model) is
    permuted within every unit: all samples of one (model, prompt) keep together. Prompts may then differ in
    any way, and so may models where categories are tested. Null: the units are exchangeable, so groups of
    equal means that differ in how much their units scatter can be told apart too. Units should hold the same
    sequences of every other label: compare categories on prompts that all models have read.

    Parameters
    ----------
    sequences : Sequences
    by : str
        Column of labels: the groups.
    unit : str
        Column of labels: what is exchangeable. "sequence" takes every sequence alone; where sequences share a
        prompt this rejects a true null of categories about 60 % of the time.
    within : str, optional
        Column: statistics are computed within each of its levels and summed, so that its levels may have
        chains of their own in the statistic too ("model" when `by` is a category).
    permute : {"units", "within"}, optional
        By default found from the labels: "units" where each unit has one label.
    statistic : {"Pearson", "G"}
        Whose p is reported as :attr:`ChainTest.p_value`. Pearson's keeps closer to χ² where cells are sparse.
    null : {"permutation", "simulation"}
        "simulation": sequences of the same lengths and starts drawn from the one chain fitted to all (a level
        of `within`); it takes sequences as independent and of one chain.
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
        S407 for an unknown column, missing labels, or a label of the prompt that varies within one; S403 for
        one group or a group of one unit; S404 options; S406 no transition, or nothing that could differ.
    """
    check_options(statistic, null, ("permutation", "simulation"), permutations, replicates)
    generator, seed = as_generator(rng)
    parts = stretches(sequences)
    group, groups = label_codes(sequences, by)
    of, units = label_codes(sequences, unit)
    stratum, strata = label_codes(sequences, within)
    whole = _permuted_whole(group, groups, of, units, by, unit, permute)
    if len(groups) < 2:
        raise DynstatError(
            "S403", "one group alone", where=by, found=groups[0], expected="at least two groups"
        )
    k, g = len(sequences.states), len(groups)
    s = parts.sequence
    tables = tabulate(
        parts.codes,
        k,
        outer=of[s],
        n_outer=len(units),
        stratum=stratum[s],
        n_strata=len(strata),
        group=group[s][:, None],
        n_groups=g,
    )
    present = np.zeros((len(units), g), dtype=bool)
    present[of, group] = True
    _enough_units(present, groups, by, unit)
    if null == "permutation":
        blocks = np.zeros(len(units), dtype=np.intp) if whole else np.arange(len(units))
        name = (
            f"labels of {by} permuted between whole units of {unit}"
            if whole
            else f"labels of {by} permuted within {unit}"
        )
        nulls = permuted_tables(tables, present, blocks, permutations, generator, name)
    else:
        nulls = simulated_tables(
            parts, tables, stratum[s], group[s][:, None], permutations, generator, within
        )
    resampler = Resampler(
        of,
        units,
        present.argmax(axis=1).astype(np.intp) if whole else np.zeros(len(units), dtype=np.intp),
    )
    return assess(
        title=f"Test of homogeneity of transitions by {by}",
        alternative=f"some transition probability differs between levels of {by}",
        key=method,
        statistic=statistic,
        unit_tables=tables,
        null=nulls,
        resampler=resampler,
        layers=layer_names(sequences.states, strata),
        groups=groups,
        states=sequences.states,
        unit=unit,
        n={"sequences": len(sequences), "transitions": int(tables.sum()), "groups": g},
        replicates=replicates,
        level=level,
        rng=generator,
        seed=seed,
    )


def layer_names(states: tuple[str, ...], strata: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of (stratum, state) in the order of tables."""
    return tuple(f"{w}: {s}" if len(strata) > 1 else s for w in strata for s in states)


def permuted_tables(
    tables: Array,
    present: NDArray[np.bool_],
    blocks: Codes,
    permutations: int,
    rng: np.random.Generator,
    name: str,
) -> NullTables:
    """Return tables with group labels dealt anew to the items, an item a (unit, group) that is present.

    Parameters
    ----------
    tables : ndarray, shape (units, layers, groups, K)
    present : ndarray of bool, shape (units, groups)
    blocks : ndarray, shape (units,)
        Labels are permuted within blocks: every unit its own, or all one.
    """
    _, layers, groups, k = tables.shape
    at, label = np.nonzero(present)
    counts = tables[at, :, label].reshape(at.size, layers * k)
    ways = arrange(label, blocks[at], permutations, rng)
    b = ways.labels.shape[0]

    def made() -> Iterator[Array]:
        for c in chunks(b, max(layers * groups * k, at.size)):
            summed = group_tables(ways.labels[c], counts, groups)
            yield np.moveaxis(summed.reshape(-1, groups, layers, k), 1, 2)

    return NullTables(made(), name, ways.exact, ways.total)


def simulated_tables(
    parts: Stretches,
    tables: Array,
    stratum: Codes,
    group: Codes,
    simulations: int,
    rng: np.random.Generator,
    within: str | None,
) -> NullTables:
    """Return tables of sequences drawn from the pooled chain, of the same lengths and starts."""
    _, layers, groups, k = tables.shape
    pooled = tables.sum(axis=(0, 2)).reshape(layers // k, k, k)
    matrices = transition_matrices(pooled)
    n = parts.sequence.size

    def made() -> Iterator[Array]:
        for c in chunks(simulations, max(layers * groups * k, parts.codes.size * k)):
            b = c.stop - c.start
            drawn = draw_chain(
                matrices[np.tile(stratum, b)],
                np.tile(parts.codes[:, 0].astype(np.intp), b),
                np.tile(parts.lengths, b),
                rng,
            )
            yield tabulate(
                drawn,
                k,
                outer=np.repeat(np.arange(b), n),
                n_outer=b,
                stratum=np.tile(stratum, b),
                n_strata=layers // k,
                group=np.tile(group, (b, 1)),
                n_groups=groups,
            )

    whose = f" of every {within}" if within else ""
    return NullTables(made(), f"sequences drawn from the pooled chain{whose}", False, np.inf)


def transition_matrices(counts: Array) -> Array:
    """Return rows that sum to 1; a state that is never left stays."""
    total = counts.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, counts / total, np.eye(counts.shape[-1])))


def _permuted_whole(
    group: Codes,
    groups: tuple[str, ...],
    of: Codes,
    units: tuple[str, ...],
    by: str,
    unit: str,
    permute: str | None,
) -> bool:
    """Return whether labels belong to units; raise where that is not clear."""
    if permute not in (None, "units", "within"):
        raise DynstatError("S404", "unknown way to permute", found=permute, expected="units | within")
    present = np.zeros((len(units), len(groups)), dtype=bool)
    present[of, group] = True
    mixed = np.flatnonzero(present.sum(axis=1) > 1)
    if permute == "within" and not mixed.size:
        raise DynstatError(
            "S407",
            f"every {unit} has one {by}, so nothing can be permuted within",
            where=by,
            mend='say permute="units"',
        )
    if permute == "units" or (permute is None and by in _OF_THE_PROMPT):
        if mixed.size:
            raise DynstatError(
                "S407",
                f"some units of {unit} have more than one {by}",
                where=by,
                found=f"{mixed.size} of {len(units)}",
                expected=f"one {by} for all sequences of a {unit}",
                mend=f'name units that are unique across {by}, or say permute="within"',
                problems=[
                    f"{units[u]}: {', '.join(groups[i] for i in np.flatnonzero(present[u]))}"
                    for u in mixed[:5]
                ],
            )
        return True
    if permute is None and 0 < mixed.size < len(units) / 2:
        raise DynstatError(
            "S407",
            f"{by} varies within some units of {unit} and not within most",
            where=by,
            found=f"{mixed.size} of {len(units)} units have more than one: "
            + ", ".join(units[u] for u in mixed[:5]),
            mend='say permute="within" to compare within those, or select units of one kind',
        )
    return not mixed.size


def _enough_units(present: NDArray[np.bool_], groups: tuple[str, ...], by: str, unit: str) -> None:
    few = [groups[g] for g in np.flatnonzero(present.sum(axis=0) < 2)]
    if few:
        raise DynstatError(
            "S403",
            f"groups of one {unit} cannot be told from that {unit}",
            where=by,
            found=", ".join(few[:8]),
            expected=f"at least two units of {unit} a group",
            mend="leave these groups out, or name another unit",
        )
