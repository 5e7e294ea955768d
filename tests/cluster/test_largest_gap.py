"""The largest gap: fixture 7, closed forms, level, intervals from replicates and units, bad input."""

import numpy as np
import pandas as pd
import pytest

from dynstat.cluster.largest_gap import largest_gap_test
from dynstat.cluster.spacings import POPULATIONS, gap_share, gap_share_null, p_from, uniform_tail
from dynstat.cluster.unit_features import UnitFeatures
from dynstat.errors import DynstatError

GD = {
    "GPT-2": 2.458,
    "Phi-1.5": 1.764,
    "DistilGPT-2": 1.577,
    "Qwen2.5-0.5B": 0.079,
    "OPT-125M": 0.074,
    "Pythia-70M": 0.059,
    "Pythia-160M": 0.039,
    "TinyLlama-1.1B": 0.021,
}


@pytest.fixture(scope="module")
def published():
    return largest_gap_test(GD, log=True, item="model")


def test_fixture_7(published):
    assert published.gap_share == pytest.approx(0.629, abs=5e-4)
    assert published.gap.value == pytest.approx(1.577 / 0.079)
    assert published.next_gap == pytest.approx(0.039 / 0.021)
    known = {"normal": (0.015, 0.001), "uniform": (0.019, 0.002), "t3": (0.079, 0.005)}
    for name, (p, error) in (known | {"exponential": (0.13, 0.006)}).items():
        assert published.p_value(name) == pytest.approx(p, abs=error)
    assert published.groups[0] == ("GPT-2", "Phi-1.5", "DistilGPT-2")


def test_one_value_a_cell_gives_no_interval(published):
    e = published.estimates()
    assert e["gap_factor"].pivot is None and "none" in e["gap_factor"].interval
    assert e["gap_factor.left_out"].value == pytest.approx(1.577 / 0.079)
    assert published.left_out["kept"].all()
    assert e["gap_share.t3"].null["p"] == published.p_value("t3")


def test_verdict_says_what_eight_can_show(published):
    said = published.verdict
    assert "normal (p = 0.015), uniform (p = 0.018); not beyond: t3 (p = 0.082)" in said
    assert "must reach 0.55 to 0.72" in said and "no interval" in said


def test_names_come_from_the_index():
    s = pd.Series(GD).rename_axis("model")
    assert largest_gap_test(s, log=True, null_sets=99).item == "model"


def test_summary_and_figure(published):
    assert "19.96" in str(published) and "exponential" in str(published)
    assert published.tidy().shape[0] == 4 and published.glance().loc[0, "cells"] == 8
    assert "0.629 of the range" in published.alt_text()
    assert published.plot().axes


@pytest.mark.parametrize("n, share", [(4, 0.5), (8, 0.629), (8, 0.3), (17, 0.2)])
def test_uniform_null_equals_its_closed_form(n, share):
    null = gap_share_null(n, "uniform", 40_000, rng=1)
    exact = uniform_tail(share, n)
    assert p_from(share, null) == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000) + 3e-5)


@pytest.mark.parametrize("n, share", [(4, 0.6), (8, 0.629), (8, 0.8)])
def test_exponential_null_equals_its_closed_form(n, share):
    # Gaps of exponential samples are independent with rates 1, ..., n - 1 (Renyi); above a half only one
    # of them can reach the share, so the probabilities add up.
    rate, c = np.arange(1, n), share / (1 - share)
    exact = sum(np.prod([r / (r + q * c) for r in rate if r != q]) for q in rate)
    null = gap_share_null(n, "exponential", 40_000, rng=2)
    assert p_from(share, null) == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))


@pytest.mark.parametrize("population", list(POPULATIONS))
def test_level_is_exact_under_the_population_named(population):
    rng = np.random.default_rng(7)
    x = 5 - 3 * POPULATIONS[population](rng, (4000, 9))
    null = gap_share_null(9, population, 3999, rng=8)
    p = np.array([p_from(s, null) for s in gap_share(x)])
    for alpha in (0.05, 0.2):
        assert abs(np.mean(p <= alpha) - alpha) < 4 * np.sqrt(alpha * (1 - alpha) / 4000 * 2)


