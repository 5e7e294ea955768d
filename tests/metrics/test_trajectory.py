"""Step length, turning angle and ct: closed forms, invariances, baselines, alignments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynstat.errors import DynstatError
from dynstat.metrics.runs import ratio_norm
from dynstat.metrics.trajectory import (
    ALIGNMENTS,
    CURVATURE_KINDS,
    convert_angle,
    ct,
    state_norm,
    step_length,
    turning_angle,
)

nan = np.nan


def slow(states, eps=1e-6, normalise=True):
    """Steps and angles of one run, a token at a time, by arccos."""
    u = [h / np.sqrt(sum(x * x for x in h)) if normalise else h for h in states]
    steps, angles = [nan], [nan, nan]
    v = [None] + [u[t] - u[t - 1] for t in range(1, len(u))]
    for t in range(1, len(u)):
        steps.append(np.sqrt(sum(x * x for x in v[t])))
    for t in range(2, len(u)):
        a, b = steps[t - 1], steps[t]
        angles.append(nan if min(a, b) < eps else np.arccos(np.clip(np.dot(v[t - 1], v[t]) / (a * b), -1, 1)))
    return np.array(steps), np.array(angles)


def ct_of(states, alignment="causal"):
    return ct(step_length(states), turning_angle(states), alignment=alignment)


def test_slow_version_agrees():
    states = np.random.default_rng(1).normal(size=(3, 2, 9, 5))
    states[0, 0, 4] = states[0, 0, 3]
    fast = step_length(states), turning_angle(states)
    for i in np.ndindex(3, 2):
        for a, b in zip(fast, slow(states[i]), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-7)
    raw = turning_angle(states, normalise=False)
    np.testing.assert_allclose(raw[1, 1], slow(states[1, 1], normalise=False)[1], atol=1e-7)
    assert np.isnan(fast[1][0, 0, 4:6]).all() and fast[0][0, 0, 4] == 0


def test_a_step_below_eps_has_no_direction():
    states = np.array([[1.0, 0], [1, 0.1], [1, 0.1 + 1e-8], [1, 0.3]])
    assert np.isnan(turning_angle(states)[2:]).all()
    assert np.isfinite(turning_angle(states, eps=1e-10)[2:]).all()
    np.testing.assert_array_equal(ct_of(states)[2:], [0, nan])


def test_layer_axis_is_the_transposed_token_axis():
    states = np.random.default_rng(2).normal(size=(4, 6, 7, 3))  # run, token, layer, dim
    swapped = np.swapaxes(states, 1, 2)
    for f in (step_length, turning_angle):
        np.testing.assert_array_equal(np.swapaxes(f(states, axis=1), 1, 2), f(swapped))
        np.testing.assert_array_equal(f(states, axis=-3), f(states, axis=1))
    along_depth = step_length(states, axis=-2)
    assert along_depth.shape == (4, 6, 7) and np.isnan(along_depth[..., 0]).all()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_short_runs(n):
    states = np.eye(4)[:n]
    assert np.isfinite(step_length(states)).sum() == max(n - 1, 0)
    assert np.isfinite(turning_angle(states)).sum() == max(n - 2, 0)
    assert ct_of(states).shape == (n,)


def test_fixture_1_independent_directions():
    """iid unit vectors: 120 degrees, ct 2.96, ratio_norm 1.04-1.07."""
    h = np.random.default_rng(3).normal(size=(20, 128, 768))
    assert np.nanmean(turning_angle(h, kind="deg")) == pytest.approx(120, abs=1)
    series = ct_of(h)
    assert np.nanmean(series) == pytest.approx(np.sqrt(2) * 2 * np.pi / 3, abs=0.02)
    assert 1.04 <= ratio_norm(series).mean() <= 1.07


def test_fixture_2_random_walk_and_line():
    walk = np.cumsum(np.random.default_rng(4).normal(size=(10, 200, 768)), axis=1)
    assert np.nanmean(turning_angle(walk, kind="deg", normalise=False)) == pytest.approx(90, abs=1)
    line = np.arange(1, 9)[:, None] * np.array([1.0, 2.0, -1.0]) + np.array([0.5, 0, 3])
    np.testing.assert_allclose(turning_angle(line, normalise=False)[2:], 0, atol=1e-7)
    frozen = np.tile([[1.0, 2.0]], (5, 1))
    assert np.isnan(turning_angle(frozen)).all()
    np.testing.assert_array_equal(ct_of(frozen), [nan, nan, 0, 0, 0])


def test_circle_turns_by_its_angle():
    phi = 0.3 * np.arange(8)
    circle = np.stack([np.cos(phi), np.sin(phi)], axis=-1)
    np.testing.assert_allclose(step_length(circle)[1:], 2 * np.sin(0.15))
    np.testing.assert_allclose(step_length(circle, kind="angle")[1:], 0.3)
    np.testing.assert_allclose(step_length(circle, kind="one_minus_cos")[1:], 1 - np.cos(0.3))
    np.testing.assert_allclose(turning_angle(circle)[2:], 0.3)
    np.testing.assert_allclose(turning_angle(circle, kind="menger")[2:], 1)  # inverse of the radius


def test_menger_is_four_areas_over_the_sides():
    p = np.random.default_rng(5).normal(size=(3, 2)) * 3
    a, b, c = (np.linalg.norm(p[i] - p[j]) for i, j in ((0, 1), (1, 2), (0, 2)))
    area = abs((p[1, 0] - p[0, 0]) * (p[2, 1] - p[0, 1]) - (p[2, 0] - p[0, 0]) * (p[1, 1] - p[0, 1])) / 2
    assert turning_angle(p, kind="menger", normalise=False)[2] == pytest.approx(4 * area / (a * b * c))
    v = np.diff(p, axis=0)
    found = turning_angle(p, kind="difference", normalise=False)[2]
    assert found == pytest.approx(np.linalg.norm(v[1] - v[0]))
    back = np.array([[0.0, 0], [1, 0], [0, 0]])
    assert np.isnan(turning_angle(back, kind="menger", normalise=False)[2])
    assert turning_angle(back, kind="deg", normalise=False)[2] == pytest.approx(180)


def test_small_angles_keep_their_digits():
    tiny = 1e-9
    states = np.array([[0.0, 0], [1, 0], [2, tiny]])
    assert turning_angle(states, normalise=False)[2] == pytest.approx(tiny, rel=1e-6)


shapes = st.tuples(st.integers(3, 9), st.integers(2, 6))
clouds = shapes.flatmap(
    lambda s: st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=s))
)


@given(clouds, st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_fixture_3_rotation_and_scale(states, seed, scale):
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(states.shape[1],) * 2))
    each = rng.uniform(0.1, 10, size=(len(states), 1))
    for moved in (states @ rotation, states * scale, states * each):
        for alignment in ALIGNMENTS:
            np.testing.assert_allclose(ct_of(moved, alignment), ct_of(states, alignment), atol=1e-6)


def test_fixture_3_not_translation():
    states = np.random.default_rng(6).normal(size=(30, 8))
    assert np.nanmax(np.abs(ct_of(states + 2) - ct_of(states))) > 0.1


@given(clouds)
def test_ranges_and_reversal(states):
    d, a = step_length(states), turning_angle(states)
    assert np.nanmin(d) >= 0 and np.nanmax(d) <= 2
    assert np.isnan(a[2:]).all() or (np.nanmin(a) >= 0 and np.nanmax(a) <= np.pi)
    np.testing.assert_allclose(turning_angle(states[::-1])[2:], a[2:][::-1], atol=1e-7)


def test_alignments_by_hand():
    s = np.array([nan, 1.0, 0.5, 0.25, 2.0])
    a = np.array([nan, nan, 1.0, 2.0, 3.0])
    want = {
        "causal": [nan, nan, 0.5, 0.5, 6.0],
        "outgoing": [nan, 0.5, 0.5, 6.0, nan],
        "incoming": [nan, 1.0, 1.0, 0.75, nan],
        "centred": [nan, 0.75, 0.75, 3.375, nan],
    }
    assert set(want) == set(ALIGNMENTS)
    for alignment, values in want.items():
        np.testing.assert_allclose(ct(s, a, alignment=alignment), values)
        stacked = ct(np.stack([s, s], 1), np.stack([a, a], 1), alignment=alignment, axis=0)
        np.testing.assert_allclose(stacked[:, 1], values)


def test_standstill_is_zero_and_leaving_it_is_undefined():
    s = np.array([nan, 1.0, 0.0, 0.0, 1.0, 1.0])
    a = np.array([nan, nan, nan, nan, nan, 2.0])
    np.testing.assert_array_equal(ct(s, a), [nan, nan, 0, 0, nan, 2])
    np.testing.assert_array_equal(ct(s, a, alignment="incoming"), [nan, nan, 0, 0, 2, nan])


@pytest.mark.parametrize("spread", [0.14, 0.15])
def test_alignment_alone_moves_an_attention_sink_between_regimes(spread):
    """Section 1.5: incoming step 4.8-5.4, outgoing 1.08; one odd first state, the others in a tight cone."""
    rng = np.random.default_rng(7)
    cone = rng.normal(size=(40, 1, 768))
    cone /= state_norm(cone)[..., None]
    noise = rng.normal(size=(40, 64, 768)) * spread / np.sqrt(768)
    states = cone + noise
    states[:, 0] = rng.normal(size=(40, 768))
    into = ratio_norm(ct_of(states, "incoming")).mean()
    out = ratio_norm(ct_of(states, "outgoing")).mean()
    assert 4.7 <= into <= 5.5
    assert out == pytest.approx(1.08, abs=0.03)
    assert ratio_norm(ct_of(states, "causal")).mean() == out


@pytest.mark.parametrize("kind", CURVATURE_KINDS)
def test_stored_series_give_every_reading_of_curvature(kind):
    states = np.random.default_rng(8).normal(size=(2, 7, 4))
    stored = convert_angle(turning_angle(states), kind, step_length=step_length(states))
    np.testing.assert_allclose(stored, turning_angle(states, kind=kind))


@pytest.mark.parametrize(
    "call",
    [
        lambda: step_length(np.eye(3), kind="arc"),
        lambda: turning_angle(np.eye(3), kind="grad"),
        lambda: ct([1.0], [1.0], alignment="late"),
        lambda: ct([1.0], [1.0], step="arc"),
        lambda: convert_angle([1.0], "menger"),
        lambda: step_length(np.ones(3)),
        lambda: step_length(np.eye(3), axis=-1),
    ],
)
def test_wrong_options(call):
    with pytest.raises(DynstatError) as error:
        call()
    assert error.value.code == "S404"


@given(hnp.arrays(np.float64, (2, 4, 3), elements=st.floats(-10, 10)))
def test_state_norm(h):
    np.testing.assert_allclose(state_norm(h), np.linalg.norm(h, axis=-1))
