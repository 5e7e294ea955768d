"""The examples of docs/mixed.md and of the docstrings run as they stand."""

import doctest
import re
import warnings
from pathlib import Path

import pytest

from dynstat.errors import DynstatWarning
from dynstat.mixed import formula, refitting

PAGE = Path(__file__).parents[2] / "docs" / "mixed.md"


def test_page_examples():
    text = PAGE.read_text(encoding="utf-8")
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(source, {}, "mixed.md", str(PAGE), 0)
    assert len(test.examples) >= 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


@pytest.mark.parametrize("module", [formula, refitting])
def test_docstring_examples(module):
    assert doctest.testmod(module).failed == 0
