"""Shape of a next-token distribution, from logits or probabilities, summed in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Floats = NDArray[np.float64]
LN2 = float(np.log(2.0))


def log_softmax(logits: ArrayLike, *, valid: int | ArrayLike | None = None) -> Floats:
    """Return log-probabilities over the valid vocabulary.

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Any float type; computed in float64.
    valid : int or array_like of bool, shape (V,), optional
        The first so many entries, or those that are True; the others (padding rows) get probability 0.

    Returns
    -------
    ndarray, shape (..., V)
        nat, (-inf, 0]; -inf at masked entries. A row that holds NaN or +inf is NaN throughout.

    Raises
    ------
    DynstatError
        S404 where `valid` does not fit the vocabulary.
    """
    z = np.asarray(logits, dtype=np.float64)
    mask = valid_mask(valid, z.shape[-1])
    if mask is not None:
        z = np.where(mask, z, -np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = z - z.max(axis=-1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def probabilities(x: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None) -> Floats:
    """Return float64 probabilities that sum to 1 over the valid vocabulary.

    Parameters
    ----------
    x : array_like, shape (..., V)
    form : {"logits", "probabilities"}
        What `x` holds. Probabilities are masked and renormalised.
    valid : int or array_like of bool, optional

    Returns
    -------
    ndarray, shape (..., V)
        [0, 1].

    Raises
    ------
    DynstatError
        S404 for an unknown form, a negative probability, or `valid` that does not fit.

    Examples
    --------
    >>> probabilities([0.0, 0.0, 9.0], valid=2).tolist()
    [0.5, 0.5, 0.0]
    """
    if form == "logits":
        return np.exp(log_softmax(x, valid=valid))
    if form != "probabilities":
        raise DynstatError("S404", f"unknown form {form!r}", found=form, expected="logits | probabilities")
    p = np.asarray(x, dtype=np.float64)
    if np.any(p < 0):
        raise DynstatError(
            "S404",
            "probabilities must not be negative",
            found=float(np.nanmin(p)),
            mend="pass form='logits' for logits",
        )
    mask = valid_mask(valid, p.shape[-1])
    if mask is not None:
        p = np.where(mask, p, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return p / p.sum(axis=-1, keepdims=True)


def entropy(x: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None) -> Floats:
    """Return the Shannon entropy of every distribution.

    Parameters
    ----------
    x : array_like, shape (..., V)
    form : {"logits", "probabilities"}
    valid : int or array_like of bool, optional
        Entries of the vocabulary that exist.

    Returns
    -------
    ndarray, shape (...)
        nat, [0, ln V] with V the valid entries.

    Raises
    ------
    DynstatError
        S404, see :func:`probabilities`.

    Notes
    -----
    Formula: ``H = -sum p ln p`` with ``0 ln 0 = 0``. Source: Shannon 1948. V20 names entropy, no log base.

    Examples
    --------
    >>> round(float(entropy([0.5, 0.5], form="probabilities")), 6)
    0.693147
    """
    p = probabilities(x, form=form, valid=valid)
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(p > 0, p * np.log(p), np.where(np.isnan(p), np.nan, 0.0))
    return np.maximum(-terms.sum(axis=-1), 0.0)


def top1_probability(x: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None) -> Floats:
    """Return the probability of the most probable token.

    Shapes and errors as :func:`entropy`; dimensionless, [1/V, 1]. Formula: ``p_(1)``. Elementary.
    """
    return probabilities(x, form=form, valid=valid).max(axis=-1)


def top2_probability(x: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None) -> Floats:
    """Return the probability of the second most probable token.

    Shapes and errors as :func:`entropy`; dimensionless, [0, 1/2]. Formula: ``p_(2)``. A vocabulary of one
    valid token has no runner-up and gives 0.
    """
    p = probabilities(x, form=form, valid=valid)
    if p.shape[-1] < 2:
        return np.where(np.isnan(p[..., 0]), np.nan, 0.0)
    return np.minimum(np.partition(p, -2, axis=-1)[..., -2], 0.5)


def margin(x: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None) -> Floats:
    """Return the lead of the most probable token over the second.

    Shapes and errors as :func:`entropy`; dimensionless, [0, 1]. Formula: ``p_(1) - p_(2)``. Elementary.
    """
    leading = top1_probability(x, form=form, valid=valid)
    return np.maximum(leading - top2_probability(x, form=form, valid=valid), 0.0)


def concentration(
    x: ArrayLike, *, k: int = 10, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return the mass of the k most probable tokens.

    Parameters
    ----------
    x : array_like, shape (..., V)
    k : int
        At least 1; a k beyond the vocabulary gives 1.
    form, valid
        As for :func:`entropy`.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [k/V, 1].

    Raises
    ------
    DynstatError
        S404 for k below 1.

    Notes
    -----
    Formula: ``sum_{i<=k} p_(i)``. Origin dynstat: V20 names concentration on the top candidates without k.
    """
    if k < 1:
        raise DynstatError("S404", "k must be at least 1", found=k)
    p = probabilities(x, form=form, valid=valid)
    top = p if k >= p.shape[-1] else np.partition(p, -k, axis=-1)[..., -k:]
    return np.minimum(top.sum(axis=-1), 1.0)


