"""Features of items made from units inside them: resample the units, and the features are built anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import DynstatError
from ..inference.resample import Resampler
from .features import Features, standardized

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UnitFeatures:
    """Values of items by units by features, from which features of items are averaged.

    A feature of an item is the weighted mean over the units that have a value,
    ``Σ_u w_u x_iuf / Σ_u w_u [x_iuf is there]``; with `by_stratum` one such mean a stratum.

    Attributes
    ----------
    values : ndarray, shape (items, units, features)
        NaN where an item has no value for a unit.
    items, units, names : tuple of str
        Labels of the three axes.
    strata : tuple of str or None
        The stratum of every unit, e.g. the prompt's category.
    by_stratum : bool
        Whether every stratum makes columns of its own, in sorted order, named ``feature[stratum]``.
    standardize : bool
        Whether every build ends in mean 0 and standard deviation 1 over items.
    item, unit, stratum : str
        What an item, a unit and a stratum are.
    """

    values: Array
    items: tuple[str, ...]
    units: tuple[str, ...]
    names: tuple[str, ...]
    strata: tuple[str, ...] | None = None
    by_stratum: bool = False
    standardize: bool = False
    item: str = "model"
    unit: str = "prompt"
    stratum: str = "category"

    def __post_init__(self) -> None:
        if self.by_stratum and self.strata is None:
            raise DynstatError("S404", "no strata to take columns from", expected="strata=")
        if self.values.shape != (len(self.items), len(self.units), len(self.names)):
            raise DynstatError(
                "S407",
                "labels do not fit the values",
                found=f"{len(self.items)} items, {len(self.units)} units, {len(self.names)} features",
                expected=str(self.values.shape),
            )
        if np.isinf(self.values).any():
            i, u, f = (int(v[0]) for v in np.nonzero(np.isinf(self.values)))
            raise DynstatError(
                "S405",
                "some values are infinite",
                where=f"{self.names[f]}, {self.item} {self.items[i]}, {self.unit} {self.units[u]}",
                mend="drop them, or take them as missing",
            )
        present = np.isfinite(self.values)
        filled = np.where(present, self.values, 0.0)
        u = len(self.units)
        # Units first and flat, so that all replicates are one matrix product.
        object.__setattr__(self, "_flat", np.ascontiguousarray(filled.transpose(1, 0, 2)).reshape(u, -1))
        object.__setattr__(
            self,
            "_present",
            None if present.all() else np.ascontiguousarray(present.transpose(1, 0, 2)).reshape(u, -1) * 1.0,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features that :meth:`build` gives."""
        if not self.by_stratum:
            return self.names
        return tuple(f"{name}[{s}]" for s in self._levels() for name in self.names)

    def resampler(self, *, stratified: bool | None = None) -> Resampler:
        """Return the resampler of the units, within strata where there are any (or as `stratified` says).

        Its weights have a column a unit, in the order of :attr:`units`.
        """
        n = len(self.units)
        within = self.strata is not None if stratified is None else stratified
        codes = np.zeros(n, dtype=np.intp)
        if within and self.strata is not None:
            codes = np.unique(np.array(self.strata, dtype=object).astype(str), return_inverse=True)[1]
        return Resampler(np.arange(n), tuple(self.units), codes.astype(np.intp))

    def build(self, weights: ArrayLike | None = None) -> Array:
        """Return features of items from weighted units.

        Parameters
        ----------
        weights : array_like, shape (units,) or (B, units), optional
            Not negative, for example counts of a bootstrap. Default: every unit once.

        Returns
        -------
        ndarray, shape (items, columns) or (B, items, columns)
            NaN where no unit of positive weight has a value.

        Raises
        ------
        DynstatError
            S404 for weights of another shape, negative or not finite.
        """
        n = len(self.units)
        w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
        if w.ndim not in (1, 2) or w.shape[-1] != n or not np.isfinite(w).all() or (w < 0).any():
            raise DynstatError(
                "S404",
                "weights do not fit the units",
                found=f"shape {w.shape}",
                expected=f"({n},) or (B, {n}), finite, none negative",
            )
        flat = np.atleast_2d(w)
        if self.by_stratum:
            assert self.strata is not None
            strata = np.array(self.strata, dtype=object)
            parts = [self._means(flat, np.flatnonzero(strata == s)) for s in self._levels()]
            out = np.concatenate(parts, axis=-1)
        else:
            out = self._means(flat, None)
        if self.standardize:
            out = standardized(out)
        return out if w.ndim == 2 else out[0]

    def features(self) -> Features:
        """Return the features with every unit once, as other functions take them.

        Raises
        ------
        DynstatError
            S405 where an item has no value for a feature.
        """
        values = self.build()
        if np.isnan(values).any():
            rows, columns = np.nonzero(np.isnan(values))
            raise DynstatError(
                "S405",
                "an item has no value for a feature",
                where=f"{self.columns[columns[0]]}, {self.item} {self.items[rows[0]]}",
                expected=f"a value for one {self.unit} at least",
                mend=f"drop that {self.item} or feature",
            )
        return Features(values, self.items, self.columns, self.item)

    def _levels(self) -> list[str]:
        return sorted(set(self.strata or ()))

    def _means(self, weights: Array, units: NDArray[np.intp] | None) -> Array:
        flat: Array = self._flat  # type: ignore[attr-defined]
        present: Array | None = self._present  # type: ignore[attr-defined]
        if units is not None:
            flat, weights = flat[units], weights[:, units]
            present = None if present is None else present[units]
        total = weights @ flat
        weight = weights.sum(axis=1)[:, None] if present is None else weights @ present
        with np.errstate(invalid="ignore", divide="ignore"):
            out = np.where(weight > 0, total / weight, np.nan)
        return out.reshape(weights.shape[0], len(self.items), len(self.names))

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        columns: Sequence[str] | str,
        item: str = "model",
        unit: str = "prompt",
        strata: str | None = None,
        by: str | None = None,
        standardize: bool = False,
    ) -> UnitFeatures:
        """Take values from a frame; rows of one item and unit are averaged, missing ones left out.

        Parameters
        ----------
        frame : DataFrame
            A row a measurement.
        columns : str or sequence of str
            Numeric; the features.
        item, unit : str
            Columns. Items and units come in order of first appearance.
        strata : str, optional
            Column; a unit lies in one stratum. Units are resampled within strata.
        by : str, optional
            The same, and every stratum makes columns of its own.
        standardize : bool
            Take every build to mean 0 and standard deviation 1 over items.

        Raises
        ------
        DynstatError
            S404 for a column that is not there or not numeric, labels that are missing, or a unit in two
            strata; S405 for values that are infinite.
        """
        names = (columns,) if isinstance(columns, str) else tuple(columns)
        stratum = by if by is not None else strata
        if by is not None and strata is not None and by != strata:
            raise DynstatError(
                "S404", "strata and by differ", found=f"{strata}, {by}", expected="one of them"
            )
        keys = [item, unit] + ([stratum] if stratum else [])
        for column in (*keys, *names):
            if column not in frame.columns:
                raise DynstatError(
                    "S404",
                    f"the data hold no column {column!r}",
                    found=column,
                    expected=", ".join(map(str, frame.columns)),
                )
        for column in names:
            if not pd.api.types.is_numeric_dtype(frame[column]):
                raise DynstatError("S404", "a feature is no number", where=column, found=frame[column].dtype)
        if missing := int(frame[keys].isna().any(axis=1).sum()):
            raise DynstatError(
                "S404",
                "some rows lack a label",
                where=", ".join(keys),
                found=f"{missing} rows",
                mend="drop them",
            )
        i, items = pd.factorize(frame[item].astype(str))
        u, units = pd.factorize(frame[unit].astype(str))
        cell = i * len(units) + u
        size = len(items) * len(units)
        values = np.full((size, len(names)), np.nan)
        for f, column in enumerate(names):
            x = frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
            ok = ~np.isnan(x)
            count = np.bincount(cell[ok], minlength=size)
            some = count > 0
            values[some, f] = np.bincount(cell[ok], x[ok], minlength=size)[some] / count[some]
        labels = None
        if stratum:
            pairs = pd.DataFrame(
                {"unit": u, "stratum": frame[stratum].astype(str).to_numpy()}
            ).drop_duplicates()
            if len(pairs) > len(units):
                twice = pairs.loc[pairs["unit"].duplicated(), "unit"].iloc[0]
                raise DynstatError(
                    "S404",
                    f"a {unit} lies in more than one {stratum}",
                    where=str(units[twice]),
                    found=", ".join(pairs.loc[pairs["unit"] == twice, "stratum"]),
                )
            labels = tuple(pairs.sort_values("unit")["stratum"])
        return cls(
            values.reshape(len(items), len(units), len(names)),
            tuple(items),
            tuple(units),
            names,
            labels,
            by is not None,
            standardize,
            item,
            unit,
            stratum or "category",
        )

    @classmethod
    def from_dataset(
        cls,
        ds: xr.Dataset,
        metrics: Sequence[Mapping[str, Any] | str] | Mapping[str, Mapping[str, Any] | str],
        *,
        strata: str | None = "category",
        by: str | None = None,
        standardize: bool = False,
    ) -> UnitFeatures:
        """Compute run-level metrics of a dataset as features of its models; samples of a prompt are averaged.

        Parameters
        ----------
        ds : xarray.Dataset
            Of models and prompts; see docs/schema.md.
        metrics : sequence or mapping of specs
            As :func:`dynstat.metrics.labelled.run_metric` takes them; keys of a mapping name the features.
        strata, by : str, optional
            A label of prompts; see :meth:`from_frame`.
        standardize : bool
            As above. Metrics have different units, so distances over several mostly need it.

        Raises
        ------
        DynstatError
            As ``run_metric``; S404 for a label that prompts do not have, or codes in place of numbers.
        """
        from ..metrics.labelled import run_metric

        specs = dict(metrics) if isinstance(metrics, Mapping) else _named(metrics)
        if not specs:
            raise DynstatError("S404", "no metric is named", where="metrics")
        parts = []
        for name, spec in specs.items():
            runs = run_metric(ds, spec)
            if runs.dtype.kind != "f":
                raise DynstatError(
                    "S404", "a feature is a code", where=name, expected="a metric that is a number"
                )
            parts.append(runs.transpose("model", "prompt", "sample").values.astype(np.float64))
        values = np.stack(parts, axis=-1)
        present = np.isfinite(values)
        count = present.sum(axis=2)
        total = np.where(present, values, 0.0).sum(axis=2)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        stratum = by if by is not None else strata
        labels = None
        if stratum is not None:
            if stratum not in ds.coords or ds[stratum].dims != ("prompt",):
                raise DynstatError(
                    "S404",
                    f"prompts have no label {stratum!r}",
                    found=stratum,
                    expected=", ".join(str(c) for c in ds.coords if ds[c].dims == ("prompt",)),
                )
            labels = tuple(map(str, ds[stratum].values))
        return cls(
            mean,
            tuple(map(str, ds["model"].values)),
            tuple(map(str, ds["prompt"].values)),
            tuple(specs),
            labels,
            by is not None,
            standardize,
            stratum=stratum or "category",
        )


def _named(specs: Sequence[Mapping[str, Any] | str]) -> dict[str, Mapping[str, Any] | str]:
    """Name every spec by its metric (run_mean: by what it averages), with options where two share a name."""
    out: dict[str, Mapping[str, Any] | str] = {}
    heads = [_head(s) for s in specs]
    for head, spec in zip(heads, specs, strict=True):
        name = head
        if heads.count(head) > 1 and not isinstance(spec, str):
            options = ", ".join(f"{k}={v}" for k, v in spec.items() if k not in ("metric", "of"))
            name = f"{head}({options})" if options else head
        if name in out:
            raise DynstatError("S404", "a metric is named twice", where=name, mend="name them with a mapping")
        out[name] = spec
    return out


def _head(spec: Mapping[str, Any] | str) -> str:
    if isinstance(spec, str):
        return spec.partition("@")[0]
    return str(spec.get("of") or spec.get("metric", "")).partition("@")[0]
