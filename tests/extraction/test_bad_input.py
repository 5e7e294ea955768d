"""Every bad input: its code, its exit code, and nothing half-written."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

import dynstat  # noqa: E402
from dynstat import DynstatError  # noqa: E402
from dynstat.cli import main  # noqa: E402
from dynstat.errors import CODES  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores.plan import Plan  # noqa: E402
from dynstat.extraction.stores.ranks import Rank  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402
from dynstat.extraction.stores.store import open_store  # noqa: E402

from .conftest import write_prompts  # noqa: E402
from .test_run import overflow  # noqa: E402


def refused(file, store, code, **more) -> DynstatError:
    """Extract, expect `code`, and find no shard."""
    with pytest.raises(DynstatError) as e:
        extract_panel(file, store, **more)
    assert e.value.code == code, str(e.value)
    assert e.value.what and e.value.where
    assert not store.exists() or {f.name for f in store.iterdir()} <= {"panel.json"}
    return e.value


def test_unknown_model(write_panel, tmp_path):
    error = refused(write_panel(("  - {id: a, path: nowhere}",)), tmp_path / "s", "X201")
    assert "nowhere" in error.where and not (tmp_path / "s").exists()
    refused(write_panel(("  - {id: a, gguf: nowhere.gguf}",)), tmp_path / "s", "X201")
    refused(write_panel(("  - {id: a, path: 'data:models/nowhere'}",)), tmp_path / "s", "X201")


def test_files_that_are_missing_or_damaged(write_panel, copy_model, tmp_path):
    folder = copy_model()
    model = f"  - {{id: a, path: {folder}}}"
    own = f"  - {{id: a, path: {folder}, tokenizer: own}}"
    refused(write_panel((own,)), tmp_path / "s", "F001")
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    refused(write_panel((f"  - {{id: a, gguf: {tmp_path / 'x.gguf'}}}",)), tmp_path / "s", "F003")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(write_panel((model,)), tmp_path / "s", "F003")
    weights.unlink()
    refused(write_panel((model,)), tmp_path / "s2", "X201")
    (folder / "config.json").write_text("{")
    weights.write_bytes(whole)
    refused(write_panel((model,)), tmp_path / "s2", "F003")
    file = write_panel()
    (tmp_path / "prompts.csv").unlink()
    refused(file, tmp_path / "s2", "F001")
    with pytest.raises(DynstatError, match="F001"):
        load_panel(tmp_path / "no.yaml")


def test_weights_that_are_not_the_registered_ones(write_panel, model_folders, tmp_path):
    line = f"  - {{id: a, path: {model_folders['llama']}, weights_sha256: {'a' * 64}}}"
    refused(write_panel((line,)), tmp_path / "s", "X214")


def test_weights_that_change_while_the_run_is_under_way(write_panel, copy_model, tmp_path):
    """A plan hashes at its start; what is loaded hours later must be what was hashed."""
    folder = copy_model()
    panel = load_panel(write_panel((f"  - {{id: a, path: {folder}}}",)))
    plan = Plan(panel)
    weights = folder / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert "under way" in refused(panel, tmp_path / "s", "X214", plan=plan).what
    extract_panel(panel, tmp_path / "other")  # planned anew it is another panel


def test_a_held_out_text_that_changes_while_the_run_is_under_way(write_panel, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The king said that a ship came home. " * 40, encoding="utf-8")
    readout = f"{{readout: t_matched, entropy: 3.0, text: {text}}}"
    panel = load_panel(write_panel(("llama",), more=f"readouts: [logit_lens, {readout}]"))
    plan = Plan(panel)
    text.write_text("She read in the beginning, and once there was little. " * 40, encoding="utf-8")
    assert "read-outs" in refused(panel, tmp_path / "s", "X214", plan=plan).what
    extract_panel(panel, tmp_path / "other")


def test_pickled_weights(write_panel, copy_model, tmp_path):
    folder = copy_model()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    file = write_panel((f"  - {{id: a, path: {folder}}}",))
    refused(file, tmp_path / "s", "X210")
    # An index of safetensors that leads to a pickled file: transformers would open it.
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "pytorch_model.bin" in refused(file, tmp_path / "s", "X210").found


def test_code_from_a_repository_is_never_run(write_panel, copy_model, tmp_path):
    folder = copy_model()
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    file = write_panel((f"  - {{id: a, path: {folder}}}",))
    extract_panel(file, tmp_path / "known")  # transformers has this architecture itself
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mine"}))
    error = refused(file, tmp_path / "s", "X225")
    assert "never run" in error.expected and not (tmp_path / "ran").exists()


def test_the_weights_that_are_hashed_are_those_that_are_loaded(write_panel, copy_model):
    """Beside a whole file transformers does not look at an index, so neither does the hash."""
    from safetensors.torch import load_file, save_file

    from dynstat.extraction.models.encoding import encoder
    from dynstat.extraction.models.loading import load
    from dynstat.extraction.models.sources import locate

    folder = copy_model()
    tensors = load_file(folder / "model.safetensors")
    other = {k: v + 1.0 for k, v in tensors.items()}
    save_file(other, folder / "part.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(other, "part.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    panel = load_panel(write_panel((f"  - {{id: a, path: {folder}}}",)))
    source = locate(panel.models[0])
    held = load(source, encoder(source, panel)).lm.state_dict()
    seen = {k: v for f in source.weights for k, v in load_file(f).items()}
    assert all(torch.equal(held[k], v) for k, v in seen.items())
    (folder / "model.safetensors").unlink()
    source = locate(panel.models[0])
    held = load(source, encoder(source, panel)).lm.state_dict()
    assert [f.name for f in source.weights] == ["part.safetensors"]
    assert all(torch.equal(held[k], v) for k, v in other.items())


def test_nothing_is_loaded_beside_the_weights(write_panel, copy_model, tmp_path):
    folder = copy_model()
    file = write_panel((f"  - {{id: a, path: {folder}}}",))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "b.safetensors"}))
    assert "b.safetensors" in refused(file, tmp_path / "s", "X225").found
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter" in refused(file, tmp_path / "s", "X225").found


def test_weights_missing_from_the_checkpoint(write_panel, copy_model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy_model()
    tensors = load_file(folder / "model.safetensors")
    gone = sorted(k for k in tensors if "layers.1" in k)[0]
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    error = refused(write_panel((f"  - {{id: a, path: {folder}}}",)), tmp_path / "s", "X208")
    assert gone in error.found


def test_tokenizer_that_does_not_fit(write_panel, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(vocab_size=512, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
                         num_attention_heads=2, tie_word_embeddings=True)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "small")
    model = f"  - {{id: a, path: {tmp_path / 'small'}}}"
    error = refused(write_panel((model,)), tmp_path / "s", "X203")
    assert "1023" in error.found and "512" in error.expected


def test_start_token_that_is_none(write_panel, tmp_path):
    file = write_panel()
    file.write_text(file.read_text().replace("<|endoftext|>", "<s>"))
    refused(file, tmp_path / "s", "X203")


def test_prompt_longer_than_the_context(write_panel, tmp_path):
    error = refused(write_panel(texts=["short", "long " * 300, "longer " * 300]), tmp_path / "s", "X204")
    assert "p1" in error.what and len(error.problems) == 1, "all of them are listed"
    refused(write_panel(budget=256), tmp_path / "s", "X204")


def test_empty_prompt(write_panel, tmp_path):
    refused(write_panel(texts=["fine", "  "]), tmp_path / "s", "X205")


def test_columns_that_the_schema_uses(write_panel, tmp_path):
    file = write_panel()
    text = (tmp_path / "prompts.csv").read_text().replace("category,split", "category,split,dose")
    lines = text.splitlines()
    (tmp_path / "prompts.csv").write_text("\n".join([lines[0], *(f"{line},1" for line in lines[1:])]) + "\n")
    refused(file, tmp_path / "s", "Y002")


def test_logits_that_are_not_finite(write_panel, copy_model, tmp_path):
    folder = copy_model("gpt2")
    overflow(folder)
    error = refused(write_panel((f"  - {{id: a, path: {folder}}}",)), tmp_path / "s", "X206")
    assert "prompt" in error.where and "token" in error.where
    file = write_panel((f"  - {{id: a, path: {folder}}}",), mode="forced", samples="", budget=0)
    refused(file, tmp_path / "s2", "X206")


def test_store_of_another_panel(write_panel, tmp_path):
    store = extract_panel(write_panel(("llama",)), tmp_path / "store")
    before = {f.name: f.read_bytes() for f in store.iterdir()}
    with pytest.raises(DynstatError, match="X212"):
        extract_panel(write_panel(("gpt2",)), store)
    assert {f.name: f.read_bytes() for f in store.iterdir()} == before
    # The same inputs to a lock, described otherwise: joined, the shards would contradict each other.
    file = write_panel(("llama",))
    file.write_text(file.read_text().replace("make: llama", "make: other"))
    with pytest.raises(DynstatError, match="X212"):
        extract_panel(file, store)
    assert {f.name: f.read_bytes() for f in store.iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("x")
    with pytest.raises(DynstatError, match="X212"):
        extract_panel(write_panel(), tmp_path / "other")
    assert [f.name for f in (tmp_path / "other").iterdir()] == ["precious.txt"]


def test_place_that_cannot_be_written(write_panel, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DynstatError, match="F002|X212"):
        extract_panel(write_panel(("llama",)), tmp_path / "file")
    with pytest.raises(DynstatError, match="F002"):
        extract_panel(write_panel(("llama",)), tmp_path / "file" / "store")
    assert (tmp_path / "file").read_text() == "x"


def test_full_disk(write_panel, tmp_path, monkeypatch):
    """The disk fills up while the third shard is written: the first two stay, and the run goes on later."""
    file = write_panel(("llama",), more="batch_tokens: 1")
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DynstatError) as e:
        extract_panel(file, tmp_path / "store")
    assert e.value.code == "F002" and e.value.mend
    monkeypatch.setattr(os, "fsync", real)
    names = {f.name for f in (tmp_path / "store").iterdir()}
    assert "panel.json" in names and not any(n.startswith(".") for n in names) and len(names) >= 2
    ds = dynstat.open(extract_panel(file, tmp_path / "store"))
    assert ds.sizes["prompt"] == 5 and dynstat.verify(ds) == []


def test_confirmation_prompts_need_a_lock(write_panel, tmp_path):
    # Sentences of this test, not the registered ones.
    file = write_panel(("llama",), split="confirmation")
    refused(file, tmp_path / "s", "X211")
    assert not (tmp_path / "s").exists()
    lock = tmp_path / "x.lock.json"
    lock.write_text(json.dumps({"dynstat": "lock/1"}))
    refused(file, tmp_path / "s", "P302", locks=[lock])


def test_no_way_around_the_lock_by_a_held_out_text(write_panel, tmp_path, capsys, model_folders):
    """A temperature or a translator of confirmation prompts would be an outcome that nobody wrote down."""
    from dynstat.extraction.lens.calibrate import main as calibrate
    from dynstat.extraction.training.tuned import main as train

    prompts = dynstat.data_path("prompts/confirmation.csv")
    readout = f"{{readout: t_matched, entropy: 3.0, text: {prompts}}}"
    with pytest.raises(DynstatError) as e:
        load_panel(write_panel(more=f"readouts: [logit_lens, {readout}]"))
    assert e.value.code == "Y003" and "table of prompts" in e.value.what
    assert calibrate([str(write_panel()), "--text", str(prompts)]) != 0
    model = [
        "--model",
        str(model_folders["llama"]),
        "--tokenizer",
        str(dynstat.data_path("models/tokenizer")),
    ]
    assert train([*model, "--text", str(prompts), "--out", str(tmp_path / "t.safetensors")]) != 0
    assert capsys.readouterr().err.count("table of prompts") == 2


def test_a_lock_of_these_inputs_admits_and_is_written_down(write_panel, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from dynstat.extraction.panels.panel import panel_hash
    from dynstat.prereg.ledger import read_ledger

    file = write_panel(("llama",), split="confirmation")
    bound = {"hash": "0" * 64}
    (tmp_path / "study").mkdir()
    monkeypatch.setattr(
        "dynstat.prereg.lock.load_lock",
        lambda path: SimpleNamespace(inputs_sha256=bound["hash"], sha256="1" * 64, content={"study": "test"}),
    )
    lock = tmp_path / "study" / "audit.lock.json"
    refused(file, tmp_path / "s", "X211", locks=[lock])
    assert not (tmp_path / "study" / "ledger.jsonl").exists()
    bound["hash"] = panel_hash(load_panel(file).inputs())
    for _ in range(2):  # the second run has nothing to do, and nothing is accessed
        extract_panel(file, tmp_path / "s", locks=[lock])
    entries = read_ledger(tmp_path / "study" / "ledger.jsonl")
    assert [(e["event"], e["study"], e["inputs_sha256"]) for e in entries] == [
        ("access", "test", bound["hash"])
    ]
    # Ranks that begin at once each write theirs, and the chain holds.
    plan = Plan(load_panel(file))
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: open_store(plan, tmp_path / "ranks", [lock]), range(6)))
    assert len(read_ledger(tmp_path / "study" / "ledger.jsonl")) == 7
    with pytest.raises(DynstatError, match="X211"):  # a rank that comes later needs the lock, too
        extract_panel(file, tmp_path / "ranks", rank=Rank(1, 2))
    assert not list((tmp_path / "ranks").glob("*.nc"))


def run_cli(*args) -> int:
    with pytest.raises(SystemExit) as e:
        main(["extract", *map(str, args)])
    return int(e.value.code or 0)


def test_command_line(write_panel, tmp_path, capsys, model_folders):
    file = write_panel(("llama",), texts=["The king"])
    assert run_cli(file, "-o", tmp_path / "s", "--dry-run") == 0
    assert not (tmp_path / "s").exists() and "2 runs" in capsys.readouterr().err
    assert run_cli(file, "-o", tmp_path / "s", "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"] == 1
    assert (
        run_cli(file, "-o", tmp_path / "s", "--model-path", f"llama={model_folders['llama']}", "--json") == 0
    )
    assert json.loads(capsys.readouterr().out)["written"] == 0
    assert run_cli(file, "-o", tmp_path / "t", "--model-path", "nobody=x") == CODES["Y003"].exit
    assert run_cli(file, "-o", tmp_path / "t", "--model-path", "llama") == CODES["Y003"].exit
    assert run_cli(file, "-o", tmp_path / "t", "--model-path", "llama=nowhere") == CODES["X201"].exit
    write_prompts(tmp_path / "prompts.csv", ["x"], "confirmation")
    file.write_text(file.read_text().replace("split: pilot", "split: confirmation"))
    capsys.readouterr()
    assert run_cli(file, "-o", tmp_path / "t", "--json") == CODES["X211"].exit == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "X211"
    assert not (tmp_path / "t").exists()


def test_without_torch(write_panel, tmp_path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else real(name, *a)
    )
    assert run_cli(write_panel(), "-o", tmp_path / "s") == CODES["X209"].exit
