"""States by hooks: the input of the first block and the output of every block, before the final norm."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynstat.errors import DynstatError

HALF = (torch.bfloat16, torch.float16)
_PROBE = 7


def probe_ids(lm: Any) -> Tensor:
    """Return a few different token ids, shape (1, token), on which a model is looked at."""
    rows = lm.get_input_embeddings().weight.shape[0]
    return (torch.arange(_PROBE, device=lm.device)[None] * 37 + 11) % rows


def blocks_of(lm: Any) -> list[nn.Module]:
    """Return the layers of a causal model, found by watching it read a few tokens.

    Config entries and module names differ between architectures. The layers are the outermost list of
    modules each of which is called once, one after the other, and puts out one state a token, as wide as
    the state that it takes; where several lists do, the one as long as the config says.

    Raises
    ------
    DynstatError
        X225 where no list does, or several do.
    """
    ids = probe_ids(lm)
    lists = {
        name: list(module)
        for name, module in lm.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    calls: list[tuple[nn.Module, bool]] = []

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append((module, _keeps_width(args, kwargs, output, ids.shape)))

    members = {id(m): m for modules in lists.values() for m in modules}
    handles = [m.register_forward_hook(after, with_kwargs=True) for m in members.values()]
    try:
        with torch.inference_mode():
            lm(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    found = {n: m for n, m in lists.items() if _is_stack(m, calls)}
    found = {n: m for n, m in found.items() if not any(n.startswith(f"{other}.") for other in found)}
    if len(found) > 1:
        depth = getattr(lm.config.get_text_config(), "num_hidden_layers", None)
        found = {n: m for n, m in found.items() if len(m) == depth}
    if len(found) == 1:
        return next(iter(found.values()))
    raise DynstatError(
        "X225",
        "the layers of the model were not found",
        where=type(lm).__name__,
        found=", ".join(found) or "no such list among " + (", ".join(list(lists)[:4]) or "its modules"),
        expected="one list of modules, each called once and giving one state a token, all of one width",
        mend="docs/architectures.md names what is read",
    )


def _keeps_width(args: Any, kwargs: Any, output: Any, shape: torch.Size) -> bool:
    try:
        before, after = input_state(args, kwargs), state_of(output)
        return before.shape == after.shape and after.ndim >= 3 and after.shape[:2] == shape
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError):
        return False


def _is_stack(modules: list[nn.Module], calls: list[tuple[nn.Module, bool]]) -> bool:
    """Say whether modules are called once each, in order, with no call of another list's between two."""
    inner = {id(m) for block in modules for m in block.modules()}
    own = {id(m) for m in modules}
    places = [i for i, (m, _) in enumerate(calls) if id(m) in own]
    if [id(calls[i][0]) for i in places] != [id(m) for m in modules]:
        return False
    between = calls[places[0] : places[-1] + 1]
    return all(id(m) in inner for m, _ in between) and all(calls[i][1] for i in places)


def body_of(lm: Any, blocks: list[nn.Module]) -> nn.Module:
    """Return the part of a causal model that is called to read: the model without its head.

    Where the model names none, or, as in a wrapper of a model, one that holds the head too, it is the
    innermost module around the layers that takes token ids.
    """
    base, head = lm.base_model, lm.get_output_embeddings()
    if base is not lm and not any(m is head for m in base.modules()):
        return base
    around = [
        m for m in lm.modules() if any(inner is blocks[0] for inner in m.modules()) and m is not blocks[0]
    ]
    takes = [m for m in around if "input_ids" in inspect.signature(m.forward).parameters]
    return takes[-1] if takes else lm


def state_of(output: Any) -> Tensor:
    """Return the hidden state in a block's output, which is a tensor, a tuple or a list by version."""
    return output if isinstance(output, Tensor) else output[0]


def with_state(output: Any, state: Tensor) -> Any:
    """Return a block's output with another hidden state in it, in the shape that the block gives it."""
    state = state.reshape(state_of(output).shape)
    return state if isinstance(output, Tensor) else type(output)([state, *output[1:]])


def input_state(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Return the hidden state in a block's arguments."""
    if args:
        return args[0]
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return next(v for v in kwargs.values() if isinstance(v, Tensor) and v.is_floating_point())


@contextmanager
def captured(blocks: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Keep the states of every call of the model made inside the ``with``.

    Parameters
    ----------
    blocks : list of Module
        The layers. Hooks that they carry already, such as one that changes a state, act before a state
        is kept.

    Yields
    ------
    list of Tensor
        Empty at first; each call of the model, with whatever arguments, appends its states, shape
        (layer, row, token, width), float32 where the model is of half precision. Layer 0 is the input of
        the first block, the last is taken before the final norm. Where a model keeps several residual
        streams, width is that of all of them, one after the other. The hooks are removed at the end,
        whatever happened.
    """
    into: list[Tensor] = []

    # Copied at once: a later step may write in place, and no layer is held twice.
    def first(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = input_state(args, kwargs).flatten(2)
        dtype = torch.float32 if state.dtype in HALF else state.dtype
        into.append(state.new_empty((len(blocks) + 1, *state.shape), dtype=dtype))
        into[-1][0] = state

    def after(layer: int) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            into[-1][layer] = state_of(output).flatten(2)

        return keep

    handles = [blocks[0].register_forward_pre_hook(first, with_kwargs=True)]
    try:
        handles += [block.register_forward_hook(after(i + 1)) for i, block in enumerate(blocks)]
        yield into
    finally:
        for handle in handles:
            handle.remove()


def states(body: nn.Module, blocks: list[nn.Module], ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Read token ids once and return every state.

    Parameters
    ----------
    body : Module
        The model without its head.
    blocks : list of Module
        Its layers.
    ids : Tensor of int64, shape (row, token)
        Padded on the right, if at all.
    mask : Tensor of int64, shape (row, token), optional
        1 for tokens, 0 for padding; None where there is no padding. States at padding mean nothing.

    Returns
    -------
    Tensor, shape (layer, row, token, width)
        Layer 0 is the input of the first block, the last is taken before the final norm; float32 where
        the model is of half precision.
    """
    kwargs = {} if mask is None else {"attention_mask": mask}
    with torch.inference_mode(), captured(blocks) as out:
        body(input_ids=ids, use_cache=False, **kwargs)
    return out[0]
