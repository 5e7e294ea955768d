"""Frames: tidy rows out, users' measurements in, and nothing lost on the way."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.dataset.combine import combine
from dynstat.dataset.content import content_hash
from dynstat.dataset.frames import cube, from_frame, to_frame
from dynstat.dataset.io import open as open_dataset
from dynstat.dataset.io import save
from dynstat.dataset.schema import DIMS, NO_SUCH_LAYER, NONFINITE, NOT_EXTRACTED, PADDING
from dynstat.dataset.verify import verify
from dynstat.errors import DynstatError

LEVELS = {"run": DIMS[:3], "token": DIMS[:4], "layer": DIMS}
UNITS = {"long_name": "my measure", "units": "1"}


def fails(code, f, *args, **kwargs):
    with pytest.raises(DynstatError) as e:
        f(*args, **kwargs)
    assert e.value.code == code, str(e.value)
    return e.value


# cube


def test_cube(panel):
    c = cube(panel)
    assert c.dims == (*DIMS, "metric")
    assert c["metric"].values.tolist() == ["entropy", "step_length", "synchronisation", "turning_angle"]
    assert c["units"].values.tolist() == ["nat", "1", "1", "rad"]
    for name in c["metric"].values:
        np.testing.assert_array_equal(c.sel(metric=name).values, panel[name].values)
    assert c.dtype == np.float32 and c["category"].values.tolist() == panel["category"].values.tolist()
    assert cube(panel, ["turning_angle"]).sizes["metric"] == 1
    fails("D103", cube, panel, ["entropi"])
    fails("D104", cube, panel, ["log_probability"])
    fails("D103", cube, panel, [])


# out


@pytest.mark.parametrize("level", LEVELS)
def test_rows_are_the_points_that_exist(panel, level):
    df = to_frame(panel, level=level)
    q = panel["quality"].values
    there = ~np.isin(q, (PADDING, NO_SUCH_LAYER, NOT_EXTRACTED))
    count = {"layer": there.sum(), "token": there.any(-1).sum(), "run": there.any((-2, -1)).sum()}
    assert len(df) == count[level] and not df.duplicated(list(LEVELS[level])).any()
    wanted = {
        "model",
        "family",
        "architecture",
        "prompt",
        "category",
        "template",
        "split",
        "sample",
        "seed",
        "temperature",
        "norm",
        "tied",
    }
    assert wanted <= set(df.columns)
    assert list(df.columns[:3]) == ["model", "family", "architecture"]


@pytest.mark.parametrize("level", LEVELS)
def test_every_cell_against_a_lookup_by_label(panel, level):
    df = to_frame(panel, level=level).sample(25, random_state=1, replace=True)
    flags = {"quality": panel["quality"].attrs, "phase": panel["phase"].attrs}
    for _, row in df.iterrows():
        at = {d: row[d] for d in LEVELS[level]}
        for name in df.columns:
            if name in at or (name == "quality" and level == "token"):
                continue
            source = panel[name]
            want = source.sel({d: v for d, v in at.items() if d in source.dims}).item()
            if name in flags:
                want = flags[name]["flag_meanings"].split()[want]
            assert row[name] == want or (want != want and row[name] != row[name]), (name, at)


def test_types(panel):
    df = to_frame(panel)
    assert isinstance(df["model"].dtype, pd.CategoricalDtype)
    assert df["prompt"].cat.categories.tolist() == ["p00", "p01", "p02"]  # the panel's order
    assert set(df["phase"].cat.categories) == {"prompt", "generated"}
    assert df["entropy"].dtype == np.float32 and df["token_id"].dtype == np.int32
    run = to_frame(panel, level="run")
    assert run["text"].dtype == "str" and run["n_prompt"].dtype == np.int32
    fails("S404", to_frame, panel, level="word")
    fails("D103", to_frame, panel.drop_vars("quality"))


def test_relative_depth_and_points_not_finite(panel):
    ds = panel.copy(deep=True)
    ds["quality"].values[0, 0, 0, 1, 1] = NONFINITE
    ds["entropy"].values[0, 0, 0, 1, 1] = np.nan
    df = to_frame(ds)
    row = df[(df["quality"] == "nonfinite")]
    assert (
        len(row) == 1
        and np.isnan(row["entropy"].item())
        and row["relative_depth"].item() == pytest.approx(1 / 3)
    )
    assert df["relative_depth"].between(0, 1).all()
    assert set(df["quality"]) == {"ok", "nonfinite"}


# in


def assert_same_frame(a, b):
    assert set(a.columns) == set(b.columns)
    for name in a.columns:
        x, y = a[name], b[name]
        if x.dtype.kind in "fi":
            np.testing.assert_array_equal(x.to_numpy(), y.to_numpy(), err_msg=name)
        else:
            assert x.astype(str).tolist() == y.astype(str).tolist(), name


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    level=st.sampled_from(sorted(LEVELS)),
    models=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True),
    prompts=st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
    drop=st.floats(0, 0.6),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_round_trip_is_the_identity(make, seed, level, models, prompts, drop, shape):
    """A frame with rows missing anywhere comes back as it was: to_frame(from_frame(df)) is df."""
    ds = make(seed=seed, models=models, prompts=prompts, layers=shape)
    df = to_frame(ds, level=level)
    keep = np.random.default_rng(seed).random(len(df)) >= drop
    keep[0] = True
    df = df[keep].reset_index(drop=True)
    # Labels come in the order they are first seen.
    for d in DIMS[:3]:
        df[d] = pd.Categorical(df[d], df[d].unique())
    df = df.sort_values(list(LEVELS[level])).reset_index(drop=True)
    if df["model"].value_counts().min() == 1:
        # One row a model cannot tell a number that describes the model from one that was measured.
        assert "corpus_seed" in fails("Y003", from_frame, df).where
        df = df.drop(columns=["corpus_seed"])
    again = from_frame(df)
    assert verify(again) == []
    assert_same_frame(to_frame(again, level=level), df)
    # Once more, and through strings as a CSV reader gives them.
    plain = df.astype({c: "str" for c in df.columns if isinstance(df[c].dtype, pd.CategoricalDtype)})
    twice = from_frame(plain)
    assert content_hash(twice) == content_hash(again)


def test_values_at_every_point_come_back(make):
    ds = combine([make(models=(0,), prompts=(0, 1)), make(models=(1,), prompts=(1, 2))])
    again = from_frame(to_frame(ds))
    for name in ("entropy", "turning_angle", "quality", "top1_id", "token_id", "log_probability", "is_first"):
        np.testing.assert_array_equal(again[name].values, ds[name].values, err_msg=name)
    for name in ("model", "category", "norm", "corpus_seed", "relative_depth", "temperature", "layers"):
        assert again[name].values.tolist() == ds[name].values.tolist(), name
        assert again[name].dtype == ds[name].dtype


def test_own_measurements(tmp_path):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        [
            (m, p, t, layer)
            for m in ("a", "b")
            for p in (1, 2)
            for t in range(4)
            for layer in range(2 + (m == "b"))
        ],
        columns=["model", "prompt", "token", "layer"],
    )
    df["category"] = pd.Categorical(np.where(df["prompt"] == 1, "easy", "hard"))
    df["sharpness"] = rng.random(len(df))
    df["angle"] = np.where(df["token"] < 2, np.nan, rng.random(len(df)))
    ds = from_frame(
        df.set_index(["model", "prompt"]),
        {
            "sharpness": {
                "long_name": "sharpness of attention",
                "units": "1",
                "valid_min": 0,
                "valid_max": 1,
            },
            "angle": "turning_angle@1",
        },
    )
    assert verify(ds) == [] and ds.attrs["dynstat_kind"] == "measurements"
    assert ds["sharpness"].dims == DIMS and ds["sharpness"].dtype == np.float32
    assert (
        ds["sharpness"].attrs["definition"] == "user.sharpness@1"
        and ds["sharpness"].attrs["origin"] == "user"
    )
    assert ds["angle"].attrs["units"] == "rad" and ds["angle"].attrs["definition"] == "turning_angle@1"
    assert ds["prompt"].values.tolist() == ["1", "2"] and ds["category"].values.tolist() == ["easy", "hard"]
    assert (ds["quality"].sel(model="a", layer=2) == NO_SUCH_LAYER).all()
    again = open_dataset(save(ds, tmp_path / "own.nc"))
    xr.testing.assert_identical(again, ds)
    back = to_frame(ds)
    np.testing.assert_allclose(back["sharpness"], df.sort_values(["model", "prompt"])["sharpness"], rtol=1e-6)


def test_levels_are_read_off_the_columns():
    run = pd.DataFrame({"model": ["a", "a"], "prompt": ["x", "y"], "score": [0.1, 0.2]})
    assert from_frame(run, {"score": UNITS})["score"].dims == DIMS[:3]
    token = pd.DataFrame({"model": "a", "prompt": "x", "token": [0, 1, 2], "score": [0.1, 0.2, 0.3]})
    ds = from_frame(token, {"score": UNITS})
    assert ds["score"].dims == DIMS[:4]
    both = token.merge(pd.DataFrame({"layer": [0, 1]}), how="cross").assign(deep=1.5)
    ds = from_frame(both, {"score": {**UNITS, "level": "token"}, "deep": UNITS})
    assert ds["score"].dims == DIMS[:4] and ds["deep"].dims == DIMS


def test_token_ids_without_a_vocabulary():
    df = pd.DataFrame({"model": "a", "prompt": "x", "token": [0, 1], "token_id": [7, 9]})
    assert from_frame(df)["token_id"].values.ravel().tolist() == [7, 9]
    assert "token_id" in fails("D104", from_frame, df.assign(vocabulary=8)).where


def test_errors_of_from_frame():
    df = pd.DataFrame({"model": "a", "prompt": ["x", "x", "y"], "token": [0, 1, 0], "score": [0.1, 0.2, 0.3]})
    units = {"score": UNITS}
    assert "score" in fails("Y003", from_frame, df).what
    assert "long_name" in fails("Y003", from_frame, df).mend
    assert "prompt" in fails("D103", from_frame, df.drop(columns="prompt"), units).expected
    fails("D103", from_frame, df, units | {"scoore": UNITS})
    fails("D104", from_frame, df.iloc[:0], units)
    assert "token 0" in fails("D104", from_frame, pd.concat([df, df]), units).where
    fails("D104", from_frame, df.assign(token=[0, 1.5, 0]), units)
    fails("D104", from_frame, df.assign(token=[0, -1, 0]), units)
    assert "note" in fails("Y003", from_frame, df.assign(note=["u", "v", "w"]), units).mend
    fails("D104", from_frame, df.assign(category=["u", "v", "w"]), units)
    fails("D106", from_frame, df.assign(category=["u", None, "w"]), units)
    fails("D106", from_frame, df.assign(category=["u", "u", "w\x00"]), units)
    fails("D104", from_frame, df.assign(quality=["ok", "fine", "ok"]), units)
    fails("D104", from_frame, df.assign(score=[0.1, np.nan, 0.2]), units)
    fails("D104", from_frame, df.assign(score=["a", "b", "c"]), units)
    fails("D104", from_frame, df.assign(token_id=[1.0, np.nan, 2.0]), units)
    fails("D104", from_frame, df.assign(score=1e300), units)
    fails("D104", from_frame, df.assign(score=2.0), {"score": {**UNITS, "valid_max": 1}})
    fails("D104", from_frame, df, {"score": {**UNITS, "level": "layer"}})
    fails("D104", from_frame, df, {"score": {**UNITS, "level": "run"}})
    fails("Y002", from_frame, df, {"score": {"long_name": "x"}})
    fails("Y003", from_frame, df, {"score": "no_such_metric@1"})
    wide = df.copy()
    wide.columns = pd.MultiIndex.from_product([["x"], wide.columns])
    fails("D106", from_frame, wide, units)
    # A point that is known to be missing says so.
    ok = from_frame(df.assign(score=[0.1, np.nan, 0.2], quality=["ok", "nonfinite", "ok"]), units)
    assert to_frame(ok, level="token")["quality"].tolist() == ["ok", "nonfinite", "ok"]


def test_extension_types_of_pandas(panel):
    df = to_frame(panel, level="token")
    for backend in ("numpy_nullable", "pyarrow"):
        if backend == "pyarrow":
            pytest.importorskip("pyarrow")
        again = from_frame(df.convert_dtypes(dtype_backend=backend))
        np.testing.assert_array_equal(again["log_probability"].values[..., :1], np.nan)
        assert content_hash(again) == content_hash(from_frame(df))


@pytest.mark.parametrize("level", ["run", "token", "layer"])
def test_the_order_of_dims_in_memory_is_of_no_matter(panel, level):
    # Equal sizes, so that a mistaken axis would not even be out of bounds.
    square = panel.isel(model=[0, 1], prompt=[0, 1], sample=[0, 1], token=[0, 1], layer=[0, 1])
    turned = square.transpose("layer", "sample", "token", "prompt", "model")
    pd.testing.assert_frame_equal(to_frame(turned, level), to_frame(square, level))
    xr.testing.assert_identical(cube(turned), cube(square))


def test_a_dim_that_selection_dropped_is_named(panel):
    for call in (to_frame, cube):
        with pytest.raises(DynstatError, match="D104") as e:
            call(panel.sel(model="model-0"))
        assert e.value.where == "model" and "lists" in e.value.mend


def test_cube_of_one_metric(panel):
    xr.testing.assert_identical(cube(panel, "entropy"), cube(panel, ["entropy"]))


@pytest.mark.parametrize(
    ("key", "value"),
    [("level", "word"), ("undefined", ["first_token:1"]), ("undefined", "x"), ("valid_max", "1")],
)
def test_definitions_with_values_that_mean_nothing(key, value):
    df = pd.DataFrame({"model": ["a", "b"], "prompt": ["x", "x"], "score": [0.5, 0.25]})
    with pytest.raises(DynstatError, match="Y003") as e:
        from_frame(df, {"score": {"long_name": "score", "units": "1", key: value}})
    assert key in e.value.where


def test_undefined_may_be_written_as_in_the_attribute():
    df = pd.DataFrame({"model": ["a", "b"], "prompt": ["x", "x"], "score": [0.5, np.nan]})
    ds = from_frame(df, {"score": {"long_name": "score", "units": "1", "undefined": "missing_input"}})
    assert ds["score"].attrs["undefined"] == "missing_input"
