"""Predictions, simulations, refits and updates against the definitions they must satisfy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from formulaic import Formula

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.refitting import merge


@pytest.fixture(scope="module")
def data(panel):
    return panel(5, 5, 3, 4, 3)


@pytest.fixture(scope="module")
def slopes(data):
    return dynstat.lmer("y ~ x + (x|model) + (1|category/prompt)", data)


def test_new_rows_equal_to_the_old_are_predicted_as_fitted(slopes, data):
    np.testing.assert_allclose(slopes.predict(data), slopes.fitted, rtol=1e-12)
    some = data.sample(20, random_state=1)
    pd.testing.assert_series_equal(slopes.predict(some), slopes.fitted[some.index])
    fixed, one, other = (slopes.predict(some, re=r) for r in ("none", "~ (x|model)", "~ (1|category/prompt)"))
    np.testing.assert_allclose(one + other - fixed, slopes.predict(some), rtol=1e-12)
    # Grouping factors that are not asked for need not be there.
    np.testing.assert_allclose(slopes.predict(some[["x"]], re="none"), fixed)
    np.testing.assert_allclose(slopes.predict(some[["x", "model"]], re="~ (x|model)"), one)


def test_a_new_level_has_the_mean_effect_or_is_refused(slopes, data):
    new = data.head(3).assign(model=["m0", "elsewhere", None])
    with pytest.raises(DynstatError, match="levels of model that the fit did not see") as caught:
        slopes.predict(new)
    assert caught.value.code == "S404" and caught.value.found == "elsewhere"
    found = slopes.predict(new, allow_new_levels=True)
    rest = slopes.predict(new, re="~ (1|category/prompt)")
    assert found.iloc[1] == pytest.approx(rest.iloc[1], rel=1e-12) and found.iloc[0] != rest.iloc[0]
    assert np.isnan(found.iloc[2]) and np.isfinite(rest.iloc[2])


def test_a_new_level_of_a_fixed_factor_is_refused(data):
    m = dynstat.lmer("y ~ category + (1|model)", data)
    with pytest.raises(DynstatError, match="level of a fixed factor") as caught:
        m.predict(data.head(2).assign(category=["c0", "c9"]))
    assert caught.value.code == "S404" and "c9" in caught.value.found


@pytest.mark.parametrize(
    ("re", "what"),
    [
        (None, "chosen in words or by a formula"),
        ("(1|model)", "chosen in words or by a formula"),
        ("~ x + (1|model)", "random terms only"),
        ("~ (1|nothere)", "lacks a random effect"),
        ("~ (nothere|model)", "lacks a random effect"),
        ("~ (x|category)", "lacks a random effect"),
    ],
)
def test_a_choice_that_the_model_lacks_is_refused(slopes, re, what):
    with pytest.raises(DynstatError, match=what):
        slopes.predict(re=re)


def test_missing_columns_and_values(slopes, data):
    with pytest.raises(DynstatError, match="no column 'x'") as caught:
        slopes.predict(data.drop(columns="x"))
    assert caught.value.code == "S401"
    with pytest.raises(DynstatError, match="no column 'prompt'"):
        slopes.predict(data.drop(columns="prompt"))
    with pytest.raises(DynstatError, match="not a frame"):
        slopes.predict({"x": [1]})
    holes = data.head(4).assign(x=[0.1, np.nan, 0.2, 0.3])
    assert list(slopes.predict(holes).isna()) == [False, True, False, False]


def test_splines_and_polynomials_keep_their_knots(data):
    m = dynstat.lmer("y ~ bs(x, df=4) + poly(x, 2):temperature + scale(x) + (1|model)", data)
    np.testing.assert_allclose(m.predict(data.iloc[[7, 3]]), m.fitted.iloc[[7, 3]], rtol=1e-9)


def test_simulated_outcomes_have_the_models_covariance(slopes):
    n = 4000
    drawn = slopes.simulate(n, rng=3)
    assert drawn.shape == (slopes.nobs, n) and drawn.attrs["seed"] == 3
    rows = [0, 1, 4, 60, 100]
    values = drawn.iloc[rows].to_numpy()
    # Cov(y) = Z Σ Z' + σ² I, written out from varcorr.
    z = slopes.varcorr.query("var2.isna()").set_index(["grp", "var1"])["vcov"]
    cov01 = slopes.varcorr.query("var2 == 'x'")["vcov"].iloc[0]
    d = slopes.design.data.iloc[rows]
    same = {g: d[g].to_numpy()[:, None] == d[g].to_numpy() for g in ("model", "category", "prompt")}
    x = d["x"].to_numpy()
    model = z["model", "(Intercept)"] + cov01 * (x[:, None] + x) + z["model", "x"] * np.outer(x, x)
    expected = (
        same["model"] * model
        + same["category"] * z["category", "(Intercept)"]
        + same["prompt"] * z["prompt:category", "(Intercept)"]
        + np.eye(5) * slopes.sigma**2
    )
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.max(np.abs(np.cov(values) - expected) / scale) < 4.5 * np.sqrt(2 / n)
    error = np.abs(values.mean(axis=1) - slopes.predict(re="none").iloc[rows]) / np.sqrt(
        np.diag(expected) / n
    )
    assert error.max() < 4
    pd.testing.assert_frame_equal(slopes.simulate(3, rng=8), slopes.simulate(3, rng=8))
    assert not slopes.simulate(1, rng=8).equals(slopes.simulate(1, rng=9))


def test_effects_that_are_held_do_not_vary(slopes):
    held = slopes.simulate(2000, rng=1, re="all")
    error = (held.mean(axis=1) - slopes.fitted) / (slopes.sigma / np.sqrt(2000))
    assert error.abs().max() < 4.5
    assert held.std(axis=1).mean() == pytest.approx(slopes.sigma, rel=0.01)
    part = slopes.simulate(2000, rng=1, re="~ (x|model) + (1|category)")
    prompt = slopes.varcorr.query("grp == 'prompt:category'")["vcov"].iloc[0]
    assert part.var(axis=1).mean() == pytest.approx(slopes.sigma**2 + prompt, rel=0.02)


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_simulations_is_a_count(slopes, n):
    with pytest.raises(DynstatError, match="a count"):
        slopes.simulate(n)


@pytest.mark.parametrize("reml", [True, False])
def test_a_refit_is_the_fit_of_the_new_outcome(slopes, data, reml):
    m = slopes.update(REML=reml)
    y = m.simulate(1, rng=2)["sim_1"]
    again = m.refit(y)
    expected = dynstat.lmer(m.formula, data.assign(y=y), REML=reml)
    assert again.criterion == pytest.approx(expected.criterion, abs=1e-8) and again.reml == reml
    np.testing.assert_allclose(again.theta, expected.theta, atol=1e-5)
    np.testing.assert_allclose(again.fitted, expected.fitted, atol=1e-6)
    np.testing.assert_allclose(again.residuals, y - again.fitted, atol=1e-12)
    # Its data are those of the new outcome; the first fit keeps its own.
    assert again.update(REML=reml).criterion == pytest.approx(expected.criterion, abs=1e-8)
    assert m.update().criterion == pytest.approx(m.criterion, rel=1e-12)
    shuffled = y.sample(frac=1, random_state=0)
    assert m.refit(shuffled).criterion == pytest.approx(again.criterion, abs=1e-9)
    assert m.refit(y.to_numpy()).criterion == again.criterion


def test_a_refit_of_a_computed_outcome_keeps_the_new_values(data):
    m = dynstat.lmer("exp(y / 9) ~ x + (1|model)", data)
    y = m.simulate(1, rng=4)["sim_1"]
    again = m.refit(y)
    assert again.formula == "`exp(y / 9)` ~ x + (1|model)"
    assert again.update().criterion == pytest.approx(again.criterion, abs=1e-9)
    np.testing.assert_allclose(again.augment()["exp(y / 9)"], y)
    assert again.refit(y).criterion == again.criterion


def test_a_fit_of_chunks_refuses_what_needs_single_rows(data):
    coarse = data.assign(x=data["x"].round())
    m = dynstat.lmer("y ~ x + (1|model) + (1|prompt)", [coarse.iloc[:100], coarse.iloc[100:]])
    whole = dynstat.lmer("y ~ x + (1|model) + (1|prompt)", coarse)
    assert m.criterion == pytest.approx(whole.criterion, abs=1e-8)
    assert "Linear mixed model" in str(m) and m.ranef().shape == whole.ranef().shape
    new = coarse.head(4)
    np.testing.assert_allclose(m.predict(new), whole.predict(new), rtol=1e-8)
    np.testing.assert_allclose(
        m.predict(new, re="~ (1|model)"), whole.predict(new, re="~ (1|model)"), rtol=1e-8
    )
    for call in (m.predict, m.simulate, m.update, m.augment, lambda: m.refit(whole.fitted)):
        with pytest.raises(DynstatError, match="keeps no single rows"):
            call()
    again = m.update(". ~ . - x", data=coarse)
    assert again.criterion == pytest.approx(whole.update(". ~ . - x").criterion, abs=1e-8)


def test_refits_to_what_cannot_be_fitted(slopes):
    y = slopes.fitted.copy()
    for bad in (y.iloc[:-1], y.to_numpy()[:-1], y.where(y > y.min()), np.append(y.to_numpy()[1:], np.inf)):
        with pytest.raises(DynstatError) as caught:
            slopes.refit(bad)
        assert caught.value.code == "S404"
    with pytest.raises(DynstatError, match="does not vary"):
        slopes.refit(np.ones(len(y)))


def test_updates(slopes, data):
    smaller = slopes.update(". ~ . - x - (x|model) + (1|model)", REML=False)
    expected = dynstat.lmer("y ~ 1 + (1|category/prompt) + (1|model)", data, REML=False)
    assert smaller.criterion == pytest.approx(expected.criterion, rel=1e-12) and not smaller.reml
    half = slopes.update(data=data.iloc[::2])
    assert half.nobs == len(data) // 2 and half.formula == slopes.formula
    # The frame may change after the fit; the fit's own copy does not.
    changing = data.copy()
    m = dynstat.lmer("y ~ 1 + (1|model) + (1|prompt)", changing)
    changing["y"] = 0.0
    assert m.update().criterion == m.criterion
    with pytest.warns(DynstatWarning, match="rank deficient"):
        m.update(". ~ . + category + I(category == 'c1')")


OLD = "y ~ x * z + (1 + x | g) + (1 | a/b)"


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (". ~ .", "y ~ x * z + (1 + x | g) + (1 | b:a) + (1 | a)"),
        ("log(y) ~ . + w", "log(y) ~ x * z + w + (1 + x | g) + (1 | b:a) + (1 | a)"),
        (". ~ . - x:z", "y ~ 1 + x + z + (1 + x | g) + (1 | b:a) + (1 | a)"),
        (". ~ . - (1 | a/b)", "y ~ x * z + (1 + x | g)"),
        (". ~ . - (x | g) + (1 | g)", "y ~ x * z + (1 | b:a) + (1 | a) + (1 | g)"),
        (". ~ 1 + (1 | g)", "y ~ 1 + (1 | g)"),
        ("~ . + (1 | a)", "y ~ x * z + (1 + x | g) + (1 | b:a) + (1 | a)"),
        (". ~ . - 1", "y ~ x * z - 1 + (1 + x | g) + (1 | b:a) + (1 | a)"),
    ],
)
def test_dots_stand_for_the_old_side(new, expected):
    merged = merge(parse_formula(OLD), new)
    ours, theirs = parse_formula(merged), parse_formula(expected)
    assert ours.response == theirs.response
    assert [(t.columns, t.name) for t in ours.random] == [(t.columns, t.name) for t in theirs.random]
    assert Formula(ours.fixed) == Formula(theirs.fixed)


@pytest.mark.parametrize("new", ["x + z", ". ~ . - (1 | nothere)", ". ~ . + + x"])
def test_updates_that_cannot_be_read(new):
    with pytest.raises(DynstatError) as caught:
        merge(parse_formula(OLD), new)
    assert caught.value.code == "S401"
