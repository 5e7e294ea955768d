"""Torch kernels of the metrics of a next-token distribution; the NumPy definitions are in dynstat.metrics.

Probabilities are float32, as the logits are; sums over the vocabulary are made in float64, of sums of 64
neighbours. Work that several metrics need is done once a block of tokens, by :class:`Reading`.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from dynstat.registry import METRICS


def _total(x: Tensor) -> Tensor:
    """Return sums over the last axis in float64; float32 rounds only within blocks of 64."""
    whole = x.shape[-1] // 64 * 64
    blocks = x[:, :whole].unflatten(-1, (-1, 64)).sum(-1)
    return blocks.sum(-1, dtype=torch.float64) + x[:, whole:].sum(-1, dtype=torch.float64)


class Reading:
    """The distributions of one block of tokens at one layer.

    Parameters
    ----------
    logits : Tensor of float32, shape (token, vocabulary)
        Valid tokens only.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @cached_property
    def finite(self) -> Tensor:
        """Whether all logits of a token are finite, shape (token,)."""
        # Both extremes carry NaN along; cheaper than a test of every entry.
        return self.logits.amax(-1).isfinite() & self.logits.amin(-1).isfinite()

    @cached_property
    def _top(self) -> torch.return_types.max:
        return self.logits.max(-1)

    @cached_property
    def shifted(self) -> Tensor:
        """Logits less their maximum."""
        return self.logits - self._top.values[:, None]

    @cached_property
    def log_total(self) -> Tensor:
        """Log of the sum of exp(shifted), float64, shape (token,)."""
        return _total(self._mass).log()

    @cached_property
    def _mass(self) -> Tensor:
        return self.shifted.exp()

    @cached_property
    def p(self) -> Tensor:
        """Probabilities, float32, shape (token, vocabulary)."""
        return self._mass * torch.exp(-self.log_total).to(self._mass.dtype)[:, None]

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy in nat, float64, shape (token,)."""
        return (self.log_total - _total(self.p * self.shifted)).clamp_(min=0.0)

    @cached_property
    def top1_id(self) -> Tensor:
        """Index of the most probable token, the first of equals, shape (token,)."""
        return self._top.indices

    def leading(self, k: int) -> Tensor:
        """The k largest probabilities, descending, float64, shape (token, k)."""
        k = min(k, self.p.shape[-1])
        if self._leading is None or self._leading.shape[-1] < k:
            self._leading = self.p.topk(k, dim=-1).values.double()
        return self._leading[:, :k]

    _leading: Tensor | None = None

    def log_probability(self, ids: Tensor) -> Tensor:
        """Log-probability of one token each, float64, shape (token,)."""
        return self.shifted.gather(-1, ids[:, None])[:, 0].double() - self.log_total


def entropy(reading: Reading) -> Tensor:
    """Return H in nat, shape (token,)."""
    return reading.entropy


def top1_probability(reading: Reading) -> Tensor:
    """Return the largest probability, shape (token,)."""
    return reading.leading(2)[:, 0].clamp(max=1.0)


def top2_probability(reading: Reading) -> Tensor:
    """Return the second largest probability, shape (token,)."""
    return reading.leading(2)[:, 1].clamp(max=0.5)


def concentration(reading: Reading, k: int) -> Tensor:
    """Return the mass of the k most probable tokens, shape (token,)."""
    return reading.leading(k).sum(-1).clamp_(max=1.0)


def sum_squares(reading: Reading) -> Tensor:
    """Return the sum of squared probabilities, shape (token,)."""
    return _total(reading.p.square()).clamp_(max=1.0)


def dispersion(reading: Reading, threshold: float) -> Tensor:
    """Return the number of tokens above a probability, shape (token,)."""
    # Counted in float32, which is exact far beyond 1 / threshold and several times as fast as in int64.
    return (reading.p > threshold).to(torch.float32).sum(-1).double()


def synchronisation(reading: Reading, following: Reading, **_: object) -> Tensor:
    """Return 1 - JSD / ln 2 of two layers' distributions, shape (token,); other kinds take the definition."""
    middle = (reading.p + following.p).mul_(0.5)
    # 0 ln 0 is 0: the bound keeps it from being 0 times infinity, and is twice as fast as torch's entr.
    mixed = -_total(middle.log().clamp_(min=-1e4).mul_(middle))
    divergence = mixed - 0.5 * (reading.entropy + following.entropy)
    return (1.0 - divergence / math.log(2.0)).clamp_(0.0, 1.0)


for _kernel in (
    entropy,
    top1_probability,
    top2_probability,
    concentration,
    sum_squares,
    dispersion,
    synchronisation,
):
    METRICS.attach_kernel(_kernel.__name__, f"{__name__}:{_kernel.__name__}")
