"""Dask writes the shards of a serial run, bit for bit, whatever happens to its workers."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
distributed = pytest.importorskip("distributed")

import dynstat  # noqa: E402
from dynstat.errors import DynstatError  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores import remote  # noqa: E402
from dynstat.extraction.stores import scheduler as scheduling  # noqa: E402
from dynstat.extraction.stores.job import Job, write_item  # noqa: E402
from dynstat.extraction.stores.plan import Plan  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402
from dynstat.extraction.stores.scheduler import extract_on, local_size  # noqa: E402
from dynstat.extraction.stores.store import open_store  # noqa: E402

from .conftest import TEXTS  # noqa: E402
from .stores import assert_same  # noqa: E402


@pytest.fixture
def cluster():
    """Workers of this process: what the driver does with them is what it does with others."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None, resources={"GPU": 1}
    ) as cluster:
        yield cluster.scheduler_address


def test_a_killed_worker_costs_its_item_only(write_panel, tmp_path):
    """Two processes, one killed as the second shard appears."""
    panel = load_panel(write_panel(("llama",), more="batch_tokens: 16", budget=24))
    plan = Plan(panel)
    assert len(plan.batches) == len(TEXTS) * 2
    serial, store = extract_panel(panel, tmp_path / "serial"), tmp_path / "dask"
    killed, seen = [], []

    def progress(done, total, what):
        seen.append(done)
        if done >= 2 and not killed:
            killed.append(victims()[0])
            os.kill(killed[0], signal.SIGKILL)

    extract_on("local:2", plan, store, progress=progress)
    assert killed and seen == sorted(seen) and seen[-1] == len(plan.batches)
    assert_same(serial, store)


def victims() -> list[int]:
    """The worker processes: children of the nannies, which are children of nobody else's."""
    import psutil

    return [
        p.pid
        for p in psutil.Process().children(recursive=True)
        if "spawn_main" in " ".join(p.cmdline()) and not p.children()
    ]


def test_workers_write_what_is_missing_and_ask_for_no_lock(write_panel, tmp_path, cluster, monkeypatch):
    """What is there already is not written again; the rest equals a serial run, and no lock is asked for."""
    asked = []
    monkeypatch.setattr(distributed.Lock, "acquire", lambda *_, **__: asked.append(1) or True)
    file = write_panel(("neox", "opt"), more="batch_tokens: 40")
    plan = Plan(load_panel(file))
    serial, store = extract_panel(file, tmp_path / "serial"), tmp_path / "store"
    extract_panel(file, store)
    times = {p: p.stat().st_mtime_ns for p in store.glob("*.nc")}
    gone = sorted(times)[1::2]
    for path in gone:
        path.unlink()
    extract_on(cluster, plan, store)
    assert_same(serial, store)
    assert {p for p, t in times.items() if p.stat().st_mtime_ns != t} == set(gone)
    seen = []
    extract_on(cluster, plan, store, progress=lambda *a: seen.append(a))
    assert [s[2] for s in seen] == ["done"] and not asked


