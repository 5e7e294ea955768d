"""How numbers are written in criteria, decisions and results: one style, APA where it says something."""

from __future__ import annotations

import math

# Quantities that cannot exceed 1 in size lose their leading zero.
BOUNDED_SCALES = ("variance_share", "probability", "share", "correlation", "accuracy")
_BOUNDED_KEYS = ("share.", "eta2.", "omega2.", "population.share.", "chance.", "share_beyond.", "state.")


def is_bounded(key: str = "", scale: str = "") -> bool:
    """Return whether a quantity is bounded by 1 in size, by its scale or its estimate key."""
    return scale in BOUNDED_SCALES or key.startswith(_BOUNDED_KEYS)


# Quantities that are never negative, by the start of their key; a difference of two of them is another key.
_NEVER_NEGATIVE = (
    *_BOUNDED_KEYS,
    *("cramers_v", "total_variation", "largest_distance", "reopening", "end_of_text", "path_share"),
    *("self_transition.", "occupancy.", "exit.", "dwell.", "stationary.", "transition.", "entropy_rate"),
    *("named.frequency", "others.frequency", "surviving_pairs", "stability", "gap_factor", "conserved"),
)
_NEVER_NEGATIVE_SCALES = ("variance", "standard_deviation", "distance", "count", "time", "tokens")


def is_never_negative(key: str = "", scale: str = "") -> bool:
    """Return whether a quantity is known to be never negative, by its estimate key or its scale.

    A scale that shares and their differences have in common (``variance_share``, ``probability``) says
    nothing of the sign.

    Examples
    --------
    >>> is_never_negative("share.model"), is_never_negative("share_difference", "variance_share")
    (True, False)
    """
    return key.startswith(_NEVER_NEGATIVE) or scale in _NEVER_NEGATIVE_SCALES


def number(x: float | int | None, bounded: bool = False) -> str:
    """Write a number: three decimals without leading zero where bounded by 1, else four significant digits.

    Examples
    --------
    >>> number(0.0366, bounded=True), number(0.0, bounded=True), number(-0.5), number(72)
    ('.037', '.000', '-0.5', '72')
    """
    if x is None or math.isnan(x):
        return "not available"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if bounded:
        text = f"{x:.3f}"
        text = text.lstrip("-") if float(text) == 0 else text
        return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
    return str(x) if isinstance(x, int) else f"{x:.4g}"


def p_value(p: float | None) -> str:
    """Write a p-value to three digits, ``< .001`` below.

    Examples
    --------
    >>> p_value(0.0123), p_value(1e-9), p_value(1.0)
    ('.012', '< .001', '1.000')
    """
    if p is None or math.isnan(p):
        return "not available"
    if p < 0.001:
        return "< .001"
    return f"{p:.3f}".replace("0.", ".", 1) if p < 0.9995 else "1.000"


def p_equals(p: float) -> str:
    """Write ``p = .012`` or ``p < .001``."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def level(alpha: float) -> str:
    """Write a test level to four digits without trailing zeros: ``.0167``, ``.05``."""
    return f"{alpha:.4f}".rstrip("0").replace("0.", ".", 1)
