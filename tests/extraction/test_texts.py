"""The texts that come with dynstat: what the manifest says they are, and free of every prompt."""

import csv
import json

import pytest

torch = pytest.importorskip("torch")

from dynstat import DynstatError, data_path  # noqa: E402
from dynstat.extraction.training.held_out_text import cut, spans  # noqa: E402
from dynstat.extraction.training.panel_text import Texts  # noqa: E402
from dynstat.files import sha256_file  # noqa: E402

FILES = json.loads(data_path("texts/MANIFEST.json").read_text("utf-8"))["files"]


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", FILES)
def test_a_text_is_the_one_in_the_manifest(name):
    path, entry = data_path(f"texts/{name}"), FILES[name]
    assert sha256_file(path) == entry["sha256"] and path.stat().st_size == entry["bytes"]
    ids = Texts.encode(path.read_text("utf-8"), data_path("models/tokenizer"))
    assert len(ids) == entry["tokens"]["panel"]


@pytest.mark.parametrize("name", FILES)
def test_a_text_holds_no_prompt(name):
    text = words(data_path(f"texts/{name}").read_text("utf-8"))
    checked = 0
    for path in sorted(data_path("prompts").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as f:
            for row in csv.DictReader(f):
                for column in {"text", "context", "ambiguous", "disambiguated"} & set(row):
                    assert words(row[column]) not in text, row["id"]
                    checked += 1
    assert checked > 400


def test_the_two_texts_share_no_passage():
    one, other = (words(data_path(f"texts/{name}").read_text("utf-8")) for name in FILES)
    assert not any(one[i : i + 60] in other for i in range(0, len(one) - 60, 7))


def test_spans_see_through_white_space_and_cuts_keep_clear_of_them():
    lines = [f"Line {i} of the text, with nothing in it but words.\n" for i in range(900)]
    lines[3] = "Here stands\n   a prompt\n"
    text = "".join(lines)
    taken = spans(text, ["stands a prompt", "not there", "Line 500 of"])
    assert [text[a:b] for a, b in taken] == ["stands\n   a prompt", "Line 500 of"]
    measure, train = cut(text, taken)
    assert measure.startswith("Line 4 of") and len(measure) >= 4600 and measure in text
    assert len(train) >= 30_000 - 60 and "Line 500 of" not in train and "prompt" not in measure + train
    assert not set(measure.splitlines()) & set(train.splitlines())
    with pytest.raises(DynstatError) as e:
        cut(text[:9000], [])
    assert e.value.code == "S404"
