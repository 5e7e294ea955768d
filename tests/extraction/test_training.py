"""The makers of the embedded panel on a tiny corpus, and the stored panel against its cards."""

from __future__ import annotations

import gzip
import hashlib
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

import dynstat  # noqa: E402
from dynstat.errors import DynstatError  # noqa: E402
from dynstat.extraction.training import corpora, debris, evaluate, store, train  # noqa: E402
from dynstat.extraction.training.__main__ import main  # noqa: E402
from dynstat.extraction.training.architectures import ARCHITECTURES, build, parameters  # noqa: E402
from dynstat.extraction.training.tokenizer import END_OF_TEXT, save_tokenizer, train_tokenizer  # noqa: E402

MODELS = dynstat.data_path("models")
TINY = train.Recipe(steps=6, batch=2, context=16, warmup=2)
WORDS = "the quick brown fox jumps over a lazy dog while seven wise owls watch from old grey elms".split()


def prose(seed: int, lines: int) -> str:
    draw = np.random.default_rng(seed)
    return "\n".join(" ".join(draw.choice(WORDS, 12)) + "." for _ in range(lines)) + "\n"


@pytest.fixture
def tiny_corpora(tmp_path, monkeypatch):
    """Four small corpora with one held-out book each, registered in place of the real ones."""
    folder = tmp_path / "corpora"
    folder.mkdir()
    hashes, books = {}, {}
    for number, name in enumerate(corpora.SOURCES):
        text = (
            prose(number, 150)
            + "BOOK TWO\n"
            + prose(10 + number, 60)
            + "BOOK THREE\n"
            + prose(20 + number, 40)
        )
        data = gzip.compress(text.encode(), mtime=0)
        (folder / f"{name}.txt.gz").write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
        books[name] = (corpora.HeldOutBook("Two", "BOOK TWO", "BOOK THREE"),)
    monkeypatch.setattr(corpora, "SHA256", hashes)
    monkeypatch.setattr(corpora, "HELD_OUT", books)
    return folder


# corpora


def test_every_line_is_in_exactly_one_part():
    text = "a\nb\nBOOK TWO\nc\nBOOK THREE\nd\nBOOK FOUR\ne"
    books = (
        corpora.HeldOutBook("Two", "BOOK TWO", "BOOK THREE"),
        corpora.HeldOutBook("Four", "BOOK FOUR", "e"),
    )
    rest, held = corpora.split_by_book(text, books)
    assert held.split("\n") == ["BOOK TWO", "c", "BOOK FOUR"]
    assert rest.split("\n") == ["a", "b", "BOOK THREE", "d", "e"]


def test_a_book_that_is_not_there_is_an_error():
    with pytest.raises(DynstatError) as caught:
        corpora.split_by_book("a\nb", (corpora.HeldOutBook("Two", "BOOK TWO", "b"),))
    assert caught.value.code == "X213"


def test_no_held_out_line_is_in_the_training_text(tiny_corpora):
    train_text, held = corpora.train_text(tiny_corpora), corpora.held_out(tiny_corpora)
    for name in corpora.SOURCES:
        assert "BOOK TWO" in held[name] and "BOOK TWO" not in train_text[name]
        assert "BOOK THREE" in train_text[name] and "BOOK THREE" not in held[name]


