"""Spells: the stays in one state along runs, with what ended each of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError, DynstatWarning
from ..metrics.episodes import find_episodes

if TYPE_CHECKING:
    import xarray as xr

    from .sequences import Sequences

CENSORED, REOPENED, END_OF_TEXT = 0, 1, 2
EVENTS = ("censored", "reopened", "end_of_text")


@dataclass(frozen=True)
class Spells:
    """Stays in one state, those open at a run's first token left out. Made by :func:`find_spells`; frozen.

    A spell that is entered at token s and left at token e lasts ``e − s`` steps. One that is cut at the last
    token L by the token budget is known to last longer than ``L − s``: it is at risk through step ``L − s``
    (zero where it was entered at the last token). One that end of text cuts lasts through that token.

    Attributes
    ----------
    state : str
    duration : ndarray of int, shape (n,)
        Steps, see above.
    event : ndarray of int8, shape (n,)
        0 censored by the budget, 1 left (reopened), 2 end of text while still inside.
    start, sequence : ndarray of int, shape (n,)
        The step at which the state was entered, from 0 at the first of the run; row of `runs`.
    labels : DataFrame
        A row a spell: the run's labels, and values at entry where these were asked for.
    runs : DataFrame
        A row a run: its labels.
    inside : ndarray of int8, shape (runs, token)
        1 inside, 0 outside, -1 none; ends with the run's end of text.
    ended : ndarray of bool, shape (runs,)
        Whether the run reached end of text.
    limit : ndarray of int, shape (runs,)
        The longest the run could have become.
    left_open : int
        Spells left out since they were open at the first token.
    """

    state: str
    duration: NDArray[np.intp]
    event: NDArray[np.int8]
    start: NDArray[np.intp]
    sequence: NDArray[np.intp]
    labels: pd.DataFrame = field(repr=False)
    runs: pd.DataFrame = field(repr=False)
    inside: NDArray[np.int8] = field(repr=False)
    ended: NDArray[np.bool_] = field(repr=False)
    limit: NDArray[np.intp] = field(repr=False)
    left_open: int = 0

    def __len__(self) -> int:
        return self.duration.size

    def counts(self) -> dict[str, int]:
        """Return the number of spells by what ended them, and of those left out."""
        number = np.bincount(self.event, minlength=3)
        return {name: int(number[i]) for i, name in enumerate(EVENTS)} | {"left_open": self.left_open}

    def codes(self, column: str) -> tuple[NDArray[np.intp], tuple[str, ...], NDArray[np.intp]]:
        """Return the codes of a column of labels for the spells, its levels, and its codes for the runs.

        Raises
        ------
        DynstatError
            S407 where there is no such column, or runs without a value in it.
        """
        if column not in self.runs.columns:
            raise DynstatError(
                "S407",
                f"the runs carry no label {column!r}",
                found=column,
                expected=", ".join(map(str, self.runs.columns)) or "labelled runs",
            )
        if missing := int(self.runs[column].isna().sum()):
            raise DynstatError("S407", "runs without a value of a label", where=column, found=missing)
        levels, codes = np.unique(self.runs[column].astype(str).to_numpy(), return_inverse=True)
        codes = codes.astype(np.intp)
        return codes[self.sequence], tuple(map(str, levels)), codes

    def frame(self) -> pd.DataFrame:
        """Return a row a spell: its labels, entry, duration and what ended it."""
        own = {"entry": self.start, "duration": self.duration, "event": np.array(EVENTS)[self.event]}
        return self.labels.assign(**own)

    def periods(self) -> pd.DataFrame:
        """Return person-period data: a row a spell and step at risk.

        Columns: the labels, ``spell``, ``duration`` (1, 2, ...), ``reopened`` and ``end_of_text`` (0 or 1).
        """
        spell = np.repeat(np.arange(len(self)), self.duration)
        first = np.cumsum(self.duration) - self.duration
        step = np.arange(spell.size) - first[spell] + 1
        last = step == self.duration[spell]
        out = self.labels.iloc[spell].reset_index(drop=True)
        return out.assign(
            spell=spell,
            duration=step,
            reopened=(last & (self.event[spell] == REOPENED)).astype(np.int8),
            end_of_text=(last & (self.event[spell] == END_OF_TEXT)).astype(np.int8),
        )

    def __str__(self) -> str:
        c = self.counts()
        return (
            f"{len(self)} spells of {self.state} in {len(self.runs)} runs: {c['reopened']} reopened, "
            f"{c['end_of_text']} cut by end of text, {c['censored']} by the budget; "
            f"{c['left_open']} open at a run's first token left out"
        )


def find_spells(
    data: xr.Dataset | Sequences,
    codes: xr.DataArray | None = None,
    *,
    state: str | None = None,
    layer: str | int | float = "last",
    at_entry: Mapping[str, xr.DataArray] | None = None,
    stop: str = "stop_reason",
) -> Spells:
    """Find the stays in one state along tokens, and what ended each of them.

    Parameters
    ----------
    data : xarray.Dataset or Sequences
        A dataset of runs; or sequences of states with labels, that stop at their end of text.
    codes : xarray.DataArray
        With a dataset: from :func:`dynstat.metrics.labelled.collapse`, ``rivalry`` or ``states``.
    state : str, optional
        The state; by default COLLAPSE, or what `codes` are named for. Every other state is outside.
    layer : "last", int or float
        With codes that have layers.
    at_entry : mapping of str to DataArray, optional
        With a dataset: covariates by name, dims among model, prompt, sample, token; a spell gets the value
        at its start.
    stop : str
        With sequences: the label that says how the run stopped; "end_of_text" competes, anything else
        censors. A label ``first_end_of_text`` from 0 up competes too.

    Returns
    -------
    Spells

    Raises
    ------
    DynstatError
        S407 unknown state; S406 no spell is left; D103 the dataset lacks a variable; S404 no codes, dims.

    Notes
    -----
    A run ends at its first end-of-text token, whatever follows it. A token without value neither ends a
    spell nor stops its clock. Along layers nothing competes: the last layer censors.
    """
    if hasattr(data, "padded"):
        sequences = cast("Sequences", data)
    else:
        sequences, state = _of_dataset(cast("xr.Dataset", data), codes, state, layer)
    name = state or "COLLAPSE"
    if name not in sequences.states:
        raise DynstatError(
            "S407", f"no state is called {name}", found=name, expected=", ".join(sequences.states)
        )
    padded = sequences.padded()
    inside = np.where(padded < 0, -1, padded == list(sequences.states).index(name)).astype(np.int8)
    runs = sequences.labels.reset_index(drop=True)
    ended = np.zeros(len(runs), dtype=np.bool_)
    if sequences.axis == "layer":
        pass  # Layers run out; that is no end of text.
    elif stop in runs.columns:
        ended |= (runs[stop].astype(str) == "end_of_text").to_numpy()
    else:
        warnings.warn(
            f"the sequences carry no label {stop!r}: every open end counts as cut by the budget",
            DynstatWarning,
            stacklevel=2,
        )
    if sequences.axis == "token" and "first_end_of_text" in runs.columns:
        ended |= runs["first_end_of_text"].to_numpy() >= 0
    made = make_spells(name, inside, runs, ended, _limit(runs, ended, sequences.lengths))
    if at_entry:
        columns = {k: _at_entry(made, v) for k, v in at_entry.items()}
        made = replace(made, labels=made.labels.assign(**columns))
    return made


def make_spells(
    state: str,
    inside: NDArray[np.int8],
    runs: pd.DataFrame,
    ended: NDArray[np.bool_],
    limit: NDArray[np.intp] | None = None,
) -> Spells:
    """Make spells of 0/1 codes (runs × token, −1 for none) that end where their run ends.

    Raises
    ------
    DynstatError
        S406 where no spell is left.
    """
    found = find_episodes(inside)
    if not len(found):
        raise DynstatError(
            "S406", f"no run is ever in {state}", found=f"{len(runs)} runs", mend="look at the thresholds"
        )
    keep = ~found.left_open
    if not keep.any():
        raise DynstatError(
            "S406",
            f"every stay in {state} is open at its run's first token, so no start is known",
            found=f"{len(found)} stays",
            mend="use longer runs or thresholds that are met less often",
        )
    run = found.run[keep, 0]
    right = found.right_open[keep]
    event = np.where(right, np.where(ended[run], END_OF_TEXT, CENSORED), REOPENED).astype(np.int8)
    # At the last token of a budget the next one is not seen, so the spell is at risk one step less.
    duration = found.length[keep] - (event == CENSORED)
    labels = runs.iloc[run].reset_index(drop=True)
    length = np.where(inside >= 0, np.arange(1, inside.shape[1] + 1), 0).max(axis=1)
    return Spells(
        state,
        duration.astype(np.intp),
        event,
        found.start[keep],
        run,
        labels,
        runs.reset_index(drop=True),
        inside,
        ended,
        length.astype(np.intp) if limit is None else limit,
        int((~keep).sum()),
    )


def _of_dataset(
    ds: xr.Dataset, codes: xr.DataArray | None, state: str | None, layer: str | int | float
) -> tuple[Sequences, str | None]:
    from ..metrics.selection import need
    from .sequences import Sequences

    if codes is None:
        raise DynstatError(
            "S404", "a dataset needs codes", mend="pass collapse(ds, enter=..., leave=...) as second argument"
        )
    need(ds, "phase", "stop_reason", "first_end_of_text", "n_generated")
    own = str(codes.name or "").upper()
    known = str(codes.attrs.get("flag_meanings", "")).split()
    return Sequences.from_dataset(ds, codes, layer=layer), own if state is None and own in known else state


def _limit(runs: pd.DataFrame, ended: NDArray[np.bool_], lengths: NDArray[Any]) -> NDArray[np.intp]:
    """Return how long every run could have become; one that ended is given what the others were."""
    own = np.asarray(lengths, dtype=np.intp)
    full = np.full(own.size, own.max(initial=0))
    for column in ("n_generated", "budget"):
        if column in runs.columns:
            full = runs[column].to_numpy(dtype=np.intp)
    return np.where(ended, np.maximum(full, own), own)


def _at_entry(spells: Spells, values: xr.DataArray) -> NDArray[Any]:
    """Return the value of a variable at the start of every spell."""
    frame = spells.labels
    if missing := [d for d in values.dims if d != "token" and d not in frame.columns]:
        raise DynstatError(
            "S404",
            "a covariate at entry has dims that a spell has not",
            where=str(values.name),
            found=", ".join(map(str, values.dims)),
            expected="model, prompt, sample, token",
            mend=f"select one: .sel({missing[0]}=...)",
        )
    index = []
    for d in map(str, values.dims):
        if d == "token":
            wanted = frame["start"].to_numpy() + spells.start
        else:
            wanted = frame[d].to_numpy()
        index.append(values.indexes[d].get_indexer(wanted))
    if any((i < 0).any() for i in index):
        raise DynstatError("S407", "a covariate at entry lacks labels of the runs", where=str(values.name))
    return np.asarray(values.values[tuple(index)])
