"""The lens against the model: its own logits at the last layer, the oracle at every layer."""

import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from dynstat import DynstatError, data_path  # noqa: E402
from dynstat.errors import DynstatWarning  # noqa: E402
from dynstat.extraction.lens.engine import Engine  # noqa: E402
from dynstat.extraction.lens.measuring import measure  # noqa: E402
from dynstat.extraction.lens.variants import Variant  # noqa: E402
from dynstat.extraction.models.capture import blocks_of, body_of, states  # noqa: E402
from dynstat.extraction.models.discovery import trace  # noqa: E402
from dynstat.extraction.models.encoding import Encoder  # noqa: E402
from dynstat.extraction.models.loading import Loaded, wrap  # noqa: E402
from dynstat.extraction.models.readout import ReadOut, SlowReadOut, oracle, relative_error  # noqa: E402
from dynstat.extraction.panels.panel import ModelSpec  # noqa: E402
from dynstat.extraction.runs.reading import read_runs  # noqa: E402
from dynstat.extraction.training.architectures import ARCHITECTURES  # noqa: E402

from .conftest import tiny  # noqa: E402

IDS = torch.tensor([[0, 5, 77, 600, 3, 3], [0, 9, 9, 1, 1023, 44]])


def check(lm):
    blocks = blocks_of(lm)
    readout = trace(lm, blocks, "test")
    ids = IDS % lm.get_input_embeddings().weight.shape[0]
    captured = states(lm.base_model, blocks, ids)
    assert captured.shape[0] == len(blocks) + 1
    with torch.inference_mode():
        own = lm(input_ids=ids, use_cache=False).logits
        assert relative_error(readout(captured[-1]), own) <= 1e-6
        for layer in range(len(blocks) + 1):
            assert relative_error(readout(captured[layer]), oracle(lm, blocks, ids, captured[layer])) <= 1e-6
    return readout, captured


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lens_equals_model_and_oracle(architecture):
    lm = tiny(architecture)
    _, captured = check(lm)
    # Transformers' own hidden states are another way to every layer but the last, which it norms.
    hidden = lm(input_ids=IDS, output_hidden_states=True).hidden_states
    for mine, theirs in zip(captured[:-1], hidden[:-1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(captured[-1], hidden[-1], atol=1e-2), (
        "the last state must be taken before the norm"
    )


def _small(**more):
    return {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32, "head_dim": 8,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **more,
    }  # fmt: skip


def _opt_350m():
    # No final norm, and a projection to a smaller width before the head.
    return transformers.OPTConfig(
        vocab_size=64, hidden_size=32, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, word_embed_proj_dim=16, do_layer_norm_before=False,
    )  # fmt: skip


def _minicpm3():
    # The state is divided before the head.
    return transformers.MiniCPM3Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8,
        v_head_dim=8, max_position_embeddings=32, dim_model_base=8,
    )  # fmt: skip


_OLMO = {k: v for k, v in _small().items() if k != "head_dim"}
SPECIAL = {
    "soft cap": lambda: transformers.Gemma2Config(**_small(final_logit_softcapping=2.0)),
    "factor of the logits": lambda: transformers.CohereConfig(**_small(logit_scale=0.0625)),
    "divisor of the logits": lambda: transformers.GraniteConfig(
        **_small(logits_scaling=8.0, embedding_multiplier=12.0)
    ),
    "divisor before the head": _minicpm3,
    "factor under the divisor's name": lambda: transformers.HyperCLOVAXConfig(**_small(logits_scaling=8.0)),
    "bias in the head": lambda: transformers.GPTJConfig(
        vocab_size=64, n_embd=16, n_layer=2, n_head=2, rotary_dim=4, n_positions=32
    ),
    "projection, no final norm": _opt_350m,
    "norm without weights": lambda: transformers.OlmoConfig(**_OLMO),
    "norm by another name": lambda: transformers.MptConfig(d_model=16, n_heads=2, n_layers=2, vocab_size=64),
}


@pytest.mark.parametrize("trap", SPECIAL)
def test_known_traps_of_the_read_out(trap):
    torch.manual_seed(0)
    lm = transformers.AutoModelForCausalLM.from_config(
        SPECIAL[trap](), dtype=torch.float32, attn_implementation="eager"
    )
    lm = lm.eval().requires_grad_(False)
    for parameter in lm.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    readout, captured = check(lm)
    if trap.startswith(("soft cap", "factor", "divisor")):
        plain = ReadOut(readout.chain)
        assert relative_error(plain(captured[-1]), readout(captured[-1])) > 0.1, "the step must matter here"


def test_a_chain_that_differs_gives_way_to_the_model_itself(monkeypatch):
    """Said aloud, with what differs and by how much; and then as right as the model."""
    one = "dynstat.extraction.models.discovery._candidates"
    monkeypatch.setattr(one, lambda chain, config, rows: [ReadOut(chain, scale=1.001), ReadOut(chain[:1])])
    lm = tiny("llama")
    with pytest.warns(
        DynstatWarning, match=r"'test'.*forward pass for every layer.*x 1.001.*e-04 of the spread"
    ):
        readout, captured = check(lm)
    assert isinstance(readout, SlowReadOut) and readout.linear is None
    assert "LlamaForCausalLM itself" in readout.describe() and "slow" in readout.describe()
    chain = ReadOut((lm.model.norm, lm.lm_head))
    torch.testing.assert_close(readout(captured), chain(captured), rtol=1e-5, atol=1e-5)
    state = captured[1, 0]
    torch.testing.assert_close(readout.finish(readout.features(state)), state)
    assert readout(state[0]).shape == (1024,) and readout(state[:0]).shape == (0, 1024)
    with pytest.raises(DynstatError) as e:
        readout.without_norm()
    assert e.value.code == "X207" and "no_norm" in e.value.mend


class Odd(transformers.LlamaForCausalLM):
    """Logits scaled by a number of its own, which is neither a module nor in the config."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = 3.0 * out.logits.sinh()
        return out


class Depends(transformers.LlamaForCausalLM):
    """Logits that depend on where a token stands."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits * torch.arange(1.0, out.logits.shape[1] + 1)[:, None]
        return out


def make(kind):
    torch.manual_seed(0)
    lm = kind(transformers.LlamaConfig(**_small()))
    for parameter in lm.requires_grad_(False).parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return lm.eval()


def test_an_odd_model_is_read_by_itself():
    with pytest.warns(DynstatWarning, match="the model itself"):
        readout, _ = check(make(Odd))
    assert isinstance(readout, SlowReadOut)
    lm = make(Odd)
    with pytest.warns(DynstatWarning, match="the model itself") as said:
        model = wrap(lm, Encoder(None, (0,), 0, frozenset([0]), tuple(range(60))), "odd")
    assert len(said) == 1
    ids = IDS % 60
    runs = read_runs(model, ids, 1)
    entropy = measure(model, runs, [{"metric": "entropy@1"}]).values["entropy"]
    own = torch.distributions.Categorical(logits=lm(input_ids=ids).logits[..., :60].double()).entropy()
    torch.testing.assert_close(torch.from_numpy(entropy[..., -1]).double(), own, rtol=1e-4, atol=1e-4)
    with pytest.raises(DynstatError, match="X207"):
        measure(model, runs, [{"metric": "entropy@1"}], (Variant(), Variant("no_norm", skip_norm=True)))


def test_logits_that_depend_on_more_than_the_last_state_are_refused():
    with pytest.raises(DynstatError) as e:
        trace(lm := make(Depends), blocks_of(lm), "depends")
    assert e.value.code == "X207" and "more than the last state" in e.value.what
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.modules())


