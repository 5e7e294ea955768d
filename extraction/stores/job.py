"""What is sent to a worker for one item; light, for the scheduler unpacks it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynstat.errors import DynstatError

from ..panels.panel import Panel
from .batches import Batch


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a run, beside its item: plain data, small enough for every task.

    Attributes
    ----------
    panel : Panel
        What is extracted, with the places of its models.
    inputs : mapping
        Hashes of the panel's inputs, as the plan found them.
    store : str
        Absolute path of the store.
    spread : bool
        Whether the workers are numbered processes of one machine, which take its GPUs in turn.
    offline : bool
        Whether the workers, too, must not ask a hub.
    """

    panel: Panel
    inputs: Mapping[str, Any]
    store: str
    spread: bool = False
    offline: bool = False


def write_item(job: Job, batch: Batch, name: str) -> int | DynstatError:
    """Write one shard; this is what runs on the workers.

    Parameters
    ----------
    job : Job
        The run.
    batch : Batch
        The item.
    name : str
        Its shard, as the plan names it.

    Returns
    -------
    int or DynstatError
        Runs written. An error of dynstat is given back and not raised: the next attempt would meet it again.
    """
    from .remote import write

    return write(job, batch, name)
