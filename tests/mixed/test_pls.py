"""The criterion against the n x n definition of it, its gradient against differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.crossproducts import cross_products, with_response
from dynstat.mixed.design import build_design
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.pls import PenalisedLeastSquares

FORMULAS = [
    "y ~ 1 + (1|a)",
    "y ~ x + (1|a) + (1|b)",
    "y ~ x + (x|a) + (1|b) + (1|a:b)",
    "y ~ (x||a) + (0 + x|b)",
    "y ~ x*z + (1|a/b)",
    "y ~ 0 + x + (x + z|b) + (1|a)",
]


def _frame(seed: int, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": rng.integers(0, 5, n),
            "b": rng.integers(0, 4, n),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
        }
    )
    effect = rng.normal(size=5)[frame["a"]] + rng.normal(size=4)[frame["b"]] * frame["x"]
    return frame.assign(y=100 + effect + rng.normal(size=n))


def _dense(design, pls, theta, reml):
    """The profiled criterion from the n x n covariance matrix, as the definition says."""
    n, p = design.x.shape
    v = np.eye(n)
    for t, term in enumerate(design.terms):
        lam = pls.template(theta, t)
        values = np.ones((n, 1)) if term.values is None else term.values
        z = np.zeros((n, len(term.levels) * term.width))
        for i in range(n):
            z[i, term.codes[i] * term.width : (term.codes[i] + 1) * term.width] = values[i]
        big = np.kron(np.eye(len(term.levels)), lam)
        v += z @ big @ big.T @ z.T
    inverse = np.linalg.inv(v)
    information = design.x.T @ inverse @ design.x
    beta = np.linalg.solve(information, design.x.T @ inverse @ design.y)
    e = design.y - design.x @ beta
    r2, df = e @ inverse @ e, n - p if reml else n
    out = np.linalg.slogdet(v)[1] + df * (1 + np.log(2 * np.pi * r2 / df))
    return out + (np.linalg.slogdet(information)[1] if reml else 0.0), beta, r2 / df


@settings(max_examples=30)
@given(
    st.sampled_from(FORMULAS),
    st.booleans(),
    st.integers(0, 10_000),
    st.lists(st.floats(0, 3), min_size=10, max_size=10),
    st.integers(0, 9),
)
def test_criterion_gradient_and_estimates_equal_the_definition(text, reml, seed, start, zero):
    design = build_design(parse_formula(text), _frame(seed))
    pls = PenalisedLeastSquares(cross_products(design), design.terms, reml)
    theta = np.array(start[: pls.n_theta])
    theta[zero % pls.n_theta] = 0.0  # a boundary is an ordinary point
    value, gradient = pls.criterion_and_gradient(theta)
    expected, beta, sigma2 = _dense(design, pls, theta, reml)
    assert value == pytest.approx(expected, rel=1e-10)
    assert pls.criterion(theta) == value
    solution = pls.solve(theta)
    np.testing.assert_allclose(solution.beta, beta, rtol=1e-7, atol=1e-7)
    assert solution.sigma2 == pytest.approx(sigma2, rel=1e-8)
    step = 1e-5
    differences = [
        (pls.criterion(theta + step * e) - pls.criterion(theta - step * e)) / (2 * step)
        for e in np.eye(pls.n_theta)
    ]
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-4)


def test_another_outcome_on_the_same_cross_products():
    frame = _frame(1)
    design = build_design(parse_formula("y ~ x + (x|a) + (1|b)"), frame)
    other = build_design(parse_formula("y ~ x + (x|a) + (1|b)"), frame.assign(y=np.sqrt(np.abs(frame["z"]))))
    swapped = with_response(cross_products(design), design, other.y)
    theta = np.array([0.5, 0.2, 0.3, 0.7])
    for reml in (True, False):
        direct = PenalisedLeastSquares(cross_products(other), other.terms, reml).criterion(theta)
        assert PenalisedLeastSquares(swapped, other.terms, reml).criterion(theta) == pytest.approx(
            direct, rel=1e-12
        )


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(FORMULAS[:3]))
def test_no_grid_point_beats_the_optimum(seed, text):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        m = dynstat.lmer(text, _frame(seed))
    design = build_design(parse_formula(text), _frame(seed))
    pls = PenalisedLeastSquares(cross_products(design), design.terms)
    rng = np.random.default_rng(seed)
    for scale in (0.01, 0.1, 0.5, 1, 3):
        for _ in range(20):
            theta = rng.normal(0, scale, pls.n_theta)
            theta[pls.diagonal] = np.abs(theta[pls.diagonal])
            assert pls.criterion(theta) >= m.criterion - 1e-7
            assert pls.criterion(np.abs(m.theta.to_numpy() + theta / 10)) >= m.criterion - 1e-7


def _bad(**columns):
    frame = _frame(3)
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("frame", "formula", "code", "word"),
    [
        (_bad(a=1), "y ~ (1|a)", "S402", "one level"),
        (_bad(y=np.nan), "y ~ (1|a)", "S402", "the outcome is missing in every row"),
        (_bad(y=np.inf), "y ~ (1|a)", "S402", "infinite"),
        (_bad(a=np.arange(60)), "y ~ (1|a)", "S402", "confounded with the residual"),
        (_bad(c=_frame(3)["a"] * 10), "y ~ (1|a) + (1|c)", "S402", "same way"),
        (_bad(y=2.0), "y ~ (1|a)", "S402", "does not vary"),
        (_bad(), "y ~ (1|nothere)", "S401", "nothere"),
        (_bad(), "y ~ nothere + (1|a)", "S401", "nothere"),
        (_bad(y="word"), "y ~ (1|a)", "S401", "one number a row"),
        (_frame(3).head(3), "y ~ x + z + (1|a)", "S402", "fewer rows"),
    ],
)
def test_bad_input(frame, formula, code, word):
    with pytest.raises(DynstatError, match=word) as caught:
        dynstat.lmer(formula, frame)
    assert caught.value.code == code


def test_collinear_columns_are_dropped_and_told():
    frame = _frame(4).assign(twice=lambda d: 2 * d["x"])
    with pytest.warns(DynstatWarning, match="twice"):
        m = dynstat.lmer("y ~ x + twice + (1|a)", frame)
    assert list(m.fixef.index) == ["(Intercept)", "x"]
    assert m.criterion == pytest.approx(dynstat.lmer("y ~ x + (1|a)", frame).criterion, rel=1e-12)
    assert "dropped columns: twice" in str(m)


def test_rows_with_missing_values_are_left_out_as_in_r():
    frame = _frame(5)
    holes = frame.copy()
    holes.loc[[3, 7], "x"] = np.nan
    m = dynstat.lmer("y ~ x + (1|a)", holes)
    assert m.nobs == 58 and m.design.dropped_rows == 2
    assert m.criterion == pytest.approx(
        dynstat.lmer("y ~ x + (1|a)", frame.drop([3, 7])).criterion, rel=1e-12
    )
    assert list(m.fitted.index) == list(holes.drop([3, 7]).index)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("fixed", ["1", "x"])
def test_sparse_elimination_equals_dense(panel, reml, fixed):
    frame = panel(0, 6, 6, 6, 2).sample(frac=0.9, random_state=1)
    text = f"y ~ {fixed} + (1|model) + (1|category/prompt) + (1|model:category) + (1|model:prompt)"
    design = build_design(parse_formula(text), frame)
    cross = cross_products(design)
    assert cross.pairs is not None
    sparse = PenalisedLeastSquares(cross, design.terms, reml)
    dense = PenalisedLeastSquares(dataclasses.replace(cross, pairs=None), design.terms, reml)
    for theta in ([0.4, 0.3, 0.2, 0.5, 0.1], [0, 0.3, 0, 0.5, 2.0], [3, 0, 0, 0, 0.0]):
        value, gradient = sparse.criterion_and_gradient(np.array(theta))
        expected, slope = dense.criterion_and_gradient(np.array(theta))
        assert value == pytest.approx(expected, rel=1e-13)
        np.testing.assert_allclose(gradient, slope, atol=1e-9)
    np.testing.assert_allclose(
        sparse.solve(np.ones(5)).effects[0], dense.solve(np.ones(5)).effects[0], atol=1e-10
    )


def test_too_many_levels_are_refused_before_memory_is():
    n = 60_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.permutation(n) % 25_000, "b": rng.permutation(n) % 24_000})
    with pytest.raises(DynstatError, match="too many levels"):
        dynstat.lmer("y ~ 1 + (1|a) + (1|b)", frame.assign(y=rng.normal(size=n)))


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_another_outcome_gives_the_coefficients_of_a_fit(far):
    # Columns near dependence take the slower, orthogonal way.
    frame = _frame(2).assign(z=lambda d: d["z"] + far)
    design = build_design(parse_formula("y ~ x + z + (1|a)"), frame)
    other = build_design(parse_formula("y ~ x + z + (1|a)"), frame.assign(y=np.exp(frame["x"])))
    theta = np.array([0.6])
    swapped = with_response(cross_products(design), design, other.y)
    one = PenalisedLeastSquares(swapped, design.terms).solve(theta)
    two = PenalisedLeastSquares(cross_products(other), other.terms).solve(theta)
    np.testing.assert_allclose(one.beta, two.beta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one.vcov, two.vcov, rtol=1e-6)
