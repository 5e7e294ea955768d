"""Motifs against slow counts, exact enumeration, a trend without grammar and a planted grammar."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from statsmodels.stats.multitest import multipletests

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.adjusted import false_discovery
from dynstat.markov import Sequences, motifs
from dynstat.markov.ngrams import Alphabet, count_ngrams
from dynstat.markov.surrogates import NULLS

STATES = ("SURFACE_BRANCHING", "STABLE", "COMMITTED_NO_BIFURCATION", "HIDDEN_TURBULENCE")
DEPTH = ("depth", "depth_pooled")


def sequences(x: np.ndarray, models: int, k: int) -> Sequences:
    units = len(x) // models
    labels = pd.DataFrame(
        {
            "model": np.repeat([f"m{i}" for i in range(models)], units),
            "prompt": np.tile([f"p{i}" for i in range(units)], models),
        }
    )
    names = STATES[:k]
    return Sequences.from_lists([[names[v] for v in r] for r in x], labels=labels, states=names, axis="layer")


def trend(rng: np.random.Generator, rows: int, slope: float, layers: int = 12) -> np.ndarray:
    """Fixture 11: noise round a line over layers, cut into three states; no layer looks at the one before."""
    return np.digitize(slope * np.linspace(-1, 1, layers) + rng.normal(size=(rows, layers)), [-0.6, 0.6])


def grammar(rng: np.random.Generator, rows: int, layers: int, w: float) -> np.ndarray:
    """Four states, every pair of neighbours as likely as any other, and 0 1 followed by 2 with chance w."""
    x = rng.integers(0, 4, (rows, layers))
    for t in range(2, layers):
        at = x[:, t - 1] == 1
        hit = at & (x[:, t - 2] == 0)
        others = rng.choice([0, 1, 3], rows)
        x[:, t] = np.where(hit, np.where(rng.random(rows) < w, 2, others), x[:, t])
        # Elsewhere 1 2 is rarer by as much, so that the chance of 2 after 1 stays a quarter.
        other = at & (x[:, t - 2] != 0)
        x[:, t] = np.where(other, np.where(rng.random(rows) < (1 - w) / 3, 2, others), x[:, t])
    return x


def slow_counts(x: np.ndarray, n: int) -> dict[tuple[int, ...], int]:
    out: dict[tuple[int, ...], int] = {}
    for row in x.tolist():
        symbols = [s for s, _ in itertools.groupby(row)]
        for i in range(len(symbols) - n + 1):
            gram = tuple(symbols[i : i + n])
            if -1 not in gram:
                out[gram] = out.get(gram, 0) + 1
    return out


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 14)), elements=st.integers(-1, 2)),
    st.integers(2, 5),
)
def test_counts_equal_slow_counts(x: np.ndarray, n: int) -> None:
    alphabet = Alphabet.of(x, 3, n)
    assert alphabet.possible == len(alphabet.codes) == 3 * 2 ** (n - 1)
    cell = np.arange(len(x)) % 2
    out = count_ngrams(np.stack([x, x[::-1]]), alphabet, cell, 2)
    for replicate, rows in enumerate((x, x[::-1])):
        for c in (0, 1):
            slow = slow_counts(rows[cell == c], n)
            got = {
                tuple(map(int, g)): int(v)
                for g, v in zip(alphabet.codes, out[replicate, c], strict=False)
                if v
            }
            assert got == slow
            assert out[replicate, c, -1] == sum(slow.values())


def test_many_possible_motifs_keep_those_that_occur() -> None:
    x = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 0]], dtype=np.int8)
    alphabet = Alphabet.of(x, 9, 4)
    assert alphabet.possible == 9 * 8**3 and len(alphabet.codes) == 7
    assert count_ngrams(x[None], alphabet, np.zeros(1, dtype=np.intp), 1)[0, 0].tolist() == [1] * 7 + [7]


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, 12, elements=st.floats(0.001, 1)))
def test_q_values_are_those_of_statsmodels(p: np.ndarray) -> None:
    np.testing.assert_allclose(false_discovery(p, 12), multipletests(p, method="fdr_bh")[1], atol=1e-12)
    # Possible motifs that were never seen have p = 1.
    full = np.concatenate([p, np.ones(8)])
    np.testing.assert_allclose(
        false_discovery(p, 20), multipletests(full, method="fdr_bh")[1][:12], atol=1e-12
    )


def test_expected_counts_equal_enumeration() -> None:
    x = np.array([[0, 1, 2], [1, 1, 0], [2, 0, 1]])
    every = [
        np.array([a, b, c]).T
        for a, b, c in itertools.product(*(list(itertools.permutations(x[:, t])) for t in range(3)))
    ]
    exact = {}
    for table in every:
        for gram, count in slow_counts(table, 3).items():
            exact[gram] = exact.get(gram, 0) + count / len(every)
    with pytest.warns(DynstatWarning, match="one group"):
        r = motifs(sequences(x, 1, 3), nulls=["depth_pooled"], surrogates=4000, replicates=19)
    for gram, wanted in exact.items():
        m = r.names.index(" > ".join(STATES[i] for i in gram))
        assert r.against["depth_pooled"].expected[0, m] == pytest.approx(wanted, abs=0.05)


def test_a_trend_over_depth_is_no_grammar() -> None:
    """Fixture 11: flagged where the null forgets depth, not where it keeps it."""
    x = trend(np.random.default_rng(2), 3 * 72, 2.0)
    r = motifs(sequences(x, 3, 3), nulls=["markov", *DEPTH], surrogates=499, replicates=99)
    assert (r.against["markov"].q < 0.05).any()
    for null in DEPTH:
        assert not r.against[null].conserved.any()
        assert (r.against[null].q > 0.05).mean() > 0.9
    assert r.conserved == () and r.estimate.value == 0 and r.possible == 12
    assert "0 of 12" in str(r)


def test_a_planted_grammar_is_found_by_both_nulls() -> None:
    x = grammar(np.random.default_rng(1), 3 * 72, 12, 0.9)
    r = motifs(sequences(x, 3, 4), surrogates=999, replicates=199)
    name = "SURFACE_BRANCHING > STABLE > COMMITTED_NO_BIFURCATION"
    assert name in r.conserved and r.estimate.value == len(r.conserved) <= 2
    assert r.estimate.null is not None and r.estimate.null["p"] == 0.001 and r.estimate.null["mean"] < 0.05
    e = r.enrichment(name, "m1", "depth")
    assert e.low > 1.1 and e.null is not None and e.null["q"] < 0.05
    row = r.tidy().query("motif == @name and group == 'm1' and null == 'depth'").iloc[0]
    assert (row["estimate"], row["conf.low"], row["conf.high"]) == (e.value, e.low, e.high)
    assert row["count"] == slow_counts(x[72:144], 3)[0, 1, 2]
    assert row["estimate"] == pytest.approx(row["count"] / row["expected"])
    keys = r.estimates()
    assert {"conserved", "conserved.markov", f"enrichment.depth.m2.{name}"} <= set(keys)
    assert r.glance()["possible"].item() == 36
    shares = motifs(sequences(x, 3, 4), surrogates=999, replicates=99, scale="share")
    assert name in shares.conserved


def test_the_interval_says_where_no_sample_has_a_motif() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (3 * 72, 12))
    r = motifs(sequences(noise, 3, 3), surrogates=999, replicates=99)
    e = r.estimate
    assert (e.value, e.low, e.high) == (0, 0, 0) and e.diagnostics["samples_with_one"] == 0
    assert e.interval.endswith("no motif passes in any of 99 samples")
    for name, side in r.against.items():
        own = r.estimates()[f"conserved.{name}"]
        some = int(side.conserved_draws.any(axis=1).sum())
        assert own.diagnostics["samples_with_one"] == some
        assert ("no motif passes" in own.interval) == (some == 0 and own.value == 0)
    x = grammar(np.random.default_rng(1), 2 * 72, 12, 0.9)
    found = motifs(sequences(x, 2, 4), surrogates=999, replicates=99).estimate
    assert found.diagnostics["samples_with_one"] > 90 and "no motif" not in found.interval


def test_prompts_that_differ_are_no_grammar() -> None:
    """Prompts with levels of their own: the pooled shuffle takes them for a grammar, the other does not."""
    rng = np.random.default_rng(0)
    flagged = {null: 0 for null in DEPTH}
    for i in range(8):
        level = 1.5 * rng.normal(size=(36, 1))
        x = np.digitize(level + rng.normal(size=(36, 12)), [-0.6, 0.6])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DynstatWarning)
            r = motifs(sequences(x, 1, 3), nulls=DEPTH, surrogates=299, replicates=19, rng=i)
        for null in DEPTH:
            flagged[null] += bool(r.against[null].conserved.any())
    assert flagged["depth_pooled"] >= 4 and flagged["depth"] <= 1


def test_bad_input() -> None:
    rng = np.random.default_rng(0)
    fine = sequences(rng.integers(0, 3, (12, 6)), 2, 3)
    for wrong in (
        {"n": 1},
        {"nulls": ["other"]},
        {"scale": "log"},
        {"surrogates": 9},
        {"replicates": 9},
        {"fdr": 1.0},
        {"minimum": 0},
    ):
        with pytest.raises(DynstatError, match="S404"):
            motifs(fine, **{"surrogates": 99, **wrong})
    with pytest.raises(DynstatError, match="S406.*one state"):
        motifs(sequences(np.zeros((12, 6), dtype=int), 2, 3))
    with pytest.raises(DynstatError, match="S406.*3 states in a row"):
        motifs(sequences(np.repeat([[0, 0, 1, 1]], 12, axis=0), 2, 3))
    with pytest.raises(DynstatError, match="S403"), pytest.warns(DynstatWarning):
        motifs(sequences(rng.integers(0, 3, (2, 6)), 2, 3), surrogates=99)
    with pytest.raises(DynstatError, match="S407"):
        motifs(fine, by="family")
    with pytest.warns(DynstatWarning, match="at least 239 are needed"):
        r = motifs(fine, surrogates=199, replicates=19)
    with pytest.raises(DynstatError, match="S407"):
        r.enrichment("STABLE > STABLE", "m0", "depth")
    ragged = Sequences.from_lists(
        [["a", "b"], ["a", "b", "a", "c"], ["b"], ["c", None, "a", "b", "c"]],
        labels={"model": ["x", "x", "y", "y"], "prompt": ["p", "q", "p", "q"]},
    )
    with pytest.warns(DynstatWarning):
        assert motifs(ragged, surrogates=199, replicates=19).counts.sum() == 3


def test_a_group_without_any_state_is_named() -> None:
    s = Sequences.from_lists(
        [["a", "b", "a"], ["b", "c", "a"], [None, None], []],
        labels={"model": ["x", "x", "empty", "empty"], "prompt": ["p", "q", "p", "q"]},
    )
    with pytest.warns(DynstatWarning, match="without any 3-gram.*empty"):
        r = motifs(s, nulls=tuple(NULLS), surrogates=239, replicates=19)
    assert r.conserved == () and dict(zip(r.groups, r.totals.tolist(), strict=True)) == {"x": 2, "empty": 0}
