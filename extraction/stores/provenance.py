"""Say what computed a shard; it is stored with the shard and is no part of the content hash."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import dynstat
from dynstat.files import sha256_bytes

from ..lens.engine import Engine
from ..models.device import name_of
from ..models.loading import Loaded
from ..panels.panel import Panel
from ..runs.cache import caching
from .batches import Batch

_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "gguf", "numpy", "xarray", "netCDF4")


def of_model(panel: Panel, model: Loaded, identity: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """Describe what is the same for all shards of one model.

    Parameters
    ----------
    panel : Panel
        What is extracted.
    model : Loaded
        The model.
    identity : mapping
        Its hashes, as in the plan's inputs.
    engine : Engine
        How the lens is computed.

    Returns
    -------
    dict
        Plain values; no path and no name of a host.
    """
    config = model.lm.config.to_dict()
    way = caching(model)
    return {
        "dynstat": dynstat.__version__,
        "dynstat_commit": _commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "device": name_of(model.device),
        "threads": panel.threads,
        "engine": engine.as_dict(),
        "model": {
            **identity,
            "config_json_sha256": _hash({k: v for k, v in config.items() if k not in _PLACES}),
            "attention": str(getattr(model.lm.config, "_attn_implementation", "")),
            "weights_dtype": _dtype(model),
            "forward_dtype": _dtype(model),
        },
        "lens_dtype": "float32",
        "readout": model.readout.describe(),
        "readout_error": model.readout.error,
        "hidden_state_norm": "pre_final_norm",
        "prompt_part": {
            "generation": way.generation,
            "reading": way.reading,
            "difference": way.difference,
        },
        "tokens": {
            "start": panel.start_token,
            "start_ids": list(model.encoder.start),
            "added_by_tokenizer": "none",
            "end_of_text": panel.end_of_text,
            "chat_template_sha256": _chat_template(model),
        },
        "sampling": {"generator": "Philox on cpu", "top_k": "none", "top_p": "none"},
    }


def of_batch(panel: Panel, model: Loaded, batch: Batch) -> dict[str, Any]:
    """Describe what was computed together for one shard."""
    several = len(batch.samples) > 1 and min(map(len, batch.ids)) > 1
    untouched = all(s.intervention is None or s.intervention.phase == "generated" for s in batch.samples)
    shared = several and untouched and len({len(i) for i in batch.ids}) == 1
    return {
        "batch": {
            "rows": batch.rows,
            "prompts": len(batch.prompts),
            "padding": panel.padding,
            "prompt_part": caching(model).reading if shared else "whole",
            "seeds": sorted({s.seed for s in batch.samples}),
            "temperatures": sorted({s.temperature for s in batch.samples}),
        }
    }


# Where the files lay and which library wrote them is said elsewhere, or must not be said.
_PLACES = ("_name_or_path", "transformers_version")


def _hash(value: Any) -> str:
    # Configs hold infinities, which canonical JSON has no word for.
    return sha256_bytes(json.dumps(value, sort_keys=True, default=str).encode())


def _dtype(model: Loaded) -> str:
    return str(next(model.lm.parameters()).dtype).removeprefix("torch.")


def _chat_template(model: Loaded) -> str:
    template = getattr(model.encoder.tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        return _hash(dict(template))
    return sha256_bytes(template.encode()) if isinstance(template, str) else ""


def _version(name: str) -> str:
    if name == "torch":
        return torch.__version__
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@lru_cache(maxsize=1)
def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _commit() -> str:
    """Return the commit of dynstat where it runs in a checkout, with ``+`` where files differ from it."""
    root = Path(dynstat.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=20, check=True,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0] + "+" * bool(said[1])
