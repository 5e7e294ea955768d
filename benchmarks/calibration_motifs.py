"""Motifs and dwell times in data without grammar and without memory, where prompts differ.

Part of ``python -m benchmarks.calibration markov``. Counts how often a motif is called conserved against each
null alone and against both, how often a planted grammar is, and how often a constant hazard is rejected.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dynstat.errors import DynstatWarning
from dynstat.markov import Sequences, dwell, motifs

SEED = 20261123
LAYERS, PROMPTS = 12, 36
NAMES = ("SURFACE_BRANCHING", "STABLE", "COMMITTED", "HIDDEN_TURBULENCE")
NULLS = ("markov", "depth", "markov_group", "depth_pooled", "depth_markov")
# The null that a world without grammar obeys: against it alone the level must hold.
OWN = {
    "a chain of its own each prompt": "markov",
    "depth trend": "depth",
    "prompts of differing level": "depth",
    "depth trend, prompts of differing level": "depth",
    "the same, neighbours alike": None,
}


def world(name: str, rows: int, prompts: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return states without grammar, shape (rows, LAYERS); row r belongs to prompt r % prompts."""
    if name == "a chain of its own each prompt":
        mean = rng.dirichlet(np.full(3, 2.0), 3)
        p = rng.standard_gamma(20 * mean + 0.01, (prompts, 3, 3))
        bounds = np.cumsum(p / p.sum(axis=-1, keepdims=True), axis=-1)[np.arange(rows) % prompts]
        x = np.empty((rows, LAYERS), dtype=np.intp)
        x[:, 0] = rng.integers(0, 3, rows)
        for t in range(1, LAYERS):
            u = rng.random((rows, 1))
            x[:, t] = np.minimum((u > bounds[np.arange(rows), x[:, t - 1]]).sum(axis=1), 2)
        return x
    slope = 0.0 if name == "prompts of differing level" else 2.0
    differ = 0.0 if name == "depth trend" else 1.0
    alike = 0.6 if name == "the same, neighbours alike" else 0.0
    e = rng.normal(size=(rows, LAYERS))
    for t in range(1, LAYERS):
        e[:, t] = alike * e[:, t - 1] + np.sqrt(1 - alike**2) * e[:, t]
    level = differ * rng.normal(size=prompts)[np.arange(rows) % prompts]
    return np.digitize(slope * np.linspace(-1, 1, LAYERS) + e + level[:, None], [-0.6, 0.6])


def grammar(rows: int, chance: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return four states in which every pair of neighbours is equally likely and 0 1 leads to 2."""
    x = rng.integers(0, 4, (rows, LAYERS))
    for t in range(2, LAYERS):
        at, after = x[:, t - 1] == 1, x[:, t - 2] == 0
        two = rng.random(rows) < np.where(after, chance, (1 - chance) / 3)
        x[:, t] = np.where(at, np.where(two, 2, rng.choice([0, 1, 3], rows)), x[:, t])
    return x


def labelled(x: NDArray[np.intp], models: int, states: int) -> Sequences:
    """Return sequences of `models` that share their prompts."""
    prompts = len(x) // models
    labels = pd.DataFrame(
        {"model": np.repeat(np.arange(models), prompts), "prompt": np.tile(np.arange(prompts), models)}
    )
    offsets = np.arange(len(x) + 1, dtype=np.int64) * x.shape[1]
    return Sequences(x.astype(np.int16).ravel(), offsets, NAMES[:states], labels, "layer")


def motif_levels(verdict: Any) -> None:
    """Share of data sets without grammar in which any motif is conserved: at most 5 %."""
    count = 8 if verdict.quick else 120
    print(
        f"\nData sets with any conserved motif, of {count} without grammar; {PROMPTS} prompts, "
        f"{LAYERS} layers, three states"
    )
    print("against each null alone, and against both defaults (the rule of a claim)")
    rows = []
    for i, (name, own) in enumerate(OWN.items()):
        for models in (1,) if verdict.quick else (1, 2):
            hits = dict.fromkeys([*NULLS, "both"], 0.0)
            for d in range(count):
                rng = np.random.default_rng([SEED, i, models, d])
                s = labelled(world(name, models * PROMPTS, PROMPTS, rng), models, 3)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DynstatWarning)
                    r = motifs(s, nulls=NULLS, surrogates=299, replicates=19, rng=d)
                for null in NULLS:
                    hits[null] += bool(r.against[null].conserved.any()) / count
                both = r.against["markov"].conserved & r.against["depth"].conserved
                hits["both"] += bool(both.any()) / count
            rows.append({"world": name, "models": models, **{k: f"{v:.3f}" for k, v in hits.items()}})
            verdict.within(f"motifs, {name}, {models} models, both", hits["both"], count, (0.0, 0.05))
            if own:
                verdict.within(f"motifs, {name}, {models} models, {own}", hits[own], count, (0.0, 0.05))
    print(pd.DataFrame(rows).to_string(index=False))
    found = 0.0
    power = max(count // 20, 1)
    for d in range(power):
        s = labelled(grammar(6 * 72, 0.9, np.random.default_rng([SEED, 9, d])), 6, 4)
        found += (" > ".join(NAMES[:3]) in motifs(s, surrogates=999, replicates=19, rng=d).conserved) / power
    print(f"planted grammar, 6 models x 72 prompts: found conserved in {found:.2f} of {power}")


def dwell_levels(verdict: Any) -> None:
    """Rejections of a constant hazard in chains without memory whose prompts differ."""
    count = 10 if verdict.quick else 600
    nulls = ("markov", "markov_shuffle", "markov_group")
    print(f"\nRejections of a constant hazard at .05, {count} data sets without memory, two states")
    rows = []
    for i, (name, concentration, steps) in enumerate(
        (("alike", np.inf, 40), ("moderate", 20.0, 12), ("strong", 5.0, 40))
    ):
        hits = dict.fromkeys(nulls, 0.0)
        for d in range(count):
            rng = np.random.default_rng([SEED, 20, i, d])
            stay = np.full(60, 0.75)
            if np.isfinite(concentration):
                stay = rng.beta(0.75 * concentration, 0.25 * concentration, 60)
            x = np.zeros((60, steps), dtype=np.intp)
            for t in range(1, steps):
                x[:, t] = np.where(rng.random(60) < stay, x[:, t - 1], 1 - x[:, t - 1])
            for null in nulls:
                r = dwell(labelled(x, 1, 2), null=null, surrogates=199, replicates=19, rng=d)
                hits[null] += float(np.mean([(s.mean.null or {})["p"] <= 0.05 for s in r.stays])) / count
        rows.append({"prompts": name, "steps": steps, **{k: f"{v:.3f}" for k, v in hits.items()}})
        for null in nulls[:2]:
            verdict.within(f"dwell, prompts {name}, {null}", hits[null], count, (0.0, 0.07))
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    import sys

    from benchmarks.calibration_markov import Verdict

    began, outcome = time.time(), Verdict("--quick" in sys.argv)
    motif_levels(outcome)
    dwell_levels(outcome)
    print(f"{time.time() - began:.0f} s; {outcome.failed or 'all inside'}")
