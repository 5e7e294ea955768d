"""What is refused at load, and models of half precision: a read-out in float32, checked as tightly."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from dataclasses import replace  # noqa: E402

from dynstat import DynstatError  # noqa: E402
from dynstat.extraction.models.capture import states  # noqa: E402
from dynstat.extraction.models.discovery import HALF_TOLERANCE, trace  # noqa: E402
from dynstat.extraction.models.encoding import encoder  # noqa: E402
from dynstat.extraction.models.loading import load, wrap  # noqa: E402
from dynstat.extraction.models.readout import relative_error  # noqa: E402
from dynstat.extraction.models.sources import locate  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402

from .architectures import build  # noqa: E402
from .conftest import tiny  # noqa: E402

IDS = torch.tensor([[0, 5, 77, 600, 3, 9]])


@pytest.fixture
def load_folder(write_panel, model_folders):
    def get(folder, dtype="float32"):
        panel = load_panel(write_panel((f"  - {{id: m, path: {folder}}}",)))
        source = replace(locate(panel.models[0]), dtype=dtype)
        return load(source, encoder(source, panel))

    return get


@pytest.mark.parametrize("kind", [transformers.MambaConfig, transformers.RwkvConfig])
def test_a_model_without_attention_is_loaded(kind, load_folder, tmp_path):
    torch.manual_seed(0)
    config = kind(
        vocab_size=1024, hidden_size=32, num_hidden_layers=2, state_size=8, attention_hidden_size=32
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    model = load_folder(tmp_path / "m")
    got = states(model.body, model.blocks, IDS)
    with torch.inference_mode():
        assert relative_error(model.readout(got[-1]), model.lm(input_ids=IDS).logits) <= 1e-5
    assert model.card(model.source.identity())["architecture"] == config.model_type


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ["llama", "opt", "phi"])
def test_half_precision(architecture, dtype, load_folder, model_folders):
    half = load_folder(model_folders[architecture], dtype)
    assert half.source.identity()["dtype"] == dtype == str(half.lm.dtype).removeprefix("torch.")
    assert {p.dtype for m in half.readout.chain for p in m.parameters()} == {torch.float32}
    got = states(half.body, half.blocks, IDS)
    assert got.dtype == torch.float32
    with torch.inference_mode():
        own = half.lm(input_ids=IDS).logits.float()
        logits = half.readout(got[-1])
    assert logits.dtype == torch.float32
    # The model rounds its logits and what leads to them; the read-out does not.
    assert 0 < relative_error(logits, own) < HALF_TOLERANCE
    # The same read-out as that of the float32 model with the rounded weights.
    with torch.inference_mode():
        wide = half.lm.float()
        again = trace(wide, half.blocks, "wide")
        torch.testing.assert_close(logits, again(got[-1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["gemma2", "cohere", "granite", "minicpm3", "opt (350M type)", "mamba", "gptj"]
)
def test_half_precision_finds_the_same_steps(name):
    lm = build(name)
    wide = trace(lm, list(blocks(lm)), name)
    lm = build(name, dtype=torch.bfloat16)
    half = trace(lm, list(blocks(lm)), name)
    assert (half.pre_head, half.scale, half.soft_cap) == (wide.pre_head, wide.scale, wide.soft_cap)
    assert half.describe() == wide.describe()
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}, "the model is left as it was"


def blocks(lm):
    from dynstat.extraction.models.capture import blocks_of

    return blocks_of(lm)


def test_a_wrong_scalar_is_found_in_half_precision_too(monkeypatch):
    """A soft cap that is 1 % off changes logits by less than bfloat16 does, and is refused all the same."""
    lm = build("gemma2", dtype=torch.bfloat16)
    lm.config.final_logit_softcapping = 2.0
    from dynstat.extraction.models import discovery

    real = discovery._candidates

    def off(*args):
        for readout in real(*args):
            if readout.soft_cap is not None:
                yield replace(readout, soft_cap=readout.soft_cap * 1.01)

    monkeypatch.setattr(discovery, "_candidates", off)
    with pytest.warns(match="the model itself"):
        slow = trace(lm, blocks(lm), "off")
    state = torch.randn(2, 3, 32)
    assert slow(state).dtype == torch.float32 and slow(state).shape == (2, 3, 96)


def refused(lm, load_tiny, code="X225"):
    with pytest.raises(DynstatError) as e:
        wrap(lm, replace(load_tiny("llama").encoder, valid=tuple(range(90))), id="odd")
    assert e.value.code == code and e.value.mend
    return e.value


@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_an_encoder_that_reads_ahead(load_tiny, spread):
    """As it is initialised, too, when one token hardly moves the others."""
    config = transformers.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48
    )
    torch.manual_seed(0)
    lm = transformers.BertLMHeadModel(config).eval()
    for p in lm.requires_grad_(False).parameters():
        p.add_(spread * torch.randn_like(p))
    error = refused(lm, load_tiny)
    assert "later tokens" in error.what
    assert wrap(build("bert"), replace(load_tiny("llama").encoder, valid=tuple(range(90)))).id == "model"


def test_an_encoder_decoder_and_a_multimodal_model(load_tiny, load_folder, tmp_path, model_folders):
    t5 = transformers.T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    assert "encoder with a decoder" in refused(transformers.T5ForConditionalGeneration(t5), load_tiny).found
    folder = tmp_path / "m"
    shutil.copytree(model_folders["llama"], folder)
    for config, found in (
        (t5, "encoder with a decoder"),
        (transformers.LlavaConfig(), "multimodal"),
        (transformers.Gemma3Config(), "multimodal"),
        (transformers.ViTConfig(), "not a causal"),
    ):
        (folder / "config.json").write_text(json.dumps(config.to_dict(), default=str), encoding="utf-8")
        with pytest.raises(DynstatError) as e:
            load_folder(folder)
        assert e.value.code == "X225" and found in e.value.found, config


@pytest.mark.parametrize("name", ["xlm", "hrm_text", "prophetnet"])
def test_a_structure_that_is_not_read(name, load_tiny):
    assert "layers" in refused(build(name), load_tiny).what


def test_a_head_with_fewer_rows_than_the_tokenizer(load_tiny):
    """The model drops the last rows of its logits; a tokenizer that has them is another model's."""
    lm = build("inkling_text")
    enough = replace(load_tiny("llama").encoder, valid=tuple(range(90)))
    assert wrap(lm, enough).readout.linear.weight.data_ptr() == lm.lm_head.weight.data_ptr(), "no copy"
    with pytest.raises(DynstatError) as e:
        wrap(lm, replace(enough, valid=tuple(range(91))))
    assert e.value.code == "X203"


def test_hooks_are_gone_after_a_model_that_fails(load_tiny):
    lm = tiny("gpt2")
    lm.transformer.h[2].mlp.c_fc.weight.data = torch.zeros(3, 3)
    with pytest.raises(RuntimeError):
        wrap(lm, load_tiny("gpt2").encoder)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.modules())
