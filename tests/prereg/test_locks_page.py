"""docs/locks.md: its commands run, its tables name what there is, and no number of its is of another page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dynstat.cli import main
from dynstat.errors import CODES, ExitCode
from dynstat.files import sha256_file
from dynstat.prereg.evidence import EVIDENCE
from dynstat.prereg.ledger import EVENTS
from dynstat.prereg.lock import load_lock

from .conftest import PLAN
from .test_docs_and_cli import call, panel, plain_output  # noqa: F401  (fixtures)
from .test_proofs import ots, tsr

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "locks.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    dynstat (.+)$", PAGE, flags=re.M)
CHANGED = PLAN.replace("threshold: 1.0", "threshold: 1.5")


def arguments(line):
    return [a.strip('"') for a in re.findall(r'"[^"]*"|\S+', line)]


def test_the_commands_of_the_page_run_in_their_order(study, panel, capsys, monkeypatch):  # noqa: F811
    def git(*given):
        who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *given], cwd=study.parent, check=True, capture_output=True)

    monkeypatch.chdir(study.parent)
    git("init", "-q", "-b", "main")
    git("remote", "add", "origin", "https://example.org/study.git")
    lock, done = study / "demo.lock.json", []
    for line in COMMANDS:
        if "prereg amend" in line:
            (study / "plan.yaml").write_text(
                PLAN.replace("threshold: 1.0", "threshold: 1.5"), encoding="utf-8"
            )
        if "--pushed" in line:
            git("add", "-A")
            git("commit", "-q", "-m", "lock")
            git("update-ref", "refs/remotes/origin/main", "main")
        if "--file" in line:
            (study.parent / "demo.tsr").write_bytes(tsr(bytes.fromhex(sha256_file(lock))))
        if "--against" in line:
            out = study.parent / "OUT"
            out.mkdir()
            (out / "ledger.jsonl").write_bytes((study / "ledger.jsonl").read_bytes())
        code, words = call(capsys, *arguments(line))
        assert code == 0, f"{line}: {words}"
        done.append((line, words))
    kinds = [line.split()[1] for line, _ in done]
    assert kinds == ["lock", "verify", "amend", "verify", "proof", "proof", "proof"]
    assert "threshold" in done[2][1] and "H1: changed" in done[2][1] and "H2: unchanged" in done[2][1]
    assert "copied entries agree" in done[3][1]
    assert "L2 (third-party copy)" in done[4][1] and "L3 (third-party time)" in done[6][1]
    code, words = call(capsys, "prereg", "verify", study)
    assert code == 0 and "evidence L3 (third-party time)" in words and "amends" in words
    shown = call(capsys, "prereg", "show", study / "second.lock.json")[1]
    assert "H1: changed, registered" in shown and "H2: unchanged, registered" in shown
    assert "evidence L3 (third-party time)" in call(capsys, "prereg", "show", lock)[1]
    assert "mistyped" in words and "differs: /plan/hypotheses/H1/parts/0/threshold" in words
    assert all((study / name).exists() for name in re.findall(r"^\| `([\w.]+)` \|", PAGE, flags=re.M)[:3])


def test_none_of_it_loads_numpy(study, panel):  # noqa: F811
    stamp = study.parent / "demo.ots"
    script = f"""
import sys, hashlib, pathlib
from dynstat.cli import main
def call(*a):
    try:
        main(list(a))
    except SystemExit as e:
        assert not e.code, (a, e.code)
