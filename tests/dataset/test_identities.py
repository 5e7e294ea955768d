"""Identities between variables hold for true distributions, and each is broken by a change of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynstat import verify
from dynstat.dataset.identities import breaches
from dynstat.metrics import distribution
from dynstat.registry import METRICS, Metric

from .conftest import VOCABULARY, make_panel

SHAPE = (1, 2, 2, 6, 3)


def true_panel(seed=0, scale=3.0, samples_alike=True):
    """A panel whose numbers come from distributions; samples of a prompt share its three tokens."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(*SHAPE, VOCABULARY))
    ids = rng.integers(0, VOCABULARY, SHAPE[:4])
    if samples_alike:
        logits[:, :, 1, :3] = logits[:, :, 0, :3]
        ids[:, :, 1, :3] = ids[:, :, 0, :3]
    flat = distribution.log_softmax(logits)
    spoken = np.full(SHAPE[:4], np.nan)
    spoken[..., 1:] = np.take_along_axis(flat[..., -1, :], np.roll(ids, -1, -1)[..., None], -1)[..., 0][
        ..., :-1
    ]
    values = {
        "entropy": distribution.entropy(logits),
        "top1_probability": distribution.top1_probability(logits),
        "top2_probability": distribution.top2_probability(logits),
        "concentration": distribution.concentration(logits),
        "sum_squares": distribution.sum_squares(logits),
        "dispersion": distribution.dispersion(logits),
        "effective_vocabulary": np.exp(distribution.entropy(logits)),
    }
    ds = make_panel(models=(0,), prompts=(0, 1), layers=(3,), n_tokens=6, gaps=False, metrics=tuple(values))
    for name, array in values.items():
        ds[name].values[:] = array
    more = ds["concentration"].attrs | {"options": '{"k": 5}'}
    ds["concentration_5"] = (ds["entropy"].dims, np.float32(distribution.concentration(logits, k=5)), more)
    ds["token_id"].values[:] = ids
    ds["n_prompt"].values[:] = 3
    ds["n_generated"].values[:] = 3
    ds["phase"].values[:] = np.arange(6) >= 3
    ds["log_probability"].values[:] = spoken
    return ds


def test_true_distributions_obey():
    ds = true_panel()
    assert ds["quality"].values.max() == 0
    assert verify(ds) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 40))
def test_whatever_the_distributions(seed, scale):
    """From equal logits to one that is certain."""
    assert [b.expected for b in breaches(true_panel(seed, scale))] == []


