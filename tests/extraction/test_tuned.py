"""Translators: what they must leave alone, whose they are, and that training brings the lens nearer."""

import copy
import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from scipy.special import rel_entr, softmax  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from dynstat import DynstatError, data_path  # noqa: E402
from dynstat.extraction.lens.calibrate import counted, windows  # noqa: E402
from dynstat.extraction.lens.measuring import measure  # noqa: E402
from dynstat.extraction.lens.translators import (  # noqa: E402
    Translators,
    fingerprint,
    load_translators,
    save_translators,
)
from dynstat.extraction.lens.variants import Variant, variants_of  # noqa: E402
from dynstat.extraction.models.capture import states  # noqa: E402
from dynstat.extraction.models.loading import load, wrap  # noqa: E402
from dynstat.extraction.models.readout import SlowReadOut  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.runs.reading import read_runs  # noqa: E402
from dynstat.extraction.training import tuned  # noqa: E402
from dynstat.extraction.training.tuned import Settings, divergences, train  # noqa: E402
from dynstat.files import sha256_file  # noqa: E402

from .conftest import tiny  # noqa: E402

TEXT = data_path("texts/tuning.txt").read_text("utf-8")
METRICS = [{"metric": "entropy"}, {"metric": "top1_probability"}, {"metric": "synchronisation"}]
FAST = Settings(epochs=2, windows=2, every=4)


@pytest.fixture(scope="module")
def embedded():
    panel = load_panel(data_path("panels/pilot.yaml"))
    from dynstat.extraction.models.encoding import encoder
    from dynstat.extraction.models.sources import locate

    source = locate(panel.models[0])
    return load(source, encoder(source, panel))


def random_translators(model, size, seed=0):
    n, width = len(model.blocks), model.lm.config.hidden_size
    g = torch.Generator().manual_seed(seed)
    weight, bias = (size * torch.randn(shape, generator=g) for shape in ((n, width, width), (n, width)))
    return Translators(weight, bias, fingerprint(model))


def runs_of(model):
    ids = torch.arange(24).reshape(2, 12) * 37 % 1000 + 1
    return read_runs(model, ids, 1)


def test_zero_translators_are_the_plain_lens(load_tiny):
    model = load_tiny("gpt2")
    found = measure(
        model,
        runs_of(model),
        METRICS,
        [Variant(), Variant("tuned", translate=random_translators(model, 0.0))],
    ).values
    for name in ("entropy", "top1_probability", "synchronisation"):
        np.testing.assert_array_equal(found[f"{name}__tuned"], found[name])


def test_the_last_layer_is_the_plain_lens_whatever_the_translators(load_tiny):
    model = load_tiny("llama")
    maps = random_translators(model, 0.1)
    found = measure(model, runs_of(model), METRICS, [Variant(), Variant("tuned", translate=maps)]).values
    np.testing.assert_array_equal(found["entropy__tuned"][..., -1], found["entropy"][..., -1])
    assert (np.abs(found["entropy__tuned"] - found["entropy"])[..., :-1].mean((0, 1)) > 1e-3).all()


def test_a_translated_state_is_read_by_the_whole_read_out_of_the_model(load_tiny):
    """The slow reference: A h by hand, through the model's own norm and head, entropies in NumPy."""
    model = load_tiny("phi")
    maps = random_translators(model, 0.05)
    runs = runs_of(model)
    found = measure(model, runs, METRICS, [Variant(), Variant("tuned", translate=maps)]).values
    for layer in range(len(model.blocks)):
        h = runs.layer(layer).double().numpy()
        moved = h + h @ maps.weight[layer].double().numpy().T + maps.bias[layer].double().numpy()
        x = torch.from_numpy(moved).float()
        for module in model.readout.chain:
            x = module(x)
        p = softmax(x[..., list(model.encoder.valid)].double().numpy(), -1)
        truth = -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
        np.testing.assert_allclose(found["entropy__tuned"][..., layer], truth, atol=1e-4)


def test_divergences_equal_a_slow_reference(load_tiny):
    model = load_tiny("neox")
    ids = windows(model, TEXT[:3000])
    captured = states(model.body, model.blocks, ids)
    keep = counted(model, ids)
    with torch.inference_mode():
        p = [
            softmax(model.readout(captured[i])[keep][:, list(model.encoder.valid)].double().numpy(), -1)
            for i in range(len(captured))
        ]
    truth = [rel_entr(p[-1], q).sum(-1).mean() for q in p]
    np.testing.assert_allclose(divergences(model, ids).numpy(), truth, rtol=1e-5, atol=1e-9)


