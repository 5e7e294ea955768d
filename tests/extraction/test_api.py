"""`extract`: the dataset of a panel in one line, and nothing else changed in the session or on the disk."""

import doctest
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

import dynstat  # noqa: E402
import dynstat.extraction  # noqa: E402
from dynstat import DynstatError, DynstatWarning  # noqa: E402
from dynstat.extraction import Intervention, extract, extract_panel  # noqa: E402
from dynstat.registry import METRICS, Metric  # noqa: E402

from .conftest import TEXTS, tiny, write_prompts  # noqa: E402

TOKENIZER = "data:models/tokenizer"
GIVEN = {f"p{i}": text for i, text in enumerate(TEXTS)}


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast.from_pretrained(dynstat.data_path("models/tokenizer"))


def sound(ds):
    assert dynstat.verify(ds) == []
    return ds


def same(a, b, names=None):
    """Variables equal but for rounding: the kernel of the lens is chosen by time."""
    for name in names or sorted(set(a.data_vars) & set(b.data_vars)):
        if a[name].dtype.kind == "f":
            np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=2e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)


def test_it_is_the_panel_without_a_store(write_panel, model_folders, tmp_path):
    more = "readouts: [logit_lens, no_norm]\nmetrics: [entropy, step_length, synchronisation]"
    file = write_panel(("llama",), more=more, samples="samples: {seeds: [0, 1], temperatures: [0.7]}")
    store = dynstat.open(extract_panel(file, tmp_path / "store"))
    ds = extract(
        model_folders["llama"], GIVEN, ["entropy", "step_length@1", {"metric": "synchronisation"}],
        tokenizer=TOKENIZER, max_new_tokens=6, seeds=[0, 1], temperatures=[0.7],
        readouts=["logit_lens", "no_norm"],
    )  # fmt: skip
    assert set(sound(ds).data_vars) == set(store.data_vars)
    same(ds, store)
    assert list(ds["sample"].values) == ["t0.7-s0", "t0.7-s1"] and list(ds.prompt.values) == list(GIVEN)
    for name in ("weights_sha256", "tokenizer_sha256", "dtype", "parameters", "architecture"):
        assert ds[name].values.tolist() == store[name].values.tolist()
    # Saved and opened it is the same again.
    dynstat.save(ds, tmp_path / "one.nc")
    assert dynstat.content_hash(dynstat.open(tmp_path / "one.nc")) == dynstat.content_hash(ds)


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2"])
def test_a_model_in_memory_is_read_and_left_as_it_was(architecture, model_folders, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(model_folders[architecture])
    model.train()
    model.get_output_embeddings().eval()
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    modes = {n: m.training for n, m in model.named_modules()}
    hooks = {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    rng, threads, config = torch.get_rng_state(), torch.get_num_threads(), model.config.to_dict()
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        ds = sound(extract(model, GIVEN, tokenizer=tokenizer, max_new_tokens=4, seeds=[3], greedy=True))
    finally:
        os.chdir(here)
    assert list(tmp_path.iterdir()) == []
    assert {n: m.training for n, m in model.named_modules()} == modes
    assert {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()} == hooks
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(grads)
    assert all(torch.equal(p.grad, grads[n]) for n, p in model.named_parameters() if n in grads)
    assert torch.equal(torch.get_rng_state(), rng) and torch.get_num_threads() == threads
    assert model.config.to_dict() == config
    handle.remove()
    from_disk = extract(
        model_folders[architecture], GIVEN, tokenizer=TOKENIZER, max_new_tokens=4, seeds=[3], greedy=True,
        name=str(ds.model.values[0]),
    )  # fmt: skip
    same(ds, from_disk)
    assert list(ds["sample"].values) == ["greedy", "t1-s3"]
    assert ds.weights_sha256.values[0] not in ("", from_disk.weights_sha256.values[0])


def test_prompts_may_come_in_any_form(tokenizer, tmp_path):
    model = tiny("gpt2")
    file = write_prompts(tmp_path / "prompts.csv")
    frame = pd.read_csv(file)
    parts = [
        extract(model, form, ["entropy"], tokenizer=tokenizer)
        for form in (TEXTS, iter(TEXTS), GIVEN, frame[["id", "text"]], frame, file, str(file))
    ]
    for ds in map(sound, parts):
        assert list(ds.prompt_text.values) == TEXTS and list(ds.prompt.values) == list(GIVEN)
        same(ds, parts[0], ["entropy", "token_id", "log_probability"])
    assert set(parts[0].category.values) == {""} and set(parts[-1].category.values) == {"open", "factual"}
    assert set(parts[4].split.values) == {"pilot"} and set(parts[0].split.values) == {"panel"}
    one = sound(extract(model, TEXTS[0], "entropy", tokenizer=TOKENIZER))
    assert one.sizes["prompt"] == 1 and one.sizes["sample"] == 1
    frame["answers"], frame["length"] = [["a", "b"]] + [None] * 4, range(5)
    ds = sound(extract(model, frame, "entropy", tokenizer=tokenizer))
    assert list(ds.answers.values) == ["a | b", "", "", "", ""] and "length" in ds.coords


def test_batches_change_nothing_and_are_told(tokenizer):
    model = tiny("llama")
    seen = []
    small = extract(
        model, GIVEN, ["entropy"], tokenizer=tokenizer, batch_tokens=1,
        progress=lambda *a: seen.append(a),
    )  # fmt: skip
    assert [s[0] for s in seen] == [0, 1, 2, 3, 4, 5] and {s[1] for s in seen} == {5}
    for more in ({}, {"padding": "right"}):
        large = sound(extract(model, GIVEN, ["entropy"], tokenizer=tokenizer, **more))
        same(small, large, ["entropy", "token_id", "quality", "top1_id"])


def test_the_same_call_gives_the_same_bits(tokenizer):
    a, b = (extract(tiny("qwen2"), TEXTS, tokenizer=tokenizer, max_new_tokens=3, seeds=[1]) for _ in "ab")
    assert dynstat.content_hash(a) == dynstat.content_hash(b)


def test_models_are_joined_afterwards(tokenizer):
    parts = [extract(tiny(a), TEXTS, tokenizer=tokenizer, name=a) for a in ("gpt2", "llama")]
    ds = sound(dynstat.combine(parts))
    assert list(ds.model.values) == ["gpt2", "llama"]
    assert not np.array_equal(ds.entropy.values[0], ds.entropy.values[1])


def test_a_half_precision_model_keeps_its_format(tokenizer):
    model = tiny("llama").to(torch.bfloat16)
    ds = sound(extract(model, TEXTS[:2], ["entropy", "state_norm"], tokenizer=tokenizer))
    assert list(ds.dtype.values) == ["bfloat16"]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    full = extract(tiny("llama"), TEXTS[:2], ["entropy", "state_norm"], tokenizer=tokenizer)
    there = full.quality.values == 0
    np.testing.assert_allclose(ds.state_norm.values[there], full.state_norm.values[there], rtol=0.05)


def test_interventions(tokenizer):
    changes = [Intervention("scale", 2, 0.0), {"kind": "scale", "target_layer": 2, "dose": 0.5}]
    ds = sound(extract(tiny("gpt2"), TEXTS[:2], ["state_norm"], tokenizer=tokenizer, interventions=changes))
    assert list(ds["sample"].values) == ["forced", "forced+scale-l2-d0", "forced+scale-l2-d0.5"]
    norm = ds.state_norm.values[0, :, :, :, 2]
    there = ds.quality.values[0, :, :, :, 2] == 0
    np.testing.assert_allclose(norm[:, 1][there[:, 1]], norm[:, 0][there[:, 0]], rtol=1e-5)
    np.testing.assert_allclose(norm[:, 2][there[:, 2]], 1.5 * norm[:, 0][there[:, 0]], rtol=1e-5)


def test_functions_of_the_session_are_metrics(tokenizer):
    model, before = tiny("llama"), [m.id for m in METRICS]

    def mine(states):
        """Mean entry of the state."""
        return states.mean(-1)

    first = sound(extract(model, TEXTS[:2], ["entropy", mine], tokenizer=tokenizer))
    assert first.mine.attrs["origin"] == "user" and first.mine.attrs["long_name"] == "Mean entry of the state"

    def mine(states, factor=2.0):
        return factor * states.mean(-1)

    second = extract(model, TEXTS[:2], mine, tokenizer=tokenizer)
    np.testing.assert_allclose(second.mine, 2 * first.mine, rtol=1e-5)
    assert [m.id for m in METRICS] == before

    entry = Metric(
        name="log_largest", version=3, path=f"{__name__}:log_largest", summary="Largest logit.",
        origin="user", reference="this test", long_name="largest logit", units="nat", inputs=("logits",),
    )  # fmt: skip
    sys.modules[__name__].log_largest = lambda logits: logits.max(-1)
    ds = sound(extract(model, TEXTS[:2], [entry], tokenizer=tokenizer, readouts=["logit_lens", "no_norm"]))
    assert ds.log_largest.attrs["definition"] == "log_largest@3" and ds.log_largest__no_norm.notnull().any()
    assert [m.id for m in METRICS] == before


def test_functions_that_do_not_fit(tokenizer):
    model, before = tiny("llama").train(), [m.id for m in METRICS]
    threads = torch.get_num_threads()

    def entropy(logits):
        return logits.max(-1)

    def of_nothing(words):
        return words

    def flat(states):
        return states.mean()

    for function in (entropy, of_nothing, flat, lambda states: states):
        with pytest.raises(DynstatError) as e:
            extract(model, TEXTS[:1], [function], tokenizer=tokenizer, threads=threads + 1)
        assert e.value.code == "X222"
        assert [m.id for m in METRICS] == before and torch.get_num_threads() == threads
        assert all(m.training and not m._forward_hooks for m in model.modules())


def test_a_tokenizer_without_a_start_token(tokenizer):
    file = dynstat.data_path("models/tokenizer") / "tokenizer.json"
    bare = PreTrainedTokenizerFast(tokenizer_file=str(file))
    with pytest.warns(DynstatWarning, match="no start token") as said:
        ds = sound(extract(tiny("llama"), TEXTS, ["entropy"], tokenizer=bare))
    assert said[0].filename == __file__, "the warning points at the caller"
    whole = extract(tiny("llama"), TEXTS, ["entropy"], tokenizer=tokenizer)
    assert ds.token_id.values[0, 0, 0, 0] == whole.token_id.values[0, 0, 0, 1]
    with pytest.raises(DynstatError, match="X203"):
        extract(tiny("llama"), TEXTS, tokenizer=tokenizer, start_token="<s>")


BAD = [
    ({"prompts": []}, "X205"),
    ({"prompts": ["", "x"]}, "X205"),
    ({"prompts": {"": "x"}}, "Y003"),
    ({"prompts": [1, 2]}, "Y003"),
    ({"prompts": 3}, "Y003"),
    ({"prompts": ["a\x00b"]}, "D106"),
    ({"prompts": pd.DataFrame({"id": ["a"]})}, "Y002"),
    ({"prompts": pd.DataFrame({"id": ["a", "a"], "text": ["x", "y"]})}, "Y003"),
    ({"prompts": pd.DataFrame({"text": ["x"], "dose": [1]})}, "Y002"),
    ({"prompts": pd.DataFrame({"text": ["x"], "split": ["confirmation"]})}, "X211"),
    ({"prompts": "nowhere.csv"}, "F001"),
    ({"prompts": ["x" * 3000]}, "X204"),
    ({"metrics": ["entropie"]}, "Y003"),
    ({"metrics": []}, "Y003"),
    ({"metrics": ["ct"]}, "Y003"),
    ({"metrics": [{"metric": "concentration", "kk": 1}]}, "Y002"),
    ({"max_new_tokens": -1}, "Y003"),
    ({"seeds": [0]}, "Y003"),
    ({"greedy": True}, "Y003"),
    ({"max_new_tokens": 3, "temperatures": [0.5]}, "Y003"),
    ({"max_new_tokens": 3, "seeds": [-1]}, "Y003"),
    ({"max_new_tokens": 3, "padding": "right"}, "Y003"),
    ({"readouts": ["no_norm"]}, "Y003"),
    ({"readouts": ["logit_lens", {"readout": "t_matched"}]}, "Y002"),
    ({"interventions": [{"kind": "nothing_known", "target_layer": 1, "dose": 1.0}]}, "X221"),
    ({"interventions": [{"kind": "scale", "target_layer": 9, "dose": 1.0}]}, "X221"),
    ({"end_of_text": "maybe"}, "Y003"),
    ({"nonfinite": "ignore"}, "Y003"),
    ({"device": "tpu"}, "Y003"),
    ({"dtype": "bfloat16"}, "Y003"),
    ({"tokenizer": None}, "Y003"),
    ({"tokenizer": "data:models"}, "F001"),
    ({"tokenizer": "nowhere"}, "F001"),
    ({"batch_tokens": 0}, "Y003"),
    ({"batch_tokens": "many"}, "Y003"),
    ({"threads": -1}, "Y003"),
    ({"threads": 0}, "Y003"),
    ({"metrics": 5}, "Y003"),
    ({"name": 5}, "Y003"),
    ({"max_new_tokens": 2, "seeds": 5}, "Y003"),
    ({"max_new_tokens": 2, "seeds": [0], "temperatures": 0.7}, "Y003"),
    ({"model": 3}, "Y003"),
    ({"model": torch.nn.Linear(2, 2)}, "Y003"),
    ({"model": tiny("gpt2").transformer}, "Y003"),  # it has no head
    ({"model": tiny("gpt2").to("meta")}, "Y003"),
    ({"model": "org/name"}, "Y002"),
    ({"model": "data:models/nowhere"}, "F001"),
]


@pytest.mark.parametrize(("change", "code"), BAD, ids=[" ".join(str(c).split())[:60] for c, _ in BAD])
def test_faults(change, code, tokenizer):
    given = {"model": None, "prompts": TEXTS[:2], "tokenizer": tokenizer} | change
    model = tiny("gpt2") if given["model"] is None else given["model"]
    del given["model"]
    if isinstance(model, str):
        given["tokenizer"] = TOKENIZER
    with pytest.raises(DynstatError) as e:
        extract(model, **given)
    assert e.value.code == code, str(e.value)
    assert e.value.what and e.value.where


def test_a_hub_model_needs_a_revision_and_may_be_kept_off_the_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DynstatError) as e:
        extract("org/name", ["x"], revision="main", offline=True)
    assert e.value.code == "X219"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DynstatError, match="X215"):
        extract("data:models/gpt2-curated-s0", ["x"], tokenizer=TOKENIZER, device="cuda")


def test_the_names_are_there_without_torch():
    code = (
        "import sys, dynstat.extraction as e; assert set(e.__all__) <= set(dir(e));"
        "e.load_panel; e.Intervention;"
        "assert not {'torch', 'transformers', 'xarray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["extract", "load_panel"])
def test_the_examples_of_docstrings(name):
    public = getattr(dynstat.extraction, name)
    test = doctest.DocTestFinder(recurse=False).find(public, name, globs={name: public})[0]
    assert test.examples and doctest.DocTestRunner().run(test).failed == 0
