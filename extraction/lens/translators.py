"""Translators of the tuned lens: one affine map a layer, in a file that says which model it belongs to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dynstat.errors import DynstatError
from dynstat.files import canonical_json, write_atomic

from ..models.loading import Loaded

SCHEMA = "dynstat-translators-1"
_KEY = "dynstat"  # all metadata in one entry: the order of several is not fixed in the file


@dataclass(frozen=True)
class Translators:
    """An affine map of the states of every layer but the last, which is left as it is.

    State h of layer l becomes ``h + A_l h + b_l``, before the read-out of the model with its final norm.

    Attributes
    ----------
    weight : Tensor of float32, shape (layer - 1, width, width)
        A_l; 0 changes nothing.
    bias : Tensor of float32, shape (layer - 1, width)
        b_l.
    about : mapping
        What the file says of them: ``weights_sha256`` of the model, ``readout``, ``text_sha256``,
        ``dynstat``, ``training`` settings, ``losses``.

    References
    ----------
    Belrose et al. 2023, Eliciting Latent Predictions from Transformers with the Tuned Lens, arXiv:2303.08112.
    """

    weight: Tensor
    bias: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, layer: int, states: Tensor) -> Tensor:
        """Return translated states of one layer.

        Parameters
        ----------
        layer : int
            As on dim ``layer``: 0 is the input of the first block.
        states : Tensor, shape (..., width)
            Before the final norm.

        Returns
        -------
        Tensor of float32, shape of `states`
            The very same tensor at the last layer.
        """
        if layer == len(self.weight):
            return states
        states = states.float()
        return states + states @ self.weight[layer].T + self.bias[layer]

    def to(self, device: torch.device) -> Translators:
        """Return the same translators on another device."""
        return Translators(self.weight.to(device), self.bias.to(device), self.about)


def fingerprint(model: Loaded) -> dict[str, Any]:
    """Return what translators must agree with: weights, read-out, width and number of layers.

    Parameters
    ----------
    model : Loaded
        A model of files or of memory.

    Returns
    -------
    dict
        ``weights_sha256``, ``readout``, ``width``, ``layers`` (the input of the first block included).
    """
    return {
        "weights_sha256": model.source.identity()["weights_sha256"],
        "readout": model.readout.describe(),
        "width": state_width(model),
        "layers": len(model.blocks) + 1,
    }


def state_width(model: Loaded) -> int:
    """Return the width of a state as it is captured: of all residual streams, where there are several."""
    streams = getattr(model.readout, "streams", ())
    return math.prod(streams) if streams else int(model.lm.config.get_text_config().hidden_size)


def save_translators(path: Path, translators: Translators) -> Path:
    """Write translators as safetensors, whole or not at all.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    translators : Translators
        With all of `about` filled in.

    Returns
    -------
    Path

    Raises
    ------
    DynstatError
        F002 where it cannot be written.
    """
    tensors = {"weight": translators.weight.contiguous(), "bias": translators.bias.contiguous()}
    about = canonical_json({"schema": SCHEMA, **translators.about}).decode()
    return write_atomic(path, save(tensors, metadata={_KEY: about}))


def load_translators(path: Path, model: Loaded) -> Translators:
    """Read translators and check that they are of this model.

    Parameters
    ----------
    path : Path
        File that :func:`save_translators` wrote.
    model : Loaded
        The model that is read.

    Returns
    -------
    Translators
        On the device of the model.

    Raises
    ------
    DynstatError
        F001 (no such file), F003 (not a file of translators), X220 (of other weights, of another read-out,
        of another width or number of layers).
    """
    about, tensors = _read(path)
    wanted = fingerprint(model)
    n, width = wanted["layers"] - 1, wanted["width"]
    shapes = {"weight": (n, width, width), "bias": (n, width)}
    wrong = [f"{k} {about.get(k)!r}, not {v!r}" for k, v in wanted.items() if about.get(k) != v]
    wrong += [
        f"{k} of shape {tuple(tensors[k].shape)}, not {v}"
        for k, v in shapes.items()
        if tuple(tensors[k].shape) != v
    ]
    if wrong:
        raise DynstatError(
            "X220",
            f"the translators are not of model {model.id!r}",
            where=str(path),
            found=wrong[0],
            expected="translators that were trained with these weights",
            problems=wrong[1:],
            mend="train them with python -m dynstat.extraction.training.tuned",
        )
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise _unreadable(path, "values that are not finite")
    return Translators(tensors["weight"].float(), tensors["bias"].float(), about).to(model.device)


def read_about(path: Path) -> dict[str, Any]:
    """Return what a file of translators says of them, for any model.

    Raises
    ------
    DynstatError
        F001 (no such file), F003 (not a file of translators).
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise DynstatError(
            "F001", f"{path.name} does not exist", where=str(path), mend="correct `translators:`"
        )
    try:
        with safe_open(str(path), "pt") as f:
            about = json.loads((f.metadata() or {})[_KEY])
            tensors = {name: f.get_tensor(name) for name in ("weight", "bias")}
    except (SafetensorError, OSError, ValueError, KeyError) as e:
        raise _unreadable(path, f"{type(e).__name__}: {e}") from e
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise _unreadable(path, "another schema")
    return about, tensors


def _unreadable(path: Path, found: str) -> DynstatError:
    return DynstatError(
        "F003", f"{path.name} holds no translators", where=str(path), found=found, expected=SCHEMA
    )
