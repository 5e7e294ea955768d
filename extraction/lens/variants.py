"""The ways in which a state is read as a distribution, beside the plain lens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dynstat import data_path
from dynstat.files import read_text, sha256_file

from ..models.loading import Loaded
from ..panels.panel import Panel
from .calibrate import TEXT, TOLERANCE, WINDOW, final_states, matched_temperature
from .translators import load_translators

#: Tokens that `top_k` keeps where the panel does not say.
TOP_K = 50


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
        Attributes its variables carry beside ``readout``: alike for all models of a panel.
    facts : mapping
        What the variant is for this model alone: coordinates along dim ``model``.
    """

    name: str = ""
    skip_norm: bool = False
    temperature: float = 1.0
    top_k: int = 0
    translate: Callable[[int, Tensor], Tensor] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str | float] = field(default_factory=dict)


def variants_of(panel: Panel, model: Loaded) -> list[Variant]:
    """Return the read-outs that a panel asks for, the plain one first.

    A temperature is matched here, which reads the held-out text once: call it once a model.

    Parameters
    ----------
    panel : Panel
        Its `readouts` and their options.
    model : Loaded
        The model that is read.

    Returns
    -------
    list of Variant
        In the order of the panel.

    Raises
    ------
    DynstatError
        X207 (no norm to leave out), X220 (translators of another model), X224 (no such temperature), F001
        and S404 (held-out text missing or too short).
    """
    make = {"no_norm": _no_norm, "t_matched": _t_matched, "top_k": _top_k, "tuned": _tuned}
    asked = [name for name in panel.readouts if name in make]
    return [Variant(), *(make[name](panel.readout_options.get(name, {}), model) for name in asked)]


def _no_norm(options: Mapping[str, Any], model: Loaded) -> Variant:
    model.readout.without_norm()  # refused now, and not in the middle of a batch
    return Variant("no_norm", skip_norm=True)


def _top_k(options: Mapping[str, Any], model: Loaded) -> Variant:
    k = int(options.get("k", TOP_K))
    return Variant("top_k", top_k=k, attrs={"readout_k": k})


def _t_matched(options: Mapping[str, Any], model: Loaded) -> Variant:
    entropy, text = float(options["entropy"]), Path(options.get("text") or data_path(TEXT))
    final = final_states(model, read_text(text), str(text))
    temperature = matched_temperature(final, entropy, str(text))
    return Variant(
        "t_matched",
        temperature=temperature,
        attrs={
            "readout_entropy": entropy,
            "readout_text_sha256": sha256_file(text),
            "readout_tolerance": TOLERANCE,
            "readout_window": WINDOW,
        },
        facts={"t_matched_temperature": temperature},
    )


def _tuned(options: Mapping[str, Any], model: Loaded) -> Variant:
    file = Path(options["translators"][model.id])
    return Variant(
        "tuned",
        translate=load_translators(file, model),
        facts={"tuned_translators_sha256": sha256_file(file)},
    )
