"""The operator over the dims of a dataset: kappa_G, kappa_D, kappa_sync and the GD ratio."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..errors import DynstatError
from ..registry import METRICS
from . import operator as _operator
from .labelled_ct import chosen_tokens
from .labels import label
from .selection import DIMS, RUN, at_layer, layer_positions, need


def kappa(ds: xr.Dataset, *, G: str = "one_minus_normalised_entropy", D: str = "ratio") -> xr.Dataset:
    """Compute the operator's poles, and its synchronisation where that was stored.

    Parameters
    ----------
    ds : xarray.Dataset
        With entropy (or concentration, sum_squares), top1_probability and top2_probability, and coordinate
        vocabulary.
    G : {"one_minus_normalised_entropy", "top_k", "sum_squares"}
    D : {"ratio", "damped", "margin"}

    Returns
    -------
    xarray.Dataset
        kappa_G and kappa_D of every point, kappa_sync of every token.

    Raises
    ------
    DynstatError
        D103 where a variable is missing, S404 for an unknown kind.
    """
    source = {"top_k": "concentration", "sum_squares": "sum_squares"}.get(G, "entropy")
    need(ds, source, "top1_probability", "top2_probability")
    v = None
    if source == "entropy":
        need(ds, "vocabulary")
        v = ds["vocabulary"].values.reshape(-1, 1, 1, 1, 1)
    g = _operator.kappa_G(ds[source].transpose(*DIMS).values, v, kind=G)
    p1, p2 = (ds[n].transpose(*DIMS).values for n in ("top1_probability", "top2_probability"))
    d = _operator.kappa_D(p1, p2, kind=D)
    out = {
        "kappa_G": label(ds, g, DIMS, METRICS.get("kappa_G"), {"kind": G}),
        "kappa_D": label(ds, d, DIMS, METRICS.get("kappa_D"), {"kind": D}),
    }
    if "synchronisation" in ds:
        sync = _operator.kappa_sync(ds["synchronisation"].transpose(*DIMS).values)
        out["kappa_sync"] = label(ds, sync, DIMS[:4], METRICS.get("kappa_sync"), {})
    return xr.Dataset(out)


def gd_ratio(
    ds: xr.Dataset,
    *,
    by: str = "model",
    layer: str | int | float = "all",
    G: str = "one_minus_normalised_entropy",
    D: str = "ratio",
    aggregate: str = "ratio",
    phase: str = "generated",
    special: str = "drop",
    first: str = "drop",
    tokens: str | int = "all",
) -> xr.DataArray:
    """Compute the GD ratio of every model, or of every run.

    Parameters
    ----------
    ds : xarray.Dataset
    by : {"model", "run"}
        Over all points of a model (published) or of a run.
    layer : "all", "last", int or float
    G, D, aggregate
        See :func:`dynstat.metrics.operator.gd_ratio`.
    phase, special, first, tokens
        Which tokens, see :func:`run_metric`.

    Returns
    -------
    xarray.DataArray, dims (model) or (model, prompt, sample)

    Raises
    ------
    DynstatError
        D103 where a variable is missing, S404 for an unknown choice.
    """
    if by not in ("model", "run"):
        raise DynstatError("S404", f"unknown unit {by!r}", found=by, expected="model | run")
    poles = kappa(ds, G=G, D=D)
    options = {"phase": phase, "special": special, "first": first, "tokens": tokens}
    if layer == "all":
        g, d = poles["kappa_G"].values, poles["kappa_D"].values
        mask = chosen_tokens(ds, options, None, np.isfinite(g).any(axis=-1))[..., None]
        axes: tuple[int, ...] = (-1, -2)
    else:
        positions = layer_positions(ds, layer)
        g, d = (at_layer(poles[k], positions).values for k in ("kappa_G", "kappa_D"))
        mask = chosen_tokens(ds, options, positions, np.isfinite(g))
        axes = (-1,)
    axis = axes if by == "run" else tuple(range(1, g.ndim))
    values = _operator.gd_ratio(g, d, np.broadcast_to(mask, g.shape), axis=axis, aggregate=aggregate)
    all_options = {**options, "layer": layer, "G": G, "D": D, "aggregate": aggregate}
    return label(ds, values, RUN if by == "run" else RUN[:1], METRICS.get("gd_ratio"), all_options)
