"""A small study of its own: prompts, plan, methods, data; nothing of the real panel."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from dynstat.dataset import build as build_module
from dynstat.errors import DynstatError
from dynstat.files import canonical_json, sha256_bytes
from dynstat.inference.estimate import Estimate, TPivot

PLAN = """\
dynstat: "prereg/1"
id: drift
title: Mean entropy of a toy panel
authors: [{name: A. Person}]
registration:
  purpose: confirmatory
  access: {level: metadata, note: "prompts are known"}
  prior_knowledge: none
data:
  schema: dynstat-data-1
  prompts: {file: prompts.csv, split: panel}
  pilot: {file: prompts.csv, split: pilot}
  units: {inference: prompt, resampling: prompt}
  exclusions:
    E1: {where: "n_generated < 2", reason: "too short"}
families:
  main: {alpha: 0.05}
gates:
  G1: {check: min_units, unit: prompt, n: 4}
  G2: {check: min_samples, n: 2, hypotheses: [H3], fails: not_testable}
analyses:
  S1:
    method: drift_test.mean@1
    outcome: {metric: entropy@1}
    options: {shift: 0.0}
    seed: 7
hypotheses:
  H1:
    claim: Mean entropy exceeds one nat.
    role: primary
    family: main
    estimand: {analysis: S1, quantity: mean}
    rule: threshold
    direction: greater
    threshold: 1.0
    sesoi: {scale: nat, reason: "one nat is the least that matters here"}
    if_supported: Entropy is above one nat.
    if_rejected: Entropy is below one nat.
    does_not_show: ["why", "other models"]
  H2:
    claim: Mean entropy is near one half or beyond its null.
    role: secondary
    family: main
    any:
      - estimand: {analysis: S1, quantity: mean}
        rule: in_range
        range: [0.4, 0.6]
        sesoi: {scale: nat, reason: "a band around one half"}
      - estimand: {analysis: S1, quantity: nulled}
        rule: minimum_effect
        direction: greater
        sesoi: {value: 1e-1, scale: nat, reason: "a tenth"}
        beyond_null: shuffled
    if_supported: One of both.
    if_rejected: Neither.
    does_not_show: ["which of both"]
  H3:
    claim: Entropy is positive.
    role: secondary
    family: main
    estimand: {analysis: S1, quantity: mean}
    rule: directional
    direction: greater
    by_construction: entropy is never negative
    sesoi: {value: 0.1, scale: nat, reason: "a tenth"}
    if_supported: Positive.
    if_rejected: Not positive.
    does_not_show: ["anything, since it is true by construction"]
exploratory:
  X1:
    method: drift_test.mean@1
    outcome: {metric: entropy@1}
    options: {shift: 1.0}
    seed: 7
    note: the same, shifted
