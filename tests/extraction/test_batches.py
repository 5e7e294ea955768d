"""What is read together is fixed by the panel: padded groups, interventions apart, keys that hold all."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from dynstat.extraction.panels.panel import Intervention, load_panel
from dynstat.extraction.stores.batches import _parts, plan_batches, shard_name
from dynstat.extraction.stores.plan import Plan

from .conftest import TEXTS


class Letters:
    """A token a letter."""

    start = (0,)

    def encode(self, text):
        return [0, *range(1, len(text) + 1)]


def prompts(lengths):
    return [{"id": f"p{i}", "text": "x" * n, "category": "", "split": "pilot"} for i, n in enumerate(lengths)]


@pytest.fixture
def forced(write_panel):
    return replace(load_panel(write_panel(("llama",), mode="forced", samples="", budget=0)), padding="right")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 200))
def test_padded_groups_hold_every_prompt_once_within_the_bound(lengths, tokens):
    group = [({"id": f"p{i}"}, (1,) * n) for i, n in enumerate(sorted(lengths))]
    parts = list(_parts(group, ("s",), 0, tokens))
    assert [p["id"] for part, _ in parts for p, _ in part] == [p["id"] for p, _ in group]
    for part, _ in parts:
        assert len(part) == 1 or len(part) * max(len(ids) for _, ids in part) <= tokens
    for (a, _), (b, _) in zip(parts, parts[1:], strict=False):
        assert (len(a) + 1) * len(b[0][1]) > tokens, "the next prompt would have fitted"


def test_right_padding_reads_different_lengths_together(forced):
    lengths = [5, 3, 9, 3, 4, 29]
    batches = plan_batches(replace(forced, batch_tokens=30), 0, Letters(), None, prompts(lengths))
    assert [[p["id"] for p in b.prompts] for b in batches] == [["p1", "p3", "p4", "p0"], ["p2"], ["p5"]]
    first = batches[0]
    assert first.length == 6 and first.tokens == 4 + 4 + 5 + 6 and first.rows * first.length <= 30
    plain = plan_batches(replace(forced, padding="none"), 0, Letters(), None, prompts(lengths))
    assert all(len({len(i) for i in b.ids}) == 1 for b in plain) and len(plain) == 5


def test_what_is_cut_at_the_context_is_not_padded(forced):
    panel = replace(forced, truncate=True)
    batches = plan_batches(panel, 0, Letters(), 10, prompts([3, 12, 9, 12, 14]))
    assert [(len(b.prompts), b.length, b.cut) for b in batches] == [(2, 10, 0), (2, 10, 3), (1, 10, 5)]


def test_interventions_stand_in_batches_of_their_own(write_panel):
    panel = load_panel(write_panel(("llama",)))
    noise = [replace(s, id=f"{s.id}+n", intervention=Intervention("noise", 1, 1.0)) for s in panel.samples]
    mixed = replace(panel, samples=(panel.samples[0], *noise, panel.samples[1]))
    batches = plan_batches(mixed, 0, Letters(), None, prompts([3, 3]))
    assert [[s.id for s in b.samples] for b in batches] == [["t1-s0", "t1-s1"], ["t1-s0+n", "t1-s1+n"]]


def test_the_key_holds_all_and_names_the_shard(write_panel):
    plan = Plan(load_panel(write_panel(("llama",))))
    key = plan.key(0)
    assert shard_name(key) == plan.names[0] and len(plan.names[0]) == 35
    assert key["model"]["weights_sha256"] and key["model"]["dtype"] == "float32" and key["device"] == "cpu"
    assert all("@" in m["metric"] for m in key["settings"]["metrics"])
    assert key["ids"] == [list(i) for i in plan.batches[0].ids]
    assert {s["seed"] for s in key["samples"]} == {0, 1}


def test_tokenizers_that_share_a_file_and_not_what_lies_beside_it(write_panel, tmp_path, copy_model):
    """tokenizer_config.json names the end of text and adds tokens: other ids, another shard."""
    import json
    import shutil

    from dynstat import data_path

    folder = copy_model()
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        shutil.copytree(data_path("models/tokenizer"), place)
    models = [f"  - {{id: {n}, path: {folder}, tokenizer: {p}}}" for n, p in (("a", first), ("b", second))]

    def plan(**more):
        config = json.loads((first / "tokenizer_config.json").read_text())
        (second / "tokenizer_config.json").write_text(json.dumps(config | more))
        return Plan(load_panel(write_panel(models, texts=["The king said", "A ship came"])))

    def ids(plan, model):
        return {b.prompts[0]["id"]: b.ids for b in plan.batches if b.model == model}

    same, named = plan(), plan(eos_token="Z")
    assert ids(same, 0) == ids(same, 1) == ids(named, 1)
    a, b = ({n for n, x in zip(p.names, p.batches, strict=True) if x.model == 1} for p in (same, named))
    assert not a & b, "another token ends the text"
    split = plan(eos_token="i")  # taken out of the text before it is split
    alone = Plan(replace(split.panel, models=split.panel.models[1:]))
    assert ids(split, 1) == ids(alone, 0) != ids(split, 0)


@pytest.mark.parametrize("tokens", [1, 40, 8192])
def test_batches_do_not_depend_on_what_is_there(tokens, write_panel, tmp_path):
    """The same panel makes the same items, whatever its folder holds."""
    file = write_panel(("llama", "gpt2"), more=f"batch_tokens: {tokens}")
    names = Plan(load_panel(file)).names
    assert Plan(load_panel(file)).names == names and len(set(names)) == len(names)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / names[0]).touch()
    plan = Plan(load_panel(file))
    assert plan.names == names and plan.missing(tmp_path / "store") == list(range(1, len(names)))
    assert sum(b.rows for b in plan.batches) == 2 * 2 * len(TEXTS)
