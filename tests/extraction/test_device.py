"""Devices: what a panel may ask for, full float32 whatever the session says, and nothing left on the CPU."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.fx.experimental import _config as shapes  # noqa: E402

import dynstat  # noqa: E402
from dynstat import DynstatError, data_path, study_path  # noqa: E402
from dynstat.extraction.lens import measuring as lens  # noqa: E402
from dynstat.extraction.lens.variants import Variant  # noqa: E402
from dynstat.extraction.models import device  # noqa: E402
from dynstat.extraction.panels.panel import Sample, load_panel, panel_hash  # noqa: E402
from dynstat.extraction.runs import generate  # noqa: E402
from dynstat.extraction.runs.reading import read_runs  # noqa: E402
from dynstat.extraction.stores import run  # noqa: E402
from dynstat.extraction.stores.plan import Plan  # noqa: E402
from dynstat.extraction.training.architectures import ARCHITECTURES  # noqa: E402


def test_the_device_is_identity_and_the_cpu_goes_without_saying(write_panel):
    plain = Plan(load_panel(write_panel()))
    said = Plan(load_panel(write_panel(more="device: cpu")))
    cuda = Plan(load_panel(write_panel(more="device: cuda")))
    assert said.hash == plain.hash and said.names == plain.names and "device" not in plain.inputs["settings"]
    assert cuda.hash != plain.hash and not set(cuda.names) & set(plain.names)
    with pytest.raises(DynstatError, match="Y003"):
        load_panel(write_panel(more="device: tpu"))


def test_the_registered_panel_is_still_the_registered_one():
    lock = json.loads(study_path("conditional_signatures/demo.lock.json").read_text("utf-8"))
    assert panel_hash(load_panel(data_path("panels/demo.yaml")).inputs()) in json.dumps(lock)


def test_a_device_that_is_not_there(write_panel, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DynstatError) as e:
        run.extract_panel(write_panel(more="device: cuda"), tmp_path / "store")
    assert e.value.code == "X215" and e.value.mend and not (tmp_path / "store").exists()


def test_a_gpu_by_number(write_panel, monkeypatch):
    panel = replace(load_panel(write_panel()), device="cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device.check_device(panel)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    device.check_device(replace(panel, device="cuda"))
    with pytest.raises(DynstatError) as e:
        device.check_device(panel)
    assert e.value.code == "X215" and "sees 1" in e.value.what


def test_memory_that_runs_out(write_panel, tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.\nMore words")

    monkeypatch.setattr("dynstat.extraction.stores.shard.measure", full)
    with pytest.raises(DynstatError) as e:
        run.extract_panel(write_panel(), tmp_path / "store")
    assert e.value.code == "X216" and "batch_tokens" in e.value.mend and "More" not in e.value.found
    assert {f.name for f in (tmp_path / "store").iterdir()} == {"panel.json"}


@pytest.mark.parametrize("setting", ["medium", "highest"])
def test_a_session_of_low_precision_changes_nothing(write_panel, tmp_path, setting):
    """Where the machine has such kernels, "medium" multiplies float32 in bfloat16, on a CPU too."""
    file = write_panel(("llama",), more="readouts: [logit_lens, no_norm]")
    calm = dynstat.content_hash(dynstat.open(run.extract_panel(file, tmp_path / "calm")))
    threads = torch.get_num_threads()
    torch.set_float32_matmul_precision(setting)
    try:
        left = [b.fp32_precision for b in device._backends()]
        with device.arithmetic(load_panel(write_panel(more="threads: 2", folder=tmp_path / "two"))):
            assert {b.fp32_precision for b in device._backends()} == {"ieee"}
            assert torch.get_num_threads() == 2
        found = dynstat.content_hash(dynstat.open(run.extract_panel(file, tmp_path / "store")))
        assert [b.fp32_precision for b in device._backends()] == left
        assert torch.get_float32_matmul_precision() == setting and torch.get_num_threads() == threads
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found == calm


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_everything_is_on_the_device_of_the_model(architecture, load_tiny, monkeypatch):
    """On the device of tensors without values, which, like a GPU, refuse to meet what was left on the CPU."""
    model = load_tiny(architecture)
    model.lm.to("meta")
    fetched = []

    def to_numpy(tensor):
        fetched.append(tensor.device.type)
        return np.ones(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    class Points(lens.Points):
        """Which points there are depends on lengths, which are values."""

        def __init__(self, runs):
            lengths = torch.full((len(runs.ids),), runs.ids.shape[1])
            super().__init__(
                replace(runs, ids=torch.zeros(runs.ids.shape, dtype=torch.int64), lengths=lengths)
            )
            self._runs, self._row, self._token = runs, self._row.to("meta"), self._token.to("meta")

    # What the code would ask of the values: all are finite, and some tokens are drawn.
    monkeypatch.setattr(lens, "Points", Points)
    monkeypatch.setattr(lens, "to_numpy", to_numpy)
    monkeypatch.setattr("dynstat.extraction.lens.definitions.to_numpy", to_numpy)
    monkeypatch.setattr(torch, "isfinite", lambda x: torch.ones(1, dtype=torch.bool))
    monkeypatch.setattr("dynstat.extraction.runs.cache.relative_difference", lambda *_, **__: 0.0)
    monkeypatch.setattr(generate, "bool", lambda x: False, raising=False)
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda *_: None)
    ids = torch.zeros((2, 5), dtype=torch.int64, device=model.device)
    samples = [Sample("greedy", -1, 0.0, 3, "generated"), Sample("s", 0, 1.0, 3, "generated")]
    out = generate.generate(model, ["a", "b"], ids, samples, 3, suppress_end=True).reshape(4, 8)
    runs = read_runs(model, out, 2)
    metrics = load_panel(data_path("panels/pilot.yaml")).metrics
    with shapes.patch(meta_nonzero_assume_all_nonzero=True):
        lens.measure(model, runs, metrics, (Variant(), Variant("no_norm", skip_norm=True)))
    assert out.device.type == runs.own.device.type == "meta" and set(fetched) == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_gpu_gives_the_values_of_the_cpu(architecture, write_panel, tmp_path):
    samples = "samples: {seeds: [0], temperatures: [0.8], greedy: true}"
    stores = [
        run.extract_panel(write_panel((architecture,), samples=samples, more=f"device: {d}"), tmp_path / d)
        for d in ("cpu", "cuda")
    ]
    cpu, gpu = (dynstat.open(s) for s in stores)
    same = cpu.token_id.values == gpu.token_id.values
    assert same.mean() > 0.9
    whole = same.all(-1)
    for name in ("state_norm", "step_length", "entropy", "top1_probability", "synchronisation"):
        np.testing.assert_allclose(
            gpu[name].values[whole], cpu[name].values[whole], rtol=1e-3, atol=1e-4, err_msg=name
        )
    assert json.loads(dynstat.open(next(stores[1].glob("*.nc"))).attrs["provenance"])["device"].startswith(
        "cuda ("
    )
