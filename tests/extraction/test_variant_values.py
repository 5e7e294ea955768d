"""Values of read-outs beside the plain lens, as the engine measures them, against slow references."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from scipy.special import rel_entr, softmax  # noqa: E402

import dynstat  # noqa: E402
from dynstat.dataset.verify import verify  # noqa: E402
from dynstat.extraction.lens.calibrate import final_states, matched_temperature  # noqa: E402
from dynstat.extraction.lens.measuring import measure  # noqa: E402
from dynstat.extraction.lens.translators import Translators, fingerprint, save_translators  # noqa: E402
from dynstat.extraction.lens.truncated import TopReading  # noqa: E402
from dynstat.extraction.lens.variants import Variant  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.runs.reading import read_runs  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402
from dynstat.files import sha256_file  # noqa: E402

METRICS = [
    {"metric": name}
    for name in (
        "entropy", "top1_probability", "top2_probability", "margin", "concentration", "sum_squares",
        "dispersion", "synchronisation", "effective_vocabulary",
    )
]  # fmt: skip
WORDS = "Once upon a time there was a king, and the king had 12 ships.\n" * 20


def runs_of(model):
    return read_runs(model, torch.arange(24).reshape(2, 12) * 37 % 1000 + 1, 1)


def logits_of(model, runs):
    """Logits of every layer, point and valid token, float64, shape (row, token, layer, vocabulary)."""
    with torch.inference_mode():
        layers = [model.readout(runs.layer(i))[..., list(model.encoder.valid)] for i in range(runs.layers)]
    return torch.stack(layers, 2).double().numpy()


def top_k(logits, k):
    """The definition: all but the k largest logits get no probability, the others share it anew."""
    least = np.sort(logits, -1)[..., -k, None]
    return softmax(np.where(logits >= least, logits, -np.inf), -1)


def reference(p):
    """Every metric of distributions p, shape (..., layer, vocabulary), by its plainest formula."""
    ranked = -np.sort(-p, -1)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(-1)
    middle = (p[..., :-1, :] + p[..., 1:, :]) / 2
    jsd = (rel_entr(p[..., :-1, :], middle) + rel_entr(p[..., 1:, :], middle)).sum(-1) / 2
    return {
        "entropy": entropy,
        "top1_probability": ranked[..., 0],
        "top2_probability": ranked[..., 1],
        "margin": ranked[..., 0] - ranked[..., 1],
        "concentration": ranked[..., :10].sum(-1),
        "sum_squares": (p**2).sum(-1),
        "dispersion": (p > 0.01).sum(-1),
        "synchronisation": np.concatenate([1 - jsd / np.log(2), np.full((*jsd.shape[:-1], 1), np.nan)], -1),
        "effective_vocabulary": np.exp(entropy),
    }


@pytest.mark.parametrize("k", [2, 5, 50, 1024, 5000])
def test_top_k_equals_its_definition(load_tiny, k):
    model = load_tiny("qwen2")
    runs = runs_of(model)
    found = measure(model, runs, METRICS, [Variant(), Variant("top_k", top_k=k)]).values
    truth = reference(top_k(logits_of(model, runs), min(k, 1024)))
    for name, wanted in truth.items():
        tolerance = 2e-3 if name == "effective_vocabulary" else 1.0 if name == "dispersion" else 2e-5
        np.testing.assert_allclose(found[f"{name}__top_k"], wanted, atol=tolerance, err_msg=name)
    # One token may lie on the threshold; more may not.
    assert (found["dispersion__top_k"] != truth["dispersion"]).mean() < 0.05
    if k >= 1024:
        np.testing.assert_allclose(found["entropy__top_k"], found["entropy"], atol=1e-5)


def with_rows(model, extra, level):
    """The same model with tokens appended that always get the same low logit."""
    *chain, head = model.readout.chain
    bias = head.bias if head.bias is not None else torch.zeros(head.out_features)
    longer = torch.nn.Linear(head.in_features, head.out_features + extra).requires_grad_(False)
    longer.weight[:] = torch.cat([head.weight, torch.zeros(extra, head.in_features)])
    longer.bias[:] = torch.cat([bias, torch.full((extra,), level)])
    encoder = dataclasses.replace(
        model.encoder, valid=(*model.encoder.valid, *range(head.out_features, head.out_features + extra))
    )
    readout = dataclasses.replace(model.readout, chain=(*chain, longer))
    return dataclasses.replace(model, readout=readout, encoder=encoder)


@pytest.mark.parametrize("architecture", ["llama", "phi"])
def test_top_k_does_not_see_tokens_that_are_never_among_the_k_and_the_plain_lens_does(
    load_tiny, architecture
):
    model = load_tiny(architecture)
    runs = runs_of(model)
    level = float(np.sort(logits_of(model, runs), -1)[..., -50].min()) - 0.5
    longer = with_rows(model, 3000, level)
    both = [Variant(), Variant("top_k", top_k=50)]
    one, other = (measure(m, runs, METRICS, both).values for m in (model, longer))
    for name in [m["metric"] for m in METRICS]:
        np.testing.assert_allclose(
            other[f"{name}__top_k"], one[f"{name}__top_k"], rtol=1e-5, atol=1e-5, err_msg=name
        )
    assert (other["entropy"] - one["entropy"]).mean() > 0.1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(0.01, 30.0))
def test_top_k_of_any_logits_stays_within_its_bounds(seed, k, scale):
    from dynstat.extraction.lens.distributions import Reading

    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((4, 40)) * scale).astype(np.float32)
    reading = TopReading(Reading(torch.from_numpy(logits.copy())), k)
    p = top_k(logits.astype(float), k)
    truth = reference(p[:, None, :].repeat(2, 1))
    np.testing.assert_allclose(reading.entropy.numpy(), truth["entropy"][:, 0], atol=1e-6)
    np.testing.assert_allclose(reading.sum_squares.numpy(), truth["sum_squares"][:, 0], atol=1e-6)
    assert (reading.entropy <= np.log(k) + 1e-9).all() and (reading.leading(k).sum(-1) - 1).abs().max() < 1e-9
    assert (reading.synchronisation(reading) - 1).abs().max() < 1e-9


def with_head(model, factor):
    *chain, head = model.readout.chain
    scaled = torch.nn.Linear(head.in_features, head.out_features, bias=head.bias is not None)
    scaled.requires_grad_(False)
    scaled.weight[:] = head.weight * factor
    if head.bias is not None:
        scaled.bias[:] = head.bias * factor
    return dataclasses.replace(model, readout=dataclasses.replace(model.readout, chain=(*chain, scaled)))


@pytest.mark.parametrize("architecture", ["gpt2", "phi"])
def test_the_scale_of_the_logits_is_gone_from_every_metric_of_matched_distributions(load_tiny, architecture):
    model = load_tiny(architecture)
    runs = runs_of(model)
    found = []
    for m in (model, with_head(model, 4.0)):
        t = matched_temperature(final_states(m, WORDS), 2.5)
        found.append(measure(m, runs, METRICS, [Variant(), Variant("t_matched", temperature=t)]).values)
    one, other = found
    for name in [m["metric"] for m in METRICS]:
        np.testing.assert_allclose(
            other[f"{name}__t_matched"], one[f"{name}__t_matched"], rtol=1e-4, atol=1e-5, err_msg=name
        )
    assert np.abs(other["entropy"] - one["entropy"]).mean() > 0.1, "the plain lens sees the scale"


def test_a_temperature_divides_the_logits_of_every_layer(load_tiny):
    model = load_tiny("neox")
    runs = runs_of(model)
    found = measure(model, runs, METRICS, [Variant(), Variant("t_matched", temperature=0.37)]).values
    truth = reference(softmax(logits_of(model, runs) / 0.37, -1))
    for name in ("entropy", "top1_probability", "margin", "sum_squares", "synchronisation"):
        np.testing.assert_allclose(found[f"{name}__t_matched"], truth[name], atol=2e-5, err_msg=name)


def test_a_panel_of_all_read_outs_becomes_a_valid_dataset_that_says_how_it_was_read(
    write_panel, load_tiny, tmp_path
):
    files = {}
    for name in ("gpt2", "llama"):
        model = load_tiny(name)
        n, width = len(model.blocks), 64
        g = torch.Generator().manual_seed(3)
        maps = Translators(
            0.05 * torch.randn(n, width, width, generator=g), torch.zeros(n, width), fingerprint(model)
        )
        files[name] = save_translators(tmp_path / f"{name}.safetensors", maps)
    (tmp_path / "words.txt").write_text(WORDS, encoding="utf-8")
    more = """readouts:
  - logit_lens
  - no_norm
  - {readout: t_matched, entropy: 2.75, text: words.txt}
  - {readout: top_k, k: 7}
  - {readout: tuned, translators: {gpt2: gpt2.safetensors, llama: llama.safetensors}}
