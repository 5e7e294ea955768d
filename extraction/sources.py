"""Find the files of a model and hash them: folder, GGUF file, or pinned hub repository; no torch here."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import sha256_bytes, sha256_file

from .panel import ModelSpec

DTYPE = "float32"  # where a panel does not say
_WANTED = [
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
]
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Source:
    """The files of one model.

    Attributes
    ----------
    spec : ModelSpec
        What the panel says.
    folder : Path
        Folder of the weights.
    weights : tuple of Path
        Safetensors files, or the one GGUF file.
    tokenizer : Path or None
        Folder of the tokenizer; None where it lies inside the GGUF file.
    revision : str
        Commit of a hub repository, else what the panel says.
    dtype : str
        Number format its weights are loaded in.
    """

    spec: ModelSpec
    folder: Path
    weights: tuple[Path, ...]
    tokenizer: Path | None
    revision: str
    dtype: str = DTYPE

    @property
    def is_gguf(self) -> bool:
        """Whether the weights are one GGUF file."""
        return self.weights[0].suffix == ".gguf"

    def identity(self) -> dict[str, Any]:
        """Give the hashes that say which model this is, whatever its path."""
        config = self.folder / "config.json"
        return {
            "id": self.spec.id,
            "revision": self.revision,
            "weights_sha256": self.weights_sha256(),
            "config_sha256": "" if self.is_gguf else sha256_file(config),
            "tokenizer_sha256": self.tokenizer_sha256(),
            "dtype": self.dtype,
        }

    def weights_sha256(self) -> str:
        """Return the hash of the weights: of the file, or of the list of names and hashes of several.

        Raises
        ------
        DynstatError
            X214 where the panel registers another hash.
        """
        hashes = [sha256_file(f) for f in self.weights]
        lines = "".join(f"{h}  {f.name}\n" for h, f in zip(hashes, self.weights, strict=True))
        found = hashes[0] if len(hashes) == 1 else sha256_bytes(lines.encode())
        if self.spec.weights_sha256 not in ("", found):
            raise DynstatError(
                "X214",
                f"weights of {self.spec.id!r} are not those of the panel",
                where=str(self.weights[0]),
                found=found,
                expected=self.spec.weights_sha256,
                mend="fetch the file that the panel names",
            )
        return found

    def tokenizer_sha256(self) -> str:
        """Return the hash of tokenizer.json, or of the tokenizer that is read out of a GGUF file."""
        if self.tokenizer is not None:
            return sha256_file(self.tokenizer / "tokenizer.json")
        from .encoding import load_tokenizer

        # The same file gave other tokens under other versions of transformers, so the result is hashed.
        return sha256_bytes(load_tokenizer(self).backend_tokenizer.to_str().encode())


def locate(spec: ModelSpec, dtype: str = DTYPE) -> Source:
    """Find the files of a model, in the hub's cache or on the hub where it is pinned there.

    Parameters
    ----------
    spec : ModelSpec
        What the panel says.
    dtype : {"float32", "bfloat16", "float16"}, optional
        Number format its weights are to be loaded in.

    Raises
    ------
    DynstatError
        X201 (no such model), X202 (no such revision), X210 (pickled weights only), F001 (no tokenizer).
    """
    if spec.kind == "gguf":
        file = Path(spec.location)
        if not file.is_file():
            raise _no_model(spec, "no such GGUF file", "give its place: --model-path " + f"{spec.id}=FILE")
        if file.open("rb").read(4) != b"GGUF":
            raise DynstatError("F003", f"{file.name} is not a GGUF file", where=str(file), expected="GGUF")
        return Source(spec, file.parent, (file,), _tokenizer(spec, None), spec.revision, dtype)
    folder, revision = (Path(spec.location), spec.revision) if spec.kind == "folder" else _snapshot(spec)
    if not (folder / "config.json").is_file():
        raise _no_model(spec, "no folder with a config.json", "correct the path, or pin a hub repository")
    return Source(spec, folder, _weights(spec, folder), _tokenizer(spec, folder), revision, dtype)


def _no_model(spec: ModelSpec, found: str, mend: str) -> DynstatError:
    return DynstatError(
        "X201",
        f"model {spec.id!r} was not found",
        where=spec.location,
        found=found,
        expected="a folder, a GGUF file, or a hub repository with a revision",
        mend=mend,
    )


def _weights(spec: ModelSpec, folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as e:
            raise DynstatError("F003", f"{index.name} cannot be read: {e}", where=str(index)) from e
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise DynstatError(
                "F001", f"{missing[0]} does not exist", where=str(folder), problems=missing[1:]
            )
        return tuple(folder / n for n in names)
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",)
    pickled = [f.name for pattern in _PICKLED for f in sorted(folder.glob(pattern))]
    if pickled:
        raise DynstatError(
            "X210",
            f"model {spec.id!r} has pickled weights only",
            where=str(folder),
            found=", ".join(pickled),
            expected="*.safetensors",
            mend="convert them where you trust them, with save_pretrained",
        )
    if spec.kind == "hub":  # pickled files are not even fetched
        raise _no_model(
            spec,
            "no *.safetensors among its files",
            "choose a revision that holds them; connect if a download was cut off",
        )
    raise _no_model(spec, "no *.safetensors in the folder", "save the model with save_pretrained")


def _tokenizer(spec: ModelSpec, folder: Path | None) -> Path | None:
    place = spec.tokenizer or folder
    if place is not None and not (place / "tokenizer.json").is_file():
        raise DynstatError(
            "F001",
            f"model {spec.id!r} has no tokenizer.json",
            where=str(place),
            mend="name the folder of its tokenizer with `tokenizer:`",
        )
    return place


def _snapshot(spec: ModelSpec) -> tuple[Path, str]:
    """Return the folder and commit of a hub repository; the cache first, so that offline runs work."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    ask: dict[str, Any] = {
        "revision": spec.revision,
        "allow_patterns": _WANTED,
        "cache_dir": constants.HF_HUB_CACHE,
    }
    try:
        try:
            found = Path(snapshot_download(spec.location, local_files_only=True, **ask))
            if not _is_whole(spec, found):
                raise LocalEntryNotFoundError("incomplete snapshot")
        except LocalEntryNotFoundError:
            found = Path(snapshot_download(spec.location, **ask))
    except HFValidationError as e:
        raise _no_model(spec, str(e), "write it as owner/name") from e
    except RevisionNotFoundError as e:
        raise _no_revision(spec, "the hub has no such revision") from e
    except RepositoryNotFoundError as e:
        raise _no_model(spec, "the hub has no such repository, or it is private", "check the name") from e
    except Exception as e:  # the network below has its own classes, of no common kind
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise DynstatError(
                "F002",
                f"{spec.location} cannot be stored: {e.strerror}",
                where=constants.HF_HUB_CACHE,
                mend="free space, or let HF_HOME name a folder you may write to",
            ) from e
        cached = Path(constants.HF_HUB_CACHE) / f"models--{spec.location.replace('/', '--')}" / "snapshots"
        if (cached / spec.revision).is_dir():
            raise _no_model(
                spec, "a part of it is in the cache, and the hub was not reached", "connect, and run it again"
            ) from e
        if cached.is_dir() and any(cached.iterdir()):
            have = ", ".join(sorted(p.name for p in cached.iterdir()))
            raise _no_revision(spec, f"the cache holds {have}; the hub was not reached") from e
        raise _no_model(
            spec, "not in the cache, and the hub was not reached", "connect, or give a folder"
        ) from e
    return found, found.name


def _is_whole(spec: ModelSpec, folder: Path) -> bool:
    """Say whether everything that is read is there: a download may have been cut off, or been another's."""
    try:
        _weights(spec, folder)
        _tokenizer(spec, folder)
    except DynstatError:
        return False
    return (folder / "config.json").is_file()


def _no_revision(spec: ModelSpec, found: str) -> DynstatError:
    return DynstatError(
        "X202",
        f"{spec.location} has no revision {spec.revision!r}",
        where=f"model {spec.id!r}",
        found=found,
        expected="a commit of the repository",
        mend="correct `revision:`",
    )
