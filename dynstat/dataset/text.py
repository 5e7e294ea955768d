"""Check text before NetCDF changes it silently: it cuts at NUL, stores None as "", refuses categories."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import DynstatError

# Line feeds and tabs belong to prompts and are kept by the format; the other C0 controls, DEL, the C1 block
# and lone surrogates are not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def check_text(values: Iterable[Any], where: str) -> None:
    """Raise D106 where a value is not text, or holds a character that storage would change.

    Parameters
    ----------
    values : iterable
        The strings.
    where : str
        Variable or attribute, for the message.
    """
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise DynstatError(
                "D106",
                f"{where} holds a value that is not text",
                where=f"{where}[{i}]",
                found=f"{value!r} ({type(value).__name__})",
                expected="str",
                mend="NetCDF would store None as an empty text; say what is meant",
            )
        if bad := _FORBIDDEN.search(value):
            raise DynstatError(
                "D106",
                f"{where} holds a control character",
                where=f"{where}[{i}], character {bad.start()}",
                found=repr(value[max(0, bad.start() - 20) : bad.start() + 20]),
                expected="text without control characters other than line feed and tab",
                mend="escape it; NetCDF cuts text at NUL",
            )


def text_array(values: Any, where: str) -> np.ndarray:
    """Return `values` as a checked object array of str; pandas categories and string types are converted."""
    # As objects: numpy's fixed-width strings would cut trailing NULs before they are seen.
    array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    out = np.empty(array.shape, dtype=object)
    # numpy's own string types hold str subclasses; files and hashes want plain str.
    flat = [str(v) if isinstance(v, str) else v for v in array.ravel().tolist()]
    check_text(flat, where)
    out.ravel()[:] = flat
    return out


def is_text(array: Any) -> bool:
    """Return whether an array holds text by its type: object, fixed-width or variable-width strings."""
    # pandas' own types, categories included, say "O" too.
    return getattr(array.dtype, "kind", "O") in "OUT"
