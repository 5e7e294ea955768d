"""A lock: the whole plan, what it will be run on and with, frozen under one hash."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import atomic_path, canonical_hash, read_text
from ..registry import METHODS, METRICS
from .check import check_study
from .ledger import append_entry, read_ledger, utc_now
from .plan import ACCESS_LEVELS, Plan, load_plan
from .study import code_hashes, find_study, is_installed, register_methods

SCHEMA = "lock/1"
SUFFIX = ".lock.json"
_FIELDS = {
    "dynstat",
    "study",
    "name",
    "plan",
    "plan_sha256",
    "plan_source_sha256",
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
        if found != _FIELDS or self.content["dynstat"] != SCHEMA:
            odd = ", ".join(sorted(found ^ _FIELDS)) or f"schema {self.content.get('dynstat')!r}"
            raise _edited(f"fields added or missing: {odd}")
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
    try:
        value = json.loads(read_text(path), parse_constant=_no_constant)
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
        e.args = (str(e),)
        raise


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
    git = git_state(folder)
    body: dict[str, Any] = {
        "dynstat": SCHEMA,
        "study": plan.id,
        "name": name,
        "plan": plan.content,
        "plan_sha256": plan.sha256,
        "plan_source_sha256": plan.source_sha256,
        "methods": sorted({a["method"] for a in analyses}),
        "metrics": sorted({a["outcome"]["metric"] for a in analyses if a["outcome"]}),
        "code": code_hashes(folder),
        "dynstat_version": __version__,
        "time": time or utc_now(),
        "git": git,
        "inputs": dict(inputs),
        "inputs_sha256": canonical_hash(dict(inputs)),
        "access": dict(access or plan.content["registration"]["access"]),
        "evidence": "L1" if git["commit"] and not git["dirty"] and not self_asserted else "L0",
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
    if target.exists():
        raise DynstatError(
            "P305",
            f"{target.name} exists already",
            where=str(target),
            mend="locks are kept side by side: choose another name",
        )
    plan = load_plan(folder)
    ledger = folder / "ledger.jsonl"
    access = _raised(plan, read_ledger(ledger), canonical_hash(dict(inputs)))
    lock = make_lock(plan, name, inputs, folder=folder, access=access, time=time)
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
    with atomic_path(target) as temporary:
        temporary.write_text(
            json.dumps(lock.content, indent=2, ensure_ascii=False, sort_keys=True) + "\n",
            encoding="utf-8",
            newline="\n",
        )
        # Before the rename: a lock that no ledger knows must not come to lie there.
        append_entry(
            ledger,
            "lock",
            {
                "study": plan.id,
                "name": name,
                "lock_sha256": lock.sha256,
                "plan_sha256": plan.sha256,
                "inputs_sha256": lock.inputs_sha256,
                "access": access["level"],
            },
            time=lock.content["time"],
        )
    return target


def _raised(plan: Plan, entries: list[dict[str, Any]], inputs_sha256: str) -> dict[str, str]:
    stated = dict(plan.content["registration"]["access"])
    seen = [e["level"] for e in entries if e["event"] == "access" and e.get("inputs_sha256") == inputs_sha256]
    highest = max([stated["level"], *seen], key=ACCESS_LEVELS.index)
    if highest != stated["level"]:
        stated = {
            "level": highest,
            "note": f"{stated['note']} (raised from {stated['level']}: the ledger records "
            "an earlier access to data of these inputs)",
        }
    return stated


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
    if problems:
        raise DynstatError(
            "P308",
            "the code differs from the code that was locked",
            where=str(folder),
            problems=problems,
            expected=f"the files and methods of dynstat {lock.content['dynstat_version']}",
            mend="check out the lock's commit, or lock the changed study under another name",
        )


def git_state(folder: Path) -> dict[str, Any]:
    """Return commit and dirty flag of the repository around a folder; both None where there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain")
    if commit is None or status is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit.strip(), "dirty": bool(status.strip())}


def evidence(lock: Lock, path: Path) -> str:
    """Return the evidence level of a lock where it lies: within git, L1 needs the lock itself committed."""
    if lock.content["evidence"] != "L1" or is_installed(path.parent):
        return str(lock.content["evidence"])
    status = _git(path.parent, "status", "--porcelain", "--ignored", "--", path.name)
    return "L1" if status is None or not status.strip() else "L0"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
