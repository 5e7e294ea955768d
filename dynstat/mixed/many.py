"""lmer_many: one model, thousands of outcomes on one design."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from .batched import ManyFits, fit_many
from .design import Design, Term, build_design
from .formula import parse_formula
from .stream import chunks_of, needed

Array = NDArray[np.float64]
# Numbers read at once.
_ENTRIES = 16_000_000


def lmer_many(
    formula: str,
    design: pd.DataFrame | xr.Dataset,
    outcomes: xr.DataArray | xr.Dataset,
    *,
    rows: Hashable | Sequence[Hashable] | None = None,
    REML: bool = True,
) -> xr.Dataset:
    """Fit one mixed model to many outcomes on the same rows.

    Parameters
    ----------
    formula : str
        As for :func:`dynstat.lmer`; its left side names no column and is only printed.
    design : DataFrame or Dataset
        Factors and covariates. A frame: a row an observation, in the order of the one dim `rows`; or with the
        names of several dims as columns or index levels, which then say where every row's outcome stands. A
        Dataset: its variables and coordinates over the dims of the rows (a category of a prompt, say).
    outcomes : DataArray or Dataset
        A Dataset's variables become a dim ``metric``. All dims that are not rows are kept.
    rows : dim or sequence of dims, optional
        Those of the observations. Found where the design names them: its Dataset's dims, a frame's columns or
        index levels of the same name, or else the one dim of the frame's length.
    REML : bool

    Returns
    -------
    Dataset
        Over the dims kept: ``fixef``, ``fixef_se`` (term), ``sd``, ``share`` (component: a random term by its
        label, ``residual`` last; shares for intercept terms only), ``theta`` (parameter), ``sigma``,
        ``criterion``, ``nobs``, ``singular``, ``converged``, ``constant`` (the outcome does not vary beyond
        the fixed part), ``exact`` (the random terms reproduce it, nothing is left for the residual),
        ``missing`` (too few values). Where one of the last three is true, variances and criterion are NaN: a
        flag, not an exception. Rows with a missing value are left out, outcome by outcome.

    Raises
    ------
    DynstatError
        S401 and S402 for formula and design as :func:`dynstat.lmer`; S404 where rows and outcomes do not fit.

    Notes
    -----
    Outcomes with the same rows are fitted together: see :func:`dynstat.mixed.batched.fit_many`.
    """
    data = outcomes.to_dataarray("metric") if isinstance(outcomes, xr.Dataset) else outcomes
    parsed = parse_formula(formula)
    frame, dims, positions = _rows(design, data, rows, needed(parsed))
    kept = [d for d in data.dims if d not in dims]
    response = parsed.response.strip("`")
    if not response.isidentifier():
        raise DynstatError(
            "S404",
            "outcomes cannot be transformed here",
            where=formula,
            found=response,
            expected="a name on the left side",
            mend="transform the array before",
        )
    # The outcome of the design is never read.
    table = frame.assign(**{response: np.arange(len(frame), dtype=np.float64)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynstatWarning)
        whole = build_design(parsed, table)
    ordered = data.transpose(*kept, *dims)
    shape = tuple(data.sizes[d] for d in kept)
    size = int(np.prod(shape))
    block = max(1, _ENTRIES // max(int(np.prod([data.sizes[d] for d in dims])), 1))
    parts = []
    for at in range(0, size, block):
        y = _read(ordered, shape, at, min(at + block, size))[:, positions][:, whole.positions].T
        parts.append(_by_pattern(whole, np.ascontiguousarray(y), REML))
    joined = [np.concatenate([p[i] for p in parts]) for i in range(len(parts[0]))] if parts else []
    if not joined:
        raise DynstatError("S404", "there is no outcome", found="an empty array", expected="at least one")
    out = _labelled(joined, whole, kept, shape, REML)
    out = out.assign_coords(
        {
            name: coordinate
            for name, coordinate in data.coords.items()
            if set(coordinate.dims) <= set(kept) and name not in out.dims
        }
        | {d: data[d] for d in kept if d in data.coords}
    )
    out.attrs = {"formula": formula, "criterion": "REML" if REML else "deviance", "nrows": whole.n}
    return out


def _rows(
    design: pd.DataFrame | xr.Dataset, data: xr.DataArray, rows: Any, wanted: list[str]
) -> tuple[pd.DataFrame, list[Hashable], NDArray[np.intp]]:
    """Return the frame of the rows, the dims they span, and every row's place among their cells."""
    given = None if rows is None else ([rows] if isinstance(rows, str) or not _listed(rows) else list(rows))
    if isinstance(design, xr.Dataset):
        dims = given or [d for d in data.dims if d in design.dims]
        if lost := [d for d in dims if d not in data.dims] or ([] if dims else ["no dim in common"]):
            raise _unfit(data, f"rows along {lost[0]}", "a design over dims of the outcomes")
        labels = {d: data[d] for d in dims if d in data.coords}
        try:
            over = design.reindex(labels) if labels else design
            grid = xr.DataArray(np.zeros([data.sizes[d] for d in dims]), dims=dims, coords=labels)
            frame = next(chunks_of(over.assign(grid_=grid), "grid_", wanted, max(grid.size, 1)))
        except ValueError as error:
            raise _unfit(data, str(error).splitlines()[0], "sizes and labels that agree") from error
        return frame.drop(columns="grid_"), dims, np.arange(len(frame))
    names = [n for n in design.index.names if n is not None]
    frame = design.reset_index() if names and not set(names) & set(design.columns) else design
    dims = given or [d for d in data.dims if d in frame.columns and d in data.coords]
    if len(dims) <= 1 and not (dims and dims[0] in frame.columns and dims[0] in data.coords):
        dims = dims or [d for d in data.dims if data.sizes[d] == len(frame)]
        if len(dims) != 1 or data.sizes[dims[0]] != len(frame):
            raise _unfit(data, f"{len(frame)} rows", "one dim of that length, or dims that the design names")
        return frame.reset_index(drop=True), dims, np.arange(len(frame))
    place = np.zeros(len(frame), dtype=np.intp)
    for dim in dims:
        if dim not in frame.columns:
            raise _unfit(data, f"no column {dim}", "a column for every dim of the rows")
        labels_ = pd.Index(data[dim].to_numpy())
        column = frame[dim]
        at = labels_.get_indexer(column.astype(labels_.dtype) if labels_.dtype.kind in "iuf" else column)
        if (at < 0).any():
            raise _unfit(data, f"{frame[dim][at < 0].iloc[0]!r} along {dim}", "labels that the outcomes have")
        place = place * len(labels_) + at
    return frame.reset_index(drop=True), dims, place


