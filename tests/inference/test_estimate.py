"""Estimates: limits and p-values of a pivot agree with each other and with scipy."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dynstat.errors import DynstatError
from dynstat.inference.estimate import DrawsPivot, Estimate, TPivot

COMMON = dict(method="test@1", interval="t", unit="prompt", n={"prompts": 12})


def test_t_limits_are_scipys():
    pivot = TPivot(center=1.3, se=0.4, df=11)
    assert pivot.limit(0.025, "upper") == pytest.approx(1.3 + stats.t.ppf(0.975, 11) * 0.4, rel=1e-12)
    assert pivot.limit(0.025, "lower") == pytest.approx(1.3 - stats.t.ppf(0.975, 11) * 0.4, rel=1e-12)
    assert pivot.p_above(0.5) == pytest.approx(stats.t.sf(2.0, 11), rel=1e-12)


def test_normal_limits_are_scipys():
    pivot = TPivot(center=0.0, se=2.0, df=math.inf)
    assert pivot.limit(0.05, "upper") == pytest.approx(2 * stats.norm.ppf(0.95), rel=1e-12)
    assert pivot.p_below(1.0) == pytest.approx(stats.norm.cdf(-0.5), rel=1e-12)


@given(
    center=st.floats(-3, 3),
    se=st.floats(0.05, 0.5),
    df=st.floats(5, 200),
    alpha=st.floats(0.001, 0.4),
    scale=st.sampled_from(["identity", "logit", "log"]),
)
def test_the_p_value_at_a_limit_is_its_level(center, se, df, alpha, scale):
    pivot = TPivot(center=center, se=se, df=df, scale=scale)
    assert pivot.p_above(pivot.limit(alpha, "lower")) == pytest.approx(alpha, abs=1e-6)
    assert pivot.p_below(pivot.limit(alpha, "upper")) == pytest.approx(alpha, abs=1e-6)
    assert pivot.limit(alpha, "lower") <= pivot.limit(alpha, "upper")


def test_bounds_cut_limits_and_not_p_values():
    pivot = TPivot(center=0.02, se=0.05, df=11, bounds=(0.0, 1.0))
    assert pivot.limit(0.05, "lower") == 0.0
    assert pivot.p_above(0.0) == pytest.approx(stats.t.sf(0.4, 11))


def test_draws_are_counted_with_the_observed_value_included():
    pivot = DrawsPivot(tuple(np.arange(1.0, 100.0)))
    assert pivot.p_above(0.0) == pytest.approx(1 / 100)
    assert pivot.p_below(99.5) == pytest.approx(1 / 100)
    assert pivot.limit(0.05, "lower") == pytest.approx(np.quantile(np.arange(1.0, 100.0), 0.05))


def test_an_estimate_prints_how_it_was_made_and_survives_json():
    e = Estimate.from_pivot("share.model", 0.3, TPivot(0.3, 0.05, 11), **COMMON)
    text = str(e)
    for part in ("share.model", "unit: prompt", "12 prompts", "test@1", "95 %"):
        assert part in text
    assert json.loads(json.dumps(e.as_dict()))["n"] == {"prompts": 12}
    assert e.low < e.value < e.high
    with pytest.raises(DynstatError):
        Estimate.from_pivot("x", 0.3, TPivot(0.3, 0.05, 11), level=95, **COMMON)


def test_without_a_pivot_there_is_no_limit():
    e = Estimate(key="x", value=1.0, low=math.nan, high=math.nan, level=0.95, **COMMON)
    assert math.isnan(e.limit(0.05, "lower"))
