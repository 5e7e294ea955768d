"""What `prereg check` tells beyond the validity of a plan: arithmetic only, no data and no arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DynstatError
from ..files import sha256_file
from ..inference.decision import DECISIONS
from ..inference.multiplicity import strictest_level
from ..registry import METHODS
from .checker import Checker
from .plan import Plan, load_plan
from .resolution import Resolution, resolution
from .study import find_study
from .witness import MUTATIONS, Reach, reach


def check_study(study: str | Path) -> dict[str, Any]:
    """Validate a study's plan, its prompt lists, and what its rules can come to.

    Every outcome of every claim is shown to occur by a made-up result (a *witness*), and each witness to
    decide otherwise when one thing of it is changed (a *mutation*); the standard errors that claims need are
    held against those that the plan expects.

    Returns
    -------
    dict
        ``id``, ``sha256``, ``hypotheses``, ``m``, ``alpha``, ``level`` (the strictest), ``families`` (alpha,
        correction, m, level, hypotheses), ``claims`` (witnesses, cannot, flips), ``resolution`` (a
        row a part), ``warnings``, ``prompts`` and ``pilot`` (file, split, n, sha256).

    Raises
    ------
    DynstatError
        P301 with all problems of the plan, where a claim can never be supported or never be rejected, or
        where pilot and registered prompts overlap; F001.
    """
    plan = load_plan(study)
    folder = Path(study).parent if Path(study).is_file() else find_study(study)
    families = family_levels(plan.content)
    claims = _claims(plan, families)
    rows = [
        row
        for name, claim in plan.content["hypotheses"].items()
        for row in resolution(plan.content, name, families[claim["family"]]["level"])
    ]
    return {
        "id": plan.id,
        "sha256": plan.sha256,
        "hypotheses": list(plan.content["hypotheses"]),
        "m": len(plan.content["hypotheses"]),
        "alpha": next(iter(families.values()))["alpha"],
        "level": min(f["level"] for f in families.values()),
        "families": families,
        "claims": {name: _as_dict(found) for name, found in claims.items()},
        "resolution": [row.as_dict() for row in rows],
        "warnings": [*_family_warnings(plan.content), *_short(rows)],
        **_prompts(plan, folder),
    }


def family_levels(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return alpha, correction, m, level and members of every family of an expanded plan.

    The level is the strictest that a test of the family may be held to; families that are tested one after
    the other (``after``) share their m.
    """
    members = {
        name: [h for h, claim in plan["hypotheses"].items() if claim["family"] == name]
        for name in plan["families"]
    }
    out = {}
    for name, family in plan["families"].items():
        out[name] = {
            "alpha": family["alpha"],
            "correction": family["correction"],
            "m": len(members[name]),
            "level": strictest_level(plan["families"], plan["hypotheses"], name),
            "hypotheses": members[name],
        } | {k: family[k] for k in ("order", "after", "reason") if k in family}
    return out


def _first(plan: Mapping[str, Any], family: str) -> str:
    while after := plan["families"][family].get("after"):
        family = after
    return family


def _family_warnings(plan: Mapping[str, Any]) -> list[str]:
    firsts = dict.fromkeys(_first(plan, f) for f in plan["families"])
    out = []
    if len(firsts) > 1:
        total = sum(plan["families"][f]["alpha"] for f in firsts)
        out.append(
            f"{len(firsts)} families are tested beside each other ({', '.join(firsts)}): each holds its own "
            f"error, the study as a whole may err with up to {total:.4g}"
        )
    for name, family in plan["families"].items():
        if family["correction"] in ("bh", "none"):
            out.append(
                f"family {name}: correction {family['correction']} does not hold the family-wise error"
            )
    return out


def _claims(plan: Plan, families: Mapping[str, Any]) -> dict[str, Reach]:
    """Return what every claim can come to; a claim that no result can support, reject or flip is an error."""
    checker = Checker("", plan.where, plan.places)
    out = {}
    for name, claim in plan.content["hypotheses"].items():
        found = out[name] = reach(claim, families[claim["family"]]["level"])
        for outcome in found.missing:
            if not (outcome == "supported" and claim["by_construction"]):
                checker.problem(
                    ("hypotheses", name), f"no result can make it {outcome}: its rules leave no room for that"
                )
        for part in claim["parts"]:
            if part["beyond_null"] and (short := _too_few_draws(plan.content, claim, part, families)):
                checker.problem(("hypotheses", name), short)
        for outcome, flips in found.flips.items():
            if not {"value", "se"} & set(flips):
                checker.problem(
                    ("hypotheses", name), f"{outcome} whatever the result: no other value or SE changes that"
                )
    checker.raise_all()
    return out


