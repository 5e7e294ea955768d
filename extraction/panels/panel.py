"""A panel: which models read which prompts, how often, how far, and what is measured; no torch here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dynstat.dataset.schema import ALWAYS, COORDINATES
from dynstat.errors import DynstatError
from dynstat.files import canonical_hash, sha256_file

from .user_metrics import register

SCHEMA = "panel/1"
_PROMPT_KEYS = {"id", "text", "category", "template", "split", "answers", "distractors"}


@dataclass(frozen=True)
class ModelSpec:
    """One model of a panel: where its weights lie, which tokenizer it reads with, its factors.

    Attributes
    ----------
    id : str
        Stable name, the label on dim ``model``.
    kind : {"folder", "hub", "gguf"}
        What `location` is: a folder in the layout of transformers, a hub repository, a GGUF file.
    location : str
        Path, or ``owner/name`` of a hub repository.
    revision : str
        Commit or tag of a hub repository; else "local".
    tokenizer : Path or None
        Folder of the tokenizer; None for the model's own.
    family : str
        Group of related models.
    factors : mapping
        Coordinates along dim ``model``: design factors of the panel.
    weights_sha256 : str
        Hash that the weights must have, or "".
    """

    id: str
    kind: str
    location: str
    revision: str = "local"
    tokenizer: Path | None = None
    family: str = ""
    factors: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    weights_sha256: str = ""


@dataclass(frozen=True)
class Intervention:
    """A change of the states at one layer while a model reads and writes.

    Attributes
    ----------
    kind : str
        Name of the change, see docs/extraction.md.
    target_layer : int
        Layer whose state is changed, as on dim ``layer``.
    dose : float
        Strength; 0 changes nothing.
    phase : {"all", "prompt", "generated"}
        Tokens at which it acts.
    """

    kind: str
    target_layer: int
    dose: float
    phase: str = "all"

    def as_dict(self) -> dict[str, Any]:
        """Give it as a plain mapping."""
        return dict(vars(self))


@dataclass(frozen=True)
class Sample:
    """One way of writing: a seed at a temperature, the most probable token throughout, or nothing.

    Attributes
    ----------
    id : str
        Label on dim ``sample``.
    seed : int
        Seed of the draws, -1 where nothing is drawn.
    temperature : float
        Divisor of the logits, 0 where nothing is drawn.
    budget : int
        Tokens written after the prompt.
    mode : {"generated", "forced"}
        Whether the model writes or only reads the prompt.
    intervention : Intervention or None
        What is done to the states meanwhile.
    """

    id: str
    seed: int
    temperature: float
    budget: int
    mode: str
    intervention: Intervention | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give the coordinates as a plain mapping; those of an intervention only where there is one."""
        own = {k: v for k, v in vars(self).items() if k != "intervention"}
        return own | (self.intervention.as_dict() if self.intervention else {})


