"""Profile, Wald and bootstrap intervals: against R, closed forms, and the criterion written out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.profiling import profile

VALUES = json.loads((Path(__file__).parent.parent / "oracles" / "lmm_inference.json").read_text("utf-8"))
PROFILED = [c for c in VALUES["fits"] if c["profile"] and not c["REML"]]
CUT = float(stats.chi2.ppf(0.95, 1))


def numbers(values: list) -> np.ndarray:
    return np.array([[np.nan if v in ("NA", None) else float(v) for v in row] for row in values])


def label(case: dict) -> str:
    return f"{case['data']} {case['formula']}" + ("" if case.get("REML", True) else " ML")


@pytest.mark.parametrize("case", VALUES["fine"], ids=label)
def test_profile_limits_are_lme4s_with_a_fine_step(case, fitted):
    p = profile(fitted(case["data"], case["formula"]))
    for level, oracle in ((0.95, case["profile"]), (0.9, case["ninety"])):
        if level == 0.9 and case["data"] in ("slopes", "audit"):
            continue
        table = p.confint(level)
        assert table.index.tolist() == oracle["rows"]
        np.testing.assert_allclose(table[["conf.low", "conf.high"]], numbers(oracle["values"]), rtol=1e-5)


@pytest.mark.parametrize("case", PROFILED, ids=label)
def test_profile_limits_are_lme4s_within_its_splines_error(case, fitted):
    expected = numbers(case["profile"]["values"])
    names = case["profile"]["rows"]
    if len(names) > 5:
        names = names[:4]
    if case["data"] == "Dyestuff2":
        names = names[:1]
    table = profile(fitted(case["data"], case["formula"], False), names).confint()
    assert table.index.tolist() == names
    np.testing.assert_allclose(table[["conf.low", "conf.high"]], expected[: len(names)], rtol=5e-4)


def test_the_deviance_rises_by_exactly_the_quantile_at_the_limits(fitted):
    """Hold a parameter at its limit and minimise the deviance, written out, by another optimiser."""
    m = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)", False)
    table = profile(m).confint()
    # Every subject has the same ten days.
    z = np.column_stack([np.ones(10), np.arange(10)])
    y = m.design.y[np.lexsort([m.design.x[:, 1], m.design.terms[0].codes])].reshape(18, 10)
    start = np.array([*table["estimate"].iloc[:4], *m.fixef])
    scale = np.abs(start) + 1e-3

    def deviance(x):
        if abs(x[1]) >= 1 or min(x[0], x[2], x[3]) <= 0:
            return 1e9
        both = x[0] * x[1] * x[2]
        v = z @ np.array([[x[0] ** 2, both], [both, x[2] ** 2]]) @ z.T + x[3] ** 2 * np.eye(10)
        left = y - z @ x[4:]
        return 18 * (np.linalg.slogdet(v)[1] + 10 * np.log(2 * np.pi)) + np.einsum(
            "si,ij,sj->", left, np.linalg.inv(v), left
        )

    assert deviance(start) == pytest.approx(m.criterion, abs=1e-8)
    for k, side in ((0, "conf.low"), (1, "conf.high"), (2, "conf.low"), (3, "conf.high"), (5, "conf.low")):
        at, others = table[side].iloc[k], np.delete(np.arange(6), k)

        def held(free, k=k, at=at, others=others):
            x = np.empty(6)
            x[k], x[others] = at, free * scale[others]
            return deviance(x)

        best = optimize.minimize(
            held,
            start[others] / scale[others],
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5000, "maxfev": 5000},
        )
        assert best.fun - m.criterion == pytest.approx(CUT, abs=2e-6), table.index[k]


def test_profile_of_the_residual_with_a_zero_variance_has_its_closed_form(r_data, fitted):
    """One-way: λ = σ² + nτ² is max(σ², SS_between/a); lme4 gives (0, Inf) here."""
    d = r_data("Dyestuff2")
    means = d.groupby("Batch")["Yield"].transform("mean")
    between, within = ((means - d["Yield"].mean()) ** 2).sum(), ((d["Yield"] - means) ** 2).sum()

    def deviance(sigma):
        lam = max(sigma**2, between / 6)
        return 24 * np.log(sigma**2) + within / sigma**2 + 6 * np.log(lam) + between / lam

    base = optimize.minimize_scalar(deviance, bounds=(2, 8), method="bounded", options={"xatol": 1e-10})
    low = optimize.brentq(lambda s: deviance(s) - base.fun - CUT, 1, base.x)
    high = optimize.brentq(lambda s: deviance(s) - base.fun - CUT, base.x, 20)
    row = profile(fitted("Dyestuff2", "Yield ~ 1 + (1 | Batch)"), "sigma").confint().iloc[0]
    assert (row["conf.low"], row["conf.high"]) == pytest.approx((low, high), rel=1e-7)


def test_profile_of_a_fixed_effect_is_the_exact_f_region_in_a_balanced_design(panel):
    """One-way: the deviance depends on the mean through the sum of squares of the groups' means."""
    d = panel(11, models=6, categories=1, prompts=5, samples=1)
    m = dynstat.lmer("y ~ 1 + (1 | model)", d)
    a, n = 6, 5
    means = d.groupby("model")["y"].mean()
    within = ((d["y"] - d["model"].map(means)) ** 2).sum()

    def deviance(mu):
        between = n * ((means - mu) ** 2).sum()
        lam, s2 = between / a, within / (a * (n - 1))
        if lam < s2:
            lam = s2 = (between + within) / (a * n)
        return a * np.log(lam) + a * (n - 1) * np.log(s2) + a * n * (1 + np.log(2 * np.pi))

    table = profile(m, "beta_").confint()
    base = deviance(means.mean())
    for side in ("conf.low", "conf.high"):
        assert deviance(table[side].item()) - base == pytest.approx(CUT, abs=1e-6)


