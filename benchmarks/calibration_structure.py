"""Calibration of the tests of structure: how often data without clusters are said to hold some.

Each case simulates data sets, tests every one at 5 % and gives the share that was rejected. Cases run in two
processes, each with a seed of its own, so that results do not depend on what ran before.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration_one_dimension import lines
from dynstat.cluster.many_cuts import cut_many
from dynstat.cluster.null_sets import structureless_many
from dynstat.cluster.reclustering import Reclustering, mean_jaccards
from dynstat.cluster.stability_null import STATISTICS

Array = NDArray[np.float64]
SEED = 20261122
LIMIT, LEAST = 0.065, 0.035
# Half-width of a share's Monte-Carlo error at 99.9 %.
Z = 3.29
FEATURES = 6
#: Sets of the null. A test that rejects where p <= .05 may stop once more than 5 % of them reach the data:
#: it cannot reject any more, and decides as with all of them.
SETS = 99
#: Resamples by number of items: with few, the Jaccards of eight items are all 1 too often.
RESAMPLES = {8: 200, 17: 60, 60: 30}
POPULATIONS = ("gaussian", "correlated", "uniform", "t3", "exponential")


def clouds(population: str, count: int, n: int, p: int, rng: np.random.Generator) -> Array:
    """Return data sets without clusters, shape (count, n, p).

    ``correlated``: Gaussian, one factor, correlations .5 and standard deviations 1 to 3.
    """
    shape = (count, n, p)
    if population == "correlated":
        common = rng.standard_normal((count, n, 1))
        mixed = np.sqrt(0.5) * common + np.sqrt(0.5) * rng.standard_normal(shape)
        return np.asarray(mixed * np.linspace(1, 3, p))
    draw: dict[str, Callable[[tuple[int, int, int]], Array]] = {
        "gaussian": rng.standard_normal,
        "uniform": rng.random,
        "t3": lambda s: rng.standard_t(3, s),
        "exponential": rng.standard_exponential,
    }
    return draw[population](shape)


def planted(separation: float, k: int, count: int, n: int, p: int, rng: np.random.Generator) -> Array:
    """Return Gaussian groups of equal size, every two centres `separation` standard deviations apart."""
    x = rng.standard_normal((count, n, p))
    group = np.arange(n) * k // n
    x[:, np.arange(n), group] += separation / np.sqrt(2)
    return x


def ward(k: int) -> Reclustering:
    """Return Ward's clustering cut at k."""

    def run(x: Array) -> NDArray[np.intp]:
        return cut_many(x[None], k)[0]

    made = Reclustering(k, "ward", run, lambda x: (run(x), made))
    return made


def rejected(
    x: Array, k: int, null: str, rng: np.random.Generator, statistic: str = "mean", resamples: int = 0
) -> tuple[NDArray[np.bool_], Array]:
    """Return which data sets the stability test calls structured at 5 %, and their mean Jaccards.

    The null is drawn for every data set alone, fitted to it where it is one that is fitted.
    """
    how, compute = ward(k), STATISTICS[statistic]
    n = x.shape[1]
    most = int(0.05 * (SETS + 1) + 1e-9) - 1
    out, means = np.zeros(len(x), dtype=bool), []
    # New resamples for every block of data sets: their draws would else be an error that all share.
    for start in range(0, len(x), 25):
        block = x[start : start + 25]
        items = rng.integers(0, n, (resamples or RESAMPLES[n], n))
        found = mean_jaccards(block, how, items)
        means.append(found)
        observed = compute(found)
        reached = np.zeros(len(block), dtype=int)
        open_, done = np.arange(len(block)), 0
        while open_.size and done < SETS:
            step = min(11, SETS - done)
            sets = structureless_many(block[open_], null, step, rng)
            draws = compute(mean_jaccards(sets.reshape(-1, *sets.shape[2:]), how, items))
            reached[open_] += (draws.reshape(-1, step) >= observed[open_, None]).sum(axis=1)
            done += step
            open_ = open_[reached[open_] <= most]
        out[start : start + len(block)] = reached <= most
    return out, np.concatenate(means)


