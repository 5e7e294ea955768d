"""Plan the work from the panel alone: which rows are read together, and the name of what they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynstat.dataset.schema import SCHEMA
from dynstat.errors import DynstatError
from dynstat.files import canonical_hash

from .encoding import Encoder
from .panel import Panel, Sample

# Raised when the way from these inputs to values changes, so that old shards are not taken for new ones.
METHOD = "extraction/1"


@dataclass(frozen=True)
class Batch:
    """Prompts of equal length that one model reads together, with all or some samples: one shard.

    Attributes
    ----------
    model : int
        Index in the panel.
    prompts : tuple of mapping
        As `read_prompts` gives them.
    ids : tuple of tuple of int
        Start token and prompt, cut at the context where the panel says `truncate`.
    samples : tuple of Sample
        Ways of writing.
    steps : int
        Tokens to write: the budget, or what the context leaves of it.
    cut : int
        Tokens of prompt and budget for which the context has no room.
    """

    model: int
    prompts: tuple[Mapping[str, Any], ...]
    ids: tuple[tuple[int, ...], ...]
    samples: tuple[Sample, ...]
    steps: int
    cut: int

    @property
    def rows(self) -> int:
        """Sequences in the batch."""
        return len(self.prompts) * len(self.samples)

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return len(self.ids[0]) + self.steps

    def name(self, identity: Mapping[str, Any], panel: Panel) -> str:
        """Return the shard's name: the hash of everything that determines its content."""
        spec = panel.models[self.model]
        settings = panel.settings()
        return canonical_hash({
            "method": [METHOD, SCHEMA],
            "model": dict(identity) | {"family": spec.family, "factors": dict(spec.factors)},
            "prompts": list(self.prompts),
            "ids": [list(i) for i in self.ids],
            "samples": [s.as_dict() for s in self.samples],
            "settings": {k: v for k, v in settings.items() if k not in ("samples", "batch_tokens")},
            "length": [self.steps, self.cut],
        })[:32] + ".nc"  # fmt: skip


def plan_batches(
    panel: Panel, model: int, encoder: Encoder, context: int | None, prompts: Sequence[Mapping[str, Any]]
) -> list[Batch]:
    """Group one model's work by prompt length, at most ``batch_tokens`` tokens together.

    Parameters
    ----------
    panel : Panel
        Samples, budget and limits.
    model : int
        Index of the model.
    encoder : Encoder
        Its tokenizer.
    context : int or None
        Most tokens it can read.
    prompts : sequence of mapping
        The panel's prompts.

    Returns
    -------
    list of Batch
        By length, prompts in the order of their file; neither done work nor the machine changes it.

    Raises
    ------
    DynstatError
        X204 (longer than the context), X205 (no token); all such prompts are listed.
    """
    encoded = [(p, tuple(encoder.encode(p["text"]))) for p in prompts]
    where = f"model {panel.models[model].id!r}"
    empty = [p["id"] for p, ids in encoded if len(ids) == len(encoder.start)]
    if empty:
        raise DynstatError(
            "X205",
            f"prompt {empty[0]!r} is empty",
            where=where,
            found="no token",
            expected="at least one",
            mend="give it text or remove it",
            problems=[f"prompt {i!r} is empty" for i in empty[1:]],
        )
    if context is not None and not panel.truncate:
        long = [(p["id"], len(ids)) for p, ids in encoded if len(ids) + panel.budget > context]
        if long:
            raise DynstatError(
                "X204",
                f"prompt {long[0][0]!r} and the budget are longer than the context",
                where=where,
                found=f"{long[0][1]} tokens and a budget of {panel.budget}",
                expected=f"together at most {context}",
                mend="shorten it, lower the budget, or say `truncate: true`",
                problems=[f"prompt {i!r}: {n} tokens" for i, n in long[1:]],
            )
    batches = []
    for length in sorted({len(ids) for _, ids in encoded}):
        group = [(p, ids) for p, ids in encoded if len(ids) == length]
        full = length + panel.budget
        room = full if context is None else min(full, context)
        rows = max(1, panel.batch_tokens // room)
        together = min(len(panel.samples), rows)
        at_once = max(1, rows // together)
        for i in range(0, len(group), at_once):
            part = group[i : i + at_once]
            for j in range(0, len(panel.samples), together):
                batches.append(Batch(
                    model, tuple(p for p, _ in part), tuple(ids[:room] for _, ids in part),
                    panel.samples[j : j + together], max(0, room - length), full - room,
                ))  # fmt: skip
    return batches
