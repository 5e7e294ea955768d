"""Label computed values with what defined them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..files import canonical_json
from ..registry import Metric


def label(
    ds: xr.Dataset,
    values: NDArray[Any],
    dims: tuple[str, ...],
    entry: Metric,
    options: Mapping[str, Any],
    *,
    units: str | None = None,
) -> xr.DataArray:
    """Return an array with the coordinates of a dataset and the attributes of its definition."""
    coords = {c: ds[c] for c in ds.coords if set(ds[c].dims) <= set(dims)}
    attrs: dict[str, Any] = {
        "long_name": entry.long_name,
        "units": entry.units if units is None else units,
        "definition": entry.id,
        "origin": entry.origin,
        "reference": entry.reference,
        "options": canonical_json(dict(options)).decode(),
    }
    if entry.flags:
        attrs |= {
            "flag_values": np.arange(len(entry.flags), dtype=entry.dtype),
            "flag_meanings": " ".join(entry.flags),
        }
    return xr.DataArray(values, dims=dims, coords=coords, name=entry.name, attrs=attrs)
