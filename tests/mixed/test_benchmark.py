"""The benchmark's designs have the optima published for them, found by four other programs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import dynstat

# benchmarks/ is not installed.
_spec = importlib.util.spec_from_file_location(
    "benchmark_under_test", Path(__file__).parents[2] / "benchmarks" / "mixed.py"
)
assert _spec is not None and _spec.loader is not None
mixed = importlib.util.module_from_spec(_spec)
sys.modules["benchmark_under_test"] = mixed
_spec.loader.exec_module(mixed)

# REML criteria, data from default_rng(20261120): the least of lme4 1.1-31, mixedlm, glmm and lme-python.
OPTIMA = [
    ("S1", mixed.MODEL_A, 3676.0480328920),
    ("S10", mixed.MODEL_A, 35804.8332508210),
    ("S100", mixed.MODEL_A, 356982.9138313758),
    ("W", mixed.MODEL_A, 345845.9798634736),
    ("S10", mixed.MODEL_B, 35572.3713479734),
    ("S100", mixed.MODEL_B, 349832.8416062467),
    ("S1", mixed.MODEL_C, 3674.5466737134),
    ("S10", mixed.MODEL_C, 35803.5548088211),
    ("S100", mixed.MODEL_C, 356978.9109553635),
]


@pytest.mark.parametrize(("data", "formula", "optimum"), OPTIMA)
@pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")
def test_optimum(data, formula, optimum):
    assert dynstat.lmer(formula, mixed.make(data)).criterion == pytest.approx(optimum, abs=1e-7)


def test_every_design_is_timed_and_every_target_has_one():
    names = {case.name for case in mixed.CASES}
    assert {name for _, name, _ in mixed.RATIOS} <= names
    assert all(case.repeats["dynstat"][1] > 0 for case in mixed.CASES)
    frame = mixed.make("InstEval")
    assert (len(frame), frame["s"].nunique(), frame["d"].nunique()) == (73_421, 2_972, 1_128)