metrics: [entropy, synchronisation, kl_to_final, state_norm]
"""
    panel = load_panel(write_panel(("gpt2", "llama"), more=more))
    ds = dynstat.open(extract_panel(panel, tmp_path / "store"))
    assert verify(ds) == []
    for name in ("no_norm", "t_matched", "top_k", "tuned"):
        assert ds[f"entropy__{name}"].attrs["readout"] == name
        assert f"state_norm__{name}" not in ds
        layers = np.abs(ds[f"entropy__{name}"] - ds["entropy"]).mean(("model", "prompt", "sample", "token"))
        assert float(layers[0]) > 1e-3
    assert "kl_to_final__top_k" not in ds, "its support differs from the last layer's"
    matched = ds["entropy__t_matched"].attrs
    assert matched["readout_entropy"] == 2.75
    assert matched["readout_text_sha256"] == sha256_file(tmp_path / "words.txt")
    assert ds["entropy__top_k"].attrs["readout_k"] == 7
    assert ds["t_matched_temperature"].dims == ("model",)
    one, two = ds["t_matched_temperature"].values
    assert one != two and one > 0
    assert ds["tuned_translators_sha256"].values.tolist() == [sha256_file(f) for f in files.values()]
    np.testing.assert_array_equal(
        ds["entropy__tuned"].isel(layer=-1).values, ds["entropy"].isel(layer=-1).values
    )
