"""The definitions over the dims of a dataset: run-level metrics as a plan names them, and all wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ..errors import DynstatError
from ..files import canonical_json
from ..registry import METRICS, Metric, parse_metric
from . import commitment as _commitment
from . import regimes as _regimes
from . import runs as _runs
from .labelled_ct import chosen_tokens, ct, ct_series, ct_units
from .labelled_operator import gd_ratio, kappa
from .labelled_states import (
    collapse,
    learn_collapse_thresholds,
    learn_state_thresholds,
    rivalry,
    state_shares,
    states,
)
from .labels import label
from .options import SERIES
from .repetition import repetition_rate
from .selection import DIMS, RUN, at_layer, layer_positions, need, token_mask

__all__ = [
    "collapse",
    "companions",
    "ct",
    "gd_ratio",
    "kappa",
    "learn_collapse_thresholds",
    "learn_state_thresholds",
    "regimes",
    "rivalry",
    "run_metric",
    "state_shares",
    "states",
]


def run_metric(ds: xr.Dataset, spec: Mapping[str, Any] | str) -> xr.DataArray:
    """Compute a run-level metric as a plan names it.

    Parameters
    ----------
    ds : xarray.Dataset
    spec : mapping or str
        ``metric: name@version`` and options, for example ``{"metric": "ratio_norm@1", "layer": "last",
        "phase": "generated", "alignment": "causal", "scale": "log"}``; the rest take their defaults, all of
        them where the spec is a name alone. By
        default special tokens, and values that use the first token of the sequence, are left out.
        ``tokens: N`` takes the first N values of every run and gives runs with fewer no value.

    Returns
    -------
    xarray.DataArray, dims (model, prompt, sample)
        NaN where a run has no value; codes (-1 for none) for `regime`. All options stand in its attributes.

    Raises
    ------
    DynstatError
        Y002 and Y003 for a spec the registry does not accept, Y003 for a metric that has no value a run,
        D103 where the dataset lacks a variable, D104 where it lost a dim, S404 for a choice that does not
        fit.
    """
    entry, options = _parse(spec)
    own = {k: v for k, v in options.items() if k not in SERIES}
    values: NDArray[Any]
    units = entry.units
    if "alignment" in options and entry.level == "run":
        series, mask = ct_series(ds, options)
        if entry.name in ("late_ct", "flux", "debt"):
            units = ct_units(options)
        if entry.name == "flux" and own["aggregate"] == "per_byte":
            own["n_bytes"] = _bytes(ds, options)
        if entry.name == "ratio_norm_z":
            own["rng"] = own.pop("seed")
        if entry.name == "regime":
            values = _regimes.regime(METRICS.get("ratio_norm").resolve()(series, mask), **own)
        else:
            values = entry.resolve()(series, mask, **own)
    elif entry.name == "gd_ratio":
        values = gd_ratio(ds, by="run", **options).values
    elif entry.name == "run_mean":
        need(ds, options["of"])
        source = ds[options["of"]]
        if source.dtype.kind != "f" or "token" not in source.dims:
            raise DynstatError(
                "Y003",
                f"{options['of']} has no mean over the tokens of a run",
                where="of",
                found=f"{source.dtype} over {', '.join(map(str, source.dims))}",
                expected="a metric of token or layer level",
            )
        positions = layer_positions(ds, options["layer"]) if "layer" in source.dims else None
        chosen = source.transpose(*DIMS[:4]) if positions is None else at_layer(source, positions)
        # Steps and angles at the tokens after the first are made from the first token's state.
        window = (0 if positions is None else _looks_back(source), 0)
        mask = chosen_tokens(ds, options, positions, np.isfinite(chosen.values), window)
        values = entry.resolve()(chosen.values, mask)
        units = source.attrs.get("units", units)
    elif entry.name == "repetition_rate":
        need(ds, "token_id", "phase")
        generated = token_mask(ds, special="keep", first="keep")
        values = repetition_rate(ds["token_id"].transpose(*DIMS[:4]).values, generated, **own)
    elif entry.name == "commitment_time":
        values = _commitment_times(ds, options)
        along_depth = options["order"] == "layer"
        units = "1" if options["relative"] or along_depth else "token"
    else:
        raise DynstatError(
            "Y003",
            f"{entry.id} has no value a run",
            where="metric",
            found=f"level {entry.level}",
            expected=", ".join(m.name for m in METRICS if m.level == "run"),
            mend=f"use {{metric: run_mean@1, of: {entry.name}}}",
        )
    return label(ds, values, RUN, entry, options, units=units)


def companions(ds: xr.Dataset, spec: Mapping[str, Any] | str) -> xr.Dataset:
    """Compute what must stand beside a ratio_norm: n, mean, maximum, quantiles and spread of its ct.

    Parameters
    ----------
    ds : xarray.Dataset
    spec : mapping or str
        As for :func:`run_metric`, of a metric made from ct.

    Returns
    -------
    xarray.Dataset, dims (model, prompt, sample)
        With units and the options of the ct behind them.

    Raises
    ------
    DynstatError
        As :func:`run_metric`.
    """
    entry, options = _parse(spec)
    if "alignment" not in options or entry.level != "run":
        raise DynstatError("Y003", f"{entry.id} is not made from the ct of a run", where="metric")
    series, mask = ct_series(ds, options)
    coords = {c: ds[c] for c in ds.coords if set(ds[c].dims) <= set(RUN)}
    of_ct = {"mean", "max", "q05", "median", "q95"}
    made = {k: options[k] for k in SERIES}
    data = {
        k: (RUN, v, {"long_name": f"{k} of ct", "units": ct_units(options) if k in of_ct else "1"})
        for k, v in _runs.companions(series, mask).items()
    }
    return xr.Dataset(data, coords, {"options": canonical_json(made).decode()})


def regimes(
    ds: xr.Dataset, mode: str = "published", *, cuts: list[float] | None = None, **selection: Any
) -> xr.DataArray:
    """Classify every run into a regime of ratio_norm.

    Parameters
    ----------
    ds : xarray.Dataset
    mode, cuts
        See :func:`dynstat.metrics.regimes.regime`.
    **selection
        Further options of the metric `regime`: layer, phase, alignment, tokens, normalisation...

    Returns
    -------
    xarray.DataArray of int8, dims (model, prompt, sample)
        Attribute flag_meanings names the codes.

    Raises
    ------
    DynstatError
        As :func:`run_metric`.
    """
    return run_metric(ds, {"metric": "regime@1", "mode": mode, "cuts": cuts, **selection})


def _parse(spec: Mapping[str, Any] | str) -> tuple[Metric, dict[str, Any]]:
    given: Mapping[str, Any] = {"metric": spec} if isinstance(spec, str) else spec
    if "metric" not in given:
        raise DynstatError(
            "Y002",
            "a metric's specification names no metric",
            where="metric",
            found=", ".join(given) or "nothing",
            expected="{metric: name@version, option: value, ...}",
        )
    return parse_metric(given)


def _looks_back(source: xr.DataArray) -> int:
    """Return how many tokens before a token enter its value, by what its definition leaves out."""
    marks = str(source.attrs.get("undefined", "")).split()
    return max((int(m.partition(":")[2]) for m in marks if m.startswith("first_tokens:")), default=0)


def _commitment_times(ds: xr.Dataset, options: Mapping[str, Any]) -> NDArray[Any]:
    along_depth, stable = options["order"] == "layer", options["kind"] == "stable"
    name = "top1_id" if stable else "top1_probability"
    need(ds, name)
    positions = None if along_depth else layer_positions(ds, options["layer"])
    source = ds[name].transpose(*DIMS) if positions is None else at_layer(ds[name], positions)
    has_value = source.values >= 0
    tokens = chosen_tokens(
        ds, options, positions, np.asarray(has_value.any(axis=-1)) if along_depth else has_value
    )
    if not along_depth:
        # Places count from the first token used, so that prompts of different length compare.
        rank = np.cumsum(tokens, axis=-1) - 1
        order = np.argsort(~tokens, axis=-1, kind="stable")
        packed = np.take_along_axis(source.values, order, axis=-1)
        mask = np.arange(tokens.shape[-1]) <= rank[..., -1:]
        return _times(packed, mask, options)
    layer_positions(ds)  # refuses a dataset without the last layers: settling is judged against them
    ok = ds["quality"].transpose(*DIMS).values == 0
    places = _times(source.values, ok, {**options, "relative": False})
    # Positions on the dim become layer numbers or depths, since not every layer need be stored.
    scale = ds["relative_depth"].transpose("model", "layer").values
    if not options["relative"]:
        scale = np.broadcast_to(ds["layer"].values.astype(np.float64), scale.shape)
    index = np.nan_to_num(places).astype(np.intp).reshape(len(scale), -1)
    times = np.take_along_axis(scale, index, axis=1).reshape(places.shape)
    return _runs.run_mean(np.where(np.isnan(places), np.nan, times), tokens)


def _times(values: NDArray[Any], mask: NDArray[np.bool_], options: Mapping[str, Any]) -> NDArray[Any]:
    if options["kind"] == "stable":
        return _commitment.commitment_time(values, mask, relative=options["relative"])
    return _commitment.first_above(values, mask, tau=options["tau"], relative=options["relative"])


def _bytes(ds: xr.Dataset, options: Mapping[str, Any]) -> NDArray[Any]:
    need(ds, "text")
    if options["phase"] != "generated" or options["tokens"] != "all":
        raise DynstatError(
            "S404",
            "bytes are known for the whole generated text only",
            found=f"phase {options['phase']}, tokens {options['tokens']}",
            expected="phase generated, tokens all",
        )
    text = ds["text"].transpose(*RUN).values
    return np.array([len(str(t).encode()) for t in text.ravel()], dtype=np.float64).reshape(text.shape)
