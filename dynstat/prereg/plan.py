"""A plan: what is registered, validated with every default written out, and its canonical hash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import canonical_hash, read_text, sha256_bytes
from .analyses import expand_analysis, named_metrics
from .checker import Checker, Place, Pointer
from .families import check_families, expand_family
from .hypotheses import expand_hypothesis
from .robustness import expand_robustness
from .source import NAMES, parse_source, plan_file
from .study import find_study, register_methods

__all__ = ["Plan", "load_plan", "named_metrics", "parse_plan"]

SCHEMA = "prereg/1"
ACCESS_LEVELS = ("none", "metadata", "structure", "outcomes")
UNITS = ("prompt", "template", "model")
EXCLUSION = re.compile(r"(\w+) (<|<=|>|>=|==) (-?\d+(?:\.\d+)?)")
# First words of the keys of results.json, beside which the keys of a hypothesis stand.
RESERVED = frozenset(
    "study plan lock data panel model estimate flow deviation notrun warning definition timeline reproduce "
    "environment overview derived multiverse amended contingency failure family executed".split()
)
RUN_VARIABLES = ("n_prompt", "n_generated", "first_end_of_text")


@dataclass(frozen=True)
class Plan:
    """A valid plan with its defaults expanded.

    Attributes
    ----------
    content : mapping
        What is hashed and locked.
    source_sha256 : str
        Of the bytes of the file it was read from.
    where : str
        That file.
    places : mapping of path to (line, column)
        Where its keys stand in that file.
    """

    content: Mapping[str, Any]
    source_sha256: str
    where: str
    places: Mapping[Pointer, Place] = field(default_factory=dict, compare=False, repr=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of the RFC 8785 canonical JSON of the expanded plan."""
        return canonical_hash(self.content)

    @property
    def id(self) -> str:
        """The study's id."""
        return str(self.content["id"])


def load_plan(study: str | Path) -> Plan:
    """Read, validate and expand the plan of a study.

    Parameters
    ----------
    study : str or path
        A study's name, its folder, or a plan file (YAML, TOML or JSON).

    Raises
    ------
    DynstatError
        F001, Y001; P301 with every problem and its line and column, or where a folder holds two plans.
    """
    path = Path(study)
    if not path.is_file() or path.name.endswith(".lock.json"):
        folder = find_study(study)
        path = plan_file(folder) or folder / NAMES[0]
    elif path.name in NAMES:
        plan_file(path.parent)  # a second plan beside it is an error whichever is named
    register_methods(path.parent)
    text = read_text(path)
    return parse_plan(text, path.name if path.parent.name == "" else f"{path.parent.name}/{path.name}")


def parse_plan(text: str, where: str = "plan.yaml") -> Plan:
    """Validate and expand a plan's text, TOML or JSON where `where` ends so, else YAML."""
    value, places = parse_source(text, where)
    checker = Checker(text, where, places)
    content = _expand(checker, value)
    checker.raise_all()
    return Plan(content, sha256_bytes(text.encode("utf-8")), where, places)


def _expand(c: Checker, value: Any) -> dict[str, Any]:
    required = (
        "dynstat",
        "id",
        "title",
        "authors",
        "registration",
        "data",
        "families",
        "analyses",
        "hypotheses",
    )
    plan = c.mapping(value, (), required, ("gates", "exploratory", "notes", "robustness"))
    if not plan:
        return {}
    c.choice(plan.get("dynstat"), ("dynstat",), (SCHEMA,))
    identity = c.text(plan.get("id"), ("id",))
    if identity and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", identity):
        c.problem(("id",), "use small letters, digits, _ and -")
    analyses = {
        key: expand_analysis(c, spec, ("analyses", key))
        for key, spec in c.mapping(plan.get("analyses"), ("analyses",), free=True).items()
    }
    families = {
        key: expand_family(c, spec, ("families", key))
        for key, spec in c.mapping(plan.get("families"), ("families",), free=True).items()
    }
    hypotheses = {}
    given = c.mapping(plan.get("hypotheses"), ("hypotheses",), free=True)
    for order, (key, spec) in enumerate(given.items(), start=1):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", key):
            c.problem(("hypotheses", key), "an id is letters and digits, a letter first")
        if key in RESERVED:
            c.problem(("hypotheses", key), "results.json uses this word for other keys; choose another id")
        hypotheses[key] = expand_hypothesis(c, spec, ("hypotheses", key), families, analyses) | {
            "order": order
        }
    check_families(c, families, hypotheses)
    gates = {
        key: _gate(c, spec, ("gates", key), list(hypotheses))
        for key, spec in (
            c.mapping(plan["gates"], ("gates",), free=True) if plan.get("gates") else {}
        ).items()
    }
    exploratory = {
        key: expand_analysis(c, spec, ("exploratory", key), ("note",))
        for key, spec in (
            c.mapping(plan["exploratory"], ("exploratory",), free=True) if plan.get("exploratory") else {}
        ).items()
    }
    data = _data(c, plan.get("data"), ("data",))
    for group, entries in (("analyses", analyses), ("exploratory", exploratory)):
        for key, entry in entries.items():
            for flag, policy in data["token_policy"].items():
                found = (entry["outcome"] or {}).get(flag, policy)
                if found != policy:
                    c.problem(
                        (group, key, "outcome", flag), f"{found!r}, where data.token_policy says {policy!r}"
                    )
    for key, entry in analyses.items():
        unit = entry["options"].get("unit", data["units"]["resampling"])
        if unit != data["units"]["resampling"]:
            c.problem(
                ("analyses", key, "options", "unit"),
                f"{unit!r}, where data.units.resampling says {data['units']['resampling']!r}",
            )
    for key in sorted(set(exploratory) & set(analyses)):
        c.problem(("exploratory", key), "the same id stands under analyses")
    out = {
        "dynstat": SCHEMA,
        "id": identity,
        "title": c.text(plan.get("title"), ("title",)),
        "authors": [
            _author(c, a, ("authors", i))
            for i, a in enumerate(c.sequence(plan.get("authors"), ("authors",), 1))
        ],
        "registration": _registration(c, plan.get("registration"), ("registration",)),
        "data": data,
        "families": families,
        "gates": gates,
        "analyses": analyses,
        "hypotheses": hypotheses,
        "exploratory": exploratory,
        "notes": c.text(plan.get("notes", ""), ("notes",), empty=True),
    }
    # Only where it is given: a plan without it keeps the hash that its locks hold.
    if plan.get("robustness") is not None:
        out["robustness"] = expand_robustness(c, plan["robustness"], out)
    c.storable(value)
    return out


