"""ARI and AMI against mclust, scikit-learn and full enumeration; fixture 8; noise, draws, bad input."""

import json
from itertools import permutations as every_order
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from dynstat.cluster.chance import INDICES, permutation_null
from dynstat.cluster.concordance import adjusted_mutual_information, adjusted_rand
from dynstat.cluster.linkage_trees import hierarchical
from dynstat.cluster.partition import Partition
from dynstat.cluster.unit_features import UnitFeatures
from dynstat.errors import DynstatError, DynstatWarning

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "structure.json").read_text())["ari"]
SHARED = ["GPT-2", "DistilGPT-2", "Phi-1.5", "OPT-125M", "Qwen2.5-0.5B", "TinyLlama-1.1B"]
V20 = dict(zip(SHARED, "uuulll", strict=True))
V22 = dict(zip(SHARED, "AABBBB", strict=True))


def test_fixture_8():
    e = adjusted_rand(V20, V22)
    assert e.value == pytest.approx(0.324, abs=5e-4)
    assert e.null["p"] == pytest.approx(0.4) and e.null["exact"]
    # The pair of V22 falls within one group of three in 6 of 15 dealings: no dealing agrees more.
    assert e.null["smallest p"] == pytest.approx(0.4) and np.isnan(e.null["smallest index at .05"])
    assert e.pivot is None and "none" in e.interval


def test_ari_equals_mclust():
    for case in ORACLE:
        if case["value"] is not None and case["value"] != "NaN":
            assert INDICES["ari"].of(case["a"], case["b"]) == pytest.approx(case["value"], abs=1e-12)


LABELS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 5), min_size=n, max_size=n) for _ in range(2)])
)


@settings(max_examples=200, deadline=None)
@given(LABELS)
def test_both_equal_scikit_learn(pair):
    a, b = pair
    assert INDICES["ari"].of(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert INDICES["ami"].of(a, b) == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-12)


@pytest.mark.parametrize("index", ["ari", "ami"])
@pytest.mark.parametrize(
    "a, b", [([0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 2, 2]), ([0, 0, 1, 1, 2, 3], [0, 1, 1, 1, 2, 0])]
)
def test_null_equals_full_enumeration(index, a, b):
    every = np.array([INDICES[index].of(a, [b[i] for i in order]) for order in every_order(range(len(b)))])
    null = permutation_null(a, b, index)
    assert null.exact and null.probability.sum() == pytest.approx(1)
    for value in np.unique(every.round(9)):
        assert null.p(value) == pytest.approx(np.mean(every >= value - 1e-7))
    assert null.values @ null.probability == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("index", ["ari", "ami"])
def test_drawn_null_equals_the_counted_one(index, monkeypatch):
    from dynstat.cluster import chance

    a, b = [0] * 6 + [1] * 5 + [2] * 6, [0, 1, 2, 3] * 4 + [0]
    exact = permutation_null(a, b, index)
    monkeypatch.setattr(chance, "_STATES", 0)
    chance._count_tables.cache_clear()
    drawn = permutation_null(a, b, index, permutations=20_000, rng=1)
    chance._count_tables.cache_clear()
    assert exact.exact and not drawn.exact and drawn.seed == 1
    for q in (0.5, 0.8, 0.95):
        value = exact.quantile(q)
        assert drawn.p(value) == pytest.approx(exact.p(value), abs=0.015)


def test_seventeen_models_are_counted_exactly_and_large_panels_drawn():
    rng = np.random.default_rng(2)
    few = permutation_null(rng.integers(0, 11, 17), rng.integers(0, 5, 17))
    assert few.exact
    many = permutation_null(rng.integers(0, 12, 300), rng.integers(0, 12, 300), permutations=199)
    assert not many.exact and many.values.size == 199


def test_exact_p_holds_its_level():
    rng = np.random.default_rng(4)
    p = [adjusted_rand(rng.integers(0, 3, 12), rng.integers(0, 3, 12)).null["p"] for _ in range(500)]
    assert np.mean(np.array(p) <= 0.05) < 0.08
    # Small sizes leave few values: the test cannot spend all of its level.
    assert np.mean(np.array(p) <= 0.05) > 0.01


def test_items_are_matched_by_name():
    a = Partition.given(pd.Series(V20))
    b = pd.Series(V22).iloc[::-1]
    assert adjusted_rand(a, b).value == pytest.approx(0.324, abs=5e-4)
    with pytest.raises(DynstatError) as e:
        adjusted_rand(a, b.rename({"GPT-2": "GPT-3"}))
    assert e.value.code == "S407" and "GPT-3" in str(e.value)


