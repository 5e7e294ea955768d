"""Family-wise error and false discovery rate of the corrections, where they err most.

Every hypothesis is ``directional`` with a standard error of 1. Its effect is 0, so that supporting it is
wrong, or its SESOI d, so that rejecting it is wrong: then all m true nulls are there to err. With d well
above the standard error the second kind is supported nearly surely, which is what opens steps, sequences and
gates; in a sequence it stands before the first kind. Estimates share a correlation. Among m, one may not have
been run: it counts and decides nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from dynstat.inference.estimate import TPivot
from dynstat.inference.multiplicity import CORRECTIONS, adjust
from dynstat.inference.rules import Rule

if TYPE_CHECKING:
    from benchmarks.calibration_decisions import Checks

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
SEED = 20261124
ALPHA = 0.05
SIZES = (1, 3, 8)
RATIOS = (2.5, 3.5, 6.0)
CORRELATIONS = (0.0, 0.5, 0.9)
HELD = ("bonferroni", "holm", "fixed_sequence", "gatekeeping")


def p_values(x: Array, d: float) -> tuple[Array, Array]:
    """Return p-values of support and rejection of directional claims, shape of x."""
    return np.asarray(special.ndtr(-x)), np.asarray(special.ndtr(x - d))


def stages_of(correction: str, m: int) -> list[list[int]]:
    """Return the stages in which m hypotheses are tested: at gates, a third of them stands first."""
    if correction == "fixed_sequence":
        return [[i] for i in range(m)]
    head = m // 3
    return (
        [list(range(head)), list(range(head, m))]
        if correction == "gatekeeping" and head
        else [list(range(m))]
    )


def cut(p: Array, m: int) -> Array:
    """Return, a study a row, the level at which a step-down with divisors 2 min(k, m − 1) stops."""
    left = np.arange(p.shape[1], 0, -1)
    divisors = np.ones(p.shape[1]) if m == 1 else 2.0 * np.minimum(left, m - 1)
    passed = np.sort(p, axis=1) <= ALPHA / divisors
    stop = np.where(passed.all(axis=1), p.shape[1] - 1, np.argmin(passed, axis=1))
    return np.asarray(ALPHA / divisors[stop])


def decide(correction: str, support: Array, reject: Array) -> tuple[Bools, Bools]:
    """Return where a family supports and rejects, studies × hypotheses; NaN was not run. The array form."""
    support, reject = np.nan_to_num(support, nan=1.0), np.nan_to_num(reject, nan=1.0)
    m = support.shape[1]
    if correction in ("bonferroni", "none"):
        level = ALPHA / (m if correction == "bonferroni" else 1)
        rejected = reject <= level
        return (support <= level) & ~rejected, rejected
    if correction == "bh":
        q = np.sort(np.minimum(support, reject), axis=1)
        k = np.where(q <= np.arange(1, m + 1) * ALPHA / m, np.arange(1, m + 1), 0).max(axis=1)
        level = (np.maximum(k, 1) * ALPHA / m)[:, None]
        rejected = reject <= level
        return (support <= level) & ~rejected, rejected
    rejected = reject <= cut(reject, m)[:, None]
    supported = np.zeros_like(rejected)
    open_ = np.ones(len(support), dtype=bool)
    for stage in stages_of(correction, m):
        met = (support[:, stage] <= cut(support[:, stage], m)[:, None]) & ~rejected[:, stage]
        supported[:, stage] = met & open_[:, None]
        open_ = open_ & met.all(axis=1)
    return supported, rejected


def agrees(correction: str, x: Array, d: float, supported: Bools, rejected: Bools, share: int) -> bool:
    """Return whether rules and families themselves decide the first studies as the array form does."""
    m, rule = x.shape[1], Rule("directional", sesoi=d)
    names = [f"H{i}" for i in range(m)]
    spec = {"alpha": ALPHA, "correction": correction, "reason": "measured here"}
    plan = {"main": spec}
    claims = {h: {"family": "main"} for h in names}
    stages = stages_of(correction, m)
    if correction == "gatekeeping" and len(stages) == 2:
        plan = {"main": spec, "later": spec | {"after": "main"}}
        claims = {h: {"family": "main" if i in stages[0] else "later"} for i, h in enumerate(names)}
    for row, s, r in zip(x[:share], supported, rejected, strict=False):
        p = {
            h: rule.p_values(TPivot(float(v), 1.0, math.inf))
            for h, v in zip(names, row, strict=True)
            if not np.isnan(v)
        }
        found = adjust(plan, claims, {h: q[0] for h, q in p.items()}, {h: q[1] for h, q in p.items()})
        for i, h in enumerate(names):
            a = found[h]
            no = h in p and p[h][1] <= a.level_reject
            yes = h in p and a.reached and p[h][0] <= a.level_support and not no
            adjusted = (
                a.p_support is not None and a.p_support <= ALPHA and not no,
                a.p_reject is not None and a.p_reject <= ALPHA,
            )
            if (yes, no) != (s[i], r[i]) or adjusted != (yes, no):
                return False
    return True


def draw(m: int, zeros: int, d: float, rho: float, n: int, rng: np.random.Generator) -> Array:
    """Return estimates, studies × hypotheses: the last `zeros` have no effect, the others their SESOI."""
    means = np.where(np.arange(m) < m - zeros, d, 0.0)
    return np.asarray(
        means + math.sqrt(rho) * rng.normal(size=(n, 1)) + math.sqrt(1 - rho) * rng.normal(size=(n, m))
    )


def wrong(x: Array, zeros: int, supported: Bools, rejected: Bools) -> Bools:
    """Return the wrong decisions."""
    none = np.arange(x.shape[1]) >= x.shape[1] - zeros
    return np.where(none, supported, rejected)


def naive(support: Array, reject: Array) -> tuple[Bools, Bools]:
    """Return what stepping down the smaller p of each hypothesis by m, m − 1, ... would decide."""
    m = support.shape[1]
    smaller = np.minimum(support, reject)
    passed = np.sort(smaller, axis=1) <= ALPHA / np.arange(m, 0, -1)
    stop = np.where(passed.all(axis=1), m - 1, np.argmin(passed, axis=1))
    level = (ALPHA / np.arange(m, 0, -1))[stop][:, None]
    return (support <= level) & (reject > level), reject <= level


def families(checks: Checks, quick: bool) -> None:
    """Family-wise error of the corrections that hold it, FDR of the one that holds that."""
    n, share = (8_000, 25) if quick else (60_000, 60)
    rng = np.random.default_rng(SEED)
    print(
        f"\nChance of any wrong decision in a family, alpha {ALPHA}, {n} studies a setting, {share} by the "
    )
    print(
        "  functions themselves: the largest over numbers of effects at 0 and at d, d / SE of "
        + ", ".join(map(str, RATIOS))
    )
    print(
        f"  {'m':>3s} {'not run':>8s}"
        + "".join(f"{c:>16s}" for c in (*HELD, "naive steps"))
        + "   (correlation 0, .5, .9)"
    )
    for m in SIZES:
        for lost in (0, 1) if m > 1 else (0,):
            worst = {c: dict.fromkeys(CORRELATIONS, 0.0) for c in (*HELD, "naive")}
            settings = [(z, d, rho) for z in range(m - lost + 1) for d in RATIOS for rho in CORRELATIONS]
            # The largest of many rates: the band holds for all of them together.
            band = float(stats.norm.isf(0.0005 / len(settings)))
            for zeros, d, rho in settings:
                x = draw(m - lost, zeros, d, rho, n, rng)
                if lost:  # the one that was not run stands last, where it shuts no gate
                    x = np.column_stack([x, np.full(n, np.nan)])
                p = p_values(x, d)
                for c in HELD:
                    made = decide(c, *p)
                    where = f"{c}, m = {m}, {lost} not run, {zeros} at 0, d / SE {d}, correlation {rho}"
                    checks.true(f"{where}: functions and array differ", agrees(c, x, d, *made, share))
                    run = slice(0, m - lost)
                    rate = float(wrong(x[:, run], zeros, made[0][:, run], made[1][:, run]).any(axis=1).mean())
                    checks.most(where, rate, ALPHA, n, band)
                    worst[c][rho] = max(worst[c][rho], rate)
                if not lost:
                    rate = float(wrong(x, zeros, *naive(*p)).any(axis=1).mean())
                    worst["naive"][rho] = max(worst["naive"][rho], rate)
            cells = [" ".join(f"{v:.3f}"[1:] for v in rates.values()) for rates in worst.values()]
            cells[-1] = "" if lost else cells[-1]
            print(f"  {m:3d} {lost:8d}" + "".join(f"{c:>16s}" for c in cells))
            if m == max(SIZES) and not lost:
                checks.true("naive steps do not err more often than alpha", worst["naive"][0.0] > 0.06)
    false_discoveries(checks, quick, rng)
    what_is_found(quick, rng)


def false_discoveries(checks: Checks, quick: bool, rng: np.random.Generator) -> None:
    """FDR of BH: the mean share of wrong decisions among the decisions."""
    n, share = (8_000, 25) if quick else (60_000, 60)
    print(
        f"\nbh: largest mean share of wrong decisions among the decisions (FDR), and chance of any (FWER), "
        f"{n} studies"
    )
    for m in SIZES:
        for rho in CORRELATIONS:
            fdr, fwer = 0.0, 0.0
            settings = [(zeros, d) for zeros in range(m + 1) for d in RATIOS]
            band = float(stats.norm.isf(0.0005 / len(settings)))
            for zeros, d in settings:
                x = draw(m, zeros, d, rho, n, rng)
                made = decide("bh", *p_values(x, d))
                where = f"bh, m = {m}, {zeros} at 0, d / SE {d}, correlation {rho}"
                checks.true(f"{where}: functions and array differ", agrees("bh", x, d, *made, share))
                bad = wrong(x, zeros, *made).sum(axis=1)
                rate = float(np.mean(bad / np.maximum((made[0] | made[1]).sum(axis=1), 1)))
                if rho == 0.0:  # where it is proved
                    checks.most(where, rate, ALPHA, n, band)
                fdr, fwer = max(fdr, rate), max(fwer, float(np.mean(bad > 0)))
            held = "" if rho == 0.0 else " (shown, not judged)"
            print(f"  m = {m}, correlation {rho}: FDR {fdr:.3f}, FWER {fwer:.3f}{held}")


def what_is_found(quick: bool, rng: np.random.Generator) -> None:
    """How many of eight hypotheses are decided rightly: what the corrections cost and give."""
    n, m, d = 8_000 if quick else 60_000, 8, 3.5
    print(
        f"\nMean share of {m} hypotheses decided rightly, d / SE {d}, by the number whose effect is d "
        "(others 0)"
    )
    for true in (8, 6, 4):
        x = draw(m, m - true, d, 0.0, n, rng)
        none, found = np.arange(m) >= true, []
        for c in CORRECTIONS:
            supported, rejected = decide(c, *p_values(x, d))
            found.append(f"{c} {np.where(none, rejected, supported).mean():.2f}")
        print(f"  {true} of {m}: " + ", ".join(found))
