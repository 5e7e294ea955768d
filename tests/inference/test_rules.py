"""Rules against simulation, closed forms and properties that must hold for every estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dynstat.errors import DynstatError
from dynstat.inference.estimate import DrawsPivot, Estimate, TPivot
from dynstat.inference.family_tests import parts_of
from dynstat.inference.family_tests import tests_of as adjusted_of
from dynstat.inference.multiplicity import joined, level_of_each_test
from dynstat.inference.rules import REASONS, RULES, Rule, judge

ALPHA = 0.05
DRAWS = 20_000


def rates(rule: Rule, truth: float, seed: int = 0) -> tuple[float, float]:
    """Return the shares supported and rejected among draws around a true value, by the scalar rule itself."""
    x = np.random.default_rng(seed).normal(truth, 1.0, DRAWS)
    support, reject = np.array([rule.p_values(Normal(value)) for value in x]).T
    return float(np.mean((support <= ALPHA) & (reject > ALPHA))), float(np.mean(reject <= ALPHA))


class Normal:
    """A normal pivot with standard error 1, by the error function of the standard library."""

    def __init__(self, value: float) -> None:
        self.value = value

    def p_above(self, v: float) -> float:
        return 0.5 * math.erfc((self.value - v) / math.sqrt(2))

    def p_below(self, v: float) -> float:
        return 0.5 * math.erfc((v - self.value) / math.sqrt(2))


def near(rate: float, expected: float, width: float = 4.0) -> bool:
    return abs(rate - expected) <= width * math.sqrt(max(expected * (1 - expected), 1e-4) / DRAWS) + 1e-12


def estimate(value: float, se: float = 1.0, key: str = "x", null=None, **pivot) -> Estimate:
    made = TPivot(value, se, pivot.pop("df", math.inf), **pivot)
    return Estimate.from_pivot(
        key, value, made, method="test.mean@1", interval="t", unit="prompt", n={"rows": 9}, null=null
    )


# Table of the references: d / SE, then supported and rejected at a true effect of 0 and of d.
@pytest.mark.parametrize(
    ("d", "at_zero", "at_d"),
    [(1.5, (0.05, 0.44), (0.44, 0.05)), (2.5, (0.05, 0.80), (0.80, 0.05)), (3.5, (0.03, 0.97), (0.95, 0.05))],
)
def test_operating_characteristics_of_directional(d, at_zero, at_d):
    rule = Rule("directional", sesoi=d)
    for truth, expected in ((0.0, at_zero), (d, at_d)):
        found = rates(rule, truth, seed=round(10 * d + truth))
        # The table is printed to two digits: half a digit and four Monte-Carlo errors.
        assert found == pytest.approx(expected, abs=0.005 + 4 * 0.5 / math.sqrt(DRAWS))


@pytest.mark.parametrize("direction", ["greater", "less"])
def test_mirrored_rules_have_mirrored_rates(direction):
    sign = 1 if direction == "greater" else -1
    found = rates(Rule("directional", direction, sesoi=2.5), sign * 2.5, seed=3)
    exact = (stats.norm.cdf(2.5 - stats.norm.isf(0.05)), 0.05)
    assert near(found[0], exact[0]) and near(found[1], exact[1])
    found = rates(Rule("minimum_effect", direction, sesoi=1.0), sign * 1.0, seed=4)
    assert near(found[0], 0.05) and near(found[1], 0.05)
    found = rates(Rule("threshold", direction, threshold=-0.7), -0.7, seed=5)
    assert near(found[0], 0.05) and near(found[1], 0.05)


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0, 6.0])
def test_in_range_errs_at_exactly_alpha_at_either_edge(width):
    """Rejection counts both tails: at an edge it happens in alpha of the cases, however narrow the range."""
    rule = Rule("in_range", range=(0.0, width))
    for seed, edge in enumerate((0.0, width)):
        supported, rejected = rates(rule, edge, seed=10 + seed)
        assert near(rejected, ALPHA)
        # Support at the edge needs the other side excluded as well, so it happens in at most alpha.
        z = stats.norm.isf(ALPHA)
        assert near(supported, max(0.0, stats.norm.sf(z) - stats.norm.sf(width - z)))


def test_a_naive_union_would_exceed_alpha_where_the_range_is_narrow():
    """The reason for counting both tails: either one-sided test alone, united, errs in up to twice alpha."""
    x = np.random.default_rng(1).normal(0.0, 1.0, DRAWS)
    naive = np.mean((stats.norm.sf(x - 0.5) <= ALPHA) | (stats.norm.cdf(x) <= ALPHA))
    assert naive > ALPHA + 4 * math.sqrt(ALPHA / DRAWS)


@pytest.mark.parametrize("d", [1.0, 2.5])
def test_equivalence_and_nonzero_rates(d):
    supported, rejected = rates(Rule("equivalence", sesoi=d), d, seed=20)
    assert near(rejected, ALPHA) and supported <= ALPHA + 0.005
    supported, rejected = rates(Rule("nonzero", sesoi=d), 0.0, seed=21)
    # Two-sided alpha, less the estimates that are shown to lie inside plus and minus d.
    assert supported <= ALPHA + 0.005
    supported, rejected = rates(Rule("nonzero", sesoi=d), d, seed=22)
    assert rejected <= ALPHA + 0.005


def test_family_wise_error_of_three_true_nulls_holds():
    """Three in_range claims, each truth at an edge: a wrong decision in at most alpha of the studies."""
    rng = np.random.default_rng(5)
    rule = Rule("in_range", range=(0.0, 4.0))
    a = level_of_each_test(0.05, 3)
    wrong = np.zeros(DRAWS // 2, dtype=bool)
    for _ in range(3):
        x = rng.normal(4.0, 1.0, wrong.size)
        # At the edge the claim holds: rejecting it is the error (its support is not one).
        wrong |= np.array([rule.p_values(Normal(v))[1] <= a for v in x])
    assert np.mean(wrong) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / wrong.size)


finite = st.floats(-20, 20, allow_nan=False)
rules = st.one_of(
    st.builds(
        Rule,
        st.sampled_from(["directional", "minimum_effect"]),
        st.sampled_from(["greater", "less"]),
        sesoi=st.floats(1e-6, 10),
    ),
    st.builds(Rule, st.sampled_from(["equivalence", "nonzero"]), sesoi=st.floats(1e-6, 10)),
    st.builds(Rule, st.just("threshold"), st.sampled_from(["greater", "less"]), threshold=finite),
    st.builds(
        lambda a, w, n: Rule("in_range", range=(a, a + w), beyond_null=n),
        finite,
        st.floats(1e-6, 20),
        st.sampled_from(["", "null"]),
    ),
)
t_pivots = st.builds(
    TPivot,
    finite,
    st.one_of(st.just(0.0), st.floats(1e-6, 50)),
    st.sampled_from([1.0, 4.0, 11.0, math.inf]),
    st.sampled_from(["identity", "logit", "log"]),
)
draws = st.builds(lambda d: DrawsPivot(tuple(d)), st.lists(finite, min_size=1, max_size=40))


def _estimate(pivot, p):
    return Estimate.from_pivot(
        "x", 0.1, pivot, method="m@1", interval="", unit="prompt", n={}, null={"name": "null", "p": p}
    )


estimates = st.builds(_estimate, st.one_of(t_pivots, draws), st.floats(0, 1))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(rules, estimates), min_size=1, max_size=4),
    st.floats(0.001, 0.499),
    st.sampled_from(["all", "any"]),
)
def test_no_estimate_is_both_supported_and_rejected(parts, alpha, join):
    verdict = judge(parts, alpha, join=join)
    assert verdict.outcome in ("supported", "rejected", "inconclusive")
    assert verdict.reason_code in REASONS
    if verdict.outcome == "supported":
        assert verdict.p_support <= alpha < verdict.p_reject
    if verdict.outcome == "rejected":
        assert verdict.p_reject <= alpha
    if verdict.p_support <= alpha and verdict.p_reject <= alpha:
        # Only rules whose support gives way to rejection may pass both tests.
        assert {r.kind for r, _ in parts} & {"directional", "nonzero"}


@settings(max_examples=200, deadline=None)
@given(rules, t_pivots, st.floats(0.001, 0.4), st.floats(0, 0.09))
def test_a_stricter_level_never_makes_a_decision_out_of_none(rule, pivot, alpha, more):
    strict = judge([(rule, _estimate(pivot, 0.0))], alpha)
    if strict.outcome == "rejected":
        assert judge([(rule, _estimate(pivot, 0.0))], alpha + more).outcome == "rejected"


def test_every_reason_code_of_a_rejection():
    cases = [
        (Rule("directional", sesoi=5.0), 1.0, "too_small"),
        (Rule("directional", sesoi=5.0), -4.0, "opposite_sign"),
        (Rule("directional", "less", sesoi=5.0), 4.0, "opposite_sign"),
        (Rule("minimum_effect", sesoi=5.0), 3.0, "too_small"),
        (Rule("minimum_effect", "less", sesoi=5.0), -3.0, "too_small"),
        (Rule("minimum_effect", sesoi=5.0), -3.0, "opposite_sign"),
        (Rule("threshold", threshold=5.0), 2.0, "below_threshold"),
        (Rule("threshold", "less", threshold=5.0), 8.0, "above_threshold"),
        (Rule("equivalence", sesoi=1.0), 4.0, "not_equivalent"),
        (Rule("nonzero", sesoi=5.0), 0.5, "practically_equivalent"),
        (Rule("in_range", range=(0.0, 1.0)), 4.0, "out_of_range"),
        (Rule("in_range", range=(0.0, 1.0)), -4.0, "out_of_range"),
    ]
    for rule, value, code in cases:
        verdict = judge([(rule, estimate(value))], ALPHA)
        assert (verdict.outcome, verdict.reason_code) == ("rejected", code), rule
        assert verdict.criteria[1].endswith(": met.") and verdict.criteria[0].endswith(": not met.")


def test_decisions_flip_where_the_estimate_moves():
    """The mutation check: each rule gives all three outcomes as the estimate moves."""
    for rule in (
        Rule("directional", sesoi=3.0),
        Rule("minimum_effect", sesoi=3.0),
        Rule("threshold", threshold=6.0),
        Rule("equivalence", sesoi=3.0),
        Rule("nonzero", sesoi=3.0),
        Rule("in_range", range=(6.0, 12.0)),
        Rule("directional", "less", sesoi=3.0),
        Rule("threshold", "less", threshold=6.0),
    ):
        found = {judge([(rule, estimate(float(x)))], ALPHA).outcome for x in np.arange(-20, 20, 0.25)}
        assert found == {"supported", "rejected", "inconclusive"}, rule
    assert {"directional", "minimum_effect", "threshold", "equivalence", "nonzero", "in_range"} == set(RULES)


def test_all_takes_the_largest_p_and_k_times_the_smallest():
    strong, weak = estimate(4.0), estimate(1.8)
    rule = Rule("threshold", threshold=0.0)
    both = judge([(rule, strong), (rule, weak)], ALPHA)
    assert both.p_support == pytest.approx(stats.norm.sf(1.8))
    assert both.p_reject == pytest.approx(min(1.0, 2 * stats.norm.cdf(1.8)))
    assert both.outcome == "supported"
    low = judge([(rule, estimate(-1.8)), (rule, strong)], ALPHA)
    # One part rejects at alpha and not at alpha / 2: the claim is neither supported nor rejected.
    assert low.p_reject == pytest.approx(2 * stats.norm.cdf(-1.8)) and low.outcome == "inconclusive"


def test_any_is_the_mirror_of_all():
    rule = Rule("threshold", threshold=0.0)
    parts = [(rule, estimate(1.8)), (rule, estimate(-3.0))]
    found = judge(parts, ALPHA, join="any")
    assert found.p_support == pytest.approx(2 * stats.norm.sf(1.8)) and found.outcome == "inconclusive"
    assert found.p_reject == pytest.approx(stats.norm.cdf(1.8))
    mirrored = judge([(Rule("threshold", "less", threshold=0.0), e) for _, e in parts], ALPHA, join="all")
    assert (mirrored.p_support, mirrored.p_reject) == pytest.approx((found.p_reject, found.p_support))
    assert judge([(rule, estimate(-3.0))] * 2, ALPHA, join="any").outcome == "rejected"


def test_a_part_shown_to_be_too_small_vetoes_the_whole():
    rule = Rule("directional", sesoi=4.0)
    # Positive beyond doubt and below the SESOI at alpha, though not at alpha / 2.
    tiny = estimate(4.0 - 1.8)
    found = judge([(rule, tiny), (rule, estimate(9.0))], ALPHA)
    assert found.p_support <= ALPHA and found.outcome == "inconclusive"


def test_beyond_null_blocks_support_and_never_rejects():
    rule = Rule("threshold", threshold=0.0, beyond_null="length_matched")
    cases = [
        (4.0, {"name": "length_matched", "p": 0.01}, "supported", "supported_by_rule"),
        (4.0, {"name": "length_matched", "p": 0.2}, "inconclusive", "not_beyond_null"),
        (4.0, {"name": "another", "p": 0.01}, "inconclusive", "not_beyond_null"),
        (4.0, None, "inconclusive", "not_beyond_null"),
        (0.1, {"name": "length_matched", "p": 0.2}, "inconclusive", "not_beyond_null"),
        (-4.0, {"name": "length_matched", "p": 0.9}, "rejected", "below_threshold"),
    ]
    for value, null, outcome, code in cases:
        found = judge([(rule, estimate(value, null=null))], ALPHA)
        assert (found.outcome, found.reason_code) == (outcome, code)
    supported = judge([(rule, estimate(4.0, null={"name": "length_matched", "p": 0.01}))], ALPHA)
    assert supported.p_support == 0.01
    assert any("length_matched" in line for line in supported.criteria)


def test_by_construction_supports_nothing_and_may_be_rejected():
    rule = Rule("threshold", threshold=0.0)
    found = judge([(rule, estimate(9.0))], ALPHA, by_construction="rotations keep distances")
    assert (found.outcome, found.reason_code) == ("inconclusive", "by_construction")
    assert "rotations keep distances" in found.criteria[-1]
    assert judge([(rule, estimate(-9.0))], ALPHA, by_construction="x").outcome == "rejected"


def test_an_estimate_at_the_edge_without_error_decides_nothing():
    for kind, extra in (("threshold", {"threshold": 0.5}), ("in_range", {"range": (0.5, 1.0)})):
        found = judge([(Rule(kind, **extra), estimate(0.5, se=0.0))], ALPHA)
        assert found.outcome == "inconclusive"


def test_nan_never_decides():
    found = judge([(Rule("threshold", threshold=0.0), estimate(math.nan))], ALPHA)
    assert (found.outcome, found.p_support, found.p_reject) == ("inconclusive", 1.0, 1.0)


def test_outside_p_is_the_exact_level_of_the_interval_null_test():
    """Against the closed form of Hodges and Lehmann: at distance t beyond an edge, sf(t) + sf(t + width)."""
    t = TPivot(2.7, 1.0, 11.0)
    p = Rule("in_range", range=(-1.0, 1.0)).p_values(t)[1]
    assert p == pytest.approx(stats.t.sf(1.7, 11) + stats.t.sf(3.7, 11), rel=1e-12)


def test_criteria_carry_the_numbers():
    rule = Rule("in_range", range=(0.036, 0.131), scale="variance_share")
    lines = judge([(rule, estimate(0.0, 0.1, scale="logit"))], 0.05 / 3).criteria
    assert ".036" in lines[0] and ".131" in lines[0] and ".0167" in lines[0] and ".983" in lines[0]
    assert lines[1].endswith("p < .001, to be at most .0167: met.")
    two = [(Rule("threshold", threshold=0.0), estimate(1.0))] * 2
    joined_by = {join: judge(two, ALPHA, join=join).criteria[-1] for join in ("all", "any")}
    assert "supported with the largest p (" in joined_by["all"]
    assert "rejected with 2 times the smallest p (" in joined_by["all"]
    assert "supported with 2 times the smallest p (" in joined_by["any"]
    assert rule.describe().startswith("in range: supported when the quantity lies between .036 and .131")


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "directional"},
        {"kind": "equivalence", "sesoi": 0.0},
        {"kind": "threshold"},
        {"kind": "in_range"},
        {"kind": "in_range", "range": (1.0, 1.0)},
        {"kind": "bigger"},
        {"kind": "threshold", "threshold": 0.0, "direction": "up"},
    ],
)
def test_impossible_rules_are_refused(bad):
    with pytest.raises(DynstatError) as e:
        Rule(**bad)
    assert e.value.code == "S404"


def test_multiplicity_counts_and_refuses():
    assert level_of_each_test(0.05, 3) == 0.05 / 3
    for bad in ((0.5, 3, "bonferroni"), (0.05, 0, "bonferroni"), (0.05, 3, "sidak")):
        with pytest.raises(DynstatError):
            level_of_each_test(*bad)
    with pytest.raises(DynstatError):
        joined([0.1], "median")
    with pytest.raises(DynstatError):
        judge([], ALPHA)
    with pytest.raises(DynstatError):
        judge([(Rule("threshold", threshold=0.0), estimate(1.0))], 0.5)


def test_a_claim_with_a_failing_part_opens_no_way_to_the_next():
    """Its joined p of support is small, but one part is shown to be too small: it is not supported."""
    part = {"rule": "directional", "direction": "greater", "sesoi": {"value": 4.0, "scale": "nat"}}
    claim = {"family": "main", "join": "all", "by_construction": "", "order": 1}
    plan = {
        "families": {"main": {"alpha": 0.05, "correction": "fixed_sequence", "order": ["H1", "H2"]}},
        "hypotheses": {"H1": claim | {"parts": [part, part]}, "H2": claim | {"parts": [part], "order": 2}},
    }
    sound = {"H1": (estimate(8.0), estimate(9.0)), "H2": (estimate(9.0),)}
    assert adjusted_of(plan, sound)["H2"].reached
    # At 2 the first part's p-values are both .023, below .025; twice the second is not.
    torn = {"H1": (estimate(2.0), estimate(9.0)), "H2": (estimate(9.0),)}
    verdict = judge(parts_of(plan["hypotheses"]["H1"], torn["H1"]), 0.025)
    assert verdict.p_support <= 0.025 < verdict.p_reject and verdict.outcome == "inconclusive"
    found = adjusted_of(plan, torn)
    assert not found["H2"].reached and found["H2"].note == "H1 before it was not supported"
