"""Compare nested models: likelihood-ratio tests with the right null at the boundary, and ranova."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import DynstatError, DynstatWarning
from ..inference.resample import Rng, as_generator, monte_carlo_p
from .crossproducts import cross_products, row_products
from .design import Design, Term
from .fit import optimise
from .levels import same_partition
from .pls import PenalisedLeastSquares

if TYPE_CHECKING:
    from .result import LmerResult

Array = NDArray[np.float64]
_SPAN = 1e-8


class Null(NamedTuple):
    """The null distribution of a likelihood ratio.

    Attributes
    ----------
    name : str
        In words.
    low, high : int
        Degrees of freedom of the two halves of a mixture of χ²; equal for a plain one.
    simulate : bool
        Whether it has to be simulated.
    """

    name: str
    low: int
    high: int
    simulate: bool = False

    def p(self, statistic: float) -> float:
        """Return the probability of a likelihood ratio at least this large."""
        tails = [
            float(special.chdtrc(df, max(statistic, 0.0))) if df else float(statistic <= 0)
            for df in (self.low, self.high)
        ]
        return sum(tails) / 2


def compare(*fits: LmerResult, refit: bool = True, nsim: int = 1000, rng: Rng = None) -> pd.DataFrame:
    """Compare nested models by likelihood-ratio tests, each with the one before it by number of parameters.

    The null is χ² where fixed effects or covariances are added. A variance that is added is zero under the
    null, on the edge of what it can be: then it is the 50:50 mixture of χ²(c) and χ²(c + 1), c the
    covariances (and fixed effects) added with it. Where several variances are added it is simulated:
    outcomes are redrawn from the smaller fit and both models fitted to them.

    Parameters
    ----------
    *fits : LmerResult
        Two or more fits to the same rows.
    refit : bool
        Fit REML fits again by maximum likelihood, as R does. Without it their fixed parts must agree.
    nsim : int
        Replicates of a simulated null.
    rng : Generator or seed
        Recorded in ``attrs["seed"]``.

    Returns
    -------
    DataFrame
        A row a model: formula, npar, AIC, BIC, logLik, deviance, statistic, df, p.value, null, p.chisq (the
        plain χ² that R prints).

    Source: Self and Liang 1987, JASA 82: 605-610; Stram and Lee 1994, Biometrics 50: 1171-1177.
    """
    if len(fits) < 2:
        raise DynstatError("S404", "a comparison needs two fits", found=len(fits))
    first = fits[0]
    for m in fits[1:]:
        if m.nobs != first.nobs or not _same_outcome(m, first):
            raise DynstatError(
                "S404",
                "the models are not fitted to the same rows",
                found=f"{m.nobs} and {first.nobs} rows",
                expected="one outcome on the same rows",
                mend="drop rows with missing values before fitting",
            )
    if refit:
        ready = [by_likelihood(m) if m.reml else (m.pls, m.theta.to_numpy()) for m in fits]
    else:
        if len({m.reml for m in fits}) > 1 or (first.reml and any(not _same_span(m, first) for m in fits)):
            raise DynstatError(
                "S404",
                "restricted likelihoods of different fixed parts cannot be compared",
                expected="refit=True, or the same fixed part",
            )
        ready = [(m.pls, m.theta.to_numpy()) for m in fits]
    order = sorted(range(len(fits)), key=lambda i: fits[i].npar)
    generator, seed = as_generator(rng)
    rows, simulated = [], False
    for place, i in enumerate(order):
        m, (pls, theta) = fits[i], ready[i]
        deviance = pls.criterion(theta)
        row = {
            "formula": m.formula,
            "npar": m.npar,
            "AIC": deviance + 2 * m.npar,
            "BIC": deviance + np.log(m.nobs) * m.npar,
            "logLik": -deviance / 2,
            "deviance": deviance,
            "statistic": np.nan,
            "df": np.nan,
            "p.value": np.nan,
            "null": "",
            "p.chisq": np.nan,
        }
        if place:
            before = order[place - 1]
            small, (small_pls, small_theta) = fits[before], ready[before]
            statistic = max(small_pls.criterion(small_theta) - deviance, 0.0)
            row |= {"statistic": statistic, "df": m.npar - small.npar}
            null = null_of(small, m)
            row["null"] = null.name
            if null.name == "not nested":
                warnings.warn(
                    f"{small.formula} is not nested in {m.formula}: no test", DynstatWarning, stacklevel=2
                )
            else:
                row["p.chisq"] = float(special.chdtrc(m.npar - small.npar, statistic))
                if null.simulate:
                    simulated = True
                    draws = _simulated(small.design, small_pls, small_theta, m.design, nsim, generator)
                    row["p.value"] = monte_carlo_p(statistic, draws)
                else:
                    row["p.value"] = null.p(statistic)
        rows.append(row)
    out = pd.DataFrame(rows)
    out.attrs |= {"REML": bool(first.reml and not refit)}
    if simulated:
        out.attrs |= {"seed": seed, "nsim": nsim}
    return out


def ranova(m: LmerResult, *, reduce_terms: bool = True, nsim: int = 1000, rng: Rng = None) -> pd.DataFrame:
    """Test every random term by the likelihood ratio against the model without it.

    Parameters
    ----------
    reduce_terms : bool
        Of ``(x | g)`` take away x only, leaving ``(1 | g)``, as lmerTest does.
    nsim : int
        Replicates of the null where several variances go at once; 0 for none.
    rng : Generator or seed
        Recorded in ``attrs["seed"]``.

    Returns
    -------
    DataFrame
        term, npar, logLik, AIC, LRT, df, p.value (the 50:50 mixture where one variance goes, with its
        covariances), null, p.chisq (the plain χ² that lmerTest prints). The likelihood is that of the fit,
        restricted for a REML fit. Where several variances go at once the null is simulated.

    Source: Kuznetsova, Brockhoff, Christensen 2017, J. Stat. Softw. 82(13); Stram and Lee 1994.
    """
    if m.design.cross is not None:
        raise DynstatError(
            "S404",
            "ranova fits again and needs the rows",
            where=m.formula,
            mend="fit the smaller models and compare them",
        )
    npar = m.npar
    generator, seed = as_generator(rng)
    rows, simulated = [_row("<none>", npar, m.criterion)], False
    for t in range(len(m.design.terms)):
        for label, reduced, null in _smaller(m.design, t, reduce_terms):
            removed = len(m.theta) - sum(term.width * (term.width + 1) // 2 for term in reduced)
            if reduced:
                design = replace(m.design, terms=reduced)
                pls = PenalisedLeastSquares(cross_products(design), reduced, m.reml)
                theta = optimise(pls)[0]
            else:
                # Least squares: the model itself with all its variances at zero.
                design, pls, theta = m.design, m.pls, np.zeros(len(m.theta))
            criterion = pls.criterion(theta)
            statistic = max(criterion - m.criterion, 0.0)
            p = np.nan if null.simulate else null.p(statistic)
            if null.simulate and nsim:
                simulated = True
                p = monte_carlo_p(statistic, _simulated(design, pls, theta, m.design, nsim, generator))
            row = _row(label, npar - removed, criterion)
            row |= {
                "LRT": statistic,
                "df": removed,
                "p.value": p,
                "null": null.name,
                "p.chisq": float(special.chdtrc(removed, statistic)),
            }
            rows.append(row)
    out = pd.DataFrame(rows)
    if simulated:
        out.attrs |= {"seed": seed, "nsim": nsim}
    return out


def by_likelihood(m: LmerResult) -> tuple[PenalisedLeastSquares, Array]:
    """Return the ML criterion of a fit's design and its optimum."""
    pls = PenalisedLeastSquares(m.pls.cross, m.design.terms, reml=False)
    start = np.where(pls.diagonal, np.maximum(m.theta.to_numpy(), 0.05), m.theta.to_numpy())
    return pls, optimise(pls, start)[0]


