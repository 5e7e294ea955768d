"""Build a labelled dataset from plain arrays and descriptions of models, prompts and samples."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from .. import __version__
from ..errors import DynstatError
from ..files import canonical_json
from ..registry import METRICS, Metric
from .schema import (
    ALWAYS,
    CONVENTIONS,
    COORDINATES,
    DIMS,
    EXTRACTED,
    LEVEL_DIMS,
    MARKS,
    NOT_EXTRACTED,
    OK,
    PADDING,
    SCHEMA,
    SEPARATOR,
    TRUNCATED,
    Variable,
    base_name,
    is_mark,
)
from .text import text_array

Definition = str | Mapping[str, Any]


def build(
    *,
    models: Sequence[Mapping[str, Any]],
    prompts: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    n_tokens: int,
    n_layers: int,
    values: Mapping[str, Any],
    readouts: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    definitions: Mapping[str, Definition] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Attach dims, coordinates, attributes and fills to arrays.

    Parameters
    ----------
    models : sequence of mapping
        Keys id, revision, family, architecture, parameters, vocabulary, n_layers (number of layer indices,
        the input of the first block included), weights_sha256, tokenizer_sha256, dtype, attn_implementation,
        source; `factors` is a mapping whose keys become coordinates, and so is `facts`, which are no factors.
    prompts : sequence of mapping
        Keys id, text, category, template, split, answers, distractors (lists of str); further keys become
        text coordinates.
    samples : sequence of mapping
        Keys id, seed, temperature (greedy: 0, seed -1), budget, mode; for interventions kind, target_layer,
        dose, intervention_phase.
    n_tokens, n_layers : int
        Sizes of the last two dims.
    values : mapping of str to array
        By variable name, full shape in the order model, prompt, sample, token, layer, as far as the level of
        the variable goes. `quality` is needed; where it is not ok, other values are replaced by their fill.
    readouts : mapping of str to str
        Attribute `readout` of variables named ``metric__variant``.
    options : mapping of str to mapping
        Options of the definitions that differ from their defaults; written as attribute `options`.
    definitions : mapping
        For variables that no registry knows: a metric id, or long_name, units and, at need, valid_min,
        valid_max, level (run, token, layer), undefined, reference.
    attributes : mapping of str to mapping
        Further attributes of variables, such as those of a read-out, ``readout_...``.
    attrs : mapping
        Root attributes beside those every dataset carries. `dynstat_kind` is "panel" unless given.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    DynstatError
        D103 (variables missing), D104 (shape), D106 (text that cannot be stored), Y002 (unknown key),
        Y003 (unknown metric, a value that a definition cannot have).
    """
    attrs = dict(attrs or {})
    readouts, options, definitions = dict(readouts or {}), dict(options or {}), dict(definitions or {})
    sizes = dict(zip(DIMS, (len(models), len(prompts), len(samples), n_tokens, n_layers), strict=True))
    kind = attrs.get("dynstat_kind", "panel")
    wanted = [n for n, v in ALWAYS.items() if v.required and (kind in EXTRACTED or n == "quality")]
    if missing := [n for n in wanted if n not in values]:
        raise DynstatError(
            "D103",
            "variables that are always there are missing",
            found=", ".join(values) or "none",
            expected=", ".join(missing),
            where="values",
        )
    coords = _coordinates(models, prompts, samples, n_tokens, n_layers)
    quality = _shaped("quality", values["quality"], LEVEL_DIMS["layer"], "int8", sizes)
    of_token = token_quality(quality)
    gaps = {"layer": quality != OK, "token": of_token != OK, "run": ~run_present(quality)}
    # A token whose states are not finite was read all the same: its id and kind are known.
    gaps["token id"] = np.isin(of_token, (PADDING, NOT_EXTRACTED, TRUNCATED))
    data = {}
    for name in [n for n in ALWAYS if n in values] + [n for n in values if n not in ALWAYS]:
        dims, dtype, own, fill = describe(name, definitions.get(name), readouts.get(name), options.get(name))
        array = _shaped(name, values[name], dims, dtype, sizes)
        if name != "quality":
            level = _level(dims)
            gap = gaps["token id" if level == "token" and array.dtype.kind == "i" else level]
            if gap.any():
                array = np.where(gap, np.array(fill, array.dtype), array)
        data[name] = (dims, array, own | dict((attributes or {}).get(name, {})))
    ds = xr.Dataset(data, coords=coords)
    ds.attrs = root_attrs(attrs)
    return ds


