"""Data without clusters that match given data: the nulls of structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Rng, as_generator
from .features import as_features

Array = NDArray[np.float64]

#: What each kind of structureless data holds fixed, in words.
KINDS: dict[str, str] = {
    "rotation": "one Gaussian with exactly the mean and covariance of the data (items rotated at random)",
    "gaussian": "one Gaussian with the mean and covariance fitted to the data",
    "column_permuted": "every feature permuted over items: same margins, features unrelated",
    "uniform": "uniform over the range of every feature",
    "uniform_pca": "uniform over the range of every principal axis",
}


def structureless(data: Any, kind: str = "rotation", *, count: int | None = None, rng: Rng = 0) -> Array:
    """Draw data without clusters, matched to given data.

    ``rotation``: X* = 1x̄ᵀ + Q(X − 1x̄ᵀ) with Q uniform over the rotations and reflections of the items' space
    that leave 1 in place. Mean and covariance are those of the data to the last digit. If the data are one
    Gaussian of any mean and any covariance, X* given both has the law of X given both, so a Monte-Carlo
    test of any statistic is exact at every n and p: nothing is fitted.

    ``gaussian``: rows from N(x̄, S), S with divisor n − 1; where n <= p, S is shrunk towards a multiple of the
    identity by the intensity of Ledoit and Wolf. Each draw has a covariance of its own, around the fitted
    one, which at small n is more elongated than that of the population: tests are conservative.

    ``column_permuted`` keeps every feature's values and breaks their relations, correlation included, so it
    finds "structure" in correlated data without clusters. ``uniform``, ``uniform_pca``: the box around the
    data, along features or along principal axes.

    Parameters
    ----------
    data : DataFrame, DataArray or array, shape (n, p)
        A row an item.
    kind : {"rotation", "gaussian", "column_permuted", "uniform", "uniform_pca"}
    count : int, optional
        Sets to draw. Default: one, without a leading axis.
    rng : Generator or int

    Returns
    -------
    ndarray, shape (n, p) or (count, n, p)

    Raises
    ------
    DynstatError
        S404 unknown kind; S405 values missing, features constant, or fewer than three items.

    Notes
    -----
    Sources: Langsrud 2005, Stat. Comput. 15: 53-60 (rotation); Ledoit and Wolf 2004, J. Multivar. Anal. 88:
    365-411; Tibshirani, Walther and Hastie 2001, J. R. Stat. Soc. B 63: 411-423 (uniform).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(8, 2))
    >>> null = structureless(x, "rotation", rng=1)
    >>> bool(np.allclose(np.cov(null.T), np.cov(x.T)))
    True
    """
    x = as_features(data).values
    check_kind(kind)
    if x.shape[0] < 3:
        raise DynstatError(
            "S405", "too few items for structureless data", found=x.shape[0], expected="at least 3"
        )
    generator, _ = as_generator(rng)
    out = structureless_many(x[None], kind, 1 if count is None else count, generator)[0]
    return out[0] if count is None else out


def check_kind(kind: str) -> None:
    """Raise S404 where `kind` is no kind of structureless data."""
    if kind not in KINDS:
        raise DynstatError(
            "S404", "unknown kind of structureless data", found=kind, expected=" | ".join(KINDS)
        )


def structureless_many(x: Array, kind: str, count: int, generator: np.random.Generator) -> Array:
    """Draw `count` structureless sets for each of many data sets.

    Parameters
    ----------
    x : ndarray, shape (M, n, p)
    kind : str
        A key of :data:`KINDS`.
    count : int
    generator : Generator

    Returns
    -------
    ndarray, shape (M, count, n, p)
    """
    m, n, p = x.shape
    shape = (m, count, n, p)
    if kind == "column_permuted":
        many = np.broadcast_to(x[:, None], shape)
        return np.asarray(generator.permuted(many, axis=2))
    if kind == "uniform":
        return _uniform(x, count, generator)
    mean = x.mean(axis=1, keepdims=True)
    centred = x - mean
    if kind == "gaussian":
        half = _root(centred)
        return np.asarray(mean[:, None] + generator.standard_normal(shape) @ half[:, None])
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    if kind == "uniform_pca":
        scores = centred @ np.swapaxes(vt, 1, 2)
        return np.asarray(mean[:, None] + _uniform(scores, count, generator) @ vt[:, None])
    # A uniform orthonormal frame across 1 takes the place of the left singular vectors. With n <= p one
    # singular value is 0 by centring; dropping it leaves at most the n − 1 dimensions there are.
    r = min(n - 1, p)
    z = generator.standard_normal((m, count, n, r))
    z -= z.mean(axis=2, keepdims=True)
    frame, upper = np.linalg.qr(z)
    # With the signs of R's diagonal the frame is uniform.
    frame *= np.sign(np.diagonal(upper, axis1=2, axis2=3))[:, :, None, :]
    return np.asarray(mean[:, None] + frame @ (s[:, :r, None] * vt[:, :r])[:, None])


def _uniform(x: Array, count: int, generator: np.random.Generator) -> Array:
    low, high = x.min(axis=1)[:, None, None], x.max(axis=1)[:, None, None]
    share = generator.random((x.shape[0], count, *x.shape[1:]))
    return np.asarray(low + (high - low) * share)


def _root(centred: Array) -> Array:
    """Return R with RᵀR the (shrunk) covariance, a set each, shape (M, p, p)."""
    _, n, p = centred.shape
    if n <= p:
        covariance = np.stack([shrunk_covariance(c) for c in centred])
    else:
        covariance = np.swapaxes(centred, 1, 2) @ centred / (n - 1)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(np.sqrt(np.maximum(values, 0.0))[:, :, None] * np.swapaxes(vectors, 1, 2))


def shrunk_covariance(centred: Array) -> Array:
    """Return the covariance shrunk towards its mean variance times the identity.

    (1 − δ)S + δ(tr S / p)I with δ = min(1, b² / d²), d² = ‖S − (tr S / p)I‖², b² = Σᵢ‖xᵢxᵢᵀ − S‖² / n², S
    with divisor n.

    Parameters
    ----------
    centred : ndarray, shape (n, p)
        Columns of mean 0.

    Notes
    -----
    Source: Ledoit and Wolf 2004, J. Multivar. Anal. 88: 365-411.
    """
    n, p = centred.shape
    s = centred.T @ centred / n
    target = np.trace(s) / p * np.eye(p)
    d2 = float(np.sum((s - target) ** 2))
    # Σᵢ‖xᵢxᵢᵀ − S‖² = Σᵢ‖xᵢ‖⁴ − n‖S‖².
    b2 = float(np.sum(np.sum(centred**2, axis=1) ** 2) - n * np.sum(s**2)) / n**2
    delta = min(1.0, b2 / d2) if d2 > 0 else 1.0
    return np.asarray((1 - delta) * s + delta * target)
