"""A small, realistic results.json: six claims, one of each outcome, six models, hostile strings on demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CLAIM_WORDS = {
    "A1": "Architecture explains 7 % of the variance of log ratio_norm.",
    "A2": "Prompt category explains 17 % of the variance of log ratio_norm.",
    "A3": "The rest is noise: 76 % of the variance.",
    "A4": "Scientific reasoning amplifies architectural differences.",
    "A5": "Families of models dissolve.",
    "A6": "Signatures are not stationary along a run.",
}
OUTCOMES = {
    "A1": ("inconclusive", "interval_straddles", 0.31, 0.21),
    "A2": ("rejected", "out_of_range", 1.0, 0.0004),
    "A3": ("supported", "supported_by_rule", 0.0041, 0.97),
    "A4": ("not_testable", "no_interval", None, None),
    "A5": ("inadmissible", "gate_failed", None, None),
    "A6": ("not_run", "no_estimate", None, None),
}
SHARES = {
    "model": ((0.123, 0.041, 0.304), (0.151, 0.022, 0.653), 0.012),
    "category": ((0.021, 0.004, 0.083), (0.020, 0.0, 0.192), 0.015),
    "category:prompt": ((0.181, 0.112, 0.272), (0.190, 0.101, 0.301), 0.021),
    "model:category": ((0.0, 0.0, 0.031), None, 0.004),
    "model:prompt": ((0.052, 0.011, 0.201), (0.051, 0.012, 0.222), 0.03),
    "residual": ((0.702, 0.633, 0.801), (0.612, 0.221, 0.843), None),
}
RANGES = {"A1": (0.036, 0.131, "model"), "A2": (0.093, 0.291, "category"), "A3": (0.613, 0.864, "residual")}
MODELS = {
    "gpt2-curated-s0": ("gpt2", 484_864),
    "opt-curated-s0": ("opt", 484_992),
    "gpt_neox-curated-s0": ("gpt_neox", 468_480),
    "llama-curated-s0": ("llama", 462_912),
    "qwen2-curated-s0": ("qwen2", 464_448),
    "phi-curated-s0": ("phi", 467_520),
}


def share(x: float) -> str:
    """Write a share with three decimals and no zero before the point."""
    return f"{x:.3f}".replace("0.", ".", 1)


def p_value(p: float) -> str:
    """Write a p-value as APA does."""
    return "< .001" if p < 0.001 else "1.000" if p >= 0.9995 else share(p)


class Rows:
    """Collects the rows of a results file."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def put(self, key: str, raw: Any, formatted: str | None = None, **rest: Any) -> None:
        shown = ("" if raw is None else str(raw)) if formatted is None else formatted
        base = {"analysis": "", "reason": "provenance", "purpose": "provenance", "method": "", "groups": {}}
        self.rows.append({"key": key, "raw": raw, "formatted": shown, **base, **rest})


