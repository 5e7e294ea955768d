"""Which targets the extraction benchmark met, from its tables: no measuring here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .extraction_rounds import Row, Table

LONG, AT_LONG, AT_SHORT = 512, 1.25, 1.5
OVER_NAIVE, OVER_TL, OVER_NAIVE_LINEAR = 2.3, 2.2, 1.25
SPARE_MB, SAME_MB = 64.0, 16.0
OFF = 1e-4


@dataclass(frozen=True)
class Target:
    """One line of the verdict; `met` is None where it was not judged, and `why` says why.

    Attributes
    ----------
    what : str
        The target.
    value : float
        What was found.
    bound : str
        What is asked.
    met : bool or None
        Whether it is.
    why : str
        Why it was not judged.
    """

    what: str
    value: float
    bound: str
    met: bool | None
    why: str = ""


def least(value: float, bound: float, what: str) -> Target:
    """Ask for at least `bound`; NaN is a miss."""
    return Target(what, value, f">= {bound:g}", bool(value >= bound))


def most(value: float, bound: float, what: str) -> Target:
    """Ask for at most `bound`; NaN is a miss."""
    return Target(what, value, f"<= {bound:g}", bool(value <= bound))


def floor(table: Table) -> float:
    """Return seconds of the floor: the forward pass, and the unembedding by the faster kernel."""
    kernels = [_least(table, name) for name in ("matmul_linear", "matmul_onednn")]
    return _least(table, "forward") + float(np.nanmin(kernels))


def judge(table: Table) -> list[Target]:
    """Judge T1, T2, T3 and T5 on one table."""
    name = f"{table.size.name}, {table.size.tokens} tokens"
    own = table.rows["dynstat"]
    if own.failure:
        return [Target(f"{name}: dynstat ran", float("nan"), own.failure, False)]
    what, ratio = f"T1 {name}: time over the floor", own.least / floor(table)
    if table.size.tokens < LONG:
        out = [most(ratio, AT_SHORT, what)]
    elif table.size.kind == "gpt2":
        out = [most(ratio, AT_LONG, what)]
    else:
        # The narrower the states, the more statistics weigh beside the products.
        out = [Target(what, ratio, "", None, "the target for long texts is set at GPT-2's width")]
    out += _speed(table, name)
    allowed = table.hidden_mb + 3 * table.buffer_mb + SPARE_MB
    memory = own.most_mb
    if memory == memory:
        out.append(most(memory, round(allowed, 1), f"T3 {name}: extra memory of the worst round, MB"))
    else:
        out.append(Target(f"T3 {name}: extra memory, MB", memory, "", None, "this system does not tell it"))
    if table.truth is not None:
        out += _accuracy(table, own, name)
    return out


def _least(table: Table, form: str) -> float:
    return table.rows[form].least if form in table.rows else float("nan")


def _speed(table: Table, name: str) -> list[Target]:
    out = []
    own, wins = table.rows["dynstat"].least, table.kernel == "onednn"
    slower = "the oneDNN kernel was not the faster one here"
    if "naive" in table.rows:
        what = f"T2 {name}: better naive form over dynstat"
        naive = float(np.nanmin([_least(table, "naive"), _least(table, "naive_layers")])) / own
        out.append(least(naive, OVER_NAIVE, what) if wins else Target(what, naive, "", None, slower))
        if "dynstat_linear" in table.rows:
            linear = _least(table, "naive") / _least(table, "dynstat_linear")
            out.append(least(linear, OVER_NAIVE_LINEAR, f"T2 {name}: naive over dynstat, linear kernel"))
    if "tl" in table.rows:
        what, row = f"T2 {name}: TransformerLens over dynstat", table.rows["tl"]
        why = row.failure if row.failure else "" if wins else slower
        ratio = row.least / own
        out.append(Target(what, ratio, "", None, why) if why else least(ratio, OVER_TL, what))
    return out


def _accuracy(table: Table, own: Row, name: str) -> list[Target]:
    assert table.truth is not None
    if own.values is None:
        return [Target(f"T5 {name}: values", float("nan"), "some", False)]
    n = table.truth["entropy"].shape[1]
    out = []
    for key, what in (("entropy", "entropy"), ("kl", "KL to the final layer")):
        off = np.abs(own.values[key][:, :n] - table.truth[key])
        # max, not nanmax: a value that is missing is a miss.
        out.append(most(float(off.max()), OFF, f"T5 {name}: {what} off float64, nat"))
    differ = own.values["count"][:, :n] != table.truth["count"]
    ties = table.truth["ties"] > 0
    out.append(most(float((differ & ~ties).sum()), 0, f"T5 {name}: counts above 1 % that differ, ties apart"))
    return out


def judge_growth(names: Sequence[str], mb: Sequence[float]) -> list[Target]:
    """Judge the second half of T3: the lens's memory beside the first of some models."""
    out = []
    for name, found in zip(names[1:], mb[1:], strict=True):
        what = f"T3 lens on {name}: extra memory beyond that on {names[0]}, MB"
        if found != found:
            out.append(Target(what, found, "", None, "this system does not tell it"))
        else:
            out.append(most(found - mb[0], SAME_MB, what))
    return out
