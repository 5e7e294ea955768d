"""Derived quantities of chains, against closed forms, a slow walk through time, and sub-chains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.markov import derived as d

NAN = np.nan


@st.composite
def matrices(draw, k=4, zeros=True):
    low = 0 if zeros else 1
    rows = draw(st.lists(st.lists(st.integers(low, 3), min_size=k, max_size=k), min_size=k, max_size=k))
    m = np.array(rows, dtype=float)
    m[m.sum(axis=1) == 0, 0] = 1.0
    return m / m.sum(axis=1, keepdims=True)


def walk_to(p, j, steps=3000):
    """Chance and mean time of reaching j from every state, by walking through time."""
    k = len(p)
    q = p.copy()
    q[j] = np.eye(k)[j]
    alive, time = np.eye(k), np.zeros(k)
    for _ in range(steps):
        time += 1 - alive[:, j]
        alive = alive @ q
    return alive[:, j], time


@pytest.mark.parametrize("a,b", [(0.1, 0.3), (0.5, 0.5), (0.9, 0.8)])
def test_two_states(a, b):
    p = np.array([[1 - a, a], [b, 1 - b]])
    pi = np.array([b, a]) / (a + b)
    assert d.stationary(p) == pytest.approx(pi, abs=1e-14)
    assert d.eigenvalue_moduli(p) == pytest.approx([1, abs(1 - a - b)], abs=1e-14)
    assert d.spectral_gap(p) == pytest.approx(1 - abs(1 - a - b), abs=1e-14)
    want = 0 if a + b == 1 else -2 / np.log(abs(1 - a - b))
    assert d.implied_timescales(p, lag=2)[0] == pytest.approx(want, abs=0.1 if want == 0 else 1e-12)
    assert d.mean_first_passage(p) == pytest.approx(np.array([[0, 1 / a], [1 / b, 0]]), rel=1e-12)
    assert d.recurrence_time(p) == pytest.approx(1 / pi, rel=1e-12)
    assert d.dwell(p) == pytest.approx([1 / a, 1 / b], rel=1e-12)
    h = [-(x * np.log(x) + (1 - x) * np.log(1 - x)) for x in (a, b)]
    assert d.entropy_rate(p) == pytest.approx(pi @ h, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(matrices())
def test_passage_equals_a_walk_through_time(p):
    got = d.mean_first_passage(p)
    for j in range(4):
        chance, time = walk_to(p, j)
        certain = chance > 1 - 1e-6
        assert np.array_equal(np.isfinite(got[:, j]), certain)
        assert got[certain, j] == pytest.approx(time[certain], rel=1e-6, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_structure_and_stationary(p):
    kind = d.structure(p)
    power = np.linalg.matrix_power((np.eye(4) + p) / 2, 4000)
    classes = round(np.trace(power @ power))
    assert kind.classes == classes
    pi = d.stationary(p)
    if classes > 1:
        assert np.isnan(pi).all()
    else:
        assert pi == pytest.approx(power[0], abs=1e-9) and pi @ p == pytest.approx(pi, abs=1e-12)
        assert kind.irreducible == bool((power[0] > 1e-9).all())
    # Powers of an ergodic chain settle, of a periodic one they do not.
    assert kind.aperiodic == bool(kind.irreducible and (np.linalg.matrix_power(p, 401) > 0).all())


@settings(max_examples=40, deadline=None)
@given(matrices(zeros=False), st.integers(0, 4))
def test_state_never_visited_changes_nothing(p, at):
    k = np.delete(np.arange(5), at)
    big = np.zeros((5, 5))
    big[np.ix_(k, k)] = p
    big[at] = NAN
    assert d.stationary(big)[k] == pytest.approx(d.stationary(p), abs=1e-12) and d.stationary(big)[at] == 0
    assert d.eigenvalue_moduli(big) == pytest.approx(np.append(d.eigenvalue_moduli(p), 0), abs=1e-7)
    passage = d.mean_first_passage(big)
    assert passage[np.ix_(k, k)] == pytest.approx(d.mean_first_passage(p), rel=1e-9)
    assert np.isnan(passage[at]).all() and np.isnan(passage[:, at]).all()
    assert d.entropy_rate(big) == pytest.approx(d.entropy_rate(p), abs=1e-12)
    assert np.isnan(d.recurrence_time(big)[at])


def test_entered_and_never_left_is_undefined():
    p = d.transition_matrix([[3, 1], [0, 0]])
    assert np.isnan(d.stationary(p)).all() and np.isnan(d.entropy_rate(p))
    assert not d.structure(p).defined
    # As an absorbing state it needs no row.
    a = d.absorption(p, [1])
    assert a.probability[:, 0] == pytest.approx([1, 1]) and a.steps == pytest.approx([4, 0])


@pytest.mark.parametrize("up", [0.3, 0.5, 0.7])
def test_gamblers_ruin(up):
    k = 6
    p = np.zeros((k, k))
    p[0, 0] = p[-1, -1] = 1
    for i in range(1, k - 1):
        p[i, i + 1], p[i, i - 1] = up, 1 - up
    a = d.absorption(p, [0, k - 1])
    i, r = np.arange(k), (1 - up) / up
    win = i / (k - 1) if up == 0.5 else (1 - r**i) / (1 - r ** (k - 1))
    assert a.probability == pytest.approx(np.column_stack([1 - win, win]), abs=1e-12)
    time = i * (k - 1 - i) if up == 0.5 else (i - (k - 1) * win) / (1 - 2 * up)
    assert a.steps == pytest.approx(time, abs=1e-10)
    # One barrier alone is not reached for certain.
    assert np.isinf(d.absorption(p, [0]).steps[1:]).all()


def test_batches_equal_single_calls():
    rng = np.random.default_rng(5)
    n = rng.integers(0, 3, (40, 4, 4))
    n[:5, 2] = 0
    n[3:9, :, 1] = 0
    p = d.transition_matrix(n)
    for f in (d.stationary, d.eigenvalue_moduli, d.mean_first_passage, d.entropy_rate, d.recurrence_time):
        one = np.array([f(x) for x in p])
        np.testing.assert_allclose(f(p), one, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(f(p.reshape(5, 8, 4, 4)), one.reshape(5, 8, *one.shape[1:]), rtol=1e-9)


def test_lift_is_zero_under_independence():
    share = np.array([0.5, 0.3, 0.2])
    assert d.lift(1000 * np.outer(share, share)) == pytest.approx(np.zeros(3), abs=1e-12)
    n = np.array([[8, 2], [5, 5]])
    assert d.lift(n) == pytest.approx([0.8 - 13 / 20, 0.5 - 7 / 20])
    assert np.isnan(d.lift([[8, 2], [0, 0]])[1])


def test_lumpability():
    # Rows 0 and 1 go to {0, 1} and {2} with equal chance: that grouping is exact, the other is not.
    n = np.array([[10, 20, 10], [25, 5, 10], [8, 8, 4]])
    assert d.lumpability(n, [0, 0, 1]) == pytest.approx(0, abs=1e-12)
    p_a, p_c, whole = 20 / 40, 12 / 20, 32 / 60
    by_hand = (40 * abs(p_a - whole) + 20 * abs(p_c - whole)) / 100
    assert d.lumpability(n, [0, 1, 0]) == pytest.approx(by_hand)
    with pytest.raises(DynstatError, match="S407"):
        d.lumpability(n, [0, 1])
    with pytest.raises(DynstatError, match="S404"):
        d.absorption(n / n.sum(1, keepdims=True), [7])


def test_lumpability_null_tells_a_grouping_from_a_wrong_one():
    from dynstat.markov.lumping import lumpability_null

    # 0 and 1 go to {0, 1} with .7, 2 and 3 with .4: lumpable so, not as {0, 2} and {1, 3}.
    p = np.array([[0.6, 0.1, 0.2, 0.1], [0.3, 0.4, 0.1, 0.2], [0.2, 0.2, 0.1, 0.5], [0.1, 0.3, 0.4, 0.2]])
    rng = np.random.default_rng(6)
    rows = np.array([[rng.multinomial(10, p[i]) for i in range(4)] for _ in range(60)])
    right = lumpability_null(rows, [0, 0, 1, 1], rng=1)
    wrong = lumpability_null(rows, [0, 1, 0, 1], rng=1)
    assert right["p"] > 0.05 and wrong["p"] == 1 / 1000
    assert 0 < right["mean"] < right["q95"] < d.lumpability(rows.sum(axis=0), [0, 1, 0, 1])
    # Copies of a unit's transitions add nothing: the null is as wide as before.
    copied = lumpability_null(9 * rows, [0, 0, 1, 1], rng=1)
    assert copied["mean"] == pytest.approx(right["mean"], rel=0.15)
