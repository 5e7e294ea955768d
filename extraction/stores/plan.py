"""What a run will do, settled before any model is loaded: files, hashes, tokens, batches, names, size."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import canonical_json

from ..lens.engine import Engine, choose
from ..models.encoding import Encoder, encoder, files_beside
from ..models.sources import Source, locate
from ..panels.panel import Panel, panel_hash
from ..runs.interventions import check_interventions
from .batches import Batch, plan_batches, shard_name
from .costs import Size, flops, memory, point_bytes, rates, seconds, size_of, tokens_read

# What compression leaves of a point's bytes, and what a shard holds beside its points; measured on the demo.
PACKED = 0.5
SHARD_BYTES = 220_000


@dataclass(frozen=True)
class Estimate:
    """What a run will take, known before it begins.

    Attributes
    ----------
    runs, done : int
        Sequences in all, and those in the store already.
    batches, missing : int
        Items, which are shards, in all, and those still to be written.
    tokens, points : int
        Tokens, and token-layer points, in all.
    read : int
        Tokens whose states are read, in all: what the samples of a prompt share counts once.
    flops, seconds : float
        Floating-point operations of what is missing, and the time it takes one process: matrix products at
        the rate measured here, and what comes on top.
    rate : float
        The one by the other; both 0 where nothing is missing, or this machine cannot time it.
    memory : int
        Bytes held at most, beside the interpreter and its libraries.
    disk, packed : int
        Bytes of all shards before compression, and expected after it.
    """

    runs: int
    done: int
    batches: int
    missing: int
    tokens: int
    points: int
    read: int
    flops: float
    seconds: float
    rate: float
    memory: int
    disk: int
    packed: int

    def __str__(self) -> str:
        lines = (
            f"{self.runs} runs ({self.done} done), {self.tokens:,} tokens, {self.points:,} points, "
            f"{self.batches} shards ({self.missing} to write), about {_amount(self.packed, 'B')} on disk "
            f"(at most {_amount(self.disk, 'B')})"
        )
        if not self.missing:
            return lines
        time = (
            f"about {words(self.seconds)} at {_amount(self.rate, 'FLOP/s')}"
            if self.rate
            else "not timed here"
        )
        return f"{lines}; {_amount(self.flops, 'FLOP')} to do, {time}, {_amount(self.memory, 'B')} of memory"


def _amount(value: float, unit: str) -> str:
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def words(seconds: float) -> str:
    """Say a length of time in the largest unit of which there are at least two: ``"3 min"``."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 1.0):.0f} s"


class Plan:
    """Everything that is settled before a model is loaded: files, hashes, tokens, batches, names.

    Parameters
    ----------
    panel : Panel
        What to extract.

    Raises
    ------
    DynstatError
        Every fault of the panel's inputs: F001, F003, X201 to X205, X210, X214, X221.
    """

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.prompts = panel.prompts()
        self.sources: list[Source] = [locate(spec, panel.dtype) for spec in panel.models]
        self.inputs = panel.inputs()
        _ = panel.sha256  # now, whatever becomes of the file while the run is under way
        self.encoders: list[Encoder] = [encoder(source, panel) for source in self.sources]
        self.configs = [_config(source) for source in self.sources]
        self.batches: list[Batch] = []
        # Models that share a tokenizer share the ids: of a hundred models few have one of their own.
        known: dict[tuple[Any, ...], list[tuple[int, ...]]] = {}
        for i, config in enumerate(self.configs):
            check_interventions(panel.samples, int(config.num_hidden_layers), panel.models[i].id)
            reader = self.encoders[i]
            spelling = self.inputs["models"][i]["tokenizer_sha256"], *files_beside(self.sources[i])
            shared = (spelling, reader.start)
            if shared not in known:
                known[shared] = [tuple(reader.encode(p["text"])) for p in self.prompts]
            self.batches += plan_batches(panel, i, reader, _context(config), self.prompts, known[shared])
        self.names = [shard_name(self.key(i)) for i in range(len(self.batches))]

    @cached_property
    def hash(self) -> str:
        """Canonical hash of the inputs."""
        return panel_hash(self.inputs)

    @cached_property
    def sizes(self) -> list[Size]:
        """What the arithmetic of costs needs to know of each model."""
        return [size_of(s, c) for s, c in zip(self.sources, self.configs, strict=True)]

    def key(self, index: int) -> dict[str, Any]:
        """Return everything that determines the content of one batch's shard, apart from the engine."""
        batch = self.batches[index]
        identity, reader = self.inputs["models"][batch.model], self.encoders[batch.model]
        return batch.key(identity, self.panel, reader, self.inputs["settings"])

    def missing(self, store: Path) -> list[int]:
        """Return the indices of the batches whose shard is not in the store."""
        there = set(os.listdir(store)) if store.is_dir() else set()
        return [i for i, name in enumerate(self.names) if name not in there]

    def costs(self) -> list[float]:
        """Return the floating-point operations of every batch, in the order of the plan."""
        return [sum(flops(b, self.sizes[b.model], self.panel)) for b in self.batches]

    def estimate(self, store: Path) -> Estimate:
        """Return what the run takes; what is in the store already is not counted as work."""
        missing = self.missing(store)
        left = [(self.batches[i], self.sizes[self.batches[i].model], self.panel) for i in missing]
        work, time, held = sum(sum(flops(*item)) for item in left), 0.0, 0
        if missing:
            engine = self._engine(store)
            if speed := rates(engine, self.panel.device):
                time = sum(seconds(*item, *speed) for item in left)
            held = max(memory(*item, engine) for item in left)
        tokens = [b.tokens for b in self.batches]
        points = sum(n * self.sizes[b.model].layers for n, b in zip(tokens, self.batches, strict=True))
        runs = sum(b.rows for b in self.batches)
        # Every shard names all prompts and models of the panel, so that any of them can be joined.
        said = len(json.dumps([p["id"] for p in self.prompts])) + len(canonical_json(self.inputs))
        beside = (SHARD_BYTES + said) * len(self.batches)
        disk = points * point_bytes(self.panel) + sum(tokens) * 11 + beside
        return Estimate(
            runs=runs,
            done=runs - sum(self.batches[i].rows for i in missing),
            batches=len(self.batches),
            missing=len(missing),
            tokens=sum(tokens),
            points=points,
            read=sum(tokens_read(b) for b in self.batches),
            flops=work,
            seconds=time,
            rate=work / time if time else 0.0,
            memory=held,
            disk=disk,
            packed=int(PACKED * points * point_bytes(self.panel)) + beside,
        )

    def _engine(self, store: Path) -> Engine:
        from .store import BINDING, open_engine

        if (store / BINDING).exists():
            return open_engine(store)
        return choose(self.panel.threads, self.panel.device)


def _context(config: Any) -> int | None:
    """Return the most tokens a model can read, or None where its config names no bound."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _config(source: Source) -> Any:
    from transformers import AutoConfig

    kind = {"gguf_file": source.weights[0].name} if source.is_gguf else {}
    try:
        found = AutoConfig.from_pretrained(
            str(source.folder), local_files_only=True, trust_remote_code=False, **kind
        )
    except Exception as e:  # a damaged config fails in many ways below
        raise DynstatError(
            "F003",
            f"the config of model {source.spec.id!r} cannot be read: {(str(e) or repr(e)).splitlines()[0]}",
            where=str(source.folder),
            mend="fetch its files again",
        ) from e
    return found.get_text_config()
