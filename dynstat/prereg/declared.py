"""Deviations that authors declare: ``deviations.yaml``, read strictly, joined to those that were found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import canonical_hash, canonical_json
from ..registry import METHODS, parse_metric
from ..strictyaml import check_keys, load_yaml
from .deviations import CLASSES, Deviation, affected, covers, outcomes_seen, words, worst
from .plan import ACCESS_LEVELS, EXCLUSION, RUN_VARIABLES
from .pointers import MISSING, changed, exists, get, split

FILE = "deviations.yaml"
SCHEMA = "deviations/1"
#: Why a plan was not followed (Lakens 2024, Collabra: Psychology 10: 117094).
REASONS = (
    "unforeseen_event",
    "error_in_plan",
    "missing_information",
    "untested_assumption_violated",
    "auxiliary_hypothesis_falsified",
)
EFFECTS = ("lower", "unchanged", "higher", "unclear")
#: What can be run beside the registered analysis; anything else asks for an amendment of the lock.
CHANGEABLE = re.compile(
    r"/analyses/[^/]+/(seed|outcome(/.*)?|options(/.*)?)|/data/(exclusions(/.*)?|missing(/.*)?)"
)
_KEYS = {"id", "pointer", "value", "reason", "severity", "validity", "timing", "class", "affects", "text"}
_REQUIRED = {"id", "pointer", "reason", "severity", "validity", "text"}


@dataclass(frozen=True)
class Declared:
    """One entry of ``deviations.yaml``; docs/deviations.md tells its keys."""

    id: str
    pointer: str
    reason: str
    severity: str
    validity: str
    text: str
    value: Any = MISSING
    timing: str = "none"
    kind: str = "note"
    affects: tuple[str, ...] = field(default=())

    @property
    def changes(self) -> bool:
        """Whether something else is to be run beside what was registered."""
        return self.value is not MISSING


def load_declared(*files: Path | None) -> list[Declared]:
    """Read declarations; files that do not exist are passed over, except one that is named by the user.

    Raises
    ------
    DynstatError
        Y001 to Y003 with file and id; F001.
    """
    out: list[Declared] = []
    for file in files:
        if file is None or (file.name == FILE and not file.exists()):
            continue
        where = f"{file.parent.name}/{file.name}"
        top = check_keys(
            load_yaml(file), {"dynstat", "deviations"}, where, required={"dynstat", "deviations"}
        )
        _choice(top["dynstat"], (SCHEMA,), f"{where}: dynstat")
        if not isinstance(top["deviations"], list):
            raise DynstatError("Y003", "a list is expected", where=f"{where}: deviations")
        for i, entry in enumerate(top["deviations"], start=1):
            out.append(_entry(entry, f"{where}: {entry.get('id', i) if isinstance(entry, dict) else i}"))
    ids = [d.id for d in out]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise DynstatError(
            "Y003", "two deviations have the same id", found=", ".join(twice), mend="number them on"
        )
    return out


def fingerprint(declared: Sequence[Declared]) -> str:
    """Return a hash of what is declared; "" for nothing."""
    values = [{**vars(d), "value": None if not d.changes else [d.value]} for d in declared]
    return canonical_hash(values) if values else ""


def join(
    found: Sequence[Deviation], declared: Sequence[Declared], plan: Mapping[str, Any], seen: str
) -> list[Deviation]:
    """Return the deviations found, marked where they are declared, and then those that are only declared.

    Parameters
    ----------
    found : sequence of Deviation
    declared : sequence of Declared
        One answers for what was found at its pointer and below it.
    plan : mapping
        The locked one.
    seen : str
        Access level that the ledger records; the authors can state a higher one and no lower one.
    """
    out, used = [], set()
    for deviation in found:
        answers = [d for d in declared if covers(d.pointer, deviation.field)]
        if not answers:
            out.append(deviation)
            continue
        entry = answers[0]
        used |= {d.id for d in answers}
        out.append(
            replace(
                deviation,
                type=worst([deviation.type, entry.kind]),
                reason=_reason(entry, deviation.reason),
                severity=entry.severity,
                validity=entry.validity,
                timing=_level(entry, seen),
                # A declaration can widen what a deviation touches, and not narrow it.
                affects=tuple(dict.fromkeys([*deviation.affects, *entry.affects])),
                declared=True,
                id=entry.id,
            )
        )
    for entry in declared:
        if entry.id in used:
            continue
        old = get(plan, entry.pointer) if exists(plan, entry.pointer) else ""
        timing = _level(entry, seen)
        out.append(
            Deviation(
                entry.pointer,
                words(old),
                words(entry.value) if entry.changes else entry.text,
                "declared",
                worst([entry.kind, "downgrade" if outcomes_seen(timing) else "sensitivity"]),
                _reason(entry),
                entry.severity,
                entry.validity,
                timing,
                entry.affects or affected(plan, entry.pointer),
                declared=True,
                id=entry.id,
                beside=entry.changes,
            )
        )
    return out


def check_affects(declared: Sequence[Declared], plan: Mapping[str, Any]) -> None:
    """Check that every hypothesis that a declaration names is one of the plan; raise Y003 else."""
    for entry in declared:
        odd = [h for h in entry.affects if h not in plan["hypotheses"]]
        if odd:
            raise DynstatError(
                "Y003",
                f"the plan has no hypothesis {odd[0]!r}",
                where=f"{FILE}: {entry.id}",
                expected=", ".join(plan["hypotheses"]),
            )


def amended_plan(plan: Mapping[str, Any], declared: Sequence[Declared]) -> Mapping[str, Any]:
    """Return the plan with every declared value in place; the same plan where nothing is changed.

    Raises
    ------
    DynstatError
        Y002 (pointer, option) or Y003 (value) where no such analysis could be run; P301 for a place that only
        an amendment of the lock can change.
    """
    out = plan
    for entry in declared:
        if not entry.changes:
            continue
        if not CHANGEABLE.fullmatch(entry.pointer):
            raise DynstatError(
                "P301",
                "this place of the plan cannot be run in two versions",
                where=f"{FILE}: {entry.id}",
                found=entry.pointer,
                expected="seed, outcome or options of an analysis, or the data's exclusions or missing",
                mend="`dynstat prereg amend` locks a changed claim or method",
            )
        out = changed(out, entry.pointer, entry.value)
        parts = split(entry.pointer)
        if parts[0] == "data":
            _check_data(out["data"], f"{FILE}: {entry.id}")
        else:
            spec = out["analyses"][parts[1]]
            if not isinstance(spec["options"], Mapping) or not isinstance(spec["outcome"], Mapping | None):
                raise DynstatError("Y003", "options and outcomes are mappings", where=f"{FILE}: {entry.id}")
            seed = spec["seed"]
            if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
                raise DynstatError(
                    "Y003",
                    "a seed is a whole number from 0",
                    where=f"{FILE}: {entry.id}",
                    found=words(seed),
                )
            METHODS.get(spec["method"]).fill(spec["options"])
            if spec["outcome"]:
                parse_metric(spec["outcome"])
    return out


def _check_data(data: Mapping[str, Any], where: str) -> None:
    """Check exclusions and the missing rule of an amended plan as those of a plan are."""
    rules = data["exclusions"]
    for name, rule in rules.items() if isinstance(rules, Mapping) else [("exclusions", rules)]:
        text = rule.get("where") if isinstance(rule, Mapping) else rule
        found = EXCLUSION.fullmatch(text) if isinstance(text, str) else None
        if not found or found[1] not in RUN_VARIABLES or not isinstance(rule, Mapping):
            raise DynstatError(
                "Y003",
                f"{name} is no exclusion",
                where=where,
                found=words(rule),
                expected="{where: VARIABLE < NUMBER, reason: ...} on one of " + ", ".join(RUN_VARIABLES),
            )
    missing = data["missing"]
    share = missing.get("max_fraction") if isinstance(missing, Mapping) else None
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise DynstatError("Y003", "max_fraction lies from 0 to 1", where=where, found=words(missing))


def _level(entry: Declared, seen: str) -> str:
    return max(entry.timing, seen or "none", key=ACCESS_LEVELS.index)


def _reason(entry: Declared, found: str = "") -> str:
    told = f"{entry.reason.replace('_', ' ')}: {entry.text}"
    return f"{told} ({found})" if found else told


def _entry(value: Any, where: str) -> Declared:
    spec = check_keys(value, _KEYS, where, required=_REQUIRED)
    for key in ("id", "pointer", "text"):
        if not isinstance(spec[key], str) or not spec[key].strip():
            raise DynstatError("Y003", f"{key} is text", where=where, found=repr(spec[key]))
    if not split(spec["pointer"]):
        raise DynstatError("Y003", "the whole plan is no place in it", where=where, mend="name the place")
    try:
        canonical_json(spec.get("value"))
    except (ValueError, TypeError):
        raise DynstatError("Y003", "value has no JSON", where=where, found=repr(spec["value"])) from None
    affects = spec.get("affects", [])
    if not isinstance(affects, list) or not all(isinstance(h, str) for h in affects):
        raise DynstatError("Y003", "affects is a list of hypotheses", where=where, found=repr(affects))
    return Declared(
        spec["id"],
        spec["pointer"],
        _choice(spec["reason"], REASONS, f"{where}: reason"),
        _choice(spec["severity"], EFFECTS, f"{where}: severity"),
        _choice(spec["validity"], EFFECTS, f"{where}: validity"),
        spec["text"].strip(),
        spec.get("value", MISSING),
        _choice(spec.get("timing", "none"), ACCESS_LEVELS, f"{where}: timing"),
        _choice(spec.get("class", "note"), CLASSES, f"{where}: class"),
        tuple(affects),
    )


def _choice(value: Any, allowed: Sequence[str], where: str) -> str:
    if value not in allowed:
        raise DynstatError(
            "Y003", f"{value!r} is none of the words for it", where=where, expected=" | ".join(allowed)
        )
    return str(value)
