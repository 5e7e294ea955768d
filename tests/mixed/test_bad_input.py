"""What lmer refuses, and what it warns of and records."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.design import build_design
from dynstat.mixed.formula import parse_formula


@pytest.fixture
def frame():
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(list("abcdef"), 6), "h": list("uvwxyz") * 6, "x": rng.normal(size=36)})
    return d.assign(
        y=d["x"] + rng.normal(size=36) + rng.normal(size=6)[np.repeat(np.arange(6), 6)],
        f=np.where(np.arange(36) % 2 == 0, "even", "odd"),
        one="same",
        k=1.0,
        empty=np.nan,
        bad=np.where(np.arange(36) == 7, np.inf, 1.0 * np.arange(36)),
        group=np.where(np.arange(36) == 7, np.inf, np.repeat(np.arange(6.0), 6)),
        words="word",
    )


@pytest.mark.parametrize(
    ("formula", "code", "what", "found"),
    [
        ("y ~ (1|one)", "S402", "one level", "same"),
        ("y ~ one + (1|g)", "S402", "the factor one has one level", "same"),
        ("y ~ one * x + (1|g)", "S402", "one level", "same"),
        ("y ~ factor(k) + (1|g)", "S402", r"factor\(k\) has one level", "1"),
        ("y ~ (one|g)", "S402", "one level", "same"),
        ("empty ~ (1|g)", "S402", "outcome is missing in every row", "empty"),
        ("y ~ empty + (1|g)", "S402", "no row is complete", "empty"),
        ("y ~ (1|empty)", "S402", "no row is complete", "empty"),
        ("bad ~ (1|g)", "S402", "the outcome holds infinite", "1 rows in bad"),
        ("y ~ bad + (1|g)", "S402", "a fixed column holds infinite", "1 rows in bad"),
        ("y ~ x + bad:x + (1|g)", "S402", "infinite", "x:bad"),
        ("y ~ (bad|g)", "S402", "a random column holds infinite", "bad"),
        ("y ~ (1|group)", "S402", "a grouping factor holds infinite", "group"),
        ("y ~ log(x) + (1|g)", "S402", "infinite or undefined", r"log(x)"),
        ("k ~ (1|g)", "S402", "does not vary", ""),
        ("words ~ (1|g)", "S401", "not one number a row", ""),
        ("f ~ (1|g)", "S401", "not one number a row", ""),
        ("y ~ log(1|g)", "S401", "a bar inside a function", "|"),
        ("y ~ x + (nothere|g)", "S401", "no column 'nothere'", "nothere"),
        ("y ~ x + (1|g/nothere)", "S401", "no column 'nothere'", "nothere"),
    ],
)
def test_each_fault_has_its_own_words(frame, formula, code, what, found):
    with pytest.raises(DynstatError, match=what) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        dynstat.lmer(formula, frame)
    assert caught.value.code == code
    assert found in caught.value.found
    assert caught.value.mend


@pytest.mark.parametrize(
    ("formula", "token"),
    [
        ("y ~ x + (1|one/g)", "one"),
        ("y ~ x + (x|one)", "one"),
        ("y ~ one*x + (1|g)", "one"),
        ("bad ~ x + (1|g)", "bad"),
        ("y ~ x + bad + (1|g)", "bad"),
        ("y ~ x + (1|g) + (bad|h)", "bad"),
        ("y ~ x + log(x) + (1|g)", "log(x)"),
        ("y ~ empty + (1|g)", "empty"),
        ("words ~ x + (1|g)", "words"),
    ],
)
def test_a_fault_of_the_data_is_marked_in_the_formula(frame, formula, token):
    with pytest.raises(DynstatError) as caught:
        dynstat.lmer(formula, frame)
    lines = str(caught.value).splitlines()
    at = next(i for i, line in enumerate(lines) if formula in line)
    mark = lines[at + 1]
    assert lines[at][mark.index("^") : mark.rindex("^") + 1] == token


def test_fewer_rows_than_parameters(frame):
    with pytest.raises(DynstatError, match="fewer rows than parameters") as caught:
        dynstat.lmer("y ~ x + f + (1|g)", frame.iloc[[0, 7, 14]])
    assert caught.value.code == "S402"
    with pytest.raises(DynstatError, match="confounded with the residual"):
        dynstat.lmer("y ~ (x|h)", frame.iloc[:12])


def test_not_a_frame_and_columns_named_twice(frame):
    with pytest.raises(DynstatError, match="the data are not a frame") as caught:
        build_design(parse_formula("y ~ (1|g)"), [1, 2])  # type: ignore[arg-type]
    assert caught.value.code == "S404"
    with pytest.raises(DynstatError, match="several columns 'x'"):
        dynstat.lmer("y ~ x + (1|g)", pd.concat([frame, frame[["x"]]], axis=1))
    with pytest.raises(DynstatError, match="no row is complete"):
        dynstat.lmer("y ~ x + (1|g)", frame.iloc[:0])


def test_collinear_columns_are_dropped_told_and_recorded(frame):
    d = frame.assign(twice=2 * frame["x"], sum=frame["x"] + (frame["f"] == "odd"))
    with pytest.warns(DynstatWarning, match="rank deficient: 2 columns .* dropped") as caught:
        m = dynstat.lmer("y ~ x + f + twice + sum + (1|g)", d)
    assert m.warnings[0] == str(caught[0].message)
    assert m.design.dropped_columns == ("twice", "sum")
    assert list(m.fixef.index) == ["(Intercept)", "x", "fodd"]
    np.testing.assert_allclose(m.fixef, dynstat.lmer("y ~ x + f + (1|g)", d).fixef, rtol=1e-9)
    # A dropped column takes no part in predictions either, whatever it holds.
    new = d.assign(twice=99.0)
    np.testing.assert_allclose(m.predict(new), m.predict(), rtol=1e-12)


def test_missing_rows_are_counted_told_and_recorded(frame):
    holes = frame.copy()
    holes.loc[[0, 5], "x"], holes.loc[9, "g"] = np.nan, None
    with pytest.warns(DynstatWarning, match="3 of 36 rows have missing values"):
        m = dynstat.lmer("y ~ x + (1|g)", holes)
    assert m.design.dropped_rows == 3 and m.nobs == 33
    assert "3 of 36 rows" in m.warnings[0]
    assert "(3 observations deleted due to missingness)" in str(m)
    assert "3 of 36 rows" in m._repr_html_()
    assert m.predict(holes).isna().sum() == 3


def test_categories_that_do_not_occur_make_no_columns(frame):
    d = frame.assign(f=pd.Categorical(frame["f"], categories=["never", "odd", "even", "nor"]))
    m = dynstat.lmer("y ~ f + (1|g)", d)
    assert list(m.fixef.index) == ["(Intercept)", "feven"] and not m.warnings


def test_numbers_in_object_columns_are_numbers(frame):
    plain = dynstat.lmer("y ~ x + (1|g)", frame)
    objects = dynstat.lmer("y ~ x + (1|g)", frame.astype({"x": object, "y": object, "g": "category"}))
    assert objects.criterion == pytest.approx(plain.criterion, rel=1e-12)
    nullable = dynstat.lmer("y ~ x + (1|g)", frame.astype({"x": "Float64", "y": "Float64", "g": "string"}))
    assert nullable.criterion == pytest.approx(plain.criterion, rel=1e-12)


def test_whole_numbers_as_levels_lose_their_point(frame):
    d = frame.assign(n=np.repeat([1.0, 2.0, 10.0, 3.5, 5.0, 6.0], 6))
    assert dynstat.lmer("y ~ (1|n)", d).design.terms[0].levels == ("1", "2", "3.5", "5", "6", "10")
