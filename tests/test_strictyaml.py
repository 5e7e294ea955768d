"""The strict loader: YAML 1.2 values, and an error where plain YAML guesses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.strictyaml import check_keys, load_yaml, parse_yaml


@pytest.mark.parametrize(
    "text,value",
    [
        ("1e-3", 1e-3),
        ("5e2", 500.0),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"no"', "no"),
        ("-.5", -0.5),
        ("1_000", "1_000"),
        ("2026-11-20", "2026-11-20"),
        ("+12", 12),
        ("<<", "<<"),
        ("=", "="),
        (".inf", float("inf")),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = parse_yaml(f"a: {text}")["a"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text,line",
    [
        ("a: 1\nb: 2\na: 3", ":3:1"),
        ("a: &x 1\nb: 2", ":1:4"),
        ("a: 1\nb: *x", ":2:4"),
        ("a: !!int 1", ":1:4"),
        ("a: [1, 2", ":1:"),
        ("1: a", ":1:1"),
        ("a: b: c", ":1:"),
        ("a:\n  x: 1\n  x: 2", ":3:3"),
    ],
)
def test_structure_errors_name_file_line_and_column(text, line, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(DynstatError) as e:
        load_yaml(path)
    assert e.value.code == "Y001" and f"p.yaml{line}" in e.value.where


def test_text_must_be_nfc_and_one_document():
    for text in ("a: e\u0301", "a: 1\n---\nb: 2"):
        with pytest.raises(DynstatError) as e:
            parse_yaml(text)
        assert e.value.code == "Y001"


def test_control_characters_are_an_error():
    with pytest.raises(DynstatError):
        parse_yaml("a: \x07")


def test_unknown_and_missing_keys_are_all_named_with_the_nearest():
    with pytest.raises(DynstatError) as e:
        check_keys({"modles": 1, "zzz": 2}, {"models", "budget"}, "p.yaml", required={"budget"})
    text = str(e.value)
    assert e.value.code == "Y002"
    assert "did you mean 'models'" in text and "'zzz'" in text and "missing key 'budget'" in text


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda k: k not in {"null", "true", "false"}),
        st.integers() | st.text(st.characters(categories=["L", "N"]), max_size=8) | st.booleans(),
        max_size=6,
    )
)
def test_json_is_read_as_json(value):
    import unicodedata

    text = unicodedata.normalize("NFC", json.dumps(value, ensure_ascii=False))
    assert parse_yaml(text) == json.loads(text)