def test_zeta_hits_the_cut_at_the_limits_and_tidy_is_increasing(fitted):
    p = profile(fitted("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"))
    for level in (0.5, 0.95, 0.999):
        for name, row in p.confint(level).iterrows():
            reach = stats.norm.ppf((1 + level) / 2)
            assert p.zeta(name, row["conf.low"]) == pytest.approx(-reach, abs=1e-6)
            assert p.zeta(name, row["conf.high"]) == pytest.approx(reach, abs=1e-6)
    drawn = p.tidy(points=2)
    for _, part in drawn.groupby("parameter"):
        assert np.all(np.diff(part["value"]) > 0) and np.all(np.diff(part["zeta"]) > 0)


def test_a_variance_that_may_be_zero_reaches_zero_and_a_correlation_one(panel, fitted):
    table = profile(fitted("Dyestuff2", "Yield ~ 1 + (1 | Batch)"), "theta_").confint()
    assert table.loc["sd_(Intercept)|Batch", "conf.low"] == 0
    assert 0 < table.loc["sd_(Intercept)|Batch", "conf.high"] < 3
    d = panel(3, models=5, categories=2, prompts=4, samples=2)
    d["y"] = d["y"] + 0.8 * d["x"] * d.groupby("model")["y"].transform("mean")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        m = dynstat.lmer("y ~ x + (x | model)", d)
    row = profile(m, "cor_x.(Intercept)|model").confint().iloc[0]
    assert -1 <= row["conf.low"] < row["conf.high"] == 1


def test_three_correlated_columns_are_profiled_in_any_order(panel):
    d = panel(8, models=8, categories=2, prompts=5, samples=2)
    rng = np.random.default_rng(2)
    effects = rng.normal(size=(8, 3)) @ np.array([[0.8, 0.3, 0.2], [0, 0.7, -0.3], [0, 0, 0.6]])
    code = d["model"].str[1:].astype(int).to_numpy()
    d["z"] = rng.normal(size=len(d))
    d["y"] = (
        effects[code, 0] + effects[code, 1] * d["x"] + effects[code, 2] * d["z"] + rng.normal(0, 0.7, len(d))
    )
    one = profile(dynstat.lmer("y ~ 1 + (x + z | model)", d), ["sd_z|model", "cor_z.x|model"]).confint()
    two = profile(dynstat.lmer("y ~ 1 + (z + x | model)", d), ["sd_z|model", "cor_x.z|model"]).confint()
    two.index = two.index.str.replace("cor_x.z", "cor_z.x")
    columns = ["conf.low", "conf.high"]
    np.testing.assert_allclose(one[columns], two.loc[one.index, columns], rtol=1e-5)


@pytest.mark.parametrize("case", VALUES["fits"][::2], ids=label)
def test_wald_limits_are_lme4s(case, fitted):
    table = dynstat.confint(fitted(case["data"], case["formula"], case["REML"]), method="Wald")
    assert table.index.tolist() == case["wald"]["rows"]
    np.testing.assert_allclose(table[["conf.low", "conf.high"]], numbers(case["wald"]["values"]), rtol=1e-4)


def test_wald_limits_with_kenward_roger_are_its_t_intervals(fitted):
    m = fitted("unbalanced", "y ~ family * category + (1 | model) + (1 | prompt)")
    table = m.confint("beta_", method="Wald", ddf="Kenward-Roger", level=0.9)
    expected = m.contest(np.eye(4), joint=False, ddf="KR")
    reach = stats.t.ppf(0.95, expected["df"]) * expected["std.error"]
    np.testing.assert_allclose(table["conf.low"], expected["estimate"] - reach)
    assert table.index.tolist() == expected["term"].tolist() or len(table) == 4


