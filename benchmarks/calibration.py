"""Measure how often intervals cover what they speak of.

``python -m benchmarks.calibration shares|mixed|structure|markov|decisions``

Each check simulates from a known truth with a fixed seed, prints a table, and exits 1 where a method that
decides claims leaves its band. `--quick` simulates less and widens the band by the Monte-Carlo
error (99.9 %).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dynstat.inference.resample import Resampler
from dynstat.mixed.balanced import anova_components, find_strata, reml_components
from dynstat.mixed.design import Design, build_design
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.jackknife import jackknife_share
from dynstat.mixed.population import bias_corrected

Array = NDArray[np.float64]

FORMULA = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:category) + (1|model:prompt)"
TERMS = ("model", "category", "category:prompt", "model:category", "model:prompt", "residual")
MODELS, CATEGORIES, PROMPTS, SAMPLES = 6, 6, 12, 4
BAND = (0.92, 0.98)
SEED = 20261120

# Components in the order of TERMS, adding up to one. "published" spreads the published 7 / 17 / 76.
SCENARIOS: dict[str, tuple[float, ...]] = {
    "published": (0.07, 0.17, 0.05, 0.02, 0.03, 0.66),
    "architecture": (0.40, 0.10, 0.10, 0.10, 0.10, 0.20),
    "prompts": (0.05, 0.10, 0.35, 0.05, 0.15, 0.30),
}
# Shares on or near the boundary: reported, never deciding, since no interval of this kind is exact there.
EDGES: dict[str, tuple[float, ...]] = {
    "no interaction": (0.07, 0.17, 0.10, 0.00, 0.00, 0.66),
    "nearly no model": (0.002, 0.17, 0.10, 0.01, 0.03, 0.688),
}


@dataclass(frozen=True)
class Held:
    """The models and categories of one panel: their effects, fixed over the replicates."""

    model: Array
    category: Array
    both: Array

    @classmethod
    def draw(cls, components: dict[str, float], rng: np.random.Generator, models: int = MODELS) -> Held:
        """Draw effects once."""
        sd = {k: np.sqrt(v) for k, v in components.items()}
        return cls(
            rng.normal(0, sd["model"], models),
            rng.normal(0, sd["category"], CATEGORIES),
            rng.normal(0, sd["model:category"], (models, CATEGORIES)),
        )

    def target(self, components: dict[str, float]) -> dict[str, float]:
        """Return what the REML shares tend to as prompts grow.

        The components of prompts, model:prompt and residual tend to their values; those of model, category
        and model:category to the REML solution of the mean squares of the held effects.
        """
        models = self.model.size
        table = self.model[:, None] + self.category[None, :] + self.both
        rows, cols = table.mean(axis=1), table.mean(axis=0)
        inner = table - rows[:, None] - cols[None, :] + table.mean()
        df = np.array([models - 1, CATEGORIES - 1, (models - 1) * (CATEGORIES - 1)], dtype=float)
        ss = np.array(
            [
                CATEGORIES * np.sum((rows - rows.mean()) ** 2),
                models * np.sum((cols - cols.mean()) ** 2),
                np.sum(inner**2),
            ]
        )
        design = np.array([[CATEGORIES, 0.0, 1.0], [0.0, models, 1.0], [0.0, 0.0, 1.0]])
        model, category, both = reml_components(ss, df, design)[0]
        limits = components | {"model": model, "category": category, "model:category": both}
        total = sum(limits.values())
        return {k: v / total for k, v in limits.items()}


def grid(samples: int = SAMPLES, models: int = MODELS) -> pd.DataFrame:
    """Return the rows of the panel without outcomes."""
    index = pd.MultiIndex.from_product(
        [range(models), range(CATEGORIES), range(PROMPTS), range(samples)],
        names=["model", "category", "item", "sample"],
    )
    frame = index.to_frame(index=False)
    frame["prompt"] = frame["category"] * PROMPTS + frame["item"]
    return frame.assign(y=np.arange(len(frame)) * 1.0)


def simulate(
    frame: pd.DataFrame, held: Held, components: dict[str, float], count: int, rng: np.random.Generator
) -> Array:
    """Return outcomes with the models and categories held, shape (rows, count)."""
    m, c, p = (frame[k].to_numpy() for k in ("model", "category", "prompt"))
    fixed = held.model[m] + held.category[c] + held.both[m, c]
    sd = {k: np.sqrt(v) for k, v in components.items()}
    n_prompts = CATEGORIES * PROMPTS
    return (
        fixed[:, None]
        + rng.normal(0, sd["category:prompt"], (n_prompts, count))[p]
        + rng.normal(0, sd["model:prompt"], (held.model.size * n_prompts, count))[m * n_prompts + p]
        + rng.normal(0, sd["residual"], (len(frame), count))
    )


def both_shares(design: Design, y: Array) -> tuple[Array, Array]:
    """Return REML and unbounded shares of many outcomes, each of shape (count, terms)."""
    strata = find_strata(design)
    assert strata is not None
    ss = strata.sums_of_squares(y)
    order = [[t.label for t in design.terms].index(name) for name in TERMS[:-1]] + [len(TERMS) - 1]
    out = []
    for v in (reml_components(ss, strata.df, strata.design), anova_components(ss, strata.df, strata.design)):
        out.append((v / v.sum(axis=1, keepdims=True))[:, order])
    return out[0], out[1]


def panel_coverage(
    components: dict[str, float],
    panels: int,
    count: int,
    rng: np.random.Generator,
    level: float = 0.95,
    samples: int = SAMPLES,
    models: int = MODELS,
) -> pd.DataFrame:
    """Return coverage of the panel's shares by delete-group jackknife intervals, a row a term."""
    frame = grid(samples, models)
    design = build_design(parse_formula(FORMULA), frame)
    resampler = Resampler.of(frame["prompt"], frame["category"])
    parts = [resampler.without(g) for g in resampler.jackknife_groups()]
    designs = [design.subset(rows) for rows in parts]
    hits: dict[str, list[tuple[bool, bool, float, bool, float]]] = {t: [] for t in TERMS}
    for _ in range(panels):
        held = Held.draw(components, rng, models)
        target = held.target(components)
        y = simulate(frame, held, components, count, rng)
        full, free = both_shares(design, y)
        left = [both_shares(d, y[rows]) for d, rows in zip(designs, parts, strict=True)]
        left_reml, left_free = np.stack([a for a, _ in left]), np.stack([b for _, b in left])
        for j, term in enumerate(TERMS):
            truth = target[term]
            for i in range(count):
                made = jackknife_share(full[i, j], left_reml[:, i, j], free[i, j], left_free[:, i, j])
                low, high = (made.pivot.limit((1 - level) / 2, side) for side in ("lower", "upper"))
                hits[term].append(
                    (bool(low > truth), bool(high < truth), high - low, made.scale == "raw", truth)
                )
    rows = []
    for term, seen in hits.items():
        a = np.array(seen, dtype=float)
        worst = float(np.min(1 - (a[:, 0] + a[:, 1]).reshape(panels, count).mean(axis=1)))
        rows.append(
            {
                "term": term,
                "target": a[:, 4].mean(),
                "coverage": 1 - a[:, 0].mean() - a[:, 1].mean(),
                "too high": a[:, 0].mean(),
                "too low": a[:, 1].mean(),
                "median width": np.median(a[:, 2]),
                "raw scale": a[:, 3].mean(),
                "worst panel": worst,
                "n": len(seen),
            }
        )
    return pd.DataFrame(rows)


