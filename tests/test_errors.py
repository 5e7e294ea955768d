"""One exception class, one table; every code is complete and documented."""

import pickle
import re
from pathlib import Path

import pytest

from dynstat.errors import CODES, DynstatError, ExitCode

ROOT = Path(__file__).parents[1]


def test_an_error_says_what_where_found_expected_and_mend():
    e = DynstatError(
        "D103",
        "no entropy",
        where="panel.nc",
        found="a, b",
        expected="entropy",
        mend="extract it",
        problems=["one", "two"],
    )
    assert str(e).splitlines() == [
        "D103 no entropy",
        "  where:     panel.nc",
        "  found:     a, b",
        "  expected:  entropy",
        "  mend:      extract it",
        "  - one",
        "  - two",
    ]
    assert e.as_dict()["exit"] == int(ExitCode.CHECKS_FAILED)


def test_a_code_outside_the_table_is_a_programming_error():
    with pytest.raises(KeyError):
        DynstatError("Z999", "x")


def test_an_error_comes_whole_from_another_process():
    error = DynstatError("S404", "x", where="y", found=3, expected="z", problems=["a", "b"], mend="m")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.as_dict() == error.as_dict()
    error.where = "elsewhere"
    assert pickle.loads(pickle.dumps(error)).where == "elsewhere"


def test_every_code_used_in_the_packages_stands_in_the_table_and_every_row_is_used():
    used = set()
    for folder in ("dynstat", "extraction", "analyses", "reports"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "errors.py":
                used |= set(re.findall(r'"([A-Z]\d{3})"', path.read_text()))
    assert used <= set(CODES), used - set(CODES)
    assert set(CODES) <= used, f"rows that nothing raises: {set(CODES) - used}"


def test_the_table_and_the_exit_codes_are_documented():
    text = (ROOT / "docs" / "errors.md").read_text()
    for code, entry in CODES.items():
        assert f"| {code} | {entry.title} | {int(entry.exit)} |" in text
    for exit_code in ExitCode:
        assert f"| {int(exit_code)} | `{exit_code.name}` |" in text
