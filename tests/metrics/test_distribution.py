"""Shape of next-token distributions, against scipy, closed forms and slow versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial.distance import jensenshannon

from dynstat.errors import DynstatError
from dynstat.metrics import distribution as d

logits = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 3), st.integers(2, 40)), elements=st.floats(-30, 30, width=32)
)
STATISTICS = (d.entropy, d.top1_probability, d.top2_probability, d.concentration, d.sum_squares, d.dispersion)


def softmax(z):
    e = np.exp(np.float64(z) - np.float64(z).max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@given(logits)
def test_against_scipy_and_sorting(z):
    p = softmax(z)
    ordered = -np.sort(-p, axis=-1)
    np.testing.assert_allclose(d.entropy(z), stats.entropy(p, axis=-1), atol=1e-12)
    np.testing.assert_allclose(d.top1_probability(z), ordered[:, 0])
    np.testing.assert_allclose(d.top2_probability(z), ordered[:, 1])
    np.testing.assert_allclose(d.concentration(z, k=3), ordered[:, :3].sum(-1))
    np.testing.assert_allclose(d.sum_squares(z), (p**2).sum(-1))
    np.testing.assert_array_equal(d.dispersion(z, threshold=0.05), (p > 0.05 * (1 + 1e-9)).sum(-1))


@given(logits)
def test_bounds(z):
    v = z.shape[-1]
    h = d.entropy(z)
    assert (h >= 0).all() and (h <= np.log(v) + 1e-12).all()
    p1, p2 = d.top1_probability(z), d.top2_probability(z)
    assert (p1 >= np.exp(-h) - 1e-12).all() and (p2 <= np.minimum(p1, 1 - p1) + 1e-12).all()
    assert (d.sum_squares(z) >= 1 / v - 1e-12).all() and (d.sum_squares(z) <= p1 + 1e-12).all()
    assert (d.concentration(z, k=2) <= d.concentration(z, k=3) + 1e-12).all()
    assert (d.dispersion(z) <= 99).all()
    assert (d.effective_vocabulary(h) <= v * (1 + 1e-9)).all()


@given(logits, st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_permutation_and_shift_of_logits(z, seed, shift):
    order = np.random.default_rng(seed).permutation(z.shape[-1])
    for f in (d.entropy, d.top1_probability, d.top2_probability, d.concentration, d.sum_squares):
        np.testing.assert_allclose(f(z[:, order]), f(z), atol=1e-12)
        np.testing.assert_allclose(f(np.float64(z) + shift), f(z), atol=1e-9)


@given(logits, st.integers(1, 20))
def test_padding_rows_change_nothing(z, padding):
    v = z.shape[-1]
    padded = np.concatenate([z, np.full((len(z), padding), 25, np.float32)], axis=-1)
    keep = np.arange(v + padding) < v
    for f in STATISTICS:
        np.testing.assert_allclose(f(padded, valid=v), f(z), rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(f(padded, valid=keep), f(padded, valid=v))
        np.testing.assert_allclose(f(softmax(z), form="probabilities"), f(z), atol=1e-12)


@given(logits, st.integers(0, 2**32 - 1))
def test_jensen_shannon(z, seed):
    y = np.random.default_rng(seed).normal(size=z.shape) * 5
    js = d.jensen_shannon(z, y)
    truth = [jensenshannon(a, b) ** 2 for a, b in zip(softmax(z), softmax(y), strict=True)]
    np.testing.assert_allclose(js, truth, atol=1e-10)
    np.testing.assert_allclose(d.jensen_shannon(y, z), js, atol=1e-15)
    assert (js >= 0).all() and (js <= np.log(2)).all()
    np.testing.assert_array_equal(d.jensen_shannon(z, z), 0)


def test_disjoint_distributions_are_out_of_step():
    p, q = np.array([1.0, 0, 0]), np.array([0, 0.5, 0.5])
    assert d.jensen_shannon(p, q, form="probabilities") == pytest.approx(np.log(2))
    for kind in ("jsd", "cosine"):
        assert d.synchronisation(p, q, kind=kind, form="probabilities") == pytest.approx(0)


def test_nearly_equal_distributions_keep_their_digits():
    """JSD of p and p + e is about sum e^2 / (8 p): a difference of entropies would give noise here."""
    p = np.full(4, 0.25)
    e = 1e-7 * np.array([1, -1, 1, -1])
    got = d.jensen_shannon(p, p + e, form="probabilities")
    assert got == pytest.approx((e**2 / (8 * p)).sum(), rel=1e-2)


def test_ranked_synchronisation():
    x = np.log([0.4, 0.3, 0.2, 0.1])
    y = np.log([0.3, 0.4, 0.1, 0.2])
    assert d.synchronisation(x, x, kind="rbo", k=3) == 1 == d.synchronisation(x, x, kind="top_k", k=2)
    assert d.synchronisation(x, y, kind="top_k", k=2) == 1 and d.synchronisation(x, y, kind="top_k", k=1) == 0
    # overlap at depths 1, 2, 3: 0, 1, 2/3
    want = (0.9 + 0.81 * 2 / 3) / (1 + 0.9 + 0.81)
    assert d.synchronisation(x, y, kind="rbo", k=3) == pytest.approx(want)
    p, q = softmax(x), softmax(y)
    cosine = p @ q / np.linalg.norm(p) / np.linalg.norm(q)
    assert d.synchronisation(x, y, kind="cosine") == pytest.approx(cosine)


@pytest.mark.parametrize("v", [101, 1024, 50257])
def test_fixture_6_dispersion_of_flat_and_one_hot(v):
    flat, one_hot = np.zeros(v), np.where(np.arange(v) == 3, 100.0, 0.0)
    assert d.dispersion(flat) == 0 and d.dispersion(one_hot) == 1
    assert d.entropy(flat) == pytest.approx(np.log(v)) and d.entropy(one_hot) == pytest.approx(0, abs=1e-9)
    assert d.effective_vocabulary(d.entropy(flat)) == pytest.approx(v)


def test_dispersion_reaches_99_and_not_more():
    p = np.append(np.full(99, 0.01001), 1 - 99 * 0.01001)
    assert d.dispersion(p, form="probabilities") == 99
    assert d.dispersion(np.full(100, 0.01), form="probabilities") == 0


def test_extreme_logits_stay_finite():
    z = np.array([[1e4, -1e4, 0], [-1e30, 0, 0], [3e38, 0, -3e38]], dtype=np.float32)
    for f in STATISTICS:
        assert np.isfinite(f(z)).all()
    np.testing.assert_allclose(d.entropy(z), [0, np.log(2), 0])


def test_sums_are_float64():
    """150,000 float32 terms: a float32 sum is off in the fifth digit."""
    z = np.random.default_rng(1).normal(size=150_000).astype(np.float32)
    assert d.entropy(z) == pytest.approx(stats.entropy(softmax(z)), rel=1e-13)


def test_non_finite_rows_give_nan_and_leave_the_others():
    z = np.array([[0.0, np.nan, 1], [0, 0, 0], [0, np.inf, 0]])
    for f in STATISTICS:
        assert np.isnan(f(z)).tolist() == [True, False, True]
    for kind in ("jsd", "top_k", "rbo", "cosine"):
        got = d.synchronisation(z, np.zeros((3, 3)), kind=kind, k=2)
        assert np.isnan(got).tolist() == [True, False, True], kind


@pytest.mark.parametrize(
    "call",
    [
        lambda: d.entropy([0.0, 1], form="odds"),
        lambda: d.entropy([-0.1, 1.1], form="probabilities"),
        lambda: d.entropy([0.0, 1], valid=3),
        lambda: d.entropy([0.0, 1], valid=0),
        lambda: d.entropy([0.0, 1], valid=[1, 0]),
        lambda: d.concentration([0.0, 1], k=0),
        lambda: d.dispersion([0.0, 1], threshold=1),
        lambda: d.synchronisation([0.0, 1], [0.0, 1], kind="kl"),
    ],
)
def test_wrong_options(call):
    with pytest.raises(DynstatError) as error:
        call()
    assert error.value.code == "S404"


def test_divergence_where_the_half_of_a_probability_rounds_to_zero():
    # exp(-744.9) is the smallest float64, and its half is 0.
    z = np.array([0.0, -744.9])
    assert 0 < np.exp(z[1]) and np.exp(z[1]) / 2 == 0
    assert d.jensen_shannon(z, [0.0, -2000.0]) < 1e-300
    assert d.synchronisation(z, [0.0, -2000.0]) == 1.0


@pytest.mark.parametrize("kind", ["top_k", "rbo"])
def test_overlap_needs_a_depth(kind):
    with pytest.raises(DynstatError, match="S404"):
        d.synchronisation(np.zeros(4), np.zeros(4), kind=kind, k=0)
