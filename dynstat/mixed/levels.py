"""Levels of grouping factors: labels and codes of what occurs in a column or a combination of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from .columns import mark

Array = NDArray[np.float64]
Seen = dict[str, tuple[NDArray[np.int64], NDArray[Any]]]


def level_words(column: pd.Series) -> list[str]:
    """Return the values of a column as labels of levels: whole numbers without a decimal point, as in R."""
    if not pd.api.types.is_float_dtype(column.dtype):
        return [str(v) for v in column]
    return [str(int(v)) if np.isfinite(v) and v == int(v) else str(v) for v in column]


def _occurring(codes: NDArray[np.int64], size: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return the codes below `size` that occur, and every row's place among them, by counting."""
    if size > 4 * codes.size + 1000:
        joint, inverse = np.unique(codes, return_inverse=True)
        return joint.astype(np.intp), inverse
    joint = np.flatnonzero(np.bincount(codes, minlength=size))
    if joint.size == size:
        return joint, codes
    place = np.zeros(size, dtype=np.int64)
    place[joint] = np.arange(joint.size)
    return joint, place[codes]


def interaction(
    rows: pd.DataFrame, names: tuple[str, ...], text: str, seen: Seen | None = None
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return codes and labels of the combinations that occur, the last variable running fastest.

    `seen` keeps the codes of single columns for further terms on the same rows.
    """
    seen = {} if seen is None else seen
    codes = np.zeros(len(rows), dtype=np.int64)
    labels: NDArray[Any] = np.array([""], dtype=object)
    for i, name in enumerate(names):
        if name not in seen:
            seen[name] = _single(rows[name], name, text)
        new, words = seen[name]
        if i == 0:
            codes, labels = new, words
            continue
        joint, codes = _occurring(codes * len(words) + new, max(len(labels) * len(words), 1))
        left, right = labels[joint // len(words)], words[joint % len(words)]
        labels = np.array([f"{a}:{b}" for a, b in zip(left, right, strict=True)], dtype=object)
    return codes.astype(np.intp), tuple(labels.tolist())


def _single(column: pd.Series, name: str, text: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return codes and labels of one column."""
    if pd.api.types.is_float_dtype(column.dtype):
        check_finite(column.to_numpy(float)[:, None], (name,), "a grouping factor", text)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
        new, cats = column.cat.codes.to_numpy().astype(np.int64), column.cat.categories
    else:
        new, cats = pd.factorize(column, sort=True)
    return new.astype(np.int64, copy=False), np.array(level_words(pd.Series(cats)), dtype=object)


def same_partition(a: NDArray[np.intp], b: NDArray[np.intp]) -> bool:
    """Say whether two codings divide the rows alike."""
    _, first, inverse = np.unique(a, return_index=True, return_inverse=True)
    return bool(np.array_equal(b[first][inverse], b) and np.unique(b[first]).size == first.size)


def check_finite(values: Array, names: tuple[str, ...], what: str, text: str) -> None:
    """Refuse infinite or undefined values (S402), naming their columns; values (n, k)."""
    bad = ~np.isfinite(values)
    if bad.any():
        columns = [names[i] for i in np.flatnonzero(bad.any(axis=0))]
        raise DynstatError(
            "S402",
            f"{what} holds infinite or undefined values",
            where=mark(text, columns[0]),
            found=f"{int(bad.any(axis=1).sum())} rows in {', '.join(columns)}",
            expected="finite numbers",
            mend="drop these rows, or change the transformation",
        )
