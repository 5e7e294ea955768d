"""Sequences: what goes in comes out, ragged, with gaps."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.markov.labels import unit_codes
from dynstat.markov.sequences import Sequences

LISTS = st.lists(st.lists(st.sampled_from(["OPEN", "COLLAPSE", None]), max_size=9), min_size=1, max_size=6)
STATES = ("OPEN", "COLLAPSE")


def frame_of(lists):
    rows = [(f"m{i % 2}", f"p{i}", t, s) for i, one in enumerate(lists) for t, s in enumerate(one)]
    return pd.DataFrame(rows, columns=["model", "prompt", "token", "state"])


@given(LISTS)
def test_lists_come_back(lists):
    s = Sequences.from_lists(lists, states=STATES)
    assert [list(s[i]) for i in range(len(s))] == lists
    assert s.padded().shape == (len(lists), max(map(len, lists)))
    assert [[c for c in row if c >= 0] for row in s.padded()] == [
        [STATES.index(x) for x in one if x] for one in lists
    ]
    assert [list(s.select([i])[0]) for i in range(len(s))] == lists


@given(LISTS, st.randoms())
def test_frame_in_any_row_order_is_the_same(lists, random):
    frame = frame_of(lists)
    order = list(range(len(frame)))
    random.shuffle(order)
    s = Sequences.from_frame(frame.iloc[order], sequence=["model", "prompt"], states=STATES)
    got = {row.prompt: list(s[i]) for i, row in enumerate(s.labels.itertuples())}
    assert got == {f"p{i}": one for i, one in enumerate(lists) if one}


@given(LISTS)
def test_runs_rebuild_the_sequences(lists):
    s = Sequences.from_lists(lists, states=STATES)
    back = [[None] * len(one) for one in lists]
    r = s.runs()
    for q, state, start, length, left, right in zip(*r, strict=True):
        back[q][start : start + length] = [STATES[state]] * length
        one = lists[q]
        assert left == (start == 0 or one[start - 1] is None)
        assert right == (start + length == len(one) or one[start + length] is None)
        assert start == 0 or one[start - 1] != STATES[state]
    assert back == lists
    short = s.collapse_runs()
    for i, one in enumerate(lists):
        assert list(short[i]) == [x for j, x in enumerate(one) if j == 0 or x != one[j - 1]]


def test_positions_left_out_are_gaps():
    frame = pd.DataFrame({"run": "a", "token": [3, 4, 7], "state": ["x", "y", "x"], "category": "c"})
    s = Sequences.from_frame(frame, sequence="run")
    assert s[0] == ("x", "y", None, None, "x")
    assert s.labels.loc[0, ["category", "start"]].tolist() == ["c", 3]
    assert Sequences.from_frame(frame, sequence="run", step=None)[0] == ("x", "y", "x")


def test_nan_states_are_gaps_and_codes_that_met_them_keep_their_name():
    frame = pd.DataFrame({"run": "a", "token": range(4), "state": [1, np.nan, 0, 1]})
    s = Sequences.from_frame(frame, sequence="run")
    assert s.states == ("0", "1") and s[0] == ("1", None, "0", "1")


def test_state_never_seen_keeps_its_place():
    frame = pd.DataFrame(
        {"run": "a", "token": range(2), "state": pd.Categorical(["B", "A"], ["B", "C", "A"])}
    )
    assert Sequences.from_frame(frame, sequence="run").states == ("B", "C", "A")


def test_select_and_split():
    s = Sequences.from_frame(
        frame_of([["OPEN"], ["COLLAPSE"], ["OPEN", "OPEN"]]), sequence=["model", "prompt"]
    )
    assert s.select("model == 'm0'").labels["prompt"].tolist() == ["p0", "p2"]
    assert {k: len(v) for k, v in s.split("model").items()} == {"m0": 2, "m1": 1}
    assert unit_codes(s, "model").n_units == 2 and unit_codes(s, "sequence").n_units == 3


@pytest.mark.parametrize(
    "code, call",
    [
        ("S407", lambda f: Sequences.from_frame(f, sequence="run", states=["x"])),
        ("S407", lambda f: Sequences.from_frame(f, sequence="run").select("model == 'm'")),
        ("S407", lambda f: Sequences.from_frame(f, sequence="run").select("run ==")),
        ("S407", lambda f: unit_codes(Sequences.from_frame(f, sequence="run"), "prompt")),
        ("S407", lambda f: Sequences.from_lists([["x"]], labels={"run": ["a", "b"]})),
        ("S404", lambda f: Sequences.from_frame(f, sequence="run", order="position")),
        ("S404", lambda f: Sequences.from_frame(pd.concat([f, f]), sequence="run")),
        ("S404", lambda f: Sequences.from_frame(f.assign(run=None), sequence="run")),
        ("S404", lambda f: Sequences.from_frame(f.assign(r="a", token=[0, 1]), sequence="r", labels=["run"])),
        ("S404", lambda f: Sequences.from_frame(f, sequence="run").select([True])),
        ("S404", lambda f: Sequences.from_frame(f, sequence="run", axis="depth")),
    ],
)
def test_errors(code, call):
    frame = pd.DataFrame({"run": ["a", "b"], "token": [0, 0], "state": ["x", "y"]})
    with pytest.raises(DynstatError, match=code):
        call(frame)
