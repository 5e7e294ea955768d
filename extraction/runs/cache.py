"""What a model's cache can do: be kept, be handed from a prompt to several samples, be read on from."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..models.capture import captured, states
from ..models.loading import Loaded

# Names under which models take their cache back.
_NAMES = ("past_key_values", "cache_params", "state")
# Rotations that change with the length read so far: what was cached would have been rotated otherwise.
_GROWING = ("dynamic", "longrope")
_PROMPT, _LENGTH = 5, 9

# Largest relative difference of a state read through the cache: rounding of float32 and no more.
SHARED_TOLERANCE = 1e-5
# Writing without any cache is slow, so only a cache that is plainly wrong is refused.
_STEP_TOLERANCE = 1e-3
# Half formats round by percents, so the mean of a token is looked at; recurrent caches, which forget and so
# show a fault less, are not shared in reading.
_HALF = (torch.float16, torch.bfloat16)
_HALF_TOLERANCE, _RECURRENT_TOLERANCE = 0.1, 0.02


@dataclass(frozen=True)
class Caching:
    """How a model is read and made to write, found by comparing it with itself.

    Attributes
    ----------
    name : str
        Argument by which the model takes its cache back, "" where it has none.
    generation : {"shared", "rows", "uncached"}
        The prompt is read once and its cache handed to all samples; is read once a sample; or everything
        is read again for each token.
    reading : {"shared", "whole"}
        Finished runs are read from the cache of their prompt on, or from their first token.
    difference : float
        Largest relative difference between a state of the way of writing and one of a single pass, in half
        formats the largest mean of a token; 0 where nothing is cached.
    """

    name: str
    generation: str
    reading: str
    difference: float = 0.0


_FOUND: WeakKeyDictionary[Any, dict[tuple[str, ...], Caching]] = WeakKeyDictionary()


def caching(model: Loaded) -> Caching:
    """Find out what a model's cache can do; the answer is kept for as long as the model computes alike.

    States of a few made-up tokens are compared: those read in one pass, those read token by token through
    the cache, and those read through the cache of a prompt that was handed to two rows.

    Returns
    -------
    Caching
    """
    found = _FOUND.setdefault(model.lm, {})
    # Between two extractions a model in memory may be given another format, device or attention, and torch
    # other threads: what was found under these would hang on what was done before.
    attention = getattr(getattr(model.lm, "config", None), "_attn_implementation", "")
    placed = [getattr(model.lm, name, "") for name in ("dtype", "device")]
    now = tuple(map(str, (*placed, attention, torch.get_num_threads())))
    if now not in found:
        found[now] = _probe(model)
    return found[now]


def takes(module: Any, name: str) -> bool:
    """Say whether a model has an argument of that name."""
    return name in inspect.signature(getattr(module, "forward", module)).parameters


def advance(module: Any, ids: Tensor, name: str, cache: Any = None, **inputs: Any) -> tuple[Any, Any]:
    """Let a model read on from its cache.

    Parameters
    ----------
    module : Module
        The causal model, or its body.
    ids : Tensor of int64, shape (row, token)
        The tokens that follow.
    name : str
        As in :class:`Caching`.
    cache : object, optional
        None at the start of a text; a model may change it in place.

    Returns
    -------
    reply, cache
        What the model gave, and its cache now.
    """
    reply = module(input_ids=ids, use_cache=True, **({} if cache is None else {name: cache}), **inputs)
    return reply, getattr(reply, name)


def expand(cache: Any, rows: int, times: int) -> Any:
    """Hand the cache of each of `rows` prompts to `times` samples."""
    index = torch.arange(rows).repeat_interleave(times)
    if isinstance(cache, list):
        return [part.index_select(0, index.to(part.device)) for part in cache]
    # Every kind of cache knows it, the recurrent ones too.
    cache.reorder_cache(index)
    return cache


def read_on(model: Loaded, ids: Tensor, name: str, cache: Any = None) -> tuple[Tensor, Any]:
    """Return the states of tokens read from a cache on, and the cache then."""
    with torch.inference_mode(), captured(model.blocks) as kept:
        _, cache = advance(model.body, ids, name, cache)
    return kept[0], cache


def _probe(model: Loaded) -> Caching:
    name = next((n for n in _NAMES if takes(model.lm, n)), "")
    if not name:
        return Caching("", "uncached", "whole")
    size = model.lm.get_input_embeddings().weight.shape[0]
    ids = ((torch.arange(4 * _LENGTH, device=model.device) * 37 + 11) % size).reshape(4, _LENGTH)
    ids[1::2, :_PROMPT] = ids[::2, :_PROMPT]
    truth = states(model.body, model.blocks, ids)[:, :, _PROMPT:]
    half = next(model.lm.parameters()).dtype in _HALF

    def difference(shared: bool, ends: Sequence[int]) -> tuple[float, bool]:
        try:
            found, plain = _through_cache(model, ids, name, shared, ends)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a cache that cannot do this fails in any way
            return float("inf"), False
        return relative_difference(found, truth, typical=half), plain

    generation, written = "uncached", 0.0
    for answer in ("shared", "rows"):
        error, plain = difference(answer == "shared", range(_PROMPT + 1, _LENGTH + 1))
        if error <= (_STEP_TOLERANCE if not half else _HALF_TOLERANCE if plain else _RECURRENT_TOLERANCE):
            generation, written = answer, error
            break
    error, plain = difference(True, [_LENGTH])
    fits = error <= _HALF_TOLERANCE and plain if half else error <= SHARED_TOLERANCE
    return Caching(name, generation, "shared" if fits and not _grows(model) else "whole", written)


def _through_cache(
    model: Loaded, ids: Tensor, name: str, shared: bool, ends: Sequence[int]
) -> tuple[Tensor, bool]:
    """Return the states after the prompt, read up to each end, and whether the cache is one of attention."""
    parts = []
    with torch.inference_mode():
        _, cache = read_on(model, (ids[::2] if shared else ids)[:, :_PROMPT], name)
        plain = _only_attention(cache)
        cache = expand(cache, 2, 2) if shared else cache
        for start, end in zip([_PROMPT, *ends], ends, strict=False):
            found, cache = read_on(model, ids[:, start:end], name, cache)
            parts.append(found)
    return torch.cat(parts, 2), plain


def _only_attention(cache: Any) -> bool:
    """Say whether a cache holds keys and values and nothing else."""
    layers = getattr(cache, "layers", None) or [cache]
    return all(hasattr(layer, "keys") and not hasattr(layer, "recurrent_states") for layer in layers)


def _grows(model: Loaded) -> bool:
    config = model.lm.config.get_text_config()
    given = [getattr(config, n, None) or {} for n in ("rope_parameters", "rope_scaling")]
    return any(f"'{kind}'" in str(rope) for rope in given for kind in _GROWING)


def relative_difference(found: Tensor, truth: Tensor, *, typical: bool = False) -> float:
    """Return the largest norm of a difference of two states over the norm of the true one.

    Parameters
    ----------
    found, truth : Tensor, shape (layer, row, token, width)
    typical : bool, optional
        The largest mean of a token in place of the largest of a state.

    Returns
    -------
    float
        NaN where a state is not finite.
    """
    difference = (found.double() - truth.double()).norm(dim=-1)
    norm = truth.double().norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    relative = difference / norm
    return float(relative.mean((0, 1)).max() if typical else relative.max())