def sum_squares(x: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None) -> Floats:
    """Return the sum of squared probabilities.

    Shapes and errors as :func:`entropy`; dimensionless, [1/V, 1]. Formula: ``sum p^2``. Source: Simpson 1949.
    Origin dynstat: a second reading of concentration.
    """
    p = probabilities(x, form=form, valid=valid)
    return np.minimum(np.einsum("...v,...v->...", p, p), 1.0)


def dispersion(
    x: ArrayLike, *, threshold: float = 0.01, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return how many tokens are more probable than a threshold.

    Parameters
    ----------
    x : array_like, shape (..., V)
    threshold : float
        In (0, 1); strictly above counts.
    form, valid
        As for :func:`entropy`.

    Returns
    -------
    ndarray, shape (...)
        Tokens, [0, 1/threshold): at most 99 at 1 %. NaN where the distribution is.

    Raises
    ------
    DynstatError
        S404 for a threshold outside (0, 1).

    Notes
    -----
    Formula: ``#{i : p_i > threshold}``. Not monotone in flatness: 1 for a one-hot, up to 99, and 0 for a flat
    distribution over more than 100 tokens. The 1 % threshold is published (V20); counting tokens rather than
    adding their mass is dynstat's reading.

    Examples
    --------
    >>> dispersion([[0.0] * 200, [50.0] + [0.0] * 199]).tolist()
    [0.0, 1.0]
    """
    if not 0 < threshold < 1:
        raise DynstatError("S404", "threshold must lie between 0 and 1", found=threshold)
    p = probabilities(x, form=form, valid=valid)
    # A probability equal to the threshold must not count for having been rounded up.
    above = (p > threshold * (1 + 1e-9)).sum(axis=-1)
    return np.where(np.isnan(p).any(axis=-1), np.nan, above.astype(np.float64))


def effective_vocabulary(entropy: ArrayLike) -> Floats:
    """Return the number of equally probable tokens that would have this entropy.

    Parameters
    ----------
    entropy : array_like
        nat, [0, ln V].

    Returns
    -------
    ndarray
        Tokens, [1, V].

    Notes
    -----
    Formula: ``exp(H)``. Source: Hill 1973 (order 1). Origin dynstat.
    """
    return np.exp(np.asarray(entropy, dtype=np.float64))


def jensen_shannon(
    x: ArrayLike, y: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return the Jensen-Shannon divergence of two distributions.

    Parameters
    ----------
    x, y : array_like, shape (..., V)
    form, valid
        As for :func:`entropy`.

    Returns
    -------
    ndarray, shape (...)
        nat, [0, ln 2]; symmetric, 0 for equal distributions.

    Raises
    ------
    DynstatError
        S404, see :func:`probabilities`.

    Notes
    -----
    Formula: ``sum p ln(p/m) / 2 + sum q ln(q/m) / 2`` with ``m = (p + q) / 2``, summed as divergences and not
    as a difference of entropies, which would cancel. Source: Lin 1991.
    """
    p = probabilities(x, form=form, valid=valid)
    q = probabilities(y, form=form, valid=valid)
    return np.clip((_to_mixture(p, q) + _to_mixture(q, p)) / 2, 0.0, LN2)


def synchronisation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    kind: str = "jsd",
    k: int = 10,
    form: str = "logits",
    valid: int | ArrayLike | None = None,
) -> Floats:
    """Return how far a layer's distribution agrees with that of the next layer.

    Parameters
    ----------
    x, y : array_like, shape (..., V)
        The distributions of layer l and layer l + 1.
    kind : {"jsd", "top_k", "rbo", "cosine"}
        ``1 - JSD / ln 2``; share of the top-k tokens in common; rank-biased overlap of the two top-k lists
        (persistence .9, cut at k, equal lists give 1); cosine of the probability vectors.
    k : int
        Depth of top_k and rbo.
    form, valid
        As for :func:`entropy`.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1].

    Raises
    ------
    DynstatError
        S404 for an unknown option.

    Notes
    -----
    Origin dynstat: the programme names inter-layer synchronisation and gives no formula. Sources: Lin 1991
    (JSD); Webber, Moffat & Zobel 2010 (RBO).
    """
    if kind == "jsd":
        return 1 - jensen_shannon(x, y, form=form, valid=valid) / LN2
    p = probabilities(x, form=form, valid=valid)
    q = probabilities(y, form=form, valid=valid)
    if kind == "cosine":
        norm = np.sqrt(np.einsum("...v,...v->...", p, p) * np.einsum("...v,...v->...", q, q))
        return np.clip(np.einsum("...v,...v->...", p, q) / norm, 0.0, 1.0)
    if k < 1:
        raise DynstatError("S404", "k must be at least 1", found=k)
    if kind not in ("top_k", "rbo"):
        raise DynstatError(
            "S404", f"unknown synchronisation {kind!r}", found=kind, expected="jsd | top_k | rbo | cosine"
        )
    k = min(k, p.shape[-1])
    # Stable sorting breaks ties by token id, so that equal distributions always give equal lists.
    a = np.argsort(-p, axis=-1, kind="stable")[..., :k]
    b = np.argsort(-q, axis=-1, kind="stable")[..., :k]
    depth = np.arange(1, k + 1)
    same = a[..., :, None] == b[..., None, :]
    overlap = np.stack([same[..., :d, :d].sum(axis=(-1, -2)) / d for d in depth], axis=-1)
    weight = 0.9 ** (depth - 1) if kind == "rbo" else (depth == k).astype(np.float64)
    out = (overlap * weight).sum(axis=-1) / weight.sum()
    return np.where(np.isnan(p).any(axis=-1) | np.isnan(q).any(axis=-1), np.nan, np.minimum(out, 1.0))


def _to_mixture(p: Floats, q: Floats) -> Floats:
    """Return the divergence of p from (p + q) / 2, whose halves could round to 0 where p is smallest."""
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(p > 0, p * (np.log(p / (p + q)) + LN2), np.where(np.isnan(p), np.nan, 0.0))
    return terms.sum(axis=-1)


def valid_mask(valid: int | ArrayLike | None, size: int) -> NDArray[np.bool_] | None:
    """Return which of `size` columns are tokens, None where all are; S404 where `valid` does not fit."""
    if valid is None:
        return None
    mask = np.asarray(valid)
    if mask.ndim == 0:
        if not 1 <= int(mask) <= size:
            raise DynstatError(
                "S404", "valid vocabulary does not fit the logits", found=int(mask), expected=f"1 to {size}"
            )
        return np.arange(size) < int(mask)
    if mask.dtype != np.bool_ or mask.shape != (size,):
        raise DynstatError(
            "S404",
            "the mask of valid tokens must be boolean, one entry a column",
            found=f"{mask.dtype} of shape {mask.shape}",
            expected=f"bool of shape ({size},)",
        )
    return mask
