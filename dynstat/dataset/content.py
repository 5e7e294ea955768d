"""Hash what a dataset says, whatever file, engine or compression holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .schema import SCHEMA
from .text import is_text

# Of the attributes, those that give a number its meaning. Titles, dates, hosts and versions do not.
MEANING = ("units", "definition", "options", "readout", "flag_values", "flag_meanings")
# Where a model was read from is a place, not an identity: its hashes are.
NOT_CONTENT = ("source",)


def content_hash(ds: xr.Dataset) -> str:
    """Return the SHA-256 of a dataset's content in hexadecimal.

    Hashed are, by sorted name, every coordinate and data variable: dims, shape, number type, values (little
    endian, one NaN for all) and the attributes that carry meaning (units, definition and its options,
    read-out, flags); text as UTF-8 JSON. Root attributes other than the schema are left out, as is the
    coordinate `source`.

    Parameters
    ----------
    ds : xarray.Dataset

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(SCHEMA.encode())
    names = sorted(str(n) for n in ds.variables if n not in NOT_CONTENT)
    for name in names:
        variable = ds.variables[name]
        values = np.asarray(variable.values)
        text = is_text(values)
        head = {
            "name": name,
            "coordinate": name in ds.coords,
            "dims": [str(d) for d in variable.dims],
            "shape": list(values.shape),
            "dtype": "str" if text else values.dtype.newbyteorder("<").str,
            "attrs": {k: _plain(variable.attrs[k]) for k in meaning(variable.attrs)},
        }
        digest.update(_framed(json.dumps(head, sort_keys=True, ensure_ascii=False).encode()))
        if text:
            body = json.dumps([str(v) for v in values.ravel().tolist()], ensure_ascii=False)
            digest.update(_framed(body.encode("utf-8", "surrogatepass")))
        else:
            digest.update(_framed(_canonical(values)))
    return digest.hexdigest()


def meaning(attrs: Mapping[Any, Any]) -> list[str]:
    """Return which attributes give a number its meaning, the settings of a read-out among them."""
    return [*(k for k in MEANING if k in attrs), *sorted(k for k in attrs if str(k).startswith("readout_"))]


def _canonical(values: np.ndarray) -> Any:
    out = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if out.dtype.kind == "f" and (holes := np.isnan(out)).any():
        out = np.where(holes, np.array(np.nan, out.dtype), out)
    return out.data.cast("B") if out.size else b""


def _framed(data: Any) -> bytes:
    # Lengths in front keep one field from running into the next.
    raw = bytes(data)
    return len(raw).to_bytes(8, "little") + raw


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    return value.item() if isinstance(value, np.generic) else value
