"""The next-token distributions of some tokens at one layer: statistics in as few passes as they take.

Logits and probabilities are float32. Sums over the vocabulary are float64, of sums of 128 neighbours, and so
is what is made of them. Nothing is computed before it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .topk import Maxima

LN2 = math.log(2.0)
# Neighbours that are summed in float32, where torch adds pairwise.
_SUMMED = 128
# Added to probabilities that are compared: above the least number that float32 holds in full.
_LEAST = 1e-37


class Buffers:
    """Memory for passes over the vocabulary, used again and again: contents last until the next use."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, rows: int, like: Tensor) -> Tensor:
        """Return the buffer of a name with any contents, shape (rows, columns of `like`)."""
        held = self._held.get(name)
        if held is None or len(held) < rows or held.shape[1] != like.shape[1]:
            held = torch.empty((rows, like.shape[1]), dtype=like.dtype, device=like.device)
            self._held[name] = held
        return held[:rows]


@dataclass(frozen=True)
class Followed:
    """What is kept of a layer for the comparison with the layer below it.

    Attributes
    ----------
    finite : Tensor of bool, shape (token,)
        Whether all logits are finite.
    p : Tensor of float32, shape (token, vocabulary)
        Probabilities, none of them 0.
    entropy : Tensor of float64, shape (token,)
        nat.
    """

    finite: Tensor
    p: Tensor
    entropy: Tensor