def results(
    stamp: str = "registered",
    *,
    claims: dict[str, str] | None = None,
    models: dict[str, tuple[str, int]] | None = None,
    title: str = "Conditional signatures",
    keep: tuple[str, ...] = tuple(OUTCOMES),
    deviations: int = 0,
) -> list[dict[str, Any]]:
    """Return the rows of a results file.

    Parameters
    ----------
    stamp : str
        "exploratory" leaves out lock, decisions and p-values.
    claims, models, title : mapping, mapping, str
        Replace the usual words, for hostile ones.
    keep : tuple of str
        The hypotheses to keep.
    deviations : int
        How many deviations to record.
    """
    r = Rows()
    registered = stamp != "exploratory"
    reason = "specified in plan" if registered else "exploratory"
    for key, value in {
        "id": "conditional_signatures",
        "title": title,
        "stamp": stamp,
        "date": "2026-11-20",
    }.items():
        r.put(f"study.{key}", value)
    r.put("plan.sha256", "ab" * 32)
    if registered:
        lock = {
            "sha256": "1c" * 32,
            "time": "2026-11-20T06:00:00Z",
            "commit": "3d" * 20,
            "evidence": "L1",
            "access": "none",
            "panel": "demo",
            "dynstat_version": "0.1.0",
        }
        for key, value in lock.items():
            r.put(f"lock.{key}", value)
        r.put("lock.dirty", False, "no")
    r.put("data.content_hash", "5e" * 32)
    r.put("data.path", "panel.nc")
    for level, n in (("models", 6), ("prompts", 72), ("runs", 864)):
        r.put(f"data.n.{level}", n)
    for model, (family, parameters) in (models or MODELS).items():
        fields = {
            "revision": "embedded",
            "architecture": f"{family}ForCausalLM",
            "family": family,
            "vocabulary": 1024,
            "weights_sha256": "7a" * 32,
            "tokenizer_sha256": "8b" * 32,
            "dtype": "float32",
            "norm": "layernorm",
            "positions": "rotary",
        }
        r.put(f"model.{model}.parameters", parameters, f"{parameters:,}", groups={"model": model})
        for key, value in fields.items():
            r.put(f"model.{model}.{key}", value, groups={"model": model})
    r.put(
        "panel.note",
        "The six embedded models are three near-pairs, so fewer than six independent architectures.",
    )
    for order, h in enumerate(keep, 1):
        _hypothesis(r, h, order, (claims or {}).get(h, CLAIM_WORDS[h]), registered, reason)
    _estimates(r, reason)
    flow = [("runs in the panel", 864), ("runs left out: no generated token", 0), ("runs analysed", 864)]
    for step, (label, n) in enumerate(flow, 1):
        r.put(f"flow.{step}", n, groups={"step": step, "label": label})
    r.put("deviation.n", deviations)
    for i in range(1, deviations + 1):
        for key, value in {
            "field": "/analyses/shares/seed",
            "registered": "7",
            "executed": "8",
            "type": "sensitivity",
            "reason": "not declared",
        }.items():
            r.put(f"deviation.D{i}.{key}", value)
    definition = {
        "long_name": "path length over displacement",
        "origin": "dynstat",
        "reference": "sourcebook 8",
        "formula": "\\sum_t |h_t - h_{t-1}| / |h_T - h_0|",
        "options": "layer: last, phase: generated",
    }
    for key, value in definition.items():
        r.put(f"definition.ratio_norm@1.{key}", value)
    r.put("definition.entropy@1.origin", "published")
    for i, (time, event) in enumerate(
        [("2026-11-20T06:00:00Z", "plan locked"), ("2026-11-20T06:30:00Z", "data bound")], 1
    ):
        r.put(f"timeline.{i}", event, groups={"time": time, "event": event})
    for i, command in enumerate(
        ["dynstat demo -o OUT", "dynstat run conditional_signatures --data OUT/panel.nc -o OUT"], 1
    ):
        r.put(f"reproduce.{i}", command)
    for library, version in (("numpy", "2.4.0"), ("torch", "2.13.0")):
        r.put(f"environment.{library}", version)
    r.put("notrun.n", sum(OUTCOMES[h][0] == "not_run" for h in keep))
    return r.rows


