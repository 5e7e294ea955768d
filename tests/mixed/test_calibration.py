"""The coverage check of benchmarks/: its target, and that it would notice a wrong interval."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def calibration():
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration_under_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_target_is_what_shares_tend_to_as_prompts_grow(calibration, monkeypatch):
    components = dict(zip(calibration.TERMS, calibration.SCENARIOS["architecture"], strict=True))
    rng = np.random.default_rng(2)
    held = calibration.Held.draw(components, rng)
    target = held.target(components)
    assert sum(target.values()) == pytest.approx(1)
    errors = []
    for prompts in (12, 600):
        monkeypatch.setattr(calibration, "PROMPTS", prompts)
        frame = calibration.grid()
        design = calibration.build_design(calibration.parse_formula(calibration.FORMULA), frame)
        y = calibration.simulate(frame, held, components, 8, rng)
        shares, _ = calibration.both_shares(design, y)
        errors.append(np.abs(shares - [target[t] for t in calibration.TERMS]).max(axis=1).mean())
    assert errors[1] < 0.02 and errors[1] < errors[0] / 3


def test_coverage_is_near_nominal_and_a_narrow_interval_is_caught(calibration):
    components = dict(zip(calibration.TERMS, calibration.SCENARIOS["architecture"], strict=True))
    table = calibration.panel_coverage(components, 3, 60, np.random.default_rng(1))
    assert (table["coverage"] > 0.87).all()
    narrow = calibration.panel_coverage(components, 3, 60, np.random.default_rng(1), level=0.7)
    assert (narrow["coverage"] < calibration.BAND[0]).all()


@pytest.fixture
def mixed():
    return importlib.import_module("benchmarks.calibration_mixed")


def test_ols_is_seen_to_fail_where_kenward_roger_holds(mixed):
    found = mixed.type_one(6, 12, 60, np.random.default_rng(1))
    assert found["OLS"] > 0.15 and found["Kenward-Roger"] < 0.15
    assert found["Kenward-Roger"] <= found["Wald z"]


def test_every_parameter_is_counted(mixed):
    table = mixed.parameter_coverage(2, 100, np.random.default_rng(1)).set_index("parameter")
    assert len(table) == 6 and table.loc["sigma", "profile"] in (0, 0.5, 1)
    assert table.loc["group", "Wald t, KR"] in (0, 0.5, 1) and np.isnan(table.loc["sigma", "Wald z"])


def test_a_verdict_names_what_falls_short(mixed):
    strict, lax = mixed.Verdict(False), mixed.Verdict(True)
    for v in (strict, lax):
        v.covers("share of model", 0.90, 100)
        v.covers(mixed.KNOWN[0], 0.90, 10_000)
        v.holds("a test", 0.08, 100)
    assert len(strict.failed) == 2 and strict.known and not lax.failed
