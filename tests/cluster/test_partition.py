"""Partitions: R's hclust, cutree, kmeans and mclust, slow versions, and invariances."""

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from dynstat.cluster import Partition, cut_height, cut_tree, gaussian_mixture, hdbscan, hierarchical, kmeans
from dynstat.cluster.linkage_trees import LINKAGES, largest_jump
from dynstat.cluster.partition import in_order
from dynstat.errors import DynstatWarning

ORACLES = Path(__file__).parents[1] / "oracles"
R = json.loads((ORACLES / "clusters_partition.json").read_text(encoding="utf-8"))
TREES = [
    (case, metric, linkage)
    for case, metrics in R["cases"].items()
    for metric in metrics
    if metric != "data"
    for linkage in metrics[metric]
]
PLANTED = pd.read_csv(ORACLES / "cluster" / "planted.csv", index_col=0).rename_axis("model")


def same(a, b):
    return in_order(a).tolist() == in_order(b).tolist()


@pytest.mark.parametrize(("case", "metric", "linkage"), TREES)
def test_trees_and_cuts_are_those_of_hclust(case, metric, linkage):
    data, want = np.array(R["cases"][case]["data"]), R["cases"][case][metric][linkage]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        made = [hierarchical(data, linkage, k=k, metric=metric) for k in range(1, 7)]
    np.testing.assert_allclose(made[0].linkage[:, 2], want["height"], rtol=0, atol=1e-10)
    for part, labels in zip(made, want["cuts"], strict=True):
        assert (part.labels + 1).tolist() == labels
        assert part.recluster(data).tolist() == part.labels.tolist()
    if want["at"]:
        part = hierarchical(data, linkage, height=want["at"]["h"], metric=metric)
        assert (part.labels + 1).tolist() == want["at"]["labels"]
        assert part.recluster(data).tolist() == part.labels.tolist()


@pytest.mark.parametrize("case", ["planted", "cloud"])
def test_ward_is_wards_d2_of_the_shared_oracle(case):
    want = json.loads((ORACLES / "cluster" / "clusters.json").read_text(encoding="utf-8"))["cases"][case][
        "ward"
    ]
    data = pd.read_csv(ORACLES / "cluster" / f"{case}.csv", index_col=0)
    for k in (2, 3):
        part = hierarchical(data, k=k)
        np.testing.assert_allclose(part.linkage[:, 2], want["height"], rtol=0, atol=1e-10)
        assert (part.labels + 1).tolist() == want[f"cut{k}"]


def test_the_oracle_reaches_every_linkage_and_inversions():
    assert {t[2] for t in TREES} == set(LINKAGES)
    heights = R["cases"]["planted"]["euclidean"]["centroid"]["height"]
    assert (np.diff(heights) < 0).any()


def test_cophenetic_correlation_is_that_of_r():
    part = hierarchical(PLANTED, k=3)
    assert part.statistics["cophenetic"] == pytest.approx(R["cophenetic_ward"], abs=1e-12)


@pytest.mark.parametrize("linkage", ["ward", "single", "average"])
def test_cut_tree_is_scipys_up_to_numbering(linkage):
    tree = hierarchy.linkage(PLANTED, linkage)
    for k in range(1, 18):
        assert cut_tree(tree, k).tolist() == in_order(hierarchy.cut_tree(tree, k).ravel()).tolist()


def test_cut_height_is_scipys_fcluster_with_heights_that_are_merges():
    tree = hierarchy.linkage(PLANTED, "average")
    for height in [0.0, *tree[:, 2], 99.0]:
        assert same(cut_height(tree, height), hierarchy.fcluster(tree, height, "distance"))


def test_tied_heights_still_give_k_clusters():
    corners = np.array([[0.0, 0], [0, 1], [5, 0], [5, 1], [10, 0], [10, 1]])
    assert [hierarchical(corners, "single", k=k).n_clusters for k in range(1, 7)] == [1, 2, 3, 4, 5, 6]


def slow_agglomeration(x, linkage, k):
    """Merge the two closest clusters, distances between all their items computed anew."""
    clusters = [[i] for i in range(len(x))]
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))

    def apart(a, b):
        if linkage == "ward":
            gap = x[a].mean(0) - x[b].mean(0)
            return np.sqrt(2 * len(a) * len(b) / (len(a) + len(b)) * (gap @ gap))
        if linkage == "centroid":
            return np.linalg.norm(x[a].mean(0) - x[b].mean(0))
        return {"single": np.min, "complete": np.max, "average": np.mean}[linkage](d[np.ix_(a, b)])

    while len(clusters) > k:
        pairs = [(i, j) for i in range(len(clusters)) for j in range(i + 1, len(clusters))]
        i, j = min(pairs, key=lambda p: apart(clusters[p[0]], clusters[p[1]]))
        clusters[i] += clusters.pop(j)
    labels = np.empty(len(x), dtype=int)
    for c, members in enumerate(clusters):
        labels[members] = c
    return labels


