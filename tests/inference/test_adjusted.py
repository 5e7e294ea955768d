"""Adjusted p-values equal R's p.adjust, NaN cases included."""

import doctest

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from dynstat.inference import adjusted

# R 4.2: p.adjust(c(.01, NA, .04, .03, .2, .002), "holm") and "BH".
P = [0.01, np.nan, 0.04, 0.03, 0.2, 0.002]
R = {"holm": [0.04, np.nan, 0.09, 0.09, 0.2, 0.01], "BH": [0.025, np.nan, 0.05, 0.05, 0.2, 0.01]}


def test_as_r_does():
    np.testing.assert_allclose(adjusted.holm(P), R["holm"], atol=1e-12)
    np.testing.assert_allclose(adjusted.false_discovery(P), R["BH"], atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 17, 136])
def test_as_statsmodels_without_nan(size):
    p = np.random.default_rng(size).uniform(size=size) ** 2
    np.testing.assert_allclose(adjusted.holm(p), multipletests(p, method="holm")[1], atol=1e-12)
    np.testing.assert_allclose(adjusted.false_discovery(p), multipletests(p, method="fdr_bh")[1], atol=1e-12)


def test_examples():
    assert doctest.testmod(adjusted).failed == 0
