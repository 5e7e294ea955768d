"""Rows in chunks: from files, arrays and iterables to the few cells that a mixed model reads."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from .cells import Cells, precision
from .columns import variables
from .design import Design, build_design
from .formula import MixedFormula

Array = NDArray[np.float64]
#: Rows of a chunk: about 100 MB with its columns.
ROWS = 1_000_000
# Codes of combinations below this are counted, above it sorted.
_COUNTED = 8_000_000
# Cells of several chunks are merged when so many have gathered.
_GATHERED = 2_000_000


@dataclass(frozen=True)
class CellFrame:
    """Data compressed to a row for every combination of their columns, the outcome excepted.

    Attributes
    ----------
    frame : DataFrame
        The combinations that occur, in sorted order, and the mean of the outcome.
    cells : Cells
        What every row stands for.
    dropped : int
        Observations left out because a value is missing.
    """

    frame: pd.DataFrame
    cells: Cells
    dropped: int


def chunks_of(
    ds: xr.Dataset, outcome: str, factors: Sequence[str], rows: int = ROWS
) -> Iterator[pd.DataFrame]:
    """Yield a variable of a Dataset as frames of at most `rows` rows, read one after another.

    Parameters
    ----------
    ds : Dataset
        May be opened lazily (``xarray.open_dataset``) or hold dask arrays: what is not read is not loaded.
    outcome : str
        A variable; its dims span the rows.
    factors : sequence of str
        Dims, coordinates or variables on some of these dims. Words become categories whose levels all chunks
        share.
    rows : int
        At most so many in a frame.

    Raises
    ------
    DynstatError
        S404 for a name that the Dataset lacks, or that has other dims than the outcome.
    """
    if missing := [f for f in (outcome, *factors) if f not in ds.variables and f not in ds.dims]:
        raise DynstatError(
            "S404",
            f"the dataset holds no {missing[0]!r}",
            found=", ".join(missing),
            expected=", ".join(map(str, [*ds.dims, *ds.variables])),
            mend="name variables, coordinates or dims",
        )
    values = ds[outcome]
    dims, shape = values.dims, values.shape
    if wrong := [f for f in factors if f in ds.variables and not set(ds[f].dims) <= set(dims)]:
        raise DynstatError(
            "S404",
            f"{wrong[0]!r} has dims that {outcome!r} lacks",
            found=", ".join(map(str, ds[wrong[0]].dims)),
            expected=", ".join(map(str, dims)),
            mend="select along them first",
        )
    held = {f: _small(ds, f) for f in factors if f not in ds.variables or ds[f].ndim <= 1}
    for block in _blocks_of(shape, rows):
        where: dict[Hashable, slice] = dict(zip(dims, block, strict=True))
        part = values.isel(where)
        size = part.shape
        frame: dict[str, Any] = {outcome: np.asarray(part.values, dtype=np.float64).ravel()}
        for factor in factors:
            if factor in held:
                on, codes, levels = held[factor]
                here = codes if on is None else codes[where[on]]
                axis = None if on is None else dims.index(on)
                wide = here.reshape([-1 if i == axis else 1 for i in range(len(dims))])
                flat = np.broadcast_to(wide, size).ravel()
                frame[factor] = flat if levels is None else pd.Categorical.from_codes(flat, dtype=levels)
            else:
                own = ds[factor]
                piece = own.isel({d: where[d] for d in own.dims})
                frame[factor] = piece.broadcast_like(part).transpose(*dims).values.ravel()
        yield pd.DataFrame(frame)


def _small(ds: xr.Dataset, name: str) -> tuple[Hashable | None, NDArray[Any], pd.CategoricalDtype | None]:
    """Return the dim, the values or codes, and the levels of a factor on one dim."""
    if name not in ds.variables:
        return name, np.arange(ds.sizes[name]), None
    own = ds[name]
    on = own.dims[0] if own.ndim else None
    values = np.atleast_1d(own.values)
    if values.dtype.kind in "iufb":
        return on, values, None
    codes, levels = pd.factorize(pd.Series(values, dtype=object), sort=True)
    return on, codes, pd.CategoricalDtype([str(v) for v in levels])


def _blocks_of(shape: tuple[int, ...], rows: int) -> Iterator[tuple[slice, ...]]:
    """Split an array into blocks of at most `rows` entries that are contiguous where it is stored by rows."""
    inner = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    axis = next((i for i in range(len(shape)) if inner[i] <= rows), len(shape) - 1)
    step = max(1, rows // max(inner[axis], 1)) if shape else 1
    for outer in np.ndindex(*shape[:axis]):
        for at in range(0, shape[axis] if shape else 1, step):
            head = tuple(slice(i, i + 1) for i in outer)
            yield (*head, slice(at, at + step), *(slice(None) for _ in shape[axis + 1 :]))[: len(shape)]


def frames_of(data: Any, outcome: str, keys: Sequence[str], rows: int = ROWS) -> Callable[[], Iterable[Any]]:
    """Return a function that starts a pass over `data` in frames.

    `data` may be a Dataset, a mapping of one-dimensional arrays (NumPy, dask), a dask frame, an iterable of
    frames, or a function that returns one.
    """
    if isinstance(data, xr.Dataset):
        return lambda: chunks_of(data, outcome, [k for k in keys if k != outcome], rows)
    if isinstance(data, Mapping):
        return lambda: _slices(data, [outcome, *keys], rows)
    if hasattr(data, "partitions"):
        return lambda: (part.compute() for part in data.partitions)
    if callable(data):
        return data
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, pd.DataFrame, np.ndarray)):
        return lambda: data
    raise DynstatError(
        "S404",
        "data of a kind that cannot be read",
        found=type(data).__name__,
        expected="a DataFrame, a Dataset, a mapping of arrays, frames, or a function that returns frames",
        mend="make a DataFrame of it",
    )


def _slices(data: Mapping[str, Any], names: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
    present = [n for n in dict.fromkeys(names) if n in data]
    sizes = {int(data[n].shape[0]) for n in present}
    if len(sizes) > 1:
        raise DynstatError(
            "S404",
            "arrays of different lengths",
            found=", ".join(map(str, sorted(sizes))),
            expected="one length",
        )
    for at in range(0, sizes.pop() if sizes else 0, rows):
        yield pd.DataFrame({n: np.asarray(data[n][at : at + rows]) for n in present})


def compress(
    chunks: Iterable[pd.DataFrame], outcome: str, keys: Sequence[str], weights: str | None = None
) -> CellFrame:
    """Sum chunks of rows into cells: one row for every combination of `keys`.

    Mean and sum of squares of a cell are merged chunk by chunk (Chan, Golub, LeVeque 1983), so that nothing
    is lost when the outcome is far from zero; memory grows with the number of cells, not of rows.

    Parameters
    ----------
    chunks : iterable of DataFrame
    outcome : str
    keys : sequence of str
        Columns to tell rows apart by: grouping factors, fixed factors, units.
    weights : str or None
        Column of precision weights.

    Raises
    ------
    DynstatError
        S402 where no row is complete or a value is infinite; S404 for columns that a chunk lacks.
    """
    keys = [k for k in dict.fromkeys(keys) if k != outcome]
    levels = {k: _Levels() for k in keys}
    gathered: list[NDArray[Any]] = []
    stats: list[Array] = []
    waiting, dropped = 0, 0
    for chunk in chunks:
        codes, numbers, lost = _cells_of(chunk, outcome, keys, weights, levels)
        dropped += lost
        gathered.append(codes)
        stats.append(numbers)
        waiting += codes.shape[0]
        if waiting > _GATHERED:
            gathered, stats = _merge(gathered, stats)
            waiting = gathered[0].shape[0] // 2
    if not gathered or not sum(c.shape[0] for c in gathered):
        raise DynstatError(
            "S402",
            "no row is complete",
            found=f"{dropped} rows with missing values",
            expected="rows with a value in every column used",
            mend="check " + ", ".join([outcome, *keys]),
        )
    gathered, stats = _merge(gathered, stats)
    codes, (count, w, mean, within, logs) = gathered[0], stats[0]
    columns = {k: levels[k].column(codes[:, i]) for i, k in enumerate(keys)}
    frame = pd.DataFrame({outcome: mean, **columns})
    order = (
        frame.sort_values(keys, kind="stable", ignore_index=False).index.to_numpy() if keys else np.arange(1)
    )
    cells = Cells(w, within, count, logs).subset(order)
    return CellFrame(frame.iloc[order].reset_index(drop=True), cells, dropped)


class _Levels:
    """Codes of the values of one column, in the order in which chunks bring them."""

    def __init__(self) -> None:
        self.values = pd.Index([])
        self.dtype: Any = None

    def codes(self, column: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return codes within the chunk, and the common code of each of these."""
        if isinstance(column.dtype, pd.CategoricalDtype):
            self.dtype = self.dtype or column.dtype
            local, found = column.cat.codes.to_numpy().astype(np.int64), column.cat.categories
        else:
            local, found = pd.factorize(column)
            found = pd.Index(found)
        known = self.values.get_indexer(found) if len(self.values) else np.full(len(found), -1)
        if (new := found[known < 0]).size:
            start = len(self.values)
            self.values = new if not start else self.values.append(new)
            known[known < 0] = np.arange(start, start + len(new))
        return local, known.astype(np.int64)

    def column(self, codes: NDArray[Any]) -> pd.Series:
        values = self.values.take(codes)
        if self.dtype is not None and self.dtype.ordered:
            return pd.Series(pd.Categorical(values, dtype=self.dtype))
        return pd.Series(values)


