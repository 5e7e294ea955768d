"""Hand the items of a plan to Dask: the same shards, bit for bit, wherever they are computed."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from uuid import uuid4

from dynstat.errors import DynstatError
from dynstat.leftovers import remove_leftovers

from ..panels.panel import Panel
from .job import Job, write_item
from .plan import Plan
from .ranks import gpus
from .remote import unequal
from .run import Clock, Progress
from .store import open_store

#: How long a scheduler may take to answer.
TIMEOUT = "20s"
#: Times the scheduler may give an item up before it is held to be the cause. Each time one worker more died
#: over it than `allowed-failures` says, which is 3 by default.
GIVEN_UP = 2
#: Items a worker has at hand: one that is computed and one that waits, so that none stands idle.
AT_HAND = 2
#: Seconds until a shard written elsewhere must be seen here; network file systems remember for so long
#: that a file was missing.
PATIENCE = 90.0
_POLL = 1.0
# Ctrl-C on a terminal reaches every process; the command alone decides what it means.
_NO_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def extract_on(
    scheduler: str,
    plan: Plan,
    store: str | os.PathLike[str],
    *,
    locks: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
    offline: bool = False,
) -> Path:
    """Extract a panel into a folder of shards on the workers of a Dask scheduler.

    Each worker keeps to one model as long as that has items left. A worker that dies costs the item it was
    at, which another takes over; workers may come and go meanwhile. Ctrl-C leaves a store that goes on.

    Parameters
    ----------
    scheduler : str
        Address (``tcp://HOST:PORT``), ``local`` for processes of this machine, or ``local:N``.
    plan : Plan
        The panel's plan. The workers must see its files, and the store, under the same paths.
    store : path
        Folder of the shards.
    locks : sequence of path, optional
        Locked plans, needed for prompts of split ``confirmation``.
    progress : callable, optional
        Called with runs done, runs in all, and what is at work.
    offline : bool, optional
        Workers ask no hub either.

    Returns
    -------
    Path
        The store; its shards equal those of a serial run bit for bit.

    Raises
    ------
    DynstatError
        X223 (Dask is not installed, the scheduler is not reached or lost, a worker does not see the files,
        an item killed its workers), and those of :func:`open_store` and :meth:`Worker.write`.
    """
    store = Path(store).absolute()
    distributed = _distributed()
    size = local_size(scheduler, plan.panel)
    open_store(plan, store, locks, elsewhere=size == 0)
    total = sum(b.rows for b in plan.batches)
    missing = plan.missing(store)
    if missing:
        with _connect(distributed, scheduler, size, plan.panel.device) as client:
            job = Job(plan.panel, plan.inputs, str(store), size > 0, offline)
            _Dispatch(distributed, client, plan, job, missing, total, progress).run()
        _arrived(plan, store, missing)
        remove_leftovers(store)
    if progress:
        progress(total, total, "done")
    return store


class _Dispatch:
    """Deal items to workers so that each keeps to its model, and take back what died with them."""

    def __init__(
        self, distributed: Any, client: Any, plan: Plan, job: Job, missing: Sequence[int], total: int,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.client, self.plan, self.job = client, plan, job
        self.killed = distributed.KilledWorker
        self.closed = getattr(distributed.client, "ClosedClientError", CancelledError)
        self.costs = plan.costs()
        self.total = total
        self.done = total - sum(plan.batches[i].rows for i in missing)
        self.progress = progress or (lambda *_: None)
        self.clock = Clock(sum(self.costs[i] for i in missing))
        self.left: dict[int, list[int]] = {}
        for i in reversed(missing):
            self.left.setdefault(plan.batches[i].model, []).append(i)  # taken from the end
        self.flying: dict[Any, tuple[int, str]] = {}
        self.at: dict[str, int] = {}
        self.given_up: dict[int, int] = {}
        self.finished: Queue[Any] = Queue()
        # Equal keys are one task to a scheduler: an item of this store would be taken for one of another's.
        self.token = uuid4().hex[:8]

    def run(self) -> None:
        """Deal until all is done; what is still flying is called back on the way out."""
        try:
            while self.left or self.flying:
                self._deal()
                self._collect()
        except (CancelledError, self.closed, OSError) as e:
            raise DynstatError(
                "X223",
                "the connection to the Dask scheduler is lost",
                where=str(self.client.scheduler and self.client.scheduler.address),
                found=str(e).splitlines()[0] if str(e) else type(e).__name__,
                mend="start it anew and run the same command: what was finished is kept",
            ) from e
        finally:
            with suppress(Exception):
                self.client.cancel(list(self.flying), force=True)

    def _deal(self) -> None:
        workers = self._workers()
        load = Counter(address for _, address in self.flying.values())
        for _ in range(AT_HAND):  # by turns, so that a few items are shared by all
            for address in workers:
                if self.left and load[address] < AT_HAND:
                    load[address] += 1
                    self._submit(self._take(address), address)
        if not workers:
            what = "a worker with the resource GPU" if self.job.panel.device == "cuda" else "a worker"
            self.progress(self.done, self.total, f"waiting for {what}")

    def _workers(self) -> list[str]:
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        if self.job.panel.device == "cuda":
            known = {a: w for a, w in known.items() if w.get("resources", {}).get("GPU", 0) >= 1}
        return sorted(known)

    def _take(self, address: str) -> int:
        """Return the next item of the model that the worker holds, else of that with most work a worker."""
        model = self.at.get(address, -1)
        if model not in self.left:
            crowd = Counter(self.at[a] for _, a in self.flying.values() if a in self.at)
            model = max(
                self.left, key=lambda m: (sum(self.costs[i] for i in self.left[m]) / (1 + crowd[m]), -m)
            )
        self.at[address] = model
        index = self.left[model].pop()
        if not self.left[model]:
            del self.left[model]
        return index

    def _submit(self, index: int, address: str) -> None:
        future = self.client.submit(
            write_item,
            self.job,
            self.plan.batches[index],
            self.plan.names[index],
            key=f"dynstat-{self.token}-{self.plan.names[index][:16]}-{self.given_up.get(index, 0)}",
            pure=False,
            retries=2,
            workers=[address],
            allow_other_workers=True,
            resources={"GPU": 1} if self.job.panel.device == "cuda" else None,
        )
        self.flying[future] = index, address
        future.add_done_callback(self.finished.put)

    def _collect(self) -> None:
        try:
            finished = [self.finished.get(timeout=_POLL)]
            while not self.finished.empty():
                finished.append(self.finished.get())
        except Empty:
            return
        for future in finished:
            index, address = self.flying.pop(future)
            try:
                found = future.result()
            except self.killed:
                self._again(index, address)
                continue
            if isinstance(found, DynstatError):
                raise found
            self.done += found
            self.clock.tick(self.costs[index])
            model = self.plan.panel.models[self.plan.batches[index].model].id
            self.progress(self.done, self.total, model + self.clock.left())

    def _again(self, index: int, address: str) -> None:
        self.given_up[index] = self.given_up.get(index, 0) + 1
        if self.given_up[index] >= GIVEN_UP:
            batch = self.plan.batches[index]
            raise DynstatError(
                "X223",
                "an item killed its workers again and again",
                where=f"model {self.plan.panel.models[batch.model].id!r}, shard {self.plan.names[index]}",
                found=f"{batch.rows} runs of {batch.length} tokens",
                mend="give the workers more memory, or lower `batch_tokens` (another panel to a store)",
            )
        self._submit(index, address)


def local_size(scheduler: str, panel: Panel) -> int:
    """Return how many processes ``local`` or ``local:N`` means, 0 for the address of a scheduler.

    Raises
    ------
    DynstatError
        Y003 where N is no number above 0.
    """
    if scheduler != "local" and not scheduler.startswith("local:"):
        return 0
    count = scheduler.removeprefix("local").removeprefix(":")
    if scheduler == "local":
        if panel.device == "cuda":
            return max(1, gpus(panel.device))
        # Not every system says which cores are this process's.
        free = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, free // panel.threads)
    if not (count.isascii() and count.isdigit()) or int(count) < 1:
        raise DynstatError("Y003", "local:N needs a number", where="--scheduler", found=scheduler,
                           expected="local | local:N | tcp://HOST:PORT")  # fmt: skip
    return int(count)


@contextmanager
def _connect(distributed: Any, scheduler: str, size: int, device: str) -> Iterator[Any]:
    cluster = None
    try:
        if size:
            # Batches bound the memory; a limit here would kill what merely loads a large model.
            cluster = distributed.LocalCluster(
                n_workers=size, threads_per_worker=1, processes=True, dashboard_address=None,
                memory_limit=None, silence_logs=logging.CRITICAL, preload=[_NO_INTERRUPT],
                resources={"GPU": 1} if device == "cuda" else None,
            )  # fmt: skip
        client = distributed.Client(cluster or scheduler, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as e:
        if cluster is not None:
            cluster.close()
        raise DynstatError(
            "X223",
            "the Dask scheduler does not answer",
            where=scheduler,
            found=str(e).splitlines()[0] if str(e) else type(e).__name__,
            mend="`dask scheduler` starts one, `dask worker ADDRESS` its workers, in the same environment",
        ) from None
    try:
        yield client
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _arrived(plan: Plan, store: Path, written: Sequence[int]) -> None:
    """Wait until all shards are seen here: what a worker wrote into another folder would be lost."""
    end = time.monotonic() + PATIENCE
    while lost := set(written) & set(plan.missing(store)):
        if time.monotonic() > end:
            raise unequal(
                f"{len(lost)} shards that workers wrote are not in the store",
                plan.names[min(lost)],
                str(store),
            )
        time.sleep(1)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise DynstatError(
            "X223",
            "Dask is not installed",
            where="--scheduler",
            expected="dask and distributed",
            mend="pip install 'dynstat[dask]', or share the work out by --rank and --world",
        ) from None
    return distributed
