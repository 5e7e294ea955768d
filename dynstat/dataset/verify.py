"""Check a dataset against the schema, all problems in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..errors import DynstatError
from ..registry import METRICS
from .build import relative_depth, run_present, token_quality
from .gaps import Gaps, undefined_marks
from .identities import breaches
from .schema import (
    ALWAYS,
    COORDINATES,
    DIMS,
    EXTRACTED,
    KINDS,
    LEVEL_DIMS,
    MARKS,
    NO_SUCH_LAYER,
    NOT_EXTRACTED,
    OK,
    OPTIONAL_ATTRS,
    PADDING,
    QUALITY,
    ROOT_ATTRS,
    SCHEMA,
    STOP_REASONS,
    TRUNCATED,
    VARIABLE_ATTRS,
    Variable,
    base_name,
    is_mark,
)
from .text import check_text, is_text

# float32 rounds; a value may pass its bound by so much, relative to the bound.
_SLACK = 1e-6


@dataclass(frozen=True)
class Problem:
    """One violation of the schema: what kind, where, what was found and what was expected."""

    code: str
    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.code}: {self.where}: found {self.found}, expected {self.expected}"


def verify(ds: xr.Dataset, *, strict: bool = False) -> list[Problem]:
    """Check dims, types, attributes, ranges, quality against NaN, identifiers, counts, and identities.

    Parameters
    ----------
    ds : xarray.Dataset
    strict : bool
        Raise where there are problems.

    Returns
    -------
    list of Problem
        Empty for a valid dataset. Codes: attribute, dims, coordinate, variable, type, range, quality, nan (no
        value at an ok point), value (a value where there can be none), token, count, text, and, where none of
        these is found, identity (variables that contradict each other, see docs/stores.md).

    Raises
    ------
    DynstatError
        With `strict`: D103 where nothing but variables is missing, else D104; the problems are listed.
    """
    problems = list(_root(ds))
    shape = list(_dims(ds))
    problems += shape
    if not shape:
        problems += _coordinates(ds)
        problems += _variables(ds)
        if "quality" in ds and ds["quality"].dims == DIMS:
            problems += _quality(ds)
            problems += _values(ds)
            problems += _runs(ds)
            if not problems:  # what is broken already need not obey them
                problems += _identities(ds)
    if strict and problems:
        only_missing = all(p.code == "variable" for p in problems)
        raise DynstatError(
            "D103" if only_missing else "D104",
            f"the dataset has {len(problems)} problem{'s' * (len(problems) > 1)}",
            where=problems[0].where,
            found=problems[0].found,
            expected=problems[0].expected,
            mend="docs/schema.md gives the rules",
            problems=[str(p) for p in problems],
        )
    return problems


def _root(ds: xr.Dataset) -> Iterator[Problem]:
    for key in ROOT_ATTRS:
        if key not in ds.attrs:
            yield Problem("attribute", f"root attribute {key}", "nothing", ROOT_ATTRS[key])
    if SCHEMA not in str(ds.attrs.get("Conventions", SCHEMA)).split():
        yield Problem(
            "attribute", "root attribute Conventions", repr(ds.attrs["Conventions"]), f"{SCHEMA} among them"
        )
    if (schema := ds.attrs.get("dynstat_schema", SCHEMA)) != SCHEMA:
        yield Problem("attribute", "root attribute dynstat_schema", repr(schema), SCHEMA)
    if (kind := ds.attrs.get("dynstat_kind", "panel")) not in KINDS:
        yield Problem("attribute", "root attribute dynstat_kind", repr(kind), " | ".join(KINDS))
    for key in ("inputs", "provenance", "prompt_order", "sample_order", "inputs_combined", "shards"):
        if key in ds.attrs:
            try:
                json.loads(ds.attrs[key])
            except (TypeError, ValueError):
                yield Problem("attribute", f"root attribute {key}", repr(ds.attrs[key])[:60], "JSON text")


def _dims(ds: xr.Dataset) -> Iterator[Problem]:
    for dim in DIMS:
        if dim not in ds.dims or dim not in ds.coords:
            yield Problem("dims", dim, "no such dim with a coordinate", ", ".join(DIMS))
    for other in ds.dims:
        if other not in DIMS:
            yield Problem("dims", str(other), "a dim outside the schema", ", ".join(DIMS))


def _coordinates(ds: xr.Dataset) -> Iterator[Problem]:
    for name, spec in COORDINATES.items():
        if name not in ds.coords:
            if spec.required:
                yield Problem("coordinate", name, "nothing", f"coordinate over {spec.dims}")
            continue
        yield from _typed(ds, name, spec)
    for name in (str(n) for n in ds.coords):
        values = ds[name].values
        if "long_name" not in ds[name].attrs:
            yield Problem("attribute", f"{name}, attribute long_name", "nothing", VARIABLE_ATTRS["long_name"])
        if is_text(values):
            yield from _text(name, values)
        elif values.dtype.kind == "f" and np.isnan(values).any():
            yield Problem("coordinate", name, "NaN", "no missing values in coordinates")
    for dim in DIMS[:3]:
        labels = ds[dim].values.tolist()
        if len(set(labels)) < len(labels):
            twice = next(v for v in labels if labels.count(v) > 1)
            yield Problem("coordinate", dim, f"{twice!r} more than once", "unique identifiers")
        if "" in labels:
            yield Problem("coordinate", dim, "an empty identifier", "identifiers")
    if not np.array_equal(ds["token"].values, np.arange(ds.sizes["token"])):
        yield Problem("coordinate", "token", _some(ds["token"].values), f"0 to {ds.sizes['token'] - 1}")
    layer = ds["layer"].values
    if layer.dtype.kind != "i" or (np.diff(layer) <= 0).any() or (layer < 0).any():
        yield Problem("coordinate", "layer", _some(layer), "increasing integers from 0")
    elif "layers" in ds.coords and "relative_depth" in ds.coords:
        wanted = relative_depth(ds["layers"].values, layer)
        if ds["relative_depth"].dims == ("model", "layer") and not np.allclose(
            ds["relative_depth"].values, wanted, rtol=0, atol=1e-6
        ):
            yield Problem("coordinate", "relative_depth", "other values", "layer / (layers - 1), -1 for none")
    if ds.attrs.get("dynstat_kind") in EXTRACTED:
        for name in ("architecture", "weights_sha256", "tokenizer_sha256"):
            if name in ds.coords and "" in ds[name].values.tolist():
                yield Problem("coordinate", name, "an empty text", "the identity of every model")


def _variables(ds: xr.Dataset) -> Iterator[Problem]:
    panel = ds.attrs.get("dynstat_kind", "panel") in EXTRACTED
    for name, spec in ALWAYS.items():
        if name in ds.data_vars:
            yield from _typed(ds, name, spec)
        elif name == "quality" or (panel and spec.required):
            yield Problem("variable", name, "nothing", f"{spec.dtype} variable over {spec.dims}")
    for name in (str(n) for n in ds.data_vars):
        variable = ds[name]
        text = is_text(variable)
        for key, doc in VARIABLE_ATTRS.items():
            if key not in variable.attrs and not (text and key in ("units", "valid_min", "valid_max")):
                yield Problem("attribute", f"{name}, attribute {key}", "nothing", doc)
        if not text:
            yield from _range(ds, name)
        else:
            yield from _text(name, variable.values)
        if name in ALWAYS:
            continue
        if variable.dims not in LEVEL_DIMS.values():
            yield Problem("dims", name, str(variable.dims), " or ".join(str(d) for d in LEVEL_DIMS.values()))
        for mark in str(variable.attrs.get("undefined", "")).split():
            if not is_mark(mark):
                yield Problem("attribute", f"{name}, attribute undefined", repr(mark), " | ".join(MARKS))
        if base_name(name) != name and "readout" not in variable.attrs:
            yield Problem("attribute", f"{name}, attribute readout", "nothing", OPTIONAL_ATTRS["readout"])
        definition = str(variable.attrs.get("definition", ""))
        if definition in METRICS:
            metric = METRICS.get(definition)
            if variable.attrs.get("units", metric.units) != metric.units:
                yield Problem(
                    "attribute",
                    f"{name}, attribute units",
                    repr(variable.attrs.get("units")),
                    f"{metric.units!r}, as {metric.id} says",
                )
            if str(variable.dtype) != metric.dtype:
                yield Problem("type", name, str(variable.dtype), metric.dtype)
        elif variable.dtype != np.float32:
            yield Problem("type", name, str(variable.dtype), "float32")


def _typed(ds: xr.Dataset, name: str, spec: Variable) -> Iterator[Problem]:
    variable = ds[name]
    if variable.dims != spec.dims:
        yield Problem("dims", name, str(variable.dims), str(spec.dims))
    if (spec.dtype == "str") != is_text(variable) or (
        spec.dtype != "str" and str(variable.dtype) != spec.dtype
    ):
        yield Problem("type", name, str(variable.dtype), spec.dtype)
    elif spec.dtype != "str" and name in ds.coords:
        yield from _range(ds, name)
        if "units" not in variable.attrs:
            yield Problem("attribute", f"{name}, attribute units", "nothing", VARIABLE_ATTRS["units"])


def _text(name: str, values: np.ndarray) -> Iterator[Problem]:
    try:
        check_text(values.ravel().tolist(), name)
    except DynstatError as e:
        yield Problem("text", e.where, e.found, e.expected)


def _range(ds: xr.Dataset, name: str) -> Iterator[Problem]:
    values, attrs = ds[name].values, ds[name].attrs
    low, high = float(attrs.get("valid_min", -np.inf)), float(attrs.get("valid_max", np.inf))
    slack = _SLACK if values.dtype.kind == "f" else 0.0
    with np.errstate(over="ignore"):
        bad = (values < low - slack * max(1.0, abs(low))) | (values > high + slack * max(1.0, abs(high)))
    if values.dtype.kind == "f":
        # Infinity is never a value, also where the range has no end.
        bad |= np.isinf(values)
    if bad.any():
        yield Problem("range", _label(ds, name, bad), _first(values, bad), f"{low:g} to {high:g}")


def _quality(ds: xr.Dataset) -> Iterator[Problem]:
    quality = ds["quality"].values
    if "layers" not in ds.coords:
        return
    none = ds["layer"].values[None, :] >= ds["layers"].values[:, None]
    bad = (quality == NO_SUCH_LAYER) != none[:, None, None, None, :]
    if bad.any():
        code = int(quality[bad][0])
        yield Problem(
            "quality",
            _label(ds, "quality", bad),
            QUALITY[code] if 0 <= code < 6 else str(code),
            "no_such_layer where the model has no such layer, and nowhere else",
        )
    # Padding speaks of tokens: it must be the same in all layers, and come after the run.
    exists = ~none[:, None, None, None, :]
    padding = (quality == PADDING) & exists
    mixed = padding & ~((quality == PADDING) | ~exists).all(-1, keepdims=True)
    if mixed.any():
        yield Problem(
            "quality", _label(ds, "quality", mixed), "padding in some layers", "padding in all or none"
        )
    pad = token_quality(quality) == PADDING
    inside = pad[..., :-1] & ~pad[..., 1:]
    if inside.any():
        yield Problem(
            "quality",
            _label(ds, "token", np.pad(inside, [(0, 0)] * 3 + [(0, 1)]), DIMS[:4]),
            "padding before a token",
            "padding at the end of a run",
        )


def _values(ds: xr.Dataset) -> Iterator[Problem]:
    gaps = Gaps(ds)
    for name in (str(n) for n in ds.data_vars):
        variable = ds[name]
        if variable.dtype.kind != "f" or variable.dims not in LEVEL_DIMS.values():
            continue
        values = variable.values
        nan = np.isnan(values)
        ok = gaps.ok(variable.dims)
        if (bad := ~ok & ~nan).any():
            yield Problem("value", _label(ds, name, bad), _first(values, bad), "NaN where quality is not ok")
        never, maybe = gaps.undefined(variable, undefined_marks(variable))
        if (bad := ok & ~nan & never).any():
            yield Problem(
                "value", _label(ds, name, bad), _first(values, bad), "NaN where it has no definition"
            )
        if (bad := ok & nan & ~(never | maybe)).any():
            yield Problem(
                "nan", _label(ds, name, bad), "NaN", "a value where quality is ok and it is defined"
            )


def _runs(ds: xr.Dataset) -> Iterator[Problem]:
    quality = ds["quality"].values
    of_token = token_quality(quality)
    read = ~np.isin(of_token, (PADDING, NOT_EXTRACTED, TRUNCATED))
    present = run_present(quality)
    measured = ds.attrs.get("dynstat_kind") not in EXTRACTED
    vocabulary = ds["vocabulary"].values if "vocabulary" in ds.coords else None
    if vocabulary is not None and "largest_id" in ds.coords:
        vocabulary = np.maximum(vocabulary, ds["largest_id"].values + 1)
    for name, valid in (("token_id", read), ("top1_id", quality == OK)):
        if (
            name not in ds
            or ds[name].shape != valid.shape
            or ds[name].dtype.kind != "i"
            or vocabulary is None
        ):
            continue
        ids = ds[name].values
        bound = vocabulary.reshape(-1, *[1] * (ids.ndim - 1))
        # Users' own measurements may come without ids, or without the size of the vocabulary.
        bad = valid & (((ids >= bound) & ((bound > 0) | (not measured))) | ((ids < 0) & (not measured)))
        if bad.any():
            yield Problem("token", _label(ds, name, bad), _first(ids, bad), "an index within the vocabulary")
        if (bad := ~valid & (ids != -1)).any():
            yield Problem("token", _label(ds, name, bad), _first(ids, bad), "-1 where there is no token")
    if "is_first" in ds and ds["is_first"].dims == DIMS[:4]:
        bad = ds["is_first"].values.astype(bool)
        bad[..., 0] = False
        if bad.any():
            yield Problem("token", _label(ds, "is_first", bad), "1", "0 after the first token")
    if not all(n in ds and ds[n].dims == DIMS[:3] for n in ("n_prompt", "n_generated")):
        return
    n_prompt, n_generated = ds["n_prompt"].values, ds["n_generated"].values
    tokens = (~np.isin(of_token, (PADDING, TRUNCATED))).sum(-1)
    # A frame of measurements may leave tokens out at the end.
    differ = n_prompt + n_generated < tokens if measured else n_prompt + n_generated != tokens
    if (bad := present & differ).any():
        yield Problem(
            "count",
            _label(ds, "n_prompt + n_generated", bad, DIMS[:3]),
            _first(n_prompt + n_generated, bad),
            f"{_first(tokens, bad)} tokens that were read",
        )
    if (bad := ~present & ((n_prompt != 0) | (n_generated != 0))).any():
        yield Problem(
            "count", _label(ds, "n_prompt", bad), _first(n_prompt, bad), "0 for a run not extracted"
        )
    if "phase" in ds and ds["phase"].dims == DIMS[:4]:
        wanted = np.arange(quality.shape[3]) >= n_prompt[..., None]
        if (bad := read & (ds["phase"].values.astype(bool) != wanted)).any():
            yield Problem(
                "count",
                _label(ds, "phase", bad),
                _first(ds["phase"].values, bad),
                "prompt for the first n_prompt tokens, then generated",
            )
    yield from _ends(ds, present, n_generated)


def _ends(ds: xr.Dataset, present: np.ndarray, n_generated: np.ndarray) -> Iterator[Problem]:
    if "first_end_of_text" in ds and ds["first_end_of_text"].dims == DIMS[:3]:
        at = ds["first_end_of_text"].values
        if (bad := at >= np.maximum(n_generated, 0)).any():
            yield Problem(
                "count", _label(ds, "first_end_of_text", bad), _first(at, bad), "below n_generated, or -1"
            )
    if "stop_reason" in ds and ds["stop_reason"].dims == DIMS[:3]:
        reasons = ds["stop_reason"].values
        allowed = np.isin(reasons.astype(str), STOP_REASONS)
        if (bad := present & ~allowed).any():
            yield Problem(
                "text", _label(ds, "stop_reason", bad), _first(reasons, bad), " | ".join(STOP_REASONS)
            )


def _identities(ds: xr.Dataset) -> Iterator[Problem]:
    for breach in breaches(ds):
        dims = DIMS[: breach.bad.ndim]
        yield Problem("identity", _label(ds, breach.name, breach.bad, dims), breach.found, breach.expected)


def _label(ds: xr.Dataset, name: str, bad: np.ndarray, dims: tuple[Any, ...] | None = None) -> str:
    at = np.argwhere(bad)
    dims = dims or ds[name].dims
    words = ", ".join(f"{d} {ds[d].values[i]}" for d, i in zip(dims, at[0], strict=False))
    more = f" and {len(at) - 1} more" if len(at) > 1 else ""
    return f"{name} at {words}{more}" if words else name


def _first(values: np.ndarray, bad: np.ndarray) -> str:
    return str(values[bad][0])


def _some(values: np.ndarray) -> str:
    return ", ".join(str(v) for v in values[:5]) + (", ..." if len(values) > 5 else "")
