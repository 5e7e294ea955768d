"""The result object: R's words, broom's columns, lme4's summary."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import dynstat
from dynstat.errors import DynstatError, DynstatWarning


@pytest.fixture(scope="module")
def sleep(r_data):
    return dynstat.lmer("Reaction ~ Days + (Days | Subject)", r_data("sleepstudy"))


def test_prints_what_lme4_prints(sleep):
    # R: summary(lmer(Reaction ~ Days + (Days | Subject), sleepstudy))
    words = " ".join(str(sleep).split())
    for part in (
        "Linear mixed model fit by REML ['lmerMod']",
        "Formula: Reaction ~ Days + (Days | Subject)",
        "REML criterion at convergence: 1743.6",
        "Scaled residuals: Min 1Q Median 3Q Max",
        "Subject (Intercept) 612.09 24.740",
        "Days 35.07 5.922 0.07",
        "Residual 654.94 25.592",
        "Number of obs: 180, groups: Subject, 18",
        "(Intercept) 251.41 6.8246 36.838",
        "Days 10.467 1.5458 6.771",
    ):
        assert part in words, part
    assert "<pre>" in sleep._repr_html_()


def test_ml_summary_shows_information_criteria(r_data):
    m = dynstat.lmer("Reaction ~ Days + (1 | Subject)", r_data("sleepstudy"), REML=False)
    assert "AIC BIC logLik deviance df.resid 1802.1 1814.9 -897.0 1794.1 176" in " ".join(str(m).split())


def test_tidy_has_a_closed_vocabulary(sleep):
    columns = ["effect", "group", "level", "term", "estimate", "std.error", "statistic"]
    table = sleep.tidy(effects=("fixed", "ran_pars", "ran_vals"))
    assert list(table.columns) == columns
    assert table["effect"].value_counts().to_dict() == {"fixed": 2, "ran_pars": 4, "ran_vals": 36}
    assert list(sleep.tidy("ran_pars")["term"]) == [
        "sd__(Intercept)",
        "sd__Days",
        "cor__(Intercept).Days",
        "sd__Observation",
    ]
    fixed = sleep.tidy("fixed")
    np.testing.assert_allclose(fixed["statistic"], [36.838, 6.771], atol=1e-3)
    with pytest.raises(DynstatError, match="unknown kind"):
        sleep.tidy("random")


def test_glance_and_augment(sleep, r_data):
    row = sleep.glance().iloc[0]
    assert list(sleep.glance().columns) == [
        "nobs",
        "sigma",
        "logLik",
        "AIC",
        "BIC",
        "REMLcrit",
        "df.residual",
    ]
    assert (row["nobs"], row["df.residual"]) == (180, 174)
    table = sleep.augment()
    assert list(table.columns) == ["Reaction", "Subject", ".fitted", ".resid", ".fixed"]
    np.testing.assert_allclose(table[".fitted"] + table[".resid"], r_data("sleepstudy")["Reaction"])
    np.testing.assert_allclose(
        table[".fixed"], 251.405105 + 10.467286 * r_data("sleepstudy")["Days"], rtol=1e-6
    )


def test_ranef_without_conditional_deviations(sleep):
    assert list(sleep.ranef(condvar=False).columns) == ["grpvar", "term", "grp", "condval"]


def test_is_frozen(sleep):
    with pytest.raises(dataclasses.FrozenInstanceError):
        sleep.sigma = 1.0


def test_singular_fits_warn_and_say_so(r_data):
    with pytest.warns(DynstatWarning, match=r"singular fit: \(1\|Batch\)"):
        m = dynstat.lmer("Yield ~ 1 + (1 | Batch)", r_data("Dyestuff2"))
    assert m.singular and m.boundary_terms == ("(1|Batch)",) and float(m.theta.iloc[0]) == 0.0
    assert "singular fit: (1|Batch) at the boundary" in str(m)


def test_double_bar_with_a_factor_warns(panel):
    with pytest.warns(DynstatWarning, match="stay correlated"):
        dynstat.lmer("y ~ 1 + (temperature || prompt)", panel(0))
