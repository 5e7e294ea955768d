"""The prompt files: counts, keys, disjointness, matched lengths, equal pairs, manifest."""

import csv
import hashlib
import itertools
import json
import os
import re
import statistics
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import dynstat
from dynstat.dataset.prompts import read_prompts
from dynstat.errors import DynstatError
from dynstat.extraction.prompts.cloze import build_cloze, cloze_rows
from dynstat.extraction.prompts.hashes import FILES, manifest, read_rows, write_rows
from dynstat.extraction.prompts.matching import largest_gaps, length_table, load_tokenizer, token_lengths

FOLDER = dynstat.data_path("prompts")
SPLITS = {"pilot": 6, "panel": 12, "confirmation": 12}
ANSWERABLE = ("factual_recall", "scientific_reasoning", "arithmetic_logic", "multi_hop")
SOURCES = ("austen", "kjv", "shakespeare", "speeches")
CATEGORIES = {*ANSWERABLE, "open_ended", "ambiguous"}


def rows_of(name: str) -> list[dict[str, str]]:
    # The standard reader, not the project's own: what is checked is the file.
    with open(FOLDER / name, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f, strict=True))


def parts(cell: str) -> list[str]:
    return cell.split(" | ") if cell else []


@pytest.fixture(scope="module")
def panel_tokenizer():
    return load_tokenizer(dynstat.data_path("models/tokenizer"))


@pytest.fixture(scope="module")
def all_prompts() -> list[dict[str, str]]:
    return [row for split in SPLITS for row in rows_of(f"{split}.csv")]


