"""lmer_many: labels, alignment, missing values and flags; every number against one lmer after another."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dynstat
from dynstat.errors import DynstatError, DynstatWarning

FORMULA = "y ~ warm + (1|model) + (1|prompt)"


@pytest.fixture(scope="module")
def outcomes() -> xr.DataArray:
    rng = np.random.default_rng(4)
    y = rng.normal(size=(3, 4, 5, 9, 2))
    y += rng.normal(size=(3, 4, 5, 1, 1)) * np.array([1, 0, 2])[:, None, None, None, None]
    y += rng.normal(size=(3, 4, 1, 9, 1)) * np.array([0, 0, 1])[:, None, None, None, None]
    y[0, 0] = 5.0
    y[1, 1] = np.nan
    y[1, 2, 0, :3, 0] = np.nan
    y[0, 3] = rng.normal(size=(5, 1, 1))
    return xr.DataArray(
        y,
        dims=("metric", "layer", "model", "prompt", "sample"),
        coords={
            "metric": ["entropy", "angle", "norm"],
            "layer": [0, 1, 2, 3],
            "depth": ("layer", [0, 0.33, 0.67, 1]),
            "model": list("abcde"),
            "prompt": [f"p{i}" for i in range(9)],
            "category": ("prompt", [f"c{i % 3}" for i in range(9)]),
            "sample": [0, 1],
            "warm": ("sample", [0.0, 1.0]),
        },
    )


def _design(outcomes: xr.DataArray) -> xr.Dataset:
    return outcomes.isel(metric=0, layer=0, drop=True).coords.to_dataset()


def test_every_number_is_that_of_lmer(outcomes):
    got = dynstat.lmer_many(FORMULA, _design(outcomes), outcomes)
    assert dict(got.sizes) == {"metric": 3, "layer": 4, "term": 2, "component": 3, "parameter": 2}
    assert got["component"].values.tolist() == ["prompt", "model", "residual"]
    assert got["depth"].dims == ("layer",)
    assert got["constant"].values.nonzero() == (np.array([0]), np.array([0]))
    assert got["exact"].values.nonzero() == (np.array([0]), np.array([3]))
    assert got["missing"].values.nonzero() == (np.array([1]), np.array([1]))
    assert got["fixef"].values[0, 0] == pytest.approx([5.0, 0.0])
    flagged = got["constant"] | got["exact"] | got["missing"]
    for name in ("sd", "share", "theta", "criterion"):
        assert got[name].where(flagged).isnull().all(), name
    assert not got["converged"].where(flagged, False).any()
    zeros = 0
    for m in range(3):
        for layer in range(4):
            one = got.isel(metric=m, layer=layer)
            if flagged.values[m, layer]:
                continue
            frame = outcomes.isel(metric=m, layer=layer).to_dataframe("y").reset_index()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DynstatWarning)
                fit = dynstat.lmer(FORMULA, frame)
            assert one["criterion"].item() == pytest.approx(fit.criterion, abs=1e-8)
            assert one["nobs"].item() == fit.nobs
            assert bool(one["converged"]) and bool(one["singular"]) == fit.singular
            np.testing.assert_allclose(one["theta"], fit.theta, atol=1e-5)
            np.testing.assert_allclose(one["sd"], fit.varcorr["sdcor"], atol=1e-5)
            np.testing.assert_allclose(one["fixef"], fit.fixef, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(one["fixef_se"], np.sqrt(np.diag(fit.vcov)), rtol=1e-5)
            variances = fit.varcorr["vcov"]
            np.testing.assert_allclose(one["share"], variances / variances.sum(), atol=1e-5)
            zeros += fit.singular
    assert zeros >= 3


def test_rows_by_frame_by_labels_and_by_position(outcomes):
    whole = dynstat.lmer_many(FORMULA, _design(outcomes), outcomes)
    frame = outcomes.isel(metric=0, layer=0, drop=True).to_dataframe("none").reset_index()
    shuffled = frame.sample(frac=1, random_state=0)
    by_columns = dynstat.lmer_many(FORMULA, shuffled, outcomes)
    by_index = dynstat.lmer_many(FORMULA, shuffled.set_index(["model", "prompt", "sample"]), outcomes)
    flat = outcomes.stack(row=("model", "prompt", "sample")).drop_vars(["row", "model", "prompt", "sample"])
    by_place = dynstat.lmer_many(FORMULA, frame, flat)
    by_name = dynstat.lmer_many(FORMULA, frame, flat, rows="row")
    lazy = dynstat.lmer_many(FORMULA, _design(outcomes), outcomes.chunk({"metric": 1}))
    for other in (by_columns, by_index, by_place, by_name, lazy):
        for name in ("criterion", "fixef", "constant", "missing", "nobs"):
            np.testing.assert_allclose(other[name], whole[name], atol=1e-8, err_msg=name)
    # Some of the rows only: those of one category.
    some = frame[frame["category"] == "c1"]
    part = dynstat.lmer_many(FORMULA, some, outcomes)
    direct = dynstat.lmer_many(
        FORMULA, _design(outcomes).isel(prompt=[1, 4, 7]), outcomes.isel(prompt=[1, 4, 7])
    )
    np.testing.assert_allclose(part["criterion"], direct["criterion"], atol=1e-8)


def test_slopes_and_datasets(outcomes):
    table = outcomes.isel(layer=[0, 2]).to_dataset("metric")
    got = dynstat.lmer_many("y ~ warm + (warm|model)", _design(outcomes), table)
    assert "share" not in got and set(got["fixef"].dims) == {"metric", "layer", "term"}
    assert got["component"].values.tolist() == ["model.(Intercept)", "model.warm", "residual"]
    frame = outcomes.sel(metric="norm", layer=2).to_dataframe("y").reset_index()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        fit = dynstat.lmer("y ~ warm + (warm|model)", frame)
    one = got.sel(metric="norm", layer=2)
    np.testing.assert_allclose(one["sd"], fit.varcorr["sdcor"].drop(2), rtol=1e-5, atol=1e-6)


def test_all_constant(outcomes):
    got = dynstat.lmer_many(FORMULA, _design(outcomes), xr.zeros_like(outcomes))
    assert got["constant"].all() and not got["converged"].any() and got["criterion"].isnull().all()
    assert (got["sigma"] == 0).all() and (got["fixef"] == 0).all()


def test_design_and_outcomes_that_do_not_fit(outcomes):
    frame = pd.DataFrame({"model": ["a", "z"], "prompt": ["p0", "p1"], "sample": [0, 1], "warm": [0.0, 1.0]})
    with pytest.raises(DynstatError, match="'z' along model"):
        dynstat.lmer_many(FORMULA, frame, outcomes)
    with pytest.raises(DynstatError, match="do not share rows"):
        dynstat.lmer_many("y ~ 1 + (1|g)", pd.DataFrame({"g": [1, 1, 2, 2, 3, 3, 3]}), outcomes)
    with pytest.raises(DynstatError, match="cannot be transformed"):
        dynstat.lmer_many("log(y) ~ 1 + (1|model)", _design(outcomes), outcomes)
    with pytest.raises(DynstatError, match="confounded"):
        dynstat.lmer_many("y ~ 1 + (1|model:prompt:sample)", _design(outcomes), outcomes)