"""

ANALYSIS = '''\
"""Methods of the toy study."""

from dynstat.registry import METHODS, Method, Option

METHODS.add(Method(
    name="drift_test.mean", version=1, path="drift_test_methods:mean", summary="Mean over prompts.",
    origin="published", reference="elementary", quantities=("mean", "nulled"), metrics=("entropy",),
    options={"shift": Option(0.0), "break_it": Option(False), "kind": Option("plain", ("plain", "trimmed"))},
))
'''

PROMPTS = "id,text,category,split\n" + "".join(
    [f"p{i},panel prompt {i},c{i % 2},panel\n" for i in range(6)]
    + [f"q{i},pilot prompt {i},c{i % 2},pilot\n" for i in range(2)]
)


def _mean(ds, *, outcome, seed, shift, break_it, kind):
    if break_it:
        raise DynstatError("S402", "model cannot be fitted")
    x = ds[outcome["metric"].partition("@")[0]].mean(("model", "sample", "token", "layer")).values + shift
    se = float(x.std(ddof=1) / np.sqrt(x.size))
    common = {
        "method": "drift_test.mean@1",
        "interval": "t",
        "unit": "prompt",
        "n": {"prompts": x.size},
        "seed": seed,
    }
    pivot = TPivot(float(x.mean()), se, x.size - 1)
    null = {"name": "shuffled", "p": 0.5, "replicates": 9}
    return {
        "mean": Estimate.from_pivot(
            "mean", x.mean(), pivot, diagnostics={"spread": np.float64(x.std())}, **common
        ),
        "nulled": Estimate.from_pivot("nulled", x.mean(), pivot, null=null, **common),
    }


@pytest.fixture(autouse=True)
def methods():
    module = types.ModuleType("drift_test_methods")
    module.mean = _mean
    sys.modules["drift_test_methods"] = module


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "drift"
    folder.mkdir()
    (folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    (folder / "analysis.py").write_text(ANALYSIS, encoding="utf-8")
    (folder / "prompts.csv").write_text(PROMPTS, encoding="utf-8")
    return folder


def make_inputs(split: str = "panel", salt: str = "a") -> dict:
    models = [
        {
            "id": m,
            "revision": "local",
            "weights_sha256": salt * 64,
            "tokenizer_sha256": "b" * 64,
            "dtype": "float32",
        }
        for m in ("one", "two")
    ]
    return {
        "prompts": {"sha256": sha256_bytes(PROMPTS.encode()), "split": split, "n": 6},
        "models": models,
        "settings": {"budget": 2, "mode": "generated"},
    }


@pytest.fixture
def inputs() -> dict:
    return make_inputs()


def make_data(inputs: dict, level: float = 2.0, samples: int = 2, seed: int = 0, **change):
    """Build a dataset whose entropies lie around `level`."""
    shape = (2, 6, samples, 3, 2)
    rng = np.random.default_rng(seed)
    run, token = shape[:3], shape[:4]
    values = {
        "quality": np.zeros(shape, np.int8),
        "token_id": np.ones(token, np.int32),
        "top1_id": np.ones(shape, np.int32),
        "phase": np.broadcast_to(np.array([0, 1, 1], np.int8), token).copy(),
        "is_special": np.zeros(token, np.int8),
        "is_first": np.broadcast_to(np.array([1, 0, 0], np.int8), token).copy(),
        "log_probability": np.broadcast_to(np.array([np.nan, -1, -1], np.float32), token).copy(),
        "text": np.full(run, "x", dtype=object),
        "n_prompt": np.ones(run, np.int32),
        "n_generated": np.full(run, 2, np.int32),
        "stop_reason": np.full(run, "budget", dtype=object),
        "first_end_of_text": np.full(run, -1, np.int32),
        "entropy": rng.normal(level, 0.05, shape).astype(np.float32).clip(0),
    } | change
    models = [
        {
            **{k: m[k] for k in ("id", "revision", "weights_sha256", "tokenizer_sha256", "dtype")},
            "family": "toy",
            "architecture": "toy",
            "parameters": 12_345,
            "vocabulary": 16,
            "n_layers": 2,
            "attn_implementation": "eager",
            "source": "here",
            "factors": {"norm": "layernorm"},
        }
        for m in inputs["models"]
    ]
    split = inputs["prompts"]["split"]
    prompts = [
        {
            "id": f"p{i}",
            "text": f"panel prompt {i}",
            "category": f"c{i % 2}",
            "template": f"t{i}",
            "split": split,
            "answers": [],
            "distractors": [],
        }
        for i in range(6)
    ]
    drawn = [
        {"id": f"s{i}", "seed": i, "temperature": 1.0, "budget": 2, "mode": "generated"}
        for i in range(samples)
    ]
    return build_module.build(
        models=models,
        prompts=prompts,
        samples=drawn,
        n_tokens=3,
        n_layers=2,
        values=values,
        attrs={
            "inputs": canonical_json(inputs).decode(),
            "provenance": json.dumps([{"torch": "2.0", "seconds": 3}, {"torch": "2.0"}]),
        },
    )


@pytest.fixture
def saved(tmp_path, inputs):
    """Save a dataset around `level` and return its path."""
    from dynstat.dataset.io import save

    def make(level: float = 2.0, name: str = "panel.nc", of: dict | None = None, **change) -> Path:
        return save(make_data(of or inputs, level, **change), tmp_path / name)

    return make
