"""Check what must hold between variables of any model: bounds of distributions, sums, equal beginnings.

Every check speaks only where both of its variables have values, and only of definitions that the registry
knows. Tolerances are those of float32: 1e-6 between numbers of one softmax, `NAT` where entropies or
divergences come in, which are sums over the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..registry import METRICS
from .schema import DIMS, OK, base_name

# float32 softmax differs from float64 by up to 2e-4 nat at a vocabulary of 262,144 (measured).
NAT = 5e-4
UNIT = 1e-6
# Between runs that were read in other batches: rounding of the states, of angles above all.
SHARED = 5e-3
# Whole numbers in another unit than tokens.
_JUMP = ("next_token_rank",)


@dataclass(frozen=True)
class Breach:
    """One identity that does not hold.

    Attributes
    ----------
    name : str
        Variable.
    bad : ndarray of bool
        Where, over the dims of the variable.
    found, expected : str
        The first value that breaks it, and the identity.
    """

    name: str
    bad: np.ndarray
    found: str
    expected: str


def breaches(ds: xr.Dataset) -> Iterator[Breach]:
    """Yield the identities that a dataset breaks.

    Parameters
    ----------
    ds : xarray.Dataset
        Of the schema's dims.

    Yields
    ------
    Breach
    """
    vocabulary = ds["vocabulary"].values.astype(np.float64) if "vocabulary" in ds.coords else np.zeros(1)
    vocabulary = vocabulary.reshape(-1, *[1] * (len(DIMS) - 1))
    for readout in dict.fromkeys(_readout(ds[n]) for n in ds.data_vars):
        held = _Held(ds, readout, vocabulary)
        yield from held.distribution()
        yield from held.leaders()
        yield from held.divergence()
    yield from _spoken(ds)
    yield from _beginnings(ds)


class _Held:
    """The variables of one read-out by their definition."""

    def __init__(self, ds: xr.Dataset, readout: str, vocabulary: np.ndarray) -> None:
        self.ds = ds
        self.readout = readout
        self.vocabulary = vocabulary
        self.ok = ds["quality"].values == OK
        self.names: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for name in map(str, ds.data_vars):
            variable = ds[name]
            definition = str(variable.attrs.get("definition", ""))
            if variable.dims != DIMS or definition not in METRICS or _readout(variable) != readout:
                continue
            entry = METRICS.get(definition)
            options = {k: o.default for k, o in entry.options.items()} | _options(variable)
            self.names.setdefault(entry.name, []).append((name, options))

    def get(self, metric: str) -> tuple[str, np.ndarray | None]:
        """Return the name and the values of a metric that has no options, None where it is not there."""
        found = self.names.get(metric)
        return (found[0][0], self.values(found[0][0])) if found else (metric, None)

    def values(self, name: str) -> np.ndarray:
        """Return values in float64, NaN where the quality is not ok."""
        return np.where(self.ok, self.ds[name].values.astype(np.float64), np.nan)

    def distribution(self) -> Iterator[Breach]:
        """Entropy against vocabulary, leader, squares and the numbers made of it."""
        h, entropy = self.get("entropy")
        if entropy is None:
            return
        v = self.vocabulary
        with np.errstate(all="ignore"):
            yield from _above(h, entropy, np.where(v > 0, np.log(v), np.inf) + NAT, "at most ln V")
            name, p1 = self.get("top1_probability")
            if p1 is not None:
                yield from _above(name, -np.log(p1), entropy + NAT, "top1_probability >= exp(-entropy)", p1)
                rest = np.clip(1.0 - p1, 0.0, 1.0)
                other = np.where(rest > 0, rest * np.log(np.maximum(v - 1, 1.0) / rest), 0.0)
                most = np.where(v > 1, other - p1 * np.log(p1), np.inf)
                yield from _above(h, entropy, most + NAT, "at most what the leader leaves (Fano's bound)")
            name, squares = self.get("sum_squares")
            if squares is not None:
                yield from _above(
                    name, -np.log(squares), entropy + NAT, "sum of squares >= exp(-entropy)", squares
                )
            name, effective = self.get("effective_vocabulary")
            if effective is not None:
                yield from _apart(name, effective, np.exp(entropy), 1e-5 * np.exp(entropy), "exp(entropy)")
            name, share = self.get("normalised_entropy")
            if share is not None:
                yield from _apart(
                    name, share, np.where(v > 1, entropy / np.log(v), share), 1e-5, "entropy / ln V"
                )

    def leaders(self) -> Iterator[Breach]:
        """Leader, runner-up, margin, mass of the first k, and the number above a threshold."""
        _, p1 = self.get("top1_probability")
        second, p2 = self.get("top2_probability")
        margin, gap = self.get("margin")
        name, squares = self.get("sum_squares")
        if p1 is not None and p2 is not None:
            yield from _above(second, p2, p1 + UNIT, "at most top1_probability")
            yield from _above(second, p2, 1.0 - p1 + UNIT, "at most 1 - top1_probability")
            if gap is not None:
                yield from _apart(margin, gap, p1 - p2, UNIT, "top1_probability - top2_probability")
        if p1 is not None and gap is not None:
            yield from _above(margin, gap, p1 + UNIT, "at most top1_probability")
        if p1 is not None and squares is not None:
            yield from _above(name, squares, p1 + UNIT, "at most top1_probability")
            yield from _above(name, p1**2 - UNIT, squares, "at least top1_probability squared", squares)
        masses = sorted(self.names.get("concentration", []), key=lambda m: int(m[1]["k"]))
        below, k_below = p1, 1
        for name, options in masses:
            mass, k = self.values(name), int(options["k"])
            if below is not None:
                slack = UNIT * max(k, 1)
                yield from _above(
                    name, below - slack, mass, f"at least the mass of the first {k_below}", mass
                )
                yield from _above(
                    name, mass, below * k / k_below + slack, f"at most {k}/{k_below} of the first {k_below}"
                )
            below, k_below = mass, k
        for name, options in self.names.get("dispersion", []):
            count, threshold = self.values(name), float(options["threshold"])
            yield from _above(name, count, 1.0 / threshold + UNIT, f"at most 1 / {threshold:g}")
            yield from _apart(name, count, np.round(count), 0.0, "a whole number")

    def divergence(self) -> Iterator[Breach]:
        """Divergences from the final layer: never negative, none at the final layer itself."""
        for metric in ("kl_to_final", "kl_from_final"):
            name, values = self.get(metric)
            if values is None:
                continue
            yield from _above(name, -values, np.full((), NAT), "at least 0", values)
            if self.readout == "" and "layers" in self.ds.coords:
                last = self.ds["layer"].values[None, :] == self.ds["layers"].values[:, None] - 1
                at_end = np.where(last[:, None, None, None, :], values, np.nan)
                yield from _apart(name, at_end, np.zeros(()), NAT, "0 at the last layer")


def _spoken(ds: xr.Dataset) -> Iterator[Breach]:
    """The token read: no more probable than the leader before it, and as probable as foretold there."""
    if "log_probability" not in ds or "layers" not in ds.coords:
        return
    held = _Held(ds, "", np.zeros(1))
    last = (ds["layer"].values[None, :] == ds["layers"].values[:, None] - 1)[:, None, None, None, :]
    spoken = ds["log_probability"].values.astype(np.float64)
    following = np.full_like(spoken, np.nan)
    following[..., :-1] = spoken[..., 1:]
    for metric in ("top1_probability", "next_token_log_probability"):
        name, values = held.get(metric)
        if values is None:
            continue
        final = np.where(last.any(-1), np.where(last, values, 0.0).sum(-1), np.nan)
        with np.errstate(all="ignore"):
            if metric == "top1_probability":
                bad = np.exp(following) > final * (1 + NAT) + UNIT
                expected = "at most top1_probability of the token before at the last layer"
            else:
                bad = np.abs(following - final) > NAT * np.maximum(1.0, np.abs(following))
                expected = f"{name} of the token before at the last layer"
        if bad.any():
            shifted = np.zeros_like(bad)
            shifted[..., 1:] = bad[..., :-1]
            yield Breach("log_probability", shifted, str(spoken[shifted][0]), expected)


def _beginnings(ds: xr.Dataset) -> Iterator[Breach]:
    """Samples of one prompt have read the same until its last token: their values are equal there.

    Runs with an intervention, and models not in float32, whose rounding depends on the batch, are left out;
    so are counts and ranks of tokens, which jump, and metrics of users, which may look at a whole run.
    """
    if not {"token_id", "n_prompt"} <= set(map(str, ds.data_vars)) or "dtype" not in ds.coords:
        return
    plain = ds["kind"].values.astype(str) == "" if "kind" in ds.coords else np.ones(ds.sizes["sample"], bool)
    samples = np.flatnonzero(plain)
    if len(samples) < 2:
        return
    ids, n_prompt = ds["token_id"].values[:, :, samples], ds["n_prompt"].values[:, :, samples]
    inside = np.arange(ids.shape[-1]) < n_prompt[..., None]
    # The last token of a prompt is followed by different ones, which some definitions look at.
    before = np.arange(ids.shape[-1]) < n_prompt[..., None] - 1
    present = n_prompt > 0
    first = present.argmax(2)[:, :, None]
    same_length = n_prompt == np.take_along_axis(n_prompt, first, 2)
    same_ids = (ids == np.take_along_axis(ids, first[..., None], 2)) | ~inside
    alike = present & same_length & same_ids.all(-1)
    alike &= (ds["dtype"].values.astype(str) == "float32")[:, None, None]
    where = (alike[..., None] & before)[..., None] & (ds["quality"].values[:, :, samples] == OK)
    if not where.any():
        return
    for name in map(str, ds.data_vars):
        variable = ds[name]
        definition = str(variable.attrs.get("definition", ""))
        if variable.dims != DIMS or variable.dtype.kind != "f" or definition not in METRICS:
            continue
        metric = METRICS.get(definition)
        if metric.units == "token" or metric.name in _JUMP or metric.origin == "user":
            continue
        values = variable.values[:, :, samples]
        reference = np.take_along_axis(values, first[..., None, None], 2)
        with np.errstate(invalid="ignore"):
            bad = where & (np.abs(values - reference) > SHARED * np.maximum(1.0, np.abs(reference)))
        if bad.any():
            full = np.zeros(variable.shape, bool)
            full[:, :, samples] = bad
            expected = "the same at the beginning that samples share"
            yield Breach(name, full, str(values[bad][0]), expected)


def _above(
    name: str, values: np.ndarray, most: Any, expected: str, shown: np.ndarray | None = None
) -> Iterator[Breach]:
    bad = values > most
    if bad.any():
        yield Breach(name, bad, str(np.float32((values if shown is None else shown)[bad][0])), expected)


def _apart(name: str, values: np.ndarray, other: Any, slack: Any, expected: str) -> Iterator[Breach]:
    bad = np.abs(values - other) > slack
    if bad.any():
        wanted = np.broadcast_to(other, values.shape)[bad][0]
        yield Breach(name, bad, str(np.float32(values[bad][0])), f"{expected}, {np.float32(wanted)}")


def _readout(variable: xr.DataArray) -> str:
    return str(variable.attrs.get("readout", "")) or str(variable.name)[len(base_name(str(variable.name))) :]


def _options(variable: xr.DataArray) -> dict[str, Any]:
    try:
        return dict(json.loads(variable.attrs.get("options", "{}")))
    except (TypeError, ValueError):
        return {}
