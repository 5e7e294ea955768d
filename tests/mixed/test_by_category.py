"""Variances a category: plain fits, the slow null, the behaviour of p under a true null."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.resample import Resampler, monte_carlo_p
from dynstat.mixed import category_variances
from dynstat.registry import METHODS

FORMULA = "y ~ 1 + (1|model) + (1|prompt) + (1|model:prompt)"


@pytest.fixture
def frame(panel):
    def make(seed=0, boost=1.0, **more):
        d = panel(seed, 6, 4, 5, 3, **({"model": 0.8, "both": 0.3} | more))
        # The models' deviations grow in c0 alone.
        deviation = d.groupby(["category", "model"])["y"].transform("mean") - d.groupby("category")[
            "y"
        ].transform("mean")
        return d.assign(y=d["y"] + np.where(d["category"] == "c0", boost - 1, 0) * deviation)

    return make


def _model_variance(d):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        fit = dynstat.lmer(FORMULA, d)
    return float(fit.varcorr.set_index("grp").loc["model", "vcov"])


def _slow_ratio(d, contrast="c0"):
    v = {c: _model_variance(part) for c, part in d.groupby("category")}
    return np.log(v[contrast]) - np.log(np.mean([v[c] for c in v if c != contrast]))


@pytest.mark.parametrize("missing", [0, 2])
def test_every_category_alone_and_its_jackknife(frame, missing):
    d = frame(1).drop(index=range(20, 20 + missing))
    made = category_variances(d, "c0", permutations=99, rng=1) if not missing else None
    made = made or category_variances(d, "c0", permutations=99, rng=1)
    for c, part in d.groupby("category"):
        assert made.components.loc[c, "model"] == pytest.approx(_model_variance(part), rel=1e-4)
    e = made.estimate
    assert e.value == pytest.approx(_slow_ratio(d), rel=1e-4)
    prompts = d.groupby("category")["prompt"].unique()
    left = [_slow_ratio(d[~d["prompt"].isin([p[g] for p in prompts])]) for g in range(5)]
    assert "log scale" in e.interval and e.diagnostics["balanced"] == (missing == 0)
    assert e.pivot.se == pytest.approx(np.sqrt(4 / 5 * np.sum((left - np.mean(left)) ** 2)), rel=1e-3)
    assert (e.target, e.unit, e.n["groups"], e.pivot.df) == ("panel", "prompt", 5, 4)


def test_the_null_deals_whole_prompts_anew(frame):
    d = frame(2).reset_index(drop=True)
    made = category_variances(d, "c0", permutations=99, rng=7)
    flat = d.assign(y=d["y"] - d.groupby("category")["y"].transform("mean"))
    resampler = Resampler.of(d["prompt"], d["category"])
    rng = np.random.default_rng(7)
    slow = []
    for _ in range(99):
        dealt = resampler.stratum_of[rng.permutation(resampler.n_units)][resampler.units]
        slow.append(dealt)
    # The first few by plain fits; all of them would take a minute.
    ratios = [_slow_ratio(flat.assign(category=[f"c{k}" for k in s])) for s in slow[:4]]
    from dynstat.mixed.by_category import _Fitter, _log_ratio

    fitter = _Fitter.of(d, FORMULA, "prompt", "model", resampler).centred(resampler.stratum_of)
    rng = np.random.default_rng(7)
    labels = np.array([resampler.stratum_of[rng.permutation(resampler.n_units)] for _ in range(99)])
    ours = _log_ratio(fitter.components(labels)[:, :, 0], 0)
    np.testing.assert_allclose(ours[:4], ratios, rtol=1e-3, atol=1e-4)
    null = made.estimate.null
    assert null["p"] == monte_carlo_p(made.estimate.value, ours) and null["replicates"] == 99


def test_an_amplified_category_is_found(frame):
    made = category_variances(frame(3, boost=3.0), "c0", rng=1)
    e = made.estimate
    assert e.value > 1.2 and e.pivot.p_above(0) < 0.01 and e.null["p"] < 0.05
    other = category_variances(frame(3, boost=3.0), "c1", rng=1).estimate
    assert other.value < 0 and other.null["p"] > 0.5


def test_the_null_does_not_depend_on_the_means_of_categories(frame):
    d = frame(4)
    shift = d["category"].map({"c0": 0.0, "c1": 50.0, "c2": -20.0, "c3": 3.0})
    a = category_variances(d, "c2", permutations=199, rng=2).estimate
    b = category_variances(d.assign(y=d["y"] + shift), "c2", permutations=199, rng=2).estimate
    assert (a.value, a.low, a.null["p"]) == pytest.approx((b.value, b.low, b.null["p"]), rel=1e-6)


def test_p_is_uniform_where_categories_do_not_differ(panel):
    p = [
        category_variances(panel(s, 5, 3, 4, 2, both=0.0), "c0", permutations=99, rng=s).estimate.null["p"]
        for s in range(200)
    ]
    # 200 tests at .10: 99.9 % of binomial counts lie within 8 to 36.
    assert 8 <= sum(x <= 0.10 for x in p) <= 36
    assert 0.40 < np.mean(p) < 0.60


def test_a_variance_of_zero_has_no_interval_and_no_false_support(panel):
    rng = np.random.default_rng(5)
    d = panel(5, 6, 3, 5, 3)
    d["y"] = np.where(d["category"] == "c0", rng.normal(size=len(d)), d["y"])
    # Models alike in c0: their means taken out.
    c0 = d["category"] == "c0"
    d.loc[c0, "y"] -= d[c0].groupby("model")["y"].transform("mean")
    e = category_variances(d, "c0", permutations=99, rng=1).estimate
    assert e.value == -np.inf and np.isnan(e.low) and e.pivot is None and e.null["p"] == 1.0


def test_tidies_and_prints(frame):
    made = category_variances(frame(6), "c0", permutations=99, rng=1)
    table = made.tidy()
    assert list(table.columns) == ["category", "contrast", "estimate", "conf.low", "conf.high", "share"]
    assert table["contrast"].sum() == 1 and (table["conf.low"] <= table["estimate"]).all()
    assert set(made.estimates()) == {"log_ratio", *(f"variance.c{i}" for i in range(4))}
    assert len(made.plot().axes[0].get_yticklabels()) == 4
    assert "permuted" in str(made) and "<pre>" in made._repr_html_()


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"contrast": "c9"}, "S404", "no category"),
        ({"category": "nothere"}, "S404", "nothere"),
        ({"permutations": 5}, "S404", "permutations"),
        ({"term": "x"}, "S404", "no term"),
    ],
)
def test_bad_arguments(frame, change, code, word):
    given = {"contrast": "c0", "permutations": 99} | change
    with pytest.raises(DynstatError, match=word) as caught:
        category_variances(frame(0), **given)
    assert caught.value.code == code


def test_one_sample_a_cell_cannot_be_contrasted(panel):
    with pytest.raises(DynstatError, match="confounded with the residual"):
        category_variances(panel(0, samples=1), "c0")


def test_the_method_is_registered_and_runs():
    method = METHODS.get("variance.category_contrast@1")
    assert method.quantities == ("log_ratio",)
    from dynstat.mixed.methods import category_contrast

    assert method.resolve() is category_contrast
    with pytest.raises(DynstatError) as caught:
        category_contrast(None, outcome=None, seed=1, contrast="c0")
    assert caught.value.code == "Y002"
