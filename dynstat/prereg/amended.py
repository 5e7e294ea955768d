"""Amended locks in a run: what they changed, as deviations, and each changed claim in both versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..registry import METHODS
from .beside import Beside, Version, rerun
from .chains import amendment, registration_of
from .deviations import Deviation, affected, outcomes_seen, words
from .execute import Execution, decide_all
from .lock import Lock, find_locks
from .pointers import MISSING, differences

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.decision import Decision

_NO_CODE = "the study's code was changed since, so that this version cannot be run"


def changed_hypotheses(chain: Sequence[Lock]) -> tuple[str, ...]:
    """Return the hypotheses of the first lock that an amendment changed, in registration order."""
    root, leaf = chain[0], chain[-1]
    return tuple(
        h
        for h in root.plan["hypotheses"]
        if h in leaf.plan["hypotheses"] and registration_of(chain, h).amended
    )


def amendment_deviations(chain: Sequence[Lock]) -> list[Deviation]:
    """Return what the amendments of a chain changed, place by place.

    They are declared by their reason. Where outcomes were known, a claim whose basis was changed cannot be
    supported; before that an amendment is a note.
    """
    out = []
    for older, newer in zip(chain, chain[1:], strict=False):
        stated = amendment(newer) or {}
        how = {h: spec["how"] for h, spec in stated.get("hypotheses", {}).items()}
        timing = str(stated.get("timing", newer.content["access"]["level"]))
        dropped = tuple(h for h in older.plan["hypotheses"] if h not in newer.plan["hypotheses"])
        for part in ("plan", "code"):
            for pointer, old, new in differences(older.content[part], newer.content[part]):
                place = pointer if part == "plan" else f"/code{pointer}"
                concerned = affected(_with_gates(older.plan), place)
                touched = tuple(h for h in concerned if how.get(h) == "changed" or h in dropped)
                out.append(
                    Deviation(
                        place,
                        "none" if old is MISSING else "registered" if new is MISSING else words(old),
                        "removed" if new is MISSING else "added" if old is MISSING else words(new),
                        "declared",
                        "downgrade" if touched and outcomes_seen(timing) else "note",
                        f"amendment {newer.name}: {stated.get('reason', '')}",
                        timing=timing,
                        affects=touched,
                        declared=True,
                        id=newer.name,
                    )
                )
    return out


def superseded(lock: Lock, folder: Path) -> list[Deviation]:
    """Return a note where a lock is run that another one of the study amends."""
    later = [other for _, other in find_locks(folder) if other.parent == lock.sha256]
    return [
        Deviation(
            "/amends",
            f"lock {lock.sha256[:12]} ({lock.name})",
            f"not run: lock {other.sha256[:12]} ({other.name}), which amends it",
            "auto",
            "note",
            "the lock that was run was amended since; both belong to the study",
            timing=str(lock.content["access"]["level"]),
        )
        for other in later
    ]


def amended_versions(
    chain: Sequence[Lock],
    run: Execution,
    decisions: Mapping[str, Decision],
    ds: xr.Dataset,
    folder: Path,
) -> list[Beside]:
    """Run the first registration, and set every claim of it beside the amended one where they differ.

    The amended version decides; a claim that was dropped has the first one only. A claim that was not touched
    stands here too where its family grew and so its level or its decision is another one.
    """
    if len(chain) < 2:
        return []
    root, leaf = chain[0], chain[-1]
    changed = changed_hypotheses(chain)
    lost = _cannot_run(root, leaf)
    first = rerun(root.plan, leaf.plan, run, ds, folder, without=lost)
    registered = decide_all(root, first)
    last = amendment(leaf) or {}
    pointers = tuple(d.pointer for d in differences(root.plan, leaf.plan))
    out = []
    for h, claim in root.plan["hypotheses"].items():
        if h not in changed and h in decisions and _alike(registered[h], decisions[h]):
            continue
        before = Version.of(registered[h], claim, first)
        after = (
            Version.of(decisions[h], leaf.plan["hypotheses"][h], run)
            if h in decisions
            else Version("not_run", "no_estimate", None, None, before.alpha, before.m, None, before.scale)
        )
        concerned = [p for p in pointers if h in affected(_with_gates(root.plan), p)]
        if h not in changed and h in decisions:
            concerned = [p for p in pointers if p.startswith(("/hypotheses/", "/families/"))]
        out.append(
            Beside(
                h,
                "amendment",
                tuple(concerned),
                str(last.get("reason", "")),
                registration_of(chain, h).access if h in changed else str(last.get("timing", "")),
                "amended" if h in decisions else "registered",
                before,
                after,
            )
        )
    return out


def _alike(a: Decision, b: Decision) -> bool:
    return (a.outcome, a.reason_code, a.alpha, a.m) == (b.outcome, b.reason_code, b.alpha, b.m)


def _cannot_run(root: Lock, leaf: Lock) -> dict[str, str]:
    """Return the analyses of the first lock that cannot be run any more, and why."""
    same_code = root.content["code"] == leaf.content["code"]
    out = {}
    for name, spec in root.plan["analyses"].items():
        if spec["method"] not in METHODS:
            out[name] = f"method {spec['method']} is not registered any more"
        elif not same_code and METHODS.get(spec["method"]).path.startswith(
            ("dynstat_study_", "dynstat.analyses.")
        ):
            out[name] = _NO_CODE
    return out


def _with_gates(plan: Mapping[str, object]) -> dict[str, object]:
    gates = plan["gates"]
    assert isinstance(gates, Mapping)
    return {**plan, "gate_hypotheses": {name: gate["hypotheses"] for name, gate in gates.items()}}
