"""The dip against R's diptest, its p against R's table, and bad input."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster.unimodality import dip_null, dip_statistic, dip_test
from dynstat.errors import DynstatError

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "structure.json").read_text())["dips"]


@pytest.mark.parametrize("case", ORACLE, ids=lambda c: c["name"])
def test_dip_equals_diptest(case):
    assert float(dip_statistic(case["values"])) == pytest.approx(case["statistic"], abs=1e-12)


def test_rows_go_through_the_cycles_as_they_do_alone():
    x = np.random.default_rng(0).standard_t(2, (60, 25)).round(1)
    assert dip_statistic(x) == pytest.approx([float(dip_statistic(row)) for row in x], abs=0)


def test_dip_keeps_linear_changes_and_turning_round():
    x = np.random.default_rng(1).normal(size=(40, 17))
    assert dip_statistic(-3 * x + 2) == pytest.approx(dip_statistic(x), abs=1e-12)


@pytest.mark.parametrize("name", ["gd_log", "gd_raw", "waiting", "rivers"])
def test_p_equals_the_table_of_r_within_the_error_of_both(name):
    case = next(c for c in ORACLE if c["name"] == name)
    test = dip_test(case["values"], null_sets=3999, rng=3)
    se = np.sqrt(max(case["p"] * (1 - case["p"]), 1e-3) / 4000)
    assert abs(test.p_value - case["p"]) < 4 * se + 0.004


def test_level_is_held_under_the_uniform():
    null = dip_null(9, 1999, rng=1)
    x = np.random.default_rng(2).random((3000, 9))
    p = (1 + (null >= dip_statistic(x)[:, None]).sum(axis=1)) / 2000
    assert 0.038 < np.mean(p <= 0.05) < 0.062
    assert [dip_test(row, null=null).p_value for row in x[:20]] == pytest.approx(p[:20])


def test_result_says_what_was_done():
    x = pd.Series({"a": 0.1, "b": 0.2, "c": 5.0, "d": 5.2})
    test = dip_test(x, null_sets=199, rng=5, item="model")
    row = test.tidy().iloc[0]
    assert row["p.value"] == test.p_value and row["n"] == 4 and row["replicates"] == 199
    e = test.estimates()["dip"]
    assert e.pivot is None and np.isnan(e.low) and e.unit == "model" and e.seed == 5
    assert e.null["name"] == "uniform" and "two modes" in str(test) and "<pre>" in test._repr_html_()


@pytest.mark.parametrize(
    "values, code",
    [
        ([1.0, 2.0], "S403"),
        ([2.0] * 5, "S405"),
        ([1.0, np.nan, 2.0], "S405"),
        (np.arange(6.0).reshape(3, 2), "S404"),
    ],
)
def test_bad_input(values, code):
    with pytest.raises(DynstatError) as e:
        dip_test(values)
    assert e.value.code == code


def test_bad_arguments():
    for bad in (lambda: dip_test([1.0, 2.0, 4.0], null_sets=9), lambda: dip_statistic([1.0])):
        with pytest.raises(DynstatError) as e:
            bad()
        assert e.value.code == "S404"
