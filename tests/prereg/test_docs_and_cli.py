"""The command line of registration: light, exact in its exit codes, and documented in full."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dynstat.cli import main
from dynstat.inference.rules import RULES
from dynstat.prereg import plan as plan_module
from dynstat.prereg.lock import lock_study

PAGE = (Path(__file__).parents[2] / "docs" / "preregistration.md").read_text(encoding="utf-8")

PANEL = """\
dynstat: panel/1
id: toy
models: [{id: one, path: one, tokenizer: one}]
prompts: {file: drift/prompts.csv, split: panel}
samples: {seeds: [0, 1], temperatures: [1.0]}
budget: 2
mode: generated
"""


@pytest.fixture
def panel(study):
    """Write a panel whose model is three files of no meaning: a lock hashes them and reads nothing."""
    model = study.parent / "one"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}')
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "tokenizer.json").write_text("{}")
    file = study.parent / "toy.yaml"
    file.write_text(PANEL)
    return file


def call(capsys, *arguments) -> tuple[int, str]:
    with pytest.raises(SystemExit) as e:
        main([str(a) for a in arguments])
    return int(e.value.code or 0), capsys.readouterr().out


@pytest.fixture(autouse=True)
def plain_output():
    from dynstat.cli.output import json_mode

    yield
    json_mode(False)


def test_check_lock_and_verify_import_no_numpy(study, panel):
    script = f"""
import sys
from dynstat.cli import main
def call(*a):
    try:
        main(list(a))
    except SystemExit as e:
        assert not e.code, (a, e.code)
call("prereg", "check", {str(study)!r})
call("prereg", "lock", {str(study)!r}, "--panel", {str(panel)!r}, "--name", "toy")
call("prereg", "verify", {str(study)!r})
call("prereg", "show", {str(study / "toy.lock.json")!r})
heavy = {{"numpy", "torch", "xarray", "pandas", "scipy", "transformers"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lock = json.loads((study / "toy.lock.json").read_text())
    assert lock["inputs"]["models"][0]["id"] == "one" and lock["inputs"]["prompts"]["n"] == 6


def test_exit_codes(study, inputs, capsys):
    assert call(capsys, "prereg", "verify", study)[0] == 4
    assert call(capsys, "prereg", "check", study)[0] == 0
    path = lock_study(study, "demo", inputs)
    assert call(capsys, "prereg", "verify", study)[0] == 0
    path.write_text(path.read_text().replace("1.0", "2.0", 1))
    assert call(capsys, "prereg", "verify", path)[0] == 3
    (study / "plan.yaml").write_text((study / "plan.yaml").read_text().replace("title:", "titel:"))
    assert call(capsys, "prereg", "check", study)[0] == 2
    assert call(capsys, "prereg", "check", study.parent / "nothing")[0] == 5


def test_check_speaks_json(study, capsys):
    code, out = call(capsys, "prereg", "check", study, "--json")
    assert code == 0 and json.loads(out)["m"] == 3
    (study / "plan.yaml").write_text((study / "plan.yaml").read_text().replace("title:", "titel:"))
    code, out = call(capsys, "prereg", "check", study, "--json")
    error = json.loads(out)["error"]
    assert error["code"] == "P301" and any("did you mean 'title'" in p for p in error["problems"])


def test_run_decides_reports_and_exits_zero_on_a_rejected_claim(study, inputs, saved, tmp_path, capsys):
    pytest.importorskip("dynstat.reports.document")
    lock_study(study, "demo", inputs)
    data = saved(0.2)
    out = tmp_path / "out"
    code, text = call(capsys, "run", study, "--data", f"panel={data}", "-o", out, "--json")
    found = json.loads(text)
    assert code == 0 and found["decisions"]["H1"] == ["rejected", "below_threshold"] and not found["kept"]
    report = (out / "report.qmd").read_text()
    assert "tbl-rejected" in report and "Mean entropy exceeds one nat" in report
    assert [json.loads(x)["event"] for x in (out / "ledger.jsonl").read_text().splitlines()][-1] == "report"
    code, text = call(capsys, "run", study, "--data", data, "-o", out, "--json")
    assert code == 0 and json.loads(text)["kept"]
    assert call(capsys, "run", study, "--data", f"dose={data}", "-o", out)[0] == 2
    assert call(capsys, "run", study, "--data", tmp_path / "none.nc", "-o", out)[0] == 5


def test_new_makes_a_study_that_can_be_shown(tmp_path, capsys):
    assert call(capsys, "prereg", "new", tmp_path / "mine")[0] == 0
    code, out = call(capsys, "prereg", "show", tmp_path / "mine")
    assert code == 0 and "H1 (primary)" in out


# documentation


@pytest.mark.parametrize("word", list(RULES))
def test_every_rule_is_named_on_the_page(word):
    """What the rules and reason codes say stands in docs/decisions.md, which has tests of its own."""
    assert f"`{word}`" in PAGE and "(decisions.md)" in PAGE


def test_the_page_documents_no_key_that_is_not_there():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, flags=re.M)
    words = {w for row in rows for w in re.findall(r"`(\w+)`", row)}
    assert words <= {
        "dynstat",
        "id",
        "title",
        "authors",
        "families",
        "gates",
        "analyses",
        "hypotheses",
        "exploratory",
        "robustness",
        "notes",
    }


def test_every_command_and_plan_key_is_documented(study):
    from dynstat.cli.prereg import app

    for command in app.registered_commands:
        assert f"`dynstat prereg {command.name} " in PAGE
    assert "`dynstat run STUDY" in PAGE
    content = plan_module.load_plan(study).content
    for key in [*content, *content["registration"], *content["data"]]:
        assert re.search(rf"`(\w+\.)?{key}`|`{key}\.", PAGE), key
    for code in ("P301", "P308", "P309"):
        assert code in PAGE
