"""docs/results.md: every key that is written stands there, and what stands there is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dynstat.prereg.lock import lock_study
from dynstat.prereg.runner import run_study

from .test_deviations import HEAD, entry

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
# Rows that the study of this test has no cause to write.
ELSEWHERE = {
    *("study.void", "H.registration.*", "H.alpha_reject", "H.null.*"),
    *("warning.N", "overview.*"),
}


ROBUSTNESS = """\
robustness:
  H1:
    dimensions:
      shift: {pointer: options.shift, type: equivalent, options: [0.0, -1.5], reason: "two zeros"}
"""


def patterns() -> list[str]:
    text = PAGE.read_text(encoding="utf-8").partition("\n## Keys")[2]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def expression(pattern: str) -> re.Pattern[str]:
    words = {"H": "H[0-9]", "S": "[SX][0-9]", "N": "[0-9]+", "ID": ".+", "KEY": ".+", "*": ".+"}
    parts = [words.get(p) or re.sub(r"^([A-Z])N$", r"\1[0-9]+", p) for p in pattern.split(".")]
    return re.compile(r"\.".join(parts))


@pytest.fixture
def written(study, inputs, saved, tmp_path):
    """Rows of a run in which all happens: contingency, failure, deviation, a lost analysis."""
    text = (study / "plan.yaml").read_text()
    step = "on_failure: [{when: failed, do: use_options, options: {break_it: false}, reason: r}]"
    text = text.replace("options: {shift: 0.0}", f"options: {{break_it: true}}\n    {step}")
    broken = "outcome: {metric: entropy@1}, options: {break_it: true}, seed: 1"
    text += f"  X2: {{method: drift_test.mean@1, {broken}}}\n"
    (study / "plan.yaml").write_text(text + ROBUSTNESS + "notes: none\n")
    lock_study(study, "demo", inputs)
    (study / "deviations.yaml").write_text(HEAD + entry("/analyses/S1/options/shift", value=0.5))
    data, out = saved(2.0), tmp_path / "out"

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, data, out, stop)
    run_study(study, data, out)
    return json.loads((out / "results.json").read_text())


def test_every_key_is_documented_and_every_documented_key_is_written(written):
    keys = [row["key"] for row in written]
    known = {p: expression(p) for p in patterns()}
    assert not [k for k in keys if not any(e.fullmatch(k) for e in known.values())]
    assert {p for p, e in known.items() if not any(e.fullmatch(k) for k in keys)} == ELSEWHERE
    assert len(known) == len(patterns())


def test_the_words_of_the_fields_are_those_of_the_page(written):
    text = PAGE.read_text(encoding="utf-8")
    for field in ("reason", "purpose"):
        assert not [w for w in {row[field] for row in written} if f"`{w}`" not in text]
    groups = {
        k.split(".")[-1] for k in (r["key"] for r in written) if k.startswith(("deviation.D", "amended.H"))
    }
    assert not [g for g in groups if not re.search(rf"\b{g}\b", text)]
