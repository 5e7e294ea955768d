"""Open and save labelled datasets as NetCDF-4 files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DynstatError
from ..files import atomic_path, uninterrupted
from .combine import combine
from .content import content_hash
from .schema import DIMS, SCHEMA, rank
from .text import check_text, is_text, text_array

Engine = Literal["netcdf4", "h5netcdf"]
ENGINES = ("netcdf4", "h5netcdf")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
CONTENT = "content_sha256"
_CHUNK_POINTS = 2**18  # about 1 MiB of float32


def open(
    path: str | os.PathLike[str],
    *,
    engine: Engine | None = None,
    chunks: Mapping[str, int] | Literal["auto"] | None = None,
) -> xr.Dataset:
    """Open a dataset: one NetCDF file, or a folder of shards, which are combined.

    Parameters
    ----------
    path : path
        A file, or a folder whose ``*.nc`` files are read in the order of their names; names that begin with a
        dot are being written, and left out.
    engine : {"netcdf4", "h5netcdf"}, optional
    chunks : mapping or "auto", optional
        Open one file lazily with dask; the file then stays open. By default all values are in memory and the
        file is closed, so that it can be written anew.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    DynstatError
        S404 (unknown engine), F001 (missing), F003 (not readable), D101 (not a dynstat dataset), D102
        (truncated or damaged), D105 (shards that contradict each other).
    """
    if engine not in (None, *ENGINES):
        raise DynstatError(
            "S404", "unknown engine", where="engine", found=engine, expected=" | ".join(ENGINES)
        )
    path = Path(path)
    if not path.exists():
        raise DynstatError("F001", f"{path.name} does not exist", where=str(path.absolute()))
    if not path.is_dir():
        return _open_file(path, engine or "netcdf4", chunks)
    shards = _shards(path)
    if not shards:
        raise DynstatError(
            "F001",
            f"the folder {path.name} holds no .nc file",
            where=str(path.absolute()),
            mend="give the folder that `dynstat extract` wrote to",
        )
    if chunks is not None and len(shards) > 1:
        raise DynstatError(
            "S404",
            "only one file can be opened lazily",
            where=str(path),
            found=len(shards),
            expected="1",
            mend="combine the shards into one file first: dynstat data combine",
        )
    return combine(_open_file(p, engine or "netcdf4", None) for p in shards)


def shard_names(folder: str | os.PathLike[str]) -> str:
    """Return the names of the shards in a folder as a JSON list, to tell later what was read."""
    return json.dumps([p.name for p in _shards(Path(folder))])


def _shards(folder: Path) -> list[Path]:
    # Names that begin with a dot are being written.
    return sorted(p for p in folder.glob("*.nc") if not p.name.startswith("."))


def _open_file(path: Path, engine: Engine, chunks: Any) -> xr.Dataset:
    try:
        with path.open("rb") as f:
            head = f.read(len(_SIGNATURE))
    except OSError as e:
        raise DynstatError("F003", f"{path.name} cannot be read: {e.strerror}", where=str(path)) from e
    if head != _SIGNATURE:
        cut = _SIGNATURE.startswith(head)
        raise DynstatError(
            "D102" if cut else "D101",
            f"{path.name} is not a NetCDF-4 file",
            where=str(path),
            found=repr(head) if head else "an empty file",
            expected=repr(_SIGNATURE),
        )
    # No variable of the schema is scaled, a time, or masked by a number: decoding could only spoil the ids.
    plain: dict[str, Any] = {"mask_and_scale": False, "decode_times": False, "decode_timedelta": False}
    try:
        ds = xr.open_dataset(path, engine=engine, cache=False, chunks=chunks, **plain)
        if chunks is None:
            with ds as handle:
                ds = handle.load()
    except (OSError, RuntimeError, ValueError, LookupError, EOFError, AttributeError, TypeError) as e:
        # A damaged header surfaces as whatever the reader made of it.
        raise DynstatError(
            "D102",
            f"{path.name} is truncated or damaged",
            where=str(path),
            found=str(e),
            expected="a whole NetCDF-4 file",
            mend="copy or extract it again",
        ) from e
    if ds.attrs.get("dynstat_schema") != SCHEMA:
        ds.close()
        raise DynstatError(
            "D101",
            f"{path.name} is not a dynstat dataset",
            where=f"{path}, attribute dynstat_schema",
            found=ds.attrs.get("dynstat_schema", "none"),
            expected=SCHEMA,
        )
    stored = ds.attrs.pop(CONTENT, None)
    # Each shard names all prompts of its panel: of thousands of shards one copy is enough.
    ds.attrs = {k: sys.intern(v) if type(v) is str else v for k, v in ds.attrs.items()}
    ds = _plain(ds)
    if stored is not None:
        # It speaks of the file, and as an attribute it would be wrong after the first change.
        ds.encoding[CONTENT] = str(stored)
    return ds


def _plain(ds: xr.Dataset) -> xr.Dataset:
    """Drop what belongs to the file, and make text the same whatever engine read it."""
    for variable in ds.variables.values():
        variable.attrs.pop("_FillValue", None)
        variable.encoding = {}
        # In place: assigning to the dataset aligns all its variables again, for each of many shards.
        if is_text(variable) and not isinstance(variable, xr.IndexVariable) and variable.dtype != object:
            variable.data = variable.values.astype(object)
    ds.encoding = {}
    wide = [v for v in ds.variables.values() if isinstance(v, xr.IndexVariable) and v.dtype.kind in "UT"]
    return ds.assign_coords({v.dims[0]: (v.dims, v.values.astype(object), v.attrs) for v in wide})


def save(ds: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a dataset to a NetCDF-4 file, whole or not at all.

    float32 with zlib (level 4), shuffle and fletcher32; chunks of one block of prompts by all tokens and
    layers; text of variable length. The same dataset gives the same bytes. The file holds its content hash,
    by which ``dynstat data verify`` knows it again; :func:`open` takes it out.

    Parameters
    ----------
    ds : xarray.Dataset
    path : path

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    DynstatError
        D101 (no dynstat dataset), D106 (a value that NetCDF would change), F002 (read-only or full disk; what
        was there is untouched).
    """
    path = Path(path)
    if ds.attrs.get("dynstat_schema") != SCHEMA:
        raise DynstatError(
            "D101",
            "this is not a dynstat dataset",
            where="attribute dynstat_schema",
            found=ds.attrs.get("dynstat_schema", "none"),
            expected=SCHEMA,
            mend="make it with dynstat.from_frame, or keep its attributes (keep_attrs=True)",
        )
    ready = _storable(ds)
    if not any(v.chunks for v in ready.variables.values()):  # lazy values would be computed twice
        ready.attrs[CONTENT] = content_hash(ready)
    with uninterrupted(), atomic_path(path) as temporary:
        try:
            ready.to_netcdf(
                temporary, mode="w", engine="netcdf4", format="NETCDF4", encoding=_encoding(ready)
            )
        except RuntimeError as e:
            # The NetCDF library reports a full disk so, and does not say that it is full.
            if shutil.disk_usage(temporary.parent).free < ready.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from e
            raise OSError(None, str(e)) from e
    return path