def test_training_brings_unread_text_nearer_at_every_layer(embedded):
    made = train(embedded, TEXT[20_000:32_000], FAST)
    ids = windows(embedded, data_path("texts/held_out.txt").read_text("utf-8")[:6000])
    before, after = divergences(embedded, ids), divergences(embedded, ids, made)
    assert (after[:-1] < before[:-1]).all() and after[0] < 0.9 * before[0]
    assert after[-1] == before[-1] == 0.0
    losses = made.about["losses"]
    assert all(a <= b for a, b in zip(losses["after"], losses["before"], strict=True))
    assert made.about["training"]["tokens"] % made.about["training"]["window"] == 0


def test_training_twice_gives_the_same_bits_and_another_seed_does_not(load_tiny):
    model = load_tiny("gpt2")
    fast = dataclasses.replace(FAST, epochs=1)
    one, two = (train(model, TEXT[:9000], fast) for _ in range(2))
    other = train(model, TEXT[:9000], dataclasses.replace(fast, seed=1))
    assert torch.equal(one.weight, two.weight) and torch.equal(one.bias, two.bias)
    assert not torch.equal(one.weight, other.weight)


def test_a_gradient_is_of_one_layer(load_tiny, monkeypatch):
    """One of all layers would cost layers squared, and a wide model its memory many times over."""
    model, sizes, true = load_tiny("gpt2"), set(), torch.autograd.grad

    def grad(loss, of):
        slopes = true(loss, of)
        sizes.update(s.numel() for s in slopes)
        return slopes

    monkeypatch.setattr(torch.autograd, "grad", grad)
    train(model, TEXT[:8000], dataclasses.replace(FAST, epochs=1))
    width = model.lm.config.hidden_size
    assert sizes == {width, width**2}


def test_a_layer_that_training_does_not_help_keeps_the_plain_lens(load_tiny):
    model = load_tiny("gpt2")
    made = train(model, TEXT[:9000], dataclasses.replace(FAST, epochs=1, rate=1e4))
    before, after = (np.array(made.about["losses"][k]) for k in ("before", "after"))
    helped = (after < before)[:-1]
    assert not helped.all()
    np.testing.assert_array_equal(made.weight.flatten(1).any(1).numpy(), helped)
    np.testing.assert_array_equal(made.bias.any(1).numpy(), helped)


def test_the_gradient_passes_through_scale_and_soft_cap(load_tiny):
    model = load_tiny("gpt2")
    model = dataclasses.replace(model, readout=dataclasses.replace(model.readout, scale=0.5, soft_cap=3.0))
    made = train(model, TEXT[:9000], dataclasses.replace(FAST, epochs=1))
    assert sum(made.about["losses"]["after"]) < sum(made.about["losses"]["before"])
    state = torch.randn(1, 5, 64)
    logits = model.readout(state)[0]
    torch.testing.assert_close(tuned._log_p(model, state[0]), logits.log_softmax(-1), rtol=1e-5, atol=1e-5)


def test_what_is_written_is_read_again(load_tiny, tmp_path):
    model = load_tiny("gpt2")
    maps = random_translators(model, 0.1)
    path = save_translators(tmp_path / "t.safetensors", maps)
    again = load_translators(path, model)
    assert torch.equal(again.weight, maps.weight) and torch.equal(again.bias, maps.bias)
    assert again.about["weights_sha256"] == model.source.identity()["weights_sha256"]
    first = path.read_bytes()
    assert save_translators(tmp_path / "u.safetensors", maps).read_bytes() == first


def refused(path, model):
    with pytest.raises(DynstatError) as e:
        load_translators(path, model)
    return e.value


