"""Building: coordinates, attributes and fills come from descriptions and the registry."""

import json

import numpy as np
import pytest

from dynstat.dataset.build import build, relative_depth
from dynstat.dataset.schema import (
    ALWAYS,
    CONVENTIONS,
    COORDINATES,
    DIMS,
    NO_SUCH_LAYER,
    PADDING,
    PHASE,
    QUALITY,
    ROOT_ATTRS,
    SCHEMA,
    VARIABLE_ATTRS,
)
from dynstat.errors import DynstatError
from dynstat.registry import METRICS


def test_every_variable_carries_its_meaning(panel):
    for name, v in panel.data_vars.items():
        numeric = v.dtype != object
        for key in VARIABLE_ATTRS:
            assert key in v.attrs or (not numeric and key in ("units", "valid_min", "valid_max")), (name, key)
        if numeric:
            assert v.attrs["valid_min"].dtype == v.dtype == v.attrs["valid_max"].dtype
        assert v.attrs["origin"] in ("published", "dynstat")
        assert v.attrs["definition"].count("@") == 1
    for name in ("entropy", "turning_angle"):
        metric = METRICS.get(name)
        attrs, named = panel[name].attrs, (metric.id, metric.units, metric.long_name)
        assert (attrs["definition"], attrs["units"], attrs["long_name"]) == named
        assert attrs["valid_min"] == np.float32(metric.valid_min)
    assert panel["quality"].attrs["flag_meanings"].split() == list(QUALITY)
    assert panel["quality"].attrs["flag_values"].tolist() == list(range(6))
    assert panel["quality"].attrs["flag_values"].dtype == np.int8
    assert panel["phase"].attrs["flag_meanings"].split() == list(PHASE)


def test_root_attributes(panel):
    assert set(ROOT_ATTRS) <= set(panel.attrs)
    assert panel.attrs["Conventions"] == CONVENTIONS and CONVENTIONS.split()[-1] == SCHEMA
    assert panel.attrs["date_created"] == "2026-01-01T00:00:00Z"


def test_dims_and_coordinates(panel):
    assert panel["entropy"].dims == DIMS == ("model", "prompt", "sample", "token", "layer")
    for name, spec in COORDINATES.items():
        if spec.required:
            assert panel[name].dims == spec.dims, name
    assert panel["answers"].values[0] == "Paris | the city of light" and panel["distractors"].values[0] == ""
    assert panel["norm"].values.tolist() == ["rms", "layer"] and panel["norm"].attrs["role"] == "factor"
    assert panel["tied"].values.tolist() == ["false", "true"]
    assert panel["corpus_seed"].values.tolist() == [0, 1] and panel["corpus_seed"].dtype == np.int64


def test_relative_depth():
    got = relative_depth(np.array([4, 3, 1]), np.arange(4))
    np.testing.assert_allclose(got, [[0, 1 / 3, 2 / 3, 1], [0, 0.5, 1, -1], [0, -1, -1, -1]])


def test_fills_at_gaps(panel):
    quality = panel["quality"].values
    for code in (PADDING, NO_SUCH_LAYER):
        gap = quality == code
        assert gap.any()
        assert np.isnan(panel["entropy"].values[gap]).all() and (panel["top1_id"].values[gap] == -1).all()
    pad = quality[..., 0] == PADDING
    assert (panel["token_id"].values[pad] == -1).all() and np.isnan(
        panel["log_probability"].values[pad]
    ).all()


def arguments(**more):
    shape = (1, 1, 1, 2, 1)
    values = {"quality": np.zeros(shape, np.int8)} | more.pop("values", {})
    return {
        "models": [{"id": "m", "n_layers": 1}],
        "prompts": [{"id": "p", "text": "t"}],
        "samples": [{"id": "s"}],
        "n_tokens": 2,
        "n_layers": 1,
        "values": values,
        "attrs": {"dynstat_kind": "measurements"},
    } | more


def fails(code, **more):
    with pytest.raises(DynstatError) as e:
        build(**arguments(**more))
    assert e.value.code == code, e.value
    return str(e.value)


def test_errors():
    assert "token_id" in fails("D103", attrs={})
    assert "(1, 1, 1, 3, 1)" in fails("D104", values={"entropy": np.zeros((1, 1, 1, 3, 1))})
    assert "entropy" in fails("Y003", values={"entropi": np.zeros((1, 1, 1, 2, 1))})
    assert "integers" in fails("D104", values={"token_id": np.zeros((1, 1, 1, 2))})
    assert "factors" in fails("Y002", models=[{"id": "m", "n_layers": 1, "norm": "rms"}])
    assert "temprature" in fails("Y002", samples=[{"id": "s", "temprature": 1}])
    fails("Y002", models=[{"id": "m", "n_layers": 1, "factors": {"quality": "x"}}])
    fails("D106", prompts=[{"id": "p", "text": "a\x00b"}])
    fails("D106", prompts=[{"id": "p", "text": None}])
    fails("Y002", values={"mine": np.zeros((1, 1, 1, 2, 1))}, definitions={"mine": {"long_name": "x"}})
    fails("Y002", values={"mine": np.zeros((1, 1, 1, 2, 1))}, definitions={"mine": {"unit": "1"}})


def test_options_and_readouts_are_written():
    x = np.full((1, 1, 1, 2, 1), 0.5, np.float32)
    ds = build(
        **arguments(
            values={"concentration": x, "entropy__no_norm": x},
            options={"concentration": {"k": 5}},
            readouts={"entropy__no_norm": "no final norm"},
        )
    )
    assert json.loads(ds["concentration"].attrs["options"])["k"] == 5
    assert ds["entropy__no_norm"].attrs["readout"] == "no final norm"
    assert ds["entropy__no_norm"].attrs["definition"] == "entropy@1"
    assert "readout" not in ds["concentration"].attrs


def test_extra_columns_of_prompts_become_coordinates():
    ds = build(**arguments(prompts=[{"id": "p", "text": "t", "pair": "7"}]))
    assert ds["pair"].values.tolist() == ["7"] and ds["pair"].dims == ("prompt",)


def test_interventions_are_coordinates_of_the_sample():
    ds = build(**arguments(samples=[{"id": "s", "kind": "noise", "target_layer": 3, "dose": 0.5}]))
    assert ds["kind"].values.tolist() == ["noise"] and ds["target_layer"].dtype == np.int32
    assert "kind" not in build(**arguments()).coords


def test_dates_follow_the_reproducible_build_variable(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert build(**arguments()).attrs["date_created"] == "1970-01-01T00:00:00Z"


def test_every_always_variable_is_unique_and_typed():
    assert set(ALWAYS).isdisjoint(COORDINATES)
    for v in (*ALWAYS.values(), *COORDINATES.values()):
        assert v.dtype == "str" or np.array(v.fill, v.dtype).dtype == v.dtype
