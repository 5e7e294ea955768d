"""Rules over all estimates, errors, SESOIs, levels and pivots: what must hold whatever the numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynstat.inference.estimate import AdjustedDrawsPivot, DrawsPivot, Estimate, TPivot
from dynstat.inference.rules import DIRECTED, REASONS, RULES, Rule, judge, p_values_of, unfit
from dynstat.inference.wording import is_never_negative, number

kinds = st.sampled_from(list(RULES))
directions = st.sampled_from(["greater", "less"])
values = st.floats(-50, 50)
errors = st.floats(1e-3, 20)
sesois = st.floats(1e-3, 30)
levels = st.floats(0.001, 0.3)
dfs = st.sampled_from([2.0, 5.0, 30.0, math.inf])
shapes = st.lists(st.floats(-3, 3), min_size=3, max_size=25)


def rule_of(kind: str, direction: str, d: float, c: float = 0.0) -> Rule:
    return Rule(kind, direction, sesoi=d, threshold=c, range=(c - d, c + d))


def estimate(pivot, value: float = 0.0) -> Estimate:
    return Estimate.from_pivot("x", value, pivot, method="m@1", interval="", unit="prompt", n={})


pivots = st.one_of(
    st.builds(lambda x, se, df: ("t", x, se, df), values, errors, dfs),
    st.builds(lambda x, se, shape: ("draws", x, se, tuple(shape)), values, errors, shapes),
)


def made(spec, move: float = 0.0, mirror: bool = False):
    """Return a pivot, moved by some amount, or with every number of the other sign."""
    kind, x, se, rest = spec
    sign = -1.0 if mirror else 1.0
    if kind == "t":
        return TPivot(sign * (x + move), se, rest)
    return DrawsPivot(tuple(sign * (x + se * z + move) for z in rest))


@settings(max_examples=400, deadline=None)
@given(kinds, directions, pivots, sesois, values, levels, levels)
def test_outcomes_exclude_each_other(kind, direction, spec, d, c, alpha, other):
    rule, e = rule_of(kind, direction, d, c), estimate(made(spec))
    found = judge([(rule, e)], alpha, alpha_reject=other)
    p_support, p_reject = rule.p_values(e.pivot)
    assert 0 <= p_support <= 1 and 0 <= p_reject <= 1 and found.reason_code in REASONS
    assert (found.outcome == "rejected") == (p_reject <= other)
    assert (found.outcome == "supported") == (p_support <= alpha and p_reject > other)
    if kind not in ("directional", "nonzero"):
        # Both tests cannot be passed, whatever the two levels: no order of precedence is needed.
        assert not (p_support <= alpha and p_reject <= other)


@settings(max_examples=300, deadline=None)
@given(kinds, directions, pivots, sesois, values, levels)
def test_greater_and_less_mirror_each_other(kind, direction, spec, d, c, alpha):
    here = judge([(rule_of(kind, direction, d, c), estimate(made(spec)))], alpha)
    turned = {"greater": "less", "less": "greater"}[direction]
    there = judge([(rule_of(kind, turned, d, -c), estimate(made(spec, mirror=True)))], alpha)
    assert here.p_support == pytest.approx(there.p_support, abs=1e-9)
    assert here.p_reject == pytest.approx(there.p_reject, abs=1e-9)
    if min(abs(p - alpha) for p in (here.p_support, here.p_reject)) > 1e-9:
        assert here.outcome == there.outcome
        mirrored = {"below_threshold": "above_threshold", "above_threshold": "below_threshold"}
        assert mirrored.get(here.reason_code, here.reason_code) == there.reason_code


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DIRECTED), pivots, sesois, values, st.floats(0, 30))
def test_a_larger_estimate_speaks_more_for_greater(kind, spec, d, c, move):
    rule = rule_of(kind, "greater", d, c)
    before, after = rule.p_values(made(spec)), rule.p_values(made(spec, move))
    assert after[0] <= before[0] + 1e-12 and after[1] >= before[1] - 1e-12


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["in_range", "equivalence", "nonzero"]),
    errors,
    dfs,
    sesois,
    st.floats(0, 40),
    st.floats(0, 20),
)
def test_two_sided_rules_turn_with_the_distance_from_the_middle(kind, se, df, d, x, move):
    rule = rule_of(kind, "greater", d)
    near, far = rule.p_values(TPivot(x, se, df)), rule.p_values(TPivot(x + move, se, df))
    if kind == "nonzero":
        near, far = near[::-1], far[::-1]
    # Farther out there is less to say for lying inside and more for lying outside.
    assert far[0] >= near[0] - 1e-12 and far[1] <= near[1] + 1e-12


@settings(max_examples=300, deadline=None)
@given(kinds, directions, pivots, sesois, st.floats(1, 5))
def test_a_larger_sesoi_asks_for_more_or_rejects_more(kind, direction, spec, d, factor):
    """Each rule is monotone in its SESOI: which way is part of what the rule means."""
    assume(kind != "threshold")
    pivot = made(spec)
    small, large = (rule_of(kind, direction, x).p_values(pivot) for x in (d, d * factor))
    if kind == "directional":
        assert large[0] == small[0] and large[1] <= small[1] + 1e-12
    elif kind == "minimum_effect":
        assert large[0] >= small[0] - 1e-12 and large[1] <= small[1] + 1e-12
    elif kind == "nonzero":
        assert large[0] == small[0] and large[1] <= small[1] + 1e-12
    else:
        assert large[0] <= small[0] + 1e-12
        # Rejection counts both tails: draws in two lumps may lie in one of the narrow range, not of the wide.
        if spec[0] == "t":
            assert large[1] >= small[1] - 1e-12


@settings(max_examples=200, deadline=None)
@given(kinds, directions, dfs, sesois, values, levels)
def test_every_outcome_is_reachable(kind, direction, df, d, c, alpha):
    """Support and rejection with a small standard error, inconclusive with a large one, by witness."""
    rule = rule_of(kind, direction, d, c)
    sign = -1.0 if direction == "less" else 1.0
    inside, beyond = (c, c + 3 * d) if kind == "in_range" else (0.0, 3 * d)
    witness = {
        "directional": (sign * 3 * d, -sign * 3 * d),
        "minimum_effect": (sign * 3 * d, -sign * 3 * d),
        "threshold": (c + sign * 3 * d, c - sign * 3 * d),
        "nonzero": (3 * d, 0.0),
    }.get(kind, (inside, beyond))
    for outcome, x in zip(("supported", "rejected"), witness, strict=True):
        assert judge([(rule, estimate(TPivot(x, d * 1e-4, df)))], alpha).outcome == outcome
    # As large an error as that leaves both sides open, about the edge that decides.
    edge = {"threshold": c, "in_range": c}.get(kind, 0.0)
    assert judge([(rule, estimate(TPivot(edge, 1e6 * d, df)))], alpha).outcome == "inconclusive"


@pytest.mark.parametrize("kind", list(RULES))
@pytest.mark.parametrize(
    "pivot",
    [
        TPivot(math.nan, 1.0, 9.0),
        TPivot(9.0, math.nan, 9.0),
        TPivot(9.0, 1.0, math.nan),
        TPivot(math.nan, 0.0, math.inf),
        TPivot(9.0, math.inf, 9.0),
        TPivot(math.inf, math.inf, 9.0),
        DrawsPivot((math.nan,) * 999),
        AdjustedDrawsPivot((math.nan,) * 999, 20),
    ],
)
def test_nan_and_infinite_errors_never_decide(kind, pivot):
    for direction in ("greater", "less"):
        found = judge([(rule_of(kind, direction, 2.0, 0.5), estimate(pivot))], 0.05)
        assert found.outcome == "inconclusive"


class OneSided:
    """A pivot of which one tail has no value: the other must not decide alone."""

    def __init__(self, above: float, below: float) -> None:
        self.above, self.below = above, below

    def limit(self, alpha, side):
        return math.inf if side == "upper" else -math.inf

    def p_above(self, value):
        return self.above

    def p_below(self, value):
        return self.below


@pytest.mark.parametrize("kind", list(RULES))
def test_infinite_limits_are_written_and_a_missing_tail_counts_as_one(kind):
    rule = rule_of(kind, "greater", 2.0)
    found = judge([(rule, estimate(OneSided(0.4, 0.4)))], 0.05)
    assert found.outcome == "inconclusive" and number(math.inf) == "∞"
    if kind != "threshold":
        assert "∞" in found.criteria[0]
    for pivot in (OneSided(math.nan, 0.0001), OneSided(0.0001, math.nan)):
        p_support, p_reject = rule.p_values(pivot)
        if kind in ("equivalence", "in_range"):
            assert p_support == 1.0
        if kind == "nonzero":
            assert p_reject == 1.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(kinds, directions, pivots, sesois), min_size=1, max_size=4), levels)
def test_all_and_any_are_dual(parts, alpha):
    """`all` of threshold claims is supported just where `any` of their opposites is rejected."""
    opposite = {"greater": "less", "less": "greater"}
    given_ = [(Rule("threshold", g, threshold=d), estimate(made(s))) for _, g, s, d in parts]
    turned = [(Rule("threshold", opposite[g], threshold=d), estimate(made(s))) for _, g, s, d in parts]
    assert p_values_of(given_, join="all") == p_values_of(turned, join="any")[::-1]
    a, b = judge(given_, alpha, join="all"), judge(turned, alpha, join="any")
    swap = {"supported": "rejected", "rejected": "supported", "inconclusive": "inconclusive"}
    assert a.outcome == swap[b.outcome]


def test_rules_of_signs_do_not_fit_what_is_never_negative():
    assert "share.model is never negative" in unfit("nonzero", "share.model")
    assert unfit("nonzero", "sd", "standard_deviation") and unfit("directional", "share.model")
    assert not unfit("directional", "share.model", by_construction="a share is above zero")
    assert not unfit("nonzero", "share_difference", "variance_share") and not unfit("nonzero", "log_ratio")
    assert not any(
        unfit(kind, "share.model") for kind in ("threshold", "minimum_effect", "in_range", "equivalence")
    )
    assert is_never_negative("population.share.model") and not is_never_negative("difference", "probability")
