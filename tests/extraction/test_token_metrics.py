"""Metrics of users that have one value a token: of the states of all layers, or of the last distribution."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import dynstat  # noqa: E402
from dynstat import DynstatError  # noqa: E402
from dynstat.dataset.schema import NONFINITE  # noqa: E402
from dynstat.extraction import extract  # noqa: E402
from dynstat.extraction.lens import definitions  # noqa: E402
from dynstat.extraction.lens.engine import Engine  # noqa: E402
from dynstat.extraction.lens.measuring import measure  # noqa: E402
from dynstat.extraction.lens.variants import Variant  # noqa: E402
from dynstat.extraction.panels import user_metrics  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402
from dynstat.registry import METRICS, Metric  # noqa: E402

from .lens_cases import LAYERS, head, model, naive, runs_of, same  # noqa: E402

FILE = '''\
"""My metrics of tokens."""

import numpy as np

from dynstat.registry import METRICS, Metric

OWN = dict(version=1, origin="user", reference="this test", level="token", summary="Own.")
METRICS.add(Metric(
    name="path_length", path="path_length", long_name="norms of the states, summed over layers",
    inputs=("states",), valid_min=0.0, **OWN,
))
METRICS.add(Metric(
    name="widest_step", path="widest_step", long_name="largest change of an entry at any layer",
    inputs=("steps",), valid_min=0.0, undefined=("first_tokens:1",), **OWN,
))
METRICS.add(Metric(
    name="last_word", path="last_word", long_name="log-probability of what follows", units="nat",
    inputs=("next_token", "final_logits"), undefined=("last_token",), valid_max=0.0, **OWN,
))


def path_length(states):
    assert states.ndim == 4 and states.dtype == np.float32
    return np.sqrt((states.astype(np.float64) ** 2).sum(-1)).sum(0)


def widest_step(steps):
    return np.abs(steps).max((0, 3))


def last_word(next_token, final_logits):
    x = final_logits - final_logits.max(-1, keepdims=True)
    return x[np.arange(len(x)), next_token] - np.log(np.exp(x.astype(np.float64)).sum(-1))
'''
NAMES = ("path_length", "widest_step", "last_word")
MORE = """\
register: mine.py
metrics: [state_norm, path_length, widest_step, last_word, next_token_log_probability]
readouts: [logit_lens, no_norm]
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    yield file
    for f in list(user_metrics._active):
        user_metrics.forget(f)


def truth(m, runs):
    """By hand, nothing shared and nothing in blocks."""
    states = torch.stack([runs.layer(i) for i in range(LAYERS)]).numpy().astype(np.float64)
    steps = np.abs(np.diff(states.astype(np.float32), axis=2)).max((0, 3))
    given = naive(m, runs, [{"metric": "next_token_log_probability@1"}])
    return {
        "path_length": np.linalg.norm(states, axis=-1).sum(0),
        "widest_step": np.concatenate([np.full((len(steps), 1), np.nan), steps], 1),
        "last_word": given["next_token_log_probability"][..., -1],
    }


@pytest.mark.parametrize("size", [1, 4 << 20])
def test_one_value_a_token_whatever_is_shared_and_however_it_is_cut(own, monkeypatch, size):
    monkeypatch.setattr(definitions, "_BYTES", size)
    user_metrics.register(own)
    runs, m = runs_of(3, 2, 3, 9), model(head())
    job = [{"metric": n} for n in NAMES]
    found = measure(m, runs, job, [Variant(), Variant("warm", temperature=2.0)], Engine(block_bytes=1)).values
    for name, value in truth(m, runs).items():
        assert found[name].shape == (6, 9)
        same(found[name], value, name, tolerance=2e-5)
    # A read-out changes distributions, not states.
    assert {n for n in found if "__" in n} == {"last_word__warm"}
    warm = model(head(), scale=0.5)
    same(found["last_word__warm"], truth(warm, runs)["last_word"], tolerance=2e-5)


def test_beside_metrics_of_layers_and_in_rows_that_end_early(own):
    user_metrics.register(own)
    runs, m = runs_of(2, 2, 3, 9, lengths=[9, 7, 9, 5]), model(head())
    beside = [{"metric": n} for n in ("entropy@1", "kl_from_final@1")]
    found = measure(m, runs, [*beside, *({"metric": n} for n in NAMES)]).values
    alone = measure(m, runs, beside).values
    for name in alone:
        np.testing.assert_array_equal(found[name], alone[name])
    lengths = runs.lengths.numpy()[:, None]
    at = np.arange(9)
    there = {
        "path_length": at < lengths,
        "widest_step": (at < lengths) & (at > 0),
        "last_word": at < lengths - 1,
    }
    for name, value in truth(m, runs).items():
        np.testing.assert_array_equal(np.isfinite(found[name]), there[name])
        same(found[name][there[name]], value[there[name]], name, tolerance=2e-5)


