"""Jackknife and bootstraps over units: against fits of frames put together by hand, and closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.resample import Resampler, product_weights
from dynstat.mixed.resampling import fit_design

FORMULA = "y ~ x + (1 | model) + (1 | category/prompt)"


@pytest.fixture(scope="module")
def data(panel) -> pd.DataFrame:
    return panel(31, models=5, categories=3, prompts=5, samples=2)


@pytest.fixture(scope="module")
def m(data):
    return quiet(FORMULA, data)


def quiet(formula: str, data: pd.DataFrame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return dynstat.lmer(formula, data)


def spread(fit) -> dict[str, float]:
    return {"slope": fit.fixef["x"], "sd": fit.varcorr.loc[0, "sdcor"], "sigma": fit.sigma}


def test_jackknife_equals_fits_of_smaller_frames(m, data):
    j = m.jackknife(spread, unit="prompt", strata="category")
    names = sorted(data["prompt"].unique())
    slow = []
    for g in range(5):
        gone = [names[5 * c + g] for c in range(3)]
        slow.append(spread(quiet(FORMULA, data[~data["prompt"].isin(gone)])))
    slow = pd.DataFrame(slow)
    np.testing.assert_allclose(j.left_out, slow, rtol=2e-6)
    se = np.sqrt(4 / 5 * ((slow - slow.mean()) ** 2).sum())
    np.testing.assert_allclose(j.std_error, se, rtol=1e-4)
    table = j.confint()
    np.testing.assert_allclose(
        table["conf.high"] - table["estimate"], stats.t.ppf(0.975, 4) * j.std_error, rtol=1e-9
    )
    np.testing.assert_allclose(table["bias"], 4 * (slow.mean() - j.estimate), atol=1e-5)
    e = j.estimates()["slope"]
    assert (e.unit, e.target, e.n["group"], e.value) == ("prompt", "panel", 5, pytest.approx(m.fixef["x"]))
    assert e.low == pytest.approx(table.loc["slope", "conf.low"])


def test_jackknife_of_a_mean_is_its_standard_error(panel):
    """Balanced one-way data: groups' means are the units, and the jackknife is exact."""
    d = panel(32, models=8, categories=1, prompts=4, samples=1)
    j = quiet("y ~ 1 + (1 | model)", d).jackknife(unit="model")
    means = d.groupby("model")["y"].mean()
    assert j.std_error["(Intercept)"] == pytest.approx(means.std(ddof=1) / np.sqrt(8), rel=1e-8)
    assert j.df == 7


def test_unit_bootstrap_equals_fits_of_frames_with_copies_named_apart(m, data):
    b = dynstat.unit_bootstrap(m, spread, unit="prompt", strata="category", nsim=3, rng=6)
    names = sorted(data["prompt"].unique())
    joint = data["category"] + "\x1f" + data["prompt"]
    resampler = Resampler.of(joint.to_numpy(), data["category"].to_numpy())
    for replicate, counts in enumerate(resampler.weights(3, np.random.default_rng(6))):
        parts = [
            data[data["prompt"] == name].assign(prompt=f"{name} copy {k}")
            for name, count in zip(names, counts, strict=True)
            for k in range(count)
        ]
        slow = spread(quiet(FORMULA, pd.concat(parts)))
        np.testing.assert_allclose(b.draws.iloc[replicate], list(slow.values()), rtol=2e-6)
    assert b.seed == 6 and b.how == "bootstrap of whole units of prompt within category"


def test_unit_bootstrap_keeps_levels_that_cross_the_unit(m):
    """Drawing prompts leaves all models: a copied prompt is new, its models are the old ones."""
    sizes = dynstat.unit_bootstrap(
        m, lambda f: f.ngroups["model"], unit="prompt", strata="category", nsim=4, rng=1
    )
    assert (sizes.draws["statistic"] == 5).all()
    prompts = dynstat.unit_bootstrap(
        m, lambda f: f.ngroups["prompt:category"], unit="prompt", strata="category", nsim=4, rng=1
    )
    assert (prompts.draws["statistic"] == 15).all()


def test_a_design_fitted_again_is_the_fit(m):
    again = fit_design(m.design, m)
    np.testing.assert_allclose(again.fixef, m.fixef, rtol=1e-8)
    assert again.criterion == pytest.approx(m.criterion, abs=1e-8)


