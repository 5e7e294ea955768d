"""What a run asks before it computes: the lock, its code, its data, and the folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DynstatError
from ..files import canonical_hash, write_atomic
from .chains import chain_of, find_fitting
from .declared import FILE, Declared, amended_plan, check_affects, fingerprint, load_declared
from .ledger import append_entry, read_ledger
from .lock import SUFFIX, Lock, check_executable, find_locks, load_lock
from .plan import load_plan
from .study import code_hashes, find_study, has_plan, is_installed, register_methods

if TYPE_CHECKING:
    import xarray as xr

LOCK_FILE = f"plan{SUFFIX}"


@dataclass(frozen=True)
class Admitted:
    """A study and data that belong together.

    Attributes
    ----------
    folder : Path
        Of the study.
    lock, lock_path : Lock, Path or None
        None where the run is exploratory.
    plan : mapping
        The expanded plan: the lock's, else that of the folder.
    plan_sha256, bound : str
        Hash of the plan, and of the lock (or plan) that the results belong to.
    ds : xarray.Dataset
    inputs : mapping or None
        What the data say they were made from.
    inputs_sha256, content_sha256 : str
    chain : sequence of Lock
        From the first registration to this lock, each amended by the next; empty where there is none.
    declared : sequence of Declared
    void : str
        What differs from the lock, where it is declared and leaves nothing that could decide; else "".
    """

    folder: Path
    lock: Lock | None
    lock_path: Path | None
    plan: Mapping[str, Any]
    plan_sha256: str
    bound: str
    ds: xr.Dataset
    inputs: Mapping[str, Any] | None
    inputs_sha256: str
    content_sha256: str
    chain: Sequence[Lock]
    declared: Sequence[Declared]
    void: str

    @property
    def stamp(self) -> str:
        """``registered``, ``registered_after_access`` or ``exploratory``."""
        if self.lock is None or self.void:
            return "exploratory"
        level = self.lock.content["access"]["level"]
        return "registered_after_access" if level == "outcomes" else "registered"


def admit(study: str | Path, data: str | Path, deviate: str | Path | None = None) -> Admitted:
    """Open a study and its data, and refuse what does not belong together.

    Raises
    ------
    DynstatError
        P301, P302, P303, P306, P308; see :func:`dynstat.prereg.runner.run_study`.
    """
    import dynstat

    folder, lock, lock_path = _target(study)
    ds = dynstat.open(Path(data))
    inputs = _inputs(ds)
    inputs_sha256 = canonical_hash(inputs) if inputs is not None else ""
    if lock is None:
        lock, lock_path = find_fitting(folder, inputs_sha256)
    elif lock.inputs_sha256 != inputs_sha256:
        raise DynstatError(
            "P303",
            "the data were not made from the inputs that the lock binds",
            where=str(data),
            found=_difference(lock.content["inputs"], inputs),
            expected=f"inputs {lock.inputs_sha256[:12]}",
            mend="give the data of this lock; or name the study instead of the lock, for an exploratory run",
        )
    declared = load_declared(folder / FILE, Path(deviate) if deviate else None)
    void = ""
    chain: Sequence[Lock] = ()
    if lock is None:
        plan = load_plan(folder)
        content, plan_sha256, bound = plan.content, plan.sha256, plan.sha256
    else:
        assert inputs is not None
        void = _check_code(lock, folder, declared)
        _check_known(lock, folder)
        chain = chain_of(folder, lock)
        _check_identity(ds, inputs)
        check_affects(declared, lock.plan)
        amended_plan(lock.plan, declared)  # what cannot be run beside is told before anything is written
        content, plan_sha256, bound = lock.plan, str(lock.content["plan_sha256"]), lock.sha256
    return Admitted(
        folder,
        lock,
        lock_path,
        content,
        plan_sha256,
        bound,
        ds,
        inputs,
        inputs_sha256,
        dynstat.content_hash(ds),
        chain,
        declared,
        void,
    )


def _check_code(lock: Lock, folder: Path, declared: Sequence[Declared]) -> str:
    """Check that the lock can be run as it was; where every changed file is declared, return what changed."""
    try:
        check_executable(lock, folder)
    except DynstatError as e:
        now, then = code_hashes(folder), lock.content["code"]
        files = [f for f in sorted(set(now) | set(then)) if now.get(f) != then.get(f)]
        pointers = {d.pointer for d in declared}
        told = bool(files) and all({"/code", f"/code/{f.replace('/', '~1')}"} & pointers for f in files)
        if not told or len(e.problems) > len(files):
            raise
        register_methods(folder)
        return "; ".join(e.problems)
    return ""


def _target(study: str | Path) -> tuple[Path, Lock | None, Path | None]:
    path = Path(study)
    if not path.name.endswith(SUFFIX):
        return find_study(study), None, None
    lock = load_lock(path)
    # A copy in a folder of results has no code beside it: its study is looked up by name.
    folder = path.parent if has_plan(path.parent) else find_study(str(lock.content["study"]))
    return folder, lock, path


def _inputs(ds: xr.Dataset) -> dict[str, Any] | None:
    text = ds.attrs.get("inputs", "")
    try:
        value = json.loads(text) if text else None
    except json.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else None


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


def known_of_outcomes(a: Admitted, out: Path) -> str:
    """Return what was known of the data before this run, as an access level, by plan, lock and ledgers.

    A declaration that the ledger recorded together with the first access was made before any outcome.
    """
    level = str(a.plan["registration"]["access"]["level"])
    if a.lock is not None:
        level = str(a.lock.content["access"]["level"])
    entries = [*read_ledger(a.folder / "ledger.jsonl"), *read_ledger(out / "ledger.jsonl")]
    opened = [
        e
        for e in entries
        if (e["event"] == "access" and e.get("inputs_sha256") == a.inputs_sha256 and e["level"] == "outcomes")
        or (e["event"] in ("run", "failure") and e.get("content_sha256") == a.content_sha256)
    ]
    first = opened[0] if opened else {}
    declared_then = bool(a.declared) and first.get("declared_sha256") == fingerprint(a.declared)
    return "outcomes" if opened and not declared_then else level


def record_access(a: Admitted) -> None:
    """Note in the study's ledger, once for data of the same content, that their outcomes were seen.

    A pilot leaves no entry once a lock says that it is one. Before, it does: which split is the pilot is then
    what the plan says today. Its inputs are its own, so that no level of the registered prompts rises by it.
    """
    if a.inputs is None or is_installed(a.folder):
        return
    split = a.inputs["prompts"]["split"]
    if split != a.plan["data"]["prompts"]["split"] and split in _locked_pilots(a.folder):
        return
    ledger = a.folder / "ledger.jsonl"
    known = accesses_to(read_ledger(ledger), a.inputs_sha256)
    # Ledgers of earlier versions do not say which data they were.
    if any(e.get("content_sha256", a.content_sha256) == a.content_sha256 for e in known):
        return
    declared = {"declared_sha256": fingerprint(a.declared)} if a.declared else {}
    append_entry(
        ledger,
        "access",
        {
            "study": a.plan["id"],
            "inputs_sha256": a.inputs_sha256,
            "content_sha256": a.content_sha256,
            "level": "outcomes",
            "split": split,
            "by": "run",
        }
        | declared,
    )


def _locked_pilots(folder: Path) -> set[str]:
    return {str((lock.plan["data"].get("pilot") or {}).get("split")) for _, lock in find_locks(folder)}


def accesses_to(entries: Sequence[Mapping[str, Any]], inputs_sha256: str) -> list[Mapping[str, Any]]:
    """Return the entries of a ledger that tell of access to data of these inputs by a run, in their order."""
    return [
        e
        for e in entries
        if e["event"] == "access" and e.get("inputs_sha256") == inputs_sha256 and e.get("by") == "run"
    ]


def enter(out: Path, folder: Path, lock: Lock | None, content_sha256: str) -> None:
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
