"""The page on read-outs runs as it stands, and its figure shows what it says."""

import doctest
import html
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "readouts.md"
FIGURE = DOCS / "figures" / "readouts_by_layer.svg"


def test_examples_and_figure():
    text = PAGE.read_text("utf-8")
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    test = doctest.DocTestParser().get_doctest(source, {}, PAGE.name, str(PAGE), 0)
    assert test.examples and "figures/readouts_by_layer.svg" in text
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, clear_globs=False).failed == 0
    words = re.search(r'<desc id="dynstat-desc">(.*?)</desc>', FIGURE.read_text("utf-8"))[1]
    assert html.unescape(words) == test.globs["alt"]
