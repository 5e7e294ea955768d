"""Structureless data: what each kind keeps, and that a rotation is uniform."""

import numpy as np
import pytest
from scipy import stats

from dynstat.cluster import structureless
from dynstat.cluster.null_sets import KINDS, shrunk_covariance, structureless_many
from dynstat.errors import DynstatError


def _data(n=9, p=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) + 5.0


@pytest.mark.parametrize(("n", "p"), [(9, 1), (9, 3), (5, 4), (5, 5), (4, 9)])
def test_rotation_keeps_mean_and_covariance_exactly(n, p):
    x = _data(n, p)
    many = structureless(x, "rotation", count=20, rng=1)
    assert many.shape == (20, n, p)
    for null in many:
        np.testing.assert_allclose(null.mean(axis=0), x.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(np.cov(null.T), np.cov(x.T), atol=1e-10)
    assert np.abs(many - x).max(axis=(1, 2)).min() > 1e-3


def test_rotation_is_uniform():
    """One feature: the standardised values of one item follow the law of a coordinate on the sphere."""
    x = _data(7, 1)
    many = structureless(x, "rotation", count=4000, rng=2)[:, :, 0]
    z = (many - x.mean()) / np.sqrt(np.sum((x - x.mean()) ** 2))
    # Item 0 of a unit vector in the 6 dimensions across 1: z² / (1 − 1/7) is Beta(1/2, 5/2).
    for item in (0, 6):
        assert stats.kstest(z[:, item] ** 2 / (6 / 7), stats.beta(0.5, 2.5).cdf).pvalue > 1e-3
        assert np.mean(z[:, item] > 0) == pytest.approx(0.5, abs=0.03)


def test_gaussian_has_the_covariance_of_the_data():
    x = _data(30, 3)
    many = structureless(x, "gaussian", count=3000, rng=3)
    np.testing.assert_allclose(many.mean(axis=(0, 1)), x.mean(axis=0), atol=0.03)
    flat = many.reshape(-1, 3)
    np.testing.assert_allclose(np.cov(flat.T), np.cov(x.T), atol=0.04 * np.abs(np.cov(x.T)).max())


@pytest.mark.parametrize(("n", "p"), [(6, 6), (6, 15), (40, 5)])
def test_shrinkage_equals_scikit_learn(n, p):
    from sklearn.covariance import ledoit_wolf

    x = _data(n, p)
    centred = x - x.mean(axis=0)
    expected, _ = ledoit_wolf(centred, assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(centred), expected, rtol=1e-9, atol=1e-12)


def test_gaussian_with_more_features_than_items_is_shrunk():
    x = _data(6, 10)
    many = structureless(x, "gaussian", count=3000, rng=3).reshape(-1, 10)
    centred = x - x.mean(axis=0)
    expected = shrunk_covariance(centred)
    np.testing.assert_allclose(np.cov(many.T), expected, atol=0.06 * np.abs(expected).max())


def test_permuted_columns_keep_values_and_lose_relations():
    x = _data(200, 2)
    x[:, 1] = x[:, 0] * 2
    null = structureless(x, "column_permuted", rng=4)
    np.testing.assert_array_equal(np.sort(null, axis=0), np.sort(x, axis=0))
    assert abs(np.corrcoef(null.T)[0, 1]) < 0.3


def test_uniform_fills_the_box():
    x = _data(8, 2)
    many = structureless(x, "uniform", count=4000, rng=5).reshape(-1, 2)
    assert np.all(many >= x.min(axis=0)) and np.all(many <= x.max(axis=0))
    share = (many - x.min(axis=0)) / np.ptp(x, axis=0)
    assert all(stats.kstest(s, "uniform").pvalue > 1e-3 for s in share.T)


def test_uniform_along_principal_axes():
    x = _data(8, 2)
    mean = x.mean(axis=0)
    vt = np.linalg.svd(x - mean, full_matrices=False)[2]
    own = (x - mean) @ vt.T
    scores = (structureless(x, "uniform_pca", count=3000, rng=6).reshape(-1, 2) - mean) @ vt.T
    share = (scores - own.min(axis=0)) / np.ptp(own, axis=0)
    assert share.min() >= -1e-9 and share.max() <= 1 + 1e-9
    assert all(stats.kstest(s, "uniform").pvalue > 1e-3 for s in share.T)


def test_many_sets_keep_apart():
    x = np.stack([_data(seed=s) + 100 * s for s in range(3)])
    for kind in KINDS:
        found = structureless_many(x, kind, 4, np.random.default_rng(0))
        assert found.shape == (3, 4, 9, 3)
        np.testing.assert_allclose(found.mean(axis=(1, 2)), x.mean(axis=1), atol=12)


def test_seed_and_one_set():
    x = _data()
    for kind in KINDS:
        assert structureless(x, kind, rng=1).shape == x.shape
        np.testing.assert_array_equal(structureless(x, kind, rng=1), structureless(x, kind, rng=1))


@pytest.mark.parametrize(
    ("code", "data", "kind"),
    [
        ("S404", _data(), "poisson"),
        ("S405", _data(2), "rotation"),
        ("S405", [[np.nan, 1], [1, 2], [2, 2]], "uniform"),
    ],
)
def test_bad_input(code, data, kind):
    with pytest.raises(DynstatError) as caught:
        structureless(data, kind)
    assert caught.value.code == code
