"""The ways in which a state is read as a distribution, beside the plain lens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .models import Loaded
from .panel import Panel


@dataclass(frozen=True)
class Variant:
    """One way from a state to a distribution.

    Attributes
    ----------
    name : str
        Suffix of its variables, "" for the plain lens.
    skip_norm : bool
        Leave the final norm out.
    temperature : float
        Divisor of the logits.
    top_k : int
        Keep so many tokens and renormalise; 0 keeps the whole vocabulary.
    translate : callable or None
        ``(layer, states of shape (n, width)) -> states``, before the read-out.
    attrs : mapping
        Attributes its variables carry beside ``readout``.
    """

    name: str = ""
    skip_norm: bool = False
    temperature: float = 1.0
    top_k: int = 0
    translate: Callable[[int, Tensor], Tensor] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


def variants_of(panel: Panel, model: Loaded) -> list[Variant]:
    """Return the read-outs that a panel asks for, the plain one first."""
    return [Variant(), *(Variant(name, skip_norm=True) for name in panel.readouts if name == "no_norm")]
