"""The report's only source: results.json, read, validated and indexed by key."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import read_text
from dynstat.inference.decision import DECISIONS, STATES

FIELDS = ("key", "raw", "formatted", "analysis", "reason", "purpose", "method", "groups")
STAMPS = ("registered", "registered_after_access", "exploratory")
REQUIRED = ("study.id", "study.title", "study.stamp", "study.date", "deviation.n")


@dataclass(frozen=True)
class Value:
    """One row of results.json."""

    key: str
    raw: Any
    formatted: str
    analysis: str = ""
    reason: str = ""
    purpose: str = ""
    method: str = ""
    groups: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EstimateRow:
    """The values of one estimate: ``fields["value"]``, ``fields["n.prompts"]``, ...; all :class:`Value`."""

    analysis: str
    key: str
    term: str
    target: str
    fields: Mapping[str, Value]

    def number(self, name: str) -> float | None:
        """Return a field as a finite number, or None."""
        value = self.fields.get(name)
        return _finite(value.raw) if value else None

    def words(self, name: str) -> str:
        """Return a field as it is printed, "" where it is missing."""
        value = self.fields.get(name)
        return value.formatted if value and value.raw is not None else ""

    @property
    def purpose(self) -> str:
        """Purpose of the estimate's value (primary, secondary, exploratory)."""
        value = self.fields.get("value")
        return value.purpose if value else ""


class Results:
    """The values of a study by key, in the order of the file, with what the report derives from them."""

    def __init__(self, values: list[Value], where: str = "results.json") -> None:
        self.values = {v.key: v for v in values}
        self.where = where
        self.derived: dict[str, Value] = {}
        self.derived = self._derive()

    @property
    def stamp(self) -> str:
        """``registered``, ``registered_after_access`` or ``exploratory``."""
        return str(self.values["study.stamp"].raw)

    @property
    def exploratory(self) -> bool:
        """Whether the run has no decisions by its type."""
        return self.stamp == "exploratory"

    @property
    def hypotheses(self) -> list[str]:
        """Ids of the registered hypotheses in registration order."""
        found = [v for v in self.values.values() if v.key == f"{v.groups.get('hypothesis')}.claim"]
        ranked = sorted(enumerate(found), key=lambda pair: (pair[1].groups.get("order", pair[0]), pair[0]))
        return [str(v.groups["hypothesis"]) for _, v in ranked]

    @property
    def models(self) -> list[str]:
        """Ids of the models, in the order of the file."""
        keys = (v for v in self.values.values() if v.key.startswith("model."))
        return list(dict.fromkeys(str(v.groups["model"]) for v in keys if "model" in v.groups))

    @property
    def estimates(self) -> list[EstimateRow]:
        """All estimates, in the order of the file."""
        rows: dict[tuple[str, str], dict[str, Value]] = {}
        for v in self.values.values():
            name = str(v.groups.get("estimate", ""))
            start = f"estimate.{v.analysis}.{name}."
            if name and v.key.startswith(start):
                rows.setdefault((v.analysis, name), {})[v.key[len(start) :]] = v
        return [
            EstimateRow(
                analysis,
                name,
                str(_group(fields, "term") or _term(name)),
                str(_group(fields, "target")),
                fields,
            )
            for (analysis, name), fields in rows.items()
        ]

    def __contains__(self, key: str) -> bool:
        return key in self.values or key in self.derived

    def get(self, key: str) -> Value | None:
        """Return a value of the file or one derived from it, or None."""
        return self.values.get(key) or self.derived.get(key)

    def raw(self, key: str, default: Any = None) -> Any:
        """Return the raw value at `key`, or `default`."""
        found = self.get(key)
        return default if found is None else found.raw

    def number(self, key: str) -> float | None:
        """Return the raw value at `key` as a finite number, or None."""
        return _finite(self.raw(key))

    def decision(self, hypothesis: str) -> str:
        """Return the decision or state of a hypothesis; "" in an exploratory run."""
        return "" if self.exploratory else str(self.raw(f"{hypothesis}.decision") or "not_run")

    def under(self, prefix: str) -> list[Value]:
        """Return the values whose key starts with ``prefix.``, numbered ones in the order of their number."""
        found = [v for k, v in self.values.items() if k.startswith(prefix + ".")]
        tails = [v.key[len(prefix) + 1 :] for v in found]
        if found and all(t.isdecimal() for t in tails):
            return [v for _, v in sorted(zip(map(int, tails), found, strict=True), key=lambda pair: pair[0])]
        return found

    def records(self, prefix: str) -> dict[str, dict[str, Value]]:
        """Return ``PREFIX.<id>.<field>`` as fields by id, in the order of the file; ``PREFIX.n`` is none."""
        out: dict[str, dict[str, Value]] = {}
        for v in self.under(prefix):
            name, dot, field_name = v.key[len(prefix) + 1 :].partition(".")
            if dot:
                out.setdefault(name, {})[field_name] = v
        return out

    @property
    def undeclared(self) -> list[str]:
        """Ids of the deviations above a note that nobody declared; older results do not say and have none."""
        found = []
        for name, fields in self.records("deviation").items():
            declared = fields.get("declared")
            kind = fields.get("type")
            if declared is not None and declared.raw is False and not (kind and kind.raw == "note"):
                found.append(name)
        return found

    @property
    def families(self) -> list[str]:
        """The families of the hypotheses, in the order of registration."""
        return list(dict.fromkeys(str(self.raw(f"{h}.family") or "") for h in self.hypotheses))

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values.values())

    def _derive(self) -> dict[str, Value]:
        counts = Counter(self.decision(h) for h in self.hypotheses)
        numbers: dict[str, float] = {f"count.{d}": counts[d] for d in (*DECISIONS, *STATES)}
        numbers["count.hypotheses"] = len(self.hypotheses)
        numbers["count.models"] = len(self.models)
        numbers["count.deviations"] = int(self.number("deviation.n") or 0)
        found = self.records("deviation").values()
        stated = [f["declared"].raw for f in found if "declared" in f]
        numbers["count.declared"] = sum(raw is True for raw in stated)
        numbers["count.undeclared"] = len(self.undeclared)
        for h in self.hypotheses:
            if self.decision(h) == "inconclusive" and (factor := self._more_units(h)) is not None:
                numbers[f"{h}.units_factor"] = round(factor, 1)
                numbers[f"{h}.se_factor"] = round(factor**-0.5, 2)
                if (units := self.number(f"{h}.n.units")) is not None:
                    numbers[f"{h}.units_needed"] = math.ceil(factor * units)
        return {
            f"derived.{k}": Value(f"derived.{k}", n, f"{n:,}" if n >= 10_000 else str(n), reason="derived")
            for k, n in numbers.items()
        }

    def _more_units(self, h: str) -> float | None:
        """Return by what the units must grow for the nearer test to decide, were the estimate to stay.

        The standard error shrinks with the root of the units, so their factor is (z(1 - alpha) / z(1 - p))².
        """
        p_support, p_reject, alpha = (self.number(f"{h}.{k}") for k in ("p_support", "p_reject", "alpha"))
        if p_support is None or p_reject is None or alpha is None:
            return None
        if p_reject < p_support and (own := self.number(f"{h}.alpha_reject")) is not None:
            alpha = own
        p = min(p_support, p_reject)
        if not 0 < alpha < p < 0.5:
            return None
        z = NormalDist().inv_cdf
        factor = (z(1 - alpha) / z(1 - p)) ** 2
        return factor if factor <= 100 else None


