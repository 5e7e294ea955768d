"""Tests and intervals of fits that hold cells, weights or sums in place of rows."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.errors import DynstatError, DynstatWarning
from dynstat.mixed.fit import lmer, lmer_of
from dynstat.mixed.formula import parse_formula
from dynstat.mixed.streamed import sum_over

FORMULA = "y ~ x * temperature + (1 | model) + (1 | prompt)"


@pytest.fixture(scope="module")
def rows(panel) -> pd.DataFrame:
    d = panel(41, models=6, categories=2, prompts=6, samples=6)
    # A covariate of few values, so that rows fall into cells.
    return d.assign(x=np.round(d["x"]), w=np.random.default_rng(1).uniform(0.5, 2, len(d)))


def chunks(d: pd.DataFrame) -> list[pd.DataFrame]:
    return [d.iloc[i : i + 100] for i in range(0, len(d), 100)]


@pytest.fixture(scope="module")
def fits(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        keys = chunks(rows[["y", "x", "temperature", "model", "prompt"]])
        return (
            lmer(FORMULA, rows),
            lmer(FORMULA, keys),
            lmer_of(sum_over(parse_formula(FORMULA), lambda: iter(keys))),
        )


@pytest.mark.parametrize(
    "table",
    [
        lambda m: m.contest(np.eye(4), joint=False),
        lambda m: m.contest(np.eye(4)[2:], ddf="Satterthwaite"),
        lambda m: m.confint(method="profile"),
        lambda m: m.anova(type="I"),
        lambda m: m.anova(type="II"),
    ],
    ids=["KR", "Satterthwaite", "profile", "type I", "type II"],
)
def test_cells_and_sums_give_the_numbers_of_the_rows(table, fits):
    whole, cells, sums = (table(m).select_dtypes("number") for m in fits)
    assert fits[1].design.n < fits[0].nobs and fits[2].design.n == 0
    pd.testing.assert_frame_equal(cells, whole, rtol=1e-5)
    pd.testing.assert_frame_equal(sums, whole, rtol=1e-5)


@pytest.mark.parametrize(
    "table",
    [
        lambda m: m.anova(type="III"),
        lambda m: m.ranova(),
        lambda m: m.jackknife(unit="prompt").confint(),
        lambda m: dynstat.product_weight_bootstrap(m, ["model", "prompt"], nsim=5, rng=1).draws,
    ],
    ids=["type III", "ranova", "jackknife", "product weights"],
)
def test_cells_give_the_numbers_of_the_rows_and_sums_say_they_cannot(table, fits):
    whole, cells = (table(m).select_dtypes("number") for m in fits[:2])
    tolerance = 1e-5
    pd.testing.assert_frame_equal(cells, whole, rtol=tolerance, atol=1e-6)
    with pytest.raises(DynstatError, match="rows"):
        table(fits[2])


def test_bootstrap_of_cells_draws_from_the_law_of_the_rows(fits):
    one, two = (m.bootstrap(nsim=400, rng=2).draws for m in fits[:2])
    error = one.std() / np.sqrt(400)
    assert (np.abs(one.mean() - two.mean()) < 4.5 * error).all()
    np.testing.assert_allclose(one.std(), two.std(), rtol=0.25)
    with pytest.raises(DynstatError, match="rows"):
        fits[2].bootstrap(nsim=5)


def test_kenward_roger_with_weights_equals_its_definition(rows):
    d = rows.iloc[::3]
    m = dynstat.lmer("y ~ x + (1 | model)", d, weights="w")
    z = np.eye(6)[m.design.terms[0].codes]
    gs = [z @ z.T, np.diag(1 / d["w"])]
    gammas = [m.varcorr.loc[0, "vcov"], m.sigma**2]
    inverse, x = np.linalg.inv(gammas[0] * gs[0] + gammas[1] * gs[1]), m.design.x
    phi = np.linalg.inv(x.T @ inverse @ x)
    p = [-x.T @ inverse @ g @ inverse @ x for g in gs]
    q = [[x.T @ inverse @ a @ inverse @ b @ inverse @ x for b in gs] for a in gs]
    information = [
        [
            np.trace(inverse @ gs[i] @ inverse @ gs[j])
            - 2 * np.trace(phi @ q[i][j])
            + np.trace(phi @ p[i] @ phi @ p[j])
            for j in range(2)
        ]
        for i in range(2)
    ]
    w = 2 * np.linalg.inv(information)
    middle = sum(w[i, j] * (q[i][j] - p[i] @ phi @ p[j]) for i in range(2) for j in range(2))
    adjusted = phi + 2 * phi @ middle @ phi
    table = m.contest(np.eye(2), joint=False)
    np.testing.assert_allclose(table["std.error"], np.sqrt(np.diag(adjusted)), rtol=1e-6)
