"""Vocabulary control: padding rows, normalised entropy, a common top-K, random sub-vocabularies, bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from ..inference.resample import Rng, as_generator
from .distribution import probabilities, valid_mask

Floats = NDArray[np.float64]


def mask_padding(logits: ArrayLike, valid: int | ArrayLike) -> Floats:
    """Return logits with -inf at rows of the vocabulary that no token of the tokenizer uses.

    Parameters
    ----------
    logits : array_like, shape (..., V)
    valid : int or array_like of bool, shape (V,)
        The first so many entries, or those that are True.

    Returns
    -------
    ndarray, shape (..., V)

    Raises
    ------
    DynstatError
        S404 where `valid` does not fit.

    Examples
    --------
    >>> mask_padding([1.0, 2.0, 3.0], 2).tolist()
    [1.0, 2.0, -inf]
    """
    z = np.asarray(logits, dtype=np.float64)
    mask = valid_mask(valid, z.shape[-1])
    return z if mask is None else np.where(mask, z, -np.inf)


def normalised_entropy(entropy: ArrayLike, vocabulary: ArrayLike) -> Floats:
    """Return entropy over its maximum.

    Parameters
    ----------
    entropy : array_like, shape (...)
        nat.
    vocabulary : int or array_like, broadcastable
        Number of valid tokens, at least 2.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1].

    Raises
    ------
    DynstatError
        S404 for a vocabulary below 2, or an entropy beyond ln V, which no rounding explains: in other units
        than nat, or of another vocabulary.

    Notes
    -----
    Formula: ``H / ln V``. It still depends on V where the tail does; report ``exp(H)`` beside it. Origin
    dynstat.
    """
    v = np.asarray(vocabulary, dtype=np.float64)
    if np.any(v < 2):
        raise DynstatError("S404", "a vocabulary needs at least two valid tokens", found=float(np.min(v)))
    share = np.asarray(entropy, dtype=np.float64) / np.log(v)
    if np.any(share > 1 + 1e-3):
        raise DynstatError(
            "S404",
            "an entropy exceeds ln V",
            found=f"{np.nanmax(share):.4g} ln V",
            expected="nat, at most ln V",
            mend="divide bits by log2(e); check the number of valid tokens",
        )
    return np.clip(share, 0.0, 1.0)


def truncate_top_k(
    x: ArrayLike, k: int, *, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return the k largest probabilities of every distribution, renormalised and in descending order.

    Parameters
    ----------
    x : array_like, shape (..., V)
    k : int
        The same for all models that are compared; 1 to V.
    form : {"logits", "probabilities"}
    valid : int or array_like of bool, optional

    Returns
    -------
    ndarray, shape (..., k)
        Sums to 1; its entropy and Σp² no longer depend on the size of the vocabulary.

    Raises
    ------
    DynstatError
        S404 for a k outside 1 to V.
    """
    p = probabilities(x, form=form, valid=valid)
    if not 1 <= k <= p.shape[-1]:
        raise DynstatError("S404", "k does not fit the vocabulary", found=k, expected=f"1 to {p.shape[-1]}")
    top = -np.sort(-p, axis=-1)[..., :k]
    return top / top.sum(axis=-1, keepdims=True)


def subsample_vocabulary(
    x: ArrayLike,
    size: int,
    *,
    form: str = "logits",
    valid: int | ArrayLike | None = None,
    rng: Rng = None,
) -> tuple[Floats, NDArray[np.intp], int | None]:
    """Return the distributions over a random part of the valid vocabulary, renormalised.

    Parameters
    ----------
    x : array_like, shape (..., V)
    size : int
        Number of tokens kept, the same for all rows.
    form : {"logits", "probabilities"}
    valid : int or array_like of bool, optional
    rng : Generator or int, optional

    Returns
    -------
    probabilities : ndarray, shape (..., size)
        NaN in a row whose kept tokens all have probability 0.
    tokens : ndarray, shape (size,)
        Columns kept, ascending.
    seed : int or None

    Raises
    ------
    DynstatError
        S404 for a size beyond the valid vocabulary.
    """
    p = probabilities(x, form=form, valid=valid)
    v = np.asarray(p.shape[-1] if valid is None else valid)
    columns = np.arange(int(v)) if v.ndim == 0 else np.flatnonzero(v)
    if not 1 <= size <= columns.size:
        raise DynstatError(
            "S404", "size does not fit the vocabulary", found=size, expected=f"1 to {columns.size}"
        )
    generator, seed = as_generator(rng)
    kept = np.sort(generator.choice(columns, size=size, replace=False))
    part = p[..., kept]
    with np.errstate(invalid="ignore"):
        return part / part.sum(axis=-1, keepdims=True), kept, seed


def per_byte(total: ArrayLike, n_bytes: ArrayLike) -> Floats:
    """Return a sum over tokens as a rate per UTF-8 byte of their text.

    Parameters
    ----------
    total : array_like
        Sum over the tokens (not the mean).
    n_bytes : array_like
        Bytes of the same tokens' text.

    Returns
    -------
    ndarray
        Units of `total` per byte; NaN where there is no text. A rate that tokenizers of different grain
        share.
    """
    count = np.asarray(n_bytes, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.asarray(total, dtype=np.float64) / count, np.nan)
