"""Agreement of many partitions, its verdict, and agreement of methods that saw the same data."""

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster.agreement_table import agreement
from dynstat.cluster.linkage_trees import hierarchical
from dynstat.errors import DynstatError

SHARED = ["GPT-2", "DistilGPT-2", "Phi-1.5", "OPT-125M", "Qwen2.5-0.5B", "TinyLlama-1.1B"]
V20 = dict(zip(SHARED, "uuulll", strict=True))
V22 = dict(zip(SHARED, "AABBBB", strict=True))


def test_verdict_says_that_six_models_can_show_nothing():
    a = agreement({"V20": V20, "V22": V22})
    row = a.table.iloc[0]
    assert row["ari"] == pytest.approx(0.324, abs=5e-4) and row["p.ari"] == pytest.approx(0.4)
    assert np.isnan(row["ari.at.05"]) and row["exact"]
    assert "0 of 1 pair" in a.verdict and "None could" in a.verdict and "0.4" in a.verdict


def test_pairs_p_adjusted_and_matrix():
    rng = np.random.default_rng(0)
    base = np.repeat([0, 1, 2], 6)
    noisy = base.copy()
    noisy[[0, 7]] = 2
    a = agreement({"a": base, "b": noisy, "c": rng.permutation(base)})
    p = a.table["p.ari"].to_numpy()
    order = np.argsort(p)
    expected = np.maximum.accumulate(p[order] * [3, 2, 1]).clip(max=1)
    assert a.table["p.adjusted"].to_numpy()[order] == pytest.approx(expected)
    fdr = agreement({"a": base, "b": noisy, "c": rng.permutation(base)}, adjust="BH")
    assert (fdr.table["p.adjusted"] <= 1).all() and fdr.adjust == "BH"
    assert a.matrix().loc["b", "a"] == a.table["ari"].iloc[0] and np.allclose(np.diag(a.matrix()), 1)
    assert set(a.tidy()["term"]) == {"ari", "ami"} and len(a.tidy()) == 6
    assert "1 of 3 pairs" in a.verdict and "must reach" in a.verdict
    assert a.estimates()["ari.a.b"].key == "ari.a.b"


def test_level_of_the_smallest_index_is_the_one_printed():
    base = np.repeat([0, 1], [5, 6])
    row = agreement({"a": base, "b": np.repeat([0, 1, 2], [4, 4, 3])}).table.iloc[0]
    from dynstat.cluster.chance import permutation_null

    null = permutation_null(base, np.repeat([0, 1, 2], [4, 4, 3]))
    assert null.p(row["ari.at.05"]) <= 0.05
    below = null.values[null.values < row["ari.at.05"] - 1e-6].max()
    assert null.p(below) > 0.05 and row["smallest.p"] == null.p(null.values.max())


def test_methods_on_the_same_data_need_another_null():
    x = pd.DataFrame(np.random.default_rng(3).normal(size=(14, 2)))
    parts = {m: hierarchical(x, m, k=2) for m in ("complete", "average", "ward")}
    a = agreement(parts, data=x, null_sets=59, rng=1)
    assert (a.table["p.structureless"] > 0.02).all() and (a.table["null.median"] > 0.05).all()
    assert "same data" in a.verdict
    again = agreement(parts, data=x, null_sets=59, rng=1)
    assert again.table.equals(a.table)


def test_reference_and_output():
    rng = np.random.default_rng(5)
    parts = {c: rng.integers(0, 2, 9) for c in "abcd"}
    a = agreement(parts, reference="c", rng=2)
    assert len(a.table) == 3 and ((a.table["a"] == "c") | (a.table["b"] == "c")).all()
    assert "Agreement of 4 partitions" in str(a) and a.plot().axes and a.verdict in a.alt_text()
    assert a.glance().loc[0, "pairs"] == 3 and "<pre>" in a._repr_html_()


@pytest.mark.parametrize(
    "call, code",
    [
        (lambda: agreement({"a": [0, 0, 1]}), "S404"),
        (lambda: agreement({"a": [0, 0, 1], "b": [0, 1]}), "S407"),
        (lambda: agreement({"a": V20, "b": {**V22, "x": "A"}}), "S407"),
        (lambda: agreement({"a": V20, "b": V22}, reference="c"), "S407"),
        (lambda: agreement({"a": V20, "b": V22}, adjust="none"), "S404"),
        (lambda: agreement({"a": V20, "b": V22}, alpha=0), "S404"),
        (lambda: agreement({"a": V20, "b": V22}, data=np.arange(6.0)), "S404"),
        (lambda: agreement({"a": V20, "b": V22}, data=np.arange(6.0), null_sets=3), "S404"),
        (lambda: agreement({"a": [-1] * 5, "b": [-1] * 5}, noise="drop"), "S403"),
    ],
)
def test_bad_input(call, code):
    with pytest.raises(DynstatError) as e:
        call()
    assert e.value.code == code


def test_all_noise_as_single_items_shows_nothing():
    a = agreement({"a": [-1] * 5, "b": [0, 0, 1, 1, 1]})
    assert a.table["p.ari"].iloc[0] == 1 and "None could" in a.verdict
