"""A store is bound once, computed in one way, resumed by what is missing, and verified shard by shard."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import dynstat  # noqa: E402
from dynstat.cli import main as command_line  # noqa: E402
from dynstat.dataset.stored import verify_path  # noqa: E402
from dynstat.errors import DynstatError  # noqa: E402
from dynstat.extraction.lens.engine import Engine  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores import store as stores  # noqa: E402
from dynstat.extraction.stores.plan import Plan  # noqa: E402
from dynstat.extraction.stores.run import Worker, extract_panel  # noqa: E402
from dynstat.extraction.stores.store import open_store, read_binding  # noqa: E402
from dynstat.leftovers import leftovers, mark  # noqa: E402

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
DEAD = 2**22 + 1  # beyond the largest process number of Linux


@pytest.fixture(scope="module")
def made(tmp_path_factory, model_folders):
    """A panel file and its finished store, of five shards."""
    from .conftest import PANEL, write_prompts

    folder = tmp_path_factory.mktemp("made")
    write_prompts(folder / "prompts.csv")
    models = f"  - {{id: llama, path: {model_folders['llama']}}}"
    samples = "samples: {seeds: [0, 1], temperatures: [1.0]}"
    text = PANEL.format(
        models=models, split="pilot", samples=samples, budget=5, mode="generated", more="batch_tokens: 40"
    )
    (folder / "panel.yaml").write_text(text, encoding="utf-8")
    extract_panel(folder / "panel.yaml", folder / "store")
    return folder / "panel.yaml", folder / "store"


@pytest.fixture
def copied(made, tmp_path):
    return made[0], Path(shutil.copytree(made[1], tmp_path / "store"))


def fails(code, function, *args, **kwargs):
    with pytest.raises(DynstatError) as e:
        function(*args, **kwargs)
    assert e.value.code == code
    return e.value


# binding


def test_the_binding_says_what_the_store_is(made):
    panel, store = made
    plan, bound = Plan(load_panel(panel)), read_binding(store)
    assert bound.inputs_sha256 == plan.hash and bound.inputs == plan.inputs
    assert list(bound.shards) == plan.names and len(plan.names) == 5
    assert Engine.from_dict(bound.engine).threads == 1
    for name in plan.names:
        ds = dynstat.open(store / name)
        assert json.loads(ds.attrs["provenance"])["engine"] == bound.engine
        assert json.loads(ds.attrs["item"])["model"]["id"] == "llama"


@forks
def test_of_many_that_make_a_store_at_once_one_chooses(made, tmp_path, monkeypatch):
    plan, store = Plan(load_panel(made[0])), tmp_path / "store"
    monkeypatch.setattr(stores, "choose", lambda *_: Engine(block_bytes=os.getpid()))
    pipes = []
    start = time.time() + 0.3
    for _ in range(8):
        reading, writing = os.pipe()
        if not os.fork():
            time.sleep(max(0.0, start - time.time()))
            try:
                os.write(writing, str(open_store(plan, store).block_bytes).encode())
            finally:
                os._exit(0)
        os.close(writing)
        pipes.append(reading)
    chosen = {os.read(p, 100) for p in pipes}
    for _ in pipes:
        os.wait()
    for p in pipes:
        os.close(p)
    assert len(chosen) == 1 and chosen == {str(read_binding(store).engine["block_bytes"]).encode()}
    assert [p.name for p in store.iterdir()] == ["panel.json"]


def change(store, **more):
    file = store / "panel.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | more), encoding="utf-8")


def test_who_cannot_use_the_engine_refuses_and_writes_nothing(copied):
    panel, store = copied
    for engine in ({"kernel": "abacus", "threads": 1, "block_bytes": 1}, {"wheels": 3}):
        change(store, engine=engine)
        Path(store, Plan(load_panel(panel)).names[0]).unlink(missing_ok=True)
        before = sorted(store.iterdir())
        assert "abacus" in (e := fails("X217", extract_panel, panel, store)).found or "wheels" in e.found
        assert sorted(store.iterdir()) == before


def test_a_store_of_something_else_is_refused(copied, write_panel, tmp_path):
    panel, store = copied
    fails("X212", extract_panel, write_panel(("llama",), budget=3), store)
    (store / "stranger.nc").write_bytes((store / Plan(load_panel(panel)).names[0]).read_bytes())
    assert "stranger.nc" in fails("X212", extract_panel, panel, store).found
    (store / "stranger.nc").unlink()
    change(store, dynstat="store/1")
    fails("X212", extract_panel, panel, store)
    (store / "panel.json").write_text("{", encoding="utf-8")
    fails("F003", extract_panel, panel, store)
    (store / "panel.json").unlink()
    fails("X212", extract_panel, panel, store)
    (tmp_path / "file").write_text("x")
    fails("X212", extract_panel, panel, tmp_path / "file")


def test_all_that_can_be_measured_obeys_the_identities(write_panel, tmp_path):
    names = [
        "entropy", "effective_vocabulary", "top1_probability", "top2_probability", "margin", "concentration",
        "{metric: concentration, k: 3, as: concentration_3}", "sum_squares", "dispersion", "kl_to_final",
        "kl_from_final", "next_token_rank", "next_token_log_probability", "synchronisation", "turning_angle",
    ]  # fmt: skip
    more = f"metrics: [{', '.join(names)}]\nreadouts: [logit_lens, no_norm, {{readout: top_k, k: 20}}]"
    store = extract_panel(write_panel(("opt", "qwen2"), more=more + "\nbatch_tokens: 50"), tmp_path / "store")
    assert verify_path(store) == []
    ds = dynstat.open(store)
    assert {"margin", "concentration_3", "entropy__top_k", "kl_to_final__no_norm"} <= set(ds.data_vars)
    assert dynstat.verify(ds) == []
    ds["next_token_log_probability"].values[0, 0, 0, 2, -1] -= 0.01
    ds["kl_from_final"].values[0, 0, 0, 2, -1] = 0.01
    ds["margin"].values[0, 0, 0, 2, 1] += 1e-4
    found = [p.where.split()[0] for p in dynstat.verify(ds)]
    assert set(found) == {"log_probability", "kl_from_final", "margin"}


# what is computed


def test_what_is_computed_depends_on_neither_order_nor_what_was_there(made, tmp_path):
    """Shards written backwards, by workers of one shard each, are those of the run, bit for bit."""
    panel, store = made
    plan = Plan(load_panel(panel))
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(store / "panel.json", again / "panel.json")
    engine = open_store(plan, again)
    for i in reversed(range(len(plan.names))):
        assert Worker(plan, again, engine).write(i) == plan.batches[i].rows
    for name in plan.names:
        a, b = dynstat.open(store / name), dynstat.open(again / name)
        assert dynstat.content_hash(a) == dynstat.content_hash(b)
        for variable in a.variables:
            if a[variable].dtype != object:
                assert a[variable].values.tobytes() == b[variable].values.tobytes(), variable
    assert verify_path(again) == []


def test_the_engine_of_the_store_is_the_one_that_computes(copied):
    panel, store = copied
    change(store, engine=read_binding(store).engine | {"block_bytes": 4096})
    plan = Plan(load_panel(panel))
    (store / plan.names[0]).unlink()
    extract_panel(panel, store)
    assert (
        json.loads(dynstat.open(store / plan.names[0]).attrs["provenance"])["engine"]["block_bytes"] == 4096
    )
    found = verify_path(store)
    assert {p.code for p in found} == {"engine"} and len(found) == 4


# left-over files


def test_files_of_dead_writers_go_and_those_of_live_ones_stay(copied):
    panel, store = copied
    plan = Plan(load_panel(panel))
    machine = mark().partition("-")[0]
    dead = store / f".{plan.names[0][:-3]}.{machine}-{DEAD}-abc.nc"
    live = store / f".{plan.names[1][:-3]}.{machine}-{os.getppid()}-abc.nc"
    elsewhere = store / f".{plan.names[2][:-3]}.{'0' * 8}-{DEAD}-abc.nc"
    forgotten = store / f".{plan.names[2][:-3]}.{'0' * 8}-{DEAD}-xyz.nc"
    others = [store / ".DS_Store", store / ".note.nc"]
    for file in (dead, live, elsewhere, forgotten, *others):
        file.write_bytes(b"half")
    os.utime(forgotten, (time.time() - 2 * 86400,) * 2)
    assert leftovers(store) == sorted([dead, forgotten])
    assert sorted(p.where for p in verify_path(store)) == sorted([dead.name, forgotten.name])
    (store / plan.names[3]).unlink()
    extract_panel(panel, store)
    assert not dead.exists() and not forgotten.exists()
    assert live.exists() and elsewhere.exists() and all(o.exists() for o in others)
    assert verify_path(store) == []


# verify


def rewrite(store, name, change, **attrs):
    """Change a shard's values as a program would, its content hash along with them."""
    ds = dynstat.open(store / name)
    change(ds)
    ds.attrs |= attrs
    dynstat.save(ds, store / name)


