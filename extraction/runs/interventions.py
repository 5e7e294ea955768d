"""Change the states of a layer while a model reads and writes; every change is a function of its own point.

No torch is imported before a model is at work, so that a plan can check interventions without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dynstat.errors import DynstatError

from ..panels.panel import Intervention, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.loading import Loaded

KINDS = {
    "noise": "h + dose * |h| * u, u a random direction",
    "scale": "h * (1 + dose)",
    "damp": "h * (1 - dose), dose from 0 to 1",
}
PHASES = ("all", "prompt", "generated")


def check_interventions(samples: Sequence[Sample], layers: int, model: str = "") -> None:
    """Refuse interventions that a model cannot undergo.

    Parameters
    ----------
    samples : sequence of Sample
        The panel's.
    layers : int
        Blocks of the model; layer indices go from 0 to it.
    model : str, optional
        Its name, for the error.

    Raises
    ------
    DynstatError
        X221 for a kind, a phase or a dose that does not exist, or a layer that the model lacks; all faults
        are listed.
    """
    faults = []
    for sample in samples:
        if (change := sample.intervention) is None:
            continue
        if change.kind not in KINDS:
            faults.append((sample.id, f"kind {change.kind!r}", " | ".join(KINDS)))
        if change.phase not in PHASES:
            faults.append((sample.id, f"phase {change.phase!r}", " | ".join(PHASES)))
        if not 0 <= change.target_layer <= layers:
            faults.append((sample.id, f"target_layer {change.target_layer}", f"0 to {layers}"))
        if not np.isfinite(change.dose) or (change.kind == "damp" and not 0 <= change.dose <= 1):
            allowed = "0 to 1" if change.kind == "damp" else "a finite number"
            faults.append((sample.id, f"dose {change.dose}", allowed))
    if faults:
        name, found, expected = faults[0]
        raise DynstatError(
            "X221",
            f"the intervention of sample {name!r} does not fit the model",
            where=f"model {model!r}" if model else "",
            found=found,
            expected=expected,
            mend="correct `samples: interventions:`; docs/interventions.md gives the kinds",
            problems=[f"sample {i!r}: {f}, expected {e}" for i, f, e in faults[1:]],
        )


def direction(model: str, prompt: str, sample: Sample, layer: int, token: int, width: int) -> np.ndarray:
    """Return the random direction of the noise at one point.

    It is a function of its arguments alone, of a sample only by seed and temperature: neither the batch, nor
    the order of work, nor what is read together changes it, and all doses at a point share one direction.

    Parameters
    ----------
    model, prompt : str
        Identifiers.
    sample : Sample
        Its seed and temperature are used.
    layer, token : int
        The point.
    width : int
        Components of a state.

    Returns
    -------
    ndarray of float64, shape (width,)
        Of norm 1, uniform on the sphere.
    """
    cell = ["dynstat noise 1", model, prompt, str(sample.seed), f"{sample.temperature:.17g}", str(layer)]
    key = int.from_bytes(hashlib.sha256("\x1f".join(cell).encode()).digest()[:16], "little")
    # A stream a token: the highest word of the counter is out of reach of the draws of one state.
    generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, token]))
    drawn = generator.standard_normal(width)
    return drawn / np.linalg.norm(drawn)


@dataclass
class Place:
    """Where in the texts the model is: hooks see tokens, not their positions.

    Attributes
    ----------
    start : int
        Position of the first token of the coming forward pass.
    """

    start: int = 0


@dataclass(frozen=True)
class Changes:
    """What is done to the rows of a batch.

    Attributes
    ----------
    model : str
        Identifier of the model.
    prompts : sequence of str
        Identifiers of the prompts.
    samples : sequence of Sample
        Each prompt has one row a sample, in this order.
    n_prompt : sequence of int
        Tokens of each prompt.
    """

    model: str
    prompts: Sequence[str]
    samples: Sequence[Sample]
    n_prompt: Sequence[int]
    cells: list[tuple[str, Sample, int]] = field(init=False)

    def __post_init__(self) -> None:
        both = zip(self.prompts, self.n_prompt, strict=True)
        object.__setattr__(self, "cells", [(p, s, n) for p, n in both for s in self.samples])

    @property
    def layers(self) -> list[int]:
        """Layers at which something is done."""
        return sorted({s.intervention.target_layer for s in self.samples if s.intervention})

    @property
    def disturbs_prompt(self) -> bool:
        """Whether something is done to prompts, so that samples no longer have their states in common."""
        return any(s.intervention.phase != "generated" for s in self.samples if s.intervention)

    def change(self, state: Tensor, layer: int, start: int) -> Tensor:
        """Return changed states of one layer, in a tensor of its own.

        Parameters
        ----------
        state : Tensor, shape (row, token, width) or (row, token, stream, width)
            Left as it is. Models of several streams have one state of all of them.
        layer : int
            Its index.
        start : int
            Position of its first token.
        """
        out = state.flatten(2).clone()
        if len(state) != len(self.cells):  # prompts held once: nothing is done to them
            return out.view_as(state)
        tokens = range(start, start + state.shape[1])
        for row, (prompt, sample, n_prompt) in enumerate(self.cells):
            given = sample.intervention
            if given is None or given.target_layer != layer or given.dose == 0:
                continue
            at = [i for i, t in enumerate(tokens) if _acts(given, t, n_prompt)]
            if at:
                h = out[row, at].double()
                new = _changed(given, h, self.model, prompt, sample, [tokens[i] for i in at])
                out[row, at] = new.to(out.dtype)
        return out.view_as(state)


def _acts(given: Intervention, token: int, n_prompt: int) -> bool:
    return given.phase == "all" or (token < n_prompt) == (given.phase == "prompt")


def _changed(
    given: Intervention, h: Tensor, model: str, prompt: str, sample: Sample, tokens: Sequence[int]
) -> Tensor:
    if given.kind == "scale":
        return h * (1.0 + given.dose)
    if given.kind == "damp":
        return h * (1.0 - given.dose)
    import torch

    drawn = np.stack([
        direction(model, prompt, sample, given.target_layer, t, h.shape[-1]) for t in tokens
    ])  # fmt: skip
    return h + given.dose * h.norm(dim=-1, keepdim=True) * torch.from_numpy(drawn).to(h.device)


@contextmanager
def intervening(model: Loaded, changes: Changes | None) -> Iterator[Place]:
    """Do to the states what is asked for, as long as the context is open; nothing where that is None.

    Yields
    ------
    Place
        Its ``start`` must be set before each forward pass. Passes over the prompts alone (fewer rows than
        the batch has) are left undisturbed.
    """
    from ..models.capture import input_state, state_of, with_state

    place = Place()
    if changes is None:
        yield place
        return

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        old = input_state(args, kwargs)
        new = changes.change(old, 0, place.start)
        if args:
            return (new, *args[1:]), kwargs
        return args, {k: new if v is old else v for k, v in kwargs.items()}

    def after(layer: int) -> Any:
        def replace(_: Any, __: Any, output: Any) -> Any:
            return with_state(output, changes.change(state_of(output), layer, place.start))

        return replace

    handles = [
        model.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        if layer == 0
        else model.blocks[layer - 1].register_forward_hook(after(layer))
        for layer in changes.layers
    ]
    try:
        yield place
    finally:
        for handle in handles:
            handle.remove()
