"""The examples of docs/markov.md run as they stand."""

import doctest
import inspect
import re
import warnings
from pathlib import Path

from dynstat import markov
from dynstat.errors import DynstatWarning
from dynstat.registry import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "markov.md"


def test_page_examples():
    text = PAGE.read_text(encoding="utf-8")
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(source, {}, PAGE.name, str(PAGE), 0)
    assert test.examples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


def test_arguments_count_the_same_everywhere():
    """Samples of units are `replicates`; draws of a null are named for what they are."""
    functions = {
        f: set(inspect.signature(getattr(markov, f)).parameters) for f in markov.__all__ if f[0].islower()
    }
    draws = {"permutations", "surrogates"}
    both = {f for f, names in functions.items() if names & draws and "replicates" in names}
    assert both == {
        *("homogeneity_test", "stationarity_test", "order_test", "transition_distance"),
        *("reopening", "duration_dependence", "dwell", "motifs", "first_visits"),
    }
    assert {f for f, names in functions.items() if names & draws} - both == {"null_sequences"}
    for f, names in functions.items():
        assert not names & {"bootstrap", "null_replicates", "simulations"}, f
    plans = {m.name: set(m.options) for m in METHODS if m.name.startswith("markov.")}
    assert len(plans) == 6
    for name, options in plans.items():
        assert "replicates" in options and len(options & draws) == 1, name
        assert not options & {"bootstrap", "null_replicates", "stays"}, name
