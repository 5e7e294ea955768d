"""What a run will do, settled before any model is loaded: files, hashes, tokens, batches, names, size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError

from .batches import Batch, plan_batches
from .encoding import Encoder, encoder
from .panel import Panel, panel_hash
from .sources import Source, locate


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
        self.configs = [_config(source) for source in self.sources]
        self.batches: list[Batch] = []
        for i, config in enumerate(self.configs):
            self.batches += plan_batches(panel, i, self.encoders[i], _context(config), self.prompts)
        self.names = [b.name(self.inputs["models"][b.model], panel) for b in self.batches]

    @cached_property
    def hash(self) -> str:
        """Canonical hash of the inputs."""
        return panel_hash(self.inputs)

    def missing(self, store: Path) -> list[int]:
        """Return the indices of the batches whose shard is not in the store."""
        return [i for i, name in enumerate(self.names) if not (store / name).exists()]

    def estimate(self, store: Path) -> Estimate:
        """Return what the run takes."""
        missing = self.missing(store)
        # The input of the first block is a layer too.
        layers = [int(config.num_hidden_layers) + 1 for config in self.configs]
        tokens = [b.rows * b.length for b in self.batches]
        points = [n * layers[b.model] for n, b in zip(tokens, self.batches, strict=True)]
        runs = sum(b.rows for b in self.batches)
        a_point = 4 * len(self.panel.metrics) * len(self.panel.readouts) + 5
        return Estimate(
            runs,
            runs - sum(self.batches[i].rows for i in missing),
            len(self.batches),
            len(missing),
            sum(tokens),
            sum(points),
            sum(points) * a_point + sum(tokens) * 11 + 40_000 * len(self.batches),
        )


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
