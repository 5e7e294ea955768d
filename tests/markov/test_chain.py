"""The chain and its intervals: R's markovchain where it is right, closed forms, bad input."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.estimate import BetaPivot
from dynstat.markov import derived
from dynstat.markov.contingency import chi_square_p, statistics
from dynstat.markov.estimation import chain
from dynstat.markov.rare_events import effective_trials
from dynstat.markov.sequences import Sequences
from dynstat.markov.tabulation import stretches, tabulate

ORACLES = Path(__file__).parents[1] / "oracles"
R = json.loads((ORACLES / "markov.json").read_text())
STATES = ("STABLE", "HIDDEN_TURBULENCE", "COMMITTED")


@pytest.fixture(scope="module")
def five():
    frame = pd.read_csv(ORACLES / "markov" / "states.csv")
    s = Sequences.from_frame(frame, sequence="sequence", order="t")
    return chain(s, unit="sequence", replicates=299)


def simulated(units=20, steps=30, seed=0, p=None, rows=3):
    rng = np.random.default_rng(seed)
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6]]) if p is None else p
    lists = []
    for _ in range(units):
        x = [int(rng.integers(0, 3))]
        while len(x) < steps:
            x.append(int(rng.choice(3, p=p[x[-1]])))
        lists.append([STATES[i] for i in x])
    labels = {
        "prompt": [f"p{i // rows}" for i in range(units)],
        "model": [f"m{i % rows}" for i in range(units)],
    }
    return Sequences.from_lists(lists, states=STATES, labels=labels)


def test_r_markovchain(five):
    want = R["states"]
    names = want["counts"]["rows"]
    assert list(five.states) == names
    assert np.array_equal(five.counts, want["counts"]["values"])
    assert five.matrix == pytest.approx(np.array(want["mle"]["values"]), abs=1e-14)
    assert five.log_likelihood == pytest.approx(want["loglik"], rel=1e-12)
    e = five.estimates()
    for a in names:
        assert e[f"stationary.{a}"].value == pytest.approx(want["stationary"][a], abs=1e-10)
        assert e[f"recurrence.{a}"].value == pytest.approx(want["recurrence_time"][a], rel=1e-10)
    passage = np.array(want["mean_first_passage"]["values"])
    got = [[0 if a == b else e[f"first_passage.{a}.{b}"].value for b in names] for a in names]
    assert np.array(got) == pytest.approx(passage, rel=1e-10)
    moduli = np.array(want["eigenvalue_moduli"])
    assert derived.eigenvalue_moduli(five.matrix) == pytest.approx(moduli, abs=1e-10)
    timescales = [e[f"timescale.{k}"].value for k in range(2, 6)]
    assert timescales == pytest.approx(-1 / np.log(moduli[1:]), rel=1e-9)
    assert e["spectral_gap"].value == pytest.approx(1 - moduli[1], abs=1e-10)


def test_r_rain():
    with open(ORACLES / "markov" / "rain.csv") as file:
        days = [row["state"] for row in csv.DictReader(file)]
    c = chain(Sequences.from_lists([days]), unit="sequence", interval="dirichlet")
    want = R["rain"]
    assert list(c.states) == want["mle"]["rows"]
    assert c.matrix == pytest.approx(np.array(want["mle"]["values"]), abs=1e-14)
    assert c.log_likelihood == pytest.approx(want["loglik"], rel=1e-12)
    smooth = derived.transition_matrix(c.counts + 0.01)
    assert smooth == pytest.approx(np.array(want["laplace_0.01"]["values"]), abs=1e-12)
    assert list(c.matrix @ np.ones(3)) == pytest.approx([1, 1, 1])
    assert {s: c[f"stationary.{s}"].value for s in c.states} == pytest.approx(want["stationary"], abs=1e-10)


def test_r_order_of_rain():
    """R's two tests of one question: assessOrder is the textbook's, verifyMarkovProperty counts 20 df."""
    with open(ORACLES / "markov" / "rain.csv") as file:
        days = [row["state"] for row in csv.DictReader(file)]
    parts = stretches(Sequences.from_lists([days]), 1)
    none = np.zeros(1, dtype=np.intp)
    table = tabulate(parts.codes, 3, outer=none, n_outer=1, stratum=none, n_strata=1, order=1)[0]
    found = statistics(table)
    order, markov = R["rain"]["order"], R["rain"]["markov_property"]
    assert found.pearson.sum() == pytest.approx(order["statistic"], rel=1e-12)
    assert chi_square_p(float(found.pearson.sum()), int(found.df.sum())) == pytest.approx(
        order["p"], rel=1e-10
    )
    assert int(found.df.sum()) == 12 != markov["dof"] and markov["p"] > 0.15


def test_r_standard_error_leaves_out_one_minus_p():
    """The docs warn of it; this shows the formula that R's numbers follow."""
    n = np.array(R["states"]["counts"]["values"])
    p = n / n.sum(axis=1, keepdims=True)
    wrong = np.sqrt(p / n.sum(axis=1, keepdims=True))
    assert np.array(R["states"]["standard_error"]["values"]) == pytest.approx(wrong, abs=1e-12)


