"""Kenward-Roger and Satterthwaite: against R, closed forms of balanced designs, and n × n matrices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import dynstat
from dynstat.errors import DynstatError
from dynstat.inference.estimate import TPivot
from dynstat.inference.rules import Rule, judge
from dynstat.mixed.contrasts import approximation, coefficients, contest, equivalence, krmodcomp
from dynstat.mixed.kenward_roger import kenward_roger, random_solution

VALUES = json.loads((Path(__file__).parent.parent / "oracles" / "lmm_inference.json").read_text("utf-8"))
REML = [c for c in VALUES["fits"] if c["REML"]]
UNBALANCED = "y ~ family * category + (1 | model) + (1 | prompt)"
CONTRASTS = VALUES["contrasts"]


def numbers(values: list) -> np.ndarray:
    return np.array([[np.nan if v in ("NA", None) else float(v) for v in row] for row in values])


def label(case: dict) -> str:
    return f"{case['data']} {case['formula']}" + ("" if case["REML"] else " ML")


def check(table: pd.DataFrame, oracle: dict, df_tolerance: float, estimate: float = 1e-6) -> None:
    expected = numbers(oracle["values"])
    assert table["term"].tolist() == np.atleast_1d(oracle["rows"]).tolist()
    np.testing.assert_allclose(table["estimate"], expected[:, 0], rtol=estimate)
    np.testing.assert_allclose(table["std.error"], expected[:, 1], rtol=1e-5)
    np.testing.assert_allclose(table["df"], expected[:, 2], rtol=df_tolerance)
    np.testing.assert_allclose(table["statistic"], expected[:, 3], rtol=2e-5)
    np.testing.assert_allclose(table["p.value"], expected[:, 4], rtol=2e-3, atol=1e-300)


@pytest.mark.parametrize("case", REML, ids=label)
def test_kenward_roger_is_pbkrtests(case, fitted):
    check(coefficients(fitted(case["data"], case["formula"]), ddf="KR"), case["kenward_roger"], 1e-5)


@pytest.mark.parametrize("case", VALUES["fits"], ids=label)
def test_satterthwaite_is_lmertests(case, fitted):
    m = fitted(case["data"], case["formula"], case["REML"])
    check(coefficients(m, ddf="Satterthwaite"), case["satterthwaite"], 1e-4)


@pytest.mark.parametrize("case", VALUES["edge"], ids=label)
def test_fits_at_the_boundary_have_lmertests_degrees_of_freedom(case, fitted):
    m = fitted(case["data"], case["formula"])
    assert m.singular or "plane" in case["formula"]
    check(coefficients(m, ddf="KR"), case["kenward_roger"], 1e-5, 1e-5)
    check(coefficients(m, ddf="Satterthwaite"), case["satterthwaite"], 1e-4, 1e-5)


def test_adjusted_covariance_and_joint_tests_are_pbkrtests(fitted):
    m = fitted("unbalanced", UNBALANCED)
    kr = kenward_roger(m)
    np.testing.assert_allclose(kr.vcov, CONTRASTS["vcov_kr"], rtol=1e-6)
    np.testing.assert_allclose(kr.plain, m.vcov, rtol=1e-9)
    additive = fitted("unbalanced", "y ~ family + category + (1 | model) + (1 | prompt)")
    for model, matrix, name in (
        (m, [[0, 0, 0, 1]], "krmodcomp_interaction"),
        (additive, [[0, 1, 0]], "krmodcomp_family"),
        (m, np.eye(4)[1:], "krmodcomp_all"),
    ):
        f, expected = kenward_roger(model).f_test(np.array(matrix, dtype=float)), CONTRASTS[name]
        found = (f.statistic, f.num_df, f.den_df, f.scale, special.fdtrc(f.num_df, f.den_df, f.statistic))
        assert np.allclose(
            found, [expected[k] for k in ("stat", "ndf", "ddf", "F.scaling", "p.value")], rtol=1e-5
        )


def test_krmodcomp_finds_the_hypothesis_itself(fitted):
    formulas = ["y ~ family * category", "y ~ family + category", "y ~ category", "y ~ 1"]
    full, additive, category, mean = (
        fitted("unbalanced", f"{f} + (1 | model) + (1 | prompt)") for f in formulas
    )
    for large, small, name in (
        (full, additive, "krmodcomp_interaction"),
        (additive, category, "krmodcomp_family"),
        (full, mean, "krmodcomp_all"),
    ):
        row, expected = krmodcomp(large, small).iloc[0], CONTRASTS[name]
        found = [row["statistic"], row["NumDF"], row["DenDF"], row["p.value"]]
        assert found == pytest.approx([expected[k] for k in ("stat", "ndf", "ddf", "p.value")], rel=1e-5)
    with pytest.raises(DynstatError, match="not inside"):
        krmodcomp(category, additive)
    with pytest.raises(DynstatError, match="same"):
        krmodcomp(full, full)


@pytest.mark.parametrize("ddf", ["KR", "S"])
def test_contest_is_lmertests(ddf, fitted):
    m, kind = fitted("unbalanced", UNBALANCED), {"KR": "Kenward-Roger", "S": "Satterthwaite"}[ddf]
    joint = contest(m, CONTRASTS["J"], ddf=kind).iloc[0]
    expected = CONTRASTS["joint"][ddf]
    for ours, theirs in (
        ("sumsq", "Sum Sq"),
        ("DenDF", "DenDF"),
        ("statistic", "F value"),
        ("p.value", "Pr(>F)"),
    ):
        assert joint[ours] == pytest.approx(expected[theirs], rel=1e-5)
    single = contest(m, CONTRASTS["L"], joint=False, ddf=kind)
    expected = CONTRASTS["single"][ddf]
    names = {"estimate": "Estimate", "std.error": "Std. Error", "df": "df", "statistic": "t value"}
    for ours, theirs in (names | {"conf.low": "lower", "conf.high": "upper", "p.value": "Pr(>|t|)"}).items():
        np.testing.assert_allclose(single[ours], expected[theirs], rtol=1e-5)


def test_contest_takes_a_value_under_the_null(fitted):
    m = fitted("unbalanced", UNBALANCED)
    f = contest(m, CONTRASTS["J"], rhs=[0.1, -0.2, 0.3], ddf="Satterthwaite").iloc[0]
    expected = CONTRASTS["joint_rhs"]
    assert f["statistic"] == pytest.approx(expected["F value"], rel=1e-5)
    assert f["DenDF"] == pytest.approx(expected["DenDF"], rel=1e-5)


# -- closed forms -------------------------------------------------------------------------------------------


def test_many_levels_of_one_factor_cost_no_matrix_of_their_size(panel):
    """Two thousand levels crossed with four: a balanced mean has the degrees of freedom of the four."""
    rng = np.random.default_rng(5)
    d = pd.MultiIndex.from_product([range(2000), range(4)], names=["many", "few"]).to_frame(index=False)
    d["y"] = rng.normal(size=2000)[d["many"]] + 3 * rng.normal(size=4)[d["few"]] + rng.normal(size=len(d))
    row = coefficients(dynstat.lmer("y ~ 1 + (1 | many) + (1 | few)", d)).iloc[0]
    # Satterthwaite's formula for MS_many + MS_few − MS_rest, to which the mean's variance is proportional.
    g = d["y"].mean()
    a = 4 * ((d.groupby("many")["y"].mean() - g) ** 2).sum() / 1999
    b = 2000 * ((d.groupby("few")["y"].mean() - g) ** 2).sum() / 3
    rest = (
        (d["y"] - d.groupby("many")["y"].transform("mean") - d.groupby("few")["y"].transform("mean") + g) ** 2
    ).sum() / 5997
    df = (a + b - rest) ** 2 / (a**2 / 1999 + b**2 / 3 + rest**2 / 5997)
    assert row["df"] == pytest.approx(df, rel=1e-6)
    assert row["std.error"] == pytest.approx(np.sqrt((a + b - rest) / 8000), rel=1e-6)


def split_plot(seed: int, between: float = 2.0) -> pd.DataFrame:
    """Three treatments of whole plots, six plots each, four subplot treatments once in every plot."""
    rng = np.random.default_rng(seed)
    d = pd.MultiIndex.from_product([range(3), range(6), range(4)], names=["a", "plot", "b"]).to_frame(
        index=False
    )
    effect = rng.normal(0, between, (3, 6))[d["a"], d["plot"]]
    d["y"] = 0.7 * d["a"] + 0.2 * d["b"] + effect + rng.normal(size=len(d))
    return d.assign(
        a=d["a"].map("a{}".format),
        b=d["b"].map("b{}".format),
        plot=d["a"].astype(str) + d["plot"].astype(str),
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_kenward_roger_of_a_split_plot_is_the_exact_f(seed):
    d = split_plot(seed)
    m = dynstat.lmer("y ~ a * b + (1 | plot)", d)
    table = dynstat.anova(m, type="II").set_index("term")
    grand = d["y"].mean()
    means = {k: d.groupby(k.split(":"))["y"].mean() for k in ("a", "b", "a:b", "a:plot")}
    ss_a = 24 * ((means["a"] - grand) ** 2).sum()
    ss_b = 18 * ((means["b"] - grand) ** 2).sum()
    ss_plot = 4 * ((means["a:plot"] - grand) ** 2).sum() - ss_a
    ss_ab = 6 * ((means["a:b"] - grand) ** 2).sum() - ss_a - ss_b
    ss_rest = ((d["y"] - grand) ** 2).sum() - ss_a - ss_b - ss_plot - ss_ab
    exact = {
        "a": (ss_a / 2 / (ss_plot / 15), 2, 15),
        "b": (ss_b / 3 / (ss_rest / 45), 3, 45),
        "a:b": (ss_ab / 6 / (ss_rest / 45), 6, 45),
    }
    for term, (f, num, den) in exact.items():
        row = table.loc[term]
        assert (row["NumDF"], row["DenDF"]) == (num, pytest.approx(den, rel=1e-7))
        assert row["statistic"] == pytest.approx(f, rel=1e-7)
        assert row["p.value"] == pytest.approx(stats.f.sf(f, num, den), rel=1e-6)


def test_kenward_roger_of_a_one_way_mean_is_the_exact_t(panel):
    d = panel(5, models=7, categories=1, prompts=6, samples=1)
    m = dynstat.lmer("y ~ 1 + (1 | model)", d)
    means = d.groupby("model")["y"].mean()
    exact = stats.ttest_1samp(means, 0.0)
    row = coefficients(m).iloc[0]
    assert row["df"] == pytest.approx(6, rel=1e-8)
    assert row["statistic"] == pytest.approx(exact.statistic, rel=1e-8)
    assert row["p.value"] == pytest.approx(exact.pvalue, rel=1e-7)
    low, high = exact.confidence_interval()
    assert (row["conf.low"], row["conf.high"]) == pytest.approx((low, high), rel=1e-7)


def dense(m: dynstat.mixed.LmerResult):
    """V, its derivatives by every covariance parameter and X, as n × n matrices."""
    design, n = m.design, m.nobs
    gs, gammas = [], []
    for t, term in enumerate(design.terms):
        lam = m.pls.template(m.theta.to_numpy(), t)
        cov = m.sigma**2 * lam @ lam.T
        values = np.ones((n, 1)) if term.values is None else term.values
        zs = [np.eye(len(term.levels))[term.codes] * values[:, [c]] for c in range(term.width)]
        for a in range(term.width):
            for b in range(a, term.width):
                g = zs[a] @ zs[b].T
                gs.append(g if a == b else g + g.T)
                gammas.append(cov[a, b])
    gs.append(np.eye(n))
    gammas.append(m.sigma**2)
    return sum(c * g for c, g in zip(gammas, gs, strict=True)), gs, design.x


@pytest.mark.parametrize(
    "formula", ["y ~ x + (x | model) + (1 | prompt)", "y ~ x * category + (1 | model) + (0 + x | prompt)"]
)
def test_kenward_roger_equals_its_definition_with_n_by_n_matrices(panel, formula):
    d = panel(3, models=5, categories=2, prompts=4, samples=2).sample(frac=0.8, random_state=1)
    m = dynstat.lmer(formula, d)
    v, gs, x = dense(m)
    inverse = np.linalg.inv(v)
    phi = np.linalg.inv(x.T @ inverse @ x)
    p = [-x.T @ inverse @ g @ inverse @ x for g in gs]
    r = range(len(gs))
    q = [[x.T @ inverse @ gs[i] @ inverse @ gs[j] @ inverse @ x for j in r] for i in r]
    information = np.array(
        [
            [
                np.trace(inverse @ gs[i] @ inverse @ gs[j])
                - 2 * np.trace(phi @ q[i][j])
                + np.trace(phi @ p[i] @ phi @ p[j])
                for j in r
            ]
            for i in r
        ]
    )
    w = 2 * np.linalg.inv(information)
    middle = sum(w[i, j] * (q[i][j] - p[i] @ phi @ p[j]) for i in r for j in r)
    kr = kenward_roger(m)
    np.testing.assert_allclose(kr.vcov, phi + 2 * phi @ middle @ phi, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(kr.w, w, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(kr.p, p, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(random_solution(m), inverse @ x, rtol=1e-7, atol=1e-9)


def test_degrees_of_freedom_do_not_depend_on_units(fitted, r_data):
    d = r_data("unbalanced")
    one = fitted("unbalanced", UNBALANCED)
    other = dynstat.lmer(UNBALANCED, d.assign(y=1e4 * d["y"] + 3e6))
    for ddf in ("KR", "Satterthwaite"):
        np.testing.assert_allclose(
            coefficients(one, ddf=ddf)["df"], coefficients(other, ddf=ddf)["df"], rtol=1e-4
        )


def test_a_joint_test_of_one_contrast_is_its_t_test_squared(fitted):
    m = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)")
    for ddf in ("KR", "Satterthwaite", "asymptotic"):
        t, f = contest(m, {"Days": 1}, joint=False, ddf=ddf).iloc[0], contest(m, {"Days": 1}, ddf=ddf).iloc[0]
        assert f["statistic"] == pytest.approx(t["statistic"] ** 2, rel=1e-10)
        assert f["p.value"] == pytest.approx(t["p.value"], rel=1e-9)


def test_contrasts_by_name_by_frame_and_repeated(fitted):
    m = fitted("unbalanced", UNBALANCED)
    by_name = contest(m, [{"familyb": 1, "familyb:categoryy": 0.5}, {"categoryy": 2}], joint=False)
    rows = pd.DataFrame(
        [[1, 0.5, 0], [0, 0, 2]],
        index=["b - a", "twice"],
        columns=["familyb", "familyb:categoryy", "categoryy"],
    )
    by_frame = contest(m, rows, joint=False)
    assert by_name["term"].tolist() == ["familyb + 0.5*familyb:categoryy", "2*categoryy"]
    assert by_frame["term"].tolist() == ["b - a", "twice"]
    pd.testing.assert_frame_equal(by_name.drop(columns="term"), by_frame.drop(columns="term"))
    twice = contest(m, [{"familyb": 1}, {"categoryy": 1}, {"familyb": 1, "categoryy": 1}])
    assert twice["NumDF"].item() == 2
    pd.testing.assert_frame_equal(twice, contest(m, [{"familyb": 1}, {"categoryy": 1}]), rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m: contest(m, [1, 0]), "columns"),
        (lambda m: contest(m, {"nothing": 1}), "nothing"),
        (lambda m: contest(m, [0, 0, 0, 0]), "zero"),
        (lambda m: contest(m, [{"familyb": 1}, {"familyb": 2}], rhs=[1, 1]), "contradict"),
        (lambda m: contest(m, {"familyb": 1}, ddf="exact"), "Kenward-Roger"),
        (lambda m: equivalence(m, {"familyb": 1}, 1, -1), "order"),
        (lambda m: equivalence(m, np.eye(4), -1, 1), "4 rows"),
        (lambda m: contest(m, {"familyb": 1}, joint=False, level=95), "between 0 and 1"),
    ],
)
def test_bad_contrasts_are_told(call, word, fitted):
    with pytest.raises(DynstatError, match=word):
        call(fitted("unbalanced", UNBALANCED))


def test_kenward_roger_of_a_maximum_likelihood_fit_is_refused_and_not_the_default(fitted):
    m = fitted("unbalanced", UNBALANCED, False)
    with pytest.raises(DynstatError, match="REML"):
        coefficients(m, ddf="KR")
    assert approximation(m).name == "Satterthwaite"
    assert approximation(fitted("unbalanced", UNBALANCED)).name == "Kenward-Roger"


# -- equivalence --------------------------------------------------------------------------------------------


def test_equivalence_is_two_one_sided_t_tests(fitted):
    m = fitted("unbalanced", UNBALANCED)
    row = contest(m, {"familyb": 1}, joint=False, level=0.9).iloc[0]
    for bound in (0.5, 1.5, 3.0):
        e = equivalence(m, {"familyb": 1}, -bound, bound, key="family", level=0.9)
        assert isinstance(e.pivot, TPivot) and e.interval.startswith("Kenward-Roger t(5.534)")
        assert (e.value, e.low, e.high) == pytest.approx((row["estimate"], row["conf.low"], row["conf.high"]))
        p = [
            stats.t.sf((row["estimate"] + bound) / row["std.error"], row["df"]),
            stats.t.sf((bound - row["estimate"]) / row["std.error"], row["df"]),
        ]
        assert e.diagnostics["p_equivalence"] == pytest.approx(max(p), rel=1e-9)
        # At one-sided 5 % the tests reject exactly where the 90 % interval lies inside.
        assert (e.diagnostics["p_equivalence"] < 0.05) == (-bound < e.low and e.high < bound)


@pytest.mark.parametrize(("bound", "outcome"), [(3.0, "supported"), (0.001, "inconclusive")])
def test_decision_rules_apply_to_an_equivalence(bound, outcome, fitted):
    e = equivalence(fitted("unbalanced", UNBALANCED), {"familyb": 1}, -bound, bound)
    verdict = judge([(Rule("equivalence", sesoi=bound), e)], 0.05)
    assert verdict.outcome == outcome
    assert verdict.p_support == pytest.approx(e.diagnostics["p_equivalence"], rel=1e-9)


def test_a_model_without_fixed_effects_has_intervals_and_no_tests(r_data):
    m = dynstat.lmer("diameter ~ 0 + (1 | plate) + (1 | sample)", r_data("Penicillin"))
    assert m.confint().index.tolist() == ["sd_(Intercept)|plate", "sd_(Intercept)|sample", "sigma"]
    assert len(m.anova()) == 0 and len(m.ranova()) == 3
    assert m.bootstrap(nsim=5, rng=1).draws.shape == (5, 3)
    with pytest.raises(DynstatError, match="no fixed effects"):
        coefficients(m)
