"""Reopening of COLLAPSE: spells out of runs, the memoryless null, and what the naive share does."""

import warnings

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.markov import Sequences
from dynstat.markov.competing import count_spells, incidence
from dynstat.markov.cycles import reopening
from dynstat.markov.duration import duration_dependence
from dynstat.markov.memoryless import (
    constant_incidence,
    duration_scores,
    duration_slope,
    fit_memoryless,
    rearrange_within_runs,
    simulate_memoryless,
)
from dynstat.markov.spells import find_spells, make_spells


def two_state(prompts, runs, tokens, *, leave=0.2, enter=0.1, end=0.0, spread=0.0, memory=0.0, seed=0):
    """Simulate runs one token at a time; `memory` is added to the logit of leaving a doubling of duration."""
    rng = np.random.default_rng(seed)
    n = prompts * runs
    prompt = np.repeat(np.arange(prompts), runs)
    logit = np.log(leave / (1 - leave)) + spread * rng.normal(size=prompts)[prompt]
    inside = np.full((n, tokens), -1, dtype=np.int8)
    state = (rng.random(n) < 0.2).astype(np.int8)
    alive, since = np.ones(n, dtype=bool), np.ones(n)
    inside[:, 0] = state
    for t in range(1, tokens):
        p = 1 / (1 + np.exp(-(logit + memory * np.log2(since))))
        u = rng.random(n)
        ends = alive & (u < end)
        flip = alive & ~ends & (rng.random(n) < np.where(state == 1, p, enter))
        alive &= ~ends
        state = np.where(flip, 1 - state, state)
        since = np.where(flip, 1, since + 1)
        inside[alive, t] = state[alive]
    labels = pd.DataFrame({"prompt": [f"p{i:02d}" for i in prompt], "model": np.tile(["a", "b"], n)[:n]})
    labels["stop_reason"] = np.where(alive, "budget", "end_of_text")
    return make_spells("COLLAPSE", inside, labels, ~alive, np.full(n, tokens, dtype=np.intp))


def sequences(*rows, stop=None):
    names = {"C": "COLLAPSE", "o": "OPEN", ".": None}
    labels = {"prompt": [f"p{i}" for i in range(len(rows))], "stop_reason": stop or ["budget"] * len(rows)}
    return Sequences.from_lists(
        [[names[c] for c in row] for row in rows], states=("OPEN", "COLLAPSE"), labels=labels
    )


# --- spells ------------------------------------------------------------------------------------------------


def test_spells_of_runs_by_hand():
    got = find_spells(
        sequences("CCooCCoC", "oCCC", "oC", "oCCC", "oC.Co", stop=["budget"] * 3 + ["end_of_text", "budget"])
    )
    # Run 0 begins inside: left out. Its last stay starts at the last token: at risk for no step.
    assert got.sequence.tolist() == [0, 0, 1, 2, 3, 4]
    assert got.start.tolist() == [4, 7, 1, 1, 1, 1]
    assert got.duration.tolist() == [2, 0, 2, 0, 3, 3]
    assert got.event.tolist() == [1, 0, 0, 0, 2, 1]
    assert got.left_open == 1 and got.counts()["censored"] == 3
    assert got.frame()["event"].tolist()[:2] == ["reopened", "censored"]
    assert "1 open at a run's first token left out" in str(got)


def test_a_named_state_is_held_against_all_others():
    three = Sequences.from_lists(
        [["STABLE", "RIVALRY", "STABLE", "OTHER", "RIVALRY"]],
        labels={"prompt": ["p"], "stop_reason": ["budget"]},
    )
    got = find_spells(three, state="RIVALRY")
    assert got.state == "RIVALRY" and got.duration.tolist() == [1, 0]
    with pytest.raises(DynstatError) as e:
        find_spells(three, state="FOLDED")
    assert e.value.code == "S407" and "RIVALRY" in str(e.value)


def test_along_layers_the_last_one_censors():
    by_layer = Sequences.from_lists(
        [["OPEN", "COLLAPSE", "COLLAPSE"]],
        labels={"prompt": ["p"], "stop_reason": ["end_of_text"], "first_end_of_text": [4]},
        axis="layer",
    )
    got = find_spells(by_layer)
    assert got.event.tolist() == [0] and got.duration.tolist() == [1]


