"""Run a study: it takes a plan or lock and data, and nothing that could alter the analysis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from ..files import canonical_hash, sha256_file, write_atomic
from .ledger import append_entry, read_ledger
from .lock import SUFFIX, Lock, check_executable, find_locks, load_lock
from .plan import Plan, load_plan
from .study import find_study, is_installed

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.decision import Decision
    from .execute import Progress

LOCK_FILE = f"plan{SUFFIX}"


@dataclass(frozen=True)
class RunResult:
    """Where the results lie and what was decided.

    Attributes
    ----------
    out : Path
    study : str
    stamp : str
        ``registered``, ``registered_after_access`` or ``exploratory``.
    kept : bool
        True where the results of an equal earlier run were kept and nothing was computed.
    decisions : mapping of str to Decision
        Empty where the run is exploratory or was kept.
    outcomes : mapping of str to (outcome, reason code)
        Of every hypothesis, also of a kept run.
    """

    out: Path
    study: str
    stamp: str
    kept: bool
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    outcomes: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def run_study(
    study: str | Path, data: str | Path, out: str | Path, progress: Progress | None = None
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

    Raises
    ------
    DynstatError
        P302 (edited lock), P303 (other data under the lock, or in this folder before), P306 (ledger), P308
        (code or method changed since the lock), P301 (plan of an exploratory run), and the errors of reading.
    """
    import dynstat

    folder, lock, lock_path = _target(study)
    ds = dynstat.open(Path(data))
    inputs = _inputs(ds)
    inputs_sha256 = canonical_hash(inputs) if inputs is not None else ""
    if lock is None:
        lock, lock_path = _fitting(folder, inputs_sha256)
    elif lock.inputs_sha256 != inputs_sha256:
        raise DynstatError(
            "P303",
            "the data were not made from the inputs that the lock binds",
            where=str(data),
            found=_difference(lock.content["inputs"], inputs),
            expected=f"inputs {lock.inputs_sha256[:12]}",
            mend="give the data of this lock; or name the study instead of the lock, for an exploratory run",
        )
    plan: Plan | None = None
    if lock is None:
        plan = load_plan(folder)
        content = plan.content
        bound = plan.sha256
    else:
        assert inputs is not None
        check_executable(lock, folder)
        _check_known(lock, folder)
        _check_identity(ds, inputs)
        content, bound = lock.plan, lock.sha256
    _record_access(folder, content, inputs, inputs_sha256)

    out = Path(out)
    content_sha256 = dynstat.content_hash(ds)
    _enter(out, folder, lock, content_sha256)
    fingerprint = _fingerprint(bound, content_sha256, content, folder)
    stamp = _stamp(lock)
    if _is_done(out, fingerprint):
        return RunResult(out, str(content["id"]), stamp, True, outcomes=_outcomes(out))

    from .execute import Deviation, decide_all, execute
    from .results import write_results

    run = execute(content, ds, progress)
    decisions: dict[str, Decision] = {}
    if lock is not None:
        decisions = decide_all(lock, run)
        if lock.content["dynstat_version"] != dynstat.__version__:
            run.deviations.append(
                Deviation(
                    "/dynstat_version",
                    str(lock.content["dynstat_version"]),
                    dynstat.__version__,
                    "note",
                    "dynstat was updated; the versions of all methods are those of the lock",
                )
            )
    entry = {
        "study": content["id"],
        "fingerprint": fingerprint,
        "stamp": stamp,
        "content_sha256": content_sha256,
    }
    file = write_results(
        out,
        content,
        run,
        decisions,
        ds=ds,
        lock=lock,
        lock_path=lock_path,
        stamp=stamp,
        plan_sha256=plan.sha256 if plan else str(lock.content["plan_sha256"]) if lock else "",
        content_sha256=content_sha256,
        data_name=Path(data).name,
        ledger=read_ledger(out / "ledger.jsonl"),
    )
    append_entry(out / "ledger.jsonl", "run", {**entry, "results_sha256": sha256_file(file)})
    return RunResult(out, str(content["id"]), stamp, False, decisions, _outcomes(out))


def _target(study: str | Path) -> tuple[Path, Lock | None, Path | None]:
    path = Path(study)
    if not path.name.endswith(SUFFIX):
        return find_study(study), None, None
    lock = load_lock(path)
    # A copy in a folder of results has no code beside it: its study is looked up by name.
    folder = path.parent if (path.parent / "plan.yaml").exists() else find_study(str(lock.content["study"]))
    return folder, lock, path


def _inputs(ds: xr.Dataset) -> dict[str, Any] | None:
    text = ds.attrs.get("inputs", "")
    try:
        value = json.loads(text) if text else None
    except json.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else None


def _fitting(folder: Path, inputs_sha256: str) -> tuple[Lock | None, Path | None]:
    fits = [(lock, p) for p, lock in find_locks(folder) if lock.inputs_sha256 == inputs_sha256]
    if len(fits) > 1:
        raise DynstatError(
            "S404",
            "several locks fit the data",
            where=str(folder),
            found=", ".join(p.name for _, p in fits),
            expected="one",
            mend="name the lock: `dynstat run PATH/NAME.lock.json ...`",
        )
    return fits[0] if fits else (None, None)


