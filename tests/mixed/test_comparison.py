"""Analyses of variance, likelihood ratios and ranova: against lmerTest and lme4, and by identities."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.comparison import _least_squares, compare, null_of
from dynstat.mixed.lmer_anova import term_contrasts

VALUES = json.loads((Path(__file__).parent.parent / "oracles" / "lmm_inference.json").read_text("utf-8"))
COLUMNS = {
    "sumsq": "Sum Sq",
    "meansq": "Mean Sq",
    "NumDF": "NumDF",
    "DenDF": "DenDF",
    "statistic": "F value",
    "p.value": "Pr(>F)",
}


def label(case: dict) -> str:
    words = [case[k] for k in ("data", "formula", "type", "ddf") if k in case]
    return " ".join(words) + ("" if case.get("REML", True) else " ML")


@pytest.mark.parametrize("case", VALUES["anova"], ids=label)
def test_anova_is_lmertests(case, fitted):
    table = dynstat.anova(fitted(case["data"], case["formula"]), type=case["type"], ddf=case["ddf"])
    assert table["term"].tolist() == case["table"]["term"]
    for ours, theirs in COLUMNS.items():
        np.testing.assert_allclose(table[ours], case["table"][theirs], rtol=2e-5, err_msg=ours)


@pytest.mark.parametrize("case", VALUES["fits"], ids=label)
def test_ranova_is_lmertests(case, fitted):
    table = fitted(case["data"], case["formula"], case["REML"]).ranova().set_index("term")
    oracle = {k: np.atleast_1d(v) for k, v in case["ranova"].items()}
    assert sorted(table.index) == sorted(oracle["term"])
    for i, term in enumerate(oracle["term"]):
        row = table.loc[term]
        for ours, theirs in (("npar", "npar"), ("logLik", "logLik")):
            assert row[ours] == pytest.approx(float(oracle[theirs][i]), rel=1e-9)
        if term != "<none>":
            assert row["LRT"] == pytest.approx(float(oracle["LRT"][i]), rel=1e-5, abs=1e-7)
            assert row["df"] == float(oracle["Df"][i])
            assert row["p.chisq"] == pytest.approx(float(oracle["p"][i]), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("case", VALUES["compare"], ids=lambda c: c["data"])
def test_comparisons_are_lme4s(case, fitted):
    table = dynstat.anova(*(fitted(case["data"], f) for f in case["formulas"]))
    for column in ("npar", "AIC", "BIC", "logLik", "deviance"):
        np.testing.assert_allclose(table[column], case[column], rtol=1e-9)
    for ours, theirs in (("statistic", "Chisq"), ("df", "Df"), ("p.chisq", "p")):
        np.testing.assert_allclose(
            table[ours].iloc[1:], [float(v) for v in case[theirs][1:]], rtol=1e-4, atol=1e-7
        )


def test_the_null_at_the_boundary_is_a_mixture(fitted):
    small, middle, large = (
        fitted("sleepstudy", f"Reaction ~ Days + {r}")
        for r in ("(1 | Subject)", "(Days || Subject)", "(Days | Subject)")
    )
    one, two, both = compare(small, middle), compare(middle, large), compare(small, large)
    lrt = float(one["statistic"].iloc[1])
    assert one["p.value"].iloc[1] == pytest.approx(stats.chi2.sf(lrt, 1) / 2, rel=1e-9)
    # A covariance alone is free on both sides.
    assert two["p.value"].iloc[1] == pytest.approx(two["p.chisq"].iloc[1])
    lrt = float(both["statistic"].iloc[1])
    assert both["p.value"].iloc[1] == pytest.approx(
        (stats.chi2.sf(lrt, 1) + stats.chi2.sf(lrt, 2)) / 2, rel=1e-9
    )
    assert both["null"].iloc[1] == "mixture of chi-squared(1) and (2)"


def test_a_likelihood_ratio_of_zero_has_p_one(fitted):
    row = fitted("Dyestuff2", "Yield ~ 1 + (1 | Batch)").ranova().set_index("term").loc["(1 | Batch)"]
    assert (row["LRT"], row["p.value"]) == (0, 1)


def test_ranova_against_no_random_term_is_least_squares(r_data):
    d = r_data("sleepstudy")
    m = dynstat.lmer("Reaction ~ Days + (1 | Subject)", d, REML=False)
    x = np.column_stack([np.ones(len(d)), d["Days"]])
    rss = float(np.linalg.lstsq(x, d["Reaction"], rcond=None)[1][0])
    n = len(d)
    expected = -n / 2 * (1 + np.log(2 * np.pi * rss / n))
    assert m.ranova().set_index("term").loc["(1 | Subject)", "logLik"] == pytest.approx(expected, rel=1e-10)


def test_ranova_simulates_where_several_variances_go(panel):
    d = panel(6, models=6, categories=2, prompts=4, samples=2)
    m = dynstat.lmer("y ~ x + (x | model)", d)
    table = m.ranova(reduce_terms=False, nsim=19, rng=1).set_index("term")
    row = table.loc["(x | model)"]
    assert row["null"] == "simulated" and row["df"] == 3 and table.attrs["seed"] == 1
    # Large variances between models: no draw without them comes near.
    assert row["p.value"] == pytest.approx(1 / 20)
    assert np.isnan(m.ranova(reduce_terms=False, nsim=0)["p.value"].iloc[1])


def test_least_squares_criterion_is_the_criterion_with_all_variances_at_zero(panel):
    d = panel(6, models=6, categories=2, prompts=4, samples=2)
    for reml in (True, False):
        m = dynstat.lmer("y ~ x + (1 | model)", d, REML=reml)
        found = _least_squares(m.design, m.pls, m.design.y[:, None])
        assert found[0] == pytest.approx(m.pls.criterion(np.zeros(1)), abs=1e-9)


def test_two_added_variances_are_tested_by_simulation(panel):
    d = panel(21, models=6, categories=3, prompts=4, samples=2, prompt=0.0, both=0.0, cell=0.0, category=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        small = dynstat.lmer("y ~ 1 + (1 | model)", d)
        large = dynstat.lmer("y ~ 1 + (1 | model) + (1 | prompt) + (1 | category)", d)
    one = dynstat.anova(small, large, nsim=500, rng=4)
    two = dynstat.anova(small, large, nsim=500, rng=4)
    pd.testing.assert_frame_equal(one, two)
    assert one.attrs["seed"] == 4 and one["null"].iloc[1] == "simulated"
    # Half of the time each of two zero variances is estimated as zero: the null lies below χ²(2).
    assert one["p.value"].iloc[1] < one["p.chisq"].iloc[1] + 0.05
    assert 1 / 501 <= one["p.value"].iloc[1] <= 1


@pytest.mark.parametrize(
    ("small", "large", "null"),
    [
        ("y ~ 1 + (1|prompt)", "y ~ 1 + (1|category/prompt)", "mixture of chi-squared(0) and (1)"),
        ("y ~ 1 + (1|model)", "y ~ x + (1|model) + (1|prompt)", "mixture of chi-squared(1) and (2)"),
        ("y ~ 1 + (1|model)", "y ~ x * category + (1|model)", "chi-squared(5)"),
        ("y ~ 1 + (x||model)", "y ~ 1 + (x|model)", "chi-squared(1)"),
        ("y ~ 1 + (x|model)", "y ~ 1 + (x||model) + (1|prompt)", "not nested"),
        ("y ~ 1 + (1|model)", "y ~ 1 + (1|prompt) + (1|category)", "not nested"),
        ("y ~ x + (1|model)", "y ~ category + (1|model)", "not nested"),
    ],
)
def test_nesting_is_recognised(small, large, null, panel):
    d = panel(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        assert null_of(dynstat.lmer(small, d), dynstat.lmer(large, d)).name == null


def test_models_that_are_not_nested_are_not_tested(panel):
    d = panel(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        one, two = dynstat.lmer("y ~ x + (1|model)", d), dynstat.lmer("y ~ category + (1|model)", d)
    with pytest.warns(DynstatWarning, match="not nested"):
        table = dynstat.anova(one, two)
    assert np.isnan(table["p.value"]).all() and np.isnan(table["p.chisq"]).all()


def test_comparisons_that_mean_nothing_are_refused(panel, fitted):
    d = panel(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        one = dynstat.lmer("y ~ x + (1|model)", d)
        fewer = dynstat.lmer("y ~ x + (1|model)", d.iloc[:-3])
        other = dynstat.lmer("y ~ 1 + (1|model)", d)
    for call in (
        lambda: compare(one),
        lambda: compare(one, fewer),
        lambda: compare(one, other, refit=False),
        lambda: dynstat.anova(one, type="IV"),
    ):
        with pytest.raises(DynstatError):
            call()


# -- types of hypotheses ------------------------------------------------------------------------------------


def test_type_three_tests_equally_weighted_cell_means(r_data, fitted):
    """In a design without empty cells the hypothesis of a factor is about its unweighted marginal means."""
    m = fitted("unbalanced", "y ~ family * category + (1 | model) + (1 | prompt)")
    found = term_contrasts(m, "III")["family"][0]
    # Coefficients: intercept, b, y, b:y. Mean over categories of b less a.
    assert np.linalg.matrix_rank(np.array([found, [0, 1, 0, 0.5]]), tol=1e-9) == 1


def test_in_balanced_data_all_types_agree(panel):
    d = panel(4, models=6, categories=3, prompts=4, samples=2)
    m = dynstat.lmer("y ~ category * temperature + (1 | model)", d)
    tables = [dynstat.anova(m, type=t) for t in ("I", "II", "III")]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, rtol=1e-6)


def test_hypotheses_do_not_depend_on_the_contrasts_of_the_model(r_data):
    d = r_data("holes")
    one = dynstat.anova(dynstat.lmer("y ~ a * b + (1 | g)", d))
    two = dynstat.anova(dynstat.lmer("y ~ C(a, contr.sum) * C(b, contr.sum) + (1 | g)", d))
    pd.testing.assert_frame_equal(one.drop(columns="term"), two.drop(columns="term"), rtol=1e-6)


def test_a_nested_factor_is_tested_over_all_levels_of_what_it_holds(r_data):
    """``a/b`` spans what ``a * b`` spans, and type III of a asks the same of both."""
    d = r_data("holes")
    one, two = (
        dynstat.anova(dynstat.lmer(f"y ~ {f} + (1 | g)", d)).set_index("term").loc["a"]
        for f in ("a / b", "a * b")
    )
    pd.testing.assert_series_equal(one, two, rtol=1e-6)


def test_a_model_without_fixed_terms_has_an_empty_table(fitted):
    table = fitted("Dyestuff", "Yield ~ 1 + (1 | Batch)").anova()
    assert len(table) == 0 and table.columns[0] == "term"


def test_a_dropped_term_has_no_values(panel):
    d = panel(4)
    d["twice"] = 2 * d["x"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        m = dynstat.lmer("y ~ x + twice + (1 | model)", d)
    table = dynstat.anova(m, type="II").set_index("term")
    assert table.loc["twice"].isna().all() and table.loc["x"].notna().all()
