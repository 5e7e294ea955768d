"""Families: how the level is shared among hypotheses that have two tests each, of support and of rejection.

A hypothesis i has two nulls. The null of support, S_i, is what support must exclude (an effect of 0 or less,
a quantity outside its range); the null of rejection, R_i, is what rejection must exclude (an effect of the
SESOI or more, a quantity inside its range). They exclude each other, an edge shared by both counted to one
side, so of the 2m nulls of a family at most one a hypothesis, and at most m in all, are true. A *wrong
decision* is a rejected null that is true: a hypothesis supported where S_i holds, or rejected where R_i
holds.

**Bonferroni.** Each of the 2m tests at alpha / m: at most m nulls are true, their errors add up to alpha.

**Why stepping down from there is not allowed.** Holm's method gives the share of a rejected null to those
that are left. That a claim was supported, rightly, excludes S_i, but R_i may hold all the same: its share is
not free. With well resolved claims whose effects equal their SESOI, each is supported nearly surely, each
can still be rejected wrongly, and m, m − 1, ... as divisors would err in alpha (1 + 1/2 + ... + 1/m) of the
studies (Shaffer 1986 for the general rule; ``python -m benchmarks.calibration decisions`` shows it).

**Staged.** So `holm`, `fixed_sequence` and `gatekeeping` part the two kinds: wrong supports get alpha / 2 and
wrong rejections get alpha / 2, and within each kind one may step. The hypotheses stand in stages (holm: one
stage; fixed sequence: one hypothesis a stage; gatekeeping: one family a stage, after the stages of the
family at its head, whatever its own correction; M hypotheses in all stages).
Tests of support are stepped down within a stage (Holm 1979), and a stage is entered only where all
hypotheses of the stages before are supported. Tests of rejection are stepped down over all M at once and
pass no gate: order is no reason to hide that a claim failed. Where k hypotheses are left the divisor is
``2 min(k, M − 1)``, and 1 where M = 1.

Let s and r be the numbers of true S_i and R_i, s + r ≤ M.
(a) s, r ≥ 1, so both at most M − 1: the first wrong support comes in a stage whose predecessors hold no true
S_i (else an error had been made before), at a step where at least the k true S_i of that stage are left, so
at level at most alpha / (2 min(k, M − 1)) with k ≤ s ≤ M − 1; over these k it has probability at most
alpha / 2. The first wrong rejection likewise. Together at most alpha.
(b) r = 0: there are only wrong supports, at most k alpha / (2 min(k, M − 1)), at most alpha as M ≥ 2. (c)
s = 0: the mirror. M = 1 is one test of one true null. Nothing was said of dependence: it may be any.
For M = 2 Holm's divisors are those of Bonferroni (2, 2); beyond, Holm's smallest p is held to
alpha / (2M − 2) and its last to alpha / 2: it pays where more than half of a family is decided the same way.

**BH.** Benjamini and Hochberg over the m smaller p-values of each hypothesis, ``q_i = min(p_support_i,
p_reject_i)``: with k the largest number for which k of them are at most k alpha / m, every test is made at
k alpha / m. Where hypotheses are independent, the one true null of i errs in at most alpha / m a decision
whatever the others give, so the expected share of wrong decisions among the decisions is at most alpha (the
directional FDR of Benjamini and Yekutieli 2005). It is no family-wise error, and under dependence it is not
proved.

A hypothesis without a p-value (not run, inadmissible, not testable, NaN) counts in m and in its stage, is
never significant, and closes the gate behind it. A family that another waits for shares its alpha with it, so
it is tested in stages too, a ``bonferroni`` one in a single step.

Sources: Holm 1979, Scand. J. Statist. 6: 65-70; Shaffer 1986, JASA 81: 826-831; Westfall and Krishen 2001,
J. Statist. Plann. Inference 99: 25-40 (gatekeeping); Benjamini and Yekutieli 2005, JASA 100: 71-81.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DynstatError

#: Each correction and the error that it holds.
CORRECTIONS: dict[str, str] = {
    "bonferroni": "the chance of any wrong decision in the family is at most alpha",
    "holm": "the chance of any wrong decision in the family is at most alpha, half of it for wrong supports "
    "and half for wrong rejections, each stepped down",
    "bh": "the expected share of wrong decisions among the decisions (FDR) is at most alpha for independent "
    "hypotheses; the chance of any wrong decision (FWER) is not held",
    "fixed_sequence": "the chance of any wrong decision in the family is at most alpha; support is tested in "
    "the registered order up to the first hypothesis that is not supported",
    "gatekeeping": "the chance of any wrong decision in all families of the sequence is at most alpha; "
    "support is tested in a family only where every hypothesis of the families before is supported",
    "none": "the chance of a wrong decision is at most alpha for each hypothesis, not for the family",
}
STAGED = ("holm", "fixed_sequence", "gatekeeping")


@dataclass(frozen=True)
class Adjusted:
    """The tests of one hypothesis within its family.

    Attributes
    ----------
    p_support, p_reject : float or None
        Adjusted: compare them with `alpha`. None where the hypothesis has no p-value.
    alpha : float
        Of the family.
    level_support, level_reject : float
        What the raw p-values are compared with; the same decisions as the adjusted ones.
    m : int
        Registered hypotheses of the family.
    reached : bool
        False where a fixed sequence or a gate stopped before: it cannot be supported.
    note : str
        In words: what stopped a registered order before it; "" elsewhere.
    """

    p_support: float | None
    p_reject: float | None
    alpha: float
    level_support: float
    level_reject: float
    m: int
    reached: bool = True
    note: str = ""

    @property
    def level(self) -> float:
        """The stricter of the two levels."""
        return min(self.level_support, self.level_reject)


def level_of_each_test(alpha: float, m: int, correction: str = "bonferroni") -> float:
    """Return the strictest level that a test of a family with m hypotheses may be held to.

    For ``bonferroni`` it is the level of each of the 2m tests, alpha / m. For the stepwise ones it is where
    they begin, alpha / (2m − 2), or alpha / m for ``bh``; for ``none`` alpha.

    Parameters
    ----------
    alpha : float
        Of the family, in (0, 0.5).
    m : int
        Every registered confirmatory hypothesis, also those that could not be run; for ``gatekeeping`` those
        of all families of the sequence.

    Raises
    ------
    DynstatError
        S404 where alpha, m or the correction lie outside these.
    """
    if not 0 < alpha < 0.5:
        raise DynstatError("S404", "alpha must lie between 0 and 0.5", found=alpha)
    if m < 1:
        raise DynstatError("S404", "a family holds at least one hypothesis", found=m)
    if correction not in CORRECTIONS:
        raise DynstatError("S404", f"unknown correction {correction!r}", expected=" | ".join(CORRECTIONS))
    if correction == "none":
        return alpha
    return alpha / (_divisor(m, m) if correction in STAGED else m)


def strictest_level(
    families: Mapping[str, Mapping[str, Any]], hypotheses: Mapping[str, Mapping[str, Any]], name: str
) -> float:
    """Return the strictest level that a test of a family of a plan may be held to, before any data.

    As :func:`level_of_each_test`, and over all families of a sequence where one waits for another.

    Examples
    --------
    >>> families = {"a": {"alpha": 0.05}, "b": {"alpha": 0.05, "correction": "gatekeeping", "after": "a"}}
    >>> claims = {"H1": {"family": "a"}, "H2": {"family": "a"}, "H3": {"family": "b"}}
    >>> strictest_level(families, claims, "a")
    0.0125
    """
    chain = next(c for c in _chains(families) if name in c)
    m = sum(h["family"] in chain for h in hypotheses.values())
    correction = "gatekeeping" if len(chain) > 1 else families[name].get("correction", "bonferroni")
    return level_of_each_test(families[name]["alpha"], m, correction)


def adjust(
    families: Mapping[str, Mapping[str, Any]],
    hypotheses: Mapping[str, Mapping[str, Any]],
    p_support: Mapping[str, float | None],
    p_reject: Mapping[str, float | None],
) -> dict[str, Adjusted]:
    """Return the adjusted p-values and the levels of every registered hypothesis.

    Parameters
    ----------
    families : mapping
        Of a plan: ``alpha``, ``correction`` and, as it needs them, ``order`` or ``after``.
    hypotheses : mapping
        Of a plan, in the order of registration: at least ``family``.
    p_support, p_reject : mapping of hypothesis to float or None
        Missing, None and NaN stand for a hypothesis without a p-value.

    Raises
    ------
    DynstatError
        S404 with all problems of :func:`family_problems` but a missing reason, or for a p-value of an
        unknown hypothesis or outside [0, 1].

    Examples
    --------
    >>> family = {"main": {"alpha": 0.05, "correction": "holm"}}
    >>> claims = {h: {"family": "main"} for h in ("H1", "H2", "H3")}
    >>> out = adjust(family, claims, {"H1": 0.001, "H2": 0.01, "H3": None}, {"H1": 1.0, "H2": 0.98})
    >>> {h: (a.p_support, a.level_support) for h, a in out.items()}
    {'H1': (0.004, 0.025), 'H2': (0.04, 0.025), 'H3': (None, 0.025)}
    """
    problems = [text for _, text, fatal in _problems(families, hypotheses) if fatal]
    if problems:
        raise DynstatError("S404", "the families cannot be tested", problems=problems)
    support, reject = _clean(p_support, hypotheses), _clean(p_reject, hypotheses)
    out: dict[str, Adjusted] = {}
    for chain in _chains(families):
        family = families[chain[0]]
        members = [_members(name, families, hypotheses) for name in chain]
        if not any(members):
            continue
        correction = family.get("correction", "bonferroni")
        if correction in STAGED or len(chain) > 1:
            first = [[h] for h in members[0]] if correction == "fixed_sequence" else members[:1]
            stages = [s for s in (*first, *members[1:]) if s]
            single = stages[:1] if correction == "bonferroni" else []
            found = _staged(stages, single, support, reject, family["alpha"])
        elif correction == "bh":
            found = _bh(members[0], support, reject, family["alpha"])
        else:
            m = len(members[0]) if correction == "bonferroni" else 1
            each = family["alpha"] / m
            found = {
                h: (min(1.0, m * support[h]), min(1.0, m * reject[h]), each, each, True, "")
                for h in members[0]
            }
        sizes = {h: len(group) for group in members for h in group}
        for h, (ps, pr, level_s, level_r, reached, note) in found.items():
            out[h] = Adjusted(
                None if _missing(p_support.get(h)) else ps,
                None if _missing(p_reject.get(h)) else pr,
                *(family["alpha"], level_s, level_r, sizes[h], reached, note),
            )
    return {h: out[h] for h in hypotheses}


def family_problems(
    families: Mapping[str, Mapping[str, Any]], hypotheses: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Return what keeps families from being tested, as (family, what) in their order."""
    return [(name, text) for name, text, _ in _problems(families, hypotheses)]


