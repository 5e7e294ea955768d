"""Labelled sequences of states: the one input of every chain analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError

if TYPE_CHECKING:
    import xarray as xr

Axis = Literal["token", "layer"]


class Runs(NamedTuple):
    """Stays in one state, an entry a stay: arrays of equal length.

    ``left_open``: the stay is under way where the sequence, or its part after a gap, begins.
    ``right_open``: it is under way where the sequence ends or a gap begins. ``start`` counts from 0 within
    the sequence.
    """

    sequence: NDArray[np.intp]
    state: NDArray[np.int16]
    start: NDArray[np.intp]
    length: NDArray[np.intp]
    left_open: NDArray[np.bool_]
    right_open: NDArray[np.bool_]


@dataclass(frozen=True)
class Sequences:
    """Sequences of states with their labels; ragged, with gaps where a point has no state.

    Build it with :meth:`from_frame`, :meth:`from_dataset` or :meth:`from_lists`.

    Attributes
    ----------
    codes : ndarray of int16, shape (total,)
        Positions in `states`, one sequence after the other; −1 is a gap, which no transition crosses.
    offsets : ndarray of int64, shape (n + 1,)
        Sequence i is ``codes[offsets[i]:offsets[i + 1]]``.
    states : tuple of str
        Full names, in a fixed order. A state that never occurs keeps its place.
    labels : DataFrame
        A row a sequence: model, prompt, sample, category, ...; ``start`` is the token or layer of its first
        entry where that is known.
    axis : {"token", "layer"}
        What one step is.
    """

    codes: NDArray[np.int16]
    offsets: NDArray[np.int64]
    states: tuple[str, ...]
    labels: pd.DataFrame
    axis: Axis = "token"

    def __post_init__(self) -> None:
        if self.axis not in ("token", "layer"):
            raise DynstatError("S404", "unknown axis", found=self.axis, expected="token | layer")
        if len(set(self.states)) != len(self.states):
            raise DynstatError("S407", "a state is named twice", found=", ".join(self.states))
        if len(self.states) > 32767:
            raise DynstatError("S404", "too many states", found=len(self.states), expected="at most 32767")
        if self.offsets.size - 1 != len(self.labels) or int(self.offsets[-1]) != self.codes.size:
            raise DynstatError(
                "S407",
                "labels do not fit the sequences",
                found=f"{len(self.labels)} rows of labels",
                expected=f"{self.offsets.size - 1} sequences of {self.codes.size} steps in all",
            )
        if self.codes.size and not -1 <= int(self.codes.min()) <= int(self.codes.max()) < len(self.states):
            raise DynstatError(
                "S407", "codes lie outside the states", expected=f"−1 to {len(self.states) - 1}"
            )

    @classmethod
    def from_lists(
        cls,
        lists: Sequence[Sequence[Any]],
        *,
        states: Sequence[str] | None = None,
        labels: pd.DataFrame | Mapping[str, ArrayLike] | None = None,
        axis: Axis = "token",
    ) -> Sequences:
        """Build sequences from lists of state names.

        Parameters
        ----------
        lists : sequence of sequences of str
            None and NaN are gaps.
        states : sequence of str, optional
            All states in their order; by default those that occur, sorted.
        labels : DataFrame or mapping, optional
            A row a sequence; by default ``sequence`` alone, numbered from 0.
        axis : {"token", "layer"}

        Raises
        ------
        DynstatError
            S407 for a state that `states` does not hold, or labels of another length.

        Examples
        --------
        >>> Sequences.from_lists([["STABLE", "STABLE", "COMMITTED"]]).states
        ('COMMITTED', 'STABLE')
        """
        flat = np.array([x for one in lists for x in one], dtype=object)
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists], dtype=np.int64)])
        codes, names = _encode(pd.Series(flat, dtype=object), states)
        table = pd.DataFrame(dict(labels) if labels is not None else {"sequence": np.arange(len(lists))})
        return cls(codes, offsets.astype(np.int64), names, table.reset_index(drop=True), axis)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        state: str = "state",
        sequence: Sequence[str] | str = ("model", "prompt", "sample"),
        order: str = "token",
        states: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        step: int | None = 1,
        axis: Axis = "token",
    ) -> Sequences:
        """Build sequences from a frame with a row a step.

        Parameters
        ----------
        frame : DataFrame
        state : str
            Column of state names; missing values are gaps. A categorical column gives the order of states.
        sequence : sequence of str
            Columns whose combination names a sequence.
        order : str
            Column of positions. Rows may come in any order.
        states : sequence of str, optional
            All states in their order; by default the categories, or the names that occur, sorted.
        labels : sequence of str, optional
            Further columns to keep, constant within a sequence; by default every column that is.
        step : int, optional
            Distance of neighbours in `order` where that holds whole numbers: positions left out are gaps.
            None takes rows as neighbours whatever their positions.
        axis : {"token", "layer"}

        Raises
        ------
        DynstatError
            S404 for a missing column, a position that occurs twice, a row without sequence or position, a
            label that varies within a sequence; S407 for a state that `states` does not hold.
        """
        keys = [sequence] if isinstance(sequence, str) else list(sequence)
        if absent := [c for c in [state, order, *keys, *(labels or ())] if c not in frame.columns]:
            raise DynstatError(
                "S404",
                "the frame lacks columns",
                found=", ".join(absent),
                expected=", ".join(map(str, frame.columns)),
            )
        if missing := int(frame[[*keys, order]].isna().any(axis=1).sum()):
            raise DynstatError(
                "S404",
                "some rows belong to no sequence or position",
                found=f"{missing} rows",
                mend="drop them",
            )
        codes, names = _encode(frame[state], states)
        group = frame.groupby(keys, sort=False, observed=True).ngroup().to_numpy()
        position = frame[order].to_numpy()
        rows = np.lexsort((position, group))
        group, position, codes = group[rows], position[rows], codes[rows]
        same = group[1:] == group[:-1]
        if np.any(same & (position[1:] == position[:-1])):
            raise DynstatError(
                "S404",
                "a position occurs twice in one sequence",
                where=", ".join(keys),
                found=f"{int(np.sum(same & (position[1:] == position[:-1])))} times",
                mend="name every column that tells sequences apart in `sequence`",
            )
        first = np.concatenate([[True], ~same]) if len(frame) else np.zeros(0, dtype=np.bool_)
        heads = np.flatnonzero(first)
        kept = frame.iloc[rows]
        table = _constant_columns(kept, keys, labels, state, order, heads, group)
        if step is not None and position.dtype.kind in "iu" and len(frame):
            where = (position - position[heads][group]) // step
            if np.any((position - position[heads][group]) % step):
                raise DynstatError("S404", "positions lie between steps", where=order, found=f"step {step}")
            lengths = np.concatenate([where[heads[1:] - 1], where[-1:]]) + 1
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            full = np.full(int(offsets[-1]), -1, dtype=np.int16)
            full[offsets[group] + where] = codes
            codes = full
            table["start"] = position[heads]
        else:
            offsets = np.concatenate([heads, [len(frame)]]).astype(np.int64)
        return cls(codes, offsets, names, table, axis)

    @classmethod
    def from_dataset(
        cls,
        ds: xr.Dataset,
        codes: xr.DataArray,
        *,
        axis: Axis = "token",
        layer: str | int | float = "last",
        phase: str = "generated",
        tokens: Literal["all", "last_prompt"] = "all",
        until: Literal["end_of_text", "budget"] = "end_of_text",
    ) -> Sequences:
        """Build sequences from a dataset and the states derived from it.

        See :func:`dynstat.markov.dataset_sequences.sequences_of` for parameters and errors.
        """
        from .dataset_sequences import sequences_of

        return sequences_of(ds, codes, axis=axis, layer=layer, phase=phase, tokens=tokens, until=until)

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of every sequence, gaps included, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def sequence_of(self) -> NDArray[np.intp]:
        """The sequence of every code, shape (total,)."""
        return np.repeat(np.arange(len(self), dtype=np.intp), self.lengths)

    def __getitem__(self, i: int) -> tuple[str | None, ...]:
        """Return the names along sequence i, None for a gap."""
        i = range(len(self))[i]
        return tuple(
            None if c < 0 else self.states[c] for c in self.codes[self.offsets[i] : self.offsets[i + 1]]
        )

    def padded(self) -> NDArray[np.int16]:
        """Return codes as a rectangle, −1 after the end, shape (n, longest)."""
        lengths = self.lengths
        out = np.full((len(self), int(lengths.max(initial=0))), -1, dtype=np.int16)
        out[np.arange(out.shape[1]) < lengths[:, None]] = self.codes
        return out

    def occupancy(self) -> NDArray[np.float64]:
        """Return the share of steps in every state, gaps left out, shape (K,); NaN without a step."""
        count = np.bincount(self.codes[self.codes >= 0], minlength=len(self.states))
        with np.errstate(invalid="ignore"):
            return np.asarray(count / count.sum())

    def select(self, which: ArrayLike | str | Callable[[pd.DataFrame], ArrayLike]) -> Sequences:
        """Return some of the sequences.

        Parameters
        ----------
        which : array_like of bool or int, str, or callable
            A mask, positions, a query over `labels` (``"model == 'gpt2'"``), or a function of `labels`.

        Raises
        ------
        DynstatError
            S407 where the query names a column that `labels` lacks; S404 for a mask of another length.
        """
        if isinstance(which, str):
            try:
                picked = self.labels.reset_index(drop=True).query(which).index.to_numpy()
            except (
                pd.errors.UndefinedVariableError,
                AttributeError,
                KeyError,
                SyntaxError,
                ValueError,
                TypeError,
            ) as error:
                raise DynstatError(
                    "S407",
                    f"the query cannot be answered: {error}",
                    where="labels",
                    found=which,
                    expected=", ".join(map(str, self.labels.columns)),
                ) from None
        else:
            array = np.asarray(which(self.labels) if callable(which) else which)
            if array.dtype == bool and array.shape != (len(self),):
                raise DynstatError(
                    "S404", "a mask needs an entry a sequence", found=array.shape, expected=len(self)
                )
            picked = np.flatnonzero(array) if array.dtype == bool else array.astype(np.intp)
        lengths = self.lengths[picked]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)
        codes = self.codes[np.repeat(self.offsets[:-1][picked], lengths) + within]
        return replace(
            self, codes=codes, offsets=offsets, labels=self.labels.iloc[picked].reset_index(drop=True)
        )

    def split(self, by: str) -> dict[str, Sequences]:
        """Return sequences a level of a column of labels ("model", "category"), in order of appearance."""
        column = self.column(by)
        return {str(name): self.select((column == name).to_numpy()) for name in column.dropna().unique()}

    def runs(self) -> Runs:
        """Return every stay in one state, in order; gaps are no stays."""
        codes, offsets = self.codes, self.offsets
        if not codes.size:
            none = np.zeros(0, dtype=np.intp)
            return Runs(none, none.astype(np.int16), none, none, none.astype(bool), none.astype(bool))
        begins = np.concatenate([[True], codes[1:] != codes[:-1]])
        begins[offsets[:-1][self.lengths > 0]] = True
        at = np.flatnonzero(begins)
        length = np.diff(np.concatenate([at, [codes.size]]))
        sequence, state = self.sequence_of[at], codes[at]
        gap = state < 0
        fresh = np.concatenate([[True], sequence[1:] != sequence[:-1]])
        left = fresh | np.concatenate([[False], gap[:-1]])
        right = np.concatenate([fresh[1:], [True]]) | np.concatenate([gap[1:], [False]])
        keep = ~gap
        start = at - offsets[:-1][sequence]
        return Runs(sequence[keep], state[keep], start[keep], length[keep], left[keep], right[keep])

    def collapse_runs(self) -> Sequences:
        """Return the sequences with every stay shortened to one step (run-length collapse).

        A gap stays, as one step. :meth:`runs` of the sequences before has the lengths of the stays.
        """
        if not self.codes.size:
            return self
        keep = np.concatenate([[True], self.codes[1:] != self.codes[:-1]])
        keep[self.offsets[:-1][self.lengths > 0]] = True
        offsets = np.concatenate([[0], np.cumsum(keep)])[self.offsets].astype(np.int64)
        return replace(self, codes=self.codes[keep], offsets=offsets)

    def column(self, name: str) -> pd.Series[Any]:
        """Return a column of labels; S407 where there is none of that name."""
        if name not in self.labels.columns:
            raise DynstatError(
                "S407",
                f"the sequences have no label {name!r}",
                found=name,
                expected=", ".join(map(str, self.labels.columns)),
            )
        return self.labels[name]

    def __str__(self) -> str:
        n = int(self.lengths.sum())
        rows = [f"{len(self)} sequences of states along {self.axis}s, {n} steps"]
        shares = self.occupancy()
        rows += [f"  {name:<22} {share:.3f}" for name, share in zip(self.states, shares, strict=True)]
        if n and (gaps := int(np.sum(self.codes < 0))):
            rows.append(f"  ({gaps} steps without a state)")
        return "\n".join(rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def _encode(
    column: pd.Series[Any], states: Sequence[str] | None
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Return codes into the state names, −1 for missing values."""
    names: tuple[str, ...]
    if isinstance(column.dtype, pd.CategoricalDtype):
        own = [_name(c) for c in column.cat.categories]
        raw = column.cat.codes.to_numpy()
    else:
        raw, found = pd.factorize(column, use_na_sentinel=True)
        own = [_name(c) for c in found]
    occur = np.bincount(raw[raw >= 0], minlength=len(own)) > 0
    if states is not None:
        names = tuple(map(str, states))
        if unknown := [n for n, seen in zip(own, occur, strict=True) if seen and n not in names]:
            raise DynstatError(
                "S407",
                "the data hold states that are not named",
                found=", ".join(sorted(unknown)),
                expected=", ".join(names),
                mend="name every state in `states`, or make the others missing (a gap)",
            )
    else:
        names = tuple(own) if isinstance(column.dtype, pd.CategoricalDtype) else tuple(sorted(own))
    place = {n: i for i, n in enumerate(names)}
    table = np.array([place.get(n, -1) for n in own] + [-1], dtype=np.int16)
    return table[raw], names


def _name(value: Any) -> str:
    # Codes that met a NaN come as floats: 1.0 is the state "1".
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _constant_columns(
    frame: pd.DataFrame,
    keys: list[str],
    labels: Sequence[str] | None,
    state: str,
    order: str,
    heads: NDArray[np.intp],
    group: NDArray[Any],
) -> pd.DataFrame:
    """Return a row a sequence with its key and every column that is constant within sequences."""
    table = frame.iloc[heads][keys].reset_index(drop=True)
    others = [c for c in frame.columns if c not in (*keys, state, order)] if labels is None else list(labels)
    for name in others:
        if name in table.columns:
            continue
        values = pd.factorize(frame[name])[0]
        if np.array_equal(values, values[heads][group]):
            table[name] = frame[name].iloc[heads].to_numpy()
        elif labels is not None:
            raise DynstatError("S404", f"{name} varies within a sequence", where=name, mend="leave it out")
    return table
