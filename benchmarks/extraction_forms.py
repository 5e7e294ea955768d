"""The ways of doing one job that the extraction benchmark compares.

The job: for the input of the first block, every layer and every token: entropy, probability of the first,
mass of the first 5 and 10, margin, number of tokens above 1 %, KL(layer || final). A form is a function of
:class:`~benchmarks.extraction_sizes.Parts` that prepares what is prepared once a model, and gives back the
job: a function of token ids of shape (1, token) that returns arrays of shape (layer, token), or nothing where
it does a part of the work only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from .extraction_sizes import Parts, loaded

Values = dict[str, np.ndarray] | None
Job = Callable[[Any], Values]
NAMES = ("entropy", "top1", "top5", "top10", "margin", "count", "kl")
ABOVE = 0.01
# A probability this near to it (relative) may be counted either way.
TIE = 1e-5
# As the registry of dynstat calls the seven numbers.
METRICS: tuple[dict[str, Any], ...] = (
    {"metric": "entropy"},
    {"metric": "top1_probability"},
    {"metric": "concentration", "k": 5},
    {"metric": "concentration", "k": 10, "as": "concentration_10"},
    {"metric": "margin"},
    {"metric": "dispersion", "threshold": ABOVE},
    {"metric": "kl_to_final"},
)
VARIABLES = dict(
    zip(
        NAMES,
        (
            "entropy",
            "top1_probability",
            "concentration",
            "concentration_10",
            "margin",
            "dispersion",
            "kl_to_final",
        ),
        strict=True,
    )
)


def numbers(logits: Any, final: Any) -> dict[str, Any]:
    """Compute the seven numbers plainly, shape (..., vocabulary) to (...); `final` are log-probabilities."""
    logp = logits.log_softmax(-1)
    p = logp.exp()
    top = p.topk(10, -1).values
    return {
        "entropy": -(p * logp).sum(-1),
        "top1": top[..., 0],
        "top5": top[..., :5].sum(-1),
        "top10": top.sum(-1),
        "margin": top[..., 0] - top[..., 1],
        "count": (p > ABOVE).sum(-1),
        "kl": (p * (logp - final)).sum(-1),
    }


def _arrays(values: dict[str, Any]) -> dict[str, np.ndarray]:
    return {k: v.reshape(v.shape[0], -1).double().cpu().numpy() for k, v in values.items()}


def _stacked(layers: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    import torch

    return _arrays({k: torch.stack([v[k] for v in layers]) for k in layers[0]})


def _hidden(parts: Parts, ids: Any) -> tuple[Any, ...]:
    # The last of them is through the final norm already, the others are not.
    return parts.body(ids, output_hidden_states=True, use_cache=False).hidden_states


def _read(parts: Parts, hidden: Sequence[Any], layer: int) -> Any:
    state = hidden[layer]
    return parts.head(state if layer == len(hidden) - 1 else parts.norm(state))


# -- the floor ----------------------------------------------------------------------------------------


def forward(parts: Parts) -> Job:
    """The forward pass of the body alone."""
    return lambda ids: (parts.body(ids, use_cache=False), None)[1]


def _matmuls(parts: Parts, multiply: Callable[[Any], Any]) -> Job:
    import torch

    states = torch.stack([h[0] for h in _hidden(parts, parts.ids)])
    step = engine().rows(parts.head.weight.shape[0])

    def job(ids: Any) -> None:
        for layer in states[:, : ids.shape[1]]:
            for block in layer.split(step):
                multiply(block)

    return job


def matmul_linear(parts: Parts) -> Job:
    """The products with the unembedding alone, by torch's own kernel."""
    import torch

    weight = parts.head.weight
    return _matmuls(parts, lambda block: torch.nn.functional.linear(block, weight))


def matmul_onednn(parts: Parts) -> Job:
    """The products with the unembedding alone, by oneDNN's kernel."""
    import torch

    weight = parts.head.weight
    kernel = torch.ops.mkldnn._linear_pointwise
    return _matmuls(parts, lambda block: kernel(block, weight, None, "none", [], ""))


