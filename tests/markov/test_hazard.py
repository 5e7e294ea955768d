"""Discrete hazards with covariates: against R's glm with clubSandwich, and statsmodels' own sandwich."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.markov.hazard_models import discrete_hazard, mancl_derouen
from dynstat.markov.spells import Spells

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "cycles.json").read_text("utf-8"))


def as_spells(table):
    n = len(table)
    labels = table[["prompt", "model"]].reset_index(drop=True)
    return Spells(
        "COLLAPSE",
        table["duration"].to_numpy(dtype=np.intp),
        table["event"].to_numpy(dtype=np.int8),
        np.ones(n, dtype=np.intp),
        np.arange(n),
        labels,
        labels,
        np.zeros((n, 1), dtype=np.int8),
        table["event"].to_numpy() == 2,
        np.full(n, 20, dtype=np.intp),
    )


@pytest.fixture(scope="module")
def spells():
    return as_spells(pd.DataFrame(ORACLE["spells"]))


CASES = {
    "logit": {"formula": "log(duration) + model"},
    "cloglog": {"formula": "log(duration) + model", "link": "cloglog"},
    "end_of_text": {"formula": "log(duration)", "outcome": "end_of_text"},
}


@pytest.mark.parametrize("case", CASES)
def test_meets_glm_of_r(spells, case):
    got, want = discrete_hazard(spells, **CASES[case]), ORACLE["glm"][case]
    np.testing.assert_allclose(got.coefficients, want["coefficients"], rtol=1e-8)
    assert got.deviance == pytest.approx(want["deviance"], rel=1e-10)
    assert got.df == 23 and got.n["units"] == 24


@pytest.mark.parametrize("case", ["logit", "end_of_text"])
def test_covariance_is_the_bias_corrected_one_of_r(spells, case):
    # Mancl and DeRouen's correction is CR3 of a generalised linear model.
    got = discrete_hazard(spells, **CASES[case])
    np.testing.assert_allclose(got.covariance, ORACLE["glm"][case]["cr3"], rtol=1e-6)


@pytest.mark.parametrize("link", ["logit", "cloglog"])
def test_covariance_is_that_of_statsmodels_gee(spells, link):
    sm = pytest.importorskip("statsmodels.api")
    got = discrete_hazard(spells, formula="log(duration) + model", link=link)
    rows = spells.periods()
    x = np.column_stack([np.ones(len(rows)), rows["model"] == "b", np.log(rows["duration"])]).astype(float)
    x = x[:, [0, 2, 1]]
    g = {"logit": sm.families.links.Logit(), "cloglog": sm.families.links.CLogLog()}[link]
    theirs = sm.GEE(
        rows["reopened"].to_numpy(float), x, groups=rows["prompt"], family=sm.families.Binomial(g)
    ).fit(cov_type="bias_reduced", ctol=1e-12, scale=1.0)
    order = ["Intercept", "log(duration)", "model[T.b]"]
    np.testing.assert_allclose(got.coefficients[order], theirs.params, atol=1e-7)
    np.testing.assert_allclose(got.covariance.loc[order, order], theirs.cov_params(), rtol=1e-4)


def test_one_hazard_a_step_is_the_table(spells):
    rows = spells.periods()
    short = as_spells(pd.DataFrame(ORACLE["spells"]).assign(duration=lambda d: d["duration"].clip(upper=4)))
    rows = short.periods()
    got = discrete_hazard(short, formula="0 + C(duration)")
    p = 1 / (1 + np.exp(-got.coefficients.to_numpy()))
    np.testing.assert_allclose(p, rows.groupby("duration")["reopened"].mean(), atol=1e-9)


def test_rows_of_a_cluster_in_any_order_give_the_same():
    rng = np.random.default_rng(4)
    x = np.column_stack([np.ones(60), rng.normal(size=60)])
    y, c = (rng.random(60) < 0.4).astype(float), np.repeat(np.arange(10), 6)
    beta = np.array([-0.4, 0.1])
    order = rng.permutation(60)
    np.testing.assert_allclose(
        mancl_derouen(x, y, beta, c, "logit"), mancl_derouen(x[order], y[order], beta, c[order], "logit")
    )


def test_periods_hold_a_row_a_step(spells):
    rows = spells.periods()
    assert len(rows) == spells.duration.sum()
    assert rows["reopened"].sum() == (spells.event == 1).sum()
    assert rows["end_of_text"].sum() == (spells.event == 2).sum()
    assert (rows.groupby("spell")["duration"].max() == spells.duration[spells.duration > 0]).all()


def test_result_speaks(spells):
    got = discrete_hazard(spells, formula="log(duration) + model")
    t = got.tidy()
    raw = got.tidy(exponentiate=False)
    np.testing.assert_allclose(np.log(t["estimate"]), raw["estimate"])
    np.testing.assert_allclose(np.log(t["conf.high"]), raw["conf.high"])
    e = got.estimates()["model[T.b]"]
    assert e.low == pytest.approx(raw["conf.low"][2]) and e.method == "markov.discrete_hazard@1"
    assert "odds ratios" in str(got) and "t(23)" in str(got)
    assert got.glance()["events"][0] == (spells.event == 1).sum()
    assert got._repr_html_().startswith("<pre>")


@pytest.mark.parametrize(
    ("kw", "code"),
    [
        ({"outcome": "gone"}, "S404"),
        ({"link": "probit"}, "S404"),
        ({"level": 1.5}, "S404"),
        ({"formula": "y ~ model"}, "S401"),
        ({"formula": "nothing"}, "S401"),
        ({"formula": "model + C(model)"}, "S402"),
        ({"unit": "author"}, "S407"),
        ({"formula": "C(duration)", "outcome": "end_of_text"}, "S402"),
    ],
)
def test_bad_input_is_named(spells, kw, code):
    with pytest.raises(DynstatError) as e:
        discrete_hazard(spells, **kw)
    assert e.value.code == code


def test_too_little_data_is_named(spells):
    table = pd.DataFrame(ORACLE["spells"])
    with pytest.raises(DynstatError) as e:
        discrete_hazard(as_spells(table[table["prompt"] < 3]))
    assert e.value.code == "S403"
    with pytest.raises(DynstatError) as e:
        discrete_hazard(as_spells(table.assign(event=0)))
    assert e.value.code == "S402"
    few = table[(table["event"] != 1) | (np.arange(len(table)) < 25)]
    with pytest.warns(DynstatWarning, match="events of reopened"):
        discrete_hazard(as_spells(few))
