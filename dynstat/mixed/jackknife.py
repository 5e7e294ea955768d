"""Delete-group jackknife intervals of variance shares: the panel's own uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ..inference.estimate import TPivot

Array = NDArray[np.float64]


class JackknifeShare(NamedTuple):
    """A share with its pivot: the value reported, the pivot, and the scale it was made on."""

    value: float
    pivot: TPivot
    scale: str


def jackknife_share(share: float, left_out: Array, free_share: float, free_left_out: Array) -> JackknifeShare:
    """Return the delete-group jackknife of one share.

    With G left-out values ψ_g on the logit scale, se² = (G−1)/G · Σ(ψ_g − mean ψ)², and the pivot is
    t with G−1 degrees of freedom about the logit of the estimate. Where the estimate or a left-out value is
    0 or 1 the logit has no value: then the same on the raw scale, on shares from components allowed below
    zero, and both the value and the limits are cut to [0, 1].

    Parameters
    ----------
    share, free_share : float
        From all rows: REML, and from unbounded components.
    left_out, free_left_out : ndarray, shape (G,)
        The same with one group of units left out.

    Source: Shao and Tu 1995, The Jackknife and Bootstrap, section 2.3; Wolter 2007, ch. 4.
    """
    g = left_out.size
    inside = 0 < share < 1 and bool(np.all((left_out > 0) & (left_out < 1)))
    if inside:
        psi = special.logit(left_out)
        pivot = TPivot(float(special.logit(share)), _se(psi), g - 1, "logit", (0.0, 1.0))
        return JackknifeShare(float(share), pivot, "logit")
    pivot = TPivot(float(free_share), _se(free_left_out), g - 1, "identity", (0.0, 1.0))
    return JackknifeShare(float(np.clip(free_share, 0, 1)), pivot, "raw")


def jackknife_plain(value: float, left_out: Array) -> TPivot:
    """Return the delete-group jackknife of a statistic on its own scale."""
    return TPivot(float(value), _se(left_out), left_out.size - 1)


def _se(values: Array) -> float:
    g = values.size
    return float(np.sqrt((g - 1) / g * np.sum((values - values.mean()) ** 2)))
