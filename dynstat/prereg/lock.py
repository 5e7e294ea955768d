"""A lock: the whole plan, what it will be run on and with, frozen under one hash."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import atomic_path, canonical_hash, read_text
from ..registry import METHODS, METRICS
from .analyses import named_metrics
from .check import check_study
from .edits import shown, what_was_edited
from .evidence import EVIDENCE, evidence, git_state
from .fingerprint import fingerprint
from .ledger import Book, open_ledger, utc_now
from .libraries import library_versions
from .plan import ACCESS_LEVELS, Plan, load_plan
from .study import code_hashes, find_study, foreign_code, is_installed, register_methods

__all__ = ["EVIDENCE", "Lock", "evidence", "find_locks", "load_lock", "lock_study", "make_lock"]

SCHEMA = "lock/1"
SUFFIX = ".lock.json"
_FIELDS = {
    "dynstat",
    "study",
    "name",
    "plan",
    "plan_sha256",
    "methods",
    "metrics",
    "code",
    "dynstat_version",
    "time",
    "git",
    "inputs",
    "inputs_sha256",
    "access",
    "evidence",
    "sha256",
}
# `plan_source_sha256` stands in the ledger now, so that the spelling of a plan does not move its lock's hash.
_OPTIONAL = {"plan_source_sha256", "parent", "amends", "ledger", "libraries"}


@dataclass(frozen=True)
class Lock:
    """A verified lock: it cannot be constructed from content that does not match its hash.

    Attributes
    ----------
    content : mapping
        All fields, ``sha256`` included.

    Raises
    ------
    DynstatError
        P302 where any field was edited, added or removed.
    """

    content: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.verify()

    def verify(self) -> None:
        """Check the content against its hashes; raise P302 where they differ."""
        found = set(self.content)
        odd = [f"/{k} is missing" for k in sorted(_FIELDS - found)]
        odd += [f"/{k} is not a field of a lock" for k in sorted(found - _FIELDS - _OPTIONAL, key=str)]
        if ("parent" in found) != ("amends" in found):
            odd.append("/parent and /amends stand together or not at all")
        if not odd and self.content["dynstat"] != SCHEMA:
            odd = [f"/dynstat is {self.content['dynstat']!r}, not {SCHEMA!r}"]
        if odd:
            raise _edited("; ".join(odd))
        body = {k: v for k, v in self.content.items() if k != "sha256"}
        for name, part, stated in (
            ("plan", self.plan, self.content["plan_sha256"]),
            ("inputs", self.content["inputs"], self.content["inputs_sha256"]),
            ("lock", body, self.sha256),
        ):
            if _hash(part) != stated:
                raise _edited(f"the {name} does not match its hash")

    @property
    def sha256(self) -> str:
        """The lock's own hash, over all other fields."""
        return str(self.content["sha256"])

    @property
    def plan(self) -> Mapping[str, Any]:
        """The expanded plan."""
        return self.content["plan"]  # type: ignore[no-any-return]

    @property
    def inputs_sha256(self) -> str:
        """Hash of the inputs that it binds."""
        return str(self.content["inputs_sha256"])

    @property
    def name(self) -> str:
        """Name of the panel it was made for."""
        return str(self.content["name"])

    @property
    def parent(self) -> str | None:
        """SHA-256 of the lock that it amends."""
        return str(self.content["parent"]) if "parent" in self.content else None


def _edited(found: str) -> DynstatError:
    return DynstatError(
        "P302",
        "the lock was edited",
        found=found,
        expected="the bytes that were locked",
        mend="restore it from git; a changed plan needs a new lock under another name",
    )


def _hash(value: Any) -> str:
    try:
        return canonical_hash(value)
    except (ValueError, TypeError, RecursionError):
        return ""


