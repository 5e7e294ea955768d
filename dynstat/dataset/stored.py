"""Check files and stores as they lie on disk: each shard by itself, by its name, and by the plan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import DynstatError
from ..files import canonical_hash, read_text
from ..leftovers import leftovers
from .content import content_hash
from .io import CONTENT
from .io import open as open_dataset
from .verify import Problem, verify

BINDING = "panel.json"
Progress = Callable[[int, int, str], None]


def verify_path(path: str | os.PathLike[str], progress: Progress | None = None) -> list[Problem]:
    """Check a file, a folder of shards, or a store with its plan.

    Parameters
    ----------
    path : path
        A NetCDF file; a folder of them; or a store, which has a ``panel.json``.
    progress : callable, optional
        Called with shards done, shards in all, and the shard at work.

    Returns
    -------
    list of Problem
        Those of :func:`verify`; ``content`` where a file does not hold what was written into it. In a store
        the shards are re-opened one by one, and there may also be: ``unreadable`` (a shard that cannot be
        opened), ``key`` (a shard whose content has another key than its name, or that is not what its key
        says), ``panel`` (of another panel), ``engine`` (computed otherwise than the store says), ``missing``
        and ``unplanned`` (shards of the plan that are not there, and the reverse), ``left over`` (temporary
        files of processes that are gone).

    Raises
    ------
    DynstatError
        As :func:`open` for a file or a folder that is no store; F003 where ``panel.json`` is damaged.
    """
    path = Path(path)
    if not (path / BINDING).is_file():
        ds = open_dataset(path)
        return [*_content(ds), *verify(ds)]
    plan = _plan(path / BINDING)
    shards = sorted(p.name for p in path.glob("[!.]*.nc"))
    problems = []
    for i, name in enumerate(shards):
        if progress:
            progress(i, len(shards), name)
        problems += [
            Problem(p.code, f"{name}: {p.where}", p.found, p.expected) for p in _shard(path / name, plan)
        ]
    if progress:
        progress(len(shards), len(shards), "done")
    if (hashed := canonical_hash(plan["inputs"])) != plan.get("inputs_sha256"):
        problems.append(
            Problem("panel", f"{BINDING}: inputs_sha256", str(plan.get("inputs_sha256"))[:16], hashed[:16])
        )
    planned = set(plan["shards"])
    if missing := sorted(planned - set(shards)):
        problems.append(
            Problem("missing", _some(missing), f"{len(missing)} shards not there", f"all {len(planned)}")
        )
    if strange := sorted(set(shards) - planned):
        problems.append(Problem("unplanned", _some(strange), f"{len(strange)} shards", "those of the plan"))
    problems += [
        Problem("left over", p.name, "a file whose writer is gone", "nothing; the next run removes it")
        for p in leftovers(path)
    ]
    return problems


def _plan(file: Path) -> dict[str, Any]:
    try:
        plan = dict(json.loads(read_text(file)))
        plan.setdefault("shards", [])
        if not all(isinstance(plan[k], t) for k, t in (("inputs", dict), ("engine", dict), ("shards", list))):
            raise KeyError
        return plan
    except (ValueError, KeyError, TypeError) as e:
        raise DynstatError(
            "F003",
            f"{file.name} cannot be read",
            where=str(file),
            expected="what `dynstat extract` of this version writes",
            mend="restore it, or verify the shards one by one",
        ) from e


def _shard(file: Path, plan: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        ds = open_dataset(file)
    except DynstatError as e:
        yield Problem("unreadable", "file", f"{e.code} {e.what}", "a whole NetCDF-4 file of dynstat")
        return
    yield from _content(ds)
    yield from verify(ds)
    yield from _key(ds, file, plan)


def _content(ds: xr.Dataset) -> Iterator[Problem]:
    stored = ds.encoding.get(CONTENT)
    if stored is not None and (found := content_hash(ds)) != stored:
        yield Problem(
            "content", "values, coordinates or definitions", found[:16], f"{stored[:16]}, as written"
        )


def _key(ds: xr.Dataset, file: Path, plan: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        key = dict(json.loads(ds.attrs["item"]))
        name = f"{canonical_hash(key)[: len(file.stem)]}.nc"
        model, prompts, samples, ids = key["model"], key["prompts"], key["samples"], key["ids"]
        said = {
            "model": [model["id"]],
            "prompt": [p["id"] for p in prompts],
            "sample": [s["id"] for s in samples],
        }
        engine = json.loads(ds.attrs["provenance"])["engine"]
    except (KeyError, TypeError, ValueError) as e:
        yield Problem("key", "attributes item and provenance", f"no {e}", "what `dynstat extract` writes")
        return
    if name != file.name:
        yield Problem("key", "attribute item", name, f"{file.name}, the shard's name")
    for dim, labels in said.items():
        if (held := ds[dim].values.tolist()) != labels:
            yield Problem("key", dim, _some(held), f"{_some(labels)}, as the key says")
            return
    for coordinate in ("weights_sha256", "tokenizer_sha256", "dtype"):
        if (found := str(ds[coordinate].values[0])) != model.get(coordinate):
            yield Problem(
                "key", coordinate, found[:16], f"{str(model.get(coordinate))[:16]}, as the key says"
            )
    for prompt, tokens in enumerate(ids):
        read = ds["token_id"].values[0, prompt, :, : len(tokens)]
        if read.shape[-1] < len(tokens) or (read != np.array(tokens)).any():
            yield Problem("key", f"token_id of prompt {said['prompt'][prompt]}", "others", "those of the key")
    yield from _of_panel(key, engine, plan)


def _of_panel(key: Mapping[str, Any], engine: object, plan: Mapping[str, Any]) -> Iterator[Problem]:
    model = {k: v for k, v in key["model"].items() if k not in ("family", "factors")}
    if model not in plan["inputs"].get("models", []):
        yield Problem("panel", "model", str(model.get("id")), f"a model of {BINDING}, with its hashes")
    wanted = plan["inputs"].get("settings", {})
    for setting, value in key.get("settings", {}).items():
        if wanted.get(setting) != value:
            yield Problem(
                "panel",
                f"setting {setting}",
                str(value)[:60],
                f"{str(wanted.get(setting))[:60]} of {BINDING}",
            )
    if engine != plan["engine"]:
        yield Problem("engine", "attribute provenance", str(engine), f"{plan['engine']} of {BINDING}")


def _some(names: list[Any]) -> str:
    return ", ".join(map(str, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
