"""A layer's distribution against the model's last word, and against the token that follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DynstatError
from .distribution import Floats, log_softmax, probabilities


def kullback_leibler(
    x: ArrayLike, y: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return the Kullback-Leibler divergence of one distribution from another.

    Parameters
    ----------
    x, y : array_like, shape (..., V)
        p and q.
    form : {"logits", "probabilities"}
        What they hold.
    valid : int or array_like of bool, optional
        Entries of the vocabulary that exist.

    Returns
    -------
    ndarray, shape (...)
        nat, [0, inf]; infinite where q has no mass on what p holds possible.

    Raises
    ------
    DynstatError
        S404, see :func:`dynstat.metrics.distribution.probabilities`.

    Notes
    -----
    Formula: ``KL(p || q) = sum p ln(p / q)`` with ``0 ln 0 = 0``. Source: Kullback & Leibler 1951.

    Examples
    --------
    >>> round(float(kullback_leibler([0.5, 0.5], [0.25, 0.75], form="probabilities")), 6)
    0.143841
    """
    p = probabilities(x, form=form, valid=valid)
    with np.errstate(invalid="ignore", divide="ignore"):
        if form == "logits":
            ratio = log_softmax(x, valid=valid) - log_softmax(y, valid=valid)
        else:
            ratio = np.log(p) - np.log(probabilities(y, form=form, valid=valid))
        terms = np.where(p == 0, 0.0, p * ratio)
    return np.maximum(terms.sum(axis=-1), 0.0)


def kl_to_final(
    x: ArrayLike, final: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return KL(layer || last layer) of every distribution.

    Shapes, range and errors as :func:`kullback_leibler`, p the layer and q the last layer; 0 at the last
    layer. Formula: ``sum p^l ln(p^l / p^L)``. Origin dynstat: both directions are in use, so each is named.
    """
    return kullback_leibler(x, final, form=form, valid=valid)


def kl_from_final(
    x: ArrayLike, final: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return KL(last layer || layer) of every distribution.

    Shapes, range and errors as :func:`kullback_leibler`, p the last layer and q the layer; 0 at the last
    layer. Formula: ``sum p^L ln(p^L / p^l)``. Source: Belrose et al. 2023, the loss of the tuned lens.
    """
    return kullback_leibler(final, x, form=form, valid=valid)


def next_token_rank(x: ArrayLike, ids: ArrayLike, *, valid: int | ArrayLike | None = None) -> Floats:
    """Return the rank of the token that follows.

    Parameters
    ----------
    x : array_like, shape (..., V)
        Logits or probabilities: any numbers that grow with the probability.
    ids : array_like of int, shape (...)
        The token that follows, as a column of `x`.
    valid : int or array_like of bool, optional
        Entries of the vocabulary that exist.

    Returns
    -------
    ndarray, shape (...)
        [1, V]; equal tokens share the best rank. NaN where an entry is.

    Raises
    ------
    DynstatError
        S404 where an id is no column, or `valid` does not fit.

    Notes
    -----
    Formula: ``1 + #{i : z_i > z_next}``. Origin dynstat; elementary.

    Examples
    --------
    >>> next_token_rank([[2.0, 5.0, 1.0]], [0]).tolist()
    [2.0]
    """
    z = log_softmax(x, valid=valid)
    own = _at(z, ids)
    return np.where(np.isnan(z).any(axis=-1), np.nan, 1.0 + (z > own[..., None]).sum(axis=-1))


def next_token_log_probability(
    x: ArrayLike, ids: ArrayLike, *, form: str = "logits", valid: int | ArrayLike | None = None
) -> Floats:
    """Return the log-probability of the token that follows.

    Parameters
    ----------
    x : array_like, shape (..., V)
    ids : array_like of int, shape (...)
        The token that follows, as a column of `x`.
    form : {"logits", "probabilities"}
    valid : int or array_like of bool, optional

    Returns
    -------
    ndarray, shape (...)
        nat, (-inf, 0].

    Raises
    ------
    DynstatError
        S404, see :func:`dynstat.metrics.distribution.probabilities`, and where an id is no column.

    Notes
    -----
    Formula: ``ln p_next``. Origin dynstat; elementary.
    """
    if form == "logits":
        return _at(log_softmax(x, valid=valid), ids)
    with np.errstate(divide="ignore"):
        return np.log(_at(probabilities(x, form=form, valid=valid), ids))


def _at(x: Floats, ids: ArrayLike) -> Floats:
    places = np.asarray(ids)
    if places.size and not (0 <= places.min() and places.max() < x.shape[-1]):
        raise DynstatError(
            "S404",
            "the ids of tokens must be columns of the logits",
            found=f"{places.min()} to {places.max()}",
            expected=f"0 to {x.shape[-1] - 1}",
        )
    return np.take_along_axis(x, places[..., None].astype(np.int64), axis=-1)[..., 0]
