"""New outcomes from a fitted mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError
from ..inference.resample import Rng, as_generator
from .prediction import chosen_columns, needs_rows

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]


def simulate(m: LmerResult, n: int = 1, rng: Rng = None, re: str = "none") -> pd.DataFrame:
    """Draw outcomes of the rows of the fit, y = Xβ + Zb + ε.

    Parameters
    ----------
    m : LmerResult
    n : int
        Number of outcomes, at least 1.
    rng : Generator or seed
        Recorded in ``attrs["seed"]`` (None for a generator made elsewhere).
    re : str
        The random effects to hold at their conditional modes, as in :func:`predict`: ``"none"`` draws all
        anew (R's default), ``"all"`` draws the residual alone, a formula holds some.

    Returns
    -------
    DataFrame
        Columns ``sim_1`` … ``sim_n`` by the labels of the rows.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise DynstatError(
            "S404", "the number of simulations is a count", found=repr(n), expected="1 or more"
        )
    needs_rows(m)
    generator, seed = as_generator(rng)
    design = m.design
    held = chosen_columns(m, re)
    y = np.repeat((design.x @ m.solution.beta)[:, None], n, axis=1)
    for t, term in enumerate(design.terms):
        factor = m.sigma * m.pls.template(m.theta.to_numpy(), t)
        drawn = generator.standard_normal((n, len(term.levels), term.width)) @ factor.T
        drawn[:, :, held[t]] = m.solution.effects[t][:, held[t]]
        rows = drawn[:, term.codes]
        part = rows[..., 0] if term.values is None else np.einsum("snk,nk->sn", rows, term.values)
        y += part.T
    noise = m.sigma * generator.standard_normal((design.n, n))
    y += noise if design.cells is None else noise / design.cells.root[:, None]
    out = pd.DataFrame(y, index=design.index, columns=[f"sim_{i + 1}" for i in range(n)])
    out.attrs["seed"] = seed
    return out
