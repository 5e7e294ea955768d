"""What the lens holds in memory, and the user's own metrics that run beside it."""

import types
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dynstat.errors import DynstatError  # noqa: E402
from dynstat.extraction.lens import sweep  # noqa: E402
from dynstat.extraction.lens.distributions import Reading  # noqa: E402
from dynstat.extraction.lens.engine import Engine  # noqa: E402
from dynstat.extraction.lens.measuring import measure  # noqa: E402
from dynstat.extraction.lens.truncated import TopReading  # noqa: E402
from dynstat.extraction.lens.variants import Variant  # noqa: E402
from dynstat.extraction.runs.reading import Runs  # noqa: E402
from dynstat.registry import METRICS, Metric, Option  # noqa: E402

from .lens_cases import LAYERS, LENS, WIDTH, V, head, model, naive, runs_of, same  # noqa: E402


class Tally(torch.overrides.TorchFunctionMode):
    """Remember the largest number of bytes that results of torch functions alive at once took."""

    def __init__(self, least: int):
        super().__init__()
        self.least, self.alive, self.peak = least, {}, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            storage = out.untyped_storage()
            # A storage is freed with the last tensor that looks at it.
            key = storage.data_ptr()
            if storage.nbytes() >= self.least:
                held = self.alive.setdefault(key, [storage.nbytes(), 0])
                held[0], held[1] = storage.nbytes(), held[1] + 1
                weakref.finalize(out, self._gone, key)
                self.peak = max(self.peak, sum(n for n, _ in self.alive.values()))
        return out

    def _gone(self, key):
        if key in self.alive:
            self.alive[key][1] -= 1
            if not self.alive[key][1]:
                del self.alive[key]


def peak(layers: int, tokens: int, v: int, valid=None) -> int:
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(layers, 1, tokens, WIDTH, generator=generator)
    ids = torch.randint(0, v, (1, tokens), generator=generator)
    runs = Runs(ids, torch.tensor([tokens]), 1, own.new_empty((layers, 1, 0, WIDTH)), own)
    job = [s for s in LENS if s["metric"][:-2] in JOB]
    m = model(head(v=v), valid=valid)
    ids %= len(m.encoder.valid)
    with Tally(64 << 10) as tally:
        measure(m, runs, job, engine=Engine(block_bytes=2 << 20))
    return tally.peak


JOB = ("entropy", "top1_probability", "concentration", "margin", "dispersion", "kl_to_final")


def test_memory_grows_with_neither_layers_nor_tokens(monkeypatch):
    monkeypatch.setattr(sweep, "PIECE_BYTES", 256 << 10)
    block = max(2 << 20, 4 * Engine().rows(8192) * 8192)
    weights = 4 * WIDTH * 8192
    small = peak(3, 128, 8192)
    assert small <= 3 * block + weights  # logits, those of the last layer, and two small pieces
    assert peak(9, 128, 8192) <= small * 1.05
    assert peak(3, 1024, 8192) <= small * 1.05


def test_memory_of_few_tokens_among_the_rows_of_a_head():
    """All rows are computed where tokens do not come first, so that blocks are as large as all rows take."""
    assert (
        peak(3, 512, 8192, (0, 1, 8191))
        <= 3 * max(2 << 20, 4 * Engine().rows(8192) * 8192) + 4 * WIDTH * 8192
    )


def test_lists_of_the_most_probable_tokens_are_compared_in_memory_of_their_length():
    """Not of its square: on a GPU a block has a thousand rows, and k may be a thousand, too."""
    n, k, v = 40, 400, 1000
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(n, v, generator=generator) for _ in range(2)]
    with Tally(64 << 10) as tally:
        one, two = (TopReading(Reading(x), k) for x in logits)
        found = one.synchronisation(two)
    assert tally.peak < 12 * 8 * n * v
    p = np.zeros((2, n, v))
    for q, x in zip(p, logits, strict=True):
        x = x.double().numpy()
        keep = np.argsort(-x, -1)[:, :k]
        e = np.exp(np.take_along_axis(x, keep, -1))
        np.put_along_axis(q, keep, e / e.sum(-1, keepdims=True), -1)
    true = METRICS.get("synchronisation").resolve()(*p, form="probabilities")
    np.testing.assert_allclose(found, true, atol=1e-6)