# -- naive --------------------------------------------------------------------------------------------


def naive(parts: Parts) -> Job:
    """All layers at once: layers x tokens x vocabulary in memory."""
    import torch

    def job(ids: Any) -> Values:
        hidden = _hidden(parts, ids)
        states = torch.stack([*(parts.norm(h) for h in hidden[:-1]), hidden[-1]])
        logits = parts.head(states)
        return _arrays(numbers(logits, logits[-1].log_softmax(-1)))

    return job


def naive_layers(parts: Parts) -> Job:
    """Layer by layer: tokens x vocabulary in memory."""

    def job(ids: Any) -> Values:
        hidden = _hidden(parts, ids)
        final = _read(parts, hidden, len(hidden) - 1).log_softmax(-1)
        return _stacked([numbers(_read(parts, hidden, i), final) for i in range(len(hidden))])

    return job


# -- peers --------------------------------------------------------------------------------------------


def _bridge(parts: Parts) -> Any:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    from dynstat import data_path

    # It wants some tokenizer; none of it is used here.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(data_path("models/tokenizer")))
    return TransformerBridge.boot_transformers("gpt2", hf_model=parts.lm, tokenizer=tokenizer, device="cpu")


def transformer_lens(parts: Parts) -> Job:
    """TransformerLens: entropy and the ten most probable, no KL and no count."""
    from transformer_lens.tools.analysis import logit_lens

    bridge = _bridge(parts)

    def job(ids: Any) -> Values:
        lens = logit_lens(bridge, ids, positions=None, return_type="probs", top_k=10)
        top = lens.values
        return _arrays(
            {
                "entropy": lens.readout.entropy,
                "top1": top[..., 0],
                "top5": top[..., :5].sum(-1),
                "top10": top.sum(-1),
                "margin": top[..., 0] - top[..., 1],
            }
        )

    return job


def transformer_lens_full(parts: Parts) -> Job:
    """TransformerLens with all probabilities, which KL and counts need."""
    from transformer_lens.tools.analysis import logit_lens

    bridge = _bridge(parts)

    def job(ids: Any) -> Values:
        lens = logit_lens(bridge, ids, positions=None, return_type="log_probs")
        logp, p = lens.values, lens.values.exp()
        top = p.topk(10, -1).values
        return _arrays(
            {
                "entropy": lens.readout.entropy,
                "top1": top[..., 0],
                "top5": top[..., :5].sum(-1),
                "top10": top.sum(-1),
                "margin": top[..., 0] - top[..., 1],
                "count": (p > ABOVE).sum(-1),
                "kl": (p * (logp - logp[-1])).sum(-1),
            }
        )

    return job


def nnsight_all(parts: Parts) -> Job:
    """nnsight as its tutorial shows the lens: the logits of every layer are kept."""
    import nnsight
    import torch

    model = nnsight.NNsight(parts.lm)
    blocks, norm, head = _envoys(model, parts)

    def job(ids: Any) -> Values:
        with model.trace(ids):
            kept = nnsight.save([])
            kept.append(head(norm(blocks[0].input)))
            for block in blocks:
                out = block.output
                kept.append(head(norm(out[0] if isinstance(out, tuple) else out)))
        logits = torch.stack(kept)
        return _arrays(numbers(logits, logits[-1].log_softmax(-1)))

    return job


def nnsight_layers(parts: Parts) -> Job:
    """nnsight saving states, then layer by layer."""
    import nnsight

    model = nnsight.NNsight(parts.lm)
    blocks, _, _ = _envoys(model, parts)

    def job(ids: Any) -> Values:
        with model.trace(ids):
            kept = nnsight.save([])
            kept.append(blocks[0].input)
            for block in blocks:
                out = block.output
                kept.append(out[0] if isinstance(out, tuple) else out)
        final = parts.head(parts.norm(kept[-1])).log_softmax(-1)
        return _stacked([numbers(parts.head(parts.norm(state)), final) for state in kept])

    return job


