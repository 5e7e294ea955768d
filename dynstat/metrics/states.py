"""The five states of a token and layer, by thresholds that the pilot sets once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .normalisation import masked
from .run_entries import PUBLISHED_STATES, STATES

Floats = NDArray[np.float64]
MODES = ("fixed", "pooled", "per_model")


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the state rule, frozen once learned.

    Attributes
    ----------
    mode : {"fixed", "pooled", "per_model"}
        per_model fixes the shares of the pilot by construction and must never decide a claim.
    turbulence, branching, synchronisation : tuple of float
        One value, or one a model: ct above, H/ln V above, synchronisation below.
    commitment : float
        Least p_(1) of COMMITTED.
    models : tuple of str
        Their ids in order, for per_model.
    high, low : float or None
        The quantiles learned; None for fixed.
    """

    mode: str
    turbulence: tuple[float, ...]
    branching: tuple[float, ...]
    synchronisation: tuple[float, ...]
    commitment: float = 0.5
    models: tuple[str, ...] = ()
    high: float | None = None
    low: float | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.turbulence), len(self.branching), len(self.synchronisation)}
        wanted = len(self.models) if self.mode == "per_model" else 1
        if self.mode not in MODES or sizes != {wanted}:
            raise DynstatError(
                "S404",
                "thresholds do not fit their mode",
                found=f"{self.mode}, lengths {sizes}",
                expected=f"{' | '.join(MODES)}; {wanted} value(s) each",
            )

    @classmethod
    def fixed(
        cls, turbulence: float, branching: float, synchronisation: float, commitment: float = 0.5
    ) -> Thresholds:
        """Make thresholds from numbers stated in a plan."""
        return cls("fixed", (turbulence,), (branching,), (synchronisation,), commitment)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a plan or an attribute."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Thresholds:
        """Read what :meth:`as_dict` wrote."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def of(self, name: str, models: Sequence[str] | None, ndim: int) -> Floats:
        """Return one threshold shaped to broadcast over arrays whose first axis is the model.

        Raises
        ------
        DynstatError
            S404 where a model has no threshold.
        """
        values = np.asarray(getattr(self, name), dtype=np.float64)
        if self.mode != "per_model":
            return values[0]
        wanted = self.models if models is None else tuple(models)
        if missing := [m for m in wanted if m not in self.models]:
            raise DynstatError(
                "S404",
                "no threshold was learned for some models",
                found=", ".join(missing),
                expected=", ".join(self.models),
                mend="use pooled thresholds",
            )
        rows = values[[self.models.index(m) for m in wanted]]
        return rows.reshape(-1, *[1] * (ndim - 1))


def learn_thresholds(
    ct: ArrayLike,
    branching: ArrayLike,
    synchronisation: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    mode: str = "pooled",
    high: float = 0.75,
    low: float = 0.25,
    commitment: float = 0.5,
    models: Sequence[str] | None = None,
) -> Thresholds:
    """Learn the thresholds of the state rule from pilot data.

    Parameters
    ----------
    ct, branching, synchronisation : array_like, shape (model, ..., token, layer)
        Turbulence, ``H / ln V``, and the layer's synchronisation with the next, of the pilot.
    mask : array_like of bool, optional
        Points to learn from.
    mode : {"pooled", "per_model"}
        One quantile over all points, or one a model (which fixes the shares by construction: never deciding).
    high, low : float
        Quantiles for turbulence and branching, and for synchronisation; vary them for the threshold sweep.
    commitment : float
    models : sequence of str
        Ids along the first axis; needed by per_model.

    Returns
    -------
    Thresholds

    Raises
    ------
    DynstatError
        S404 for an unknown mode or missing ids, S403 where no values are left.

    Notes
    -----
    Quantiles by linear interpolation (R's type 7). Origin dynstat: V20 speaks of a standard threshold rule
    and does not publish it.
    """
    if mode not in ("pooled", "per_model") or (mode == "per_model" and models is None):
        raise DynstatError(
            "S404", "thresholds are learned pooled, or per_model with the models' ids", found=mode
        )
    series = {
        "turbulence": (masked(ct, mask), high),
        "branching": (masked(branching, mask), high),
        "synchronisation": (masked(synchronisation, mask), low),
    }
    found: dict[str, Any] = {}
    for name, (values, q) in series.items():
        groups = [values.ravel()] if mode == "pooled" else [v.ravel() for v in values]
        kept = [g[np.isfinite(g)] for g in groups]
        if any(g.size == 0 for g in kept):
            raise DynstatError("S403", f"the pilot holds no values of {name}", where=name)
        found[name] = tuple(float(np.quantile(g, q)) for g in kept)
    ids = tuple(str(m) for m in models) if mode == "per_model" and models is not None else ()
    return Thresholds(mode, **found, commitment=commitment, models=ids, high=high, low=low)


def state(
    ct: ArrayLike,
    branching: ArrayLike,
    top1_probability: ArrayLike,
    synchronisation: ArrayLike,
    thresholds: Thresholds,
    *,
    models: Sequence[str] | None = None,
) -> NDArray[np.int8]:
    """Return the state of every token and layer.

    Parameters
    ----------
    ct, branching, top1_probability, synchronisation : array_like, shape (model, ..., token, layer)
        Layers last. A model's last layer has no synchronisation of its own and takes that of the last pair.
    thresholds : Thresholds
    models : sequence of str, optional
        Ids along the first axis, to look up per-model thresholds.

    Returns
    -------
    ndarray of int8, same shape
        Index in ``STATES``; -1 where an input has no value.

    Raises
    ------
    DynstatError
        S404 where a model has no threshold.

    Notes
    -----
    High is strictly above. STABLE: ct low, branching low; HIDDEN_TURBULENCE: high, low; SURFACE_BRANCHING:
    low, high; FULL_BIFURCATION: high, high; COMMITTED, tested before STABLE: low, low, ``p_(1) >=
    commitment`` and synchronisation below its threshold. Names after V20, whose letters
    (``PUBLISHED_STATES``) change their meaning in later papers; the rule is dynstat's.
    """
    turbulence, entropy, p1, sync = (
        np.asarray(a, dtype=np.float64) for a in (ct, branching, top1_probability, synchronisation)
    )
    sync = last_pair(sync)

    def limit(name: str) -> Floats:
        return thresholds.of(name, models, turbulence.ndim)

    with np.errstate(invalid="ignore"):
        moves, branches = turbulence > limit("turbulence"), entropy > limit("branching")
        committed = ~moves & ~branches & (p1 >= thresholds.commitment) & (sync < limit("synchronisation"))
    out = np.select(
        [committed, moves & branches, moves, branches],
        [
            STATES.index(s)
            for s in ("COMMITTED", "FULL_BIFURCATION", "HIDDEN_TURBULENCE", "SURFACE_BRANCHING")
        ],
        STATES.index("STABLE"),
    )
    known = np.isfinite(turbulence) & np.isfinite(entropy) & np.isfinite(p1) & np.isfinite(sync)
    return np.where(known, out, -1).astype(np.int8)


def last_pair(synchronisation: ArrayLike) -> Floats:
    """Return synchronisation with each model's last layer taking the value of the last pair.

    Parameters
    ----------
    synchronisation : array_like, shape (layer,) or (model, ..., layer)
        NaN at the last layer of a model and beyond it.

    Returns
    -------
    ndarray, same shape
        Filled is the one layer above the highest at which the model has any value; any other NaN, as beside
        a point that was not finite, stays.
    """
    s = np.array(synchronisation, dtype=np.float64)
    known = np.isfinite(s)
    place = np.arange(s.shape[-1])
    of_model = known.any(axis=tuple(range(1, s.ndim - 1)), keepdims=True)
    highest = np.where(of_model, place, -1).max(axis=-1, keepdims=True, initial=-1)
    last = (highest >= 0) & (place == highest + 1)
    return np.where(last & ~known, np.roll(s, 1, axis=-1), s)


__all__ = ["MODES", "PUBLISHED_STATES", "STATES", "Thresholds", "last_pair", "learn_thresholds", "state"]
