"""States by hooks: the input of the first block and the output of every block, before the final norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynstat.errors import DynstatError

_HALF = (torch.bfloat16, torch.float16)


def blocks_of(lm: Any) -> list[nn.Module]:
    """Return the layers of a causal model: the outermost module list as long as its config says.

    Raises
    ------
    DynstatError
        X207 where no such list exists.
    """
    n = lm.config.get_text_config().num_hidden_layers
    for _, module in lm.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n:
            return list(module)
    raise DynstatError(
        "X207",
        "the layers of the model were not found",
        where=type(lm).__name__,
        expected=f"a list of {n} modules",
        mend="this architecture is not supported",
    )


def body_of(lm: Any, blocks: list[nn.Module]) -> nn.Module:
    """Return the part of a causal model that is called to read: the model without its head."""
    if lm.base_model is not lm:
        return lm.base_model
    for child in lm.children():
        if any(module is blocks[0] for module in child.modules()):
            return child
    return lm


def state_of(output: Any) -> Tensor:
    """Return the hidden state in a block's output, which is a tensor, a tuple or a list by version."""
    return output if isinstance(output, Tensor) else output[0]


def with_state(output: Any, state: Tensor) -> Any:
    """Return a block's output with another hidden state in it."""
    if isinstance(output, Tensor):
        return state
    return type(output)([state, *output[1:]])


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
        the first block, the last is taken before the final norm. The hooks are removed at the end,
        whatever happened.
    """
    into: list[Tensor] = []

    # Copied at once: a later step may write in place, and no layer is held twice.
    def first(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = input_state(args, kwargs)
        dtype = torch.float32 if state.dtype in _HALF else state.dtype
        into.append(state.new_empty((len(blocks) + 1, *state.shape), dtype=dtype))
        into[-1][0] = state

    def after(layer: int) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            into[-1][layer] = state_of(output)

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
