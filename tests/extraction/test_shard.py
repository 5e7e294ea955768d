"""What a shard holds: padded rows, texts that end early, names and read-outs of variables, provenance."""

import json
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

import dynstat  # noqa: E402
from dynstat.extraction import extract  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.runs.reading import read_runs  # noqa: E402
from dynstat.extraction.stores import shard  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402

from .conftest import TEXTS  # noqa: E402


def sound(ds):
    assert dynstat.verify(ds) == []
    return ds


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_padded_prompts_have_the_values_of_single_ones(architecture, write_panel, tmp_path):
    forced = {"mode": "forced", "samples": "", "budget": 0}
    metrics = "metrics: [entropy, synchronisation, step_length, turning_angle, state_norm]\n"
    one, many = (
        extract_panel(
            write_panel((architecture,), folder=tmp_path / n, more=metrics + more, **forced),
            tmp_path / f"s{n}",
        )
        for n, more in (("none", ""), ("right", "padding: right"))
    )
    assert len(list(one.glob("*.nc"))) > 1 and len(list(many.glob("*.nc"))) == 1
    a, b = sound(dynstat.open(one)), sound(dynstat.open(many))
    assert len(set(b["n_prompt"].values.ravel().tolist())) > 1
    for name in ("token_id", "quality", "n_prompt", "is_special", "is_first", "text"):
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=name)
    for name in ("entropy", "synchronisation", "step_length", "turning_angle", "log_probability"):
        np.testing.assert_allclose(a[name].values, b[name].values, rtol=1e-4, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(a["state_norm"].values, b["state_norm"].values, rtol=5e-6)
    pads = np.arange(b.sizes["token"]) >= b["n_prompt"].values[..., None]
    assert np.isnan(b["entropy"].values[pads]).all() and set(b["token_id"].values[pads]) == {-1}
    assert set(b["quality"].values[pads].ravel()) == {1}


def test_writing_ends_once_every_text_has(write_panel, tmp_path, monkeypatch):
    import dynstat.extraction.runs.generate as g
    import dynstat.extraction.stores.shard as s

    # The draw 0 takes the first id, which is end of text in this tokenizer: at token 2 or 4 by seed.
    monkeypatch.setattr(
        g, "draws", lambda m, p, sample, n: np.where(np.arange(n) == 2 + 2 * sample.seed, 0.0, 0.6)
    )
    read = []
    true = s.read_runs
    monkeypatch.setattr(s, "read_runs", lambda *a, **k: read.append(true(*a, **k)) or read[-1])
    more = "metrics: [entropy, next_token_rank]"
    file = write_panel(("llama",), texts=TEXTS[:1], budget=30, more=more + "\nend_of_text: stop")
    ds = sound(dynstat.open(extract_panel(file, tmp_path / "store")))
    n_prompt = int(ds["n_prompt"].values[0, 0, 0])
    assert ds["n_generated"].values.ravel().tolist() == [3, 5] and ds.sizes["token"] == n_prompt + 30
    assert [tuple(r.ids.shape) for r in read] == [(2, n_prompt + 5)]
    assert read[0].lengths.tolist() == [n_prompt + 3, n_prompt + 5]
    whole = dynstat.open(
        extract_panel(
            write_panel(("llama",), texts=TEXTS[:1], budget=30, folder=tmp_path / "whole", more=more),
            tmp_path / "w",
        )
    )
    for sample, n in enumerate((n_prompt + 3, n_prompt + 5)):
        x, y = ds.isel(sample=sample, token=slice(n)), whole.isel(sample=sample, token=slice(n))
        np.testing.assert_array_equal(x["token_id"].values, y["token_id"].values)
        np.testing.assert_allclose(x["entropy"].values, y["entropy"].values, rtol=1e-4, atol=1e-5)
        assert set(ds["quality"].values[0, 0, sample, n:].ravel()) == {1}
        # No token of the text follows its last.
        rank = x["next_token_rank"].values[0, 0]
        assert np.isnan(rank[-1]).all() and not np.isnan(rank[:-1]).any()


def test_variables_say_what_they_are(write_panel, tmp_path):
    more = (
        "readouts: [logit_lens, {readout: top_k, k: 7}]\n"
        "metrics: [entropy, {metric: concentration, k: 3, as: narrow}, concentration]"
    )
    ds = sound(dynstat.open(extract_panel(write_panel(texts=TEXTS[:2], more=more), tmp_path / "store")))
    assert {"narrow", "narrow__top_k", "entropy__top_k", "concentration__top_k"} <= set(ds.data_vars)
    assert ds["narrow"].attrs["definition"] == ds["concentration"].attrs["definition"] == "concentration@1"
    assert json.loads(ds["narrow__top_k"].attrs["options"]) == {"k": 3}
    assert ds["entropy__top_k"].attrs["readout"] == "top_k" and ds["entropy__top_k"].attrs["readout_k"] == 7
    assert "readout_k" not in ds["entropy"].attrs
    other = ds.copy()
    other["entropy__top_k"] = ds["entropy__top_k"].assign_attrs(readout_k=8)
    assert dynstat.content_hash(other) != dynstat.content_hash(ds)


def test_what_a_read_out_is_for_one_model_stands_with_the_model(write_panel, tmp_path, monkeypatch):
    import dynstat.extraction.lens.variants as v

    def variants(panel, model):
        temperature = {"gpt2": 1.5, "llama": 2.0}[model.id]
        return [v.Variant(), v.Variant("t_matched", temperature=temperature, facts={"matched": temperature})]

    monkeypatch.setattr(v, "variants_of", variants)
    more = "readouts: [logit_lens, {readout: t_matched, entropy: 3.0}]\nmetrics: [entropy]"
    ds = sound(dynstat.open(extract_panel(write_panel(texts=TEXTS[:1], more=more), tmp_path / "store")))
    assert ds["matched"].dims == ("model",) and ds["matched"].values.tolist() == [1.5, 2.0]
    assert "role" not in ds["matched"].attrs and ds["make"].attrs["role"] == "factor"


def test_a_shard_says_all_that_computed_it(write_panel, tmp_path):
    file = write_panel(("gpt2",), texts=TEXTS[:1])
    store = extract_panel(file, tmp_path / "store")
    ds = dynstat.open(next(store.glob("*.nc")))
    said = json.loads(ds.attrs["provenance"])
    identity = load_panel(file).inputs()["models"][0]
    assert identity.items() <= said["model"].items()
    assert re.fullmatch("[0-9a-f]{64}", said["model"]["config_json_sha256"])
    assert said["model"]["attention"] == "eager"
    dtypes = (said["model"]["weights_dtype"], said["model"]["forward_dtype"], said["lens_dtype"])
    assert dtypes == ("float32", "float32", "float32")
    assert said["hidden_state_norm"] == "pre_final_norm" and "Linear" in said["readout"]
    assert 0 <= said["readout_error"] <= 1e-5
    assert said["tokens"]["start"] == "<|endoftext|>" and said["tokens"]["start_ids"] == [0]
    assert said["tokens"]["chat_template_sha256"] == ""
    assert said["sampling"] == {"generator": "Philox on cpu", "top_k": "none", "top_p": "none"}
    part = said["prompt_part"]
    assert (part["generation"], part["reading"]) == ("shared", "shared") and 0 < part["difference"] < 1e-5
    batch = said["batch"]
    assert batch["rows"] == 2 and batch["padding"] == "none" and batch["prompt_part"] == "shared"
    assert batch["seeds"] == [0, 1] and batch["temperatures"] == [1.0]
    assert {"kernel", "threads", "block_bytes"} == set(said["engine"])
    assert said["torch"] == torch.__version__ and said["cpu"] and said["python"]
    assert re.fullmatch(r"([0-9a-f]{40}\+?)?", said["dynstat_commit"])
    assert said["started"] <= said["ended"]
    assert str(tmp_path) not in ds.attrs["provenance"]
    # What computed the values is not what they are.
    assert dynstat.content_hash(ds) == dynstat.content_hash(ds.assign_attrs(provenance="{}"))


def test_a_tokenizer_that_skips_ids_gives_data_that_verify():
    """Ids then go beyond the number of valid tokens, which is what entropies are bounded by."""
    words = models.WordLevel({"<s>": 0, "[UNK]": 1, "a": 3, "b": 40, "c": 90}, unk_token="[UNK]")
    splits = Tokenizer(words)
    splits.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=splits, bos_token="<s>", unk_token="[UNK]")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).eval()
    ds = extract(lm, ["a b c a b"], ["entropy", "next_token_rank"], tokenizer=tokenizer)
    assert dynstat.verify(ds) == []
    assert ds.vocabulary.item() == 5 and ds.largest_id.item() == 90
    assert ds.token_id.values.ravel().tolist() == [0, 3, 40, 90, 3, 40]
    assert set(np.unique(ds.top1_id)) <= {0, 1, 3, 40, 90} and ds.next_token_rank.max() <= 5
    ds.token_id.values[0, 0, 0, 2] = 91
    assert {p.code for p in dynstat.verify(ds)} == {"token"}


def test_the_point_that_is_not_finite_is_named_and_not_its_neighbours(write_panel, tmp_path, monkeypatch):
    def poisoned(*given, **more):
        runs = read_runs(*given, **more)
        with torch.inference_mode():
            runs.own[3, 0, 2] = torch.inf
        return runs

    monkeypatch.setattr(shard, "read_runs", poisoned)
    forced = {"mode": "forced", "samples": "", "budget": 0, "texts": ["The king said"]}
    file = write_panel(("llama",), more="metrics: [entropy, synchronisation, kl_to_final]\n", **forced)
    with pytest.raises(dynstat.DynstatError) as e:
        extract_panel(file, tmp_path / "store")
    assert e.value.code == "X206" and e.value.where.endswith("token 2, layer 3")
    assert e.value.found == "1 such point"
