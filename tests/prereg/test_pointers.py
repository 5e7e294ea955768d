"""JSON pointers: the examples of RFC 6901, and reading what was written."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.prereg.pointers import MISSING, changed, differences, exists, get, make, split

# RFC 6901, section 5.
DOCUMENT = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}
EXAMPLES = {
    "": DOCUMENT,
    "/foo": ["bar", "baz"],
    "/foo/0": "bar",
    "/": 0,
    "/a~1b": 1,
    "/c%d": 2,
    "/e^f": 3,
    "/g|h": 4,
    "/i\\j": 5,
    '/k"l': 6,
    "/ ": 7,
    "/m~0n": 8,
}

keys = st.text(alphabet="ab/~01 -", max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def places(value, at=()):
    yield at, value
    if isinstance(value, dict):
        for k, v in value.items():
            yield from places(v, (*at, k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from places(v, (*at, i))


@pytest.mark.parametrize("pointer", EXAMPLES)
def test_the_examples_of_the_rfc(pointer):
    assert get(DOCUMENT, pointer) == EXAMPLES[pointer] and exists(DOCUMENT, pointer)


@pytest.mark.parametrize(
    "pointer", ["foo", "/foo/00", "/foo/-1", "/foo/2", "/foo/-", "/f~2", "/~", "/foo/0/x"]
)
def test_what_is_no_pointer_or_names_nothing_is_refused(pointer):
    with pytest.raises(DynstatError) as e:
        get(DOCUMENT, pointer)
    assert e.value.code in ("Y002", "Y003") and not exists(DOCUMENT, pointer)
    with pytest.raises(DynstatError):
        changed(DOCUMENT, pointer, 1)


def test_the_nearest_name_is_told():
    with pytest.raises(DynstatError) as e:
        get({"analyses": {"S1": {"outcome": None}}}, "/analyses/S1/outcom")
    assert "did you mean 'outcome'" in e.value.what and "/analyses/S1 exists" in e.value.mend


@given(values, values)
def test_every_place_can_be_read_and_changed_alone(document, new):
    before = copy.deepcopy(document)
    for at, value in places(document):
        pointer = make(at)
        assert split(pointer) == [str(p) for p in at]
        assert get(document, pointer) is value
        after = changed(document, pointer, new)
        assert json.dumps(get(after, pointer)) == json.dumps(new)
        assert document == before
        # Nothing else moved: putting the old value back gives the old document.
        assert json.dumps(changed(after, pointer, value)) == json.dumps(before)


@given(values, values)
def test_differences_lie_where_the_documents_differ_and_nowhere_else(a, b):
    found = differences(a, b)
    assert (not found) == (json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True))
    assert len({d.pointer for d in found}) == len(found)
    for d in found:
        assert d.old is MISSING and not exists(a, d.pointer) or get(a, d.pointer) is d.old
        assert d.new is MISSING and not exists(b, d.pointer) or get(b, d.pointer) is d.new
    assert {(d.pointer, id(d.old), id(d.new)) for d in found} == {
        (d.pointer, id(d.new), id(d.old)) for d in differences(b, a)
    }


def test_one_change_is_one_difference():
    plan = {"analyses": {"S1": {"outcome": {"scale": "log"}, "options": {"k": [1, 2]}}}}
    after = changed(plan, "/analyses/S1/outcome/scale", "raw")
    assert differences(plan, after) == [("/analyses/S1/outcome/scale", "log", "raw")]
    assert differences({"x": 1}, {"x": 1.0}) == [] and differences({"x": 1}, {"x": True})
    assert differences({"x": [1]}, {"x": [1, 2]}) == [("/x/1", MISSING, 2)]


def test_no_numpy():
    code = "import sys, dynstat.prereg.pointers; assert 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
