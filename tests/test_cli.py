"""The command line's own manners: exit codes, JSON, one error path."""

import json

import pytest

from dynstat.cli import main


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(e.value.code or 0), captured.out, captured.err


def test_explain_prints_the_table(capsys):
    code, out, _ = run(capsys, "explain", "d102")
    assert code == 0 and "D102" in out and "exit 5" in out


def test_json_may_stand_anywhere(capsys):
    code, out, _ = run(capsys, "explain", "D102", "--json")
    assert code == 0 and json.loads(out)["D102"]["exit"] == 5


def test_an_error_is_json_too_and_exits_with_its_code(capsys, tmp_path):
    code, out, _ = run(capsys, "data", "describe", str(tmp_path / "none.nc"), "--json")
    error = json.loads(out)["error"]
    assert code == 5 == error["exit"] and error["code"] == "F001"


def test_an_error_goes_to_stderr_in_words(capsys, tmp_path):
    code, out, err = run(capsys, "data", "describe", str(tmp_path / "none.nc"))
    assert code == 5 and out == "" and "F001" in err and "dynstat explain F001" in err


def test_a_wrong_option_is_a_usage_error(capsys):
    assert run(capsys, "explain", "--nonsense")[0] == 2
