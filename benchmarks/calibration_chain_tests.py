"""How often tests about chains reject what is true, and how often they find what is there.

Part of ``python -m benchmarks.calibration markov``. Transition matrices of 4 states differ between sequences
or prompts: rows Dirichlet around a common chain (concentration 20: moderate; 5: strong), a new common chain
in every data set. No test may know how much they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dynstat.markov import (
    Sequences,
    homogeneity_test,
    order_test,
    stationarity_test,
    transition_distance,
)
from dynstat.markov.distance import pair_distances
from dynstat.markov.null_chains import draw_chain

if TYPE_CHECKING:
    from benchmarks.calibration_markov import Verdict

Array = NDArray[np.float64]
Result = dict[str, float]

STATES = ("STABLE", "HIDDEN_TURBULENCE", "SURFACE_BRANCHING", "FULL_BIFURCATION")
K = len(STATES)
SPREADS = {"none": np.inf, "moderate": 20.0, "strong": 5.0}
MODELS, PROMPTS, SAMPLES, STEPS = 6, 36, 2, 48
LEVEL = (0.035, 0.07)
SEED = 20261122
#: Draws of nulls and of units; p <= .05 then has a chance of exactly 5 % under the null.
FEW: dict[str, Any] = {"permutations": 99, "replicates": 99}


def spread_out(base: Array, concentration: float, n: int, rng: np.random.Generator) -> Array:
    """Return n transition matrices around one, shape (n, K, K)."""
    if np.isinf(concentration):
        return np.repeat(base[None], n, axis=0)
    drawn = rng.standard_gamma(np.broadcast_to(concentration * base, (n, K, K))) + 1e-300
    return drawn / drawn.sum(axis=2, keepdims=True)


def common_chain(rng: np.random.Generator) -> Array:
    """Return a chain that data sets share, rows Dirichlet(2)."""
    return rng.dirichlet(np.full(K, 2.0), K)


def as_sequences(codes: NDArray[np.int16], labels: pd.DataFrame) -> Sequences:
    """Return sequences of equal length with their labels."""
    return Sequences(codes.ravel(), np.arange(len(codes) + 1) * codes.shape[1], STATES, labels)


def alone(concentration: float, rng: np.random.Generator, n: int = 72, steps: int = STEPS) -> Sequences:
    """Simulate the design of section 7.2 of the sources: every sequence a unit, two groups of half each."""
    own = spread_out(common_chain(rng), concentration, n, rng)
    codes = draw_chain(own, rng.integers(0, K, n), np.full(n, steps), rng)
    labels = pd.DataFrame(
        {"prompt": np.arange(n).astype(str), "group": np.array(["a", "b"])[np.arange(n) % 2]}
    )
    return as_sequences(codes, labels)


def crossed_labels() -> pd.DataFrame:
    """Return labels of 6 models × 36 prompts × 2 samples; the category is the prompt's."""
    index = pd.MultiIndex.from_product(
        [range(MODELS), range(PROMPTS), range(SAMPLES)], names=["model", "prompt", "sample"]
    )
    labels = index.to_frame(index=False)
    labels["category"] = np.array(["a", "b"])[labels["prompt"] % 2]
    return labels


LABELS = crossed_labels()


def crossed(
    concentration: float,
    rng: np.random.Generator,
    *,
    own_models: bool = False,
    category: float = 0.0,
    model: float = 0.0,
    drift: float = 0.0,
    burn: int = 0,
) -> Sequences:
    """Simulate data crossed by model and prompt.

    Prompts have chains of their own; with `own_models` every model bends them in its own way, without, cells
    of model and prompt scatter. `category`, `model`, `drift`: the chance by which a step of category b, of
    the first model, of the last third stays where it was instead. `burn`: steps before the first that is
    seen; without any, states are equally frequent at first and drift to the shares of their chains.
    """
    base = common_chain(rng)
    prompts = spread_out(base, concentration, PROMPTS, rng)
    m, p = LABELS["model"].to_numpy(), LABELS["prompt"].to_numpy()
    if own_models:
        bent = prompts[None] * rng.gamma(4.0, 0.25, (MODELS, 1, K, K))
        cells = bent / bent.sum(axis=3, keepdims=True)
    else:
        cells = np.stack([_around(prompts, 2 * concentration, rng) for _ in range(MODELS)])
    held = np.zeros(len(LABELS))
    held += category * (p % 2) + model * (m == 0)
    own = (1 - held)[:, None, None] * cells[m, p] + held[:, None, None] * np.eye(K)
    n, first = len(LABELS), STEPS - STEPS // 3 if drift else STEPS
    codes = draw_chain(own, rng.integers(0, K, n), np.full(n, first + burn), rng)[:, burn:]
    if drift:
        late = (1 - drift) * own + drift * np.eye(K)
        rest = draw_chain(late, codes[:, -1].astype(np.intp), np.full(n, STEPS - first + 1), rng)
        codes = np.concatenate([codes, rest[:, 1:]], axis=1)
    return as_sequences(codes, LABELS)


