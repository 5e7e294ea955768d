"""Coverage of the reopening probability and of hazard ratios by prompt, and levels of the tests of memory.

Part of ``python -m benchmarks.calibration markov``. Runs of two states without memory; prompts differ by a
normal effect on the logit of leaving; end of text competes. The truth is the value of the estimator in very
many prompts.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dynstat.errors import DynstatWarning
from dynstat.inference.estimate import Estimate
from dynstat.inference.resample import Resampler
from dynstat.markov.competing import count_spells, incidence
from dynstat.markov.cycle_intervals import fates_at, interval
from dynstat.markov.cycles import reopening
from dynstat.markov.duration import duration_dependence
from dynstat.markov.hazard_models import discrete_hazard
from dynstat.markov.run_groups import RunGroups
from dynstat.markov.spells import Spells, make_spells

if TYPE_CHECKING:
    from benchmarks.calibration_markov import Verdict

TOKENS, RUNS, HORIZON = 48, 4, 6
LEAVE, ENTER, END = 0.2, 0.15, 0.01
SPREADS = {"none": 0.0, "moderate": 0.5, "strong": 1.0}
COVERAGE, LEVEL = (0.93, 0.97), (0.035, 0.07)
SEED = 20261121


def simulate(
    prompts: int, spread: float, rng: np.random.Generator, *, between: float = 0.0, runs: int = RUNS
) -> Spells:
    """Simulate runs without memory; `between` is a logit difference of two kinds of prompts, half each."""
    n = prompts * runs
    prompt = np.repeat(np.arange(prompts), runs)
    kind = prompt % 2
    logit = np.log(LEAVE / (1 - LEAVE)) + spread * rng.normal(size=prompts)[prompt] + between * kind
    leave = 1 / (1 + np.exp(-logit))
    inside = np.full((n, TOKENS), -1, dtype=np.int8)
    state = rng.random(n) < 0.3
    alive = np.ones(n, dtype=np.bool_)
    inside[:, 0] = state
    for t in range(1, TOKENS):
        alive &= rng.random(n) >= END
        state = np.where(rng.random(n) < np.where(state, leave, ENTER), ~state, state)
        inside[alive, t] = state[alive]
    labels = pd.DataFrame(
        {"prompt": np.char.add("p", prompt.astype(str)), "kind": np.array(["x", "y"])[kind]}
    )
    return make_spells("COLLAPSE", inside, labels, ~alive, np.full(n, TOKENS, dtype=np.intp))


def _curve(spells: Spells) -> tuple[float, float]:
    counts = count_spells(spells.duration, spells.event, np.zeros(len(spells), dtype=np.intp), 1, TOKENS)
    found = incidence(counts[0])
    return float(found.at(HORIZON)[0]), float(found.naive)


@lru_cache
def truth(spread: float) -> tuple[float, float]:
    """Return the probability and the naive share in 20,000 prompts."""
    return _curve(simulate(20_000, spread, np.random.default_rng(SEED)))


def coverage_of_reopening(prompts: int, spread: float, replicates: int, seed: int) -> dict[str, float]:
    """Return coverage of 95 % intervals by prompt, and of binomial ones that take spells for independent."""
    rng = np.random.default_rng(seed)
    f, _ = truth(spread)
    hit, binomial, width = 0, 0, 0.0
    for _ in range(replicates):
        spells = simulate(prompts, spread, rng)
        e = _interval_of(spells, rng)
        hit += e.low <= f <= e.high
        width += (e.high - e.low) / replicates
        half = 1.96 * np.sqrt(e.value * (1 - e.value) / len(spells))
        binomial += abs(e.value - f) <= half
    return {"coverage": hit / replicates, "spells as if independent": binomial / replicates, "width": width}


def _interval_of(spells: Spells, rng: np.random.Generator, draws: int = 499) -> Estimate:
    """Return the interval of `reopening` without its nulls and its curve, which take most of the time."""
    resampler = Resampler.of(spells.codes("prompt")[2])
    u = resampler.n_units
    counts = RunGroups.of(spells, None, None).count(spells, resampler, HORIZON)[:, 0]
    boot = (resampler.weights(draws, rng) @ counts.reshape(u, -1)).reshape(draws, HORIZON + 2, 3)
    left = counts.sum(axis=0) - counts
    value, drawn, jackknife = (incidence(c).at(HORIZON)[0] for c in (counts.sum(axis=0)[None], boot, left))
    common = {
        "level": 0.95,
        "method": "markov.reopening@1",
        "unit": "prompt",
        "n": {"units": u},
        "seed": None,
    }
    return interval("reopening", float(value[0]), drawn, jackknife, fates_at(counts, HORIZON), 0, common)


def levels_of_tests(prompts: int, spread: float, replicates: int, seed: int) -> dict[str, float]:
    """Return how often tests of memory reject at 5 % where there is none."""
    rng = np.random.default_rng(seed)
    names = ("within runs", "simulated", "slope", "any shape")
    rejected = dict.fromkeys(names, 0.0)
    for _ in range(replicates):
        spells = simulate(prompts, spread, rng)
        r = reopening(spells, horizon=HORIZON, replicates=99, permutations=199, rng=rng)
        p = r.nulls.query("statistic == 'reopening'").set_index("null")["p"]
        d = duration_dependence(spells, replicates=99, permutations=199, rng=rng)
        found = (p["within_runs"], p["simulated"], (d.estimate.null or {})["p"], d.omnibus)
        for name, value in zip(names, found, strict=True):
            rejected[name] += (value <= 0.05) / replicates
    return rejected


def coverage_of_hazard(prompts: int, replicates: int, seed: int, spread: float = 0.3) -> dict[str, float]:
    """Return coverage for the difference between kinds of prompts, and without the correction for few."""
    rng = np.random.default_rng(seed)
    big = discrete_hazard(simulate(20_000, spread, np.random.default_rng(SEED), between=0.5), formula="kind")
    f = float(big.coefficients["kind[T.y]"])
    hit, spread_found = 0, []
    for _ in range(replicates):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DynstatWarning)
            e = discrete_hazard(simulate(prompts, spread, rng, between=0.5), formula="kind").estimates()
        hit += e["kind[T.y]"].low <= f <= e["kind[T.y]"].high
        spread_found.append(e["kind[T.y]"].value)
    return {"coverage": hit / replicates, "bias": float(np.mean(spread_found) - f)}


def coverage_of_cycles(verdict: Verdict) -> None:
    """Print coverage of the reopening probability and of log odds, intervals by prompt."""
    count = 40 if verdict.quick else 1000
    print(f"\nReopening within {HORIZON} tokens, interval by prompt: coverage of 95 %, {count} data sets")
    rows = []
    for i, (name, spread) in enumerate(SPREADS.items()):
        for prompts in (24, 72):
            found = coverage_of_reopening(prompts, spread, count, SEED + 1000 * i + prompts)
            rows.append({"prompts": prompts, "heterogeneity": name, **found})
            verdict.within(f"reopening, {prompts} prompts, {name}", found["coverage"], count, COVERAGE)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print("\nDiscrete hazard, log odds between kinds of prompts (Mancl-DeRouen, t): coverage of 95 %")
    rows = []
    for prompts in (12, 72):
        found = coverage_of_hazard(prompts, count, SEED + 5000 + prompts)
        rows.append({"prompts": prompts, **found})
        verdict.within(f"log odds, {prompts} prompts", found["coverage"], count, COVERAGE)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.3f}"))


def levels_without_memory(verdict: Verdict) -> None:
    """Print how often the tests of memory reject at 5 % where prompts differ and nothing remembers."""
    count = 25 if verdict.quick else 1000
    print(f"\nTests of memory, 36 prompts without any: rejected at 5 %, {count} data sets")
    rows = []
    for i, (name, spread) in enumerate(SPREADS.items()):
        found = levels_of_tests(36, spread, count, SEED + 9000 + i)
        rows.append({"heterogeneity": name, **found})
        for test, rate in found.items():
            # Prompts that differ are memory to a simulation that holds them equal: shown, never deciding.
            if test != "simulated" or spread == 0:
                verdict.within(f"level of {test}, {name}", rate, count, LEVEL)
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda v: f"{v:.3f}"))
