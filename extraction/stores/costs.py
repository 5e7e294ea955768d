"""What a model and its items cost: parameters, FLOPs and memory, known before any weight is loaded."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dynstat.errors import DynstatError

from ..lens.engine import Engine
from ..models.sources import Source
from ..panels.panel import Panel
from .batches import Batch

# Read-outs that multiply states by the unembedding themselves; others reuse the logits of the plain lens.
OWN_MATMUL = ("logit_lens", "no_norm", "tuned")
# The lens with all that is no matrix product, as a multiple of that; and seconds that no product explains: of
# one block at one step of writing, and of one shard. Measured on two cores with the models of the demo.
LENS = 1.25
BLOCK_STEP_SECONDS = 3e-4
SHARD_SECONDS = 0.2
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Size:
    """What the arithmetic of costs needs to know of a model.

    Attributes
    ----------
    parameters : int
        All of them.
    active : float
        Those that a token is multiplied by on its way through the blocks: without embeddings and head, and of
        experts only those that are chosen.
    layers : int
        Number of states of a token: blocks and the input of the first.
    width, vocabulary : int
        Entries of a state, and rows of the unembedding.
    cache : int
        Entries of keys and values that a token leaves in one layer.
    heads : int
        Tables of attention, token by token, that a layer makes at once.
    """

    parameters: int
    active: float
    layers: int
    width: int
    vocabulary: int
    cache: int
    heads: int = 1


def size_of(source: Source, config: Any) -> Size:
    """Read a model's size from its config and the header of its weights.

    Parameters
    ----------
    source : Source
        Its files.
    config : PretrainedConfig
        Of its text part.
    """
    vocabulary, width = int(config.vocab_size), int(config.hidden_size)
    blocks = int(config.num_hidden_layers)
    shapes: dict[str, tuple[int, ...]] = {"blocks": (12, blocks, width, width), "head": (vocabulary, width)}
    if source.weights:  # a model in memory has no files: the usual shape of a block stands for it
        shapes = dict(_gguf(source) if source.is_gguf else _safetensors(source))
    share = _chosen_experts(config)
    active = 0.0
    for name, shape in shapes.items():
        if len(shape) >= 2 and vocabulary in shape:
            continue  # embedding or head
        active += math.prod(shape) * (share if ".experts." in name or "_exps." in name else 1.0)
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    return Size(
        sum(math.prod(s) for s in shapes.values()),
        active,
        blocks + 1,
        width,
        vocabulary,
        2 * groups * head,
        heads,
    )


def tokens_read(batch: Batch) -> int:
    """Return the tokens whose states are read: what all samples of a prompt share counts once.

    ``P - 1 + S (G + 1)`` for a prompt of P tokens and S samples of G: what follows the prompt's last token
    differs, so that token is read with each sample. A single sample shares nothing, nor do samples whose
    prompt is disturbed.
    """
    if not _shares(batch):
        return batch.tokens
    return sum(len(ids) - 1 for ids in batch.ids) + batch.rows * (batch.steps + 1)


def _shares(batch: Batch) -> bool:
    change = batch.samples[0].intervention  # one for all of them
    return len(batch.samples) > 1 and (change is None or change.phase == "generated")


def _states(batch: Batch) -> int:
    """Return the states that a layer makes: padding has some, too."""
    return tokens_read(batch) if _shares(batch) else batch.rows * batch.length


def flops(batch: Batch, size: Size, panel: Panel) -> tuple[float, float]:
    """Return the floating-point operations of one item: of the model, and of the lens.

    The model: twice the active parameters a token, for writing and for reading, and one unembedding a token
    written. The lens: ``2 (layers) tokens d V`` a read-out that has a matmul of its own. Attention scores and
    everything that is not a matrix product are left out.
    """
    read = tokens_read(batch)
    written = batch.rows * batch.steps
    forward = 2.0 * size.active * (_states(batch) + (written + sum(map(len, batch.ids)) if written else 0))
    unembedding = 2.0 * size.width * size.vocabulary
    matmuls = sum(r in OWN_MATMUL for r in panel.readouts)
    return forward + unembedding * written, unembedding * matmuls * size.layers * read


def seconds(batch: Batch, size: Size, panel: Panel, of_model: float, of_lens: float) -> float:
    """Return the seconds one item takes at the rates that :func:`rates` measures."""
    forward, lens = flops(batch, size, panel)
    calls = batch.steps * (size.layers - 1) * BLOCK_STEP_SECONDS
    return forward / of_model + LENS * lens / of_lens + calls + SHARD_SECONDS


def memory(batch: Batch, size: Size, panel: Panel, engine: Engine) -> int:
    """Return the bytes held at most while one item is made, beside the interpreter and its libraries.

    Weights, with a copy of the head in float32 where they are half; then, whichever is larger, keys and
    values with the float64 probabilities of the next token, or all states with three buffers of logits, or
    with what a layer of attention makes of every two tokens, twice; and what is stored.
    """
    at_rest = size.parameters * BYTES[panel.dtype]
    if panel.dtype != "float32":
        at_rest += 4 * size.width * size.vocabulary
    padded = batch.rows * batch.length
    cache = padded * size.layers * size.cache * BYTES[panel.dtype]
    writing = cache + batch.rows * size.vocabulary * 28
    lens = 3 * max(engine.block_bytes, engine.rows(size.vocabulary) * 4 * size.vocabulary)
    query = batch.steps + 1 if _shares(batch) else batch.length
    pairs = [batch.rows * query * batch.length]
    if _shares(batch):
        pairs.append(len(batch.prompts) * (batch.length - batch.steps) ** 2)
    attention = 2 * 4 * size.heads * max(pairs) + (cache if _shares(batch) else 0)
    reading = _states(batch) * size.layers * size.width * 4 + max(lens, attention)
    stored = padded * size.layers * point_bytes(panel)
    return int(at_rest + max(writing if batch.steps else 0, reading) + stored)


def point_bytes(panel: Panel) -> int:
    """Return the bytes stored at one point before compression: metrics, quality, most probable token."""
    return 4 * len(panel.metrics) * len(panel.readouts) + 5


def rates(engine: Engine, device: str) -> tuple[float, float] | None:
    """Measure the floating-point operations a second of this machine: of a model's products, and of the lens.

    Takes about 50 ms. The model's are those of torch's own matrix product, the lens's of the engine's kernel.
    None where this machine, perhaps the login node of those that will compute, has no such device or kernel.
    """
    import torch

    from ..lens.matmul import multiplier, usable

    if (device == "cuda" and not torch.cuda.is_available()) or not usable(engine.kernel, device):
        return None
    rows, width, vocabulary = (64, 576, 16_384) if device == "cpu" else (4096, 1024, 32_768)
    x = torch.ones(rows, width, device=device)
    matrix = torch.ones(vocabulary, width, device=device)
    before = torch.get_num_threads()
    best = []
    try:
        torch.set_num_threads(engine.threads)
        with torch.inference_mode():
            for kernel in ("linear", engine.kernel):
                times = []
                for _ in range(4):
                    started = time.perf_counter()
                    multiplier(kernel)(x, matrix, None)[-1, -1].item()  # waits for a GPU
                    times.append(time.perf_counter() - started)
                best.append(2.0 * rows * width * vocabulary / min(times))
    finally:
        torch.set_num_threads(before)
    return best[0], best[1]


def _safetensors(source: Source) -> Iterable[tuple[str, tuple[int, ...]]]:
    for file in source.weights:
        try:
            with file.open("rb") as f:
                header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
            for name, entry in header.items():
                if name != "__metadata__":
                    yield name, tuple(map(int, entry["shape"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as e:
            raise DynstatError(
                "F003", f"the header of {file.name} cannot be read", where=str(file), mend="fetch it again"
            ) from e


def _gguf(source: Source) -> Iterable[tuple[str, tuple[int, ...]]]:
    from gguf import GGUFReader

    for tensor in GGUFReader(source.weights[0]).tensors:
        yield tensor.name, tuple(int(n) for n in tensor.shape)


def _chosen_experts(config: Any) -> float:
    chosen = getattr(config, "num_experts_per_tok", None)
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if chosen and (there := getattr(config, name, None)):
            return min(1.0, float(chosen) / float(there))
    return 1.0