def test_translators_of_another_model_are_refused(load_tiny, tmp_path):
    model = load_tiny("gpt2")
    maps = random_translators(model, 0.1)
    path = save_translators(tmp_path / "t.safetensors", maps)
    assert refused(path, load_tiny("opt")).code == "X220"
    for key, value in (("weights_sha256", "0" * 64), ("readout", "LayerNorm"), ("width", 65), ("layers", 5)):
        wrong = save_translators(
            tmp_path / "w.safetensors", Translators(maps.weight, maps.bias, {**maps.about, key: value})
        )
        error = refused(wrong, model)
        assert error.code == "X220" and key in error.found
    short = save_translators(tmp_path / "s.safetensors", Translators(maps.weight[:-1], maps.bias, maps.about))
    assert refused(short, model).code == "X220"


def test_files_that_hold_no_translators_are_refused(load_tiny, tmp_path):
    model = load_tiny("gpt2")
    assert refused(tmp_path / "none.safetensors", model).code == "F001"
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no such thing")
    assert refused(bad, model).code == "F003"
    maps = random_translators(model, 0.1)
    save_file({"weight": maps.weight, "bias": maps.bias}, bad)
    assert refused(bad, model).code == "F003"
    save_file({"weight": maps.weight, "bias": maps.bias}, bad, metadata={"dynstat": json.dumps(maps.about)})
    assert refused(bad, model).code == "F003"
    broken = copy.deepcopy(maps.weight)
    broken[0, 0, 0] = torch.nan
    assert refused(save_translators(bad, Translators(broken, maps.bias, maps.about)), model).code == "F003"


def test_a_text_of_few_windows_and_a_slow_read_out_are_refused(load_tiny):
    model = load_tiny("gpt2")
    with pytest.raises(DynstatError) as e:
        train(model, TEXT[:1000])
    assert e.value.code == "S404"
    slow = dataclasses.replace(model, readout=SlowReadOut(model.lm, model.blocks))
    with pytest.raises(DynstatError) as e:
        train(slow, TEXT[:9000], FAST)
    assert e.value.code == "X207"


def test_a_panel_reads_with_the_translators_of_each_model(load_tiny, tmp_path, write_panel):
    model = load_tiny("gpt2")
    path = save_translators(tmp_path / "t.safetensors", random_translators(model, 0.1))
    panel = dataclasses.replace(
        load_panel(write_panel(("gpt2",))),
        readouts=("logit_lens", "tuned"),
        readout_options={"tuned": {"translators": {"gpt2": path}}},
    )
    _, variant = variants_of(panel, model)
    assert variant.name == "tuned" and isinstance(variant.translate, Translators)
    assert variant.facts == {"tuned_translators_sha256": sha256_file(path)}


def test_the_command_trains_stores_and_measures(model_folders, tokenizer_folder, tmp_path, capsys):
    text, check, out = tmp_path / "text.txt", tmp_path / "check.txt", tmp_path / "out.safetensors"
    text.write_text(TEXT[:9000], encoding="utf-8")
    check.write_text(TEXT[10_000:12_000], encoding="utf-8")
    arguments = ["--model", str(model_folders["gpt2"]), "--tokenizer", str(tokenizer_folder), "--epochs", "1"]
    arguments += ["--text", str(text), "--check", str(check), "--out", str(out)]
    assert tuned.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["3", "0.0000", "0.0000"]
    with safe_open(str(out), "pt") as f:
        about = json.loads(f.metadata()["dynstat"])
    assert about["text_sha256"] == sha256_file(text)
    assert about["checked"]["text_sha256"] == sha256_file(check)
    assert about["layers"] == 4 and about["width"] == 64
    assert tuned.main([*arguments[:-1], str(tmp_path / "no" / "x"), "--text", "none.txt"]) == 5
    assert "F001" in capsys.readouterr().err


def test_a_model_in_memory_is_trained_for_and_left_as_it_was(tokenizer_folder, tmp_path):
    lm = tiny("llama").train().requires_grad_(True)
    before = {name: p.detach().clone() for name, p in lm.named_parameters()}
    model = wrap(lm, PreTrainedTokenizerFast.from_pretrained(tokenizer_folder))
    made = train(model, TEXT[:9000], dataclasses.replace(FAST, epochs=1))
    assert lm.training and all(p.grad is None and p.requires_grad for p in lm.parameters())
    assert all(torch.equal(p, before[name]) for name, p in lm.named_parameters())
    assert made.about["losses"]["after"][0] < made.about["losses"]["before"][0]
    again = load_translators(save_translators(tmp_path / "t.safetensors", made), model)
    assert torch.equal(again.weight, made.weight)
