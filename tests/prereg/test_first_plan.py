"""The walk of docs/first_plan.md: its files are written, its commands are run, what it prints is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dynstat.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "first_plan.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S)


def run(capfd, command: str) -> str:
    words = shlex.split(command)
    assert words[0] == "dynstat"
    words = words[1 : words.index(">")] if ">" in words else words[1:]
    with pytest.raises(SystemExit) as e:
        main(words)
    out, err = capfd.readouterr()
    assert not e.value.code, (command, out, err)
    return out + err


def test_the_walk(tmp_path, monkeypatch, capfd):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    ran = []
    for kind, text in BLOCKS:
        if kind == "yaml":
            name, _, rest = text.partition("\n")
            target = Path(name.removeprefix("# "))
            if ", in H1" in name:
                plan = Path("first-study/plan.yaml")
                old = "    threshold: 0.25\n"
                assert plan.read_text().count(old) == 1
                plan.write_text(plan.read_text().replace(old, old + rest))
            else:
                target.write_text(text, encoding="utf-8")
        for part in re.split(r"^\$ ", text, flags=re.M)[1:] if kind == "console" else ():
            command, _, shown = part.partition("\n")
            out = run(capfd, command)
            for line in shown.splitlines():
                pattern = ".*".join(map(re.escape, line.split("…")))
                assert re.search(f"^{pattern}$" if "…" not in line else f"^{pattern}", out, re.M), (line, out)
            ran.append(command.split()[1:3])
    assert len(ran) == 11 and ["prereg", "schema"] in ran
    assert Path("out/report.qmd").exists() and Path("first-study/main.lock.json").exists()
    plan = Path("first-study/plan.yaml").read_text()
    assert "# The prompts that decide, and others to try things on." in plan and "expected_se:" in plan
