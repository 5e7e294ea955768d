"""Fixture 5: clusters made by the scale of the logits vanish after calibration, clusters of shape do not."""

import numpy as np
import pandas as pd

from dynstat.cluster import hierarchical as cluster
from dynstat.cluster import largest_gap_test, stability_test
from dynstat.metrics import calibration, distribution, operator

VOCABULARY, ROWS = 300, 300


def gd_ratio(z):
    h, p1, p2 = (
        f(z) for f in (distribution.entropy, distribution.top1_probability, distribution.top2_probability)
    )
    return float(operator.gd_ratio(operator.kappa_G(h, VOCABULARY), operator.kappa_D(p1, p2)))


def panel(upper, lower):
    """Return log GD ratios of 3 + 5 models, plain and at one temperature a model, to one mean entropy."""
    rng = np.random.default_rng(20)
    logits = {f"u{i}": upper(rng) for i in range(3)} | {f"l{i}": lower(rng) for i in range(5)}
    target = calibration.common_target([distribution.entropy(z).mean() for z in logits.values()])
    plain = pd.Series({m: gd_ratio(z) for m, z in logits.items()})
    calibrated = pd.Series(
        {m: gd_ratio(z / calibration.entropy_temperature(z, target)) for m, z in logits.items()}
    )
    return plain, calibrated


def normal(scale):
    # Small differences between the models of a group, so that groups are no single points.
    return lambda rng: scale * np.exp(rng.normal(0, 0.05)) * rng.normal(size=(ROWS, VOCABULARY))


def heavy(rng):
    return 3 * np.exp(rng.normal(0, 0.05)) * rng.standard_t(3, size=(ROWS, VOCABULARY))


def parts(values):
    gap = largest_gap_test(values, log=True, replicates=999, rng=1)
    return {frozenset(g) for g in gap.groups}, gap


GROUPS = {frozenset(f"u{i}" for i in range(3)), frozenset(f"l{i}" for i in range(5))}


def test_scale_alone_makes_two_clusters_and_calibration_takes_them_away():
    plain, calibrated = panel(normal(8.0), normal(1.5))
    found, gap = parts(plain)
    assert found == GROUPS and gap.gap.value > 5
    assert stability_test(np.log(plain), cluster(np.log(plain), k=2), null_sets=199, rng=1).p < 0.05
    found, gap = parts(calibrated)
    assert gap.gap.value < 1.05
    assert stability_test(np.log(calibrated), cluster(np.log(calibrated), k=2), null_sets=199, rng=1).p > 0.05


def test_shape_makes_clusters_that_calibration_leaves():
    _, calibrated = panel(heavy, normal(3.0))
    found, gap = parts(calibrated)
    assert found == GROUPS and gap.gap.value > 1.1
    assert gap.p_value("normal") < 0.01
