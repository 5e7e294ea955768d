"""The k largest of many numbers, exactly: from the maxima of blocks of 64, faster than a selection."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

BLOCK = 64


class Maxima:
    """Maxima of blocks of the last axis, and what can be found from them.

    The k largest entries lie within the k blocks of largest maximum: an entry outside of them is no larger
    than the maximum of each of these blocks, so k others are at least its equal.

    Parameters
    ----------
    x : Tensor, shape (n, V)
        Any numbers. What is found is of the time of the call: `x` may change afterwards, by the same
        amount in a whole row.
    """

    def __init__(self, x: Tensor) -> None:
        self.size = x.shape[-1]
        self._blocks = -(-self.size // BLOCK)
        whole = self.size // BLOCK * BLOCK
        if whole < 2 * BLOCK:
            self.maxima = x
            self._blocks = 0
            return
        maxima = x[:, :whole].unflatten(-1, (-1, BLOCK)).amax(-1)
        if whole < self.size:
            maxima = torch.cat([maxima, x[:, whole:].amax(-1, keepdim=True)], -1)
        self.maxima = maxima

    @cached_property
    def largest(self) -> Tensor:
        """The largest entry of each row, NaN where one is NaN, shape (n,)."""
        return self.maxima.amax(-1)

    def first(self, x: Tensor) -> Tensor:
        """Return where each row is largest, the first place of equals, shape (n,)."""
        if not self._blocks:
            return x.argmax(-1)
        block = self.maxima.argmax(-1, keepdim=True)
        places = self._places(block)
        within = self._gather(x, places).argmax(-1, keepdim=True)
        return places.gather(-1, within)[:, 0].clamp_(max=self.size - 1)

    def top(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k largest entries, descending, and their places, each of shape (n, k).

        Equal entries stand in any order.
        """
        k = min(k, self.size)
        # Where most blocks would be looked at, looking at them costs more than a plain selection.
        if self._blocks < 4 * k:
            found = x.topk(k, dim=-1)
            return found.values, found.indices
        places = self._places(self.maxima.topk(k, dim=-1, sorted=False).indices)
        values, within = self._gather(x, places).topk(k, dim=-1)
        return values, places.gather(-1, within).clamp_(max=self.size - 1)

    def count(self, x: Tensor, least: Tensor) -> Tensor:
        """Return how many entries of each row of `x`, less the largest, lie above a number.

        Parameters
        ----------
        x : Tensor, shape (n, V)
            The numbers less the largest of their row.
        least : Tensor, shape (n,)
            One a row.

        Returns
        -------
        Tensor of float64, shape (n,)
        """
        if not self._blocks:
            return (x > least[:, None]).sum(-1).double()
        # Only blocks whose maximum lies above it can hold such an entry, and those are few.
        row, block = (self.maxima - self.largest[:, None] > least[:, None]).nonzero().unbind(-1)
        places = self._places(block[:, None])
        above = x[row[:, None], places.clamp(max=self.size - 1)] > least[row, None]
        if self.size % BLOCK:
            above &= places < self.size
        found = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        return found.index_add_(0, row, above.sum(-1).double())

    def _places(self, blocks: Tensor) -> Tensor:
        within = torch.arange(BLOCK, device=blocks.device)
        return (blocks[..., None] * BLOCK + within).flatten(-2)

    def _gather(self, x: Tensor, places: Tensor) -> Tensor:
        if self.size % BLOCK == 0:
            return x.gather(-1, places)
        outside = places >= self.size
        return x.gather(-1, places.clamp(max=self.size - 1)).masked_fill_(outside, -torch.inf)
