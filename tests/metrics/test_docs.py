"""The examples of the page and of the docstrings run as they stand."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import dynstat.metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
MODULES = [m.name for m in pkgutil.iter_modules(dynstat.metrics.__path__)]


def test_page():
    fences = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(fences) >= 8
    names: dict = {}
    for fence in fences:
        exec(compile(fence, str(PAGE), "exec"), names)


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module):
    result = doctest.testmod(importlib.import_module(f"dynstat.metrics.{module}"))
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    modules = [importlib.import_module(f"dynstat.metrics.{m}") for m in MODULES]
    assert sum(bool(t.examples) for m in modules for t in finder.find(m)) >= 15


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_say_what_they_need(module):
    loaded = importlib.import_module(f"dynstat.metrics.{module}")
    for name, item in vars(loaded).items():
        if callable(item) and not name.startswith("_") and getattr(item, "__module__", "") == loaded.__name__:
            assert item.__doc__, f"{module}.{name} has no docstring"
