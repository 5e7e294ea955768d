"""What is read together is fixed by the panel: padded groups, interventions apart, keys that hold all."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from dynstat.extraction.batches import _parts, plan_batches, shard_name
from dynstat.extraction.panel import Intervention, load_panel
from dynstat.extraction.plan import Plan

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