@pytest.mark.parametrize("rows", [("ooo", "oo"), ("CCC", "CCo")])
def test_no_spell_with_a_start_is_an_error(rows):
    with pytest.raises(DynstatError) as e:
        find_spells(sequences(*rows))
    assert e.value.code == "S406"


def test_without_stop_reasons_it_warns():
    with pytest.warns(DynstatWarning, match="stop_reason"):
        find_spells(Sequences.from_lists([["OPEN", "COLLAPSE"]]))


def test_a_run_ends_at_its_first_end_of_text(panel_like):
    ds, codes, entropy = panel_like
    got = find_spells(ds, codes, at_entry={"entropy": entropy})
    run = got.labels["prompt"].to_numpy()
    # p0: generated C after o, then end of text at generated token 3; what follows does not count.
    assert got.duration[run == "p0"].tolist() == [2] and got.event[run == "p0"].tolist() == [2]
    # p1: same codes without end of text.
    assert got.event[run == "p1"].tolist() == [1, 0]
    # Entropy at entry is that of the token where the stay starts (prompt of 2 tokens).
    assert got.labels["entropy"].tolist() == [3.0, 3.0, 6.0]
    with pytest.raises(DynstatError) as e:
        find_spells(ds)
    assert e.value.code == "S404"
    with pytest.raises(DynstatError) as e:
        find_spells(ds, codes, state="STABLE")
    assert e.value.code == "S407"


@pytest.fixture
def panel_like():
    import xarray as xr

    from dynstat.dataset.schema import DIMS

    tokens = 8
    shape = (1, 2, 1, tokens)
    phase = np.zeros(shape, dtype=np.int8)
    phase[..., 2:] = 1
    codes = np.full(shape, -1, dtype=np.int8)
    codes[..., 2:] = [0, 1, 1, 0, 1, 1]
    special = np.zeros(shape, dtype=np.int8)
    special[0, 0, 0, 5] = 1
    codes[0, 0, 0, 5] = -1
    first = np.zeros(shape, dtype=np.int8)
    first[..., 0] = 1
    coords = {
        "model": ["m"],
        "prompt": ["p0", "p1"],
        "sample": ["s"],
        "token": np.arange(tokens),
        "layer": [0],
        "layers": ("model", [1]),
        "relative_depth": (("model", "layer"), [[0.0]]),
        "category": ("prompt", ["x", "y"]),
    }
    ds = xr.Dataset(
        {
            "phase": (DIMS[:4], phase),
            "quality": (DIMS, np.zeros((*shape, 1), dtype=np.int8)),
            "is_special": (DIMS[:4], special),
            "is_first": (DIMS[:4], first),
            "stop_reason": (DIMS[:3], np.full(shape[:3], "budget", dtype=object)),
            "first_end_of_text": (DIMS[:3], np.array([[[3], [-1]]], dtype=np.int32)),
            "n_generated": (DIMS[:3], np.full(shape[:3], 6, dtype=np.int32)),
        },
        coords=coords,
    )
    flags = {"flag_meanings": "OPEN COLLAPSE", "flag_values": [0, 1]}
    code = xr.DataArray(
        codes, dims=DIMS[:4], coords={d: ds[d] for d in DIMS[:4]}, name="collapse", attrs=flags
    )
    entropy = xr.DataArray(
        np.broadcast_to(np.arange(tokens, dtype=float), shape), dims=DIMS[:4], coords=code.coords
    )
    return ds, code, entropy


# --- the memoryless chain ----------------------------------------------------------------------------------


def test_fixture_10_kaplan_meier_recovers_the_exit_hazard_and_the_naive_share_does_not():
    leave, within = 0.15, 10
    spells = two_state(150, 20, 40, leave=leave)
    got = incidence(count_spells(spells.duration, spells.event, np.zeros(len(spells), dtype=int), 1, 39)[0])
    truth = 1 - (1 - leave) ** np.arange(1, within + 1)
    np.testing.assert_allclose(got.kaplan_meier[:within], truth, atol=0.02)
    np.testing.assert_allclose(got.incidence[:within, 0], truth, atol=0.02)
    # In the long run every stay ends: the share that did by the end of the record says when it was cut.
    assert got.naive < 0.86
    assert 1 - (1 - leave) ** 39 > 0.99


