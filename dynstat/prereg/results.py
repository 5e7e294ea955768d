"""Write results.json: every value of a run with its key, as a number and as it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_json
from ..inference.rules import Rule
from ..inference.wording import is_bounded, level, number, p_value
from .declared import FILE
from .overview import add_overview
from .plan_words import add_plan
from .provenance import add_definitions, add_environment, event_words, reproduction
from .rows import Rows, is_scalar
from .run_rows import add_beside, add_contingencies, add_deviations, add_executed, add_failures

if TYPE_CHECKING:
    import xarray as xr

    from ..inference.decision import Decision
    from ..inference.estimate import Estimate
    from .beside import Beside
    from .chains import Registration
    from .execute import Execution
    from .lock import Lock

MODEL_FIELDS = (
    "revision",
    "architecture",
    "family",
    "parameters",
    "vocabulary",
    "weights_sha256",
    "tokenizer_sha256",
    "dtype",
)


def write_results(
    out: Path,
    plan: Mapping[str, Any],
    run: Execution,
    decisions: Mapping[str, Decision],
    *,
    ds: xr.Dataset,
    lock: Lock | None,
    lock_path: Path | None,
    stamp: str,
    void: str = "",
    beside: Sequence[Beside] = (),
    registrations: Mapping[str, Registration] | None = None,
    more: Sequence[Mapping[str, Any]] = (),
    plan_sha256: str,
    content_sha256: str,
    data_name: str,
    ledger: list[dict[str, Any]],
) -> Path:
    """Write ``out/results.json`` and return its path; docs/results.md lists the keys."""
    rows = Rows()
    _study(rows, plan, stamp, plan_sha256, lock, lock_path, ledger)
    if void:
        rows.note("study.void", void)
    _data(rows, ds, content_sha256, data_name)
    _models(rows, ds)
    for name, claim in sorted(plan["hypotheses"].items(), key=lambda item: item[1]["order"]):
        _hypothesis(rows, name, claim, plan, run, decisions.get(name))
        if registrations:
            for field in ("time", "access", "amended"):
                value = getattr(registrations[name], field)
                rows.note(f"{name}.registration.{field}", value, hypothesis=name, order=claim["order"])
    add_plan(rows, plan)
    for analysis in sorted(run.estimates):
        for key, estimate in run.estimates[analysis].items():
            _estimate(rows, plan, analysis, key, estimate, exploratory=stamp == "exploratory")
    for step, (label, model, count) in enumerate(run.flow, start=1):
        groups: dict[str, Any] = {"step": step, "label": label} | ({"model": model} if model else {})
        rows.note(f"flow.{step}", count, **groups)
    add_executed(rows, run)
    add_deviations(rows, run.deviations)
    add_contingencies(rows, run)
    add_failures(rows, run, ledger)
    add_beside(rows, beside, {h: c["order"] for h, c in plan["hypotheses"].items()})
    rows.extend(more)
    add_overview(rows, plan, ds)
    add_definitions(rows, _as_run(plan, run))
    for i, entry in enumerate(ledger, start=1):
        rows.note(f"timeline.{i}", entry["event"], time=entry["time"], event=event_words(entry))
    for i, command in enumerate(reproduction(plan, lock, data_name, (out / FILE).exists()), start=1):
        rows.note(f"reproduce.{i}", command)
    add_environment(rows, ds)
    out.mkdir(parents=True, exist_ok=True)
    return write_json(out / "results.json", rows.rows)


def _as_run(plan: Mapping[str, Any], run: Execution) -> dict[str, Any]:
    """Return the plan with the options as executed, which a planned contingency may have changed."""
    groups = ("analyses", "exploratory")
    return {**plan, **{g: {n: {**s, **run.ran.get(n, {})} for n, s in plan[g].items()} for g in groups}}


def _study(
    rows: Rows,
    plan: Mapping[str, Any],
    stamp: str,
    plan_sha256: str,
    lock: Lock | None,
    lock_path: Path | None,
    ledger: list[dict[str, Any]],
) -> None:
    rows.note("study.id", plan["id"])
    rows.note("study.title", plan["title"])
    rows.note("study.stamp", stamp, stamp.replace("_", " "))
    # The date of the data's binding, not of the report: a report made again carries the same one.
    bound = [e["time"] for e in ledger if e["event"] == "bind"]
    rows.note("study.date", bound[-1][:10] if bound else "")
    rows.note("study.authors", ", ".join(a["name"] for a in plan["authors"]))
    rows.note("study.prior_knowledge", plan["registration"]["prior_knowledge"])
    if plan["notes"]:
        rows.note("study.notes", plan["notes"])
    rows.note("plan.sha256", plan_sha256)
    if lock is None:
        return
    from .lock import evidence

    c = lock.content
    rows.note("lock.sha256", lock.sha256)
    rows.note("lock.time", c["time"])
    rows.note("lock.commit", c["git"]["commit"])
    rows.note("lock.dirty", c["git"]["dirty"])
    rows.note("lock.evidence", evidence(lock, lock_path) if lock_path else c["evidence"])
    rows.note("lock.access", c["access"]["level"])
    rows.note("lock.access_note", c["access"]["note"])
    rows.note("lock.panel", lock.name)
    if lock.parent is not None:
        rows.note("lock.parent", lock.parent)
    rows.note("lock.dynstat_version", c["dynstat_version"])
    rows.note("lock.inputs_sha256", lock.inputs_sha256)


def _data(rows: Rows, ds: xr.Dataset, content_sha256: str, data_name: str) -> None:
    rows.note("data.content_hash", content_sha256)
    rows.note("data.path", data_name)
    for unit in ("model", "prompt", "sample"):
        rows.note(f"data.n.{unit}s", int(ds.sizes[unit]))
    rows.note("data.n.runs", int(ds.sizes["model"] * ds.sizes["prompt"] * ds.sizes["sample"]))
    for unit, plural in (("category", "categories"), ("template", "templates")):
        if unit in ds.coords:
            rows.note(f"data.n.{plural}", len(np.unique(ds[unit].values)))
    if "family" in ds.coords:
        families, counts = np.unique(ds["family"].values.astype(str), return_counts=True)
        if len(families) < ds.sizes["model"]:
            noun = "one family" if len(families) == 1 else f"{len(families)} families"
            groups = ", ".join(f"{f} ({n})" for f, n in zip(families, counts, strict=True))
            rows.note(
                "panel.note",
                f"The {ds.sizes['model']} models fall into {noun}: {groups}. Models of "
                "one family are near relatives in design, not so many independent architectures.",
            )


def _models(rows: Rows, ds: xr.Dataset) -> None:
    factors = [
        str(n) for n, c in ds.coords.items() if c.dims == ("model",) and c.attrs.get("role") == "factor"
    ]
    for i, model in enumerate(ds["model"].values.astype(str)):
        for name in (*MODEL_FIELDS, *(f for f in factors if f not in MODEL_FIELDS)):
            if name in ds.coords:
                groups = {"model": str(model)} | ({"role": "factor"} if name in factors else {})
                rows.note(f"model.{model}.{name}", ds[name].values[i], **groups)


def _hypothesis(
    rows: Rows,
    name: str,
    claim: Mapping[str, Any],
    plan: Mapping[str, Any],
    run: Execution,
    decision: Decision | None,
) -> None:
    parts = claim["parts"]
    analysis = parts[0]["estimand"]["analysis"]
    method = plan["analyses"][analysis]["method"]
    purpose = claim["role"] if decision else "exploratory"

    def add(key: str, raw: Any, formatted: str | None = None) -> None:
        rows.add(
            f"{name}.{key}",
            raw,
            formatted,
            analysis=analysis,
            purpose=purpose,
            method=method,
            hypothesis=name,
            order=claim["order"],
        )

    rules = [Rule.from_plan(p) for p in parts]
    joined = f" {'and' if claim['join'] == 'all' else 'or'} ".join
    add("claim", claim["claim"])
    add("role", claim["role"])
    add("family", claim["family"])
    add("rule", joined(r.describe() for r in rules))
    add(
        "direction",
        joined(r.direction if p["direction"] else "none" for r, p in zip(rules, parts, strict=True)),
    )
    add("sesoi", joined(_sesoi(r) for r in rules))
    add("sesoi_reason", " / ".join(dict.fromkeys(p["sesoi"]["reason"] for p in parts)))
    if rules[0].range:
        for end, value in zip(("low", "high"), rules[0].range, strict=True):
            add(f"range.{end}", value, number(value, is_bounded(scale=rules[0].scale)))
    add("quantity", parts[0]["estimand"]["quantity"])
    for i, part in enumerate(parts, start=1):
        where = part["estimand"]
        estimate = run.estimates.get(where["analysis"], {}).get(where["quantity"])
        withheld = decision is not None and decision.outcome == "inadmissible"
        if estimate is not None and not withheld:
            _evidence(add, "" if i == 1 else f"part.{i}.", estimate, rules[i - 1].scale)
    if decision is not None:
        add("decision", decision.outcome, decision.outcome.replace("_", " "))
        add("reason_code", decision.reason_code)
        if decision.p_support is not None:
            add("p_support", decision.p_support, p_value(decision.p_support))
            add("p_reject", decision.p_reject, p_value(decision.p_reject))
        for key in ("p_support_adjusted", "p_reject_adjusted"):
            adjusted = getattr(decision, key)
            if adjusted is not None:
                add(key, adjusted, p_value(adjusted))
        add("alpha", decision.alpha, level(decision.alpha))
        if decision.alpha_reject is not None and decision.alpha_reject != decision.alpha:
            add("alpha_reject", decision.alpha_reject, level(decision.alpha_reject))
        add("m", decision.m)
        for i, line in enumerate(decision.criteria, start=1):
            add(f"criterion.{i}", line)
        add("resolve", decision.resolve)
        flags = [f"D{i}" for i, d in enumerate(run.deviations, start=1) if name in d.affects]
        add("flags", ", ".join(flags))
    add("if_supported", claim["if_supported"])
    add("if_rejected", claim["if_rejected"])
    for i, line in enumerate(claim["does_not_show"], start=1):
        add(f"does_not_show.{i}", line)


def _sesoi(rule: Rule) -> str:
    bounded = is_bounded(scale=rule.scale)
    if rule.kind == "in_range":
        value = " to ".join(number(x, bounded) for x in rule.ends)
    else:
        value = number(rule.threshold if rule.kind == "threshold" else rule.sesoi, bounded)
    return f"{value} ({rule.scale.replace('_', ' ')})"


def _evidence(add: Any, prefix: str, e: Estimate, scale: str) -> None:
    bounded = is_bounded(e.key, scale)
    if prefix:
        add(f"{prefix}quantity", e.key)
    for key, value in (("estimate", e.value), ("low", e.low), ("high", e.high)):
        add(prefix + key, value, number(float(value), bounded))
    add(f"{prefix}level", e.level)
    for key in ("interval", "unit", "target"):
        add(prefix + key, getattr(e, key))
    for unit, n in e.n.items():
        add(f"{prefix}n.{unit}", n)
    for key, value in (e.null or {}).items():
        if is_scalar(value):
            add(f"{prefix}null.{key}", value, p_value(float(value)) if key == "p" else None)


def _estimate(
    rows: Rows, plan: Mapping[str, Any], analysis: str, key: str, e: Estimate, *, exploratory: bool
) -> None:
    roles = [
        c["role"]
        for c in plan["hypotheses"].values()
        if any(p["estimand"] == {"analysis": analysis, "quantity": key} for p in c["parts"])
    ]
    outside = exploratory or analysis in plan["exploratory"]
    purpose = "exploratory" if outside else roles[0] if roles else "secondary"
    reason = "exploratory" if outside else "specified in plan"
    term = key
    for prefix in ("population.share.", "share.", "eta2.", "omega2.", "chance."):
        if key.startswith(prefix):
            term = key[len(prefix) :]
            break

    def add(name: str, raw: Any, formatted: str | None = None) -> None:
        rows.add(
            f"estimate.{analysis}.{key}.{name}",
            raw,
            formatted,
            analysis=analysis,
            reason=reason,
            purpose=purpose,
            method=e.method,
            estimate=key,
            term=term,
            target=e.target,
        )

    bounded = is_bounded(key)
    for name in ("value", "low", "high"):
        add(name, getattr(e, name), number(float(getattr(e, name)), bounded))
    for name in ("level", "interval", "unit", "target"):
        add(name, getattr(e, name))
    add("seed", e.seed, None if e.seed is None else str(e.seed))  # a name, not a size: no thousands
    for unit, n in e.n.items():
        add(f"n.{unit}", n)
    for name, value in e.diagnostics.items():
        if is_scalar(value):
            add(f"diagnostics.{name}", value, _diagnostic(name, value, bounded))
    for name, value in (e.null or {}).items():
        if is_scalar(value):
            add(f"null.{name}", value, p_value(float(value)) if name == "p" and value is not None else None)


def _diagnostic(name: str, value: Any, bounded: bool) -> str | None:
    """Return how a diagnostic is printed, where it is a p-value or of the kind of its estimate."""
    if isinstance(value, bool) or not isinstance(value, (float, np.floating)):
        return None
    if name == "p" or name.endswith("_p"):
        return p_value(float(value))
    same = name.startswith(("share_", "chance_"))
    return number(float(value), bounded) if same else None
