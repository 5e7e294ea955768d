"""Run a panel: generate, read once more by teacher forcing, write a shard a batch, go on where it stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import canonical_json, write_json

from .access import LEDGER, SPLIT, admit
from .panel import Panel, load_panel
from .plan import Plan

Progress = Callable[[int, int, str], None]
_STORE = "panel.json"


def extract_panel(
    panel: Panel | str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    locks: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
    plan: Plan | None = None,
) -> Path:
    """Extract a panel into a folder of shards.

    Parameters
    ----------
    panel : Panel or path
        What to extract.
    store : path
        Folder; made if need be. A run that was stopped goes on there.
    locks : sequence of path, optional
        Locked plans, needed for prompts of split ``confirmation``.
    progress : callable, optional
        Called with runs done, runs in all, and the model at work.
    plan : Plan, optional
        The panel's plan, where it was made before.

    Returns
    -------
    Path
        The store; ``dynstat.open`` reads it.

    Raises
    ------
    DynstatError
        X211 (no lock), X212 (store of another panel), F002 (cannot write), and those of :class:`Plan`,
        `load` and `generate`. Shards written before stay whole.
    """
    panel = panel if isinstance(panel, Panel) else load_panel(panel)
    store = Path(store)
    plan = plan or Plan(panel)
    missing = plan.missing(store)
    _guard(plan, store, locks, work=bool(missing))
    if not (store / _STORE).exists():
        write_json(
            store / _STORE,
            {"dynstat": "store/1", "panel": panel.id, "inputs_sha256": plan.hash, "inputs": plan.inputs},
        )
    total = sum(b.rows for b in plan.batches)
    done = total - sum(plan.batches[i].rows for i in missing)
    worker = Worker(plan, store)
    for i in missing:
        if progress:
            progress(done, total, panel.models[plan.batches[i].model].id)
        done += worker.write(i)
    if progress:
        progress(total, total, "done")
    return store


class Worker:
    """Write shards one by one, with one model in memory at a time.

    Parameters
    ----------
    plan : Plan
        The panel's plan.
    store : Path
        Folder of the shards; it is bound to the panel already.
    """

    def __init__(self, plan: Plan, store: Path) -> None:
        self.plan = plan
        self.store = store
        self._loaded: tuple[int, Any] | None = None

    def write(self, index: int) -> int:
        """Write the shard of one batch of the plan, whole or not at all.

        Returns
        -------
        int
            Runs written.
        """
        # Here and not above, so that a run with nothing left to do loads no model library.
        from dynstat.dataset.io import save

        from .device import arithmetic
        from .engine import choose
        from .models import load
        from .shard import provenance, read_batch
        from .variants import variants_of

        plan, batch, path = self.plan, self.plan.batches[index], self.store / self.plan.names[index]
        with arithmetic(plan.panel):
            if self._loaded is None or self._loaded[0] != batch.model:
                self._loaded = None  # frees the model before the next is loaded
                model = load(plan.sources[batch.model], plan.encoders[batch.model], plan.panel.device)
                self._loaded = (
                    batch.model,
                    (
                        model,
                        model.card(plan.inputs["models"][batch.model]),
                        variants_of(plan.panel, model),
                        choose(plan.panel.threads, plan.panel.device),
                        provenance(plan.panel, model),
                    ),
                )
            model, card, variants, engine, known = self._loaded[1]
            started = time.time()
            ds = read_batch(plan, model, card, batch, variants, engine)
            when = {"started": round(started, 3), "seconds": round(time.time() - started, 3)}
            ds.attrs["provenance"] = canonical_json(known | when).decode()
            save(ds, path)
        for left in path.parent.glob(f".{path.stem}.*"):  # by a run that was killed while it wrote
            left.unlink(missing_ok=True)
        return batch.rows


def _guard(plan: Plan, store: Path, locks: Sequence[str | os.PathLike[str]], *, work: bool) -> None:
    """Check everything that forbids the run before anything is written."""
    bound = store / _STORE
    if bound.exists():
        try:
            there = str(json.loads(bound.read_text("utf-8"))["inputs_sha256"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise DynstatError("F003", f"{_STORE} cannot be read", where=str(bound)) from e
        if there != plan.hash:
            raise DynstatError(
                "X212",
                "the store belongs to another panel",
                where=str(store),
                found=there[:16],
                expected=plan.hash[:16],
                mend="choose another folder: models, prompts and settings make a panel",
            )
        if strange := _unplanned(plan, store):
            raise DynstatError(
                "X212",
                "the store holds shards that are not of this panel as it is described now",
                where=str(store),
                found=", ".join(strange[:3]) + (", …" if len(strange) > 3 else ""),
                expected="shards of these factors and families, by this version of dynstat",
                mend="choose another folder; joined, the two would contradict each other",
            )
    elif _is_foreign(store):
        raise DynstatError(
            "X212",
            f"the folder is not empty and holds no {_STORE}",
            where=str(store),
            mend="choose a new folder",
        )
    if work and plan.panel.device != "cpu":
        from .device import check_device

        check_device(plan.panel)
    if work and any(p["split"] == SPLIT for p in plan.prompts):
        admit(plan.panel, plan.inputs, store, locks)


def _is_foreign(store: Path) -> bool:
    """Say whether something is there that no extraction made."""
    if not store.is_dir():
        return store.exists()
    return any(not f.name.startswith(".") and f.name != LEDGER for f in store.iterdir())


def _unplanned(plan: Plan, store: Path) -> list[str]:
    """Name the shards that this plan would not write."""
    return sorted({f.name for f in store.glob("[!.]*.nc")} - set(plan.names))