@dataclass(frozen=True)
class Panel:
    """What a panel file says, checked, with every default filled in.

    Attributes
    ----------
    id, title, license : str
        Name of the panel and what it may be used for.
    file : Path
        The file it was read from.
    models : tuple of ModelSpec
        In the order of dim ``model``.
    prompt_file, split : Path, str
        The prompts, and which split of them.
    samples : tuple of Sample
        In the order of dim ``sample``: greedy first, then seeds within temperatures.
    budget : int
        Tokens written after each prompt; 0 in mode "forced".
    mode : {"generated", "forced"}
        Whether models write a continuation or only read the prompt.
    start_token : str
        "none", "bos" (the tokenizer's own), or the text of the special token that starts every sequence.
    end_of_text : {"ignore", "stop", "suppress"}
        "ignore": end of text is a token like any other, so every run has the same length.
    truncate : bool
        Cut sequences at the context of the model instead of refusing them.
    nonfinite : {"error", "flag"}
        What happens where logits or states are not finite.
    readouts : tuple of str
        "logit_lens" always; "no_norm", "t_matched", "top_k", "tuned" beside it, in this order.
    metrics : tuple of mapping
        Each ``{"metric": "name@version", option: value, ...}`` with all options filled in; ``"as"`` names
        the variable where it is not the metric's name.
    threads : int
        Threads of torch; part of the identity, since sums depend on how work is split.
    batch_tokens : int
        Bound on the tokens of one batch, the unit of work and of a shard.
    device : {"cpu", "cuda"}
        Where it is computed; part of the identity, since GPUs sum in another order.
    dtype : {"float32", "bfloat16", "float16"}
        Number format of the weights and of the forward pass; the lens is float32 always.
    padding : {"none", "right"}
        "right" lets prompts of different lengths be read together, in mode "forced" only.
    register : Path or None
        Python file that registers the user's own metrics.
    register_sha256 : str
        Hash of that file when the panel was read, to which the panel is bound.
    readout_options : mapping of str to mapping
        By read-out, where it has any: t_matched ``entropy`` (nat) and ``text`` (Path), top_k ``k``, tuned
        ``translators`` (Path by model id).
    """

    id: str
    title: str
    license: str
    file: Path
    models: tuple[ModelSpec, ...]
    prompt_file: Path
    split: str
    samples: tuple[Sample, ...]
    budget: int
    mode: str
    start_token: str
    end_of_text: str
    truncate: bool
    nonfinite: str
    readouts: tuple[str, ...]
    metrics: tuple[Mapping[str, Any], ...]
    threads: int
    batch_tokens: int
    device: str = "cpu"
    dtype: str = "float32"
    padding: str = "none"
    register: Path | None = None
    register_sha256: str = ""
    readout_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def prompts(self) -> list[dict[str, Any]]:
        """Read the prompts of the panel's split.

        Raises
        ------
        DynstatError
            F001 (no such file), Y003 (no prompt of that split), X205 (a prompt without text).
        """
        from dynstat.dataset.prompts import read_prompts

        prompts = read_prompts(self.prompt_file, split=self.split)
        if not prompts:
            raise DynstatError(
                "Y003",
                f"no prompt has split {self.split!r}",
                where=str(self.prompt_file),
                found=self.split,
                mend="name a split that the file holds",
            )
        check_columns(prompts, str(self.prompt_file))
        empty = [p["id"] for p in prompts if not p["text"].strip()]
        if empty:
            raise DynstatError(
                "X205",
                f"prompt {empty[0]!r} is empty",
                where=str(self.prompt_file),
                found="no text",
                expected="at least one token",
                mend="give it text or remove it",
                problems=[f"prompt {name!r} is empty" for name in empty[1:]],
            )
        return prompts

    def settings(self) -> dict[str, Any]:
        """Give everything in the panel that changes values, apart from models and prompts.

        In a process to which the panel was sent this is where the user's metrics are registered, and not
        when it is unpacked: a scheduler that only passes it on needs neither the file nor to run it.
        """
        return {
            "samples": [s.as_dict() for s in self.samples],
            "budget": self.budget,
            "mode": self.mode,
            "start_token": self.start_token,
            "end_of_text": self.end_of_text,
            "truncate": self.truncate,
            "nonfinite": self.nonfinite,
            "readouts": list(self.readouts),
            "metrics": [dict(m) for m in self.metrics],
            "threads": self.threads,
            "batch_tokens": self.batch_tokens,
            # Named only where they are not the default, so that panels keep the hash that locks have bound.
            **({} if self.device == "cpu" else {"device": self.device}),
            **({} if self.padding == "none" else {"padding": self.padding}),
            **({} if self.register is None else {"register_sha256": self._registered()}),
            **({"readout_options": self._readout_options()} if self.readout_options else {}),
        }

    def _registered(self) -> str:
        assert self.register is not None
        return register(self.register, self.register_sha256)

    def _readout_options(self) -> dict[str, Any]:
        """Give the options of the read-outs with the hashes of files in place of their paths."""
        out: dict[str, dict[str, Any]] = {}
        for name, options in self.readout_options.items():
            out[name] = {}
            for key, value in options.items():
                if isinstance(value, Path):
                    out[name][f"{key}_sha256"] = _sha256(value)
                elif isinstance(value, Mapping):
                    out[name][f"{key}_sha256"] = {k: _sha256(v) for k, v in value.items()}
                else:
                    out[name][key] = value
        return out

    def inputs(self) -> dict[str, Any]:
        """Give what a lock binds: hashes of prompts, weights and tokenizers, and the settings.

        Returns
        -------
        dict
            Keys ``prompts``, ``models``, ``settings``; paths, titles and dates are not in it.

        Raises
        ------
        DynstatError
            F001, X201, X202, X210 where a file or model is missing.
        """
        from ..models.sources import locate

        prompts = self.prompts()
        return {
            "prompts": {"sha256": sha256_file(self.prompt_file), "split": self.split, "n": len(prompts)},
            "models": [locate(spec, self.dtype).identity() for spec in self.models],
            "settings": self.settings(),
        }

    @cached_property
    def sha256(self) -> str:
        """Hash of the panel file's bytes, taken once: a run goes on as the file was when it was planned."""
        return sha256_file(self.file)

    def with_paths(self, paths: Mapping[str, str | os.PathLike[str]]) -> Panel:
        """Return the panel with the files of some models elsewhere.

        Parameters
        ----------
        paths : mapping of str to path
            New place by model id; a hub repository becomes a folder or file.

        Raises
        ------
        DynstatError
            Y003 where the panel has no such model.
        """
        known = [m.id for m in self.models]
        for name in paths:
            if name not in known:
                raise DynstatError(
                    "Y003",
                    f"the panel has no model {name!r}",
                    where=str(self.file),
                    found=name,
                    expected=", ".join(known),
                    mend="name a model of the panel",
                )
        moved = []
        for spec in self.models:
            if spec.id in paths:
                place = Path(paths[spec.id]).absolute()
                kind = "gguf" if place.suffix == ".gguf" else "folder"
                spec = replace(spec, kind=kind, location=str(place))
            moved.append(spec)
        return replace(self, models=tuple(moved))


