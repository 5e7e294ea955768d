"""Checks of arguments that many functions of the room share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DynstatError

if TYPE_CHECKING:
    from .unit_features import UnitFeatures


def check_count(name: str, value: Any, least: int) -> int:
    """Return `value` as int; raise S404 where it is no whole number from `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DynstatError("S404", f"too few {name}", found=value, expected=f"a whole number from {least}")
    return int(value)


def check_level(level: Any) -> None:
    """Raise S404 for a confidence level that is not between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, (int, float, np.number)) or not 0 < level < 1:
        raise DynstatError("S404", "level must lie between 0 and 1", found=level, expected="e.g. 0.95")


def check_partition(partition: Any) -> None:
    """Raise S404 for what is no Partition."""
    from .partition import Partition

    if not isinstance(partition, Partition):
        raise DynstatError(
            "S404",
            "this is no partition",
            found=type(partition).__name__,
            expected="a Partition",
            mend="hierarchical() and the like make one; Partition.given() takes labels from elsewhere",
        )


def check_units(units: Any) -> None:
    """Raise S404 for what is no UnitFeatures."""
    from .unit_features import UnitFeatures

    if not isinstance(units, UnitFeatures):
        raise DynstatError(
            "S404",
            "units inside the items are needed",
            found=type(units).__name__,
            expected="UnitFeatures",
            mend="UnitFeatures.from_frame(frame, columns=[...], item='model', unit='prompt')",
        )


def check_resampled(units: UnitFeatures) -> None:
    """Raise S403 where drawing units anew, within their strata, changes nothing."""
    sizes = np.bincount(units.resampler().stratum_of)
    if sizes.max() < 2:
        raise DynstatError(
            "S403",
            f"there is nothing to resample: one {units.unit}"
            + (f" in every {units.stratum}" if sizes.size > 1 else ""),
            found=f"{len(units.units)} {units.unit}s",
            expected="at least two in a stratum, ten or more for an honest answer",
        )
