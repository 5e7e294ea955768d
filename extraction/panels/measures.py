"""What a panel asks to be measured: its metrics, under which names, and the read-outs they are taken from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dynstat.dataset.schema import ALWAYS, COORDINATES
from dynstat.errors import DynstatError
from dynstat.registry import METRICS, Metric, parse_measured, variable_name
from dynstat.strictyaml import check_keys

from .access import check_running_text

METRICS_BY_DEFAULT = (
    "state_norm", "step_length", "turning_angle", "entropy", "top1_probability", "top2_probability",
    "concentration", "sum_squares", "dispersion", "synchronisation",
)  # fmt: skip
# What is there while a batch is read; a metric made of these alone is measured, any other is derived.
MEASURED_FROM = frozenset({"states", "steps", "logits", "next_logits", "final_logits", "next_token"})
# Derived from other metrics, and measured all the same where a panel asks for it.
MEASURED_TOO = frozenset({"effective_vocabulary"})
READOUTS = ("logit_lens", "no_norm", "t_matched", "top_k", "tuned")
TEXT_BY_DEFAULT = "data:texts/held_out.txt"
_READOUT_KEYS = {"t_matched": {"entropy", "text"}, "top_k": {"k"}, "tuned": {"translators"}}
TOP_K_BY_DEFAULT = 50
_NEEDED = {"t_matched": {"entropy"}, "tuned": {"translators"}}


def bad(key: str, found: object, expected: str, where: str) -> DynstatError:
    """Return the error for a value that a key does not accept."""
    return DynstatError(
        "Y003",
        f"{key} does not accept {found!r}",
        where=where,
        found=found,
        expected=expected,
        mend=f"correct {key}",
    )


def is_measured(metric: Metric) -> bool:
    """Say whether a metric can be measured while a batch is read, by token and layer or by token."""
    measured = set(metric.inputs) <= MEASURED_FROM or metric.name in MEASURED_TOO
    return metric.level in ("layer", "token") and bool(metric.inputs) and measured


def read_metrics(raw: object, where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the metrics of a panel, options filled in; ``as`` is kept where it renames.

    Raises
    ------
    DynstatError
        Y002 (unknown option), Y003 (unknown or derived metric, a name that is taken).
    """
    if not isinstance(raw, (list, tuple)) or not raw:
        raise bad("metrics", raw, "a list of metrics", where)
    out: list[dict[str, Any]] = []
    for item in raw:
        given = {"metric": item} if isinstance(item, str) else check_keys(item, _metric_keys(item), where)
        entry, options = parse_measured(given)
        if not is_measured(entry):
            known = ", ".join(sorted({m.name for m in METRICS if is_measured(m)}))
            raise bad("metrics", entry.name, f"what is measured and not derived: {known}", where)
        spec = {"metric": entry.id, **options}
        name = given.get("as", entry.name)
        if name != entry.name:
            spec["as"] = _free_name(name, f"{where}: metrics")
        if name in {variable_name(m) for m in out}:
            mend = "every metric once; `as: NAME` names a second variable of other options"
            raise bad("metrics", name, mend, where)
        out.append(spec)
    return tuple(out)


def _metric_keys(item: object) -> set[str]:
    name = item.get("metric") if isinstance(item, dict) else None
    return {"metric", "as", *(METRICS.get(str(name)).options if name else ())}


def _free_name(name: object, where: str) -> str:
    taken = {m.name for m in METRICS} | set(ALWAYS) | set(COORDINATES)
    if not isinstance(name, str) or not name.isidentifier() or "__" in name or name in taken:
        raise bad("as", name, "letters, digits and single _, no name of the schema or of a metric", where)
    return name


def read_readouts(
    raw: object, models: tuple[str, ...], place: Callable[[str], Path], where: str
) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """Return the names of a panel's read-outs, in the order of :data:`READOUTS`, and their options.

    Parameters
    ----------
    raw : object
        The list of the file: names, and mappings with ``readout`` and its options.
    models : tuple of str
        Identifiers of the panel's models; ``tuned`` needs a translator of each.
    place : callable
        From a path as written to the path of a file that exists.
    where : str
        The file, for errors.

    Raises
    ------
    DynstatError
        F001 (a file of the options is missing), Y002, Y003.
    """
    if not isinstance(raw, (list, tuple)):
        raise bad("readouts", raw, "a list with logit_lens", where)
    found: dict[str, dict[str, Any]] = {}
    for item in raw:
        given = {"readout": item} if isinstance(item, str) else item
        name = given.get("readout") if isinstance(given, Mapping) else None
        if name not in READOUTS:
            raise bad("readouts", item, f"a list of {', '.join(READOUTS)}", where)
        if name in found:
            raise bad("readouts", name, "every read-out once", where)
        keys = {"readout", *_READOUT_KEYS.get(name, ())}
        at = f"{where}: readout {name}"
        checked = check_keys(given, keys, at, required={"readout", *_NEEDED.get(name, ())})
        found[name] = _readout_options(name, checked, models, place, at)
    if "logit_lens" not in found:
        raise bad("readouts", raw, "a list with logit_lens, and others at will", where)
    names = tuple(name for name in READOUTS if name in found)
    return names, {name: found[name] for name in names if found[name]}


def _readout_options(
    name: str, given: Mapping[str, Any], models: tuple[str, ...], place: Callable[[str], Path], where: str
) -> dict[str, Any]:
    if name == "t_matched":
        entropy = given["entropy"]
        if isinstance(entropy, bool) or not isinstance(entropy, (int, float)) or not 0 < entropy < math.inf:
            raise bad("entropy", entropy, "a mean entropy above 0, in nat", where)
        text = check_running_text(_file(given.get("text", TEXT_BY_DEFAULT), place, where))
        return {"entropy": float(entropy), "text": text}
    if name == "top_k":
        k = given.get("k", TOP_K_BY_DEFAULT)
        if isinstance(k, bool) or not isinstance(k, int) or k < 2:
            raise bad("k", k, "a whole number, at least 2", where)
        return {"k": k}
    if name == "tuned":
        files = given["translators"]
        if not isinstance(files, Mapping) or set(files) != set(models):
            raise bad("translators", files, f"a file for each of {', '.join(models)}", where)
        return {"translators": {m: _file(files[m], place, where) for m in models}}
    return {}


def _file(text: object, place: Callable[[str], Path], where: str) -> Path:
    if not isinstance(text, str) or not text:
        raise bad("file", text, "a path", where)
    path = place(text)
    if not path.is_file():
        raise DynstatError("F001", f"{path.name} does not exist", where=str(path), mend=f"see {where}")
    return path