def _around(prompts: Array, concentration: float, rng: np.random.Generator) -> Array:
    if np.isinf(concentration):
        return prompts
    drawn = rng.standard_gamma(concentration * prompts) + 1e-300
    return drawn / drawn.sum(axis=2, keepdims=True)


def order_data(concentration: float, order: int, memory: float, rng: np.random.Generator) -> Sequences:
    """Simulate 36 sequences of 40 steps; `memory`: chance to repeat the state beyond the null's order."""
    n, steps = 36, 40
    base = common_chain(rng) if order else np.repeat(rng.dirichlet(np.full(K, 2.0), 1), K, axis=0)
    own = spread_out(base, concentration, n, rng)
    own = own if order else np.repeat(own[:, :1], K, axis=1)
    codes = draw_chain(own, rng.integers(0, K, n), np.full(n, steps), rng)
    if memory:
        now = codes[:, : order + 1]
        for _ in range(order + 1, steps):
            step = draw_chain(own, now[:, -1].astype(np.intp), np.full(n, 2), rng)[:, 1]
            back = np.where(rng.random(n) < memory, now[:, -1 - order], step)
            now = np.concatenate([now, back[:, None]], axis=1)
        codes = now.astype(np.int16)
    return as_sequences(codes, pd.DataFrame({"prompt": np.arange(n).astype(str)}))


def rates(make: Callable[[int], Iterator[tuple[str, float]]], replicates: int) -> Result:
    """Return how often p <= .05, by name."""
    hits: dict[str, list[bool]] = {}
    for i in range(replicates):
        for name, p in make(i):
            hits.setdefault(name, []).append(p <= 0.05)
    return {name: float(np.mean(h)) for name, h in hits.items()}


def sharing(concentration: float, rng: np.random.Generator, share: int = 4) -> Sequences:
    """Simulate 72 sequences, `share` of them from every prompt; half the prompts belong to each category."""
    prompts = 72 // share
    own = np.repeat(spread_out(common_chain(rng), concentration, prompts, rng), share, axis=0)
    codes = draw_chain(own, rng.integers(0, K, 72), np.full(72, STEPS), rng)
    prompt = np.repeat(np.arange(prompts), share)
    labels = pd.DataFrame({"prompt": prompt.astype(str), "category": np.array(["a", "b"])[prompt % 2]})
    return as_sequences(codes, labels)


def groups_of_36(
    concentration: float, rng: np.random.Generator
) -> Callable[[int], Iterator[tuple[str, float]]]:
    """Return p-values for two equal groups of 36 sequences."""

    def one(i: int) -> Iterator[tuple[str, float]]:
        r = homogeneity_test(alone(concentration, rng), "group", rng=i, **FEW)
        yield "units permuted, Pearson", r.p_null["Pearson"]
        yield "units permuted, G", r.p_null["G"]
        yield "textbook: G against chi-square", r.p_chi_square["G"]
        yield "textbook: Pearson against chi-square", r.p_chi_square["Pearson"]
        s = sharing(concentration, rng)
        r = homogeneity_test(s, "category", unit="sequence", rng=i, **FEW)
        yield "wrong unit: sequences permuted, four share a prompt", r.p_value
        r = homogeneity_test(s, "category", rng=i, **FEW)
        yield "the same, whole prompts permuted", r.p_value

    return one


def crossed_nulls(
    concentration: float, rng: np.random.Generator
) -> Callable[[int], Iterator[tuple[str, float]]]:
    """Return p-values on crossed data where nothing differs."""

    def one(i: int) -> Iterator[tuple[str, float]]:
        s = crossed(concentration, rng, own_models=True)
        r = homogeneity_test(s, "category", rng=i, **FEW)
        yield "category, whole prompts permuted", r.p_value
        yield "textbook: category against chi-square", r.p_chi_square["Pearson"]
        r = homogeneity_test(s, "category", within="model", rng=i, **FEW)
        yield "category within models, whole prompts permuted", r.p_value
        name = "stationarity, thirds permuted within prompts"
        yield f"shown: {name}, occupancy drifting", stationarity_test(s, rng=i, **FEW).p_value
        s = crossed(concentration, rng, own_models=True, burn=12)
        r = stationarity_test(s, rng=i, **FEW)
        yield name, r.p_value
        yield "textbook: stationarity against chi-square", r.p_chi_square["Pearson"]
        s = crossed(concentration, rng)
        r = homogeneity_test(s, "model", rng=i, **FEW)
        yield "model, permuted within prompts", r.p_value
        yield "textbook: model against chi-square", r.p_chi_square["Pearson"]

    return one


def order_nulls(
    concentration: float, rng: np.random.Generator
) -> Callable[[int], Iterator[tuple[str, float]]]:
    """Return p-values for chains of the order of the null."""

    def one(i: int) -> Iterator[tuple[str, float]]:
        for order in (0, 1):
            s = order_data(concentration, order, 0.0, rng)
            r = order_test(s, order, rng=i, **FEW)
            yield f"order {order}, sequences shuffled", r.p_value
            yield f"textbook: order {order}, G against chi-square", r.p_chi_square["G"]
            yield f"textbook: order {order}, Pearson against chi-square", r.p_chi_square["Pearson"]
            r = order_test(s, order, null="simulation", rng=i, **FEW)
            yield f"order {order}, one chain simulated", r.p_value

    return one


