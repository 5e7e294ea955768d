"""Formulas against lme4's own reading of them; tests/oracles/make_lmm_result.R made the values."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.design import build_design
from dynstat.mixed.formula import parse_formula

ORACLES = Path(__file__).parent.parent / "oracles"
GRAMMAR = json.loads((ORACLES / "lmm_result.json").read_text())["grammar"]
# The one kind where names differ: an interaction beside an intercept and without its margins.
OTHER_BASIS = {"y ~ f:o + (1|g)": "fo", "y ~ x + f:l + (1|g)": "fl"}
SAME = [c for c in GRAMMAR if c["formula"] not in OTHER_BASIS]


@pytest.fixture(scope="module")
def frame():
    d = pd.read_csv(ORACLES / "lmm" / "grammar.csv")
    return d.assign(o=pd.Categorical(d["o"], ordered=True))


def _read(text, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        return build_design(parse_formula(text), frame)


@pytest.mark.parametrize("case", SAME, ids=lambda c: c["formula"])
def test_names_order_and_columns_are_those_of_lme4(case, frame):
    from dynstat.mixed.result import theta_names

    design = _read(case["formula"], frame)
    assert list(design.x_names) == case["x_names"]
    np.testing.assert_allclose(design.x.sum(axis=0), case["x_sums"], atol=1e-9)
    weights = np.sin(np.arange(1, 61))
    np.testing.assert_allclose(weights @ design.x, case["x_moments"], atol=1e-9)
    assert design.y.sum() == pytest.approx(case["y_sum"], rel=1e-12)
    assert [t.name for t in design.terms] == case["groups"]
    assert [list(t.columns) for t in design.terms] == case["columns"]
    assert theta_names(design.terms) == case["theta_names"]
    assert [list(t.levels) for t in design.terms] == case["levels"]
    # Z, in lme4's order: terms, levels within a term, columns within a level.
    rows = []
    for term in design.terms:
        values = np.ones((60, 1)) if term.values is None else term.values
        z = np.zeros((len(term.levels), term.width, 60))
        z[term.codes, :, np.arange(60)] = values
        rows.append(z.reshape(-1, 60))
    z = np.concatenate(rows)
    moment = (z @ weights) @ np.cos(np.arange(1, len(z) + 1))
    assert moment == pytest.approx(case["z_moment"], abs=1e-9)


def test_the_grammar_is_all_here():
    assert len(GRAMMAR) == 85 and not any(c.get("error") for c in GRAMMAR)


@pytest.mark.parametrize(("text", "factors"), OTHER_BASIS.items())
def test_an_interaction_without_its_margins_spans_the_same_columns(text, factors, frame):
    # R codes all cells and drops the last; formulaic picks contrasts of the same space.
    case = next(c for c in GRAMMAR if c["formula"] == text)
    x = _read(text, frame).x
    cells = pd.get_dummies(frame[factors[0]] + frame[factors[1]].astype(str)).to_numpy(float)
    assert x.shape[1] == len(case["x_names"]) == cells.shape[1] + ("x" in case["x_names"])
    assert np.linalg.matrix_rank(np.hstack([x, cells])) == x.shape[1]


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("y ~ ns(x, 3) + (1|g)", "ns"),
        ("y ~ x + nothere(z) + (1|g)", "nothere"),
        ("y ~ x + log(nothere) + (1|g)", "nothere"),
        ("f ~ x + (1|g)", "f"),
        ("y ~ x + (1|nothere)", "nothere"),
        ("y ~ x + (nothere|g)", "nothere"),
        ("y ~ x + offset(z) + (1|g)", "offset"),
        ("y ~ . + (1|g)", "."),
    ],
)
def test_marks_what_cannot_be_computed(text, token, frame):
    with pytest.raises(DynstatError) as caught:
        _read(text, frame)
    assert caught.value.code == "S401"
    lines = str(caught.value).splitlines()
    at = next(i for i, line in enumerate(lines) if text in line)
    mark = lines[at + 1]
    assert lines[at][mark.index("^") : mark.rindex("^") + 1] == token


WORDS = (
    "y x z f o l g h a b 1 0 2 + - * / : | || ( ) ~ ^ I( log( . %in% = , factor( poly( `x` x.dot 'q'".split()
)


@given(
    left=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
    inner=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    group=st.sampled_from(["g", "h", "a/b", "a:b", "(g)", "a/"]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_or_refused_in_words(left, inner, group, frame):
    text = f"y ~ {' '.join(left)} + ({' '.join(inner)} | {group})"
    try:
        design = _read(text, frame)
    except DynstatError as error:
        assert error.code in ("S401", "S402")
    else:
        assert design.x.shape == (60, len(design.x_names)) and np.isfinite(design.x).all()


def test_a_formula_may_run_over_lines(frame):
    assert _read("y ~ x +\n  (1|g)", frame).formula.text == "y ~ x +   (1|g)"
    with pytest.raises(DynstatError, match="a formula is text"):
        parse_formula(3)  # type: ignore[arg-type]
