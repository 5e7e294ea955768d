"""Temperature calibration: recovers a known scale, and removes what scale alone makes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from dynstat.errors import DynstatError
from dynstat.metrics import calibration as c
from dynstat.metrics import distribution as d
from dynstat.metrics import operator as o


def text(seed=0, rows=200, vocabulary=300, tail=None):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, vocabulary)) if tail is None else rng.standard_t(tail, size=(rows, vocabulary))
    return z * 3


@given(st.floats(0.1, 10))
def test_recovers_a_known_temperature(t):
    z = text(1, rows=30, vocabulary=50)
    target = float(d.entropy(z).mean())
    assert c.entropy_temperature(z * t, target, tolerance=1e-10) == pytest.approx(t, rel=1e-5)


def test_normalised_target_and_padding():
    z = text(2)
    padded = np.concatenate([z, np.full((200, 20), 9.0)], axis=-1)
    t = c.entropy_temperature(padded, 0.5, kind="normalised", valid=300)
    assert d.entropy(z / t).mean() / np.log(300) == pytest.approx(0.5, abs=1e-5)


def test_per_layer():
    z = text(3, rows=40)
    layers = np.stack([z * s for s in (0.5, 1, 4)])
    target = float(d.entropy(z).mean())
    np.testing.assert_allclose(c.layer_temperatures(layers, target), [0.5, 1, 4], rtol=1e-4)
    each = [float(d.entropy(z / s).mean()) for s in (1, 2, 3)]
    np.testing.assert_allclose(c.layer_temperatures(layers, each), [0.5, 2, 12], rtol=1e-4)


def test_scale_vanishes_and_shape_stays():
    """The kernel behind fixture 5: models that differ by temperature agree after calibration."""
    same = [text(4), text(4) * 4]
    other = [text(4), text(4, tail=2)]

    def gd(z):
        return float(
            np.log(
                o.gd_ratio(
                    o.kappa_G(d.entropy(z), z.shape[-1]),
                    o.kappa_D(d.top1_probability(z), d.top2_probability(z)),
                )
            )
        )

    def gap(models, calibrated):
        target = c.common_target([d.entropy(z).mean() for z in models])
        temperatures = [c.entropy_temperature(z, target) if calibrated else 1.0 for z in models]
        return abs(np.subtract(*[gd(z / t) for z, t in zip(models, temperatures, strict=True)]))

    assert gap(same, False) > 1 and gap(same, True) < 1e-4
    assert gap(other, True) > 0.1


def test_common_target():
    assert c.common_target([1.0, 2, 9]) == 2
    assert c.common_target([1.0, 2, 3], [10, 100, 1000], kind="normalised") == pytest.approx(
        np.median(np.array([1, 2, 3]) / np.log([10, 100, 1000]))
    )


def test_nll_temperature_against_scipy():
    z = text(5, rows=500, vocabulary=20)
    rng = np.random.default_rng(6)
    tokens = np.array([rng.choice(20, p=p) for p in d.probabilities(z / 2)])

    def nll(log_t):
        return -d.log_softmax(z / np.exp(log_t))[np.arange(500), tokens].mean()

    truth = np.exp(minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x)
    t = c.nll_temperature(z, tokens)
    assert t == pytest.approx(truth, rel=1e-5) and t == pytest.approx(2, rel=0.15)
    padded = np.concatenate([z, np.full((500, 5), 30.0)], axis=-1)
    assert c.nll_temperature(padded, tokens, valid=20) == pytest.approx(t, rel=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: c.entropy_temperature(text(), 7.0),  # above ln 300
        lambda: c.entropy_temperature(text(), 1.0, kind="bits"),
        lambda: c.common_target([3.0, 3.0], [10, 1000]),
        lambda: c.common_target([3.0], kind="normalised"),
        lambda: c.nll_temperature(np.eye(3), [0, 1, 2]),  # always right: no maximum
        lambda: c.nll_temperature(np.eye(3), [0, 1]),
        lambda: c.nll_temperature(np.eye(3), [0, 1, 2], valid=2),
    ],
)
def test_out_of_reach(call):
    with pytest.raises(DynstatError) as error:
        call()
    assert error.value.code == "S404"
