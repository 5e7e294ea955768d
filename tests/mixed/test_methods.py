"""The methods of a plan: what they register, and the way from a dataset to estimates."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import xarray as xr

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.methods import SHARES_FORMULA
from dynstat.metrics.labelled import run_metric
from dynstat.mixed import category_variances
from dynstat.mixed.methods import run_frame, variance_residual_split, variance_shares
from dynstat.registry import METHODS

OUTCOME = {"metric": "ratio_norm@1", "layer": "last", "scale": "log"}
M, C, P, S, T, L = 5, 2, 4, 4, 12, 3


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """A panel in memory whose ct differs between models and prompts."""
    rng = np.random.default_rng(4)
    shape = (M, C * P, S, T, L)
    height = np.exp(
        rng.normal(0, 0.6, (M, 1, 1))
        + rng.normal(0, 0.4, (1, C * P, 1))
        + rng.normal(0, 0.3, (M, C * P, 1))
        + rng.normal(0, 0.4, (M, C * P, S))
    )
    step = np.full(shape, 0.2) + rng.uniform(0, 0.02, shape)
    step[:, :, :, 7, :] *= 1 + np.minimum(height, 8)[..., None]
    token = np.broadcast_to(np.arange(T), shape[:4])
    values = {
        "step_length": (xr.Dataset, step.clip(0, 2)),
        "turning_angle": (None, np.full(shape, 1.0)),
        "quality": (None, np.zeros(shape, np.int8)),
    }
    dims = ("model", "prompt", "sample", "token", "layer")
    out = xr.Dataset(
        {k: (dims, v.astype("float32") if v.dtype.kind == "f" else v) for k, (_, v) in values.items()}
    )
    for name, array in (("phase", token >= 2), ("is_special", token < 0), ("is_first", token == 0)):
        out[name] = (dims[:4], array.astype(np.int8))
    return out.assign_coords(
        model=[f"m{i}" for i in range(M)],
        prompt=[f"p{i}" for i in range(C * P)],
        sample=[f"s{i}" for i in range(S)],
        token=np.arange(T),
        layer=np.arange(L),
        category=("prompt", [f"c{i % C}" for i in range(C * P)]),
        layers=("model", np.full(M, L)),
        temperature=("sample", [0.7, 0.7, 1.0, 1.0]),
        seed=("sample", [1, 2, 1, 2]),
        relative_depth=(("model", "layer"), np.broadcast_to(np.arange(L) / (L - 1), (M, L))),
    )


def _run(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return function(*args, **kwargs)


def test_a_row_a_run(ds):
    frame = run_frame(ds, run_metric(ds, OUTCOME))
    assert len(frame) == M * C * P * S
    row = frame[(frame["model"] == "m2") & (frame["prompt"] == "p5") & (frame["sample"] == "s3")].iloc[0]
    assert (row["category"], row["temperature"], row["seed"]) == ("c1", "1", 2)
    assert row["y"] == pytest.approx(float(run_metric(ds, OUTCOME).sel(model="m2", prompt="p5", sample="s3")))


def test_shares_of_a_dataset_are_those_of_its_frame(ds):
    method = METHODS.get("variance.shares@1")
    assert method.resolve() is variance_shares
    out = _run(variance_shares, ds, outcome=OUTCOME, seed=7, **method.fill({"population_replicates": 200}))
    assert set(out) == set(method.quantities)
    frame = run_frame(ds, run_metric(ds, OUTCOME))
    direct = _run(dynstat.decompose, SHARES_FORMULA, frame, rng=7, replicates=200).estimates()
    # A version's quantities are fixed: what a decomposition gained since is not among them.
    assert out == {k: v for k, v in direct.items() if k in method.quantities}
    assert out["share.model"].method == "variance.shares@1" and out["share.model"].seed == 7


def test_the_first_version_keeps_its_bootstrap_in_unbalanced_data(ds, monkeypatch):
    frame = run_frame(ds, run_metric(ds, OUTCOME)).drop(index=0)
    monkeypatch.setattr("dynstat.mixed.methods._frame", lambda *_: frame)
    method = METHODS.get("variance.shares@1")
    given = method.fill({"population_refits": 100})
    out = _run(variance_shares, ds, outcome=OUTCOME, seed=7, **given)
    assert "bootstrap" in out["population.share.model"].interval
    direct = _run(dynstat.decompose, SHARES_FORMULA, frame, rng=7, refits=100, population="bootstrap")
    assert out["population.share.model"] == direct.estimates()["population.share.model"]


def test_residual_split(ds):
    method = METHODS.get("variance.residual_split@1")
    out = _run(variance_residual_split, ds, outcome=OUTCOME, seed=7, **method.fill({"population": "none"}))
    assert set(out) == {q for q in method.quantities if not q.startswith("population")}
    one = ds.isel(sample=[0, 1])
    with pytest.raises(DynstatError, match=r"the factor of \(1\|temperature\) has one level"):
        _run(variance_residual_split, one, outcome=OUTCOME, seed=7)


def test_one_sample_a_cell_is_said_in_clear_words(ds):
    with pytest.raises(DynstatError, match=r"\(1\|model:prompt\) is confounded with the residual"):
        variance_shares(ds.isel(sample=[0]), outcome=OUTCOME, seed=1)


def test_needs_an_outcome(ds):
    with pytest.raises(DynstatError) as caught:
        variance_shares(ds, outcome=None, seed=1)
    assert caught.value.code == "Y002"


def test_unknown_options_and_values_are_refused():
    method = METHODS.get("variance.shares")
    with pytest.raises(DynstatError):
        method.fill({"replicate": 3})
    with pytest.raises(DynstatError):
        method.fill({"population": "percentile"})


def test_registering_needs_no_numpy():
    code = "import sys, dynstat.inference.methods; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_category_contrast_of_a_dataset_is_that_of_its_frame(ds):
    method = METHODS.get("variance.category_contrast@1")
    given = method.fill({"contrast": "c1", "permutations": 99})
    out = _run(method.resolve(), ds, outcome=OUTCOME, seed=3, **given)
    frame = run_frame(ds, run_metric(ds, OUTCOME))
    direct = _run(category_variances, frame, "c1", permutations=99, rng=3).estimates()
    assert out == direct and set(out) == {"log_ratio", "variance.c0", "variance.c1"}
    assert out["log_ratio"].null["replicates"] == 99
