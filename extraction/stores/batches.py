"""Plan the work from the panel alone: which rows are read together, and the name of what they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynstat.dataset.schema import SCHEMA
from dynstat.errors import DynstatError
from dynstat.files import canonical_hash

from ..models.encoding import Encoder
from ..panels.panel import Panel, Sample

# Raised when the way from these inputs to values changes, so that old shards are not taken for new ones.
METHOD = "extraction/2"


@dataclass(frozen=True)
class Batch:
    """Prompts that one model reads together, with all or some samples of one intervention: one shard.

    Attributes
    ----------
    model : int
        Index in the panel.
    prompts : tuple of mapping
        As `read_prompts` gives them.
    ids : tuple of tuple of int
        Start token and prompt, cut at the context where the panel says `truncate`; of equal length, or by
        growing length where the panel says ``padding: right``.
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
        """Tokens of the longest sequence, and of every row of what the model reads."""
        return max(map(len, self.ids)) + self.steps

    @property
    def tokens(self) -> int:
        """Tokens of all sequences, padding left out."""
        return len(self.samples) * sum(len(ids) + self.steps for ids in self.ids)

    def key(
        self,
        identity: Mapping[str, Any],
        panel: Panel,
        encoder: Encoder,
        settings: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return everything that determines the shard's content, apart from the store's engine.

        Parameters
        ----------
        identity : mapping
            Of the model: hashes of weights, config and tokenizer, number format.
        panel : Panel
            Its settings hold metrics with options and versions, read-outs and the hashes of their files.
        encoder : Encoder
            Of the model: tokenizer.json alone does not say which ids end a text, are special, and are valid.
        settings : mapping, optional
            These settings, where they are known: to ask for them hashes the files anew.
        """
        spec = panel.models[self.model]
        settings = panel.settings() if settings is None else settings
        return {
            "method": [METHOD, SCHEMA],
            "device": panel.device,
            "model": dict(identity) | {"family": spec.family, "factors": dict(spec.factors)},
            "vocabulary": encoder.vocabulary,
            "prompts": list(self.prompts),
            "ids": [list(i) for i in self.ids],
            "samples": [s.as_dict() for s in self.samples],
            "settings": {k: v for k, v in settings.items() if k not in ("samples", "batch_tokens", "device")},
            "length": [self.steps, self.cut],
        }


def shard_name(key: Mapping[str, Any]) -> str:
    """Return the name of the shard with this key."""
    return canonical_hash(dict(key))[:32] + ".nc"


def plan_batches(
    panel: Panel,
    model: int,
    encoder: Encoder,
    context: int | None,
    prompts: Sequence[Mapping[str, Any]],
    ids: Sequence[tuple[int, ...]] | None = None,
) -> list[Batch]:
    """Group one model's work by prompt length, at most ``batch_tokens`` padded tokens together.

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
    ids : sequence of tuple of int, optional
        What the tokenizer makes of each, start token first, where that is known.

    Returns
    -------
    list of Batch
        By length, prompts in the order of their file. The panel alone determines it: neither work done before
        nor the machine changes what is computed together.

    Raises
    ------
    DynstatError
        X204 (longer than the context), X205 (no token); all such prompts are listed.
    """
    if ids is None:
        ids = [tuple(encoder.encode(p["text"])) for p in prompts]
    encoded = list(zip(prompts, ids, strict=True))
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
    for group, steps, cut in _groups(panel, encoded, context):
        for samples in _alike(panel.samples):
            for part, some in _parts(group, samples, steps, panel.batch_tokens):
                names, ids = zip(*part, strict=True)
                batches.append(Batch(model, names, ids, some, steps, cut))
    return batches


_Encoded = tuple[Mapping[str, Any], tuple[int, ...]]


def _groups(
    panel: Panel, encoded: Sequence[_Encoded], context: int | None
) -> Iterator[tuple[list[_Encoded], int, int]]:
    """Yield the prompts that may be read together, cut at the context, with steps and what was cut."""
    by_shape: dict[tuple[int, int, int], list[_Encoded]] = {}
    for prompt, ids in sorted(encoded, key=lambda e: len(e[1])):  # a stable sort: equals as in the file
        full = len(ids) + panel.budget
        room = full if context is None else min(full, context)
        together = panel.padding == "right" and room == full
        shape = (0 if together else len(ids), max(0, room - len(ids)), full - room)
        by_shape.setdefault(shape, []).append((prompt, ids[:room]))
    for (_, steps, cut), group in by_shape.items():
        yield group, steps, cut


def _alike(samples: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    """Part samples by what is done to the states: only untouched ones share the states of the prompt."""
    return [
        tuple(s for s in samples if s.intervention == kind)
        for kind in dict.fromkeys(s.intervention for s in samples)
    ]


def _parts(
    group: Sequence[_Encoded], samples: tuple[Sample, ...], steps: int, tokens: int
) -> Iterator[tuple[Sequence[_Encoded], tuple[Sample, ...]]]:
    """Cut prompts by growing length times samples into parts of at most so many padded tokens."""
    start = 0
    while start < len(group):
        rows = max(1, tokens // (len(group[start][1]) + steps))
        some = min(len(samples), rows)
        end = start + 1
        while end < len(group) and some * (end + 1 - start) * (len(group[end][1]) + steps) <= tokens:
            end += 1
        for j in range(0, len(samples), some):
            yield group[start:end], samples[j : j + some]
        start = end