@pytest.mark.parametrize(("tokens", "low", "high"), [(30, 0.74, 0.84), (60, 0.87, 0.94)])
def test_a_chain_without_memory_shows_the_published_share(tokens, low, high):
    # 84 % of collapses left within the record is what censoring alone makes of 100 %.
    share = (two_state(100, 20, tokens, leave=0.15, enter=0.1, seed=5).event == 1).mean()
    assert low < share < high


def test_rates_are_events_over_steps():
    spells = two_state(40, 10, 60, leave=0.25, enter=0.1, end=0.01, seed=3)
    runs = len(spells.runs)
    got = fit_memoryless(spells, np.zeros(runs, dtype=np.intp), 1)
    assert got.leave[0] == pytest.approx(0.25 * 0.99, abs=0.02)
    assert got.enter[0] == pytest.approx(0.1 * 0.99, abs=0.01)
    assert got.end_inside[0] == pytest.approx(0.01, abs=0.004) == got.end_outside[0]
    # Slowly, run by run; the run's end of text is its last step.
    steps, moves, ends = 0, 0, 0
    for r in range(runs):
        x = spells.inside[r][spells.inside[r] >= 0]
        steps += (x[:-1] == 1).sum() + (spells.ended[r] and x[-1] == 1)
        moves += ((x[:-1] == 1) & (x[1:] == 0)).sum()
        ends += spells.ended[r] and x[-1] == 1
    assert got.leave[0] == pytest.approx(moves / steps) and got.end_inside[0] == pytest.approx(ends / steps)


def test_simulated_runs_meet_the_closed_forms_and_an_independent_simulator():
    spells = two_state(60, 10, 40, leave=0.2, enter=0.15, end=0.02, seed=7)
    runs = len(spells.runs)
    zero = np.zeros(runs, dtype=np.intp)
    chain = fit_memoryless(spells, zero, 1)
    drawn = np.concatenate(
        list(simulate_memoryless(chain, spells, zero, zero, 1, 39, 60, np.random.default_rng(1)))
    )
    assert drawn.shape == (60, 1, 41, 3)
    many = incidence(drawn.sum(axis=(0, 1)))
    q, e = chain.leave[0], chain.end_inside[0]
    h = np.arange(1, 15)
    truth = q * (1 - (1 - q - e) ** h) / (q + e)
    np.testing.assert_allclose(many.incidence[:14, 0], truth, atol=0.01)
    np.testing.assert_allclose(many.incidence[:14, 1], truth * e / q, atol=0.006)
    assert constant_incidence(drawn.sum(axis=0), 10) == pytest.approx(truth[9], abs=0.01)
    # Numbers of stays and their ends, against the simulator above.
    other = np.mean(
        [
            np.bincount(two_state(60, 10, 40, leave=0.2, enter=0.15, end=0.02, seed=s).event, minlength=3)
            for s in range(100, 120)
        ],
        axis=0,
    )
    np.testing.assert_allclose(drawn.sum(axis=(1, 2)).mean(axis=0), other, rtol=0.12)


def test_rearranging_keeps_every_run_and_equals_all_orders():
    # One run cut inside: stays of 2 and 1 left, then one at risk for 2 steps. Outcomes 0 1 1 0 0.
    spells = find_spells(sequences("oCCoCoCCC", "oCo"))
    draws = np.concatenate(
        list(rearrange_within_runs(spells, np.zeros(4, dtype=np.intp), 1, 6, 4000, np.random.default_rng(0)))
    )
    assert (draws.sum(axis=(1, 2)) == [1, 3, 0]).all()
    steps = (draws.sum(axis=-1) * np.arange(8)).sum(axis=(1, 2))
    assert (steps == 6).all()
    # All ten orders of two exits among five steps are equally likely: in four of them the first step exits.
    from itertools import combinations

    expected = []
    for exits in combinations(range(5), 2):
        lengths = [exits[0] + 1, exits[1] - exits[0], 4 - exits[1]]
        expected.append(sum(d == 1 for d in lengths[:2]) + 1)
    assert draws[:, 0, 1, 1].mean() == pytest.approx(np.mean(expected), abs=0.03)