def _hypothesis(r: Rows, h: str, order: int, claim: str, registered: bool, reason: str) -> None:
    rest: dict[str, Any] = {
        "groups": {"hypothesis": h, "order": order},
        "analysis": "shares",
        "reason": reason,
        "purpose": "primary",
        "method": "variance_shares@1",
    }
    outcome, code, p_support, p_reject = OUTCOMES[h]
    r.put(f"{h}.claim", claim, **rest)
    r.put(f"{h}.role", "confirmatory", **rest)
    r.put(f"{h}.family", "main", **rest)
    low, high, term = RANGES.get(h, (0.1, 0.2, ""))
    a, b = share(low), share(high)
    r.put(
        f"{h}.rule",
        f"in range: supported when the quantity lies between {a} and {b}; rejected when it lies outside",
        **rest,
    )
    r.put(f"{h}.direction", None, "", **rest)
    r.put(f"{h}.sesoi", None, f"{a} to {b}", **rest)
    r.put(f"{h}.sesoi_reason", "half to twice the odds of the published share", **rest)
    r.put(f"{h}.quantity", f"share.{term}" if term else "log_ratio", **rest)
    r.put(f"{h}.if_supported", "On this panel the share lies in the claimed range.", **rest)
    r.put(f"{h}.if_rejected", "On this panel the share lies outside the claimed range.", **rest)
    r.put(f"{h}.does_not_show.1", "Nothing about other models: the panel is fixed.", **rest)
    r.put(f"{h}.flags", None, "", **rest)
    if term:
        (value, lower, upper), _, _ = SHARES[term]
        for key, x in (("estimate", value), ("low", lower), ("high", upper)):
            r.put(f"{h}.{key}", x, share(x), **rest)
        r.put(f"{h}.level", 0.95, ".95", **rest)
        for key, words in (
            ("interval", "delete-group jackknife, t(11), logit scale"),
            ("unit", "prompt"),
            ("target", "panel"),
        ):
            r.put(f"{h}.{key}", words, **rest)
        for level, n in (("models", 6), ("prompts", 72), ("runs", 864)):
            r.put(f"{h}.n.{level}", n, **rest)
    if not registered:
        return
    r.put(f"{h}.decision", outcome, outcome.replace("_", " "), **rest)
    r.put(f"{h}.reason_code", code, **rest)
    r.put(f"{h}.alpha", 0.05 / 3, ".0167", **rest)
    r.put(f"{h}.m", 3, **rest)
    if p_support is not None and p_reject is not None:
        r.put(f"{h}.p_support", p_support, p_value(p_support), **rest)
        r.put(f"{h}.p_reject", p_reject, p_value(p_reject), **rest)
        r.put(
            f"{h}.criterion.1",
            f"Supported if both limits lie between {a} and {b}: p = {p_value(p_support)}.",
            **rest,
        )
        r.put(
            f"{h}.criterion.2",
            f"Rejected if the quantity lies outside: p of rejection {p_value(p_reject)}.",
            **rest,
        )
    if outcome != "supported":
        r.put(f"{h}.resolve", "about 3.1 times as many independent units (prompt)", **rest)


def _estimates(r: Rows, reason: str) -> None:
    for term, (panel, population, chance) in SHARES.items():
        for name, triple, target in (
            (f"share.{term}", panel, "panel"),
            (f"population.share.{term}", population, "population"),
        ):
            if triple is None:
                continue
            rest: dict[str, Any] = {
                "analysis": "shares",
                "reason": reason,
                "purpose": "primary",
                "method": "variance_shares@1",
                "groups": {"estimate": name, "term": term, "target": target},
            }
            start = f"estimate.shares.{name}"
            for key, x in zip(("value", "low", "high"), triple, strict=True):
                r.put(f"{start}.{key}", x, share(x), **rest)
            r.put(f"{start}.level", 0.95, ".95", **rest)
            way = (
                "delete-group jackknife, t(11), logit scale"
                if target == "panel"
                else "parametric bootstrap, percentile"
            )
            r.put(f"{start}.interval", way, **rest)
            r.put(f"{start}.unit", "prompt" if target == "panel" else "model", **rest)
            r.put(f"{start}.target", target, **rest)
            r.put(f"{start}.seed", None if target == "panel" else 20261120, **rest)
            r.put(f"{start}.n.prompts", 72, **rest)
            if chance is not None and target == "panel":
                r.put(f"{start}.diagnostics.chance_mean", chance, share(chance), **rest)
        for kind in ("eta2", "omega2"):
            rest = {
                "analysis": "shares",
                "reason": reason,
                "purpose": "secondary",
                "method": "variance_shares@1",
                "groups": {"estimate": f"{kind}.{term}", "term": term, "target": "sample"},
            }
            r.put(f"estimate.shares.{kind}.{term}.value", panel[0], share(panel[0]), **rest)
    rest = {
        "analysis": "late",
        "reason": "exploratory",
        "purpose": "exploratory",
        "method": "contrast@1",
        "groups": {"estimate": "late_ct", "target": "panel"},
    }
    for key, x in (("value", 0.4), ("low", 0.1), ("high", 0.7)):
        r.put(f"estimate.late.late_ct.{key}", x, str(x), **rest)


def save(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the rows as results.json into `folder` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder
