"""Family-wise error: how the level is shared among the hypotheses of a family."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DynstatError

CORRECTIONS = ("bonferroni",)


def level_of_each_test(alpha: float, m: int, correction: str = "bonferroni") -> float:
    """Return the level of each of the 2m tests of a family with m confirmatory hypotheses: alpha / m.

    A hypothesis has two null hypotheses, that of support and that of rejection. They exclude each other, so
    at most m of the 2m are true at once, and alpha / m for each test holds the family-wise error at alpha
    (Bonferroni over the true ones).

    Parameters
    ----------
    alpha : float
        Of the family, in (0, 0.5).
    m : int
        Every registered confirmatory hypothesis, also those that could not be run.

    Raises
    ------
    DynstatError
        S404 where alpha, m or the correction lie outside these.
    """
    if not 0 < alpha < 0.5:
        raise DynstatError("S404", "alpha must lie between 0 and 0.5", found=alpha)
    if m < 1:
        raise DynstatError("S404", "a family holds at least one hypothesis", found=m)
    if correction not in CORRECTIONS:
        raise DynstatError("S404", f"unknown correction {correction!r}", expected=" | ".join(CORRECTIONS))
    return alpha / m


def joined(p: Sequence[float], rule: str) -> float:
    """Return the p of a joined test.

    ``largest`` is the intersection-union test, ``smallest`` takes k times the smallest (Bonferroni).

    Examples
    --------
    >>> joined([0.01, 0.04], "largest"), joined([0.01, 0.04], "smallest")
    (0.04, 0.02)
    """
    if rule == "largest":
        return max(p)
    if rule == "smallest":
        return min(1.0, len(p) * min(p))
    raise DynstatError("S404", f"unknown joining rule {rule!r}", expected="largest | smallest")
