"""A store: the folder of a panel's shards, bound to panel and engine before the first is written."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import read_text, write_first
from dynstat.leftovers import remove_leftovers

from ..lens.engine import Engine, choose
from ..panels.access import LEDGER_FILES, SPLIT, admit
from .plan import Plan

BINDING = "panel.json"
SCHEMA = "store/2"


@dataclass(frozen=True)
class Binding:
    """What ``panel.json`` of a store says.

    Attributes
    ----------
    panel : str
        Name of the panel.
    inputs_sha256 : str
        Hash of what determines the values.
    inputs : mapping
        The same in words, as :meth:`Panel.inputs` gives it.
    engine : mapping
        How it is computed, as :meth:`Engine.as_dict` gives it.
    shards : tuple of str
        Names of all shards of the plan, in its order.
    """

    panel: str
    inputs_sha256: str
    inputs: dict[str, Any]
    engine: dict[str, Any]
    shards: tuple[str, ...]


def open_store(
    plan: Plan, store: Path, locks: Sequence[str | os.PathLike[str]] = (), *, elsewhere: bool = False
) -> Engine:
    """Check everything that forbids a run, and bind the store to the plan and to an engine.

    Of many processes that make a store at once one chooses the engine, and all compute with it. Temporary
    files of dead processes are removed.

    Parameters
    ----------
    plan : Plan
        The panel's plan.
    store : Path
        Folder of the shards; made if need be.
    locks : sequence of path, optional
        Locked plans, needed for prompts of split ``confirmation``.
    elsewhere : bool, optional
        Other processes compute: they check whether they have the device and the engine.

    Returns
    -------
    Engine
        How every shard of the store is computed.

    Raises
    ------
    DynstatError
        X212 (store of another panel), X215 (no such device), X217 (engine not to be had here), X211 (no
        lock), F003 (a damaged ``panel.json``), F002 (cannot write).
    """
    bound = _fitting(plan, store)
    work = bound is None or bool(plan.missing(store))
    if work and not elsewhere and plan.panel.device != "cpu":
        from ..models.device import check_device

        check_device(plan.panel)
    if work and not elsewhere and bound is not None:
        _engine(bound, store).check(store / BINDING, plan.panel.device)
    if work and any(p["split"] == SPLIT for p in plan.prompts):
        admit(plan.panel, plan.inputs, store, locks)
    if bound is None:
        bound = _bind(plan, store)
    if work:
        remove_leftovers(store)
    return _engine(bound, store)


def read_binding(store: Path) -> Binding:
    """Read ``panel.json`` of a store.

    Raises
    ------
    DynstatError
        F001 (none there), F003 (not readable), X212 (of an earlier version of dynstat).
    """
    file = store / BINDING
    try:
        raw = json.loads(read_text(file))
        if raw["dynstat"] != SCHEMA:
            raise DynstatError(
                "X212",
                "the store was made by another version of dynstat",
                where=str(file),
                found=raw["dynstat"],
                expected=SCHEMA,
                mend="choose another folder; shards of this one can be opened and combined as before",
            )
        return Binding(
            str(raw["panel"]),
            str(raw["inputs_sha256"]),
            dict(raw["inputs"]),
            dict(raw["engine"]),
            tuple(map(str, raw["shards"])),
        )
    except (ValueError, KeyError, TypeError) as e:
        raise DynstatError(
            "F003", f"{BINDING} cannot be read", where=str(file), mend="restore it, or choose another folder"
        ) from e


def open_engine(store: Path) -> Engine:
    """Return how a store is computed.

    Raises
    ------
    DynstatError
        As :func:`read_binding`; X217 where this version of dynstat does not know the engine.
    """
    return _engine(read_binding(store), store)


def _fitting(plan: Plan, store: Path) -> Binding | None:
    """Return the store's binding where it fits the plan, None where the store is still to be made."""
    if not (store / BINDING).exists():
        if _is_foreign(store):
            raise DynstatError(
                "X212",
                f"the folder is not empty and holds no {BINDING}",
                where=str(store),
                mend="choose a new folder",
            )
        return None
    bound = read_binding(store)
    if bound.inputs_sha256 != plan.hash:
        raise DynstatError(
            "X212",
            "the store belongs to another panel",
            where=str(store),
            found=bound.inputs_sha256[:16],
            expected=plan.hash[:16],
            mend="choose another folder: models, prompts and settings make a panel",
        )
    if strange := sorted(set(bound.shards) - set(plan.names)) or _unplanned(plan, store):
        raise DynstatError(
            "X212",
            "the store holds shards that are not of this panel as it is described now",
            where=str(store),
            found=", ".join(strange[:3]) + (", …" if len(strange) > 3 else ""),
            expected="shards of these factors and families, by this version of dynstat",
            mend="choose another folder; joined, the two would contradict each other",
        )
    return bound


def _bind(plan: Plan, store: Path) -> Binding:
    engine = choose(plan.panel.threads, plan.panel.device)
    value = {
        "dynstat": SCHEMA,
        "panel": plan.panel.id,
        "inputs_sha256": plan.hash,
        "inputs": plan.inputs,
        "engine": engine.as_dict(),
        "shards": plan.names,
    }
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
    if write_first(store / BINDING, text + "\n"):
        return read_binding(store)
    bound = _fitting(plan, store)  # another process was first, perhaps with another panel
    assert bound is not None
    _engine(bound, store).check(store / BINDING, plan.panel.device)
    return bound


def _engine(bound: Binding, store: Path) -> Engine:
    try:
        return Engine.from_dict(bound.engine)
    except (TypeError, ValueError, KeyError) as e:
        raise DynstatError(
            "X217",
            "the store was computed in a way that this version of dynstat does not know",
            where=f"{store / BINDING}: engine",
            found=", ".join(f"{k}: {v}" for k, v in bound.engine.items()),
            expected=", ".join(Engine().as_dict()),
            mend="go on with the version that made it, or choose another folder",
        ) from e


def _is_foreign(store: Path) -> bool:
    """Say whether something is there that no extraction made."""
    if not store.is_dir():
        return store.exists()
    others = any(
        not f.name.startswith(".") and f.name not in (*LEDGER_FILES, BINDING) for f in store.iterdir()
    )
    # Another process may have made the store and a shard just now.
    return others and not (store / BINDING).exists()


def _unplanned(plan: Plan, store: Path) -> list[str]:
    """Name the shards that this plan would not write."""
    return sorted({f.name for f in store.glob("[!.]*.nc")} - set(plan.names))
