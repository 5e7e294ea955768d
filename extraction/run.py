"""Run a panel: generate, read once more by teacher forcing, write a shard a batch, go on where it stopped."""

from __future__ import annotations

import gc
import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dynstat import __version__
from dynstat.errors import DynstatError
from dynstat.files import canonical_json, write_json
from dynstat.registry import METRICS, parse_metric

from .batches import Batch, plan_batches
from .encoding import Encoder, encoder
from .panel import Panel, load_panel, panel_hash
from .sources import Source, locate

Progress = Callable[[int, int, str], None]
_STORE = "panel.json"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Estimate:
    """What a run will take, known before it begins.

    Attributes
    ----------
    runs, done : int
        Sequences in all, and those in the store already.
    batches, missing : int
        Shards in all, and those still to be written.
    tokens, points : int
        Tokens, and token-layer points, in all.
    disk : int
        Bytes of all shards, before compression.
    """

    runs: int
    done: int
    batches: int
    missing: int
    tokens: int
    points: int
    disk: int

    def __str__(self) -> str:
        return (
            f"{self.runs} runs ({self.done} done), {self.tokens:,} tokens, {self.points:,} points, "
            f"{self.batches} shards ({self.missing} to write), at most {self.disk / 1e6:.0f} MB"
        )


class Plan:
    """Everything that is settled before a model is loaded: files, hashes, tokens, batches, names.

    Parameters
    ----------
    panel : Panel
        What to extract.

    Raises
    ------
    DynstatError
        Every fault of the panel's inputs: F001, F003, X201 to X205, X210, X214.
    """

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.prompts = panel.prompts()
        self.sources: list[Source] = [locate(spec) for spec in panel.models]
        self.inputs = panel.inputs()
        self.encoders: list[Encoder] = [encoder(source, panel) for source in self.sources]
        self.batches: list[Batch] = []
        for i, source in enumerate(self.sources):
            self.batches += plan_batches(panel, i, self.encoders[i], source_context(source), self.prompts)
        self.names = [b.name(self.inputs["models"][b.model], panel) for b in self.batches]

    @cached_property
    def hash(self) -> str:
        """Canonical hash of the inputs."""
        return panel_hash(self.inputs)

    def missing(self, store: Path) -> list[tuple[Batch, Path]]:
        """Return the batches whose shard is not in the store."""
        pairs = [(b, store / n) for b, n in zip(self.batches, self.names, strict=True)]
        return [(b, path) for b, path in pairs if not path.exists()]

    def estimate(self, store: Path) -> Estimate:
        """Return what the run takes."""
        missing = self.missing(store)
        layers = [source_layers(s) for s in self.sources]
        tokens = [b.rows * b.length for b in self.batches]
        points = [n * layers[b.model] for n, b in zip(tokens, self.batches, strict=True)]
        runs = sum(b.rows for b in self.batches)
        a_point = 4 * len(self.panel.metrics) * len(self.panel.readouts) + 5
        return Estimate(
            runs, runs - sum(b.rows for b, _ in missing), len(self.batches), len(missing), sum(tokens), sum(points),
            sum(points) * a_point + sum(tokens) * 11 + 40_000 * len(self.batches),
        )


def extract(
    panel: Panel | str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    locks: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
    plan: Plan | None = None,
) -> Path:
    """Extract a panel into a folder of shards.

    Parameters
    ----------
    panel : Panel or path
        What to extract.
    store : path
        Folder; made if need be. A run that was stopped goes on there.
    locks : sequence of path, optional
        Locked plans, needed for prompts of split ``confirmation``.
    progress : callable, optional
        Called with runs done, runs in all, and the model at work.
    plan : Plan, optional
        The panel's plan, where it was made before.

    Returns
    -------
    Path
        The store; ``dynstat.open`` reads it.

    Raises
    ------
    DynstatError
        X211 (no lock), X212 (store of another panel), F002 (cannot write), and those of :class:`Plan`,
        `load` and `generate`. Shards written before stay whole.
    """
    panel = panel if isinstance(panel, Panel) else load_panel(panel)
    store = Path(store)
    plan = plan or Plan(panel)
    _guard(plan, store, locks)
    missing = plan.missing(store)
    _bind(plan, store)
    total = sum(b.rows for b in plan.batches)
    done = total - sum(b.rows for b, _ in missing)
    for i, spec in enumerate(panel.models):
        mine = [(b, path) for b, path in missing if b.model == i]
        if not mine:
            continue
        _extract_model(plan, i, mine, lambda n, name=spec.id, at=done: progress and progress(at + n, total, name))
        done += sum(b.rows for b, _ in mine)
    if progress:
        progress(total, total, "done")
    return store


