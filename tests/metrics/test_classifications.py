"""Regimes, states, episodes, commitment time, repetition rate."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynstat.errors import DynstatError
from dynstat.metrics.commitment import commitment_time, first_above
from dynstat.metrics.episodes import collapse, collapse_thresholds, find_episodes, hysteresis, rivalry
from dynstat.metrics.regimes import MIDPOINT_CUTS, PUBLISHED_RANGES, REGIMES, regime
from dynstat.metrics.repetition import repetition_rate
from dynstat.metrics.states import (
    PUBLISHED_STATES,
    STATES,
    Thresholds,
    last_pair,
    learn_thresholds,
    state,
)

nan = np.nan


def names(codes):
    return [REGIMES[i] for i in codes]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fixture_12_published_ranges(dtype):
    x = np.array([1.55, 1.70, 2.27, 2.92, 2.97, 4.42, 35.55, 2.0, 3.5, 1.0, 36], dtype=dtype)
    want = ["UNDERACTIVE"] * 2 + ["ADAPTIVE"] * 2 + ["TRANSITION"] + ["CHAOTIC"] * 2 + ["UNASSIGNED"] * 4
    assert names(regime(x)) == want


def test_midpoint_cuts_are_midpoints():
    ranges = list(PUBLISHED_RANGES.values())
    assert MIDPOINT_CUTS[0] == pytest.approx((ranges[0][1] + ranges[1][0]) / 2)
    assert MIDPOINT_CUTS[1] == pytest.approx((ranges[1][1] + 2.97) / 2)
    assert MIDPOINT_CUTS[2] == pytest.approx((2.97 + ranges[3][0]) / 2)
    x = [1.0, 1.98, 1.99, 2.944, 2.95, 3.69, 3.70, 99]
    want = list(np.repeat(["UNDERACTIVE", "ADAPTIVE", "TRANSITION", "CHAOTIC"], 2))
    assert names(regime(x, mode="midpoint")) == want
    assert names(regime([1.0, 2.0, 3.0, 4.0], mode="cuts", cuts=[2, 3, 4])) == want[::2]


@given(st.floats(1, 50))
def test_published_range_agrees_with_the_midpoint_partition(x):
    published = regime(x)
    if published > 0:
        assert published == regime(x, mode="midpoint")


def test_no_ratio_no_regime():
    for mode in ("published", "midpoint"):
        assert regime([nan, 1.6], mode=mode).tolist() == [-1, 1]


def learned(**changes):
    return Thresholds.fixed(**{"turbulence": 1.0, "branching": 0.5, "synchronisation": 0.3, **changes})


def test_states_by_the_rule():
    """All 16 sides of the four thresholds, against the sentences of the rule."""
    for moves, branches, sure, apart in itertools.product([False, True], repeat=4):
        code = state(
            [[1.1 if moves else 1.0]],
            [[0.6 if branches else 0.5]],
            [[0.5 if sure else 0.49]],
            [[0.29 if apart else 0.3]],
            learned(),
        )[0, 0]
        if moves:
            want = "FULL_BIFURCATION" if branches else "HIDDEN_TURBULENCE"
        elif branches:
            want = "SURFACE_BRANCHING"
        else:
            want = "COMMITTED" if sure and apart else "STABLE"
        assert STATES[code] == want
    assert [p.split("_", 1)[1].startswith(s) for p, s in zip(PUBLISHED_STATES, STATES, strict=True)] == [
        True
    ] * 5


def test_last_layer_takes_the_last_pair():
    sync = np.array([[0.1, 0.2, nan], [0.9, nan, nan]])
    np.testing.assert_array_equal(last_pair(sync), [[0.1, 0.2, 0.2], [0.9, 0.9, nan]])
    low = np.zeros((2, 3))
    got = state(low, low, low + 1, sync, learned())
    assert got.tolist() == [[3, 3, 3], [0, 0, -1]]


def test_missing_input_missing_state():
    base = [np.zeros((1, 2)) for _ in range(4)]
    for i in range(4):
        parts = [b.copy() for b in base]
        parts[i][0, 0] = nan
        assert state(*parts, learned()).tolist() == [[-1, 0]]


def test_learned_thresholds():
    rng = np.random.default_rng(1)
    x, y, z = (rng.random((3, 4, 50, 2)) + np.arange(3).reshape(3, 1, 1, 1) for _ in range(3))
    mask = rng.random(x.shape) < 0.7
    pooled = learn_thresholds(x, y, z, mask)
    assert pooled.turbulence[0] == pytest.approx(np.quantile(x[mask], 0.75))
    assert pooled.synchronisation[0] == pytest.approx(np.quantile(z[mask], 0.25))
    ids = ["a", "b", "c"]
    each = learn_thresholds(x, y, z, mask, mode="per_model", models=ids, high=0.9, low=0.1)
    assert each.branching[1] == pytest.approx(np.quantile(y[1][mask[1]], 0.9))
    for thresholds in (pooled, each, learned()):
        assert Thresholds.from_dict(thresholds.as_dict()) == thresholds
    # Models in another order find their own thresholds.
    p1 = np.ones_like(x)
    whole = state(x, y, p1, z, each, models=ids)
    swapped = state(x[::-1], y[::-1], p1, z[::-1], each, models=ids[::-1])
    np.testing.assert_array_equal(whole[::-1], swapped)
    # Per-model quantiles fix the shares by construction.
    moving = np.isin(whole, [STATES.index("HIDDEN_TURBULENCE"), STATES.index("FULL_BIFURCATION")])
    for m in range(3):
        assert moving[m][mask[m]].mean() == pytest.approx(0.1, abs=0.01)
    with pytest.raises(DynstatError):
        state(x, y, p1, z, each, models=["a", "b", "unknown"])


def test_wrong_thresholds():
    for call in (
        lambda: Thresholds("quantile", (1.0,), (1.0,), (1.0,)),
        lambda: Thresholds("pooled", (1.0, 2.0), (1.0,), (1.0,)),
        lambda: learn_thresholds([[1.0]], [[1.0]], [[1.0]], mode="per_model"),
        lambda: learn_thresholds([[nan]], [[1.0]], [[1.0]]),
    ):
        with pytest.raises(DynstatError):
            call()


@given(
    hnp.arrays(np.float64, st.integers(1, 25), elements=st.sampled_from([0.05, 0.15, 0.2, 0.3, nan])),
    st.booleans(),
)
def test_hysteresis_against_a_loop(x, below):
    enter, leave = (0.1, 0.25) if below else (0.25, 0.1)
    got = hysteresis(x, enter=enter, leave=leave, below=below)
    inside = False
    for t, value in enumerate(x):
        if np.isnan(value):
            assert got[t] == -1
            continue
        if value < enter if below else value > enter:
            inside = True
        elif value > leave if below else value <= leave:
            inside = False
        assert got[t] == inside


def test_episodes_and_their_borders():
    x = np.array([[0.0, 0.2, 0.5, 0.0, 0.2, nan], [0.5, 0.2, 0.05, nan, 0.2, 0.3], [nan] * 6])
    e = find_episodes(collapse(x, enter=0.1, leave=0.25))
    assert e.run.tolist() == [[0], [0], [1]] and len(e) == 3
    assert e.start.tolist() == [0, 3, 2] and e.end.tolist() == [2, 5, 5]
    assert e.left_open.tolist() == [True, False, False]
    assert e.right_open.tolist() == [False, True, False]
    assert e.length.tolist() == [2, 2, 3]
    assert len(find_episodes(np.zeros((2, 3), int))) == 0


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 3), st.integers(1, 15)), elements=st.integers(-1, 1)))
def test_episodes_cover_just_the_tokens_inside(codes):
    e = find_episodes(codes)
    covered = np.zeros(codes.shape, bool)
    for run, start, end in zip(e.run[:, 0], e.start, e.end, strict=True):
        assert not covered[run, start:end].any()
        covered[run, start:end] = True
    np.testing.assert_array_equal(covered & (codes >= 0), codes == 1)


def test_collapse_thresholds_and_rivalry():
    x = np.random.default_rng(2).random(1000)
    assert collapse_thresholds(x) == pytest.approx(tuple(np.quantile(x, [0.1, 0.25])))
    assert rivalry([0.4, 0.51, 0.5, nan]).tolist() == [0, 1, 0, -1]
    assert rivalry([0.6, 0.45, 0.3], enter=0.5, leave=0.4).tolist() == [1, 1, 0]
    for call in (
        lambda: collapse(x, enter=0.3, leave=0.2),
        lambda: rivalry(x, enter=0.3, leave=0.4),
        lambda: collapse_thresholds(x, enter_quantile=0.5),
        lambda: collapse_thresholds([nan]),
    ):
        with pytest.raises(DynstatError):
            call()


@given(hnp.arrays(np.int32, st.integers(1, 12), elements=st.integers(-1, 3)), st.booleans())
def test_commitment_time_against_a_loop(ids, relative):
    valid = [i for i in range(len(ids)) if ids[i] >= 0]
    got = commitment_time(ids, relative=relative)
    if not valid or (relative and valid[-1] == 0):
        assert np.isnan(got)
        return
    want = next(i for i in valid if all(ids[j] == ids[valid[-1]] for j in valid if j >= i))
    assert got == pytest.approx(want / valid[-1] if relative else want)


def test_commitment_along_axes_and_by_probability():
    ids = np.array([[1, 2, 2, 2], [3, 3, 3, -1], [-1] * 4])
    np.testing.assert_array_equal(commitment_time(ids), [1, 0, nan])
    np.testing.assert_array_equal(commitment_time(ids.T, axis=0), [1, 0, nan])
    np.testing.assert_array_equal(commitment_time(ids, ids < 2), [0, nan, nan])
    p = np.array([[0.1, 0.5, 0.2], [0.1, 0.2, nan], [0.9, 0.9, 0.9]])
    np.testing.assert_array_equal(first_above(p), [1, nan, 0])
    np.testing.assert_array_equal(first_above(p, tau=0.2, relative=True), [0.5, 1, 0])
    with pytest.raises(DynstatError):
        first_above(p, tau=1)


@given(
    hnp.arrays(np.int32, st.integers(1, 20), elements=st.integers(0, 2)),
    st.integers(0, 8),
    st.integers(1, 4),
    st.sampled_from(["run", "generated"]),
    st.integers(0, 3),
)
def test_repetition_against_counting(ids, prompt, n, history, start):
    generated = np.arange(len(ids)) >= prompt
    got = repetition_rate(ids, generated, n=n, history=history, start=start)
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    first = 0 if history == "run" else prompt
    counted = range(prompt + start, len(grams))
    if not len(counted):
        assert np.isnan(got)
    else:
        assert got == pytest.approx(np.mean([grams[i] in grams[first:i] for i in counted]))


def test_repetition_extremes():
    assert repetition_rate(np.arange(20)) == 0
    loop = np.tile([1, 2, 3, 4], 10)
    assert repetition_rate(loop) == pytest.approx(33 / 37)
    assert repetition_rate(np.append(loop, [-1] * 5)) == pytest.approx(33 / 37)
    for bad in ({"n": 0}, {"start": -1}, {"history": "prompt"}):
        with pytest.raises(DynstatError):
            repetition_rate(loop, **bad)


@pytest.mark.parametrize("bad", [{"mode": "tuned"}, {"mode": "cuts"}, {"mode": "cuts", "cuts": [3, 2, 1]}])
def test_wrong_regimes(bad):
    with pytest.raises(DynstatError) as error:
        regime([1.0], **bad)
    assert error.value.code == "S404"


def test_only_the_last_layer_takes_the_last_pair():
    nan = np.nan
    # model 0: its last pair is that of layers 2 and 3; at the second token layer 1 was not finite.
    sync = np.array(
        [[[0.1, 0.2, 0.3, nan], [0.1, nan, 0.3, nan]], [[0.5, nan, nan, nan], [nan, nan, nan, nan]]]
    )
    filled = np.array([[[0.1, 0.2, 0.3, 0.3], [0.1, nan, 0.3, 0.3]], [[0.5, 0.5, nan, nan], [nan] * 4]])
    np.testing.assert_array_equal(last_pair(sync), filled)
    np.testing.assert_array_equal(last_pair([0.4, nan, nan]), [0.4, 0.4, nan])
    np.testing.assert_array_equal(last_pair([[nan], [nan]]), [[nan], [nan]])
