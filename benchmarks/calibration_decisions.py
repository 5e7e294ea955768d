"""Calibration of decisions: how often each rule and each family errs, of either kind, where it errs most.

A rule errs where it supports a claim whose null of support is true, or rejects one whose null of rejection
is true. Both are counted at the edge of their null, the parameter under which the error is most frequent;
an edge that both nulls share counts for each in turn. Estimates are normal with standard error 1, known
(df infinite) or estimated with 11 degrees of freedom.

The counts come from an array form of the rules; on a share of the draws the rules themselves judge, and
every one of their outcomes must be that of the array form.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from dynstat.inference.estimate import DrawsPivot, Estimate, TPivot
from dynstat.inference.rules import Rule, judge

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
SEED = 20261123
ALPHA = 0.05
# Half-width of a share's Monte-Carlo error at 99.9 %.
Z = 3.29
RATIOS = (1.5, 2.5, 3.5)
#: Directional, alpha .05: d / SE to (supported, rejected) at a true effect of 0 and of d.
TABLE = {1.5: (0.05, 0.44, 0.44, 0.05), 2.5: (0.05, 0.80, 0.80, 0.05), 3.5: (0.03, 0.97, 0.95, 0.05)}


class Checks:
    """Collect what lies outside its bounds."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.count = 0

    def most(self, what: str, rate: float, bound: float, n: int, z: float = Z) -> None:
        """Note a rate above its bound by more than the Monte-Carlo error."""
        self.count += 1
        if not rate <= bound + z * math.sqrt(bound * (1 - bound) / n):
            self.failed.append(f"{what}: {rate:.4f}, at most {bound:.4f}")

    def near(self, what: str, rate: float, expected: float, n: int, printed: float = 0.0) -> None:
        """Note a rate that differs from what it must be by more than the Monte-Carlo error."""
        self.count += 1
        if not abs(rate - expected) <= printed + Z * math.sqrt(max(expected * (1 - expected), 1e-5) / n):
            self.failed.append(f"{what}: {rate:.4f}, not {expected:.4f}")

    def true(self, what: str, holds: bool) -> None:
        """Note a condition that does not hold."""
        self.count += 1
        if not holds:
            self.failed.append(what)


@dataclass(frozen=True)
class Sample:
    """Estimates of one parameter: values, standard errors and degrees of freedom."""

    x: Array
    se: Array
    df: float

    @classmethod
    def draw(cls, truth: float, n: int, df: float, rng: np.random.Generator) -> Sample:
        """Draw estimates around a true value with standard error 1."""
        se = np.ones(n) if math.isinf(df) else np.sqrt(rng.chisquare(df, n) / df)
        return cls(rng.normal(truth, 1.0, n), se, df)

    def tail(self, distance: Array) -> Array:
        """Return one-sided p-values at a distance beyond an edge."""
        t = -distance / self.se
        return np.asarray(special.ndtr(t) if math.isinf(self.df) else special.stdtr(self.df, t))

    def above(self, v: float) -> Array:
        """Return the p-values of lying at or below v."""
        return self.tail(self.x - v)

    def below(self, v: float) -> Array:
        """Return the p-values of lying at or above v."""
        return self.tail(v - self.x)

    def estimate(self, i: int, key: str = "x") -> Estimate:
        """Return one of them as an Estimate."""
        pivot = TPivot(float(self.x[i]), float(self.se[i]), self.df)
        return Estimate.from_pivot(
            key, float(self.x[i]), pivot, method="m@1", interval="t", unit="prompt", n={}
        )