def source_context(source: Source) -> int | None:
    """Return the context of a model from its config, without its weights."""
    from .models import context_of

    return context_of(_config(source))


def source_layers(source: Source) -> int:
    """Return the number of layer indices of a model, the input of its first block included."""
    return int(_config(source).num_hidden_layers) + 1


_configs: dict[Path, Any] = {}


def _config(source: Source) -> Any:
    from transformers import AutoConfig

    key = source.weights[0]
    if key not in _configs:
        kind = {"gguf_file": source.weights[0].name} if source.is_gguf else {}
        try:
            found = AutoConfig.from_pretrained(str(source.folder), local_files_only=True, trust_remote_code=False, **kind)
        except Exception as e:  # a damaged config fails in many ways below
            raise DynstatError(
                "F003", f"the config of model {source.spec.id!r} cannot be read: {str(e).splitlines()[0]}",
                where=str(source.folder), mend="fetch its files again",
            ) from e
        _configs[key] = found.get_text_config()
    return _configs[key]


def _guard(plan: Plan, store: Path, locks: Sequence[str | os.PathLike[str]]) -> None:
    """Check everything that forbids the run before anything is written."""
    bound = store / _STORE
    if bound.exists():
        try:
            there = json.loads(bound.read_text("utf-8"))["inputs_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise DynstatError("F003", f"{_STORE} cannot be read", where=str(bound)) from e
        if there != plan.hash:
            raise DynstatError(
                "X212", "the store belongs to another panel", where=str(store), found=there[:16],
                expected=plan.hash[:16], mend="choose another folder; models, prompts and settings make a panel",
            )
    elif store.is_dir() and any(store.glob("*.nc")):
        raise DynstatError(
            "X212", f"the folder holds shards and no {_STORE}", where=str(store), mend="choose another folder"
        )
    if any(p["split"] == "confirmation" for p in plan.prompts):
        from .access import admit

        admit(plan.panel, plan.inputs, store, locks)


def _bind(plan: Plan, store: Path) -> None:
    if not (store / _STORE).exists():
        write_json(store / _STORE, {
            "dynstat": "store/1", "panel": plan.panel.id, "inputs_sha256": plan.hash, "inputs": plan.inputs,
        })  # fmt: skip


def _extract_model(
    plan: Plan, index: int, work: list[tuple[Batch, Path]], step: Callable[[int], object]
) -> None:
    import torch

    from dynstat.dataset.io import save

    from .models import load

    torch.set_num_threads(plan.panel.threads)
    model = load(plan.sources[index], plan.encoders[index])
    card = {k: v for k, v in model.card().items() if k != "config_sha256"}
    provenance = _provenance(plan.panel, model)
    done = 0
    step(done)
    for batch, path in work:
        started = time.time()
        ds = read_batch(plan, model, card, batch)
        ds.attrs["provenance"] = canonical_json(
            provenance | {"started": round(started, 3), "seconds": round(time.time() - started, 3)}
        ).decode()
        save(ds, path)
        done += batch.rows
        step(done)
    del model
    gc.collect()


def read_batch(plan: Plan, model: Any, card: Mapping[str, Any], batch: Batch) -> Any:
    """Generate and measure one batch.

    Returns
    -------
    xarray.Dataset
        One model, the batch's prompts and samples.
    """
    import numpy as np
    import torch

    from dynstat.dataset.build import build
    from dynstat.dataset.schema import NONFINITE, OK, PADDING, TRUNCATED

    from .capture import states
    from .generate import generate
    from .lens import measure

    panel = plan.panel
    ids = torch.tensor(batch.ids)
    n_prompt = ids.shape[1]
    names = [str(p["id"]) for p in batch.prompts]
    sequences = generate(
        model, names, ids, batch.samples, batch.steps, suppress_end=panel.end_of_text == "suppress",
        nonfinite=panel.nonfinite,
    ).reshape(batch.rows, -1)  # fmt: skip
    measured = measure(model, sequences, states(model.body, model.blocks, sequences), panel.metrics, panel.readouts)
    token = sequences.numpy().astype(np.int32)
    written = token[:, n_prompt:]
    ended = written == model.encoder.end_of_text
    first_end = np.where(ended.any(1), ended.argmax(1), -1) if batch.steps else np.full(batch.rows, -1)
    length = np.full(batch.rows, batch.length)
    if panel.end_of_text == "stop":
        length = np.where(first_end >= 0, n_prompt + first_end + 1, length)
    n_layers = measured.finite.shape[-1]
    full = batch.length + batch.cut
    quality = np.full((batch.rows, full, n_layers), TRUNCATED, np.int8)
    quality[:, : batch.length] = np.where(measured.finite, OK, NONFINITE)
    ends = np.arange(full)[None] >= length[:, None]
    quality[ends & (length < batch.length)[:, None]] = PADDING
    _check_finite(panel, model, batch, quality == NONFINITE)
    stop = "forced" if panel.mode == "forced" else "context" if batch.cut else "budget"
    reasons = np.where((panel.end_of_text == "stop") & (first_end >= 0), "end_of_text", stop)
    shape = (1, len(batch.prompts), len(batch.samples))
    special = np.isin(token, list(model.encoder.special))

    def fit(array: Any, fill: Any) -> Any:
        out = np.full((batch.rows, full, *array.shape[2:]), fill, array.dtype)
        out[:, : batch.length] = array
        return out.reshape(*shape, *out.shape[1:])

    position = np.broadcast_to(np.arange(batch.length), token.shape)
    values = {
        "quality": quality.reshape(*shape, full, n_layers),
        "token_id": fit(token, -1),
        "top1_id": fit(measured.top1_id, -1),
        "phase": fit((position >= n_prompt).astype(np.int8), 0),
        "is_special": fit(special.astype(np.int8), 0),
        "is_first": fit((position == 0).astype(np.int8), 0),
        "log_probability": fit(measured.log_probability, np.nan),
        "text": np.array(
            [_storable(model.encoder.decode(w[: n - n_prompt].tolist())) for w, n in zip(written, length, strict=True)],
            dtype=object,
        ).reshape(shape),
        "n_prompt": np.full(shape, n_prompt, np.int32),
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


def _options(panel: Panel) -> dict[str, dict[str, Any]]:
    out = {}
    for spec in panel.metrics:
        metric, options = parse_metric(spec)
        changed = {k: v for k, v in options.items() if v != METRICS.get(metric.id).options[k].default}
        for readout in panel.readouts if changed else ():
            out[metric.name + ("" if readout == "logit_lens" else f"__{readout}")] = changed
    return out


def _check_finite(panel: Panel, model: Any, batch: Batch, bad: Any) -> None:
    if panel.nonfinite == "flag" or not bad.any():
        return
    row, token, layer = (int(i) for i in zip(*bad.nonzero(), strict=True).__next__())
    prompt, sample = batch.prompts[row // len(batch.samples)], batch.samples[row % len(batch.samples)]
    raise DynstatError(
        "X206", f"model {model.id!r} computed states or logits that are not finite",
        where=f"prompt {prompt['id']!r}, sample {sample.id!r}, token {token}, layer {layer}",
        found=f"{int(bad.sum())} such points", expected="finite logits",
        mend="`nonfinite: flag` stores and flags such points",
    )


def _storable(text: str) -> str:
    """Replace control characters, which a file of text cannot hold; the token ids keep them."""
    return _CONTROL.sub("\ufffd", text)


def _provenance(panel: Panel, model: Any) -> dict[str, Any]:
    import numpy
    import tokenizers
    import torch
    import transformers

    return {
        "dynstat": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": numpy.__version__,
        "threads": panel.threads,
        "device": "cpu",
        "machine": platform.machine(),
        "system": platform.system(),
        "readout": model.readout.describe(),
        "hidden_state_norm": "pre_final_norm",
    }