def test_the_exit_before_a_run_stays_outside_and_end_of_text_stay_where_they_are():
    spells = find_spells(sequences("oCCCoo", "oCCC", stop=["budget", "end_of_text"]))
    draws = np.concatenate(
        list(rearrange_within_runs(spells, np.zeros(2, dtype=np.intp), 1, 4, 50, np.random.default_rng(0)))
    )
    assert (
        (draws[:, 0, 3, 1] == 1).all()
        and (draws[:, 0, 3, 2] == 1).all()
        and (draws.sum(axis=(1, 2, 3)) == 2).all()
    )


def test_slope_is_the_logistic_one():
    sm = pytest.importorskip("statsmodels.api")
    spells = two_state(30, 6, 40, leave=0.2, memory=0.4, seed=2)
    cell = spells.codes("model")[0]
    counts = count_spells(spells.duration, spells.event, cell, 2, 39)
    rows = spells.periods()
    x = np.column_stack([rows["model"] == "a", rows["model"] == "b", np.log2(rows["duration"])]).astype(float)
    fit = sm.GLM(rows["reopened"].to_numpy(float), x, family=sm.families.Binomial()).fit(tol=1e-12)
    assert duration_slope(counts) == pytest.approx(fit.params[2], abs=1e-7)
    # The score statistic is near the Wald one.
    assert duration_scores(counts, 10).slope == pytest.approx(fit.params[2] / fit.bse[2], rel=0.1)


# --- results -----------------------------------------------------------------------------------------------

QUICK = {"replicates": 199, "permutations": 199}


@pytest.fixture(scope="module")
def spells():
    return two_state(24, 6, 40, leave=0.2, enter=0.15, end=0.01, seed=11)


def test_result_holds_curve_null_and_naive_share(spells):
    got = reopening(spells, horizon=8, by="model", **QUICK)
    e = got.estimates()
    plain = incidence(count_spells(spells.duration, spells.event, np.zeros(len(spells), dtype=int), 1, 39)[0])
    assert e["reopening"].value == plain.incidence[7, 0] and e["naive"].value == plain.naive
    assert e["kaplan_meier"].value > e["reopening"].value
    assert e["reopening"].low < e["reopening"].value < e["reopening"].high
    assert e["reopening"].unit == "prompt" and e["reopening"].n["units"] == 24
    assert e["reopening"].method == "markov.reopening@1" and e["reopening"].seed == 0
    assert e["reopening"].null["name"] == "memoryless two-state chain" and 0 < e["reopening"].null["p"] <= 1
    assert {"reopening.a", "naive.b"} <= set(e)
    total = got.tidy().query("term == 'reopening' and group != 'all'")["spells"].sum()
    assert total == len(spells) == got.glance()["spells"][0]
    curve = got.curve.query("group == 'all'")
    np.testing.assert_allclose(curve[["estimate", "ended", "inside"]].sum(axis=1)[:20], 1.0)
    # The naive share lies where a chain without memory puts it.
    row = got.nulls.query("group == 'all' and statistic == 'naive'").iloc[0]
    assert row["q025"] < row["observed"] < row["q975"]
    assert "Aalen-Johansen" in str(got) and got._repr_html_().startswith("<pre>")


def test_same_seed_same_numbers(spells):
    a, b = (reopening(spells, horizon=5, rng=4, **QUICK) for _ in range(2))
    pd.testing.assert_frame_equal(a.tidy(), b.tidy())
    pd.testing.assert_frame_equal(a.nulls, b.nulls)


def test_memory_is_found_and_its_direction_named():
    spells = two_state(30, 8, 50, leave=0.12, enter=0.15, memory=0.8, seed=3)
    for null in ("within_runs", "simulated"):
        p = {
            side: reopening(spells, horizon=2, null=null, alternative=side, **QUICK)
            .estimates()["reopening"]
            .null["p"]
            for side in ("two-sided", "less", "greater")
        }
        # Leaving late: fewer within 2 tokens than constant hazards give.
        assert p["two-sided"] <= 0.02 and p["less"] <= 0.01 and p["greater"] > 0.9
    got = duration_dependence(spells, **QUICK)
    assert got.estimate.null["p"] <= 0.01 and got.omnibus <= 0.02
    assert got.estimate.value == pytest.approx(0.8, abs=0.2)
    assert got.glance()["odds.ratio"][0] > 1 and "log odds a doubling" in str(got)
    assert got.hazards["estimate"].iloc[4] > got.hazards["estimate"].iloc[0]
    assert set(got.estimates()) >= {"duration_slope", "hazard.1"}
    # A step at which all or none of the few still inside leave tells little.
    few = got.hazards[(got.hazards["n.risk"] > 0) & (got.hazards["n.risk"] < 4)]
    assert len(few) and (few["conf.high"] - few["conf.low"] > 0.3).all()
    assert (few["conf.low"] <= few["estimate"]).all() and (few["estimate"] <= few["conf.high"]).all()


