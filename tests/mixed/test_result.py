"""The result object: R's words, broom's columns, lme4's summary."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.broom import AUGMENT_COLUMNS, EFFECTS, GLANCE_COLUMNS, TIDY_COLUMNS

BROOM = json.loads((Path(__file__).parent.parent / "oracles" / "lmm_result.json").read_text())["broom"]


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
        "Correlation of Fixed Effects: (Intr) Days -0.138",
    ):
        assert part in words, part


def test_correlations_of_fixed_effects_are_those_lme4_prints(r_data):
    # R: summary(lmer(angle ~ recipe + temperature + (1 | recipe:replicate), cake)), unordered temperature
    cake = r_data("cake").astype({"temperature": str})
    text = str(dynstat.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake))
    table = text.split("Correlation of Fixed Effects:\n")[1].splitlines()
    assert table[0].split() == ["(Intr)", "recipeB", "recipeC", "tem…185", "tem…195", "tem…205", "tem…215"]
    assert table[1].split() == ["recipeB", "-0.666"]
    assert table[7].split() == [
        "temperature225",
        "-0.259",
        "0.000",
        "0.000",
        "0.500",
        "0.500",
        "0.500",
        "0.500",
    ]


def test_html_escapes_names_and_shows_both_tables(sleep, panel):
    page = sleep._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 2
    for part in ("Fixed effects", "Random effects", "251.41", "36.838", "24.740", "0.07", "Subject: 18"):
        assert part in page, part
    data = panel(1, 4, 2, 3, 2).rename(columns={"x": "a<b"})
    assert "a&lt;b" in dynstat.lmer("y ~ `a<b` + (1|prompt)", data)._repr_html_()


def test_ml_summary_shows_information_criteria(r_data):
    m = dynstat.lmer("Reaction ~ Days + (1 | Subject)", r_data("sleepstudy"), REML=False)
    assert "AIC BIC logLik deviance df.resid 1802.1 1814.9 -897.0 1794.1 176" in " ".join(str(m).split())


def test_vocabulary_is_that_of_broom_mixed():
    assert list(TIDY_COLUMNS) == BROOM["tidy"]
    reml, ml = BROOM["glance"]["names"], BROOM["glance_ml"]["names"]
    assert [c for c in GLANCE_COLUMNS if c != "deviance"] == reml
    assert [c for c in GLANCE_COLUMNS if c != "REMLcrit"] == ml
    assert list(AUGMENT_COLUMNS) == [c for c in BROOM["augment"]["names"] if c.startswith(".")]


@pytest.mark.parametrize("effects", [*EFFECTS, EFFECTS, ("fixed", "ran_vals")])
@pytest.mark.parametrize("conf_int", [False, True])
def test_tidy_speaks_no_other_columns(sleep, effects, conf_int):
    columns = list(sleep.tidy(effects, conf_int=conf_int).columns)
    assert columns == [c for c in TIDY_COLUMNS if c in columns]
    assert ("conf.low" in columns) == conf_int


def test_tidy_agrees_with_broom_mixed(sleep):
    for kind in ("fixed", "ran_pars", "ran_vals"):
        theirs = pd.DataFrame(BROOM[kind]["rows"])
        ours = sleep.tidy(kind, conf_int=True)
        keys = [c for c in ("effect", "group", "level", "term") if c in theirs]
        both = theirs.merge(ours, on=keys, suffixes=("_r", ""))
        assert len(both) == len(theirs)
        for column in [c for c in theirs if c not in keys]:
            # broom.mixed tidied a fit by lme4's default optimiser.
            np.testing.assert_allclose(
                both[column], both[f"{column}_r"], rtol=2e-4, atol=1e-3, err_msg=column
            )
    assert sleep.tidy(EFFECTS)["effect"].value_counts().to_dict() == {
        "fixed": 2,
        "ran_pars": 4,
        "ran_vals": 36,
    }
    with pytest.raises(DynstatError, match="unknown kind of effect"):
        sleep.tidy("random")
    with pytest.raises(DynstatError, match="unknown kind of interval"):
        sleep.tidy(conf_int=True, conf_method="guess")


def test_tidy_with_degrees_of_freedom_and_profile_limits(sleep):
    # R: lmerTest, summary(m, ddf = "Kenward-Roger") and confint(m)
    table = sleep.tidy("fixed", ddf="Kenward-Roger", conf_int=True)
    np.testing.assert_allclose(table["df"], 17, rtol=1e-6)
    np.testing.assert_allclose(table["p.value"], [1.170e-17, 3.264e-6], rtol=2e-3)
    assert list(table.columns) == list(TIDY_COLUMNS)
    both = sleep.tidy(conf_int=True, conf_method="profile").set_index("term")
    np.testing.assert_allclose(
        both.loc["sd__Days", ["conf.low", "conf.high"]].astype(float), [3.801, 8.753], atol=2e-3
    )
    np.testing.assert_allclose(
        both.loc["Days", ["conf.low", "conf.high"]].astype(float), [7.359, 13.576], atol=2e-3
    )
    wald = sleep.tidy("ran_pars", conf_int=True)
    assert wald["conf.low"].isna().all()


def test_glance_and_augment_agree_with_broom_mixed(sleep, r_data):
    for m, key in ((sleep, "glance"), (sleep.update(REML=False), "glance_ml")):
        theirs = BROOM[key]["rows"][0]
        assert list(m.glance().columns) == BROOM[key]["names"]
        np.testing.assert_allclose(m.glance().iloc[0].astype(float), [*theirs.values()], rtol=1e-5)
    table, theirs = sleep.augment(), pd.DataFrame(BROOM["augment"]["rows"])
    assert list(table.columns) == BROOM["augment"]["names"]
    for column in AUGMENT_COLUMNS:
        np.testing.assert_allclose(table[column].head(4), theirs[column], rtol=2e-4, err_msg=column)
    assert list(table["Subject"]) == list(r_data("sleepstudy")["Subject"])


def test_augment_names_the_variables_behind_transformed_columns(panel):
    data = panel(0).assign(unused=1)
    m = dynstat.lmer("I(y**2) ~ exp(x) + (1|model) + (1|category/prompt)", data)
    expected = ["I(y**2)", "y", "x", "model", "category", "prompt"]
    assert list(m.augment().columns[:6]) == expected
    np.testing.assert_allclose(m.augment()["I(y**2)"], data["y"] ** 2)


def test_xarray_holds_the_fit(sleep, tmp_path):
    ds = sleep.to_xarray()
    assert float(ds["fixef"].sel(term="Days")) == sleep.fixef["Days"]
    modes = sleep.ranef().set_index(["term", "grp"])["condval"]
    assert float(ds["ranef_Subject"].sel(Subject="309", column_Subject="Days")) == modes["Days", "309"]
    assert ds["ranef_Subject"].shape == ds["condsd_Subject"].shape == (18, 2)
    assert ds.attrs["criterion"] == sleep.criterion
    path = tmp_path / "fit.nc"
    ds.to_netcdf(path)
    with xr.open_dataset(path) as again:
        xr.testing.assert_equal(again.load(), ds)


def test_xarray_of_nested_factors(panel):
    m = dynstat.lmer("y ~ 1 + (1|category/prompt) + (x||model)", panel(2))
    ds = m.to_xarray()
    assert ds["ranef_prompt_category"].attrs["group"] == "prompt:category"
    # lme4 takes terms of equally many levels from the last to the first.
    assert list(ds["column_model"].values) == ["x", "(Intercept)"]
    assert not ds["ranef_model"].isnull().any()


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