def _cells_of(
    chunk: pd.DataFrame, outcome: str, keys: Sequence[str], weights: str | None, levels: Mapping[str, _Levels]
) -> tuple[NDArray[Any], Array, int]:
    """Return a chunk's cells: common codes (cells, keys); count, weight, mean, within, log-weight."""
    names = [outcome, *keys, *([weights] if weights else [])]
    if missing := [n for n in names if n not in chunk.columns]:
        raise DynstatError(
            "S404",
            f"a chunk holds no column {missing[0]!r}",
            found=", ".join(map(str, chunk.columns)),
            expected=", ".join(names),
            mend="name it, or give every chunk the same columns",
        )
    y = chunk[outcome].to_numpy(dtype=np.float64, na_value=np.nan)
    keep = ~np.isnan(y)
    for name in names[1:]:
        if chunk[name].hasnans:
            keep &= chunk[name].notna().to_numpy()
    lost = int((~keep).sum())
    if lost:
        chunk, y = chunk.loc[keep], y[keep]
    if not np.isfinite(y).all():
        raise DynstatError(
            "S402",
            "the outcome holds infinite values",
            where=outcome,
            found=f"{int((~np.isfinite(y)).sum())} values in a chunk",
            expected="finite numbers",
            mend="drop these rows",
        )
    joint, size = np.zeros(y.size, dtype=np.int64), 1
    tables, radix = [], []
    for key in keys:
        local, known = levels[key].codes(chunk[key])
        joint = joint * max(len(known), 1) + local if size > 1 else local
        size *= max(len(known), 1)
        tables.append(known)
        radix.append(max(len(known), 1))
        if size > _COUNTED:
            # Products of levels may overflow: keep only the combinations that occur.
            present, joint = np.unique(joint, return_inverse=True)
            tables, radix = [_through(tables, radix, present)], [present.size]
            size = present.size
    if size <= _COUNTED:
        present = np.flatnonzero(np.bincount(joint, minlength=size))
        place = np.zeros(size, dtype=np.int64)
        place[present] = np.arange(present.size)
        joint = place[joint]
    else:
        present, joint = np.unique(joint, return_inverse=True)
    codes = _through(tables, radix, present) if keys else np.zeros((present.size, 0), dtype=np.int64)
    m = present.size
    count: Array = np.bincount(joint, minlength=m).astype(np.float64)
    w: NDArray[Any]
    logs: NDArray[Any]
    if weights is None:
        w, logs = count, np.zeros(m, dtype=np.float64)
        shift = y.mean() if y.size else 0.0
        mean = np.bincount(joint, y - shift, m) / w + shift
        within = np.bincount(joint, (y - mean[joint]) ** 2, m)
    else:
        each = precision(chunk[weights].to_numpy(dtype=np.float64))
        w, logs = np.bincount(joint, each.weights, m), np.bincount(joint, each.log_weights, m)
        shift = y.mean() if y.size else 0.0
        mean = np.bincount(joint, each.weights * (y - shift), m) / w + shift
        within = np.bincount(joint, each.weights * (y - mean[joint]) ** 2, m)
    return codes, np.stack([count, w, mean, within, logs]), lost