def test_no_norm_leaves_the_norm_out():
    lm = tiny("gpt2")
    readout = trace(lm, blocks_of(lm)).without_norm()
    state = torch.randn(2, 3, 64)
    torch.testing.assert_close(readout(state), state @ lm.get_output_embeddings().weight.T)


def test_padded_rows_of_the_head_are_masked():
    """A head of 1,024 rows and a tokenizer of 1,000 entries, one of them beyond a hole."""
    lm = tiny("llama")
    blocks = blocks_of(lm)
    valid = (*range(999), 1010)
    encoder = Encoder(None, (0,), 0, frozenset([0]), valid)
    model = Loaded(None, encoder, lm, lm.base_model, blocks, trace(lm, blocks))
    ids = torch.tensor([[0, 5, 77, 1010, 3]])
    metrics = [{"metric": m} for m in ("entropy@1", "top1_probability@1", "synchronisation@1")]
    got = measure(model, read_runs(model, ids, 1), metrics)
    logits = lm(input_ids=ids).logits[0].double()
    p = torch.softmax(logits[:, list(valid)], -1)
    entropy = -(p * p.log()).sum(-1)
    torch.testing.assert_close(
        torch.from_numpy(got.values["entropy"][0, :, -1]).double(), entropy, rtol=1e-5, atol=1e-5
    )
    assert set(got.top1_id.ravel()) <= set(valid)
    spoken = torch.log_softmax(logits[:, list(valid)], -1)[:-1].gather(
        1, torch.tensor([[5], [77], [999], [3]])
    )
    torch.testing.assert_close(
        torch.from_numpy(got.log_probability[0, 1:]).double(), spoken[:, 0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stored_models_are_read_right(architecture):
    try:
        folder = data_path(f"models/{architecture}-curated-s0")
    except DynstatError:
        pytest.skip("not trained yet")
    lm = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    assert all(p.dtype == torch.float32 for p in lm.parameters())
    assert ModelSpec("x", "folder", str(folder)).revision == "local"
    check(lm.eval().requires_grad_(False))


def test_blocks_bound_what_is_held_and_change_nothing(load_tiny, monkeypatch):
    """However small the blocks, the values stay, and no more than a block of one layer is unembedded."""
    from dynstat.extraction.lens import measuring as lens

    model = load_tiny("qwen2")
    ids = torch.randint(0, 1024, (5, 40), generator=torch.Generator().manual_seed(0))
    runs = read_runs(model, ids, 1)
    metrics = [{"metric": m} for m in ("entropy@1", "concentration@1", "synchronisation@1")]
    both = (Variant(), Variant("no_norm", skip_norm=True))
    whole = measure(model, runs, metrics, both)
    rows = []

    class Counted(lens.Sweep):
        def read(self, layer, logits, finish):
            rows.append(len(logits))
            super().read(layer, logits, finish)

    monkeypatch.setattr(lens, "Sweep", Counted)
    parts = measure(model, runs, metrics, both, Engine(block_bytes=1))
    assert max(rows) <= 128 < 5 * 40 and sum(rows) == 2 * 5 * 40 * 4
    assert set(parts.values) == set(whole.values)
    for name, value in whole.values.items():
        torch.testing.assert_close(
            torch.from_numpy(parts.values[name]),
            torch.from_numpy(value),
            rtol=1e-4,
            atol=1e-5,
            equal_nan=True,
        )


def test_the_body_of_a_model_in_a_wrapper():
    """A wrapper whose inner model has a head: the head must not run."""

    class Wrapped(transformers.LlamaForCausalLM):
        base_model_prefix = "inner"

    lm = make(transformers.LlamaForCausalLM)
    outer = make(Wrapped)
    outer.inner = lm
    del outer.model, outer.lm_head
    outer.get_output_embeddings = lambda: lm.lm_head
    assert outer.base_model is lm and body_of(outer, list(lm.model.layers)) is lm.model
    nameless = make(transformers.LlamaForCausalLM)
    nameless.base_model_prefix = ""
    assert nameless.base_model is nameless
    assert body_of(nameless, list(nameless.model.layers)) is nameless.model


def test_states_are_kept_as_they_were():
    """A block that writes into its input changes no state that was taken before."""

    class Adds(torch.nn.Module):
        def forward(self, hidden_states):
            return hidden_states.add_(1.0)

    class Body(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([Adds(), Adds()])

        def forward(self, input_ids, use_cache):
            state = input_ids[..., None].double()
            for layer in self.layers:
                state = layer(hidden_states=state)

    body = Body()
    got = states(body, list(body.layers), torch.tensor([[5, 7]]))
    assert got.shape == (3, 1, 2, 1) and got[:, 0, :, 0].tolist() == [[5, 7], [6, 8], [7, 9]]
