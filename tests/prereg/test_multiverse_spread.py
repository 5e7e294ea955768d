"""The split of the estimate's spread: statsmodels' type II sums of squares, and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from dynstat.prereg.multiverse_spread import is_full_cross, spread_by_choice


def cross(*sizes: int) -> pd.DataFrame:
    rows = itertools.product(*([f"o{i}" for i in range(n)] for n in sizes))
    return pd.DataFrame(rows, columns=[f"d{j}" for j in range(len(sizes))])


@pytest.mark.parametrize("dropped", [0, 5], ids=["full", "gaps"])
def test_as_statsmodels(dropped: int) -> None:
    choices = cross(3, 2, 4)
    y = np.random.default_rng(1).normal(size=len(choices)) + choices["d0"].map({"o0": 0, "o1": 2, "o2": 3})
    y = np.array(y)
    y[:dropped] = np.nan
    table = spread_by_choice(y, choices)
    fit = smf.ols("y ~ C(d0) + C(d1) + C(d2)", choices.assign(y=y).dropna()).fit()
    anova = sm.stats.anova_lm(fit, typ=2)
    np.testing.assert_allclose(table["sum_of_squares"], anova["sum_sq"], rtol=1e-9)
    np.testing.assert_allclose(table["df"], anova["df"])
    total = np.sum((y[dropped:] - y[dropped:].mean()) ** 2)
    np.testing.assert_allclose(table["share"], anova["sum_sq"] / total)
    assert list(table["dimension"]) == ["d0", "d1", "d2", "rest"]
    assert is_full_cross(choices[np.isfinite(y)]) == (dropped == 0)
    assert (abs(table["share"].sum() - 1) < 1e-12) == (dropped == 0)


def test_closed_form_of_a_full_cross() -> None:
    choices = cross(2, 3)
    a, b = np.repeat([0.0, 1.0], 3), np.tile([0.0, 1.0, 5.0], 2)
    table = spread_by_choice(a + b + 2 * a * (b == 5), choices).set_index("dimension")
    # Means of d0: 2 and 3 + 2/3; of d1: 1/2, 3/2, 13/2; the rest is the interaction.
    assert table.loc["d0", "sum_of_squares"] == pytest.approx(6 * (5 / 6) ** 2)
    assert table.loc["d1", "sum_of_squares"] == pytest.approx(
        2 * sum((m - 17 / 6) ** 2 for m in (0.5, 1.5, 6.5))
    )
    assert table["share"].sum() == pytest.approx(1)


def test_what_does_not_vary_has_no_share() -> None:
    table = spread_by_choice(np.full(6, 0.3), cross(2, 3))
    assert table["share"].isna().all()
    # One option is left of d1 where the others gave nothing.
    y = np.where(cross(2, 3)["d1"] == "o0", [0.0] * 3 + [1.0] * 3, np.nan)
    table = spread_by_choice(y, cross(2, 3)).set_index("dimension")
    assert table.loc["d0", "share"] == pytest.approx(1) and np.isnan(table.loc["d1", "share"])
    assert spread_by_choice(np.full(6, np.nan), cross(2, 3))["share"].isna().all()
    assert spread_by_choice(np.array([1.0]), cross(1))["share"].isna().all()