def describe(
    name: str,
    definition: Definition | None = None,
    readout: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[tuple[str, ...], str, dict[str, Any], Any]:
    """Return dims, dtype, attributes and fill of a data variable by its name or its definition."""
    if name in ALWAYS and definition is None:
        v = ALWAYS[name]
        return v.dims, v.dtype, variable_attrs(v), v.fill
    if isinstance(definition, Mapping):
        v = _user_variable(name, definition)
        return v.dims, v.dtype, variable_attrs(v) | {"definition": f"user.{name}@1"}, v.fill
    metric: Metric = METRICS.get(definition or base_name(name))
    integer = np.dtype(metric.dtype).kind == "i"
    v = Variable(
        name,
        LEVEL_DIMS[metric.level],
        metric.dtype,
        metric.long_name,
        -1 if integer else float("nan"),
        metric.units,
        metric.valid_min,
        metric.valid_max,
        metric.flags,
        metric.undefined,
        True,
        metric.origin,
        metric.reference,
    )
    attributes = variable_attrs(v) | {"definition": metric.id}
    if metric.options:
        attributes["options"] = canonical_json(metric.fill(options or {})).decode()
    if readout or "__" in name:
        attributes["readout"] = readout or name.partition("__")[2]
    return v.dims, v.dtype, attributes, v.fill


def _user_variable(name: str, given: Mapping[str, Any]) -> Variable:
    known = {"long_name", "units", "valid_min", "valid_max", "level", "undefined", "reference"}
    if unknown := set(given) - known:
        raise DynstatError(
            "Y002",
            f"the definition of {name!r} has unknown keys",
            where=f"definitions[{name!r}]",
            found=", ".join(sorted(unknown)),
            expected=", ".join(sorted(known)),
        )
    if missing := {"long_name", "units"} - set(given):
        raise DynstatError(
            "Y002",
            f"the definition of {name!r} is incomplete",
            where=f"definitions[{name!r}]",
            expected=", ".join(sorted(missing)),
            mend="units are '1' where there are none",
        )
    undefined = given.get("undefined", ())
    undefined = tuple(undefined.split() if isinstance(undefined, str) else undefined)
    numbers = [given[k] for k in ("valid_min", "valid_max") if given.get(k) is not None]
    for key, fits, expected in (
        ("level", given.get("level", "layer") in LEVEL_DIMS, " | ".join(LEVEL_DIMS)),
        ("undefined", all(map(is_mark, undefined)), " | ".join(MARKS)),
        ("valid_min, valid_max", all(isinstance(v, Real) for v in numbers), "numbers"),
    ):
        if not fits:
            raise DynstatError(
                "Y003",
                f"the definition of {name!r} has a value that is not allowed",
                where=f"definitions[{name!r}], {key}",
                found=", ".join(repr(given[k]) for k in key.split(", ") if k in given),
                expected=expected,
            )
    return Variable(
        name,
        LEVEL_DIMS[given.get("level", "layer")],
        "float32",
        given["long_name"],
        float("nan"),
        given["units"],
        given.get("valid_min"),
        given.get("valid_max"),
        (),
        undefined,
        True,
        "user",
        given.get("reference", "the user's own measurement"),
    )


def variable_attrs(v: Variable) -> dict[str, Any]:
    """Return the attributes of a variable as they are written, numbers in the variable's own type."""
    out: dict[str, Any] = {"long_name": v.long_name}
    if v.dtype != "str":
        dtype = np.dtype(v.dtype)
        limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        low = limits.min if v.valid_min is None or np.isneginf(v.valid_min) else v.valid_min
        high = limits.max if v.valid_max is None or np.isposinf(v.valid_max) else v.valid_max
        if v.flags:
            # Classifications say -1 for none, and so by their own range.
            low, high = (low if v.valid_min is not None else 0), min(high, len(v.flags) - 1)
        out |= {"units": v.units, "valid_min": dtype.type(low), "valid_max": dtype.type(high)}
    out |= {"definition": v.definition, "origin": v.origin, "reference": v.reference}
    if v.flags:
        out["flag_values"] = np.arange(len(v.flags), dtype=v.dtype)
        out["flag_meanings"] = " ".join(v.flags)
    if v.undefined:
        out["undefined"] = " ".join(v.undefined)
    return out


def coordinate_attrs(name: str, role: str = "") -> dict[str, Any]:
    """Return the attributes of a coordinate; those outside the schema get a plain long_name."""
    if name in COORDINATES:
        v = COORDINATES[name]
        full = variable_attrs(v)
        return {k: full[k] for k in ("long_name", "units", "valid_min", "valid_max") if k in full}
    return {"long_name": f"{role or 'property'} {name}"} | ({"role": role} if role else {})


def root_attrs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the root attributes: `given`, and a default for each that every dataset carries."""
    now = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
    defaults = {
        "Conventions": CONVENTIONS,
        "title": "Internal dynamics of language models",
        "summary": "Hidden-state geometry and next-token distributions of models, by token and layer.",
        "license": "CC0-1.0",
        "history": f"{date} created by dynstat {__version__}",
        "date_created": date,
        "creator_name": "not stated",
        "creator_type": "person",
        "dynstat_kind": "panel",
        "dynstat_version": __version__,
        "dynstat_schema": SCHEMA,
    }
    return {k: given.get(k, v) for k, v in defaults.items()} | {
        k: v for k, v in given.items() if k not in defaults
    }


def relative_depth(layers: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Return layer / (layers - 1) by model and layer, -1 where the model has no such layer."""
    last = np.maximum(np.asarray(layers, float) - 1, 1)[:, None]
    depth = np.asarray(layer, float)[None, :] / last
    return np.where(np.asarray(layer)[None, :] < np.asarray(layers)[:, None], depth, -1.0)


def token_quality(quality: np.ndarray) -> np.ndarray:
    """Return the quality of tokens: ok where any layer is, else that of the first layer."""
    return np.where((quality == OK).any(-1), np.int8(OK), quality[..., 0])


def run_present(quality: np.ndarray) -> np.ndarray:
    """Return which runs (model, prompt, sample) were extracted at all."""
    return np.asarray((quality < NOT_EXTRACTED).any((-2, -1)))


def column(values: Sequence[Any], where: str) -> np.ndarray:
    """Return a coordinate from plain values: numbers where all are, else text; True is "true", None is ""."""
    if values and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values):
        return np.asarray(values, np.int64)
    if values and all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in values):
        return np.asarray(values, np.float64)
    words = [
        "" if v is None else str(v).lower() if isinstance(v, (bool, np.bool_)) else str(v) for v in values
    ]
    return text_array(words, where)