def _envoys(model: Any, parts: Parts) -> tuple[Any, Any, Any]:
    names = {module: name for name, module in parts.lm.named_modules()}

    def find(module: Any) -> Any:
        found = model
        for step in names[module].split("."):
            found = found[int(step)] if step.isdigit() else getattr(found, step)
        return found

    return [find(b) for b in parts.blocks], find(parts.norm), find(parts.head)


# -- dynstat ------------------------------------------------------------------------------------------


@cache
def engine() -> Any:
    """Choose the engine by timing, once: what is forked afterwards has the same."""
    from dynstat.extraction.lens.engine import choose

    return choose(1, "cpu")


def _dynstat(parts: Parts, kernel: str | None) -> Job:
    from dataclasses import replace

    from dynstat.extraction.lens.measuring import measure
    from dynstat.extraction.runs.reading import read_runs

    model = loaded(parts)
    chosen = engine() if kernel is None else replace(engine(), kernel=kernel)

    def job(ids: Any) -> Values:
        runs = read_runs(model, ids, 1)
        values = measure(model, runs, METRICS, engine=chosen).values
        return {name: values[variable][0].T for name, variable in VARIABLES.items()}

    return job


def dynstat(parts: Parts) -> Job:
    """dynstat with the kernel that it chooses."""
    return _dynstat(parts, None)


def dynstat_linear(parts: Parts) -> Job:
    """dynstat with torch's own kernel."""
    return _dynstat(parts, "linear")


# -- truth --------------------------------------------------------------------------------------------


def reference(parts: Parts, tokens: int) -> dict[str, np.ndarray]:
    """Do the job in float64 throughout, on the first tokens; later tokens change nothing before them.

    ``ties`` says how many probabilities are so near to 1 % that rounding decides.
    The model is float64 afterwards.
    """
    import torch

    # Not lm.double(): transformers refuses to convert what came out of a GGUF file, though it is float32.
    torch.nn.Module.double(parts.lm)
    hidden = _hidden(parts, parts.ids[:, :tokens])
    final = _read(parts, hidden, len(hidden) - 1).log_softmax(-1)
    layers = []
    for i in range(len(hidden)):
        logits = _read(parts, hidden, i)
        near = (logits.softmax(-1) / ABOVE - 1).abs() < TIE
        layers.append(numbers(logits, final) | {"ties": near.sum(-1)})
    return _stacked(layers)


FORMS: dict[str, tuple[str, Callable[[Parts], Job]]] = {
    "forward": ("forward pass of the body", forward),
    "matmul_linear": ("unembedding alone, linear kernel", matmul_linear),
    "matmul_onednn": ("unembedding alone, oneDNN kernel", matmul_onednn),
    "naive": ("naive, all layers at once", naive),
    "naive_layers": ("naive, layer by layer", naive_layers),
    "tl": ("TransformerLens logit_lens, entropy + top 10", transformer_lens),
    "tl_full": ("TransformerLens logit_lens, full vocabulary", transformer_lens_full),
    "nnsight": ("nnsight, every layer's logits", nnsight_all),
    "nnsight_layers": ("nnsight, states, then layer by layer", nnsight_layers),
    "dynstat_linear": ("dynstat, linear kernel", dynstat_linear),
    "dynstat": ("dynstat", dynstat),
}
# All that a table compares.
PEERS = {"tl": "transformer_lens", "tl_full": "transformer_lens", "nnsight": "nnsight"}
PEERS["nnsight_layers"] = "nnsight"
# What a short text needs, to be judged.
FLOOR_AND_OWN = ("forward", "matmul_linear", "matmul_onednn", "dynstat")


def present(form: str) -> bool:
    """Say whether what a form needs is installed."""
    return form not in PEERS or importlib.util.find_spec(PEERS[form]) is not None
