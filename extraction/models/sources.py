"""Find the files of a model and hash them: folder, GGUF file, or pinned hub repository; no torch here."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynstat.errors import DynstatError
from dynstat.files import sha256_bytes, sha256_file

from ..panels.panel import ModelSpec

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
    stamp : tuple of tuple of int
        Size and time of change of config and weights when they were found; empty where nothing is loaded.
    """

    spec: ModelSpec
    folder: Path
    weights: tuple[Path, ...]
    tokenizer: Path | None
    revision: str
    dtype: str = DTYPE
    stamp: tuple[tuple[int, int], ...] = ()

    def stamped(self) -> Source:
        """Return it with the stamp of its files as they are now."""
        return replace(self, stamp=_stamp(self))

    def check_unchanged(self) -> None:
        """Refuse files that changed since they were found: their hash was taken then, or after.

        Raises
        ------
        DynstatError
            X214.
        """
        if self.stamp and self.stamp != _stamp(self):
            raise DynstatError(
                "X214",
                f"files of {self.spec.id!r} changed while the run was under way",
                where=str(self.folder),
                found="another size or time of change of config or weights",
                expected="the files that were hashed when it began",
                mend="put them back, or run it again: other weights are another panel",
            )

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
        X201 (no such model), X202 (no such revision), X210 (pickled weights only), F001 (no tokenizer), X218
        (gated, or not for you), X219 (not in the cache, and offline), X225 (its own code, or more than its
        weights, would be loaded).
    """
    if spec.kind == "gguf":
        file = Path(spec.location)
        if not file.is_file():
            raise _no_model(spec, "no such GGUF file", "give its place: --model-path " + f"{spec.id}=FILE")
        if file.open("rb").read(4) != b"GGUF":
            raise DynstatError("F003", f"{file.name} is not a GGUF file", where=str(file), expected="GGUF")
        _check_alone(spec, file.parent)
        return Source(spec, file.parent, (file,), _tokenizer(spec, None), spec.revision, dtype).stamped()
    folder, revision = (Path(spec.location), spec.revision) if spec.kind == "folder" else _snapshot(spec)
    if not (folder / "config.json").is_file():
        raise _no_model(spec, "no folder with a config.json", "correct the path, or pin a hub repository")
    _check_code(spec, folder)
    _check_alone(spec, folder)
    return Source(spec, folder, _weights(spec, folder), _tokenizer(spec, folder), revision, dtype).stamped()


def _stamp(source: Source) -> tuple[tuple[int, int], ...]:
    files = source.weights if source.is_gguf else (source.folder / "config.json", *source.weights)
    try:
        return tuple((s.st_size, s.st_mtime_ns) for s in (f.stat() for f in files))
    except OSError:
        return ((-1, -1),)


def _check_code(spec: ModelSpec, folder: Path) -> None:
    """Refuse a model whose architecture is code that lies beside its weights."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        kind = config["model_type"] if config.get("auto_map") else None
    except (OSError, ValueError, KeyError, AttributeError):
        return  # a damaged config is named where it is read
    if kind is None:
        return
    from transformers import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        raise DynstatError(
            "X225",
            f"model {spec.id!r} is of an architecture that its own repository defines",
            where=str(folder / "config.json"),
            found=f"model_type {kind!r}, which transformers does not hold",
            expected="an architecture of transformers: code from a repository is never run",
            mend="choose a model that transformers holds, or a newer version of transformers",
        )


def _check_alone(spec: ModelSpec, folder: Path) -> None:
    """Refuse what would be loaded beside the files that are hashed, or in their place."""
    found = "adapter_config.json" if (folder / "adapter_config.json").exists() else ""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if spec.kind != "gguf" and (other := config.get("transformers_weights")):
            found = f"transformers_weights: {other}"
    except (OSError, ValueError, AttributeError):
        pass  # a damaged config is named where it is read
    if found:
        raise DynstatError(
            "X225",
            f"model {spec.id!r} is made of more than its weights",
            where=str(folder),
            found=found,
            expected="weights in model.safetensors or in the files of its index, or one GGUF file",
            mend="merge adapters where you trust them and save the whole model, with save_pretrained",
        )


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
    # In the order of transformers: where both are there, it does not look at the index.
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as e:
            raise DynstatError("F003", f"{index.name} cannot be read: {e}", where=str(index)) from e
        if other := [n for n in names if not str(n).endswith(".safetensors")]:
            raise _pickled(spec, folder, other)  # an index may name what it likes
        if missing := [n for n in names if not (folder / n).is_file()]:
            raise DynstatError(
                "F001", f"{missing[0]} does not exist", where=str(folder), problems=missing[1:]
            )
        return tuple(folder / n for n in names)
    if pickled := [f.name for pattern in _PICKLED for f in sorted(folder.glob(pattern))]:
        raise _pickled(spec, folder, pickled)
    if spec.kind == "hub":  # pickled files are not even fetched
        raise _no_model(
            spec,
            "no *.safetensors among its files",
            "choose a revision that holds them; connect if a download was cut off",
        )
    raise _no_model(spec, "no *.safetensors in the folder", "save the model with save_pretrained")


def _pickled(spec: ModelSpec, folder: Path, names: list[str]) -> DynstatError:
    return DynstatError(
        "X210",
        f"model {spec.id!r} has pickled weights",
        where=str(folder),
        found=", ".join(map(str, names)),
        expected="*.safetensors",
        mend="convert them where you trust them, with save_pretrained",
    )


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


