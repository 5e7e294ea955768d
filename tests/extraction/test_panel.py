"""Panel files: what is read, what is refused, what a lock binds, and the ids that prompts become."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from dynstat import DynstatError, data_path
from dynstat.extraction.models.encoding import Encoder, encoder
from dynstat.extraction.models.sources import locate
from dynstat.extraction.panels import panelfile
from dynstat.extraction.panels.measures import METRICS_BY_DEFAULT
from dynstat.extraction.panels.panel import Intervention, load_panel
from dynstat.extraction.stores.batches import plan_batches
from dynstat.extraction.stores.plan import Plan
from dynstat.extraction.training.architectures import ARCHITECTURES, FACTORS
from dynstat.registry import variable_name

from .conftest import TEXTS

TEXT_COLUMNS = ("text", "context", "ambiguous", "disambiguated", "continuation", "answers", "distractors")
EMBEDDED = ("pilot", "demo", "smollm2")


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_panels_are_valid(name):
    panel = load_panel(data_path(f"panels/{name}.yaml"))
    assert [m.id for m in panel.models[:6]] == [f"{a}-curated-s0" for a in ARCHITECTURES]
    for model, architecture in zip(panel.models, ARCHITECTURES, strict=False):
        expected = dict(FACTORS[architecture].as_dict())
        assert model.family == expected.pop("pair")
        assert {k: v for k, v in model.factors.items() if k not in ("corpus", "training_seed")} == expected
    assert panel.end_of_text == "ignore" and panel.start_token == "<|endoftext|>"
    assert [m["metric"].partition("@")[0] for m in panel.metrics] == list(METRICS_BY_DEFAULT)
    if name == "demo":
        assert (panel.split, len(panel.prompts()), len(panel.samples), panel.budget) == ("panel", 72, 4, 64)
    else:
        assert panel.split == "pilot"


def test_reading_a_panel_imports_no_torch():
    code = (
        "import sys; from dynstat.extraction.panels.panel import load_panel; from dynstat import data_path;"
        "p = load_panel(data_path('panels/pilot.yaml')); p.inputs();"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_prompt_has_the_same_ids_in_every_model(write_panel):
    """In a folder whose config says qwen2, AutoTokenizer gives other ids; the panel's loader must not."""
    from transformers import PreTrainedTokenizerFast

    panel = load_panel(write_panel(ARCHITECTURES))
    loaders = [encoder(locate(spec), panel) for spec in panel.models]
    backend = PreTrainedTokenizerFast(tokenizer_file=str(data_path("models/tokenizer") / "tokenizer.json"))
    files = sorted(data_path("prompts").glob("*.csv"))
    assert len(files) >= 3
    for file in files:
        with file.open(encoding="utf-8", newline="") as f:
            texts = [row[c] for row in csv.DictReader(f) for c in TEXT_COLUMNS if row.get(c)]
        assert len(texts) >= 36
        for text in texts:
            plain = backend.backend_tokenizer.encode(text, add_special_tokens=False).ids
            for one in loaders:
                assert one.encode(text) == [0, *plain], (file.name, text)
                assert one.decode(plain) == text
    assert {one.end_of_text for one in loaders} == {0} and {len(one.valid) for one in loaders} == {1024}


def test_inputs_are_about_content_and_not_about_places(write_panel, tmp_path, copy_model):
    a = load_panel(write_panel(("llama",), folder=tmp_path / "a"))
    moved = f"  - {{id: llama, path: {copy_model()}, factors: {{make: llama}}}}"
    b = load_panel(write_panel((moved,), folder=tmp_path / "b", more="# a comment\ntitle: other words"))
    assert a.inputs() == b.inputs()
    assert set(a.inputs()) == {"prompts", "models", "settings"}
    assert a.with_paths({"llama": tmp_path / "copy-llama"}).inputs() == a.inputs()
    c = load_panel(write_panel(("llama",), folder=tmp_path / "a", budget=7))
    assert c.inputs() != a.inputs()