BROKEN = {
    "entropy above ln V": ("entropy", np.log(VOCABULARY) + 0.01, "ln V"),
    "entropy below the leader's": ("entropy", 0.0, "exp(-entropy)"),
    "entropy above Fano's bound": ("entropy", 3.9, "Fano"),
    "leader too small": ("top1_probability", 0.001, "top1_probability"),
    "runner-up above the leader": ("top2_probability", 0.5, "at most"),
    "mass of ten below the leader": ("concentration", 0.01, "at least the mass of the first 5"),
    "squares above the leader": ("sum_squares", 1.0, "at most top1_probability"),
    "squares below": ("sum_squares", 1e-4, "exp(-entropy)"),
    "more than a hundred above 1 %": ("dispersion", 101.0, "1 / 0.01"),
    "half a token": ("dispersion", 2.5, "a whole number"),
    "effective vocabulary": ("effective_vocabulary", 49.0, "exp(entropy)"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_fault_is_found(fault):
    name, value, words = BROKEN[fault]
    ds = true_panel(scale=1.0)
    leader = ds["top1_probability"].values[0, 1, 1, 4, 1]
    assert 0.05 < leader < 0.3
    ds[name].values[0, 1, 1, 4, 1] = value
    found = list(breaches(ds))
    assert any(words in b.expected for b in found), [b.expected for b in found]
    assert all(b.bad.sum() == 1 and b.bad[0, 1, 1, 4, 1] for b in found)
    problems = verify(ds)
    assert {p.code for p in problems} == {"identity"} and "sample s1, token 4, layer 1" in problems[0].where


def test_masses_of_several_k():
    ds = true_panel(scale=1.0)
    at = (0, 0, 0, 5, 0)
    five, ten = ds["concentration_5"].values, ds["concentration"].values
    five[at] = ten[at] + 0.01
    (breach,) = breaches(ds)
    assert breach.name == "concentration" and breach.bad.sum() == 1
    five[at] = ten[at] * 0.45
    assert "concentration" in {b.name for b in breaches(ds)}, "ten hold at most twice what five hold"


def test_divergences_and_margin_where_the_registry_knows_them():
    ds = true_panel(scale=1.0)
    p1, p2 = ds["top1_probability"].values, ds["top2_probability"].values
    values = {"margin": p1 - p2, "kl_to_final": p1.copy(), "kl_from_final": p1.copy()}
    for name, array in values.items():
        if f"{name}@1" not in METRICS:
            continue
        if name != "margin":
            array[..., -1] = 0.0
        ds[name] = (ds["entropy"].dims, array, ds["entropy"].attrs | {"definition": f"{name}@1"})
        assert list(breaches(ds)) == []
        for layer, value in ((0, 2.0), (2, 0.1)) if name == "margin" else ((0, -0.01), (2, 0.01)):
            broken = ds.copy(deep=True)
            broken[name].values[0, 0, 0, 0, layer] = value
            assert {b.name for b in breaches(broken)} == {name}


def test_a_token_read_is_not_more_probable_than_the_leader():
    ds = true_panel(scale=1.0)
    ds["log_probability"].values[0, 0, 1, 4] = np.log(ds["top1_probability"].values[0, 0, 1, 3, -1]) + 0.01
    (breach,) = breaches(ds)
    assert breach.name == "log_probability" and np.argwhere(breach.bad).tolist() == [[0, 0, 1, 4]]


def test_samples_that_share_a_prompt_share_its_values():
    ds = true_panel()
    ds["sum_squares"].values[0, 1, 1, 1, 2] -= np.float32(0.01)
    assert any("share" in b.expected for b in breaches(ds))
    other = true_panel(samples_alike=False)
    assert list(breaches(other)) == [], "they have read other tokens"
    ds = true_panel()
    # Beyond the last but one token of the prompt nothing is shared.
    ds["sum_squares"].values[0, 1, 1, 2, 2] -= np.float32(0.01)
    assert list(breaches(ds)) == []
    ds = true_panel()
    ds["sum_squares"].values[0, 1, 1, 1, 2] -= np.float32(0.01)
    touched = ds.assign_coords(kind=("sample", np.array(["", "noise"], object)))
    assert not any("share" in b.expected for b in breaches(touched))


def test_other_readouts_stand_by_themselves():
    ds = true_panel()
    for name in ("entropy", "top1_probability"):
        ds[f"{name}__no_norm"] = ds[name].copy()
        ds[f"{name}__no_norm"].attrs |= {"readout": "no_norm"}
    ds["entropy__no_norm"].values[0, 0, 0, 4, 0] = 0.0
    (breach,) = breaches(ds)
    assert breach.name == "top1_probability__no_norm"


def test_numbers_that_jump_or_look_ahead_need_not_be_shared():
    """A rank changes by whole places where two tokens nearly tie; a user's function may see the whole run."""
    ds = true_panel()
    attrs = ds["entropy"].attrs
    rank = np.full(SHAPE, 100, np.float32)
    rank[:, :, 1] += 1
    ds["next_token_rank"] = (
        ds["entropy"].dims,
        rank,
        attrs | {"definition": "next_token_rank@1", "units": "1"},
    )
    assert list(breaches(ds)) == []
    own = Metric("own", 1, "own", "Own.", "user", "a test", long_name="own", inputs=("states",))
    METRICS.add(own)
    try:
        ds["own"] = (ds["entropy"].dims, rank / 2, attrs | {"definition": "own@1", "units": "1"})
        assert list(breaches(ds)) == []
    finally:
        METRICS.discard(own)
