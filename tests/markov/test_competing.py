"""Competing ends of stays: against R's survival and cmprsk, an obvious slow version, and identities."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat.markov.competing import count_spells, incidence

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "cycles.json").read_text("utf-8"))
SPELLS = {k: np.array(v) for k, v in ORACLE["spells"].items()}


def curves_of(duration, event, horizon):
    d, e = np.asarray(duration, dtype=np.intp), np.asarray(event, dtype=np.int8)
    return incidence(count_spells(d, e, np.zeros(d.size, dtype=np.intp), 1, horizon)[0])


def slow(duration, event, horizon):
    """Walk through the steps one spell at a time."""
    inside, km, out = 1.0, 1.0, []
    f = [0.0, 0.0]
    for step in range(1, horizon + 1):
        risk = [i for i in range(len(duration)) if duration[i] >= step]
        if risk:
            h = [sum(1 for i in risk if duration[i] == step and event[i] == k) / len(risk) for k in (1, 2)]
            f = [f[0] + inside * h[0], f[1] + inside * h[1]]
            inside, km = inside * (1 - h[0] - h[1]), km * (1 - h[0])
        out.append((*f, 1 - km))
    return np.array(out)


def test_meets_survfit_cuminc_and_kaplan_meier_of_r():
    got = curves_of(SPELLS["duration"], SPELLS["event"], 12)
    r = ORACLE["survfit"]
    np.testing.assert_allclose(got.incidence[:, 0], r["reopened"], atol=1e-10)
    np.testing.assert_allclose(got.incidence[:, 1], r["end_of_text"], atol=1e-10)
    np.testing.assert_array_equal(got.at_risk, r["n_risk"])
    seen = got.at_risk > 0
    np.testing.assert_allclose(got.kaplan_meier[seen], np.array(ORACLE["kaplan_meier"])[seen], atol=1e-10)
    for k, name in enumerate(("reopened", "end_of_text")):
        theirs = [x for x in ORACLE["cuminc"][name] if x != "NA"]
        np.testing.assert_allclose(got.incidence[: len(theirs), k], theirs, atol=1e-10)


def test_beyond_the_last_step_at_risk_is_unknown_unless_all_have_left():
    cut = curves_of([1, 2, 3], [1, 1, 0], 5)
    assert np.isfinite(cut.incidence[:3]).all() and np.isnan(cut.incidence[3:]).all()
    assert np.isnan(cut.kaplan_meier[3:]).all()
    gone = curves_of([1, 2, 3], [1, 2, 1], 5)
    np.testing.assert_allclose(gone.incidence[-1], [2 / 3, 1 / 3])
    # Censored at end of text, the last stay that is left takes all mass with it.
    assert gone.kaplan_meier[-1] == 1.0
    only_ends = curves_of([1, 2], [2, 2], 4)
    assert only_ends.incidence[-1].tolist() == [0.0, 1.0] and np.isnan(only_ends.kaplan_meier[-1])


spell_lists = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=40)


@given(spell_lists, st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_equals_the_slow_version_at_any_horizon(spells, horizon):
    # An event takes a step at least.
    d = [max(a, 1) if e else a for a, e in spells]
    e = [e for _, e in spells]
    got, want = curves_of(d, e, horizon), slow(d, e, horizon)
    known = np.isfinite(got.incidence[:, 0])
    np.testing.assert_allclose(got.incidence[known], want[known, :2], atol=1e-12)
    km = np.isfinite(got.kaplan_meier)
    np.testing.assert_allclose(got.kaplan_meier[km], want[km, 2], atol=1e-12)
    assert (got.kaplan_meier[known & km] >= got.incidence[known & km, 0] - 1e-12).all()
    assert (got.incidence[known].sum(axis=-1) <= 1 + 1e-12).all()
    assert got.naive == pytest.approx(np.mean(np.array(e) == 1))


def test_without_competitor_or_censoring_all_three_agree():
    rng = np.random.default_rng(2)
    d = rng.geometric(0.3, 500)
    got = curves_of(d, np.ones(500), 40)
    empirical = (d[:, None] <= np.arange(1, 41)).mean(axis=0)
    np.testing.assert_allclose(got.incidence[:, 0], empirical, atol=1e-12)
    np.testing.assert_allclose(got.kaplan_meier, empirical, atol=1e-12)
    assert got.naive == 1.0


def test_weighted_counts_are_repeated_spells():
    d, e = SPELLS["duration"].astype(np.intp), SPELLS["event"].astype(np.int8)
    unit = SPELLS["prompt"].astype(np.intp) - 1
    per_unit = count_spells(d, e, unit, 24, 12)
    weights = np.random.default_rng(3).multinomial(24, np.full(24, 1 / 24), size=5)
    batched = incidence((weights @ per_unit.reshape(24, -1)).reshape(5, 14, 3))
    for b in range(5):
        again = np.repeat(np.arange(d.size), weights[b][unit])
        one = curves_of(d[again], e[again], 12)
        np.testing.assert_allclose(batched.incidence[b], one.incidence, atol=1e-12)
        assert batched.naive[b] == pytest.approx(one.naive)
