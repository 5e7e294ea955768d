"""Shuffles that keep what a chain fixes: against all sequences there are, written out."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.markov.null_chains import draw_chain, shuffle_states, shuffle_transitions


def changes(sequence):
    return Counter(itertools.pairwise(sequence))


@pytest.mark.parametrize(
    "sequence",
    [
        (0, 0, 1, 0, 2, 2, 1, 0),  # ends where it began
        (0, 1, 1, 2, 0, 1, 2, 2),
        (0, 1, 0, 1, 0, 1, 2, 1),  # states that nearly only alternate
        (2, 0, 0, 0, 1, 0, 1, 2, 0),
    ],
)
def test_every_sequence_with_the_same_counts_is_equally_likely(sequence):
    alike = {
        (sequence[0], *rest)
        for rest in itertools.product(range(3), repeat=len(sequence) - 1)
        if rest[-1] == sequence[-1] and changes((sequence[0], *rest)) == changes(sequence)
    }
    assert len(alike) >= 3
    n = 1200 * len(alike)
    padded = np.full((n, 12), -1, dtype=np.int16)
    padded[:, : len(sequence)] = sequence
    out = shuffle_transitions(padded, 3, np.random.default_rng(0))
    assert np.all(out[:, len(sequence) :] == -1)
    found = Counter(map(tuple, out[:, : len(sequence)].tolist()))
    assert set(found) == alike
    expected = n / len(alike)
    chi2 = sum((found[s] - expected) ** 2 / expected for s in alike)
    df = len(alike) - 1
    # Five standard deviations of a chi-square.
    assert chi2 < df + 5 * np.sqrt(2 * df)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=30), min_size=1, max_size=6),
    st.integers(0, 1000),
)
def test_shuffles_keep_what_they_promise(sequences, seed):
    padded = np.full((len(sequences), 30), -1, dtype=np.int16)
    for row, s in zip(padded, sequences, strict=True):
        row[: len(s)] = s
    rng = np.random.default_rng(seed)
    same_moves, same_states = shuffle_transitions(padded, 5, rng), shuffle_states(padded, rng)
    for i, s in enumerate(sequences):
        assert changes(same_moves[i, : len(s)].tolist()) == changes(s)
        assert (same_moves[i, 0], same_moves[i, len(s) - 1]) == (s[0], s[-1])
        assert sorted(same_states[i, : len(s)]) == sorted(s) and same_states[i, 0] == s[0]
    assert np.array_equal(same_states < 0, padded < 0) and np.array_equal(same_moves < 0, padded < 0)


def test_drawn_chains_have_the_matrix_they_were_drawn_from():
    rng = np.random.default_rng(1)
    p = np.array([[0.2, 0.8, 0.0], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    out = draw_chain(p, rng.integers(0, 3, 4000), np.r_[np.full(3999, 12), 5], rng)
    assert np.all(out[-1, 5:] == -1) and np.all(out[:-1] >= 0)
    counts = np.zeros((3, 3))
    np.add.at(counts, (out[:-1, :-1].ravel(), out[:-1, 1:].ravel()), 1)
    assert counts[0, 2] == counts[2, 0] == counts[2, 1] == 0
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), p, atol=0.015)