def error_held(families: Mapping[str, Mapping[str, Any]], hypothesis: Mapping[str, Any]) -> str:
    """Return in words which error the correction of a hypothesis's family holds."""
    return CORRECTIONS[families[hypothesis["family"]].get("correction", "bonferroni")]


def joined(p: Sequence[float], rule: str) -> float:
    """Return the p of a joined test.

    ``largest`` is the intersection-union test, ``smallest`` takes k times the smallest (Bonferroni).

    Examples
    --------
    >>> joined([0.01, 0.04], "largest"), joined([0.01, 0.04], "smallest")
    (0.04, 0.02)
    """
    if rule == "largest":
        return max(p)
    if rule == "smallest":
        return min(1.0, len(p) * min(p))
    raise DynstatError("S404", f"unknown joining rule {rule!r}", expected="largest | smallest")


_Row = tuple[float, float, float, float, bool, str]


def _divisor(left: int, m: int) -> int:
    """Return what alpha is divided by while `left` of m hypotheses are left, in a staged correction."""
    return 1 if m == 1 else 2 * min(left, m - 1)


def _staged(
    stages: Sequence[Sequence[str]],
    single: Sequence[Sequence[str]],
    support: Mapping[str, float],
    reject: Mapping[str, float],
    alpha: float,
) -> dict[str, _Row]:
    """Test support stage by stage (those in `single` in one step) and rejection over all."""
    every = [h for stage in stages for h in stage]
    m = len(every)
    rejected, level_r = _step_down({h: reject[h] for h in every}, m, alpha)
    out: dict[str, _Row] = {}
    floor, stopped = 0.0, ""
    for stage in stages:
        supported, level_s = _step_down({h: support[h] for h in stage}, m, alpha, stage not in single)
        for h in stage:
            out[h] = (max(floor, supported[h]), rejected[h], level_s, level_r, not stopped, stopped)
        failed = [h for h in stage if support[h] > level_s or reject[h] <= level_r]
        floor = max(floor, 1.0 if any(reject[h] <= level_r for h in stage) else 0.0, *supported.values())
        if failed and not stopped:
            stopped = f"{', '.join(failed)} before it {'was' if len(failed) == 1 else 'were'} not supported"
    return out


