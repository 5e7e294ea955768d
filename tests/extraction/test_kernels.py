"""Every torch kernel against the NumPy definition of its metric."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dynstat.extraction.lens import kernels  # noqa: E402
from dynstat.registry import METRICS  # noqa: E402

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "concentration": [{"k": 1}, {"k": 10}, {"k": 5000}],
    "dispersion": [{"threshold": 0.01}, {"threshold": 0.2}],
    "synchronisation": [{"kind": "jsd", "k": 10}],
}
# Absolute. A divergence is a sum of terms as large as the spread of the logits, and a big one is relative.
TOLERANCE = {"kl_to_final": 5e-6, "kl_from_final": 5e-6, "next_token_log_probability": 3e-6}


def logits(kind: str, rng: np.random.Generator, n: int, v: int) -> np.ndarray:
    x = rng.standard_normal((n, v))
    scaled = {"flat": 0.01 * x, "plain": 2 * x, "sharp": 30 * x, "offset": 2 * x + 500, "equal": 0 * x}[kind]
    return scaled.astype(np.float32)


def arguments(entry, x: np.ndarray, y: np.ndarray, ids: np.ndarray, wrap) -> list[Any]:
    own = {"next_logits": y, "final_logits": y}
    return [torch.from_numpy(ids) if i == "next_token" else wrap(own.get(i, x)) for i in entry.inputs]


def compare(name: str, x: np.ndarray, y: np.ndarray) -> None:
    entry = METRICS.get(name)
    kernel = METRICS.kernel(name)
    assert kernel is not None
    ids = np.arange(len(x)) * 37 % x.shape[1]
    for options in OPTIONS.get(name, [{}]):
        found = kernel(*arguments(entry, x, y, ids, reading), **options).numpy()
        if name == "effective_vocabulary":
            true = entry.resolve()(METRICS.get("entropy").resolve()(x))
        else:
            true = entry.resolve()(*arguments(entry, x, y, ids, np.asarray), **options)
        if name == "dispersion":
            # Where a probability lies within rounding of the threshold, either count is right.
            p = np.exp(x - x.max(1, keepdims=True).astype(np.float64))
            p /= p.sum(1, keepdims=True)
            tied = (abs(p - options["threshold"]) < 1e-6).any(1)
            np.testing.assert_array_equal(found[~tied], true[~tied])
        else:
            relative = 5e-6 if name == "effective_vocabulary" else 1e-6
            np.testing.assert_allclose(found, true, rtol=relative, atol=TOLERANCE.get(name, 2e-6))
        assert np.all(found.astype(np.float32) >= np.float32(entry.valid_min))
        assert np.all(found.astype(np.float32) <= np.float32(entry.valid_max))


def reading(x: np.ndarray) -> kernels.Reading:
    return kernels.Reading(torch.from_numpy(x))


def test_every_metric_that_reads_logits_has_a_kernel():
    reads = {m.id for m in METRICS if "logits" in m.inputs and m.origin != "user"}
    assert set(METRICS.kernels()) == reads | {"effective_vocabulary@1"}


@pytest.mark.parametrize("kind", ["flat", "plain", "sharp", "offset", "equal"])
@pytest.mark.parametrize("name", sorted(n.partition("@")[0] for n in METRICS.kernels()))
def test_kernel_equals_definition(name, kind):
    rng = np.random.default_rng(7)
    for v in (2, 11, 1024, 5000):
        compare(name, logits(kind, rng, 9, v), logits("plain", rng, 9, v))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.floats(0.001, 60))
def test_kernels_equal_definitions_anywhere(seed, v, scale):
    rng = np.random.default_rng(seed)
    x, y = (scale * rng.standard_normal((2, 3, v))).astype(np.float32)
    for name in METRICS.kernels():
        compare(name.partition("@")[0], x, y)


def test_identities():
    reading = kernels.Reading(torch.zeros(2, 1024))
    assert reading.entropy.numpy() == pytest.approx(np.log(1024), abs=1e-6)
    assert kernels.synchronisation(reading, reading).numpy() == pytest.approx(1.0, abs=1e-6)
    apart = torch.full((2, 4), -100.0)
    left, right = apart.clone(), apart.clone()
    left[:, 0], right[:, 3] = 0, 0
    assert kernels.synchronisation(kernels.Reading(left), kernels.Reading(right)).numpy() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("v", [1024, 49_152])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_layers_that_nearly_agree(v, scale):
    """A divergence near 0 is a difference of entropies of several nat: what cancels must stay below 1e-6."""
    rng = np.random.default_rng(11)
    definition = METRICS.get("synchronisation").resolve()
    for step in (0.0, 1e-6, 1e-4, 1e-2):
        x = (scale * rng.standard_normal((16, v)) - 20).astype(np.float32)
        y = (x + step * rng.standard_normal(x.shape)).astype(np.float32)
        found = kernels.synchronisation(*(kernels.Reading(torch.from_numpy(a)) for a in (x, y))).numpy()
        error = found - definition(x, y)
        assert abs(error).max() < 1e-6 and abs(error.mean()) < 4e-7, (step, error)


def test_readings_say_what_is_not_finite():
    x = torch.zeros(4, 5)
    x[1, 2], x[2, 0], x[3, 4] = float("nan"), float("inf"), -float("inf")
    assert kernels.Reading(x).finite.tolist() == [True, False, False, False]
