"""Ways to change data a little and see whether clusters stay: boot, subset, noise, jitter, bojit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

#: Schemes in words.
SCHEMES: dict[str, str] = {
    "boot": "items drawn with replacement, each used once",
    "subset": "items drawn without replacement",
    "noise": "items replaced by noise",
    "jitter": "a little noise added to every item",
    "bojit": "items drawn with replacement, a little noise added",
}
#: Of R's ``fpc::clusterboot``: share of items replaced by noise and its half-range in standard deviations;
#: quantile of the gaps between neighbours that is the standard deviation of jitter.
NOISE_SHARE, NOISE_RANGE, JITTER_QUANTILE = 0.05, 4.0, 0.05


@dataclass(frozen=True)
class Draws:
    """What is clustered in every replicate.

    Attributes
    ----------
    items : ndarray of int, shape (B, m)
        The item at every position, −1 where noise took its place (clustered, not compared).
    values : ndarray, shape (B, m, p), or None
        The values at every position where they are not those of the items.
    once : bool
        An item drawn several times is used once.
    """

    items: Codes
    values: Array | None = None
    once: bool = False

    def present(self, n: int) -> NDArray[np.bool_]:
        """Return which items were drawn, shape (B, n)."""
        out = np.zeros((len(self.items), n), dtype=bool)
        out[np.arange(len(self.items))[:, None], self.items] = True
        return out


def draw(
    x: Array,
    scheme: str,
    replicates: int,
    generator: np.random.Generator,
    *,
    subset: int | None = None,
    multiple: bool = False,
) -> Draws:
    """Draw the replicates of a scheme, as ``fpc::clusterboot`` does.

    Parameters
    ----------
    x : ndarray, shape (n, p)
    scheme : str
        A key of :data:`SCHEMES`.
    replicates : int
    generator : Generator
    subset : int, optional
        Items in a subset. Default: n/2, rounded down.
    multiple : bool
        boot: keep items drawn several times as several items.
    """
    n, p = x.shape
    if scheme == "subset":
        m = n // 2 if subset is None else subset
        return Draws(np.argsort(generator.random((replicates, n)), axis=1)[:, :m])
    if scheme == "boot":
        return Draws(generator.integers(0, n, (replicates, n)), once=not multiple)
    everyone = np.broadcast_to(np.arange(n), (replicates, n))
    variances, axes = np.linalg.eigh(np.cov(x, rowvar=False).reshape(p, p))
    if scheme == "noise":
        half = NOISE_RANGE * np.sqrt(np.maximum(variances, 0.0))
        replaced = generator.random((replicates, n)) < NOISE_SHARE
        noise = generator.uniform(-1.0, 1.0, (replicates, n, p)) * half @ axes.T + x.mean(axis=0)
        return Draws(np.where(replaced, -1, everyone), np.where(replaced[:, :, None], noise, x))
    jitter = generator.standard_normal((replicates, n, p)) * jitter_sd(x @ axes) @ axes.T
    if scheme == "bojit":
        drawn = generator.integers(0, n, (replicates, n))
        return Draws(drawn, x[drawn] + jitter)
    return Draws(everyone, x + jitter)


def jitter_sd(scores: Array) -> Array:
    """Return the 5 % quantile of the gaps between neighbouring values, a column each; gaps of 0 left out."""
    gaps = np.diff(np.sort(scores, axis=0), axis=0)
    return np.array([np.quantile(g[g > 0], JITTER_QUANTILE) if (g > 0).any() else 0.0 for g in gaps.T])


def given(
    x: Array, scheme: str, indices: ArrayLike | None, perturbed: ArrayLike | None, multiple: bool
) -> Draws:
    """Check draws that were made elsewhere.

    Raises
    ------
    DynstatError
        S404 for indices that are no whole numbers, out of range or of a shape that does not fit.
    """
    n, p = x.shape
    values: Array | None = None
    if perturbed is not None:
        values = np.asarray(perturbed, dtype=np.float64)
        if values.ndim != 3 or values.shape[2] != p or not np.isfinite(values).all():
            raise _bad("perturbed data do not fit", values.shape, f"finite, (replicates, items, {p})")
        if indices is None and values.shape[1] != n:
            raise _bad("perturbed data without indices need every item", values.shape, f"(…, {n}, {p})")
    raw = (
        np.broadcast_to(np.arange(n), values.shape[:2]) if indices is None and values is not None else indices
    )
    items = np.asarray(raw)
    if items.ndim != 2 or items.dtype.kind not in "iu" or 0 in items.shape:
        raise _bad(
            "indices are no matrix of whole numbers",
            f"{items.dtype} of shape {items.shape}",
            "integers of shape (replicates, items drawn)",
        )
    if values is not None and values.shape[:2] != items.shape:
        raise _bad("indices and perturbed data differ in shape", items.shape, values.shape[:2])
    least = -1 if values is not None else 0
    if items.min() < least or items.max() >= n:
        raise _bad("indices out of range", f"{items.min()} to {items.max()}", f"{least} to {n - 1}")
    if values is None and scheme not in ("boot", "subset"):
        raise _bad(f"the scheme {scheme} changes values", "indices alone", "perturbed= as well")
    return Draws(items.astype(np.intp), values, once=values is None and not multiple)


def _bad(what: str, found: Any, expected: Any) -> DynstatError:
    return DynstatError("S404", what, where="indices", found=found, expected=expected)
