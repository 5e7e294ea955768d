"""Read finished runs once more by teacher forcing: every state, the part that samples share held once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.capture import states
from ..models.loading import Loaded
from .cache import caching, expand, read_on
from .interventions import Changes, intervening


@dataclass(frozen=True)
class Runs:
    """The states of the runs of one batch.

    Rows are ordered by prompt, then sample. The first tokens of a prompt, which all its samples have in
    common, are held once; the last token of the prompt is not among them, since what follows it differs.

    Attributes
    ----------
    ids : Tensor of int64, shape (row, token)
        The tokens read.
    lengths : Tensor of int64, shape (row,)
        Tokens of each row; what lies beyond is padding.
    samples : int
        Rows of a prompt.
    shared : Tensor, shape (layer, prompt, common, width)
        States of the first tokens of each prompt; ``common`` may be 0.
    own : Tensor, shape (layer, row, token - common, width)
        States of the other tokens of each row.
    """

    ids: Tensor
    lengths: Tensor
    samples: int
    shared: Tensor
    own: Tensor

    @property
    def common(self) -> int:
        """Tokens of a prompt that are held once."""
        return self.shared.shape[2]

    @property
    def layers(self) -> int:
        """Number of states of a token."""
        return self.own.shape[0]

    def layer(self, layer: int) -> Tensor:
        """Return the states of one layer, shape (row, token, width)."""
        if self.common == 0:
            return self.own[layer]
        return torch.cat([self.shared[layer].repeat_interleave(self.samples, 0), self.own[layer]], 1)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the states of some rows at all layers, shape (layer, row, token, width)."""
        own = self.own[:, start:stop]
        if self.common == 0:
            return own
        prompt = torch.arange(start, start + own.shape[1], device=own.device) // self.samples
        return torch.cat([self.shared[:, prompt], own], 2)


def read_runs(
    model: Loaded,
    ids: Tensor,
    samples: int,
    n_prompt: int = 0,
    lengths: Tensor | None = None,
    *,
    padded: bool = False,
    changes: Changes | None = None,
) -> Runs:
    """Read runs, what the samples of a prompt have in common once.

    The tokens of a prompt but its last are read once and the model's cache is handed to the samples, where
    the model gives the same states so (see :func:`caching`) and nothing is done to them.

    Parameters
    ----------
    model : Loaded
        The model.
    ids : Tensor of int64, shape (row, token)
        By prompt, then sample.
    samples : int
        Rows of a prompt.
    n_prompt : int, optional
        Tokens that the rows of a prompt share; 0 where nothing is known of them.
    lengths : Tensor of int64, shape (row,), optional
        Tokens of each row that count; all by default.
    padded : bool, optional
        The rest of a row is padding: rows are read whole, with a mask.
    changes : Changes, optional
        What is done to the states meanwhile.

    Returns
    -------
    Runs
    """
    prompts, common = ids.shape[0] // samples, max(0, n_prompt - 1)
    if samples == 1 or padded or (changes is not None and changes.disturbs_prompt):
        common = 0
    if common and caching(model).reading != "shared":
        common = 0
    if lengths is None:
        lengths = torch.full((ids.shape[0],), ids.shape[1], dtype=torch.int64, device=ids.device)
    with intervening(model, changes) as place:
        if common:
            name = caching(model).name
            shared, cache = read_on(model, ids[::samples, :common], name)
            place.start = common
            own, _ = read_on(model, ids[:, common:], name, expand(cache, prompts, samples))
        else:
            # A mask of ones changes nothing, yet lets some models take another way.
            mask = _mask(lengths, ids.shape[1]) if padded else None
            own = states(model.body, model.blocks, ids, mask)
            shared = own.new_empty((own.shape[0], prompts, 0, own.shape[-1]))
    return Runs(ids, lengths, samples, shared, own)


def _mask(lengths: Tensor, n: int) -> Tensor:
    return (torch.arange(n, device=lengths.device) < lengths[:, None]).to(torch.int64)
