"""The figure of read-outs: means of what counts, a line each, words for who cannot see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dynstat.errors import DynstatError
from dynstat.plotting import save_svg
from dynstat.plotting.readouts import describe_readouts, readouts_by_layer, readouts_table


@pytest.fixture
def ds() -> xr.Dataset:
    rng = np.random.default_rng(0)
    dims = ("model", "prompt", "sample", "token", "layer")
    shape = (2, 3, 1, 5, 4)

    def made(scale: float) -> tuple[tuple[str, ...], np.ndarray]:
        return dims, (scale * rng.random(shape)).astype(np.float32)

    quality = np.zeros(shape, np.int8)
    quality[:, 1, :, 4] = 1
    first = np.zeros(shape[:4], np.int8)
    first[..., 0] = 1
    return xr.Dataset(
        {
            "quality": (dims, quality),
            "is_first": (dims[:4], first),
            "is_special": (dims[:4], np.zeros(shape[:4], np.int8)),
            "entropy": made(3.0),
            "entropy__tuned": made(4.0),
            "entropy__top_k": made(2.0),
            "kl_from_final": made(1.0),
            "kl_from_final__tuned": made(0.5),
        },
        coords={"model": ["a", "b"], "layer": np.arange(4)},
    )


def test_the_table_averages_the_points_that_count(ds: xr.Dataset) -> None:
    table = readouts_table(ds, model="b")
    assert set(table["n"]) == {3 * 4 - 1}
    values = ds["entropy__tuned"].values[1, :, 0]
    keep = np.ones((3, 5), bool)
    keep[:, 0] = keep[1, 4] = False
    row = table[(table["metric"] == "entropy") & (table["readout"] == "tuned")]
    np.testing.assert_allclose(row["mean"], values[keep].mean(0), rtol=1e-6)
    assert set(table["readout"]) == {"plain", "tuned", "top_k"}
    with pytest.raises(DynstatError, match="one model"):
        readouts_table(ds)
    with pytest.raises(DynstatError, match="no kl_to_final"):
        readouts_table(ds, ["kl_to_final"], model="a")


def test_the_figure_draws_the_table(ds: xr.Dataset, tmp_path: Path) -> None:
    ds["kl_from_final"][..., 0] = 40.0
    table = readouts_table(ds, model="a")
    fig = readouts_by_layer(table)
    left, right = fig.axes
    assert [line.get_label() for line in left.lines] == ["plain", "top_k", "tuned"]
    looks = {(line.get_color(), line.get_marker(), str(line.get_linestyle())) for line in left.lines}
    assert len({c for c, _, _ in looks}) == len({m for _, m, _ in looks}) == 3, (
        "told apart by more than colour"
    )
    np.testing.assert_allclose(
        right.lines[1].get_ydata(),
        table[(table["metric"] == "kl_from_final") & (table["readout"] == "tuned")]["mean"],
    )
    assert "root scale" in right.get_ylabel() and "root" not in left.get_ylabel()
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["plain", "top_k", "tuned"]
    alt = describe_readouts(table, "Read-outs of a model")
    assert alt.startswith("Read-outs of a model. entropy, plain: ")
    assert "kl_from_final, plain: 40.00 at layer 0" in alt
    one = save_svg(fig, tmp_path / "a.svg", alt).read_bytes()
    assert one == save_svg(readouts_by_layer(table), tmp_path / "b.svg", alt).read_bytes()