def _author(c: Checker, value: Any, at: Pointer) -> dict[str, Any]:
    spec = c.mapping(value, at, ("name",), ("orcid",))
    orcid = spec.get("orcid")
    return {
        "name": c.text(spec.get("name"), (*at, "name")),
        "orcid": None if orcid is None else c.text(orcid, (*at, "orcid")),
    }


def _registration(c: Checker, value: Any, at: Pointer) -> dict[str, Any]:
    spec = c.mapping(value, at, ("purpose", "access", "prior_knowledge"))
    access = c.mapping(spec.get("access"), (*at, "access"), ("level", "note"))
    return {
        "purpose": c.choice(spec.get("purpose"), (*at, "purpose"), ("confirmatory",)),
        "access": {
            "level": c.choice(access.get("level"), (*at, "access", "level"), ACCESS_LEVELS),
            "note": c.text(access.get("note"), (*at, "access", "note")),
        },
        "prior_knowledge": c.text(spec.get("prior_knowledge"), (*at, "prior_knowledge")),
    }


def _data(c: Checker, value: Any, at: Pointer) -> dict[str, Any]:
    spec = c.mapping(
        value, at, ("schema", "prompts", "pilot", "units"), ("exclusions", "missing", "token_policy")
    )
    units = c.mapping(spec.get("units"), (*at, "units"), ("inference", "resampling"))
    missing = c.mapping(spec.get("missing", {}), (*at, "missing"), (), ("policy", "max_fraction"))
    tokens = c.mapping(spec.get("token_policy", {}), (*at, "token_policy"), (), ("special", "first"))
    prompts, pilot = (_prompts(c, spec.get(k), (*at, k)) for k in ("prompts", "pilot"))
    if prompts == pilot and prompts["file"]:
        c.problem((*at, "pilot"), "the pilot must be other prompts than those that decide")
    exclusions = {}
    if spec.get("exclusions"):
        for key, rule in c.mapping(spec["exclusions"], (*at, "exclusions"), free=True).items():
            here = (*at, "exclusions", key)
            fields = c.mapping(rule, here, ("where", "reason"))
            where = c.text(fields.get("where"), (*here, "where"))
            found = EXCLUSION.fullmatch(where)
            if where and (not found or found[1] not in RUN_VARIABLES):
                c.problem(
                    (*here, "where"),
                    "write `VARIABLE < NUMBER` (or <=, >, >=, ==) on one of " + ", ".join(RUN_VARIABLES),
                )
            exclusions[key] = {"where": where, "reason": c.text(fields.get("reason"), (*here, "reason"))}
    return {
        "schema": c.choice(spec.get("schema"), (*at, "schema"), ("dynstat-data-1",)),
        "prompts": prompts,
        "pilot": pilot,
        "units": {k: c.choice(units.get(k), (*at, "units", k), UNITS) for k in ("inference", "resampling")},
        "exclusions": exclusions,
        "missing": {
            "policy": c.choice(
                missing.get("policy", "drop_prompt"), (*at, "missing", "policy"), ("drop_prompt",)
            ),
            "max_fraction": c.number(
                missing.get("max_fraction", 0.05), (*at, "missing", "max_fraction"), 0, 1
            ),
        },
        "token_policy": {
            k: c.choice(tokens.get(k, "drop"), (*at, "token_policy", k), ("drop", "keep"))
            for k in ("special", "first")
        },
    }


def _prompts(c: Checker, value: Any, at: Pointer) -> dict[str, Any]:
    spec = c.mapping(value, at, ("file", "split"))
    return {k: c.text(spec.get(k), (*at, k)) for k in ("file", "split")}


def _gate(c: Checker, value: Any, at: Pointer, hypotheses: list[str]) -> dict[str, Any]:
    spec = c.mapping(value, at, ("check", "n"), ("unit", "hypotheses", "fails"))
    check = c.choice(spec.get("check"), (*at, "check"), ("min_units", "min_samples"))
    unit = spec.get("unit", "prompt" if check == "min_units" else "cell")
    if check == "min_samples" and unit != "cell":
        c.problem((*at, "unit"), "min_samples counts samples a cell; leave the unit out")
    elif check == "min_units":
        c.choice(unit, (*at, "unit"), ("prompt", "model", "template", "category"))
    of = c.texts(spec.get("hypotheses", hypotheses), (*at, "hypotheses"), 1)
    for i, h in enumerate(of):
        if h not in hypotheses:
            c.problem((*at, "hypotheses", i), f"no hypothesis {h!r}")
    return {
        "check": check,
        "unit": unit,
        "n": c.integer(spec.get("n"), (*at, "n"), 1),
        "hypotheses": of,
        "fails": c.choice(
            spec.get("fails", "inadmissible"), (*at, "fails"), ("inadmissible", "not_testable")
        ),
    }
