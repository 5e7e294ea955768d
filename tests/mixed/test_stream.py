"""Chunks, cells, weights and files against the same rows in memory."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.mixed.crossproducts import cross_products
from dynstat.mixed.fit import lmer, lmer_of
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.stream import chunks_of, compress, design_of
from dynstat.mixed.streamed import sum_over

FORMULAS = [
    "y ~ 1 + (1|model) + (1|category/prompt) + (1|layer)",
    "y ~ token + phase + (1|model) + (1|prompt:layer)",
    "y ~ token * phase + (token|model) + (1|prompt)",
]


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    """A small dataset of token x layer values about 100, two of them missing."""
    rng = np.random.default_rng(1)
    dims = ("model", "prompt", "sample", "token", "layer")
    out = xr.Dataset(
        {"y": (dims, rng.normal(size=(4, 12, 2, 10, 5)) + 100)},
        coords={
            "model": list("abcd"),
            "prompt": [f"p{i}" for i in range(12)],
            "category": ("prompt", [f"c{i % 3}" for i in range(12)]),
            "token": np.arange(10.0),
        },
    )
    out["y"] += xr.DataArray(rng.normal(size=4), dims="model")
    out["y"] += xr.DataArray(rng.normal(size=(12, 5)), dims=["prompt", "layer"])
    out["y"][0, 0, 0, 3:5, 2] = np.nan
    out["phase"] = (dims[:-1], rng.choice(["prompt", "generated"], size=(4, 12, 2, 10)))
    return out


@pytest.fixture(scope="module")
def rows(ds) -> pd.DataFrame:
    frame = ds.assign_coords(layer=np.arange(5)).to_dataframe().reset_index()
    return frame.assign(w=np.random.default_rng(2).uniform(0.5, 2, len(frame)))


def _same(a, b, criterion=1e-8, close=1e-8):
    assert a.nobs == b.nobs
    assert a.criterion == pytest.approx(b.criterion, abs=criterion)
    np.testing.assert_allclose(a.theta, b.theta, atol=close)
    np.testing.assert_allclose(a.fixef, b.fixef, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.vcov, b.vcov, rtol=1e-6, atol=1e-12)
    pd.testing.assert_frame_equal(a.ranef(), b.ranef(), rtol=1e-6, atol=1e-8)
    pd.testing.assert_frame_equal(a.varcorr, b.varcorr, rtol=1e-6)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")
def test_every_kind_of_data_gives_the_same_fit(ds, rows, formula):
    whole = lmer(formula, rows)
    parts = [rows.iloc[i : i + 701] for i in range(0, len(rows), 701)]
    arrays = {
        name: rows[name].to_numpy(dtype=object if rows[name].dtype == object else None) for name in rows
    }
    _same(lmer(formula, ds), whole)
    _same(lmer(formula, ds.chunk({"prompt": 5, "token": 3})), whole)
    _same(lmer(formula, parts), whole)
    _same(lmer(formula, lambda: iter(parts)), whole)
    _same(lmer(formula, iter(parts)), whole)
    _same(lmer(formula, arrays), whole)
    summed = lmer_of(sum_over(parse_formula(formula), lambda: iter(parts)))
    _same(summed, whole)
    assert summed.design.n == 0 and summed.fitted.size == 0
    assert str(summed).replace(".", "")  # a summary needs no rows


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")
def test_weights_in_memory_in_cells_and_in_sums(rows, formula):
    whole = lmer(formula, rows, weights="w")
    parts = [rows.iloc[i : i + 1500] for i in range(0, len(rows), 1500)]
    _same(lmer(formula, rows, weights=rows["w"].to_numpy()), whole)
    _same(lmer(formula, parts, weights="w"), whole)
    _same(lmer_of(sum_over(parse_formula(formula), lambda: iter(parts), "w")), whole)
    # Doubling all weights only doubles sigma².
    twice = lmer(formula, rows.assign(w=2 * rows["w"]), weights="w")
    assert twice.sigma == pytest.approx(np.sqrt(2) * whole.sigma, rel=1e-7)
    assert twice.criterion == pytest.approx(whole.criterion, abs=1e-6)


def test_the_criterion_with_weights_is_the_definition():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"g": rng.integers(0, 6, 50), "x": rng.normal(size=50), "w": rng.uniform(0.2, 3, 50)}
    )
    frame["y"] = rng.normal(size=6)[frame["g"]] + frame["x"] + rng.normal(size=50) / np.sqrt(frame["w"])
    m = lmer("y ~ x + (1|g)", frame, weights="w", REML=False)
    z = (frame["g"].to_numpy()[:, None] == np.arange(6)).astype(float)
    v = m.sigma**2 * (np.diag(1 / frame["w"]) + m.theta.iloc[0] ** 2 * z @ z.T)
    e = frame["y"] - m.fixef.iloc[0] - m.fixef.iloc[1] * frame["x"]
    loglik = -0.5 * (np.linalg.slogdet(2 * np.pi * v)[1] + e @ np.linalg.solve(v, e))
    assert m.loglik == pytest.approx(loglik, rel=1e-11)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 400), st.floats(-1e6, 1e6))
def test_cells_keep_what_a_fit_reads(seed, step, far):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.integers(0, 5, 300), "b": rng.choice(list("uvw"), 300)})
    frame["y"] = far + rng.normal(size=300)
    parts = [frame.iloc[i : i + step] for i in range(0, 300, step)]
    got = compress(parts, "y", ["a", "b"])
    by = frame.groupby(["a", "b"])["y"]
    np.testing.assert_allclose(got.frame["y"], by.mean(), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(got.cells.counts, by.size())
    within = by.apply(lambda v: ((v - v.mean()) ** 2).sum())
    np.testing.assert_allclose(got.cells.within, within, rtol=1e-6, atol=1e-8)
    assert list(got.frame["a"]) == [a for a, _ in by.mean().index]


def test_a_balanced_panel_keeps_its_strata_in_cells(panel):
    from dynstat.mixed.balanced import find_strata

    frame = panel(3)
    formula = parse_formula("y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category) + (1|model:prompt)")
    plain = design_of(formula, frame)[0]
    cells = design_of(formula, [frame.iloc[:100], frame.iloc[100:]], keep=("prompt",))[0]
    assert cells.n * 3 == plain.n == cells.nobs
    a, b = find_strata(plain), find_strata(cells)
    assert a is not None and b is not None
    np.testing.assert_allclose(a.sums_of_squares(plain.y), b.sums_of_squares(cells.y), rtol=1e-11)
    assert a.names == b.names and (a.df == b.df).all()
    np.testing.assert_allclose(a.design, b.design)
    left = np.flatnonzero(cells.terms[0].codes > 5)
    part = cells.subset(left)
    assert part.cells is not None and part.nobs == 3 * left.size
    same = design_of(formula, frame.merge(part.data.iloc[part.positions][["model", "prompt"]]))[0]
    np.testing.assert_allclose(
        cross_products(part).rest[-1, -1], cross_products(same).rest[-1, -1], rtol=1e-11
    )


def test_chunks_of_a_dataset_are_its_rows(ds, rows):
    names = ["model", "category", "prompt", "token", "phase", "layer"]
    for step in (1, 37, 100, 10**6):
        if step == 1:
            few = ds.isel(prompt=slice(1), sample=slice(1))
            got = pd.concat(chunks_of(few, "y", names, step), ignore_index=True)
            assert len(got) == 200
            continue
        chunks = list(chunks_of(ds, "y", names, step))
        assert max(len(c) for c in chunks) <= step
        got = pd.concat(chunks, ignore_index=True)
        got = got.astype({n: object for n in ("model", "category", "prompt", "phase")})
        expected = rows.sort_values(["model", "prompt", "sample", "token", "layer"], key=_order)
        np.testing.assert_array_equal(got["y"], expected["y"])
        for name in names:
            assert got[name].tolist() == expected[name].tolist(), name


def _order(column: pd.Series) -> pd.Series:
    return column.str[1:].astype(int) if column.name == "prompt" else column


@pytest.mark.parametrize(
    ("formula", "data", "weights", "word"),
    [
        ("y ~ (1|a)", 3, None, "cannot be read"),
        ("y ~ (1|a)", [], None, "no row is complete"),
        ("y ~ (1|a)", [pd.DataFrame({"y": [1.0], "b": [1]})], None, "no column 'a'"),
        ("y ~ (1|a)", {"y": np.ones(3), "a": np.ones(4)}, None, "different lengths"),
        ("y ~ (1|a)", [pd.DataFrame({"y": [1.0, np.inf], "a": [1, 2]})], None, "infinite"),
        ("y ~ (1|a)", pd.DataFrame({"y": [1.0, 2, 3], "a": [1, 2, 2], "w": [1, 0, 1]}), "w", "positive"),
        ("y ~ (1|a)", pd.DataFrame({"y": [1.0, 2, 3], "a": [1, 2, 2]}), [1, 2], "one weight a row"),
        ("y ~ (1|a)", pd.DataFrame({"y": [1.0, 2, 3], "a": [1, 2, 2]}), "w", "no column 'w'"),
    ],
)
def test_bad_chunks(formula, data, weights, word):
    with pytest.raises(DynstatError, match=word):
        lmer(formula, data, weights=weights)


def test_a_dask_frame_and_confounded_factors():
    dask = pytest.importorskip("dask.dataframe")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.integers(0, 9, 400), "y": rng.normal(size=400)})
    frame["y"] += rng.normal(size=9)[frame["a"]]
    _same(lmer("y ~ 1 + (1|a)", dask.from_pandas(frame, npartitions=3)), lmer("y ~ 1 + (1|a)", frame))
    parts = [frame.assign(b=-frame["a"])]
    formula = parse_formula("y ~ 1 + (1|a) + (1|b)")
    with pytest.raises(DynstatError, match="same way"):
        lmer(formula.text, parts)
    with pytest.raises(DynstatError, match="same way"):
        sum_over(formula, lambda: parts)


def test_sums_need_two_passes_and_functions_of_one_row():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=30_000), "a": rng.integers(0, 9, 30_000)})
    frame["y"] = frame["x"] + rng.normal(size=9)[frame["a"]] + rng.normal(size=30_000)
    parts = [frame.iloc[:25_000], frame.iloc[25_000:]]
    assert lmer("y ~ x + (1|a)", parts).design.n == 0
    _same(lmer("y ~ x + (1|a)", parts), lmer("y ~ x + (1|a)", frame))
    with pytest.raises(DynstatError, match="only once"):
        lmer("y ~ x + (1|a)", iter(parts))
    with pytest.raises(DynstatError, match="all rows at once"):
        lmer("y ~ scale(x) + (1|a)", parts)
    twice = [p.assign(z=2 * p["x"]) for p in parts]
    with pytest.warns(UserWarning, match="dropped: z"):
        _same(lmer("y ~ x + z + (1|a)", twice), lmer("y ~ x + (1|a)", frame))


def _write(path, tokens: int) -> None:
    """Write 4 models x 40 prompts x 2 samples x tokens x 25 layers, model by model."""
    import netCDF4

    rng = np.random.default_rng(5)
    shape = (4, 40, 2, tokens, 25)
    dims = ("model", "prompt", "sample", "token", "layer")
    with netCDF4.Dataset(path, "w") as file:
        for name, size in zip(dims, shape, strict=True):
            file.createDimension(name, size)
        for name, on, values in (
            ("model", "model", list("abcd")),
            ("prompt", "prompt", [f"p{i:02d}" for i in range(40)]),
            ("category", "prompt", [f"c{i % 4}" for i in range(40)]),
        ):
            variable = file.createVariable(name, str, (on,))
            for i, value in enumerate(values):
                variable[i] = value
        y = file.createVariable("entropy", "f4", dims, chunksizes=(1, 1, 1, tokens, 25))
        prompt, layer = rng.normal(size=40), rng.normal(size=25)
        for m in range(4):
            both = rng.normal(size=40) / 2
            noise = rng.standard_normal(shape[1:], dtype=np.float32)
            y[m] = noise + (3 + m / 3 + prompt + both)[:, None, None, None] + layer
        file["category"].coordinates = "category"


FILE_FORMULA = "entropy ~ 1 + (1|model) + (1|category/prompt) + (1|model:prompt) + (1|layer)"


def test_a_file_read_in_chunks_equals_the_file_in_memory(tmp_path):
    _write(tmp_path / "small.nc", 20)
    with xr.open_dataset(tmp_path / "small.nc") as file:
        names = ["model", "prompt", "category", "layer"]
        chunks = list(chunks_of(file, "entropy", names, 9_000))
        assert len(chunks) > 10
        whole = lmer(FILE_FORMULA, pd.concat(chunks))
        parts = lmer(FILE_FORMULA, chunks)
        direct = lmer(FILE_FORMULA, file)
    for other in (parts, direct):
        np.testing.assert_allclose(other.theta, whole.theta, atol=1e-10)
        np.testing.assert_allclose(other.varcorr["vcov"], whole.varcorr["vcov"], atol=1e-10)
        np.testing.assert_allclose(other.fixef, whole.fixef, atol=1e-10)


_CHILD = """
import json, resource, sys, warnings
import numpy as np, xarray as xr
warnings.simplefilter("ignore")
import dynstat, netCDF4
from dynstat.mixed.fit import lmer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with xr.open_dataset(sys.argv[1]) as file:
    m = lmer(sys.argv[2], file)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(after - before) / 1024, m.nobs, *m.varcorr["vcov"], *m.fixef]))
