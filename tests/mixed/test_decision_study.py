"""D-studies against the closed forms of generalizability theory, and against simulated designs."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.methods import SHARES_FORMULA, SPLIT_FORMULA
from dynstat.mixed import dstudy, plan_for


@pytest.fixture(scope="module")
def made(panel):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return dynstat.decompose(SHARES_FORMULA, panel(1, 8, 4, 6, 3), rng=1)


def test_one_facet_is_the_textbook_design(panel):
    # Shavelson and Webb 1991, chapter 4: persons x items; here models x prompts, several runs a cell.
    d = panel(3, 8, 4, 6, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        g = dynstat.decompose("y ~ 1 + (1|model) + (1|prompt) + (1|model:prompt)", d, strata=None, rng=1)
    v = g.components
    out = dstudy(g, {"prompt": [10, 40], "sample": [1, 5], "model": [8, 16]}, target="population")
    assert len(out.plans) == 8
    for i, plan in out.plans.iterrows():
        p, s, m = plan["prompt"], plan["sample"], plan["model"]
        delta = v["model:prompt"] / p + v["residual"] / (p * s)
        absolute = delta + v["prompt"] / p
        mean = v["model"] / m + v["prompt"] / p + v["model:prompt"] / (m * p) + v["residual"] / (m * p * s)
        got = out.values.loc[i]
        assert got["se.difference"] == pytest.approx(np.sqrt(2 * delta))
        assert got["se.model"] == pytest.approx(np.sqrt(absolute))
        assert got["se.mean"] == pytest.approx(np.sqrt(mean))
        assert got["g"] == pytest.approx(v["model"] / (v["model"] + delta))
        assert got["phi"] == pytest.approx(v["model"] / (v["model"] + absolute))


def test_nested_prompts_count_once_and_categories_are_held_or_drawn(made):
    v = made.components
    assert made.basis.inside["prompt"] == ("category",)
    numbers = {"prompt": [48], "sample": [2]}
    p, c, m, s = 48, 4, 8, 2
    prompts = v["model:prompt"] / p + v["residual"] / (p * s)
    panel_ = dstudy(made, numbers).values.iloc[0]
    assert panel_["se.difference"] == pytest.approx(np.sqrt(2 * prompts))
    assert panel_["se.model"] == pytest.approx(np.sqrt(prompts + v["category:prompt"] / p))
    tau = v["model"] + v["model:category"] / c
    assert panel_["g"] == pytest.approx(tau / (tau + prompts))
    wide = dstudy(made, numbers, target="population").values.iloc[0]
    delta = prompts + v["model:category"] / c
    assert wide["se.difference"] == pytest.approx(np.sqrt(2 * delta))
    assert wide["se.model"] == pytest.approx(np.sqrt(delta + v["category"] / c + v["category:prompt"] / p))
    assert wide["g"] == pytest.approx(v["model"] / (v["model"] + delta))
    mean = (
        v["model"] / m
        + v["category"] / c
        + v["category:prompt"] / p
        + v["model:category"] / (m * c)
        + v["model:prompt"] / (m * p)
        + v["residual"] / (m * p * s)
    )
    assert wide["se.mean"] == pytest.approx(np.sqrt(mean))


def test_the_numbers_of_the_data_are_the_default(made):
    row = dstudy(made).plans.iloc[0]
    assert row.to_dict() == {"model": 8, "category": 4, "prompt": 24, "sample": 3}


@pytest.mark.parametrize("target", ["panel", "population"])
def test_simulated_designs_have_the_projected_errors(target):
    # Models are measured again and again on new prompts (and, for a population, in new categories).
    rng = np.random.default_rng(7)
    m, c, p, s = 6, 3, 5, 2
    sd = {"c": 0.5, "p": 0.4, "mc": 0.3, "mp": 0.35, "e": 0.7, "m": 0.5}
    n = 4000
    model = rng.normal(0, sd["m"], (n, m))
    both = rng.normal(0, sd["mc"], (n, m, c)).mean(2)
    other_both = both if target == "panel" else rng.normal(0, sd["mc"], (n, m, c)).mean(2)

    def noise():
        prompts = rng.normal(0, sd["p"], (n, 1, c * p)) + rng.normal(0, sd["mp"], (n, m, c * p))
        return (prompts + rng.normal(0, sd["e"], (n, m, c * p, s)).mean(3)).mean(2)

    category = rng.normal(0, sd["c"], (n, 1, c)).mean(2) if target == "population" else 0.0
    error = noise() + category + (both if target == "population" else 0.0)
    first = model + both + noise()
    second = model + other_both + noise()
    # A decomposition that knows the truth: components set by hand.
    frame = pd.MultiIndex.from_product(
        [range(m), range(c), range(p), range(s)], names=["model", "category", "item", "sample"]
    ).to_frame(index=False)
    frame["prompt"] = frame["category"] * p + frame["item"]
    frame["y"] = rng.normal(size=len(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        made = dynstat.decompose(SHARES_FORMULA, frame, rng=1, replicates=100, population="none")
    truth = [sd[k] ** 2 for k in ("m", "c", "p", "mc", "mp", "e")]
    made.basis.components[:] = truth
    got = dstudy(made, target=target).values.iloc[0]
    assert np.std(error[:, 0]) == pytest.approx(got["se.model"], rel=0.05)
    assert np.std(error[:, 0] - error[:, 1]) == pytest.approx(got["se.difference"], rel=0.05)
    # The coefficient is the correlation of two such measurements within one set of models.
    a, b = first - first.mean(1, keepdims=True), second - second.mean(1, keepdims=True)
    assert np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2)) == pytest.approx(got["g"], abs=0.02)


@pytest.mark.parametrize("of", ["model", "difference", "mean"])
@pytest.mark.parametrize("target", ["panel", "population"])
def test_planned_numbers_reach_the_wanted_error_and_one_fewer_does_not(made, of, target):
    for vary in ("prompt", "sample"):
        start = dstudy(made, {vary: [100]}, target=target).values.iloc[0][f"se.{of}"]
        table = plan_for(made, se=start * 1.001, of=of, vary=vary, target=target)
        n = int(table[vary].iloc[0])
        assert n <= 100 and table["se"].iloc[0] <= start * 1.001
        fewer = dstudy(made, {vary: [n - 1]}, target=target).values.iloc[0][f"se.{of}"]
        assert fewer > start * 1.001 > table["floor"].iloc[0]


def test_an_error_below_the_floor_has_no_plan(made):
    table = plan_for(made, se=1e-3, vary="sample", numbers={"prompt": [24, 240]})
    assert table["sample"].isna().all() and (table["floor"] > 1e-3).all()
    assert table["floor"].iloc[0] > table["floor"].iloc[1]


def test_estimates_have_intervals_and_one_target(made):
    for target, words in (("panel", "log scale"), ("population", "draws")):
        out = dstudy(made, target=target)
        for key, e in out.estimates().items():
            assert e.target == target and e.low <= e.value <= e.high, key
        assert words in out.estimates()["dstudy.se.difference"].interval
    # By hand: the jackknife on the log of the projected error.
    e = dstudy(made).estimates()["dstudy.se.difference"]
    names = list(made.terms)
    left = pd.DataFrame(made.basis.left, columns=names)
    psi = 0.5 * np.log(2 * (left["model:prompt"] / 24 + left["residual"] / 72))
    g = len(psi)
    assert e.pivot.se == pytest.approx(np.sqrt((g - 1) / g * np.sum((psi - psi.mean()) ** 2)))
    table = dstudy(made, {"prompt": [24, 48]}).tidy()
    assert list(table.columns)[-4:] == ["quantity", "estimate", "conf.low", "conf.high"] and len(table) == 10
    axes = dstudy(made, {"prompt": [24, 48], "sample": [1, 2]}).plot().axes[0]
    assert len(axes.lines) == 2 and axes.get_xlabel() == "planned number of prompts"
    assert "D-study of model" in str(dstudy(made)) and "<pre>" in dstudy(made)._repr_html_()


def test_temperatures_are_levels_and_samples_run_within_them(panel):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        made = dynstat.decompose(SPLIT_FORMULA, panel(8, samples=4), rng=1, population="none", replicates=100)
    assert dstudy(made).plans.iloc[0]["sample"] == 2
    v = made.components
    got = dstudy(made, {"prompt": [30], "temperature": [3], "sample": [4]}).values.iloc[0]
    delta = v["model:prompt"] / 30 + v["model:prompt:temperature"] / 90 + v["residual"] / 360
    assert got["se.difference"] == pytest.approx(np.sqrt(2 * delta))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"numbers": {"promt": [3]}}, "no column 'promt'"),
        ({"numbers": {"prompt": [0]}}, "at least 1"),
        ({"measured": "prompt"}, "no term of prompt alone"),
        ({"target": "sample"}, "target"),
    ],
)
def test_bad_arguments(made, change, word):
    with pytest.raises(DynstatError, match=word) as caught:
        dstudy(made, **change)
    assert caught.value.code == "S404"
    with pytest.raises(DynstatError, match="above zero"):
        plan_for(made, se=0)
    with pytest.raises(DynstatError, match="asked for"):
        plan_for(made, se=1, vary="prompt", numbers={"prompt": [3]})
