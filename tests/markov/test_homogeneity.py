"""Tests of chains: statistics against R, p-values against every arrangement, and what is refused."""

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.adjusted import holm
from dynstat.markov import Sequences, count_transitions, homogeneity_test, order_test, stationarity_test
from dynstat.markov.contingency import phi_square, statistics, total_variation
from dynstat.markov.null_chains import draw_chain
from dynstat.markov.permuting import NullDraws, arrange, count_arrangements

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "chain_tests.json").read_text(encoding="utf-8"))
QUICK = {"permutations": 99, "replicates": 99}


def panel(models=3, prompts=8, samples=2, steps=30, states=3, seed=0, shift=0.0):
    """Sequences crossed by model and prompt; prompts differ; category b's chains lie `shift` apart."""
    rng = np.random.default_rng(seed)
    base = rng.dirichlet(np.full(states, 3.0), states)
    p = rng.gamma(8 * base, size=(prompts, states, states))
    p /= p.sum(axis=2, keepdims=True)
    rows = [
        (f"m{m}", f"p{i}", s, "ab"[i % 2])
        for m, i, s in itertools.product(range(models), range(prompts), range(samples))
    ]
    labels = pd.DataFrame(rows, columns=["model", "prompt", "sample", "category"])
    at = labels["prompt"].str[1:].astype(int).to_numpy()
    own = p[at]
    moved = (1 - shift) * own + shift * np.roll(np.eye(states), 1, axis=1)
    own = np.where((labels["category"] == "b").to_numpy()[:, None, None], moved, own)
    codes = draw_chain(own, rng.integers(0, states, len(labels)), np.full(len(labels), steps), rng)
    names = ("STABLE", "HIDDEN_TURBULENCE", "SURFACE_BRANCHING", "FULL_BIFURCATION")[:states]
    return Sequences(codes.ravel(), np.arange(len(labels) + 1) * steps, names, labels)


