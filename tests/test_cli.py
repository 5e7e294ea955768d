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


@pytest.fixture
def broken(monkeypatch):
    """Let `prereg check` stop with an exception of one's choice."""
    import dynstat.prereg.check

    def make(error):
        def stop(*_):
            raise error

        monkeypatch.setattr(dynstat.prereg.check, "check_study", stop)

    return make


def test_a_fault_of_dynstat_is_no_failed_check(capsys, broken):
    broken(RuntimeError("boom"))
    code, out, err = run(capsys, "prereg", "check", "x", "--json")
    assert code == 70 == json.loads(out)["error"]["exit"] and "RuntimeError: boom" in err
    code, out, _ = run(capsys, "prereg", "check", "x")
    assert code == 70 and out == ""


def test_ctrl_c_says_that_the_work_can_go_on(capsys, broken):
    broken(KeyboardInterrupt())
    code, _, err = run(capsys, "prereg", "check", "x")
    assert code == 130 and "run the same command to go on" in err
    code, out, _ = run(capsys, "prereg", "check", "x", "--json")
    assert (
        code == 130 == json.loads(out)["error"]["exit"] and json.loads(out)["error"]["code"] == "interrupted"
    )


def test_a_closed_pipe_is_no_failed_check(capsys, broken):
    broken(BrokenPipeError(32, "Broken pipe"))
    assert run(capsys, "prereg", "check", "x")[0] == 0


def test_a_usage_error_is_json_too(capsys):
    code, out, _ = run(capsys, "prereg", "lock", "x", "--json")
    assert code == 2 and "--panel" in json.loads(out)["error"]["what"]
