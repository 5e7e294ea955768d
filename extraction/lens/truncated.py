"""The k most probable tokens of a distribution as a distribution of their own."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .distributions import LN2, Reading


class TopReading:
    """A distribution renormalised on its k most probable tokens.

    Parameters
    ----------
    reading : Reading
        The whole distribution; what is needed of it is read at once.
    k : int
        Tokens kept; equal ones at the end of the list are kept in any order.
    """

    def __init__(self, reading: Reading, k: int) -> None:
        logits, self.ids = reading.leading_logits(k)
        self.finite = reading.finite
        self.log_p = torch.log_softmax(logits, -1)

    @cached_property
    def p(self) -> Tensor:
        """Probabilities, descending, float64, shape (token, k)."""
        return self.log_p.exp()

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy in nat, shape (token,)."""
        return _plogp(self.p).sum(-1).neg().clamp_(min=0.0)

    @cached_property
    def sum_squares(self) -> Tensor:
        """Sum of squared probabilities, shape (token,)."""
        return self.p.square().sum(-1)

    def leading(self, k: int) -> Tensor:
        """Return the k largest probabilities, descending, shape (token, at most k)."""
        return self.p[:, :k]

    def count_above(self, threshold: float) -> Tensor:
        """Return the number of tokens above a probability, shape (token,)."""
        return (self.p > threshold).sum(-1).double()

    def synchronisation(self, following: TopReading) -> Tensor:
        """Return 1 - JSD / ln 2 on the union of the two lists, shape (token,)."""
        # Found in the sorted list: a table of each against each would take k times the memory.
        ids, order = following.ids.sort(-1)
        at = torch.searchsorted(ids, self.ids.contiguous()).clamp_(max=ids.shape[-1] - 1)
        same = ids.gather(-1, at) == self.ids
        there = order.gather(-1, at)
        q_here = following.p.gather(-1, there) * same
        # Every token stands once in a list, so that no two of the same write to one place.
        taken = torch.zeros_like(following.p).scatter_add_(-1, there, same.to(following.p.dtype))
        only_there = following.p * (1.0 - taken)
        mixed = _plogp((self.p + q_here) / 2).sum(-1) + _plogp(only_there / 2).sum(-1)
        divergence = -mixed - 0.5 * (self.entropy + following.entropy)
        return (1.0 - divergence / LN2).clamp_(0.0, 1.0)


def _plogp(p: Tensor) -> Tensor:
    return torch.special.xlogy(p, p)
