"""Shares that no unit shows: a bootstrap draws only zeros, and would call the share known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special


def shares_of_none(units: int, size: int = 999) -> NDArray[np.float64]:
    """Return values whose quantiles limit a share that none of `units` units shows.

    The upper half are quantiles of Jeffreys' posterior Beta(1/2, units + 1/2), every unit counted once
    whatever its number of sequences; the lower half are 0, so that the interval begins there.

    Parameters
    ----------
    units : int
    size : int
        Number of values.

    Returns
    -------
    ndarray, shape (size,)

    Examples
    --------
    >>> float(np.quantile(shares_of_none(72), 0.975).round(3)), float(np.quantile(shares_of_none(72), 0.025))
    (0.034, 0.0)
    """
    at = (np.arange(size) + 0.5) / size
    return np.where(at < 0.5, 0.0, special.betaincinv(0.5, units + 0.5, at))