def load_lock(path: str | Path) -> Lock:
    """Read and verify a lock.

    Raises
    ------
    DynstatError
        F001, F003 (file); P302 where it was edited.
    """
    path = Path(path)
    value: Any = None
    try:
        value = json.loads(read_text(path), parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
        if not isinstance(value, dict):
            raise _edited("not a mapping")
        return Lock(value)
    except json.JSONDecodeError as e:
        raise DynstatError(
            "P302",
            "the lock is not JSON",
            where=f"{path}:{e.lineno}",
            found=e.msg,
            mend="restore it from git",
        ) from None
    except DynstatError as e:
        e.where = e.where or str(path)
        if e.code == "P302" and isinstance(value, dict):
            e.problems = tuple(shown(what_was_edited(value, path)))
        e.args = (str(e),)
        raise


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        keys = [k for k, _ in pairs]
        raise _edited(f"key {next(k for k in keys if keys.count(k) > 1)!r} stands twice in one mapping")
    return out


def _no_constant(name: str) -> Any:
    raise _edited(name)


def find_locks(folder: Path) -> list[tuple[Path, Lock]]:
    """Return all locks of a study, by name, each verified."""
    return [(p, load_lock(p)) for p in sorted(folder.glob(f"*{SUFFIX}"))]


def make_lock(
    plan: Plan,
    name: str,
    inputs: Mapping[str, Any],
    *,
    folder: Path,
    access: Mapping[str, str] | None = None,
    self_asserted: bool = False,
    time: str | None = None,
    git: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Lock:
    """Make a lock from a plan and the inputs of a panel, without writing it.

    Parameters
    ----------
    plan : Plan
    name : str
        Of the panel.
    inputs : mapping
        ``Panel.inputs()``: hashes of prompts, weights and tokenizers, and the settings that change values.
    folder : Path
        Of the study, whose code is hashed.
    access : mapping, optional
        ``level`` and ``note``; the plan's where not given.
    self_asserted : bool
        Force evidence level L0, as for a lock made beside data that exist already.
    time : str, optional
        UTC, now where not given.
    git : mapping, optional
        ``commit`` and ``dirty`` of the tree, as it was before anything was written; now where not given.
    more : mapping, optional
        Optional fields: ``parent`` and ``amends`` of an amendment, ``ledger``.

    Raises
    ------
    DynstatError
        P301 where the panel's prompts are not those that the plan names.
    """
    from .. import __version__

    split = inputs["prompts"]["split"]
    if split != plan.content["data"]["prompts"]["split"]:
        raise DynstatError(
            "P301",
            "the panel's prompts are not those of the plan",
            where=plan.where,
            found=f"split {split}",
            expected=f"split {plan.content['data']['prompts']['split']}",
            mend="lock a panel that reads the registered split; pilots are run without a lock",
        )
    analyses = [*plan.content["analyses"].values(), *plan.content["exploratory"].values()]
    methods, metrics = sorted({a["method"] for a in analyses}), named_metrics(plan.content)
    if odd := foreign_code(_paths(methods, metrics), folder):
        raise DynstatError(
            "P307",
            "a method's code would not be locked",
            where=plan.where,
            problems=odd,
            expected='modules beside analysis.py, named as f"{__package__}.MODULE:FUNCTION"',
            mend="put the code into the study's folder",
        )
    state = dict(git or git_state(folder))
    body: dict[str, Any] = {
        "dynstat": SCHEMA,
        "study": plan.id,
        "name": name,
        "plan": plan.content,
        "plan_sha256": plan.sha256,
        "methods": methods,
        "metrics": metrics,
        "code": code_hashes(folder),
        "dynstat_version": __version__,
        "libraries": library_versions(),
        "time": time or utc_now(),
        "git": state,
        "inputs": dict(inputs),
        "inputs_sha256": canonical_hash(dict(inputs)),
        "access": dict(access or plan.content["registration"]["access"]),
        "evidence": "L1" if state["commit"] and not state["dirty"] and not self_asserted else "L0",
        **(more or {}),
    }
    # Through JSON once: what is hashed is what will be read back.
    body = json.loads(json.dumps(body))
    return Lock(body | {"sha256": canonical_hash(body)})


def lock_study(study: str | Path, name: str, inputs: Mapping[str, Any], *, time: str | None = None) -> Path:
    """Lock a study's plan for a panel and write ``NAME.lock.json`` and the ledger beside it.

    The access level is the plan's, raised to what the study's ledger has recorded for these inputs: it can be
    raised by hand in the plan, and never lowered.

    Raises
    ------
    DynstatError
        P305 where a lock of that name exists; F002 where the study is an installed package or
        read-only; P301 also where the panel reads other prompts than the plan's, or pilot and registered
        prompts overlap; P306.
    """
    folder, target = lock_target(study, name)
    plan = load_plan(folder)
    git = git_state(folder)
    with open_ledger(folder / "ledger.jsonl") as book:
        refuse_overwriting(target)
        access = raised_access(plan, book.entries, canonical_hash(dict(inputs)))
        more = state_of_ledger(book)
        lock = make_lock(plan, name, inputs, folder=folder, access=access, time=time, git=git, more=more)
        check_prompts(plan, folder, inputs)
        write_lock(lock, plan, target, book)
    return target


def lock_target(study: str | Path, name: str) -> tuple[Path, Path]:
    """Return the folder of a study and the file of a new lock of that name; refuse what cannot be written.

    Raises
    ------
    DynstatError
        F001; F002 in an installed package; S404 (name); P305 where it exists.
    """
    folder = find_study(study)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise DynstatError("S404", "a lock's name is small letters, digits, _ and -", found=name)
    if is_installed(folder):
        raise DynstatError(
            "F002",
            "the study belongs to the installed package, where nothing is written",
            where=str(folder),
            mend="copy the study's folder and lock the copy",
        )
    target = folder / f"{name}{SUFFIX}"
    refuse_overwriting(target)
    return folder, target


def refuse_overwriting(target: Path) -> None:
    """Raise P305 where a lock exists."""
    if target.exists():
        raise DynstatError(
            "P305",
            f"{target.name} exists already",
            where=str(target),
            mend="locks are kept side by side: choose another name",
        )


def check_prompts(plan: Plan, folder: Path, inputs: Mapping[str, Any]) -> None:
    """Check that a panel reads the prompt file of the plan, and that its pilot is apart; raise P301."""
    prompts = check_study(folder)["prompts"]
    if inputs["prompts"]["sha256"] != prompts["sha256"]:
        raise DynstatError(
            "P301",
            "the panel reads another prompt file than the plan",
            where=plan.where,
            found=f"sha256 {inputs['prompts']['sha256'][:12]}",
            expected=f"sha256 {prompts['sha256'][:12]} ({prompts['file']})",
            mend="name one file in both",
        )


def state_of_ledger(book: Book) -> dict[str, Any]:
    """Return what a lock says of the ledger before it, so that the two hold each other."""
    if not book.entries:
        return {}
    return {"ledger": {"n": len(book.entries), "sha256": book.entries[-1]["sha256"]}}


def write_lock(lock: Lock, plan: Plan, target: Path, book: Book) -> None:
    """Write a lock, once the ledger that is held has its entry."""
    with atomic_path(target) as temporary:
        temporary.write_text(
            json.dumps(lock.content, indent=2, ensure_ascii=False, sort_keys=True) + "\n",
            encoding="utf-8",
            newline="\n",
        )
        # Before the rename: a lock that no ledger knows must not come to lie there.
        book.append(
            "lock",
            {
                "study": plan.id,
                "name": lock.name,
                "lock_sha256": lock.sha256,
                "plan_sha256": plan.sha256,
                "plan_source_sha256": plan.source_sha256,
                "inputs_sha256": lock.inputs_sha256,
                "access": lock.content["access"]["level"],
                "places": fingerprint(lock.content),
            },
            time=lock.content["time"],
        )


def raised_access(
    plan: Plan, entries: list[dict[str, Any]], inputs_sha256: str, least: str = "none"
) -> dict[str, str]:
    """Return the plan's access level, raised to what the ledger recorded for these inputs, and to `least`."""
    stated = dict(plan.content["registration"]["access"])
    seen = [e["level"] for e in entries if e["event"] == "access" and e.get("inputs_sha256") == inputs_sha256]
    highest = max([stated["level"], least, *seen], key=ACCESS_LEVELS.index)
    if highest != stated["level"]:
        why = "the ledger records an earlier access to data of these inputs"
        if highest not in seen:
            why = "the lock that it amends"
        stated = {
            "level": highest,
            "note": f"{stated['note']} (raised from {stated['level']}: {why})",
        }
    return stated


def _paths(methods: Sequence[str], metrics: Sequence[str]) -> dict[str, str]:
    """Return where the functions of methods and metrics stand, by name."""
    # One that is not registered is told where the lock is run.
    entries = [METHODS.get(m) for m in methods if m in METHODS]
    return {e.id: e.path for e in [*entries, *(METRICS.get(m) for m in metrics if m in METRICS)]}


def check_executable(lock: Lock, folder: Path) -> None:
    """Check that what the lock names can be run as it was: the study's code and the versions of its methods.

    Raises
    ------
    DynstatError
        P308, listing every difference.
    """
    problems = []
    found, stated = code_hashes(folder), lock.content["code"]
    for file in sorted(set(found) | set(stated)):
        if found.get(file) != stated.get(file):
            what = "is missing" if file not in found else "is new" if file not in stated else "was changed"
            problems.append(f"{file} {what}")
    try:
        register_methods(folder)
    except DynstatError as e:
        problems.append(e.what)
    for registry, names in ((METHODS, lock.content["methods"]), (METRICS, lock.content["metrics"])):
        for name in names:
            if name not in {e.id for e in registry}:  # type: ignore[attr-defined]
                problems.append(f"{registry.kind} {name} is not registered any more")  # type: ignore[attr-defined]
    if not problems:
        problems = foreign_code(_paths(lock.content["methods"], lock.content["metrics"]), folder)
    if problems:
        raise DynstatError(
            "P308",
            "the code differs from the code that was locked",
            where=str(folder),
            problems=problems,
            expected=f"the files and methods of dynstat {lock.content['dynstat_version']}",
            mend="check out the lock's commit, or lock the changed study under another name",
        )