def load(path: Path) -> Results:
    """Read and validate a results file (or the one in a folder).

    Raises
    ------
    DynstatError
        F001, F003; R502 with every problem found.
    """
    file = path / "results.json" if path.is_dir() else path
    text = read_text(file)
    try:
        rows = json.loads(text, parse_constant=_no_constant)
    except ValueError as e:
        raise _invalid(file, f"not valid JSON: {e}", []) from e
    if not isinstance(rows, list) or not rows:
        raise _invalid(file, "the file is not a list of values", [])
    values, problems = [], []
    for number, row in enumerate(rows, 1):
        if fault := _fault(row):
            problems.append(f"value {number}: {fault}")
        else:
            values.append(Value(**{k: row[k] for k in FIELDS}))
    problems += [f"key {k!r} stands {n} times" for k, n in Counter(v.key for v in values).items() if n > 1]
    keys = {v.key for v in values}
    problems += [f"key {k!r} is missing" for k in REQUIRED if k not in keys]
    if not problems:
        problems = _contradictions(Results(values))
    if problems:
        raise _invalid(file, f"{len(problems)} problem{'s' * (len(problems) > 1)}", problems)
    return Results(values, str(file))


def _fault(row: object) -> str:
    if not isinstance(row, dict):
        return "not a mapping"
    if set(row) != set(FIELDS):
        return f"keys are {sorted(row)}, expected {sorted(FIELDS)}"
    key = row["key"]
    if not isinstance(key, str) or not key.isprintable() or key != key.strip() or not key:
        return f"key {key!r} is not printable text"
    if key.startswith("derived."):
        return f"key {key!r}: the report derives these itself"
    if not isinstance(row["formatted"], str) or not isinstance(row["groups"], dict):
        return f"{key}: formatted must be text and groups a mapping"
    if not all(isinstance(row[k], str) for k in ("analysis", "reason", "purpose", "method")):
        return f"{key}: analysis, reason, purpose and method must be text"
    if row["raw"] is not None and not isinstance(row["raw"], (str, int, float, bool)):
        return f"{key}: raw must be a number, text, a boolean or null"
    return ""


def _contradictions(results: Results) -> list[str]:
    problems = []
    if results.stamp not in STAMPS:
        problems.append(f"study.stamp is {results.stamp!r}, expected one of {', '.join(STAMPS)}")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}|", str(results.raw("study.date"))):
        problems.append(f"study.date is {results.raw('study.date')!r}, expected YYYY-MM-DD or nothing")
    for h in results.hypotheses:
        decision = results.raw(f"{h}.decision")
        if decision is not None and decision not in DECISIONS + STATES:
            problems.append(f"{h}.decision is {decision!r}")
        if results.exploratory and decision in DECISIONS:
            problems.append(f"{h}.decision is {decision!r} in an exploratory run, which can have none")
    return problems


def _invalid(file: Path, what: str, problems: list[str]) -> DynstatError:
    return DynstatError(
        "R502",
        f"results.json: {what}",
        where=str(file),
        problems=problems,
        mend="write it anew with `dynstat run`; it is not meant to be edited",
    )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(raw: Any) -> float | None:
    return (
        float(raw)
        if isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw)
        else None
    )


def _group(fields: Mapping[str, Value], name: str) -> Any:
    return next((v.groups[name] for v in fields.values() if name in v.groups), "")


def _term(name: str) -> str:
    for start in ("population.share.", "share.", "eta2.", "omega2.", "chance.share.", "chance."):
        if name.startswith(start):
            return name[len(start) :]
    return ""