def test_replicates_are_sums_of_drawn_units():
    s = simulated()
    c = chain(s, replicates=99, rng=4)
    assert c.n == {"units": 7, "sequences": 20, "transitions": 580}
    from dynstat.markov.labels import unit_codes

    weights = unit_codes(s, "prompt").weights(99, np.random.default_rng(4))
    slow = sum(w[:, None, None] * t for w, t in zip(weights.T, c.unit_counts, strict=True))
    assert np.array_equal(c.replicates, slow)
    # The table of a unit holds all its sequences, of all models.
    one = s.select("prompt == 'p3'")
    alone = sum(
        np.bincount(
            [3 * STATES.index(a) + STATES.index(b) for a, b in zip(one[i], one[i][1:], strict=False)],
            minlength=9,
        )
        for i in range(len(one))
    )
    assert np.array_equal(c.unit_counts[3].ravel(), alone)


def test_identities_between_estimates():
    c = chain(simulated(), replicates=199)
    for s in STATES:
        own, out = c[f"self_transition.{s}"], c[f"exit.{s}"]
        assert own.value == pytest.approx(1 - out.value)
        assert [own.low, own.high] == pytest.approx([1 - out.high, 1 - out.low])
        assert c[f"dwell.{s}"].value == pytest.approx(1 / out.value)
        assert c[f"lift.{s}"].value == pytest.approx(own.value - c[f"occupancy.{s}"].value)
        assert c[f"recurrence.{s}"].value == pytest.approx(1 / c[f"stationary.{s}"].value)
        # Monotone of each other, on scales that agree: the limits carry over.
        assert c[f"recurrence.{s}"].low == pytest.approx(1 / c[f"stationary.{s}"].high, rel=0.02)
    again = chain(simulated(), replicates=199).estimates()
    assert all(again[k].high == e.high or np.isnan(e.high) for k, e in c.estimates().items())


def test_dirichlet_is_the_beta_posterior():
    c = chain(simulated(units=9), interval="dirichlet", replicates=20000)
    i, j = 0, 2
    post = stats.beta(c.counts[i, j] + 0.5, c.counts[i].sum() - c.counts[i, j] + 1.0)
    e = c[f"transition.{STATES[i]}.{STATES[j]}"]
    assert [e.low, e.high] == pytest.approx(post.ppf([0.025, 0.975]), abs=0.003)
    assert e.unit == "transition"


def test_leave_one_out_is_the_cluster_sandwich():
    c = chain(simulated(units=90), interval="sandwich")
    x, m = c.unit_counts, 30
    n = c.counts.sum(axis=1)
    score = x - x.sum(axis=2, keepdims=True) * c.matrix
    se = np.sqrt(m / (m - 1) * (score**2).sum(axis=0)) / n[:, None]
    e = c["transition.STABLE.COMMITTED"]
    p = e.value
    assert e.pivot.se * p * (1 - p) == pytest.approx(se[0, 2], rel=0.06)
    boot = chain(simulated(units=90), replicates=2000)["transition.STABLE.COMMITTED"]
    assert boot.pivot.se == pytest.approx(e.pivot.se, rel=0.1)