def p_arrays(rule: Rule, s: Sample) -> tuple[Array, Array]:
    """Return p-values of support and rejection: the array form of ``Rule.p_values``."""
    d = rule.sesoi or 0.0
    if rule.kind in ("directional", "minimum_effect", "threshold"):
        sign = -1.0 if rule.direction == "less" else 1.0
        edge = rule.threshold or 0.0 if rule.kind == "threshold" else sign * d
        null = 0.0 if rule.kind == "directional" else edge
        if sign < 0:
            return s.below(null), s.above(edge)
        return s.above(null), s.below(edge)
    a, b = rule.ends
    inside = np.maximum(s.above(a), s.below(b))
    if rule.kind == "nonzero":
        return np.minimum(1.0, 2 * np.minimum(s.above(0.0), s.below(0.0))), inside
    return inside, np.minimum(1.0, np.minimum(s.above(a) + s.above(b), s.below(a) + s.below(b)))


def decided(support: Array, reject: Array, alpha: float) -> tuple[Bools, Bools]:
    """Return where a single rule supports and where it rejects."""
    rejected = reject <= alpha
    return (support <= alpha) & ~rejected, rejected


def outcomes_agree(
    rule: Rule, s: Sample, supported: Bools, rejected: Bools, alpha: float, share: int
) -> bool:
    """Return whether the rule itself says on the first draws what the array form says."""
    for i in range(min(share, s.x.size)):
        found = judge([(rule, s.estimate(i))], alpha).outcome
        expected = "rejected" if rejected[i] else "supported" if supported[i] else "inconclusive"
        if found != expected:
            return False
    return True


@dataclass(frozen=True)
class Case:
    """A rule with the parameters at which its errors are most frequent."""

    name: str
    rule: Rule
    support: tuple[float, ...]
    reject: tuple[float, ...]

    def exact(self, truth: float, alpha: float) -> tuple[float, float]:
        """Return the exact shares of support and rejection for a normal estimate with known error."""
        z, d, n = stats.norm.isf(alpha), self.rule.sesoi or 0.0, stats.norm
        sign = -1.0 if self.rule.direction == "less" else 1.0
        t = sign * truth
        if self.rule.kind == "directional":
            return float(n.sf(max(z, d - z) - t)), float(n.cdf(d - z - t))
        if self.rule.kind in ("minimum_effect", "threshold"):
            edge = d if self.rule.kind == "minimum_effect" else sign * (self.rule.threshold or 0.0)
            return float(n.sf(edge + z - t)), float(n.cdf(edge - z - t))
        a, b = self.rule.ends
        inside = max(0.0, float(n.cdf(b - z - truth) - n.cdf(a + z - truth)))
        if self.rule.kind == "nonzero":
            w = max(n.isf(alpha / 2), d - z if d > z else 0.0)
            return float(n.sf(w - truth) + n.cdf(-w - truth)), inside
        # Outside: reject where the smaller of the two sums of tails is at most alpha.
        width, lo, hi = b - a, 0.0, 40.0
        for _ in range(80):
            mid = (lo + hi) / 2
            lo, hi = (lo, mid) if n.sf(mid) + n.sf(mid + width) <= alpha else (mid, hi)
        return inside, float(n.sf(b + hi - truth) + n.cdf(a - hi - truth))


def cases() -> list[Case]:
    """Return every rule, both directions, at three ratios of the SESOI to the standard error."""
    out = []
    for d in RATIOS:
        for g, sign in (("greater", 1.0), ("less", -1.0)):
            out.append(Case(f"directional {g} {d}", Rule("directional", g, sesoi=d), (0.0,), (sign * d,)))
            out.append(
                Case(f"minimum_effect {g} {d}", Rule("minimum_effect", g, sesoi=d), (sign * d,), (sign * d,))
            )
        out.append(Case(f"equivalence {d}", Rule("equivalence", sesoi=d), (-d, d), (-d, d)))
        out.append(Case(f"nonzero {d}", Rule("nonzero", sesoi=d), (0.0,), (-d, d)))
        ends = (0.5, 0.5 + 2 * d)
        out.append(Case(f"in_range {d}", Rule("in_range", range=ends), ends, ends))
    for g in ("greater", "less"):
        out.append(Case(f"threshold {g}", Rule("threshold", g, threshold=0.7), (0.7,), (0.7,)))
    return out


