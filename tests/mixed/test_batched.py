"""Many outcomes at once against one fit after another; the batched derivatives against differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dynstat.mixed.fit as fit
from dynstat.mixed.batched import fit_many
from dynstat.mixed.cells import precision
from dynstat.mixed.crossproducts import cross_products, row_products
from dynstat.mixed.design import build_design
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.pls import PenalisedLeastSquares
from dynstat.mixed.reduced import reduce_products

FORMULAS = [
    "y ~ 1 + (1|a)",
    "y ~ x + (1|a) + (1|b)",
    "y ~ 1 + (1|a) + (1|b) + (1|a:b)",
    "y ~ 0 + x + (1|b) + (1|a)",
]


def _design(formula: str, seed: int = 0, share: float = 0.8, weighted: bool = False):
    rng = np.random.default_rng(seed)
    rows = pd.MultiIndex.from_product([range(6), range(11), range(3)], names=list("abr"))
    frame = rows.to_frame(index=False).assign(x=rng.normal(size=198), y=0.0)
    frame = frame.sample(frac=share, random_state=seed)
    frame.loc[frame.index[0], "y"] = 1.0
    design = build_design(parse_formula(formula), frame)
    if weighted:
        design = dataclasses.replace(design, cells=precision(rng.uniform(0.5, 2, design.n)))
    return design, frame


def _outcomes(frame: pd.DataFrame, count: int, seed: int = 0) -> np.ndarray:
    """Draw outcomes, some variances of which are zero."""
    rng = np.random.default_rng(seed)
    a, b = frame["a"].to_numpy(), frame["b"].to_numpy()

    def sd():
        return 10 ** rng.uniform(-2, 1, count) * (rng.uniform(size=count) < 0.6)

    y = rng.normal(size=(6, count))[a] * sd() + rng.normal(size=(11, count))[b] * sd()
    y += rng.normal(size=(66, count))[a * 11 + b] * sd() + rng.normal(size=(len(frame), count))
    return y + 10 * rng.normal(size=count)


@settings(max_examples=30)
@given(st.sampled_from(FORMULAS), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_values_and_derivatives_by_variance_ratio(formula, reml, weighted, seed):
    design, frame = _design(formula, seed, weighted=weighted)
    y = _outcomes(frame, 2, seed)
    cross = cross_products(design)
    side, rest, yy, _, _ = row_products(design, cross)(y)
    reduced = reduce_products(cross)
    assert reduced is not None
    batch = reduced.with_outcomes(side, rest, yy, reml, cross)
    rng = np.random.default_rng(seed)
    gamma, which = rng.uniform(0.1, 1, (2, batch.k)), np.arange(2)
    order = [block.members[0][0] for block in cross.blocks]
    for i in which:
        theta = np.empty(batch.k)
        theta[order] = np.sqrt(gamma[i])
        one = cross_products(dataclasses.replace(design, y=y[:, i]))
        expected = PenalisedLeastSquares(one, design.terms, reml).criterion(theta)
        assert batch.value(gamma, which)[i] == pytest.approx(expected, rel=1e-11)
    state = batch.derivatives(gamma, which)
    for k in range(batch.k):
        step = 1e-5 * np.eye(batch.k)[k]
        up, down = gamma + step, gamma - step
        slope = (batch.value(up, which) - batch.value(down, which)) / 2e-5
        np.testing.assert_allclose(state.gradient[:, k], slope, rtol=1e-5, atol=1e-4)
        bend = batch.derivatives(up, which).gradient - batch.derivatives(down, which).gradient
        np.testing.assert_allclose(state.hessian[:, k], bend / 2e-5, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("formula", FORMULAS[:3])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.7])
def test_many_equal_one_by_one(monkeypatch, formula, reml, share):
    design, frame = _design(formula, 3, share, weighted=share < 1)
    y = _outcomes(frame, 25, 7)
    y[:, 0], y[:, 1] = 3.3, 0.0
    y[:, 2] = np.array([0.3, -1, 2, 0.1, 0.5, 4])[frame["a"]]
    many = fit_many(design, y, reml)
    # The scalar way must not lean on the batched one here.
    monkeypatch.setattr(fit, "by_newton", lambda *_: None)
    one = fit_many(design, y, reml, method="scalar")
    balanced = reml and share == 1 and "x" not in formula
    assert (many.method, one.method) == ("strata" if balanced else "newton", "scalar")
    assert many.constant.nonzero()[0].tolist() == [0, 1] == one.constant.nonzero()[0].tolist()
    assert many.exact[2] and many.exact.sum() == 1
    np.testing.assert_allclose(many.beta[:2], one.beta[:2], atol=1e-12)
    assert np.isnan(many.criterion[:3]).all() and not many.converged[:3].any() and (many.sigma[:3] == 0).all()
    rest = slice(3, None)
    assert many.converged[rest].all()
    # A lower optimum than the scalar way's is no error; a higher one is.
    assert np.max(many.criterion[rest] - one.criterion[rest]) < 1e-8
    same = np.abs(many.criterion - one.criterion) < 1e-8
    assert same[rest].sum() >= 20
    np.testing.assert_allclose(many.theta[same], one.theta[same], rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(many.sigma[same], one.sigma[same], rtol=1e-5)
    np.testing.assert_allclose(many.beta[same], one.beta[same], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(many.beta_se[same], one.beta_se[same], rtol=1e-4)
    assert (many.singular == one.singular)[same].mean() > 0.9
    assert many.singular[rest].sum() >= 3


def test_balanced_sums_of_squares_and_newton_agree():
    design, frame = _design(FORMULAS[2], 1, 1.0)
    y = _outcomes(frame, 20, 2)
    strata, newton = (fit_many(design, y, method=m) for m in ("strata", "newton"))
    np.testing.assert_allclose(strata.criterion, newton.criterion, atol=1e-8)
    np.testing.assert_allclose(strata.beta, newton.beta, rtol=1e-9)
    np.testing.assert_allclose(strata.beta_se, newton.beta_se, rtol=1e-6)
