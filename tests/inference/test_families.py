"""Families against the definitions of their corrections, by hand and slowly, and for any p-values."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dynstat.errors import DynstatError
from dynstat.inference.multiplicity import (
    CORRECTIONS,
    STAGED,
    adjust,
    error_held,
    family_problems,
    level_of_each_test,
    strictest_level,
)


def claims(m: int, family: str = "main") -> dict:
    return {f"H{i}": {"family": family, "order": i} for i in range(1, m + 1)}


def run(correction: str, support, reject=None, alpha: float = 0.05, **extra):
    names = [f"H{i}" for i in range(1, len(support) + 1)]
    reject = [None if p is None else 1 - p for p in support] if reject is None else reject
    family = {"main": {"alpha": alpha, "correction": correction, "reason": "shown alone", **extra}}
    return adjust(
        family,
        claims(len(names)),
        dict(zip(names, support, strict=True)),
        dict(zip(names, reject, strict=True)),
    )


def test_bonferroni_holds_each_of_the_2m_tests_at_alpha_over_m():
    out = run("bonferroni", [0.01, 0.5, None])
    assert [a.level_support for a in out.values()] == [0.05 / 3] * 3
    assert out["H1"].p_support == pytest.approx(0.03) and out["H2"].p_reject == 1.0
    assert out["H3"].p_support is None and out["H3"].m == 3
    assert out["H1"].level == level_of_each_test(0.05, 3)


def test_holm_steps_each_kind_down_by_its_own_half():
    """By hand: divisors 4, 4, 2 for three hypotheses; the p-values of support and of rejection apart."""
    out = run("holm", [0.01, 0.02, 0.001], [0.99, 0.98, 0.999])
    assert [out[h].p_support for h in ("H3", "H1", "H2")] == pytest.approx([0.004, 0.04, 0.04])
    assert all(a.level_support == 0.05 / 2 and a.level_reject == 0.05 / 4 for a in out.values())
    # The second step fails: what comes behind it fails with it, though .02 is below .05 / 2.
    out = run("holm", [0.015, 0.02, 0.001], [0.99, 0.98, 0.999])
    assert [out[h].p_support for h in ("H3", "H1", "H2")] == pytest.approx([0.004, 0.06, 0.06])
    assert all(a.level_support == 0.05 / 4 for a in out.values())
    assert [a.p_support for a in run("holm", [0.03]).values()] == [0.03]
    two = run("holm", [0.02, 0.6])
    assert two["H1"].p_support == pytest.approx(0.04) and two["H1"].level_support == 0.025


def test_a_fixed_sequence_stops_at_the_first_that_is_not_supported():
    out = run("fixed_sequence", [0.001, 0.02, 0.2, 0.0001], order=["H2", "H1", "H3", "H4"])
    assert [out[h].reached for h in ("H2", "H1", "H3", "H4")] == [True, True, True, False]
    assert [out[h].p_support for h in ("H2", "H1", "H3", "H4")] == pytest.approx([0.04, 0.04, 0.4, 0.4])
    assert out["H4"].note == "H3 before it was not supported" and out["H1"].level_support == 0.025
    # Rejection waits for nobody: a late hypothesis is rejected though the sequence stopped before it.
    out = run("fixed_sequence", [0.5, 0.9999], [0.5, 0.0001], order=["H1", "H2"])
    assert not out["H2"].reached and out["H2"].p_reject == pytest.approx(0.0002)
    # One that has no result stops the sequence as well.
    out = run("fixed_sequence", [None, 0.001], [None, 0.9], order=["H1", "H2"])
    assert out["H1"].p_support is None and not out["H2"].reached and out["H2"].p_support == 1.0


def gates(alpha=0.05, root="gatekeeping"):
    families = {
        "later": {"alpha": alpha, "correction": "gatekeeping", "after": "first"},
        "first": {"alpha": alpha, "correction": root},
    }
    hypotheses = {
        "L1": {"family": "later", "order": 1},
        "F1": {"family": "first", "order": 2},
        "F2": {"family": "first", "order": 3},
    }
    return families, hypotheses


@pytest.mark.parametrize("root", ["gatekeeping", "bonferroni", "holm"])
def test_a_gate_opens_when_all_before_it_are_supported(root):
    families, hypotheses = gates(root=root)
    p = {"L1": 0.02, "F1": 0.001, "F2": 0.01}
    q = {h: 1 - v for h, v in p.items()}
    out = adjust(families, hypotheses, p, q)
    assert list(out) == list(hypotheses) and out["L1"].reached
    assert out["L1"].level_support == 0.025 and out["L1"].p_support == pytest.approx(0.04)
    # A bonferroni head is tested in one step (divisor 4), the others step down (4, then 2).
    assert out["F2"].p_support == pytest.approx(0.04 if root == "bonferroni" else 0.02)
    shut = adjust(families, hypotheses, p | {"F2": 0.2}, q | {"F2": 0.8})
    assert not shut["L1"].reached and shut["L1"].p_support >= 0.4
    assert shut["L1"].note == "F2 before it was not supported"
    # Positive and shown to be too small: both tests are passed, the hypothesis is rejected, the gate is shut.
    both = adjust(families, hypotheses, p, q | {"F2": 0.0001})
    assert not both["L1"].reached and both["L1"].p_support == 1.0


def test_bh_counts_a_hypothesis_once_and_by_its_smaller_p():
    """Against SciPy's step-up on the smaller p of each hypothesis."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        support = rng.uniform(size=6) ** 2
        reject = 1 - support
        out = run("bh", support.tolist(), reject.tolist())
        expected = stats.false_discovery_control(np.minimum(support, reject), method="bh")
        found = [min(a.p_support, a.p_reject) for a in out.values()]
        assert found == pytest.approx(expected)


