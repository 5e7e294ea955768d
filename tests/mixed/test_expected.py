"""Simulated standard errors of shares: what fresh data of the registered size show, from the truth itself."""

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError
from dynstat.mixed.expected import simulated_errors
from dynstat.mixed.shares_many import shares_many

FORMULA = "y ~ 1 + (1|model) + (1|category/prompt) + (1|model:prompt)"
SD = {"prompt": 0.8, "model:prompt": 0.5, "residual": 1.0}
MODELS = {"a": -0.9, "b": 0.1, "c": 0.8}
CATEGORIES = {"x": -0.5, "y": 0.5}


def design(n_prompts: int, samples: int = 2) -> pd.DataFrame:
    rows = [
        (m, c, f"{c}{i}", s)
        for m in MODELS
        for c in CATEGORIES
        for i in range(n_prompts // 2)
        for s in range(samples)
    ]
    return pd.DataFrame(rows, columns=["model", "category", "prompt", "sample"])


def drawn(frame: pd.DataFrame, n: int, seed: int) -> np.ndarray:
    """Draw outcomes from the true components; models and categories are fixed."""
    rng = np.random.default_rng(seed)
    y = (frame["model"].map(MODELS) + frame["category"].map(CATEGORIES)).to_numpy()[:, None]
    y = y + SD["residual"] * rng.standard_normal((len(frame), n))
    for name in ("prompt", "model:prompt"):
        codes, levels = pd.factorize(frame[name.split(":")].agg(":".join, axis=1))
        y = y + SD[name] * rng.standard_normal((len(levels), n))[codes]
    return y


def test_they_are_those_of_fresh_data():
    registered = design(24)
    fresh = shares_many(FORMULA, registered, drawn(registered, 300, 1))
    large = design(200)
    pilot = large.assign(y=drawn(large, 1, 2)[:, 0])
    found = simulated_errors(FORMULA, pilot, registered, seed=3, replicates=300)
    for key in ("share.model", "share.residual", "share.category:prompt", "share.model:prompt"):
        truth = np.std([e[key].value for e in fresh], ddof=1)
        # Two standard deviations of 300 draws differ by less than 4 · √(2 / 600) ≈ 23 %.
        assert found[key] == pytest.approx(truth, rel=0.25), key


def test_more_prompts_make_it_smaller_and_a_seed_makes_it_again():
    small = design(16)
    pilot = small.assign(y=drawn(small, 1, 4)[:, 0])
    few, many = (simulated_errors(FORMULA, pilot, design(n), seed=5) for n in (16, 64))
    assert many["share.model"] / few["share.model"] == pytest.approx(0.5, abs=0.15)
    assert few == simulated_errors(FORMULA, pilot, design(16), seed=5)


def test_a_category_that_the_pilot_lacks_is_named():
    small = design(16)
    pilot = small.assign(y=drawn(small, 1, 4)[:, 0])
    pilot["category"] = pilot["category"].replace({"y": "z"})
    with pytest.raises(DynstatError) as e:
        simulated_errors(FORMULA, pilot, small)
    assert e.value.code == "S407" and "'y'" in e.value.what