def test_prompts_that_differ_fool_the_simulated_null_only():
    spells = two_state(40, 10, 60, leave=0.2, enter=0.15, spread=1.2, seed=9)
    p = {
        null: reopening(spells, horizon=6, null=null, **QUICK).estimates()["reopening"].null["p"]
        for null in ("within_runs", "simulated")
    }
    assert p["simulated"] <= 0.02 < 0.05 < p["within_runs"]


def test_beyond_the_longest_record_it_says_so():
    spells = find_spells(sequences("ooCoCCCC", "oCCoo", "oCoCC"))
    with pytest.warns(DynstatWarning, match="not known"):
        got = reopening(spells, horizon=9, **QUICK)
    e = got.estimates()["reopening"]
    assert np.isnan(e.value) and np.isnan(e.low) and e.interval.startswith("none")


def test_a_group_of_one_unit_has_no_interval(spells):
    runs = spells.runs.assign(kind=np.where(spells.runs["prompt"] == "p00", "x", "y"))
    one = make_spells("COLLAPSE", spells.inside, runs, spells.ended, spells.limit)
    e = reopening(one, horizon=4, by="kind", **QUICK).estimates()
    assert np.isnan(e["reopening.x"].low) and np.isfinite(e["reopening.y"].low)


@pytest.mark.parametrize(
    ("kw", "code"),
    [
        ({"horizon": 0}, "S404"),
        ({"horizon": 2.5}, "S404"),
        ({"null": "none"}, "S404"),
        ({"alternative": "up"}, "S404"),
        ({"replicates": 5}, "S404"),
        ({"permutations": 5}, "S404"),
        ({"by": "author"}, "S407"),
        ({"unit": "author"}, "S407"),
    ],
)
def test_bad_arguments_are_named(spells, kw, code):
    with pytest.raises(DynstatError) as e:
        reopening(spells, **({"horizon": 4} | kw))
    assert e.value.code == code


def test_one_unit_is_an_error():
    one = find_spells(sequences("ooCoCC"))
    for call in (lambda: reopening(one, horizon=1), lambda: duration_dependence(one)):
        with pytest.raises(DynstatError) as e:
            call()
        assert e.value.code == "S403"


def test_a_state_that_is_never_left_says_nothing_of_duration():
    stuck = find_spells(sequences("oCCC", "ooCC", "oooC"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(DynstatError, match="S406.*was left"):
            duration_dependence(stuck, unit="prompt")


def test_nothing_is_warned_of_on_ordinary_data(spells):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reopening(spells, horizon=4, by="model", **QUICK)
        duration_dependence(spells, **QUICK)


def test_an_event_that_never_fails_has_a_limit_nevertheless():
    # Every stay lasts one or two tokens: within 3 all have reopened, and no text has ended.
    spells = find_spells(sequences(*["oCoCCoooCo"] * 12))
    e = reopening(spells, horizon=3, **QUICK).estimates()
    assert e["reopening"].value == 1.0 and 0.7 < e["reopening"].low < 0.97 and e["reopening"].high == 1.0
    assert e["end_of_text"].value == 0.0 == e["end_of_text"].low and 0.03 < e["end_of_text"].high < 0.3
    assert "Jeffreys" in e["reopening"].interval
    # A plan can ask for a limit at any level.
    assert e["reopening"].limit(0.01, "lower") < e["reopening"].low


def test_fates_leave_out_what_is_not_known():
    from dynstat.markov.cycle_intervals import fates_at

    duration, event = np.array([1, 2, 2, 3, 5, 0]), np.array([0, 1, 0, 2, 1, 0], dtype=np.int8)
    counts = count_spells(duration, event, np.zeros(6, dtype=np.intp), 1, 6)
    # At 2: one reopened; the one censored at 2, and the two that lasted longer, are inside.
    assert fates_at(counts, 2).tolist() == [[1.0, 0.0, 3.0]]
    assert fates_at(counts, 5).tolist() == [[2.0, 1.0, 0.0]]
