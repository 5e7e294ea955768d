"""What runs on the workers of a scheduler: one item at a time, of one model that stays in memory."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from dynstat import __version__
from dynstat.errors import DynstatError
from dynstat.files import sha256_file

from ..lens.engine import Engine
from ..models.encoding import encoder
from ..models.sources import locate, offline
from ..panels.panel import panel_hash
from .batches import Batch, shard_name
from .job import Job
from .plan import Plan
from .ranks import Rank, gpus
from .run import Worker
from .store import BINDING, read_binding


class _OneModel(Plan):
    """What is settled for one model: the item comes with the task, other models' files are not touched.

    Raises
    ------
    DynstatError
        X223 where this process reads other files than the plan did.
    """

    def __init__(self, job: Job, model: int, prompts: list[dict[str, Any]]) -> None:
        self.panel = job.panel
        self.inputs = dict(job.inputs)
        self.prompts = prompts
        if (found := sha256_file(job.panel.prompt_file)) != job.inputs["prompts"]["sha256"]:
            raise unequal(
                "a worker reads other prompts than the plan", f"SHA-256 {found[:16]}",
                str(job.panel.prompt_file),
            )  # fmt: skip
        if job.panel.settings() != job.inputs["settings"]:  # registers the user's metrics, too
            raise unequal(
                "a worker reads other settings than the plan", "files of metrics or read-outs", job.store
            )
        source = locate(job.panel.models[model], job.panel.dtype)
        if (seen := source.identity()) != job.inputs["models"][model]:
            wrong = [k for k, v in seen.items() if v != job.inputs["models"][model].get(k)]
            raise unequal(
                f"a worker reads other files of model {source.spec.id!r} than the plan",
                f"another {', '.join(wrong)}", str(source.folder),
            )  # fmt: skip
        self.sources = cast(Any, {model: source})
        self.encoders = cast(Any, {model: encoder(source, job.panel)})
        self.batches, self.names = [], []


@dataclass
class _Desk:
    """What a worker process keeps from item to item: one job, one model in memory."""

    job: Job | None = None
    model: int = -1
    prompts: list[dict[str, Any]] = field(default_factory=list)
    worker: Worker | None = None

    def open(self, job: Job, model: int) -> Worker:
        """Return the worker of this job with this model, made anew only where either has changed."""
        if self.worker is not None and self.job == job and self.model == model:
            return self.worker
        self.worker = None  # frees the model before the next is loaded
        store = Path(job.store)
        if self.job != job:
            self.prompts = job.panel.prompts()
        self.job, self.model = job, model
        try:
            bound = read_binding(store)
        except DynstatError as e:
            raise unequal("a worker does not see the store", str(e.args[0]).splitlines()[0], job.store) from e
        if bound.inputs_sha256 != panel_hash(job.inputs):
            raise unequal(
                "a worker sees another store", f"{BINDING} of {bound.inputs_sha256[:16]}", job.store
            )
        engine = Engine.from_dict(bound.engine)
        engine.check(store / BINDING, job.panel.device)
        if job.panel.device != "cpu":
            from ..models.device import check_device

            check_device(job.panel)
        self.worker = Worker(_OneModel(job, model, self.prompts), store, engine, _device(job))
        return self.worker


_desk = _Desk()
# Threads of a worker process would share its model and what torch sets for the whole process.
_one_at_a_time = threading.Lock()


def write(job: Job, batch: Batch, name: str) -> int | DynstatError:
    """Do what :func:`dynstat.extraction.stores.job.write_item` says."""
    import dask

    # On a worker xarray would ask the scheduler for a lock at every access to a file that is ours alone:
    # hundreds of messages an item.
    with _one_at_a_time, dask.config.set(scheduler="synchronous"):
        try:
            with offline() if job.offline else nullcontext():
                worker = _desk.open(job, batch.model)
                plan = worker.plan
                plan.batches, plan.names = [batch], [name]
                if (here := shard_name(plan.key(0))) != name:
                    raise unequal(
                        "a worker names its shard otherwise than the plan",
                        here,
                        f"dynstat {__version__} there",
                    )
                return batch.rows if (worker.store / name).exists() else worker.write(0)
        except DynstatError as e:
            return e


def _device(job: Job) -> str | None:
    if not job.spread or job.panel.device != "cuda":
        return None
    from distributed import get_worker

    return Rank(local=int(get_worker().name)).device("cuda", gpus("cuda"))


def unequal(what: str, found: str, where: str) -> DynstatError:
    """Return the error of a worker that does not see what the command sees."""
    return DynstatError(
        "X223",
        what,
        where=where,
        found=found,
        expected="files, paths and version of dynstat as where the command was given",
        mend="workers and command need one shared file system and one environment: docs/scaling.md",
    )
