"""States by hooks: the input of the first block and the output of every block, before the final norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dynstat.errors import DynstatError


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


def state_of(output: Any) -> Tensor:
    """Return the hidden state in a block's output, which is a tensor, a tuple or a list by version."""
    return output if isinstance(output, Tensor) else output[0]


def with_state(output: Any, state: Tensor) -> Any:
    """Return a block's output with another hidden state in it."""
    if isinstance(output, Tensor):
        return state
    return type(output)([state, *output[1:]])


@contextmanager
def _hooked(blocks: list[nn.Module], into: list[Tensor]) -> Iterator[None]:
    # Copied at once: a later step may write in place, and no layer is held twice.
    def first(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = args[0] if args else kwargs["hidden_states"]
        into.append(state.new_empty((len(blocks) + 1, *state.shape)))
        into[0][0] = state

    def after(layer: int) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            into[0][layer] = state_of(output)

        return keep

    handles = [blocks[0].register_forward_pre_hook(first, with_kwargs=True)]
    handles += [block.register_forward_hook(after(i + 1)) for i, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def states(body: nn.Module, blocks: list[nn.Module], ids: Tensor) -> Tensor:
    """Read token ids once and return every state.

    Parameters
    ----------
    body : Module
        The model without its head.
    blocks : list of Module
        Its layers.
    ids : Tensor of int64, shape (row, token)
        Without padding.

    Returns
    -------
    Tensor, shape (layer, row, token, width)
        Layer 0 is the input of the first block, the last is taken before the final norm.
    """
    out: list[Tensor] = []
    with torch.inference_mode(), _hooked(blocks, out):
        body(input_ids=ids, use_cache=False)
    return out[0]
