"""Amend a lock: lock the present plan beside it, with what differs, why, and what was known by then."""

from __future__ import annotations

from pathlib import Path

from ..errors import DynstatError
from .chains import changed_pointers, histories
from .evidence import git_state
from .ledger import open_ledger
from .lock import (
    SUFFIX,
    Lock,
    check_prompts,
    find_locks,
    load_lock,
    lock_target,
    make_lock,
    raised_access,
    state_of_ledger,
    write_lock,
)
from .plan import load_plan


def amend_study(
    study: str | Path, lock: str | Path, name: str, reason: str, *, time: str | None = None
) -> Path:
    """Lock the present plan of a study as an amendment of one of its locks, for the same inputs.

    The amended lock stays as it is. The new one names it (``parent``) and says in ``amends`` which places
    differ (JSON pointers), why, at what level of access (``timing``, never below that of the amended lock or
    of what the ledger recorded), and for each hypothesis whether it is unchanged, changed or added.

    Parameters
    ----------
    study : str or path
    lock : str or path
        The lock that is amended: its name, or its file in the study's folder.
    name : str
        Of the new lock.
    reason : str
        Why; printed in every report.
    time : str, optional
        UTC, now where not given.

    Raises
    ------
    DynstatError
        P304 where there is no such lock; S404 where nothing differs, no reason is given, or the lock was
        amended already; P305 where the name is taken; P301, P302, P306, F002.
    """
    folder, target = lock_target(study, name)
    if not reason.strip():
        raise DynstatError("S404", "an amendment needs a reason", mend="--reason TEXT")
    parent = _parent(folder, lock)
    plan = load_plan(folder)
    git = git_state(folder)
    inputs = parent.content["inputs"]
    with open_ledger(folder / "ledger.jsonl") as book:
        for path, other in find_locks(folder):
            if other.parent == parent.sha256:
                raise DynstatError(
                    "S404",
                    f"{parent.name} was amended already",
                    where=str(path),
                    found=other.name,
                    expected="one amendment after another",
                    mend=f"amend {other.name}",
                )
        if parent.sha256 not in {e.get("lock_sha256") for e in book.entries if e["event"] == "lock"}:
            raise DynstatError(
                "P306",
                f"the ledger does not know {parent.name}{SUFFIX}",
                where=str(book.path),
                mend="restore the ledger from git",
            )
        check_prompts(plan, folder, inputs)
        least = str(parent.content["access"]["level"])
        access = raised_access(plan, book.entries, parent.inputs_sha256, least)
        draft = make_lock(plan, name, inputs, folder=folder, access=access, time=time, git=git).content
        pointers = changed_pointers(parent.content, draft)
        if not pointers:
            raise DynstatError(
                "S404",
                f"the plan and its code are those of {parent.name}: there is nothing to amend",
                where=str(folder),
                mend="change the plan first",
            )
        amends = {
            "pointers": pointers,
            "reason": reason.strip(),
            "timing": access["level"],
            "hypotheses": histories(parent, draft),
            "dropped": [h for h in parent.plan["hypotheses"] if h not in plan.content["hypotheses"]],
        }
        made = make_lock(
            plan,
            name,
            inputs,
            folder=folder,
            access=access,
            time=draft["time"],
            git=git,
            more={"parent": parent.sha256, "amends": amends, **state_of_ledger(book)},
        )
        write_lock(made, plan, target, book)
        book.append(
            "amend",
            {
                "study": plan.id,
                "name": name,
                "lock_sha256": made.sha256,
                "parent_sha256": parent.sha256,
                "pointers": pointers,
                "reason": amends["reason"],
                "timing": amends["timing"],
            },
            time=made.content["time"],
        )
    return target


def _parent(folder: Path, lock: str | Path) -> Lock:
    path = Path(lock)
    if not path.name.endswith(SUFFIX):
        path = folder / f"{lock}{SUFFIX}"
    elif path.parent.resolve() != folder.resolve():
        raise DynstatError(
            "S404",
            "the lock lies in another folder than the study",
            where=str(path),
            expected=str(folder),
            mend="amend a lock in its own study",
        )
    if not path.exists():
        known = ", ".join(p.name.removesuffix(SUFFIX) for p, _ in find_locks(folder))
        raise DynstatError(
            "P304",
            f"the study has no lock {path.name}",
            where=str(folder),
            found=known or "no lock",
            mend="name one of its locks",
        )
    return load_lock(path)
