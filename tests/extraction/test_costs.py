"""What is foretold of a run against counts by hand, the loaded models, and the run itself."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import dynstat  # noqa: E402
from dynstat.extraction.lens.engine import Engine  # noqa: E402
from dynstat.extraction.panels.panel import Intervention, load_panel  # noqa: E402
from dynstat.extraction.stores import costs  # noqa: E402
from dynstat.extraction.stores.plan import Plan, words  # noqa: E402
from dynstat.extraction.stores.run import Clock, extract_panel  # noqa: E402
from dynstat.extraction.training.architectures import ARCHITECTURES  # noqa: E402

from .conftest import LAYERS, TEXTS  # noqa: E402


def test_sizes_are_those_of_the_loaded_models(write_panel, load_tiny):
    plan = Plan(load_panel(write_panel(tuple(ARCHITECTURES))))
    for name, size in zip(ARCHITECTURES, plan.sizes, strict=True):
        model = load_tiny(name)
        parameters = dict(model.lm.named_parameters())  # a tied head is counted once, as in the file
        assert size.parameters == sum(p.numel() for p in parameters.values())
        table = model.lm.get_input_embeddings().weight
        own_head = model.lm.get_output_embeddings().weight is not table
        assert size.active == size.parameters - table.numel() * (1 + own_head)
        assert (size.layers, size.width, size.vocabulary) == (LAYERS + 1, *reversed(table.shape))
        cache = model.lm(torch.zeros(1, 1, dtype=torch.int64), use_cache=True).past_key_values
        keys = cache.layers[0].keys
        assert size.cache == 2 * keys.shape[1] * keys.shape[3]
        assert size.heads == model.lm.config.num_attention_heads


def test_operations_by_hand(write_panel):
    samples = "samples: {seeds: [0, 1, 2], temperatures: [1.0]}"
    panel = load_panel(write_panel(("llama",), samples=samples, texts=TEXTS[:1], budget=6))
    plan = Plan(panel)
    (batch,), (size,) = plan.batches, plan.sizes
    p, g, s = len(batch.ids[0]), 6, 3
    read = p - 1 + s * (g + 1)
    assert costs.tokens_read(batch) == read
    forward = 2 * size.active * (p + s * g + read) + 2 * size.width * size.vocabulary * s * g
    lens = 2 * size.width * size.vocabulary * size.layers * read
    assert costs.flops(batch, size, panel) == (forward, lens)
    assert plan.costs() == [forward + lens]
    both = replace(panel, readouts=("logit_lens", "no_norm", "t_matched", "top_k"))
    assert costs.flops(batch, size, both) == (forward, 2 * lens), "two of them use the logits of the lens"
    alone = replace(batch, samples=batch.samples[:1])
    assert costs.tokens_read(alone) == p + g
    touched = tuple(replace(x, intervention=Intervention("noise", 1, 1.0)) for x in batch.samples)
    assert costs.tokens_read(replace(batch, samples=touched)) == 3 * (p + g), "nothing is shared"
    later = tuple(replace(x, intervention=Intervention("noise", 1, 1.0, "generated")) for x in batch.samples)
    assert costs.tokens_read(replace(batch, samples=later)) == read, "prompts are untouched"


def test_memory_by_hand(write_panel):
    """Long texts are bound by attention, padded ones by their padding, half formats by the head's copy."""
    forced = {"mode": "forced", "samples": "", "budget": 0}
    panel = load_panel(write_panel(("llama",), texts=TEXTS[:2], more="padding: right", **forced))
    plan = Plan(panel)
    (batch,), (size,) = plan.batches, plan.sizes
    engine, head = Engine("onednn", 1, 1 << 10), size.width * size.vocabulary

    def beside(batch, panel=panel):
        weights = size.parameters * costs.BYTES[panel.dtype]
        stored = batch.rows * batch.length * size.layers * costs.point_bytes(panel)
        return costs.memory(batch, size, panel, engine) - weights - stored

    def states(batch):
        return batch.rows * batch.length * size.layers * size.width * 4

    assert len(set(map(len, batch.ids))) == 2
    assert beside(batch) == states(batch) + 3 * 32 * 4 * size.vocabulary
    long = replace(batch, ids=tuple((1,) * n for n in (100, 4000)))
    assert beside(long) == states(long) + 2 * 4 * size.heads * 2 * 4000**2 > 5 * states(long)
    assert beside(batch, replace(panel, dtype="bfloat16")) == beside(batch) + 4 * head
    forward, lens = costs.flops(long, size, panel)
    assert forward == 2 * size.active * 2 * 4000
    assert lens == 2 * head * size.layers * 4100