@pytest.mark.parametrize("linkage", ["single", "complete", "average", "ward", "centroid"])
def test_brute_force_agglomeration_agrees(linkage):
    rng = np.random.default_rng(3)
    for n in (5, 12):
        x = rng.normal(size=(n, 3))
        for k in (2, 3, 4):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DynstatWarning)
                assert same(hierarchical(x, linkage, k=k).labels, slow_agglomeration(x, linkage, k))


def test_the_gap_cut_takes_the_largest_jump_and_the_highest_of_ties():
    assert largest_jump([1.0, 1.2, 5.0, 5.5]) == 3
    assert largest_jump([1.0, 2.0, 3.0]) == 2
    assert largest_jump([0.1, 0.2, 0.3 + 1e-17]) == 2
    x = np.array([0, 0.1, 5, 5.1, 11, 11.1])
    part = hierarchical(x, "single", gap=True)
    assert part.labels.tolist() == [0, 0, 1, 1, 2, 2]
    table = part.criterion
    assert table.loc[table["jump"].idxmax(), "k"] == 3
    assert table["height"].iloc[0] == pytest.approx(5.9)
    # The same k on other data, whatever their largest jump is.
    assert len(set(part.recluster(np.array([[0.0], [0.1], [0.2], [9.0], [9.1]])))) == 3


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(LINKAGES), st.integers(5, 14))
def test_permuted_items_permute_labels(seed, linkage, n):
    rng = np.random.default_rng(seed)
    x, order = rng.normal(size=(n, 3)), rng.permutation(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        part = hierarchical(x, linkage, k=3)
    assert same(part.recluster(x[order]), part.labels[order])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_scaled_shifted_and_turned_features_leave_wards_labels(seed, scale, shift):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(11, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    part = hierarchical(x, k=4)
    assert part.recluster(scale * x @ turn + shift).tolist() == part.labels.tolist()


def test_kmeans_reaches_the_sum_of_squares_of_r():
    part = kmeans(PLANTED, 3)
    assert part.statistics["within_ss"] == pytest.approx(R["kmeans"]["within"], rel=1e-12)
    assert part.statistics["between_share"] == pytest.approx(R["kmeans"]["between"], rel=1e-12)
    assert same(part.labels, R["kmeans"]["cluster"])
    assert part.recluster(PLANTED.to_numpy()).tolist() == part.labels.tolist()


def test_kmeans_is_the_best_of_all_partitions_of_few_items():
    x = np.random.default_rng(5).normal(size=(8, 2))

    def within(mask):
        return sum(((x[m] - x[m].mean(0)) ** 2).sum() for m in (mask, ~mask) if m.any())

    masks = [np.array([bool(b >> i & 1) for i in range(8)]) for b in range(1, 128)]
    assert kmeans(x, 2, n_init=50).statistics["within_ss"] == pytest.approx(min(map(within, masks)))


def test_the_seed_is_recorded_and_one_from_a_generator_too():
    part = kmeans(PLANTED, 3, rng=np.random.default_rng(1))
    again = kmeans(PLANTED, 3, rng=part.seed)
    assert again.seed == part.seed == part.parameters["seed"]
    assert again.labels.tolist() == part.labels.tolist()
    assert isinstance(gaussian_mixture(PLANTED.iloc[:, :1], 2, rng=None).seed, int)


def test_mixtures_reach_the_likelihood_of_mclust_and_bic_with_its_sign_turned():
    table = gaussian_mixture(PLANTED.iloc[:, :2], [1, 2, 3], n_init=20).criterion
    both = pd.DataFrame(R["mixtures"]).merge(table, on=["k", "covariance"], suffixes=("", "_made"))
    assert len(both) == 12
    # Where mclust gives nothing, the fit is singular.
    assert (both["status"] == "singular").tolist() == both["bic"].isna().tolist()
    both = both.dropna()
    assert (both["parameters"] == both["parameters_made"]).all()
    better = both["log_likelihood_made"] - both["log_likelihood"]
    assert (better > -1e-5).all()
    assert (better.abs() < 1e-5).sum() >= 10  # mclust's one start misses the best of tied, k = 2
    np.testing.assert_allclose(both["bic_made"], both["bic"] - 2 * better, atol=1e-8)


def test_the_mixture_has_the_least_bic_and_posteriors():
    part = gaussian_mixture(PLANTED)
    assert part.labels.tolist() == kmeans(PLANTED, 3).labels.tolist()
    assert part.statistics["bic"] == part.criterion["bic"].min()
    assert part.probabilities.min() > 0.9
    assert part.recluster(PLANTED.to_numpy()).tolist() == part.labels.tolist()
    one = gaussian_mixture(np.random.default_rng(0).normal(size=(60, 2)), [1, 2, 3], n_init=2)
    assert one.n_clusters == 1


def test_hdbscan_is_the_packages_with_labels_in_order():
    from hdbscan import HDBSCAN

    x = PLANTED.to_numpy()[::-1]
    part = hdbscan(x, 3)
    theirs = HDBSCAN(3, algorithm="prims_kdtree", gen_min_span_tree=True, core_dist_n_jobs=1).fit(x)
    assert same(part.labels, theirs.labels_)
    np.testing.assert_allclose(part.probabilities, theirs.probabilities_, atol=1e-12)
    np.testing.assert_allclose(part.outlier_scores, theirs.outlier_scores_, atol=1e-12)
    assert part.statistics["relative_validity"] == pytest.approx(theirs.relative_validity_)
    for c in range(part.n_clusters):
        old = theirs.labels_[np.flatnonzero(part.labels == c)[0]]
        assert part.persistence[c] == pytest.approx(theirs.cluster_persistence_[old])
    assert part.recluster(x).tolist() == part.labels.tolist()
    assert part.noise.sum() == 2


def test_many_items_give_what_all_distances_give(monkeypatch):
    from dynstat.cluster import density

    rng = np.random.default_rng(4)
    x = np.r_[rng.normal(0, 1, (180, 2)), rng.normal(7, 1, (180, 2)), rng.uniform(-9, 15, (60, 2))]
    part = hdbscan(x, 15)
    monkeypatch.setattr(density, "_ALL_DISTANCES", 400)
    many = hdbscan(x, 15)
    assert part.n_clusters == 2
    assert many.labels.tolist() == many.recluster(x).tolist() == part.labels.tolist()
    np.testing.assert_allclose(many.persistence, part.persistence, rtol=1e-10)


def test_a_partition_travels_after_it_has_reclustered():
    part = hierarchical(PLANTED, k=3)
    part.recluster(PLANTED.to_numpy())
    assert copy.deepcopy(part).recluster(PLANTED.to_numpy()).tolist() == part.labels.tolist()


def test_the_condensed_tree_accounts_for_every_item_and_marks_the_clusters():
    part = hdbscan(PLANTED, 3)
    tree, n = part.condensed_tree, len(PLANTED)
    items = tree[tree["child"] < n]
    assert sorted(items["child"]) == list(range(n))
    chosen = tree[tree["selected"]]
    assert sorted(chosen["cluster"]) == list(range(part.n_clusters))
    # Persistence is the share of a cluster's mass over its life; its bounds follow from the tree.
    assert chosen.set_index("cluster")["child_size"].sort_index().tolist() == part.sizes.tolist()
    for parent, rows in tree.groupby("parent"):
        size = n if parent == n else int(tree.loc[tree["child"] == parent, "child_size"].iloc[0])
        assert rows["child_size"].sum() == size


def test_one_cluster_may_be_the_root():
    x = np.random.default_rng(2).normal(size=(30, 2))
    part = hdbscan(x, 10, allow_single_cluster=True)
    assert part.n_clusters == 1
    assert part.condensed_tree.attrs["root_cluster"] == 0


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_permuted_items_permute_density_clusters(seed):
    rng = np.random.default_rng(seed)
    x = np.r_[rng.normal(0, 1, (9, 2)), rng.normal(12, 1, (9, 2))]
    order = rng.permutation(18)
    part = hdbscan(x, 4)
    assert same(part.recluster(x[order]), part.labels[order])
    assert hdbscan(x, 4).labels.tolist() == part.labels.tolist()


def test_tables_and_print():
    part = hierarchical(PLANTED, k=3)
    assert part.item == "model"
    assert part.members(2) == ("m14", "m16")
    assert part.sizes.tolist() == [7, 8, 2]
    assert part.tidy()["size"].tolist() == [7, 8, 2]
    assert part.glance()["clusters"].item() == 3
    assert part.augment()["model"].tolist() == list(PLANTED.index)
    assert str(part).startswith("Hierarchical clustering: 17 models in 3 clusters")
    assert "<pre>" in part._repr_html_()
    text = str(hdbscan(PLANTED, 3))
    assert "2 noise" in text
    assert "noise (2): m14, m16" in text
    assert hdbscan(PLANTED, 3).tidy()["cluster"].tolist() == [0, 1, -1]


def test_a_given_partition_takes_labels_of_any_kind():
    part = Partition.given(pd.Series(["b", None, "a", "b"], index=["w", "x", "y", "z"]))
    assert part.labels.tolist() == [0, -1, 1, 0]
    assert part.items == ("w", "x", "y", "z")
    assert Partition.given([3, -1, 3]).labels.tolist() == [0, -1, 0]


def test_distances_match_pdist_order():
    from scipy.spatial.distance import squareform

    from dynstat.cluster.distances import distances

    x = np.random.default_rng(0).normal(size=(6, 3))
    np.testing.assert_array_equal(distances(x, "cityblock"), squareform(pdist(x, "cityblock")))
