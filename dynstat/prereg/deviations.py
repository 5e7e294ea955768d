"""Deviations: where what was executed differs from what was locked, their classes and consequences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..files import canonical_json
from .plan import ACCESS_LEVELS
from .pointers import MISSING, differences

#: From the one without a consequence to the one that leaves no decision.
CLASSES = ("note", "sensitivity", "downgrade", "void")
CONSEQUENCES = {
    "note": "none: listed",
    "sensitivity": "the decision is that of the registered analysis; the other result stands beside it",
    "downgrade": "the claim cannot be supported; it may be rejected or inconclusive",
    "void": "no decision: the results are exploratory",
}
#: What a difference at a place means: pattern, class, and why. The first that fits counts.
PLACES: tuple[tuple[str, str, str], ...] = (
    (r"/dynstat_version", "note", "dynstat was updated; the versions of all methods are those of the lock"),
    (r"/libraries/.*", "note", "another version of a library than at the lock"),
    (r"/git/dirty", "note", "the working tree held changes that were not committed when the plan was locked"),
    (r"/registration/access/level", "note", "the plan was locked after its data were accessed"),
    (r"/locks/.*", "note", "the study holds another lock for data of the same inputs"),
    (
        r"/data/content",
        "sensitivity",
        "other data of the same inputs were run before; their results are elsewhere",
    ),
    (r"/gates/.*", "note", "a registered gate was not passed; what follows was registered with it"),
    (r"/data/missing/max_fraction", "note", "more runs are missing than registered; no claim is decided"),
    (r"/analyses/[^/]+", "downgrade", "a registered analysis could not be run"),
    (r"/analyses/[^/]+/seed", "sensitivity", "another seed than registered"),
    (r"/exploratory/.*", "note", "an exploratory analysis; it decides nothing"),
    (r"/time", "void", "the run started before the plan was locked, by the clocks of both"),
    (r"/(code|methods|metrics|inputs)(/.*)?", "void", "not what was locked"),
)


@dataclass(frozen=True)
class Deviation:
    """One difference between what was locked and what was executed.

    Attributes
    ----------
    field : str
        JSON pointer into the plan or the lock.
    registered, executed : str
        In words or as JSON.
    detected : {"auto", "declared"}
        Found by comparison, or told in deviations.yaml only.
    type : {"note", "sensitivity", "downgrade", "void"}
    reason : str
        In words; where it was declared, its reason and text.
    severity, validity : str
        What it does to the severity of the test and to the validity of the inference, as declared.
    timing : str
        What was known of the data then: an access level.
    affects : tuple of str
        Ids of the hypotheses.
    declared : bool
    id : str
        In deviations.yaml; "" where it is not declared there.
    registered_also : bool
        Whether the registered result is reported too.
    beside : bool
        Whether the registered analysis was run as it was locked, and the other one beside it.
    """

    field: str
    registered: str
    executed: str
    detected: str
    type: str
    reason: str
    severity: str = ""
    validity: str = ""
    timing: str = ""
    affects: tuple[str, ...] = ()
    declared: bool = False
    id: str = ""
    registered_also: bool = True
    beside: bool = False

    @property
    def consequence(self) -> str:
        """What the class does to the decisions of the hypotheses affected."""
        if self.beside and self.type == "downgrade":
            return "the decision is that of the registered analysis; the other result supports nothing"
        if self.field == "/data/content" and self.type == "sensitivity":
            return "the decision is that of these data; it has to be read with that of the first"
        return CONSEQUENCES[self.type]

    @property
    def forbids_support(self) -> bool:
        """Whether it touches the result that decides, and so that no claim it affects can be supported."""
        return self.type == "downgrade" and not self.beside

    @property
    def must_be_declared(self) -> bool:
        """Whether the report's check asks for a declaration that is not there."""
        return self.type != "note" and not self.declared


def diff(
    locked: Mapping[str, Any],
    executed: Mapping[str, Any],
    *,
    planned: frozenset[str] = frozenset(),
    reasons: Mapping[str, str] | None = None,
    timing: str = "",
) -> list[Deviation]:
    """Compare the record of what was locked with the record of what was executed, place by place.

    Parameters
    ----------
    locked, executed : mapping
        As :func:`dynstat.prereg.executed.locked_record` and ``executed_record`` make them.
    planned : frozenset of str
        Pointers that a planned contingency changed; they are no deviations.
    reasons : mapping of pointer to str, optional
        Why, where the run can tell more than the place.
    timing : str
        Access level at the run.

    Returns
    -------
    list of Deviation
        In the order of the locked record; empty where nothing differs.
    """
    out = []
    for pointer, old, new in differences(locked, executed):
        if any(covers(p, pointer) for p in planned):
            continue
        kind, why = classify(pointer)
        out.append(
            Deviation(
                pointer,
                words(old),
                words(new),
                "auto",
                kind,
                (reasons or {}).get(pointer, why),
                timing=timing,
                affects=affected(locked, pointer) if kind != "note" or pointer.startswith(_STATES) else (),
                registered_also=kind == "note",
            )
        )
    return out


# Notes on these say which hypotheses have a state in place of a decision.
_STATES = ("/gates/", "/data/missing/")


def classify(pointer: str) -> tuple[str, str]:
    """Return the class of a difference at a place, and why.

    Examples
    --------
    >>> classify("/dynstat_version")[0], classify("/analyses/S1/options/unit")[0], classify("/code/a.py")[0]
    ('note', 'downgrade', 'void')
    """
    for pattern, kind, why in PLACES:
        if re.fullmatch(pattern, pointer):
            return kind, why
    return "downgrade", "executed otherwise than registered"


# Places of a plan that no claim rests on.
_NO_CLAIM = ("exploratory", "notes", "title", "authors", "libraries", "dynstat_version")


def affected(plan: Mapping[str, Any], pointer: str) -> tuple[str, ...]:
    """Return the hypotheses that a place of the plan bears upon; all where it is none in particular."""
    parts = pointer.split("/")[1:]
    hypotheses = plan["hypotheses"]
    if parts[:1] == ["analyses"] and len(parts) > 1:
        return tuple(
            h for h, c in hypotheses.items() if any(p["estimand"]["analysis"] == parts[1] for p in c["parts"])
        )
    if parts[:1] == ["hypotheses"] and len(parts) > 1:
        return tuple(h for h in hypotheses if h == parts[1])
    if parts[:1] == ["gates"] and len(parts) > 1:
        return tuple(h for h in hypotheses if h in plan["gate_hypotheses"].get(parts[1], hypotheses))
    if parts[:1] == ["robustness"]:
        return tuple(h for h in hypotheses if h in parts[1:2])
    return () if parts and parts[0] in _NO_CLAIM else tuple(hypotheses)


def covers(pointer: str, other: str) -> bool:
    """Return whether a place is another one or holds it.

    Examples
    --------
    >>> covers("/analyses/S1", "/analyses/S1/seed"), covers("/analyses/S1", "/analyses/S11")
    (True, False)
    """
    return other == pointer or other.startswith(pointer + "/")


def worst(kinds: Sequence[str]) -> str:
    """Return the class with the gravest consequence; "note" for none."""
    return max(kinds, key=CLASSES.index, default="note")


def outcomes_seen(timing: str) -> bool:
    """Return whether outcomes were known at this access level."""
    return timing == ACCESS_LEVELS[-1]


def words(value: Any) -> str:
    """Return a value of a record as it is printed."""
    if value is MISSING:
        return "none"
    if isinstance(value, str):
        return value
    try:
        return canonical_json(value).decode()
    except (ValueError, TypeError):  # a number that has no JSON
        return str(value)