def test_samples_are_greedy_first_then_seeds_within_temperatures(write_panel):
    panel = load_panel(write_panel(samples="samples: {seeds: [4, 0], temperatures: [1, 0.5], greedy: true}"))
    got = [(s.id, s.seed, s.temperature) for s in panel.samples]
    assert got == [
        ("greedy", -1, 0.0), ("t1-s4", 4, 1.0), ("t1-s0", 0, 1.0), ("t0.5-s4", 4, 0.5), ("t0.5-s0", 0, 0.5)
    ]  # fmt: skip


class Letters:
    def encode(self, text, add_special_tokens):
        return [ord(c) for c in text]


def test_batches_are_groups_of_equal_length_within_limits(write_panel):
    texts = ["aaa", "bb", "ccc", "ddd", "ee", "f"]
    samples = "samples: {seeds: [0, 1, 2], temperatures: [1]}"
    for tokens, sizes in ((10_000, [3, 6, 9]), (30, [3, 3, 3, 3, 3, 3]), (10, [1] * 18)):
        panel = load_panel(
            write_panel(("llama",), texts=texts, samples=samples, more=f"batch_tokens: {tokens}")
        )
        letters = Encoder(Letters(), (0,), 0, frozenset(), (0, 1))
        batches = plan_batches(panel, 0, letters, 256, panel.prompts())
        assert sorted(b.rows for b in batches) == sizes
        cells = []
        for b in batches:
            assert len({len(i) for i in b.ids}) == 1 and b.length == len(b.ids[0]) + 6
            cells += [(p["id"], s.id) for p in b.prompts for s in b.samples]
        assert len(cells) == len(set(cells)) == 18


def test_estimate_counts_what_is_there(write_panel, tmp_path):
    estimate = Plan(load_panel(write_panel())).estimate(tmp_path / "store")
    plan = Plan(load_panel(write_panel()))
    lengths = [len(plan.encoders[0].encode(t)) + 6 for t in TEXTS]
    assert estimate.runs == 2 * len(TEXTS) * 2 and estimate.done == 0
    assert estimate.tokens == 4 * sum(lengths) and estimate.points == 4 * estimate.tokens
    assert str(estimate.runs) in str(estimate) and not (tmp_path / "store").exists()


BAD = {
    "bugdet: 3": "Y002",
    "budget: 3": "Y001",
    "end_of_text: maybe": "Y003",
    "truncate: 1": "Y003",
    "nonfinite: ignore": "Y003",
    "readouts: [no_norm]": "Y003",
    "metrics: [entropie]": "Y003",
    "metrics: [entropy, entropy@1]": "Y003",
    "metrics: [ratio_norm]": "Y003",
    "metrics: [{metric: concentration, kk: 3}]": "Y002",
    "metrics: [{metric: concentration, k: many}]": "Y003",
    "metrics: []": "Y003",
    "threads: 0": "Y003",
    "batch_tokens: many": "Y003",
    "title: &a x": "Y001",
    "dtype: float64": "Y003",
    "padding: left": "Y003",
    "padding: right": "Y003",  # in mode generated
    "register: nowhere.py": "F001",
    "register: 3": "Y003",
    "readouts: [logit_lens, logit_lens]": "Y003",
    "readouts: [logit_lens, t_matched]": "Y002",
    "readouts: [logit_lens, {readout: t_matched, entropy: 0}]": "Y003",
    "readouts: [logit_lens, {readout: t_matched, entropy: 3.0, text: nowhere.txt}]": "F001",
    "readouts: [logit_lens, {readout: t_matched, entropy: 3.0, texts: x}]": "Y002",
    "readouts: [logit_lens, {readout: top_k, k: 1}]": "Y003",
    "readouts: [logit_lens, {readout: tuned, translators: {llama: x}}]": "Y003",  # gpt2 has none
    "readouts: [logit_lens, {readout: tuned, translators: {gpt2: x, llama: y}}]": "F001",
    "readouts: [logit_lens, {k: 3}]": "Y003",
    "metrics: [concentration, {metric: concentration, k: 5}]": "Y003",
    "metrics: [{metric: concentration, as: entropy}]": "Y003",
    "metrics: [{metric: concentration, as: token_id}]": "Y003",
    "metrics: [{metric: concentration, as: a__b}]": "Y003",
    "metrics: [{metric: concentration, as: x}, {metric: entropy, as: x}]": "Y003",
}


