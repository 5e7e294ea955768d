"""One batch becomes one labelled dataset: write, read once more, measure, describe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dynstat.dataset.build import build
from dynstat.dataset.schema import NONFINITE, OK, PADDING, TRUNCATED
from dynstat.errors import DynstatError
from dynstat.files import canonical_json
from dynstat.registry import parse_measured, variable_name

from ..lens.engine import Engine
from ..lens.measuring import measure
from ..lens.variants import Variant
from ..models.device import to_numpy
from ..models.loading import Loaded
from ..panels.panel import Intervention, Panel, Sample
from ..runs.generate import generate
from ..runs.interventions import Changes, check_interventions
from ..runs.reading import read_runs
from .batches import Batch
from .plan import Plan

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def read_batch(
    plan: Plan,
    model: Loaded,
    card: Mapping[str, Any],
    batch: Batch,
    variants: Sequence[Variant],
    engine: Engine,
) -> xr.Dataset:
    """Generate and measure one batch.

    Returns
    -------
    xarray.Dataset
        One model, the batch's prompts and samples.
    """
    panel = plan.panel
    names = [str(p["id"]) for p in batch.prompts]
    n_prompt = np.repeat([len(ids) for ids in batch.ids], len(batch.samples))
    check_interventions(batch.samples, len(model.blocks), model.id)
    rows = _write(panel, model, names, batch, _changes(model, names, batch))
    token = to_numpy(rows).astype(np.int32)
    read = token.shape[1]
    position = np.broadcast_to(np.arange(read), token.shape)
    generated = position >= n_prompt[:, None]
    ended = generated & (token == model.encoder.end_of_text)
    first_end = np.where(ended.any(1), ended.argmax(1) - n_prompt, -1)
    length = n_prompt + batch.steps
    if panel.end_of_text == "stop":
        length = np.where(first_end >= 0, n_prompt + first_end + 1, length)
    runs = read_runs(
        model, rows, len(batch.samples), 0 if _is_padded(batch) else len(batch.ids[0]),
        torch.tensor(length, device=model.device), padded=_is_padded(batch),
        changes=_changes(model, names, batch),
    )  # fmt: skip
    measured = measure(model, runs, panel.metrics, variants, engine)
    n_layers = measured.finite.shape[-1]
    longest = max(len(ids) for ids in batch.ids) + batch.steps
    full = longest + batch.cut
    quality = np.full((batch.rows, full, n_layers), TRUNCATED, np.int8)
    quality[:, :read] = np.where(measured.finite, OK, NONFINITE)
    ends = np.arange(full)[None] >= length[:, None]
    quality[ends & (length < longest)[:, None]] = PADDING
    _check_finite(panel, model, batch, measured.broken)
    stop = "forced" if panel.mode == "forced" else "context" if batch.cut else "budget"
    reasons = np.where((panel.end_of_text == "stop") & (first_end >= 0), "end_of_text", stop)
    shape = (1, len(batch.prompts), len(batch.samples))
    special = np.isin(token, list(model.encoder.special))

    def fit(array: Any, fill: Any) -> Any:
        out = np.full((batch.rows, full, *array.shape[2:]), fill, array.dtype)
        out[:, :read] = array
        return out.reshape(*shape, *out.shape[1:])

    values = {
        "quality": quality.reshape(*shape, full, n_layers),
        "token_id": fit(token, -1),
        "top1_id": fit(measured.top1_id, -1),
        "phase": fit(generated.astype(np.int8), 0),
        "is_special": fit(special.astype(np.int8), 0),
        "is_first": fit((position == 0).astype(np.int8), 0),
        "log_probability": fit(measured.log_probability, np.nan),
        "text": np.array(
            [
                _storable(model.encoder.decode(ids[start:n].tolist()))
                for ids, start, n in zip(token, n_prompt, length, strict=True)
            ],
            dtype=object,
        ).reshape(shape),
        "n_prompt": n_prompt.astype(np.int32).reshape(shape),
        "n_generated": (length - n_prompt).astype(np.int32).reshape(shape),
        "stop_reason": reasons.astype(object).reshape(shape),
        "first_end_of_text": first_end.astype(np.int32).reshape(shape),
        **{name: fit(array, np.nan) for name, array in measured.values.items()},
    }
    described = _described(panel, variants, measured.values)
    disturbed = any(s.intervention for s in panel.samples)
    facts = {name: fact for v in variants for name, fact in v.facts.items()}
    return build(
        models=[dict(card) | {"facts": facts}],
        prompts=batch.prompts,
        samples=[_sample(s, disturbed) for s in batch.samples],
        n_tokens=full,
        n_layers=n_layers,
        values=values,
        **described,
        attrs={
            "title": panel.title or panel.id,
            **({"license": panel.license} if panel.license else {}),
            "dynstat_kind": "dose" if disturbed else "panel",
            "inputs": canonical_json(plan.inputs).decode(),
            "panel_sha256": panel.sha256,
            "prompt_order": json.dumps([p["id"] for p in plan.prompts]),
            "sample_order": json.dumps([s.id for s in panel.samples]),
        },
    )


def _sample(sample: Sample, disturbed: bool) -> dict[str, Any]:
    """Give the coordinates of a sample; where any is disturbed, the others say that they are not."""
    own = sample.as_dict()
    if disturbed:
        change = sample.intervention or Intervention("", -1, 0.0, "")
        own |= change.as_dict()
        own["intervention_phase"] = own.pop("phase")
    return own


def _described(panel: Panel, variants: Sequence[Variant], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Say of each measured variable by which definition, options and read-out it came."""
    asked = {variable_name(spec): parse_measured(spec) for spec in panel.metrics}
    by_name = {v.name: v for v in variants}
    out: dict[str, dict[str, Any]] = {k: {} for k in ("definitions", "options", "readouts", "attributes")}
    for name in names:
        base, _, readout = name.partition("__")
        metric, options = asked[base]
        out["definitions"][name] = metric.id
        changed = {k: v for k, v in options.items() if v != metric.options[k].default}
        if changed:
            out["options"][name] = changed
        if readout:
            out["readouts"][name] = readout
            out["attributes"][name] = dict(by_name[readout].attrs)
    return out


