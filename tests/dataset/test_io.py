"""Files: the traps of NetCDF, atomic writing, damaged files."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dynstat
from dynstat.dataset.io import open as open_dataset
from dynstat.dataset.io import save, shard_names
from dynstat.errors import DynstatError

ENGINES = ("netcdf4", "h5netcdf")


def fails(code, f, *args, **kwargs):
    with pytest.raises(DynstatError) as e:
        f(*args, **kwargs)
    assert e.value.code == code, str(e.value)
    return e.value


@pytest.mark.parametrize("engine", ENGINES)
def test_round_trip_is_exact_on_both_engines(panel, tmp_path, engine):
    path = save(panel, tmp_path / "panel.nc")
    again = open_dataset(path, engine=engine)
    xr.testing.assert_identical(again, panel)
    for name in panel.variables:
        assert again[name].dtype == panel[name].dtype, name
        for key, value in panel[name].attrs.items():
            assert np.asarray(again[name].attrs[key]).dtype.kind == np.asarray(value).dtype.kind, (name, key)
    assert dynstat.open(str(path)).identical(panel)


def test_integers_stay_integers_without_masking(panel, tmp_path):
    # A plain reader, without our loader, must not see floats either.
    save(panel, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as plain:
        assert plain["token_id"].dtype == np.int32 and int(plain["token_id"].min()) == -1
        assert plain["quality"].dtype == np.int8
        assert "_FillValue" not in plain["token_id"].encoding
        assert plain["entropy"].dtype == np.float32


def test_encoding_is_the_declared_one(panel, tmp_path):
    save(panel, tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc", mask_and_scale=False) as plain:
        e = plain["entropy"].encoding
        assert (e["zlib"], e["complevel"], e["shuffle"], e["fletcher32"]) == (True, 4, True, True)
        # One prompt block by all layers: never split along tokens or layers, one model a chunk.
        assert e["chunksizes"] == (1, *plain["entropy"].shape[1:])
        assert np.isnan(plain["entropy"].attrs["_FillValue"])
        for name in plain.coords:
            assert "_FillValue" not in plain[name].attrs, name


def test_chunks_of_large_cubes_stay_small(make):
    from dynstat.dataset.io import _chunks

    v = xr.Variable(dynstat.dataset.schema.DIMS, np.broadcast_to(np.float32(0), (6, 72, 2, 400, 31)))
    chunk = _chunks(v)
    assert chunk[0] == 1 and chunk[2:] == (2, 400, 31)
    assert np.prod(chunk) * 4 <= 2 * 2**20


def test_same_dataset_same_bytes(panel, tmp_path):
    a = save(panel, tmp_path / "a.nc").read_bytes()
    assert save(panel, tmp_path / "b.nc").read_bytes() == a
    # Also after a round trip: nothing of the file sticks to the dataset.
    for engine in ENGINES:
        again = open_dataset(tmp_path / "a.nc", engine=engine)
        assert save(again, tmp_path / "c.nc").read_bytes() == a


def test_a_file_that_was_opened_can_be_written_anew(panel, tmp_path):
    path = save(panel, tmp_path / "a.nc")
    ds = open_dataset(path)
    ds["entropy"] = ds["entropy"] * np.float32(0.5)
    assert save(ds, path) == path
    np.testing.assert_array_equal(open_dataset(path)["entropy"], panel["entropy"] * np.float32(0.5))


def test_lazy_opening(panel, tmp_path):
    pytest.importorskip("dask")
    path = save(panel, tmp_path / "a.nc")
    ds = open_dataset(path, chunks="auto")
    assert ds["entropy"].chunks is not None
    xr.testing.assert_identical(ds.compute(), panel)
    # Written while it is still open, over itself.
    xr.testing.assert_identical(open_dataset(save(ds, path)), panel)
    ds.close()


# the traps of references/reporting.md, 6.2


def test_text_with_nul_is_refused_not_cut(panel, tmp_path):
    for bad in ("a\x00b", "bell\x07", "\x1b[31m", "\ud800"):
        ds = panel.copy(deep=True)
        ds["text"].values[0, 0, 0] = bad
        e = fails("D106", save, ds, tmp_path / "a.nc")
        assert "text[0]" in e.where
    assert list(tmp_path.iterdir()) == []


def test_line_feeds_tabs_and_other_scripts_survive(panel, tmp_path):
    ds = panel.copy(deep=True)
    hard = "a\nb\tc\n\n", " leading", "é e\u0301 🙂 \u202e\u200b", "", "|{}<>&\\\"'"
    for i, text in enumerate(hard):
        ds["text"].values.ravel()[i] = text
    for engine in ENGINES:
        again = open_dataset(save(ds, tmp_path / "a.nc"), engine=engine)
        assert again["text"].values.ravel().tolist()[: len(hard)] == list(hard)


def test_none_is_refused(panel, tmp_path):
    ds = panel.copy(deep=True)
    ds["text"].values[0, 0, 0] = None
    fails("D106", save, ds, tmp_path / "a.nc")
    ds["text"].values[0, 0, 0] = 3
    fails("D106", save, ds, tmp_path / "a.nc")


def test_pandas_categories_are_converted(panel, tmp_path):
    ds = panel.copy()
    ds = ds.assign_coords(category=("prompt", pd.Categorical(panel["category"].values)))
    again = open_dataset(save(ds, tmp_path / "a.nc"))
    assert again["category"].values.tolist() == panel["category"].values.tolist()


def test_multiindex_is_a_clear_error(panel, tmp_path):
    ds = panel.stack(point=("prompt", "sample"))
    fails("D106", save, ds, tmp_path / "a.nc")


def test_attributes_that_netcdf_cannot_hold(panel, tmp_path):
    panel.attrs |= {"yes": True, "nested": {"a": [1, None]}, "nothing": None, "empty": [], "many": [1, 2]}
    panel["entropy"].attrs["flag"] = False
    again = open_dataset(save(panel, tmp_path / "a.nc"))
    assert again.attrs["yes"] == 1 and again.attrs["yes"].dtype == np.int8
    assert again.attrs["nested"] == '{"a": [1, null]}'
    assert "nothing" not in again.attrs
    assert again.attrs["empty"] == "[]"
    assert again.attrs["many"].tolist() == [1, 2]
    assert again["entropy"].attrs["flag"] == 0
    panel.attrs["bad"] = "a\x00b"
    fails("D106", save, panel, tmp_path / "b.nc")


def test_booleans_become_bytes(panel, tmp_path):
    panel["is_special"] = panel["is_special"].astype(bool)
    assert open_dataset(save(panel, tmp_path / "a.nc"))["is_special"].dtype == np.int8


def test_times_are_refused(panel, tmp_path):
    ds = panel.assign_coords(when=("prompt", np.array(["2026-01-01"] * 3, "M8[ns]")))
    fails("D106", save, ds, tmp_path / "a.nc")


# files that are not what they should be


def test_missing_foreign_and_damaged_files(panel, tmp_path):
    fails("F001", open_dataset, tmp_path / "none.nc")
    fails("F001", open_dataset, tmp_path)  # a folder without shards
    text = tmp_path / "text.nc"
    text.write_text("not a file of arrays")
    fails("D101", open_dataset, text)
    (tmp_path / "empty.nc").write_bytes(b"")
    fails("D102", open_dataset, tmp_path / "empty.nc")
    xr.Dataset({"x": 1.0}).to_netcdf(tmp_path / "other.nc")
    fails("D101", open_dataset, tmp_path / "other.nc")
    fails("D101", save, xr.Dataset({"x": 1.0}), tmp_path / "x.nc")


@pytest.mark.parametrize("engine", ENGINES)
def test_truncated_anywhere(panel, tmp_path, engine):
    raw = save(panel, tmp_path / "a.nc").read_bytes()
    cut = tmp_path / "cut.nc"
    for size in (3, 7, 8, 100, len(raw) // 3, len(raw) // 2, len(raw) - 1):
        cut.write_bytes(raw[:size])
        fails("D102", open_dataset, cut, engine=engine)


def test_a_flipped_bit_in_the_values_is_seen(make, tmp_path):
    ds = make(n_tokens=7, gaps=False)
    path = save(ds, tmp_path / "a.nc")
    raw = bytearray(path.read_bytes())
    import netCDF4

    with netCDF4.Dataset(path) as f:
        assert f["entropy"].filters()["fletcher32"]
    # The deflated chunks begin with the zlib header of level 4; flip a byte well inside each.
    starts = [i for i in range(len(raw) - 1) if raw[i] == 0x78 and raw[i + 1] == 0x5E]
    assert len(starts) >= 10
    seen = 0
    for start in starts:
        bad = bytearray(raw)
        bad[start + 12] ^= 1
        path.write_bytes(bad)
        try:
            changed = not open_dataset(path).identical(ds)
            assert not changed, "a damaged chunk was read as if whole"
        except DynstatError as e:
            assert e.code == "D102"
            seen += 1
    assert seen >= 10


# writing whole or not at all


def test_an_error_while_writing_leaves_the_old_file(panel, tmp_path, monkeypatch):
    path = save(panel, tmp_path / "a.nc")
    before = path.read_bytes()
    real = xr.Dataset.to_netcdf

    def half(self, target, **kwargs):
        real(self, target, **kwargs)
        with open(target, "rb+") as f:
            f.truncate(100)
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", half)
    assert "HDF error" in fails("F002", save, panel.isel(model=[0]), path).what
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert "space" in fails("F002", save, panel, path).what, "the library does not say so"
    monkeypatch.setattr(xr.Dataset, "to_netcdf", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(panel, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"] and path.read_bytes() == before


KILLED = """
import os, signal, sys, xarray as xr
from dynstat.dataset.io import open as open_dataset, save
ds = open_dataset(sys.argv[1])
ds["entropy"] = ds["entropy"] + 1
real = xr.Dataset.to_netcdf
def half(self, target, **kwargs):
    real(self, target, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
xr.Dataset.to_netcdf = half
save(ds, sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
def test_a_killed_writer_leaves_the_old_file_and_the_folder_readable(panel, tmp_path):
    path = save(panel, tmp_path / "a.nc")
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True)
    assert done.returncode < 0, done.stderr
    assert path.read_bytes() == before
    left = [p for p in tmp_path.iterdir() if p != path]
    assert left and all(p.name.startswith(".") for p in left)
    # What the killed writer left is no shard.
    xr.testing.assert_identical(open_dataset(tmp_path).drop_attrs(), panel.drop_attrs())


def test_read_only_folder(panel, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    fails("F002", save, panel, blocked / "a.nc")
    assert blocked.read_text() == "x"
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    try:
        if os.access(closed, os.W_OK):
            pytest.skip("this user may write everywhere")
        fails("F002", save, panel, closed / "a.nc")
    finally:
        closed.chmod(0o755)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk(panel, tmp_path, monkeypatch):
    path = save(panel, tmp_path / "a.nc")
    before = path.read_bytes()

    def full(self, target, **kwargs):
        with open("/dev/full", "wb") as f:
            f.write(b"x" * 10_000)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    assert "space" in fails("F002", save, panel, path).what
    assert path.read_bytes() == before


# folders


def test_folder_of_shards(make, tmp_path):
    whole = make()
    for m in (1, 0):
        for p in (2, 0, 1):
            save(make(models=(m,), prompts=(p,)), tmp_path / f"{m}{p}.nc")
    (tmp_path / ".writing.nc").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not a shard")
    ds = open_dataset(tmp_path)
    xr.testing.assert_identical(ds.drop_attrs(), whole.drop_attrs())
    assert dynstat.content_hash(ds) == dynstat.content_hash(whole)
    assert shard_names(tmp_path) == '["00.nc", "01.nc", "02.nc", "10.nc", "11.nc", "12.nc"]'
    fails("S404", open_dataset, tmp_path, chunks="auto")
    (tmp_path / "01.nc").write_bytes((tmp_path / "01.nc").read_bytes()[:-9])
    assert "01.nc" in fails("D102", open_dataset, tmp_path).what


def test_what_all_shards_say_is_read_and_held_once(make, tmp_path, monkeypatch):
    """Thousands of shards name a hundred thousand prompts each."""
    from types import SimpleNamespace

    from dynstat.dataset import combine as joining

    names = json.dumps([f"p{i}" for i in range(1000)])
    for p in range(3):
        part = make(prompts=(p,))
        part.attrs["prompt_order"] = names
        save(part, tmp_path / f"{p}.nc")
    parts = [open_dataset(tmp_path / f"{p}.nc") for p in range(3)]
    assert len({id(p.attrs["prompt_order"]) for p in parts}) == 1
    read = []
    loads = lambda text: (read.append(text), json.loads(text))[1]  # noqa: E731
    monkeypatch.setattr(joining, "json", SimpleNamespace(loads=loads, dumps=json.dumps))
    dynstat.combine(parts)
    assert read.count(names) == 1


def test_an_unknown_engine_is_no_damaged_file(panel, tmp_path):
    with pytest.raises(DynstatError, match="S404"):
        open_dataset(save(panel, tmp_path / "a.nc"), engine="scipy")


@pytest.mark.parametrize(
    "fault", [AttributeError, TypeError, IndexError, UnicodeDecodeError("utf-8", b"", 0, 1, "")]
)
def test_whatever_the_reader_makes_of_a_damaged_header(panel, tmp_path, monkeypatch, fault):
    path = save(panel, tmp_path / "a.nc")

    def broken(*_, **__):
        raise fault

    monkeypatch.setattr(xr, "open_dataset", broken)
    with pytest.raises(DynstatError, match="D102"):
        open_dataset(path)


@pytest.mark.parametrize("handler", ["default", "ignored", "thread"])
def test_ctrl_c_waits_for_the_file(panel, tmp_path, monkeypatch, handler):
    """Within HDF5 it would leave a lock held, and the closing of the file waits for it for ever."""
    import signal
    import threading

    real = xr.Dataset.to_netcdf

    def interrupted(ds, *args, **kwargs):
        if handler != "thread":
            os.kill(os.getpid(), signal.SIGINT)
        return real(ds, *args, **kwargs)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", interrupted)
    before = signal.getsignal(signal.SIGINT)
    if handler == "default":
        # A shell starts what runs in its background with Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                save(panel, tmp_path / "a.nc")
        finally:
            assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    elif handler == "ignored":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            save(panel, tmp_path / "a.nc")
        finally:
            assert signal.signal(signal.SIGINT, before) == signal.SIG_IGN
    else:
        worker = threading.Thread(target=save, args=(panel, tmp_path / "a.nc"))
        worker.start()
        worker.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert [f.name for f in tmp_path.iterdir()] == ["a.nc"]
    assert open_dataset(tmp_path / "a.nc").identical(panel)
