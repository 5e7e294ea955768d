"""First visits: slow orders, and the share that a depth trend gives without any grammar."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.markov import Sequences, first_visits
from dynstat.markov.visiting_order import visiting_order

STATES = ("SURFACE_BRANCHING", "STABLE", "COMMITTED_NO_BIFURCATION")


def sequences(x: np.ndarray, models: int = 2) -> Sequences:
    units = len(x) // models
    labels = {"model": np.repeat(np.arange(models), units), "prompt": np.tile(np.arange(units), models)}
    return Sequences.from_lists(
        [[STATES[v] for v in r] for r in x], labels=labels, states=STATES, axis="layer"
    )


def trend(rng: np.random.Generator, rows: int, noise: float, wide: float, slope: float = 1.0) -> np.ndarray:
    return np.digitize(slope * np.linspace(-1, 1, 12) + noise * rng.normal(size=(rows, 12)), [-wide, wide])


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.int8, (2, 4, 7), elements=st.integers(-1, 3)))
def test_orders_equal_slow_orders(x: np.ndarray) -> None:
    got = visiting_order(x, [2, 0, 1])
    for r, i in np.ndindex(2, 4):
        seen = [s for s in dict.fromkeys(x[r, i].tolist()) if s in (0, 1, 2)]
        digits = [[2, 0, 1].index(s) + 1 for s in seen] + [0] * (3 - len(seen))
        assert got[r, i] == digits[0] * 16 + digits[1] * 4 + digits[2]


@pytest.mark.parametrize(("noise", "wide"), [(0.1, 0.5), (0.2, 0.5), (0.2, 0.7), (0.3, 0.5)])
def test_a_trend_alone_gives_the_order(noise: float, wide: float) -> None:
    """Fixture 11: the order in 87 to 100 % of sequences, STABLE followed by itself .66 to .85 of the time."""
    x = trend(np.random.default_rng(0), 400, noise, wide)
    stays = np.mean(x[:, 1:][x[:, :-1] == 1] == 1)
    assert 0.62 < stays < 0.85
    r = first_visits(sequences(x), STATES, surrogates=199, replicates=199)
    assert 0.87 <= r.estimates()["share"].value <= 1
    assert r.estimate.low < 0.02 and abs(r.estimate.value) < 0.04
    assert r.estimate.null is not None and r.estimate.null["p"] > 0.01
    assert r.estimate.null["mean"] > 0.85
    assert r.estimate.value == pytest.approx(r.estimates()["share"].value - r.estimate.null["mean"])


def test_without_trend_the_order_is_one_of_six() -> None:
    x = trend(np.random.default_rng(0), 400, 1.0, 0.6, slope=0.0)
    r = first_visits(sequences(x), STATES, surrogates=199, replicates=99)
    assert r.estimates()["share"].value == pytest.approx(0.14, abs=0.05)
    table = r.tidy()
    whole = table[table["group"] == "all"]
    assert whole["share"].sum() == pytest.approx(1) and whole["share.null"].sum() == pytest.approx(1)
    assert whole["count"].sum() == 400 and set(table["group"]) == {"all", "0", "1"}
    slow = [" > ".join(STATES[s] for s in dict.fromkeys(row)) for row in x.tolist()]
    for name, count in zip(whole["order"], whole["count"], strict=True):
        assert slow.count(name) == count


def test_a_rule_of_order_is_more_than_the_trend() -> None:
    rng = np.random.default_rng(1)
    # Each sequence goes through the states in order, with changes at places of its own.
    cuts = np.sort(rng.integers(1, 12, (200, 2)), axis=1)
    x = (np.arange(12) >= cuts[:, :1]).astype(int) + (np.arange(12) >= cuts[:, 1:])
    r = first_visits(sequences(x), STATES, null="depth_pooled", surrogates=199, replicates=199)
    assert r.estimate.low > 0 and r.estimate.null is not None and r.estimate.null["p"] == 0.005
    assert "SURFACE_BRANCHING > STABLE" in str(r) and r.glance()["sequences"].item() == 200
    assert {"share.0", "difference.1"} <= set(r.estimates())


def test_an_order_never_seen_has_an_interval() -> None:
    r = first_visits(sequences(np.tile([0, 1, 2, 2], (40, 1))), STATES[::-1], surrogates=99, replicates=99)
    share = r.estimates()["share"]
    # Jeffreys: the 97.5 % point of Beta(1/2, 20 + 1/2).
    assert (share.value, share.low) == (0, 0) and share.high == pytest.approx(
        stats.beta.ppf(0.975, 0.5, 20.5), rel=0.02
    )
    assert r.estimate.high == pytest.approx(share.high)
    always = first_visits(sequences(np.tile([0, 1, 2, 2], (40, 1))), STATES, surrogates=99, replicates=99)
    assert always.estimates()["share"].high == 1 and always.estimate.low == pytest.approx(-share.high)


def test_bad_input() -> None:
    s = sequences(trend(np.random.default_rng(0), 20, 1.0, 0.5))
    with pytest.raises(DynstatError, match="S407.*ADAPTIVE|S407"):
        first_visits(s, ["STABLE", "ADAPTIVE"])
    for order in (["STABLE"], ["STABLE", "STABLE"]):
        with pytest.raises(DynstatError, match="S404"):
            first_visits(s, order)
    with pytest.raises(DynstatError, match="S404"):
        first_visits(s, STATES, surrogates=5)
    short = {"surrogates": 99, "replicates": 19}
    apart = sequences(np.repeat([[0, 0], [1, 1]], [10, 10], axis=0))
    with pytest.warns(DynstatWarning, match="no sequence meets all of"):
        assert first_visits(apart, STATES[:2], **short).estimate.value == 0
    with pytest.warns(DynstatWarning, match=f"never met in any sequence: {STATES[2]}"):
        first_visits(sequences(np.tile([0, 1], (20, 1))), STATES, **short)
    with pytest.raises(DynstatError, match="S403"):
        first_visits(sequences(trend(np.random.default_rng(0), 2, 1.0, 0.5)), STATES, surrogates=99)


def test_figure_shows_orders_beside_their_null() -> None:
    r = first_visits(
        sequences(trend(np.random.default_rng(3), 30, 1.0, 0.5)), STATES, surrogates=99, replicates=19
    )
    ax = r.plot(largest=4).axes[0]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert len(labels) <= 4 and labels[0].startswith("★")
    asked = r.tidy().query("group == 'all' and order == @wanted", local_dict={"wanted": " > ".join(STATES)})
    assert ax.lines[0].get_xdata()[0] == asked["share"].item() == r.estimates()["share"].value
    assert ax.lines[1].get_xdata()[0] == asked["share.null"].item()
    assert f"{r.estimate.value:.2f}" in r.alt_text()
