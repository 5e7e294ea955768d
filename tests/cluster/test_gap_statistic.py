"""The gap statistic against R's clusGap on shared reference sets, the rules against maxSE, bad input."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster.dispersion import RULES, choose_k, gap_statistic
from dynstat.errors import DynstatError

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "structure.json").read_text())


def _shaped(rows):
    x = np.array(rows, dtype=float)
    return x[:, None] if x.ndim == 1 else x


@pytest.mark.parametrize("case", ORACLE["gaps"], ids=lambda c: f"{c['space']}-{c['power']}")
def test_equals_clusgap_on_its_references(case):
    x = _shaped(case["data"])
    sets = np.stack([_shaped(z) for z in case["references"]])
    g = gap_statistic(x, "ward", k_max=4, references=sets, power=case["power"])
    for column, name in (("log_w", "logW"), ("expected_log_w", "E.logW"), ("gap", "gap"), ("se", "SE")):
        assert g.table[column].to_numpy() == pytest.approx(case[name], abs=1e-10)
    assert dict(g.rules) == case["k"]


@pytest.mark.parametrize("case", ORACLE["gaps"][:3], ids=range(3))
def test_own_references_equal_those_of_r_in_the_mean(case):
    x = _shaped(case["data"])
    g = gap_statistic(x, k_max=4, references=case["space"], power=case["power"], null_sets=300, rng=2)
    error = 4 * np.array(case["SE"]) * np.sqrt(1 / 6 + 1 / 300)
    assert np.all(np.abs(g.table["expected_log_w"] - case["E.logW"]) < error + 0.02)
    # The shape of a uniform set does not depend on location or rotation of the data.
    assert g.references == case["space"]


def test_rules_equal_maxse():
    for case in ORACLE["rules"]:
        assert {r: choose_k(case["gap"], case["SE"], r) for r in RULES} == case["k"]


def test_rotation_changes_nothing_with_principal_components():
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(0, 1, (8, 3)), rng.normal(4, 1, (7, 3))])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    a, b = (gap_statistic(z, null_sets=200, rng=1, k_max=4) for z in (x, x @ turn + 3))
    assert a.table["log_w"].to_numpy() == pytest.approx(b.table["log_w"].to_numpy(), abs=1e-10)
    assert a.k == b.k == 2


def test_one_cluster_is_an_answer():
    x = np.random.default_rng(5).random((30, 2))
    assert gap_statistic(x, rule="Tibs2001SEmax", null_sets=100).k == 1


def test_methods_agree_on_plain_groups():
    rng = np.random.default_rng(6)
    x = pd.DataFrame(np.concatenate([rng.normal(c, 0.2, (6, 2)) for c in (0, 3, 9)]))

    def thirds(values, k):
        order = np.argsort(np.argsort(values[:, 0]))
        return order * k // len(order)

    assert [gap_statistic(x, m, null_sets=12, k_max=4).k for m in ("average", "kmeans", thirds)] == [3] * 3


def test_result():
    g = gap_statistic(np.arange(12.0)[:, None] ** 2, null_sets=50, rng=9)
    assert g.tidy()["k"].tolist() == [1, 2, 3, 4, 5, 6] and g.seed == 9
    assert set(g.estimates()) == {f"gap.{k}" for k in range(1, 7)}
    assert "number of clusters" in str(g) and "k = 1:" in g.alt_text() and g.plot().axes
    assert g.glance().loc[0, "k"] == g.k


@pytest.mark.parametrize(
    "call, code",
    [
        (lambda x: gap_statistic(x[:3]), "S403"),
        (lambda x: gap_statistic(x, k_max=1), "S404"),
        (lambda x: gap_statistic(x, k_max=9), "S404"),
        (lambda x: gap_statistic(x, "wards"), "S404"),
        (lambda x: gap_statistic(x, rule="best"), "S404"),
        (lambda x: gap_statistic(x, references="normal"), "S404"),
        (lambda x: gap_statistic(x, references=np.zeros((5, 2, 2))), "S404"),
        (lambda x: gap_statistic(x, null_sets=1), "S404"),
        (lambda x: gap_statistic(np.repeat([0.0, 1.0], 4), k_max=3), "S405"),
        (lambda x: gap_statistic(np.ones((8, 2))), "S405"),
    ],
)
def test_bad_input(call, code):
    with pytest.raises(DynstatError) as e:
        call(np.random.default_rng(0).normal(size=(9, 2)))
    assert e.value.code == code
