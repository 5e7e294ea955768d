"""Dwell times with and without memory: geometric, negative binomial and discrete Weibull under censoring."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]


def log_likelihood(name: str, parameters: ArrayLike, exits: ArrayLike, censored: ArrayLike) -> float:
    """Return the log-likelihood of dwell times, Σ exits log P(L = k) + Σ censored log P(L > k).

    ==================  ==========================  ==========================================
    name                parameters                  P(L > k), k = 0, 1, ...
    ==================  ==========================  ==========================================
    geometric           h, the chance of an exit    (1 − h)ᵏ
    negative_binomial   r, h                        I₁₋ₕ(k, r): L − 1 failures before r exits
    weibull             theta, beta                 exp(−theta·kᵝ) (Nakagawa and Osaki 1975)
    ==================  ==========================  ==========================================

    The geometric is the case r = 1, and the case beta = 1.

    Parameters
    ----------
    name : str
    parameters : array_like
    exits, censored : array_like, shape (T,)
        Number of stays of length k = 1..T that ended, and that were last seen going on after k steps.
    """
    d, c = np.asarray(exits, dtype=np.float64), np.asarray(censored, dtype=np.float64)
    k = np.arange(1, d.size + 1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        after = _survival(name, np.asarray(parameters, dtype=np.float64), k)
        before = np.concatenate([[1.0], after[:-1]])
        value = special.xlogy(d, np.maximum(before - after, 1e-300)).sum()
        return float(value + special.xlogy(c, np.maximum(after, 1e-300)).sum())


def _survival(name: str, parameters: Floats, k: Floats) -> Floats:
    if name == "geometric":
        return np.asarray((1 - parameters[0]) ** k)
    if name == "negative_binomial":
        return np.asarray(special.betainc(k, parameters[0], 1 - parameters[1]))
    return np.asarray(np.exp(-parameters[0] * k ** parameters[1]))


def fit_dwell(exits: ArrayLike, censored: ArrayLike) -> pd.DataFrame:
    """Fit the three distributions by maximum likelihood.

    Parameters
    ----------
    exits, censored : array_like, shape (T,)
        As in :func:`log_likelihood`.

    Returns
    -------
    DataFrame
        A row a distribution: distribution, parameter.1, parameter.2, mean, logLik, AIC, delta (AIC less the
        geometric's). NaN where no stay ended, or all of them after one step.
    """
    from scipy.optimize import minimize

    d, c = np.asarray(exits, dtype=np.float64), np.asarray(censored, dtype=np.float64)
    k = np.arange(1, d.size + 1)
    steps = float((k * (d + c)).sum())
    h = d.sum() / steps if steps else np.nan
    rows: list[tuple[str, float, float, float, float, int]] = []
    if not 0 < h < 1:
        rows = [(n, np.nan, np.nan, 1.0 if h == 1 else np.nan, np.nan, 1) for n in _NAMES]
    else:
        rows.append(("geometric", h, np.nan, 1 / h, log_likelihood("geometric", [h], d, c), 1))
        starts: dict[str, tuple[Callable[[Floats], Floats], Floats]] = {
            "negative_binomial": (
                lambda x: np.array([np.exp(x[0]), special.expit(x[1])]),
                np.array([0.0, special.logit(h)]),
            ),
            "weibull": (np.exp, np.array([np.log(-np.log1p(-h)), 0.0])),
        }
        for name, (back, start) in starts.items():
            limits = (
                [(-8.0, 8.0), (-12.0, 12.0)] if name == "negative_binomial" else [(-12.0, 5.0), (-4.0, 3.0)]
            )

            def loss(x: Floats, name: str = name, back: Callable[[Floats], Floats] = back) -> float:
                return -log_likelihood(name, back(x), d, c)

            fit = minimize(loss, start, method="L-BFGS-B", bounds=limits)
            a, b = back(fit.x)
            if name == "negative_binomial":
                mean = 1 + a * (1 - b) / b
            else:
                far = np.arange(0, 100_000, dtype=np.float64)
                mean = float(_survival(name, np.array([a, b]), far).sum())
            rows.append((name, float(a), float(b), float(mean), -float(fit.fun), 2))
    columns = ["distribution", "parameter.1", "parameter.2", "mean", "logLik", "df"]
    table = pd.DataFrame(rows, columns=columns)
    table["AIC"] = 2 * table["df"] - 2 * table["logLik"]
    table["delta"] = table["AIC"] - table["AIC"].iloc[0]
    return table.drop(columns="df")


_NAMES = ("geometric", "negative_binomial", "weibull")