def of_oracle():
    lists = [[f"s{c}" for c in one] for one in ORACLE["sequences"]]
    labels = {"group": ORACLE["group"], "unit": [f"u{i}" for i in range(len(lists))]}
    return Sequences.from_lists(lists, labels=labels)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("homogeneity", lambda s: homogeneity_test(s, "group", unit="unit", **QUICK)),
        ("stationarity", lambda s: stationarity_test(s, 3, unit="unit", **QUICK)),
        ("order_0", lambda s: order_test(s, 0, unit="unit", **QUICK)),
        ("order_1", lambda s: order_test(s, 1, unit="unit", **QUICK)),
    ],
)
def test_statistics_df_and_chi_square_equal_r(name, run):
    truth, result = ORACLE[name], run(of_oracle())
    np.testing.assert_allclose(result.rows["g"], truth["g"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result.rows["pearson"], truth["pearson"], rtol=1e-10, atol=1e-12)
    assert result.rows["df"].tolist() == np.atleast_1d(truth["df"]).tolist()
    assert result.df == np.sum(truth["df"])
    assert result.p_chi_square["G"] == pytest.approx(truth["p_g"], rel=1e-10)
    assert result.p_chi_square["Pearson"] == pytest.approx(truth["p_pearson"], rel=1e-10)


def test_support_is_smaller_than_the_table():
    # From state s1 state s3 and s4 never follow: the oracle says so, and the freedom is less for it.
    assert ORACLE["homogeneity"]["df"][0] < 6


def test_holm_equals_r():
    np.testing.assert_allclose(holm(ORACLE["holm"]["p"]), ORACLE["holm"]["adjusted"], rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_table_equals_scipy(seed):
    table = np.random.default_rng(seed).integers(1, 30, (3, 4))
    s = statistics(table[None])
    for value, how in ((s.pearson, "pearson"), (s.g, "log-likelihood")):
        truth = stats.chi2_contingency(table, correction=False, lambda_=how)
        assert value[0] == pytest.approx(truth.statistic, rel=1e-10)
        assert s.df[0] == truth.dof
    v = np.sqrt(phi_square(s.pearson, table[None].astype(float)))
    assert v == pytest.approx(stats.contingency.association(table, method="cramer"), rel=1e-10)


def test_total_variation_of_two_rows():
    overall, layers = total_variation(np.array([[[6.0, 4.0], [2.0, 8.0]], [[5.0, 5.0], [5.0, 5.0]]]))
    # 0.6 and 0.2 lie 0.2 from their pooled 0.4 each; the second layer does not differ.
    assert layers == pytest.approx([0.2, 0.0]) and overall == pytest.approx(0.1)


def brute_force(sequences, assignments, groups):
    """Return Pearson's statistic of every assignment of sequences to groups, by scipy a row at a time."""
    counts = count_transitions(sequences)
    out = []
    for labels in assignments:
        tables = np.array([counts[np.asarray(labels) == g].sum(axis=0) for g in groups])
        total = 0.0
        for i in range(counts.shape[1]):
            t = tables[:, i][:, tables[:, i].sum(axis=0) > 0]
            t = t[t.sum(axis=1) > 0]
            if min(t.shape, default=0) > 1:
                total += stats.chi2_contingency(t, correction=False).statistic
        out.append(total)
    return np.array(out)


def test_whole_prompts_are_permuted_in_every_way():
    s = panel(models=2, prompts=6, samples=1, steps=14)
    prompts = sorted(s.labels["prompt"].unique())
    own = {p: s.labels.loc[s.labels["prompt"] == p, "category"].iloc[0] for p in prompts}
    ways = [
        [("a" if p in chosen else "b") for p in s.labels["prompt"]]
        for chosen in itertools.combinations(prompts, sum(v == "a" for v in own.values()))
    ]
    null = brute_force(s, ways, "ab")
    observed = brute_force(s, [s.labels["category"].tolist()], "ab")[0]
    with pytest.warns(DynstatWarning, match="no p below 0.1 is possible"):
        result = homogeneity_test(s, "category", **QUICK)
    assert result.null["exact"] and result.null["total"] == len(ways) == 20
    assert result.statistics["Pearson"] == pytest.approx(observed, rel=1e-10)
    assert result.p_value == np.mean(null >= observed - 1e-9)
    # Exchanging the two names gives the same statistic: 2 of 20 is the least.
    assert result.null["smallest_p"] == 0.1


def test_models_are_permuted_within_prompts_in_every_way():
    s = panel(models=2, prompts=5, samples=2, steps=12)
    prompts = sorted(s.labels["prompt"].unique())
    model, of = s.labels["model"].to_numpy(), s.labels["prompt"].to_numpy()
    ways = []
    for flips in itertools.product([False, True], repeat=len(prompts)):
        flip = np.array([flips[prompts.index(p)] for p in of])
        ways.append(np.where(flip, np.where(model == "m0", "m1", "m0"), model))
    null = brute_force(s, ways, ["m0", "m1"])
    with pytest.warns(DynstatWarning, match="no p below 0.0625 is possible"):
        result = homogeneity_test(s, "model", **QUICK)
    assert result.null["exact"] and result.null["total"] == 32
    assert result.p_value == np.mean(null >= result.statistics["Pearson"] - 1e-9)
    assert "permuted within prompt" in result.null["name"]


def test_arrangements_keep_labels_within_blocks():
    labels, blocks = np.array([0, 1, 2, 0, 1, 2, 2, 0]), np.array([0, 0, 0, 1, 1, 1, 1, 2])
    rng = np.random.default_rng(0)
    assert count_arrangements(labels, blocks) == 6 * 12
    every = arrange(labels, blocks, 99, rng)
    assert every.exact and len({tuple(r) for r in every.labels.tolist()}) == 72
    shuffled = np.random.default_rng(1).permutation(8)
    drawn = arrange(labels[shuffled], blocks[shuffled], 50, rng)
    assert not drawn.exact
    for row in drawn.labels:
        for b in range(3):
            mine = blocks[shuffled] == b
            assert sorted(row[mine]) == sorted(labels[shuffled][mine])


def test_monte_carlo_p_counts_the_data_once():
    assert NullDraws(np.zeros(99), 1.0, False).p == 0.01
    assert NullDraws(np.ones(99), 1.0, False).p == 1.0


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(3)), st.integers(0, 50))
def test_names_and_order_of_states_do_not_matter(order, seed):
    s = panel(prompts=8, samples=1, steps=15, seed=seed)
    place = np.argsort(order).astype(np.int16)
    renamed = Sequences(place[s.codes], s.offsets, tuple(s.states[i] for i in order), s.labels)
    for run in (
        lambda x: homogeneity_test(x, "category", **QUICK),
        lambda x: stationarity_test(x, 2, **QUICK),
    ):
        one, two = run(s), run(renamed)
        assert one.statistics == pytest.approx(two.statistics, rel=1e-9, abs=1e-9)
        assert (one.df, one.p_value) == (two.df, two.p_value)


