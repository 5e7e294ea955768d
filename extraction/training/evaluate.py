"""Losses on held-out text: of a stored model, of a unigram and of a smoothed bigram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from dynstat.errors import DynstatError

from .tokenizer import CONTEXT, END_OF_TEXT_ID, VOCABULARY

#: Discounts among which the bigram chooses.
DISCOUNTS = tuple(round(0.1 * k, 1) for k in range(1, 10))


def model_loss(model: PreTrainedModel, tokens: np.ndarray, context: int = CONTEXT, batch: int = 32) -> float:
    """Compute the mean loss of a model on a text, in windows as it was trained.

    Parameters
    ----------
    model : PreTrainedModel
        A causal model.
    tokens : ndarray of int, shape (n,)
        The text; a last window that is not full is left out.
    context : int, optional
        Tokens of a window, each predicted once; ``<|endoftext|>`` stands before the first.
    batch : int, optional
        Windows computed together.

    Returns
    -------
    float
        Nats a token, not negative; a token at place i of its window is predicted from the i before it.

    Raises
    ------
    DynstatError
        S404 where the text does not fill one window.
    """
    targets = _windows(tokens, context)
    rows = np.concatenate([np.full((len(targets), 1), END_OF_TEXT_ID), targets], axis=1).astype(np.int64)
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            part = torch.from_numpy(rows[start : start + batch])
            logits = model(input_ids=part[:, :-1], use_cache=False).logits
            total += cross_entropy(
                logits.flatten(0, 1).double(), part[:, 1:].flatten(), reduction="sum"
            ).item()
    return total / targets.size


def _windows(tokens: np.ndarray, context: int) -> np.ndarray:
    count = len(tokens) // context
    if count == 0:
        raise DynstatError(
            "S404",
            "a text is too short for a loss",
            found=f"{len(tokens)} tokens",
            expected=f"at least {context}, one window",
            mend="give more text or a shorter context",
        )
    return np.asarray(tokens[: count * context]).reshape(count, context)


@dataclass(frozen=True)
class Baselines:
    """Hold a unigram and a bigram with absolute discounting, interpolated with the unigram.

    Attributes
    ----------
    unigram : ndarray, shape (vocabulary,)
        ``(count + 1) / (tokens + vocabulary)``.
    bigram : ndarray, shape (vocabulary, vocabulary)
        ``max(c(v, w) - d, 0) / c(v) + d * kinds(v) / c(v) * unigram(w)``, row v the distribution after
        token v; the unigram after a token that was never seen. (Ney, Essen and Kneser 1994.)
    discount : float
        The discount d, chosen on the last twentieth of the training tokens with the rest counted.
    """

    unigram: np.ndarray
    bigram: np.ndarray
    discount: float

    def losses(self, tokens: np.ndarray, context: int = CONTEXT) -> tuple[float, float]:
        """Compute the mean losses of both on the tokens that :func:`model_loss` predicts.

        The bigram sees the true preceding token at the start of a window too, where the model sees
        ``<|endoftext|>``.

        Parameters
        ----------
        tokens : ndarray of int, shape (n,)
            The text.
        context : int, optional
            Tokens of a window.

        Returns
        -------
        unigram, bigram : float
            Nats a token.
        """
        targets = _windows(tokens, context).ravel()
        previous = np.concatenate([[END_OF_TEXT_ID], targets[:-1]])
        return (
            float(-np.log(self.unigram[targets]).mean()),
            float(-np.log(self.bigram[previous, targets]).mean()),
        )


def fit_baselines(tokens: np.ndarray, vocabulary: int = VOCABULARY) -> Baselines:
    """Count a unigram and a bigram on training tokens and choose the discount.

    Parameters
    ----------
    tokens : ndarray of int, shape (n,)
        Training tokens, at least 40.
    vocabulary : int, optional
        Number of token ids.

    Returns
    -------
    Baselines
        Fitted to all the tokens with the discount that was best on their last twentieth.
    """
    cut = len(tokens) * 19 // 20
    trial = {d: _baselines(tokens[:cut], d, vocabulary).losses(tokens[cut:], 1)[1] for d in DISCOUNTS}
    return _baselines(tokens, min(trial, key=trial.__getitem__), vocabulary)


def _baselines(tokens: np.ndarray, discount: float, vocabulary: int) -> Baselines:
    ids = np.asarray(tokens, dtype=np.int64)
    unigram = (np.bincount(ids, minlength=vocabulary) + 1.0) / (len(ids) + vocabulary)
    pairs = np.bincount(ids[:-1] * vocabulary + ids[1:], minlength=vocabulary**2).reshape(
        vocabulary, vocabulary
    )
    seen = pairs.sum(axis=1, keepdims=True)
    kinds = (pairs > 0).sum(axis=1, keepdims=True)
    safe = np.maximum(seen, 1)
    bigram = np.maximum(pairs - discount, 0) / safe + discount * kinds / safe * unigram
    return Baselines(unigram, np.where(seen > 0, bigram, unigram), discount)
