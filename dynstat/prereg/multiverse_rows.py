"""A multiverse as rows of results.json, and back from these to what its figure draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..inference.wording import is_bounded, level, number
from .rows import Rows

if TYPE_CHECKING:
    from .multiverse import Multiverse


def rows(multiverse: Multiverse, *, exploratory: bool = False) -> list[dict[str, Any]]:
    """Return the rows of one multiverse: ``multiverse.H.*``; docs/multiverse.md lists the keys.

    Parameters
    ----------
    multiverse : Multiverse
    exploratory : bool
        Whether the run has no lock: then no universe has an outcome, and none agrees.
    """
    m, h = multiverse, multiverse.hypothesis
    bounded = is_bounded(m.quantity, m.scale)
    out = Rows()

    def add(key: str, raw: Any, formatted: str | None = None, **groups: Any) -> None:
        out.add(
            f"multiverse.{h}.{key}",
            raw,
            formatted,
            analysis=m.analysis,
            reason="exploratory" if exploratory else "specified in plan",
            purpose="exploratory" if exploratory else m.purpose,
            method=m.method,
            hypothesis=h,
            **groups,
        )

    def value(key: str, x: float, **groups: Any) -> None:
        add(key, None if math.isnan(x) else x, "" if math.isnan(x) else number(x, bounded), **groups)

    hidden = ("agree", "share_agree", "supported", "rejected", "inconclusive", "other") if exploratory else ()
    own = m.table.iloc[0]
    for key in ("n", "run", "missing", "errored", "agree", "share_agree"):
        if key not in hidden:
            x = m.multiverses[key].iloc[0]
            share = key == "share_agree"
            add(key, float(x) if share else int(x), number(float(x), True) if share else None)
    if not exploratory:
        add("outcome", own["outcome"], str(own["outcome"]).replace("_", " "))
    add("quantity", m.quantity)
    add("level", m.level, level(m.level))
    for i, (low, high) in enumerate(m.bands, start=1):
        value(f"band.{i}.low", low)
        value(f"band.{i}.high", high)
    add("universes", len(m.table))
    add("possible", m.declared.possible)
    add("left_out", len(m.declared.left_out))
    for i, (choices, reason) in enumerate(m.declared.left_out, start=1):
        words = ", ".join(f"{d.name} = {d.label(choices[d.name])}" for d in m.declared.dimensions)
        add(f"left_out.{i}", words, because=reason)
    for d in m.declared.dimensions:
        add(f"dimension.{d.name}.type", d.type, d.type.replace("_", "-"), dimension=d.name)
        add(f"dimension.{d.name}.registered", d.label(d.registered), dimension=d.name)
        for i, option in enumerate(d.labels, start=1):
            add(f"dimension.{d.name}.option.{i}", option, dimension=d.name)
        add(f"dimension.{d.name}.places", ", ".join(d.places), dimension=d.name)
        add(f"dimension.{d.name}.reason", d.reason, dimension=d.name)
    for row in m.multiverses.to_dict("records"):
        name = f"M{row['multiverse']}" if row["multiverse"] else "beside"
        for key in (
            "choices",
            "n",
            "run",
            "missing",
            "errored",
            "agree",
            "share_agree",
            "supported",
            "rejected",
            "inconclusive",
            "other",
        ):
            if key not in hidden:
                x = row[key]
                add(f"{name}.{key}", x, number(float(x), True) if key == "share_agree" else None)
        for key in ("median", "minimum", "maximum"):
            value(f"{name}.{key}", float(row[key]))
    for row in m.by_choice.to_dict("records"):
        x = float(row["share"])
        add(f"variance.{row['dimension']}", x, number(x, True) if x == x else "", df=int(row["df"]))
    for row in m.table.to_dict("records"):
        u = {"universe": row["universe"]}
        for d in m.declared.dimensions:
            add(f"{row['universe']}.choice.{d.name}", row[d.name], dimension=d.name, **u)
        for key in ("estimate", "low", "high"):
            value(f"{row['universe']}.{key}", float(row[key]), **u)
        if not exploratory:
            add(f"{row['universe']}.outcome", row["outcome"], row["outcome"].replace("_", " "), **u)
            add(f"{row['universe']}.reason_code", row["reason_code"], **u)
        add(f"{row['universe']}.role", row["role"], **u)
        add(f"{row['universe']}.multiverse", int(row["multiverse"]), **u)
        add(f"{row['universe']}.state", row["state"], **u)
        if row["why"]:
            add(f"{row['universe']}.why", row["why"], **u)
    return out.rows


def drawn_from(values: Mapping[str, Any], hypothesis: str) -> dict[str, Any]:
    """Return the arguments of :func:`dynstat.plotting.specification_curve.specification_curve`.

    Parameters
    ----------
    values : mapping of key to raw
        Of results.json; those of ``multiverse.<hypothesis>.`` are read.
    """
    from ..plotting.specification_curve import Choice, Specification

    start = f"multiverse.{hypothesis}."
    own = {k[len(start) :]: v for k, v in values.items() if k.startswith(start)}
    dimensions = [k.split(".")[1] for k in own if k.startswith("dimension.") and k.endswith(".type")]
    choices = []
    for d in dimensions:
        prefix = f"dimension.{d}.option."
        options = tuple(str(v) for k, v in own.items() if k.startswith(prefix))
        choices.append(Choice(d, options, str(own[f"dimension.{d}.type"])))

    def real(key: str) -> float:
        return math.nan if own[key] is None else float(own[key])

    specifications = []
    for u in (k.removesuffix(".role") for k in own if k.endswith(".role")):
        state = str(own[f"{u}.state"])
        place = own[f"{u}.multiverse"]
        specifications.append(
            Specification(
                tuple(str(own[f"{u}.choice.{d}"]) for d in dimensions),
                real(f"{u}.estimate"),
                real(f"{u}.low"),
                real(f"{u}.high"),
                str(own.get(f"{u}.outcome", state)) if state == "run" else state,
                own[f"{u}.role"] == "registered",
                str(own[f"M{place}.choices"]) if place else "beside",
            )
        )
    bands = [
        (real(k), real(k.removesuffix("low") + "high"))
        for k in own
        if k.startswith("band.") and k.endswith(".low")
    ]
    return {
        "specifications": specifications,
        "choices": choices,
        "quantity": str(own["quantity"]),
        "level": float(own["level"]),
        "bands": bands,
    }