def _storable(ds: xr.Dataset) -> xr.Dataset:
    coords: dict[Any, Any] = {}
    data: dict[Any, Any] = {}
    for name in sorted(map(str, ds.variables), key=rank):
        variable = ds.variables[name]
        values: Any = variable.data
        if isinstance(ds.indexes.get(str(name)), pd.MultiIndex):
            raise DynstatError(
                "D106",
                f"{name} is a MultiIndex",
                where=str(name),
                expected="a plain coordinate",
                mend="call reset_index first",
            )
        if is_text(variable) or not isinstance(variable.dtype, np.dtype):
            values = text_array(variable.values, str(name))
        elif variable.dtype.kind == "b":
            values = variable.values.astype(np.int8)
        elif variable.dtype.kind not in "iuf":
            raise DynstatError(
                "D106",
                f"{name} has the type {variable.dtype}",
                where=str(name),
                found=variable.dtype,
                expected="a number or text",
            )
        target = coords if name in ds.coords else data
        target[name] = (variable.dims, values, _attributes(variable.attrs, str(name)))
    return xr.Dataset(data, coords, _attributes(ds.attrs, "root"))


def _attributes(attrs: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return attributes as NetCDF holds them: booleans as 0/1 bytes, nested values as JSON, None left out."""
    out = {}
    for key in sorted(map(str, attrs), key=rank):
        value = attrs[key]
        if value is None:
            continue
        if isinstance(value, (bool, np.bool_)):
            value = np.int8(value)
        elif isinstance(value, (dict, tuple, list)) and not _plain_list(value):
            value = json.dumps(value, ensure_ascii=False, sort_keys=True)
        if isinstance(value, str):
            check_text([value], f"attribute {key} of {where}")
        out[str(key)] = value
    return out


def _plain_list(value: Any) -> bool:
    # An empty list would come back as an array of floats.
    numbers = bool(value) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    return not isinstance(value, dict) and numbers


def _encoding(ds: xr.Dataset) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for name, variable in ds.variables.items():
        if is_text(variable) or variable.size == 0 or variable.ndim == 0:
            # Filters do not apply to text of variable length.
            out[str(name)] = {} if is_text(variable) else {"_FillValue": None}
            continue
        number: dict[str, Any] = {"zlib": True, "complevel": 4, "shuffle": True, "fletcher32": True}
        number["chunksizes"] = _chunks(variable)
        # Coordinates have no missing values, and integers with a fill would come back as floats.
        data_float = variable.dtype.kind == "f" and name in ds.data_vars
        number["_FillValue"] = variable.dtype.type(np.nan) if data_float else None
        out[str(name)] = number
    return out


def _chunks(variable: xr.Variable) -> tuple[int, ...]:
    if variable.dims[:1] != ("model",) or variable.ndim < 3:
        return variable.shape
    per_prompt = int(np.prod(variable.shape[2:]))
    block = int(min(variable.shape[1], max(1, _CHUNK_POINTS // per_prompt)))
    assert variable.dims[1] == DIMS[1]
    return (1, block, *variable.shape[2:])