def test_none_leaves_everything_as_it_is():
    out = run("none", [0.04, None])
    assert (out["H1"].p_support, out["H1"].level) == (0.04, 0.05) and out["H2"].p_support is None


p_values = st.one_of(st.none(), st.just(math.nan), st.floats(0, 1), st.floats(0, 0.06))
lists = st.lists(st.tuples(p_values, p_values), min_size=1, max_size=9)


@settings(max_examples=300, deadline=None)
@given(lists, st.sampled_from(list(CORRECTIONS)), st.floats(0.001, 0.3))
def test_levels_and_adjusted_p_values_say_the_same(pairs, correction, alpha):
    support, reject = zip(*pairs, strict=True)
    out = run(correction, support, reject, alpha)
    for a, p, q in zip(out.values(), support, reject, strict=True):
        assert 0 < min(a.level_support, a.level_reject) and a.m == len(pairs)
        assert max(a.level_support, a.level_reject) <= alpha * (1 + 1e-12)
        for raw, adjusted, level, open_ in (
            (p, a.p_support, a.level_support, a.reached),
            (q, a.p_reject, a.level_reject, True),
        ):
            if raw is None or math.isnan(raw):
                assert adjusted is None
            else:
                assert adjusted >= raw or adjusted == 1.0
                if abs(raw - level) > 1e-12 and abs(adjusted - alpha) > 1e-12:
                    assert (adjusted <= alpha) == (raw <= level and open_)


@settings(max_examples=200, deadline=None)
@given(lists, st.sampled_from(list(CORRECTIONS)), st.data())
def test_a_smaller_p_helps_itself_and_a_missing_one_helps_nobody(pairs, correction, data):
    support, reject = (list(x) for x in zip(*pairs, strict=True))
    before = run(correction, support, reject)
    i = data.draw(st.integers(0, len(pairs) - 1))
    gone = run(correction, [*support[:i], None, *support[i + 1 :]], [*reject[:i], None, *reject[i + 1 :]])
    for h in before:
        if h != f"H{i + 1}":
            # Rejection of another may shut a gate, so to lose it can open one in a fixed sequence.
            if correction not in ("fixed_sequence", "gatekeeping") and before[h].p_support is not None:
                assert gone[h].p_support >= before[h].p_support - 1e-12
            if before[h].p_reject is not None:
                assert gone[h].p_reject >= before[h].p_reject - 1e-12
            assert gone[h].m == before[h].m
    if support[i] is not None and not math.isnan(support[i]):
        support[i] /= 2
        better = run(correction, support, reject)[f"H{i + 1}"]
        assert better.p_support <= before[f"H{i + 1}"].p_support + 1e-12


@pytest.mark.parametrize("correction", ["bonferroni", *STAGED])
@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_no_set_of_true_nulls_can_err_more_often_than_alpha(correction, m):
    """Exact: wrong decisions under the worst dependence and the worst help, over all sets of true nulls.

    Each hypothesis has a true null of support, or of rejection, or is left to help: its p-value of the other
    side is 0. A true null errs where its p lies below the level it gets after all help; the union bound over
    the true nulls, each at the largest level it can meet before the first error, must not exceed alpha.
    """
    alpha = 0.05
    for s in range(m + 1):
        for supports in combinations(range(m), s):
            # Everything else: rejection null true, support helped. Then the mirror and the empty mixture.
            total = 0.0
            for i in range(m):
                true = "support" if i in supports else "reject"
                support = [1.0 if k in supports else 0.0 for k in range(m)]
                reject = [0.0 if k in supports else 1.0 for k in range(m)]
                target, other = (support, reject) if true == "support" else (reject, support)
                target[i] = 1.0
                # Its own level: the largest p that would still pass while the other true nulls do not err.
                low, high = 0.0, alpha
                for _ in range(40):
                    target[i] = (low + high) / 2
                    other[i] = 1.0 - target[i]
                    a = run(correction, support, reject, alpha)[f"H{i + 1}"]
                    got = a.p_support if true == "support" else a.p_reject
                    low, high = (target[i], high) if got <= alpha else (low, target[i])
                total += low
            assert total <= alpha * (1 + 1e-6), (supports, total)


