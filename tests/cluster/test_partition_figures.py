"""Figures of partitions: what is drawn is what the partition holds, and the alt text says it."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster import Partition, gaussian_mixture, hdbscan, hierarchical, kmeans
from dynstat.errors import DynstatError
from dynstat.plotting.condensed_trees import _bars
from dynstat.plotting.style import save_svg

ORACLES = Path(__file__).parents[1] / "oracles"
PLANTED = pd.read_csv(ORACLES / "cluster" / "planted.csv", index_col=0).rename_axis("model")


def words(fig):
    ax = fig.axes[0]
    legend = [t.get_text() for part in fig.legends for t in part.get_texts()]
    return [t.get_text() for t in ax.texts] + legend + [t.get_text() for t in ax.get_yticklabels()]


def test_the_dendrogram_draws_every_merge_at_its_height():
    part = hierarchical(PLANTED, k=3)
    fig = part.plot()
    upright = sorted(
        x[0] for x in (line.get_xdata() for line in fig.axes[0].lines) if len(x) == 2 and x[0] == x[1]
    )
    cut = (part.linkage[-3, 2] + part.linkage[-2, 2]) / 2
    expected = sorted([*part.linkage[:, 2]])
    # The vertical line of the cut is one more; axvline gives it as a list of two equal x too.
    np.testing.assert_allclose(upright, sorted([*expected, cut]))
    assert set(PLANTED.index) <= set(words(fig))


def test_values_at_nodes_and_clusters_are_drawn_and_told():
    part = hierarchical(PLANTED, k=3)
    au, bp = {14: 0.97, 13: 0.5, 15: 1.0}, pd.Series({14: 0.81})
    options = {"au": au, "bp": bp, "stability": [0.9, 0.8, 0.61]}
    drawn = words(part.plot(**options))
    assert ".97 | .81" in drawn
    assert ".50" in drawn
    assert "2  J .61" in drawn
    alt = part.alt_text(**options)
    assert "AU is at least .95 at 1 of 2 nodes; .97 at the highest below the root." in alt
    assert "Cluster 2 (2, mean Jaccard .61): m14, m16." in alt
    for wrong in ({"au": {16: 0.5}}, {"bp": [0.5]}, {"stability": {3: 0.5}}):
        with pytest.raises(DynstatError, match="S407"):
            part.plot(**wrong)


def test_bars_of_the_condensed_tree_are_as_wide_as_clusters_have_items():
    part = hdbscan(PLANTED, 3)
    bars = _bars(part)
    assert [b.width[0] for b in sorted(bars, key=lambda b: b.cluster)] == [17, 7, 8]
    for bar in bars:
        assert (np.diff(bar.width) <= 0).all()
        assert (np.diff(bar.level) >= 0).all()
    tree = part.condensed_tree
    # The area of a bar is the mass of its cluster: sum over its items of λ(leaves) − λ(born).
    for bar in bars:
        chosen = tree["selected"] & (tree["cluster"] == bar.cluster)
        node = int(tree.loc[chosen, "child"].iloc[0]) if bar.cluster >= 0 else len(PLANTED)
        rows = tree[tree["parent"] == node]
        mass = ((rows["lambda_val"] - bar.level[0]) * rows["child_size"]).sum()
        assert (np.diff(bar.level) * bar.width[:-1]).sum() == pytest.approx(mass)
    drawn = words(part.plot())
    assert "0: 7 models, persistence .51" in drawn
    alt = part.alt_text()
    assert "3 bars, 2 chosen as clusters, 2 of the models noise" in alt
    assert alt.endswith("Noise: m14, m16.")


def test_trees_of_copies_and_of_noise_alone_can_be_drawn():
    x = np.repeat(np.random.default_rng(0).normal(size=(4, 2)), 4, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in (x, np.arange(6.0) ** 3):
            part = hdbscan(data, 4)
            part.plot()
            assert "noise" in part.alt_text()


def test_maps_of_partitions_without_a_tree():
    fig = kmeans(PLANTED, 3).plot()
    assert {"cluster 0 (7)", "cluster 1 (8)", "cluster 2 (2)", "m16"} <= set(words(fig))
    one = gaussian_mixture(PLANTED["V1"], 2)
    assert set(PLANTED.index) <= set(words(one.plot()))
    assert one.alt_text().startswith("17 models by V1, in 2 clusters.")
    with pytest.raises(DynstatError, match="S404"):
        Partition.given([0, 1]).plot()


def test_the_same_figure_has_the_same_bytes(tmp_path):
    part = hierarchical(PLANTED, k=2)
    a = save_svg(part.plot(), tmp_path / "a.svg", part.alt_text()).read_bytes()
    b = save_svg(part.plot(), tmp_path / "b.svg", part.alt_text()).read_bytes()
    assert a == b
    assert b"Dendrogram of 17 models, ward linkage, in 2 clusters" in a


def test_many_items_still_draw():
    x = np.random.default_rng(0).normal(size=(120, 2))
    part = hierarchical(x, k=12)
    assert "120 items" in part.plot(au=np.linspace(0, 1, 119)).axes[0].get_ylabel()
    assert "120 items, sorted" in kmeans(x[:, 0], 3).plot().axes[0].get_ylabel()