def _listed(rows: Any) -> bool:
    return isinstance(rows, Sequence) and not isinstance(rows, (str, bytes))


def _unfit(data: xr.DataArray, found: str, expected: str) -> DynstatError:
    return DynstatError(
        "S404",
        "design and outcomes do not share rows",
        where="design",
        found=found + "; outcomes have " + ", ".join(f"{d}: {n}" for d, n in data.sizes.items()),
        expected=expected,
        mend="name the dims by rows=",
    )


def _read(ordered: xr.DataArray, shape: tuple[int, ...], start: int, stop: int) -> Array:
    """Return outcomes start to stop, counted along all dims kept, shape (outcomes, cells of the rows)."""
    if not shape:
        return np.asarray(ordered.values, dtype=np.float64).reshape(1, -1)
    inner = int(np.prod(shape[1:]))
    low, high = start // inner, -(-stop // inner)
    values = np.asarray(ordered[low:high].values, dtype=np.float64)
    values = values.reshape((high - low) * inner, -1)
    return values[start - low * inner : stop - low * inner]


def _by_pattern(design: Design, y: Array, reml: bool) -> tuple[NDArray[Any], ...]:
    """Fit outcomes with the same missing rows together; shape of y (n, B)."""
    count, k, p = y.shape[1], sum(_pieces(t) for t in design.terms), design.x.shape[1]
    numbers = [np.full((count, *s), np.nan) for s in ((), (k,), (), (p,), (p,))]
    flags = [np.zeros(count, dtype=bool) for _ in range(5)]
    nobs = np.isfinite(y).sum(axis=0)
    holes = ~np.isfinite(y)
    patterns, which = (
        np.unique(holes, axis=1, return_inverse=True) if holes.any() else (holes[:, :1], np.zeros(count, int))
    )
    which = np.asarray(which).ravel()
    for i in range(patterns.shape[1]):
        mine = np.flatnonzero(which == i)
        keep = np.flatnonzero(~patterns[:, i])
        if keep.size <= p + 1:
            flags[4][mine] = True
            continue
        try:
            part = design if keep.size == design.n else design.subset(keep)
        except DynstatError:
            flags[4][mine] = True
            continue
        if part.x_names != design.x_names:
            flags[4][mine] = True
            continue
        fits: ManyFits = fit_many(part, y[np.ix_(keep, mine)], reml)
        for into, piece in zip(
            numbers, (fits.criterion, fits.theta, fits.sigma, fits.beta, fits.beta_se), strict=True
        ):
            into[mine] = piece
        for into_, piece_ in zip(
            flags, (fits.converged, fits.singular, fits.constant, fits.exact), strict=False
        ):
            into_[mine] = piece_
    return (*numbers, *flags, nobs)


def _pieces(term: Term) -> int:
    return term.width * (term.width + 1) // 2


def _labelled(
    joined: list[NDArray[Any]], design: Design, kept: list[Hashable], shape: tuple[int, ...], reml: bool
) -> xr.Dataset:
    from .result import theta_names

    criterion, theta, sigma, beta, se, converged, singular, constant, exact, missing, nobs = joined
    names, sds = [], []
    start = 0
    for term in design.terms:
        own = theta[:, start : start + _pieces(term)]
        lam = np.zeros((own.shape[0], term.width, term.width))
        cols, rows = np.triu_indices(term.width)
        lam[:, rows, cols] = own
        sds.append(np.sqrt(np.sum(lam**2, axis=2)) * sigma[:, None])
        names += [
            term.label if c == "(Intercept)" and term.width == 1 else f"{term.label}.{c}"
            for c in term.columns
        ]
        start += _pieces(term)
    sd = np.column_stack([*sds, sigma])
    bad = constant | exact | missing
    sd = np.where(bad[:, None], np.nan, sd)
    variables: dict[str, tuple[list[Hashable], NDArray[Any]]] = {
        "fixef": ([*kept, "term"], beta),
        "fixef_se": ([*kept, "term"], se),
        "sd": ([*kept, "component"], sd),
        "theta": ([*kept, "parameter"], theta),
        "sigma": (kept, sigma),
        "criterion": (kept, criterion),
        "nobs": (kept, nobs),
        "singular": (kept, singular),
        "converged": (kept, converged),
        "constant": (kept, constant),
        "exact": (kept, exact),
        "missing": (kept, missing),
    }
    if all(t.intercept_only for t in design.terms):
        total = np.sum(sd**2, axis=1, keepdims=True)
        variables["share"] = ([*kept, "component"], sd**2 / total)
    return xr.Dataset(
        {n: (dims, v.reshape(*shape, *v.shape[1:])) for n, (dims, v) in variables.items()},
        coords={
            "term": list(design.x_names),
            "component": [*names, "residual"],
            "parameter": theta_names(design.terms),
        },
    )