def test_identical_groups_differ_by_nothing():
    s = panel(models=1, prompts=4, samples=1)
    twice = Sequences(
        np.concatenate([s.codes, s.codes]),
        np.concatenate([s.offsets, s.offsets[1:] + s.offsets[-1]]),
        s.states,
        pd.concat([s.labels, s.labels.assign(model="copy")], ignore_index=True),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        result = homogeneity_test(twice, "model", **QUICK)
    assert max(result.statistics.values()) < 1e-9
    assert result.p_value == 1.0
    assert result.estimates()["cramers_v"].value == 0.0


def test_a_difference_is_found_and_named_by_state():
    s = panel(models=4, prompts=30, shift=0.3)
    result = homogeneity_test(s, "category", permutations=499, replicates=199)
    assert result.p_value <= 0.01
    e = result.estimates()["total_variation"]
    assert 0 < e.low < e.value < e.high and e.null["p"] <= 0.01
    assert e.value < e.diagnostics["plain"]
    tidy = result.tidy()
    assert tidy["term"].tolist() == ["overall", *s.states]
    np.testing.assert_allclose(tidy["p.adjusted"][1:], holm(tidy["p.value"][1:]))


def test_statistics_within_models_are_sums_over_models():
    s = panel()
    joint = homogeneity_test(s, "category", within="model", **QUICK)
    apart = [
        homogeneity_test(s.select(f"model == 'm{m}'"), "category", **QUICK).statistics["Pearson"]
        for m in range(3)
    ]
    assert joint.statistics["Pearson"] == pytest.approx(sum(apart), rel=1e-10)
    assert joint.rows["term"].iloc[0] == "m0: STABLE"


def test_sequences_that_share_a_prompt_are_not_exchangeable():
    # The warning, small: 6 models read each prompt, no category differs. All sequences permuted: most
    # true nulls are rejected; whole prompts: few. benchmarks/calibration_markov.py has the rates.
    wrong, right = 0, 0
    for seed in range(25):
        s = panel(models=6, prompts=16, samples=1, steps=40, seed=100 + seed)
        wrong += homogeneity_test(s, "category", unit="sequence", **QUICK).p_value <= 0.05
        right += homogeneity_test(s, "category", **QUICK).p_value <= 0.05
    assert wrong >= 9 and right <= 4


def test_simulated_null_agrees_with_chi_square_where_it_is_right():
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.full(3, 4.0), 3)
    codes = draw_chain(p, np.zeros(40, dtype=int), np.full(40, 60), rng)
    labels = pd.DataFrame({"unit": np.arange(40).astype(str), "group": np.repeat(["a", "b"], 20)})
    s = Sequences(codes.ravel(), np.arange(41) * 60, ("x", "y", "z"), labels)
    result = homogeneity_test(s, "group", unit="unit", null="simulation", permutations=1999, replicates=99)
    assert result.p_value == pytest.approx(result.p_chi_square["Pearson"], abs=0.05)


def test_result_prints_as_r_users_know_it():
    result = homogeneity_test(panel(), "category", rng=5, **QUICK)
    text = str(result)
    assert text.startswith("\tTest of homogeneity of transitions by category\n\ndata:  ")
    assert "X-squared = " in text and ", df = " in text and "p-value = " in text
    assert "labels of category permuted between whole units of prompt" in text
    assert result.glance().shape[0] == 1 and result.glance()["p.value"][0] == result.p_value
    assert result._repr_html_().startswith("<pre>")
    for e in result.estimates().values():
        assert (e.unit, e.seed, e.method) == ("prompt", 5, "markov.homogeneity@1")
        assert e.n["units"] == 8 and e.null["replicates"] >= 70
    again = homogeneity_test(panel(), "category", rng=5, **QUICK)
    assert str(again) == text


def test_figure_and_alt_text():
    from dynstat.plotting.chain_tests import alt_text

    result = homogeneity_test(panel(), "category", **QUICK)
    assert len(result.plot().axes[0].get_yticks()) == 4
    assert "4 sizes of difference" in alt_text(result) and "permuted" in alt_text(result)


def refused(code, run, *words):
    with pytest.raises(DynstatError) as error:
        run()
    assert error.value.code == code
    for word in words:
        assert word in str(error.value)


def test_bad_input_is_refused_by_name():
    s = panel()
    refused("S407", lambda: homogeneity_test(s, "colour"), "colour", "category")
    refused("S407", lambda: homogeneity_test(s, "category", unit="text"), "text")
    refused("S403", lambda: homogeneity_test(s.select("category == 'a'"), "category"), "one group")
    refused("S403", lambda: homogeneity_test(s, "prompt"), "p0", "two units")
    shared = s.labels.assign(category=np.where(s.labels["sample"] == 0, "a", "b"))
    refused(
        "S407",
        lambda: homogeneity_test(Sequences(s.codes, s.offsets, s.states, shared), "category"),
        "p0: a, b",
        "unique",
    )
    some = s.labels.assign(family=np.where(s.labels["prompt"] == "p1", s.labels["model"], "all"))
    refused("S407", lambda: homogeneity_test(Sequences(s.codes, s.offsets, s.states, some), "family"), "p1")
    missing = s.labels.assign(category=[None, *s.labels["category"][1:]])
    refused(
        "S407",
        lambda: homogeneity_test(Sequences(s.codes, s.offsets, s.states, missing)),
        "1 of 48 sequences",
    )
    refused("S404", lambda: homogeneity_test(s, permutations=10), "99")
    refused("S404", lambda: homogeneity_test(s, statistic="F"), "Pearson")
    refused("S404", lambda: homogeneity_test(s, null="chi"), "permutation")
    refused("S404", lambda: homogeneity_test(s, permute="rows"), "within")
    refused("S407", lambda: homogeneity_test(s, permute="within"), "units")
    one = Sequences.from_lists([["x"] * 5] * 4, labels={"prompt": list("abcd"), "category": list("aabb")})
    refused("S406", lambda: homogeneity_test(one), "fewer than two states")


def test_too_few_prompts_for_any_significance_is_said():
    s = panel(prompts=4)
    with pytest.warns(DynstatWarning, match="no p below 0.333 is possible"):
        homogeneity_test(s, "category", **QUICK)
