"""The measuring instrument itself: its array forms are the rules and families; its bounds can be missed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.calibration_decisions import (
    ALPHA,
    Case,
    Checks,
    Sample,
    cases,
    decided,
    outcomes_agree,
    p_arrays,
)
from benchmarks.calibration_families import agrees, decide, draw, naive, p_values, wrong
from dynstat.inference.multiplicity import CORRECTIONS
from dynstat.inference.rules import RULES


def test_every_rule_is_measured_where_its_nulls_end():
    assert {c.rule.kind for c in cases()} == set(RULES)
    for case in cases():
        for truth in (*case.support, *case.reject):
            supported, rejected = case.exact(truth, ALPHA)
            assert (
                max(supported if truth in case.support else 0, rejected if truth in case.reject else 0)
                <= 0.0501
            )


@pytest.mark.parametrize("df", [4.0, math.inf])
def test_array_forms_of_the_rules_are_the_rules(df):
    rng = np.random.default_rng(2)
    for case in cases():
        s = Sample.draw(float(rng.normal(0, 3)), 40, df, rng)
        supported, rejected = decided(*p_arrays(case.rule, s), ALPHA)
        assert outcomes_agree(case.rule, s, supported, rejected, ALPHA, 40), case.name
        assert not outcomes_agree(case.rule, s, rejected, ~rejected, ALPHA, 40), case.name


@pytest.mark.parametrize("correction", list(CORRECTIONS))
@pytest.mark.parametrize("m", [1, 2, 5])
def test_array_forms_of_the_families_are_the_families(correction, m):
    rng = np.random.default_rng(m)
    x = draw(m, m // 2, 3.0, 0.3, 60, rng)
    x[:10, -1] = np.nan
    supported, rejected = decide(correction, *p_values(x, 3.0))
    assert not (supported & rejected).any()
    assert agrees(correction, x, 3.0, supported, rejected, 60)
    assert not agrees(correction, x, 3.0, ~supported, rejected, 60)


def test_bounds_can_be_missed():
    checks = Checks()
    checks.most("fine", 0.052, 0.05, 10_000)
    checks.near("fine", 0.052, 0.05, 10_000)
    checks.true("fine", True)
    assert not checks.failed
    checks.most("a", 0.06, 0.05, 10_000)
    checks.near("b", 0.04, 0.05, 10_000)
    checks.true("c", False)
    assert len(checks.failed) == 3 and checks.count == 6


def test_closed_forms_of_a_rule_against_integration():
    """`exact` against the share of a fine grid of estimates that the array form decides."""
    z = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    for case in cases():
        truth = case.support[0] + 0.3
        s = Sample(z + truth, np.ones(z.size), math.inf)
        found = [float(x.mean()) for x in decided(*p_arrays(case.rule, s), ALPHA)]
        assert found == pytest.approx(case.exact(truth, ALPHA), abs=2e-5), case.name
    assert isinstance(case, Case)


def test_plain_stepping_errs_and_the_staged_corrections_do_not():
    rng = np.random.default_rng(6)
    x = draw(8, 1, 3.5, 0.0, 6_000, rng)
    p = p_values(x, 3.5)
    rates = {
        c: wrong(x, 1, *decide(c, *p)).any(axis=1).mean() for c in ("holm", "fixed_sequence", "gatekeeping")
    }
    assert max(rates.values()) < 0.06 < 0.2 < wrong(x, 1, *naive(*p)).any(axis=1).mean()
