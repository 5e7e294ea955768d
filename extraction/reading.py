"""Read finished runs once more by teacher forcing: every state, the part that samples share held once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .capture import states
from .models import Loaded


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


def read_runs(model: Loaded, ids: Tensor, samples: int) -> Runs:
    """Read runs of equal length.

    Parameters
    ----------
    model : Loaded
        The model.
    ids : Tensor of int64, shape (row, token)
        By prompt, then sample.
    samples : int
        Rows of a prompt.

    Returns
    -------
    Runs
    """
    own = states(model.body, model.blocks, ids)
    lengths = torch.full((ids.shape[0],), ids.shape[1], dtype=torch.int64, device=ids.device)
    shared = own.new_empty((own.shape[0], ids.shape[0] // samples, 0, own.shape[-1]))
    return Runs(ids, lengths, samples, shared, own)