def _step_down(
    p: Mapping[str, float], m: int, alpha: float, steps: bool = True
) -> tuple[dict[str, float], float]:
    """Return adjusted p-values and the level at which the step-down stopped, which decides them all."""
    adjusted: dict[str, float] = {}
    running, level, going = 0.0, alpha, True
    for step, h in enumerate(sorted(p, key=p.__getitem__)):
        divisor = _divisor(len(p) - step if steps else len(p), m)
        running = max(running, min(1.0, divisor * p[h]))
        adjusted[h] = running
        if going:
            level = alpha / divisor
            going = p[h] <= level
    return adjusted, level


def _bh(
    members: Sequence[str], support: Mapping[str, float], reject: Mapping[str, float], alpha: float
) -> dict[str, _Row]:
    m = len(members)
    q = sorted(min(support[h], reject[h]) for h in members)
    k = max((k for k in range(1, m + 1) if q[k - 1] <= k * alpha / m), default=1)
    level = k * alpha / m

    def adjusted(p: float) -> float:
        # m p / m may round below p.
        return max(p, min(1.0, *(m * max(p, q[j - 1]) / j for j in range(1, m + 1))))

    return {h: (adjusted(support[h]), adjusted(reject[h]), level, level, True, "") for h in members}


def _missing(p: float | None) -> bool:
    return p is None or math.isnan(p)


