"""The between-model share of a nominal label: closed forms, sums of squares of indicators, intervals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dynstat.errors import DynstatError
from dynstat.mixed import nominal
from dynstat.mixed.nominal import nominal_eta2, regime_normalisation
from dynstat.registry import METHODS

OUTCOME = {"metric": "ratio_norm@1", "normalisation": "RAW", "scale": "raw"}


class Values:
    def __init__(self, values):
        self.values = np.asarray(values, dtype=float)

    def transpose(self, *dims):
        return self


def runs(prompts=12, categories=3):
    """Return what the method reads of a dataset: names of prompts and their categories."""
    category = np.repeat([f"c{i}" for i in range(categories)], prompts // categories)
    return {
        "prompt": SimpleNamespace(values=np.array([f"p{i}" for i in range(prompts)])),
        "category": SimpleNamespace(values=category),
    }


def estimates(monkeypatch, raw, clipped, **options):
    given = {"RAW": raw, "CLIPPED_MAD": clipped}
    monkeypatch.setattr(
        "dynstat.metrics.labelled.run_metric", lambda ds, spec: Values(given[spec["normalisation"]])
    )
    filled = METHODS.get("regimes.normalisation@1").fill(options)
    return regime_normalisation(runs(raw.shape[1]), outcome=OUTCOME, seed=0, **filled)


def test_closed_forms():
    assert nominal_eta2([[3, 0], [0, 5]]) == pytest.approx(1.0)
    assert nominal_eta2([[3, 6], [1, 2]]) == pytest.approx(0.0)
    # Two groups, two labels: the squared phi coefficient, (ad - bc)² / (products of the margins).
    a, b, c, d = 7, 3, 2, 9
    phi2 = (a * d - b * c) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    assert nominal_eta2([[a, b], [c, d]]) == pytest.approx(phi2)
    # Goodman and Kruskal's tau, from its definition: errors of guessing labels in proportion.
    table = np.array([[10, 5, 1], [2, 8, 6], [4, 4, 4]])
    n, p = table.sum(), table.sum(axis=0) / table.sum()
    before = 1 - (p**2).sum()
    after = sum(row.sum() / n * (1 - ((row / row.sum()) ** 2).sum()) for row in table)
    assert nominal_eta2(table) == pytest.approx((before - after) / before)
    assert np.isnan(nominal_eta2([[4, 0], [9, 0]]))
    assert nominal_eta2([[[3, 0], [0, 5]], [[1, 1], [1, 1]]]).tolist() == pytest.approx([1.0, 0.0])


def test_it_is_the_analysis_of_variance_of_the_indicators():
    rng = np.random.default_rng(1)
    group, label = rng.integers(0, 4, 300), rng.integers(0, 5, 300)
    label = np.where(rng.random(300) < 0.3, group, label)
    x = np.eye(5)[label]
    means = np.array([x[group == g].mean(axis=0) for g in range(4)])
    between = ((means[group] - x.mean(axis=0)) ** 2).sum()
    total = ((x - x.mean(axis=0)) ** 2).sum()
    table = np.zeros((4, 5))
    np.add.at(table, (group, label), 1)
    assert nominal_eta2(table) == pytest.approx(between / total, rel=1e-12)


def test_estimates_and_their_jackknife_are_those_of_the_formulas(monkeypatch):
    rng = np.random.default_rng(2)
    raw = rng.choice([1.6, 2.0, 2.5, 5.0], size=(4, 12, 3), p=[0.4, 0.2, 0.3, 0.1])
    raw[0] = np.where(rng.random((12, 3)) < 0.6, 1.6, raw[0])
    clipped = np.where(rng.random(raw.shape) < 0.3, 2.0, raw)
    found = estimates(monkeypatch, raw, clipped)

    def eta(values):
        labels = np.unique(values, return_inverse=True)[1].reshape(values.shape)
        return float(nominal_eta2([np.bincount(m.ravel(), minlength=4) for m in labels]))

    assert found["eta2.raw"].value == pytest.approx(eta(raw))
    e = found["difference"]
    assert e.value == pytest.approx(eta(raw) - eta(clipped))
    # Three categories of four prompts: four groups, each of one prompt a category.
    left = []
    for g in range(4):
        keep = [i for i in range(12) if i not in sorted_groups()[g]]
        left.append(eta(raw[:, keep]) - eta(clipped[:, keep]))
    se = np.sqrt(3 / 4 * np.sum((np.array(left) - np.mean(left)) ** 2))
    assert (e.pivot.se, e.pivot.df) == (pytest.approx(se), 3)
    assert e.low < e.value < e.high and e.n["runs"] == 144 and e.n["groups"] == 4
    assert found["changed"].value == pytest.approx(np.mean(raw != clipped))
    assert found["unassigned.clipped"].value == pytest.approx(np.mean(clipped == 2.0))
    assert found["difference"].diagnostics["chance_level"] == pytest.approx(3 / 143)


def sorted_groups():
    """Return the prompts left out together: units sort by category and name, p10 before p2."""
    names = sorted((f"c{i // 4}", f"p{i}") for i in range(12))
    return [[int(names[4 * c + g][1][1:]) for c in range(3)] for g in range(4)]


def test_the_adjusted_rand_index_is_that_of_the_library(monkeypatch):
    from dynstat.cluster.concordance import adjusted_rand

    rng = np.random.default_rng(3)
    raw = rng.choice([1.6, 2.0, 2.5], size=(3, 12, 2))
    clipped = np.where(rng.random(raw.shape) < 0.2, 2.0, raw)
    found = estimates(monkeypatch, raw, clipped)["ari"].value
    codes = [np.unique(v, return_inverse=True)[1].ravel() for v in (raw, clipped)]
    assert found == pytest.approx(adjusted_rand(*codes, permutations=99).value)


def test_one_regime_has_no_share_and_equal_labels_no_interval(monkeypatch):
    low = np.full((3, 12, 2), 1.6)
    found = estimates(monkeypatch, low, low)
    assert np.isnan(found["difference"].value) and found["difference"].pivot is None
    assert "one regime" in found["difference"].interval
    varied = low.copy()
    varied[0, ::2] = 2.5
    found = estimates(monkeypatch, varied, varied)
    assert found["difference"].value == 0 and found["difference"].pivot is None
    assert found["eta2.raw"].pivot is not None and found["unassigned.raw"].value == 0
    # 1.6 and 1.9 lie on one side of the first midpoint.
    near = np.where(varied == 2.5, 1.9, varied)
    assert np.isnan(estimates(monkeypatch, near, near, mode="midpoint")["difference"].value)


def test_prompts_without_a_clipped_value_are_left_out_whole(monkeypatch):
    rng = np.random.default_rng(4)
    raw = rng.choice([1.6, 2.0, 2.5], size=(3, 12, 2))
    clipped = np.where(rng.random(raw.shape) < 0.3, 2.0, raw)
    clipped[1, 0, 0] = np.nan
    e = estimates(monkeypatch, raw, clipped)["difference"]
    assert e.n["prompts"] == 11 and "1 prompts left out for" in e.diagnostics["notes"]
    with pytest.raises(DynstatError, match="no prompt has a ratio_norm"):
        estimates(monkeypatch, raw, np.full(raw.shape, np.nan))


@pytest.mark.parametrize(
    "outcome",
    [
        None,
        {**OUTCOME, "normalisation": "CLIPPED_MAD"},
        {**OUTCOME, "scale": "log"},
        {**OUTCOME, "metric": "flux@1"},
    ],
)
def test_another_outcome_is_refused(outcome):
    with pytest.raises(DynstatError) as e:
        regime_normalisation(None, outcome=outcome, seed=0)
    assert e.value.code == "S404"


def test_the_entry_names_what_it_gives(monkeypatch):
    rng = np.random.default_rng(5)
    raw = rng.choice([1.6, 2.0, 2.5], size=(3, 12, 2))
    found = estimates(monkeypatch, raw, np.minimum(raw, 2.0))
    entry = METHODS.get("regimes.normalisation@1")
    assert tuple(found) == entry.quantities and entry.resolve() is nominal.regime_normalisation