# -- product weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exponential", "poisson", "double"])
def test_product_weights_have_the_moments_of_their_theory(kind):
    a, b = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
    w = np.array(list(product_weights([a, b], 20_000, 1, kind)))
    assert np.allclose(w.mean(axis=0), 1, atol=0.06)
    cov = np.cov(w.T)
    same_a, same_b = a[:, None] == a, b[:, None] == b
    expected = (1.0 + same_a) * (1.0 + same_b) - 1
    assert np.max(np.abs(cov - expected)) < 0.45
    assert abs(cov.mean() - expected.mean()) < 0.03


def crossed(seed: int, rows: int = 25, columns: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    d = pd.MultiIndex.from_product([range(rows), range(columns)], names=["a", "b"]).to_frame(index=False)
    d["y"] = (
        2 + rng.normal(0, 0.7, rows)[d["a"]] + rng.normal(0, 0.5, columns)[d["b"]] + rng.normal(size=len(d))
    )
    return d


def test_product_weight_bootstrap_of_a_balanced_mean_is_the_weighted_mean():
    d = crossed(1)
    m = quiet("y ~ 1 + (1 | a) + (1 | b)", d)
    b = dynstat.product_weight_bootstrap(m, ["a", "b"], nsim=50, rng=9)
    weights = product_weights([d["a"].astype(str), d["b"].astype(str)], 50, np.random.default_rng(9))
    slow = [np.average(d["y"], weights=w) for w in weights]
    np.testing.assert_allclose(b.draws["(Intercept)"], slow, rtol=1e-9)


def test_product_weight_bootstrap_estimates_owen_and_eckles_variance():
    """To first order it is (Σ e_a.² + Σ e_.b² + Σ e_ab²)/N², e the centred rows."""
    d = crossed(2)
    m = quiet("y ~ 1 + (1 | a) + (1 | b)", d)
    e = d["y"] - d["y"].mean()
    theory = (e.groupby(d["a"]).sum() ** 2).sum() + (e.groupby(d["b"]).sum() ** 2).sum() + (e**2).sum()
    draws = dynstat.product_weight_bootstrap(m, ["a", "b"], nsim=4000, rng=3, weights="double").draws
    assert draws["(Intercept)"].std() == pytest.approx(np.sqrt(theory) / len(d), rel=0.06)
    # And it agrees with the model's own standard error, which it does not use.
    assert draws["(Intercept)"].std() == pytest.approx(float(np.sqrt(m.vcov.iloc[0, 0])), rel=0.2)


def test_unit_weights_give_the_fit_itself(m, monkeypatch):
    import dynstat.mixed.resampling as module

    monkeypatch.setattr(module, "product_weights", lambda f, n, rng, kind: iter([np.ones(m.nobs)] * n))
    b = dynstat.product_weight_bootstrap(m, ["model", "prompt"], nsim=2, rng=1)
    np.testing.assert_allclose(b.draws, np.tile(m.fixef, (2, 1)), rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda m: m.jackknife(unit="nothing"), "nothing"),
        (lambda m: m.jackknife(unit="temperature"), "too few units"),
        (lambda m: dynstat.unit_bootstrap(m, unit="prompt", nsim=0), "at least 2"),
        (lambda m: dynstat.product_weight_bootstrap(m, ["model"], weights="gamma", nsim=2), "exponential"),
        (lambda m: dynstat.product_weight_bootstrap(m, ["nothing"], nsim=2), "nothing"),
        (lambda m: dynstat.product_weight_bootstrap(m, [], nsim=2), "at least one"),
    ],
)
def test_bad_requests_are_told(call, word, m):
    with pytest.raises(DynstatError, match=word):
        call(m)


def test_results_are_tables_too(m):
    j = m.jackknife(unit="prompt", strata="category")
    assert j.tidy()["term"].tolist() == ["(Intercept)", "x"] and j.glance()["groups"].item() == 5
    b = dynstat.product_weight_bootstrap(m, ["model", "prompt"], nsim=20, rng=1)
    assert b.tidy()["term"].tolist() == ["(Intercept)", "x"] and b.glance()["seed"].item() == 1
    for result in (j, b, m.profile("sigma")):
        assert str(result) == repr(result) and result._repr_html_().startswith("<p>")
