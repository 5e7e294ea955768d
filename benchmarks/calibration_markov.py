"""Calibration of chains: intervals that cover where prompts differ, and tests that keep their level.

Called by ``python -m benchmarks.calibration markov``. Sections are functions of a :class:`Verdict`; SECTIONS
lists them.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks.calibration_chain_tests import coverage_of_distances, levels_of_chain_tests
from benchmarks.calibration_cycles import coverage_of_cycles, levels_without_memory
from benchmarks.calibration_motifs import dwell_levels, motif_levels
from dynstat.errors import DynstatWarning
from dynstat.inference.unit_interval import unit_interval
from dynstat.markov import Sequences, chain, count_transitions, derived
from dynstat.markov.rare_events import FEW, effective_trials, rare_pivot

Array = NDArray[np.float64]
SEED = 20261122
STATES = ("STABLE", "HIDDEN_TURBULENCE", "SURFACE_BRANCHING", "COMMITTED")
# The chain all cases share; its last state is visited 8 % of the time.
MATRIX = np.array(
    [[0.70, 0.15, 0.10, 0.05], [0.20, 0.50, 0.20, 0.10], [0.15, 0.20, 0.60, 0.05], [0.25, 0.25, 0.20, 0.30]]
)
STEPS = 48
BAND = (0.93, 0.97)
# Half-width of a share's Monte-Carlo error at 99.9 %.
Z = 3.29


class Case(NamedTuple):
    """Data of one kind: prompts whose matrices follow a Dirichlet law around MATRIX.

    With several models the rows of a prompt are tilted by each model's own weights, held over data sets.
    """

    name: str
    prompts: int
    concentration: float
    models: int = 1
    samples: int = 1
    decides: bool = True


CASES = (
    Case("72 sequences, all alike", 72, np.inf),
    Case("72 sequences, moderate", 72, 20.0),
    Case("72 sequences, strong", 72, 5.0),
    Case("24 sequences, strong", 24, 5.0),
    Case("12 sequences, strong", 12, 5.0),
    Case("6 models x 24 prompts x 2, moderate", 24, 20.0, 6, 2),
    Case("6 models x 24 prompts x 2, strong", 24, 5.0, 6, 2),
    Case("6 models x 36 prompts x 2, strong", 36, 5.0, 6, 2),
)
#: What is judged: the mean over the cells of a family of estimates.
FAMILIES = ("transition", "lift", "stationary", "first_passage")


class Verdict:
    """Collects what leaves its band; in a quick run by more than the Monte-Carlo error."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.failed: list[str] = []

    def slack(self, n: int, share: float = 0.05) -> float:
        """Half-width of the Monte-Carlo error of n data sets at 99.9 %, 0 in a full run."""
        return Z * float(np.sqrt(share * (1 - share) / n)) if self.quick else 0.0

    def within(self, what: str, share: float, n: int, band: tuple[float, float]) -> None:
        """Note a share outside its band."""
        slack = self.slack(n)
        if not band[0] - slack - 1e-9 <= share <= band[1] + slack + 1e-9:
            self.failed.append(f"{what} {share:.3f} (n = {n})")


def matrices(case: Case, count: int, rng: np.random.Generator) -> Array:
    """Return a matrix a sequence, shape (count · prompts, models · samples, K, K)."""
    n = count * case.prompts
    if np.isinf(case.concentration):
        rows = np.broadcast_to(MATRIX, (n, *MATRIX.shape))
    else:
        rows = rng.standard_gamma(np.broadcast_to(case.concentration * MATRIX, (n, *MATRIX.shape))) + 1e-300
    tilt = np.ones((1, 1, 1))
    if case.models > 1:
        # The same models for every data set and for the truth.
        tilt = np.exp(np.random.default_rng([SEED, 1]).normal(0, 0.5, (case.models, *MATRIX.shape)))
    p = rows[:, None] * tilt
    p = p / p.sum(axis=-1, keepdims=True)
    return np.asarray(np.repeat(p, case.samples, axis=1))


def walk(p: Array, rng: np.random.Generator, steps: int = STEPS) -> NDArray[np.int16]:
    """Return one sequence a matrix, shape (n, steps), after a few steps that are thrown away."""
    n, k = p.shape[:2]
    limits = np.cumsum(p, axis=-1)
    limits[..., -1] = 1.0
    at, rows = rng.integers(0, k, n), np.arange(n)
    out = np.empty((n, steps), dtype=np.int16)
    for t in range(-6, steps):
        at = (rng.random(n)[:, None] > limits[rows, at]).sum(axis=1)
        if t >= 0:
            out[:, t] = at
    return out


