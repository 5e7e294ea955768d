"""Workers: results of several processes, and of Dask, are those of one process, bit for bit."""

from __future__ import annotations

import inspect
import json
import os

import numpy as np
import pandas as pd
import pytest

from dynstat.errors import DynstatError
from dynstat.files import sha256_bytes
from dynstat.mixed import lmer
from dynstat.mixed.parametric_bootstrap import bootstrap
from dynstat.mixed.resampling import delete_group_jackknife, unit_bootstrap
from dynstat.parallel import each, workers
from dynstat.prereg.ledger import read_ledger
from dynstat.prereg.lock import lock_study
from dynstat.prereg.runner import run_study

from .conftest import _mean
from .test_results_page import ROBUSTNESS

PLAN_EXTRA = """\
  S2:
    method: variance.shares@1
    outcome: {metric: run_mean@1, of: entropy, layer: 0, phase: generated}
    options: {population_replicates: 50}
    seed: 11
"""
# Methods in a module beside analysis.py, as real studies have them: other processes must find them too.
REGISTER = """
METHODS.add(Method(
    name="NAME.draw", version=1, path=f"{__package__}.draw:draw", summary="x", origin="published",
    reference="none", quantities=("draw",),
))
"""
DRAW = '''\
"""Methods of the toy study, and one that draws a number and says what its process looks like."""

import warnings

import numpy as np
from threadpoolctl import threadpool_info

from dynstat.errors import DynstatError, DynstatWarning
from dynstat.inference.estimate import Estimate, TPivot


def draw(ds, *, outcome, seed):
    warnings.warn(f"seed {seed}", DynstatWarning, stacklevel=1)
    threads = max((p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"), default=1)
    value = float(np.random.default_rng(seed).normal() + np.linalg.norm(ds["entropy"].values))
    return {"draw": Estimate.from_pivot(
        "draw", value, TPivot(value, 1.0, 9), method="NAME.draw@1", interval="t", unit="prompt",
        n={"prompts": 6}, seed=seed, diagnostics={"threads": threads})}


'''


@pytest.fixture
def wide(study, tmp_path):
    """A study of five analyses, whose own methods lie in a module beside its analysis.py."""
    name = f"beside{sha256_bytes(str(tmp_path).encode())[:12]}"  # the registry is one a process
    text = (study / "plan.yaml").read_text().replace("drift_test", name)
    text = text.replace("hypotheses:\n  H1", PLAN_EXTRA + "hypotheses:\n  H1", 1)
    text += "".join(f"  X{i}: {{method: {name}.draw@1, seed: {i}}}\n" for i in (2, 3))
    (study / "plan.yaml").write_text(text + ROBUSTNESS)
    code = (study / "analysis.py").read_text() + REGISTER.replace("NAME", name)
    code = code.replace('"drift_test_methods:mean"', 'f"{__package__}.draw:_mean"').replace(
        "drift_test", name
    )
    (study / "analysis.py").write_text(code)
    toy = inspect.getsource(_mean).replace("drift_test", name)
    (study / "draw.py").write_text(DRAW.replace("NAME", name) + toy)
    return study


def rows(out):
    found = json.loads((out / "results.json").read_text())
    return [r for r in found if not r["key"].startswith(("timeline", "study.date"))]


def test_two_processes_give_the_results_of_one(wide, inputs, saved, tmp_path):
    lock_study(wide, "demo", inputs)
    data = saved(2.0)
    run_study(wide, data, tmp_path / "one")
    result = run_study(wide, data, tmp_path / "two", jobs=2)
    assert not result.kept and rows(tmp_path / "one") == rows(tmp_path / "two")
    v = {r["key"]: r["raw"] for r in rows(tmp_path / "two")}
    assert v["multiverse.H1.run"] == 2 and v["multiverse.H1.agree"] == 1
    assert v["estimate.X2.draw.diagnostics.threads"] == 1
    assert [v[f"warning.{i}"] for i in range(1, 20) if "X" in v.get(f"warning.{i}", "")] == [
        "X2: seed 2",
        "X3: seed 3",
    ]
    # The number of processes is no part of what a result depends on.
    assert run_study(wide, data, tmp_path / "one", jobs=2).kept


def test_an_interrupt_ends_a_run_on_several_processes(wide, inputs, saved, tmp_path):
    lock_study(wide, "demo", inputs)

    def stop(done, *_):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(wide, saved(2.0), tmp_path / "out", stop, jobs=2)
    assert read_ledger(tmp_path / "out" / "ledger.jsonl")[-1]["what"] == "interrupted"
    assert not (tmp_path / "out" / "results.json").exists()
    assert run_study(wide, saved(2.0), tmp_path / "out", jobs=2).outcomes["H1"][0] == "supported"


def test_dask_gives_the_results_of_one_process(wide, inputs, saved, tmp_path):
    distributed = pytest.importorskip("distributed")
    lock_study(wide, "demo", inputs)
    data = saved(2.0)
    run_study(wide, data, tmp_path / "one")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        result = run_study(wide, data, tmp_path / "dask", scheduler=cluster.scheduler_address)
    assert not result.kept and rows(tmp_path / "one") == rows(tmp_path / "dask")


def test_a_scheduler_that_is_not_there_is_one_clear_error(study, inputs, saved, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    from dynstat import parallel

    monkeypatch.setattr(parallel, "TIMEOUT", "1s")
    with pytest.raises(DynstatError, match="F003"), workers(scheduler="tcp://127.0.0.1:9"):
        pass


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(8), 6)
    frame = pd.DataFrame({"g": g.astype(str), "x": rng.normal(size=48)})
    frame["y"] = frame["x"] + rng.normal(size=8)[g] + rng.normal(size=48)
    return lmer("y ~ x + (1 | g)", frame)


def sigma(m):
    return {"sigma": m.sigma, "x": m.fixef["x"]}


@pytest.mark.parametrize(
    "resample",
    [
        lambda m: unit_bootstrap(m, sigma, unit="g", nsim=12, rng=3).draws,
        lambda m: bootstrap(m, sigma, nsim=12, rng=3).draws,
        lambda m: delete_group_jackknife(m, sigma, unit="g").left_out,
    ],
    ids=["bootstrap of units", "parametric bootstrap", "jackknife"],
)
def test_resamples_do_not_depend_on_the_workers(fit, resample):
    with workers(1):
        serial = resample(fit)
    with workers(2):
        parallel = resample(fit)
    pd.testing.assert_frame_equal(serial, parallel, check_exact=True)


def refuse(x):
    raise DynstatError("S404", "too small", where=str(x))


def test_order_and_errors_are_those_of_a_loop():
    def reciprocal(x):
        return 1 / x

    with workers(2):
        assert list(each(reciprocal, [4, 2, 1])) == [0.25, 0.5, 1.0]
        with pytest.raises(ZeroDivisionError):
            list(each(reciprocal, [4, 0, 1]))
        with pytest.raises(DynstatError, match="S404 too small"):
            list(each(refuse, [1, 2]))
        assert list(each(os.getpid, [])) == []
    assert list(each(reciprocal, iter([4, 2]))) == [0.25, 0.5]
    with pytest.raises(DynstatError, match="S404"), workers(0):
        pass
