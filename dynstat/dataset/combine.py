"""Join shards and panels into one dataset: an outer join over models, prompts and samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import DynstatError
from .build import column, coordinate_attrs, relative_depth
from .schema import ALWAYS, COORDINATES, DIMS, NO_SUCH_LAYER, NOT_EXTRACTED, PADDING, RUN
from .text import is_text

_JOINED = DIMS[:3]
# They speak of one panel, or of the shards of one file; what differs is left out.
_OF_ONE_PANEL = ("inputs", "inputs_combined", "panel_sha256", "prompt_order", "sample_order", "shards")
# What the provenance of one shard says of it alone.
_OF_ONE_SHARD = ("batch", "started", "ended", "seconds")


def combine(datasets: Iterable[xr.Dataset]) -> xr.Dataset:
    """Join datasets over models, prompts and samples.

    Tokens and layers are padded to the largest; `quality` says padding, not_extracted or no_such_layer where
    a dataset has nothing. Points that several datasets hold must be equal, NaN included. Models come in the
    order of the root attribute `inputs`, prompts and samples in that of `prompt_order` and `sample_order`,
    others as first seen.

    Parameters
    ----------
    datasets : iterable of xarray.Dataset

    Returns
    -------
    xarray.Dataset
        In memory, sharing nothing with its parts.

    Raises
    ------
    DynstatError
        D105 where a value, a coordinate or a definition differs; variable and label are named. D103 where a
        part has no `quality`.
    """
    parts = list(datasets)
    if not parts:
        raise DynstatError("D105", "there is nothing to combine", expected="at least one dataset")
    for part in parts:
        if lost := [d for d in DIMS if d not in part.dims or d not in part.coords]:
            raise DynstatError(
                "D105",
                "a dataset to combine lacks a dim of the schema",
                found=", ".join(map(str, part.dims)),
                expected=", ".join(lost),
                mend="select with lists, so that dims are kept",
            )
        if "quality" not in part:
            raise DynstatError("D103", "a dataset to combine lacks `quality`", where="quality")
        for dim in _JOINED:
            if not part.indexes[dim].is_unique:
                twice = part.indexes[dim][part.indexes[dim].duplicated()][0]
                raise DynstatError(
                    "D105",
                    f"a {dim} occurs twice in one dataset",
                    where=dim,
                    found=twice,
                    expected="unique ids",
                )
    if len(kinds := sorted({str(p.attrs.get("dynstat_kind", "")) for p in parts})) > 1:
        raise DynstatError("D105", "datasets of different kinds cannot be joined", found=", ".join(kinds))
    labels = {dim: _order(parts, dim) for dim in _JOINED}
    places = {dim: {label: i for i, label in enumerate(labels[dim])} for dim in _JOINED}
    coords: dict[str, Any] = {}
    for dim in _JOINED:
        coords |= _label_coords(parts, dim, labels[dim], places[dim])
    for dim in DIMS[3:]:
        values = np.unique(np.concatenate([p.variables[dim].values for p in parts]))
        coords[dim] = (dim, values.astype(np.int32), coordinate_attrs(dim))
    depth = relative_depth(coords["layers"][1], coords["layer"][1])
    coords["relative_depth"] = (("model", "layer"), depth, coordinate_attrs("relative_depth"))
    index = [[_positions(p, dim, places, coords) for dim in DIMS] for p in parts]
    data = _variables(parts, index, coords)
    ds = xr.Dataset(data, coords=coords)
    ds.attrs = _root(parts)
    return ds


def _order(parts: Sequence[xr.Dataset], dim: str) -> list[str]:
    key = "inputs" if dim == "model" else f"{dim}_order"
    first: dict[str, None] = {}
    # The shards of a panel all state the same, and at length.
    for stated in dict.fromkeys(str(p.attrs[key]) for p in parts if key in p.attrs):
        value = json.loads(stated)
        for label in [m["id"] for m in value.get("models", [])] if dim == "model" else value:
            first.setdefault(label)
    held = dict.fromkeys(str(v) for p in parts for v in p.variables[dim].values)
    return [v for v in first if v in held] + [v for v in held if v not in first]


def _positions(
    part: xr.Dataset, dim: str, places: dict[str, dict[str, int]], coords: dict[str, Any]
) -> np.ndarray:
    values = part.variables[dim].values
    if dim in places:
        return np.array([places[dim][str(v)] for v in values], int)
    return np.searchsorted(coords[dim][1], values)


def _label_coords(
    parts: Sequence[xr.Dataset], dim: str, labels: list[str], place: dict[str, int]
) -> dict[str, tuple[str, np.ndarray, dict[str, Any]]]:
    names = dict.fromkeys(
        n for p in parts for n, v in p.variables.items() if v.dims == (dim,) and n in p.coords
    )
    out = {}
    for name in names:
        cells: list[Any] = [None] * len(labels)
        attrs: dict[str, Any] = {}
        for part in parts:
            if name not in part.coords:
                continue
            variable = part.variables[name]
            attrs = attrs or dict(variable.attrs)
            for label, value in zip(
                part.variables[dim].values.tolist(), variable.values.tolist(), strict=True
            ):
                old = cells[place[str(label)]]
                if old is not None and old != value:
                    raise DynstatError(
                        "D105",
                        f"two descriptions of {dim} {label!r} differ in {name}",
                        where=f"{name}[{label!r}]",
                        found=repr(value),
                        expected=repr(old),
                        mend=f"give one of the {dim}s another id",
                    )
                cells[place[str(label)]] = value
        if name in COORDINATES and COORDINATES[str(name)].dtype != "str":
            spec = COORDINATES[str(name)]
            array = np.array([spec.fill if c is None else c for c in cells], spec.dtype)
        else:
            array = column(cells, str(name))
        out[str(name)] = (dim, array, attrs)
    return out


def _variables(
    parts: Sequence[xr.Dataset], index: list[list[np.ndarray]], coords: dict[str, Any]
) -> dict[str, Any]:
    shape = tuple(len(coords[dim][1]) for dim in DIMS)
    no_layer = coords["layer"][1][None, :] >= coords["layers"][1][:, None]
    held = [_held(part) for part in parts]
    seen = np.zeros(shape[:3], bool)
    overlap = []
    for (im, ip, js, *_), (runs, _) in zip(index, held, strict=True):
        block = np.ix_(im, ip, js)
        overlap.append(bool((seen[block] & runs).any()))
        seen[block] |= runs
    quality = np.full(shape, PADDING, np.int8)
    quality[~seen] = NOT_EXTRACTED
    quality = np.where(no_layer[:, None, None, None, :], np.int8(NO_SUCH_LAYER), quality)
    taken: dict[str, np.ndarray] = {}
    out = {}
    for name in _names(parts):
        first = next(p.variables[name] for p in parts if name in p.variables)
        full = quality if name == "quality" else _empty(name, first, shape)
        covered = np.zeros(shape[:3], bool)
        for part, where, (runs, points), again in zip(parts, index, held, overlap, strict=True):
            if name not in part.variables:
                continue
            _same_definition(name, first, part.variables[name])
            block = _block(where[: full.ndim])
            values = part.variables[name].values
            if not again and runs.all():
                full[block] = values
            else:
                known = _known(points, full.ndim)
                old = taken[name][block] if again and name in taken else np.zeros(values.shape, bool)
                _agree(name, full[block], values, known & old, part)
                if name == "quality":
                    # What a part says of the gaps in its own runs stands, unless another part fills them.
                    known = known | (runs[..., None, None] & ~old & (values != NO_SUCH_LAYER))
                full[block] = np.where(known, values, full[block])
            if name == "quality":
                _mark_missing_layers(full, where, points)
            if any(overlap):
                mark = taken.setdefault(name, np.zeros(shape[: full.ndim], bool))
                mark[block] |= _known(points, full.ndim)
            covered[np.ix_(*where[:3])] |= runs
        if (gap := seen & ~covered).any():
            m, p, s = (coords[d][1][i] for d, i in zip(_JOINED, np.argwhere(gap)[0], strict=True))
            raise DynstatError(
                "D105",
                f"{name} is missing in some of the datasets",
                where=name,
                found=f"no values for model {m!r}, prompt {p!r}, sample {s!r}",
                expected="the same variables for all runs",
                mend="extract it, or drop it everywhere",
            )
        out[name] = (first.dims, full, dict(first.attrs))
    return out


def _mark_missing_layers(quality: np.ndarray, where: list[np.ndarray], points: np.ndarray) -> None:
    """Say not_extracted, not padding, at the layers that a part lacks and its tokens have."""
    missing = np.setdiff1d(np.arange(quality.shape[-1]), where[-1])
    if missing.size:
        block = np.ix_(*where[:4], missing)
        gap = (quality[block] == PADDING) & np.asarray(points.any(-1))[..., None]
        quality[block] = np.where(gap, np.int8(NOT_EXTRACTED), quality[block])


def _names(parts: Sequence[xr.Dataset]) -> list[str]:
    names = dict.fromkeys(str(n) for p in parts for n in p.variables if n not in p.coords)
    for p in parts:
        for n, v in ((n, v) for n, v in p.variables.items() if n not in p.coords):
            if v.dims != DIMS[: v.ndim] or v.ndim < len(RUN):
                raise DynstatError(
                    "D105",
                    f"{n} has other dims than the schema allows",
                    where=str(n),
                    found=v.dims,
                    expected=DIMS,
                )
    return [n for n in ALWAYS if n in names] + [n for n in names if n not in ALWAYS]


def _held(part: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return which runs a dataset holds, and which points."""
    quality = part.variables["quality"].values
    points = (quality != PADDING) & (quality < NOT_EXTRACTED)
    return np.asarray(points.any((-2, -1))), points


