"""Intervals of a unit bootstrap, against closed forms of the normal case and the plain percentile."""

import math

import numpy as np
import pytest
from scipy import special, stats

from dynstat.errors import DynstatError
from dynstat.inference.estimate import AdjustedDrawsPivot, DrawsPivot
from dynstat.inference.unit_interval import unit_interval

REST = {"method": "m@1", "unit": "prompt"}


def normal_draws(n, size=20001):
    """Draws at the quantiles of the bootstrap of a normal mean: sd shrunk by sqrt((n - 1)/n)."""
    grid = (np.arange(size) + 0.5) / size
    return special.ndtri(grid) * math.sqrt((n - 1) / n) / math.sqrt(n)


@pytest.mark.parametrize("n", [5, 12, 24, 72])
def test_normal_mean_gets_student_interval(n):
    pivot = AdjustedDrawsPivot(tuple(normal_draws(n)), n)
    # s = 1: the textbook limit is t / sqrt(n).
    for alpha in (0.025, 0.05):
        want = stats.t.isf(alpha, n - 1) / math.sqrt(n)
        assert pivot.limit(alpha, "upper") == pytest.approx(want, rel=0.02)
        assert pivot.limit(alpha, "lower") == pytest.approx(-want, rel=0.02)
    assert pivot.p_above(0.0) == pytest.approx(0.5, abs=1e-3)
    v = -stats.t.isf(0.03, n - 1) / math.sqrt(n)
    assert pivot.p_above(v) == pytest.approx(0.03, abs=2e-3)
    assert pivot.p_below(-v) == pytest.approx(0.03, abs=2e-3)


def test_many_units_are_the_plain_percentile():
    draws = tuple(np.random.default_rng(1).gamma(2, size=999))
    plain, adjusted = DrawsPivot(draws), AdjustedDrawsPivot(draws, math.inf)
    for side in ("lower", "upper"):
        assert adjusted.limit(0.05, side) == pytest.approx(plain.limit(0.05, side), rel=1e-12)
    assert adjusted.p_above(1.3) == pytest.approx(plain.p_above(1.3), abs=1e-12)


@pytest.mark.parametrize("bias,acceleration", [(0.0, 0.0), (0.1, 0.05), (-0.2, 0.08)])
def test_p_turns_where_the_limit_lies(bias, acceleration):
    draws = tuple(np.random.default_rng(2).gamma(3, size=4999))
    pivot = AdjustedDrawsPivot(draws, 20, bias, acceleration)
    assert pivot.p_above(pivot.limit(0.05, "lower")) == pytest.approx(0.05, abs=3e-3)
    assert pivot.p_below(pivot.limit(0.05, "upper")) == pytest.approx(0.05, abs=3e-3)


def test_bca_matches_scipy():
    x = np.random.default_rng(3).gamma(1.0, size=30)
    ref = stats.bootstrap((x,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(4))
    draws = ref.bootstrap_distribution
    z0 = special.ndtri((np.sum(draws < x.mean()) + np.sum(draws <= x.mean())) / (2 * draws.size))
    left = (x.sum() - x) / (x.size - 1)
    d = left.mean() - left
    pivot = AdjustedDrawsPivot(
        tuple(draws), math.inf, float(z0), float((d**3).sum() / (6 * (d**2).sum() ** 1.5))
    )
    got = (pivot.limit(0.025, "lower"), pivot.limit(0.025, "upper"))
    assert got == pytest.approx(tuple(ref.confidence_interval), rel=1e-9)


def test_undefined_replicates_are_counted_not_hidden():
    draws = np.linspace(0.2, 0.4, 100)
    draws[:7] = np.nan
    e = unit_interval("p", 0.3, draws, n={"units": 20}, bounds=(0, 1), **REST)
    assert e.diagnostics["undefined"] == 7 and e.diagnostics["replicates"] == 100
    assert 0.2 < e.low < e.value < e.high < 0.45
    most = unit_interval("p", 0.3, np.where(np.arange(100) < 60, np.nan, 0.3), n={"units": 20}, **REST)
    assert math.isnan(most.low) and most.pivot is None and "most replicates" in most.interval


@pytest.mark.parametrize("units", [12, 72])
def test_normal_draws_give_the_t_interval_on_every_scale(units):
    t = stats.t.isf(0.025, units - 1)
    z = normal_draws(units) * math.sqrt(units)
    scaled = 0.1 * z
    wanted = np.array([-t, t]) * 0.1
    cases = [
        ((-np.inf, np.inf), 2.0, lambda x: 2 + x),
        ((1.0, np.inf), 3.0, lambda x: 1 + 2 * np.exp(x)),
        ((-0.3, 0.7), 0.2, lambda x: -0.3 + special.expit(x)),
    ]
    for bounds, value, back in cases:
        # sd of draws is sqrt((n - 1)/n)/10, so the standard error is 1/10.
        e = unit_interval("x", value, back(scaled), n={"units": units}, bounds=bounds, **REST)
        assert [e.low, e.high] == pytest.approx(list(back(wanted)), rel=1e-3)
        assert e.limit(0.025, "upper") == e.high
        assert e.pivot.p_below(e.high) == pytest.approx(0.025, rel=1e-9)
        assert e.pivot.p_above(e.low) == pytest.approx(0.025, rel=1e-9)


def test_draws_at_a_bound():
    rng = np.random.default_rng(0)
    draws = rng.binomial(10, 0.05, 999) / 10
    left = np.r_[np.full(11, 0.055), 0.0]
    from_draws = unit_interval("p", 0.05, draws, n={"units": 12}, bounds=(0, 1), **REST)
    from_jackknife = unit_interval("p", 0.05, draws, jackknife=left, n={"units": 12}, bounds=(0, 1), **REST)
    assert "delta" in from_draws.interval and "jackknife" in from_jackknife.interval
    for e in (from_draws, from_jackknife):
        assert 0 < e.low < 0.05 < e.high < 1
    at = unit_interval("p", 0.0, np.zeros(99), n={"units": 12}, bounds=(0, 1), **REST)
    assert (at.low, at.high) == (0.0, 0.0) and "bound" in at.interval


def test_wrong_use():
    with pytest.raises(DynstatError, match="S403"):
        unit_interval("p", 0.3, [0.1, 0.2], n={"units": 1}, **REST)
    with pytest.raises(DynstatError, match="S404"):
        unit_interval("p", 0.3, [0.1, 0.2], n={}, **REST)