def test_rare_transition():
    p = np.array([[0.8, 0.2, 0.0], [0.3, 0.5, 0.2], [0.5, 0.49, 0.01]])
    c = chain(simulated(units=24, p=p, rows=1), replicates=199)
    x, n = c.counts[2, 2], c.counts[2].sum()
    assert x < 5
    e = c["self_transition.COMMITTED"]
    trials = effective_trials(c.unit_counts)
    shrink = trials.n[2, 2] / n
    assert trials.design_effect.min() >= 1
    assert isinstance(e.pivot, BetaPivot) and e.diagnostics["few_events"]
    post = stats.beta(x * shrink + 0.5, (n - x) * shrink + 1.0)
    assert e.limit(0.05, "upper") == pytest.approx(post.ppf(0.95))
    assert c["exit.COMMITTED"].low == pytest.approx(1 - e.high)
    dwell = c["dwell.COMMITTED"]
    assert [dwell.low, dwell.high] == pytest.approx([1 / (1 - e.low), 1 / (1 - e.high)])
    assert dwell.pivot.p_below(dwell.high) == pytest.approx(0.025) == e.pivot.p_below(e.high)
    never = c["transition.STABLE.COMMITTED"]
    assert never.value == never.low == 0 and 0 < never.high < 0.1
    lift = c["lift.COMMITTED"]
    assert lift.low < lift.value < lift.high
    assert lift.limit(0.05, "upper") == pytest.approx(
        e.limit(0.05, "upper") - c["occupancy.COMMITTED"].value, abs=0.02
    )


def test_states_without_a_stay_or_without_an_exit():
    lists = [["A_STATE", "B_STATE"] * 8 + ["END"] * 6 for _ in range(9)]
    s = Sequences.from_lists(lists, labels={"prompt": list("abcdefghi")})
    with pytest.warns(DynstatWarning, match="END is entered and never left"):
        c = chain(s, replicates=99, lag=1)
    a, end = c["dwell.A_STATE"], c["dwell.END"]
    assert a.value == a.low == 1 and 1 < a.high < 2
    assert end.value == end.high == np.inf and 2 < end.low < np.inf
    lift = c["lift.A_STATE"]
    assert lift.low <= lift.value < lift.high


def test_empty_input():
    with pytest.raises(DynstatError, match="S406"):
        chain(Sequences.from_lists([]), unit="sequence")
    empty = pd.DataFrame({"run": [], "token": [], "state": []})
    assert len(Sequences.from_frame(empty, sequence="run")) == 0


def test_design_effect_of_identical_sequences_is_their_number():
    """Ten copies of a sequence a unit count as one: the trials shrink tenfold."""
    one = simulated(units=40, rows=1)
    many = one.select(np.repeat(np.arange(40), 10))
    from dynstat.markov.counts import count_transitions

    x = count_transitions(many).reshape(40, 10, 3, 3).sum(axis=1)
    alone = effective_trials(count_transitions(one)).design_effect
    copied = effective_trials(x).design_effect
    seen = alone > 1
    assert copied[seen] == pytest.approx(10 * alone[seen])


def test_state_never_seen_and_never_left():
    lists = [["STABLE", "HIDDEN_TURBULENCE", "STABLE"]] * 3 + [["STABLE", "STABLE", "HIDDEN_TURBULENCE"]] * 3
    s = Sequences.from_lists(lists, states=STATES, labels={"prompt": list("abcdef")})
    with pytest.warns(DynstatWarning, match="COMMITTED is never seen"):
        c = chain(s, replicates=99)
    assert c.diagnostics["never_seen"] == ["COMMITTED"]
    assert c["stationary.COMMITTED"].value == 0 and np.isnan(c["transition.COMMITTED.STABLE"].value)
    assert np.isfinite(c["stationary.STABLE"].value) and np.isfinite(c["entropy_rate"].value)
    ends = Sequences.from_lists([[*one, "COMMITTED"] for one in lists], labels={"prompt": list("abcdef")})
    with pytest.warns(DynstatWarning, match="COMMITTED occurs only where sequences end"):
        c = chain(ends, replicates=99)
    assert np.isnan(c["stationary.STABLE"].value) and c["stationary.STABLE"].pivot is None
    assert c["absorption.STABLE.COMMITTED"].value == pytest.approx(1)
    assert "never left: COMMITTED" in str(c)


