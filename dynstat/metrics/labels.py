"""Label computed values with what defined them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
from numpy.typing import NDArray

from ..dataset.build import variable_attrs
from ..dataset.schema import Variable
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
    own_units = entry.units if units is None else units
    # The registry's range is that of its units; other readings of the same definition have others.
    low, high = (entry.valid_min, entry.valid_max) if own_units == entry.units else (entry.valid_min, None)
    as_stored = Variable(
        entry.name,
        dims,
        entry.dtype,
        entry.long_name,
        None,
        own_units,
        low,
        high,
        entry.flags,
        entry.undefined,
        origin=entry.origin,
        reference=entry.reference,
    )
    attrs = variable_attrs(as_stored) | {
        "definition": entry.id,
        "options": canonical_json(dict(options)).decode(),
    }
    return xr.DataArray(values, dims=dims, coords=coords, name=entry.name, attrs=attrs)