def null_of(small: LmerResult, large: LmerResult) -> Null:
    """Say which null distribution the likelihood ratio of two models has."""
    fixed = large.pls.cross.p - small.pls.cross.p
    if fixed < 0 or not _within_span(small, large):
        return Null("not nested", 0, 0)
    taken: set[tuple[int, int]] = set()
    for term in small.design.terms:
        # A term may hold in a larger one only where that one's columns are correlated too.
        for i, other in enumerate(large.design.terms):
            places = {(i, j) for j in _places(other, term)}
            if len(places) == term.width and not places & taken:
                taken |= places
                break
        else:
            return Null("not nested", 0, 0)
    variances = sum(t.width for t in large.design.terms) - sum(t.width for t in small.design.terms)
    parameters = len(large.theta) - len(small.theta)
    return _null(fixed, variances, parameters - variances)


def _null(fixed: int, variances: int, covariances: int) -> Null:
    c = fixed + covariances
    if variances == 0:
        return Null(f"chi-squared({c})", c, c)
    if variances == 1:
        return Null(f"mixture of chi-squared({c}) and ({c + 1})", c, c + 1)
    return Null("simulated", c, c + variances, True)


def _row(term: str, npar: int, criterion: float) -> dict[str, object]:
    return {
        "term": term,
        "npar": npar,
        "logLik": -criterion / 2,
        "AIC": criterion + 2 * npar,
        "LRT": np.nan,
        "df": np.nan,
        "p.value": np.nan,
        "null": "",
        "p.chisq": np.nan,
    }


