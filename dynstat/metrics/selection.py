"""Which layer and which tokens of a dataset a run-level definition uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..dataset.dims import check_dims
from ..dataset.schema import DIMS, RUN
from ..errors import DynstatError

__all__ = ["DIMS", "RUN", "WINDOWS", "at_layer", "equal_count", "layer_positions", "need", "token_mask"]
# Tokens before and after t whose states enter ct_t.
WINDOWS = {"causal": (2, 0), "centred": (1, 1), "incoming": (1, 1), "outgoing": (1, 1)}


def need(ds: xr.Dataset, *names: str) -> None:
    """Raise D104 where the dataset lost a dim, D103 where it lacks variables or coordinates."""
    check_dims(ds)
    if missing := [n for n in names if n not in ds.variables]:
        raise DynstatError(
            "D103",
            "the dataset lacks variables that the definition needs",
            where=", ".join(missing),
            found=", ".join(map(str, ds.data_vars)),
            expected=", ".join(names),
            mend="list the metrics in panel.yaml and extract again",
        )


def layer_positions(ds: xr.Dataset, layer: str | int | float = "last") -> NDArray[np.intp]:
    """Return the position on dim layer that each model uses.

    Parameters
    ----------
    ds : xarray.Dataset
    layer : "last", int or float
        Each model's own last layer; a layer number; or a relative depth in (0, 1), of which the nearest
        stored layer is taken (the shallower of two).

    Returns
    -------
    ndarray of int, shape (model,)
        -1 where a model has no such layer.

    Raises
    ------
    DynstatError
        S404 where no model has the layer, or the layer was not stored.
    """
    need(ds, "relative_depth", "layers")
    stored = ds["layer"].values
    depth = ds["relative_depth"].transpose("model", "layer").values
    exists = depth >= 0
    if isinstance(layer, str):
        if layer != "last":
            raise DynstatError("S404", f"unknown layer {layer!r}", found=layer, expected="last, int or float")
        hits = stored[None, :] == ds["layers"].values[:, None] - 1
        if not hits.any(axis=1).all():
            raise DynstatError(
                "S404",
                "the last layer of some models was not stored",
                where=", ".join(map(str, ds["model"].values[~hits.any(axis=1)])),
                found=f"layers {stored.tolist()}",
            )
    elif isinstance(layer, float):
        if not 0 < layer < 1:
            raise DynstatError("S404", "a relative depth lies between 0 and 1", found=layer)
        distance = np.where(exists, np.abs(depth - layer), np.inf).round(9)
        hits = (distance == distance.min(axis=1, keepdims=True)) & exists
    else:
        hits = exists & (stored == layer)[None, :]
    if not hits.any():
        raise DynstatError(
            "S404", f"no model has layer {layer}", found=layer, expected=f"one of {stored.tolist()}"
        )
    return np.where(hits.any(axis=1), hits.argmax(axis=1), -1).astype(np.intp)


def at_layer(variable: xr.DataArray, positions: Sequence[int] | NDArray[np.intp]) -> xr.DataArray:
    """Return a layer-level variable at one layer a model, without dim layer; fill where a model has none."""
    index = np.asarray(positions)
    out = variable.isel(
        model=xr.DataArray(np.arange(index.size), dims="model"),
        layer=xr.DataArray(np.maximum(index, 0), dims="model"),
    )
    out = out.drop_vars([c for c in ("layer", "relative_depth") if c in out.coords])
    out = out.transpose(*[d for d in DIMS if d in out.dims])
    if (index < 0).any():
        fill = np.nan if out.dtype.kind == "f" else -1
        out = out.where(xr.DataArray(index >= 0, dims="model"), fill)
    return out


def token_mask(
    ds: xr.Dataset,
    *,
    positions: NDArray[np.intp] | None = None,
    phase: str = "generated",
    special: str = "drop",
    first: str = "drop",
    window: tuple[int, int] = (0, 0),
) -> NDArray[np.bool_]:
    """Return which tokens a run-level definition uses.

    Parameters
    ----------
    ds : xarray.Dataset
    positions : ndarray of int, shape (model,), optional
        Layer whose quality counts; any layer by default.
    phase : {"generated", "prompt", "all"}
    special, first : {"drop", "keep"}
        `first` drops every token whose value uses the first token of the sequence.
    window : tuple of int
        How many tokens before and after a token enter its value.

    Returns
    -------
    ndarray of bool, shape (model, prompt, sample, token)

    Raises
    ------
    DynstatError
        D103 where the dataset lacks a variable, S404 for an unknown choice.
    """
    need(ds, "quality")
    quality = ds["quality"]
    if positions is None:
        ok = (quality == 0).any("layer").transpose(*DIMS[:4]).values
    else:
        ok = np.asarray(at_layer(quality, positions).values == 0)
    if phase not in ("generated", "prompt", "all") or {special, first} - {"drop", "keep"}:
        raise DynstatError("S404", "unknown selection of tokens", found=f"{phase}, {special}, {first}")
    keep = ok.copy()
    if phase != "all":
        need(ds, "phase")
        keep &= ds["phase"].transpose(*DIMS[:4]).values == (phase == "generated")
    if special == "drop":
        need(ds, "is_special")
        keep &= ds["is_special"].transpose(*DIMS[:4]).values != 1
    if first == "drop":
        need(ds, "is_first")
        is_first = ds["is_first"].transpose(*DIMS[:4]).values == 1
        size = is_first.shape[-1]
        for offset in range(-window[1], window[0] + 1):
            # The value at t uses the first token where that stands at t - offset.
            there = slice(max(offset, 0), size + min(offset, 0))
            here = slice(max(-offset, 0), size + min(-offset, 0))
            keep[..., there] &= ~is_first[..., here]
    return keep


def equal_count(mask: NDArray[np.bool_], tokens: str | int) -> NDArray[np.bool_]:
    """Return the first N tokens of each run's mask, none where the run has fewer; all of it for "all"."""
    if tokens == "all":
        return mask
    rank, n = np.cumsum(mask, axis=-1), int(tokens)
    return mask & (rank <= n) & (rank[..., -1:] >= n)
