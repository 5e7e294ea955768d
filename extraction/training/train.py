"""Train one model: deterministic, resumable, one thread.

Every batch is a function of the seed and the step, and no model has dropout. So weights, optimiser
state and step number are all that a checkpoint must hold, and a run that was stopped goes on to the
same bits as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from dynstat.files import write_atomic, write_json

from .architectures import LAYERS, build
from .tokenizer import CONTEXT, END_OF_TEXT_ID

THREADS = 1


@dataclass(frozen=True)
class Recipe:
    """Fix everything that determines a training run apart from the model and the tokens.

    Attributes
    ----------
    steps : int
        Number of updates.
    batch : int
        Sequences an update.
    context : int
        Tokens a sequence, ``<|endoftext|>`` at its start included.
    learning_rate : float
        Highest rate, reached after the warm-up; a half cosine brings it down to a hundredth.
    warmup : int
        Updates of linear warm-up.
    weight_decay, beta1, beta2, clip : float
        Settings of AdamW and of the clipped norm of the gradient; only matrices decay.
    seed : int
        Seed of the initial weights and of the order of sequences.
    """

    steps: int = 3600
    batch: int = 8
    context: int = CONTEXT
    learning_rate: float = 4e-3
    warmup: int = 200
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    seed: int = 0


@contextmanager
def one_deterministic_thread() -> Iterator[None]:
    """Use one thread and deterministic algorithms only, and restore what was set on leaving."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory guards against reading it uninitialised; it costs time, no kernel here needs it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def batch_at(tokens: np.ndarray, step: int, recipe: Recipe) -> torch.Tensor:
    """Give the sequences of one update.

    An epoch cuts the tokens into windows from a random offset on and visits them in random order.

    Parameters
    ----------
    tokens : ndarray of int, shape (n,)
        Training tokens.
    step : int
        Number of the update, from 0 on.
    recipe : Recipe
        Batch, context and seed.

    Returns
    -------
    Tensor of int64, shape (batch, context + 1)
        ``<|endoftext|>`` first, then `context` tokens of text: the first `context` entries are read,
        the last `context` predicted.
    """
    windows = (len(tokens) - recipe.context) // recipe.context
    rows = np.empty((recipe.batch, recipe.context + 1), dtype=np.int64)
    rows[:, 0] = END_OF_TEXT_ID
    first = step * recipe.batch
    epoch = -1
    for row, number in enumerate(range(first, first + recipe.batch)):
        if number // windows != epoch:
            epoch = number // windows
            draw = np.random.default_rng([recipe.seed, epoch])
            offset = int(draw.integers(recipe.context))
            order = draw.permutation(windows)
        start = offset + int(order[number % windows]) * recipe.context
        rows[row, 1:] = tokens[start : start + recipe.context]
    return torch.from_numpy(rows)


def rate_at(step: int, recipe: Recipe) -> float:
    """Give the learning rate of one update: linear warm-up, then a half cosine to a hundredth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


@one_deterministic_thread()
def train(
    architecture: str,
    tokens: np.ndarray,
    recipe: Recipe,
    work: Path,
    *,
    layers: int = LAYERS,
    checkpoint_every: int = 200,
    stop_after: int | None = None,
    report: Callable[[int, float], None] | None = None,
) -> PreTrainedModel:
    """Train one model, from its last checkpoint on if there is one.

    Parameters
    ----------
    architecture : str
        One of the six.
    tokens : ndarray of int, shape (n,)
        Training tokens.
    recipe : Recipe
        What determines the run.
    work : Path
        Folder for checkpoints; those of other runs in it are neither used nor touched.
    layers : int, optional
        Number of blocks.
    checkpoint_every : int, optional
        Updates between two checkpoints.
    stop_after : int, optional
        Stop, with a checkpoint, when this many updates have been made in all.
    report : callable, optional
        Called with the number of updates made and the mean loss (nats a token) of the last twenty.

    Returns
    -------
    PreTrainedModel
        In float32.
    """
    model = build(architecture, recipe.seed, layers)
    model.train()
    optimizer = _optimizer(model, recipe)
    folder = work / _run_id(architecture, tokens, recipe, layers)
    begin = _resume(folder, model, optimizer)
    end = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    losses: list[float] = []
    for step in range(begin, end):
        rows = batch_at(tokens, step, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        optimizer.zero_grad(set_to_none=True)
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        losses.append(loss.item())
        if report and (step + 1) % 20 == 0:
            report(step + 1, sum(losses[-20:]) / len(losses[-20:]))
        if (step + 1) % checkpoint_every == 0 or step + 1 == end:
            _checkpoint(folder, model, optimizer, step + 1)
    return model.eval()


def training_record(architecture: str, tokens: np.ndarray, recipe: Recipe, updates: int) -> dict[str, object]:
    """Describe a run for the model's card, from the process that made it.

    Parameters
    ----------
    architecture : str
        One of the six.
    tokens : ndarray of int, shape (n,)
        Training tokens.
    recipe : Recipe
        What determined the run.
    updates : int
        Updates made so far; a card is written only when they are ``recipe.steps``.

    Returns
    -------
    dict
        Plain values.
    """
    return {
        "architecture": architecture,
        "recipe": asdict(recipe),
        "updates": updates,
        "corpus_tokens": len(tokens),
        "corpus_tokens_sha256": hashlib.sha256(
            np.ascontiguousarray(tokens, dtype="<u2").tobytes()
        ).hexdigest(),
        "tokens_read": updates * recipe.batch * recipe.context,
        "device": "cpu",
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "safetensors": safetensors.__version__,
            "numpy": np.__version__,
        },
    }


def _run_id(architecture: str, tokens: np.ndarray, recipe: Recipe, layers: int) -> str:
    settings = json.dumps([architecture, layers, asdict(recipe)], sort_keys=True).encode()
    data = np.ascontiguousarray(tokens, dtype="<u2").tobytes()
    return f"{architecture}-{hashlib.sha256(settings + data).hexdigest()[:16]}"


def _optimizer(model: PreTrainedModel, recipe: Recipe) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True)


def _checkpoint(folder: Path, model: PreTrainedModel, optimizer: torch.optim.AdamW, step: int) -> None:
    tensors = {f"model/{name}": p.detach().contiguous() for name, p in model.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value.contiguous() for key, value in state.items()}
    # The small file names the large one: a stop between the two writes leaves the older pair in force.
    write_atomic(folder / f"{step}.safetensors", save(tensors))
    write_json(folder / "latest.json", {"step": step})
    for old in folder.glob("*.safetensors"):
        if old.name != f"{step}.safetensors":
            old.unlink()


def _resume(folder: Path, model: PreTrainedModel, optimizer: torch.optim.AdamW) -> int:
    latest = folder / "latest.json"
    if not latest.is_file():
        return 0
    step = int(json.loads(latest.read_text(encoding="utf-8"))["step"])
    tensors = load_file(folder / f"{step}.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, key = rest.partition("/")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    return step
