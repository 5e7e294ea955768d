"""From panel to store: what is stored, and how it resumes; kills are in test_kills."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import dynstat  # noqa: E402
from dynstat.extraction.models.readout import oracle  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores.plan import Plan  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402
from dynstat.files import sha256_file  # noqa: E402
from dynstat.metrics import distribution, trajectory  # noqa: E402

from .conftest import TEXTS  # noqa: E402


def sound(ds):
    assert dynstat.verify(ds) == []
    return ds


def test_values_are_those_of_the_model(write_panel, load_tiny, tmp_path):
    """Every stored number of two models against the oracle read-out and the NumPy definitions."""
    panel = load_panel(
        write_panel(("neox", "qwen2"), samples="samples: {seeds: [3], temperatures: [0.9], greedy: true}")
    )
    ds = sound(dynstat.open(extract_panel(panel, tmp_path / "store")))
    assert ds.sizes["model"] == 2 and ds.sizes["prompt"] == len(TEXTS) and ds.sizes["sample"] == 2
    assert list(ds["sample"].values) == ["greedy", "t0.9-s3"] and list(ds["make"].values) == ["neox", "qwen2"]
    for name in ("neox", "qwen2"):
        model = load_tiny(name)
        for prompt in range(len(TEXTS)):
            for sample in range(2):
                row = ds.sel(model=name).isel(prompt=prompt, sample=sample)
                n = int(row.n_prompt + row.n_generated)
                ids = torch.tensor(row.token_id.values[:n].astype(np.int64))[None]
                assert row.token_id.values[: int(row.n_prompt)].tolist() == model.encoder.encode(
                    TEXTS[prompt]
                )
                check_row(row, model, ids, n)


def check_row(row, model, ids, n):
    hidden = torch.stack(model.lm(input_ids=ids, output_hidden_states=True).hidden_states)[:-1]
    last = []
    handle = model.blocks[-1].register_forward_hook(
        lambda m, a, o: last.append(o if torch.is_tensor(o) else o[0])
    )
    own = model.lm(input_ids=ids).logits[0].double()
    handle.remove()
    h = torch.cat([hidden, last[0][None]])
    for layer in range(len(h)):
        state = h[layer, 0].numpy()
        logits = oracle(model.lm, model.blocks, ids, h[layer])[0].numpy()
        true = {
            "state_norm": trajectory.state_norm(state),
            "step_length": trajectory.step_length(state),
            "entropy": distribution.entropy(logits),
            "top2_probability": distribution.top2_probability(logits),
            "concentration": distribution.concentration(logits),
            "sum_squares": distribution.sum_squares(logits),
        }
        if layer + 1 < len(h):
            above = oracle(model.lm, model.blocks, ids, h[layer + 1])[0].numpy()
            true["synchronisation"] = distribution.synchronisation(logits, above)
        for name, value in true.items():
            np.testing.assert_allclose(row[name].values[:n, layer], value, rtol=1e-4, atol=2e-5, err_msg=name)
        angle = trajectory.turning_angle(state)
        np.testing.assert_allclose(row.turning_angle.values[:n, layer], angle, atol=2e-3)
        assert np.mean(row.top1_id.values[:n, layer] == logits.argmax(-1)) > 0.99
    spoken = torch.log_softmax(own, -1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    np.testing.assert_allclose(row.log_probability.values[1:n], spoken, rtol=1e-4, atol=1e-4)
    assert np.isnan(row.log_probability.values[0])
    assert row.phase.values[:n].tolist() == [0] * int(row.n_prompt) + [1] * int(row.n_generated)
    assert row.is_first.values[:n].tolist() == [1] + [0] * (n - 1)
    assert row.is_special.values[0] == 1 and row.token_id.values[0] == 0
    assert str(row.stop_reason.values) == "budget" and int(row.n_generated) == 6
    written = ids[0, int(row.n_prompt) :].tolist()
    assert int(row.first_end_of_text) == (written.index(0) if 0 in written else -1)
    assert set(row.quality.values[:n].ravel()) == {0} and set(row.quality.values[n:].ravel()) <= {1}


def test_batch_size_changes_no_token(write_panel, tmp_path):
    small = extract_panel(
        write_panel(("llama",), folder=tmp_path / "a", more="batch_tokens: 1"), tmp_path / "sa"
    )
    large = extract_panel(write_panel(("llama",), folder=tmp_path / "b"), tmp_path / "sb")
    a, b = dynstat.open(small), dynstat.open(large)
    assert len(list(small.glob("*.nc"))) == len(TEXTS) * 2
    np.testing.assert_array_equal(a.token_id.values, b.token_id.values)
    np.testing.assert_allclose(a.entropy.values, b.entropy.values, rtol=1e-4, atol=1e-5)


def test_second_run_does_no_work(write_panel, tmp_path, monkeypatch):
    file = write_panel()
    store = extract_panel(file, tmp_path / "store")
    before = {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in store.iterdir()}
    monkeypatch.setattr(
        "dynstat.extraction.models.loading.load", lambda *_: pytest.fail("a model was loaded")
    )
    seen = []
    extract_panel(file, store, progress=lambda *a: seen.append(a))
    assert seen == [(20, 20, "done")]
    assert {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in store.iterdir()} == before


def test_resume_writes_what_is_missing_only(write_panel, tmp_path):
    file = write_panel()
    store = extract_panel(file, tmp_path / "store")
    whole = dynstat.content_hash(dynstat.open(store))
    shards = sorted(store.glob("*.nc"))
    times = {f: f.stat().st_mtime_ns for f in shards}
    shards[1].unlink()
    assert Plan(load_panel(file)).estimate(store).missing == 1
    extract_panel(file, store)
    assert {f: f.stat().st_mtime_ns for f in shards if f != shards[1]} == {
        f: t for f, t in times.items() if f != shards[1]
    }
    assert dynstat.content_hash(dynstat.open(store)) == whole


def test_what_another_process_wrote_meanwhile_is_not_done_again(write_panel, tmp_path):
    panel = load_panel(write_panel(("llama",), more="batch_tokens: 30"))
    first = extract_panel(panel, tmp_path / "first")
    store, seen = tmp_path / "store", []

    def progress(done, total, what):
        if not seen:  # all but the first shard appear while that is at work
            for file in sorted(first.glob("*.nc")):
                if file.name != Plan(panel).names[0]:
                    (store / file.name).write_bytes(file.read_bytes())
            seen.append({f.name: f.stat().st_ino for f in store.glob("*.nc")})

    extract_panel(panel, store, progress=progress)
    after = {f.name: f.stat().st_ino for f in store.glob("*.nc")}
    assert len(seen[0]) > 2 and seen[0].items() < after.items() and len(after) == len(seen[0]) + 1


def test_a_panel_file_that_is_edited_meanwhile_changes_nothing(write_panel, tmp_path):
    file = write_panel(("llama",))
    panel, sha = load_panel(file), sha256_file(file)
    plan = Plan(panel)
    file.unlink()
    ds = dynstat.open(extract_panel(panel, tmp_path / "store", plan=plan))
    assert ds.attrs["panel_sha256"] == sha


def test_shard_names_depend_on_all_that_determines_them(write_panel, tmp_path, copy_model):
    def names(**kw):
        return set(Plan(load_panel(write_panel(folder=tmp_path / "p", **kw))).names)

    base = names(models=("llama",))
    assert base == names(models=("llama",)) and base < names()
    for change in (
        {"budget": 7}, {"more": "metrics: [entropy]"}, {"more": "readouts: [logit_lens, no_norm]"},
        {"samples": "samples: {greedy: true}"}, {"more": "end_of_text: suppress"}, {"more": "threads: 2"},
        {"texts": [t + "!" for t in TEXTS]},
    ):  # fmt: skip
        assert not base & names(models=("llama",), **change), change
    copy = copy_model()
    moved = f"  - {{id: llama, path: {copy}, factors: {{make: llama}}}}"
    assert names(models=(moved,)) == base, "the path is not part of the name"
    weights = copy / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert not names(models=(moved,)) & base


def test_end_of_text_by_the_panel(write_panel, tmp_path, monkeypatch):
    import dynstat.extraction.runs.generate as g

    # The draw 0 takes the first id, which is end of text in this tokenizer.
    monkeypatch.setattr(g, "draws", lambda model, prompt, sample, n: np.where(np.arange(n) == 3, 0.0, 0.6))
    ignored = sound(
        dynstat.open(extract_panel(write_panel(("llama",), folder=tmp_path / "i"), tmp_path / "si"))
    )
    assert set(ignored.n_generated.values.ravel()) == {6}
    assert set(ignored.first_end_of_text.values.ravel()) == {3}
    file = write_panel(("llama",), folder=tmp_path / "x", more="end_of_text: suppress")
    suppressed = sound(dynstat.open(extract_panel(file, tmp_path / "sx")))
    assert set(suppressed.first_end_of_text.values.ravel()) == {-1}
    file = write_panel(("llama",), folder=tmp_path / "s", more="end_of_text: stop")
    stopped = sound(dynstat.open(extract_panel(file, tmp_path / "ss")))
    assert set(stopped.n_generated.values.ravel()) == {4}
    assert set(stopped.stop_reason.values.ravel()) == {"end_of_text"}
    row = stopped.isel(model=0, prompt=0, sample=0)
    n = int(row.n_prompt) + 4
    assert row.token_id.values[n - 1] == 0 and set(row.token_id.values[n:]) <= {-1}
    same = ignored.isel(model=0, prompt=0, sample=0)
    np.testing.assert_allclose(row.entropy.values[:n], same.entropy.values[:n], rtol=1e-5)


def test_forced_reads_the_prompt_once(write_panel, tmp_path):
    ds = sound(
        dynstat.open(extract_panel(write_panel(mode="forced", samples="", budget=0), tmp_path / "store"))
    )
    assert list(ds["sample"].values) == ["forced"] and set(ds.stop_reason.values.ravel()) == {"forced"}
    assert set(ds.n_generated.values.ravel()) == {0} and set(ds.text.values.ravel()) == {""}
    written = sound(dynstat.open(extract_panel(write_panel(folder=tmp_path / "g"), tmp_path / "sg")))
    n = int(ds.n_prompt.values[0, 0, 0])
    np.testing.assert_allclose(
        ds.entropy.values[0, 0, 0, :n], written.entropy.values[0, 0, 0, :n], rtol=1e-4, atol=1e-5
    )


def test_no_norm_stands_beside_the_lens(write_panel, tmp_path):
    file = write_panel(
        more="readouts: [logit_lens, no_norm]\nmetrics: [entropy, {metric: concentration, k: 3}]"
    )
    ds = sound(dynstat.open(extract_panel(file, tmp_path / "store")))
    assert {"entropy", "entropy__no_norm", "concentration", "concentration__no_norm"} <= set(ds.data_vars)
    assert ds.entropy__no_norm.attrs["readout"] == "no_norm"
    assert json.loads(ds.concentration.attrs["options"]) == {"k": 3}
    assert float(abs(ds.entropy - ds.entropy__no_norm).max()) > 0.1
    assert "step_length" not in ds


def test_truncate_cuts_at_the_context_and_says_so(write_panel, tmp_path):
    long = "a b c d e f g h " * 20  # 161 tokens with the start token
    file = write_panel(
        ("gpt2", "llama"), texts=["The king", long, long * 2], budget=100, more="truncate: true"
    )
    ds = sound(dynstat.open(extract_panel(file, tmp_path / "store")))
    n = ds.n_prompt.values[0, :, 0].tolist()
    assert n[0] + 100 < 256 and n[1] + 100 > 256 and n[2] == 256
    assert ds.n_generated.values[0, :, 0].tolist() == [100, 256 - n[1], 0]
    assert ds.stop_reason.values[1, :, 0].tolist() == ["budget", "context", "context"]
    quality = ds.quality.values[0, 1, 0, :, 0]
    assert set(quality[:256]) == {0} and set(quality[256 : n[1] + 100]) == {3}


def test_logits_that_are_not_finite_are_flagged_on_request(write_panel, copy_model, tmp_path):
    folder = copy_model("gpt2")
    overflow(folder)
    model = f"  - {{id: bad, path: {folder}}}"
    ds = sound(dynstat.open(extract_panel(write_panel((model,), more="nonfinite: flag"), tmp_path / "store")))
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    share = []
    for prompt in range(len(TEXTS)):
        row = ds.isel(model=0, prompt=prompt, sample=1)
        n = int(row.n_prompt + row.n_generated)
        logits = lm(input_ids=torch.tensor(row.token_id.values[None, :n].astype(np.int64))).logits[0]
        bad = ~torch.isfinite(logits).all(-1).numpy()
        quality = row.quality.values[:n, -1]
        assert set(quality) <= {0, 2} and np.all(quality[bad] == 2)
        # A token also loses its values where those of the two tokens before it are needed.
        near = bad | np.r_[False, bad[:-1]] | np.r_[False, False, bad[:-2]]
        assert np.all(quality[~near] == 0)
        assert np.array_equal(np.isnan(row.entropy.values[:n, -1]), quality == 2)
        assert np.array_equal(row.top1_id.values[:n, -1] < 0, quality == 2)
        share.append(bad.mean())
    assert 0.05 < np.mean(share) < 0.9, "the test needs both kinds"


def overflow(folder: Path) -> None:
    """Untie the head and make one of its rows so large that some logits leave the range of float32."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    head = tensors["transformer.wte.weight"].clone()
    head[7] = 4e37 * torch.randn(head.shape[1], generator=torch.Generator().manual_seed(0))
    save_file(tensors | {"lm_head.weight": head}, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))


def test_provenance_is_stored(write_panel, tmp_path):
    store = extract_panel(write_panel(), tmp_path / "store")
    ds = dynstat.open(store)
    assert ds.attrs["dynstat_kind"] == "panel"
    inputs = json.loads(ds.attrs["inputs"])
    assert inputs == load_panel(tmp_path / "panel.yaml").inputs()
    assert json.loads((store / "panel.json").read_text())["inputs"] == inputs
    assert {m["dtype"] for m in inputs["models"]} == {"float32"} == set(ds["dtype"].values)
    assert set(ds["attn_implementation"].values) == {"eager"}
    shard = dynstat.open(next(store.glob("*.nc")))
    provenance = json.loads(shard.attrs["provenance"])
    assert {"torch", "transformers", "threads", "readout", "seconds"} <= set(provenance)
    assert str(tmp_path) not in json.dumps(shard.attrs, default=str)
