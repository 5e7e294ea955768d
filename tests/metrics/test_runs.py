"""ratio_norm and companions, late_ct, flux, debt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynstat.errors import DynstatError
from dynstat.metrics import runs
from dynstat.metrics.trajectory import ct, step_length, turning_angle

# Subnormal numbers lose their ratios to rounding, so values are 0 or well above.
series = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(1, 20)), elements=st.just(0.0) | st.floats(1e-6, 10)
)


@given(series)
def test_bounds(x):
    t = x.shape[-1]
    some = x.sum(axis=-1) > 0
    ratio = runs.ratio_norm(x)
    np.testing.assert_array_equal(np.isnan(ratio), ~some)
    assert (ratio[some] >= 1).all() and (ratio[some] <= t).all()
    assert (runs.ratio_norm(x, scale="log")[some] <= np.log(t)).all()
    assert (runs.gini(x)[some] <= 1 - 1 / t + 1e-12).all() and (runs.gini(x)[some] >= 0).all()
    assert (runs.coefficient_of_variation(x)[some] <= np.sqrt(t - 1) + 1e-9).all()


@given(series, st.floats(0.01, 100))
def test_ratios_have_no_units(x, scale):
    for f in (runs.ratio_norm, runs.q95_median, runs.coefficient_of_variation, runs.gini):
        np.testing.assert_allclose(f(x * scale), f(x), rtol=1e-6, atol=1e-9)


@given(series)
def test_order_does_not_matter(x):
    np.testing.assert_allclose(runs.ratio_norm(x[..., ::-1]), runs.ratio_norm(x), rtol=1e-12)


def test_mask_and_gaps_are_left_out():
    x = np.array([[9.0, 1, 2, 3, np.nan, 50]])
    mask = np.array([[False, True, True, True, True, False]])
    clean = np.array([[1.0, 2, 3]])
    for f in (runs.ratio_norm, runs.q95_median, runs.coefficient_of_variation, runs.gini, runs.flux):
        np.testing.assert_allclose(f(x, mask), f(clean))
    for k, v in runs.companions(x, mask).items():
        np.testing.assert_allclose(v, runs.companions(clean)[k], err_msg=k)


def test_companions_against_definitions():
    x = np.random.default_rng(1).exponential(size=(3, 40))
    assert runs.gini(x)[1] == pytest.approx(
        np.abs(x[1][:, None] - x[1][None, :]).sum() / (2 * 40**2 * x[1].mean())
    )
    c = runs.companions(x)
    np.testing.assert_allclose(c["q95_median"], np.quantile(x, 0.95, axis=1) / np.median(x, axis=1))
    np.testing.assert_allclose(c["cv"], x.std(axis=1) / x.mean(axis=1))


@pytest.mark.parametrize(
    ("draw", "length", "mean"),
    [
        ("uniform", 16, 1.93), ("uniform", 128, 1.99),
        ("halfnormal", 32, 2.96), ("halfnormal", 256, 3.82),
        ("exponential", 32, 4.06), ("exponential", 128, 5.41),
        ("lognormal", 64, 6.81),
    ],
)  # fmt: skip
def test_length_and_tail_alone(draw, length, mean):
    """The table of section 1.5, to 2 %: 20,000 runs leave a standard error below 0.5 %."""
    rng = np.random.default_rng(2)
    how = {
        "uniform": rng.uniform,
        "halfnormal": lambda size: np.abs(rng.normal(size=size)),
        "exponential": rng.exponential,
        "lognormal": rng.lognormal,
    }[draw]
    assert runs.ratio_norm(how(size=(20_000, length))).mean() == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize(("t", "m", "published"), [(64, 1, 33.2), (64, 4, 13.2), (64, 8, 7.3), (64, 16, 3.9)])
def test_fixture_4_freeze(t, m, published):
    """Active for m steps, then frozen: ratio about T/(m+1), late_ct below the legacy threshold."""
    rng = np.random.default_rng(3)
    states = rng.normal(size=(100, t + 2, 768))
    # States 0 .. m+2 differ, so ct has m + 1 values above 0 among its t.
    states[:, m + 3 :] = states[:, m + 2 : m + 3]
    values = ct(step_length(states), turning_angle(states))
    assert np.isfinite(values).sum(axis=1).tolist() == [t] * 100
    ratio = runs.ratio_norm(values).mean()
    assert ratio == pytest.approx(t / (m + 1), rel=0.06)
    assert ratio == pytest.approx(published, rel=0.08)
    assert (runs.late_ct(values) < runs.LATE_CT_LEGACY_THRESHOLD).all()
    # Frozen throughout: no ratio, and late_ct 0.
    still = ct(step_length(states[:, -9:]), turning_angle(states[:, -9:]))
    assert np.isnan(runs.ratio_norm(still)).all() and (runs.late_ct(still) == 0).all()


def test_late_ct_windows():
    x = np.arange(1.0, 11.0)
    assert runs.late_ct(x) == pytest.approx((8 + 9 + 10) / 3)  # 25 % of 10, rounded up
    assert runs.late_ct(x, share=0.2) == pytest.approx(9.5)
    assert runs.late_ct(x, last=1) == 10
    mask = np.arange(10) < 8
    assert runs.late_ct(x, mask) == pytest.approx(7.5)
    gap = np.where(x == 10, np.nan, x)
    assert runs.late_ct(gap, np.ones(10, bool)) == pytest.approx(8.5)


def test_flux():
    x = np.array([[1.0, 2.0, 3.0], [np.nan] * 3])
    np.testing.assert_array_equal(runs.flux(x), [2, np.nan])
    np.testing.assert_array_equal(runs.flux(x, aggregate="sum"), [6, np.nan])
    np.testing.assert_array_equal(runs.flux(x, aggregate="per_byte", n_bytes=[12, 0]), [0.5, np.nan])


@given(series, st.floats(0, 5), st.floats(0, 3))
def test_cusum_against_the_recursion(x, mu0, sigma0):
    fast = runs.cusum(x, mu0=mu0, sigma0=sigma0)
    for i, row in enumerate(x):
        s = 0.0
        for t, value in enumerate(row):
            s = max(0.0, s + value - mu0 - sigma0 / 2)
            assert fast[i, t] == pytest.approx(s, abs=1e-9)
    assert (fast >= 0).all()


def test_debt():
    x = np.array([1.0, 5, 5, 0, 0])
    assert runs.debt(x, mu0=1, sigma0=2) == 6 and runs.debt(x, mu0=1, sigma0=2, statistic="final") == 2
    assert runs.debt(x, method="excess_area") == 8
    np.testing.assert_allclose(runs.debt_reference(x), [2.2, np.std(x, ddof=1)])
    assert np.isnan(runs.debt(np.full(3, np.nan), mu0=1, sigma0=1))
    # Tokens left out do not pay debt back.
    assert runs.debt([5.0, 0, 0, 5], [True, False, False, True], mu0=1, sigma0=2) == 6


@pytest.mark.parametrize(
    "call",
    [
        lambda: runs.ratio_norm([1.0], scale="ln"),
        lambda: runs.late_ct([1.0], share=1.0),
        lambda: runs.late_ct([1.0], last=0),
        lambda: runs.flux([1.0], aggregate="per_byte"),
        lambda: runs.flux([1.0], aggregate="median"),
        lambda: runs.debt([1.0]),
        lambda: runs.debt([1.0], mu0=1, sigma0=1, statistic="mean"),
    ],
)
def test_wrong_options(call):
    with pytest.raises(DynstatError) as error:
        call()
    assert error.value.code == "S404"
    with pytest.raises(DynstatError):
        runs.debt_reference([1.0])
