"""Dwell times: R's survival, closed forms, slow counts; memory told from units that differ."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.markov import Sequences, dwell
from dynstat.markov.semi_markov import fit_dwell, log_likelihood
from dynstat.markov.stay_tables import count_stays, hazard_statistic

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "dwell.json").read_text(encoding="utf-8"))


def sequences(lists: list[list[int]], models: int = 1, k: int = 3) -> Sequences:
    units = len(lists) // models
    labels = {"model": np.repeat(np.arange(models), units), "prompt": np.tile(np.arange(units), models)}
    names = [f"STATE_{i}" for i in range(k)]
    return Sequences.from_lists([[names[v] for v in row] for row in lists], labels=labels, states=names)


def chain(rng: np.random.Generator, rows: int, steps: int, stay: np.ndarray) -> np.ndarray:
    """Two states; `stay` is the chance of staying, by row."""
    x = np.zeros((rows, steps), dtype=int)
    for t in range(1, steps):
        x[:, t] = np.where(rng.random(rows) < stay, x[:, t - 1], 1 - x[:, t - 1])
    return x


@pytest.mark.parametrize("case", ORACLE["states"], ids=lambda c: f"{c['state']}-{c['drop']}")
def test_equal_to_r(case: dict) -> None:
    s = sequences(ORACLE["sequences"])
    r = dwell(s, left_open="drop" if case["drop"] else "start", surrogates=99, replicates=99)
    one = r.stays[case["state"] - 1]
    np.testing.assert_allclose(one.survival["estimate"], case["survival"], atol=1e-12)
    assert one.mean.value == pytest.approx(case["mean"], abs=1e-10)
    assert (int((one.exits + one.censored).sum()), int(one.exits.sum())) == (case["stays"], case["ended"])
    # R gives the middle of a step at exactly one half.
    if not np.isclose(case["survival"], 0.5).any():
        assert one.median.value == case["median"]
    assert one.fits["mean"][0] == pytest.approx(1 / case["hazard"])
    np.testing.assert_allclose(one.fits["logLik"], case["loglik"], atol=2e-4)
    assert one.mean.low < one.mean.value < one.mean.high


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.integers(-1, 2)),
    st.booleans(),
)
def test_counts_equal_slow_counts(x: np.ndarray, drop: bool) -> None:
    tables, skipped = count_stays(np.stack([x, x[::-1]]), np.zeros(len(x), dtype=np.intp), 1, 3, drop=drop)
    slow, left = np.zeros((3, 2, x.shape[1]), dtype=int), np.zeros(3, dtype=int)
    for row in x.tolist():
        runs = [(s, len(list(g))) for s, g in itertools.groupby(row)]
        seen = False
        for i, (s, length) in enumerate(runs):
            if s < 0:
                continue
            opens = i == 0 or runs[i - 1][0] < 0
            censored = i == len(runs) - 1 or runs[i + 1][0] < 0
            if opens and (drop or seen):
                left[s] += 1
            elif length - censored > 0:
                slow[s, int(censored), length - censored - 1] += 1
            seen = True
    for r in (0, 1):
        np.testing.assert_array_equal(tables[r, 0], slow)
        np.testing.assert_array_equal(skipped[r, 0], left)


def test_likelihoods_and_special_cases() -> None:
    d, c = np.array([5, 3, 0, 2, 1]), np.array([1, 0, 2, 0, 4])
    k = np.arange(1, 6)
    r, h = 2.5, 0.4
    wanted = (d * stats.nbinom.logpmf(k - 1, r, h) + c * stats.nbinom.logsf(k - 1, r, h)).sum()
    assert log_likelihood("negative_binomial", [r, h], d, c) == pytest.approx(wanted)
    geometric = (d * stats.geom.logpmf(k, h) + c * stats.geom.logsf(k, h)).sum()
    assert log_likelihood("geometric", [h], d, c) == pytest.approx(geometric)
    assert log_likelihood("negative_binomial", [1.0, h], d, c) == pytest.approx(geometric)
    assert log_likelihood("weibull", [-np.log1p(-h), 1.0], d, c) == pytest.approx(geometric)
    table = fit_dwell(d, c).set_index("distribution")
    assert table.loc["geometric", "parameter.1"] == pytest.approx(d.sum() / (k * (d + c)).sum())
    assert (table["logLik"] >= table.loc["geometric", "logLik"] - 1e-6).all()
    assert fit_dwell([4, 0], [0, 0])["mean"].tolist() == [1.0, 1.0, 1.0]


def test_a_flat_hazard_has_no_statistic() -> None:
    assert hazard_statistic(np.array([[8.0, 4, 2, 1], [0, 0, 0, 1]])) == pytest.approx(0)
    d, n = np.array([6.0, 1.0]), np.array([10.0, 4.0])
    h = 0.5
    slow = 2 * sum(
        a * np.log(a / (m * h)) + (m - a) * np.log((m - a) / (m * (1 - h))) for a, m in zip(d, n, strict=True)
    )
    assert hazard_statistic(np.array([d, [0, 3]])) == pytest.approx(slow)


def test_memory_is_told_from_units_that_differ() -> None:
    rng = np.random.default_rng(2)
    # Every unit without memory, but some stay long and some short: the pooled hazard falls with time.
    mixed = sequences(chain(rng, 60, 60, np.repeat([0.5, 0.9], 30)).tolist(), k=2)
    p = {
        null: dwell(mixed, null=null, surrogates=199, replicates=19).stays[0].mean.null
        for null in ("markov", "markov_group", "markov_shuffle")
    }
    assert p["markov_group"]["p"] == 0.005 and p["markov"]["p"] > 0.01 and p["markov_shuffle"]["p"] > 0.05
    # Stays of exactly three steps have one.
    fixed = sequences(
        [np.roll(np.tile([0, 0, 0, 1, 1, 1], 8), int(s)).tolist() for s in rng.integers(0, 6, 40)], k=2
    )
    r = dwell(fixed, surrogates=199, replicates=99)
    for stay in r.stays:
        assert stay.mean.value == stay.median.value == 3 and stay.mean.null["p"] == 0.005
        assert stay.fits["delta"][2] < -50
    assert r.estimates()["self_transition.STATE_0"].value == pytest.approx(2 / 3)


def test_the_memoryless_mean_is_found_again() -> None:
    rng = np.random.default_rng(1)
    r = dwell(
        sequences(chain(rng, 120, 60, np.full(120, 0.8)).tolist(), models=2, k=2),
        surrogates=99,
        replicates=199,
    )
    table = r.tidy().set_index(["state", "group"])
    assert list(table.index.get_level_values("group").unique()) == ["all", "0", "1"]
    whole = table.loc["STATE_0", "all"]
    assert whole["estimate"] == pytest.approx(5, rel=0.1)
    assert whole["geometric"] == pytest.approx(whole["estimate"], rel=0.05)
    assert whole["conf.low"] < 5 < whole["conf.high"] and whole["p.value"] > 0.01
    x = chain(np.random.default_rng(1), 120, 60, np.full(120, 0.8))
    stays = (x[:, 1:] == x[:, :-1])[x[:, :-1] == 0].mean()
    assert whole["memoryless"] == pytest.approx(1 / (1 - stays))
    curve = r.survival().query("state == 'STATE_0' and group == 'all'")
    assert (curve["conf.low"] <= curve["estimate"] + 1e-12).all() and "Dwell in 2 states" in str(r)
    assert r.glance()["units"].item() == 60


def test_bad_input() -> None:
    s = sequences([[0, 1, 1, 0], [0, 0, 1, 0]], k=2)
    for wrong in ({"left_open": "keep"}, {"surrogates": 3}, {"replicates": 1}):
        with pytest.raises(DynstatError, match="S404"):
            dwell(s, **wrong)
    with pytest.raises(DynstatError, match="S404"):
        dwell(s, null="other")
    with pytest.raises(DynstatError, match="S406.*no stay"):
        dwell(sequences([[0, 0, 0], [0, 0, 0]], k=1))
    with pytest.warns(DynstatWarning, match="STATE_1: never left"):
        dwell(sequences([[0, 0, 1, 1], [0, 1, 1, 1]], k=2), surrogates=99, replicates=19)
    with pytest.warns(DynstatWarning, match="STATE_2: no stay to describe"):
        dwell(sequences([[0, 1, 0, 1], [1, 0, 1, 0]], k=3), surrogates=99, replicates=19)
    with pytest.raises(DynstatError, match="S403"):
        dwell(sequences([[0, 1, 0, 1]], k=2))
    with pytest.raises(DynstatError, match="S407"):
        dwell(s, by="family")
