"""Take users' own measurements in: a dataset from a tidy frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DynstatError
from .build import Definition, build, describe
from .schema import (
    ALWAYS,
    COORDINATES,
    DIMS,
    LEVEL_DIMS,
    NO_SUCH_LAYER,
    NOT_EXTRACTED,
    OK,
    PADDING,
    PHASE,
    QUALITY,
    RUN,
)
from .verify import verify

_FLAGGED = {"quality": QUALITY, "phase": PHASE}
_LABELLED = RUN
_RENAME = {"layers": "n_layers", "prompt_text": "text"}


def from_frame(
    df: pd.DataFrame,
    definitions: Mapping[str, Definition] | None = None,
    *,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Build a dataset from a tidy frame of one's own measurements.

    The level is read off the columns: `layer` makes layer rows, else `token` token rows, else run rows. What
    the frame says nothing of is filled: `quality` is ok at the rows and padding, not_extracted or
    no_such_layer elsewhere. Frames made by `to_frame` come back as they were.

    Parameters
    ----------
    df : pandas.DataFrame
        Columns `model` and `prompt`; at need `sample`, `token`, `layer`, `quality` and `phase` (words), any
        coordinate of the schema, and the measurements. Identifiers become text.
    definitions : mapping of str to str or mapping
        By column: the id of a registered metric, or long_name and units (and at need valid_min, valid_max,
        undefined, reference). Columns called like a registered metric need none. Without a definition, text
        and categories describe the model or prompt they are constant in, other numbers the model.
    attrs : mapping
        Root attributes; `dynstat_kind` is "measurements" unless given.

    Returns
    -------
    xarray.Dataset
        It passes `verify`.

    Raises
    ------
    DynstatError
        D103 (column missing), D104 (rows that contradict each other or the schema), Y002 (definition
        incomplete), Y003 (a column that nothing defines), D106 (text that cannot be stored).
    """
    definitions = dict(definitions or {})
    frame = _plain_columns(df)
    _check_columns(frame, definitions)
    level = "layer" if "layer" in frame else "token" if "token" in frame else "run"
    definitions = {k: {"level": level, **v} if isinstance(v, Mapping) else v for k, v in definitions.items()}
    if "sample" not in frame:
        frame["sample"] = "single"
    at, labels = _positions(frame, LEVEL_DIMS[level])
    measured, of_label = _sort_columns(frame, definitions, at)
    described = {d: _describe(frame, d, labels[d], of_label[d], at[d]) for d in _LABELLED}
    models = described["model"]
    for i, m in enumerate(models):
        stored = int(at["layer"][at["model"] == i].max()) + 1
        if m.setdefault("n_layers", stored) < stored:
            raise DynstatError(
                "D104",
                f"model {m['id']!r} has rows beyond its last layer",
                where="layers",
                found=stored,
                expected=m["n_layers"],
            )
    sizes = (*map(len, labels.values()), int(at["token"].max()) + 1, int(at["layer"].max()) + 1)
    values = {"quality": _quality(frame, at, sizes, [m["n_layers"] for m in models])}
    for name in measured:
        values[name] = _fill(frame, name, at, sizes, definitions.get(name), level)
    kind = {"dynstat_kind": "measurements", "title": "Measurements of language models"}
    ds = build(
        models=models,
        prompts=described["prompt"],
        samples=described["sample"],
        n_tokens=sizes[3],
        n_layers=sizes[4],
        values=values,
        definitions=definitions,
        attrs=kind | dict(attrs or {}),
    )
    verify(ds, strict=True)
    return ds


def _plain_columns(df: pd.DataFrame) -> pd.DataFrame:
    """Return a frame without index levels, categories or pandas' own types."""
    if isinstance(df.columns, pd.MultiIndex):
        raise DynstatError(
            "D106",
            "the frame has columns of several levels",
            where="columns",
            mend="give each column one name",
        )
    frame = df.reset_index(drop=all(n is None for n in df.index.names))
    out: dict[str, Any] = {}
    for key in frame.columns:
        name, column = str(key), frame[key]
        categories = isinstance(column.dtype, pd.CategoricalDtype)
        if not categories and pd.api.types.is_numeric_dtype(column.dtype):
            whole = pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any()
            own = not isinstance(column.dtype, np.dtype)
            plain = column.astype("int64" if whole else "float64") if own else column
            is_label = name in COORDINATES and COORDINATES[name].dtype == "str"
            out[name] = np.array([str(v) for v in plain.tolist()], object) if is_label else plain.to_numpy()
            continue
        if (lost := column.isna()).any():
            raise DynstatError(
                "D106",
                f"column {name!r} has missing text",
                where=f"{name}, row {int(lost.to_numpy().argmax())}",
                expected="text in every row",
                mend="write what is meant; '' if nothing",
            )
        values = column.astype(object).to_numpy()
        out[name] = np.array([str(v) for v in values], object) if categories else values
    return pd.DataFrame({k: pd.Series(v, dtype=v.dtype) for k, v in out.items()})


