"""Run a panel: generate, read once more by teacher forcing, write a shard a batch, go on where it stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import canonical_json

from ..lens.engine import Engine
from ..panels.panel import Panel, load_panel
from .plan import Plan, words
from .ranks import ALONE, Rank, gpus
from .store import open_store

Progress = Callable[[int, int, str], None]


def extract_panel(
    panel: Panel | str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    locks: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
    plan: Plan | None = None,
    rank: Rank = ALONE,
    device: str | None = None,
) -> Path:
    """Extract a panel, or one process's part of it, into a folder of shards.

    Parameters
    ----------
    panel : Panel or path
        What to extract.
    store : path
        Folder; made if need be. A run that was stopped goes on there.
    locks : sequence of path, optional
        Locked plans, needed for prompts of split ``confirmation``.
    progress : callable, optional
        Called with runs done, runs in all, and the model at work with the time left; what is counted as done
        is in the store for good.
    plan : Plan, optional
        The panel's plan, where it was made before.
    rank : Rank, optional
        Which part of the work is this process's; by default all of it.
    device : str, optional
        Which GPU of several, such as "cuda:1"; by default ranks of one machine take them in turn.

    Returns
    -------
    Path
        The store; ``dynstat.open`` reads it.

    Raises
    ------
    DynstatError
        F002 (cannot write), and those of :func:`open_store`, :class:`Plan`, `load` and `generate`. Shards
        written before stay whole.
    """
    panel = panel if isinstance(panel, Panel) else load_panel(panel)
    store = Path(store)
    plan = plan or Plan(panel)
    engine = open_store(plan, store, locks)
    missing = plan.missing(store)
    costs = plan.costs() if missing or rank.world > 1 else []
    part = rank.part(costs) if rank.world > 1 else range(len(plan.batches))
    missing = [i for i in missing if i in part]
    total = sum(plan.batches[i].rows for i in part)
    done = total - sum(plan.batches[i].rows for i in missing)
    if missing and device is None:
        device = rank.device(panel.device, gpus(panel.device))
    worker, clock = Worker(plan, store, engine, device), Clock(sum(costs[i] for i in missing))
    for i in missing:
        if progress:
            progress(done, total, panel.models[plan.batches[i].model].id + clock.left())
        # Another process may have been given the same work by mistake.
        there = (store / plan.names[i]).exists()
        done += plan.batches[i].rows if there else worker.write(i)
        clock.tick(costs[i])
    if progress:
        progress(total, total, "done")
    return store


class Clock:
    """Foretell the time left from the time that work took so far, in whatever order it is done.

    Parameters
    ----------
    work : float
        What all items cost together, in any unit.
    """

    def __init__(self, work: float) -> None:
        self._work = work
        self._done = 0.0
        self._started = time.monotonic()

    def tick(self, cost: float) -> None:
        """Count an item as done."""
        self._done += cost

    def left(self) -> str:
        """Return words such as ``", about 3 min left"``; nothing before the first item is done."""
        if not self._done:
            return ""
        seconds = (time.monotonic() - self._started) * (self._work - self._done) / self._done
        return f", about {words(seconds)} left"


class Worker:
    """Write shards one by one, with one model in memory at a time.

    Parameters
    ----------
    plan : Plan
        The panel's plan.
    store : Path
        Folder of the shards, opened with :func:`open_store`.
    engine : Engine
        How the store is computed, as :func:`open_store` says.
    device : str, optional
        Where this worker puts its models: "cuda:1" on a machine with several GPUs. By default where the
        panel says.
    """

    def __init__(self, plan: Plan, store: Path, engine: Engine, device: str | None = None) -> None:
        self.plan = plan
        self.store = store
        self.engine = engine
        self.device = device or plan.panel.device
        self._loaded: tuple[int, Any] | None = None

    def write(self, index: int) -> int:
        """Write the shard of one batch of the plan, whole or not at all.

        When it returns, the shard has its final name, and file and folder are synced: it survives a kill of
        the process at any moment, and a power cut as far as the disk keeps its word.

        Returns
        -------
        int
            Runs written.
        """
        # Here and not above, so that a run with nothing left to do loads no model library.
        from dynstat.dataset.io import save

        from ..models.device import arithmetic
        from .provenance import of_batch
        from .shard import read_batch

        plan, batch, path = self.plan, self.plan.batches[index], self.store / self.plan.names[index]
        with arithmetic(plan.panel):
            model, card, variants, known = self._model(batch.model)
            started = time.time()
            ds = read_batch(plan, model, card, batch, variants, self.engine)
            ended = time.time()
            when = {"started": started, "ended": ended, "seconds": ended - started}
            when = {k: round(v, 3) for k, v in when.items()}
            what = known | of_batch(plan.panel, model, batch) | when
            ds.attrs["provenance"] = canonical_json(what).decode()
            ds.attrs["item"] = canonical_json(plan.key(index)).decode()
            save(ds, path)
        return batch.rows

    def _model(self, index: int) -> tuple[Any, ...]:
        from ..lens.variants import variants_of
        from ..models.loading import load
        from .provenance import of_model

        plan = self.plan
        if self._loaded is None or self._loaded[0] != index:
            self._loaded = None  # frees the model before the next is loaded
            model = load(plan.sources[index], plan.encoders[index], self.device)
            variants = variants_of(plan.panel, model)
            # Texts and translators are read when their model is, perhaps long after the plan hashed them.
            if plan.panel.settings() != plan.inputs["settings"]:
                raise DynstatError(
                    "X214",
                    "files of read-outs changed while the run was under way",
                    where=str(plan.panel.file),
                    found="other hashes",
                    expected="the texts and translators that were hashed when it began",
                    mend="put them back, or run it again: with other files it is another panel",
                )
            self._loaded = (
                index,
                (
                    model,
                    model.card(plan.inputs["models"][index]),
                    variants,
                    of_model(plan.panel, model, plan.inputs["models"][index], self.engine),
                ),
            )
        return self._loaded[1]