@pytest.mark.parametrize("line", BAD)
def test_faults_of_a_panel(line, write_panel):
    with pytest.raises(DynstatError) as e:
        load_panel(write_panel(more=line))
    assert e.value.code == BAD[line]
    assert e.value.where


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"samples": "samples: {seeds: [0]}"}, "Y003"),
        ({"samples": "samples: {seeds: [0, 0], temperatures: [1]}"}, "Y003"),
        ({"samples": "samples: {seeds: [0], temperatures: [0]}"}, "Y003"),
        ({"samples": "samples: {seeds: [0], temperatures: [1], top_k: 4}"}, "Y002"),
        ({"samples": "samples: {seeds: [9007199254740992], temperatures: [1]}"}, "Y003"),
        ({"samples": "samples: {seeds: [0], temperatures: [0.7, 0.70000001]}"}, "Y003"),
        ({"samples": "samples: {seeds: [0], temperatures: [1.0e-320]}"}, "Y003"),
        ({"samples": ""}, "Y003"),
        ({"budget": 0}, "Y003"),
        ({"mode": "forced"}, "Y003"),
        ({"samples": "samples: {greedy: true, interventions: []}"}, "Y003"),
        ({"samples": "samples: {greedy: true, interventions: [{kind: noise, dose: 1}]}"}, "Y002"),
        (
            {"samples": "samples: {greedy: true, interventions: [{kind: noise, target_layer: -1, dose: 1}]}"},
            "Y003",
        ),
        (
            {"samples": "samples: {greedy: true, interventions: [{kind: No, target_layer: 1, dose: 1}]}"},
            "Y003",
        ),
        (
            {"samples": "samples: {greedy: true, interventions: [{kind: n, target_layer: 1, dose: .inf}]}"},
            "Y003",
        ),
        (
            {
                "samples": "samples: {greedy: true, interventions: ["
                "{kind: n, target_layer: 1, dose: 1}, {kind: n, target_layer: 1, dose: 1.0}]}"
            },
            "Y003",
        ),
        ({"models": ()}, "Y003"),
        ({"models": ("llama", "llama")}, "Y003"),
        ({"models": ("  - {id: a, path: x, gguf: y}",)}, "Y002"),
        ({"models": ("  - {id: a}",)}, "Y002"),
        ({"models": ("  - {id: a/b, path: x}",)}, "Y003"),
        ({"models": ("  - {id: a, repo: org/name}",)}, "Y002"),
        ({"models": ("  - {id: a, path: x, factors: {seed: 3}}",)}, "Y003"),
        ({"models": ("  - {id: a, path: x, factors: {f: 3}}", "  - {id: b, path: x}")}, "Y002"),
    ],
)
def test_faults_of_models_and_samples(change, code, write_panel):
    with pytest.raises(DynstatError) as e:
        load_panel(write_panel(**change))
    assert e.value.code == code


def test_every_sample_is_repeated_under_every_intervention(write_panel):
    changes = (
        "[{kind: noise, target_layer: 2, dose: 0.5}, {kind: damp, target_layer: 1, dose: 1, phase: prompt}]"
    )
    plain = "seeds: [3], temperatures: [1], greedy: true"
    panel = load_panel(write_panel(samples=f"samples: {{{plain}, interventions: {changes}}}"))
    assert [s.id for s in panel.samples] == [
        "greedy", "t1-s3", "greedy+noise-l2-d0.5", "t1-s3+noise-l2-d0.5",
        "greedy+damp-l1-d1-prompt", "t1-s3+damp-l1-d1-prompt",
    ]  # fmt: skip
    assert [s.intervention for s in panel.samples[:2]] == [None, None]
    assert panel.samples[3].intervention == Intervention("noise", 2, 0.5, "all")
    assert panel.samples[5].intervention == Intervention("damp", 1, 1.0, "prompt")
    assert panel.samples[5].seed == 3 and panel.samples[5].as_dict()["dose"] == 1.0
    undisturbed = load_panel(write_panel(samples=f"samples: {{{plain}}}"))
    assert panel.samples[:2] == undisturbed.samples
    forced = load_panel(
        write_panel(mode="forced", budget=0, samples=f"samples: {{interventions: {changes}}}")
    )
    assert [s.id for s in forced.samples] == ["forced", "forced+noise-l2-d0.5", "forced+damp-l1-d1-prompt"]


