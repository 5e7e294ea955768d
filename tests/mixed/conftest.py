"""Data for the mixed models: R's data sets, and simulated panels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.errors import DynstatWarning

ORACLES = Path(__file__).parent.parent / "oracles"
SD = {"model": 0.5, "category": 0.6, "prompt": 0.4, "both": 0.3, "cell": 0.35, "residual": 0.7}


@pytest.fixture(scope="session")
def r_data() -> Callable[[str], pd.DataFrame]:
    def read(name: str) -> pd.DataFrame:
        frame = pd.read_csv(ORACLES / "lmm" / f"{name}.csv")
        if name == "cake":
            frame["temperature"] = pd.Categorical(frame["temperature"], ordered=True)
        return frame

    return read


@pytest.fixture(scope="session")
def fitted(r_data) -> Callable[..., dynstat.mixed.LmerResult]:
    """Fit a formula to R's data once for all tests."""

    @cache
    def fit(name: str, formula: str, reml: bool = True) -> dynstat.mixed.LmerResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DynstatWarning)
            return dynstat.lmer(formula, r_data(name), REML=reml)

    return fit


@pytest.fixture(scope="session")
def panel() -> Callable[..., pd.DataFrame]:
    def simulate(
        seed: int, models: int = 6, categories: int = 3, prompts: int = 5, samples: int = 3, **sd: float
    ) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        s = SD | sd
        index = pd.MultiIndex.from_product(
            [range(models), range(categories), range(prompts), range(samples)],
            names=["model", "category", "item", "sample"],
        )
        d = index.to_frame(index=False)
        m, c, p = (
            d["model"].to_numpy(),
            d["category"].to_numpy(),
            (d["category"] * prompts + d["item"]).to_numpy(),
        )
        n = categories * prompts
        d["y"] = (
            1.0
            + rng.normal(0, s["model"], models)[m]
            + rng.normal(0, s["category"], categories)[c]
            + rng.normal(0, s["prompt"], n)[p]
            + rng.normal(0, s["both"], (models, categories))[m, c]
            + rng.normal(0, s["cell"], (models, n))[m, p]
            + rng.normal(0, s["residual"], len(d))
        )
        d["temperature"] = np.where(d["sample"] % 2 == 0, "0.7", "1")
        d["x"] = rng.normal(size=len(d))
        return d.assign(
            model=d["model"].map("m{}".format),
            category=d["category"].map("c{}".format),
            prompt=[f"p{i:03d}" for i in p],
        )

    return simulate
