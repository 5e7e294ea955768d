"""Distances between transition matrices: closed forms, every exchange written out, noise taken off."""

import itertools

import numpy as np
import pandas as pd
import pytest

from dynstat.markov import Sequences, count_transitions, transition_distance
from dynstat.markov.assessing import noise_free
from dynstat.markov.distance import pair_distances
from dynstat.markov.null_chains import draw_chain

from .test_homogeneity import QUICK, panel, refused


def slow_distance(a, b):
    """Mean total variation of a step, a state at a time."""
    both = [i for i in range(len(a)) if a[i].sum() and b[i].sum()]
    w = np.array([a[i].sum() / a.sum() + b[i].sum() / b.sum() for i in both])
    tv = np.array([0.5 * np.abs(a[i] / a[i].sum() - b[i] / b[i].sum()).sum() for i in both])
    return np.sum(w * tv) / w.sum()


def test_a_distance_by_hand():
    a = np.array([[8.0, 2.0], [5.0, 5.0]])
    b = np.array([[6.0, 4.0], [5.0, 5.0]])
    # Rows differ by .2 and 0, each left half of the time.
    assert pair_distances(np.stack([a, b]), np.array([0]), np.array([1])) == pytest.approx(0.1)
    assert slow_distance(a, b) == pytest.approx(0.1)


def test_distances_are_those_of_the_slow_version_and_exchanges_are_all_made():
    s = panel(models=3, prompts=5, samples=1, steps=15)
    counts = count_transitions(s).astype(float)
    model, prompt = s.labels["model"].to_numpy(), s.labels["prompt"].to_numpy()
    result = transition_distance(s, **QUICK)
    for a, b in itertools.combinations(["m0", "m1", "m2"], 2):
        observed = slow_distance(counts[model == a].sum(0), counts[model == b].sum(0))
        assert result.plain.loc[a, b] == pytest.approx(observed, rel=1e-12)
        null = []
        for flips in itertools.product([False, True], repeat=5):
            one = sum(
                counts[(model == (b if f else a)) & (prompt == f"p{i}")].sum(0) for i, f in enumerate(flips)
            )
            two = counts[(model == a) | (model == b)].sum(0) - one
            null.append(slow_distance(one, two))
        e = result.estimates()[f"distance.{a}|{b}"]
        assert e.null["exact"] and e.null["p"] == np.mean(np.array(null) >= observed - 1e-9)
        assert e.null["mean"] == pytest.approx(np.mean(null))
    assert result.largest.diagnostics["plain"] == pytest.approx(result.plain.to_numpy().max())


def test_noise_is_taken_off_squares():
    square, drawn = np.array(0.05), np.array([0.05, 0.07])
    # Drawing adds .01 on average, and 5/4 of that with 5 units; the null says .02, so .0125 goes.
    value, draws, off = noise_free(square, drawn, np.array(0.02), 5)
    assert (float(off), float(value)) == (pytest.approx(0.0125), pytest.approx(np.sqrt(0.0375)))
    np.testing.assert_allclose(draws, np.sqrt(drawn - 0.025))
    value, draws, off = noise_free(square, drawn, np.array(0.06), 5, keeps=True)
    assert (float(value), float(off)) == (0.0, 0.06) and np.all(draws == 0)


def models_of_one_chain(seed, shift):
    rng = np.random.default_rng(seed)
    base = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.3, 0.5]])
    rows = [(f"m{m}", f"p{p}") for m in range(4) for p in range(24)]
    labels = pd.DataFrame(rows, columns=["model", "prompt"])
    own = np.array([base, base, base, (1 - shift) * base + shift * np.eye(3)])
    codes = draw_chain(own[np.repeat(range(4), 24)], rng.integers(0, 3, 96), np.full(96, 40), rng)
    return Sequences(codes.ravel(), np.arange(97) * 40, ("x", "y", "z"), labels)


def test_equal_models_lie_apart_by_noise_alone_and_different_ones_by_their_distance():
    equal = [transition_distance(models_of_one_chain(i, 0.0), **QUICK).largest for i in range(12)]
    assert np.mean([e.value for e in equal]) < 0.5 * np.mean([e.diagnostics["plain"] for e in equal])
    assert sum(e.low == 0 for e in equal) >= 10 and sum(e.null["p"] <= 0.05 for e in equal) <= 3
    # A quarter of all steps is held: 1 − P_ii of each state is moved, weighted by how often it is left.
    apart = [transition_distance(models_of_one_chain(i, 0.25), **QUICK) for i in range(12)]
    truth = 0.25 * np.mean([0.3, 0.6, 0.5])
    assert np.mean([r.largest.value for r in apart]) == pytest.approx(truth, abs=0.02)
    assert sum(r.largest.low <= truth <= r.largest.high for r in apart) >= 10
    assert all(r.largest.null["p"] == 0.01 and "m3" in r.largest.diagnostics["pair"] for r in apart)


def test_result_of_distances():
    from dynstat.plotting.chain_tests import alt_text

    s = panel()
    result = transition_distance(s, rng=2, **QUICK)
    assert str(result) == str(transition_distance(s, rng=2, **QUICK))
    assert "noise taken off" in str(result) and result._repr_html_().startswith("<pre>")
    tidy = result.tidy()
    assert tidy[["group1", "group2"]].to_numpy().tolist() == [["m0", "m1"], ["m0", "m2"], ["m1", "m2"]]
    assert np.all(tidy["p.adjusted"] >= tidy["p.value"])
    assert np.all(tidy["estimate"] <= tidy["plain"])
    assert result.glance()["units"][0] == 8
    assert len(result.plot().axes[0].get_yticks()) == 4
    assert "largest distance" in alt_text(result)
    for e in result.estimates().values():
        assert (e.method, e.unit, e.seed) == ("markov.distance@1", "prompt", 2)


def test_groups_that_cannot_be_compared_are_named():
    s = panel()
    refused("S407", lambda: transition_distance(s, "category"), "a and b: 0")
    refused("S403", lambda: transition_distance(s.select("model == 'm0'")), "one group")
    refused("S404", lambda: transition_distance(s, permutations=5), "permutations")
    refused("S404", lambda: transition_distance(s, replicates=5), "replicates")
    refused("S407", lambda: transition_distance(s, "colour"), "colour")
    lists = [["a", "a"], ["a", "a"], ["b", "b"], ["b", "b"]]
    apart = Sequences.from_lists(lists, labels={"model": list("mmnn"), "prompt": list("pqpq")})
    refused("S406", lambda: transition_distance(apart), "m and n")
