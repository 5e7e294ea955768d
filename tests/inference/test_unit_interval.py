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
    assert 0.2 < e.low < e.value < e.high <= 0.4
    most = unit_interval("p", 0.3, np.where(np.arange(100) < 60, np.nan, 0.3), n={"units": 20}, **REST)
    assert math.isnan(most.low) and most.pivot is None and "most replicates" in most.interval


def test_wrong_use():
    with pytest.raises(DynstatError, match="S403"):
        unit_interval("p", 0.3, [0.1, 0.2], n={"units": 1}, **REST)
    with pytest.raises(DynstatError, match="S404"):
        unit_interval("p", 0.3, [0.1, 0.2], n={}, **REST)
