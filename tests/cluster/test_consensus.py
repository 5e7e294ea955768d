"""Consensus over subsamples: against a slow loop, hand-made cases, and its null."""

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from dynstat.cluster import consensus, pac
from dynstat.cluster.consensus_matrix import _area
from dynstat.errors import DynstatError


def blobs(seed=0, sizes=(6, 6, 5), apart=8.0):
    rng = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(sizes)), sizes)
    values = apart * np.eye(3)[own] + rng.normal(size=(own.size, 3))
    return pd.DataFrame(values, index=[f"m{i}" for i in range(own.size)]), own


def test_matrices_equal_a_slow_loop():
    data, _ = blobs()
    made = consensus(data, (2, 4), replicates=60, null_sets=19, null_replicates=50, rng=3)
    rng = np.random.default_rng(3)
    subsets = np.sort(rng.random((60, 17)).argsort(axis=1)[:, :14], axis=1)
    for k in (2, 4):
        both, seen = np.zeros((17, 17)), np.zeros((17, 17))
        for s in subsets:
            labels = fcluster(linkage(data.to_numpy()[s], "average"), k, "maxclust")
            seen[np.ix_(s, s)] += 1
            both[np.ix_(s, s)] += labels[:, None] == labels
        np.testing.assert_allclose(made.matrices[k], both / seen)
        upper = (both / seen)[np.triu_indices(17, 1)]
        row = made.table.set_index("k").loc[k]
        assert row["pac"] == pytest.approx(np.mean((upper > 0.1) & (upper < 0.9)))
        cdf = [np.mean(upper <= g + 1e-12) for g in made.grid]
        np.testing.assert_allclose(made.curves[k], cdf)


def test_area_is_that_under_the_distribution():
    x = np.random.default_rng(0).random(50).round(2)
    fine = np.linspace(0, 1, 100_001)
    assert _area(x) == pytest.approx(np.mean(np.searchsorted(np.sort(x), fine, side="right") / 50), abs=1e-4)
    # Monti's sum has the same limit.
    many = np.sort(np.random.default_rng(1).random(20_000))
    assert _area(many) == pytest.approx(np.sum(np.diff(many) * np.arange(2, 20_001) / 20_000), abs=1e-3)


def test_planted_clusters_are_clear_and_a_cloud_is_not():
    data, own = blobs()
    made = consensus(data, (2, 3, 4), replicates=100, null_sets=99, rng=1)
    row = made.table.set_index("k").loc[3]
    assert row["pac"] == 0.0 and row["p"] <= 0.03 and row["null.low"] > 0
    assert made.partitions[3].labels.tolist() == own.tolist()
    assert made.clusters(3)["consensus"].tolist() == [1.0, 1.0, 1.0]
    items = made.item_consensus(3).to_numpy()
    assert np.all(items[np.arange(17), own] == 1.0) and np.all(items.sum(axis=1) == 1.0)
    assert made.table["delta.area"][0] == made.table["area"][0]
    a = made.table["area"].to_numpy()
    np.testing.assert_allclose(made.table["delta.area"][1:], np.diff(a) / a[:-1])


def test_p_is_uniform_in_one_population():
    # Under the rotation null p is exact: 60 panels, p at most .2 in about 12.
    mix = np.array([[1, 0.8, 0], [0, 1, 0], [0, 0, 3.0]])
    found = [
        consensus(
            np.random.default_rng(s).normal(size=(9, 3)) @ mix,
            (3,),
            replicates=50,
            null_sets=39,
            null_replicates=50,
            rng=s,
        ).table["p"][0]
        for s in range(60)
    ]
    # The middle 99.9 % of a binomial.
    assert 3 <= np.sum(np.array(found) <= 0.2) <= 23


def test_pac_by_hand():
    m = np.array([[1, 0.1, 0.5], [0.1, 1, np.nan], [0.5, np.nan, 1]])
    assert pac(m) == 0.5
    assert pac(m, 0.0, 0.4) == 0.5
    assert np.isnan(pac([[1, np.nan], [np.nan, 1]]))
    for bad in ((np.ones((2, 3)),), (m, 0.9, 0.1)):
        with pytest.raises(DynstatError) as caught:
            pac(*bad)
        assert caught.value.code == "S404"


def test_result_reads_well():
    data, _ = blobs()
    made = consensus(
        data.rename_axis("model"), (2, 3), replicates=60, null_sets=19, null_replicates=50, rng=2
    )
    assert set(made.estimates()) == {"pac.2", "pac.3"}
    assert made.estimates()["pac.3"].null["p"] == made.table["p"][1]
    assert list(made.tidy().columns[:2]) == ["k", "estimate"]
    assert made.glance()["k.least.p"].item() in (2, 3)
    assert "Consensus of 17 models" in str(made) and "k = 3: .00" in made.alt_text()
    assert made.plot().axes and made.plot_matrix(3).axes
    assert made.matrix(2).loc["m0", "m1"] == made.matrices[2][0, 1]
    with pytest.raises(DynstatError, match="was not made"):
        made.matrix(9)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"k": (1, 2)}, "S404"),
        ({"k": ()}, "S404"),
        ({"k": (2, 15)}, "S405"),
        ({"share": 1.0}, "S404"),
        ({"share": 0.1}, "S405"),
        ({"replicates": 3}, "S404"),
        ({"null_sets": 3}, "S404"),
        ({"null": "wishful"}, "S404"),
        ({"null_replicates": 1000}, "S404"),
        ({"method": "median"}, "S404"),
    ],
)
def test_bad_input(options, code):
    with pytest.raises(DynstatError) as caught:
        consensus(blobs()[0], **options)
    assert caught.value.code == code
