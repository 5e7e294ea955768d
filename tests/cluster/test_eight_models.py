"""The worked example runs as it stands, and its figure shows what it says."""

import doctest
import html
import re
import warnings
from pathlib import Path

from dynstat.cluster import largest_gap_test
from dynstat.errors import DynstatWarning

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "eight_models.md"
FIGURE = DOCS / "figures" / "eight_models_gap.svg"


def _page():
    text = PAGE.read_text(encoding="utf-8")
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return text, doctest.DocTestParser().get_doctest(source, {}, PAGE.name, str(PAGE), 0)


def test_page_examples_and_figure():
    text, test = _page()
    assert test.examples and "figures/eight_models_gap.svg" in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        assert runner.run(test, clear_globs=False).failed == 0
    # Made by save_svg(gap.plot(), path, gap.alt_text()): the words inside are those of today's result.
    words = re.search(r'<desc id="dynstat-desc">(.*?)</desc>', FIGURE.read_text(encoding="utf-8"))[1]
    assert html.unescape(words) == " ".join(test.globs["gap"].alt_text().split())


def test_conclusions_that_the_page_draws_in_words():
    gd = [2.458, 1.764, 1.577, 0.079, 0.074, 0.059, 0.039, 0.021]
    gap = largest_gap_test(gd, log=True)
    passed = {p: gap.p_value(p) <= 0.05 for p in gap.populations["population"]}
    assert passed == {"normal": True, "uniform": True, "t3": False, "exponential": False}
    assert gap.left_out["kept"].all()