def test_users_functions_get_what_they_ask_for(monkeypatch):
    seen = {}

    def look(**given):
        seen.update({k: (v.shape, v.dtype, v.flags.writeable) for k, v in given.items()})

    def of_states(states):
        look(states=states)
        return states.sum(-1)

    def of_steps(steps):
        look(steps=steps)
        return np.abs(steps).sum(-1)

    def agreement(final_logits, logits, next_token, scale=1.0):
        look(final_logits=final_logits, logits=logits, next_token=next_token)
        row = np.arange(len(logits))
        return scale * (logits[row, next_token] - final_logits[row, next_token])

    def change(logits, next_logits):
        look(next_logits=next_logits)
        return (next_logits - logits).mean(-1)

    given = {
        of_states: ("states",),
        of_steps: ("steps",),
        agreement: ("final_logits", "logits", "next_token"),
        change: ("logits", "next_logits"),
    }
    marks = {of_steps: ("first_tokens:1",), agreement: ("last_token",), change: ("last_layer",)}
    with users(monkeypatch, given, marks):
        runs, m = runs_of(2, 2, 3, 9), model(head())
        names = [f.__name__ for f in given]
        found = measure(
            m, runs, [*LENS, *({"metric": n} for n in names)], [Variant(), Variant("warm", temperature=2.0)]
        ).values
    states = torch.stack([runs.layer(i) for i in range(LAYERS)], 2).numpy()
    logits = m.readout(torch.from_numpy(states)).numpy().astype(np.float64)
    same(found["of_states"], states.sum(-1), tolerance=1e-5)
    assert np.isnan(found["of_steps"][:, 0]).all()
    same(found["of_steps"][:, 1:], np.abs(np.diff(states, axis=1)).sum(-1), tolerance=1e-5)
    following = runs.ids.numpy()[:, 1:, None, None]
    own = np.take_along_axis(logits[:, :-1], np.broadcast_to(following, (4, 8, LAYERS, 1)), -1)[..., 0]
    assert np.isnan(found["agreement"][:, -1]).all()
    same(found["agreement"][:, :-1], own - own[..., -1:], tolerance=1e-5)
    same(found["agreement__warm"][:, :-1], (own - own[..., -1:]) / 2, tolerance=1e-5)
    assert np.isnan(found["change"][..., -1]).all() and "of_states__warm" not in found
    same(found["change"][..., :-1], np.diff(logits, axis=2).mean(-1), tolerance=1e-5)
    for name, value in naive(m, runs, LENS).items():
        same(found[name], value, name)
    assert seen["states"][0] == (4, 9, WIDTH) and seen["steps"][0] == (4, 8, WIDTH)
    assert {seen[k][0] for k in ("logits", "next_logits", "final_logits")} == {(2 * 3 + 4 * 6, V)}
    assert seen["next_token"][1] == np.int64
    assert not any(writeable for _, _, writeable in seen.values())


@pytest.mark.parametrize(
    "body, word",
    [
        (lambda logits: logits[:, 0] / 0 * np.nan, "nan"),
        (lambda logits: logits, "shape"),
        (lambda logits: logits.oops, "AttributeError"),
        (lambda logits: logits.fill(0), "read-only"),
    ],
)
def test_users_functions_that_fail(monkeypatch, body, word):
    body.__name__ = "own"
    with users(monkeypatch, {body: ("logits",)}, {}), pytest.raises(DynstatError) as e:
        measure(model(head()), runs_of(1, 1, 0, 5), [{"metric": "own"}])
    assert e.value.code == "X222" and word in str(e.value.found)


def test_options_of_users_may_be_called_as_ours(monkeypatch):
    def own(logits, k="all", kind="any"):
        return logits.max(-1)

    options = {"k": Option("all"), "kind": Option("any")}
    with users(monkeypatch, {own: ("logits",)}, {}, {own: options}):
        runs, m = runs_of(1, 1, 0, 5), model(head())
        found = measure(m, runs, [{"metric": "own"}, {"metric": "entropy@1"}]).values
    assert np.isfinite(found["own"]).all() and np.isfinite(found["entropy"]).all()


def test_users_metrics_have_no_value_where_their_entry_says_so(monkeypatch):
    """A function of logits knows no position, one of states not where a row ends."""

    def later(logits):
        return logits.max(-1)

    def ahead(states):
        out = np.full(states.shape[:2], np.nan)
        out[:, :-1] = np.abs(np.diff(states, axis=1)).sum(-1)
        return out

    def below(states):
        return states.sum(-1)

    marks = {later: ("first_tokens:2",), ahead: ("last_token",), below: ("last_layer",)}
    with users(monkeypatch, {later: ("logits",), ahead: ("states",), below: ("states",)}, marks):
        runs, m = runs_of(2, 2, 3, 9, lengths=[9, 7, 9, 5]), model(head())
        found = measure(m, runs, [{"metric": f.__name__} for f in marks]).values
    inside = np.arange(9) < runs.lengths.numpy()[:, None]
    before_last = np.arange(9) < runs.lengths.numpy()[:, None] - 1
    for name, there in (("later", inside & (np.arange(9) >= 2)), ("ahead", before_last)):
        np.testing.assert_array_equal(
            np.isfinite(found[name]), np.broadcast_to(there[..., None], (4, 9, LAYERS))
        )
    assert np.isnan(found["below"][..., -1]).all() and np.isfinite(found["below"][inside][:, :-1]).all()


def test_users_steps_beside_a_state_that_is_not_finite(monkeypatch):
    def walked(steps):
        return np.abs(steps).sum(-1)

    with users(monkeypatch, {walked: ("steps",)}, {walked: ("first_tokens:1",)}):
        runs = runs_of(1, 1, 0, 9)
        runs.own[2, 0, 4] = torch.inf
        found = measure(model(head()), runs, [{"metric": "walked"}])
    missing = np.isnan(found.values["walked"][0])
    assert (
        missing[4:6, 2].all() and missing.sum() == LAYERS + 2
    )  # the first token, and both steps of the fifth
    assert (np.isfinite(found.values["walked"]) | ~found.finite)[:, 1:].all()


class users:
    """Functions that are registered for a while."""

    def __init__(self, monkeypatch, given, marks, options=None):
        import sys

        module = types.ModuleType("users_own_metrics")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        self.added = []
        for function, inputs in given.items():
            setattr(module, function.__name__, function)
            self.added.append(
                Metric(
                    name=function.__name__, version=1, path=f"{module.__name__}:{function.__name__}",
                    summary="A metric.", origin="user", reference="none", inputs=inputs,
                    undefined=marks.get(function, ()), options=(options or {}).get(function, {}),
                )
            )  # fmt: skip

    def __enter__(self):
        for metric in self.added:
            METRICS.add(metric)

    def __exit__(self, *_):
        METRICS.discard(*self.added)
