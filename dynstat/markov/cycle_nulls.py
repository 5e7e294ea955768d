"""Reopening against chains without memory: the table of nulls, and what an estimate carries of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..inference.resample import monte_carlo_p

Floats = NDArray[np.float64]
NULL = "memoryless two-state chain"
SIDES = ("two-sided", "greater", "less")
QUANTITIES = ("reopening", "end_of_text", "kaplan_meier", "naive", "departure")


def null_rows(
    group: str, values: dict[str, float], draws: dict[str, Floats], null: str, alternative: str
) -> pd.DataFrame:
    """Return a row a quantity: group, statistic, null, observed, mean, sd, q025, q975, p."""
    rows = []
    for q in QUANTITIES:
        if q == "naive" and null == "within_runs":
            continue
        # Rates are fitted to the data, so what is tested against simulation is the distance from them.
        tested = "departure" if null == "simulated" and q == "reopening" else q
        d = draws[q][np.isfinite(draws[q])]
        t = draws[tested][np.isfinite(draws[tested])]
        some = d.size > 1
        rows.append(
            {
                "group": group,
                "statistic": q,
                "null": null,
                "observed": values[q],
                "mean": float(d.mean()) if some else np.nan,
                "sd": float(d.std(ddof=1)) if some else np.nan,
                "q025": float(np.quantile(d, 0.025)) if some else np.nan,
                "q975": float(np.quantile(d, 0.975)) if some else np.nan,
                "p": p_against(values[tested], t, alternative) if some else np.nan,
            }
        )
    return pd.DataFrame(rows)


def p_against(observed: float, draws: Floats, alternative: str) -> float:
    """Return the Monte-Carlo p of a value against draws of the null, in a direction."""
    if not np.isfinite(observed):
        return float("nan")
    # Equal values must compare equal whatever the order of summation.
    slack = 1e-12
    above = monte_carlo_p(observed - slack, draws)
    below = monte_carlo_p(-observed - slack, -draws)
    if alternative == "greater":
        return above
    return below if alternative == "less" else min(1.0, 2 * min(above, below))


def null_beside(table: pd.DataFrame, quantity: str, how: str, draws: int, alternative: str) -> dict[str, Any]:
    """Return what an estimate carries of its null."""
    row = table[(table["statistic"] == quantity) & (table["null"] == how)].iloc[0]
    words = {"within_runs": "order within runs permuted", "simulated": "runs simulated from fitted rates"}
    return {
        "name": NULL,
        "how": words[how],
        "p": float(row["p"]),
        "alternative": alternative,
        "replicates": draws,
        "mean": float(row["mean"]),
        "sd": float(row["sd"]),
        "q025": float(row["q025"]),
        "q975": float(row["q975"]),
    }