def power(concentration: float, rng: np.random.Generator) -> Callable[[int], Iterator[tuple[str, float]]]:
    """Return p-values where a tenth of the steps is held (order: a fifth goes one step further back)."""

    def one(i: int) -> Iterator[tuple[str, float]]:
        s = crossed(concentration, rng, own_models=True, category=0.1)
        yield "power: category", homogeneity_test(s, "category", rng=i, **FEW).p_value
        s = crossed(concentration, rng, model=0.1)
        yield "power: one model", homogeneity_test(s, "model", rng=i, **FEW).p_value
        s = crossed(concentration, rng, own_models=True, drift=0.1)
        yield "power: last third", stationarity_test(s, rng=i, **FEW).p_value
        for order in (0, 1):
            s = order_data(concentration, order, 0.2, rng)
            yield f"power: order {order}", order_test(s, order, rng=i, **FEW).p_value

    return one


def distance_coverage(replicates: int, rng: np.random.Generator) -> Result:
    """Return how often the interval of the largest distance holds the truth, for three truths.

    The truth is that of 4,000 prompts. Prompts have multiplicative effects, the same for all models.
    """
    out: Result = {}
    m, p = LABELS["model"].to_numpy(), LABELS["prompt"].to_numpy()
    base = common_chain(rng)
    cases = {"equal models": 0.0, "one model held .06": 0.06, "one model held .25": 0.25}
    for name, held in cases.items():
        chains = np.repeat(base[None], MODELS, axis=0)
        chains[0] = (1 - held) * base + held * np.eye(K)
        truth = _largest_in_truth(chains, rng)
        hit, below = 0, 0
        for i in range(replicates):
            own = _bent(chains, PROMPTS, rng)[m, p]
            codes = draw_chain(own, rng.integers(0, K, len(m)), np.full(len(m), STEPS), rng)
            e = transition_distance(
                as_sequences(codes, LABELS), permutations=99, replicates=199, rng=i
            ).largest
            hit += e.low <= truth <= e.high
            below += truth <= e.high
        out[f"interval, {name}"] = hit / replicates
        out[f"upper limit alone, {name}"] = below / replicates
    return out


def _bent(chains: Array, prompts: int, rng: np.random.Generator) -> Array:
    bent = chains[:, None] * rng.gamma(3.0, 1 / 3, (1, prompts, K, K))
    return np.asarray(bent / bent.sum(axis=3, keepdims=True))


def _largest_in_truth(chains: Array, rng: np.random.Generator) -> float:
    cells = _bent(chains, 4000, rng)
    share = np.full(cells.shape[:3], 1 / K)
    counts = np.zeros((MODELS, K, K))
    for _ in range(STEPS - 1):
        counts += (share[..., None] * cells).sum(axis=1)
        share = np.einsum("mpi,mpij->mpj", share, cells)
    return float(pair_distances(counts, *np.triu_indices(MODELS, 1)).max())


def levels_of_chain_tests(verdict: Verdict) -> None:
    """Print how often tests of chains reject at 5 %, a row a method and a column a heterogeneity.

    Rows that begin with textbook, wrong or shown are there to be compared and decide nothing.
    """
    parts = ((groups_of_36, 1000), (crossed_nulls, 1600), (order_nulls, 600), (power, 40))
    columns: dict[str, Result] = {}
    counts: dict[str, int] = {}
    for j, (spread, concentration) in enumerate(SPREADS.items()):
        columns[spread] = {}
        for i, (part, full) in enumerate(parts):
            n = max(full // 40, 8) if verdict.quick else full
            found = rates(part(concentration, np.random.default_rng([SEED, i, j])), n)
            columns[spread] |= found
            counts |= dict.fromkeys(found, n)
    table = pd.DataFrame(columns)
    table.insert(0, "data sets", pd.Series(counts))
    print("\nTests of chains: rejected at 5 % where nothing differs (power: where something does)")
    print(table.to_string(float_format=lambda x: f"{x:.3f}"))
    for name in map(str, table.index):
        if name.startswith(("textbook", "wrong", "shown", "power")):
            continue
        # One chain simulated for all is only said to hold where there is one.
        for spread in ["none"] if "one chain" in name else SPREADS:
            verdict.within(f"{name}, {spread}", columns[spread][name], counts[name], LEVEL)


def coverage_of_distances(verdict: Verdict) -> None:
    """Print how often the interval of the largest distance holds the truth: at least 93 %."""
    count = 20 if verdict.quick else 200
    found = distance_coverage(count, np.random.default_rng([SEED, 9]))
    print(f"\nLargest distance between the chains of {MODELS} models: coverage of 95 %, {count} data sets")
    print(pd.Series(found).to_string(float_format=lambda x: f"{x:.3f}"))
    for name, share in found.items():
        verdict.within(name, share, count, (0.93, 1.0))