"""


@pytest.mark.slow
def test_ten_million_rows_within_500_mb(tmp_path):
    import json

    path = tmp_path / "large.nc"
    _write(path, 1250)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), FILE_FORMULA], capture_output=True, text=True, check=True
    )
    megabytes, nobs, *numbers = json.loads(done.stdout)
    assert nobs == 10_000_000
    assert megabytes < 500
    with xr.open_dataset(path) as file:
        frame = pd.concat(chunks_of(file, "entropy", ["model", "prompt", "category", "layer"]))
        whole = lmer(FILE_FORMULA, frame)
    np.testing.assert_allclose(numbers, [*whole.varcorr["vcov"], *whole.fixef], atol=1e-10)


def test_subset_of_weighted_rows(rows):
    design = design_of(parse_formula(FORMULAS[0]), rows, weights="w")[0]
    part = design.subset(np.flatnonzero(design.y > 100))
    assert part.cells is not None and part.cells.weights.size == part.n
    direct = design_of(parse_formula(FORMULAS[0]), rows[rows["y"] > 100], weights="w")[0]
    np.testing.assert_allclose(cross_products(part).rest, cross_products(direct).rest, rtol=1e-9, atol=1e-9)
    assert dataclasses.replace(part, cells=None).nobs == part.nobs
