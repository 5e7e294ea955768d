"""Files are written whole or not at all, and hashed in one form."""

import errno
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynstat.errors import DynstatError
from dynstat.files import (
    append_line,
    atomic_path,
    canonical_hash,
    canonical_json,
    read_text,
    sha256_bytes,
    sha256_file,
    write_atomic,
    write_json,
)


def test_an_error_inside_leaves_the_old_file_and_no_debris(tmp_path):
    target = write_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stopped")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_temporary_name_keeps_the_suffix_and_ordinary_permissions(tmp_path):
    with atomic_path(tmp_path / "x.nc") as temporary:
        assert temporary.suffix == ".nc" and temporary.name.startswith(".")
        temporary.write_bytes(b"1")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x.nc").stat().st_mode) == 0o666 & ~umask


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DynstatError) as e:
        write_atomic(tmp_path / "file" / "a.txt", "x")
    assert e.value.code == "F002"
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_leaves_what_was_there(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with pytest.raises(DynstatError) as e:
        append_line("/dev/full", "x")
    assert e.value.code == "F002"


@pytest.mark.parametrize("number,fails", [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_syncs_no_folders(tmp_path, monkeypatch, number, fails):
    sync = os.fsync

    def only_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    if not fails:
        assert write_atomic(tmp_path / "a.txt", "x").read_text() == "x"
        return
    with pytest.raises(DynstatError) as e:
        write_atomic(tmp_path / "a.txt", "x")
    assert e.value.code == "F002"


def test_new_folders_are_synced_in_those_that_hold_them(tmp_path, monkeypatch):
    """A file in a folder whose own name a power cut may take is not kept."""
    synced = set()
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda h: (synced.add(os.fstat(h).st_ino), sync(h)))
    write_atomic(tmp_path / "one" / "two" / "a.txt", "x")
    assert {p.stat().st_ino for p in (tmp_path, tmp_path / "one", tmp_path / "one" / "two")} <= synced


def test_missing_and_undecodable_files(tmp_path):
    with pytest.raises(DynstatError) as e:
        read_text(tmp_path / "none")
    assert e.value.code == "F001"
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DynstatError) as e:
        read_text(tmp_path / "latin")
    assert e.value.code == "F003"


def test_json_refuses_nan_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == []


def test_hash_of_file_is_hash_of_bytes(tmp_path):
    data = os.urandom(3 << 20)
    (tmp_path / "b").write_bytes(data)
    assert sha256_file(tmp_path / "b") == sha256_bytes(data)


# Examples of RFC 8785, appendix B, as pairs of a number and its canonical spelling.
@pytest.mark.parametrize(
    "number,text",
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (1e16, "10000000000000000"),
        (1e-5, "0.00001"),
        (1e-7, "1e-7"),
        (4.5, "4.5"),
        (0.002, "0.002"),
        (9007199254740991, "9007199254740991"),
    ],
)
def test_canonical_numbers(number, text):
    assert canonical_json(number).decode() == text


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_round_trips_and_does_not_depend_on_order(value):
    again = json.loads(canonical_json(value))
    assert canonical_hash(again) == canonical_hash(value)
    if isinstance(value, dict):
        assert canonical_hash(dict(reversed(value.items()))) == canonical_hash(value)


def test_a_line_that_does_not_fit_leaves_the_log_as_it_was(tmp_path):
    import subprocess
    import sys

    log = tmp_path / "ledger.jsonl"
    log.write_bytes(b"first\n")
    # A limit on the size of files stands for the full disk: the kernel writes what fits and then refuses.
    script = f"""
import resource, signal
from dynstat.errors import DynstatError
from dynstat.files import append_line
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    append_line({str(log)!r}, "second line")
except DynstatError as e:
    print(e.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "F002" and log.read_bytes() == b"first\n"


def test_a_file_that_cannot_be_hashed_is_one_clear_error(tmp_path):
    for path, code in ((tmp_path / "none", "F001"), (tmp_path, "F003")):
        with pytest.raises(DynstatError) as e:
            sha256_file(path)
        assert e.value.code == code
