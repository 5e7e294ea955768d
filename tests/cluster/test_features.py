"""Features built from units: slow versions with pandas, weights as repeated rows, and real metrics."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.cluster import UnitFeatures, as_features, hierarchical
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.metrics.labelled import run_metric


def rows(seed=0, gaps=True, models=4, prompts=6, samples=2):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        [
            (f"m{m}", f"p{p}", "ab"[p % 2], rng.normal(m), rng.normal(p))
            for m in range(models)
            for p in range(prompts)
            for _ in range(samples)
        ],
        columns=["model", "prompt", "category", "speed", "turn"],
    )
    if gaps:
        frame.loc[frame.sample(frac=0.15, random_state=seed).index, "turn"] = np.nan
    return frame


def slow(frame, counts, by=None, standardize=False):
    """Repeat every unit as often as it is drawn and average with pandas."""
    cells = frame.groupby(["model", "prompt"], sort=False)[["speed", "turn"]].mean().reset_index()
    cells["category"] = cells["prompt"].map(dict(zip(frame["prompt"], frame["category"], strict=True)))
    parts = [cells[cells["prompt"] == u].assign(copy=i) for u, c in counts.items() for i in range(c)]
    drawn = pd.concat(parts)
    if by is None:
        out = drawn.groupby("model", sort=False)[["speed", "turn"]].mean()
    else:
        wide = drawn.groupby(["model", by])[["speed", "turn"]].mean().unstack(by)
        out = pd.DataFrame({f"{f}[{s}]": wide[(f, s)] for s in "ab" for f in ("speed", "turn")})
    out = out.reindex(list(dict.fromkeys(frame["model"])))
    return (out - out.mean()) / out.std(ddof=1) if standardize else out


@pytest.mark.parametrize("by", [None, "category"])
@pytest.mark.parametrize("standardize", [False, True])
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), gaps=st.booleans())
def test_builds_are_those_of_pandas(by, standardize, seed, gaps):
    frame = rows(seed, gaps)
    made = UnitFeatures.from_frame(
        frame, columns=["speed", "turn"], strata="category", by=by, standardize=standardize
    )
    draws = made.resampler().weights(3, seed)
    built = made.build(draws)
    for b, w in enumerate(draws):
        want = slow(frame, dict(zip(made.units, w, strict=True)), by, standardize)
        np.testing.assert_allclose(built[b], want.to_numpy(), rtol=1e-9, atol=1e-9, equal_nan=True)
        assert made.columns == tuple(want.columns)
        np.testing.assert_allclose(made.build(w), built[b], rtol=1e-12, atol=1e-12)
    plain = slow(frame, dict.fromkeys(made.units, 1), by, standardize)
    np.testing.assert_allclose(made.build(), plain.to_numpy(), rtol=1e-9, atol=1e-9)


def test_units_are_drawn_within_strata_unless_said():
    made = UnitFeatures.from_frame(rows(), columns="speed", strata="category")
    codes = np.array(made.strata) == "a"
    draws = made.resampler().weights(50, 0)
    assert (draws[:, codes].sum(axis=1) == 3).all()
    free = made.resampler(stratified=False).weights(50, 0)
    assert (free.sum(axis=1) == 6).all()
    assert len(set(free[:, codes].sum(axis=1))) > 1


def test_weights_scale_away_and_zero_drops_a_unit():
    frame = rows(gaps=False)
    made = UnitFeatures.from_frame(frame, columns=["speed", "turn"])
    np.testing.assert_allclose(made.build(np.full(6, 2.5)), made.build())
    fewer = UnitFeatures.from_frame(frame[frame["prompt"] != "p3"], columns=["speed", "turn"])
    np.testing.assert_allclose(made.build([1, 1, 1, 0, 1, 1]), fewer.build())
    assert np.isnan(made.build(np.zeros(6))).all()


def test_units_go_straight_into_a_partition():
    frame = rows(gaps=False)
    frame["speed"] += 20 * frame["model"].isin(["m2", "m3"])
    made = UnitFeatures.from_frame(frame, columns=["speed", "turn"])
    part = hierarchical(made, k=2)
    assert part.item == "model"
    assert part.labels.tolist() == [0, 0, 1, 1]
    assert [part.recluster(x).tolist() for x in made.build(made.resampler().weights(3, 1))] == [
        [0, 0, 1, 1]
    ] * 3


def test_what_is_refused():
    frame = rows()

    def code(**changed):
        with pytest.raises(DynstatError) as caught:
            UnitFeatures.from_frame(**{"frame": frame, "columns": ["speed"], **changed})
        return caught.value.code, str(caught.value)

    assert code(columns=["sped"])[0] == "S404"
    assert code(item="who")[0] == "S404"
    assert code(columns=["category"])[0] == "S404"
    assert code(strata="category", by="model")[0] == "S404"
    assert code(frame=frame.assign(model=None))[0] == "S404"
    assert "p0" in code(strata="model")[1]
    assert code(frame=frame.assign(speed=np.inf))[0] == "S405"
    made = UnitFeatures.from_frame(frame, columns=["speed"])
    for bad in (np.ones(5), -np.ones(6), np.full(6, np.nan), np.ones((2, 2, 6))):
        with pytest.raises(DynstatError, match="S404"):
            made.build(bad)
    lost = frame.assign(turn=frame["turn"].where(frame["model"] != "m1"))
    with pytest.raises(DynstatError, match="model m1"):
        as_features(UnitFeatures.from_frame(lost, columns=["speed", "turn"]))
    with pytest.raises(DynstatError, match="S404"):
        UnitFeatures(made.values, made.items, made.units, made.names, by_stratum=True)
    with pytest.raises(DynstatError, match="S407"):
        UnitFeatures(made.values, made.items[1:], made.units, made.names)


def test_a_feature_that_is_constant_but_for_rounding_is_not_blown_up():
    frame = pd.DataFrame({"flat": [0.1 + 0.2, 0.3, 0.3], "x": [1.0, 2, 4]}, index=list("abc"))
    assert as_features(frame, standardize=True).values[:, 0].tolist() == [0, 0, 0]
    with pytest.warns(DynstatWarning, match="kept: flat"):
        as_features(frame.assign(flat=0.3))


@pytest.fixture(scope="module")
def panel():
    spec = importlib.util.spec_from_file_location(
        "panel_helpers", Path(__file__).parents[1] / "dataset" / "conftest.py"
    )
    helpers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helpers)
    return helpers.make_panel(models=(0, 1, 2), prompts=(0, 1, 2, 3, 4, 5), samples=(0, 1, 2))


SPECS = [
    {"metric": "ratio_norm@1", "scale": "log"},
    {"metric": "run_mean@1", "of": "entropy"},
    {"metric": "run_mean@1", "of": "entropy", "layer": 0},
]


@pytest.mark.parametrize("by", [None, "category"])
def test_metrics_of_a_dataset_are_averaged_over_samples_then_prompts(panel, by):
    made = UnitFeatures.from_dataset(panel, SPECS, by=by)
    assert made.items == tuple(panel["model"].values)
    assert made.strata == tuple(panel["category"].values)
    cells = [run_metric(panel, s).mean("sample", skipna=True).astype(float) for s in SPECS]
    if by is None:
        assert made.columns == ("ratio_norm", "entropy", "entropy(layer=0)")
        want = np.stack([c.mean("prompt").values for c in cells], axis=-1)
    else:
        blocks = [c.groupby("category").mean("prompt") for c in cells]
        want = np.stack([b.sel(category=s).values for s in "abc" for b in blocks], axis=-1)
        assert made.columns[3] == "ratio_norm[b]"
    np.testing.assert_allclose(made.build(), want, rtol=1e-5)


def test_datasets_refuse_what_they_do_not_hold(panel):
    for given_, words in (([], "no metric"), ([SPECS[1], SPECS[1]], "twice"), (["regime@1"], "code")):
        with pytest.raises(DynstatError, match="S404") as caught:
            UnitFeatures.from_dataset(panel, given_)
        assert words in str(caught.value)
    with pytest.raises(DynstatError, match="no label 'topic'"):
        UnitFeatures.from_dataset(panel, SPECS[:1], by="topic")
    named = UnitFeatures.from_dataset(panel, {"early": SPECS[2]}, strata=None)
    assert (named.columns, named.strata) == (("early",), None)
