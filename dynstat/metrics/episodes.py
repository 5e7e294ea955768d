"""COLLAPSE and RIVALRY: episodes with hysteresis, their starts, ends and open borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .normalisation import masked

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Episodes:
    """Episodes found in a set of runs, one entry an episode, in order of run and start.

    Attributes
    ----------
    run : ndarray of int, shape (n, dims)
        Index of the run in the leading dims.
    start, end : ndarray of int, shape (n,)
        First token of the episode, and the token at which it ended; for an episode that is still open the
        last valid token plus one.
    left_open : ndarray of bool
        Already under way at the first valid token: its true start is unknown.
    right_open : ndarray of bool
        Still under way at the last valid token: its end is unknown (censored, or cut by end of text).
    """

    run: NDArray[np.intp]
    start: NDArray[np.intp]
    end: NDArray[np.intp]
    left_open: NDArray[np.bool_]
    right_open: NDArray[np.bool_]

    def __len__(self) -> int:
        return self.start.size

    @property
    def length(self) -> NDArray[np.intp]:
        """Tokens from start to end."""
        return self.end - self.start


def hysteresis(
    x: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    enter: float,
    leave: float,
    below: bool = True,
) -> NDArray[np.int8]:
    """Follow a series into and out of a zone whose way out is harder than its way in.

    Parameters
    ----------
    x : array_like, shape (..., token)
    mask : array_like of bool, optional
        Tokens to use. Tokens left out between others carry the state on and get -1 themselves.
    enter, leave : float
        With `below`, in where ``x < enter`` and out where ``x > leave`` (``enter <= leave``); otherwise in
        where ``x > enter`` and out where ``x <= leave`` (``leave <= enter``).
    below : bool

    Returns
    -------
    ndarray of int8, shape (..., token)
        1 inside, 0 outside, -1 where masked or NaN. A run starts outside unless its first token enters.

    Raises
    ------
    DynstatError
        S404 for thresholds in the wrong order.

    Examples
    --------
    >>> hysteresis([0.5, 0.1, 0.2, 0.4, 0.2], enter=0.15, leave=0.3).tolist()
    [0, 1, 1, 0, 0]
    """
    if (enter > leave) if below else (leave > enter):
        raise DynstatError(
            "S404",
            "hysteresis needs the way out beyond the way in",
            found=f"enter {enter}, leave {leave}",
            expected="enter <= leave" if below else "leave <= enter",
        )
    values = masked(x, mask)
    with np.errstate(invalid="ignore"):
        goes_in = values < enter if below else values > enter
        goes_out = values > leave if below else values <= leave
    # The state is that of the last token that crossed a threshold.
    position = np.arange(values.shape[-1])
    last = np.maximum.accumulate(np.where(goes_in | goes_out, position, -1), axis=-1)
    inside = np.take_along_axis(goes_in, np.maximum(last, 0), axis=-1) & (last >= 0)
    return np.where(np.isfinite(values), inside, -1).astype(np.int8)


def collapse(
    normalised_entropy: ArrayLike, mask: ArrayLike | None = None, *, enter: float, leave: float
) -> NDArray[np.int8]:
    """Return whether the final distribution of every token is in COLLAPSE.

    Parameters
    ----------
    normalised_entropy : array_like, shape (..., token)
        ``H / ln V`` of the last layer.
    mask : array_like of bool, optional
    enter, leave : float
        In below `enter`, out above `leave`; from :func:`collapse_thresholds` on the pilot.

    Returns
    -------
    ndarray of int8, shape (..., token)
        1 COLLAPSE, 0 open, -1 no value. Not exclusive with RIVALRY: two tokens that share all mass have
        low entropy too.

    Raises
    ------
    DynstatError
        S404 for ``enter > leave``.

    Notes
    -----
    Origin dynstat: Paper 2 speaks of low-entropy COLLAPSE states and publishes neither threshold nor end.
    """
    return hysteresis(normalised_entropy, mask, enter=enter, leave=leave)


def collapse_thresholds(
    normalised_entropy: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    enter_quantile: float = 0.10,
    leave_quantile: float = 0.25,
) -> tuple[float, float]:
    """Learn where COLLAPSE begins and ends from pilot data.

    Parameters
    ----------
    normalised_entropy : array_like
        ``H / ln V`` of the last layer in the pilot, all models pooled.
    mask : array_like of bool, optional
    enter_quantile, leave_quantile : float
        In (0, 1), in this order.

    Returns
    -------
    tuple of float
        enter, leave.

    Raises
    ------
    DynstatError
        S404 for quantiles out of order, S403 where no values are left.
    """
    if not 0 < enter_quantile <= leave_quantile < 1:
        raise DynstatError(
            "S404", "quantiles must ascend within 0 and 1", found=f"{enter_quantile}, {leave_quantile}"
        )
    values = masked(normalised_entropy, mask)
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise DynstatError("S403", "the pilot holds no values of H / ln V at the last layer")
    enter, leave = np.quantile(values, [enter_quantile, leave_quantile])
    return float(enter), float(leave)


def rivalry(
    competition: ArrayLike, mask: ArrayLike | None = None, *, enter: float = 0.5, leave: float = 0.5
) -> NDArray[np.int8]:
    """Return whether leader and runner-up of the final distribution are close.

    Parameters
    ----------
    competition : array_like, shape (..., token)
        ``p_(2) / p_(1)`` of the last layer.
    mask : array_like of bool, optional
    enter, leave : float
        In above `enter`, out at or below `leave`; equal by default, so without hysteresis.

    Returns
    -------
    ndarray of int8, shape (..., token)
        1 RIVALRY, 0 apart, -1 no value.

    Raises
    ------
    DynstatError
        S404 for ``leave > enter``.

    Notes
    -----
    Origin dynstat: Paper 2 names RIVALRY and publishes no threshold.
    """
    return hysteresis(competition, mask, enter=enter, leave=leave, below=False)


def find_episodes(inside: ArrayLike) -> Episodes:
    """List the episodes of a series of codes.

    Parameters
    ----------
    inside : array_like of int, shape (..., token)
        1 inside, 0 outside, -1 no value, as :func:`hysteresis` returns; a -1 between two 1 does not end an
        episode.

    Returns
    -------
    Episodes
        Those already open at the first valid token are flagged, to be left out of waiting times.

    Examples
    --------
    >>> e = find_episodes([1, 1, 0, 0, 1, -1])
    >>> e.start.tolist(), e.end.tolist(), e.left_open.tolist(), e.right_open.tolist()
    ([0, 4], [2, 5], [True, False], [False, True])
    """
    codes = np.asarray(inside)
    lines = codes.reshape(int(np.prod(codes.shape[:-1])), codes.shape[-1])
    row, token = np.nonzero(lines >= 0)
    if not row.size:
        none, flags = np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.bool_)
        return Episodes(np.zeros((0, codes.ndim - 1), dtype=np.intp), none, none, flags, flags)
    within = lines[row, token] == 1
    # Valid tokens stand in one line: where a run begins and ends, and where the code changes.
    first_of_run = np.concatenate([[True], row[1:] != row[:-1]])
    last_of_run = np.concatenate([first_of_run[1:], [True]])
    changes = np.concatenate([[True], within[1:] != within[:-1]])
    first = np.flatnonzero(within & (first_of_run | changes))
    last = np.flatnonzero(within & (last_of_run | np.concatenate([changes[1:], [True]])))
    right_open = last_of_run[last]
    end = np.where(right_open, token[last] + 1, token[np.minimum(last + 1, token.size - 1)])
    run = np.stack(np.unravel_index(row[first], codes.shape[:-1]), axis=-1) if codes.ndim > 1 else None
    return Episodes(
        np.zeros((first.size, 0), dtype=np.intp) if run is None else run.astype(np.intp),
        token[first].astype(np.intp),
        end.astype(np.intp),
        first_of_run[first],
        right_open,
    )
