"""Speed of chains, for ``python -m benchmarks.structure``: counting, and replicates of whole units."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from dynstat.markov import Sequences, chain, count_transitions, unit_codes
from dynstat.markov.estimation import draw_counts


class Timing(NamedTuple):
    """What was timed, the least and the median CPU seconds of its runs, and the target in seconds."""

    what: str
    least: float
    median: float
    target: float


def timed(call: Callable[[], object], runs: int) -> tuple[float, float]:
    """Return the least and the median CPU seconds of `runs` calls, after one that warms up."""
    call()
    seconds = []
    for _ in range(runs):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return min(seconds), float(np.median(seconds))


def sequences(n: int, steps: int, states: int, rng: np.random.Generator) -> Sequences:
    """Return n random sequences, each a prompt of its own."""
    codes = rng.integers(0, states, n * steps).astype(np.int16)
    names = tuple(f"STATE_{i}" for i in range(states))
    return Sequences(codes, np.arange(n + 1) * steps, names, pd.DataFrame({"prompt": np.arange(n)}))


def chain_timings(quick: bool = False) -> list[Timing]:
    """Time counting a million sequences, and a thousand bootstrap replicates of 72.

    Parameters
    ----------
    quick : bool
        A tenth of the sequences, and a tenth of the target.
    """
    rng = np.random.default_rng(20261120)
    n = 100_000 if quick else 1_000_000
    many = sequences(n, 64, 5, rng)
    few = sequences(72, 48, 4, rng)
    resampler = unit_codes(few)
    tables = count_transitions(few)
    fitted = chain(few)
    cases: list[tuple[str, Callable[[], object], int, float]] = [
        (f"count {n:,} sequences of 64 tokens, 5 states", lambda: count_transitions(many), 3, n / 1e6),
        (
            "1,000 bootstrap replicates of 72 sequences, 4 states",
            lambda: draw_counts(tables, resampler, 1000, 0),
            20,
            0.020,
        ),
        ("chain(), replicates and diagnostics", lambda: chain(few), 20, 0.050),
        ("chain() with all 61 estimates and intervals", lambda: chain(few).estimates(), 10, 0.100),
    ]
    assert fitted.n["units"] == 72
    return [Timing(what, *timed(call, runs), target) for what, call, runs, target in cases]


def main() -> int:
    """Print the table; return 1 where a target is missed."""
    rows = chain_timings()
    for row in rows:
        print(
            f"{row.what:<56} {1e3 * row.least:8.1f} ms (median {1e3 * row.median:.1f}), "
            f"target {1e3 * row.target:.0f}"
        )
    return int(any(row.least > row.target for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
