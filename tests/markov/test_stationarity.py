"""Stationarity and order: what changes along a sequence, and how far back a chain remembers."""

import itertools

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError
from dynstat.markov import Sequences, order_test, stationarity_test
from dynstat.markov.null_chains import draw_chain

from .test_homogeneity import QUICK, brute_force, panel, refused


def split(sequences, cuts):
    """Cut every sequence into blocks that overlap in one step: the transitions of each block."""
    codes = sequences.padded()
    parts = [codes[:, a : b + 1] for a, b in itertools.pairwise(cuts)]
    flat = [row[row >= 0] for part in parts for row in part]
    offsets = np.concatenate([[0], np.cumsum([len(f) for f in flat])])
    labels = pd.concat([sequences.labels.assign(block=i) for i in range(len(parts))], ignore_index=True)
    return Sequences(np.concatenate(flat), offsets, sequences.states, labels)


def test_blocks_are_permuted_within_prompts_in_every_way():
    s = panel(models=2, prompts=4, samples=1, steps=21)
    blocks = split(s, [0, 10, 20])
    prompts = sorted(s.labels["prompt"].unique())
    own, of = blocks.labels["block"].to_numpy(), blocks.labels["prompt"]
    ways = []
    for flips in itertools.product([0, 1], repeat=4):
        flip = np.array([flips[prompts.index(p)] for p in of])
        ways.append((own + flip) % 2)
    null = brute_force(blocks, ways, [0, 1])
    observed = brute_force(blocks, [own], [0, 1])[0]
    with pytest.warns(UserWarning, match="no p below"):
        result = stationarity_test(s, 2, **QUICK)
    assert result.groups == ("early", "late") and result.null["total"] == 16
    assert result.statistics["Pearson"] == pytest.approx(observed, rel=1e-10)
    assert result.p_value == np.mean(null >= observed - 1e-9)


def test_cuts_at_positions_equal_parts_of_sequences_of_that_length():
    s = panel(prompts=6, steps=31)
    by_number, by_cut = stationarity_test(s, 3, **QUICK), stationarity_test(s, [10, 20], **QUICK)
    assert np.array_equal(by_number.tables, by_cut.tables)
    assert by_number.groups == ("early", "middle", "late") and by_cut.groups == ("0-9", "10-19", "20-")
    assert by_number.p_value == by_cut.p_value


def test_a_drift_is_found():
    rng = np.random.default_rng(0)
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    first = draw_chain(p, rng.integers(0, 2, 60), np.full(60, 20), rng)
    second = draw_chain(p[::-1, ::-1], first[:, -1].astype(int), np.full(60, 20), rng)
    codes = np.concatenate([first, second[:, 1:]], axis=1)
    labels = pd.DataFrame({"prompt": np.repeat([f"p{i}" for i in range(20)], 3)})
    s = Sequences(codes.ravel(), np.arange(61) * 39, ("low", "high"), labels)
    result = stationarity_test(s, 2, **QUICK)
    assert result.p_value <= 0.02 and result.estimates()["total_variation"].low > 0


def test_a_gap_is_crossed_by_no_transition():
    lists = [["a", "b", None, "a", "a", "b"], ["b", "a", None, "b", "b", "a"]]
    labels = {"prompt": ["p", "q"]}
    s = Sequences.from_lists(lists, labels=labels)
    with pytest.warns(UserWarning, match="no p below"):
        result = stationarity_test(s, [3], **QUICK)
    assert result.tables.tolist() == [[[0, 1], [1, 1]], [[1, 0], [1, 1]]]
    # Order 2 needs three steps without a gap: one window a sequence is left.
    assert (
        order_test(Sequences.from_lists(lists * 2, labels={"prompt": list("pqrs")}), 0).n["transitions"] == 12
    )


def test_memory_of_two_steps_is_found_and_a_mixture_is_not_taken_for_one():
    rng = np.random.default_rng(5)
    codes = np.zeros((40, 40), dtype=np.int16)
    codes[:, 1] = rng.integers(0, 2, 40)
    for t in range(2, 40):
        # The state before the last is repeated: a chain of order 1 sees nothing of it.
        codes[:, t] = np.where(rng.random(40) < 0.75, codes[:, t - 2], 1 - codes[:, t - 2])
    labels = pd.DataFrame({"prompt": np.repeat([f"p{i}" for i in range(20)], 2)})
    s = Sequences(codes.ravel(), np.arange(41) * 40, ("low", "high"), labels)
    assert order_test(s, 1, **QUICK).p_value == 0.01
    assert order_test(s, 1, null="simulation", **QUICK).p_value == 0.01
    # Half the sequences change at every other step, half hardly ever: each is of order 1.
    fast, slow = np.array([[0.1, 0.9], [0.9, 0.1]]), np.array([[0.9, 0.1], [0.1, 0.9]])
    own = np.array([fast, slow])[np.arange(40) % 2]
    mixed = draw_chain(own, rng.integers(0, 2, 40), np.full(40, 40), rng)
    s = Sequences(mixed.ravel(), np.arange(41) * 40, ("low", "high"), labels)
    assert order_test(s, 1, **QUICK).p_value > 0.05
    assert order_test(s, 1, null="simulation", **QUICK).p_value == 0.01
    assert order_test(s, 1, **QUICK).p_chi_square["Pearson"] < 1e-6
    # Their memories cancel in the sum: only statistics within sequences see them.
    assert order_test(s, 0, **QUICK).p_value > 0.05
    assert order_test(s, 0, within="sequence", **QUICK).p_value == 0.01


def test_order_0_is_held_where_states_are_drawn_alone():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(40):
        share = rng.dirichlet([1.0, 1.0, 1.0], 12)
        codes = np.array([rng.choice(3, 25, p=p) for p in share]).astype(np.int16)
        s = Sequences(
            codes.ravel(),
            np.arange(13) * 25,
            ("x", "y", "z"),
            pd.DataFrame({"prompt": [f"p{i}" for i in range(12)]}),
        )
        hits += order_test(s, 0, **QUICK).p_value <= 0.05
    assert hits <= 7


def test_order_and_blocks_refuse_what_they_cannot_take():
    s = panel()
    refused("S404", lambda: order_test(s, 2), "0 (against 1)")
    short = Sequences.from_lists([["a", "b"], ["b", "a"]], labels={"prompt": ["p", "q"]})
    refused("S406", lambda: order_test(short, 1), "order 2", "at least 3 steps")
    refused("S404", lambda: stationarity_test(s, 1), "one block")
    refused("S404", lambda: stationarity_test(s, [10, 5]), "rise")
    refused("S406", lambda: stationarity_test(s, [10, 500]), "500-")
    refused("S403", lambda: stationarity_test(s.select("prompt == 'p0'")), "p0")
    with pytest.raises(DynstatError):
        order_test(s.select("prompt == 'p0'"), 1, **QUICK)