def _level(dims: tuple[str, ...]) -> str:
    return {3: "run", 4: "token", 5: "layer"}[len(dims)]


def _shaped(name: str, array: Any, dims: tuple[str, ...], dtype: str, sizes: Mapping[str, int]) -> np.ndarray:
    shape = tuple(sizes[d] for d in dims)
    out = text_array(array, name) if dtype == "str" else np.asarray(array)
    if out.shape != shape:
        raise DynstatError(
            "D104", f"{name} has the wrong shape", where=name, found=out.shape, expected=f"{shape} for {dims}"
        )
    if dtype == "str":
        return out
    if np.dtype(dtype).kind == "i" and out.dtype.kind not in "iub":
        raise DynstatError("D104", f"{name} must hold integers", where=name, found=out.dtype, expected=dtype)
    return out.astype(dtype, copy=False)


def _coordinates(
    models: Sequence[Mapping[str, Any]],
    prompts: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    n_tokens: int,
    n_layers: int,
) -> dict[str, Any]:
    coords: dict[str, Any] = {}
    roles = {key: role for role in ("fact", "factor") for m in models for key in m.get(f"{role}s", {})}
    rename = {"model": "id", "layers": "n_layers", "prompt": "id", "prompt_text": "text", "sample": "id"}
    for dim, rows in (("model", models), ("prompt", prompts), ("sample", samples)):
        known = {rename.get(n, n): n for n, v in COORDINATES.items() if v.dims == (dim,)}
        extra = {k for row in rows for k in row} - set(known) - {"factors", "facts"}
        if extra and dim != "prompt":
            raise DynstatError(
                "Y002",
                f"unknown keys in the description of a {dim}",
                where=f"{dim}s",
                found=", ".join(sorted(extra)),
                expected=", ".join(known),
                mend="put properties of models under `factors`" if dim == "model" else "",
            )
        for key, name in known.items():
            v = COORDINATES[name]
            if not v.required and not any(key in row for row in rows):
                continue
            raw = [row.get(key, v.fill) for row in rows]
            if name in ("answers", "distractors"):
                raw = [r if isinstance(r, str) else SEPARATOR.join(r) for r in raw]
            array = text_array(raw, name) if v.dtype == "str" else np.asarray(raw, v.dtype)
            coords[name] = (dim, array, coordinate_attrs(name))
        for key in sorted(extra):
            coords[_free(key)] = (dim, column([row.get(key) for row in rows], key), coordinate_attrs(key))
    for key, role in roles.items():
        raw = [m.get(f"{role}s", {}).get(key) for m in models]
        attrs = coordinate_attrs(key, role if role == "factor" else "")
        coords[_free(key)] = ("model", column(raw, key), attrs)
    coords["token"] = ("token", np.arange(n_tokens, dtype=np.int32), coordinate_attrs("token"))
    coords["layer"] = ("layer", np.arange(n_layers, dtype=np.int32), coordinate_attrs("layer"))
    depth = relative_depth(coords["layers"][1], coords["layer"][1])
    coords["relative_depth"] = (("model", "layer"), depth, coordinate_attrs("relative_depth"))
    return coords


def _free(key: str) -> str:
    if key in COORDINATES or key in ALWAYS or not key.isidentifier():
        raise DynstatError(
            "Y002",
            f"{key!r} cannot be the name of a coordinate",
            where=key,
            expected="a name of letters, digits and _ that the schema does not use",
        )
    return key