def _check_columns(frame: pd.DataFrame, definitions: Mapping[str, Any]) -> None:
    held = ", ".join(map(str, frame.columns))
    if missing := [c for c in ("model", "prompt") if c not in frame]:
        raise DynstatError("D103", "the frame lacks columns", found=held, expected=", ".join(missing))
    if frame.empty:
        raise DynstatError("D104", "the frame has no rows", expected="one at least")
    for name in definitions:
        if name not in frame:
            raise DynstatError(
                "D103", f"the frame has no column {name!r}", where=f"definitions[{name!r}]", found=held
            )


def _positions(
    frame: pd.DataFrame, dims: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    if (twice := frame.duplicated(list(dims)).to_numpy()).any():
        raise DynstatError(
            "D104",
            "two rows describe the same point",
            where=_row(frame, dims, twice),
            expected=f"one row for each {', '.join(dims)}",
        )
    at: dict[str, np.ndarray] = {}
    labels: dict[str, list[str]] = {}
    for dim in _LABELLED:
        codes, found = pd.factorize(frame[dim])
        at[dim], labels[dim] = codes.astype(int), [str(v) for v in found]
    for dim in DIMS[3:]:
        at[dim] = _whole(frame, dim) if dim in frame else np.zeros(len(frame), int)
    return at, labels


def _whole(frame: pd.DataFrame, name: str, low: int = 0) -> np.ndarray:
    """Return a column of whole numbers from `low` on as integers."""
    numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(float)
    bad = ~(numbers >= low) | (numbers != np.floor(numbers))
    if bad.any():
        row = int(bad.argmax())
        raise DynstatError(
            "D104",
            f"{name} must hold whole numbers from {low}",
            where=f"{name}, row {row}",
            found=frame[name].iloc[row],
            expected=f"{low}, {low + 1}, {low + 2}, ...",
        )
    return numbers.astype(np.int64)


def _sort_columns(
    frame: pd.DataFrame, definitions: Mapping[str, Definition], at: Mapping[str, np.ndarray]
) -> tuple[list[str], dict[str, list[str]]]:
    """Tell measurements from descriptions of models, prompts and samples."""
    measured: list[str] = []
    of_label: dict[str, list[str]] = {d: [] for d in _LABELLED}
    for name in map(str, frame.columns):
        if name in DIMS or name in ("relative_depth", "quality"):
            continue
        if name in definitions or name in ALWAYS:
            measured.append(name)
        elif name in COORDINATES:
            of_label[COORDINATES[name].dims[0]].append(name)
        else:
            text = frame[name].dtype.kind in "Ob"
            owner = _owner(frame[name], at, ("model", "prompt") if text else ())
            if owner is None and not text:
                try:
                    describe(name)
                    measured.append(name)
                    continue
                except DynstatError:
                    owner = _owner(frame[name], at, ("model",))
            if owner is None:
                raise DynstatError(
                    "Y003",
                    f"nothing defines the column {name!r}",
                    where=name,
                    found="no registered metric, no property of a model or prompt",
                    expected="an entry in definitions",
                    mend=f"definitions={{{name!r}: {{'long_name': ..., 'units': ...}}}}, or drop the column",
                )
            of_label[owner].append(name)
    return measured, of_label


def _owner(column: pd.Series, at: Mapping[str, np.ndarray], dims: tuple[str, ...]) -> str | None:
    """Return the dim whose label determines a column; one row a label cannot tell for numbers."""
    for dim in dims:
        repeated = column.dtype.kind in "Ob" or np.bincount(at[dim]).min() > 1
        if repeated and not _varies(column.to_numpy(), at[dim]).any():
            return dim
    return None


def _varies(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    _, first = np.unique(label, return_index=True)
    return np.asarray(values != values[first][label], bool)


def _describe(
    frame: pd.DataFrame, dim: str, labels: list[str], columns: list[str], label: np.ndarray
) -> list[dict[str, Any]]:
    _, first = np.unique(label, return_index=True)
    out: list[dict[str, Any]] = [{"id": v} for v in labels]
    for name in columns:
        values = frame[name].to_numpy()
        if (varied := _varies(values, label)).any():
            raise DynstatError(
                "D104",
                f"{name} differs within one {dim}",
                where=f"{dim} {labels[label[int(varied.argmax())]]!r}",
                expected=f"one {name} for each {dim}",
            )
        for row, value in zip(out, values[first].tolist(), strict=True):
            if name in COORDINATES or dim == "prompt":
                row[_RENAME.get(name, name)] = value
            else:
                row.setdefault("factors", {})[name] = value
    return out


def _quality(
    frame: pd.DataFrame, at: Mapping[str, np.ndarray], sizes: tuple[int, ...], n_layers: list[int]
) -> np.ndarray:
    out = np.full(sizes, PADDING, np.int8)
    length = np.zeros(sizes[:3], int)
    np.maximum.at(length, tuple(at[d] for d in RUN), at["token"] + 1)
    # What lies before a run's last token and has no row was not measured; runs without rows neither.
    out[np.arange(sizes[3]) < length[..., None]] = NOT_EXTRACTED
    out[length == 0] = NOT_EXTRACTED
    out[tuple(at[d] for d in DIMS)] = _codes(frame, "quality") if "quality" in frame else OK
    none = np.arange(sizes[4])[None, :] >= np.array(n_layers)[:, None]
    return np.where(none[:, None, None, None, :], np.int8(NO_SUCH_LAYER), out)


def _codes(frame: pd.DataFrame, name: str) -> np.ndarray:
    """Return the codes of a column of flag words; numbers are codes already."""
    if frame[name].dtype != object:
        return _whole(frame, name)
    words = _FLAGGED[name]
    codes = pd.Index(list(words), dtype=object).get_indexer(frame[name].to_numpy())
    if (bad := codes < 0).any():
        row = int(bad.argmax())
        raise DynstatError(
            "D104",
            f"{name} has an unknown word",
            where=f"{name}, row {row}",
            found=frame[name].iloc[row],
            expected=" | ".join(words),
        )
    return codes


def _fill(
    frame: pd.DataFrame,
    name: str,
    at: Mapping[str, np.ndarray],
    sizes: tuple[int, ...],
    definition: Definition | None,
    level: str,
) -> np.ndarray:
    dims, dtype, _, fill = describe(name, definition)
    if len(dims) > len(LEVEL_DIMS[level]):
        raise DynstatError(
            "D104",
            f"{name} needs rows for each {dims[-1]}",
            where=name,
            found=f"{level} rows",
            expected=f"a column {dims[-1]!r}",
        )
    if name in _FLAGGED:
        values = _codes(frame, name)
    elif np.dtype(object if dtype == "str" else dtype).kind == "i":
        values = _whole(frame, name, -1)
    else:
        values = frame[name].to_numpy()
    index = tuple(at[d] for d in dims)
    out = np.full(sizes[: len(dims)], fill, object if dtype == "str" else dtype)
    # Beyond the range of float32 becomes infinite, which `verify` reports with its place.
    with np.errstate(over="ignore"):
        try:
            values = values.astype(out.dtype)
        except (TypeError, ValueError) as e:
            raise DynstatError("D104", f"{name} must hold numbers", where=name, found=str(e)) from e
    out[index] = values
    differs = out[index] != values
    if out.dtype.kind == "f":
        differs &= ~(np.isnan(out[index]) & np.isnan(values))
    if differs.any():
        # A variable of a coarser level, repeated in finer rows.
        raise DynstatError(
            "D104",
            f"{name} differs within one {dims[-1]}",
            where=_row(frame, dims, differs),
            expected=f"one value for each {', '.join(dims)}",
        )
    return out


def _row(frame: pd.DataFrame, dims: tuple[str, ...], bad: np.ndarray) -> str:
    row = int(np.argmax(bad))
    return f"row {row}: " + ", ".join(f"{d} {frame[d].iloc[row]}" for d in dims if d in frame)