def rules_alone(checks: Checks, quick: bool) -> None:
    """Both errors of every rule at its least favourable parameters."""
    n, share = (20_000, 150) if quick else (200_000, 600)
    rng = np.random.default_rng(SEED)
    print(
        f"\nWrong decisions of each rule, alpha {ALPHA} and {ALPHA}/3, {n} draws, {share} by the rules "
        "themselves"
    )
    print(f"  {'rule':24s}{'df':>5s}{'level':>8s}{'supports':>10s}{'exact':>8s}{'rejects':>10s}{'exact':>8s}")
    for case in cases():
        for df, alpha in ((math.inf, ALPHA), (11.0, ALPHA), (math.inf, ALPHA / 3)):
            worst = {"support": 0.0, "reject": 0.0}
            exact = dict(worst)
            for kind, truths in (("support", case.support), ("reject", case.reject)):
                for truth in truths:
                    s = Sample.draw(truth, n, df, rng)
                    both = decided(*p_arrays(case.rule, s), alpha)
                    name = f"{case.name}, df {df:g}, {kind} at {truth:g}"
                    checks.true(
                        f"{name}: rule and array differ", outcomes_agree(case.rule, s, *both, alpha, share)
                    )
                    rate, must = (
                        float(np.mean(both[kind == "reject"])),
                        case.exact(truth, alpha)[kind == "reject"],
                    )
                    checks.most(name, rate, alpha, n)
                    if math.isinf(df):
                        checks.near(name, rate, must, n)
                    worst[kind], exact[kind] = max(worst[kind], rate), max(exact[kind], must)
            shown = (f"{v:8.4f}" if math.isinf(df) else f"{'':8s}" for v in exact.values())
            first, second = shown
            print(
                f"  {case.name:24s}{df:5g}{alpha:8.4f}{worst['support']:10.4f}{first}"
                f"{worst['reject']:10.4f}{second}"
            )


def rules_of_draws(checks: Checks, quick: bool) -> None:
    """The same for intervals from 999 resampling draws, all by the rules themselves."""
    n, rng = (
        (1_500, np.random.default_rng([SEED, 3])) if quick else (10_000, np.random.default_rng([SEED, 3]))
    )
    directional, within = Rule("directional", sesoi=2.5), Rule("in_range", range=(0.0, 5.0))
    print(f"\nThe same from 999 draws around the estimate, alpha {ALPHA} ({n} estimates)")
    for rule, truth, kind in (
        (directional, 0.0, "supported"),
        (directional, 2.5, "rejected"),
        (within, 0.0, "supported"),
        (within, 5.0, "rejected"),
    ):
        count = 0
        for x in rng.normal(truth, 1.0, n):
            pivot = DrawsPivot(tuple(x + rng.normal(size=999)))
            e = Estimate.from_pivot("x", x, pivot, method="m@1", interval="", unit="prompt", n={})
            count += judge([(rule, e)], ALPHA).outcome == kind
        checks.most(f"{rule.kind} of draws, {kind} at {truth:g}", count / n, ALPHA, n)
        print(f"  {rule.kind}: {kind} at {truth:g}: {count / n:.4f}")


def resolution(checks: Checks, quick: bool) -> None:
    """What directional decides at d / SE of 1.5, 2.5 and 3.5."""
    n, share = (20_000, 1_000) if quick else (200_000, 5_000)
    rng = np.random.default_rng([SEED, 1])
    print(f"\nDirectional, alpha {ALPHA}: supported and rejected at a true effect of 0 and of d ({n} draws)")
    for d, printed in TABLE.items():
        rule, found = Rule("directional", sesoi=d), []
        for truth in (0.0, d):
            s = Sample.draw(truth, n, math.inf, rng)
            both = decided(*p_arrays(rule, s), ALPHA)
            checks.true(
                f"directional at d / SE {d}: rule and array differ",
                outcomes_agree(rule, s, *both, ALPHA, share),
            )
            found += [float(np.mean(x)) for x in both]
        for rate, expected in zip(found, printed, strict=True):
            checks.near(f"directional at d / SE {d}", rate, expected, n, printed=0.005)
        print(f"  d / SE {d}: at 0 {found[0]:.3f}, {found[1]:.3f}; at d {found[2]:.3f}, {found[3]:.3f}")


