"""Turn a dataset into one array or a tidy frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DynstatError
from .build import run_present
from .dims import check_dims
from .measurements import from_frame
from .schema import (
    DIMS,
    LEVEL_DIMS,
    NO_SUCH_LAYER,
    NOT_EXTRACTED,
    OK,
    PADDING,
    PHASE,
    QUALITY,
    rank,
)
from .text import is_text

Level = Literal["run", "token", "layer"]
# Identity of the files, long texts: found in the dataset, of no use in each of a million rows.
_LEFT_OUT = (
    "revision", "weights_sha256", "tokenizer_sha256", "source", "attn_implementation", "dtype", "answers",
    "distractors", "prompt_text",
)  # fmt: skip
_FIRST = (
    "model", "family", "architecture", "parameters", "vocabulary", "layers", "prompt", "category", "template",
    "split", "sample", "seed", "temperature", "budget", "mode", "token", "layer", "relative_depth",
)  # fmt: skip
_FLAGGED = {"quality": QUALITY, "phase": PHASE}
__all__ = ["cube", "from_frame", "to_frame"]


def cube(ds: xr.Dataset, metrics: Sequence[str] | str | None = None) -> xr.DataArray:
    """Stack layer-level variables into one array.

    Parameters
    ----------
    ds : xarray.Dataset
    metrics : sequence of str, or str, optional
        Names of variables; by default every float variable of layer level.

    Returns
    -------
    xarray.DataArray
        model x prompt x sample x token x layer x metric, with `units` and `definition` of each `metric`.
        Units differ between metrics, so that sums over them mean nothing.

    Raises
    ------
    DynstatError
        D103 where a variable is missing, D104 where it has no layers or the dataset lost a dim.
    """
    ds = _in_order(ds)
    known = [n for n in sorted(map(str, ds.data_vars), key=rank) if ds[n].dims == DIMS]
    known = [n for n in known if ds[n].dtype.kind == "f"]
    names = [metrics] if isinstance(metrics, str) else list(known if metrics is None else metrics)
    for name in names:
        if name not in ds.data_vars:
            raise DynstatError("D103", f"the dataset has no variable {name!r}", where=name,
                               expected=", ".join(known) or "none of layer level")  # fmt: skip
        if ds[name].dims != DIMS:
            raise DynstatError("D104", f"{name} is not of layer level", where=name, found=ds[name].dims,
                               expected=DIMS)  # fmt: skip
    if not names:
        raise DynstatError(
            "D103", "the dataset has no float variable of layer level", expected="one at least"
        )
    # Metric last in memory too: a slice of one point is what distances between points read.
    values = np.stack([ds[n].values for n in names], axis=-1)
    coords: dict[Any, Any] = {n: c.variable for n, c in ds.coords.items() if n != "metric"}
    coords["metric"] = ("metric", np.array(names, object))
    for key in ("units", "definition"):
        coords[key] = ("metric", np.array([str(ds[n].attrs.get(key, "")) for n in names], object))
    return xr.DataArray(values, coords=coords, dims=(*DIMS, "metric"), name="cube")


def to_frame(ds: xr.Dataset, level: Level = "layer") -> pd.DataFrame:
    """Return a tidy frame: a row a run, a token or a (token, layer).

    Padding, layers that a model lacks, and what was not extracted give no rows; points that are not finite
    do, with their `quality`. Text coordinates are categories in the panel's order (factors, in R's words).

    Parameters
    ----------
    ds : xarray.Dataset
    level : {"layer", "token", "run"}

    Returns
    -------
    pandas.DataFrame
        Coordinates of model, prompt, sample, token, layer first, `quality` and `phase` as words, then the
        variables of the level and, for layers, those of the token.

    Raises
    ------
    DynstatError
        S404 (unknown level), D103 (no `quality`), D104 (the dataset lost a dim).
    """
    if level not in LEVEL_DIMS:
        raise DynstatError("S404", f"no such level: {level!r}", where="level", found=level,
                           expected=" | ".join(LEVEL_DIMS))  # fmt: skip
    if "quality" not in ds:
        raise DynstatError("D103", "the dataset has no variable 'quality'", where="quality")
    ds = _in_order(ds)
    dims = LEVEL_DIMS[level]
    quality = _quality_of(ds["quality"].values, level)
    rows = np.nonzero(~np.isin(quality, (PADDING, NOT_EXTRACTED, NO_SUCH_LAYER)))
    at = dict(zip(dims, rows, strict=True))
    columns: dict[str, Any] = {}
    coordinates = [n for n in _FIRST if n in ds.coords]
    coordinates += [
        n for n in sorted(map(str, ds.coords), key=rank) if n not in _FIRST and n not in _LEFT_OUT
    ]
    for name in coordinates:
        coord = ds[name]
        if coord.ndim and set(coord.dims) <= set(dims):
            columns[name] = _spread(coord.values, [at[str(d)] for d in coord.dims])
    if level != "run":
        columns["quality"] = _words(quality[rows], QUALITY)
    for name in sorted(map(str, ds.data_vars), key=rank):
        variable = ds[name]
        wanted = variable.dims == dims or (level == "layer" and variable.dims == LEVEL_DIMS["token"])
        if name == "quality" or not wanted:
            continue
        picked = variable.values[tuple(at[str(d)] for d in variable.dims)]
        if name in _FLAGGED:
            columns[name] = _words(picked, _FLAGGED[name])
        else:
            columns[name] = pd.array(picked.tolist(), dtype="str") if is_text(variable) else picked
    return pd.DataFrame(columns)


def _in_order(ds: xr.Dataset) -> xr.Dataset:
    """Return the dataset with its dims in the schema's order, whatever was done to it since it was opened."""
    check_dims(ds)
    return ds.transpose(*DIMS, ...)


def _words(codes: np.ndarray, words: Sequence[str]) -> pd.Categorical:
    # The narrowest type: these columns repeat in every row.
    return pd.Categorical.from_codes(codes.astype(np.int8), list(words))


def _quality_of(quality: np.ndarray, level: str) -> np.ndarray:
    if level == "layer":
        return quality
    if level == "run":
        return np.where(run_present(quality), np.int8(OK), np.int8(NOT_EXTRACTED))
    any_ok = (quality == OK).any(-1)
    # A token that is ok in no layer speaks with the mildest word of its layers.
    return np.where(any_ok, np.int8(OK), quality.min(-1))


def _spread(values: np.ndarray, index: list[np.ndarray]) -> Any:
    if len(index) == 1 and is_text(values):
        words = [str(v) for v in values.tolist()]
        categories = list(dict.fromkeys(words))
        code = {word: i for i, word in enumerate(categories)}
        codes = np.array([code[w] for w in words], np.int32)
        return pd.Categorical.from_codes(codes[index[0]], pd.Index(categories, dtype=object).astype("str"))
    return values[tuple(index)]
