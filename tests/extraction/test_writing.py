"""Every architecture writes and reads, through its cache where that is right."""

import dataclasses
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from dynstat.extraction.models.capture import blocks_of, body_of, states  # noqa: E402
from dynstat.extraction.panels.panel import Intervention, Sample  # noqa: E402
from dynstat.extraction.runs.cache import caching, relative_difference  # noqa: E402
from dynstat.extraction.runs.generate import generate  # noqa: E402
from dynstat.extraction.runs.interventions import Changes  # noqa: E402
from dynstat.extraction.runs.reading import read_runs  # noqa: E402

from .architectures import build, readable  # noqa: E402

STEPS = 4
SAMPLES = [Sample("greedy", -1, 0.0, STEPS, "generated"), Sample("t1-s0", 0, 1.0, STEPS, "generated")]
IDS = torch.tensor([[6, 8, 40, 33, 7, 7, 12, 14], [6, 12, 12, 14, 26, 47, 11, 5]])
WORDS = 50


def loaded(name: str, dtype=torch.float32):
    lm = build(name, dtype=dtype)
    blocks = blocks_of(lm)
    encoder = SimpleNamespace(valid=tuple(range(WORDS)), end_of_text=0)
    return SimpleNamespace(id=name, lm=lm, body=body_of(lm, blocks), blocks=blocks, device=lm.device,
                           encoder=encoder)  # fmt: skip


def check(name: str):
    model = loaded(name)
    out = generate(model, ["a", "b"], IDS, SAMPLES, STEPS)
    alone = generate(model, ["b"], IDS[1:], SAMPLES[1:], STEPS)
    assert torch.equal(alone[0, 0], out[1, 1])
    rows = out.reshape(4, -1)
    runs = read_runs(model, rows, 2, IDS.shape[1])
    read = torch.stack([runs.layer(i) for i in range(runs.layers)])
    assert relative_difference(read, states(model.body, model.blocks, rows)) < 5e-6
    with torch.inference_mode():
        logits = model.lm(input_ids=rows[::2], use_cache=False).logits[..., :WORDS]
    assert torch.equal(logits[:, IDS.shape[1] - 1 : -1].argmax(-1), rows[::2, IDS.shape[1] :])
    noise = dataclasses.replace(SAMPLES[1], intervention=Intervention("noise", 1, 0.5))
    changes = Changes(name, ["a", "b"], [noise], [IDS.shape[1]] * 2)
    runs = read_runs(model, rows[::2], 1, IDS.shape[1], changes=changes)
    plain = states(model.body, model.blocks, rows[::2])
    assert torch.equal(runs.layer(0), plain[0])
    assert (runs.layer(1) != plain[1]).any(-1).all()


@pytest.mark.parametrize(
    "name", ["deepseek_v4", "mamba2", "minimax", "bamba", "rwkv", "qwen3_next", "gemma3_text"]
)
def test_writing_is_reading(name):
    if name not in readable():
        pytest.skip(f"this transformers has no {name}")
    check(name)


@pytest.mark.architectures
@pytest.mark.parametrize("name", readable())
def test_writing_is_reading_for_all(name):
    check(name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "name, reading", [("gpt2", "shared"), ("gemma2", "shared"), ("lfm2", "whole"), ("mamba", "whole")]
)
def test_half_formats_share_as_float32_does_or_less(name, reading, dtype):
    found, exact = caching(loaded(name, dtype)), caching(loaded(name))
    assert (found.generation, found.reading) == ("shared", reading)
    assert exact.generation == "shared" and (exact.reading == "shared" or reading == "whole")


def test_a_fault_of_a_cache_is_seen_through_the_rounding_of_half_formats():
    # The cached steps of Bamba differ from one pass over the same tokens in transformers itself.
    if "bamba" not in readable():
        pytest.skip("this transformers has no bamba")
    assert caching(loaded("bamba")).generation == "uncached"
    assert caching(loaded("bamba", torch.bfloat16)).generation == "uncached"