def test_experts_count_by_their_share(copy_model, write_panel):
    """Of four experts two are chosen, so half of their parameters multiply a token."""
    from safetensors.torch import load_file, save_file

    folder = copy_model("llama")
    plan = Plan(load_panel(write_panel((f"  - {{id: a, path: {folder}}}",))))
    before = plan.sizes[0]
    file = folder / "model.safetensors"
    more = {f"model.layers.0.mlp.experts.{i}.w": torch.zeros(8, 8) for i in range(4)}
    save_file(load_file(file) | more, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"num_local_experts": 4, "num_experts_per_tok": 2})
    )
    after = Plan(load_panel(write_panel((f"  - {{id: a, path: {folder}}}",)))).sizes[0]
    assert (after.parameters - before.parameters, after.active - before.active) == (4 * 64, 2 * 64)


def test_the_estimate_speaks_of_what_is_missing(write_panel, tmp_path):
    file = write_panel(("llama",), more="batch_tokens: 24")
    store = tmp_path / "store"
    whole = Plan(load_panel(file)).estimate(store)
    assert whole.missing == whole.batches > 3 and not store.exists()
    assert whole.seconds > 0 and whole.rate == pytest.approx(whole.flops / whole.seconds)
    extract_panel(file, store)
    names = Plan(load_panel(file)).names
    held = sum((store / n).stat().st_size for n in names)
    assert held < whole.disk and 0.3 < whole.packed / held < 3
    one = dynstat.open(store / names[0])
    points = one.sizes["prompt"] * one.sizes["sample"] * one.sizes["token"] * one.sizes["layer"]
    (store / names[0]).unlink()
    plan = Plan(load_panel(file))
    part = plan.estimate(store)
    assert part.missing == 1 and part.flops == plan.costs()[0] < whole.flops
    assert plan.batches[0].tokens * plan.sizes[0].layers == points
    assert part.memory > 4 * plan.sizes[0].parameters
    extract_panel(file, store)
    done = Plan(load_panel(file)).estimate(store)
    assert (done.missing, done.flops, done.seconds, done.memory) == (0, 0, 0, 0)
    assert "to do" not in str(done) and "to do" in str(part) and "of memory" in str(part)


def test_every_shard_pays_for_the_names_of_all_prompts(write_panel, tmp_path):
    """What the names of many prompts add to the files is what they add to the estimate."""
    found, held = [], []
    for width in (1, 20_000):
        file = write_panel(("llama",), texts=TEXTS[:2], folder=tmp_path / str(width))
        prompts = file.parent / "prompts.csv"
        prompts.write_text(prompts.read_text("utf-8").replace("p1,", "p" * width + ","), encoding="utf-8")
        found.append(Plan(load_panel(file)).estimate(tmp_path / "none"))
        store = extract_panel(file, tmp_path / f"store{width}")
        held.append(sum(f.stat().st_size for f in store.glob("*.nc")))
    assert found[0].batches == found[1].batches == 2
    more = found[1].packed - found[0].packed
    assert more == found[1].disk - found[0].disk == 2 * 19_999
    assert (
        more <= held[1] - held[0] < 4 * more
    )  # the shards of that prompt hold its name in other places, too


def test_a_device_that_is_elsewhere_is_not_timed(write_panel, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("it is here")
    estimate = Plan(load_panel(write_panel(("llama",), more="device: cuda"))).estimate(tmp_path / "store")
    assert estimate.flops > 0 and estimate.seconds == estimate.rate == 0
    assert "not timed here" in str(estimate)
    assert costs.rates(Engine(), "cpu") > (0, 0)


def test_damaged_header_is_a_clear_error(copy_model, write_panel):
    folder = copy_model("llama")
    plan = Plan(load_panel(write_panel((f"  - {{id: a, path: {folder}}}",))))
    for raw in (b"\x08\0\0\0\0\0\0\0notjson!", b"\xff" * 8 + b"x", b""):
        (folder / "model.safetensors").write_bytes(raw)
        with pytest.raises(dynstat.errors.DynstatError) as e:
            costs.size_of(plan.sources[0], plan.configs[0])
        assert e.value.code == "F003"


def test_words_and_clock(monkeypatch):
    assert [words(s) for s in (0.2, 90, 150, 7300, 4 * 86400)] == ["1 s", "90 s", "2 min", "2 h", "4 d"]
    now = [0.0]
    monkeypatch.setattr("dynstat.extraction.stores.run.time.monotonic", lambda: now[0])
    clock = Clock(100.0)
    assert clock.left() == ""
    now[0] = 60.0
    clock.tick(25.0)
    assert clock.left() == ", about 3 min left"
