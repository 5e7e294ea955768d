"""The page on multiverses: its plan is valid for the study it speaks of, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dynstat.prereg.multiverse_spec import TYPES, universes_of
from dynstat.prereg.plan import parse_plan
from dynstat.prereg.study import register_methods

from .test_multiverse import panel, plan  # noqa: F401 (fixtures)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "multiverse.md").read_text("utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)
    assert found
    return found[1]


def test_the_declaration_holds_for_the_study() -> None:
    folder = ROOT / "analyses" / "conditional_signatures"
    register_methods(folder)
    text = re.sub(
        r"^robustness:.*?(?=^\S|\Z)", "", (folder / "plan.yaml").read_text("utf-8"), flags=re.M | re.S
    )
    content = parse_plan(text + "\n" + block("yaml")).content
    declared = universes_of(content, "A1")
    counts = [sum(u.multiverse == k for u in declared.universes) for k in range(5)]
    assert counts == [2, 24, 24, 24, 24] and "2 · 4 · 3 = 24" in PAGE and "All 98" in PAGE
    # What is not declared leaves no trace in a plan, so that older locks keep their hashes.
    assert "robustness" not in parse_plan(text).content
    named = yaml.safe_load(block("yaml"))["robustness"]["A1"]["dimensions"]
    assert {d["type"] for d in named.values()} == set(TYPES)
    assert declared.universes[0].choices == {n: d["options"][0] for n, d in named.items()}


@pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")
def test_the_code_runs(plan, panel, capsys) -> None:  # noqa: F811
    names = {"plan": plan, "ds": panel}
    exec(block("python"), names)
    assert "Share of the estimate's sum of squares by choice" in capsys.readouterr().out
    assert names["figure"].axes
