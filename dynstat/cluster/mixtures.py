"""Gaussian mixtures: number of components and shape of their covariance by BIC, singular fits left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DynstatError
from ..inference.resample import Rng
from .centroids import drawn_seed
from .features import as_features
from .partition import Array, Labels, Partition, check_k, fewer_items, in_order

# sklearn's names; mclust's are VVV, EEE, VVI, VII.
COVARIANCES = ("full", "tied", "diag", "spherical")
_SINGULAR = 1e-5


def gaussian_mixture(
    data: Any,
    k: int | Sequence[int] | None = None,
    *,
    covariance: str | Sequence[str] = COVARIANCES,
    n_init: int = 5,
    rng: Rng = 0,
) -> Partition:
    """Cluster items by a mixture of normal distributions; k and the covariances' shape have the least BIC.

    BIC = −2 log-likelihood + (free parameters) log n; mclust's is the same with the sign turned.

    Parameters
    ----------
    data : DataFrame, Series, DataArray, array, Features or UnitFeatures
        See :func:`as_features`.
    k : int or sequence of int, optional
        Numbers of components to choose from. Default: 1 to 9, at most half the items.
    covariance : str or sequence of str
        full, tied, diag, spherical: shapes to choose from.
    n_init : int
        Starts of EM a model; the best that is not singular counts.
    rng : Generator or int
        The seed is recorded and serves :meth:`Partition.recluster` too; from a Generator one is drawn.

    Returns
    -------
    Partition
        `criterion` holds a row a model: k, covariance, bic, log_likelihood, parameters, status. A model is
        ``singular``, and not chosen, where a component holds too few items to have such a covariance or is
        10⁵ times narrower than all items in some direction: likelihood then has no bound. `probabilities` are
        posteriors of the own component.

    Raises
    ------
    DynstatError
        S404 for an argument outside its range; S405 for fewer items than components, or every model singular.
    """
    features = as_features(data)
    n, p = features.values.shape
    seed = drawn_seed(rng)
    shapes = (
        tuple(covariance) if np.iterable(covariance) and not isinstance(covariance, str) else (covariance,)
    )
    if not shapes or (bad := [s for s in shapes if s not in COVARIANCES]):
        raise DynstatError("S404", "unknown shape of covariance", found=bad, expected=" | ".join(COVARIANCES))
    if isinstance(n_init, bool) or not isinstance(n_init, (int, np.integer)) or n_init < 1:
        raise DynstatError("S404", "n_init is no number of starts", found=n_init, expected="from 1")
    if n < 3:
        raise fewer_items(n, 3, features.item, "a mixture")
    if k is None:
        k = range(1, max(1, min(9, n // 2)) + 1)
    numbers = [
        check_k(v, n, features.item) for v in (k if np.iterable(k) and not isinstance(k, str) else (k,))
    ]
    if not numbers:
        raise DynstatError("S404", "no number of components to choose from", found=k)
    rows, fits = [], []
    for number in numbers:
        for shape in shapes:
            model = _best(features.values, number, shape, int(n_init), seed)
            free = _parameters(number, p, shape)
            ok = model is not None
            loglik = float(model.score(features.values) * n) if ok else np.nan
            rows.append(
                {
                    "k": number,
                    "covariance": shape,
                    "bic": -2 * loglik + free * np.log(n),
                    "log_likelihood": loglik,
                    "parameters": free,
                    "status": ("ok" if model.converged_ else "not converged") if ok else "singular",
                }
            )
            fits.append(model)
    table = pd.DataFrame(rows)
    if table["bic"].isna().all():
        raise DynstatError(
            "S405",
            "every mixture is singular",
            found=f"{n} {features.item}s, {p} features",
            expected="more items than features in every component",
            mend="ask for fewer components, covariance='spherical', or fewer features",
        )
    at = int(np.nanargmin(table["bic"]))
    chosen = fits[at]
    posterior = chosen.predict_proba(features.values)
    parameters = {
        "k": int(table["k"][at]),
        "covariance": str(table["covariance"][at]),
        "n_init": int(n_init),
        "seed": seed,
    }
    return Partition(
        in_order(posterior.argmax(axis=1)),
        features.items,
        "gaussian_mixture",
        parameters,
        features.item,
        features,
        probabilities=posterior.max(axis=1),
        criterion=table,
        statistics={"bic": float(table["bic"][at]), "log_likelihood": float(table["log_likelihood"][at])},
        seed=seed,
    )


def clusterer(parameters: Mapping[str, Any], n_clusters: int) -> Callable[[Array], Labels]:
    """Return the function that :meth:`Partition.recluster` calls: k and shape stay as they were chosen.

    Where every start is singular, items go to the nearest of k means.
    """
    from . import centroids

    k = parameters["k"]
    nearest = centroids.clusterer(parameters, k)

    def run(values: Array) -> Labels:
        if len(values) < k:
            raise fewer_items(len(values), k)
        model = _best(values, k, parameters["covariance"], parameters["n_init"], parameters["seed"])
        return nearest(values) if model is None else in_order(model.predict(values))

    return run


def _best(values: Array, k: int, shape: str, n_init: int, seed: int) -> Any:
    """Return the likeliest fit of several starts that is not singular; None where all are."""
    from sklearn.mixture import GaussianMixture

    n, p = values.shape
    scale = float(values.var(axis=0).mean())
    if scale == 0 or _too_few(np.full(k, n / k), p, shape):
        return None
    best: Any = None
    spread = np.cov(values.T, bias=True).reshape(p, p)
    for start in range(n_init):
        model = GaussianMixture(
            k,
            covariance_type=shape,
            reg_covar=1e-10 * scale,
            tol=1e-8,
            max_iter=1000,
            random_state=np.random.RandomState([seed, start]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model.fit(values)
            except ValueError:
                continue
        if _singular(model, values, spread, shape) or (best and best.lower_bound_ >= model.lower_bound_):
            continue
        best = model
    return best


def _too_few(sizes: Array, p: int, shape: str) -> bool:
    if shape == "tied":
        return bool(sizes.sum() - sizes.size < p)
    need = p + 1 if shape == "full" else 2
    return bool((sizes < need - 1e-9).any())


def _singular(model: Any, values: Array, spread: Array, shape: str) -> bool:
    if _too_few(model.weights_ * len(values), values.shape[1], shape):
        return True
    covariances = model.covariances_
    if shape in ("diag", "spherical"):
        own = np.diag(spread) if shape == "diag" else np.diag(spread).mean()
        return bool((covariances < _SINGULAR * own).any())
    # Directions in which the items themselves are flat say nothing about a component.
    root, axes = np.linalg.eigh(spread)
    if root[0] <= 1e-12 * root[-1]:
        return True
    white = axes / np.sqrt(root)
    each = covariances if covariances.ndim == 3 else covariances[None]
    return bool((np.linalg.eigvalsh(white.T @ each @ white)[:, 0] < _SINGULAR).any())


def _parameters(k: int, p: int, shape: str) -> int:
    square = p * (p + 1) // 2
    return k - 1 + k * p + {"full": k * square, "tied": square, "diag": k * p, "spherical": k}[shape]
