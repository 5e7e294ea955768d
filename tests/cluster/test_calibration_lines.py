"""The cases of one dimension that `python -m benchmarks.calibration structure` runs."""

import numpy as np
import pytest

from benchmarks.calibration_one_dimension import lines


@pytest.mark.parametrize("line", [x for x in lines() if "of 60" not in x[0]], ids=lambda x: x[0])
def test_case_runs(line):
    _, rule, run, full, quick = line
    assert 0 <= run(3, np.random.default_rng(1))["rejected"] <= 1
    assert rule in ("at most", "within", "shown") and full >= max(quick, 1000)


@pytest.mark.parametrize(
    "line", [x for x in lines() if x[1] == "within" and "gap" in x[0]], ids=lambda x: x[0]
)
def test_tests_that_fit_nothing_hold_their_level(line):
    share = line[2](2000, np.random.default_rng(5))["rejected"]
    assert abs(share - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000)


def test_names_differ():
    # The seed of a case is that of its name.
    names = [x[0] for x in lines()]
    assert len(set(names)) == len(names)