def test_bootstrap_limits_follow_their_definition_and_the_seed(fitted):
    m = fitted("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)")
    b = m.bootstrap(nsim=400, rng=3)
    again = m.bootstrap(nsim=400, rng=3)
    np.testing.assert_array_equal(b.draws, again.draws)
    assert b.seed == 3 and b.draws.shape == (400, 4) and b.failed == 0
    draws = np.sort(b.draws["sigma"].to_numpy())
    perc, basic, norm = (b.confint(kind=k).loc["sigma"] for k in ("perc", "basic", "norm"))
    # Quantiles at (B + 1)α: 401 · 0.025 = 10.025.
    assert perc["conf.low"] == pytest.approx(draws[9] + 0.025 * (draws[10] - draws[9]))
    assert basic["conf.low"] == pytest.approx(2 * m.sigma - perc["conf.high"])
    centre = 2 * m.sigma - draws.mean()
    assert norm["conf.high"] == pytest.approx(centre + stats.norm.ppf(0.975) * draws.std(ddof=1))
    table = m.confint(method="boot", nsim=400, rng=3)
    assert table.loc["sigma", "conf.low"] == pytest.approx(perc["conf.low"])
    assert table.attrs["seed"] == 3 and table.attrs["nsim"] == 400
    # Of the residual in a crossed design σ̂²/σ² is close to χ²/df: 120 of 144 are free.
    assert draws.std() == pytest.approx(m.sigma / np.sqrt(2 * 115), rel=0.15)


def test_bootstrap_of_a_function_equals_refits_one_by_one(fitted):
    m = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)")
    names = m.confint(method="Wald").index
    batch = m.bootstrap(nsim=6, rng=5)
    single = m.bootstrap(lambda f: f.fixef["Days"] / f.sigma, nsim=6, rng=5)
    np.testing.assert_allclose(
        single.draws["statistic"], batch.draws["Days"] / batch.draws["sigma"], rtol=1e-5
    )
    assert batch.draws.columns.tolist() == names.tolist()
    assert single.estimate["statistic"] == pytest.approx(m.fixef["Days"] / m.sigma)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m: m.confint(method="exact"), "profile"),
        (lambda m: m.confint(level=95), "between 0 and 1"),
        (lambda m: m.confint("nothing"), "nothing"),
        (lambda m: m.confint(method="Wald", nsim=5), "bootstrap"),
        (lambda m: m.bootstrap(nsim=1), "at least 2"),
        (lambda m: m.profile().zeta("nothing", 1.0), "nothing"),
        (lambda m: m.bootstrap(nsim=3, rng=1).confint(kind="bca"), "perc"),
    ],
)
def test_bad_requests_are_told(call, word, fitted):
    with pytest.raises(DynstatError, match=word):
        call(fitted("Dyestuff", "Yield ~ 1 + (1 | Batch)"))


def test_the_default_redraws_mean_squares_as_the_closed_form_has_it(fitted, r_data):
    """One-way balanced: sigma is chi-square, the batch variance (SSB/chi2 - SSW/chi2') / n, cut at 0."""
    m = fitted("Dyestuff", "Yield ~ 1 + (1 | Batch)")
    table = m.confint()
    assert table.attrs["method"] == "mean squares" and table.attrs["seed"] == 0
    d = r_data("Dyestuff").sort_values("Batch")
    y = d["Yield"].to_numpy(dtype=float).reshape(6, 5)
    ssw = float(((y - y.mean(1, keepdims=True)) ** 2).sum())
    ssb = float(5 * ((y.mean(1) - y.mean()) ** 2).sum())
    low, high = np.sqrt(ssw / stats.chi2.ppf([0.975, 0.025], 24))
    assert table.loc["sigma", ["conf.low", "conf.high"]].tolist() == pytest.approx([low, high], rel=0.01)
    rng = np.random.default_rng(5)
    between = ssb / rng.chisquare(5, 400_000) - ssw / rng.chisquare(24, 400_000)
    wanted = np.sqrt(np.quantile(np.maximum(between, 0) / 5, [0.025, 0.975]))
    found = table.loc["sd_(Intercept)|Batch", ["conf.low", "conf.high"]].tolist()
    # 20,000 draws: a limit in the long upper tail moves by about 2 %.
    assert found == pytest.approx(wanted.tolist(), rel=0.05, abs=1.0)
    exact = m.confint("(Intercept)", method="Wald", ddf="Kenward-Roger")
    assert table.loc["(Intercept)", "conf.low"] == pytest.approx(exact["conf.low"].iloc[0], rel=1e-12)


def test_the_default_is_the_profile_where_a_term_is_a_slope(fitted):
    m = fitted("sleepstudy", "Reaction ~ Days + (Days | Subject)")
    assert m.confint("sigma").attrs["method"] == "profile"
    with pytest.raises(DynstatError) as e:
        m.confint(method="mean squares")
    assert e.value.code == "S404" and "intercept" in str(e.value)


def test_nested_and_crossed_terms_get_their_own_limits(fitted):
    """The order of the terms in the mean squares is that of the fit: each interval holds its estimate."""
    m = fitted("Pastes", "strength ~ 1 + (1 | batch/cask)")
    table = m.confint("theta_")
    assert (table["conf.low"] <= table["estimate"]).all() and (table["estimate"] <= table["conf.high"]).all()
    profile_ = m.confint("theta_", method="profile")
    assert np.allclose(table["conf.low"], profile_["conf.low"], atol=0.4)
