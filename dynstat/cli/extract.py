"""`dynstat extract`: run a panel of models over prompts and store what they did."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DynstatError
from .output import emit, progress_bar, say

if TYPE_CHECKING:
    from dynstat.extraction.panels.panel import Panel
    from dynstat.extraction.stores.plan import Plan
    from dynstat.extraction.stores.ranks import Rank

_DEVICE = re.compile(r"(cpu|cuda)(?::(\d{1,3}))?")


@dataclass(frozen=True)
class Where:
    """What a panel is computed on.

    Attributes
    ----------
    rank, world : int or None
        Number of this process among all, and how many there are; None: as the launcher says.
    scheduler : str
        Dask scheduler that hands the items out, "" for none.
    device : str
        "cpu", "cuda" or "cuda:N"; "" for the panel's.
    offline : bool
        Never ask a model hub.
    """

    rank: int | None = None
    world: int | None = None
    scheduler: str = ""
    device: str = ""
    offline: bool = False


#: One process that does it all, whatever started it.
HERE = Where(0, 1)


def extract(
    panel: Annotated[Path, typer.Argument(help="Panel file (panel.yaml).")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for shards; a stopped run goes on there.")],
    lock: Annotated[
        list[Path] | None, typer.Option("--lock", help="Locked plan; needed for confirmation prompts.")
    ] = None,
    model_path: Annotated[
        list[str] | None,
        typer.Option("--model-path", metavar="ID=PATH", help="Folder or GGUF file of a model of the panel."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option("--rank", help="Number of this process, from 0; torchrun, Slurm and others set it."),
    ] = None,
    world: Annotated[
        int | None, typer.Option("--world", help="How many processes share the panel, each with its part.")
    ] = None,
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler", metavar="ADDRESS|local[:N]", help="Dask scheduler whose workers do the work."
        ),
    ] = "",
    device: Annotated[
        str,
        typer.Option("--device", metavar="cpu|cuda[:N]", help="Device, where not the panel's; which GPU."),
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="Take models from folders and the cache; ask no hub.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the estimate, and stop.")
    ] = False,
) -> None:
    """Run the models of a panel over its prompts and write metrics as labelled shards."""
    where = Where(rank, world, scheduler, device, offline)
    done = extract_to(panel, out, lock or (), _places(model_path or []), dry_run, where)
    emit(done, _summary(done, dry_run))


def extract_to(
    panel: Path,
    out: Path,
    locks: Sequence[Path] = (),
    places: Mapping[str, str] | None = None,
    dry_run: bool = False,
    where: Where = HERE,
) -> dict[str, Any]:
    """Extract a panel into a folder, printing the estimate before and progress meanwhile.

    Returns
    -------
    dict
        ``panel``, ``inputs_sha256``, ``store``, ``runs``, ``shards`` in all, those ``written`` now and those
        ``missing`` afterwards; ``rank`` and ``world`` of this process; the ``estimate`` made before.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise DynstatError(
                "X209", f"extraction needs {package}", mend="pip install 'dynstat[extraction]'"
            )
    from dynstat.extraction.models.sources import offline
    from dynstat.extraction.panels.panel import load_panel
    from dynstat.extraction.stores.plan import Plan

    rank = _rank(where)
    with ExitStack() as stack:
        if where.offline:
            stack.enter_context(offline())
        chosen, device = _device(load_panel(panel).with_paths(places or {}), where.device)
        plan = Plan(chosen)
        estimate = plan.estimate(out)
        say(f"{plan.panel.id}: {estimate}")
        mine = _part(plan, out, rank)
        if not dry_run:
            progress = stack.enter_context(progress_bar("extract"))
            if where.scheduler:
                from dynstat.extraction.stores.scheduler import extract_on

                extract_on(where.scheduler, plan, out, locks=locks, progress=progress, offline=where.offline)
            else:
                from dynstat.extraction.stores.run import extract_panel

                extract_panel(
                    plan.panel, out, locks=locks, progress=progress, plan=plan, rank=rank, device=device
                )
    return {
        "panel": plan.panel.id,
        "inputs_sha256": plan.hash,
        "store": str(out),
        "runs": sum(b.rows for b in plan.batches),
        "shards": len(plan.batches),
        "written": 0 if dry_run else mine,
        "missing": len(plan.missing(out)),
        "rank": rank.rank,
        "world": rank.world,
        "estimate": asdict(estimate),
    }


def _summary(done: dict[str, Any], dry_run: bool) -> str:
    if dry_run:
        return f"nothing written; {done['shards']} shards make the panel"
    text = f"wrote {done['written']} of {done['shards']} shards to {done['store']}"
    return text + (f"; {done['missing']} are other ranks' and still missing" if done["missing"] else "")


def _rank(where: Where) -> Rank:
    from dynstat.extraction.stores.ranks import ALONE, rank_of

    if not where.scheduler:
        return rank_of(os.environ, where.rank, where.world)
    if (where.rank, where.world) not in ((None, None), (0, 1)):
        raise DynstatError(
            "Y003",
            "--scheduler and --rank exclude each other",
            where="--rank, --world",
            found=f"rank {where.rank}, world {where.world}",
            mend="a scheduler shares the work out by itself: give one of the two",
        )
    return ALONE


def _part(plan: Plan, out: Path, rank: Rank) -> int:
    """Return how many shards this process has to write, and say so where it is not alone."""
    missing = plan.missing(out)
    if rank.world == 1:
        return len(missing)
    part = rank.part(plan.costs())
    mine = len(set(missing) & set(part))
    say(
        f"rank {rank.rank} of {rank.world} (by {rank.origin}): {len(part)} of {len(plan.batches)} shards, "
        f"{mine} to write"
    )
    return mine


def _device(panel: Panel, device: str) -> tuple[Panel, str | None]:
    """Return the panel on the device that was asked for, and which one of its kind, where that was said."""
    if not device:
        return panel, None
    found = _DEVICE.fullmatch(device)
    if not found or (found[1] == "cpu" and found[2]):
        raise DynstatError(
            "Y003", "no such device", where="--device", found=device, expected="cpu | cuda | cuda:N"
        )
    if found[1] != panel.device:
        say(f"device {found[1]} instead of {panel.device}: another panel to stores and locks")
        panel = replace(panel, device=found[1])
    if found[2] is None:
        return panel, None
    from dynstat.extraction.stores.ranks import gpus

    if int(found[2]) >= (there := gpus("cuda")):
        raise DynstatError(
            "X215",
            "there is no such GPU",
            where="--device",
            found=f"{there} GPUs",
            expected=f"one with number {found[2]}",
            mend="GPUs are numbered from 0",
        )
    return panel, device


def _places(given: list[str]) -> dict[str, str]:
    out = {}
    for item in given:
        name, equals, place = item.partition("=")
        if not (name and equals and place):
            raise DynstatError("Y003", "--model-path needs ID=PATH", where="--model-path", found=item)
        out[name] = place
    return out
