"""One item left out, one item apart, fragmentation."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from dynstat.cluster.fragments import fragmentation
from dynstat.cluster.influence import anomaly_test, leave_one_out
from dynstat.cluster.linkage_trees import hierarchical
from dynstat.cluster.partition import Partition
from dynstat.cluster.unit_features import UnitFeatures
from dynstat.errors import DynstatError


def test_leave_one_out_equals_a_plain_loop():
    x = pd.DataFrame(np.random.default_rng(1).normal(size=(11, 2)))
    whole = hierarchical(x, "average", k=3)
    result = leave_one_out(x, whole, null_sets=0)
    for i in range(11):
        rest = np.delete(np.arange(11), i)
        found = hierarchical(x.iloc[rest], "average", k=3).labels
        before = whole.labels[rest]
        assert result.table["ari"][i] == pytest.approx(adjusted_rand_score(before, found), abs=1e-12)
        sets = [set(rest[found == c]) for c in range(3)]
        each = [
            max(len(a & b) / len(a | b) for b in sets)
            for a in (set(rest[before == c]) for c in np.unique(before))
        ]
        assert result.table["jaccard"][i] == pytest.approx(min(each))


def test_the_item_that_carries_a_partition_is_named():
    # A chain of four and a far point: without the point, the chain is cut.
    x = pd.Series({"a": 0.0, "b": 1.0, "c": 2.1, "d": 3.0, "far": 30.0})
    result = leave_one_out(x, hierarchical(x, "ward", k=2), null_sets=0)
    assert result.most_influential == "far" and result.estimate.value == pytest.approx(0)
    assert result.tidy()["item"].iloc[0] == "far" and "far" in str(result) and result.plot().axes


def test_plain_groups_are_carried_by_no_item():
    x = np.concatenate([np.random.default_rng(2).normal(c, 0.1, (6, 2)) for c in (0, 5)])
    result = leave_one_out(x, hierarchical(x, "ward", k=2), null_sets=99, rng=1)
    assert result.most_influential is None and result.estimate.value == 1
    assert result.estimates()["ari.smallest"].null["p"] < 0.5 and "no item" in str(result)
    assert result.glance().loc[0, "items"] == 12 and "1.00" in result.alt_text()


def test_influence_bad_input():
    x = np.random.default_rng(0).normal(size=(6, 1))
    part = hierarchical(x, k=2)
    for call, code in (
        (lambda: leave_one_out(x[:3], hierarchical(x[:3], k=2)), "S403"),
        (lambda: leave_one_out(x[:5], part), "S407"),
        (lambda: leave_one_out(x, part, null_sets=5), "S404"),
        (lambda: leave_one_out(x, Partition.given([0, 0, 1, 1, 1, 0])), "S404"),
        (lambda: leave_one_out(x, hierarchical(x, k=6), null_sets=0), "S405"),
        (lambda: leave_one_out(x, Partition.given([-1] * 6)), "S405"),
    ):
        with pytest.raises(DynstatError) as e:
            call()
        assert e.value.code == code


def _units(shift, rng, items=6, units=20, features=3):
    values = rng.normal(size=(items, units, features)) + rng.normal(size=(units, 1))[None]
    values[2] += shift
    names = tuple(f"m{i}" for i in range(items))
    return UnitFeatures(values, names, tuple(map(str, range(units))), tuple("xyz"[:features]))


def test_anomaly_finds_the_item_apart():
    u = _units(3.0, np.random.default_rng(3))
    test = anomaly_test(u, permutations=199, rng=1)
    e = test.estimate
    assert test.farthest == "m2" and e.low > 0 and e.null["p"] == pytest.approx(1 / 200)
    x = u.build()
    assert e.null["distance"] == pytest.approx(np.linalg.norm(x[2] - np.delete(x, 2, 0).mean(0)))
    assert e.value == pytest.approx(e.null["distance"] - e.null["q95"]) and e.n["units"] == 20
    assert "m2" in str(test) and test.tidy()["item"].iloc[0] == "m2" and len(test.glance()) == 1


def test_figure_of_an_item_apart():
    values = np.random.default_rng(4).normal(size=(6, 12, 2))
    values[2] += 5
    names = [tuple(f"{c}{i}" for i in range(n)) for c, n in zip("mpf", values.shape, strict=True)]
    found = anomaly_test(UnitFeatures(values, *names), permutations=99)
    marks = [line.get_marker() for line in found.plot().axes[0].lines]
    beyond = (found.table["distance"] > found.estimate.null["q95"]).tolist()
    assert marks == ["s" if b else "o" for b in beyond] and beyond[0]
    assert "m2" in found.alt_text().split(";")[0] and len(found.tidy()["estimate"]) == 6


def test_anomaly_holds_its_level_where_items_are_exchangeable():
    p = [
        anomaly_test(_units(0.0, np.random.default_rng(s), units=6), permutations=99, rng=s).estimate.null[
            "p"
        ]
        for s in range(120)
    ]
    assert 0.0 <= np.mean(np.array(p) <= 0.1) < 0.2 and 0.35 < np.mean(p) < 0.65


def test_anomaly_with_missing_values():
    u = _units(2.0, np.random.default_rng(4))
    values = u.values.copy()
    values[0, :5] = np.nan
    test = anomaly_test(UnitFeatures(values, u.items, u.units, u.names), permutations=99)
    assert test.farthest == "m2" and np.isfinite(test.estimate.low)


def test_anomaly_bad_input():
    u = _units(0.0, np.random.default_rng(5), items=4, units=2)
    with pytest.raises(DynstatError, match="too few"):
        anomaly_test(u)
    with pytest.raises(DynstatError, match="permutations"):
        anomaly_test(u, permutations=3)


def test_fragmentation_formulas():
    labels = [0] * 4 + [1] * 2 + [2] + [-1] * 3
    f = fragmentation(Partition.given(labels))
    assert f.glance().iloc[0].to_dict() == pytest.approx(
        {"clusters_per_item": 6 / 10, "outside_largest": 6 / 10, "singletons": 4 / 10}
    )
    assert set(f.tidy()["origin"]) == {"dynstat"} and "clusters / items" in str(f)
    noise = fragmentation(Partition.given([-1] * 4)).glance().iloc[0]
    assert noise["clusters_per_item"] == 1 and noise["outside_largest"] == 0.75


def test_published_index_is_met_by_eleven_of_seventeen():
    f = fragmentation(Partition.given([*range(11), *[0] * 6]))
    assert round(f.estimates()["clusters_per_item"].value, 2) == 0.65


def test_null_of_fragmentation_says_what_holds_by_construction():
    x = np.random.default_rng(6).normal(size=(12, 2))
    fixed = fragmentation(hierarchical(x, "average", k=4), data=x, null_sets=39).tidy().set_index("term")
    assert fixed.loc["clusters_per_item", "by.construction"]
    assert fixed.loc["clusters_per_item", "null.mean"] == pytest.approx(4 / 12)
    assert not fixed.loc["outside_largest", "by.construction"]
    chosen = fragmentation(hierarchical(x, "average", gap=True), data=x, null_sets=39)
    assert not chosen.tidy()["by.construction"].iloc[0]
    for call, code in (
        (lambda: fragmentation(hierarchical(x, k=2), data=x[:5]), "S407"),
        (lambda: fragmentation(hierarchical(x, k=2), data=x, null_sets=2), "S404"),
        (lambda: fragmentation(Partition.given([0, 1, 1]), data=x[:3]), "S404"),
    ):
        with pytest.raises(DynstatError) as e:
            call()
        assert e.value.code == code
