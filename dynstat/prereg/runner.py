"""Run a study: it takes a plan or lock and data, and nothing that could alter the analysis."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from ..files import canonical_hash, sha256_file, write_atomic
from .admission import LOCK_FILE, Admitted, admit, enter, known_of_outcomes, record_access
from .declared import FILE
from .declared import fingerprint as declared_fingerprint
from .ledger import append_entry, read_ledger, utc_now
from .run_result import ConfirmatoryResult, ExploratoryResult, RunResult
from .study import code_hashes

if TYPE_CHECKING:
    from ..inference.decision import Decision
    from .chains import Registration
    from .deviations import Deviation
    from .execute import Execution, Progress

__all__ = ["LOCK_FILE", "ConfirmatoryResult", "ExploratoryResult", "run_study"]


def run_study(
    study: str | Path,
    data: str | Path,
    out: str | Path,
    progress: Progress | None = None,
    *,
    jobs: int = 1,
    scheduler: str = "",
    deviate: str | Path | None = None,
) -> RunResult:
    """Run a study on data and write its results to a folder.

    Parameters
    ----------
    study : str or path
        A study (name or folder): the lock whose inputs are those of the data is taken, and where none fits
        the plan is run as exploratory. Or a lock file: then the data must be its data.
    data : str or path
        A dataset file, or a folder of shards.
    out : str or path
        Folder for plan.lock.json (registered runs), ledger.jsonl and results.json.
    progress : callable, optional
        ``progress(done, total, what)``.
    jobs : int
        Processes for analyses and resamples; the results are those of one.
    scheduler : str
        Address of a Dask scheduler, which takes the place of `jobs`.
    deviate : str or path, optional
        Declared deviations beside those of the study's ``deviations.yaml``. What they change is run beside
        what was registered, which still decides.

    Returns
    -------
    ConfirmatoryResult or ExploratoryResult

    Raises
    ------
    DynstatError
        P302 (edited lock), P303 (other data under the lock, or in this folder before), P306 (ledger), P308
        (code or method changed since the lock), P301 (plan of an exploratory run), and the errors of reading.
        From the moment that OUT's ledger binds the data, whatever ends the run is written to it.
    """
    admitted = admit(study, data, deviate)
    out = Path(out)
    seen = known_of_outcomes(admitted, out)
    record_access(admitted)
    enter(out, admitted.folder, admitted.lock, admitted.content_sha256)
    fingerprint = _fingerprint(admitted)
    if _is_done(out, fingerprint):
        return _kept(admitted, out)
    try:
        return _run(
            admitted,
            out,
            fingerprint,
            seen,
            Path(data).name,
            progress,
            deviate,
            jobs=jobs,
            scheduler=scheduler,
        )
    except BaseException as e:
        # The disk may be what failed; the error itself is what the user must see.
        with suppress(DynstatError, OSError):
            append_entry(
                out / "ledger.jsonl",
                "failure",
                {
                    "study": admitted.plan["id"],
                    "what": _words(e),
                    "content_sha256": admitted.content_sha256,
                    "lock_sha256": admitted.lock.sha256 if admitted.lock else "",
                },
            )
        raise


def _run(
    a: Admitted,
    out: Path,
    fingerprint: str,
    seen: str,
    data_name: str,
    progress: Progress | None,
    deviate: str | Path | None,
    *,
    jobs: int,
    scheduler: str,
) -> RunResult:
    from ..parallel import workers
    from .amended import amended_versions
    from .beside import declared_versions
    from .consequences import with_consequences
    from .execute import decide_all, execute
    from .results import write_results

    started = utc_now()
    decisions: dict[str, Decision] = {}
    beside = []
    with workers(jobs, scheduler):
        run = execute(a.plan, a.ds, progress, folder=a.folder)
        void = a.void
        if a.lock is not None:
            run.deviations = _deviations(a, run, seen, started)
            void = void or "; ".join(d.reason for d in run.deviations if d.type == "void")
            if not void:
                registered = decide_all(a.lock, run)
                decisions = with_consequences(a.lock, registered, run.deviations)
                beside = amended_versions(a.chain, run, decisions, a.ds, a.folder)
                beside += declared_versions(
                    a.lock, a.declared, run.deviations, run, decisions, a.ds, a.folder
                )
        stamp = "exploratory" if void else a.stamp
        more = _multiverses(a, run, stamp, progress, jobs=1 if scheduler else jobs)
    _keep_declaration(out, deviate)
    file = write_results(
        out,
        a.plan,
        run,
        decisions,
        ds=a.ds,
        lock=a.lock,
        lock_path=a.lock_path,
        stamp=stamp,
        void=void,
        beside=beside,
        registrations=_registrations(a),
        more=more,
        plan_sha256=a.plan_sha256,
        content_sha256=a.content_sha256,
        data_name=data_name,
        ledger=read_ledger(out / "ledger.jsonl"),
    )
    entry = {
        "study": a.plan["id"],
        "fingerprint": fingerprint,
        "stamp": stamp,
        "content_sha256": a.content_sha256,
    }
    if a.declared:
        entry["declared_sha256"] = declared_fingerprint(a.declared)
    append_entry(out / "ledger.jsonl", "run", {**entry, "results_sha256": sha256_file(file)})
    if stamp == "exploratory":
        return ExploratoryResult(out, str(a.plan["id"]), False, void, tuple(run.deviations))
    return ConfirmatoryResult(
        out, str(a.plan["id"]), stamp, False, _outcomes(out), decisions, tuple(run.deviations)
    )


def _keep_declaration(out: Path, deviate: str | Path | None) -> None:
    """Keep a declaration from elsewhere beside the results, so that they can be computed again from OUT."""
    copy = out / FILE
    if deviate is not None:
        write_atomic(copy, Path(deviate).read_bytes())
    else:
        copy.unlink(missing_ok=True)


def _multiverses(
    a: Admitted, run: Execution, stamp: str, progress: Progress | None, *, jobs: int
) -> list[dict[str, Any]]:
    """Return the rows of the multiverses that the plan declares."""
    if not a.plan.get("robustness"):
        return []
    from .multiverse import rows, run_multiverses

    found = run_multiverses(a.plan, a.ds, jobs=jobs, progress=progress, registered=run, folder=a.folder)
    return [row for m in found.values() for row in rows(m, exploratory=stamp == "exploratory")]


def _deviations(a: Admitted, run: Execution, seen: str, started: str) -> list[Deviation]:
    from .amended import amendment_deviations, superseded
    from .declared import join
    from .executed import find_deviations
    from .rivals import other_data, rivals

    assert a.lock is not None
    found = find_deviations(a.lock, run, a.folder, str(a.lock.content["access"]["level"]), started)
    entries = read_ledger(a.folder / "ledger.jsonl")
    found = [*superseded(a.lock, a.folder), *rivals(a.lock, a.folder, entries), *found]
    found += other_data(a.lock, a.content_sha256, entries)
    return [*amendment_deviations(a.chain), *join(found, a.declared, a.lock.plan, seen)]


def _registrations(a: Admitted) -> dict[str, Registration]:
    """Return when each hypothesis was registered as it is decided, where locks were amended."""
    from .chains import registration_of

    if a.lock is None or a.lock.parent is None:
        return {}
    return {h: registration_of(a.chain, h) for h in a.lock.plan["hypotheses"]}


def _fingerprint(a: Admitted) -> str:
    """Hash all that determines the results."""
    from .. import __version__

    plan = a.plan
    declared = declared_fingerprint(a.declared)
    return canonical_hash(
        {
            "bound": a.bound,
            "content": a.content_sha256,
            "code": code_hashes(a.folder),
            "dynstat": __version__,
            "methods": sorted(
                s["method"] for s in [*plan["analyses"].values(), *plan["exploratory"].values()]
            ),
        }
        | ({"declared": declared} if declared else {})
    )


def _is_done(out: Path, fingerprint: str) -> bool:
    runs = [e for e in read_ledger(out / "ledger.jsonl") if e["event"] == "run"]
    file = out / "results.json"
    return (
        bool(runs)
        and file.exists()
        and runs[-1].get("fingerprint") == fingerprint
        and runs[-1].get("results_sha256") == sha256_file(file)
    )


def _kept(a: Admitted, out: Path) -> RunResult:
    values = _values(out)
    stamp = str(values["study.stamp"])
    if stamp == "exploratory":
        return ExploratoryResult(out, str(a.plan["id"]), True, str(values.get("study.void", "")))
    return ConfirmatoryResult(out, str(a.plan["id"]), stamp, True, _outcomes(out))


def _values(out: Path) -> dict[str, Any]:
    return {v["key"]: v["raw"] for v in json.loads((out / "results.json").read_text(encoding="utf-8"))}


def _outcomes(out: Path) -> dict[str, tuple[str, str]]:
    values = _values(out)
    ids = [k.removesuffix(".decision") for k in values if k.endswith(".decision") and k.count(".") == 1]
    return {h: (str(values[f"{h}.decision"]), str(values[f"{h}.reason_code"])) for h in ids}


def _words(error: BaseException) -> str:
    if isinstance(error, DynstatError):
        return f"{error.code} {error.what}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{type(error).__name__}: {error}"
