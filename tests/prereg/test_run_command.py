"""`dynstat run` and the report's check: what is not declared fails it, what is void decides nothing."""

from __future__ import annotations

import json

import pytest

from dynstat.cli import main
from dynstat.cli.output import json_mode
from dynstat.prereg.lock import lock_study
from dynstat.prereg.runner import run_study

from .test_deviations import HEAD, declare, entry
from .test_runner import values


def command(*words) -> int:
    try:
        main([str(w) for w in words])
    except SystemExit as e:
        return int(e.code or 0)
    return 0


@pytest.fixture(autouse=True)
def plain_output():
    yield
    json_mode(False)


@pytest.fixture
def locked(study, inputs):
    return lock_study(study, "demo", inputs)


def test_an_undeclared_deviation_fails_the_report_and_a_declared_one_does_not(
    study, inputs, saved, tmp_path, capsys
):
    text = (study / "plan.yaml").read_text().replace("{shift: 0.0}", "{break_it: true}")
    (study / "plan.yaml").write_text(text)
    lock_study(study, "broken", inputs)
    data, out = saved(2.0), tmp_path / "out"
    assert command("run", study, "--data", data, "-o", out) == 0
    assert "1 deviation not declared" in capsys.readouterr().err
    assert command("report", "check", out) == 1
    told = capsys.readouterr()
    assert "D1" in told.err + told.out and "/analyses/S1" in told.err + told.out
    declare(study, entry("/analyses/S1", reason="untested_assumption_violated"))
    assert command("run", study, "--data", data, "-o", out) == 0
    assert "not declared" not in capsys.readouterr().err
    assert command("report", "check", out) == 0


def test_deviate_and_jobs_are_options_of_the_command(study, locked, saved, tmp_path, capsys):
    file = tmp_path / "change.yaml"
    file.write_text(HEAD + entry("/analyses/S1/options/shift", value=-1.5))
    out = tmp_path / "out"
    words = ["run", study, "--data", saved(2.0), "-o", out, "--deviate", file]
    assert command("--json", *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decisions"]["H1"] == ["supported", "supported_by_rule"]
    assert values(out)["amended.H1.decision"] == "rejected"
    assert values(out)["reproduce.3"].endswith("-o OUT --deviate deviations.yaml")
    assert "shift" in (out / "report.qmd").read_text() and command("report", "check", out) == 0
    assert command(*words, "--jobs", "0") == 2
    # The file lies beside the results, so that these can be computed again; a run without it takes it away.
    assert (out / "deviations.yaml").read_bytes() == file.read_bytes()
    run_study(study, saved(2.0), out)
    assert not (out / "deviations.yaml").exists() and "amended.H1.decision" not in values(out)


def test_a_void_run_has_a_report_that_says_so(study, locked, saved, tmp_path, capsys):
    (study / "analysis.py").write_text((study / "analysis.py").read_text() + "\n# later\n")
    declare(study, entry("/code/analysis.py"))
    out = tmp_path / "out"
    assert command("run", study, "--data", saved(2.0), "-o", out) == 0
    assert "the lock cannot decide" in capsys.readouterr().err
    assert command("report", "check", out) == 0
    report = (out / "report.qmd").read_text()
    assert "analysis.py" in report.replace("\\", "")


def test_results_are_recomputed_by_the_lock_beside_them(study, locked, saved, tmp_path, monkeypatch):
    from dynstat.prereg import admission
    from dynstat.prereg.study import has_plan

    data, out = saved(2.0), tmp_path / "out"
    assert command("run", study, "--data", data, "-o", out) == 0
    assert not has_plan(out)  # a folder of results is no study, whatever lies in it
    monkeypatch.setattr(admission, "find_study", lambda name: {"drift": study}[name])
    assert command("report", "check", out, "--data", data) == 0


def test_a_downgraded_claim_passes_the_check_of_its_report(study, locked, saved, tmp_path):
    declare(study, entry("/hypotheses/H1", **{"class": "downgrade"}))
    run = run_study(study, saved(2.0), tmp_path / "out")
    assert run.outcomes["H1"] == ("inconclusive", "downgraded")
    from dynstat.reports import build, check

    build(tmp_path / "out")
    assert check(tmp_path / "out")
