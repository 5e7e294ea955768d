"""States, COLLAPSE and RIVALRY over the dims of a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..errors import DynstatError
from ..files import canonical_json
from ..registry import METRICS
from . import operator as _operator
from . import states as _states
from .episodes import collapse as _collapse
from .episodes import collapse_thresholds
from .episodes import rivalry as _rivalry
from .labelled_ct import ct
from .labels import label
from .selection import DIMS, WINDOWS, at_layer, layer_positions, need, token_mask
from .vocabulary import normalised_entropy


def learn_state_thresholds(
    ds: xr.Dataset,
    *,
    mode: str = "pooled",
    high: float = 0.75,
    low: float = 0.25,
    commitment: float = 0.5,
    alignment: str = "causal",
    phase: str = "generated",
) -> _states.Thresholds:
    """Learn the thresholds of the five states from a dataset of the pilot.

    Parameters
    ----------
    ds : xarray.Dataset
        Pilot prompts. All stored layers and all selected tokens of all models are pooled.
    mode, high, low, commitment
        See :func:`dynstat.metrics.states.learn_thresholds`.
    alignment : str
    phase : {"generated", "prompt", "all"}
        Special tokens, and values that use the first token, are left out.

    Returns
    -------
    Thresholds

    Raises
    ------
    DynstatError
        As :func:`dynstat.metrics.states.learn_thresholds`; D103 where a variable is missing.
    """
    turbulence, branching, _, sync = _state_inputs(ds, alignment)
    mask = token_mask(ds, phase=phase, window=WINDOWS[alignment])[..., None]
    return _states.learn_thresholds(
        turbulence,
        branching,
        sync,
        np.broadcast_to(mask, turbulence.shape),
        mode=mode,
        high=high,
        low=low,
        commitment=commitment,
        models=[str(m) for m in ds["model"].values],
    )


def states(
    ds: xr.Dataset,
    thresholds: _states.Thresholds | Mapping[str, Any],
    *,
    alignment: str = "causal",
) -> xr.DataArray:
    """Assign one of five states to every token and layer.

    Parameters
    ----------
    ds : xarray.Dataset
        With step_length, turning_angle, entropy, top1_probability, synchronisation, coordinate vocabulary.
    thresholds : Thresholds or mapping
        Learned on the pilot (:func:`learn_state_thresholds`) or stated.
    alignment : {"causal", "centred", "incoming", "outgoing"}

    Returns
    -------
    xarray.DataArray of int8, dims (model, prompt, sample, token, layer)
        -1 where an input has no value. Attributes: flag_meanings, published_names, thresholds as JSON.

    Raises
    ------
    DynstatError
        D103 where a variable is missing, S404 where a model has no threshold, or its last pair of layers is
        not in the dataset.
    """
    need(ds, "layers")
    stored = set(ds["layer"].values.tolist())
    ends = zip(ds["model"].values.tolist(), ds["layers"].values.tolist(), strict=True)
    if broken := [str(m) for m, n in ends if n > 1 and n - 1 in stored and n - 2 not in stored]:
        raise DynstatError(
            "S404",
            "the last layer takes the synchronisation of the last pair, whose lower layer is missing",
            where=", ".join(broken),
            found=f"layers {sorted(stored)}",
            mend="keep the last two layers, or leave the last one out too",
        )
    if not isinstance(thresholds, _states.Thresholds):
        thresholds = _states.Thresholds.from_dict(thresholds)
    turbulence, branching, p1, sync = _state_inputs(ds, alignment)
    ids = [str(m) for m in ds["model"].values]
    codes = _states.state(turbulence, branching, p1, sync, thresholds, models=ids)
    out = label(ds, codes, DIMS, METRICS.get("state"), {"alignment": alignment})
    out.attrs["published_names"] = " ".join(_states.PUBLISHED_STATES)
    out.attrs["thresholds"] = canonical_json(thresholds.as_dict()).decode()
    return out


def state_shares(ds: xr.Dataset, codes: xr.DataArray, *, phase: str = "generated") -> xr.DataArray:
    """Return the share of points that each model spends in each state.

    Parameters
    ----------
    ds : xarray.Dataset
        Where the states come from; says which tokens were generated, special, or first.
    codes : xarray.DataArray
        From :func:`states`.
    phase : {"generated", "prompt", "all"}

    Returns
    -------
    xarray.DataArray, dims (model, state)
        [0, 1], summing to 1 a model; NaN for a model without states.

    Raises
    ------
    DynstatError
        D103 where a variable is missing.
    """
    alignment = json.loads(codes.attrs.get("options", "{}")).get("alignment", "causal")
    mask = token_mask(ds, phase=phase, window=WINDOWS[alignment])[..., None] & (
        codes.transpose(*DIMS).values >= 0
    )
    hit = codes.transpose(*DIMS).values[..., None] == np.arange(len(_states.STATES))
    count = (hit & mask[..., None]).sum(axis=(1, 2, 3, 4))
    with np.errstate(invalid="ignore"):
        share = count / count.sum(axis=1, keepdims=True)
    return xr.DataArray(
        share,
        dims=("model", "state"),
        coords={"model": ds["model"], "state": list(_states.STATES)},
        name="state_share",
        attrs={"long_name": "share of points in a state", "units": "1"},
    )


def collapse(ds: xr.Dataset, *, enter: float, leave: float, phase: str = "generated") -> xr.DataArray:
    """Mark the tokens at which the final distribution is in COLLAPSE.

    Parameters
    ----------
    ds : xarray.Dataset
        With entropy and coordinate vocabulary.
    enter, leave : float
        On H / ln V, see :func:`dynstat.metrics.episodes.collapse`.
    phase : {"generated", "prompt", "all"}

    Returns
    -------
    xarray.DataArray of int8, dims (model, prompt, sample, token)

    Raises
    ------
    DynstatError
        D103 where a variable is missing, S404 for thresholds in the wrong order.
    """
    x, mask = _final_entropy(ds, phase)
    codes = _collapse(x, mask, enter=enter, leave=leave)
    return label(ds, codes, DIMS[:4], METRICS.get("collapse"), {"enter": enter, "leave": leave})


def learn_collapse_thresholds(
    ds: xr.Dataset, *, enter_quantile: float = 0.10, leave_quantile: float = 0.25, phase: str = "generated"
) -> tuple[float, float]:
    """Learn where COLLAPSE begins and ends from a dataset of the pilot.

    Parameters
    ----------
    ds : xarray.Dataset
        Pilot prompts; the last layer's selected tokens of all models are pooled.
    enter_quantile, leave_quantile : float
        See :func:`dynstat.metrics.episodes.collapse_thresholds`.
    phase : {"generated", "prompt", "all"}

    Returns
    -------
    tuple of float
        enter, leave: ``collapse(panel, enter=enter, leave=leave)``.

    Raises
    ------
    DynstatError
        As :func:`dynstat.metrics.episodes.collapse_thresholds`; D103 where a variable is missing.
    """
    x, mask = _final_entropy(ds, phase)
    return collapse_thresholds(x, mask, enter_quantile=enter_quantile, leave_quantile=leave_quantile)


def rivalry(
    ds: xr.Dataset, *, enter: float = 0.5, leave: float = 0.5, phase: str = "generated"
) -> xr.DataArray:
    """Mark the tokens at which leader and runner-up of the final distribution are close.

    Parameters
    ----------
    ds : xarray.Dataset
        With top1_probability and top2_probability.
    enter, leave : float
        On p_(2) / p_(1), see :func:`dynstat.metrics.episodes.rivalry`.
    phase : {"generated", "prompt", "all"}

    Returns
    -------
    xarray.DataArray of int8, dims (model, prompt, sample, token)

    Raises
    ------
    DynstatError
        D103 where a variable is missing, S404 for thresholds in the wrong order.
    """
    need(ds, "top1_probability", "top2_probability")
    positions = layer_positions(ds)
    p1, p2 = (at_layer(ds[n], positions).values for n in ("top1_probability", "top2_probability"))
    mask = token_mask(ds, positions=positions, phase=phase)
    codes = _rivalry(_operator.competition(p1, p2), mask, enter=enter, leave=leave)
    return label(ds, codes, DIMS[:4], METRICS.get("rivalry"), {"enter": enter, "leave": leave})


def _final_entropy(ds: xr.Dataset, phase: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return H / ln V of each model's last layer, and the tokens used."""
    need(ds, "entropy", "vocabulary")
    positions = layer_positions(ds)
    h = at_layer(ds["entropy"], positions).values
    x = normalised_entropy(h, ds["vocabulary"].values.reshape(-1, 1, 1, 1))
    return x, token_mask(ds, positions=positions, phase=phase)


def _state_inputs(ds: xr.Dataset, alignment: str) -> tuple[NDArray[Any], ...]:
    need(ds, "entropy", "top1_probability", "synchronisation", "vocabulary")
    v = ds["vocabulary"].values.reshape(-1, 1, 1, 1, 1)
    return (
        ct(ds, alignment).values,
        normalised_entropy(ds["entropy"].transpose(*DIMS).values, v),
        ds["top1_probability"].transpose(*DIMS).values,
        ds["synchronisation"].transpose(*DIMS).values,
    )
