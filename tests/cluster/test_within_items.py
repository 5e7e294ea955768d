"""Resampling of units inside items: against a slow loop, closed cases and identities."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.cluster.hierarchy import fcluster, linkage

from dynstat.cluster import (
    Partition,
    UnitFeatures,
    co_clustering,
    hdbscan,
    hierarchical,
    stability_table,
    stability_test,
    unit_stability,
)
from dynstat.cluster.coclustering import jeffreys, recluster_many
from dynstat.cluster.features import standardized
from dynstat.cluster.jaccard import best_jaccard, contingency
from dynstat.cluster.many_cuts import LINKAGES, cut_many, distances
from dynstat.cluster.partition import in_order
from dynstat.errors import DynstatError, DynstatWarning


def tensor(values, strata=None, **options):
    n, u, p = values.shape
    names = (tuple(f"{a}{i}" for i in range(k)) for a, k in (("m", n), ("u", u), ("f", p)))
    return UnitFeatures(values, *names, strata, **options)


def some(seed=0, n=7, u=12, p=3, noise=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1, p)) + noise * rng.normal(size=(n, u, p))


@pytest.mark.parametrize("method", LINKAGES)
@pytest.mark.parametrize("n", [5, 12, 45])
def test_cut_many_equals_scipy(method, n):
    x = np.random.default_rng(n).normal(size=(20, n, 3))
    made = cut_many(x, [2, 4, n - 1], method)
    for at, k in enumerate((2, 4, n - 1)):
        for b in range(20):
            wanted = fcluster(linkage(x[b], method), k, "maxclust")
            assert made[at, b].tolist() == in_order(wanted).tolist()


@pytest.mark.parametrize("metric", ["cityblock", "cosine", "correlation", "sqeuclidean"])
def test_distances_equal_scipy(metric):
    from scipy.spatial.distance import pdist, squareform

    x = np.random.default_rng(0).normal(size=(3, 6, 5))
    for one, made in zip(x, distances(x, metric), strict=True):
        np.testing.assert_allclose(made, squareform(pdist(one, metric)), atol=1e-12)


@given(arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(2, 7)), elements=st.integers(-1, 4)))
@settings(max_examples=60, deadline=None)
def test_co_clustering_and_jaccard_equal_slow_versions(labels):
    b, n = labels.shape
    wanted = [[np.mean([r[i] == r[j] != -1 for r in labels]) for j in range(n)] for i in range(n)]
    np.testing.assert_allclose(co_clustering(labels), wanted)
    original = in_order(labels[0])
    made = best_jaccard(contingency(original, labels))[:, :-1]
    for row, got in zip(labels, made, strict=True):
        for c in range(original.max() + 1):
            mine = set(np.flatnonzero(original == c))
            other = [set(np.flatnonzero(row == d)) for d in set(row) - {-1}]
            assert got[c] == pytest.approx(max((len(mine & o) / len(mine | o) for o in other), default=0.0))


def test_co_clustering_of_subsamples():
    made = co_clustering([[0, 0, 1], [0, 1, 1], [0, 0, 0]], [[1, 1, 0], [1, 1, 0], [0, 1, 0]])
    assert made[0, 1] == 0.5 and made[1, 1] == 1.0
    assert np.isnan(made[0, 2]) and np.isnan(made[2, 2])


@pytest.mark.parametrize("labels", [[0, 1], [[0.5, 1.0]], np.zeros((0, 3), dtype=int)])
def test_co_clustering_refuses(labels):
    with pytest.raises(DynstatError, match="labels are no table"):
        co_clustering(labels)


def test_jeffreys_equals_the_beta_quantiles():
    from scipy.stats import beta

    low, high = jeffreys([0, 3, 20], 20)
    np.testing.assert_allclose(low, [0, beta.ppf(0.025, 3.5, 17.5), beta.ppf(0.025, 20.5, 0.5)])
    np.testing.assert_allclose(high, [beta.ppf(0.975, 0.5, 20.5), beta.ppf(0.975, 3.5, 17.5), 1])


@pytest.mark.parametrize("standardize", [False, True])
def test_replicates_equal_a_loop_over_rebuilt_features(standardize):
    values = some()
    values[2, 3] = np.nan
    strata = tuple("ab"[i % 2] for i in range(12))
    units = tensor(values, strata, standardize=standardize)
    made = unit_stability(units, k=3, method="average", replicates=100, rng=4)
    weights = units.resampler().weights(100, np.random.default_rng(4))
    assert np.all(weights[:, ::2].sum(axis=1) == 6)
    for w, got in zip(weights, made.labels, strict=True):
        x = np.nanmean(np.repeat(values, w, axis=1), axis=1)
        x = standardized(x) if standardize else x
        wanted = fcluster(linkage(x, "average"), 3, "maxclust")
        assert got.tolist() == in_order(wanted).tolist()
    np.testing.assert_allclose(made.frequency, co_clustering(made.labels))


def test_paired_units_share_their_noise():
    # All noise is the unit's own, the same in every item: a shift of everything.
    rng = np.random.default_rng(1)
    values = rng.normal(size=(8, 1, 2)) + 5 * rng.normal(size=(1, 20, 2))
    paired = unit_stability(tensor(values), k=3, rng=0)
    assert set(np.unique(paired.frequency)) == {0.0, 1.0}
    assert paired.tidy()["estimate"].tolist() == [1.0, 1.0, 1.0]
    alone = unit_stability(tensor(values), k=3, paired=False, rng=0)
    assert alone.tidy()["estimate"].min() < 0.9


def test_methods_without_a_fast_path():
    units = tensor(some(noise=0.2))
    whole = hierarchical(units.features(), "centroid", k=3)
    made = unit_stability(units, whole, replicates=100, rng=0)
    assert made.labels.shape == (100, 7)
    x = units.build()[None]
    assert recluster_many(whole, x)[0].tolist() == whole.labels.tolist()


def test_table_of_both_stabilities():
    made = unit_stability(tensor(some(noise=0.01)), k=3, replicates=100)
    table = stability_table(made, [0.9, 0.5, 0.76])
    assert table["jaccard.units"].tolist() == [1.0, 1.0, 1.0]
    assert table["finding"][0] == "recovered over prompts and over models"
    assert table["finding"][1].startswith("recovered over prompts, not over models")
    framed = pd.DataFrame({"cluster": [0, 1, 2], "jaccard": [0.9, 0.5, 0.76]})
    pd.testing.assert_frame_equal(stability_table(made, framed), table)
    with pytest.raises(DynstatError, match="clusters are not the same"):
        stability_table(made, [0.9])
    with pytest.raises(DynstatError, match="no column of mean Jaccards"):
        stability_table(made, pd.DataFrame({"x": [1, 2, 3]}))


def test_table_takes_clusterboot():
    from dynstat.cluster import clusterboot

    units = tensor(some(noise=0.01, n=9))
    made = unit_stability(units, k=3, replicates=100)
    over = clusterboot(units.features(), made.partition, replicates=100, rng=1)
    table = stability_table(made, over)
    assert table["jaccard.items"].tolist() == pytest.approx(over.mean) and "p.items" not in table
    test = stability_test(units.features(), made.partition, null_sets=19, replicates=20)
    beside = stability_table(made, test)
    # A test has its most stable cluster first, the table clusters in their order.
    by_number = test.tidy().set_index("cluster")
    assert beside["jaccard.items"].tolist() == pytest.approx(by_number["estimate"][[0, 1, 2]].tolist())
    assert beside["p.items"].tolist() == by_number["p.value"][[0, 1, 2]].tolist()


def test_result_reads_well():
    made = unit_stability(tensor(some()), k=3, replicates=200, rng=9)
    assert made.seed == 9
    assert len(made.pairs()) == 21 and made.pairs()["frequency"].is_monotonic_decreasing
    estimates = made.estimates()
    assert set(estimates) >= {"jaccard.0", "together.m0|m1"}
    assert all(e.low <= e.value <= e.high for e in estimates.values())
    assert estimates["jaccard.0"].unit == "prompt"
    assert "200 replicates" in str(made) and made.glance()["units"].item() == 12
    assert "Heat map" in made.alt_text() and made.plot().axes
    again = unit_stability(tensor(some()), k=3, replicates=200, rng=9)
    assert np.array_equal(again.labels, made.labels)


def test_items_without_units_in_a_replicate():
    values = some(u=6)
    values[0, 1:] = np.nan
    with pytest.warns(DynstatWarning, match="left out: an item had no prompt"):
        made = unit_stability(tensor(values), k=2, replicates=300)
    assert 100 < made.n["replicates"] < 300
    values[1] = np.nan
    values[1, 2] = 0.0
    values[2] = np.nan
    values[2, 3] = 0.0
    with pytest.raises(DynstatError, match="in most replicates") as caught:
        unit_stability(tensor(values), k=2, replicates=300)
    assert caught.value.code == "S403"


def test_all_noise():
    units = tensor(some(u=10))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nothing = hdbscan(units.features(), min_cluster_size=5)
        assert nothing.noise.all()
        made = unit_stability(units, nothing, replicates=100)
    assert any("no cluster to follow" in str(w.message) for w in caught)
    assert made.tidy().empty and made.frequency.shape == (7, 7)


@pytest.mark.parametrize(
    ("units", "options", "code"),
    [
        (tensor(some(u=1)), {"k": 2}, "S403"),
        (tensor(some(u=2), ("a", "b")), {"k": 2}, "S403"),
        (tensor(some(n=3)), {"k": 4}, "S405"),
        (tensor(some()), {}, "S404"),
        (tensor(some()), {"k": 2, "replicates": 10}, "S404"),
        (tensor(some()), {"partition": Partition.given([0, 1, 0])}, "S407"),
    ],
)
def test_bad_input(units, options, code):
    with pytest.raises(DynstatError) as caught:
        unit_stability(units, **options)
    assert caught.value.code == code