def _too_few_draws(
    plan: Mapping[str, Any], claim: Mapping[str, Any], part: Mapping[str, Any], families: Mapping[str, Any]
) -> str:
    """Return why a null of so few draws can never be beaten at the level of the test; "" where it can."""
    analysis = plan["analyses"][part["estimand"]["analysis"]]
    option = METHODS.get(analysis["method"]).null_draws
    draws = analysis["options"].get(option, 0) if option else 0
    level = families[claim["family"]]["level"] / (len(claim["parts"]) if claim["join"] == "any" else 1)
    # 0 draws leave the number to the method, or leave the null out, which the method tells.
    if not draws or 1 / (draws + 1) <= level * (1 + 1e-12):
        return ""
    what = "no result can make it supported" if claim["join"] == "all" else "one part can never support it"
    smallest = 1 / (draws + 1)
    return (
        f"{what}: with {option} {draws} the p of the null is at least {smallest:.3g}, and the level is "
        f"{level:.3g}; {math.ceil(1 / level - 1e-9) - 1} draws are needed"
    )


def _as_dict(found: Reach) -> dict[str, Any]:
    return {
        "witnesses": {
            outcome: {
                key: {"value": made.value, "se": made.se} | ({"null": dict(made.null)} if made.null else {})
                for key, made in results.items()
            }
            for outcome, results in found.witnesses.items()
        },
        "cannot": list(found.missing),
        "flips": {outcome: list(names) for outcome, names in found.flips.items()},
    }


def _short(rows: list[Resolution]) -> list[str]:
    return [
        f"{r.hypothesis}: the expected SE of {r.quantity} ({r.se_expected:.3g}) is larger than what {r.rule} "
        f"needs for a power of {r.power:g} ({r.se_needed:.3g}): likely inconclusive"
        for r in rows
        if r.short
    ] + [
        f"{r.hypothesis}: the expected value of {r.quantity} lies on the side that {r.rule} rejects"
        for r in rows
        if r.distance is not None and r.distance <= 0
    ]


def in_words(found: Mapping[str, Any]) -> str:
    """Return what :func:`check_study` found as lines of text."""
    lines = [f"{found['id']}: the plan is valid (sha256 {found['sha256'][:12]})"]
    for name, f in found["families"].items():
        by = "" if f["correction"] == "bonferroni" else f", {f['correction']}"
        at = "each of the" if f["correction"] in ("bonferroni", "none") else "the strictest of the"
        lines.append(
            f"  {_hypotheses(f['m'])} ({', '.join(f['hypotheses'])}), family {name}{by}, alpha "
            f"{f['alpha']:g}: {at} {2 * f['m']} tests at {f['level']:.4g}"
        )
    for name, claim in found["claims"].items():
        can = [o for o in DECISIONS if o in claim["witnesses"]]
        never = f"; never {', '.join(claim['cannot'])} (by construction)" if claim["cannot"] else ""
        flips = [m for m in MUTATIONS if any(m in names for names in claim["flips"].values())]
        words = {"value": "estimate", "se": "SE", "sesoi": "SESOI or range", "direction": "direction"}
        lines.append(
            f"  {name}: can be {', '.join(can)}{never}; another {', '.join(words[m] for m in flips)} decides "
            "otherwise"
        )
    for row in found["resolution"]:
        lines += [f"  {line}" for line in _resolution_words(row)]
    lines.append(
        f"  {found['prompts']['n']} prompts (split {found['prompts']['split']}), "
        f"{found['pilot']['n']} pilot prompts, disjoint"
    )
    return "\n".join([*lines, *(f"  warning: {text}" for text in found["warnings"])])


def _hypotheses(m: int) -> str:
    return "1 hypothesis" if m == 1 else f"{m} hypotheses"


def _resolution_words(row: Mapping[str, Any]) -> list[str]:
    head = f"{row['hypothesis']} {row['quantity']}:"
    if row["se_needed"] is None:
        return [f"{head} {row['basis']}, so no SE can be asked for"]
    out = (
        f"{head} {row['basis']} ({row['distance']:.3g}) needs an SE of at most {row['se_needed']:.3g} for a "
        f"power of {row['power']:g}"
    )
    if row["se_expected"] is None:
        return [f"{out}; none is expected yet (`dynstat prereg diagnose`)"]
    p = row["probabilities"]
    return [
        f"{out}; expected {row['se_expected']:.3g}: if it is {row['assumed']:.3g}, supported "
        f"{p['supported']:.2f}, rejected {p['rejected']:.2f}, inconclusive {p['inconclusive']:.2f}"
    ]


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