def test_an_error_in_an_item_is_that_error(write_panel, tmp_path, cluster, copy_model):
    """A model that is not whole fails on the worker as it fails here, and nothing is tried again."""
    from safetensors.torch import load_file, save_file

    folder = copy_model("llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    file = write_panel((f"  - {{id: bad, path: {folder}}}",))
    with pytest.raises(DynstatError) as here:
        extract_panel(file, tmp_path / "serial")
    with pytest.raises(DynstatError) as there:
        extract_on(cluster, Plan(load_panel(file)), tmp_path / "store")
    assert here.value.code == "X208" and str(there.value) == str(here.value)


@pytest.fixture
def opened(write_panel, tmp_path):
    """A plan, a store that is bound to it, and its job."""
    plan = Plan(load_panel(write_panel(("llama",))))
    open_store(plan, tmp_path / "store")
    return plan, tmp_path / "store", Job(plan.panel, plan.inputs, str(tmp_path / "store"))


def test_a_worker_that_sees_other_files_says_so(opened, tmp_path, monkeypatch):
    plan, store, job = opened
    item = plan.batches[0], plan.names[0]
    monkeypatch.setattr(remote, "_desk", remote._Desk())

    def found(job, batch, name):
        error = write_item(job, batch, name)
        assert isinstance(error, DynstatError) and error.code == "X223" and "docs/scaling.md" in error.mend
        return error.what

    assert "does not see the store" in found(replace(job, store=str(tmp_path / "elsewhere")), *item)
    (tmp_path / "empty").mkdir()
    assert "does not see the store" in found(replace(job, store=str(tmp_path / "empty")), *item)
    inputs = dict(job.inputs) | {"prompts": {"sha256": "0", "split": "pilot", "n": 5}}
    assert "sees another store" in found(replace(job, inputs=inputs), *item)
    assert "names its shard otherwise" in found(job, item[0], plan.names[1])
    models = [dict(m) | {"weights_sha256": "0"} for m in job.inputs["models"]]
    monkeypatch.setattr(remote, "panel_hash", lambda _: plan.hash)
    settings = dict(job.inputs["settings"]) | {"readouts": ["no_norm"]}
    assert "other settings" in found(replace(job, inputs=dict(job.inputs) | {"settings": settings}), *item)
    wrong = found(replace(job, inputs=dict(job.inputs) | {"models": models}), *item)
    assert "other files of model 'llama'" in wrong
    assert not list(store.glob("*.nc"))
    assert write_item(job, *item) == plan.batches[0].rows
    assert write_item(job, *item) == plan.batches[0].rows, "an item that is there is not written again"


def test_a_worker_that_reads_other_prompts_says_so(opened, monkeypatch):
    """The order of prompts in a shard comes from the file, which the item does not hold."""
    plan, store, job = opened
    monkeypatch.setattr(remote, "_desk", remote._Desk())
    file = plan.panel.prompt_file
    lines = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n", encoding="utf-8")
    error = write_item(job, plan.batches[0], plan.names[0])
    assert isinstance(error, DynstatError) and error.code == "X223" and "other prompts" in error.what


def test_a_worker_asks_no_hub_while_it_works(opened, monkeypatch):
    from huggingface_hub import constants

    plan, store, job = opened
    monkeypatch.setattr(remote, "_desk", remote._Desk())
    seen = []
    monkeypatch.setattr(remote.Worker, "write", lambda *_: seen.append(constants.HF_HUB_OFFLINE) or 1)
    before = constants.HF_HUB_OFFLINE
    write_item(replace(job, offline=True), plan.batches[0], plan.names[0])
    assert seen == [True] and constants.HF_HUB_OFFLINE == before


def test_shards_that_do_not_arrive_are_an_error(opened, cluster, monkeypatch):
    plan, store, _ = opened
    monkeypatch.setattr(scheduling, "PATIENCE", 0.1)
    monkeypatch.setattr(scheduling, "write_item", lambda job, batch, name: batch.rows)
    with pytest.raises(DynstatError, match="X223 .* shards that workers wrote are not in the store"):
        extract_on(cluster, plan, store)


# Stand-ins for `write_item`. A scheduler copies what is no part of a module.
AT: list[object] = []


def die(job, batch, name):
    raise distributed.KilledWorker("item", SimpleNamespace(address="tcp://dead"), 0)


def say_where(job, batch, name):
    AT.append(distributed.get_worker().name)
    return batch.rows


def say_which_store(job, batch, name):
    AT.append((job.store, name))
    time.sleep(0.5)
    return batch.rows


def test_two_stores_of_one_panel_do_not_take_each_others_items(opened, cluster, tmp_path, monkeypatch):
    plan, store, _ = opened
    AT.clear()
    monkeypatch.setattr(scheduling, "write_item", say_which_store)
    monkeypatch.setattr(scheduling, "_arrived", lambda *_: None)
    stores = [str(store), str(tmp_path / "second")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda place: extract_on(cluster, plan, place), stores))
    assert sorted(AT) == sorted((place, name) for place in stores for name in plan.names)


def test_an_item_that_kills_its_workers_is_given_up(opened, cluster, monkeypatch):
    plan, store, _ = opened
    monkeypatch.setattr(scheduling, "write_item", die)
    with pytest.raises(DynstatError, match="X223 an item killed its workers"):
        extract_on(cluster, plan, store)


