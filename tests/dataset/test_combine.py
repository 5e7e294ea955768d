"""Combining: shards in any order make the whole; contradictions are named."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.dataset.combine import combine
from dynstat.dataset.content import content_hash
from dynstat.dataset.schema import NO_SUCH_LAYER, NOT_EXTRACTED, OK, PADDING
from dynstat.dataset.verify import verify
from dynstat.errors import DynstatError


def fails(*parts):
    with pytest.raises(DynstatError) as e:
        combine(parts)
    assert e.value.code == "D105"
    return e.value


@pytest.fixture(scope="module")
def whole_and_shards(make):
    cells = [(m, p, s) for m in (0, 1, 2) for p, s in ((0, (0, 1)), (1, (0,)), (1, (1,)), (2, (0, 1)))]
    shards = [make(models=(m,), prompts=(p,), samples=s, layers=(4, 3, 2)) for m, p, s in cells]
    return make(models=(0, 1, 2), layers=(4, 3, 2)), shards


@settings(max_examples=6)
@given(order=st.permutations(range(12)))
def test_shards_in_any_order_make_the_whole(whole_and_shards, order):
    whole, shards = whole_and_shards
    joined = combine([shards[i] for i in order])
    xr.testing.assert_identical(joined.drop_attrs(), whole.drop_attrs())
    assert content_hash(joined) == content_hash(whole)
    assert verify(joined) == []
    # Provenance of all shards, in an order that does not depend on reading.
    assert joined.attrs == combine(shards).attrs
    assert len(json.loads(joined.attrs["provenance"])) == 9


def test_against_an_outer_join_of_xarray(make):
    # A slow, independent outer join: xarray's own merge with NaN fills, on shards of unequal sizes.
    a = make(models=(0,), prompts=(0, 1), n_tokens=7)
    b = make(models=(1,), prompts=(1, 2), layers=(4, 3), n_tokens=6, seed=1)
    mine = combine([a, b])
    slow = xr.merge([a[["entropy"]], b[["entropy"]]], join="outer", compat="no_conflicts")
    slow = slow["entropy"].sel(prompt=mine["prompt"].values, model=mine["model"].values)
    np.testing.assert_array_equal(mine["entropy"].values, slow.values)
    assert verify(mine) == []


def test_what_the_gaps_are_called(make):
    a = make(models=(0,), prompts=(0,), layers=(4, 3), n_tokens=7, gaps=False)
    b = make(models=(1,), prompts=(1,), layers=(4, 3), n_tokens=6, gaps=False)
    q = combine([a, b])["quality"]
    assert (q.sel(model="model-0", prompt="p01") == NOT_EXTRACTED).all()
    short = q.sel(model="model-1", prompt="p01")
    assert (short.isel(layer=3) == NO_SUCH_LAYER).all()
    assert (short.isel(token=6, layer=slice(3)) == PADDING).all()
    assert (short.isel(token=slice(6), layer=slice(3)) == OK).all()
    gone = q.sel(model="model-1", prompt="p00")
    assert (gone.isel(layer=slice(3)) == NOT_EXTRACTED).all() and (gone.isel(layer=3) == NO_SUCH_LAYER).all()


def test_a_part_without_some_layers(make):
    a = make(models=(0,), gaps=True)
    upper = make(models=(1,), layers=(4, 3)).isel(layer=[2])
    joined = combine([a, upper])
    q = joined["quality"].sel(model="model-1").values
    tokens = upper["quality"].values[0, ..., 0]
    assert ((q[..., 2] == OK) == (tokens == OK)).all()
    assert ((q[..., 0] == NOT_EXTRACTED) == (tokens == OK)).all()
    assert ((q[..., 0] == PADDING) == (tokens == PADDING)).all()
    # The lower layers come later and fill the gap.
    lower = make(models=(1,), layers=(4, 3)).isel(layer=[0, 1])
    full = combine([a, upper, lower])
    xr.testing.assert_identical(full.drop_attrs(), make().drop_attrs())


def test_order_is_the_panels(make):
    shards = [make(models=(m,), order=[2, 0, 1]) for m in (0, 1, 2)]
    assert combine(shards)["model"].values.tolist() == ["model-2", "model-0", "model-1"]
    for s in shards:
        del s.attrs["inputs"]
    assert combine(shards[::-1])["model"].values.tolist() == ["model-2", "model-1", "model-0"]


def test_equal_overlap_is_fine_and_idempotent(make, panel):
    again = combine([panel, make(prompts=(1, 2)), panel])
    xr.testing.assert_identical(again.drop_attrs(), panel.drop_attrs())


@pytest.mark.parametrize("name", ["entropy", "token_id", "text", "top1_id", "log_probability"])
def test_unequal_overlap_names_variable_and_label(make, panel, name):
    other = make(prompts=(1, 2))
    values = other[name].values
    values[1, 1, 0] = "changed" if name == "text" else values[1, 1, 0] + 1
    e = fails(panel, other)
    assert name in e.where and "model-1" in e.where and "p02" in e.where and "s0" in e.where


def test_nan_against_a_value_is_a_contradiction(make, panel):
    other = make()
    other["entropy"].values[0, 0, 0, 1, 1] = np.nan
    assert "entropy" in fails(panel, other).where


@pytest.mark.parametrize(
    ("name", "value"),
    [("revision", "v2"), ("weights_sha256", "f" * 64), ("parameters", 7), ("tied", "maybe")],
)
def test_two_models_of_one_name(make, panel, name, value):
    other = make(prompts=(4,))
    other = other.assign_coords({name: ("model", [value] * 2, other[name].attrs)})
    e = fails(panel, other)
    assert name in e.where and "model-0" in e.where


def test_two_prompts_of_one_id(make, panel):
    other = make(models=(2,))
    other["prompt_text"].values[1] = "another text"
    assert "p01" in fails(panel, other).where


@pytest.mark.parametrize("key", ["units", "definition", "options", "readout"])
def test_two_definitions(make, panel, key):
    other = make(models=(2,))
    other["entropy"].attrs[key] = "other"
    assert f"attribute {key}" in fails(panel, other).where


def test_a_variable_that_some_runs_lack(make, panel):
    e = fails(panel, make(models=(2,), metrics=("entropy",)))
    assert "step_length" in e.where and "model-2" in e.found
    # Variables of the same runs may come in several files.
    joined = combine([panel.drop_vars("entropy"), panel.drop_vars(["step_length", "turning_angle"])])
    xr.testing.assert_identical(joined.drop_attrs(), panel.drop_attrs())


def test_panels_of_several_studies_lose_their_common_inputs(make, panel):
    other = make(models=(2,))
    other.attrs["inputs"] = json.dumps({"models": [{"id": "model-2"}]})
    joined = combine([panel, other])
    assert "inputs" not in joined.attrs
    assert len(json.loads(joined.attrs["inputs_combined"])) == 2
    assert verify(joined) == []
    # Joining once more adds nothing, in whatever order.
    assert combine([panel, joined]).attrs == combine([joined, other]).attrs == joined.attrs
    assert len(json.loads(joined.attrs["provenance"])) == 2


def test_what_computed_many_shards_is_said_once(whole_and_shards):
    """A thousand shards computed alike have one entry, and joining again adds nothing."""
    _, shards = whole_and_shards
    parts = []
    for i, shard in enumerate(shards):
        said = {"torch": "2", "batch": {"rows": i}, "started": 10.0 - i, "ended": 20.0 + i, "seconds": 1.0}
        parts.append(shard.assign_attrs(provenance=json.dumps(said | {"cpu": "b" if i == 3 else "a"})))
    joined = combine(parts)
    alike = {"torch": "2", "cpu": "a", "started": 10.0 - (len(parts) - 1), "ended": 20.0 + len(parts) - 1}
    other = json.loads(parts[3].attrs["provenance"])
    found = json.loads(joined.attrs["provenance"])
    assert sorted(found, key=lambda e: e["cpu"]) == [alike, other]
    again = combine([joined, *parts[:2]])
    assert sorted(json.loads(again.attrs["provenance"]), key=lambda e: e["cpu"]) == [alike, other]


def test_factors_of_one_panel_only(make, panel):
    other = make(models=(2,)).assign_coords(heads=("model", np.array([4])))
    assert combine([panel, other])["heads"].values.tolist() == ["", "", "4"]


def test_the_parts_are_not_touched(make, panel):
    before = content_hash(panel)
    joined = combine([panel])
    joined["entropy"].values[:] = 0
    joined["text"].values[:] = ""
    joined["category"].values[:] = "x"
    joined.attrs["title"] = "x"
    joined["entropy"].attrs["units"] = "x"
    assert content_hash(panel) == before and panel["entropy"].attrs["units"] == "nat"


def test_nothing_and_lost_dims(panel):
    fails()
    fails(panel.isel(model=0))
    assert "p01" in fails(panel.isel(prompt=[0, 1, 1])).found
    fails(panel, panel.assign_attrs(dynstat_kind="measurements"))


def test_a_part_without_quality_is_named(panel):
    with pytest.raises(DynstatError, match="D103"):
        combine([panel, panel.drop_vars("quality")])