def test_naive_stepping_would_err_more_often_than_alpha():
    """The reason for the halves: three claims well resolved, two effects at the SESOI, the third at zero.

    With divisors 3, 2, 1 over the smaller p of each hypothesis the two are supported first, and the third
    is then tested at alpha, while each of the two could have been rejected wrongly at alpha / 3 or more.
    """
    rng = np.random.default_rng(8)
    d, n = 3.5, 40_000
    x = rng.normal([d, d, 0.0], 1.0, (n, 3))
    support, reject = stats.norm.sf(x), stats.norm.cdf(x - d)
    smaller = np.minimum(support, reject)
    order = np.argsort(smaller, axis=1)
    passed = np.cumprod(np.take_along_axis(smaller, order, 1) * [3, 2, 1] <= 0.05, axis=1).astype(bool)
    decided = np.zeros_like(passed)
    np.put_along_axis(decided, order, passed, 1)
    wrong = (decided[:, :2] & (reject < support)[:, :2]).any(1) | (decided[:, 2] & (support < reject)[:, 2])
    assert wrong.mean() > 0.075


@pytest.mark.parametrize(
    ("families", "text"),
    [
        ({"main": {"alpha": 0.05, "correction": "sidak"}}, "unknown correction"),
        ({"main": {"alpha": 0.5, "correction": "holm"}}, "alpha must lie"),
        ({"main": {"alpha": 0.05, "correction": "holm", "order": ["H1"]}}, "order belongs to fixed_sequence"),
        ({"main": {"alpha": 0.05, "correction": "fixed_sequence", "order": ["H1", "H1"]}}, "order belongs"),
        ({"main": {"alpha": 0.05, "correction": "none"}}, "needs a reason"),
        ({"main": {"alpha": 0.05, "correction": "gatekeeping"}}, "names the family before it"),
        ({"main": {"alpha": 0.05, "correction": "gatekeeping", "after": "main"}}, "in a circle"),
        ({"main": {"alpha": 0.05, "correction": "gatekeeping", "after": "gone"}}, "and such a family"),
        ({"main": {"alpha": 0.05, "correction": "holm", "after": "b"}, "b": {"alpha": 0.05}}, "needs correc"),
        (
            {
                "main": {"alpha": 0.05, "correction": "gatekeeping", "after": "b"},
                "b": {"alpha": 0.05, "correction": "bh"},
            },
            "no family-wise error",
        ),
        (
            {"main": {"alpha": 0.05, "correction": "gatekeeping", "after": "b"}, "b": {"alpha": 0.01}},
            "the same alpha",
        ),
        ({"other": {"alpha": 0.05}}, "not declared"),
    ],
)
def test_families_that_cannot_be_tested_are_told(families, text):
    problems = family_problems(families, claims(2))
    assert any(text in what for _, what in problems), problems
    if "reason" not in text and "names the family" not in text:
        with pytest.raises(DynstatError) as e:
            adjust(families, claims(2), {}, {})
        assert e.value.code == "S404"


def test_impossible_p_values_are_refused():
    for p in ({"H9": 0.1}, {"H1": 1.5}, {"H1": -0.1}):
        with pytest.raises(DynstatError):
            adjust({"main": {"alpha": 0.05}}, claims(2), p, {})


def test_levels_before_any_data():
    assert level_of_each_test(0.05, 8, "holm") == 0.05 / 14 and level_of_each_test(0.05, 1, "holm") == 0.05
    assert level_of_each_test(0.05, 8, "none") == 0.05 and level_of_each_test(0.05, 8, "bh") == 0.05 / 8
    assert "FWER) is not held" in error_held({"main": {"correction": "bh"}}, {"family": "main"})


def test_the_strictest_level_is_never_undercut():
    """Whatever the p-values, no test is held to less; and a bonferroni head shares its alpha."""
    rng = np.random.default_rng(11)
    families, hypotheses = gates(root="bonferroni")
    cases = [(families, hypotheses)]
    cases += [
        ({"main": {"alpha": 0.05, "correction": c}}, claims(4)) for c in CORRECTIONS if c != "gatekeeping"
    ]
    for plan, held in cases:
        for _ in range(40):
            p = {h: float(rng.uniform() ** 4) for h in held}
            for h, a in adjust(plan, held, p, {h: 1 - v for h, v in p.items()}).items():
                assert a.level >= strictest_level(plan, held, held[h]["family"]) - 1e-15
    assert strictest_level(families, hypotheses, "first") == 0.05 / 4
    assert strictest_level({"main": {"alpha": 0.05}}, claims(3), "main") == 0.05 / 3
