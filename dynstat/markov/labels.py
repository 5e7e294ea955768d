"""Labels of sequences as codes: groups, strata, and the units that are resampled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Resampler
from .sequences import Sequences

Codes = NDArray[np.intp]


def label_codes(sequences: Sequences, column: str | None) -> tuple[Codes, tuple[str, ...]]:
    """Return the code of every sequence in a column of labels, and the names in sorted order.

    Parameters
    ----------
    sequences : Sequences
    column : str or None
        None puts all sequences into one group, "all"; "sequence" (where no such column exists) every sequence
        into its own.

    Raises
    ------
    DynstatError
        S407 where the column is missing or holds missing values.
    """
    if column is None:
        return np.zeros(len(sequences), dtype=np.intp), ("all",)
    if column == "sequence" and column not in sequences.labels:
        return np.arange(len(sequences), dtype=np.intp), tuple(map(str, range(len(sequences))))
    codes, found = pd.factorize(_complete(sequences, column))
    names, place = np.unique([str(f) for f in found], return_inverse=True)
    return place.astype(np.intp)[codes], tuple(map(str, names.tolist()))


def unit_codes(sequences: Sequences, unit: str = "prompt", *, strata: str | None = None) -> Resampler:
    """Return the resampler over a column of labels: a unit comes with all its sequences, of all models.

    Parameters
    ----------
    sequences : Sequences
    unit : str
        Column of labels; "sequence" (where no such column exists) takes every sequence alone.
    strata : str, optional
        Column within whose levels units are drawn.

    Raises
    ------
    DynstatError
        S407 where a column is missing or a sequence has no value in it, S404 where a unit lies in two strata.
    """
    if unit == "sequence" and unit not in sequences.labels:
        column: pd.Series[Any] = pd.Series(np.arange(len(sequences)))
    else:
        column = _complete(sequences, unit)
    within = _complete(sequences, strata).astype(str) if strata else None
    values = column.to_numpy() if column.dtype.kind in "iuf" else column.astype(str).to_numpy()
    return Resampler.of(values, within)


def _complete(sequences: Sequences, column: str) -> pd.Series[Any]:
    values = sequences.column(column)
    if missing := int(values.isna().sum()):
        raise DynstatError(
            "S407",
            f"some sequences have no {column}",
            where=column,
            found=f"{missing} of {len(sequences)} sequences",
            mend="select the sequences that have one",
        )
    return values
