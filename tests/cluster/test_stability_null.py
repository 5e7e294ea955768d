"""The test of stability: the same numbers as written out slowly, exactness, labels, bad input."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dynstat.cluster import Partition, clusterboot, hdbscan, hierarchical, kmeans, stability_test
from dynstat.cluster.null_sets import KINDS, structureless_many
from dynstat.cluster.reclustering import Reclustering, mean_jaccards
from dynstat.cluster.stability_null import word
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.plotting.style import save_svg

ORACLES = Path(__file__).parents[1] / "oracles" / "cluster"
DATA = json.loads((ORACLES / "clusterboot.json").read_text())["data"]


def _frame(name):
    items = pd.Index(DATA[name]["items"], name="model")
    return pd.DataFrame(np.array(DATA[name]["values"], dtype=float), items)


def test_equal_to_clusterboot_of_every_set():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, 11, 2))
    items = rng.integers(0, 11, (12, 11))
    how = Reclustering.of(hierarchical(x[0], "average", k=3))
    found = mean_jaccards(x, how, items)
    for one, row in zip(x, found, strict=True):
        slow = clusterboot(one, hierarchical(one, "average", k=3), indices=items).mean
        np.testing.assert_allclose(row, np.sort(slow)[::-1], atol=1e-14)


def test_one_by_one_is_the_same(monkeypatch):
    x = _frame("cloud")
    partition = hierarchical(x, "ward", k=3)
    found = stability_test(x, partition, null_sets=19, replicates=10, rng=2)
    monkeypatch.setattr("dynstat.cluster.reclustering._FEW", 0)
    again = stability_test(x, partition, null_sets=19, replicates=10, rng=2)
    np.testing.assert_allclose(found.ranked, again.ranked, atol=1e-14)
    assert found.p == again.p


def test_p_is_exact_under_a_gaussian_of_any_covariance():
    """Rotation, 5 items in 2 features of very unequal variance: p is uniform on its grid."""
    rng = np.random.default_rng(3)
    how = Reclustering.of(hierarchical(rng.normal(size=(6, 2)), "ward", k=2))
    items = rng.integers(0, 6, (40, 6))
    x = rng.normal(size=(800, 6, 2)) * [1.0, 10.0]
    observed = mean_jaccards(x, how, items).mean(axis=1)
    sets = structureless_many(x, "rotation", 19, rng)
    null = mean_jaccards(sets.reshape(-1, 6, 2), how, items).mean(axis=1).reshape(800, 19)
    p = (1 + (null >= observed[:, None]).sum(axis=1)) / 20
    for alpha in (0.05, 0.25, 0.5):
        # At most alpha with ties, and near it where there are few; 1 in 1,000.
        assert stats.binomtest(int((p <= alpha + 1e-9).sum()), 800, alpha, "greater").pvalue > 1e-3
    assert np.mean(p <= 0.5) > 0.4


def test_planted_is_found_and_cloud_is_not():
    rng = np.random.default_rng(8)
    groups = rng.normal(size=(18, 3)) + 8 * np.repeat(np.eye(3), 6, axis=0)
    found = stability_test(groups, hierarchical(groups, "ward", k=3), null_sets=199, replicates=100, rng=1)
    cloud = _frame("cloud")
    none = stability_test(cloud, hierarchical(cloud, "ward", k=2), null_sets=199, replicates=100, rng=1)
    assert found.p < 0.05 < none.p
    # The textbook calls one cluster of the cloud valid; the null shows how often that happens.
    table = none.tidy()
    assert table["word"][0] == "valid" and table["p.value"][0] > 0.1
    assert found.verdict.startswith("More stable") and none.verdict.startswith("Not shown")


def test_p_counts_sets_that_reach_the_value():
    for statistic, slow in (("mean", np.mean), ("min", np.min), ("max", np.max)):
        found = stability_test(
            _frame("cloud"),
            hierarchical(_frame("cloud"), "ward", k=3),
            statistic=statistic,
            null_sets=99,
            replicates=20,
        )
        np.testing.assert_allclose(found.draws, slow(found.ranked, axis=1))
        assert found.value == pytest.approx(slow(found.stability.mean))
        assert found.p == (1 + np.sum(found.draws >= found.value)) / 100
        table = found.tidy()
        assert np.all(np.diff(found.ranked, axis=1) <= 0)
        for rank, row in table.iterrows():
            assert row["p.value"] == (1 + np.sum(found.ranked[:, rank] >= row["estimate"])) / 100
            assert row["p.any"] >= row["p.value"]
        made = found.estimates()
        e = made[f"stability.{statistic}"]
        assert (e.null["p"], e.null["replicates"], e.unit) == (found.p, 99, "model")
        assert e.value == pytest.approx(found.value)


def test_words_stand_beside_p():
    assert [word(v) for v in (0.2, 0.5, 0.51, 0.6, 0.74, 0.75, 0.85, 1.0)] == [
        "dissolved",
        "dissolved",
        "not to be trusted",
        "a pattern",
        "a pattern",
        "valid",
        "highly stable",
        "highly stable",
    ]
    table = stability_test(
        _frame("cloud"), hierarchical(_frame("cloud"), k=2), null_sets=19, replicates=10
    ).tidy()
    assert {"word", "p.value", "null.q50", "null.q95"} <= set(table)


@pytest.mark.parametrize("null", list(KINDS))
def test_every_null_and_the_result(null, tmp_path):
    x = _frame("planted")
    found = stability_test(x, hierarchical(x, "ward", k=3), null=null, null_sets=39, replicates=20, rng=6)
    again = stability_test(x, hierarchical(x, "ward", k=3), null=null, null_sets=39, replicates=20, rng=6)
    np.testing.assert_array_equal(found.draws, again.draws)
    assert found.glance()["seed"][0] == 6
    assert KINDS[null] in str(found) and "p = " in found._repr_html_()
    text = found.alt_text()
    assert f"({null})" in text and "17 models" in text
    path = save_svg(found.plot(), tmp_path / "a.svg", text)
    assert path.read_bytes() == save_svg(again.plot(), tmp_path / "b.svg", text).read_bytes()


def test_other_methods_and_choices_of_k():
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(0, 0.4, (15, 2)), rng.normal(5, 0.4, (15, 2))])
    for partition in (
        kmeans(x, 2, n_init=2),
        hdbscan(x, min_cluster_size=5),
        hierarchical(x, "ward", gap=True),
        hierarchical(x, "average", height=3.0),
    ):
        found = stability_test(x, partition, null_sets=19, replicates=10, rng=1)
        assert found.stability.mean.min() > 0.9
        assert found.p <= 0.3
    given = Partition.given([0] * 15 + [1] * 15)
    how = hierarchical(x, "ward", k=2).recluster
    assert stability_test(x, given, recluster=how, null_sets=19, replicates=10).p <= 0.3
    # k is chosen anew on every set: they do not all hold two clusters.
    by_gap = stability_test(x, hierarchical(x, "ward", gap=True), null_sets=19, replicates=10, rng=1)
    assert by_gap.ranked.shape[1] > 2


def test_a_set_without_clusters_has_stability_zero():
    def nearly_never(x):
        return np.where(x[:, 0] > np.median(x[:, 0]), 1, 0) if x[0, 0] == 77.0 else np.zeros(len(x), int)

    x = np.random.default_rng(0).normal(size=(10, 2))
    x[0, 0] = 77.0
    partition = Partition.given(nearly_never(x))
    found = stability_test(x, partition, recluster=nearly_never, null_sets=19, replicates=10)
    assert np.all(found.draws == 0)


def test_bad_input():
    x = _frame("cloud")
    partition = hierarchical(x, k=2)
    for options in (
        {"null": "poisson"},
        {"statistic": "median"},
        {"null_sets": 10},
        {"replicates": 5},
        {"scheme": "noise"},
    ):
        with pytest.raises(DynstatError) as caught:
            stability_test(x, partition, **options)
        assert caught.value.code == "S404"
    for data, bad, code in (
        (x, hierarchical(x, k=1), "S405"),
        (x, Partition.given([-1] * 17, items=list(x.index)), "S405"),
        (x.iloc[:3], hierarchical(x.iloc[:3], k=2), "S405"),
        (x.iloc[:9], partition, "S407"),
    ):
        with pytest.raises(DynstatError) as caught:
            stability_test(data, bad)
        assert caught.value.code == code
    with pytest.warns(DynstatWarning) as seen:
        wide = x.assign(flat=1.0)
        stability_test(wide, hierarchical(x, k=2), null_sets=19, replicates=10)
    assert len(seen) == 1


def test_calibration_decides_as_the_test_does():
    from benchmarks.calibration_structure import CASES, SETS, planted, rejected, verdict

    rng = np.random.default_rng(2)
    x = planted(8.0, 2, 6, 17, 6, rng)
    hit, means = rejected(x, 2, "rotation", np.random.default_rng(1))
    assert hit.sum() >= 4 and means.shape == (6, 2)
    none, _ = rejected(rng.normal(size=(6, 17, 6)), 2, "rotation", np.random.default_rng(1))
    assert none.sum() <= 2 and SETS >= 19
    names = [c.name for c in CASES]
    assert len(set(names)) == len(names)
    case = next(c for c in CASES if c.rule == "within")
    assert verdict(case, 0.05, 1000, False) == "" and verdict(case, 0.02, 1000, False).startswith("below")
    assert verdict(case, 0.07, 1000, False).startswith("above") and verdict(case, 0.07, 100, True) == ""