def test_they_land_in_the_data_by_token(write_panel, own, tmp_path):
    panel = load_panel(write_panel(("llama", "gpt2"), more=MORE, texts=["The king said", "A ship came home"]))
    ds = dynstat.open(extract_panel(panel, tmp_path / "store"))
    assert dynstat.verify(ds) == []
    for name in (*NAMES, "last_word__no_norm"):
        assert ds[name].dims == ("model", "prompt", "sample", "token")
        assert ds[name].attrs["origin"] == "user" and ds[name].attrs["reference"] == "this test"
    assert ds.last_word__no_norm.attrs["readout"] == "no_norm" and ds.last_word.attrs["units"] == "nat"
    token = (ds.quality == 0).all("layer")
    np.testing.assert_allclose(ds.path_length, ds.state_norm.sum("layer", min_count=1), rtol=1e-5)
    for variant in ("", "__no_norm"):
        layers = ds["next_token_log_probability" + variant].where(ds.quality == 0)
        last = layers.isel(layer=ds.layers - 1)
        np.testing.assert_allclose(ds["last_word" + variant], last, rtol=1e-4, atol=1e-5)
    missing = ds.last_word.isnull() & token
    assert (missing.sum("token") == 1).all() and not (ds.path_length.isnull() & token).any()
    assert dynstat.to_frame(ds, level="token")["path_length"].notna().any()
    user_metrics.forget(own)
    assert "path_length" not in METRICS and dynstat.verify(ds) == [], "as on a machine without the file"


def test_states_that_are_not_finite_leave_their_token_without_a_value(own):
    user_metrics.register(own)
    runs = runs_of(1, 2, 0, 9)
    runs.own[2, 0, 4] = torch.inf
    found = measure(model(head()), runs, [{"metric": n} for n in NAMES]).values
    assert np.flatnonzero(np.isnan(found["path_length"][0])).tolist() == [4]
    assert np.flatnonzero(np.isnan(found["widest_step"][0])).tolist() == [0, 4, 5]
    assert np.isfinite(found["path_length"][1]).all() and np.isfinite(found["last_word"][0, :8]).all()


def test_a_session_takes_them(own, load_tiny):
    entry = Metric(
        "depth_spread", 1, f"{__name__}:depth_spread", "Own.", "user", "a test", long_name="own",
        level="token", inputs=("states",),
    )  # fmt: skip
    ds = extract(load_tiny("llama").lm, ["The king"], [entry], tokenizer=load_tiny("llama").encoder.tokenizer)
    assert ds.depth_spread.dims == ("model", "prompt", "sample", "token") and dynstat.verify(ds) == []
    assert entry.id not in METRICS


def test_verify_allows_for_a_layer_that_is_not_finite_and_for_nothing_else(own, load_tiny):
    tiny = load_tiny("llama")
    user_metrics.register(own)
    ds = extract(tiny.lm, ["The king"], ["entropy", "path_length"], tokenizer=tiny.encoder.tokenizer)
    at = (0, 0, 0, 1)
    ds.path_length.values[at] = np.nan
    assert {p.code for p in dynstat.verify(ds)} == {"nan"}
    ds.quality.values[(*at, 1)], ds.top1_id.values[(*at, 1)] = NONFINITE, -1
    ds.entropy.values[(*at, 1)] = np.nan
    assert dynstat.verify(ds) == []


def depth_spread(states):
    return states.std((0, 3))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (('("states",)', '("logits",)'), "inputs: of states, steps, or of final_logits, next_token"),
        (('("states",)', '("next_token", "next_logits")'), "inputs"),
        (('("states",)', '("states",), undefined=("last_layer",)'), "no mark of a value of the token"),
        (('level="token"', 'level="run"'), "level 'layer' or 'token'"),
    ],
)
def test_entries_that_do_not_fit(own, change, word):
    own.write_text(FILE.replace(*change))
    with pytest.raises(DynstatError) as e:
        user_metrics.register(own)
    assert e.value.code == "X222" and word in str(e.value)


def test_functions_that_return_a_value_a_layer_are_refused(own):
    own.write_text(FILE.replace(".sum(-1)).sum(0)", ".sum(-1))"))
    user_metrics.register(own)
    with pytest.raises(DynstatError) as e:
        measure(model(head()), runs_of(1, 1, 0, 5), [{"metric": "path_length"}])
    assert e.value.code == "X222" and "shape (4, 1, 5)" in str(e.value.found) and "layer" not in e.value.where