def _through(tables: list[NDArray[Any]], radix: list[int], joint: NDArray[Any]) -> NDArray[Any]:
    """Take mixed-radix codes apart and look every digit up; shape (cells, keys)."""
    out = []
    rest = joint
    for table, base in zip(reversed(tables), reversed(radix), strict=True):
        found = table[rest % base]
        out.append(found if found.ndim == 2 else found[:, None])
        rest = rest // base
    return np.concatenate(out[::-1], axis=1)


def _merge(gathered: list[NDArray[Any]], stats: list[Array]) -> tuple[list[NDArray[Any]], list[Array]]:
    codes, numbers = np.concatenate(gathered), np.concatenate(stats, axis=1)
    if len(gathered) == 1:
        return [codes], [numbers]
    joint = np.zeros(codes.shape[0], dtype=np.int64)
    for i in range(codes.shape[1]):
        joint = joint * (int(codes[:, i].max(initial=0)) + 1) + codes[:, i]
        joint = np.unique(joint, return_inverse=True)[1]
    first = np.unique(joint, return_index=True)[1]
    m = first.size
    count, w, mean, within, logs = numbers
    total = np.bincount(joint, w, m)
    shift = mean[first]
    centre = np.bincount(joint, w * (mean - shift[joint]), m) / total + shift
    inside = np.bincount(joint, within + w * (mean - centre[joint]) ** 2, m)
    out = np.stack([np.bincount(joint, count, m), total, centre, inside, np.bincount(joint, logs, m)])
    return [codes[first]], [out]


