"""A model object in memory: read like the same model from files, known by its values, and left as it was."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from dynstat import DynstatError  # noqa: E402
from dynstat.extraction.models.capture import states  # noqa: E402
from dynstat.extraction.models.encoding import load_tokenizer  # noqa: E402
from dynstat.extraction.models.loading import wrap  # noqa: E402
from dynstat.extraction.models.memory import describe, evaluation, fingerprint  # noqa: E402

from .architectures import build  # noqa: E402
from .conftest import tiny  # noqa: E402


def look(lm):
    return (
        [m.training for m in lm.modules()],
        [p.requires_grad for p in lm.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in lm.modules()],
        [(id(p), p.dtype) for p in lm.parameters()],
        [id(b) for b in lm.buffers()],
    )


def test_it_reads_as_the_model_from_files_does(load_tiny):
    loaded = load_tiny("llama")
    lm = tiny("llama")
    lm.set_attn_implementation("eager")
    wrapped = wrap(lm, load_tokenizer(loaded.source), id="mine")
    ids = torch.tensor([[0, 5, 77, 600, 3]])
    got, want = (states(m.body, m.blocks, ids) for m in (wrapped, loaded))
    assert torch.equal(got, want)
    with torch.inference_mode():
        assert torch.equal(wrapped.readout(got), loaded.readout(want))
    assert wrapped.id == "mine" and wrapped.encoder.valid == loaded.encoder.valid
    card = wrapped.card(wrapped.source.identity())
    assert card["source"] == "memory" and card["dtype"] == "float32" and card["revision"] == "memory"
    assert {*loaded.card(loaded.source.identity())} - {"make"} <= {*card}


def test_the_model_is_left_as_it_was(load_tiny):
    lm = tiny("gpt2").train().requires_grad_(True)
    lm.lm_head.eval()
    lm.transformer.h[0].mlp.requires_grad_(False)
    handle = lm.transformer.h[1].register_forward_hook(lambda *_: None)
    before = look(lm)
    model = wrap(lm, load_tiny("gpt2").encoder)
    assert look(lm) == before
    with evaluation(lm):
        assert not any(m.training for m in lm.modules())
        states(model.body, model.blocks, torch.tensor([[1, 2, 3]]))
    assert look(lm) == before
    handle.remove()
    # And it can be trained on, so nothing of inference mode clings to it.
    lm(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()


def test_a_buffer_that_a_forward_pass_replaces_is_put_back():
    class Adapts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("frequencies", torch.ones(2), persistent=False)

        def forward(self):
            self.register_buffer("frequencies", torch.zeros(2), persistent=False)

    module = Adapts()
    with pytest.raises(RuntimeError), evaluation(module):
        module()
        raise RuntimeError
    assert module.training and module.frequencies.tolist() == [1, 1]


def test_the_fingerprint_follows_the_values_and_nothing_else():
    lm = tiny("llama")
    known = fingerprint(lm)
    assert known == fingerprint(tiny("llama").train()) != fingerprint(tiny("llama", seed=1))
    assert known != fingerprint(tiny("llama").bfloat16())
    bits = lm.model.layers[2].mlp.up_proj.weight.data
    last = bits[-1, -1].item()
    bits[-1, -1] = torch.nextafter(bits[-1, -1], torch.tensor(torch.inf))
    assert fingerprint(lm) != known
    bits[-1, -1] = last
    assert fingerprint(lm) == known
    swapped = tiny("llama")
    up, gate = swapped.model.layers[0].mlp.up_proj, swapped.model.layers[0].mlp.gate_proj
    up.weight, gate.weight = gate.weight, up.weight
    assert fingerprint(swapped) != known


def test_a_config_that_holds_an_infinity(load_tiny):
    one = build("mamba2")
    assert one.config.time_step_limit[1] == float("inf")
    fits = replace(load_tiny("llama").encoder, valid=tuple(range(90)))
    assert len(describe(one, fits, "m").hashes[1]) == 64


def test_a_tokenizer_with_too_many_entries(load_tiny):
    lm = tiny("llama")
    lm.resize_token_embeddings(1000)
    with pytest.raises(DynstatError) as e:
        wrap(lm, load_tiny("llama").encoder)
    assert e.value.code == "X203"
