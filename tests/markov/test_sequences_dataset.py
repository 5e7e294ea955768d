"""Sequences out of a dataset, against a loop over its points."""

import numpy as np
import pytest
import xarray as xr

from dynstat.dataset.schema import DIMS
from dynstat.errors import DynstatError
from dynstat.markov.counts import count_transitions
from dynstat.markov.labels import unit_codes
from dynstat.markov.sequences import Sequences

STATES = ("STABLE", "HIDDEN_TURBULENCE", "COMMITTED")
M, P, S, T, L = 2, 3, 2, 9, 3
PROMPT = 3


@pytest.fixture
def made():
    rng = np.random.default_rng(8)
    shape = (M, P, S, T, L)
    values = rng.integers(0, 3, shape).astype(np.int8)
    values[:, :, :, :2] = -1
    depth = np.array([[0.0, 1.0, np.nan], [0.0, 0.5, 1.0]])
    values[0, ..., 2] = -1
    quality = np.zeros(shape, dtype=np.int8)
    quality[0, ..., 2] = 5
    special = np.zeros(shape[:4], dtype=np.int8)
    special[1, 2, 0, 6] = 1
    end = np.full(shape[:3], -1)
    end[0, 1, 0] = 3
    ds = xr.Dataset(
        {
            "quality": (DIMS, quality),
            "phase": (DIMS[:4], np.broadcast_to((np.arange(T) >= PROMPT).astype(np.int8), shape[:4])),
            "is_special": (DIMS[:4], special),
            "is_first": (DIMS[:4], np.broadcast_to((np.arange(T) == 0).astype(np.int8), shape[:4])),
            "first_end_of_text": (DIMS[:3], end),
            "stop_reason": (DIMS[:3], np.full(shape[:3], "budget", object)),
        },
        coords={
            "model": ["a", "b"],
            "prompt": ["p0", "p1", "p2"],
            "sample": ["s0", "s1"],
            "token": np.arange(T),
            "layer": np.arange(L),
            "category": ("prompt", ["x", "x", "y"]),
            "layers": ("model", [2, 3]),
            "relative_depth": (("model", "layer"), np.nan_to_num(depth, nan=-1)),
        },
    )
    codes = xr.DataArray(
        values,
        dims=DIMS,
        coords={"model": ds["model"], "prompt": ds["prompt"]},
        attrs={"flag_meanings": " ".join(STATES), "options": '{"alignment": "causal"}'},
        name="state",
    )
    return ds, codes


def point(ds, codes, m, p, s, t, layer, phase=1):
    """The state of one point by the rules, None where it has none."""
    value = int(codes.values[m, p, s, t, layer])
    end = int(ds["first_end_of_text"].values[m, p, s])
    first_used = t < 3  # causal states use two tokens before
    if (
        value < 0
        or first_used
        or int(ds["phase"].values[m, p, s, t]) != phase
        or ds["is_special"].values[m, p, s, t]
        or (phase == 1 and end >= 0 and t - PROMPT >= end)
    ):
        return None
    return STATES[value]


def trimmed(one):
    kept = [i for i, x in enumerate(one) if x is not None]
    return tuple(one[kept[0] : kept[-1] + 1]) if kept else ()


def test_along_tokens(made):
    ds, codes = made
    s = Sequences.from_dataset(ds, codes)
    got = {
        tuple(r): s[i] for i, r in enumerate(s.labels[["model", "prompt", "sample"]].itertuples(index=False))
    }
    for m, model in enumerate("ab"):
        last = (1, 2)[m]
        for p in range(P):
            for q in range(S):
                want = trimmed([point(ds, codes, m, p, q, t, last) for t in range(T)])
                assert got[(model, f"p{p}", f"s{q}")] == want
    assert s.labels["category"].tolist()[:2] == ["x", "x"] and s.states == STATES
    assert (s.labels["start"] == 3).all() and unit_codes(s).n_units == P
    # The special token is a gap inside its run.
    assert None in got[("b", "p2", "s0")]
    to_budget = Sequences.from_dataset(ds, codes, until="budget")
    assert int((to_budget.lengths - s.lengths).sum()) == 3
    first = Sequences.from_dataset(ds, codes, layer=0)
    assert first[0] == trimmed([point(ds, codes, 0, 0, 0, t, 0) for t in range(T)])


def test_along_layers(made):
    ds, codes = made
    s = Sequences.from_dataset(ds, codes, axis="layer")
    assert s.axis == "layer"
    for i, row in enumerate(s.labels.itertuples()):
        m, p, q = "ab".index(row.model), int(row.prompt[1]), int(row.sample[1])
        want = trimmed([point(ds, codes, m, p, q, row.token, layer) for layer in range(L)])
        assert s[i] == want
    assert count_transitions(s.select("model == 'a'")).sum() == len(s.select("model == 'a'"))


def test_last_prompt_token_once_a_prompt(made):
    ds, codes = made
    ds["phase"] = ds["phase"].copy(data=np.tile((np.arange(T) >= 5).astype(np.int8), (M, P, S, 1)))
    s = Sequences.from_dataset(ds, codes, axis="layer", tokens="last_prompt")
    assert len(s) == M * P and (s.labels["token"] == 4).all() and (s.labels["sample"] == "s0").all()
    assert s[0] == tuple(STATES[c] for c in codes.values[0, 0, 0, 4, :2])


@pytest.mark.parametrize(
    "options", [{"axis": "depth"}, {"tokens": "some"}, {"until": "now"}, {"layer": 7}, {"phase": "both"}]
)
def test_errors(made, options):
    with pytest.raises(DynstatError, match="S404"):
        Sequences.from_dataset(*made, **options)


def test_codes_without_names_or_states(made):
    ds, codes = made
    with pytest.raises(DynstatError, match="flag_meanings"):
        Sequences.from_dataset(ds, codes.assign_attrs(flag_meanings=""))
    with pytest.raises(DynstatError, match="S406"):
        Sequences.from_dataset(ds, codes.copy(data=np.full(codes.shape, -1, np.int8)))
    with pytest.raises(DynstatError, match="no layers"):
        Sequences.from_dataset(ds, codes.isel(layer=0), axis="layer")
