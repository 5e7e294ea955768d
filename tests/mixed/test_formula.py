"""The formula splitter against what lme4 makes of the same text."""

import pytest

from dynstat.errors import DynstatError
from dynstat.mixed.formula import parse_formula


@pytest.mark.parametrize(
    ("text", "fixed", "terms"),
    [
        ("y ~ (1|g)", "1", [("1", "g", "g")]),
        ("y ~ 1 + x + (1 | g)", "1 + x", [("1", "g", "g")]),
        ("y ~ x - 1 + (0 + x | g)", "x - 1", [("0 + x", "g", "g")]),
        ("y ~ (1|g) + x*z", "x*z", [("1", "g", "g")]),
        ("log(y) ~ (x | g)", "1", [("1 + x", "g", "g")]),
        ("y ~ x + (x || g)", "x", [("1", "g", "g"), ("0 + x", "g", "g")]),
        ("y ~ (1 + x + z || g)", "1", [("1", "g", "g"), ("0 + x", "g", "g"), ("0 + z", "g", "g")]),
        ("y ~ (1 | a/b)", "1", [("1", "b:a", "a:b"), ("1", "a", "a")]),
        ("y ~ (1 | a/b/c)", "1", [("1", "c:(b:a)", "a:b:c"), ("1", "b:a", "a:b"), ("1", "a", "a")]),
        ("y ~ (1 | a:b)", "1", [("1", "a:b", "a:b")]),
        ("y ~ ((1 | (a)))", "1", [("1", "a", "a")]),
        ("y ~ (x + (1|a)) + (1|b)", "x", [("1", "a", "a"), ("1", "b", "b")]),
        ("y ~ I(x + z) + (1|`my g`)", "I(x + z)", [("1", "my g", "my g")]),
        ("y ~ (-1 + x|g)", "1", [("0 + x", "g", "g")]),
    ],
)
def test_splits_as_lme4_does(text, fixed, terms):
    parsed = parse_formula(text)
    assert parsed.fixed == fixed
    assert [(t.columns, t.name, t.label) for t in parsed.random] == terms


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("y ~ x", None),
        ("y ~ x + 1|g", "|"),
        ("y ~ log(x|g) + (1|h)", "|"),
        ("y ~ x:(1|g)", "|"),
        ("y ~ (1|g", "("),
        ("y ~ 1|g)", ")"),
        ("y ~ (0|g)", "0"),
        ("y ~ (1|a+b)", "+"),
        ("y ~ (1|a*b)", "*"),
        ("y ~ (1|f(g))", "("),
        ("y ~ (1|)", "|"),
        ("y ~ (|g)", "|"),
        ("y ~ (1|a|b)", "|"),
        ("y ~ x @ (1|g)", "@"),
        ("y ~ x - (1|g)", "-"),
        ("y|z ~ (1|g)", "|"),
        ("y ~ x ~ (1|g)", "~"),
        ("~ (1|g)", "~"),
        ("y ~", "~"),
        ("y ~ x + + (1|g)", "+"),
        ("y ~ (1|a/)", "a"),
    ],
)
def test_points_at_the_offending_token(text, token):
    with pytest.raises(DynstatError) as caught:
        parse_formula(text)
    error = caught.value
    assert error.code == "S401"
    assert error.found == (token or "")
    if token:
        lines = str(error).splitlines()
        at = next(i for i, line in enumerate(lines) if text in line)
        # The mark stands in the column where the token stands.
        assert lines[at][lines[at + 1].index("^")] == token[0]