def _clean(p: Mapping[str, float | None], hypotheses: Mapping[str, Any]) -> dict[str, float]:
    for h, value in p.items():
        if h not in hypotheses:
            raise DynstatError("S404", f"no hypothesis {h!r} is registered", expected=", ".join(hypotheses))
        if value is not None and not math.isnan(value) and not 0 <= value <= 1:
            raise DynstatError("S404", "a p-value lies between 0 and 1", where=h, found=value)
    return {h: 1.0 if (v := p.get(h)) is None or math.isnan(v) else float(v) for h in hypotheses}


def _members(
    name: str, families: Mapping[str, Mapping[str, Any]], hypotheses: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    held = [h for h, spec in hypotheses.items() if spec["family"] == name]
    held.sort(key=lambda h: hypotheses[h].get("order", 0))
    return list(families[name].get("order") or held)


def _chains(families: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the sequences of families: each gatekeeping family behind the one it comes after."""
    after = {spec["after"]: name for name, spec in families.items() if spec.get("after")}
    out = []
    for name, spec in families.items():
        if not spec.get("after"):
            chain = [name]
            while chain[-1] in after:
                chain.append(after[chain[-1]])
            out.append(chain)
    return out


def _problems(
    families: Mapping[str, Mapping[str, Any]], hypotheses: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, bool]]:
    """Return (family, what, whether it keeps the arithmetic from being done)."""
    out: list[tuple[str, str, bool]] = []
    gates: dict[str, str] = {}
    following = {spec["after"] for spec in families.values() if spec.get("after")}
    for name, spec in families.items():
        correction, order, after = spec.get("correction", "bonferroni"), spec.get("order"), spec.get("after")
        held = [h for h, claim in hypotheses.items() if claim["family"] == name]
        if correction not in CORRECTIONS:
            out.append((name, f"unknown correction {correction!r}", True))
        if not 0 < spec["alpha"] < 0.5:
            out.append((name, "alpha must lie between 0 and 0.5", True))
        if order and (correction != "fixed_sequence" or sorted(order) != sorted(held)):
            out.append((name, "order belongs to fixed_sequence and names each of its hypotheses once", True))
        if correction == "none" and not spec.get("reason"):
            out.append((name, "correction none needs a reason", False))
        if correction == "gatekeeping" and not after and name not in following:
            out.append((name, "gatekeeping names the family before it (after), or is named by one", False))
        if not after:
            continue
        before = families.get(after)
        if correction != "gatekeeping" or before is None:
            out.append((name, f"after {after!r} needs correction gatekeeping and such a family", True))
        elif before.get("correction", "bonferroni") in ("bh", "none"):
            out.append((name, f"after {after!r}, which holds no family-wise error", True))
        elif before["alpha"] != spec["alpha"]:
            out.append((name, f"after {after!r}: both families need the same alpha", True))
        if after in gates:
            out.append((name, f"after {after!r}, as {gates[after]!r} is: one family follows another", True))
        gates[after] = name
        seen, here = {name}, str(after)
        while here in families and here not in seen:
            seen.add(here)
            here = str(families[here].get("after"))
        if here in seen:
            out.append((name, "the families follow each other in a circle", True))
    missing = {h: c["family"] for h, c in hypotheses.items() if c["family"] not in families}
    out += [(family, f"holds {h} and is not declared", True) for h, family in missing.items()]
    return out
