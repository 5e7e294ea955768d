"""docs/schema.md says what the schema says, and its examples run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dynstat
from dynstat.dataset import schema

PAGE = (Path(__file__).parents[2] / "docs" / "schema.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
ROWS = {m[1]: m[0] for m in re.findall(r"^(\| `(\w+)`.*)$", PAGE, re.M)}


@pytest.mark.parametrize("v", [*schema.COORDINATES.values(), *schema.ALWAYS.values()], ids=lambda v: v.name)
def test_every_variable_is_documented(v):
    # `text` and `dtype` occur in one table each, so that the row found is theirs.
    row = ROWS[v.name]
    cells = [c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert cells[1] == ", ".join(v.dims)
    assert cells[2] == ("text" if v.dtype == "str" else v.dtype)
    assert cells[3] == ("" if v.dtype == "str" else v.units)
    assert cells[4].replace("\\|", "|").startswith(v.long_name)
    for i, flag in enumerate(v.flags):
        assert f"{i} {flag}" in cells[4]


@pytest.mark.parametrize(
    "table", ["VARIABLE_ATTRS", "OPTIONAL_ATTRS", "ROOT_ATTRS", "PANEL_ATTRS", "ORDER_ATTRS"]
)
def test_every_attribute_is_documented(table):
    for key, meaning in getattr(schema, table).items():
        assert f"| `{key}` | {meaning} |" in PAGE, key


def test_attributes_in_files_are_documented(panel):
    known = {**schema.VARIABLE_ATTRS, **schema.OPTIONAL_ATTRS}
    for name, v in panel.variables.items():
        assert set(v.attrs) <= set(known), name
    root = {**schema.ROOT_ATTRS, **schema.PANEL_ATTRS, **schema.ORDER_ATTRS}
    assert set(panel.attrs) <= set(root)


def test_examples_run(panel, tmp_path):
    dynstat.save(panel, tmp_path / "panel.nc")
    assert len(BLOCKS) == 3
    code = "\nprint('-----')\n".join(BLOCKS)
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    outputs = done.stdout.split("-----\n")
    assert outputs[0].strip() == dynstat.content_hash(panel)
    # What the plain reader computes is what the frame gives.
    df = dynstat.to_frame(panel)
    last = df[(df["layer"] == df["layers"] - 1) & (df["phase"] == "generated")]
    for model, mean in last.groupby("model", observed=True)["entropy"].mean().items():
        printed = float(re.search(rf"{model}\s+([\d.]+)", outputs[1])[1])
        assert printed == pytest.approx(mean, abs=1e-4)
    own = dynstat.open(tmp_path / "own.nc")
    np.testing.assert_allclose(own["accuracy"].values.squeeze(), [[0.9, 0.4], [0.8, 0.7]], rtol=1e-6)


def test_marks_of_undefined_are_documented():
    from dynstat.registry import METRICS

    marks = {m.partition(":")[0] for metric in METRICS for m in metric.undefined}
    for mark in marks:
        assert re.search(rf"^\| `{mark}(:K)?` \|", PAGE, re.M), mark