def population_coverage(
    components: dict[str, float],
    count: int,
    replicates: int,
    rng: np.random.Generator,
    samples: int = SAMPLES,
    models: int = MODELS,
) -> pd.DataFrame:
    """Return coverage of the population's shares by three kinds of 95 % interval, a row a term."""
    frame = grid(samples, models)
    design = build_design(parse_formula(FORMULA), frame)
    strata = find_strata(design)
    assert strata is not None
    order = [[t.label for t in design.terms].index(name) for name in TERMS[:-1]] + [len(TERMS) - 1]
    truth = np.array([components[t] for t in TERMS])
    v = np.empty(len(TERMS))
    v[order] = truth
    k, df = len(TERMS), strata.df
    ss = (strata.design @ v) * rng.chisquare(df, (count, k))
    fitted = reml_components(ss, df, strata.design)
    inside = {kind: np.zeros((count, k)) for kind in ("generalised", "bootstrap BC", "bootstrap percentile")}
    for i in range(count):
        redrawn = reml_components(ss[i] * df / rng.chisquare(df, (replicates, k)), df, strata.design)
        again = reml_components(
            (strata.design @ fitted[i]) * rng.chisquare(df, (replicates, k)), df, strata.design
        )
        again = again / again.sum(axis=1, keepdims=True)
        for kind, draws in (
            ("generalised", redrawn / redrawn.sum(axis=1, keepdims=True)),
            ("bootstrap BC", bias_corrected(again, fitted[i] / fitted[i].sum())),
            ("bootstrap percentile", again),
        ):
            low, high = np.quantile(draws[:, order], [0.025, 0.975], axis=0)
            # A share of zero is covered by an interval that reaches zero.
            inside[kind][i] = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    return pd.DataFrame({"term": TERMS, "truth": truth, **{k: x.mean(axis=0) for k, x in inside.items()}})