class Reading:
    """The distributions of some tokens at one layer, shape (token, vocabulary).

    Parameters
    ----------
    logits : Tensor of float32, shape (token, vocabulary)
        Valid tokens only.
    buffers : Buffers, optional
        Where passes write. With it `logits` is overwritten, and what is computed must be read before
        another reading uses the same buffers.
    listed : int, optional
        How many of the most probable tokens will be asked for; more can be had, at the cost of a second look.
    """

    temperature = 1.0

    def __init__(self, logits: Tensor, buffers: Buffers | None = None, listed: int = 2) -> None:
        self._least_listed = listed
        self._maxima = Maxima(logits)
        self._buffers = buffers
        #: Whether all logits of a token are finite, shape (token,).
        self.finite = self._maxima.largest.isfinite() & logits.amin(-1).isfinite()
        largest = self._maxima.largest[:, None]
        #: Logits less their maximum, at temperature 1.
        self.base = logits.sub_(largest) if buffers is not None else logits - largest
        self._listed: tuple[Tensor, Tensor] | None = None

    def at(self, temperature: float) -> Reading:
        """Return the same logits divided by a temperature."""
        other = object.__new__(Reading)
        other._maxima, other._buffers, other._listed = self._maxima, self._buffers, None
        other._least_listed = self._least_listed
        other.finite, other.base, other.temperature = self.finite, self.base, temperature
        return other

    def _buffer(self, name: str) -> Tensor:
        if self._buffers is None:
            return torch.empty_like(self.base)
        return self._buffers.take(name, len(self.base), self.base)

    @cached_property
    def _mass(self) -> Tensor:
        """Probabilities up to a factor near 1: torch sums them in float32."""
        scaled = self.base
        if self.temperature != 1.0:
            scaled = torch.div(self.base, self.temperature, out=self._buffer("work"))
        return torch.softmax(scaled, -1, out=self._buffer("mass"))

    @cached_property
    def _total(self) -> Tensor:
        return _sum(self._mass)

    @cached_property
    def log_total(self) -> Tensor:
        """Log of the sum of exp(logit - maximum), float64, shape (token,)."""
        return (self._total / self._mass.gather(-1, self.top1_id[:, None])[:, 0].double()).log()

    @property
    def _inverse(self) -> Tensor:
        return self._total.reciprocal().to(self._mass.dtype)[:, None]

    @property
    def p(self) -> Tensor:
        """Probabilities, float32, shape (token, vocabulary)."""
        return self._mass * self._inverse

    def _mean(self, values: Tensor) -> Tensor:
        """Return the expectation of values, which are overwritten, float64."""
        return _sum(values.mul_(self._mass)) / self._total

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy in nat, float64, shape (token,)."""
        work = torch.mul(self._mass, self.base, out=self._buffer("work"))
        mean = _sum(work) / self._total / self.temperature
        return (self.log_total - mean).clamp_(min=0.0)

    @cached_property
    def top1_id(self) -> Tensor:
        """Index of the most probable token, the first of equals, shape (token,)."""
        return self._maxima.first(self.base)

    def leading_logits(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the k largest logits less the maximum, descending, and their tokens, shape (token, k)."""
        k = min(k, self.base.shape[-1])
        if self._listed is None or self._listed[0].shape[-1] < k:
            values, places = self._maxima.top(self.base, max(k, self._least_listed))
            self._listed = values.double() / self.temperature, places
        return self._listed[0][:, :k], self._listed[1][:, :k]

    def leading(self, k: int) -> Tensor:
        """Return the k largest probabilities, descending, float64, shape (token, k)."""
        return (self.leading_logits(k)[0] - self.log_total[:, None]).exp()

    @cached_property
    def sum_squares(self) -> Tensor:
        """Sum of squared probabilities, float64, shape (token,)."""
        work = torch.mul(self._mass, self._mass, out=self._buffer("work"))
        return _sum(work) / self._total.square()

    def count_above(self, threshold: float) -> Tensor:
        """Return the number of tokens above a probability, float64, shape (token,)."""
        least = (math.log(threshold) + self.log_total) * self.temperature
        return self._maxima.count(self.base, least.to(self.base.dtype))

    def log_probability(self, ids: Tensor) -> Tensor:
        """Return the log-probability of one token each, float64, shape (token,)."""
        return self.base.gather(-1, ids[:, None])[:, 0].double() / self.temperature - self.log_total

    def rank(self, ids: Tensor) -> Tensor:
        """Return 1 + the number of tokens more probable than one token each, float64, shape (token,)."""
        own = self.base.gather(-1, ids[:, None])
        # The comparison writes floats: counting booleans is several times as slow.
        return torch.gt(self.base, own, out=self._buffer("work")).sum(-1).double() + 1.0

    def divergence_to(self, other: Reading) -> Tensor:
        """Return KL(self || other) in nat, float64, shape (token,)."""
        difference = torch.sub(self.base, other.base, out=self._buffer("work"))
        mean = self._mean(difference) / self.temperature
        return (mean - self.log_total + other.log_total).clamp_(min=0.0)

    def synchronisation(self, following: Reading | Followed) -> Tensor:
        """Return 1 - JSD / ln 2 of two distributions, float64, shape (token,)."""
        if isinstance(following, Reading):
            following = following.followed(torch.empty_like(following.base))
        both = torch.addcmul(following.p, self._mass, self._inverse, out=self._buffer("work"))
        total = _sum(both)  # 2 but for rounding, which would else be counted ln p times
        logs = torch.log(both, out=self._buffer("logs"))
        mixed = total.log() - _sum(logs.mul_(both)) / total
        divergence = mixed - 0.5 * (self.entropy + following.entropy)
        return (1.0 - divergence / LN2).clamp_(0.0, 1.0)

    def followed(self, out: Tensor) -> Followed:
        """Return what the layer below is compared with, its probabilities written to `out`."""
        # No probability is 0 then, so that logarithms need no care; it adds nothing that float32 could see.
        least = torch.full((), _LEAST, dtype=out.dtype, device=out.device)
        return Followed(self.finite, torch.addcmul(least, self._mass, self._inverse, out=out), self.entropy)

    def keep(self, out: Tensor | None = None) -> None:
        """Let go of the buffers: from here on other readings may be compared with this one.

        Parameters
        ----------
        out : Tensor, shape (token, vocabulary), optional
            Where probabilities are kept, which only a divergence from this distribution takes.
        """
        _ = self.log_total  # from here on cached, with the sum it is made of
        mass = self.__dict__.pop("_mass")
        if out is not None:
            self.__dict__["_mass"] = out.copy_(mass)


def _sum(x: Tensor) -> Tensor:
    """Return sums over the last axis in float64; float32 rounds only within blocks."""
    whole = x.shape[-1] // _SUMMED * _SUMMED
    total = x[:, :whole].unflatten(-1, (-1, _SUMMED)).sum(-1).sum(-1, dtype=torch.float64)
    return total if whole == x.shape[-1] else total + x[:, whole:].sum(-1, dtype=torch.float64)
