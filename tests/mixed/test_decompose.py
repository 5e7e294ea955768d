"""Shares: identities, invariances, slow versions, boundaries, bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, special, stats

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.methods import SHARES_FORMULA, SPLIT_FORMULA
from dynstat.mixed.balanced import find_strata
from dynstat.mixed.design import build_design
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.mean_squares import mean_squares
from dynstat.mixed.population import bias_corrected
from dynstat.mixed.share_summaries import NAMES

TERMS = ("model", "category", "category:prompt", "model:category", "model:prompt", "residual")


def _quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return dynstat.decompose(*args, **kwargs)


def test_keys_targets_and_counts(panel):
    out = _quiet(SHARES_FORMULA, panel(0), rng=3).estimates()
    assert set(out) == {
        *(f"{k}.{t}" for k in ("share", "population.share", "eta2") for t in TERMS),
        *(f"omega2.{t}" for t in TERMS[:-1]),
        *(f"population.sd.{t}" for t in TERMS),
        *(f"{target}{k}" for target in ("", "population.") for k in NAMES),
    }
    e = out["share.category:prompt"]
    assert (e.target, e.unit, e.seed, e.level) == ("panel", "prompt", 3, 0.95)
    assert e.n == {
        "rows": 270,
        "model": 6,
        "category": 3,
        "category:prompt": 15,
        "model:category": 18,
        "model:prompt": 90,
        "units": 15,
        "groups": 5,
    }
    assert out["population.share.model"].target == "population"


@settings(max_examples=8)
@given(st.integers(0, 1000), st.floats(-50, 50), st.floats(0.01, 100), st.integers(0, 100))
def test_shares_sum_to_one_and_ignore_shift_scale_and_row_order(panel, seed, shift, scale, order):
    d = panel(seed, 5, 2, 4, 2)
    a = _quiet(SHARES_FORMULA, d, rng=1, replicates=100, population="none")
    assert a.shares.sum() == pytest.approx(1, abs=1e-12)
    other = d.assign(y=shift + scale * d["y"]).sample(frac=1, random_state=order)
    b = _quiet(SHARES_FORMULA, other, rng=1, replicates=100, population="none")
    np.testing.assert_allclose(a.shares, b.shares, atol=1e-7)
    for key, e in a.estimates().items():
        assert (b.estimates()[key].low, b.estimates()[key].high) == pytest.approx(
            (e.low, e.high), abs=1e-5, nan_ok=True
        ), key


def _slow_share(frame, term):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        v = dynstat.lmer(SHARES_FORMULA, frame).varcorr.set_index("grp")["vcov"]
    names = {"category:prompt": "prompt:category", "residual": "Residual"}
    return v[names.get(term, term)] / v.sum()


@pytest.mark.parametrize("missing", [0, 3])
def test_jackknife_equals_plain_refits(panel, missing):
    # Large components, so that nothing lies on the boundary; with rows missing the engine is used.
    d = panel(7, model=2.0, both=0.9, cell=0.8).drop(index=range(10, 10 + missing))
    out = _quiet(SHARES_FORMULA, d, rng=1, replicates=100, population="none", refits=100).estimates()
    prompts = d.groupby("category")["prompt"].unique()
    for term in ("model", "model:prompt", "residual"):
        left = [_slow_share(d[~d["prompt"].isin([p[g] for p in prompts])], term) for g in range(5)]
        psi = special.logit(left)
        se = np.sqrt(4 / 5 * np.sum((psi - psi.mean()) ** 2))
        centre = special.logit(_slow_share(d, term))
        e = out[f"share.{term}"]
        t = stats.t.ppf(0.975, 4)
        assert e.diagnostics["scale"] == "logit"
        assert (e.low, e.high) == pytest.approx(
            (special.expit(centre - t * se), special.expit(centre + t * se)), rel=2e-4
        )


def test_boundary_goes_to_the_raw_scale_on_unbounded_components(panel):
    d = panel(11, both=0.0, cell=0.0)
    with pytest.warns(DynstatWarning, match="boundary|fewer"):
        made = dynstat.decompose(SHARES_FORMULA, d, rng=1)
    zero = [t for t in TERMS[:-1] if made.shares[t] == 0]
    assert zero and any("singular" in n for n in made.notes)
    for term in zero:
        e = made.estimates()[f"share.{term}"]
        free = made.free_components[term] / made.free_components.sum()
        assert e.diagnostics["scale"] == "raw" and "raw scale" in e.interval
        assert e.value == max(free, 0) and 0 <= e.low <= e.high <= 1
        assert e.pivot.center == pytest.approx(free)
        # One-sided evidence is not cut: below zero it still counts against a share above.
        assert e.pivot.p_below(0.5) < 0.01


def test_population_interval_is_reproducible_and_named(panel):
    d = panel(2)
    for kind, word in (
        ("auto", "generalised"),
        ("generalised", "generalised"),
        ("bootstrap", "bias-corrected"),
    ):
        a = _quiet(SHARES_FORMULA, d, rng=5, population=kind, replicates=200).estimates()[
            "population.share.model"
        ]
        b = _quiet(SHARES_FORMULA, d, rng=5, population=kind, replicates=200).estimates()[
            "population.share.model"
        ]
        c = _quiet(SHARES_FORMULA, d, rng=6, population=kind, replicates=200).estimates()[
            "population.share.model"
        ]
        assert (a.low, a.high, a.interval) == (b.low, b.high, b.interval)
        assert a.high != c.high and word in a.interval
    holes = d.drop(index=[0, 5])
    for kind, word in (("auto", "approximate"), ("first", "bootstrap"), ("bootstrap", "bootstrap")):
        text = "y ~ 1 + (1|model) + (1|category/prompt)"
        two = [_quiet(text, holes, rng=5, refits=100, population=kind) for _ in range(2)]
        e = [x.estimates()["population.share.model"] for x in two]
        assert e[0] == e[1] and word in e[0].interval and not two[0].balanced


def test_standard_deviations_of_one_factor_have_the_exact_interval(r_data):
    # σ alone is exact: SS/χ² on the residual's 24 degrees of freedom.
    d = r_data("Dyestuff").assign(item=lambda f: f.groupby("Batch").cumcount().astype(str))
    made = _quiet("Yield ~ 1 + (1|Batch)", d, unit="item", strata="Batch", rng=1, replicates=40_000)
    e = made.estimates()["population.sd.residual"]
    exact = np.sqrt(24 * 2451.25 / stats.chi2.ppf([0.975, 0.025], 24))
    assert e.value == pytest.approx(np.sqrt(2451.25))
    assert (e.low, e.high) == pytest.approx(exact, rel=0.02)


def test_mean_squares_of_any_design(panel):
    # In balanced data they are those of the strata; in others E(SS) follows by brute force.
    design = build_design(parse_formula(SHARES_FORMULA), panel(2))
    strata, made = find_strata(design), mean_squares(design)
    order = [strata.term_of.index(t) for t in range(5)] + [len(strata.names) - 1]
    np.testing.assert_allclose(made.ss, strata.sums_of_squares(design.y)[order], rtol=1e-8)
    np.testing.assert_allclose(made.df, strata.df[order])
    np.testing.assert_allclose(made.design, strata.design[order], atol=1e-8)
    d = panel(2, 4, 3, 4, 3).sample(frac=0.8, random_state=3)
    d = d.assign(y=d["y"] + d["x"])
    design = build_design(parse_formula("y ~ x + (1|model) + (1|prompt) + (1|model:prompt)"), d)
    made = mean_squares(design)
    z = [np.eye(len(t.levels))[t.codes] for t in design.terms]
    names = [t.label for t in design.terms]
    model, prompt, both = (z[names.index(k)] for k in ("model", "prompt", "model:prompt"))

    def hat(*parts):
        q, r, _ = linalg.qr(np.column_stack([design.x, *parts]), mode="economic", pivoting=True)
        keep = np.abs(np.diag(r)) > 1e-8
        return q[:, keep] @ q[:, keep].T

    pieces = {
        "model": hat(model, prompt) - hat(prompt),
        "prompt": hat(model, prompt) - hat(model),
        "model:prompt": hat(model, prompt, both) - hat(model, prompt),
    }
    for i, name in enumerate(names):
        q = pieces[name]
        assert made.ss[i] == pytest.approx(design.y @ q @ design.y)
        assert made.df[i] == pytest.approx(np.trace(q))
        expected = [np.trace(a.T @ q @ a) / np.trace(q) for a in z] + [1.0]
        np.testing.assert_allclose(made.design[i], expected, atol=1e-8)


def test_unbalanced_data_take_the_generalised_interval(panel):
    e = _quiet(SHARES_FORMULA, panel(2).drop(index=[0]), rng=5, refits=100).estimates()
    assert "generalised" in e["population.share.model"].interval
    assert e["population.icc.adjusted"].low == pytest.approx(1 - e["population.share.residual"].high)


def test_generalised_interval_of_one_factor_is_the_exact_one(r_data):
    # One-way balanced data have an exact interval for the share (Searle et al. 1992, section 3.6): with F the
    # ratio of mean squares, (F/Fu − 1)/(F/Fu + n − 1) and the same with Fl.
    d = r_data("Dyestuff").assign(item=lambda f: f.groupby("Batch").cumcount().astype(str))
    made = _quiet("Yield ~ 1 + (1|Batch)", d, unit="item", strata="Batch", rng=1, replicates=40_000)
    f = 11271.5 / 2451.25
    exact = [(f / q - 1) / (f / q + 4) for q in stats.f.ppf([0.975, 0.025], 5, 24)]
    e = made.estimates()["population.share.Batch"]
    assert (e.low, e.high) == pytest.approx(exact, abs=0.01)


def test_bias_correction_of_unbiased_draws_is_the_percentile():
    draws = np.random.default_rng(0).normal(size=(4001, 1))
    same = bias_corrected(draws, np.median(draws, axis=0))
    np.testing.assert_allclose(np.quantile(same, [0.05, 0.95]), np.quantile(draws, [0.05, 0.95]), atol=0.01)
    moved = bias_corrected(draws, np.quantile(draws, [0.7], axis=0)[0])
    assert np.quantile(moved, 0.5) > np.quantile(draws, 0.75)


def test_chance_level_of_noise(panel):
    made = _quiet(SHARES_FORMULA, panel(4), rng=1)
    assert made.chance.loc["residual", "mean"] > 0.9
    assert made.chance.loc["category", "p"] < 0.05
    eta = made.estimates()["eta2.model"]
    assert eta.diagnostics["chance"] == pytest.approx(5 / 269)
    noise = panel(5, **dict.fromkeys(("model", "category", "prompt", "both", "cell"), 0.0))
    assert (_quiet(SHARES_FORMULA, noise, rng=1).chance["p"] > 0.01).all()


def test_eta_and_omega_squared_by_hand(panel):
    d = panel(6)
    out = _quiet(SHARES_FORMULA, d, rng=1, population="none").estimates()
    y = d["y"]
    total = float(((y - y.mean()) ** 2).sum())
    ss = float(((d.groupby("model")["y"].transform("mean") - y.mean()) ** 2).sum())
    within = float(((y - d.groupby(["model", "prompt"])["y"].transform("mean")) ** 2).sum())
    ms = within / (270 - 90)
    assert out["eta2.model"].value == pytest.approx(ss / total)
    assert out["omega2.model"].value == pytest.approx((ss - 5 * ms) / (total + ms))
    assert sum(out[f"eta2.{t}"].value for t in TERMS) == pytest.approx(1)


def test_residual_splits_into_temperature_and_seed(panel):
    d = panel(8, samples=4)
    made = _quiet(SPLIT_FORMULA, d, rng=1)
    assert made.terms == (*TERMS[:-1], "temperature", "model:prompt:temperature", "residual")
    assert made.balanced and made.shares.sum() == pytest.approx(1)


def test_one_sample_a_cell_cannot_be_decomposed(panel):
    with pytest.raises(DynstatError, match=r"\(1\|model:prompt\) is confounded with the residual") as caught:
        dynstat.decompose(SHARES_FORMULA, panel(0, samples=1))
    assert caught.value.code == "S402"


def test_few_levels_and_unequal_strata_are_told(panel):
    d = panel(1, models=3)
    with pytest.warns(DynstatWarning, match="fewer than 5 levels"):
        dynstat.decompose(SHARES_FORMULA, d, population="none", rng=1)
    uneven = d[d["prompt"] != "p004"]
    with pytest.warns(DynstatWarning, match="strata hold 4 to 5 units"):
        made = dynstat.decompose(SHARES_FORMULA, uneven, population="none", refits=100, rng=1)
    assert made.estimates()["share.model"].n["groups"] == 4
    assert any("4 to 5" in n for n in made.notes)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"formula": "y ~ 1 + (x|model)"}, "S404", "intercept"),
        ({"unit": "nothere"}, "S404", "nothere"),
        ({"level": 1.5}, "S404", "level"),
        ({"replicates": 3}, "S404", "replicates"),
        ({"population": "percentile"}, "S404", "population"),
        ({"formula": "y ~ 1"}, "S401", "random"),
    ],
)
def test_bad_arguments(panel, change, code, word):
    given_ = {"formula": SHARES_FORMULA, "data": panel(0)} | change
    with pytest.raises(DynstatError, match=word) as caught:
        dynstat.decompose(given_.pop("formula"), given_.pop("data"), **given_)
    assert caught.value.code == code


def test_too_few_prompts(panel):
    with pytest.raises(DynstatError, match="too few units") as caught:
        dynstat.decompose(SHARES_FORMULA, panel(0, prompts=2))
    assert caught.value.code == "S403"


def test_prints_and_tidies(panel):
    made = _quiet(SHARES_FORMULA, panel(3), rng=1)
    table = made.tidy()
    assert list(table.columns) == [
        "term",
        "levels",
        "component",
        "estimate",
        "conf.low",
        "conf.high",
        "interval",
        "population.low",
        "population.high",
        "chance",
        "eta2",
        "omega2",
    ]
    assert list(table["term"]) == list(TERMS)
    assert all(t in str(made) for t in TERMS) and "<pre>" in made._repr_html_()
    assert made.glance().loc[0, "balanced"]
    assert isinstance(made.fit.fixef, pd.Series)


def test_equal_names_in_several_categories_are_told(panel):
    d = panel(2)
    unique = _quiet(SHARES_FORMULA, d, rng=1, population="none")
    assert not any("repeat" in n for n in unique.notes)
    # p000 of every category: (1|model:prompt) reads three prompts as one.
    repeated = d.assign(prompt=d["item"].map("p{}".format))
    with pytest.warns(
        DynstatWarning, match="names of prompt repeat between levels of category: model:prompt"
    ):
        merged = dynstat.decompose(SHARES_FORMULA, repeated, rng=1, population="none")
    assert merged.estimates()["share.residual"].n["model:prompt"] == 6 * 5
    nested = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category:prompt)"
    assert not any("repeat" in n for n in _quiet(nested, repeated, rng=1, population="none").notes)


def test_plot_shows_every_term_and_both_targets(panel):
    d = _quiet(SHARES_FORMULA, panel(0), rng=3)
    axes = d.plot().axes[0]
    assert [t.get_text().splitlines()[0] for t in axes.get_yticklabels()] == list(TERMS)
    drawn = {round(float(x), 9) for line in axes.lines for x in np.atleast_1d(line.get_xdata())}
    for key, e in d.estimates().items():
        if "share." in key:
            assert round(e.value, 9) in drawn, key
    alone = _quiet(SHARES_FORMULA, panel(0), rng=3, population="none")
    assert len(alone.plot().axes[0].lines) < len(axes.lines)


@pytest.mark.parametrize("column", ["unit", "strata"])
def test_rows_of_no_unit_are_refused(panel, column):
    # Columns that the formula does not name, so that no row is dropped for them.
    d = panel(0).assign(unit=lambda d: d["prompt"], strata=lambda d: d["category"])
    d.loc[3, column] = np.nan
    with pytest.raises(DynstatError, match="S404") as e:
        _quiet(SHARES_FORMULA, d, rng=1, unit="unit", strata="strata")
    assert e.value.where == column and e.value.found == "1 missing values"
