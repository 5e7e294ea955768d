"""docs/decisions.md: examples run, pictures say what the rules say, and everything there is has its row."""

from __future__ import annotations

import doctest
import math
import re
from pathlib import Path

import pytest

from dynstat.inference.decision import DECISIONS, STATES
from dynstat.inference.estimate import Estimate, TPivot
from dynstat.inference.multiplicity import CORRECTIONS
from dynstat.inference.rules import REASONS, RULES, Rule, judge

PAGE = Path(__file__).parents[2] / "docs" / "decisions.md"
TEXT = PAGE.read_text(encoding="utf-8")
PICTURES = dict(re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))


def test_page_examples():
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(source, {}, PAGE.name, str(PAGE), 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("kind", list(RULES))
def test_pictures_show_what_the_rules_say(kind):
    """An interval drawn from '[' to ']' has these columns as its one-sided limits at level .95."""
    names, line, *rows = PICTURES[kind].splitlines()
    marks = dict(zip(names.split(), (i for i, c in enumerate(line) if c == "+"), strict=True))
    zero = marks.get("0", 0)
    rule = Rule(
        kind,
        sesoi=float(marks["d"] - zero) if "d" in marks else 1.0,
        threshold=float(marks.get("c", 0) - zero),
        range=(float(marks["a"] - zero), float(marks["b"] - zero)) if "a" in marks else None,
    )
    if "-d" in marks:
        assert zero - marks["-d"] == marks["d"] - zero
    seen = set()
    for row in rows:
        low, high = row.index("[") - zero, row.index("]") - zero
        pivot = TPivot((low + high) / 2, (high - low) / 2 / 1.6448536269514722, math.inf)
        e = Estimate.from_pivot("x", 0.0, pivot, method="m@1", interval="", unit="", n={})
        found = judge([(rule, e)], 0.05)
        said = row[row.index("]") + 1 :].split()
        seen.add(said[0])
        assert said == [found.outcome] + ([] if found.outcome == "supported" else [found.reason_code]), row
    assert seen == {"supported", "rejected", "inconclusive"}


def test_the_page_names_every_rule_reason_state_and_correction_and_no_other():
    rows = {
        w
        for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", TEXT, flags=re.M)
        for w in re.findall(r"`(\w+)`", row)
    }
    assert rows == {*REASONS, *DECISIONS, *STATES, *CORRECTIONS}
    for kind in RULES:
        assert f"**`{kind}`**" in TEXT
    # The outcome of each code stands beside it, as the code itself says it.
    for code, words in REASONS.items():
        outcome = re.search(rf"^\| `{code}` \| ([^|]+) \|", TEXT, flags=re.M)[1].strip()
        assert words.startswith(outcome + ":"), code
