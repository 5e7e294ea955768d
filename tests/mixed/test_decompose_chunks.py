"""A decomposition of rows read in chunks is that of the rows in memory."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

import dynstat
from dynstat.errors import DynstatWarning

FORMULA = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:prompt)"


def _quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return dynstat.decompose(*args, rng=1, **kwargs)


def _same(a, b, tolerance, skip="nothing"):
    mine, theirs = a.estimates(), b.estimates()
    assert list(mine) == list(theirs)
    for key, e in mine.items():
        if key.startswith(skip):
            continue
        other = theirs[key]
        assert (other.value, other.low, other.high) == pytest.approx(
            (e.value, e.low, e.high), rel=tolerance, abs=tolerance, nan_ok=True
        ), key
        assert other.n == e.n
    np.testing.assert_allclose(b.components, a.components, rtol=tolerance)


@pytest.fixture(scope="module")
def tokens() -> xr.Dataset:
    rng = np.random.default_rng(3)
    m, p, s, t = 5, 12, 2, 40
    y = (
        rng.normal(0, 0.5, (m, 1, 1, 1))
        + rng.normal(0, 0.4, (1, p, 1, 1))
        + rng.normal(0, 0.4, (m, p, 1, 1))
        + rng.normal(0, 1, (m, p, s, t))
    )
    return xr.Dataset(
        {"y": (("model", "prompt", "sample", "token"), 50 + y)},
        coords={
            "model": [f"m{i}" for i in range(m)],
            "prompt": [f"p{i:02d}" for i in range(p)],
            "category": ("prompt", [f"c{i % 3}" for i in range(p)]),
        },
    )


def test_a_file_is_decomposed_as_its_frame(tokens, tmp_path):
    path = tmp_path / "tokens.nc"
    tokens.to_netcdf(path)
    frame = tokens["y"].to_dataframe().reset_index()
    with xr.open_dataset(path) as lazy:
        read = _quiet(FORMULA, lazy)
    held = _quiet(FORMULA, frame)
    _same(held, read, 1e-10)
    assert read.balanced and read.estimates()["share.model"].n["rows"] == len(frame) == 4800
    # A D-study starts from the same numbers: 80 rows a cell of model and prompt.
    assert dynstat.dstudy(read).plans.iloc[0]["sample"] == 80


def test_unbalanced_chunks_and_a_fixed_part(tokens):
    frame = tokens["y"].to_dataframe().reset_index()
    frame = frame.sample(frac=0.9, random_state=1)
    frame["x"] = frame["token"] % 3
    frame["y"] += 0.2 * frame["x"]
    chunks = [frame.iloc[a : a + 1000] for a in range(0, len(frame), 1000)]
    text = "y ~ x + (1|model) + (1|category/prompt) + (1|model:prompt)"
    # Draws differ: noise is drawn for cells, not rows.
    held, read = (_quiet(text, d, refits=100) for d in (frame, chunks))
    _same(held, read, 1e-6, skip="population.")
    assert not read.balanced and read.estimates()["r2.marginal"].value > 0


def test_noise_drawn_for_cells_has_the_chance_level_of_rows(tokens):
    frame = tokens["y"].to_dataframe().reset_index().query("token < 6").iloc[3:]
    held, read = (_quiet(FORMULA, d, refits=100, population="bootstrap") for d in (frame, [frame]))
    np.testing.assert_allclose(read.chance["mean"], held.chance["mean"], atol=0.01)
    a, b = (x.estimates()["population.share.model:prompt"] for x in (held, read))
    assert (b.low, b.high) == pytest.approx((a.low, a.high), abs=0.03)
