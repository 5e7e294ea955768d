"""What `prereg check` tells beyond the validity of a plan: prompts, family arithmetic, what is left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import sha256_file
from ..inference.multiplicity import level_of_each_test
from .plan import Plan, load_plan
from .study import find_study


def check_study(study: str | Path) -> dict[str, Any]:
    """Validate a study's plan and its prompt lists.

    Returns
    -------
    dict
        ``id``, ``sha256``, ``hypotheses``, ``m``, ``alpha``, ``level`` (of each test), ``prompts`` and
        ``pilot`` (file, split, n, sha256).

    Raises
    ------
    DynstatError
        P301 with all problems of the plan, or where pilot and registered prompts overlap; F001.
    """
    plan = load_plan(study)
    folder = Path(study).parent if Path(study).is_file() else find_study(study)
    family = next(iter(plan.content["families"].values()))
    m = len(plan.content["hypotheses"])
    return {
        "id": plan.id,
        "sha256": plan.sha256,
        "hypotheses": list(plan.content["hypotheses"]),
        "m": m,
        "alpha": family["alpha"],
        "level": level_of_each_test(family["alpha"], m, family["correction"]),
        **_prompts(plan, folder),
    }


def _prompts(plan: Plan, folder: Path) -> dict[str, Any]:
    from ..dataset.prompts import read_prompts

    found, out = {}, {}
    for role in ("prompts", "pilot"):
        spec = plan.content["data"][role]
        file = prompt_file(spec["file"], folder)
        found[role] = read_prompts(file, split=spec["split"])
        out[role] = {**spec, "n": len(found[role]), "sha256": sha256_file(file)}
    problems = []
    for key in ("id", "text"):
        both = {p[key] for p in found["prompts"]} & {p[key] for p in found["pilot"]}
        problems += [f"{key} {value!r} stands in both" for value in sorted(both)]
    if problems:
        raise DynstatError(
            "P301",
            "pilot and registered prompts overlap",
            where=plan.where,
            problems=problems,
            mend="what a plan was tried on cannot decide it",
        )
    return out


def prompt_file(text: str, folder: Path) -> Path:
    """Return the path of a prompt file: ``data:NAME`` comes with dynstat, others lie beside the plan."""
    from .. import data_path

    return data_path(text.removeprefix("data:")) if text.startswith("data:") else folder / text
