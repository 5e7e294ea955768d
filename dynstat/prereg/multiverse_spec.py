"""The universes that a plan declares for a hypothesis: dimensions, their options, what is crossed with what.

Imports no numpy, so that a plan can be checked, and its universes counted, without it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DynstatError
from ..files import canonical_json, sha256_bytes
from . import pointers

#: How a choice relates to the registered one (Del Giudice & Gangestad 2021).
TYPES: dict[str, str] = {
    "equivalent": "as good as the registered option: crossed with all other equivalent ones and counted",
    "uncertain": "perhaps another question: every option makes a multiverse of its own",
    "non_equivalent": "worse than the registered option: shown beside, never crossed and never counted",
}
ROLES = ("registered", "counted", "separate", "beside")
# Columns of the table of universes, which a dimension must not be called.
RESERVED = frozenset(
    "universe multiverse role estimate low high outcome reason_code decision state why agrees rest".split()
)
#: More than so many need a `limit`.
MOST = 5000
_FIXED = ("hypotheses", "families", "gates", "robustness", "dynstat", "id")


@dataclass(frozen=True)
class Dimension:
    """One analytic choice.

    Attributes
    ----------
    name : str
    places : tuple of str
        JSON pointers of the plan that an option is written to.
    type : str
        A key of :data:`TYPES`.
    options : tuple
        The registered one first.
    reason : str
    """

    name: str
    places: tuple[str, ...]
    type: str
    options: tuple[Any, ...]
    reason: str

    @property
    def registered(self) -> Any:
        """The option that stands in the plan."""
        return self.options[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The options as printed; of mappings, such as whole outcomes, only what tells them apart."""
        plain = tuple(label(v) for v in self.options)
        if not all(isinstance(v, Mapping) for v in self.options):
            return plain
        values: dict[str, set[str]] = {}
        for option in self.options:
            for key, value in option.items():
                values.setdefault(key, set()).add(_key(value))
        short = tuple(
            ", ".join(f"{k} {label(v)}" for k, v in option.items() if len(values[k]) > 1)
            for option in self.options
        )
        return short if len(set(short)) == len(short) and all(short) else plain

    def label(self, option: Any) -> str:
        """Return one option as it is printed."""
        return self.labels[[_key(v) for v in self.options].index(_key(option))]


@dataclass(frozen=True)
class Universe:
    """One combination of choices.

    Attributes
    ----------
    id : str
        ``u1`` is the registered one.
    choices : mapping of dimension to option
    role : str
        ``registered``; ``counted`` (of the registered multiverse); ``separate`` (another option of an
        uncertain dimension); ``beside`` (a non-equivalent option, all else as registered).
    multiverse : int
        1 holds the registered universe, 2 and so on the other options of uncertain dimensions; 0 for beside.
    """

    id: str
    choices: Mapping[str, Any]
    role: str
    multiverse: int


@dataclass(frozen=True)
class Declared:
    """All universes of a hypothesis.

    Attributes
    ----------
    dimensions : tuple of Dimension
    universes : tuple of Universe
    left_out : tuple of (choices, reason)
        Combinations that a constraint leaves out.
    possible : int
        Universes before a sample was taken; equal to their number where there is no limit.
    """

    dimensions: tuple[Dimension, ...]
    universes: tuple[Universe, ...]
    left_out: tuple[tuple[Mapping[str, Any], str], ...]
    possible: int

    def plan_of(self, plan: Mapping[str, Any], universe: Universe) -> dict[str, Any]:
        """Return the expanded plan with the choices of one universe written in."""
        out = json.loads(json.dumps(plan))
        for d in self.dimensions:
            # The registered option stands there already; a whole outcome must not undo what lies inside it.
            if _key(universe.choices[d.name]) != _key(d.registered):
                for place in d.places:
                    holder, key = _holder(out, place)
                    holder[key] = universe.choices[d.name]
        return dict(out)


def label(value: Any) -> str:
    """Return an option as it is printed.

    Examples
    --------
    >>> label("log"), label(True), label(None), label(0.5), label([1, 2])
    ('log', 'true', 'null', '0.5', '[1, 2]')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def dimensions_of(plan: Mapping[str, Any], hypothesis: str) -> tuple[Dimension, ...]:
    """Return the dimensions that a plan declares for a hypothesis, in the order of their names.

    Raises
    ------
    DynstatError
        P301 where a pointer leads nowhere or to what a universe must keep (rule, level, gates), where an
        option stands twice, or where a type is unknown.
    """
    spec = plan.get("robustness", {}).get(hypothesis)
    if spec is None or hypothesis not in plan["hypotheses"]:
        raise _wrong(hypothesis, "the plan declares no multiverse for this hypothesis")
    analyses = list(dict.fromkeys(p["estimand"]["analysis"] for p in plan["hypotheses"][hypothesis]["parts"]))
    out = []
    # By name: a lock keeps no order of keys, and universes have the same number under plan and lock.
    for name, given in sorted(spec["dimensions"].items()):
        at = f"{hypothesis}.dimensions.{name}"
        if name in RESERVED:
            raise _wrong(at, "a column of the table of universes has this name; choose another")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            raise _wrong(at, "a name is letters, digits, _ and -, a letter first")
        if given["type"] not in TYPES:
            raise _wrong(at, "no such type", found=given["type"], expected=" | ".join(TYPES))
        places = _places(plan, str(given["pointer"]), analyses, at)
        here = [pointers.get(plan, p) for p in places]
        if any(_key(v) != _key(here[0]) for v in here):
            raise _wrong(
                at,
                "the analyses of this hypothesis differ in this place; give a pointer from the plan's root",
                found=" | ".join(label(v) for v in here),
            )
        options = [here[0], *(v for v in given["options"] if _key(v) != _key(here[0]))]
        if len({_key(v) for v in given["options"]}) < len(given["options"]):
            raise _wrong(at, "an option stands twice", found=", ".join(map(label, given["options"])))
        if len(options) < 2:
            raise _wrong(at, "no option beside the registered one", found=label(here[0]))
        out.append(Dimension(str(name), places, given["type"], tuple(options), str(given.get("reason", ""))))
    if not out:
        raise _wrong(hypothesis, "a multiverse needs a dimension")
    for one, other in itertools.combinations(out, 2):
        apart = "non_equivalent" in (one.type, other.type)  # these two never vary together
        for a, b in itertools.product(one.places, other.places):
            if a == b or (not apart and (a.startswith(b + "/") or b.startswith(a + "/"))):
                at = f"{hypothesis}.dimensions.{other.name}"
                raise _wrong(at, f"{one.name} varies the same place", found=b)
    return tuple(out)


def universes_of(plan: Mapping[str, Any], hypothesis: str) -> Declared:
    """Return all universes of a hypothesis: the full cross, what constraints leave out, a sample if declared.

    Equivalent dimensions are crossed; each combination of options of the uncertain ones makes a multiverse;
    a non-equivalent option is one universe beside, all else as registered. ``limit: {n, seed}`` keeps n
    universes besides those beside, the registered one and those lowest in the order of the SHA-256 of seed
    and choices, which is a random order that no version of a library can change.

    Raises
    ------
    DynstatError
        P301, as :func:`dimensions_of`; where a constraint names an unknown dimension or leaves out the
        registered universe; where there are more than 5000 universes and no limit.
    """
    dims = dimensions_of(plan, hypothesis)
    spec = plan["robustness"][hypothesis]
    constraints = [_constraint(c, dims, f"{hypothesis}.constraints") for c in spec.get("constraints") or ()]
    limit = spec.get("limit")
    registered = {d.name: d.registered for d in dims}
    uncertain = [d.name for d in dims if d.type == "uncertain"]
    size = 1
    for d in dims:
        size *= len(d.options) if d.type != "non_equivalent" else 1
    if size > 20 * MOST or (size > MOST and not limit):
        raise _wrong(
            hypothesis,
            "too many universes",
            found=size,
            expected=f"at most {MOST}, or {20 * MOST} with `limit: {{n, seed}}`",
        )
    crossed, left = [], []
    for choices in _cross(dims):
        reason = next((why for match, why in constraints if _matches(choices, match)), None)
        if reason is None:
            crossed.append(choices)
        elif choices == registered:
            raise _wrong(hypothesis, "a constraint leaves out the registered universe")
        else:
            left.append((choices, reason))
    beside = []
    for d in dims:
        for option in d.options[1:] if d.type == "non_equivalent" else ():
            choices = registered | {d.name: option}
            reason = next((why for match, why in constraints if _matches(choices, match)), None)
            if reason is None:
                beside.append(choices)
            else:
                left.append((choices, reason))
    possible = len(crossed) + len(beside)
    if limit:
        crossed = _sample(crossed, registered, int(limit["n"]), int(limit["seed"]))
    # Numbered by multiverse, the registered universe first: its own options come first in every dimension.
    numbers: dict[str, int] = {}
    for choices in crossed:
        numbers.setdefault(_key([choices[n] for n in uncertain]), len(numbers) + 1)
    placed = sorted(
        ((numbers[_key([c[n] for n in uncertain])], c) for c in crossed), key=lambda pair: pair[0]
    )
    out: list[Universe] = []
    for multiverse, choices in [*placed, *((0, c) for c in beside)]:
        role = "counted" if multiverse == 1 else "separate" if multiverse else "beside"
        role = "registered" if choices == registered else role
        out.append(Universe(f"u{len(out) + 1}", choices, role, multiverse))
    return Declared(dims, tuple(out), tuple(left), possible)


def _cross(dims: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    options = [d.options if d.type != "non_equivalent" else d.options[:1] for d in dims]
    for combination in itertools.product(*options):
        yield {d.name: v for d, v in zip(dims, combination, strict=True)}


def _sample(crossed: list[dict[str, Any]], registered: Mapping[str, Any], n: int, seed: int) -> list[Any]:
    order = sorted(
        (c for c in crossed if c != registered),
        key=lambda c: sha256_bytes(f"{seed}:".encode() + canonical_json(c)),
    )
    kept = {_key(c) for c in order[: max(n - 1, 0)]}
    return [c for c in crossed if c == registered or _key(c) in kept]


def _constraint(
    given: Mapping[str, Any], dims: Sequence[Dimension], at: str
) -> tuple[dict[str, set[str]], str]:
    known = {d.name: d for d in dims}
    match = {}
    for name, values in given["leave_out"].items():
        if name not in known:
            raise _wrong(at, "no such dimension", found=name, expected=", ".join(known))
        keys = {_key(v) for v in (values if isinstance(values, list) else [values])}
        unknown = keys - {_key(v) for v in known[name].options}
        if unknown:
            raise _wrong(at, f"no such option of {name}", found=", ".join(sorted(unknown)))
        match[name] = keys
    return match, str(given.get("reason", ""))


def _matches(choices: Mapping[str, Any], match: Mapping[str, set[str]]) -> bool:
    return all(_key(choices[name]) in keys for name, keys in match.items())


def _places(plan: Mapping[str, Any], pointer: str, analyses: Sequence[str], at: str) -> tuple[str, ...]:
    """Return the places that an option is written to: one an analysis, or those of the token policy."""
    if pointer.startswith("/"):
        parts = pointers.split(pointer)
        if parts[0] in _FIXED:
            raise _wrong(
                at,
                f"universes keep {parts[0]}: they are judged by the registered rule at the registered level",
                found=pointer,
                expected="/analyses/... or /data/...",
            )
        found = [pointer]
        if parts[:2] == ["data", "token_policy"] and len(parts) == 3:
            # The policy acts through the outcomes, which a plan makes agree with it.
            outcome = [pointers.make(["analyses", a, "outcome", parts[2]]) for a in analyses]
            found += [p for p in outcome if pointers.exists(plan, p)]
    else:
        found = [pointers.make(["analyses", a, *pointer.split(".")]) for a in analyses]
    missing = [p for p in found if not pointers.exists(plan, p)]
    if missing:
        raise _wrong(at, "nothing stands there in the plan", found=missing[0])
    return tuple(found)


def _holder(plan: Any, pointer: str) -> tuple[Any, Any]:
    *path, last = pointers.split(pointer)
    for part in path:
        plan = plan[int(part)] if isinstance(plan, list) else plan[part]
    return plan, int(last) if isinstance(plan, list) else last


def _key(value: Any) -> str:
    return canonical_json(value).decode()


def _wrong(at: str, what: str, **fields: Any) -> DynstatError:
    return DynstatError(
        "P301", what, where=f"robustness.{at}", mend="docs/multiverse.md gives the keys", **fields
    )