def data_sets(case: Case, count: int, rng: np.random.Generator) -> list[Sequences]:
    """Return `count` independent data sets, labelled by model, prompt and sample."""
    per = case.models * case.samples
    codes = walk(matrices(case, count, rng).reshape(-1, *MATRIX.shape), rng).reshape(count, -1)
    index = pd.MultiIndex.from_product(
        [range(case.prompts), range(case.models), range(case.samples)], names=["prompt", "model", "sample"]
    )
    labels = index.to_frame(index=False)
    offsets = np.arange(case.prompts * per + 1) * STEPS
    return [Sequences(one, offsets, STATES, labels) for one in codes]


def truth(case: Case, rng: np.random.Generator) -> Array:
    """Return what the pooled count table tends to as prompts grow, models held, shape (K, K)."""
    many = 100_000 // (case.models * case.samples)
    (big,) = data_sets(case._replace(prompts=many), 1, rng)
    return np.asarray(count_transitions(big).sum(axis=0, dtype=np.float64))


def coverage(
    case: Case, count: int, rng: np.random.Generator, replicates: int = 999
) -> dict[str, list[float]]:
    """Return coverage of 95 % intervals: the mean over a family's cells and the lowest of them."""
    table = truth(case, rng)
    p = derived.transition_matrix(table)
    names = {
        "transition": [f"transition.{a}.{b}" for a in STATES for b in STATES],
        "lift": [f"lift.{s}" for s in STATES],
        "stationary": [f"stationary.{s}" for s in STATES],
        "first_passage": [f"first_passage.{a}.{b}" for a in STATES for b in STATES if a != b],
    }
    apart = ~np.eye(len(STATES), dtype=bool)
    true = {
        "transition": p.ravel(),
        "lift": derived.lift(table),
        "stationary": derived.stationary(p),
        "first_passage": derived.mean_first_passage(p)[apart],
    }
    hits: dict[str, list[Array]] = {f: [] for f in (*FAMILIES, "sandwich", "Dirichlet", "Wald")}
    for i, s in enumerate(data_sets(case, count, rng)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DynstatWarning)
            found = chain(s, replicates=replicates, rng=i)
            other = chain(s, interval="sandwich")
        for family in FAMILIES:
            limits = np.array([(found[k].low, found[k].high) for k in names[family]])
            hits[family].append((limits[:, 0] <= true[family]) & (true[family] <= limits[:, 1]))
        limits = np.array([(other[k].low, other[k].high) for k in names["transition"]])
        hits["sandwich"].append((limits[:, 0] <= p.ravel()) & (p.ravel() <= limits[:, 1]))
        n = found.counts.astype(np.float64)
        rows = n.sum(axis=1, keepdims=True)
        a, b = n + 0.5, rows - n + (len(STATES) - 1) / 2
        hits["Dirichlet"].append(
            ((special.betaincinv(a, b, 0.025) <= p) & (p <= special.betaincinv(a, b, 0.975))).ravel()
        )
        half = 1.96 * np.sqrt(found.matrix * (1 - found.matrix) / rows)
        hits["Wald"].append((np.abs(found.matrix - p) <= half).ravel())
    out = {}
    for family, seen in hits.items():
        share = np.mean(seen, axis=0)
        out[family] = [float(share.mean()), float(share.min())]
    return out


def coverage_where_prompts_differ(verdict: Verdict) -> None:
    """Coverage at three heterogeneities, with few units, and crossed by model and prompt."""
    count = 50 if verdict.quick else 1000
    print(f"\nCoverage of 95 % intervals, {count} data sets a case: mean over cells (lowest cell)")
    print(
        "bootstrap of the prompt; beside it, for transitions, the sandwich and what takes rows as independent"
    )
    rows = []
    for i, case in enumerate(CASES):
        found = coverage(case, count, np.random.default_rng([SEED, 2, i]), 499 if verdict.quick else 999)
        for family in FAMILIES:
            verdict.within(f"{case.name}, {family}", found[family][0], count, BAND)
        rows.append({"case": case.name} | {k: f"{v[0]:.3f} ({v[1]:.3f})" for k, v in found.items()})
    print(pd.DataFrame(rows).to_string(index=False))