def joined_parts(checks: Checks, quick: bool) -> None:
    """Claims of three parts joined by all or any, and a named null, where each errs most."""
    n, share, k = (20_000, 300, 3) if quick else (200_000, 1_500, 3)
    rng = np.random.default_rng([SEED, 2])
    rule, far = Rule("threshold", threshold=0.0), 40.0
    print(f"\nThree parts joined, threshold rules, alpha {ALPHA} ({n} draws)")
    # Means of the parts where a wrong support, or a wrong rejection, is most frequent.
    settings = {
        ("all", "support"): (0.0, far, far),
        ("all", "reject"): (0.0, 0.0, 0.0),
        ("any", "support"): (0.0, 0.0, 0.0),
        ("any", "reject"): (0.0, -far, -far),
    }
    for (join, kind), means in settings.items():
        for rho in (0.0, 0.8):
            shared = math.sqrt(rho) * rng.normal(size=(n, 1))
            x = np.asarray(means) + shared + math.sqrt(1 - rho) * rng.normal(size=(n, k))
            above, below = special.ndtr(-x), special.ndtr(x)
            first, second = (
                (above.max(1), k * below.min(1)) if join == "all" else (k * above.min(1), below.max(1))
            )
            vetoed = (below <= ALPHA).any(1) if join == "all" else np.zeros(n, dtype=bool)
            rejected = second <= ALPHA
            supported = (first <= ALPHA) & ~rejected & ~vetoed
            for i in range(share):
                made = [(rule, Sample(x[i], np.ones(k), math.inf).estimate(j)) for j in range(k)]
                found = judge(made, ALPHA, join=join).outcome
                if (found == "supported", found == "rejected") != (supported[i], rejected[i]):
                    checks.true(f"{join}: rule and array differ at {x[i]}", False)
            rate = float(np.mean(rejected if kind == "reject" else supported))
            checks.most(f"{join}, wrong {kind}, correlation {rho}", rate, ALPHA, n)
            print(f"  {join}: wrong {kind}, correlation {rho}: {rate:.4f}")
    # The rule is met beyond doubt, the null it must exceed is true: its p-value is uniform.
    count = 0
    for p in rng.uniform(size=(m := 10 * share)):
        e = Sample(np.array([far]), np.ones(1), math.inf).estimate(0)
        e = Estimate(**{**e.__dict__, "null": {"name": "shuffled", "p": float(p)}})
        made = [(Rule("threshold", threshold=0.0, beyond_null="shuffled"), e)]
        count += judge(made, ALPHA).outcome == "supported"
    checks.most("beyond_null, wrong support", count / m, ALPHA, m)
    print(f"  beyond_null: wrong support {count / m:.4f} ({m} draws, all by the rule itself)")


def decisions(quick: bool) -> int:
    """Print all tables; return 1 where a rule or a family errs more often than it may."""
    from benchmarks.calibration_families import families

    began, checks = time.time(), Checks()
    print(f"seed {SEED}; bounds are the nominal ones and the Monte-Carlo error at 99.9 %")
    for section in (rules_alone, rules_of_draws, resolution, joined_parts, families):
        section(checks, quick)
    print(
        f"\n{time.time() - began:.0f} s, {checks.count} checks; "
        + ("all inside" if not checks.failed else "outside: " + "; ".join(checks.failed))
    )
    return 1 if checks.failed else 0
