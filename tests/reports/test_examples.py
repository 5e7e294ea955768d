"""Examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "dynstat.escape",
        "dynstat.plotting.style",
        "dynstat.reports.lint",
        "dynstat.reports.quarto",
        "dynstat.reports.recheck",
        "dynstat.reports.rerun",
        "dynstat.reports.words",
    ],
)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0
