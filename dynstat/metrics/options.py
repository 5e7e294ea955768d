"""Options that the definitions share: which tokens and layer, which reading of ct, which normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..registry import Option


class Accepts(tuple):
    """Choices that a predicate decides; the members are what an error message prints."""

    _test: Callable[[Any], bool]

    def __new__(cls, test: Callable[[Any], bool], *words: str) -> Accepts:
        """Make the choices from a predicate and the words that describe it."""
        self = super().__new__(cls, words)
        self._test = test
        return self

    def __contains__(self, value: object) -> bool:
        return self._test(value)


def is_int(value: object) -> bool:
    """Whether a value is a whole number and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_layer(value: Any) -> bool:
    """Whether a value names one layer."""
    # 0.0 and 1.0 are refused: canonical JSON writes 0 and 1, which a lock would read as layers 0 and 1.
    return value == "last" or (is_int(value) and value >= 0) or (isinstance(value, float) and 0 < value < 1)


def layer_or_all(value: Any) -> bool:
    """Whether a value names a layer, or all."""
    return value == "all" or is_layer(value)


def is_count(value: object) -> bool:
    """Whether a value is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def number_or_none(value: Any) -> bool:
    """Whether a value is a number, or missing."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def cuts(value: Any) -> bool:
    """Whether a value is missing or three ascending numbers."""
    if value is None:
        return True
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(number_or_none(v) and v is not None for v in value)
        and value[0] < value[1] < value[2]
    )


LAYER = Option(
    "last",
    Accepts(is_layer, "last", "a layer number", "a relative depth between 0 and 1"),
    "layer index; `last` is each model's own last block; a fraction takes the nearest relative depth",
)
SELECTION: dict[str, Option] = {
    "layer": LAYER,
    "phase": Option(
        "generated", ("generated", "prompt", "all"), "tokens that were generated, prompted, or both"
    ),
    "special": Option("drop", ("drop", "keep"), "tokens flagged is_special"),
    "first": Option(
        "drop", ("drop", "keep"), "values that use the first token of the sequence (attention sink)"
    ),
    "tokens": Option(
        "all",
        Accepts(lambda v: v == "all" or is_count(v), "all", "a number of tokens"),
        "equal token count: the first N tokens kept; shorter runs get no value",
    ),
}
TRAJECTORY: dict[str, Option] = {
    **SELECTION,
    "alignment": Option(
        "causal",
        ("causal", "centred", "incoming", "outgoing"),
        "which step multiplies the angle, and at which token the product stands",
    ),
    "step": Option("chord", ("chord", "angle", "one_minus_cos"), "distance of consecutive states"),
    "curvature": Option(
        "rad",
        ("rad", "deg", "over_pi", "one_minus_cos", "menger", "difference"),
        "reading of the turning angle",
    ),
    "eps": Option(1e-6, None, "steps shorter than this count as frozen"),
}
SERIES: dict[str, Option] = {
    **TRAJECTORY,
    "normalisation": Option("RAW", ("RAW", "CLIPPED_MAD"), "winsorise ct around its median, or not"),
    "scope": Option("run", ("run", "model", "panel"), "over what CLIPPED_MAD takes median and MAD"),
    "clip": Option(3.5, (3.0, 3.5, 5.0), "CLIPPED_MAD winsorises beyond this many scaled MADs"),
}
SCALE = Option("raw", ("raw", "log"), "raw value or its natural logarithm")
QUANTILE = Accepts(lambda v: number_or_none(v) and v is not None and 0 < v < 1, "a share between 0 and 1")
POSITIVE_INT = Accepts(is_count, "a positive whole number")
WHOLE = Accepts(lambda v: is_int(v) and v >= 0, "a whole number from 0")
