"""Modes, predictions, leverage and singular fits against lme4; tests/oracles/make_lmm_result.R made them."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.influence import cooks_distance, leverage

ORACLES = Path(__file__).parent.parent / "oracles"
VALUES = json.loads((ORACLES / "lmm_result.json").read_text())
FITS, AHEAD, SINGULAR = VALUES["fits"], VALUES["ahead"], VALUES["singular"]


def _name(case):
    return f"{case['data']}: {case['formula']}" + (" ML" if case.get("REML") is False else "")


@pytest.fixture(scope="module")
def fitted(r_data):
    cache = {}

    def fit(case):
        key = _name(case)
        if key not in cache:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DynstatWarning)
                cache[key] = dynstat.lmer(case["formula"], r_data(case["data"]), REML=case.get("REML", True))
        return cache[key]

    return fit


@pytest.mark.parametrize("case", FITS, ids=_name)
def test_all_modes_with_their_conditional_deviations(case, fitted):
    m = fitted(case)
    ours, theirs = m.ranef(), pd.DataFrame(case["ranef"])
    assert list(zip(ours["grpvar"], ours["term"], ours["grp"], strict=True)) == list(
        zip(theirs["grpvar"], theirs["term"], theirs["grp"].astype(str), strict=True)
    )
    sd = {(r.grp.split(".")[0], r.var1): r.sdcor for r in m.varcorr.itertuples() if r.var2 is None}
    scale = np.array([sd[k] for k in zip(ours["grpvar"], ours["term"], strict=True)])
    # Next to zero the criterion is flat, and lme4's own optimum open in the fifth digit.
    scale = np.where(scale < 0.02 * m.sigma, 100 * 1e-3 * m.sigma, scale)
    for column in ("condval", "condsd"):
        assert np.max(np.abs(ours[column] - theirs[column]) / scale) < 1e-5
    # At lme4's own theta nothing is left to the optimiser.
    there = m.pls.solve(np.array(case["theta"], dtype=float))
    same = dataclasses.replace(m, solution=there).ranef()
    for column in ("condval", "condsd"):
        np.testing.assert_allclose(same[column], theirs[column], rtol=1e-6, atol=1e-7 * m.sigma)


@pytest.mark.parametrize("case", FITS, ids=_name)
def test_fitted_residuals_and_parts(case, fitted):
    m, rows = fitted(case), case["rows"]
    close = {"rtol": 1e-6, "atol": 1e-5 * m.sigma}
    np.testing.assert_allclose(m.fitted.iloc[rows], case["fitted"], **close)
    np.testing.assert_allclose(m.residuals.iloc[rows], case["residuals"], **close)
    np.testing.assert_allclose(m.scaled_residuals.iloc[rows], case["scaled"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(m.predict().iloc[rows], case["fitted"], **close)
    np.testing.assert_allclose(m.predict(re="none").iloc[rows], case["fixed"], **close)
    np.testing.assert_allclose(m.predict(re=case["one"]).iloc[rows], case["one_term"], **close)
    hat = leverage(m)
    np.testing.assert_allclose(hat[rows], case["hat"], atol=1e-5)
    np.testing.assert_allclose(cooks_distance(m, hat)[rows], case["cooksd"], rtol=1e-4, atol=1e-8)
    assert m.fitted.sum() == pytest.approx(case["sums"][0], rel=1e-8)
    assert (m.fitted**2).sum() == pytest.approx(case["sums"][1], rel=1e-6)
    assert hat.sum() == pytest.approx(case["sums"][2], rel=1e-4)


@pytest.mark.parametrize("case", VALUES["weighted"], ids=_name)
def test_weighted_fits(case, r_data):
    data = r_data(case["data"]).assign(w=case["weights"])
    m = dynstat.lmer(case["formula"], data, REML=case["REML"], weights="w")
    assert m.criterion == pytest.approx(case["criterion"], abs=1e-8)
    assert m.loglik == pytest.approx(case["loglik"], abs=1e-8)
    np.testing.assert_allclose(m.fixef, case["fixef"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(m.vcov)), case["se"], rtol=1e-5)
    np.testing.assert_allclose(m.varcorr["sdcor"], case["sdcor"], rtol=1e-5)
    modes = m.ranef().merge(pd.DataFrame(case["ranef"]), on=["grpvar", "term", "grp"], suffixes=("", "_r"))
    assert len(modes) == len(case["ranef"]["grp"]) == len(m.ranef())
    for column in ("condval", "condsd"):
        np.testing.assert_allclose(modes[column], modes[f"{column}_r"], rtol=1e-4, atol=1e-5 * m.sigma)
    rows = case["rows"]
    for ours, key in (
        (m.fitted, "fitted"),
        (m.residuals, "residuals"),
        (m.scaled_residuals, "scaled"),
        (m.augment()[".hat"], "hat"),
        (m.augment()[".cooksd"], "cooksd"),
    ):
        scale = m.sigma if key in ("fitted", "residuals") else 1.0
        np.testing.assert_allclose(ours.iloc[rows], case[key], rtol=1e-5, atol=1e-5 * scale, err_msg=key)
    # An update keeps the weights, a simulation scatters by them, a refit counts with them.
    assert m.update().criterion == pytest.approx(m.criterion, abs=1e-9)
    y = m.simulate(400, rng=1, re="all")
    spread = y.std(axis=1, ddof=1).to_numpy() * np.sqrt(case["weights"]) / m.sigma
    assert spread.mean() == pytest.approx(1, abs=0.02) and spread.std() < 0.05
    again = m.refit(y["sim_1"])
    outcome = case["formula"].split(" ")[0]
    expected = dynstat.lmer(case["formula"], data.assign(**{outcome: y["sim_1"]}), case["REML"], "w")
    assert again.criterion == pytest.approx(expected.criterion, abs=1e-8)
    with pytest.raises(DynstatError, match="weights of these rows are not known"):
        m.update(data=data.head(100))


def _new(case):
    new = pd.DataFrame(case["newdata"])
    return new.assign(temperature=new["temperature"].astype(int)) if "temperature" in new else new


@pytest.mark.parametrize("case", AHEAD, ids=_name)
def test_predictions_for_new_rows(case, fitted):
    m, new = fitted(case), _new(case)
    close = {"rtol": 1e-6, "atol": 1e-5 * m.sigma}
    np.testing.assert_allclose(m.predict(new, allow_new_levels=True), case["all"], **close)
    np.testing.assert_allclose(m.predict(new, re="none"), case["none"], **close)
    for some in case["some"]:
        found = m.predict(new, re=some["re"], allow_new_levels=True)
        np.testing.assert_allclose(found, some["value"], **close)
    if case["refused"]:
        with pytest.raises(DynstatError, match="levels of .* did not see") as caught:
            m.predict(new)
        assert caught.value.code == "S404"
    else:
        np.testing.assert_allclose(m.predict(new), case["all"], **close)


@pytest.mark.parametrize("case", SINGULAR, ids=_name)
def test_singular_fits_of_several_terms(case, fitted):
    m = fitted(case)
    assert m.record.converged
    # From both sides, against the best of fourteen runs of lme4.
    assert abs(m.criterion - case["criterion"]) < 1e-9
    assert m.singular == case["singular"]
    assert list(m.theta.index) == list(case["theta"])
    np.testing.assert_allclose(m.fixef, list(case["fixef"].values()), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.sqrt(np.diag(m.vcov)), case["se"], rtol=1e-4)
    assert m.sigma == pytest.approx(case["sigma"], rel=1e-6)
    np.testing.assert_allclose(m.varcorr["vcov"], case["vcov"], atol=1e-5 * case["sigma"] ** 2)
    single = m.varcorr["var2"].isna().to_numpy()
    theirs = np.array(case["sdcor"], dtype=float)
    np.testing.assert_allclose(
        m.varcorr["sdcor"][single], theirs[single], atol=1e-3 * case["sigma"], rtol=5e-4
    )
    np.testing.assert_allclose(m.fitted.iloc[:20], case["fitted"], atol=2e-3 * m.sigma)
    if case["singular"]:
        assert m.singular and m.boundary_terms and "singular fit" in m.warnings[0]


def test_every_case_of_the_file_is_here():
    assert (len(FITS), len(AHEAD), len(SINGULAR)) == (32, 10, 27)
    assert sum(c["singular"] for c in SINGULAR) >= 20
