"""Tell users of xarray which dim their selection dropped."""

from __future__ import annotations

import xarray as xr

from ..errors import DynstatError
from .schema import DIMS


def check_dims(ds: xr.Dataset) -> None:
    """Raise D104 where a dataset lacks a dim of the schema.

    Parameters
    ----------
    ds : xarray.Dataset

    Raises
    ------
    DynstatError
        D104.
    """
    if lost := [d for d in DIMS if d not in ds.dims]:
        raise DynstatError(
            "D104",
            "the dataset lacks a dim of the schema",
            where=", ".join(lost),
            found=", ".join(map(str, ds.dims)),
            expected=", ".join(DIMS),
            mend="select with lists, as in ds.sel(model=['a']), so that dims are kept",
        )
