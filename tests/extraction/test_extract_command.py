"""`dynstat extract` on several processes: options, estimate, what it says and what it leaves."""

import json
import os
import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from dynstat.cli import main  # noqa: E402
from dynstat.extraction.panels.panel import load_panel  # noqa: E402
from dynstat.extraction.stores.plan import Plan  # noqa: E402
from dynstat.extraction.stores.run import extract_panel  # noqa: E402

from .stores import assert_same  # noqa: E402

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID")


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command; returns exit code, what it printed as JSON, and its messages."""
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        with pytest.raises(SystemExit) as e:
            main(["extract", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        return int(e.value.code or 0), json.loads(captured.out), captured.err

    return call


def test_ranks_by_option_and_by_launcher(run, write_panel, tmp_path, monkeypatch):
    file, store = write_panel(("llama",)), tmp_path / "store"
    shards = len(Plan(load_panel(file)).batches)
    code, out, err = run(file, "-o", store, "--rank", 0, "--world", 2)
    assert code == 0 and out["shards"] == shards and 0 < out["written"] < shards
    assert out["missing"] == shards - out["written"] and (out["rank"], out["world"]) == (0, 2)
    assert "rank 0 of 2 (by --rank, --world)" in err and "FLOP" in err.splitlines()[0]
    assert out["estimate"]["flops"] == pytest.approx(sum(Plan(load_panel(file)).costs()))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, dry, err = run(file, "-o", store, "--dry-run")
    assert dry["written"] == 0 and dry["missing"] == out["missing"] and "(by RANK, WORLD_SIZE)" in err
    code, out, _ = run(file, "-o", store)
    assert code == 0 and out["missing"] == 0
    assert_same(extract_panel(file, tmp_path / "serial"), store)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--rank", "1"), "Y003", "--world"),
        (("--rank", "2", "--world", "2"), "Y003", "rank 2 of 2"),
        (("--scheduler", "local", "--rank", "0", "--world", "2"), "Y003", "exclude"),
        (("--scheduler", "local:none"), "Y003", "local:N"),
        (("--device", "tpu"), "Y003", "no such device"),
        (("--device", "cpu:1"), "Y003", "no such device"),
        (("--device", "cuda:999"), "X215", "number 999"),
    ],
)
def test_bad_options(run, write_panel, tmp_path, arguments, code, words):
    exit_code, out, _ = run(write_panel(("llama",)), "-o", tmp_path / "store", *arguments)
    assert exit_code != 0 and out["error"]["code"] == code
    assert words in " ".join(str(v) for v in out["error"].values())
    assert not (tmp_path / "store").exists()


def test_another_device_is_another_panel_and_is_said(run, write_panel, tmp_path):
    file = write_panel(("llama",))
    _, cpu, quiet = run(file, "-o", tmp_path / "store", "--dry-run", "--device", "cpu")
    _, cuda, err = run(file, "-o", tmp_path / "store", "--dry-run", "--device", "cuda")
    assert cpu["inputs_sha256"] == Plan(load_panel(file)).hash != cuda["inputs_sha256"]
    assert "another panel" in err and "another panel" not in quiet


def test_offline_asks_no_hub_and_leaves_nothing_behind(run, tmp_path, write_panel, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    asked = []
    whole = huggingface_hub.snapshot_download

    def ask(*a, **options):
        asked.append(options.get("local_files_only", False))
        return whole(*a, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", ask)
    file = write_panel((f"  - {{id: far, repo: nobody/nothing, revision: {'a' * 40}}}",))
    code, out, _ = run(file, "-o", tmp_path / "store", "--offline")
    assert code == 5 and out["error"]["code"] == "X219" and set(asked) == {True}
    assert not constants.HF_HUB_OFFLINE and "HF_HUB_OFFLINE" not in os.environ


def test_scheduler_writes_the_shards_of_a_serial_run(run, write_panel, tmp_path):
    distributed = pytest.importorskip("distributed")
    file, store = write_panel(("llama",)), tmp_path / "store"
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        code, out, _ = run(file, "-o", store, "--scheduler", cluster.scheduler_address)
    assert code == 0 and out["missing"] == 0 and out["written"] == out["shards"]
    assert_same(extract_panel(file, tmp_path / "serial"), store)


def test_ctrl_c_says_how_to_go_on(write_panel, tmp_path):
    file, store = write_panel(("llama",), more="batch_tokens: 16", budget=48), tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-m", "dynstat", "extract", file, "-o", store],
        stderr=subprocess.PIPE, text=True,
        # A shell that started the tests in the background has told them to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("extract:"):
            break
    process.send_signal(signal.SIGINT)
    left = process.stderr.read()
    plan = Plan(load_panel(file))
    assert process.wait() == 130 and "run the same command to go on" in left and "Traceback" not in left
    assert plan.missing(store)
    extract_panel(file, store)
    assert not plan.missing(store)
