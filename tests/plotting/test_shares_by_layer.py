"""Shares by metric and layer: what is drawn is what the table says."""

from __future__ import annotations

import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.plotting import save_svg
from dynstat.plotting.shares_by_layer import (
    colours_of,
    describe_by_layer,
    shares_heatmap,
    shares_stacked,
    shares_table,
)

TERMS = ["model", "prompt", "residual"]


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for metric in ("entropy", "a$b$ <metric>"):
        for layer in range(4):
            for term, share in zip(TERMS, rng.dirichlet([2, 2, 4]), strict=True):
                rows.append((metric, layer, term, share, max(share - 0.05, 0), min(share + 0.08, 1)))
    return pd.DataFrame(rows, columns=["metric", "layer", "term", "estimate", "conf.low", "conf.high"])


def test_a_cell_of_the_heat_map_is_its_share(table: pd.DataFrame) -> None:
    holes = table[~((table["metric"] == "entropy") & (table["layer"] == 2))]
    fig = shares_heatmap(holes)
    panels = [ax for ax in fig.axes if ax.get_title(loc="left") in TERMS]
    assert [ax.get_title(loc="left") for ax in panels] == TERMS
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["entropy", "a$b$ <metric>"]
    known = holes.set_index(["metric", "layer", "term"])["estimate"]
    for ax in panels:
        term = ax.get_title(loc="left")
        drawn = ax.collections[0].get_array()
        assert drawn.shape == (2, 4) and ax.yaxis_inverted()
        for i, metric in enumerate(("entropy", "a$b$ <metric>")):
            for layer in range(4):
                if (metric, layer, term) in known.index:
                    assert drawn[i, layer] == known[metric, layer, term]
                else:
                    assert drawn.mask[i, layer]
    scales = {ax.collections[0].get_clim() for ax in panels}
    assert len(scales) == 1 and scales.pop()[1] >= holes["estimate"].max()
    only = shares_heatmap(table, terms=["residual", "model"])
    assert [ax.get_title(loc="left") for ax in only.axes[:2]] == ["residual", "model"]


def test_bars_stack_to_one_and_lines_are_the_intervals(table: pd.DataFrame) -> None:
    fig = shares_stacked(table)
    ax = fig.axes[0]
    part = table[table["metric"] == "entropy"].reset_index(drop=True)
    assert len(ax.patches) == len(ax.lines) == len(part)
    tops: dict[float, float] = {}
    for bar, line, row in zip(ax.patches, ax.lines, part.itertuples(), strict=True):
        assert bar.get_height() == pytest.approx(row.estimate)
        base = tops.get(row.layer, 0.0)
        assert bar.get_y() == pytest.approx(base)
        low, high = part.loc[row.Index, "conf.low"], part.loc[row.Index, "conf.high"]
        wanted = [1 - high, 1 - low] if row.term == "residual" else [base + low, base + high]
        assert list(line.get_ydata()) == pytest.approx(wanted)
        tops[row.layer] = base + row.estimate
    assert all(t == pytest.approx(1) for t in tops.values())
    without = shares_stacked(table.drop(columns=["conf.low", "conf.high"]))
    assert not without.axes[0].lines


def test_alt_text_names_every_number_and_files_hold_text(table: pd.DataFrame, tmp_path: Path) -> None:
    alt = describe_by_layer(table)
    assert alt.startswith("Shares of variance of 2 metrics at 4 layers.") and alt.count("layer ") == 24
    for name, fig in (("heat", shares_heatmap(table)), ("bars", shares_stacked(table))):
        path = save_svg(fig, tmp_path / f"{name}.svg", alt)
        words = {"".join(e.itertext()) for e in ElementTree.parse(path).getroot().iter() if "text" in e.tag}
        assert {"a$b$ <metric>", "model", "layer"} <= words
        again = shares_heatmap(table) if name == "heat" else shares_stacked(table)
        assert save_svg(again, tmp_path / "again.svg", alt).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("layers", [1, 7, 30])
def test_no_text_leaves_the_figure(layers: int) -> None:
    rows = [
        (metric, layer, term, share, share / 2, share * 1.2)
        for metric in ("synchronisation_of_neighbouring_layers", "entropy")
        for layer in range(layers)
        for term, share in (("model:category", 0.2), ("category:prompt", 0.3), ("residual", 0.5))
    ]
    table = pd.DataFrame(rows, columns=["metric", "layer", "term", "estimate", "conf.low", "conf.high"])
    for fig in (shares_heatmap(table), shares_stacked(table)):
        canvas = FigureCanvasAgg(fig)
        canvas.draw()
        box = fig.bbox
        for ax in fig.axes:
            for text in (
                *ax.get_xticklabels(),
                *ax.get_yticklabels(),
                ax.title,
                ax._left_title,
                ax.yaxis.label,
            ):
                here = text.get_window_extent(canvas.get_renderer())
                if text.get_text() and ax.get_visible() and text.get_visible() and here.width:
                    assert here.x0 >= box.x0 - 1 and here.x1 <= box.x1 + 1, text.get_text()
                    assert here.y0 >= box.y0 - 1 and here.y1 <= box.y1 + 1, text.get_text()


def test_a_table_from_decompositions() -> None:
    rng = np.random.default_rng(1)
    grid = pd.MultiIndex.from_product([range(5), range(6), range(2)], names=["model", "prompt", "s"])
    d = grid.to_frame(index=False)
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        for layer in (0, 1):
            y = rng.normal(size=5)[d["model"]] + rng.normal(size=len(d))
            made["entropy", layer] = dynstat.decompose(
                "y ~ 1 + (1|model) + (1|prompt)", d.assign(y=y), strata=None, population="none", rng=1
            )
    table = shares_table(made)
    assert len(table) == 6 and table.groupby("layer")["estimate"].sum().tolist() == pytest.approx([1, 1])
    share = made["entropy", 1].estimates()["share.model"]
    row = table.query("layer == 1 and term == 'model'").iloc[0]
    assert (row["estimate"], row["conf.low"], row["conf.high"]) == (share.value, share.low, share.high)
    assert len(shares_stacked(table).axes) == 1


def test_what_cannot_be_drawn_is_said(table: pd.DataFrame) -> None:
    with pytest.raises(DynstatError, match="no column 'layer'"):
        shares_heatmap(table.drop(columns="layer"))
    with pytest.raises(DynstatError, match="no such term"):
        shares_heatmap(table, terms=["nothere"])
    with pytest.raises(DynstatError, match="empty"):
        shares_stacked(table.head(0))


def test_the_residual_is_grey_and_terms_differ() -> None:
    colours = colours_of(["model", "category", "model:category", "residual"])
    assert len(set(colours.values())) == 4 and colours["residual"] == "#D0D0D0"
