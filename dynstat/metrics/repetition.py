"""Repetition rate: how much of what a run generates it has already said."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError


def repetition_rate(
    token_id: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    n: int = 4,
    history: str = "run",
    start: int = 0,
) -> NDArray[np.float64]:
    """Return the share of generated n-grams that the run has already shown.

    Parameters
    ----------
    token_id : array_like of int, shape (..., token)
        -1 at padding.
    mask : array_like of bool, optional
        Generated tokens; all of the run by default.
    n : int
        Length of the n-grams.
    history : {"run", "generated"}
        What counts as shown: the run with its prompt, or the generated part alone.
    start : int
        Count only n-grams that begin at or after this many generated tokens; earlier ones are history. For
        outcomes after a time t0.

    Returns
    -------
    ndarray, shape (...)
        Dimensionless, [0, 1]; NaN where no n-gram is left to count.

    Raises
    ------
    DynstatError
        S404 for n below 1, a negative start, or an unknown history.

    Notes
    -----
    Formula: n-grams that lie wholly among the generated tokens and whose like ends earlier in the run,
    over all that lie wholly among the generated tokens. Origin dynstat.

    Examples
    --------
    >>> float(repetition_rate([5, 6, 5, 6, 5, 6], n=2).round(3))
    0.6
    """
    if n < 1 or start < 0 or history not in ("run", "generated"):
        raise DynstatError(
            "S404",
            "repetition_rate needs n >= 1, start >= 0, history run | generated",
            found=f"n={n}, start={start}, history={history!r}",
        )
    ids = np.asarray(token_id)
    valid = ids >= 0
    generated = valid if mask is None else valid & np.broadcast_to(np.asarray(mask, dtype=bool), ids.shape)
    out = np.full(ids.shape[:-1], np.nan)
    for run in np.ndindex(out.shape):
        keep = valid[run] if history == "run" else generated[run]
        tokens, new = ids[run][keep].tolist(), generated[run][keep]
        # How many generated tokens stand before each place.
        before = np.cumsum(new) - new
        seen: set[tuple[int, ...]] = set()
        count = repeated = 0
        for i in range(len(tokens) - n + 1):
            gram = tuple(tokens[i : i + n])
            if new[i : i + n].all() and before[i] >= start:
                count += 1
                repeated += gram in seen
            seen.add(gram)
        if count:
            out[run] = repeated / count
    return out
