"""Shares of many outcomes at once are those of one after the other, in balanced data and in others."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError
from dynstat.inference.methods import SHARES_FORMULA
from dynstat.mixed.decomposition import decompose
from dynstat.mixed.shares_many import shares_many


@pytest.fixture(scope="module")
def panel() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(3)
    rows = [(f"m{m}", f"c{p % 3}", f"p{p}", s) for m in range(4) for p in range(12) for s in range(2)]
    frame = pd.DataFrame(rows, columns=["model", "category", "prompt", "sample"])
    codes = {c: frame[c].astype("category").cat.codes.to_numpy() for c in ("model", "category", "prompt")}
    columns = []
    for scale in (2.0, 0.5, 0.0):
        effects = {c: rng.normal(0, scale, k.max() + 1)[k] for c, k in codes.items()}
        columns.append(sum(effects.values()) + rng.normal(0, 1, len(frame)))
    return frame, np.column_stack(columns)


@pytest.mark.filterwarnings("ignore::dynstat.errors.DynstatWarning")
@pytest.mark.parametrize("dropped", [0, 3], ids=["balanced", "unbalanced"])
def test_as_one_by_one(panel, dropped: int) -> None:
    frame, y = (panel[0].iloc[dropped:].reset_index(drop=True), panel[1][dropped:])
    found = shares_many(SHARES_FORMULA, frame, y, seed=5)
    scales = set()
    for b, many in enumerate(found):
        # Draws for chance and population change no share of the panel.
        one = decompose(
            SHARES_FORMULA, frame.assign(y=y[:, b]), population="none", replicates=100, refits=100
        ).estimates()
        assert [k for k in one if k.startswith("share.")] and set(many) == {
            k for k in one if k.startswith("share.")
        }
        for key, e in many.items():
            for name in ("value", "low", "high"):
                assert getattr(e, name) == pytest.approx(getattr(one[key], name), rel=1e-9, abs=1e-10)
            for at in (0.02, 0.2, 0.9):
                assert e.pivot.p_above(at) == pytest.approx(one[key].pivot.p_above(at), abs=1e-9)
            assert (e.unit, e.target, e.level, e.method, e.n, e.seed) == (
                "prompt", "panel", 0.95, "variance.shares@1", one[key].n, 5
            )  # fmt: skip
            scales.add(e.diagnostics["scale"])
    assert scales == {"logit", "raw"}


def test_only_the_terms_that_are_asked_for(panel) -> None:
    frame, y = panel[0].iloc[1:].reset_index(drop=True), panel[1][1:]
    all_, some = (shares_many(SHARES_FORMULA, frame, y, terms=t) for t in (None, ("model",)))
    assert [set(e) for e in some] == [{"share.model"}] * 3
    assert [e["share.model"].value for e in some] == [e["share.model"].value for e in all_]


def test_an_outcome_without_variance_fails_alone(panel) -> None:
    frame, y = panel
    constant, fine = shares_many(SHARES_FORMULA, frame, np.column_stack([np.full(len(frame), 2.5), y[:, 0]]))
    assert isinstance(constant, DynstatError) and constant.code == "S402"
    assert fine["share.model"].value == shares_many(SHARES_FORMULA, frame, y[:, :1])[0]["share.model"].value


def test_refusals(panel) -> None:
    frame, y = panel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DynstatError, match="called y"):
            shares_many("log(y) ~ 1 + (1|model)", frame, y)
        with pytest.raises(DynstatError, match="S404"):
            shares_many("y ~ 1 + (1|model)", frame, y, unit="nobody")
        one_sample = frame["sample"] == 0
        with pytest.raises(DynstatError, match="S402"):
            shares_many(SHARES_FORMULA, frame[one_sample].reset_index(drop=True), y[one_sample])