def needed(formula: MixedFormula) -> list[str]:
    """Return the columns that a formula reads, the outcome excepted."""
    parts = [formula.fixed, *(t.columns for t in formula.random)]
    names = [v for part in parts for v in variables(part)] + [v for t in formula.random for v in t.variables]
    return list(dict.fromkeys(names))


def design_of(
    formula: MixedFormula, data: Any, weights: str | ArrayLike | None = None, keep: Sequence[str | None] = ()
) -> tuple[Design, pd.DataFrame]:
    """Read the columns of a formula from data of any kind.

    Parameters
    ----------
    formula : MixedFormula
    data : DataFrame, CellFrame, Dataset, mapping of arrays, iterable of frames
        What is not a frame is read in chunks and compressed to cells; covariates that take many values are
        summed in two passes instead (see :mod:`dynstat.mixed.streamed`).
    weights : str or array, optional
        Precision weights, by column or (for a frame) a number a row.
    keep : sequence of str
        Columns that the frame returned holds besides those of the formula.

    Returns
    -------
    Design, DataFrame
        The frame that `Design.positions` speaks of.
    """
    if isinstance(data, CellFrame):
        return build_design(formula, data.frame, data.cells), data.frame
    if isinstance(data, pd.DataFrame):
        if weights is None:
            return build_design(formula, data), data
        if isinstance(weights, str) and weights not in data.columns:
            raise DynstatError("S401", f"the data hold no column {weights!r}", where="weights", found=weights)
        each = precision(data[weights] if isinstance(weights, str) else weights)
        if each.weights.size != len(data):
            raise DynstatError(
                "S404",
                "not one weight a row",
                where="weights",
                found=f"{each.weights.size} weights",
                expected=f"{len(data)}",
                mend="name a column, or give a number for every row",
            )
        return build_design(formula, data, each), data
    if weights is not None and not isinstance(weights, str):
        raise DynstatError(
            "S404", "weights of chunked data are a column", where="weights", expected="its name"
        )
    outcome = formula.response.strip("`")
    extra = [k for k in keep if k is not None]
    keys = list(dict.fromkeys([*needed(formula), *extra]))
    start = frames_of(data, outcome, [*keys, *([weights] if weights else [])])
    from .streamed import sum_over, wants_sums

    first, chunks = _peek(start())
    if first is not None and not extra and wants_sums(formula, first):
        return sum_over(formula, start, weights), pd.DataFrame()
    cells = compress(chunks, outcome, keys, weights)
    return build_design(formula, cells.frame, cells.cells), cells.frame


def _peek(chunks: Iterable[pd.DataFrame]) -> tuple[pd.DataFrame | None, Iterator[pd.DataFrame]]:
    iterator = iter(chunks)
    first = next(iterator, None)
    if first is None:
        return None, iter(())

    def again() -> Iterator[pd.DataFrame]:
        yield first
        yield from iterator

    return first, again()


def as_cells(data: Any, outcome: str, keys: Sequence[str], weights: str | None = None) -> CellFrame:
    """Read data of any kind in chunks and compress it; see :func:`compress` and :func:`frames_of`."""
    if isinstance(data, CellFrame):
        return data
    names = [*keys, *([weights] if weights else [])]
    chunks = (data,) if isinstance(data, pd.DataFrame) else frames_of(data, outcome, names)()
    return compress(chunks, outcome, keys, weights)
