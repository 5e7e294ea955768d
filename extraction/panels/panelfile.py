"""Read a panel file strictly: every key known, every value checked, every default filled in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynstat import data_path
from dynstat.dataset.schema import ALWAYS, COORDINATES
from dynstat.errors import DynstatError
from dynstat.strictyaml import check_keys, load_yaml

from .measures import METRICS_BY_DEFAULT, bad, read_metrics, read_readouts
from .panel import SCHEMA, Intervention, ModelSpec, Panel, Sample
from .user_metrics import register

_KEYS = {
    "dynstat", "id", "title", "license", "models", "tokenizer", "prompts", "samples", "budget", "mode",
    "start_token", "end_of_text", "truncate", "nonfinite", "readouts", "metrics", "threads", "batch_tokens",
    "device", "dtype", "padding", "register",
}  # fmt: skip
_MODEL_KEYS = {
    "id", "path", "repo", "revision", "gguf", "tokenizer", "family", "factors", "weights_sha256",
}  # fmt: skip
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_panel(file: Path) -> Panel:
    """Return the checked panel of a file; see :func:`dynstat.extraction.panels.panel.load_panel`."""
    where = str(file)
    raw = check_keys(load_yaml(file), _KEYS, where, required={"dynstat", "id", "models", "prompts"})
    if raw["dynstat"] != SCHEMA:
        raise bad("dynstat", raw["dynstat"], SCHEMA, where)
    mode = _choice(raw, "mode", ("generated", "forced"), where)
    budget = _whole(raw, "budget", 0 if mode == "forced" else None, where)
    if (budget == 0) != (mode == "forced"):
        raise bad("budget", budget, "0 in mode forced, at least 1 in mode generated", where)
    prompts = check_keys(raw["prompts"], {"file", "split"}, f"{where}: prompts", required={"file", "split"})
    shared = None if raw.get("tokenizer") is None else _path(_text(raw, "tokenizer", where), file)
    if not isinstance(raw["models"], list) or not raw["models"]:
        raise bad("models", raw["models"], "a list of models", where)
    models = tuple(_model(m, shared, file, f"{where}: models[{i}]") for i, m in enumerate(raw["models"]))
    _check_models(models, where)
    padding = _choice(raw, "padding", ("none", "right"), where)
    if padding == "right" and mode != "forced":
        raise bad(
            "padding", padding, "none in mode generated: what is written must not depend on others", where
        )
    # Before the metrics are read, which may be the user's own.
    own = None if raw.get("register") is None else _path(_text(raw, "register", where), file)
    sha = "" if own is None else register(own)
    names = tuple(m.id for m in models)
    readouts, options = read_readouts(
        raw.get("readouts", ["logit_lens"]), names, lambda text: _path(text, file), where
    )
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
        readouts=readouts,
        readout_options=options,
        metrics=read_metrics(raw.get("metrics", list(METRICS_BY_DEFAULT)), where),
        threads=_whole(raw, "threads", 1, where, least=1),
        batch_tokens=_whole(raw, "batch_tokens", 8192, where, least=1),
        device=_choice(raw, "device", ("cpu", "cuda"), where),
        dtype=_choice(raw, "dtype", ("float32", "bfloat16", "float16"), where),
        padding=padding,
        register=own,
        register_sha256=sha,
    )


def _text(raw: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = raw.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise bad(key, value, "text", where)
    return value


def _flag(raw: Mapping[str, Any], key: str, where: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise bad(key, value, "true | false", where)
    return value


def _whole(raw: Mapping[str, Any], key: str, default: int | None, where: str, least: int = 0) -> int:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise bad(key, value, f"a whole number, at least {least}", where)
    return value


def _choice(raw: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str) -> str:
    value = raw.get(key, choices[0])
    if value not in choices:
        raise bad(key, value, " | ".join(choices), where)
    return str(value)


def _path(text: str, file: Path) -> Path:
    if text.startswith("data:"):
        return data_path(text.removeprefix("data:"))
    return (file.parent / text).absolute()


def _model(raw: object, shared: Path | None, file: Path, where: str) -> ModelSpec:
    keys = check_keys(raw, _MODEL_KEYS, where, required={"id"})
    name = _text(keys, "id", where)
    if not _ID.fullmatch(name):
        raise bad("id", name, "letters, digits, '.', '_' and '-'", where)
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
        raise bad("factors", factors, "a mapping of text, numbers or booleans", where)
    for factor in factors:
        if factor in COORDINATES or factor in ALWAYS or not factor.isidentifier():
            raise bad(
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
        raise bad("models", ", ".join(twice), "every id once", where)
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
    at = f"{where}: samples"
    if mode == "forced":
        plain = [Sample("forced", -1, 0.0, 0, "forced")]
        if raw is None:
            return tuple(plain)
        if not isinstance(raw, dict) or set(raw) != {"interventions"}:
            raise bad("samples", raw, "interventions, or nothing, in mode forced", where)
        return tuple(plain + disturbed_samples(plain, raw["interventions"], at))
    keys = check_keys(raw, {"seeds", "temperatures", "greedy", "interventions"}, at)
    plain = plain_samples(
        keys.get("seeds", []), keys.get("temperatures", []), _flag(keys, "greedy", where), budget, where
    )
    if "interventions" not in keys:
        return tuple(plain)
    return tuple(plain + disturbed_samples(plain, keys["interventions"], at))


def plain_samples(seeds: Any, temperatures: Any, greedy: bool, budget: int, where: str) -> list[Sample]:
    """Return the ways of writing: greedy first, then every seed at every temperature.

    Raises
    ------
    DynstatError
        Y003.
    """
    # Beyond 2^53 JSON, by which a panel is hashed, has no exact number.
    if not _all_of(seeds, int) or any(not 0 <= s < 2**53 for s in seeds):
        raise bad("seeds", seeds, "a list of different whole numbers from 0 to 2^53 - 1", where)
    # A label keeps six digits; nearer to 0 the logits overflow, and greedy is what is meant.
    named = _all_of(temperatures, (int, float)) and {f"{float(t):g}" for t in temperatures}
    if named is False or len(named) < len(temperatures) or not all(1e-6 <= t <= 1e6 for t in temperatures):
        raise bad(
            "temperatures", temperatures, "a list of numbers from 1e-6 to 1e6, different in six digits", where
        )
    if bool(seeds) != bool(temperatures) or not (seeds or greedy):
        raise bad("samples", None, "seeds and temperatures, or greedy: true, or all three", where)
    mode = "generated"
    return [Sample("greedy", -1, 0.0, budget, mode)] * greedy + [
        Sample(f"t{float(t):g}-s{s}", s, float(t), budget, mode) for t in temperatures for s in seeds
    ]


def disturbed_samples(plain: list[Sample], raw: object, where: str) -> list[Sample]:
    """Return every sample under every intervention; the undisturbed ones stay beside them.

    Raises
    ------
    DynstatError
        Y002, Y003.
    """
    if not isinstance(raw, list) or not raw:
        raise bad("interventions", raw, "a list of interventions", where)
    named: dict[str, Intervention] = {}
    for i, item in enumerate(raw):
        change = _intervention(item, f"{where}: interventions[{i}]")
        label = f"{change.kind}-l{change.target_layer}-d{change.dose:g}"
        label += "" if change.phase == "all" else f"-{change.phase}"
        if label in named:
            raise bad("interventions", label, "every intervention once, doses different in six digits", where)
        named[label] = change
    return [
        replace(sample, id=f"{sample.id}+{label}", intervention=change)
        for label, change in named.items()
        for sample in plain
    ]


def _intervention(raw: object, where: str) -> Intervention:
    keys = check_keys(
        raw, {"kind", "target_layer", "dose", "phase"}, where, required={"kind", "target_layer", "dose"}
    )
    kind, dose = _text(keys, "kind", where), keys["dose"]
    if not _KIND.fullmatch(kind):
        raise bad("kind", kind, "small letters, digits and _", where)
    if isinstance(dose, bool) or not isinstance(dose, (int, float)) or not math.isfinite(dose):
        raise bad("dose", dose, "a finite number", where)
    return Intervention(
        kind,
        _whole(keys, "target_layer", None, where),
        float(dose),
        _choice(keys, "phase", ("all", "prompt", "generated"), where),
    )


def _all_of(values: object, kind: Any) -> bool:
    return (
        isinstance(values, list)
        and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)
        and len(set(values)) == len(values)
    )