def _is_padded(batch: Batch) -> bool:
    return len({len(ids) for ids in batch.ids}) > 1


def _write(
    panel: Panel, model: Loaded, names: Sequence[str], batch: Batch, changes: Changes | None
) -> Tensor:
    """Return the batch's texts, a row a run; what lies beyond a row's end is valid and means nothing."""
    longest = max(map(len, batch.ids))
    padded = [[*ids, *[ids[-1]] * (longest - len(ids))] for ids in batch.ids]
    ids = torch.tensor(padded, device=model.device)
    return generate(
        model, names, ids, batch.samples, batch.steps, suppress_end=panel.end_of_text == "suppress",
        stop=panel.end_of_text == "stop", nonfinite=panel.nonfinite, changes=changes,
    ).reshape(batch.rows, -1)  # fmt: skip


def _changes(model: Loaded, names: Sequence[str], batch: Batch) -> Changes | None:
    if not any(s.intervention for s in batch.samples):
        return None
    return Changes(model.id, names, batch.samples, [len(ids) for ids in batch.ids])


def _check_finite(panel: Panel, model: Loaded, batch: Batch, bad: np.ndarray) -> None:
    if panel.nonfinite == "flag" or not bad.any():
        return
    row, token, layer = (int(i) for i in zip(*bad.nonzero(), strict=True).__next__())
    prompt, sample = batch.prompts[row // len(batch.samples)], batch.samples[row % len(batch.samples)]
    raise DynstatError(
        "X206",
        f"model {model.id!r} computed states or logits that are not finite",
        where=f"prompt {prompt['id']!r}, sample {sample.id!r}, token {token}, layer {layer}",
        found=f"{(n := int(bad.sum()))} such point{'s' * (n > 1)}",
        expected="finite logits",
        mend="`nonfinite: flag` stores and flags such points",
    )


def _storable(text: str) -> str:
    """Replace control characters, which a file of text cannot hold; the token ids keep them."""
    return _CONTROL.sub("\ufffd", text)
