"""ct over the dims of a dataset, and the part of it that a run-level definition uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..registry import METRICS
from . import trajectory as _trajectory
from .labels import label
from .normalisation import normalise
from .selection import DIMS, WINDOWS, at_layer, equal_count, layer_positions, need, token_mask

_UNITS = {"rad": "rad", "deg": "degree"}


def ct(
    ds: xr.Dataset,
    alignment: str = "causal",
    *,
    step: str = "chord",
    curvature: str = "rad",
    eps: float = 1e-6,
) -> xr.DataArray:
    """Compute ct from the stored step lengths and turning angles.

    Parameters
    ----------
    ds : xarray.Dataset
        With step_length and turning_angle.
    alignment, step, curvature, eps
        See :func:`dynstat.metrics.trajectory.ct`.

    Returns
    -------
    xarray.DataArray, dims (model, prompt, sample, token, layer)

    Raises
    ------
    DynstatError
        D103 where a variable is missing, S404 for an unknown option.
    """
    need(ds, "step_length", "turning_angle")
    series = _trajectory.ct(
        ds["step_length"].transpose(*DIMS).values,
        ds["turning_angle"].transpose(*DIMS).values,
        alignment=alignment,
        eps=eps,
        step=step,
        curvature=curvature,
        axis=3,
    )
    options = {"alignment": alignment, "step": step, "curvature": curvature, "eps": eps}
    return label(ds, series, DIMS, METRICS.get("ct"), options, units=ct_units(options))


def ct_series(ds: xr.Dataset, options: Mapping[str, Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the normalised ct of every run at its layer, and the tokens used."""
    positions = layer_positions(ds, options["layer"])
    need(ds, "step_length", "turning_angle")
    chord, angle = (at_layer(ds[n], positions).values for n in ("step_length", "turning_angle"))
    names = ("alignment", "eps", "step", "curvature")
    values = _trajectory.ct(chord, angle, **{k: options[k] for k in names})
    mask = chosen_tokens(ds, options, positions, np.isfinite(values), WINDOWS[options["alignment"]])
    how = {k: options[k] for k in ("normalisation", "scope", "clip")}
    return normalise(values, mask, **how), mask


def chosen_tokens(
    ds: xr.Dataset,
    options: Mapping[str, Any],
    positions: NDArray[np.intp] | None,
    has_value: NDArray[np.bool_],
    window: tuple[int, int] = (0, 0),
) -> NDArray[np.bool_]:
    """Return the tokens that the options of a definition choose."""
    chosen = {k: options[k] for k in ("phase", "special", "first")}
    mask = token_mask(ds, positions=positions, window=window, **chosen)
    # Counted by values, since T in max / mean is a number of values.
    return mask if options["tokens"] == "all" else equal_count(mask & has_value, options["tokens"])


def ct_units(options: Mapping[str, Any]) -> str:
    """Return the units of ct under its options."""
    units = [
        u for u in (_UNITS.get(options["curvature"]), "rad" if options["step"] == "angle" else None) if u
    ]
    return " ".join(units) or "1"
