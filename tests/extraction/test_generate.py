"""Writing: a run depends on its cell and on nothing else, and reading it once gives the same states."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scipy import stats  # noqa: E402

from dynstat.extraction.models.capture import states  # noqa: E402
from dynstat.extraction.models.encoding import Encoder  # noqa: E402
from dynstat.extraction.panels.panel import ModelSpec, Sample  # noqa: E402
from dynstat.extraction.runs.generate import draws, generate  # noqa: E402
from dynstat.extraction.training.architectures import ARCHITECTURES  # noqa: E402

SAMPLES = [Sample("greedy", -1, 0.0, 12, "generated")] + [
    Sample(f"t{t}-s{s}", s, t, 12, "generated") for t in (0.7, 1.3) for s in (0, 1)
]
PROMPTS = ["a", "b", "c"]
IDS = torch.tensor([[0, 5, 9, 100], [0, 700, 1, 2], [0, 33, 34, 35]])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_equals_single_runs_and_teacher_forcing(architecture, load_tiny):
    model = load_tiny(architecture)
    out = generate(model, PROMPTS, IDS, SAMPLES, 12)
    assert out.shape == (3, 5, 16)
    for i, prompt in enumerate(PROMPTS):
        for j, sample in enumerate(SAMPLES):
            assert torch.equal(generate(model, [prompt], IDS[i : i + 1], [sample], 12)[0, 0], out[i, j])
    assert torch.equal(generate(model, PROMPTS, IDS, SAMPLES, 5), out[:, :, :9]), (
        "a shorter budget cuts the run"
    )
    # Greedy is the argmax of one pass over the finished text.
    greedy = out[:, 0]
    logits = model.lm(input_ids=greedy).logits
    assert torch.equal(logits[:, 3:-1].argmax(-1), greedy[:, 4:])
    # States while writing, with the cache of keys and values, are those of one pass.
    ids = out.reshape(15, 16)
    whole = states(model.body, model.blocks, ids)
    past, steps = None, []
    for now in (ids[:, :4], *(ids[:, t : t + 1] for t in range(4, 16))):
        got: list = []
        handles = [b.register_forward_hook(lambda m, a, o, g=got: g.append(o if torch.is_tensor(o) else o[0]))
                   for b in model.blocks]  # fmt: skip
        past = model.lm(input_ids=now, past_key_values=past, use_cache=True).past_key_values
        for handle in handles:
            handle.remove()
        steps.append(torch.stack(got))
    written = torch.cat(steps, 2)
    error = (written - whole[1:]).norm(dim=-1) / whole[1:].norm(dim=-1)
    assert float(error.max()) < 1e-5


class Fixed:
    """A model that always says the same."""

    def __init__(self, logits):
        self.logits = torch.as_tensor(logits, dtype=torch.float32)

    def __call__(self, input_ids, **_):
        return SimpleNamespace(past_key_values=None, logits=self.logits.expand(len(input_ids), 1, -1))


def fixed(logits, valid):
    return SimpleNamespace(id="fixed", lm=Fixed(logits), encoder=Encoder(None, (), 2, frozenset(), valid),
                           source=SimpleNamespace(spec=ModelSpec("fixed", "folder", "")))  # fmt: skip


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature):
    """Frequencies of 6,000 draws against softmax(logits / T), rows of no token never drawn."""
    logits = [0.0, 1.0, -1.0, 9.0, 2.0]
    model = fixed(logits, (0, 1, 2, 4))
    sample = Sample("s", 0, temperature, 60, "generated")
    out = generate(model, [str(i) for i in range(100)], torch.zeros(100, 1, dtype=torch.int64), [sample], 60)
    counts = np.bincount(out[:, 0, 1:].ravel().numpy(), minlength=5)
    assert counts[3] == 0
    p = np.exp(np.array(logits)[[0, 1, 2, 4]] / temperature)
    assert stats.chisquare(counts[[0, 1, 2, 4]], 6000 * p / p.sum()).pvalue > 1e-3


def test_end_of_text_is_written_unless_suppressed():
    model = fixed([0.0, 0.0, 3.0], (0, 1, 2))
    ids, sample = torch.zeros(1, 1, dtype=torch.int64), Sample("s", 0, 1.0, 50, "generated")
    assert 2 in generate(model, ["a"], ids, [sample], 50)[0, 0]
    assert 2 not in generate(model, ["a"], ids, [sample], 50, suppress_end=True)[0, 0]


def test_draws_are_uniform_and_differ_between_cells():
    base = draws("m", "p", Sample("s", 0, 1.0, 9, "generated"), 20_000)
    assert stats.kstest(base, "uniform").pvalue > 1e-3
    others = [
        draws("n", "p", Sample("s", 0, 1.0, 9, "generated"), 20_000),
        draws("m", "q", Sample("s", 0, 1.0, 9, "generated"), 20_000),
        draws("m", "p", Sample("s", 1, 1.0, 9, "generated"), 20_000),
        draws("m", "p", Sample("s", 0, 0.7, 9, "generated"), 20_000),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.03
    again = draws("m", "p", Sample("other label", 0, 1.0, 99, "forced"), 20_000)
    assert np.array_equal(base, again)