def check_columns(prompts: Iterable[Mapping[str, Any]], where: str) -> None:
    """Refuse columns of prompts that cannot become coordinates.

    Raises
    ------
    DynstatError
        Y002.
    """
    for column in sorted(set().union(*prompts) - _PROMPT_KEYS):
        if column in COORDINATES or column in ALWAYS or not column.isidentifier():
            raise DynstatError(
                "Y002",
                f"{column!r} cannot be a column of prompts",
                where=where,
                expected="a name of letters, digits and _ that the schema does not use",
                mend="rename it",
            )


def _sha256(file: Path) -> str:
    # Asked for every batch, and translators are large.
    return _sha256_of(file, file.stat().st_mtime_ns) if file.is_file() else sha256_file(file)


@lru_cache(maxsize=256)
def _sha256_of(file: Path, _changed: int) -> str:
    return sha256_file(file)


def load_panel(path: str | os.PathLike[str]) -> Panel:
    """Read and check a panel file.

    Parameters
    ----------
    path : path
        YAML with ``dynstat: panel/1``; docs/extraction.md lists the keys. Paths in it are relative to
        the file, or start with ``data:`` for files that come with dynstat.

    Raises
    ------
    DynstatError
        F001 (no such file), Y001 (not strict YAML), Y002 (unknown or missing key), Y003 (value).

    Examples
    --------
    >>> import dynstat
    >>> panel = load_panel(dynstat.data_path("panels/pilot.yaml"))
    >>> len(panel.models), panel.split
    (6, 'pilot')
    """
    from .panelfile import read_panel

    return read_panel(Path(path))


def panel_hash(inputs: Mapping[str, Any]) -> str:
    """Return the canonical hash of a panel's inputs, by which a lock and a store know it."""
    return canonical_hash(dict(inputs))
