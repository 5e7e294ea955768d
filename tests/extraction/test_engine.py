"""What a store fixes once, the kernels behind it, and the exact selection of the largest."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dynstat.errors import DynstatError  # noqa: E402
from dynstat.extraction.lens import engine, matmul  # noqa: E402
from dynstat.extraction.lens.engine import Engine, choose  # noqa: E402
from dynstat.extraction.lens.topk import Maxima  # noqa: E402


def test_an_engine_survives_the_store():
    for made in (Engine(), Engine("onednn", 3, 12345), choose(1, "cpu")):
        assert Engine.from_dict(made.as_dict()) == made


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "magic"},
        {"threads": 0},
        {"threads": True},
        {"block_bytes": 1.5},
        {"more": 1},
    ],
)
def test_an_engine_that_is_none_is_refused(change):
    with pytest.raises(ValueError, match=r"."):
        Engine.from_dict(Engine().as_dict() | change)
    with pytest.raises(ValueError, match="engine has"):
        Engine.from_dict({"kernel": "linear"})


def test_the_faster_kernel_is_chosen_and_threads_are_left_as_they_were(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(engine, "usable", lambda kernel, device="cpu": True)
    for fast in matmul.KERNELS:
        monkeypatch.setattr(
            engine, "_times", lambda kernels, threads, f=fast: {k: float(k != f) for k in kernels}
        )
        assert choose(2, "cpu") == Engine(fast, 2, engine.BLOCK_BYTES)
    assert choose(1, "cuda") == Engine("linear", 1, engine.GPU_BLOCK_BYTES)
    assert torch.get_num_threads() == before


def test_times_are_taken_of_every_kernel():
    times = engine._times(["linear"], 1)
    assert set(times) == {"linear"} and 0 < times["linear"] < 60


def test_a_store_is_refused_where_its_kernel_is_missing(monkeypatch):
    Engine("linear").check("store")
    Engine("linear").check("store", "cuda")
    for broken in (
        lambda *_: (_ for _ in ()).throw(AttributeError("no such operator")),
        lambda x, w, b: matmul.linear(x, w, b) + 1e-2,
        lambda x, w, b: matmul.linear(x, w, None),
        lambda x, w, b: matmul.linear(x, w, b)[:-1],
    ):
        monkeypatch.setattr(matmul, "onednn", broken)
        assert not matmul.usable("onednn")
        with pytest.raises(DynstatError) as e:
            Engine("onednn").check("some/store")
        assert e.value.code == "X217" and e.value.where == "some/store"
    assert not matmul.usable("magic") and not matmul.usable("onednn", "cuda")


def test_a_kernel_that_exists_equals_the_plain_one():
    if not matmul.usable("onednn"):
        pytest.skip("this build of torch has one kernel only")
    generator = torch.Generator().manual_seed(3)
    for n, width, v in ((1, 7, 11), (33, 64, 1000), (64, 129, 257)):
        x, w, b = (torch.randn(s, generator=generator) for s in ((n, width), (v, width), (v,)))
        for bias in (None, b):
            truth = x.double() @ w.double().T + (0 if bias is None else bias.double())
            for kernel in matmul.KERNELS:
                with torch.inference_mode():
                    found = matmul.multiplier(kernel)(x, w, bias)
                np.testing.assert_allclose(found, truth, atol=2e-4, rtol=0)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 4), st.integers(1, 2500), st.integers(1, 60), st.sampled_from([1, 3, 1000]),
    st.integers(0, 2**31),
)  # fmt: skip
def test_top_k_is_exact(n, v, k, kinds, seed):
    rng = np.random.default_rng(seed)
    # Few different numbers: ties within blocks and between them.
    x = torch.from_numpy(rng.integers(-kinds, kinds, (n, v)).astype(np.float32))
    maxima = Maxima(x)
    values, places = maxima.top(x, k)
    want = x.topk(min(k, v), dim=-1).values
    assert torch.equal(values, want)
    assert torch.equal(x.gather(-1, places), want)
    assert all(len(set(row)) == len(row) for row in places.tolist())
    assert torch.equal(maxima.first(x), torch.from_numpy(x.numpy().argmax(-1)))
    assert torch.equal(maxima.largest, x.amax(-1))


@pytest.mark.parametrize("v", [65, 640, 4097])
def test_top_k_of_large_negative_numbers_and_of_the_last_token(v):
    x = torch.full((2, v), -3e38)
    x[0, -1], x[1, 0] = -1e38, -2e38
    maxima = Maxima(x)
    assert maxima.first(x).tolist() == [v - 1, 0]
    values, places = maxima.top(x, 3)
    assert torch.equal(values, x.topk(3).values) and places[0, 0] == v - 1


def test_maxima_survive_a_shift():
    x = torch.randn(5, 5000, generator=torch.Generator().manual_seed(0)) + 100
    want, first = x.topk(10), x.argmax(-1)
    maxima = Maxima(x)
    largest = maxima.largest[:, None]
    x.sub_(largest)
    values, places = maxima.top(x, 10)
    assert torch.equal(maxima.first(x), first)
    assert torch.equal(places.sort().values, want.indices.sort().values)
    assert torch.allclose(values, want.values - largest)
