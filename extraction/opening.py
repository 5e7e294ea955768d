"""The model that a session names or holds, ready to be read."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from dynstat.errors import DynstatError, DynstatWarning

from .given import is_file
from .models.encoding import Encoder, encoder_of, load_tokenizer
from .models.loading import Loaded, load, wrap
from .models.sources import Source, locate
from .panels.measures import bad
from .panels.panel import ModelSpec

#: What errors say of arguments that are wrong.
WHERE = "extract"


def open_model(
    model: Any,
    tokenizer: Any,
    revision: str | None,
    start_token: str,
    device: str | None,
    dtype: str | None,
    name: str | None,
) -> Loaded:
    """Return a model ready to be read, wherever it is.

    Parameters
    ----------
    model : PreTrainedModel, str or path
        In memory, a folder, a GGUF file, or a hub repository.
    tokenizer : PreTrainedTokenizerBase, str, path or None
        Needed with a model in memory.
    revision : str or None
        Of a hub repository.
    start_token : str
        "bos", "none", or a token's text.
    device, dtype : str or None
        Where and how files are loaded.
    name : str or None
        Label of the model; None for one of its own.

    Raises
    ------
    DynstatError
        Y002 and Y003 (arguments), F001 (no tokenizer), X215 (no such device), and those of `locate`, `load`
        and `wrap`.

    Warns
    -----
    DynstatWarning
        Where the tokenizer has no start token; it points at the caller of `extract`.
    """
    if isinstance(model, torch.nn.Module):
        return _in_memory(model, tokenizer, start_token, device, dtype, name)
    if not isinstance(model, (str, os.PathLike)):
        raise bad("model", type(model).__name__, "a model of transformers, a folder, a file or a name", WHERE)
    spec = _spec(model, tokenizer, revision, name)
    for key, value, allowed in (
        ("device", device, ("cpu", "cuda")),
        ("dtype", dtype, ("float32", "bfloat16", "float16")),
    ):
        if value not in (None, *allowed):
            raise bad(key, value, " | ".join(allowed), WHERE)
    if device == "cuda" and not torch.cuda.is_available():
        raise DynstatError(
            "X215",
            "torch sees no CUDA device",
            where=WHERE,
            found=torch.__version__,
            mend='say device="cpu"',
        )
    source = locate(spec, dtype or "float32")
    encoder = _encoder(_tokenizer_of(source), start_token, spec.id)
    return load(source, encoder, device or "cpu")


def _in_memory(
    model: Any, tokenizer: Any, start_token: str, device: str | None, dtype: str | None, name: str | None
) -> Loaded:
    config = getattr(model, "config", None)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if config is None or head is None:
        raise bad("model", type(model).__name__, "a causal model of transformers, head included", WHERE)
    if any(p.is_meta for p in model.parameters()):
        raise bad(
            "model", f"{type(model).__name__} without values", "a model whose weights are loaded", WHERE
        )
    if tokenizer is None:
        raise DynstatError(
            "Y003",
            "a model in memory needs its tokenizer",
            where=WHERE,
            found="tokenizer=None",
            expected="tokenizer=AutoTokenizer.from_pretrained(...), or the folder of one",
            mend="give tokenizer=",
        )
    for key, value, has in (
        ("device", device, model.device.type),
        ("dtype", dtype, str(model.dtype).removeprefix("torch.")),
    ):
        if value not in (None, has):
            raise bad(key, value, f"{has}, as the model is: it is not changed here", WHERE)
    label = name or Path(str(getattr(config, "_name_or_path", "") or "")).name or str(config.model_type)
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = _tokenizer_of(Source(ModelSpec(label, "folder", ""), Path(), (), _folder(tokenizer), ""))
    return wrap(model, _encoder(tokenizer, start_token, label), id=label)


def _spec(model: Any, tokenizer: Any, revision: str | None, name: str | None) -> ModelSpec:
    place, words = is_file(model), os.fspath(model)
    if tokenizer is not None and not isinstance(tokenizer, (str, os.PathLike)):
        raise bad("tokenizer", type(tokenizer).__name__, "the folder of a tokenizer", WHERE)
    own = None if tokenizer is None else _folder(tokenizer)
    if place is not None:
        kind = "folder" if place.is_dir() else "gguf"
        return ModelSpec(
            name or (place.stem if kind == "gguf" else place.name), kind, str(place), tokenizer=own
        )
    if revision is None:
        raise DynstatError(
            "Y002",
            f"there is no folder or file {words!r}, and a hub repository needs a revision",
            where=WHERE,
            found="no revision",
            expected="a commit of the repository",
            mend="correct the path, or give revision=, so that the result means the same weights next year",
        )
    return ModelSpec(name or words.rpartition("/")[2], "hub", words, revision, own)


def _folder(given: str | os.PathLike[str]) -> Path:
    place = is_file(given)
    if place is None or not (place / "tokenizer.json").is_file():
        raise DynstatError(
            "F001",
            "there is no tokenizer.json",
            where=os.fspath(given),
            expected="the folder of a tokenizer",
            mend="give its folder, or, with a model in memory, the tokenizer itself",
        )
    return place


def file_of(text: str) -> Path:
    """Return the path that a text names, ``data:`` or not."""
    return is_file(text) or Path(text).absolute()


def _tokenizer_of(source: Source) -> Any:
    try:
        return load_tokenizer(source)
    except DynstatError:
        raise
    except Exception as e:  # every library below has its own classes for a bad file
        raise DynstatError(
            "F003", f"the tokenizer cannot be read: {e}", where=f"model {source.spec.id!r}"
        ) from e


def _encoder(tokenizer: Any, start_token: str, name: str) -> Encoder:
    if start_token == "bos" and tokenizer.bos_token not in tokenizer.get_vocab():
        warnings.warn(
            DynstatWarning(
                f"the tokenizer of {name!r} has no start token, so texts start with their first word; "
                "start_token= names another, or 'none'"
            ),
            stacklevel=5,
        )
        start_token = "none"
    return encoder_of(tokenizer, start_token, f"model {name!r}")
