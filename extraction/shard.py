"""One batch becomes one labelled dataset: write, read once more, measure, describe."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from dynstat import __version__
from dynstat.dataset.build import build
from dynstat.dataset.schema import NONFINITE, OK, PADDING, TRUNCATED
from dynstat.errors import DynstatError
from dynstat.files import canonical_json
from dynstat.registry import METRICS, parse_metric

from .batches import Batch
from .device import name_of, to_numpy
from .engine import Engine
from .generate import generate
from .interventions import Changes, check_interventions
from .lens import measure
from .models import Loaded
from .panel import Panel
from .plan import Plan
from .reading import Runs, read_runs
from .variants import Variant

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
    changes = _changes(model, names, batch)
    token, runs = _read(panel, model, names, batch, changes)
    measured = measure(model, runs, panel.metrics, variants, engine)
    read = token.shape[1]
    position = np.broadcast_to(np.arange(read), token.shape)
    generated = position >= n_prompt[:, None]
    ended = generated & (token == model.encoder.end_of_text)
    first_end = np.where(ended.any(1), ended.argmax(1) - n_prompt, -1)
    length = n_prompt + batch.steps
    if panel.end_of_text == "stop":
        length = np.where(first_end >= 0, n_prompt + first_end + 1, length)
    n_layers = measured.finite.shape[-1]
    longest = max(len(ids) for ids in batch.ids) + batch.steps
    full = longest + batch.cut
    quality = np.full((batch.rows, full, n_layers), TRUNCATED, np.int8)
    quality[:, :read] = np.where(measured.finite, OK, NONFINITE)
    ends = np.arange(full)[None] >= length[:, None]
    quality[ends & (length < longest)[:, None]] = PADDING
    _check_finite(panel, model, batch, quality == NONFINITE)
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
    return build(
        models=[card],
        prompts=batch.prompts,
        samples=[s.as_dict() for s in batch.samples],
        n_tokens=full,
        n_layers=n_layers,
        values=values,
        readouts={name: name.partition("__")[2] for name in values if "__" in name},
        options=_options(panel),
        attrs={
            "title": panel.title or panel.id,
            **({"license": panel.license} if panel.license else {}),
            "dynstat_kind": "panel",
            "inputs": canonical_json(plan.inputs).decode(),
            "panel_sha256": panel.sha256,
            "prompt_order": json.dumps([p["id"] for p in plan.prompts]),
            "sample_order": json.dumps([s.id for s in panel.samples]),
        },
    )


def _read(
    panel: Panel, model: Loaded, names: Sequence[str], batch: Batch, changes: Changes | None
) -> tuple[np.ndarray, Runs]:
    """Write the batch's texts and read them once more; what lies beyond a row's end means nothing."""
    n = len(batch.samples)
    lengths = [len(ids) for ids in batch.ids]
    padded = [[*ids, *[ids[-1]] * (max(lengths) - len(ids))] for ids in batch.ids]
    ids = torch.tensor(padded, device=model.device)
    if min(lengths) < max(lengths):
        rows = ids.repeat_interleave(n, 0)
        row_lengths = torch.tensor(lengths, device=model.device).repeat_interleave(n)
        runs = read_runs(model, rows, n, lengths=row_lengths, changes=changes)
    else:
        rows = generate(
            model, names, ids, batch.samples, batch.steps, suppress_end=panel.end_of_text == "suppress",
            stop=panel.end_of_text == "stop", nonfinite=panel.nonfinite, changes=changes,
        ).reshape(batch.rows, -1)  # fmt: skip
        runs = read_runs(model, rows, n, lengths[0], changes=changes)
    return to_numpy(rows).astype(np.int32), runs


def _changes(model: Loaded, names: Sequence[str], batch: Batch) -> Changes | None:
    check_interventions(batch.samples, len(model.blocks), model.id)
    if not any(s.intervention for s in batch.samples):
        return None
    return Changes(model.id, names, batch.samples, [len(ids) for ids in batch.ids])


def _options(panel: Panel) -> dict[str, dict[str, Any]]:
    out = {}
    for spec in panel.metrics:
        metric, options = parse_metric(spec)
        changed = {k: v for k, v in options.items() if v != METRICS.get(metric.id).options[k].default}
        for readout in panel.readouts if changed else ():
            out[metric.name + ("" if readout == "logit_lens" else f"__{readout}")] = changed
    return out


def _check_finite(panel: Panel, model: Loaded, batch: Batch, bad: np.ndarray) -> None:
    if panel.nonfinite == "flag" or not bad.any():
        return
    row, token, layer = (int(i) for i in zip(*bad.nonzero(), strict=True).__next__())
    prompt, sample = batch.prompts[row // len(batch.samples)], batch.samples[row % len(batch.samples)]
    raise DynstatError(
        "X206",
        f"model {model.id!r} computed states or logits that are not finite",
        where=f"prompt {prompt['id']!r}, sample {sample.id!r}, token {token}, layer {layer}",
        found=f"{int(bad.sum())} such points",
        expected="finite logits",
        mend="`nonfinite: flag` stores and flags such points",
    )


def _storable(text: str) -> str:
    """Replace control characters, which a file of text cannot hold; the token ids keep them."""
    return _CONTROL.sub("\ufffd", text)


def provenance(panel: Panel, model: Loaded) -> dict[str, Any]:
    """Say what computed the values; it is stored with every shard and is not part of the content hash."""
    import tokenizers
    import transformers

    return {
        "dynstat": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
        "threads": panel.threads,
        "device": name_of(model.device),
        "machine": platform.machine(),
        "system": platform.system(),
        "readout": model.readout.describe(),
        "hidden_state_norm": "pre_final_norm",
    }