@contextmanager
def offline() -> Iterator[None]:
    """Ask nothing of the network while the block runs, in this process and in those it starts.

    What ``HF_HUB_OFFLINE=1`` does, for a while: models of the hub are read from the cache alone.
    """
    from huggingface_hub import constants

    env, known = os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = known
        if env is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = env


def _snapshot(spec: ModelSpec) -> tuple[Path, str]:
    """Return the folder and commit of a hub repository; the cache first, so that offline runs work."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    ask: dict[str, Any] = {
        "revision": spec.revision,
        "allow_patterns": _WANTED,
        "cache_dir": constants.HF_HUB_CACHE,
    }
    try:
        found = Path(snapshot_download(spec.location, local_files_only=True, **ask))
        if not _lacking(spec, found):
            return found, found.name
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as e:
        raise _no_model(spec, str(e), "write it as owner/name") from e
    if constants.HF_HUB_OFFLINE:
        raise _not_cached(spec)
    try:
        found = Path(snapshot_download(spec.location, **ask))
    except Exception as e:  # the network below has its own classes, of no common kind
        raise _refusal(spec, e) from e
    return found, found.name


def _refusal(spec: ModelSpec, e: Exception) -> DynstatError:
    """Say what the hub, or the way to it, answered instead of the files."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # What the hub said may be wrapped into "neither there nor in the cache".
    said = next((c for c in _causes(e) if isinstance(c, HfHubHTTPError)), e)
    status = getattr(getattr(said, "response", None), "status_code", None)
    # A gated repository is a kind of one that is not found, to the library.
    if isinstance(said, GatedRepoError):
        return _no_access(
            spec,
            "gated: its owner lets in who accepted the terms",
            f"accept the terms at {constants.ENDPOINT}/{spec.location}, then log in (`hf auth login`)",
        )
    if isinstance(said, RevisionNotFoundError):
        return _no_revision(spec, "the hub has no such revision")
    if isinstance(said, RepositoryNotFoundError):
        return _no_model(
            spec,
            "the hub knows no such repository, or shows it only to its members",
            "check the name; if it is private, log in (`hf auth login`)",
        )
    if status in (401, 403):
        return _no_access(
            spec,
            f"the hub refused with status {status}",
            "log in (`hf auth login`) with a token that may read this repository",
        )
    if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return DynstatError(
            "F002",
            f"{spec.location} cannot be stored: {e.strerror}",
            where=constants.HF_HUB_CACHE,
            mend="free space, or let HF_HOME name a folder you may write to",
        )
    folder, revisions = _cached(spec)
    if folder is not None:
        return _no_model(
            spec, "a part of it is in the cache, and the hub was not reached", "connect, and run it again"
        )
    if revisions:
        return _no_revision(spec, f"the cache holds {', '.join(revisions)}; the hub was not reached")
    return _no_model(spec, "not in the cache, and the hub was not reached", "connect, or give a folder")


def _causes(e: BaseException | None) -> Iterator[BaseException]:
    while e is not None:
        yield e
        e = e.__cause__ or e.__context__


def _no_access(spec: ModelSpec, found: str, mend: str) -> DynstatError:
    return DynstatError(
        "X218",
        f"{spec.location} may not be read",
        where=f"model {spec.id!r}",
        found=found,
        expected="a repository that you may read",
        mend=mend,
    )


def _not_cached(spec: ModelSpec) -> DynstatError:
    folder, revisions = _cached(spec)
    if folder is not None:
        try:
            _weights(spec, folder)
        except DynstatError as e:
            if e.code == "X210":
                return e
        found = f"no {', no '.join(_lacking(spec, folder))}"
    elif revisions:
        found = f"revision {', '.join(revisions)}"
    else:
        found = "nothing of it"
    return DynstatError(
        "X219",
        f"the cache lacks files of {spec.location}, and nothing may be fetched",
        where=f"model {spec.id!r}, revision {spec.revision}",
        found=found,
        expected="config.json, *.safetensors and tokenizer.json in the cache",
        mend="run it once where the network is, without --offline and HF_HUB_OFFLINE, or give a folder",
    )


def _cached(spec: ModelSpec) -> tuple[Path | None, list[str]]:
    """Return the folder of the revision in the cache, whole or not, and the revisions that are there."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{spec.location.replace('/', '--')}"
    tag = root / "refs" / spec.revision
    commit = tag.read_text("utf-8").strip() if tag.is_file() else spec.revision
    snapshots = root / "snapshots"
    revisions = sorted(p.name for p in snapshots.iterdir()) if snapshots.is_dir() else []
    return (snapshots / commit if commit in revisions else None), revisions


def _lacking(spec: ModelSpec, folder: Path) -> list[str]:
    """Name what is missing of all that is read: a download may have been cut off, or been another's."""
    out = [] if (folder / "config.json").is_file() else ["config.json"]
    try:
        _weights(spec, folder)
    except DynstatError as e:
        out.append(e.what.removesuffix(" does not exist") if e.code == "F001" else "*.safetensors")
        out += e.problems if e.code == "F001" else ()
    if spec.tokenizer is None and not (folder / "tokenizer.json").is_file():
        out.append("tokenizer.json")
    return out


def _no_revision(spec: ModelSpec, found: str) -> DynstatError:
    return DynstatError(
        "X202",
        f"{spec.location} has no revision {spec.revision!r}",
        where=f"model {spec.id!r}",
        found=found,
        expected="a commit of the repository",
        mend="correct `revision:`",
    )