@pytest.mark.parametrize("split", SPLITS)
def test_counts_columns_and_ids(split):
    rows = rows_of(f"{split}.csv")
    assert list(rows[0]) == ["id", "split", "category", "template", "text", "answers", "distractors"]
    assert {row["split"] for row in rows} == {split}
    assert Counter(row["category"] for row in rows) == dict.fromkeys(CATEGORIES, SPLITS[split])
    assert all(re.fullmatch(rf"{split}-[a-z]+-\d\d", row["id"]) for row in rows)
    # Wording frames are the same in all splits, equally often, so that splits differ in content only.
    assert set(Counter((r["category"], r["template"]) for r in rows).values()) == {SPLITS[split] // 6}


def test_templates_are_shared_by_splits(all_prompts):
    by_split = {s: {(r["category"], r["template"]) for r in all_prompts if r["split"] == s} for s in SPLITS}
    assert by_split["pilot"] == by_split["panel"] == by_split["confirmation"]


def test_ids_and_texts_are_unique(all_prompts):
    assert len({row["id"] for row in all_prompts}) == len(all_prompts) == 180
    assert len({row["text"].lower() for row in all_prompts}) == len(all_prompts)


def test_no_two_prompts_share_their_words(all_prompts):
    words = [set(re.findall(r"[a-z0-9]+", row["text"].lower())) for row in all_prompts]
    worst = max(
        (len(a & b) / len(a | b), all_prompts[i]["id"], all_prompts[j]["id"])
        for (i, a), (j, b) in itertools.combinations(enumerate(words), 2)
    )
    assert worst[0] < 0.6, worst


def test_no_question_is_asked_twice(all_prompts):
    # The same answer may come back (a colour, a number); within one wording frame it may not.
    keys = Counter((r["template"], parts(r["answers"])[0]) for r in all_prompts if r["answers"])
    repeated = {key for key, n in keys.items() if n > 1}
    assert repeated <= {("quantity-relation", "half"), ("syllogism", "red")}


def test_text_rules(all_prompts):
    cells = [row["text"] for row in all_prompts]
    cells += [row["context"] for row in rows_of("cloze.csv")]
    cells += [row[side] for row in rows_of("ambiguity.csv") for side in ("ambiguous", "disambiguated")]
    for text in cells:
        assert text.isascii() and text == text.strip() and "  " not in text and "|" not in text, text
        assert unicodedata.normalize("NFC", text) == text and text.isprintable(), text
        assert not re.search(r" [,.;:]|\b([Aa]n [bcdfgjklmnpqrstvwxyz]|[Aa] [aeio])|\b(\w+) \2\b", text), text
    for row in all_prompts:
        assert 80 <= len(row["text"]) <= 130, row["id"]
        assert re.search(r"[\w,]$", row["text"]), row["id"]


@pytest.mark.parametrize("split", SPLITS)
def test_answers_and_distractors(split, panel_tokenizer):
    for row in rows_of(f"{split}.csv"):
        answers, wrong = parts(row["answers"]), parts(row["distractors"])
        if row["category"] not in ANSWERABLE:
            assert not answers and not wrong, row["id"]
            continue
        assert answers and len(wrong) == len(set(wrong)) == 3, row["id"]
        assert not {a.lower() for a in answers} & {w.lower() for w in wrong}, row["id"]
        assert {len(w.split()) for w in wrong} == {len(answers[0].split())}, row["id"]
        right, *others = token_lengths(panel_tokenizer, [" " + word for word in [answers[0], *wrong]])
        assert all(abs(other - right) <= 2 for other in others), row["id"]
        # Case alone must not give the answer away.
        assert len({word[0].isupper() for word in [answers[0], *wrong]}) == 1, row["id"]


def test_arithmetic_keys():
    """The sums, worked out here from the numbers of the texts."""
    expected = {
        "pilot": {"count-story": [9 - 4 + 7], "time-and-money": [8 * 5 * 2]},
        "panel": {
            "count-story": [15 - 6 + 2, 20 - 3 * 4],
            "number-series": [24 * 2, 36 - 7],
            "time-and-money": [9 + 5 - 12, 2 * 4 + 10],
        },
        "confirmation": {
            "count-story": [(30 - 5) // 5, 7 + 2 * 7],
            "number-series": [5**2, 5 + 8],
            "time-and-money": [50 - 7 * 6, 90 - 60],
        },
    }
    for split, by_template in expected.items():
        rows = rows_of(f"{split}.csv")
        for template, numbers in by_template.items():
            keys = [parts(row["answers"]) for row in rows if row["template"] == template]
            assert [int(next(a for a in key if a.isdigit())) for key in keys] == numbers


@pytest.mark.parametrize("split", SPLITS)
def test_lengths_are_matched(split, panel_tokenizer):
    rows = rows_of(f"{split}.csv")
    lengths = token_lengths(panel_tokenizer, [row["text"] for row in rows])
    by_category: dict[str, list[int]] = {}
    for row, length in zip(rows, lengths, strict=True):
        by_category.setdefault(row["category"], []).append(length)
    # Not only mean and spread: every category has the very same lengths, a third each.
    third = SPLITS[split] // 3
    assert {tuple(sorted(v)) for v in by_category.values()} == {(36,) * third + (39,) * third + (42,) * third}
    means = [statistics.fmean(v) for v in by_category.values()]
    assert max(means) - min(means) <= 1


def test_the_projects_reader_takes_the_files():
    for split, n in SPLITS.items():
        prompts = read_prompts(FOLDER / f"{split}.csv", split=split)
        assert len(prompts) == 6 * n
        assert all(len(p["distractors"]) == 3 for p in prompts if p["category"] in ANSWERABLE)


def test_cloze(panel_tokenizer):
    rows = rows_of("cloze.csv")
    assert list(rows[0]) == ["id", "source", "context", "continuation", "distractors"]
    assert Counter(r["source"] for r in rows) == dict.fromkeys(SOURCES, 24)
    assert len({r["id"] for r in rows}) == len({r["context"] for r in rows}) == 96
    for row in rows:
        words = [row["continuation"], *parts(row["distractors"])]
        assert len(set(words)) == 4 and all(re.fullmatch("[a-z]{3,}", w) for w in words), row["id"]
        assert len(set(token_lengths(panel_tokenizer, [" " + w for w in words]))) == 1, row["id"]
        # Reading context and word together must not merge tokens over the border.
        (context, both) = panel_tokenizer.encode_batch(
            [row["context"], f"{row['context']} {row['continuation']}"], add_special_tokens=False
        )
        assert both.ids[: len(context.ids)] == context.ids
        assert 22 <= len(context.ids) <= 48


def test_ambiguity_pairs(panel_tokenizer):
    rows = rows_of("ambiguity.csv")
    assert len(rows) == len({r["id"] for r in rows}) == 96
    assert len({r["template"] for r in rows}) >= 32
    assert set(Counter(r["template"] for r in rows).values()) == {3}
    texts = [r[side] for r in rows for side in ("ambiguous", "disambiguated")]
    assert len(set(texts)) == 192
    for side in ("ambiguous", "disambiguated"):
        lengths = token_lengths(panel_tokenizer, [r[side] for r in rows])
        assert lengths == [int(r["tokens_panel"]) for r in rows]
    for row in rows:
        a, b = row["ambiguous"].lower().split(), row["disambiguated"].lower().split()
        assert len(a) == len(b)
        # One word differs, or words that are the same stand in another order; the end is always shared.
        assert sum(x != y for x, y in zip(a, b, strict=True)) == 1 or sorted(a) == sorted(b), row["id"]
        assert a[-2:] == b[-2:], row["id"]


def test_pairs_and_prompts_share_no_text(all_prompts):
    words = [set(re.findall(r"[a-z0-9]+", row["text"].lower())) for row in all_prompts]
    for row in rows_of("ambiguity.csv"):
        pair = set(re.findall(r"[a-z0-9]+", row["ambiguous"].lower()))
        assert max(len(pair & w) / len(pair | w) for w in words) < 0.5, row["id"]


@pytest.mark.skipif("DYNSTAT_SMOLLM2" not in os.environ, reason="DYNSTAT_SMOLLM2 names no GGUF file")
def test_pairs_under_the_other_tokenizer():
    tokenizer = load_tokenizer(Path(os.environ["DYNSTAT_SMOLLM2"]))
    rows = rows_of("ambiguity.csv")
    for side in ("ambiguous", "disambiguated"):
        assert token_lengths(tokenizer, [r[side] for r in rows]) == [int(r["tokens_smollm2"]) for r in rows]


def test_manifest(panel_tokenizer):
    stored = json.loads((FOLDER / "MANIFEST.json").read_text(encoding="utf-8"))
    assert set(stored["files"]) == {p.name for p in FOLDER.glob("*.csv")} == set(FILES)
    for name, entry in stored["files"].items():
        assert entry["sha256"] == hashlib.sha256((FOLDER / name).read_bytes()).hexdigest(), name
        assert entry["licence"] == "CC0-1.0"
        assert b"\r" not in (FOLDER / name).read_bytes()
    fresh = manifest(FOLDER, {"panel": panel_tokenizer})
    for name, entry in fresh["files"].items():
        assert stored["files"][name]["tokens"]["panel"] == entry["tokens"]["panel"], name
        assert stored["files"][name]["rows"] == entry["rows"]


def test_length_table_against_numpy():
    rng = np.random.default_rng(3)
    lengths = rng.integers(20, 60, 30)
    rows = [{"category": "abc"[i % 3]} for i in range(30)]
    table = length_table(rows, lengths.tolist())
    for i, group in enumerate("abc"):
        assert table[group]["mean"] == pytest.approx(lengths[i::3].mean(), abs=6e-4)
        assert table[group]["sd"] == pytest.approx(lengths[i::3].std(ddof=1), abs=6e-4)
        assert sum(table[group]["lengths"].values()) == 10
    mean_gap, _ = largest_gaps(table)
    assert mean_gap == pytest.approx(np.ptp([lengths[i::3].mean() for i in range(3)]), abs=2e-3)


def test_cloze_items_come_from_held_out_text_by_the_stated_rule(panel_tokenizer):
    """On a made-up corpus, where the rule leaves one true word and three possible distractors."""
    scene = "The long road went over the hill and down to the river where the old men of the town sat and"
    train = " ".join(
        ["They drank the red wine."] * 6
        # Fits as well as the true word, for it has followed the same two words: never a distractor.
        + ["They crossed the red sand."]
        + [f"See a red {w}, a {w}." for w in ("sand", "rope", "fire", "water", "cloth") for _ in range(4)]
    )
    held = f"{scene} drank the red wine. Nothing more was said."
    (item,) = build_cloze({"s": train}, {"s": held}, panel_tokenizer, rng=1, per_source=1)
    assert item.context.startswith("The long road") and item.context.endswith("drank the red")
    assert item.distractors == ("cloth", "fire", "water")
    assert item.continuation == "wine" and f"{item.context} {item.continuation}" in held
    assert cloze_rows([item])[0]["id"] == "cloze-s-01"


@pytest.mark.skipif("DYNSTAT_CORPORA" not in os.environ, reason="DYNSTAT_CORPORA names no folder of corpora")
def test_cloze_file_is_what_the_script_makes(panel_tokenizer, tmp_path):
    from dynstat.extraction.training.corpora import held_out, train_text

    corpora = Path(os.environ["DYNSTAT_CORPORA"])
    items = build_cloze(train_text(corpora), held_out(corpora), panel_tokenizer)
    write_rows(tmp_path / "cloze.csv", cloze_rows(items))
    assert (tmp_path / "cloze.csv").read_bytes() == (FOLDER / "cloze.csv").read_bytes()


def test_cloze_says_when_a_source_is_too_short(panel_tokenizer):
    with pytest.raises(DynstatError) as error:
        build_cloze({"s": "A b c d e."}, {"s": "A b c d e."}, panel_tokenizer, per_source=1)
    assert error.value.code == "S403" and "s" in error.value.where


def test_files_that_are_missing_or_cannot_be_written(tmp_path):
    with pytest.raises(DynstatError) as error:
        load_tokenizer(tmp_path / "no.json")
    assert error.value.code == "F001"
    rows = [{"id": "a", "text": 'says "x", then\u00e9'}, {"id": "b", "text": "y"}]
    write_rows(tmp_path / "f.csv", rows)
    assert read_rows(tmp_path / "f.csv") == rows
