"""ICC, R² and part R² against R's performance (tests/oracles/make_explained.R), and their intervals."""

from __future__ import annotations

import doctest
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.methods import SHARES_FORMULA
from dynstat.mixed import icc, part_r2, r2, share_summaries

VALUES = json.loads((Path(__file__).parent.parent / "oracles" / "explained.json").read_text())
CASES = VALUES["cases"]


def _name(case):
    return f"{case['data']}: {case['formula']} {'REML' if case['REML'] else 'ML'}"


def _quiet(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return function(*args, **kwargs)


def _values(estimates):
    return {k.removeprefix("population."): e.value for k, e in estimates.items()}


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_icc_and_r2_equal_those_of_performance(case, r_data):
    m = _quiet(dynstat.lmer, case["formula"], r_data(case["data"]), REML=case["REML"])
    ours = _values(icc(m, refits=0)) | _values(r2(m, refits=0))
    if "||" in case["formula"] and case["icc"]:
        # performance 0.10.2 forgets the slope of a double bar: its numbers are those of the intercept alone.
        v = m.varcorr.set_index(["grp", "var1"])["vcov"]
        intercept, rest = v.iloc[0], float(m.sigma**2)
        assert case["icc"]["adjusted"] == pytest.approx(intercept / (intercept + rest), abs=1e-4)
        slope = v.iloc[1] * float((r_data(case["data"])["Days"] ** 2).mean())
        assert ours["icc.adjusted"] == pytest.approx((intercept + slope) / (intercept + slope + rest))
        return
    if not case["icc"]:  # singular, or more than performance can read
        assert 0 <= ours["icc.adjusted"] < 1 and ours["r2.marginal"] <= ours["r2.conditional"] < 1
        return
    for key in ("icc", "r2"):
        for name, value in case[key].items():
            assert ours[f"{key}.{name}"] == pytest.approx(value, abs=1e-6), name
    for group, value in (case["by"] or {}).items():
        label = group if group != "cask:batch" else "batch:cask"
        label = "category:prompt" if group == "prompt:category" else label
        assert ours[f"icc.{label}"] == pytest.approx(value, abs=1e-4)


def test_the_oracles_hold_what_the_issue_asks_for():
    assert len(CASES) == 34 and sum(bool(c["icc"]) for c in CASES) == 30
    assert sum(bool(c["by"]) for c in CASES) >= 20


@pytest.mark.parametrize("case", VALUES["part"], ids=_name)
def test_part_r2_equals_the_difference_of_two_fits_in_r(case, r_data):
    d = r_data(case["data"])
    m = _quiet(dynstat.lmer, case["formula"], d, REML=case["REML"])
    sets = {name: ["size", "category"] if name == "both" else [name] for name in case["parts"]}
    for kind in ("marginal", "conditional"):
        ours = _quiet(part_r2, m, d, sets, conditional=kind == "conditional", refits=0)
        for name, value in case["parts"].items():
            assert ours[f"population.part_r2.{name}"].value == pytest.approx(value[kind], abs=1e-5)


def test_part_r2_refuses_what_the_fixed_part_does_not_hold(r_data):
    d = r_data("audit")
    m = _quiet(dynstat.lmer, "y ~ size + (1 | model) + (1 | prompt)", d)
    with pytest.raises(DynstatError, match="no term 'category'") as caught:
        part_r2(m, d, ["category"], refits=0)
    assert caught.value.code == "S404" and caught.value.expected == "size"
    with pytest.raises(DynstatError, match="rows of the fit"):
        icc(m, unit="prompt")
    with pytest.raises(DynstatError, match="refits"):
        icc(m, refits=7)


def test_the_jackknife_is_that_of_plain_refits(r_data):
    d = r_data("audit").query("model < 'm07'").reset_index(drop=True)
    text = "y ~ category + (1 | model) + (1 | prompt)"
    m = _quiet(dynstat.lmer, text, d)
    out = _quiet(r2, m, d, unit="prompt", strata="category", refits=0)
    prompts = d.groupby("category")["prompt"].unique()

    def slow(frame):
        fit = _quiet(dynstat.lmer, text, frame)
        fixed = float(np.var(fit.design.x @ fit.fixef.to_numpy(), ddof=1))
        v = fit.varcorr["vcov"].to_numpy()
        return (fixed + v[:-1].sum()) / (fixed + v.sum())

    left = [slow(d[~d["prompt"].isin([p[g] for p in prompts])]) for g in range(12)]
    psi = special.logit(left)
    se = np.sqrt(11 / 12 * np.sum((psi - psi.mean()) ** 2))
    e = out["r2.conditional"]
    t, centre = stats.t.ppf(0.975, 11), special.logit(slow(d))
    assert (e.low, e.high) == pytest.approx(
        (special.expit(centre - t * se), special.expit(centre + t * se)), rel=2e-4
    )
    assert (e.target, e.unit, e.n["groups"]) == ("panel", "prompt", 12)


def test_the_bootstrap_of_icc_covers_the_exact_interval_of_one_factor(r_data):
    # One-way balanced: the bootstrap's limits lie near the exact F limits, pulled in as it is known to be.
    m = _quiet(dynstat.lmer, "Yield ~ 1 + (1|Batch)", r_data("Dyestuff"))
    e = _quiet(icc, m, refits=300, rng=2)["population.icc.adjusted"]
    f = 11271.5 / 2451.25
    exact = [(f / q - 1) / (f / q + 4) for q in stats.f.ppf([0.975, 0.025], 5, 24)]
    assert e.low == pytest.approx(exact[0], abs=0.1) and 0.6 < e.high < exact[1]
    again = _quiet(icc, m, refits=300, rng=2)["population.icc.adjusted"]
    assert (e.low, e.high, e.seed) == (again.low, again.high, 2)


def test_a_decomposition_carries_the_same_numbers(panel):
    d = panel(3)
    made = _quiet(dynstat.decompose, SHARES_FORMULA, d, rng=1, replicates=200)
    out = made.estimates()
    assert out["icc.adjusted"].value == pytest.approx(1 - made.shares["residual"])
    # Falling and rising together, the interval is the residual's turned round.
    residual = out["share.residual"]
    assert (out["icc.adjusted"].low, out["icc.adjusted"].high) == pytest.approx(
        (1 - residual.high, 1 - residual.low), abs=1e-9
    )
    wide = out["population.share.residual"]
    assert out["population.icc.adjusted"].low == pytest.approx(1 - wide.high, abs=1e-9)
    assert np.isnan(out["r2.marginal"].low) and out["r2.marginal"].value == 0
    direct = _quiet(icc, made.fit, d, unit="prompt", strata="category", refits=0)
    for name in ("adjusted", "unadjusted"):
        a, b = out[f"icc.{name}"], direct[f"icc.{name}"]
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-5)
    for term in ("model", "model:prompt"):
        a, b = out[f"share.{term}"], direct[f"icc.{term}"]
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-5)


def test_a_decomposition_with_a_fixed_part(panel):
    d = panel(4).assign(y=lambda f: f["y"] + 0.8 * f["x"])
    text = "y ~ x + (1|model) + (1|category/prompt)"
    made = _quiet(dynstat.decompose, text, d, rng=1, refits=100)
    out, direct = made.estimates(), _quiet(r2, made.fit, d, unit="prompt", strata="category", refits=0)
    for name in ("r2.marginal", "r2.conditional"):
        assert out[name].value == pytest.approx(direct[name].value, abs=1e-5)
        assert (out[name].low, out[name].high) == pytest.approx(
            (direct[name].low, direct[name].high), abs=1e-4
        )
        e = out[f"population.{name}"]
        assert e.target == "population" and e.low < e.value < e.high
    assert out["icc.unadjusted"].value < out["icc.adjusted"].value


def test_examples():
    assert doctest.testmod(share_summaries).failed == 0