def test_a_changed_corpus_is_refused_and_named(tiny_corpora):
    path = tiny_corpora / "kjv.txt.gz"
    path.write_bytes(gzip.compress(b"other text", mtime=0))
    with pytest.raises(DynstatError) as caught:
        corpora.train_text(tiny_corpora)
    error = caught.value
    assert error.code == "X213" and error.where == str(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in error.found
    assert corpora.SHA256["kjv"] in error.expected and error.mend


def test_a_missing_corpus_is_refused(tiny_corpora, tmp_path, capsys):
    (tiny_corpora / "austen.txt.gz").unlink()
    code = main(["--corpora", str(tiny_corpora), "--out", str(tmp_path / "out")])
    assert code != 0 and "F001" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cleaning_unwraps_novels_and_keeps_verse():
    wrapped = "CHAPTER 1\n\n\nIt was  _very_ long\nand wrapped.\n\nNext.\n"
    assert corpora.clean(wrapped, "austen") == "CHAPTER 1\n\nIt was very long and wrapped.\n\nNext.\n"
    assert corpora.clean("\nA verse\n\n\n\nB verse\nC", "shakespeare") == "A verse\n\nB verse\nC\n"
    assert corpora.clean("one  verse\ntwo\n\n", "kjv") == "one verse\ntwo\n"
    assert corpora.clean("one \n\ntwo", "speeches") == "one\n\ntwo\n"


@given(st.text(alphabet="ab _\n\t", max_size=80), st.sampled_from(corpora.SOURCES))
def test_cleaning_twice_changes_nothing(text, source):
    once = corpora.clean(text, source)
    assert corpora.clean(once, source) == once


# debris


def test_raw_text_is_determined_by_its_seed():
    texts = {"one": prose(1, 200), "two": prose(2, 200)}
    assert debris.raw(texts, 3) == debris.raw(texts, np.random.default_rng(3))
    assert debris.raw(texts, 3) != debris.raw(texts, 4)


def test_raw_text_has_the_size_of_its_sources_and_all_kinds_of_debris():
    texts = {"one": prose(1, 1500).replace("owls", "owl's")}
    raw = debris.raw(texts, 0)
    size = len(texts["one"].encode())
    assert size <= len(raw.encode()) < 1.2 * size
    # A curly apostrophe of UTF-8 read as Windows-1252, and an apostrophe escaped twice, among the rest.
    mojibake = "\u2019".encode().decode("cp1252")
    signs = (
        "<!DOCTYPE html>",
        "[[Category:",
        "cookies",
        "HTTP/1.1",
        "def get_",
        "SELECT ",
        "&amp;#x27;",
        mojibake,
    )
    assert [sign for sign in signs if sign not in raw] == []


def test_raw_text_needs_a_source():
    with pytest.raises(DynstatError, match="S404"):
        debris.raw({"one": ""}, 0)


@pytest.mark.parametrize("kind", sorted(debris.KINDS))
def test_each_kind_of_debris_does_what_its_name_says(kind):
    passage = prose(5, 12).strip() + "\nIt's a 'quoted' one -- or \"two\"?"
    for seed in range(12):
        made = debris.KINDS[kind](passage, np.random.default_rng(seed))
        if kind == "shuffled_paragraphs":
            assert sorted(made.split("\n")) == sorted(passage.split("\n"))
        elif kind == "near_duplicate":
            assert made.startswith(passage + "\n\n")
            copy = made[len(passage) + 2 :]
            assert copy != passage and len(set(copy.split()) & set(passage.split())) > len(WORDS)
        elif kind in ("log_lines", "code"):
            assert made.startswith(passage + "\n\n") and len(made) > len(passage) + 40
        elif kind == "boilerplate":
            assert passage in made and len(made) > len(passage) + 20
        else:
            assert made != passage


# tokenizer


def test_training_the_tokenizer_twice_gives_the_same_bytes():
    clean, dirty = prose(1, 300), debris.raw({"one": prose(1, 300)}, 1)
    first, second = (train_tokenizer(clean, dirty, 400).to_str() for _ in range(2))
    assert first == second
    assert train_tokenizer(clean[::-1], dirty, 400).to_str() != first


def test_clean_and_raw_text_count_in_equal_parts():
    clean, dirty = prose(1, 100), prose(2, 100)
    longer = clean + "zyxw zyxw zyxw " * 400
    extent = len(dirty.encode())
    assert (
        train_tokenizer(longer, dirty, 300).to_str() == train_tokenizer(longer[:extent], dirty, 300).to_str()
    )


def test_a_tokenizer_is_never_left_half_written(tmp_path, monkeypatch):
    """A tokenizer.json that is there is used and never made anew, so a broken one would stay."""
    tokenizer = train_tokenizer(prose(1, 100), prose(2, 100), 300)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DynstatError, match="F002"):
        save_tokenizer(tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_new_tokenizer_loads_from_its_folder(tmp_path):
    save_tokenizer(train_tokenizer(prose(1, 100), prose(2, 100), 300), tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert len(loaded) == 300 and loaded.convert_tokens_to_ids(END_OF_TEXT) == 0


@pytest.fixture(scope="module")
def loaders():
    folder = MODELS / "tokenizer"
    bare = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return bare, PreTrainedTokenizerFast.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_the_stored_tokenizer_has_its_vocabulary_and_adds_nothing(loaders):
    bare, fast, auto = loaders
    assert bare.get_vocab_size() == len(fast) == len(auto) == 1024
    assert fast.bos_token_id == fast.eos_token_id == 0 == auto.bos_token_id
    assert fast("")["input_ids"] == [] and fast(END_OF_TEXT + "a")["input_ids"][0] == 0
    assert len(bare.encode("1848").ids) == 4


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_the_stored_tokenizer_round_trips_all_text_in_every_loader(loaders, text):
    bare, fast, auto = loaders
    ids = bare.encode(text).ids
    assert ids == fast.encode(text) == auto.encode(text)
    assert bare.decode(ids, skip_special_tokens=False) == text
    assert fast.decode(ids) == auto.decode(ids) == text


# training


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(1, 1024, 500).astype(np.uint16)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stopped_run_goes_on_to_the_same_bits(architecture, tokens, tmp_path):
    whole = weights(train.train(architecture, tokens, TINY, tmp_path / "a", layers=2, checkpoint_every=100))
    part = weights(
        train.train(architecture, tokens, TINY, tmp_path / "b", layers=2, checkpoint_every=2, stop_after=3)
    )
    steps = []
    resumed = weights(
        train.train(
            architecture, tokens, TINY, tmp_path / "b", layers=2, report=lambda step, loss: steps.append(step)
        )
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_resumed_run_does_not_repeat_work(tokens, tmp_path, monkeypatch):
    train.train("llama", tokens, TINY, tmp_path, layers=1, stop_after=4)
    asked = []
    original = train.batch_at
    monkeypatch.setattr(train, "batch_at", lambda t, step, r: asked.append(step) or original(t, step, r))
    train.train("llama", tokens, TINY, tmp_path, layers=1)
    assert asked == [4, 5]


def test_another_recipe_never_takes_up_a_checkpoint(tokens, tmp_path):
    train.train("llama", tokens, TINY, tmp_path, layers=1)
    other = train.Recipe(**{**vars(TINY), "seed": 1})
    fresh = weights(train.train("llama", tokens, other, tmp_path / "fresh", layers=1))
    beside = weights(train.train("llama", tokens, other, tmp_path, layers=1))
    assert all(torch.equal(fresh[name], beside[name]) for name in fresh)


def test_training_restores_the_settings_of_torch(tokens, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train.train("gpt2", tokens, TINY, tmp_path, layers=1, stop_after=1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_an_epoch_visits_every_window_once(tokens):
    recipe = train.Recipe(batch=3, context=16)
    windows = (len(tokens) - 16) // 16
    rows = torch.cat([train.batch_at(tokens, step, recipe) for step in range(windows // 3)]).numpy()
    assert rows.shape[1] == 17 and (rows[:, 0] == 0).all()
    text = tokens.astype(np.int64)
    starts = [
        int(np.flatnonzero((np.lib.stride_tricks.sliding_window_view(text, 16) == r[1:]).all(1))[0])
        for r in rows
    ]
    assert len(set(starts)) == len(starts) and len({start % 16 for start in starts}) == 1


def test_the_rate_rises_then_falls_to_a_hundredth():
    recipe = train.Recipe(steps=100, warmup=10, learning_rate=1.0)
    rates = [train.rate_at(step, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.01 + 0.99 / 2) and rates[100] == pytest.approx(0.01)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initial_weights_are_drawn_alike(architecture):
    for name, parameter in build(architecture, seed=0).named_parameters():
        if parameter.ndim > 1:
            spread = 0.02 / math.sqrt(2 * parameter.numel())
            assert abs(parameter.std().item() - 0.02) < 6 * spread, name
        else:
            assert set(parameter.tolist()) == {0.0 if name.endswith("bias") else 1.0}, name


# losses


def test_the_loss_equals_a_slow_sum_over_windows():
    model = build("opt", seed=3, layers=1).eval()
    ids = np.random.default_rng(1).integers(1, 1024, 70)
    total = 0.0
    for start in (0, 32):
        for place in range(32):
            seen = [0, *ids[start : start + place]]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([seen])).logits[0, -1].double()
            total -= torch.log_softmax(logits, 0)[ids[start + place]].item()
    assert evaluate.model_loss(model, ids, context=32, batch=1) == pytest.approx(total / 64, rel=1e-5)


def test_a_text_shorter_than_a_window_has_no_loss():
    with pytest.raises(DynstatError, match="S404"):
        evaluate.model_loss(build("llama", layers=1), np.arange(1, 20), context=32)


def test_baselines_are_distributions_and_know_closed_forms():
    ids = np.random.default_rng(2).choice(5, 400, p=[0.4, 0.3, 0.2, 0.06, 0.04])
    found = evaluate.fit_baselines(ids, 7)
    assert found.unigram.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.bigram.sum(axis=1), 1)
    assert (found.bigram > 0).all()
    assert found.unigram[6] == pytest.approx(1 / 407)
    np.testing.assert_allclose(found.bigram[6], found.unigram)
    after = ids[1:][ids[:-1] == 0]
    kinds, d = len(set(after)), found.discount
    want = ((after == 1).sum() - d) / len(after) + d * kinds / len(after) * found.unigram[1]
    assert found.bigram[0, 1] == pytest.approx(want)


def test_a_bigram_knows_a_cycle_and_a_unigram_does_not():
    ids = np.tile(np.arange(8), 200)
    unigram, bigram = evaluate.fit_baselines(ids, 8).losses(ids, 8)
    assert unigram == pytest.approx(math.log(8), abs=0.01) and bigram < 0.02


# storing


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stored_model_is_its_float16_rounding(architecture, tmp_path):
    model = build(architecture, seed=5, layers=2).eval()
    store.save_model(model, tmp_path)
    loaded = store.load_model(tmp_path)
    rounded = {name: p.half().float() for name, p in weights(model).items()}
    assert all(torch.equal(rounded[name], p) for name, p in weights(loaded).items())
    assert loaded.generation_config.eos_token_id is None
    first = (tmp_path / "model.safetensors").read_bytes()
    store.save_model(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == first


def test_the_command_makes_models_and_cards_and_repeats_nothing(tiny_corpora, tmp_path):
    out = tmp_path / "models"
    common = ["--corpora", str(tiny_corpora), "--out", str(out), "--work", str(tmp_path / "work")]
    command = [*common, "--only", "llama", "--steps", "2"]
    assert main([*command, "--until", "1"]) == 0
    assert not (out / "llama-curated-s0" / "card.json").exists()
    assert main(command) == 0
    card = json.loads((out / "llama-curated-s0" / "card.json").read_text())
    assert card["training"]["updates"] == 2 and card["training"]["threads"] == 1
    assert set(card["losses"]) == {*corpora.SOURCES, "curated", "raw"}
    assert "llama-curated-s0" in (out / "README.md").read_text()
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    assert main(command) == 0
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    assert main([*common, "--only", "llama", "--steps", "3", "--cards"]) != 0


# the stored panel


def test_the_panel_holds_the_six_and_little_more():
    found = {path.name for path in MODELS.iterdir() if (path / "config.json").is_file()}
    assert found == {store.folder_name(name) for name in ARCHITECTURES}
    assert sum(path.stat().st_size for path in MODELS.glob("*/model.safetensors")) <= 6_000_000


@pytest.fixture(scope="module", params=ARCHITECTURES)
def stored(request):
    folder = MODELS / store.folder_name(request.param)
    return folder, json.loads((folder / "card.json").read_text()), store.load_model(folder)


def test_a_panel_model_is_as_its_card_says(stored):
    folder, card, model = stored
    assert 400_000 <= parameters(model) == card["parameters"] <= 490_000
    assert type(model).__name__ == card["class"]
    data = (folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == card["weights"]["sha256"]
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert card["training"]["updates"] == card["training"]["recipe"]["steps"]
    recorded = hashlib.sha256((MODELS / "tokenizer" / "tokenizer.json").read_bytes()).hexdigest()
    assert card["tokenizer_sha256"] == recorded


def test_a_panel_model_has_the_shape_of_the_panel(stored):
    folder, _, model = stored
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (8, 64, 1024)
    assert config.max_position_embeddings == 256 and config.num_attention_heads == 4
    assert config.bos_token_id == config.eos_token_id == 0
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert getattr(model.get_input_embeddings(), "padding_idx", None) is None and config.pad_token_id is None
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert not list(folder.glob("*token*"))


def test_a_panel_model_generates_past_the_end_of_text(stored):
    _, _, model = stored
    ended = torch.tensor([[0, 5, 0]])
    made = model.generate(ended, max_new_tokens=6, do_sample=False)
    assert made.shape == (1, 9)


def test_a_panel_model_beats_the_bigram(stored):
    _, card, _ = stored
    curated = card["losses"]["curated"]
    assert curated["model"] <= curated["bigram"] - 0.2
    assert curated["bigram"] < curated["unigram"]


def test_a_panel_model_predicts_plain_english_far_better_than_chance(stored, loaders):
    _, _, model = stored
    text = (
        "And he said unto them, I will go with you into the house, for the day is come, and they are there. "
        "She was very glad to see her sister, and they walked together to the garden before the others came."
    )
    ids = np.array(loaders[0].encode(text).ids)
    assert evaluate.model_loss(model, ids, context=len(ids)) < math.log(1024) - 2


def test_models_json_agrees_with_the_cards():
    panel = json.loads((MODELS / "models.json").read_text())
    assert [m["name"] for m in panel["models"]] == [store.folder_name(name) for name in ARCHITECTURES]
    for entry in panel["models"]:
        card = json.loads((MODELS / entry["name"] / "card.json").read_text())
        assert entry["weights_sha256"] == card["weights"]["sha256"]
        assert entry["below_bigram"] == card["losses"]["curated"]["below_bigram"]
        page = (MODELS / entry["name"] / "README.md").read_text()
        assert card["weights"]["sha256"] in page and f"{card['parameters']:,}" in page
