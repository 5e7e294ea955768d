"""Sequences of states out of a dataset: along tokens at one layer, or along layers at a token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DynstatError

if TYPE_CHECKING:
    import xarray as xr

    from .sequences import Axis, Sequences

_RUN = ("model", "prompt", "sample")
# Run-level variables that say how a run ended: chains of claims stop there.
_ENDINGS = ("stop_reason", "n_generated", "first_end_of_text")


def sequences_of(
    ds: xr.Dataset,
    codes: xr.DataArray,
    *,
    axis: Axis = "token",
    layer: str | int | float = "last",
    phase: str = "generated",
    tokens: str = "all",
    until: str = "end_of_text",
) -> Sequences:
    """Build sequences from a dataset and the states derived from it.

    Parameters
    ----------
    ds : xarray.Dataset
    codes : xarray.DataArray
        From :func:`dynstat.metrics.labelled.states`, ``collapse`` or ``rivalry``; its ``flag_meanings`` name
        the states.
    axis : {"token", "layer"}
        Along the tokens of a run, at one layer; or along the layers of a token.
    layer : "last", int or float
        Of axis "token"; see :func:`dynstat.metrics.selection.layer_positions`.
    phase : {"generated", "prompt", "all"}
        Special tokens, and values that use the first token, are gaps.
    tokens : {"all", "last_prompt"}
        Of axis "layer": every token of the phase is a sequence, or the last prompt token alone. Samples of a
        run share their prompt, so "last_prompt" keeps one sample a model and prompt.
    until : {"end_of_text", "budget"}
        Whether a run ends at its first end-of-text token or goes on to its budget.

    Returns
    -------
    Sequences
        Runs without a state are left out. Labels: every coordinate of model, prompt and sample, how the run
        ended, and the first token (or layer) of the sequence as ``start``; with axis "layer" also ``token``.

    Raises
    ------
    DynstatError
        S404 for an unknown choice or codes without the dims needed; D103 where a variable is missing; S406
        where no point has a state.
    """
    from ..dataset.schema import DIMS
    from ..metrics.selection import WINDOWS, at_layer, layer_positions, token_mask
    from .sequences import Sequences

    for value, known in ((axis, ("token", "layer")), (tokens, ("all", "last_prompt")), (until, _UNTIL)):
        if value not in known:
            raise DynstatError("S404", "unknown choice", found=value, expected=" | ".join(known))
    names = tuple(str(codes.attrs.get("flag_meanings", "")).split())
    if not names:
        raise DynstatError("S404", "the codes do not name their states", expected="attribute flag_meanings")
    alignment = json.loads(codes.attrs.get("options", "{}")).get("alignment")
    window = WINDOWS[alignment] if alignment else (0, 0)
    layered = "layer" in codes.dims
    if axis == "layer" and not layered:
        raise DynstatError("S404", "these codes have no layers", found=codes.name, mend='axis="token"')
    if axis == "layer" and tokens == "last_prompt":
        phase = "prompt"
    positions = layer_positions(ds, layer) if axis == "token" else None
    mask = token_mask(ds, positions=positions, phase=phase, window=window)
    if until == "end_of_text" and "first_end_of_text" in ds:
        mask &= _before_end(ds)
    if axis == "token":
        flat = at_layer(codes, positions) if layered and positions is not None else codes
        values = np.where(mask, flat.transpose(*DIMS[:4]).values, -1)
        coordinate = ds["token"].values
    else:
        values = np.where(mask[..., None], codes.transpose(*DIMS).values, -1)
        if tokens == "last_prompt":
            values = _last_prompt(values, mask)
        coordinate = ds["layer"].values
    rows = values.reshape(-1, values.shape[-1])
    seen = rows >= 0
    kept = np.flatnonzero(seen.any(axis=1))
    if not kept.size:
        raise DynstatError("S406", "no point has a state", where=str(codes.name), found=f"phase {phase}")
    rows, seen = rows[kept], seen[kept]
    # From the first to the last point with a state; what lies between stays a gap.
    start = seen.argmax(axis=1)
    stop = seen.shape[1] - seen[:, ::-1].argmax(axis=1)
    at = np.arange(seen.shape[1])
    inside = (at >= start[:, None]) & (at < stop[:, None])
    offsets = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int64)
    labels = _labels(ds, np.unravel_index(kept, values.shape[:-1]), axis)
    labels["start"] = coordinate[start]
    return Sequences(rows[inside].astype(np.int16), offsets, names, labels, axis)


_UNTIL = ("end_of_text", "budget")


def _before_end(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Return which tokens lie before the run's first end of text."""
    end = ds["first_end_of_text"].transpose(*_RUN).values[..., None]
    generated = ds["phase"].transpose(*_RUN, "token").values == 1
    # The variable counts generated tokens from 0, −1 for none.
    place = np.cumsum(generated, axis=-1) - 1
    return np.asarray((end < 0) | ~generated | (place < end))


def _last_prompt(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Keep the last prompt token of the first sample that has one; −1 elsewhere."""
    last = mask.shape[-1] - 1 - mask[..., ::-1].argmax(axis=-1)
    has = np.asarray(mask.any(axis=-1))
    first = has & (np.cumsum(has, axis=-1) == 1)
    chosen = (np.arange(mask.shape[-1]) == last[..., None]) & first[..., None]
    return np.where(chosen[..., None], values, -1)


def _labels(ds: xr.Dataset, index: tuple[NDArray[np.intp], ...], axis: str) -> pd.DataFrame:
    at = dict(zip((*_RUN, "token"), index, strict=False))
    columns: dict[str, Any] = {}
    for name in (*_RUN, *(str(c) for c in ds.coords)):
        dims = [str(d) for d in ds[name].dims]
        if name not in columns and dims and set(dims) <= set(_RUN):
            columns[name] = ds[name].values[tuple(at[d] for d in dims)]
    for name in _ENDINGS:
        if name in ds:
            columns[name] = ds[name].transpose(*_RUN).values[tuple(at[d] for d in _RUN)]
    for name in (
        "weights_sha256",
        "tokenizer_sha256",
        "revision",
        "source",
        "prompt_text",
        "answers",
        "distractors",
    ):
        columns.pop(name, None)
    if axis == "layer":
        columns["token"] = ds["token"].values[at["token"]]
    return pd.DataFrame(columns)
