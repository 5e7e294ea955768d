"""Surrogates keep what their null says and nothing else: enumeration, invariants, simulated parameters."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dynstat.errors import DynstatError
from dynstat.markov import Sequences
from dynstat.markov.surrogates import NULLS, aligned, dirichlet_concentration, maker, null_sequences

codes_with_gaps = hnp.arrays(
    np.int8, st.tuples(st.integers(1, 7), st.integers(1, 12)), elements=st.integers(-1, 2)
)


def drawn(
    null: str, codes: np.ndarray, size: int, k: int = 3, strata: np.ndarray | None = None, seed: int = 5
) -> np.ndarray:
    n = len(codes)
    rows = np.zeros(n, dtype=np.intp) if strata is None else strata
    return maker(null, codes.astype(np.int8), k, np.arange(n), rows, np.random.default_rng(seed))(size)


def pairs(row: np.ndarray) -> Counter:
    return Counter((int(a), int(b)) for a, b in itertools.pairwise(row) if a >= 0 and b >= 0)


def uniform(found: Counter, possible: list, size: int) -> None:
    assert set(found) == set(possible)
    if len(possible) > 1:
        assert stats.chisquare([found[v] for v in possible]).pvalue > 1e-4


@pytest.mark.parametrize("seed", range(4))
def test_every_sequence_with_the_same_transitions_is_equally_likely(seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 3, 8)
    possible = [y for y in itertools.product(range(3), repeat=8) if y[0] == x[0] and pairs(y) == pairs(x)]
    found = drawn("markov_shuffle", x[None], 4000)[:, 0]
    uniform(Counter(map(tuple, found.tolist())), possible, 4000)


@settings(max_examples=60, deadline=None)
@given(codes_with_gaps)
def test_trails_keep_counts_starts_ends_and_gaps(codes: np.ndarray) -> None:
    out = drawn("markov_shuffle", codes, 3)
    assert np.array_equal(out < 0, np.broadcast_to(codes < 0, out.shape))
    for new in out:
        for a, b in zip(codes, new, strict=True):
            assert pairs(a) == pairs(b)
            seen = np.flatnonzero(a >= 0)
            if seen.size:
                assert a[seen[0]] == b[seen[0]] and a[seen[-1]] == b[seen[-1]]


def test_long_stays_do_not_stall_the_shuffle() -> None:
    x = np.repeat([0, 1, 2, 0, 1], 40)[None]
    out = drawn("markov_shuffle", x, 200)
    assert pairs(out[0, 0]) == pairs(x[0])
    # Stays of state 0: 78 further steps dealt to two visits, every split equally likely.
    first = [len(list(next(itertools.groupby(r))[1])) - 1 for r in out[:, 0].tolist()]
    assert abs(np.mean(first) - 39) < 5 and np.std(first) == pytest.approx(78 / np.sqrt(12), rel=0.15)


@settings(max_examples=60, deadline=None)
@given(codes_with_gaps, st.sampled_from(["depth", "depth_pooled"]))
def test_shuffles_between_sequences_keep_occupancy_by_position(codes: np.ndarray, null: str) -> None:
    strata = np.arange(len(codes)) % 2
    for new in drawn(null, codes, 3, strata=strata):
        for s in (0, 1):
            np.testing.assert_array_equal(
                np.sort(new[strata == s], axis=0), np.sort(codes[strata == s], axis=0)
            )
        np.testing.assert_array_equal(new < 0, codes < 0)
        if null == "depth":
            np.testing.assert_array_equal(np.sort(new, axis=1), np.sort(codes, axis=1))


def test_both_margins_kept_and_nothing_else() -> None:
    x = np.array([[0, 1, 2], [1, 0, 0], [2, 1, 0], [0, 2, 1]])
    columns = [sorted(set(itertools.permutations(x[:, t]))) for t in range(3)]
    tables = (np.array(c).T for c in itertools.product(*columns))
    possible = [tuple(m.ravel().tolist()) for m in tables if np.array_equal(np.sort(m), np.sort(x))]
    tables = (drawn("depth", x, 60, seed=s) for s in range(100))
    found = Counter(tuple(m.ravel().tolist()) for block in tables for m in block)
    assert len(possible) > 10
    uniform(found, possible, 6000)


@settings(max_examples=60, deadline=None)
@given(codes_with_gaps)
def test_exchanged_continuations_keep_transitions_at_every_position(codes: np.ndarray) -> None:
    for new in drawn("depth_markov", codes, 3):
        for t in range(codes.shape[1] - 1):
            before, after = (Counter(map(tuple, m[:, t : t + 2].tolist())) for m in (codes, new))
            assert before == after


def test_exchange_breaks_what_reaches_further_back() -> None:
    x = np.array([[0, 1, 2]] * 30 + [[2, 1, 0]] * 30)
    out = drawn("depth_markov", x, 300)
    kept = np.mean((out[..., 0] == 0) & (out[..., 2] == 2))
    assert kept == pytest.approx(0.25, abs=0.01)


def test_simulated_chains_have_the_fitted_transitions() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, (40, 10))
    counts = sum(map(pairs, x), Counter())
    out = drawn("markov_group", x, 400)
    np.testing.assert_array_equal(out[:, :, 0], np.broadcast_to(x[:, 0], out.shape[:2]))
    a, b = out[..., :-1].ravel(), out[..., 1:].ravel()
    for i, j in itertools.product(range(3), repeat=2):
        wanted = counts[i, j] / sum(counts[i, m] for m in range(3))
        assert np.mean(b[a == i] == j) == pytest.approx(wanted, abs=0.01)


def test_units_that_differ_get_chains_that_differ() -> None:
    rng = np.random.default_rng(4)
    probability = np.repeat([0.1, 0.9], 20)[:, None]
    x = (rng.random((40, 30)) < probability).astype(int)
    alike = drawn("markov_group", x, 50, k=2).mean(axis=(0, 2))
    own = drawn("markov", x, 50, k=2).mean(axis=(0, 2))
    assert abs(alike[:20].mean() - alike[20:].mean()) < 0.1
    assert own[20:].mean() - own[:20].mean() == pytest.approx(0.8, abs=0.1)


def test_concentration_is_found_again() -> None:
    rng = np.random.default_rng(0)
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])
    for c in (5.0, 50.0):
        tables = np.array([[rng.multinomial(60, rng.dirichlet(c * row)) for row in p] for _ in range(400)])
        np.testing.assert_allclose(dirichlet_concentration(tables.astype(float)), c, rtol=0.35)
    same = np.array([[rng.multinomial(60, row) for row in p] for _ in range(400)])
    assert (dirichlet_concentration(same.astype(float)) > 300).all()


def test_groups_are_apart_and_layers_are_positions() -> None:
    labels = pd.DataFrame({"model": ["a", "b"], "prompt": ["p", "p"], "start": [1, 0]})
    s = Sequences.from_lists([["x", "y"], ["y", "x", "x"]], labels=labels, axis="layer")
    np.testing.assert_array_equal(aligned(s), [[-1, 0, 1], [1, 0, 0]])
    for null in NULLS:
        blocks = list(null_sequences(s, null, 150, rng=1))
        assert sum(map(len, blocks)) == 150
        if null.startswith("depth"):
            assert all((b == aligned(s)).all() for b in blocks)
    first = np.concatenate(list(null_sequences(s, "markov", 20, rng=2)))
    np.testing.assert_array_equal(first, np.concatenate(list(null_sequences(s, "markov", 20, rng=2))))


def test_bad_arguments() -> None:
    s = Sequences.from_lists([["x", "y"]], labels={"model": ["a"], "prompt": ["p"]})
    with pytest.raises(DynstatError, match="S404"):
        next(null_sequences(s, "other"))
    with pytest.raises(DynstatError, match="S404"):
        next(null_sequences(s, "markov", 0))
    with pytest.raises(DynstatError, match="S407"):
        next(null_sequences(s, "markov", by="family"))
    nothing = Sequences.from_lists(
        [[], [None]], states=["x"], labels={"model": ["a", "a"], "prompt": ["p", "q"]}
    )
    for null in NULLS:
        with pytest.raises(DynstatError, match="hold no state"):
            next(null_sequences(nothing, null))
