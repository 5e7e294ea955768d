"""docs/scaling.md: recipes that parse, options that exist, arithmetic that is the estimate's own."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.main
import yaml

pytest.importorskip("torch")

from dynstat.cli import app
from dynstat.extraction.panels.panel import Sample
from dynstat.extraction.stores.batches import Batch
from dynstat.extraction.stores.costs import Size, flops, point_bytes, tokens_read

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize(("language", "code"), BLOCKS, ids=lambda b: b.split("\n")[0][:30])
def test_every_recipe_parses(language, code):
    if language == "bash":
        found = subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True)
        assert found.returncode == 0 and not found.stderr
    elif language == "yaml":
        assert {"apiVersion", "kind", "metadata", "spec"} == set(yaml.safe_load(code))
    else:
        assert language == "python"
        compile(code, "docs/scaling.md", "exec")


def test_every_option_exists():
    command = typer.main.get_command(app).commands["extract"]
    known = {option for parameter in command.params for option in parameter.opts}
    used = set()
    for line in PAGE.replace("[dynstat, extract,", "dynstat extract").splitlines():
        if "dynstat extract" in line:
            used |= set(re.findall(r"(?<=[ `])--?[a-z][a-z-]*", line.split("dynstat extract")[1]))
    assert {"--rank", "--world", "--scheduler", "--offline", "--dry-run", "-o"} <= used <= known


def test_names_in_the_python_recipe_exist():
    from dynstat.extraction.panels.panel import load_panel
    from dynstat.extraction.stores.plan import Plan
    from dynstat.extraction.stores.scheduler import extract_on

    code = next(code for language, code in BLOCKS if language == "python")
    for name in (load_panel, Plan, extract_on):
        assert f"from {name.__module__} import {name.__name__}" in code


def test_the_arithmetic_is_that_of_the_estimate():
    """The row of one prompt, recomputed by the functions that the estimate uses; the rest by counting."""
    size = Size(134_515_008, 106_204_608, 31, 576, 49_152, 384)
    panel = SimpleNamespace(readouts=("logit_lens",), metrics=range(10), dtype="float32")
    sample = Sample("greedy", -1, 0.0, 64, "generated")
    batch = Batch(0, ({"id": "p"},), (tuple(range(64)),), (sample,), 64, 0)
    model, lens = flops(batch, size, panel)
    total, points = model + lens, tokens_read(batch) * size.layers
    rows = {
        "tokens read": (128, 12.8e6, 1.28e9),
        "points": (points, points * 1e5, points * 1e7),
        "FLOP of the model": (model, model * 1e5, model * 1e7),
        "FLOP of the lens": (lens, lens * 1e5, lens * 1e7),
        "items of 64 prompts": (None, 1e5 / 64, 1e7 / 64),
    }
    scale = {"": 1, "M": 1e6, "G": 1e9}
    for name, expected in rows.items():
        cells = re.search(rf"^\| {name} \|(.*)\|$", PAGE, re.M)[1].split("|")
        for cell, value in zip(cells, expected, strict=True):
            if value is not None:
                number, unit = re.fullmatch(r"\D*?([\d.,e]+) ?([MG]?)", cell.strip()).groups()
                assert float(number.replace(",", "")) * scale[unit] == pytest.approx(value, rel=0.03), name
    assert tokens_read(batch) == 128 and point_bytes(panel) == 45
    rate = 5e10
    assert total / rate == pytest.approx(5.7, abs=0.05)
    assert total * 1e5 / rate / 86400 == pytest.approx(6.5, abs=0.05)
    assert total * 1e5 / rate / 256 / 60 == pytest.approx(37, abs=0.5)
    assert total * 1e7 / rate / 86400 / 365.25 == pytest.approx(1.8, abs=0.05)
    assert total * 1e7 / rate / 256 / 86400 == pytest.approx(2.6, abs=0.05)
    assert 64 * total / rate / 60 == pytest.approx(6, abs=0.1) and total * 1e7 == pytest.approx(
        2.8e18, rel=0.02
    )
    shard = 64 * points * 28 + 0.2e6 + 10 * 1e5
    assert shard / 64 == pytest.approx(0.13e6, rel=0.01) and shard * 1600 == pytest.approx(13e9, rel=0.03)
