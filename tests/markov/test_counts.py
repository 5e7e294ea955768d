"""Transition counts, against a slow version of themselves."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.markov import counts as module
from dynstat.markov.counts import count_transitions
from dynstat.markov.sequences import Sequences

STATES = ("A_STATE", "B_STATE", "C_STATE")
LISTS = st.lists(st.lists(st.sampled_from([*STATES, None]), max_size=9), min_size=1, max_size=6)


def slow(lists, lag):
    out = np.zeros((len(lists), 3, 3), dtype=int)
    for s, one in enumerate(lists):
        for a, b in zip(one, one[lag:], strict=False):
            if a is not None and b is not None:
                out[s, STATES.index(a), STATES.index(b)] += 1
    return out


@given(LISTS, st.integers(1, 4), st.sampled_from([1, 5, 1 << 16]))
def test_equals_slow_version(lists, lag, chunk):
    before = module._CHUNK
    module._CHUNK = chunk
    try:
        got = count_transitions(Sequences.from_lists(lists, states=STATES), lag)
    finally:
        module._CHUNK = before
    assert np.array_equal(got, slow(lists, lag))


def test_groups_sum():
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 3, 700).astype(np.int16)
    labels = pd.DataFrame({"model": np.repeat(["m0", "m1"], 35)})
    s = Sequences(codes, np.arange(71) * 10, STATES, labels)
    parts = [count_transitions(part).sum(axis=0) for part in s.split("model").values()]
    assert np.array_equal(sum(parts), count_transitions(s).sum(axis=0))


@pytest.mark.parametrize("lag", [0, -1, 1.5])
def test_lag(lag):
    with pytest.raises(DynstatError, match="S404"):
        count_transitions(Sequences.from_lists([["A_STATE"]]), lag)
