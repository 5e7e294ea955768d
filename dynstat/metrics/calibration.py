"""Temperature calibration: one temperature a model (or layer), so that logit scale no longer differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .distribution import entropy, log_softmax
from .vocabulary import normalised_entropy

Floats = NDArray[np.float64]
BOUNDS = (1e-3, 1e3)


def bisect_temperature(
    mean_entropy: Callable[[float], float],
    target: float,
    *,
    bounds: tuple[float, float] = BOUNDS,
    tolerance: float = 1e-6,
) -> float:
    """Find the temperature at which a mean entropy hits a target.

    Parameters
    ----------
    mean_entropy : callable
        Mean entropy of held-out predictions at a temperature; increasing. Passing a function lets logits be
        streamed rather than held.
    target : float
        In the units of `mean_entropy`.
    bounds : tuple of float
        Temperatures searched.
    tolerance : float
        Of the mean entropy.

    Returns
    -------
    float
        T > 0; logits are to be divided by it.

    Raises
    ------
    DynstatError
        S404 where the target cannot be reached within the bounds.

    Notes
    -----
    Bisection on ``ln T``: the mean entropy of ``softmax(z / T)`` increases with T, since its derivative is a
    variance of z over ``T^3``. Control asked for by a critical reader of V20. Origin dynstat.
    """
    low, high = (float(np.log(b)) for b in bounds)
    ends = mean_entropy(float(np.exp(low))), mean_entropy(float(np.exp(high)))
    if not ends[0] - tolerance <= target <= ends[1] + tolerance:
        raise DynstatError(
            "S404",
            "the target entropy cannot be reached",
            found=target,
            expected=f"{ends[0]:.6g} to {ends[1]:.6g} for T in {bounds}",
        )
    # 200 halvings exhaust float64, so the loop ends even where rounding keeps the tolerance out of reach.
    for _ in range(200):
        middle = (low + high) / 2
        value = mean_entropy(float(np.exp(middle)))
        if abs(value - target) <= tolerance or high - low < 1e-15:
            break
        low, high = (middle, high) if value < target else (low, middle)
    return float(np.exp(middle))


def entropy_temperature(
    logits: ArrayLike,
    target: float,
    *,
    kind: str = "entropy",
    valid: int | ArrayLike | None = None,
    bounds: tuple[float, float] = BOUNDS,
    tolerance: float = 1e-6,
) -> float:
    """Fit one temperature so that the mean entropy of held-out predictions hits a target.

    Parameters
    ----------
    logits : array_like, shape (..., V)
        Final logits on held-out text.
    target : float
        nat, or share of ln V for kind "normalised".
    kind : {"entropy", "normalised"}
    valid : int or array_like of bool, optional
    bounds, tolerance
        As for :func:`bisect_temperature`.

    Returns
    -------
    float

    Raises
    ------
    DynstatError
        S404 for an unknown kind or a target out of reach.
    """
    z = np.asarray(logits, dtype=np.float64)
    scale = 1.0
    if kind == "normalised":
        scale = float(np.log(_n_valid(z, valid)))
    elif kind != "entropy":
        raise DynstatError("S404", f"unknown kind {kind!r}", found=kind, expected="entropy | normalised")
    return bisect_temperature(
        lambda t: float(entropy(z / t, valid=valid).mean()) / scale,
        target,
        bounds=bounds,
        tolerance=tolerance,
    )


def layer_temperatures(
    logits: ArrayLike,
    target: float | Sequence[float],
    *,
    axis: int = 0,
    kind: str = "entropy",
    valid: int | ArrayLike | None = None,
) -> Floats:
    """Fit one temperature a layer.

    Parameters
    ----------
    logits : array_like, shape (layer, ..., V)
    target : float or sequence of float, one a layer
    axis : int
        The layer axis.
    kind, valid
        As for :func:`entropy_temperature`.

    Returns
    -------
    ndarray, shape (layer,)

    Raises
    ------
    DynstatError
        S404 as :func:`entropy_temperature`.
    """
    layers = np.moveaxis(np.asarray(logits), axis, 0)
    targets = np.broadcast_to(np.asarray(target, dtype=np.float64), len(layers))
    return np.array(
        [
            entropy_temperature(z, float(t), kind=kind, valid=valid)
            for z, t in zip(layers, targets, strict=True)
        ]
    )


def common_target(
    mean_entropies: ArrayLike, vocabularies: ArrayLike | None = None, *, kind: str = "entropy"
) -> float:
    """Return the entropy that all models are calibrated to.

    Parameters
    ----------
    mean_entropies : array_like, shape (model,)
        Of the uncalibrated models on the same held-out text, nat.
    vocabularies : array_like, shape (model,), optional
        Valid tokens; needed by kind "normalised", and keeps the target below every ln V.
    kind : {"entropy", "normalised"}

    Returns
    -------
    float
        The median over models, in nat or as a share of ln V.

    Raises
    ------
    DynstatError
        S404 for an unknown kind, missing vocabularies, or a median that a small vocabulary cannot reach.

    Notes
    -----
    The median moves as few models as possible far from their own scale. Origin dynstat.
    """
    h = np.asarray(mean_entropies, dtype=np.float64)
    if kind not in ("entropy", "normalised") or (kind == "normalised" and vocabularies is None):
        raise DynstatError("S404", "kind must be entropy, or normalised with vocabularies", found=kind)
    if kind == "normalised":
        return float(np.median(normalised_entropy(h, np.asarray(vocabularies))))
    target = float(np.median(h))
    if vocabularies is not None and target >= (ceiling := float(np.log(np.min(vocabularies)))):
        raise DynstatError(
            "S404",
            "the common entropy is beyond the smallest vocabulary",
            found=target,
            expected=f"below {ceiling:.4g}",
            mend="use kind='normalised'",
        )
    return target


def nll_temperature(
    logits: ArrayLike,
    tokens: ArrayLike,
    *,
    valid: int | ArrayLike | None = None,
    bounds: tuple[float, float] = BOUNDS,
) -> float:
    """Fit the temperature that makes held-out tokens most probable.

    Parameters
    ----------
    logits : array_like, shape (..., V)
    tokens : array_like of int, shape (...)
        The token that followed.
    valid : int or array_like of bool, optional
    bounds : tuple of float

    Returns
    -------
    float

    Raises
    ------
    DynstatError
        S404 where a token is not a valid entry, or the likelihood has no maximum within the bounds (every
        token the most probable one, or worse than chance).

    Notes
    -----
    The negative log-likelihood is convex in ``b = 1 / T``; its derivative ``E_p[z] - z_token`` is bisected.
    Source: Guo et al. 2017.
    """
    z = np.asarray(logits, dtype=np.float64)
    z = z.reshape(-1, z.shape[-1])
    y = np.asarray(tokens).ravel()
    fits = y.size == len(z) and y.min(initial=0) >= 0 and y.max(initial=0) < z.shape[-1]
    if not fits or not np.isfinite(log_softmax(z, valid=valid)[np.arange(len(z)), y]).all():
        raise DynstatError(
            "S404",
            "every row of logits needs one token of the valid vocabulary",
            found=f"{y.size} tokens, {len(z)} rows",
        )
    observed = z[np.arange(len(z)), y]

    def slope(b: float) -> float:
        p = np.exp(log_softmax(b * z, valid=valid))
        return float((np.where(p > 0, p * z, 0.0).sum(axis=-1) - observed).mean())

    low, high = (float(-np.log(t)) for t in bounds[::-1])
    if not slope(float(np.exp(low))) < 0 < slope(float(np.exp(high))):
        raise DynstatError(
            "S404",
            "the likelihood has no maximum within the bounds",
            expected=f"T in {bounds}",
            mend="use more held-out text",
        )
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def _n_valid(z: Floats, valid: int | ArrayLike | None) -> int:
    if valid is None:
        return z.shape[-1]
    mask = np.asarray(valid)
    return int(mask) if mask.ndim == 0 else int(mask.sum())