def test_interval_from_replicates_covers_and_bounds():
    rng = np.random.default_rng(3)
    truth = np.array([0.0, 0.3, 0.5, 2.5, 2.6])
    seeds = np.array([1, 2, 3, 4, 2])
    cell = np.repeat(list("abcde"), seeds)
    inside, below = 0, 0
    for _ in range(300):
        x = np.repeat(truth, seeds) + rng.normal(0, 0.2, seeds.sum())
        e = largest_gap_test(x, cell=cell, population="uniform", null_sets=99).gap
        inside += e.low <= 2.0 <= e.high
        below += e.limit(0.05, "lower") <= 2.0
    assert inside / 300 > 0.92 and below / 300 > 0.93


def test_interval_of_equal_replicates_is_the_textbook_one():
    x = np.array([0.0, 0.2, 1.0, 1.4, 5.0, 5.6])
    e = largest_gap_test(x, cell=["a", "a", "b", "b", "c", "c"], population="normal", null_sets=99).gap
    s2 = (0.02 + 0.08 + 0.18) / 3
    assert e.value == pytest.approx(5.3 - 1.2)
    assert e.high - e.low == pytest.approx(2 * 3.182446305 * np.sqrt(s2))


def test_leaving_out_the_only_cell_of_a_group_ends_it():
    g = largest_gap_test([0.0, 1.0, 2.0, 50.0], population="uniform", null_sets=999)
    assert g.left_out["kept"].tolist() == [True, True, True, False]
    assert g.left_out["p.uniform"].iloc[3] == 1.0
    e = g.estimates()["gap.left_out"]
    assert e.value == 0.0 and e.pivot is None and "4" in e.diagnostics["groups change without"]
    assert "other groups without 4" in str(g) and "change without 4" in g.verdict


def test_units_inside_items_give_an_interval():
    rng = np.random.default_rng(1)
    level = np.array([0.0, 0.1, 0.2, 3.0, 3.1])
    values = np.exp(level[:, None] + rng.normal(0, 0.3, (5, 30)))
    both = np.stack([values, np.ones_like(values)], axis=2)
    u = UnitFeatures(both, tuple("abcde"), tuple(map(str, range(30))), ("G", "D"))
    g = largest_gap_test(u, log=True, value=lambda x: x[..., 0] / x[..., 1], null_sets=999, replicates=299)
    assert g.gap.low < np.exp(2.8) < g.gap.high and g.gap.unit == "prompt" and g.gap.n["units"] == 30
    assert g.item == "model" and g.groups[0] in (("e", "d"), ("d", "e"))
    with pytest.raises(DynstatError, match="more than one feature"):
        largest_gap_test(u)


def test_same_seed_same_numbers():
    a = largest_gap_test(GD, log=True, null_sets=999, rng=4)
    b = largest_gap_test(pd.Series(GD), log=True, null_sets=999, rng=4)
    assert a.tidy().equals(b.tidy())


@pytest.mark.parametrize(
    "call, code",
    [
        (lambda: largest_gap_test([1.0, 2.0]), "S403"),
        (lambda: largest_gap_test([1.0, 2.0, 4.0], cell=["a", "a", "b"]), "S403"),
        (lambda: largest_gap_test([1.0, 1.0, 1.0]), "S405"),
        (lambda: largest_gap_test([1.0, -2.0, 3.0], log=True), "S404"),
        (lambda: largest_gap_test([1.0, np.inf, 3.0]), "S405"),
        (lambda: largest_gap_test(np.ones((4, 2)) * np.arange(4)[:, None]), "S404"),
        (lambda: largest_gap_test([1.0, 2.0, 3.0], population="cauchy"), "S404"),
        (lambda: largest_gap_test([1.0, 2.0, 3.0], null_sets=10), "S404"),
        (lambda: largest_gap_test(GD, cell={"GPT-2": "a"}), "S407"),
        (lambda: largest_gap_test([1.0, 2.0, 3.0], cell=["a", "b"]), "S407"),
    ],
)
def test_bad_input(call, code):
    with pytest.raises(DynstatError) as e:
        call()
    assert e.value.code == code


def test_ties_are_allowed():
    g = largest_gap_test([0.0, 0.0, 0.0, 1.0, 1.0], population="uniform", null_sets=99)
    assert g.gap_share == 1.0 and g.p_value("uniform") == 0.01