def test_absorption_of_named_states():
    c = chain(simulated(), replicates=99, absorbing=["COMMITTED", "STABLE"])
    a, b = (c[f"absorption.HIDDEN_TURBULENCE.{s}"] for s in ("STABLE", "COMMITTED"))
    p = c.matrix
    assert a.value == pytest.approx(p[1, 0] / (1 - p[1, 1])) and a.value + b.value == pytest.approx(1)
    assert c["absorption_steps.HIDDEN_TURBULENCE"].value == pytest.approx(1 / (1 - p[1, 1]))


def test_replicates_without_a_row_are_counted():
    lists = [["STABLE", "HIDDEN_TURBULENCE", "STABLE", "STABLE", "HIDDEN_TURBULENCE"]] * 7
    lists.append(["STABLE", "COMMITTED", "COMMITTED", "HIDDEN_TURBULENCE", "STABLE"])
    s = Sequences.from_lists(lists, labels={"prompt": list("abcdefgh")})
    c = chain(s, replicates=500, rng=0)
    missing = c.diagnostics["empty_row"]["COMMITTED"]
    # A unit is left out of a sample of eight with chance (7/8)⁸.
    assert missing / 500 == pytest.approx((7 / 8) ** 8, abs=0.08)
    assert c["first_passage.STABLE.COMMITTED"].diagnostics["undefined"] == missing
    assert c["stationary.COMMITTED"].diagnostics["undefined"] == 0
    assert f"COMMITTED {missing}" in str(c)


def test_lag_and_groups():
    s = simulated(units=30, steps=60)
    one, two = chain(s, replicates=99), chain(s, replicates=99, lag=2)
    assert two.matrix == pytest.approx(one.matrix @ one.matrix, abs=0.08)
    assert two["timescale.2"].value == pytest.approx(one["timescale.2"].value, rel=0.4)
    lumped = chain(
        s, replicates=99, groups={"STABLE": "low", "HIDDEN_TURBULENCE": "high", "COMMITTED": "low"}
    )
    assert lumped["lumpability"].value == pytest.approx(derived.lumpability(lumped.counts, [0, 1, 0]))
    assert 0 < lumped["lumpability"].null["p"] <= 1


def test_shapes_of_the_result():
    c = chain(simulated(), replicates=99)
    tidy = c.tidy()
    assert set(tidy["term"]) >= {"transition", "lift", "first_passage", "spectral_gap"}
    row = tidy[
        (tidy["term"] == "transition") & (tidy["from"] == "STABLE") & (tidy["to"] == "COMMITTED")
    ].iloc[0]
    assert row["n"] == c.counts[0, 2] and row["estimate"] == c.matrix[0, 2]
    assert len(c.glance()) == 1 and "First-order Markov chain" in str(c) and "<pre>" in c._repr_html_()
    assert c.frame("low").to_numpy()[0, 2] == row["conf.low"]


@pytest.mark.parametrize(
    "code, call",
    [
        ("S406", lambda: chain(Sequences.from_lists([["STABLE", "STABLE"]]), unit="sequence")),
        ("S406", lambda: chain(Sequences.from_lists([["A_STATE"], ["B_STATE"]]), unit="sequence")),
        ("S406", lambda: chain(Sequences.from_lists([[None, None]], states=STATES), unit="sequence")),
        ("S403", lambda: chain(Sequences.from_lists([["A_STATE", "B_STATE"]]), unit="sequence")),
        ("S407", lambda: chain(simulated(), unit="template")),
        ("S407", lambda: chain(simulated(), absorbing=["OTHER"])),
        ("S407", lambda: chain(simulated(), groups={"STABLE": "low"})),
        ("S404", lambda: chain(simulated(), groups=dict.fromkeys(STATES, "low"))),
        ("S404", lambda: chain(simulated(), interval="wald")),
        ("S404", lambda: chain(simulated(), replicates=10)),
        ("S404", lambda: chain(simulated(), level=95)),
        ("S404", lambda: chain(simulated(), lag=0)),
        ("S404", lambda: chain(simulated(), interval="dirichlet", prior=0)),
    ],
)
def test_errors(code, call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DynstatError, match=code):
            call()


def test_one_sequence_is_told_the_way_out():
    with pytest.raises(DynstatError, match="dirichlet"):
        chain(Sequences.from_lists([["A_STATE", "B_STATE", "A_STATE"]]), unit="sequence")