def test_new_keys_are_identity_where_they_are_not_the_default(write_panel, tmp_path):
    plain = load_panel(write_panel()).inputs()
    said = "dtype: float32\npadding: none\nreadouts: [{readout: logit_lens}]"
    assert load_panel(write_panel(more=said)).inputs() == plain
    half = load_panel(write_panel(more="dtype: bfloat16"))
    assert half.dtype == "bfloat16" and half.inputs()["settings"] == plain["settings"]
    assert {m["dtype"] for m in half.inputs()["models"]} == {"bfloat16"}
    forced = {"mode": "forced", "budget": 0, "samples": ""}
    assert load_panel(write_panel(**forced, more="padding: right")).inputs()["settings"]["padding"] == "right"
    assert "padding" not in load_panel(write_panel(**forced)).inputs()["settings"]


def test_read_outs_carry_their_options_and_the_hashes_of_their_files(write_panel, tmp_path):
    for name in ("held.txt", "a.safetensors", "b.safetensors"):
        (tmp_path / name).write_text(name)
    more = (
        "readouts: [{readout: tuned, translators: {gpt2: a.safetensors, llama: b.safetensors}}, no_norm, "
        "{readout: t_matched, entropy: 3, text: held.txt}, logit_lens, top_k]"
    )
    panel = load_panel(write_panel(more=more))
    assert panel.readouts == ("logit_lens", "no_norm", "t_matched", "top_k", "tuned")
    assert panel.readout_options["t_matched"] == {"entropy": 3.0, "text": tmp_path / "held.txt"}
    assert panel.readout_options["tuned"]["translators"]["llama"] == tmp_path / "b.safetensors"
    settings = panel.settings()
    assert settings["readouts"] == list(panel.readouts)
    sha = {f: hashlib.sha256(f.encode()).hexdigest() for f in ("held.txt", "a.safetensors", "b.safetensors")}
    assert settings["readout_options"] == {
        "t_matched": {"entropy": 3.0, "text_sha256": sha["held.txt"]},
        "top_k": {"k": 50},
        "tuned": {"translators_sha256": {"gpt2": sha["a.safetensors"], "llama": sha["b.safetensors"]}},
    }
    (tmp_path / "held.txt").write_text("other words")
    assert panel.settings() != settings
    by_default = load_panel(write_panel(more="readouts: [logit_lens, {readout: t_matched, entropy: 3.0}]"))
    assert by_default.readout_options["t_matched"]["text"] == data_path("texts/held_out.txt")


def test_one_metric_with_several_options_needs_names(write_panel):
    more = "metrics: [concentration, {metric: concentration, k: 5, as: top5}, {metric: entropy, as: entropy}]"
    panel = load_panel(write_panel(more=more))
    assert panel.metrics == (
        {"metric": "concentration@1", "k": 10},
        {"metric": "concentration@1", "k": 5, "as": "top5"},
        {"metric": "entropy@1"},
    )
    assert [variable_name(m) for m in panel.metrics] == ["concentration", "top5", "entropy"]


def test_the_example_and_the_keys_of_the_documentation(tmp_path, model_folders):
    text = (Path(__file__).parents[2] / "docs" / "extraction.md").read_text("utf-8")
    example = text.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "panel.yaml").write_text(example, encoding="utf-8")
    panel = load_panel(tmp_path / "panel.yaml")
    assert [s.id for s in panel.samples] == ["greedy", "t0.7-s0", "t0.7-s1", "t1-s0", "t1-s1"]
    assert [m.kind for m in panel.models] == ["folder", "hub"]
    table = "".join(line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `"))
    for key in panelfile._KEYS - {"dynstat", "id"}:
        assert f"`{key}`" in table, key
    for name in METRICS_BY_DEFAULT:
        assert f"`{name}`" in text
