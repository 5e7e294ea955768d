"""Bootstrapped stability against fpc, scipy, definitions written out, and bad input."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from dynstat.cluster import Partition, clusterboot, hierarchical, kmeans
from dynstat.cluster.jaccard import adjusted_rand_of, best_jaccard, contingency
from dynstat.cluster.many_cuts import cut_many
from dynstat.cluster.partition import in_order
from dynstat.cluster.schemes import draw, jitter_sd
from dynstat.errors import DynstatError, DynstatWarning

ORACLES = Path(__file__).parents[1] / "oracles" / "cluster"
FPC = json.loads((ORACLES / "clusterboot.json").read_text())


def _values(name):
    return np.array(FPC["data"][name]["values"], dtype=float)


def _tree(k, method, noisecut=0):
    method = {"ward.D2": "ward"}.get(method, method)

    def run(x):
        labels = in_order(fcluster(linkage(x, method), k, "maxclust")) if len(x) > 1 else np.zeros(1, int)
        sizes = np.bincount(labels)
        return in_order(np.where(sizes[labels] > noisecut, labels, -1))

    return run


def _means(k):
    from sklearn.cluster import KMeans

    return lambda x: in_order(KMeans(k, n_init=50, random_state=0).fit(x).labels_)


def _dense(eps, smallest):
    from sklearn.cluster import DBSCAN

    return lambda x: DBSCAN(eps=eps, min_samples=smallest).fit(x).labels_


def _partition_and_method(case):
    x, options = _values(case["data"]), case["options"]
    if case["method"] == "kmeans":
        # Many starts, as fpc's: both then find the least sum of squares.
        run = _means(options["k"])
        return Partition.given(run(x)), run
    if case["method"] == "dbscan":
        run = _dense(options["eps"], options["MinPts"])
    elif "noisecut" in options:
        run = _tree(options["k"], case["method"], options["noisecut"])
    else:
        return hierarchical(x, {"ward.D2": "ward"}.get(case["method"], case["method"]), k=options["k"]), None
    return Partition.given(run(x)), run


@pytest.mark.parametrize("at", range(len(FPC["cases"])))
def test_equal_to_fpc_on_shared_draws(at):
    case = FPC["cases"][at]
    x = _values(case["data"])
    partition, run = _partition_and_method(case)
    found = clusterboot(
        x,
        partition,
        scheme=case["scheme"],
        multiple=case["multiple"],
        indices=case.get("indices"),
        perturbed=case.get("perturbed"),
        recluster=run,
    )
    # fpc numbers clusters by its own method; noise is its last.
    theirs = np.array(case["partition"]) - 1
    order = [int(theirs[partition.labels == c][0]) for c in range(partition.n_clusters)]
    jaccard = np.array(case["jaccard"], dtype=float)
    np.testing.assert_allclose(found.jaccard, jaccard[:, order], atol=1e-10)
    np.testing.assert_allclose(found.mean, np.array(case["mean"])[order], atol=1e-10)
    table = found.tidy()
    k = partition.n_clusters
    assert table["dissolved"][:k].tolist() == np.array(case["dissolved"])[order].tolist()
    assert table["recovered"][:k].tolist() == np.array(case["recovered"])[order].tolist()
    assert (found.noise is not None) == partition.noise.any()
    if found.noise is not None:
        assert case["clusters"] == k
        np.testing.assert_allclose(found.noise, jaccard[:, -1], atol=1e-10)


@pytest.mark.parametrize(
    ("name", "k", "key"),
    [
        ("planted", 3, "clusterboot"),
        ("cloud", 3, "clusterboot"),
        ("cloud", 2, "clusterboot2"),
        ("gd_ratio", 2, "clusterboot_log"),
    ],
)
def test_means_of_fpc_within_monte_carlo_error(name, k, key):
    theirs = json.loads((ORACLES / "clusters.json").read_text())["cases"][name][key]
    x = _values(name)
    partition = hierarchical(x, "ward", k=k)
    assert partition.labels.tolist() == (np.array(theirs["partition"]) - 1).tolist()
    found = clusterboot(x, partition, replicates=2000, rng=5)
    # Both means are over 2,000 draws: the error of their difference is √2 of one. 4.4: 1 in 100,000 each.
    error = found.jaccard.std(axis=0, ddof=1) * np.sqrt(2 / 2000)
    assert np.all(np.abs(found.mean - theirs["mean_jaccard"]) < 4.4 * error + 1e-12)
    share = np.mean(found.jaccard <= 0.5, axis=0)
    theirs_share = np.array(theirs["dissolved"]) / 2000
    spread = np.sqrt(2 * np.maximum(share, 5 / 2000) * (1 - share) / 2000)
    assert np.all(np.abs(share - theirs_share) < 4.4 * spread + 1e-12)


def _cloud(n=12, p=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, p))


@pytest.mark.parametrize("method", ["ward", "average", "complete", "single", "weighted"])
@pytest.mark.parametrize("n", [3, 8, 17, 41])
def test_many_cuts_equal_scipy(method, n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(6, n, 3))
    present = rng.random((6, 9, n)) < 0.64
    present[:, :, :2] = True
    for k in (2, min(n, 5)):
        found = cut_many(x, k, method, present=present)
        for s in range(6):
            for b in range(9):
                own = np.flatnonzero(present[s, b])
                slow = in_order(fcluster(linkage(x[s, own], method), k, "maxclust"))
                assert found[s, b, own].tolist() == slow.tolist()
                assert np.all(found[s, b, ~present[s, b]] == -2)
    whole = cut_many(x, 2, method)
    assert whole[0].tolist() == in_order(fcluster(linkage(x[0], method), 2, "maxclust")).tolist()


def test_many_cuts_in_parts_are_the_same(monkeypatch):
    x, present = _cloud(9)[None].repeat(5, axis=0) + np.arange(5)[:, None, None], np.ones((7, 9), bool)
    present[:, 4] = False
    whole = cut_many(x, 3, "ward", present=present)
    monkeypatch.setattr("dynstat.cluster.many_cuts._CHUNK", 200)
    np.testing.assert_array_equal(cut_many(x, 3, "ward", present=present), whole)


def _slow_jaccard(reference, found):
    seen = [i for i in range(len(found)) if reference[i] != -2 and found[i] != -2]
    out = []
    for c in [*range(max(reference) + 1), -1]:
        mine = {i for i in seen if reference[i] == c}
        others = [-1] if c == -1 else range(max(found) + 1)
        best = 0.0
        for d in others:
            theirs = {i for i in seen if found[i] == d}
            if mine | theirs:
                best = max(best, len(mine & theirs) / len(mine | theirs))
        out.append(best)
    return out


def test_jaccard_and_rand_as_defined():
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(3)
    reference = rng.integers(-1, 3, (40, 15))
    reference[:, :4] = [0, 1, 2, -1]
    found = rng.integers(-2, 4, (40, 15))
    table = contingency(reference, found)
    slow = [_slow_jaccard(r.tolist(), f.tolist()) for r, f in zip(reference, found, strict=True)]
    np.testing.assert_allclose(best_jaccard(table), slow, atol=1e-15)
    for value, r, f in zip(adjusted_rand_of(table), reference, found, strict=True):
        assert value == pytest.approx(adjusted_rand_score(r[f != -2], f[f != -2]), abs=1e-12)


def test_an_empty_cluster_and_no_clusters_found_give_zero():
    table = contingency(np.array([[0, 0, 1, 1]]), np.array([[0, 0, -2, -2]]))
    assert best_jaccard(table)[0].tolist() == [1.0, 0.0, 0.0]
    nothing = contingency(np.array([[0, 0, 1, 1]]), np.array([[-1, -1, -1, -1]]))
    assert best_jaccard(nothing)[0, :2].tolist() == [0.0, 0.0]


def test_many_and_few_items_agree(monkeypatch):
    """Both ways to recluster, all replicates at once and one after the other, give the same."""
    x = _cloud(20)
    for method in ("ward", "average"):
        partition = hierarchical(x, method, k=4)
        for scheme in ("boot", "subset", "noise", "jitter", "bojit"):
            at_once = clusterboot(x, partition, scheme=scheme, replicates=30, rng=2)
            with monkeypatch.context() as m:
                m.setattr("dynstat.cluster.reclustering._FEW", 0)
                one_by_one = clusterboot(x, partition, scheme=scheme, replicates=30, rng=2)
            np.testing.assert_array_equal(at_once.jaccard, one_by_one.jaccard)
            np.testing.assert_allclose(at_once.rand, one_by_one.rand)
    assert clusterboot(x, partition, multiple=True, rng=2).multiple


def test_schemes_draw_what_they_say():
    x = _cloud(200, 2) * [1.0, 5.0]
    rng = np.random.default_rng(0)
    assert draw(x, "subset", 5, rng).items.shape == (5, 100)
    assert all(np.unique(row).size == 30 for row in draw(x, "subset", 5, rng, subset=30).items)
    noise = draw(x, "noise", 200, rng)
    assert noise.items.min() == -1
    assert np.mean(noise.items == -1) == pytest.approx(0.05, abs=0.004)
    np.testing.assert_array_equal(noise.values[noise.items >= 0], x[noise.items[noise.items >= 0]])
    put = noise.values[noise.items == -1]
    # Uniform within 4 standard deviations: its own is 4/√3 of the data's.
    np.testing.assert_allclose(put.std(axis=0), 4 / np.sqrt(3) * x.std(axis=0), rtol=0.06)
    jitter = draw(x, "jitter", 300, rng).values - x
    axes = np.linalg.eigh(np.cov(x.T))[1]
    np.testing.assert_allclose((jitter @ axes).std(axis=(0, 1)), jitter_sd(x @ axes), rtol=0.03)


def test_result_and_seed():
    x = pd.DataFrame(_cloud(14), index=pd.Index([f"m{i}" for i in range(14)], name="model"))
    partition = hierarchical(x, "ward", k=2)
    found = clusterboot(x, partition, replicates=40, rng=8)
    np.testing.assert_array_equal(found.jaccard, clusterboot(x, partition, replicates=40, rng=8).jaccard)
    made = found.estimates()
    e = made["jaccard.1"]
    assert (e.unit, e.seed, e.n["models"], e.n["replicates"]) == ("model", 8, 14, 40)
    assert e.low <= e.value <= e.high <= 1
    assert made["rand"].value == pytest.approx(found.rand.mean())
    table = found.tidy()
    assert table["size"].tolist() == [*partition.sizes.tolist(), 14]
    assert "word" not in table
    assert f"Cluster 1 of {partition.sizes[1]}: mean" in found.alt_text() and "no null" in found.alt_text()
    assert "stable" not in str(found).replace("Cluster stability", "")
    assert found.glance()["least"][0] == found.mean.min()
    assert len(found.plot().axes) == 1
    assert "&lt;=" in found._repr_html_()


def test_hdbscan_with_noise():
    from dynstat.cluster import hdbscan

    rng = np.random.default_rng(4)
    x = np.concatenate(
        [rng.normal(0, 0.3, (25, 2)), rng.normal(6, 0.3, (25, 2)), rng.uniform(-4, 10, (8, 2))]
    )
    partition = hdbscan(x, min_cluster_size=6)
    assert partition.noise.any()
    found = clusterboot(x, partition, replicates=20, scheme="subset", subset=40, rng=1)
    assert found.noise is not None
    assert found.tidy()["cluster"].tolist()[-2:] == ["noise", "all (adjusted Rand)"]
    assert found.mean.min() > 0.6


def test_fewer_different_items_than_clusters_in_a_resample():
    x = _cloud(5)
    for partition in (hierarchical(x, "ward", k=4), kmeans(x, 4)):
        found = clusterboot(x, partition, indices=[[0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [1, 1, 2, 2, 2]])
        own = partition.labels[0]
        assert found.jaccard[0, own] in (1.0, 0.5)
        assert found.jaccard[0].sum() == 1.0
        assert found.jaccard[1].tolist() == [1.0] * 4


X = _cloud()
PARTITION = hierarchical(X, "ward", k=2)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("S404", {"scheme": "jackknife"}),
        ("S404", {"replicates": 3}),
        ("S404", {"replicates": 12.5}),
        ("S404", {"level": 1.2}),
        ("S404", {"scheme": "subset", "subset": 12}),
        ("S404", {"indices": [[0, 1, 12], [0, 1, 2]]}),
        ("S404", {"indices": [[0, 1, -1], [0, 1, 2]]}),
        ("S404", {"indices": [0, 1, 2]}),
        ("S404", {"indices": [[0.5, 1, 2]]}),
        ("S404", {"indices": np.empty((0, 4), dtype=int)}),
        ("S404", {"indices": [[0, 1, 2], [3, 4, 5]], "scheme": "noise"}),
        ("S404", {"perturbed": np.zeros((3, 12, 2)), "scheme": "jitter"}),
        ("S404", {"perturbed": np.zeros((3, 4, 3)), "scheme": "jitter"}),
        ("S404", {"perturbed": np.zeros((3, 4, 3)), "indices": np.zeros((3, 5), int), "scheme": "noise"}),
        ("S404", {"recluster": lambda x: x}),
    ],
)
def test_bad_arguments(code, options):
    with pytest.raises(DynstatError) as caught:
        clusterboot(X, PARTITION, **options)
    assert caught.value.code == code


def test_bad_partitions():
    cases = [
        ("S405", X, Partition.given([-1] * 12)),
        ("S407", X[:-1], PARTITION),
        ("S407", pd.DataFrame(X, index=list("abcdefghijkl")), PARTITION),
        ("S404", X, Partition.given([0] * 6 + [1] * 6)),
    ]
    for code, data, partition in cases:
        with pytest.raises(DynstatError) as caught:
            clusterboot(data, partition)
        assert caught.value.code == code
    with pytest.raises(DynstatError) as caught:
        clusterboot(np.ones((12, 3)), PARTITION)
    assert caught.value.code == "S405"
    with pytest.warns(DynstatWarning, match="one cluster holds every item"):
        clusterboot(X, hierarchical(X, "ward", k=1), replicates=10)


def test_constant_feature_changes_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        wide = np.column_stack([X, np.full(12, 7.0)])
        found = clusterboot(wide, hierarchical(wide, "ward", k=2), rng=3)
    np.testing.assert_array_equal(found.jaccard, clusterboot(X, PARTITION, rng=3).jaccard)
