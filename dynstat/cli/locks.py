"""`dynstat prereg lock`, `amend`, `verify`, `proof`: what fixes a plan, and what shows that it was fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .output import emit

_STUDY = typer.Argument(..., help="A study: its name, its folder, or its plan file.")
_PANEL = typer.Option(..., "--panel", help="Panel file whose prompts, weights and settings the lock binds.")
_NAME = typer.Option(..., "--name", help="Name of the lock: analyses/STUDY/NAME.lock.json.")


def lock(study: str = _STUDY, panel: Path = _PANEL, name: str = _NAME) -> None:
    """Lock a plan for a panel; the lock and the ledger beside it belong under version control."""
    from dynstat.extraction.panels.panel import load_panel

    from ..prereg.lock import load_lock, lock_study

    path = lock_study(study, name, load_panel(panel).inputs())
    made = load_lock(path)
    emit(
        {
            "file": str(path),
            "sha256": made.sha256,
            "plan_sha256": made.content["plan_sha256"],
            "inputs_sha256": made.inputs_sha256,
            "evidence": made.content["evidence"],
            "access": made.content["access"]["level"],
        },
        f"locked {_made(path, made)}",
    )


def amend(
    study: str = _STUDY,
    lock: str = typer.Argument(..., help="The lock that is amended: its name or its file."),
    name: str = typer.Option(..., "--name", help="Name of the new lock."),
    reason: str = typer.Option(..., "--reason", help="Why; every report prints it."),
) -> None:
    """Lock the present plan as an amendment of a lock, with what differs, why, and what was known by then."""
    from ..prereg.amend import amend_study
    from ..prereg.chains import amendment
    from ..prereg.lock import load_lock

    path = amend_study(study, lock, name, reason)
    made = load_lock(path)
    stated: Any = amendment(made)
    emit(
        {
            "file": str(path),
            "sha256": made.sha256,
            "parent": made.parent,
            **{k: stated[k] for k in ("pointers", "timing", "hypotheses", "dropped")},
        },
        "\n".join(
            [
                f"amended {_made(path, made)}",
                *(f"  differs: {p}" for p in stated["pointers"]),
                *(f"  {h}: {s['how']}" for h, s in stated["hypotheses"].items()),
                *(f"  {h}: dropped" for h in stated["dropped"]),
            ]
        ),
    )


def verify(
    target: str = typer.Argument(..., help="A study, one lock file, or a folder of results."),
    against: list[Path] = typer.Option(
        [], "--against", help="Folder of results whose ledger began as a copy of the study's; repeatable."
    ),
) -> None:
    """Verify locks, amendments, proofs, ledger, code and plan by their hashes; opens no data."""
    from ..prereg.verify import verify_study

    found = verify_study(target, against)
    lines = [f"{found['study']}: {len(found['locks'])} lock(s) and {found['ledger']} ledger entries hold"]
    for row in found["locks"]:
        lines += _row(row)
    if found["head"] != "holds":
        lines.append(f"  ledger.head: {found['head']}; lines lost at the end of the ledger might not show")
    lines += [
        f"  {a['name']}: locked {a['time']} (sha256 {a['sha256'][:12]}), and its file is not here"
        for a in found["abandoned"]
    ]
    lines += [f"  {w['folder']}: its {w['entries']} copied entries agree" for w in found["against"]]
    emit(found, "\n".join(lines))


def proof(
    lock: Path = typer.Argument(..., help="A lock file in its study's folder."),
    file: Path | None = typer.Option(
        None, "--file", help="Time stamp of the lock file: RFC 3161 (.tsr) or OpenTimestamps (.ots)."
    ),
    registry: str = typer.Option("", "--registry", help="Registry that holds a copy, as osf or zenodo."),
    identifier: str = typer.Option("", "--identifier", help="Identifier of the record in the registry."),
    pushed: bool = typer.Option(False, "--pushed", help="The commit that holds the lock is on a remote."),
) -> None:
    """Attach a proof that others hold the lock, or have stamped its time; fetches nothing."""
    from ..errors import DynstatError
    from ..prereg.evidence import EVIDENCE
    from ..prereg.proofs import attach_copy, attach_stamp

    if file is not None and (registry or identifier or pushed):
        raise DynstatError(
            "S404", "one proof at a time: --file, or --registry with --identifier, or --pushed"
        )
    if file is not None:
        made = attach_stamp(lock, file)
    else:
        made = attach_copy(lock, registry=registry, identifier=identifier, pushed=pushed)
    late = "; attached after the outcomes were accessed" if made["after_access"] else ""
    emit(
        made,
        f"{made['level']} ({EVIDENCE[made['level']]}): {made['says']}{late}\n  {made['checked']}\n"
        "  commit the lock, the proof and the ledger now",
    )


def _made(path: Path, made: Any) -> str:
    from ..prereg.evidence import in_words

    level = made.content["evidence"]
    advice = (
        "commit the lock and the ledger now"
        if level == "L1"
        else "the working tree was not clean: evidence stays self-asserted (L0)"
    )
    return (
        f"{path} (sha256 {made.sha256[:12]}, evidence {in_words(level)}, access "
        f"{made.content['access']['level']}); {advice}"
    )


def _row(row: dict[str, Any]) -> list[str]:
    plan = {True: "changed since", False: "as locked", None: "not readable here"}[row["plan_changed"]]
    lines = [
        f"  {row['file']}: sha256 {row['sha256'][:12]}, {row['time']}, evidence {row['evidence']} "
        f"({row['evidence_words']}), access {row['access']}; plan {plan}; code {row['code']}"
    ]
    if row["amends"]:
        stated = row["amends"]
        lines.append(
            f"    amends {stated['lock'][:12]} at access {stated['timing']} in "
            f"{', '.join(stated['pointers'])}: {stated['reason']}"
        )
    for p in row["proofs"]:
        late = "; attached after the outcomes were accessed" if p["after_access"] else ""
        lines.append(f"    {p['level']} {p['kind']}: {p['says'] or 'as the ledger says'}{late}")
        if p["checked"]:
            lines.append(f"      {p['checked']}")
    return lines + [f"    differs: {p}" for p in row["differences"]]
