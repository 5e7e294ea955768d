"""Run independent tasks in order on several processes or on Dask, with the results of a serial run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import DynstatError

T = TypeVar("T")
R = TypeVar("R")
#: How long a Dask scheduler may take to answer.
TIMEOUT = "10s"


@dataclass(frozen=True)
class Workers:
    """What tasks run on.

    Attributes
    ----------
    jobs : int
        Processes on this machine; 1 is serial.
    client : dask.distributed.Client or None
        Where tasks go instead.
    """

    jobs: int = 1
    client: Any = None

    @property
    def serial(self) -> bool:
        """Whether tasks run one after the other in this process."""
        return self.jobs == 1 and self.client is None


_workers: ContextVar[Workers | None] = ContextVar("dynstat_workers", default=None)
# Threads of a Dask worker share what a task sets for its process: the record of warnings, the BLAS threads.
_one_at_a_time = threading.Lock()


@contextmanager
def workers(jobs: int = 1, scheduler: str = "") -> Iterator[Workers]:
    """Open workers for every :func:`each` inside; BLAS is held to one thread, since bits depend on that.

    Parameters
    ----------
    jobs : int
        Processes; 1 is serial.
    scheduler : str
        Address of a Dask scheduler (``tcp://HOST:PORT``); then `jobs` is not used.

    Raises
    ------
    DynstatError
        S404 for fewer than one job; F003 where Dask is not installed or the scheduler does not answer.
    """
    from threadpoolctl import threadpool_limits

    if jobs < 1:
        raise DynstatError("S404", "at least one job is needed", found=jobs, mend="--jobs 1 is serial")
    client = _connect(scheduler) if scheduler else None
    found = Workers(jobs, client)
    token = _workers.set(found)
    try:
        with threadpool_limits(1):
            yield found
    finally:
        _workers.reset(token)
        if client is not None:
            client.close()


def each(function: Callable[[T], R], items: Iterable[T], jobs: int | None = None) -> Iterator[R]:
    """Yield ``function(item)`` of every item, in their order, on the workers that are open.

    Whatever is random must be drawn before, or seeded by the item: then results do not depend on the workers.

    Parameters
    ----------
    function : callable
        Without side effects; it and the items travel to other processes (cloudpickle).
    items : iterable
    jobs : int, optional
        Processes that each task may use itself; by default the tasks share those that are there.
    """
    at = _workers.get()
    if at is None or at.serial:
        yield from map(function, items)
        return
    every = list(items)
    if len(every) < 2 and at.client is None:
        yield from map(function, every)
    elif at.client is not None:
        # The function holds the data: it is sent once and not with every item.
        held = at.client.scatter(function, hash=False)
        futures = at.client.map(_remote, every, function=held, pure=False)
        try:
            for future in futures:
                yield future.result()
        finally:
            at.client.cancel(futures)
    else:
        from joblib import Parallel, delayed

        inner = max(1, at.jobs // len(every)) if jobs is None else jobs
        run = Parallel(n_jobs=min(at.jobs, len(every)), backend="loky", return_as="generator")
        yield from run(delayed(_task)(function, item, inner) for item in every)


def _remote(item: T, function: Callable[[T], R]) -> R:
    return _task(function, item, 1)


def _task(function: Callable[[T], R], item: T, jobs: int) -> R:
    with _one_at_a_time, workers(jobs):
        return function(item)


def _connect(scheduler: str) -> Any:
    try:
        from dask.distributed import Client
    except ImportError:
        raise DynstatError(
            "F003",
            "Dask is not installed",
            where=scheduler,
            expected="dask and distributed",
            mend="`pip install 'dynstat[dask]'`, or leave --scheduler out",
        ) from None
    try:
        return Client(scheduler, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as e:
        raise DynstatError(
            "F003",
            "the Dask scheduler does not answer",
            where=scheduler,
            found=str(e) or type(e).__name__,
            mend="`dask scheduler` starts one, `dask worker ADDRESS` its workers, in the same environment",
        ) from None