def _difference(registered: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "data without a record of their inputs"
    parts = [k for k in sorted(set(registered) | set(found)) if registered.get(k) != found.get(k)]
    return "other " + ", ".join(parts)


def _check_known(lock: Lock, folder: Path) -> None:
    known = {e.get("lock_sha256") for e in read_ledger(folder / "ledger.jsonl") if e["event"] == "lock"}
    if lock.sha256 not in known:
        raise DynstatError(
            "P306",
            "the study's ledger does not know this lock",
            where=str(folder / "ledger.jsonl"),
            found=f"{len(known)} locks",
            expected=f"lock {lock.sha256[:12]}",
            mend="restore the ledger from git",
        )


def _check_identity(ds: xr.Dataset, inputs: Mapping[str, Any]) -> None:
    """Check that models, prompts and samples of the data are those of the inputs written in their header."""
    problems = []
    models = [str(m) for m in ds["model"].values]
    registered = {m["id"]: m for m in inputs["models"]}
    if set(models) != set(registered):
        problems.append(f"models {', '.join(models)}, expected {', '.join(registered)}")
    for name in ("weights_sha256", "tokenizer_sha256", "revision"):
        if name in ds.coords:
            for m, value in zip(models, ds[name].values, strict=True):
                wanted = registered.get(m, {}).get(name)
                if wanted is not None and str(value) != str(wanted):
                    problems.append(f"{name} of {m}")
    samples = inputs.get("settings", {}).get("samples")
    if samples is not None and {str(s) for s in ds["sample"].values} != {str(s["id"]) for s in samples}:
        problems.append(f"{ds.sizes['sample']} samples, expected {', '.join(str(s['id']) for s in samples)}")
    if ds.sizes["prompt"] != inputs["prompts"]["n"]:
        problems.append(f"{ds.sizes['prompt']} prompts, expected {inputs['prompts']['n']}")
    if problems:
        raise DynstatError(
            "P303",
            "the data are not what their header says",
            problems=problems,
            mend="extract them again from the panel that was locked",
        )


def _record_access(
    folder: Path, plan: Mapping[str, Any], inputs: Mapping[str, Any] | None, inputs_sha256: str
) -> None:
    """Note in the study's ledger, once for each inputs, that outcomes of the registered split were seen."""
    if (
        inputs is None
        or inputs["prompts"]["split"] != plan["data"]["prompts"]["split"]
        or is_installed(folder)
    ):
        return
    ledger = folder / "ledger.jsonl"
    if any(e["event"] == "access" and e.get("inputs_sha256") == inputs_sha256 for e in read_ledger(ledger)):
        return
    append_entry(
        ledger,
        "access",
        {
            "study": plan["id"],
            "inputs_sha256": inputs_sha256,
            "level": "outcomes",
            "split": inputs["prompts"]["split"],
            "by": "run",
        },
    )


def _enter(out: Path, folder: Path, lock: Lock | None, content_sha256: str) -> None:
    """Make the folder of results ready: copy lock and ledger, bind the data; refuse what does not belong."""
    ledger, copy = out / "ledger.jsonl", out / LOCK_FILE
    earlier = load_lock(copy) if copy.exists() else None
    entries = read_ledger(ledger)
    if (entries or earlier) and (earlier.sha256 if earlier else "") != (lock.sha256 if lock else ""):
        raise DynstatError(
            "P303",
            "the folder holds results under another lock",
            where=str(out),
            found=earlier.name if earlier else "an exploratory run",
            expected=lock.name if lock else "no lock",
            mend="choose another folder",
        )
    bindings = [e["content_sha256"] for e in entries if e["event"] == "bind"]
    if lock is not None and not bindings and (out / "results.json").exists():
        raise DynstatError(
            "P306",
            "the folder holds results and its ledger does not say of which data",
            where=str(ledger),
            found=f"{len(entries)} entries, none of which binds data",
            expected="the ledger of the run that wrote results.json",
            mend="restore the ledger, or choose another folder",
        )
    if lock is not None and bindings and content_sha256 not in bindings:
        raise DynstatError(
            "P303",
            "the lock was run on other data in this folder",
            where=str(ledger),
            found=content_sha256,
            expected=bindings[0],
            mend="restore the data; what was there is untouched",
        )
    # The lock first: a folder that was left half made must not look like that of an exploratory run.
    if lock is not None and earlier is None:
        write_atomic(copy, json.dumps(lock.content, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    if not entries:
        source = folder / "ledger.jsonl"
        read_ledger(source)
        write_atomic(ledger, source.read_bytes() if source.exists() else b"")
    if content_sha256 not in bindings:
        append_entry(
            ledger, "bind", {"lock_sha256": lock.sha256 if lock else "", "content_sha256": content_sha256}
        )


def _fingerprint(bound: str, content_sha256: str, plan: Mapping[str, Any], folder: Path) -> str:
    """Hash all that determines the results."""
    from .. import __version__
    from .study import code_hashes

    return canonical_hash(
        {
            "bound": bound,
            "content": content_sha256,
            "code": code_hashes(folder),
            "dynstat": __version__,
            "methods": sorted(
                a["method"] for a in [*plan["analyses"].values(), *plan["exploratory"].values()]
            ),
        }
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


def _stamp(lock: Lock | None) -> str:
    if lock is None:
        return "exploratory"
    return "registered_after_access" if lock.content["access"]["level"] == "outcomes" else "registered"


def _outcomes(out: Path) -> dict[str, tuple[str, str]]:
    values = {v["key"]: v["raw"] for v in json.loads((out / "results.json").read_text(encoding="utf-8"))}
    ids = [k.removesuffix(".decision") for k in values if k.endswith(".decision")]
    return {h: (str(values[f"{h}.decision"]), str(values[f"{h}.reason_code"])) for h in ids}
