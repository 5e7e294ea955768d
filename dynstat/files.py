"""Write files whole or not at all, and hash them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from .errors import DynstatError
from .leftovers import mark


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside `target`; on leaving, fsync it and rename it into place.

    If the block raises, the temporary file is removed and `target` stays as it was.

    Raises
    ------
    DynstatError
        F002 where the folder is read-only or the disk is full.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        _make_folder(target.parent)
        # The suffix stays: some writers choose their format by it.
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem}.{mark()}-", suffix=target.suffix
        )
        os.close(handle)
        temporary = Path(name)
        os.chmod(temporary, 0o666 & ~_umask())
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as e:
        raise DynstatError(
            "F002",
            f"cannot write {target.name}: {e.strerror or e}",
            where=str(target),
            mend="free space or choose a folder you may write to; what was there is untouched",
        ) from e
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_first(target: str | os.PathLike[str], data: str) -> bool:
    """Write text to `target` unless it is there: of many that try at once one wins, and none sees half of it.

    Returns
    -------
    bool
        Whether this call wrote it.

    Raises
    ------
    DynstatError
        F002 where the folder is read-only or the disk is full.
    """
    target = Path(target)
    first = True
    # Written whole and synced under a name of its own, then given the name that only one can have.
    own = target.with_name(f".{target.stem}.{mark()}-first{threading.get_ident()}{target.suffix}")
    try:
        _make_folder(target.parent)
        # A dead process of the same number, in a container that was started again, may have left one behind.
        with open(own, "wb") as f:
            f.write(data.encode("utf-8"))
            f.flush()
            os.fsync(f.fileno())
        try:
            _claim(own, target)
        except FileExistsError:
            first = False
        _sync_folder(target.parent)
    except OSError as e:
        raise DynstatError(
            "F002",
            f"cannot write {target.name}: {e.strerror or e}",
            where=str(target),
            mend="free space or choose a folder you may write to",
        ) from e
    finally:
        with suppress(OSError):  # where there is no such folder, too
            own.unlink(missing_ok=True)
    return first


def _claim(own: Path, target: Path) -> None:
    try:
        os.link(own, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links here: a reader may see half of it, for as long as it takes to write
        with open(target, "xb") as f:
            f.write(own.read_bytes())
            os.fsync(f.fileno())


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, for short work in libraries that it leaves with a lock held.

    A file of HDF5 that is interrupted within xarray's lock waits for that lock when it is closed, for ever.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that a power cut does not take the names of new ones."""
    new = []
    while not folder.is_dir():
        new.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    if not new:
        return
    new[0].mkdir(parents=True, exist_ok=True)
    for made in new:
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    # Without it a rename may be lost at a power cut; not every platform can open a folder.
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as e:
        # Some network file systems sync files and have no word for folders; what is wrong otherwise is said.
        if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(handle)


def write_atomic(target: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write text (as UTF-8, line feeds) or bytes to `target` through :func:`atomic_path`."""
    raw = data.encode("utf-8") if isinstance(data, str) else data
    with atomic_path(target) as temporary:
        temporary.write_bytes(raw)
    return Path(target)


def write_json(target: str | os.PathLike[str], value: object) -> Path:
    """Write `value` as readable JSON with sorted keys; refuse NaN, which JSON has no word for."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return write_atomic(target, text + "\n")


def append_line(target: str | os.PathLike[str], line: str) -> None:
    """Append one line to a log and fsync it; where the disk is full, no part of the line stays."""
    raw = (line.rstrip("\n") + "\n").encode("utf-8")
    try:
        with open(target, "ab", buffering=0) as f:
            before = os.fstat(f.fileno()).st_size
            try:
                written = f.write(raw)
                while written < len(raw):
                    written += f.write(raw[written:])
                os.fsync(f.fileno())
            except OSError:
                f.truncate(before)
                raise
    except OSError as e:
        raise DynstatError(
            "F002", f"cannot append to {Path(target).name}: {e.strerror}", where=str(target)
        ) from e


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 file; a missing or undecodable one is a clear error (F001, F003)."""
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DynstatError("F001", f"{path.name} does not exist", where=str(path.absolute())) from None
    except (OSError, UnicodeDecodeError) as e:
        raise DynstatError(
            "F003", f"{path.name} cannot be read: {e}", where=str(path), expected="UTF-8"
        ) from e


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str], progress: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
                if progress:
                    progress(len(block))
    except FileNotFoundError:
        raise DynstatError("F001", f"{Path(path).name} does not exist", where=str(path)) from None
    except OSError as e:
        raise DynstatError("F003", f"{Path(path).name} cannot be read: {e.strerror}", where=str(path)) from e
    return digest.hexdigest()


def canonical_json(value: object) -> bytes:
    """Return the RFC 8785 canonical JSON of `value`, the only form that is hashed.

    Examples
    --------
    >>> canonical_json({"b": 1e-5, "a": [1.0, "x"]})
    b'{"a":[1,"x"],"b":0.00001}'
    """
    import rfc8785

    return rfc8785.dumps(value)  # type: ignore[arg-type]


def canonical_hash(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value))
