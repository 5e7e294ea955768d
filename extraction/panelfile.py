"""Read a panel file strictly: every key known, every value checked, every default filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynstat import data_path
from dynstat.dataset.schema import ALWAYS, COORDINATES
from dynstat.errors import DynstatError
from dynstat.registry import METRICS, parse_metric
from dynstat.strictyaml import check_keys, load_yaml

from .panel import SCHEMA, ModelSpec, Panel, Sample

METRICS_BY_DEFAULT = (
    "state_norm", "step_length", "turning_angle", "entropy", "top1_probability", "top2_probability",
    "concentration", "sum_squares", "dispersion", "synchronisation",
)  # fmt: skip
MEASURED_FROM = frozenset({"states", "logits", "next_logits"})
READOUTS = ("logit_lens", "no_norm")
_KEYS = {
    "dynstat", "id", "title", "license", "models", "tokenizer", "prompts", "samples", "budget", "mode",
    "start_token", "end_of_text", "truncate", "nonfinite", "readouts", "metrics", "threads", "batch_tokens",
    "device",
}  # fmt: skip
_MODEL_KEYS = {
    "id", "path", "repo", "revision", "gguf", "tokenizer", "family", "factors", "weights_sha256",
}  # fmt: skip
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_panel(file: Path) -> Panel:
    """Return the checked panel of a file; see :func:`dynstat.extraction.panel.load_panel`."""
    where = str(file)
    raw = check_keys(load_yaml(file), _KEYS, where, required={"dynstat", "id", "models", "prompts"})
    if raw["dynstat"] != SCHEMA:
        raise _bad("dynstat", raw["dynstat"], SCHEMA, where)
    mode = _choice(raw, "mode", ("generated", "forced"), where)
    budget = _whole(raw, "budget", 0 if mode == "forced" else None, where)
    if (budget == 0) != (mode == "forced"):
        raise _bad("budget", budget, "0 in mode forced, at least 1 in mode generated", where)
    prompts = check_keys(raw["prompts"], {"file", "split"}, f"{where}: prompts", required={"file", "split"})
    shared = None if raw.get("tokenizer") is None else _path(_text(raw, "tokenizer", where), file)
    if not isinstance(raw["models"], list) or not raw["models"]:
        raise _bad("models", raw["models"], "a list of models", where)
    models = tuple(_model(m, shared, file, f"{where}: models[{i}]") for i, m in enumerate(raw["models"]))
    _check_models(models, where)
    return Panel(
        id=_text(raw, "id", where),
        title=_text(raw, "title", where, ""),
        license=_text(raw, "license", where, ""),
        file=file,
        models=models,
        prompt_file=_path(_text(prompts, "file", where), file),
        split=_text(prompts, "split", where),
        samples=_samples(raw.get("samples"), budget, mode, where),
        budget=budget,
        mode=mode,
        start_token=_text(raw, "start_token", where, "bos"),
        end_of_text=_choice(raw, "end_of_text", ("ignore", "stop", "suppress"), where),
        truncate=_flag(raw, "truncate", where),
        nonfinite=_choice(raw, "nonfinite", ("error", "flag"), where),
        readouts=_readouts(raw.get("readouts", ["logit_lens"]), where),
        metrics=_metrics(raw.get("metrics", list(METRICS_BY_DEFAULT)), where),
        threads=_whole(raw, "threads", 1, where, least=1),
        batch_tokens=_whole(raw, "batch_tokens", 8192, where, least=1),
        device=_choice(raw, "device", ("cpu", "cuda"), where),
    )


def _bad(key: str, found: object, expected: str, where: str) -> DynstatError:
    return DynstatError(
        "Y003",
        f"{key} does not accept {found!r}",
        where=where,
        found=found,
        expected=expected,
        mend=f"correct {key}",
    )


def _text(raw: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = raw.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise _bad(key, value, "text", where)
    return value


def _flag(raw: Mapping[str, Any], key: str, where: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise _bad(key, value, "true | false", where)
    return value


def _whole(raw: Mapping[str, Any], key: str, default: int | None, where: str, least: int = 0) -> int:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _bad(key, value, f"a whole number, at least {least}", where)
    return value


def _choice(raw: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> str:
    value = raw.get(key, choices[0])
    if value not in choices:
        raise _bad(key, value, " | ".join(choices), where)
    return str(value)


def _path(text: str, file: Path) -> Path:
    if text.startswith("data:"):
        return data_path(text.removeprefix("data:"))
    return (file.parent / text).absolute()


def _model(raw: object, shared: Path | None, file: Path, where: str) -> ModelSpec:
    keys = check_keys(raw, _MODEL_KEYS, where, required={"id"})
    name = _text(keys, "id", where)
    if not _ID.fullmatch(name):
        raise _bad("id", name, "letters, digits, '.', '_' and '-'", where)
    places = [k for k in ("path", "repo", "gguf") if k in keys]
    if len(places) != 1:
        raise DynstatError(
            "Y002",
            f"model {name!r} needs exactly one place",
            where=where,
            found=", ".join(places) or "none",
            expected="path | repo | gguf",
            mend="keep one of them",
        )
    kind = {"path": "folder", "repo": "hub", "gguf": "gguf"}[places[0]]
    location = _text(keys, places[0], where)
    if kind == "hub" and not keys.get("revision"):
        raise DynstatError(
            "Y002",
            f"model {name!r} comes from the hub without a revision",
            where=where,
            found="no revision",
            expected="a commit",
            mend="add `revision:`, so that the panel means the same weights next year",
        )
    factors = keys.get("factors") or {}
    if not isinstance(factors, dict) or any(
        isinstance(v, (dict, list, type(None))) for v in factors.values()
    ):
        raise _bad("factors", factors, "a mapping of text, numbers or booleans", where)
    for factor in factors:
        if factor in COORDINATES or factor in ALWAYS or not factor.isidentifier():
            raise _bad(
                "factors", factor, "a name of letters, digits and _ that the schema does not use", where
            )
    own = keys.get("tokenizer", "own" if shared is None else None)
    if own == "own":
        tokenizer = None
    else:
        tokenizer = shared if own is None else _path(_text(keys, "tokenizer", where), file)
    return ModelSpec(
        id=name,
        kind=kind,
        location=location if kind == "hub" else str(_place(location, file)),
        revision=_text(keys, "revision", where, "local"),
        tokenizer=tokenizer,
        family=_text(keys, "family", where, ""),
        factors=factors,
        weights_sha256=_text(keys, "weights_sha256", where, ""),
    )


def _place(text: str, file: Path) -> Path:
    # A model that is missing is its own error, X201, raised where models are located.
    try:
        return _path(text, file)
    except DynstatError:
        return Path(text)


def _check_models(models: tuple[ModelSpec, ...], where: str) -> None:
    ids = [m.id for m in models]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise _bad("models", ", ".join(twice), "every id once", where)
    first = models[0]
    for model in models[1:]:
        if set(model.factors) != set(first.factors):
            raise DynstatError(
                "Y002",
                f"models {first.id!r} and {model.id!r} have different factors",
                where=where,
                found=", ".join(model.factors),
                expected=", ".join(first.factors),
                mend="a factor is a coordinate: give it to every model",
            )


def _samples(raw: object, budget: int, mode: str, where: str) -> tuple[Sample, ...]:
    if mode == "forced":
        if raw is not None:
            raise _bad("samples", raw, "nothing in mode forced: the prompt is read once", where)
        return (Sample("forced", -1, 0.0, 0, "forced"),)
    keys = check_keys(raw, {"seeds", "temperatures", "greedy"}, f"{where}: samples")
    seeds, temperatures = keys.get("seeds", []), keys.get("temperatures", [])
    greedy = _flag(keys, "greedy", where)
    # Beyond 2^53 JSON, by which a panel is hashed, has no exact number.
    if not _all_of(seeds, int) or any(not 0 <= s < 2**53 for s in seeds):
        raise _bad("seeds", seeds, "a list of different whole numbers from 0 to 2^53 - 1", where)
    # A label keeps six digits; nearer to 0 the logits overflow, and greedy is what is meant.
    named = _all_of(temperatures, (int, float)) and {f"{float(t):g}" for t in temperatures}
    if named is False or len(named) < len(temperatures) or not all(1e-6 <= t <= 1e6 for t in temperatures):
        raise _bad(
            "temperatures", temperatures, "a list of numbers from 1e-6 to 1e6, different in six digits", where
        )
    if bool(seeds) != bool(temperatures) or not (seeds or greedy):
        raise _bad("samples", raw, "seeds and temperatures, or greedy: true, or all three", where)
    out = [Sample("greedy", -1, 0.0, budget, mode)] if greedy else []
    return tuple(
        out + [Sample(f"t{float(t):g}-s{s}", s, float(t), budget, mode) for t in temperatures for s in seeds]
    )


def _all_of(values: object, kind: Any) -> bool:
    return (
        isinstance(values, list)
        and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)
        and len(set(values)) == len(values)
    )


def _readouts(raw: object, where: str) -> tuple[str, ...]:
    if not isinstance(raw, list) or "logit_lens" not in raw or not set(raw) <= set(READOUTS):
        raise _bad("readouts", raw, "a list with logit_lens, and no_norm at will", where)
    return tuple(r for r in READOUTS if r in raw)


def _metrics(raw: object, where: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(raw, list) or not raw:
        raise _bad("metrics", raw, "a list of metrics", where)
    out: list[dict[str, Any]] = []
    for item in raw:
        spec = {"metric": item} if isinstance(item, str) else check_keys(item, _metric_keys(item), where)
        entry, options = parse_metric(spec)
        if entry.level != "layer" or not set(entry.inputs) <= MEASURED_FROM:
            known = ", ".join(sorted({m.name for m in METRICS if set(m.inputs) <= MEASURED_FROM}))
            raise _bad("metrics", entry.name, f"what is measured and not derived: {known}", where)
        if entry.name in {METRICS.get(m["metric"]).name for m in out}:
            raise _bad("metrics", entry.name, "every metric once", where)
        out.append({"metric": entry.id, **options})
    return tuple(out)


def _metric_keys(item: object) -> set[str]:
    name = item.get("metric") if isinstance(item, dict) else None
    return {"metric", *(METRICS.get(str(name)).options if name else ())}
