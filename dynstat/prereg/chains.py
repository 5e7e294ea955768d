"""Chains of amendments: which lock is in force, and when each claim was registered, knowing what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..registry import METHODS
from .lock import Lock, find_locks
from .pointers import differences

# What is compared of two locks; the rest (time, git, hashes, inputs) differs or agrees by itself.
_COMPARED = ("plan", "code", "methods", "metrics", "dynstat_version")
# Corrections under which a further member cannot make any other member's tests easier.
_OPEN = ("bonferroni", "holm", "none", "fixed_sequence")


@dataclass(frozen=True)
class Registration:
    """When a claim was registered in the form in which it is decided, and what was known then.

    Attributes
    ----------
    lock : str
        SHA-256 of the lock in which it first stood so.
    access : str
        Level of access to the data at that time: none, metadata, structure or outcomes.
    time : str
        UTC, by the clock of whoever locked it.
    amended : bool
        True where an amendment added or changed it, or what it is decided by.
    """

    lock: str
    access: str
    time: str
    amended: bool


def find_fitting(folder: Path, inputs_sha256: str) -> tuple[Lock | None, Path | None]:
    """Return the lock that is in force for data of these inputs, and its file; two None without one.

    Where locks amend each other, it is the last of the chain.

    Raises
    ------
    DynstatError
        S404 where several fit and none amends the other; P302 (edited lock).
    """
    fits = [(lock, p) for p, lock in find_locks(folder) if lock.inputs_sha256 == inputs_sha256]
    amended = {lock.parent for lock, _ in fits}
    leaves = [(lock, p) for lock, p in fits if lock.sha256 not in amended]
    if len(leaves) > 1:
        raise DynstatError(
            "S404",
            "several locks fit the data",
            where=str(folder),
            found=", ".join(p.name for _, p in leaves),
            expected="one",
            mend="name the lock: `dynstat run PATH/NAME.lock.json ...`",
        )
    return leaves[0] if leaves else (None, None)


def chain_of(folder: Path, lock: Lock) -> list[Lock]:
    """Return the locks from the first registration to this one, each amended by the next.

    Raises
    ------
    DynstatError
        P310 where a lock of the chain is missing in the folder, or an amendment does not say what it changed.
    """
    known = {other.sha256: other for _, other in find_locks(folder)}
    chain = [lock]
    while (parent := chain[0].parent) is not None:
        if parent not in known:
            raise DynstatError(
                "P310",
                f"the lock that {chain[0].name} amends is missing",
                where=str(folder),
                found=", ".join(sorted(k[:12] for k in known)) or "no lock",
                expected=f"lock {parent[:12]}",
                mend="restore it from git: locks stay side by side",
            )
        chain.insert(0, known[parent])
    for older, newer in zip(chain, chain[1:], strict=False):
        _check_link(folder, older, newer)
    return chain


def amendment(lock: Lock) -> Mapping[str, Any] | None:
    """Return what a lock amends, or None: ``pointers, reason, timing, hypotheses, dropped``."""
    found: Mapping[str, Any] | None = lock.content.get("amends")
    return found


def registration_of(chain: Sequence[Lock], hypothesis: str) -> Registration:
    """Return when a hypothesis was registered as it stands in the last lock of a chain.

    The last lock carries it, so that a chain of this lock alone, as in a folder of results, is enough.

    Raises
    ------
    DynstatError
        S404 where the lock has no such hypothesis.

    Notes
    -----
    A hypothesis counts as unchanged where its claim, rule and SESOI, the analyses that it rests on, its
    family, the gates that concern it, the rules on data and the code of its methods are all unchanged, and
    its family has lost no member; see :func:`basis`.
    """
    leaf = chain[-1]
    if hypothesis not in leaf.plan["hypotheses"]:
        raise DynstatError(
            "S404",
            f"the lock has no hypothesis {hypothesis!r}",
            where=leaf.name,
            expected=", ".join(leaf.plan["hypotheses"]),
        )
    here = (leaf.sha256, str(leaf.content["access"]["level"]), str(leaf.content["time"]))
    stated = amendment(leaf)
    if stated is None:
        return Registration(*here, amended=False)
    found = stated["hypotheses"][hypothesis]
    if found["how"] != "unchanged":
        return Registration(*here, amended=True)
    return Registration(found["lock"], found["access"], found["time"], found["amended"])


def changed_pointers(older: Mapping[str, Any], newer: Mapping[str, Any]) -> list[str]:
    """Return the JSON pointers where the plans, codes, methods or versions of two locks differ."""
    return [
        d.pointer for part in _COMPARED for d in differences(older.get(part), newer.get(part), f"/{part}")
    ]


def histories(older: Lock, newer: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return, for each hypothesis of a new lock's content, how it stands to the lock that is amended.

    ``how`` is ``unchanged`` (then with ``lock``, ``access``, ``time`` and ``amended`` of its registration),
    ``changed`` or ``added``.
    """
    out: dict[str, dict[str, Any]] = {}
    for name in newer["plan"]["hypotheses"]:
        if name not in older.plan["hypotheses"]:
            out[name] = {"how": "added"}
        elif basis(older.content, name) != basis(newer, name) or not _family_kept(older.plan, newer, name):
            out[name] = {"how": "changed"}
        else:
            r = registration_of([older], name)
            out[name] = {
                "how": "unchanged",
                "lock": r.lock,
                "access": r.access,
                "time": r.time,
                "amended": r.amended,
            }
    return out


def basis(content: Mapping[str, Any], hypothesis: str) -> dict[str, Any]:
    """Return all parts of a lock that the decision on a hypothesis rests on, its family's members apart."""
    plan = content["plan"]
    claim = plan["hypotheses"][hypothesis]
    analyses = {p["estimand"]["analysis"]: None for p in claim["parts"]}
    specs = {a: plan["analyses"][a] for a in analyses}
    own = any(not _is_builtin(s["method"]) for s in specs.values())
    return {
        "claim": {k: v for k, v in claim.items() if k != "order"},
        "analyses": specs,
        "families": {
            f: {k: v for k, v in plan["families"][f].items() if k != "order"}
            for f in _families_before(plan, claim["family"])
        },
        "gates": {
            g: {k: v for k, v in s.items() if k != "hypotheses"}
            for g, s in plan["gates"].items()
            if hypothesis in s["hypotheses"]
        },
        "data": plan["data"],
        "inputs": content["inputs_sha256"],
        "code": content["code"] if own else None,
    }


def _is_builtin(method: str) -> bool:
    """Return whether the code of a method is dynstat's, which its version fixes, and not the study's."""
    try:
        path = METHODS.get(method).path
    except DynstatError:
        return False
    return path.startswith("dynstat.") and not path.startswith("dynstat.analyses.")


def _families_before(plan: Mapping[str, Any], family: str) -> list[str]:
    """Return a family and those that it waits for."""
    out = [family]
    while (before := plan["families"][out[-1]].get("after")) is not None and before not in out:
        out.append(before)
    return out


def _family_kept(older: Mapping[str, Any], newer: Mapping[str, Any], hypothesis: str) -> bool:
    """Return whether no family was changed so that a test of the hypothesis could have become easier."""
    plan = newer["plan"]
    families = _families_before(plan, plan["hypotheses"][hypothesis]["family"])
    for name in families:
        spec = plan["families"][name]
        before, now = ({h for h, s in p["hypotheses"].items() if s["family"] == name} for p in (older, plan))
        if not before <= now or (before != now and (len(families) > 1 or spec["correction"] not in _OPEN)):
            return False
        order = older["families"][name].get("order", [])
        if list(spec.get("order", []))[: len(order)] != list(order):
            return False
    return True


def _check_link(folder: Path, older: Lock, newer: Lock) -> None:
    stated, problems = amendment(newer) or {}, []
    found = changed_pointers(older.content, newer.content)
    if stated.get("pointers") != found:
        problems.append("/amends/pointers is not what differs")
    # Whose code a method is, only the registry tells; one that it lost leaves this to the lock's own hash.
    known = all(name in METHODS for lock in (older, newer) for name in lock.content["methods"])
    if known and stated.get("hypotheses") != histories(older, newer.content):
        problems.append("/amends/hypotheses is not what follows from both locks")
    if older.inputs_sha256 != newer.inputs_sha256:
        problems.append("/inputs differs: an amendment is for the same data")
    if problems:
        raise DynstatError(
            "P310",
            f"{newer.name} does not amend {older.name} as it says",
            where=str(folder / f"{newer.name}.lock.json"),
            problems=problems,
            mend="restore both locks from git",
        )
