"""Prompt files: what they give, and what is wrong with them."""

import subprocess
import sys

import pytest

from dynstat.dataset.prompts import prompts_sha256, read_prompts
from dynstat.errors import DynstatError

GOOD = (
    "id,split,category,template,text,answers,distractors\n"
    'a,panel,x,t1,"Hello, ""you""\nthere",Paris|City of Light , u | v\n'
    "b,pilot,y,,plain,,\n"
)


def write(tmp_path, text):
    path = tmp_path / "prompts.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def fails(code, tmp_path, text, **more):
    with pytest.raises(DynstatError) as e:
        read_prompts(write(tmp_path, text), **more)
    assert e.value.code == code, e.value
    return str(e.value)


def test_reading(tmp_path):
    path = write(tmp_path, GOOD)
    a, b = read_prompts(path)
    assert a == {
        "id": "a",
        "split": "panel",
        "category": "x",
        "template": "t1",
        "text": 'Hello, "you"\nthere',
        "answers": ["Paris", "City of Light"],
        "distractors": ["u", "v"],
    }
    assert b["answers"] == [] and b["template"] == ""
    assert [p["id"] for p in read_prompts(path, split="pilot")] == ["b"]
    import hashlib

    assert prompts_sha256(path) == hashlib.sha256(GOOD.encode()).hexdigest()


def test_defaults_and_further_columns(tmp_path):
    (p,) = read_prompts(write(tmp_path, "\ufeffid,text,category,pair\r\na,hi,x,7\r\n"))
    assert p == {
        "id": "a",
        "text": "hi",
        "category": "x",
        "pair": "7",
        "split": "panel",
        "template": "",
        "answers": [],
        "distractors": [],
    }


def test_faults(tmp_path):
    head = "id,text,category\n"
    assert "category" in fails("Y002", tmp_path, "id,text\na,b\n")
    assert "answers" in fails("Y002", tmp_path, "id,text,category,anwsers\na,b,c,d\n")
    fails("Y002", tmp_path, "id,text,category,text\na,b,c,d\n")
    fails("Y002", tmp_path, "")
    assert "line 2" in fails("Y003", tmp_path, head + "a,b,c\na,d,e\n")
    assert "'a'" in fails("X205", tmp_path, head + "a,  ,c\n")
    fails("Y003", tmp_path, head + ",b,c\n")
    fails("Y003", tmp_path, head + "a,b,\n")
    fails("F003", tmp_path, head + "a,b\n")
    fails("F003", tmp_path, head + "a,b,c,d\n")
    fails("F003", tmp_path, head + 'a,"b"x,c\n')
    fails("D106", tmp_path, head + "a,b\x07,c\n")
    fails("X205", tmp_path, head)
    assert "panel | pilot" in fails("Y003", tmp_path, GOOD, split="confirmation")
    with pytest.raises(DynstatError, match="F001"):
        read_prompts(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(head.encode() + b"a,\xe9,c\n")
    with pytest.raises(DynstatError, match="F003"):
        read_prompts(tmp_path / "latin.csv")


def test_all_faulty_rows_in_one_pass(tmp_path):
    text = fails("X205", tmp_path, "id,text,category\na,,c\na,b,c\nd,e,\n")
    assert "3 faulty rows" in text and "prompts.csv:2" in text and "prompts.csv:4" in text


def test_no_numpy_is_imported():
    code = "import sys, dynstat.dataset.prompts; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