def test_a_scheduler_that_is_lost_is_one_clear_error(opened, monkeypatch):
    plan, store, _ = opened
    cluster = distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None)
    monkeypatch.setattr(scheduling, "write_item", say_where)
    monkeypatch.setattr(scheduling, "TIMEOUT", "1s")
    with pytest.raises(DynstatError, match="X223 the connection to the Dask scheduler is lost"):
        extract_on(cluster.scheduler_address, plan, store, progress=lambda *_: cluster.close())


def test_ctrl_c_leaves_a_store_that_goes_on(write_panel, tmp_path, cluster):
    plan = Plan(load_panel(write_panel(("llama",), more="batch_tokens: 16", budget=24)))

    def progress(done, *_):
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_on(cluster, plan, tmp_path / "store", progress=progress)
    # Threads cannot be stopped; the item at hand is finished before this process writes files itself.
    with remote._one_at_a_time:
        missing = plan.missing(tmp_path / "store")
        assert 0 < len(missing) < len(plan.batches)
        extract_panel(plan.panel, tmp_path / "store", plan=plan)
    assert not plan.missing(tmp_path / "store")


def test_gpu_items_wait_for_gpu_workers(opened, monkeypatch):
    """Items of a panel for a GPU go to workers with the resource alone, and say what they wait for."""
    plan, store, _ = opened
    plan.panel = replace(plan.panel, device="cuda")
    seen = []
    AT.clear()
    monkeypatch.setattr(scheduling, "write_item", say_where)
    monkeypatch.setattr(scheduling, "open_store", lambda *_, **options: seen.append(options))
    monkeypatch.setattr(scheduling, "_arrived", lambda *_: None)
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as plain:

        def progress(done, total, what):
            if what.startswith("waiting") and "gpu" not in plain.workers:
                plain.sync(add)

        async def add():
            plain.workers["gpu"] = await distributed.Worker(
                plain.scheduler_address, name="gpu", resources={"GPU": 1}, nthreads=1
            )

        extract_on(plain.scheduler_address, plan, store, progress=progress)
    assert AT == ["gpu"] * len(plan.batches) and seen == [{"elsewhere": True}]


def test_addresses(opened, monkeypatch):
    plan, store, _ = opened
    panel = plan.panel
    assert local_size("tcp://10.0.0.1:8786", panel) == 0 and local_size("local:3", panel) == 3
    assert local_size("local", panel) == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert local_size("local", panel) == 6 and local_size("local", replace(panel, threads=8)) == 1
    for wrong in ("local:", "local:0", "local:two", "local:-1"):
        with pytest.raises(DynstatError, match="Y003"):
            local_size(wrong, panel)
    monkeypatch.setattr(scheduling, "TIMEOUT", "1s")
    for nobody in ("tcp://127.0.0.1:9", "no such thing"):
        with pytest.raises(DynstatError, match="X223 the Dask scheduler does not answer"):
            extract_on(nobody, plan, store)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DynstatError, match="X223 Dask is not installed") as e:
        extract_on("local:2", plan, store)
    assert "pip install 'dynstat[dask]'" in e.value.mend


def test_what_is_sent_needs_no_model_library():
    """The scheduler unpacks it, and may run where no model can."""
    code = (
        "import sys, dynstat.extraction.stores.job; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


OWN = """
from dynstat.registry import METRICS, Metric

METRICS.add(Metric(
    name="first_entry", version=1, path="first_entry", summary="First entry.", long_name="first entry",
    inputs=("states",), origin="user", reference="this test",
))


def first_entry(states):
    return states[..., 0]
"""


def test_a_new_process_has_all_from_what_is_sent(write_panel, tmp_path):
    """The user's metrics and another read-out, in a process that knows nothing but the job."""
    (tmp_path / "own.py").write_text(OWN)
    file = write_panel(
        ("llama",), more="register: own.py\nmetrics: [entropy, first_entry]\nreadouts: [logit_lens, no_norm]"
    )
    panel = load_panel(file)
    plan = Plan(panel)
    serial, store = extract_panel(panel, tmp_path / "serial", plan=plan), tmp_path / "store"
    open_store(plan, store)
    job = Job(panel, plan.inputs, str(store))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        for batch, name in zip(plan.batches, plan.names, strict=True):
            assert pool.submit(write_item, job, batch, name).result() == batch.rows
    assert_same(serial, store)
    assert "first_entry" in dynstat.open(store)