def rare_limits(
    prompts: int, visits: float, events: float, concentration: float, count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return one-sided coverage of the upper 95 % limit of a rare transition, ours and on counts unshrunk."""
    p = events / (prompts * visits)
    row = np.array([p, *(np.array([0.5, 0.3, 0.2]) * (1 - p))])
    n = rng.poisson(visits, (count, prompts))
    if np.isinf(concentration):
        shares = np.broadcast_to(row, (count, prompts, 4))
    else:
        g = rng.standard_gamma(np.broadcast_to(concentration * row, (count, prompts, 4))) + 1e-300
        shares = g / g.sum(axis=-1, keepdims=True)
    x = rng.multinomial(n, shares)
    ours = plain = 0
    for one in x:
        table = np.zeros((prompts, 4, 4))
        table[:, 0] = one
        seen, trials = float(one[:, 0].sum()), float(one.sum())
        if seen < FEW:
            effective = effective_trials(table).n[0, 0]
            ours += rare_pivot(seen, trials, effective, 4).limit(0.05, "upper") >= p
            plain += rare_pivot(seen, trials, trials, 4).limit(0.05, "upper") >= p
            continue
        weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=299)
        drawn = weights @ one
        e = unit_interval(
            "p",
            seen / trials,
            drawn[:, 0] / drawn.sum(axis=1),
            bounds=(0, 1),
            method="m@1",
            unit="prompt",
            n={"units": prompts},
        )
        ours += e.limit(0.05, "upper") >= p
        plain += special.betaincinv(seen + 0.5, trials - seen + 1.5, 0.95) >= p
    return ours / count, plain / count


def limits_of_rare_transitions(verdict: Verdict) -> None:
    """Upper limits of transitions with few events: at least 95 % where prompts differ."""
    count = 60 if verdict.quick else 1000
    levels = (0.5, 1.0, 1.8, 2.5, 3.5, 5.0)
    print(
        f"\nOne-sided coverage of upper 95 % limits of rare transitions, {count} data sets an expected count"
    )
    print(f"mean over {levels} expected events (lowest); beside it Jeffreys on the counts as they are")
    rows = []
    for c in (np.inf, 20.0, 5.0, 1.0):
        for prompts, visits in ((72, 5.0), (24, 20.0)):
            rng = np.random.default_rng([SEED, 3, prompts, int(min(c, 99))])
            both = np.array([rare_limits(prompts, visits, e, c, count, rng) for e in levels])
            rows.append(
                {
                    "concentration": c,
                    "prompts": prompts,
                    "visits": visits,
                    "shrunk": f"{both[:, 0].mean():.3f} ({both[:, 0].min():.3f})",
                    "as they are": f"{both[:, 1].mean():.3f} ({both[:, 1].min():.3f})",
                }
            )
            what = f"rare, concentration {c:g}, {prompts} prompts x {visits:g}"
            verdict.within(what, float(both[:, 0].mean()), count * len(levels), (0.95, 1.0))
    print(pd.DataFrame(rows).to_string(index=False))


#: In the order of the report.
SECTIONS: tuple[Callable[[Verdict], None], ...] = (
    coverage_where_prompts_differ,
    limits_of_rare_transitions,
    levels_of_chain_tests,
    coverage_of_distances,
    motif_levels,
    dwell_levels,
    coverage_of_cycles,
    levels_without_memory,
)


def run_section(place: int, quick: bool) -> tuple[str, list[str]]:
    """Return what a section prints, and what left its band."""
    verdict, out, start = Verdict(quick), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out):
        SECTIONS[place](verdict)
        print(f"({SECTIONS[place].__name__}: {time.process_time() - start:.0f} s of CPU)")
    return out.getvalue(), verdict.failed


def markov(quick: bool) -> int:
    """Print all tables, the sections shared out over two processes; 1 where one leaves its band."""
    began = time.time()
    print(f"seed {SEED}; band {BAND}" + (", widened by the Monte-Carlo error of 99.9 %" if quick else ""))
    # Every section has seeds of its own, so that tables do not depend on who makes them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    workers = min(2, os.cpu_count() or 1)
    failed: list[str] = []
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for text, left in pool.map(run_section, range(len(SECTIONS)), [quick] * len(SECTIONS)):
            print(text, end="", flush=True)
            failed += left
    print(
        f"\n{time.time() - began:.0f} s; " + ("all inside" if not failed else "outside: " + "; ".join(failed))
    )
    return 1 if failed else 0
