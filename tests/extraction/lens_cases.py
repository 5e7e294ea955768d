"""Small lenses, runs for them, and a naive reading in float64 to hold the streaming one against."""

import types

import numpy as np
import torch
from torch import nn

from dynstat.extraction.models.readout import ReadOut
from dynstat.extraction.runs.reading import Runs
from dynstat.metrics import distribution
from dynstat.registry import METRICS

WIDTH, V, LAYERS = 12, 301, 4
LENS = [
    {"metric": "entropy@1"},
    {"metric": "top1_probability@1"},
    {"metric": "top2_probability@1"},
    {"metric": "margin@1"},
    {"metric": "concentration@1", "k": 5, "as": "concentration_5"},
    {"metric": "concentration@1", "k": 10},
    {"metric": "sum_squares@1"},
    {"metric": "dispersion@1"},
    {"metric": "effective_vocabulary@1"},
    {"metric": "synchronisation@1"},
    {"metric": "kl_to_final@1"},
    {"metric": "kl_from_final@1"},
    {"metric": "next_token_rank@1"},
    {"metric": "next_token_log_probability@1"},
]
GEOMETRY = [{"metric": "state_norm@1"}, {"metric": "step_length@1"}, {"metric": "turning_angle@1"}]
TOLERANCE = {"effective_vocabulary": 2e-3}


def head(seed: int = 0, *, v: int = V, bias: bool = False, spread: float = 1.5) -> nn.Linear:
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(WIDTH, v, bias=bias).requires_grad_(False)
    linear.weight.copy_(spread * torch.randn(v, WIDTH, generator=generator))
    if bias:
        linear.bias.copy_(torch.randn(v, generator=generator))
    return linear


def model(linear: nn.Module, *, valid=None, norm: nn.Module | None = None, **scalars):
    """What the lens reads of a loaded model."""
    chain = (norm or nn.LayerNorm(WIDTH).requires_grad_(False), linear)
    rows = linear.out_features if isinstance(linear, nn.Linear) else V
    encoder = types.SimpleNamespace(valid=tuple(range(rows)) if valid is None else tuple(valid))
    return types.SimpleNamespace(readout=ReadOut(chain, **scalars), encoder=encoder)


def runs_of(prompts: int, samples: int, common: int, length: int, *, seed: int = 1, lengths=None) -> Runs:
    generator = torch.Generator().manual_seed(seed)
    rows = prompts * samples
    shared = torch.randn(LAYERS, prompts, common, WIDTH, generator=generator)
    own = torch.randn(LAYERS, rows, length - common, WIDTH, generator=generator)
    # Layers that resemble each other, so that divergences are of all sizes.
    shared, own = shared.cumsum(0), own.cumsum(0)
    ids = torch.randint(0, V, (rows, length), generator=generator)
    first = ids.view(prompts, samples, length)[:, :1, : common + 1]
    ids.view(prompts, samples, length)[:, :, : common + 1] = first
    where = torch.full((rows,), length) if lengths is None else torch.tensor(lengths)
    return Runs(ids, where, samples, shared, own)


def whole(runs: Runs) -> Runs:
    """The same runs with nothing shared."""
    own = torch.stack([runs.layer(i) for i in range(runs.layers)])
    return Runs(
        runs.ids, runs.lengths, runs.samples, own.new_empty((LAYERS, len(runs.shared[0]), 0, WIDTH)), own
    )


def naive(m, runs: Runs, metrics, readout=None) -> dict[str, np.ndarray]:
    """Everything at once, in float64, by the definitions."""
    readout = readout or m.readout
    states = torch.stack([runs.layer(i) for i in range(runs.layers)])
    with torch.inference_mode():
        logits = readout(states)[..., list(m.encoder.valid)].double().numpy()
    place = {t: i for i, t in enumerate(m.encoder.valid)}
    following = np.array([[place.get(int(t), 0) for t in row] for row in runs.ids.roll(-1, 1)])
    out = {}
    for spec in metrics:
        entry = METRICS.get(spec["metric"])
        options = {k: v for k, v in spec.items() if k not in ("metric", "as")}
        layers = []
        for i, x in enumerate(logits):
            given = {"logits": x, "final_logits": logits[-1], "next_token": following}
            given["next_logits"] = logits[min(i + 1, LAYERS - 1)]
            given["entropy"] = distribution.entropy(x)
            value = entry.resolve()(*(given[k] for k in entry.inputs), **options)
            if "next_token" in entry.inputs:
                value[:, -1] = np.nan
            if "next_logits" in entry.inputs and i == LAYERS - 1:
                value = np.full(value.shape, np.nan)
            layers.append(value)
        out[spec.get("as", entry.name)] = np.stack(layers, -1)
    return out


def same(found, true, name: str = "", tolerance: float = 5e-6) -> None:
    np.testing.assert_allclose(
        found, true, rtol=3e-6, atol=TOLERANCE.get(name.partition("__")[0], tolerance), err_msg=name
    )
