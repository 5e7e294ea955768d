"""Recompute what a report says: every traced number against results.json, every decision from its p-values.

After statcheck (Nuijten et al. 2016): a decision that does not follow is a worse fault than a number
that differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dynstat.errors import DynstatError
from dynstat.escape import visible
from dynstat.files import sha256_file

from .results import DECISIONS, Results

_NUMBER = re.compile(r"-?\d*(?:\.(?P<fraction>\d+))?(?:e(?P<exponent>[-+]?\d+))?")


class Shown(NamedTuple):
    """A traced value as a document shows it: its key, its text, whether it is cut short."""

    key: str
    words: str
    short: bool
    where: str


def numbers(results: Results, shown: Iterable[Shown]) -> list[str]:
    """Return a problem for every shown value that differs from results.json; decisions first."""
    worse, rest = [], []
    for item in shown:
        value = results.get(item.key)
        if value is None:
            rest.append(f"{item.where}: no value has the key {item.key!r}")
            continue
        # The isolates that escaping adds are taken off; those of the text itself are shown in words.
        want, got = flatten(visible(value.formatted)), flatten(item.words)
        if got == want or (item.short and len(got) >= 8 and want.startswith(got)):
            continue
        if item.key.endswith(".decision"):
            worse.append(f"DECISION MISMATCH {item.where}: {item.key} is {want!r}, the report says {got!r}")
        else:
            rest.append(f"{item.where}: {item.key} is {want!r}, the report says {got!r}")
    return worse + rest


def decisions(results: Results) -> list[str]:
    """Return a problem for every decision that does not follow from its p-values and level."""
    if results.exploratory:
        return []
    problems = []
    for h in results.hypotheses:
        outcome = results.decision(h)
        p_support, p_reject, alpha = (results.number(f"{h}.{k}") for k in ("p_support", "p_reject", "alpha"))
        if outcome not in DECISIONS:
            continue
        if p_support is None or p_reject is None or alpha is None:
            problems.append(f"DECISION MISMATCH {h}: {outcome} without p-values and level")
            continue
        reject = results.number(f"{h}.alpha_reject")
        expected = _expected(results, h, p_support, p_reject, (alpha, alpha if reject is None else reject))
        if outcome not in expected:
            problems.append(
                f"DECISION MISMATCH {h}: p of support {p_support:.3g} and of rejection {p_reject:.3g} at "
                f"{alpha:.4g} give {' or '.join(expected)}, results.json says {outcome}"
            )
        formatted = results.get(f"{h}.decision")
        if formatted and formatted.formatted.replace(" ", "_") != outcome:
            problems.append(f"DECISION MISMATCH {h}: raw {outcome!r} is written {formatted.formatted!r}")
    return problems


def wording(results: Results) -> list[str]:
    """Return a problem for every number that is written as another one than it is, or without its level.

    A printed number must be the raw one, rounded at its last digit; p below .001 is written so; an interval
    has its level, its kind and the unit that it counts.
    """
    problems = []
    for value in results:
        if isinstance(value.raw, bool) or not isinstance(value.raw, (int, float)):
            continue
        p = value.key.rpartition(".")[2].startswith("p_") and value.raw < 0.001
        if not says(value.formatted, float(value.raw)) or (p and not value.formatted.startswith("<")):
            problems.append(f"results.json: {value.key} is {value.raw!r} and is written {value.formatted!r}")
    for h in results.hypotheses:
        if results.number(f"{h}.low") is None or results.number(f"{h}.high") is None:
            continue
        problems += [
            f"results.json: {h} has an interval without {words}"
            for key, words in (("level", "its level"), ("interval", "its kind"), ("unit", "its unit"))
            if not results.raw(f"{h}.{key}")
        ]
    return problems


def says(formatted: str, raw: float) -> bool:
    """Return whether a printed number is this one, rounded at its last digit; words are not judged.

    Examples
    --------
    >>> says(".012", 0.0123), says(".013", 0.0123), says("< .001", 4e-9), says("1.48e-06", 1.4801e-6)
    (True, False, True, True)
    """
    plain = formatted.replace("\u2212", "-").replace(",", "").strip()
    below = plain.startswith("<")
    found = _NUMBER.fullmatch(plain.lstrip("< "))
    if not found:
        return True
    shown = float(found[0])
    if below:
        return raw < shown
    decimals = len(found["fraction"] or "") - int(found["exponent"] or 0)
    # Half a unit of the last digit, and a little for what is rounded twice or lies at the half.
    return abs(shown - raw) <= 0.5000001 * 10.0**-decimals + 1e-12 * abs(raw)


def _expected(
    results: Results, h: str, p_support: float, p_reject: float, levels: tuple[float, float]
) -> tuple[str, ...]:
    if p_reject <= levels[1]:
        return ("rejected",)
    # A downgrading deviation, a theorem or a gate holds back support and leaves the test as it is.
    held_back = ("by_construction", "downgraded", "not_reached")
    if p_support > levels[0] or results.raw(f"{h}.reason_code") in held_back:
        return ("inconclusive",)
    # One part's own rejection can hold back support of the whole although the joined p is small.
    joined = any(v.formatted.startswith("Joined by") for v in results.under(f"{h}.criterion"))
    return ("supported", "inconclusive") if joined else ("supported",)


def deviations(results: Results) -> list[str]:
    """Return a problem for every deviation above a note that nobody declared."""
    problems = []
    for name in results.undeclared:
        fields = results.records("deviation")[name]
        said = {k: fields[k].formatted if k in fields else "" for k in ("field", "type")}
        problems.append(
            f"deviation {name} at {said['field']} ({said['type']}) is not declared (deviations.yaml)"
        )
    return problems


def origin(folder: Path, results: Results) -> list[str]:
    """Return a problem where the results are not those of the ledger and the lock that lie beside them."""
    from dynstat.prereg.ledger import read_ledger
    from dynstat.prereg.lock import load_lock

    lock, problems = folder / "plan.lock.json", []
    try:
        runs = [e for e in read_ledger(folder / "ledger.jsonl") if e["event"] == "run"]
        if lock.exists() and load_lock(lock).sha256 != results.raw("lock.sha256"):
            problems.append("plan.lock.json is not the lock that results.json names")
    except DynstatError as e:
        return [f"{e.code} {e.what}: {e.found}"]
    if runs and runs[-1].get("results_sha256") != sha256_file(folder / "results.json"):
        problems.append(
            "results.json is not what the last run in ledger.jsonl wrote: it was edited afterwards"
        )
    if not results.exploratory and lock.exists() and not runs:
        problems.append("ledger.jsonl holds no run that wrote results.json: it was removed or is another one")
    if not results.exploratory and not lock.exists() and runs:
        problems.append("plan.lock.json, under which the run was registered, is not there")
    return problems


def flatten(words: str) -> str:
    """Return text as a page shows it: one line, plain spaces, no isolates."""
    plain = visible(words.replace("\u2068", "").replace("\u2069", ""))
    return re.sub(r"\s+", " ", plain.replace("\u00a0", " ")).strip()