def false_structure(
    population: str, n: int, k: int, null: str, count: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return the test's share of false structure, and the textbook rule's on the same data sets."""
    hit, means = rejected(clouds(population, count, n, FEATURES, rng), k, null, rng)
    return {
        "rejected": float(hit.mean()),
        "textbook all": float(np.mean(means.min(axis=1) >= 0.75)),
        "textbook any": float(np.mean(means.max(axis=1) >= 0.75)),
    }


def power(
    separation: float, n: int, k: int, null: str, count: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return the share of planted clusters that the test finds, and the textbook rule's."""
    hit, means = rejected(planted(separation, k, count, n, FEATURES, rng), k, null, rng)
    return {
        "rejected": float(hit.mean()),
        "textbook all": float(np.mean(means.min(axis=1) >= 0.75)),
        "textbook any": float(np.mean(means.max(axis=1) >= 0.75)),
    }


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes
    ----------
    name : str
    rule : {"at most", "within", "shown"}
        At most 6.5 %, within 3.5 to 6.5 %, or not judged.
    run : callable
        Of a count and a Generator, to shares; ``rejected`` is judged. Picklable.
    count, quick : int
        Data sets in the full and in the quick run; 0 leaves a case out.
    """

    name: str
    rule: Literal["at most", "within", "shown"]
    run: Callable[[int, np.random.Generator], Mapping[str, float]]
    count: int
    quick: int


def _stability_cases() -> list[Case]:
    out = []
    for n, k in ((8, 2), (17, 3), (60, 3)):
        for population in POPULATIONS:
            judged = population in ("gaussian", "correlated")
            for null in ("gaussian", "rotation"):
                rule: Literal["at most", "within", "shown"] = "at most" if null == "gaussian" else "within"
                # Twice as many where both sides of the band are judged: a right test must not miss by chance.
                count = {"at most": 1000, "within": 2000}[rule] if judged else 300
                quick = (120 if n < 60 else 50) if population == "gaussian" else 0
                out.append(
                    Case(
                        f"stability, {population} cloud of {n}, k = {k}, null {null}",
                        rule if judged else "shown",
                        partial(_false, population, n, k, null),
                        count,
                        quick,
                    )
                )
    for n, k, separation in (
        (8, 2, 6.0),
        (8, 2, 10.0),
        (17, 3, 4.0),
        (17, 3, 6.0),
        (60, 3, 3.0),
        (60, 3, 4.0),
    ):
        for null in ("gaussian", "rotation"):
            out.append(
                Case(
                    f"power, {n} items, {k} groups {separation:g} SD apart, null {null}",
                    "shown",
                    partial(_power, separation, n, k, null),
                    200,
                    20 if null == "rotation" else 0,
                )
            )
    return out


def _false(
    population: str, n: int, k: int, null: str, count: int, rng: np.random.Generator
) -> Mapping[str, float]:
    return false_structure(population, n, k, null, count, rng)


def _power(
    separation: float, n: int, k: int, null: str, count: int, rng: np.random.Generator
) -> Mapping[str, float]:
    return power(separation, n, k, null, count, rng)


#: Every line of the table; tests of structure add theirs.
CASES: list[Case] = _stability_cases() + [Case(*line) for line in lines()]


def _one(case: Case, count: int) -> tuple[Mapping[str, float], float]:
    began = time.process_time()
    # The seed of a case is that of its name.
    rng = np.random.default_rng([SEED, zlib.crc32(case.name.encode())])
    return case.run(count, rng), time.process_time() - began


def verdict(case: Case, share: float, count: int, quick: bool) -> str:
    """Return "" where the share keeps to the rule; a quick run allows for Monte-Carlo error."""
    slack = Z * float(np.sqrt(0.05 * 0.95 / count)) if quick else 0.0
    if case.rule == "shown":
        return ""
    if share > LIMIT + slack + 1e-9:
        return f"above {LIMIT + slack:.3f}"
    if case.rule == "within" and share < LEAST - slack - 1e-9:
        return f"below {LEAST - slack:.3f}"
    return ""


def structure(quick: bool) -> int:
    """Print a line a case; return 1 where a test of structure leaves its band."""
    # One thread a process: the work is many small products.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    began, failed = time.time(), []
    chosen = [(c, c.quick if quick else c.count) for c in CASES if (c.quick if quick else c.count)]
    print(
        f"seed {SEED}; Ward, {FEATURES} features, mean Jaccard, {SETS} sets of the null, resamples "
        + ", ".join(f"{b} at {n} items" for n, b in RESAMPLES.items())
    )
    print("rejected: p <= .05. textbook all / any: mean Jaccard >= .75 of all clusters / of any")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [(case, count, pool.submit(_one, case, count)) for case, count in chosen]
        for case, count, job in jobs:
            found, seconds = job.result()
            wrong = verdict(case, found["rejected"], count, quick)
            if wrong:
                failed.append(f"{case.name}: {found['rejected']:.3f}, {wrong} (n = {count})")
            shares = ", ".join(f"{k} {v:.3f}" for k, v in found.items())
            band = {"at most": f"<= {LIMIT}", "within": f"{LEAST} to {LIMIT}", "shown": ""}[case.rule]
            print(
                f"  {case.name}: {shares} (n = {count}, {seconds:.0f} s) {band} {wrong}".rstrip(), flush=True
            )
    print(
        f"\n{time.time() - began:.0f} s; " + ("all inside" if not failed else "short: " + "; ".join(failed))
    )
    return 1 if failed else 0