def shares(quick: bool, samples: int) -> int:
    """Print coverage of the shares' intervals; return 1 where the panel's leaves its band."""
    panels, count = (6, 60) if quick else (40, 100)
    draws, replicates = (200, 200) if quick else (1000, 500)
    rng = np.random.default_rng(SEED)
    # Half-width of the band's Monte-Carlo error at 99.9 %, and none in the full run.
    slack = 3.29 * np.sqrt(0.95 * 0.05 / (panels * count)) if quick else 0.0
    low, high = BAND[0] - slack, BAND[1] + slack
    failed = []
    print(f"{MODELS} models x {CATEGORIES} categories x {PROMPTS} prompts x {samples} samples, seed {SEED}")
    for name, values in (SCENARIOS | EDGES).items():
        components = dict(zip(TERMS, values, strict=True))
        table = panel_coverage(components, panels, count, rng, samples=samples)
        decides = name in SCENARIOS
        print(
            f"\n{name}: this panel, delete-group jackknife 95 %, {panels} panels x {count}"
            f"{'' if decides else ' (boundary: shown, not judged)'}"
        )
        print(table.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
        if decides:
            bad = table[(table["coverage"] < low) | (table["coverage"] > high)]
            failed += [f"{name}: {r.term} {r.coverage:.3f}" for r in bad.itertuples()]
        wide = population_coverage(components, draws, replicates, rng, samples)
        print(f"{name}: a population, 95 %, {draws} data sets")
        print(wide.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print(
        f"\nband {low:.3f} to {high:.3f}: "
        + ("all inside" if not failed else "outside: " + "; ".join(failed))
    )
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run one check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("check", choices=["shares", "mixed", "structure", "markov", "decisions"])
    parser.add_argument("--quick", action="store_true", help="fewer simulations, a wider band")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="shares: samples a cell, at least 2")
    args = parser.parse_args(argv)
    if args.check == "mixed":
        from benchmarks.calibration_mixed import mixed

        return mixed(args.quick)
    if args.check == "structure":
        from benchmarks.calibration_structure import structure

        return structure(args.quick)
    if args.check == "decisions":
        from benchmarks.calibration_decisions import decisions

        return decisions(args.quick)
    if args.check == "markov":
        from benchmarks.calibration_markov import markov

        return markov(args.quick)
    return shares(args.quick, args.samples)


if __name__ == "__main__":
    sys.exit(main())
