"""Unbounded components and strata against the closed form of balanced analysis of variance."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.anova import from_strata, type_two
from dynstat.mixed.balanced import anova_components, find_strata, reml_components
from dynstat.mixed.components import minque
from dynstat.mixed.design import build_design
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.shares import components_at, variance_components

FORMULA = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category) + (1|model:prompt)"
TERMS = ("model", "category", "category:prompt", "model:category", "model:prompt")


def _closed_form(d, a, c, p, s):
    """Sums of squares and expected mean squares of the crossed and nested panel, written out by hand."""
    y = d["y"].to_numpy().reshape(a, c, p, s)
    m = y.mean()
    mi, cj = y.mean((1, 2, 3)), y.mean((0, 2, 3))
    pjk, mij, mijk = y.mean((0, 3)), y.mean((2, 3)), y.mean(3)
    ss = {
        "model": c * p * s * np.sum((mi - m) ** 2),
        "category": a * p * s * np.sum((cj - m) ** 2),
        "category:prompt": a * s * np.sum((pjk - cj[:, None]) ** 2),
        "model:category": p * s * np.sum((mij - mi[:, None] - cj + m) ** 2),
        "model:prompt": s * np.sum((mijk - mij[:, :, None] - pjk + cj[:, None]) ** 2),
        "residual": np.sum((y - mijk[..., None]) ** 2),
    }
    df = {
        "model": a - 1,
        "category": c - 1,
        "category:prompt": c * (p - 1),
        "model:category": (a - 1) * (c - 1),
        "model:prompt": (a - 1) * c * (p - 1),
        "residual": a * c * p * (s - 1),
    }
    ms = {k: ss[k] / df[k] for k in ss}
    e = ms["residual"]
    cell = (ms["model:prompt"] - e) / s
    prompt = (ms["category:prompt"] - ms["model:prompt"]) / (a * s)
    both = (ms["model:category"] - ms["model:prompt"]) / (p * s)
    model = (ms["model"] - ms["model:category"]) / (c * p * s)
    category = (ms["category"] - ms["category:prompt"] - ms["model:category"] + ms["model:prompt"]) / (
        a * p * s
    )
    return (
        ss,
        df,
        {
            "model": model,
            "category": category,
            "category:prompt": prompt,
            "model:category": both,
            "model:prompt": cell,
            "residual": e,
        },
    )


def _design(frame, formula=FORMULA):
    return build_design(parse_formula(formula), frame)


def _named(design, values):
    return dict(zip([t.label for t in design.terms] + ["residual"], np.ravel(values), strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(6, 3, 5, 3), (4, 2, 3, 2), (3, 6, 4, 2)])
def test_balanced_components_equal_expected_mean_squares(panel, seed, shape):
    d = panel(seed, *shape, both=0.0, cell=0.1)  # small interactions: some components fall below zero
    ss, df, expected = _closed_form(d, *shape)
    design = _design(d)
    strata = find_strata(design)
    sums = strata.sums_of_squares(design.y)
    anova = from_strata(strata, sums)
    assert _named(design, anova.ss) == pytest.approx(ss, rel=1e-9, abs=1e-9)
    assert _named(design, anova.df) == df
    assert _named(design, anova_components(sums, strata.df, strata.design)) == pytest.approx(
        expected, abs=1e-10
    )
    # MINQUE gives the same whatever the weights.
    rng = np.random.default_rng(seed)
    for weights in (np.ones(6), rng.uniform(0, 3, 6) + 1e-3, np.array([0, 0, 0, 0, 0, 1.0])):
        assert _named(design, minque(design, weights)) == pytest.approx(expected, abs=1e-9)


def test_some_of_these_components_are_negative(panel):
    found = [min(_closed_form(panel(s, both=0.0, cell=0.1), 6, 3, 5, 3)[2].values()) for s in range(4)]
    assert min(found) < 0


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(6, 3, 5, 3), (4, 2, 3, 2)]),
    st.floats(0, 0.6),
    st.floats(0, 0.6),
)
def test_reml_of_strata_equals_reml_of_the_engine(panel, seed, shape, both, cell):
    d = panel(seed, *shape, both=both, cell=cell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        m = dynstat.lmer(FORMULA, d)
    strata = find_strata(m.design)
    v = reml_components(strata.sums_of_squares(m.design.y), strata.df, strata.design)[0]
    np.testing.assert_allclose(v[:-1], m.sigma**2 * m.theta.to_numpy() ** 2, atol=2e-6 * v.sum())
    assert v[-1] == pytest.approx(m.sigma**2, rel=1e-5)


def test_reml_equals_anova_where_all_components_are_positive(panel):
    d = panel(3, both=0.8, cell=0.8)
    _, _, expected = _closed_form(d, 6, 3, 5, 3)
    assert min(expected.values()) > 0
    design = _design(d)
    assert _named(design, variance_components(design).reml) == pytest.approx(expected, rel=1e-8)


def test_dyestuff_as_in_the_textbook(r_data):
    # Davies and Goldsmith 1972, table 6.3: mean squares 11271.5 (5 df) and 2451.25 (24 df), 5 a batch.
    design = _design(r_data("Dyestuff"), "Yield ~ 1 + (1|Batch)")
    np.testing.assert_allclose(minque(design, np.ones(2)), [(11271.5 - 2451.25) / 5, 2451.25])
    # Dyestuff2: no batch variance, the unbounded estimate is below zero.
    other = _design(r_data("Dyestuff2"), "Yield ~ 1 + (1|Batch)")
    shares = variance_components(other)
    assert shares.reml[0] == 0 and shares.free[0] < 0


def test_minque_is_unbiased_in_unbalanced_data(panel):
    frame = panel(1, 4, 2, 4, 3).sample(frac=0.7, random_state=2).reset_index(drop=True)
    formula = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category)"
    design = _design(frame, formula)
    assert find_strata(design) is None
    truth = np.array([0.3, 0.5, 0.2, 0.4, 1.0])
    weights = np.array([0.1, 1.0, 0.5, 0.2, 1.0])  # wrong on purpose
    # The estimator is quadratic in y, so that its expectation is its sum over the columns of a root of V.
    total = np.zeros(5)
    basis = [np.sqrt(truth[t]) * np.eye(len(term.levels))[term.codes] for t, term in enumerate(design.terms)]
    for column in np.hstack([*basis, np.sqrt(truth[-1]) * np.eye(design.n)]).T:
        total += minque(type(design)(**{**design.__dict__, "y": column}), weights)
    np.testing.assert_allclose(total, truth, rtol=1e-7)


def test_type_two_equals_strata_when_balanced_and_regression_when_not(panel):
    design = _design(panel(5))
    strata = find_strata(design)
    a, b = type_two(design), from_strata(strata, strata.sums_of_squares(design.y))
    np.testing.assert_allclose(a.ss, b.ss, rtol=1e-8)
    np.testing.assert_array_equal(a.df, b.df)
    assert a.eta2.sum() == pytest.approx(1)
    # Unbalanced: model after category:prompt (not after what contains it), by plain least squares.
    frame = panel(5).sample(frac=0.8, random_state=1)
    short = _design(frame, "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category)")
    found = type_two(short)
    labels = [t.label for t in short.terms]

    def rss(names):
        x = np.hstack([np.eye(len(t.levels))[t.codes] for t in short.terms if t.label in names])
        return np.sum((short.y - x @ np.linalg.lstsq(x, short.y, rcond=None)[0]) ** 2)

    assert found.ss[labels.index("model")] == pytest.approx(
        rss(["category:prompt"]) - rss(["model", "category:prompt"]), rel=1e-8
    )
    assert found.ss[-1] == pytest.approx(rss(labels), rel=1e-8)


def test_unbalanced_and_other_fixed_parts_have_no_strata(panel):
    d = panel(0)
    assert find_strata(_design(d)) is not None
    assert find_strata(_design(d.drop(index=[4]))) is None
    assert find_strata(_design(d, FORMULA.replace("1 +", "x +"))) is None
    # Nothing is missing in a cell, yet the categories differ in their number of prompts.
    assert find_strata(_design(d[d["prompt"] != "p000"])) is None


def test_strata_find_the_meet_that_no_term_names(panel):
    # category is what model:category and category:prompt share; the formula leaves it out.
    d = panel(2)
    design = _design(d, "y ~ 1 + (1|model:category) + (1|category:prompt)")
    strata = find_strata(design)
    assert "meet" in strata.names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        m = dynstat.lmer("y ~ 1 + (1|model:category) + (1|category:prompt)", d)
    v = reml_components(strata.sums_of_squares(design.y), strata.df, strata.design)[0]
    np.testing.assert_allclose(v, np.append(m.theta.to_numpy() ** 2, 1) * m.sigma**2, rtol=1e-5, atol=1e-7)


def test_confounded_components_are_refused(panel):
    d = panel(0).assign(twin=lambda f: f["prompt"] + f["model"], other=lambda f: f["model"] + f["prompt"])
    with pytest.raises(DynstatError, match="same way"):
        _design(d, "y ~ 1 + (1|twin) + (1|other)")


def test_a_component_at_its_boundary_is_exactly_zero():
    out = components_at(np.array([1e-12, 0.5]), 4.0)
    assert out.tolist() == [0.0, 1.0, 4.0]