def _smaller(design: Design, t: int, reduce_terms: bool) -> list[tuple[str, tuple[Term, ...], Null]]:
    """Return the models that lack something of term t: label, terms, null."""
    term = design.terms[t]
    before, after = design.terms[:t], design.terms[t + 1 :]
    shown = " + ".join(c for c in term.columns if c != "(Intercept)")
    intercept = "(Intercept)" in term.columns
    if term.width == 1 and intercept:
        return [(f"(1 | {term.name})", (*before, *after), _null(0, 1, 0))]
    inside = shown if intercept else f"0 + {shown}"
    sources = _sources(term)
    if not reduce_terms or (len(sources) == 1 and not intercept):
        k = term.width
        label = f"({inside} | {term.name})"
        label = f"{shown} in {label}" if reduce_terms else label
        return [(label, (*before, *after), _null(0, k, k * (k - 1) // 2))]
    out = []
    for source in sources:
        keep = [i for i, c in enumerate(term.columns) if i not in source]
        values = None if term.values is None else np.ascontiguousarray(term.values[:, keep])
        alone = [term.columns[i] for i in keep] == ["(Intercept)"]
        less = replace(
            term, columns=tuple(term.columns[i] for i in keep), values=None if alone else values, coding=None
        )
        k, left = term.width, len(keep)
        gone = k * (k + 1) // 2 - left * (left + 1) // 2
        name = term.columns[source[0]] if len(source) == 1 else " + ".join(term.columns[i] for i in source)
        out.append(
            (
                f"{name} in ({inside} | {term.name})",
                (*before, less, *after),
                _null(0, k - left, gone - (k - left)),
            )
        )
    return out


def _sources(term: Term) -> list[list[int]]:
    """Return the random columns that one variable of the term makes, variable by variable."""
    if term.coding is None or term.coding.spec is None:
        return [[i] for i, c in enumerate(term.columns) if c != "(Intercept)"]
    spec, out = term.coding.spec, []
    kept = list(term.coding.kept)
    for part in spec.terms:
        if str(part) == "1":
            continue
        cut = spec.term_slices[part]
        places = [kept.index(i) for i in range(cut.start, cut.stop) if i in kept]
        if places:
            out.append(places)
    return out


def _same_outcome(a: LmerResult, b: LmerResult) -> bool:
    if a.design.cross is not None or b.design.cross is not None:
        return True
    return a.design.y.size == b.design.y.size and bool(np.array_equal(a.design.y, b.design.y))


def _within_span(small: LmerResult, large: LmerResult) -> bool:
    if small.design.cross is not None or large.design.cross is not None:
        return set(small.design.x_names) <= set(large.design.x_names)
    x, y = small.design.x, large.design.x
    if not x.shape[1]:
        return True
    q = np.linalg.qr(y)[0]
    left = x - q @ (q.T @ x)
    return bool(np.all(np.linalg.norm(left, axis=0) <= _SPAN * np.linalg.norm(x, axis=0)))


def _same_span(a: LmerResult, b: LmerResult) -> bool:
    return a.pls.cross.p == b.pls.cross.p and _within_span(a, b)


def _places(large: Term, small: Term) -> list[int]:
    """Return where a term has the random columns of another on the same grouping of the rows."""
    same = large.name == small.name or (
        large.codes.size == small.codes.size > 0
        and len(large.levels) == len(small.levels)
        and same_partition(large.codes, small.codes)
    )
    if not same:
        return []
    out = []
    for i, column in enumerate(small.columns):
        for j, other in enumerate(large.columns):
            equal = column == other
            if not equal and small.values is not None and large.values is not None:
                equal = np.array_equal(small.values[:, i], large.values[:, j])
            if equal and j not in out:
                out.append(j)
                break
    return out


def _simulated(
    design: Design,
    pls: PenalisedLeastSquares,
    theta: Array,
    large: Design,
    nsim: int,
    generator: np.random.Generator,
) -> Array:
    """Return likelihood ratios of outcomes drawn from the smaller model."""
    from .batched import fit_many
    from .fit import FitRecord
    from .result import LmerResult
    from .simulation import simulate

    record = FitRecord(0, True, 0.0, "", 0)
    null = LmerResult.build(design, pls, theta, pls.solve(theta), record, False)
    outcomes = simulate(null, nsim, generator).to_numpy()
    if np.any(theta):
        small = fit_many(design, outcomes, pls.reml).criterion
    else:
        small = _least_squares(design, pls, outcomes)
        if design is not large:
            small = np.minimum(small, fit_many(design, outcomes, pls.reml).criterion)
    ratio = np.maximum(small - fit_many(large, outcomes, pls.reml).criterion, 0.0)
    return ratio[np.isfinite(ratio)]


def _least_squares(design: Design, pls: PenalisedLeastSquares, outcomes: Array) -> Array:
    """Return the criterion of every outcome with all variances at zero."""
    rss = row_products(design, pls.cross)(outcomes)[2]
    constant = (pls.cross.x_logdet if pls.reml else 0.0) - pls.cross.log_weights
    return np.asarray(pls.df * (1 + np.log(2 * np.pi * rss / pls.df)) + constant)
