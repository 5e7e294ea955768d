"""CLIPPED_MAD with its scopes, and the nulls of ratio_norm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dynstat.errors import DynstatError
from dynstat.metrics.normalisation import REASONS, clipped_mad, normalise
from dynstat.metrics.nulls import length_matched, ratio_norm_z, shape_matched
from dynstat.metrics.runs import ratio_norm


@pytest.mark.parametrize("clip", [3, 3.5, 5])
def test_clipped_mad_against_scipy(clip):
    x = np.random.default_rng(1).standard_cauchy(size=500)
    m, s = np.median(x), stats.median_abs_deviation(x, scale=1 / 1.4826)
    got = clipped_mad(x, clip=clip)
    np.testing.assert_allclose(got.values, np.clip(x, m - clip * s, m + clip * s))
    z = clipped_mad(x, clip=clip, standardise=True).values
    assert np.abs(z).max() == pytest.approx(clip) and abs(np.median(z)) < 1e-12


@given(st.integers(0, 2**32 - 1))
def test_positive_series_stay_positive_and_ratios_fall(seed):
    x = np.random.default_rng(seed).lognormal(size=(4, 30))
    clipped = clipped_mad(x).values
    assert (clipped >= 0).all()
    # Clipping at the top lowers max / mean by construction.
    assert (ratio_norm(clipped) <= ratio_norm(x) + 1e-12).all()


def test_zero_mad_is_a_reason_and_not_an_error():
    x = np.array([[0, 0, 0, 0, 5.0], [np.nan] * 5, [1, 2, 3, 4, 5]])
    got = clipped_mad(x)
    assert [REASONS[r] for r in got.reason[:, 0]] == ["mad_zero", "no_values", "ok"]
    assert np.isnan(got.values[:2]).all() and np.isfinite(got.values[2]).all()


def test_scopes():
    x = np.random.default_rng(2).lognormal(size=(2, 3, 2, 20))
    mask = np.random.default_rng(3).random(x.shape) < 0.8
    held = np.where(mask, x, np.nan)

    def slow(values):
        m = np.nanmedian(values)
        s = 1.4826 * np.nanmedian(np.abs(values - m))
        return np.clip(values, m - 3 * s, m + 3 * s)

    def got(scope):
        return normalise(x, mask, normalisation="CLIPPED_MAD", scope=scope, clip=3)

    np.testing.assert_allclose(got("panel"), slow(held))
    np.testing.assert_allclose(got("model")[1], slow(held[1]))
    np.testing.assert_allclose(got("run")[1, 2, 0], slow(held[1, 2, 0]))
    np.testing.assert_array_equal(normalise(x, mask), held)


def test_length_matched_null_is_calibrated():
    """Runs drawn iid from one distribution: p uniform, z about 0."""
    x = np.random.default_rng(4).exponential(size=(200, 40))
    null = length_matched(x, replicates=199, rng=5)
    assert stats.kstest(null.p, "uniform").pvalue > 0.01
    assert abs(null.z.mean()) < 0.3
    assert null.draws.shape == (199, 200) and null.seed == 5
    # 40 draws of an exponential: E max / mean is near the sum of 1/k (its maximum) over a mean of 1.
    assert null.draws.mean() == pytest.approx(4.27, abs=0.25)


def test_length_matched_grows_with_length():
    x = np.random.default_rng(6).exponential(size=(60, 80))
    mask = np.arange(80) < np.where(np.arange(60) % 2, 80, 10)[:, None]
    null = length_matched(x, mask, replicates=99, rng=1)
    assert null.mean[1::2].min() > null.mean[::2].max()
    assert (null.draws[:, ::2] <= 10).all()


def test_shape_matched_leaves_the_run_out():
    """One model is flat, one has a spike in a single run: its own null must not hold the spike."""
    x = np.ones((2, 5, 16)) + np.random.default_rng(7).uniform(0, 0.1, size=(2, 5, 16))
    x[1, 3, 4] = 20
    null = shape_matched(x, replicates=200, rng=2)
    assert null.draws[:, 1, 3].max() < 1.2
    assert null.p[1, 3] == pytest.approx(1 / 201)
    assert null.draws[:, 1, 0].max() > 5  # other runs of the model do hold it
    assert null.draws[:, 0].max() < 1.2  # the other model does not
    pooled = length_matched(x, replicates=200, rng=2)
    assert pooled.draws[:, 0].max() > 5


def test_reasons_and_reproducibility():
    x = np.random.default_rng(8).exponential(size=(2, 2, 12))
    x[0, 0] = 0
    x[1, 1] = np.nan
    null = shape_matched(x, replicates=20, rng=3)
    assert null.reason.tolist() == [[1, 2], [2, 1]]
    assert np.isnan(null.z).all() and np.isnan(null.p).all()
    a, b = (length_matched(x, replicates=20, rng=3) for _ in range(2))
    np.testing.assert_array_equal(a.draws, b.draws)
    assert np.isfinite(a.z[0, 1])


def test_z_and_scale():
    x = np.random.default_rng(9).exponential(size=(3, 4, 20))
    null = length_matched(x, replicates=50, rng=0, scale="log")
    np.testing.assert_allclose(np.exp(null.observed), ratio_norm(x))
    np.testing.assert_allclose(
        null.z, (null.observed - null.draws.mean(axis=0)) / null.draws.std(axis=0, ddof=1)
    )
    np.testing.assert_allclose(ratio_norm_z(x, replicates=50, rng=0, scale="log"), null.z)


@pytest.mark.parametrize(
    "call",
    [
        lambda: clipped_mad([1.0], clip=0),
        lambda: normalise(np.ones((1, 2)), normalisation="MAD"),
        lambda: normalise(np.ones((1, 2)), normalisation="CLIPPED_MAD", scope="prompt"),
        lambda: length_matched([1.0, 2.0], replicates=1),
        lambda: shape_matched([1.0, 2.0]),
        lambda: ratio_norm_z(np.ones((1, 2)), null="permuted"),
    ],
)
def test_wrong_options(call):
    with pytest.raises(DynstatError) as error:
        call()
    assert error.value.code == "S404"
