"""The examples of docs/cluster.md run as they stand."""

import doctest
import re
import warnings
from pathlib import Path

from dynstat.errors import DynstatWarning

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def test_page_examples():
    text = PAGE.read_text(encoding="utf-8")
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(source, {}, PAGE.name, str(PAGE), 0)
    assert test.examples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0