def patch(file, variable, value):
    """Change one number in the file itself."""
    import netCDF4

    with netCDF4.Dataset(file, "r+") as f:
        values = f[variable][:]
        values[0, 0, 0, 3, 1] = value
        f[variable][:] = values


def test_a_whole_store_is_valid(made):
    seen = []
    assert verify_path(made[1], lambda *a: seen.append(a)) == []
    assert seen[-1] == (5, 5, "done") and len(seen) == 6


def test_verify_finds_each_fault_and_lists_all(copied, capsys):
    panel, store = copied
    names = Plan(load_panel(panel)).names
    first = dynstat.open(store / names[0])
    # A number changed on disk: only the content hash knows.
    patch(store / names[0], "state_norm", first["state_norm"].values[0, 0, 0, 3, 1] + 1)
    assert [p.code for p in verify_path(store)] == ["content"]
    # A shard under another's name.
    shutil.copy(store / names[1], store / names[0])
    assert {p.code for p in verify_path(store)} == {"key"}
    # One cut short, one gone.
    raw = (store / names[1]).read_bytes()
    (store / names[0]).write_bytes(raw[: len(raw) // 2])
    (store / names[2]).unlink()
    (store / "other.nc").write_bytes(raw)
    found = verify_path(store)
    assert [p.code for p in found] == ["unreadable", "key", "missing", "unplanned"]
    assert names[2] in found[2].where and "1 shards" in found[2].found and "all 5" in found[2].expected
    with pytest.raises(SystemExit) as e:
        command_line(["data", "verify", str(store)])
    assert e.value.code == 1
    assert sum(line.startswith(("unreadable", "key", "missing", "unplanned"))
               for line in capsys.readouterr().out.splitlines()) == 4  # fmt: skip


def test_verify_finds_what_contradicts_itself_or_the_panel(copied):
    panel, store = copied
    names = Plan(load_panel(panel)).names

    def too_much(ds):
        ds["entropy"].values[0, 0, 0, 3, 1] = 50.0

    rewrite(store, names[0], too_much)
    found = verify_path(store)
    assert {p.code for p in found} == {"identity"} and all(names[0] in p.where for p in found)
    assert "ln V" in found[0].expected

    def other_token(ds):
        ds["token_id"].values[0, 0, 0, 1] += 1

    rewrite(store, names[1], other_token)
    assert "token_id" in " ".join(p.where for p in verify_path(store) if names[1] in p.where)
    inputs = read_binding(store).inputs
    change(store, inputs=inputs | {"settings": inputs["settings"] | {"budget": 7}})
    assert {p.code for p in verify_path(store) if names[3] in p.where} == {"panel"}
    # Hash and inputs belong together: a run goes by the one, a lock by the other.
    assert [p.code for p in verify_path(store) if "inputs_sha256" in p.where] == ["panel"]


# what can go wrong outside


def child(function):
    """Run a function in a child; return its exit status and what it printed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            function()
            code = 0
        except SystemExit as e:
            code = int(e.code or 0)
        except BaseException as e:
            print(repr(e))
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    return pid, os.fdopen(reading)


@forks
def test_a_full_disk_is_one_clear_error_and_the_store_goes_on(copied):
    resource = pytest.importorskip("resource")
    panel, store = copied
    names = Plan(load_panel(panel)).names
    for name in names[1:3]:
        (store / name).unlink()
    size = (store / names[0]).stat().st_size

    def run():
        # No file may grow beyond this: the shard does not fit, as on a disk that fills while it is written.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 3, size // 3))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        command_line(["extract", str(panel), "-o", str(store)])

    pid, out = child(run)
    text = out.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5, text
    assert text.count("F002") == 2 and "Traceback" not in text  # the error and where to read more
    assert sorted(p.name for p in store.iterdir()) == sorted([names[0], *names[3:], "panel.json"])
    extract_panel(panel, store)
    assert verify_path(store) == []


def test_a_folder_that_cannot_be_written_is_one_clear_error(made, tmp_path):
    panel, store = made
    (tmp_path / "file").write_text("in the way")
    fails("F002", extract_panel, panel, tmp_path / "file" / "store")
    closed = Path(shutil.copytree(store, tmp_path / "closed"))
    name = Plan(load_panel(panel)).names[0]
    (closed / name).unlink()
    closed.chmod(0o555)
    try:
        if os.access(closed, os.W_OK):
            pytest.skip("this user may write everywhere")
        fails("F002", extract_panel, panel, closed)
        assert not (closed / name).exists() and len(list(closed.iterdir())) == 5
    finally:
        closed.chmod(0o755)
    extract_panel(panel, closed)
    assert verify_path(closed) == []


@forks
def test_ctrl_c_leaves_a_store_that_goes_on(made, tmp_path):
    panel, store = made[0], tmp_path / "store"
    pid, out = child(lambda: command_line(["extract", str(panel), "-o", str(store)]))
    end = time.monotonic() + 60
    while not list(store.glob("[!.]*.nc")) and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(pid, signal.SIGINT)
    text = out.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 0:
        pytest.skip("the run was done before the signal came")
    assert code == 130 and "run the same command to go on" in text and "Traceback" not in text
    missing = {p.code for p in verify_path(store)}
    assert missing <= {"missing"}
    extract_panel(panel, store)
    assert verify_path(store) == []
    a, b = dynstat.open(store), dynstat.open(made[1])
    assert dynstat.content_hash(a) == dynstat.content_hash(b)
    np.testing.assert_array_equal(a["entropy"].values, b["entropy"].values)
