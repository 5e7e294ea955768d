"""Torch kernels of the metrics of a next-token distribution; the NumPy definitions are in dynstat.metrics.

A kernel takes what its entry names as inputs, in that order: a :class:`Reading` for ``logits`` and for
metrics made of them, the reading of the layer above for ``next_logits``, of the last layer for
``final_logits``, and columns of the logits for ``next_token``.
"""

from __future__ import annotations

from torch import Tensor

from dynstat.registry import METRICS

from .distributions import Followed, Reading
from .truncated import TopReading

__all__ = ["Reading", "TopReading"]

Distribution = Reading | TopReading


def entropy(reading: Distribution) -> Tensor:
    """Return H in nat, shape (token,)."""
    return reading.entropy


def effective_vocabulary(reading: Distribution) -> Tensor:
    """Return exp(H), shape (token,)."""
    return reading.entropy.exp()


def top1_probability(reading: Distribution) -> Tensor:
    """Return the largest probability, shape (token,)."""
    return reading.leading(2)[:, 0].clamp(max=1.0)


def top2_probability(reading: Distribution) -> Tensor:
    """Return the second largest probability, shape (token,)."""
    return reading.leading(2)[:, 1].clamp(max=0.5)


def margin(reading: Distribution) -> Tensor:
    """Return the largest less the second largest probability, shape (token,)."""
    leading = reading.leading(2)
    return (leading[:, 0] - leading[:, 1]).clamp_(0.0, 1.0)


def concentration(reading: Distribution, k: int) -> Tensor:
    """Return the mass of the k most probable tokens, shape (token,)."""
    return reading.leading(k).sum(-1).clamp_(max=1.0)


def sum_squares(reading: Distribution) -> Tensor:
    """Return the sum of squared probabilities, shape (token,)."""
    return reading.sum_squares.clamp(max=1.0)


def dispersion(reading: Distribution, threshold: float) -> Tensor:
    """Return the number of tokens above a probability, shape (token,)."""
    return reading.count_above(threshold)


def synchronisation(reading: Distribution, following: Distribution | Followed, **_: object) -> Tensor:
    """Return 1 - JSD / ln 2 of two layers' distributions, shape (token,); other kinds take the definition."""
    return reading.synchronisation(following)  # type: ignore[arg-type]


def kl_to_final(reading: Reading, final: Reading) -> Tensor:
    """Return KL(layer || last layer) in nat, shape (token,)."""
    return reading.divergence_to(final)


def kl_from_final(reading: Reading, final: Reading) -> Tensor:
    """Return KL(last layer || layer) in nat, shape (token,)."""
    return final.divergence_to(reading)


def next_token_rank(reading: Reading, ids: Tensor) -> Tensor:
    """Return the rank of the token that follows, 1 for the most probable, shape (token,)."""
    return reading.rank(ids)


def next_token_log_probability(reading: Reading, ids: Tensor) -> Tensor:
    """Return the log-probability of the token that follows, shape (token,)."""
    return reading.log_probability(ids).clamp_(max=0.0)


for _kernel in (
    entropy,
    effective_vocabulary,
    top1_probability,
    top2_probability,
    margin,
    concentration,
    sum_squares,
    dispersion,
    synchronisation,
    kl_to_final,
    kl_from_final,
    next_token_rank,
    next_token_log_probability,
):
    METRICS.attach_kernel(_kernel.__name__, f"{__name__}:{_kernel.__name__}")