call("prereg", "lock", {str(study)!r}, "--panel", {str(panel)!r}, "--name", "demo")
plan = pathlib.Path({str(study / "plan.yaml")!r})
plan.write_text(plan.read_text().replace("threshold: 1.0", "threshold: 1.5"))
call("prereg", "amend", {str(study)!r}, "demo", "--name", "second", "--reason", "mistyped")
call("prereg", "proof", {str(study / "demo.lock.json")!r}, "--registry", "osf", "--identifier", "x")
call("prereg", "verify", {str(study)!r})
call("prereg", "show", {str(study / "second.lock.json")!r})
heavy = {{"numpy", "torch", "xarray", "pandas", "scipy", "transformers"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not stamp.exists()


def test_the_commands_speak_json(study, panel, capsys, tmp_path):  # noqa: F811
    call(capsys, "prereg", "lock", study, "--panel", panel, "--name", "demo")
    (study / "plan.yaml").write_text(CHANGED, encoding="utf-8")
    code, words = call(
        capsys, "prereg", "amend", study, "demo", "--name", "b", "--reason", "mistyped", "--json"
    )
    found = json.loads(words)
    assert code == 0 and found["hypotheses"]["H1"] == {"how": "changed"}
    assert found["parent"] == load_lock(study / "demo.lock.json").sha256
    digest = bytes.fromhex(sha256_file(study / "b.lock.json"))
    (tmp_path / "b.ots").write_bytes(ots(digest))
    code, words = call(
        capsys, "prereg", "proof", study / "b.lock.json", "--file", tmp_path / "b.ots", "--json"
    )
    assert code == 0 and json.loads(words)["level"] == "L3"
    code, words = call(capsys, "prereg", "verify", study, "--json")
    assert code == 0 and [r["evidence"] for r in json.loads(words)["locks"]] == ["L3", "L0"]


def test_exit_codes_of_the_page(study, panel, capsys, tmp_path):  # noqa: F811
    lock = study / "demo.lock.json"
    call(capsys, "prereg", "lock", study, "--panel", panel, "--name", "demo")
    same = ("prereg", "amend", study, "demo", "--name", "second", "--reason", "r")
    assert call(capsys, *same)[0] == ExitCode.USAGE
    (study / "plan.yaml").write_text(CHANGED, encoding="utf-8")
    assert call(capsys, *same[:3], "none", *same[4:])[0] == ExitCode.NOT_LOCKED
    assert call(capsys, *same[:5], "demo", *same[6:])[0] == ExitCode.INTEGRITY
    (tmp_path / "a.ots").write_bytes(ots(b"x" * 32))
    assert call(capsys, "prereg", "proof", lock, "--file", tmp_path / "a.ots")[0] == ExitCode.INTEGRITY
    (tmp_path / "a.ots").write_bytes(b"x")
    assert call(capsys, "prereg", "proof", lock, "--file", tmp_path / "a.ots")[0] == ExitCode.UNREADABLE
    assert call(capsys, "prereg", "proof", lock)[0] == ExitCode.USAGE
    assert call(capsys, *same)[0] == ExitCode.OK
    (study / "ledger.jsonl").write_text((study / "ledger.jsonl").read_text().split("\n")[0] + "\n")
    assert call(capsys, "prereg", "verify", study)[0] == ExitCode.INTEGRITY


def test_the_tables_of_the_page_are_whole():
    for level, words in EVIDENCE.items():
        assert f"| `{level}` | {words} |" in PAGE
    events = [
        e for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, flags=re.M) for e in row.split(", ")
    ]
    assert {e.strip("`") for e in events if e.strip("`") in EVENTS} == set(EVENTS)
    for code in re.findall(r"\b[A-Z]\d{3}\b", PAGE):
        assert code in CODES
    # Each fault of the page stands with the exit code that it has.
    for code, number in re.findall(r"\((?:`run` refuses [a-z ]+ \()?(P\d{3}), exit (\d)\)", PAGE):
        assert int(CODES[code].exit) == int(number)
    for code, number in re.findall(r"\| (P\d{3}), exit (\d)", PAGE):
        assert int(CODES[code].exit) == int(number)


# docs/errors.md


def test_the_page_of_errors_has_each_code_and_exit_code_and_no_other():
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\d{3}) \| (.+?) \| (\d+) \| (.+) \|$", text, flags=re.M)
    assert [(c, t, int(x), w) for c, t, x, w in rows] == [
        (code, e.title, int(e.exit), e.explanation) for code, e in CODES.items()
    ]
    exits = re.findall(r"^\| (\d+) \| `(\w+)` \| .+ \|$", text, flags=re.M)
    assert [(int(n), name) for n, name in exits] == [(int(x), x.name) for x in ExitCode]
    assert len(re.findall(r"^\|", text, flags=re.M)) == len(rows) + len(exits) + 4


def test_the_exit_codes_can_be_imported_and_are_those_of_the_command_line(capsys):
    from dynstat.errors import ExitCode as imported

    with pytest.raises(SystemExit) as e:
        main(["explain", "P310"])
    assert e.value.code == imported.OK and "exit" in capsys.readouterr().out
    assert len({int(x) for x in imported}) == len(list(imported))