def _known(points: np.ndarray, ndim: int) -> np.ndarray:
    return points if ndim == 5 else np.asarray(points.any(-1 if ndim == 4 else (-2, -1)))


def _block(where: Sequence[np.ndarray]) -> Any:
    """Return an index of the block: slices where the positions are contiguous, which numpy copies fastest."""
    slices = []
    for w in where:
        if len(w) and (np.diff(w) == 1).all():
            slices.append(slice(int(w[0]), int(w[-1]) + 1))
        else:
            return np.ix_(*where)
    return tuple(slices)


def _empty(name: str, first: xr.Variable, shape: tuple[int, ...]) -> np.ndarray:
    fill: Any = ALWAYS[name].fill if name in ALWAYS else -1 if first.dtype.kind == "i" else np.nan
    return np.full(
        shape[: first.ndim], "" if is_text(first) else fill, object if is_text(first) else first.dtype
    )


def _same_definition(name: str, first: xr.Variable, other: xr.Variable) -> None:
    settings = {k for v in (first, other) for k in v.attrs if str(k).startswith("readout_")}
    for key in ("units", "definition", "readout", "options", "flag_meanings", *sorted(settings)):
        if (a := first.attrs.get(key)) != (b := other.attrs.get(key)):
            raise DynstatError(
                "D105",
                f"{name} was measured in two ways",
                where=f"{name}, attribute {key}",
                found=b,
                expected=a,
                mend="extract both with one definition",
            )
    if first.dtype.kind != other.dtype.kind and not (is_text(first) and is_text(other)):
        raise DynstatError(
            "D105", f"{name} has two number types", where=name, found=other.dtype, expected=first.dtype
        )


