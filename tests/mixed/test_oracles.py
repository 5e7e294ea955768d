"""Agreement with lme4 on frozen fits; tests/oracles/make_lmm.R made the values."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.errors import DynstatWarning
from dynstat.mixed.crossproducts import cross_products
from dynstat.mixed.design import build_design
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.pls import PenalisedLeastSquares

VALUES = json.loads((Path(__file__).parent.parent / "oracles" / "lmm.json").read_text())
CASES = VALUES["cases"]


def _name(case):
    return f"{case['data']}: {case['formula']} {'REML' if case['REML'] else 'ML'}"


@pytest.fixture(scope="module")
def fitted(r_data):
    cache = {}

    def fit(case):
        key = _name(case)
        if key not in cache:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DynstatWarning)
                cache[key] = dynstat.lmer(case["formula"], r_data(case["data"]), REML=case["REML"])
        return cache[key]

    return fit


@pytest.mark.parametrize("case", VALUES["fixed_theta"], ids=_name)
def test_criterion_at_fixed_theta(case, r_data):
    design = build_design(parse_formula(case["formula"]), r_data(case["data"]))
    pls = PenalisedLeastSquares(cross_products(design), design.terms, case["REML"])
    assert pls.criterion(np.array(case["theta"], dtype=float)) == pytest.approx(case["criterion"], rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_optimum(case, fitted):
    m = fitted(case)
    assert m.record.converged
    # From above: never worse than lme4. From below: lme4's tight optimum is the optimum.
    assert -1e-6 < m.criterion - case["criterion"] < 1e-8
    assert m.singular == case["singular"]
    assert list(m.theta.index) == list(case["theta"])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_fixed_effects(case, fitted):
    m = fitted(case)
    expected = pd.Series(case["fixef"], dtype=float)
    assert list(m.fixef.index) == list(expected.index)
    np.testing.assert_allclose(m.fixef, expected, rtol=1e-6)
    se = np.sqrt(np.diag(np.array(case["vcov"]["values"])))
    np.testing.assert_allclose(np.sqrt(np.diag(m.vcov)), se, rtol=1e-4)
    np.testing.assert_allclose(m.vcov, case["vcov"]["values"], atol=2e-6 * float(np.max(se**2)), rtol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_random_effects(case, fitted):
    m = fitted(case)
    expected = pd.DataFrame(case["varcorr"])
    assert [v for v in m.varcorr["var1"] if v is not None] == list(expected["var1"].dropna())
    np.testing.assert_allclose(
        m.varcorr["sdcor"], expected["sdcor"], rtol=5e-4, atol=1e-3 * case["sigma"] * 1e-2
    )
    assert m.sigma == pytest.approx(case["sigma"], rel=5e-4)
    modes = pd.DataFrame(case["ranef"]).astype({"grp": str})
    ours = m.ranef().merge(modes, on=["grpvar", "term", "grp"], suffixes=("", "_r"))
    assert len(ours) == len(modes)
    scale = max(float(expected["sdcor"].iloc[0]), 1e-3 * case["sigma"])
    np.testing.assert_allclose(ours["condval"], ours["condval_r"], atol=1e-5 * scale)
    np.testing.assert_allclose(ours["condsd"], ours["condsd_r"], atol=1e-5 * scale)
    np.testing.assert_allclose(m.fitted.to_numpy()[:10], case["fitted"], atol=1e-5 * case["sigma"], rtol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_information_criteria(case, fitted):
    m = fitted(case)
    assert m.npar == case["df"]
    assert (m.loglik, m.aic, m.bic) == pytest.approx((case["loglik"], case["AIC"], case["BIC"]), abs=1e-7)


def test_every_case_of_the_file_is_here():
    assert len(CASES) == 32
    assert len(VALUES["fixed_theta"]) == 7
