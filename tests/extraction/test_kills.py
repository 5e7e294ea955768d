"""Kills at random moments: nothing acknowledged is lost, no file is half, the end is the undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from dynstat import data_path

from .conftest import write_prompts

PANEL = """\
dynstat: panel/1
id: kills
models:
{models}
tokenizer: data:models/tokenizer
prompts: {{file: prompts.csv, split: pilot}}
samples: {{seeds: [0, 1], temperatures: [1.0]}}
budget: 16
mode: generated
start_token: <|endoftext|>
batch_tokens: 60
"""
TEXTS = [
    "The king said",
    "A ship came home",
    "Once there was a little girl",
    "She read",
    "In the beginning was a",
]


def killed(tmp_path: Path, models: tuple[str, ...], kills: int, seed: int) -> dict[str, int]:
    write_prompts(tmp_path / "prompts.csv", TEXTS)
    lines = "\n".join(f"  - {{id: {m}, path: {data_path('models') / m}-curated-s0}}" for m in models)
    (tmp_path / "panel.yaml").write_text(PANEL.format(models=lines), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killing.py"), tmp_path / "panel.yaml", tmp_path / "work",
         str(kills), str(seed)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    count = json.loads(done.stdout.splitlines()[-1])
    print(count)
    assert count["kills"] == kills and count["in_runs"] + count["in_combine"] == kills
    return count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_few_kills(tmp_path):
    count = killed(tmp_path, ("llama",), 5, seed=6)
    assert count["acknowledged"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_hundred_kills(tmp_path):
    """Two models, ten shards, again and again; at most six kills a store find only the combine left to do."""
    count = killed(tmp_path, ("llama", "gpt2"), 100, seed=20261120)
    assert count["in_combine"] >= 15 and count["in_runs"] >= 30 and count["stores"] >= 3
    assert count["half_shards"] > 0 and count["acknowledged"] >= 10