def _agree(name: str, old: np.ndarray, new: np.ndarray, both: np.ndarray, part: xr.Dataset) -> None:
    differ = both & (old != new)
    if new.dtype.kind == "f":
        differ &= ~(np.isnan(old) & np.isnan(new))
    if differ.any():
        at = tuple(np.argwhere(differ)[0])
        label = ", ".join(f"{d} {part[d].values[i]}" for d, i in zip(DIMS, at, strict=False))
        raise DynstatError(
            "D105",
            f"two datasets hold different values of {name}",
            where=f"{name} at {label}",
            found=new[at],
            expected=old[at],
            mend="keep the one you trust; equal runs must have equal values",
        )


def _root(parts: Sequence[xr.Dataset]) -> dict[str, Any]:
    attrs = {}
    for key in dict.fromkeys(k for p in parts for k in p.attrs if k != "item"):  # of one shard only
        values = list(dict.fromkeys(str(p.attrs[key]) for p in parts if key in p.attrs))
        everywhere = all(key in p.attrs for p in parts)
        if len(values) == 1 and (everywhere or key not in _OF_ONE_PANEL):
            attrs[key] = next(p.attrs[key] for p in parts if key in p.attrs)
        elif key == "history":
            attrs[key] = "\n".join(sorted({line for v in values for line in v.splitlines()}))
        elif key == "date_created":
            attrs[key] = max(values)
        elif key == "provenance":
            attrs[key] = json.dumps(_merged(json.loads(_list(values))))
        elif key not in _OF_ONE_PANEL:
            attrs[key] = "; ".join(sorted(values))
    if "inputs" not in attrs:
        # No single panel determines the values any more, so no single lock can bind them.
        several = [p.attrs[k] for p in parts for k in ("inputs", "inputs_combined") if k in p.attrs]
        if several:
            attrs["inputs_combined"] = _list(several)
    return attrs


def _merged(entries: Sequence[Any]) -> list[Any]:
    """Join what is said of shards that were computed alike: from when to when, and nothing of each alone.

    Thousands of shards would otherwise make an attribute longer than their data. Joining again adds nothing.
    """
    alike: dict[str, list[dict[str, Any]]] = {}
    out = [e for e in entries if not (isinstance(e, dict) and "started" in e)]
    for entry in (e for e in entries if isinstance(e, dict) and "started" in e):
        rest = {k: v for k, v in entry.items() if k not in _OF_ONE_SHARD}
        alike.setdefault(json.dumps(rest, sort_keys=True), []).append(entry)
    for rest_text, group in alike.items():
        joined = group[0]
        if len(group) > 1:
            joined = json.loads(rest_text) | {
                "started": min(e["started"] for e in group),
                "ended": max(e.get("ended", e["started"]) for e in group),
            }
        out.append(joined)
    return out


def _list(texts: Sequence[str]) -> str:
    """Return JSON values, those that are lists taken apart, as one sorted JSON list without repeats."""
    values = [json.loads(text) for text in texts]
    flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
    return json.dumps([json.loads(t) for t in sorted({json.dumps(v, sort_keys=True) for v in flat})])
