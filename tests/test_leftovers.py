"""Temporary files of dead writers are told from those of live ones; of many first writers one wins."""

import os
import subprocess
import sys
import threading
import time

import pytest

from dynstat.errors import DynstatError
from dynstat.files import atomic_path, write_first
from dynstat.leftovers import leftovers, mark, remove_leftovers

KILLED = """
import os, signal, sys
from dynstat.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.readline()
"""


def writer(target, how):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, target, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_writer_is_told_from_a_live_one(tmp_path):
    live, dead = writer(tmp_path / "a.nc", "live"), writer(tmp_path / "b.nc", "die")
    live.stdout.readline()
    half = dead.stdout.readline().strip()
    dead.wait()
    with atomic_path(tmp_path / "c.nc"):
        assert [str(p) for p in leftovers(tmp_path)] == [half]
    assert leftovers(tmp_path, "a.nc") == [] and len(leftovers(tmp_path, "b.nc")) == 1
    assert remove_leftovers(tmp_path, "a.nc") == []
    assert remove_leftovers(tmp_path) == [os.path.basename(half)]
    live.communicate("\n")
    assert live.returncode == 0 and sorted(os.listdir(tmp_path)) == ["a.nc", "c.nc"]


def test_files_of_other_machines_and_of_other_programs(tmp_path):
    machine, process = mark().split("-")
    elsewhere = "0" * 8 if machine != "0" * 8 else "1" * 8
    names = [
        f".x.{elsewhere}-{process}-abc.nc",
        f".x.{machine}-{process}-abc.nc",
        ".hidden",
        ".x.tmp-1-abc.nc",
    ]
    for name in names:
        (tmp_path / name).write_text("half")
    assert leftovers(tmp_path) == []
    for name in names:
        os.utime(tmp_path / name, (time.time() - 86400 * 1.1,) * 2)
    assert sorted(p.name for p in leftovers(tmp_path)) == sorted(names[:2]), "nobody writes for a day"


def test_what_may_not_be_removed_stops_nobody(tmp_path, monkeypatch):
    """In a folder with the sticky bit only its owner may remove a file."""
    machine = mark().split("-")[0]
    names = [f".{x}.{machine}-{2**22 + 1}-abc.nc" for x in "ab"]
    for name in names:
        (tmp_path / name).write_text("half")
    unlink = os.unlink

    def denied(path, *args, **kwargs):
        if os.path.basename(path).startswith(".a."):
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "unlink", denied)
    assert remove_leftovers(tmp_path) == [names[1]] and os.listdir(tmp_path) == [names[0]]


def test_one_of_many_first_writers_wins(tmp_path):
    target, won, gate = tmp_path / "new" / "a.json", [], threading.Barrier(8)

    def run(i):
        gate.wait()
        won.append((write_first(target, f"{i}" * 10_000), i))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    (winner,) = [i for first, i in won if first]
    assert target.read_text() == f"{winner}" * 10_000 and os.listdir(target.parent) == ["a.json"]


def test_first_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    assert write_first(tmp_path / "a.json", "one") and not write_first(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text() == "one" and os.listdir(tmp_path) == ["a.json"]


def test_first_after_a_dead_process_of_the_same_number(tmp_path):
    (tmp_path / f".a.{mark()}-first{threading.get_ident()}.json").write_text("half of something longer")
    assert write_first(tmp_path / "a.json", "one")
    assert (tmp_path / "a.json").read_text() == "one" and os.listdir(tmp_path) == ["a.json"]


def test_first_in_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DynstatError) as e:
        write_first(tmp_path / "file" / "a.json", "one")
    assert e.value.code == "F002" and "a.json" in e.value.what
