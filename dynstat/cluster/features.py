"""What is clustered: items in rows, features in columns, with their names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning

if TYPE_CHECKING:
    import xarray as xr

    from .unit_features import UnitFeatures

Array = NDArray[np.float64]
_LARGEST = 1e150  # squares of larger numbers overflow


@dataclass(frozen=True, eq=False)
class Features:
    """A matrix of items by features. Made by :func:`as_features`; frozen.

    Attributes
    ----------
    values : ndarray, shape (items, features)
        Finite.
    items, names : tuple of str
        Labels of rows and columns.
    item : str
        What an item is, e.g. ``"model"``.
    """

    values: Array
    items: tuple[str, ...]
    names: tuple[str, ...]
    item: str = "item"

    def __len__(self) -> int:
        return len(self.items)

    def frame(self) -> pd.DataFrame:
        """Return the matrix with its labels."""
        return pd.DataFrame(self.values, pd.Index(self.items, name=self.item), list(self.names))


def as_features(
    data: Features | UnitFeatures | pd.DataFrame | pd.Series | xr.DataArray | Any,
    *,
    item: str | None = None,
    standardize: bool = False,
) -> Features:
    """Return labelled data as a matrix of items by features, checked.

    Parameters
    ----------
    data : DataFrame, Series, DataArray, array, Features or UnitFeatures
        Rows (the index, the first dim) are items. One dim is one feature. Arrays have items "1", "2", ...
    item : str, optional
        What an item is. Default: the name of the index or dim, or "item".
    standardize : bool
        Take every feature to mean 0 and standard deviation 1 over the items (n − 1, as R's ``scale``); a
        constant feature becomes 0.

    Warns
    -----
    DynstatWarning
        A feature is the same for every item. It is kept: it moves no distance that differences make.

    Raises
    ------
    DynstatError
        S404 for a text column or more than two dims; S405 for values that are missing or infinite (item and
        feature are named) or beyond 1e150, no item, or nothing that varies; S407 for items with one label.
    """
    found = _labelled(data, item)
    _check(found)
    if not standardize:
        return found
    return Features(standardized(found.values), found.items, found.names, found.item)


def standardized(values: Array) -> Array:
    """Return features with mean 0 and standard deviation 1 over items, the last axis but one.

    Constant features become 0. Shape (..., items, features).
    """
    centred = values - values.mean(axis=-2, keepdims=True)
    if values.shape[-2] < 2:
        return centred
    sd = np.sqrt((centred * centred).sum(axis=-2, keepdims=True) / (values.shape[-2] - 1))
    # Rounding leaves a constant feature a spread of its last digit.
    tiny = 1e-13 * np.abs(values).max(axis=-2, keepdims=True)
    flat = sd <= tiny
    out = np.where(flat, 0.0, centred / np.where(flat, 1.0, sd))
    return np.asarray(out)


def _labelled(data: Any, item: str | None) -> Features:
    from .unit_features import UnitFeatures

    if isinstance(data, UnitFeatures):
        data = data.features()
    if isinstance(data, Features):
        return data if item is None else Features(data.values, data.items, data.names, item)
    if isinstance(data, pd.Series):
        data = data.to_frame(data.name if data.name is not None else "value")
    if isinstance(data, pd.DataFrame):
        _numeric(data)
        names = [" ".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in data.columns]
        kind = item or _name(data.index)
        return Features(
            data.to_numpy(dtype=np.float64, na_value=np.nan), _labels(data.index), tuple(names), kind
        )
    if hasattr(data, "dims") and hasattr(data, "coords"):
        array = data if data.ndim == 2 else data.expand_dims(feature=[str(data.name or "value")], axis=-1)
        if array.ndim != 2:
            raise _dims(data.ndim)
        rows, columns = (array.indexes.get(d) for d in array.dims)
        n, p = array.shape
        return Features(
            np.asarray(array.values, dtype=np.float64),
            _counted(n) if rows is None else _labels(rows),
            tuple(f"feature {i}" for i in _counted(p)) if columns is None else _labels(columns),
            item or str(array.dims[0]),
        )
    try:
        if np.iscomplexobj(data):
            raise TypeError("complex")
        # What is masked is missing.
        values = np.ma.filled(np.ma.asarray(data, dtype=np.float64), np.nan)
    except (TypeError, ValueError) as error:
        raise DynstatError(
            "S404",
            "the data are no matrix of numbers",
            found=type(data).__name__,
            expected="items × features",
        ) from error
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise _dims(values.ndim)
    n, p = values.shape
    return Features(values, _counted(n), tuple(f"feature {i}" for i in _counted(p)), item or "item")


def _numeric(frame: pd.DataFrame) -> None:
    text = [
        str(c)
        for c, t in zip(frame.columns, frame.dtypes, strict=True)
        if not pd.api.types.is_numeric_dtype(t) or pd.api.types.is_complex_dtype(t)
    ]
    if text:
        raise DynstatError(
            "S404",
            "some columns are no numbers",
            where=", ".join(text),
            expected="a numeric column a feature, the items in the index",
            mend="set_index() on the column that names the items, and drop the others",
        )


def _check(data: Features) -> None:
    n, p = data.values.shape
    if n == 0 or p == 0:
        raise DynstatError("S405", "there is nothing to cluster", found=f"{n} items, {p} features")
    if len(set(data.items)) < n:
        twice = sorted({i for i in data.items if data.items.count(i) > 1})
        raise DynstatError(
            "S407",
            f"several rows carry the label of one {data.item}",
            found=", ".join(twice),
            expected=f"one row a {data.item}",
            mend="average the rows of an item, or use UnitFeatures.from_frame(frame, item=, unit=)",
        )
    bad = np.argwhere(~np.isfinite(data.values))
    if bad.size:
        named = [f"{data.items[i]}: {data.names[j]} is {data.values[i, j]}" for i, j in bad[:8]]
        if len(bad) > 8:
            named.append(f"and {len(bad) - 8} more")
        raise DynstatError(
            "S405",
            "some values are missing or infinite",
            found=f"{len(bad)} of {n * p}",
            expected="a finite value for every item and feature",
            mend="drop those items or features",
            problems=named,
        )
    if (top := float(np.abs(data.values).max())) > _LARGEST:
        raise DynstatError(
            "S405",
            "some values are too large for their distances to be computed",
            found=f"{top:.3g}",
            expected=f"at most {_LARGEST:g}",
        )
    if n < 2:
        return
    spread = np.ptp(data.values, axis=0)
    flat = spread == 0
    if spread.max() < 1 / _LARGEST:
        raise DynstatError(
            "S405",
            "no feature varies",
            where=", ".join(data.names),
            found=f"the same values for all {n} items",
            expected="a feature that differs between items",
        )
    if flat.any():
        names = ", ".join(np.array(data.names, dtype=object)[flat])
        warnings.warn(f"the same value for every {data.item}, kept: {names}", DynstatWarning, stacklevel=4)


def _dims(ndim: int) -> DynstatError:
    return DynstatError(
        "S404", "the data have no two dims", found=f"{ndim} dims", expected="items × features"
    )


def _counted(n: int) -> tuple[str, ...]:
    return tuple(str(i + 1) for i in range(n))


def _labels(index: Sequence[Any] | pd.Index) -> tuple[str, ...]:
    return tuple(" ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in index)


def _name(index: pd.Index) -> str:
    names = [str(n) for n in index.names if n is not None]
    return " ".join(names) or "item"