def test_noise_is_single_or_dropped():
    a, b = [0, 0, 1, 1, -1, -1, 1], [0, 0, 1, 1, 0, 1, 1]
    single = adjusted_rand(a, b)
    assert single.value == pytest.approx(adjusted_rand_score([0, 0, 1, 1, 2, 3, 1], b))
    dropped = adjusted_rand(a, b, noise="drop")
    assert dropped.value == 1 and dropped.n["items"] == 5
    with pytest.raises(DynstatError) as e:
        adjusted_rand([-1] * 5, [0, 0, 1, 1, 1], noise="drop")
    assert e.value.code == "S403"
    # All noise: nothing agrees with anything, and nothing can be shown.
    assert adjusted_rand([-1] * 5, [0, 0, 1, 1, 1]).null["p"] == 1


def _panel(noise, rng, items=17, prompts=24):
    centre = np.eye(4)[np.arange(items) % 4][:, :3] * 2
    values = centre[:, None] + rng.normal(0, noise, (items, prompts, 3))
    names = tuple(f"m{i:02}" for i in range(items))
    prior = dict(zip(names, (np.arange(items) % 4).tolist(), strict=True))
    return UnitFeatures(values, names, tuple(map(str, range(prompts))), tuple("xyz")), prior


def test_units_give_an_interval():
    units, prior = _panel(1.0, np.random.default_rng(3))
    part = hierarchical(units, "ward", k=4)
    e = adjusted_rand(part, prior, units=units, replicates=199, rng=1)
    assert e.low <= e.value <= e.high <= 1 and e.unit == "prompt" and e.n["units"] == 24 and e.seed == 1
    assert e.diagnostics["self-agreement"] > 0.9 and e.low > 0.7
    labels = np.stack(
        [part.recluster(x) for x in units.build(units.resampler().weights(199, np.random.default_rng(1)))]
    )
    again = adjusted_rand(part, prior, draws=labels, units=24)
    assert (again.low, again.high) == (e.low, e.high)


@pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")
def test_noise_does_not_pass_for_dissolved_families():
    # The partition without noise is the prior: its ARI is 1, that of the one found far lower.
    covered = 0
    for s in range(20):
        units, prior = _panel(4.0, np.random.default_rng(s))
        part = hierarchical(units, "ward", k=4)
        e = adjusted_rand(part, prior, units=units, replicates=99, rng=s)
        assert e.value < 0.8 and e.diagnostics["self-agreement"] < 0.5
        covered += e.limit(0.05, "upper") > 0.99
    assert covered >= 19


def test_a_partition_that_is_not_found_again_warns():
    units, prior = _panel(9.0, np.random.default_rng(1))
    with pytest.warns(DynstatWarning, match="its own replicates"):
        adjusted_rand(hierarchical(units, "ward", k=4), prior, units=units, replicates=99)


def test_draws_that_do_not_move_give_a_point():
    a, b = np.repeat([0, 1, 2], 5), np.array([2, 0, 0, 0, 0, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2])
    same = adjusted_rand(a, b, draws=np.tile(a, (200, 1)), draws_b=np.tile(b, (200, 1)), units=24)
    assert same.low == same.high == pytest.approx(same.value)
    assert same.diagnostics["self-agreement"] == 1


def test_one_cluster_shows_nothing():
    e = adjusted_mutual_information([0] * 6, [0, 0, 1, 1, 2, 2])
    assert e.value == pytest.approx(0, abs=1e-9) and e.null["p"] == 1


@pytest.mark.parametrize(
    "call, code",
    [
        (lambda: adjusted_rand([0, 1], [0, 1]), "S403"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1]), "S407"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1, 1], noise="keep"), "S404"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1, 1], permutations=5), "S404"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1, 1], level=2), "S404"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1, 1], draws=np.zeros((4, 3))), "S404"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1, 1], draws=np.zeros((4, 2)), units=9), "S407"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1, 1], draws=np.zeros((4, 3)), units=1), "S403"),
        (lambda: adjusted_rand([0, 1, 1], [0, 1, 1], units=_panel(1.0, np.random.default_rng(0))[0]), "S407"),
    ],
)
def test_bad_input(call, code):
    with pytest.raises(DynstatError) as e:
        call()
    assert e.value.code == code
