"""`dynstat data`: what it prints, writes and returns."""

import json

import numpy as np
import pandas as pd
import pytest

import dynstat
from dynstat.cli import main, output


@pytest.fixture
def run(capsys, monkeypatch):
    def call(*args):
        output.json_mode(False)
        with pytest.raises(SystemExit) as e:
            main([*map(str, args)])
        output.json_mode(False)
        out = capsys.readouterr()
        return int(e.value.code or 0), out.out, out.err

    return call


@pytest.fixture
def path(panel, tmp_path):
    return dynstat.save(panel, tmp_path / "panel.nc")


def test_describe(run, path, panel):
    code, out, _ = run("data", "describe", path)
    assert code == 0 and "2 models × 3 prompts × 2 samples" in out and dynstat.content_hash(panel) in out
    code, out, _ = run("--json", "data", "describe", path)
    facts = json.loads(out)
    assert facts["sizes"] == {"model": 2, "prompt": 3, "sample": 2, "token": 7, "layer": 4}
    assert facts["models"][1]["id"] == "model-1" and facts["models"][1]["layers"] == 3
    entropy = next(v for v in facts["variables"] if v["name"] == "entropy")
    assert entropy["max"] == pytest.approx(float(np.nanmax(panel["entropy"])))
    assert sum(facts["quality"].values()) == panel["quality"].size


def test_verify(run, path, panel, tmp_path):
    assert run("data", "verify", path)[0] == 0
    panel["entropy"].values[0, 0, 0, 1, 1] = -1
    bad = dynstat.save(panel, tmp_path / "bad.nc")
    code, out, _ = run("data", "verify", bad)
    assert code == 1 and "range: entropy at model model-0" in out
    code, out, _ = run("data", "verify", bad, "--json")
    assert code == 1 and json.loads(out)["problems"][0]["code"] == "range"


def test_combine(run, make, tmp_path):
    for m in (0, 1):
        dynstat.save(make(models=(m,)), tmp_path / f"{m}.nc")
    code, out, err = run(
        "data", "combine", tmp_path / "1.nc", tmp_path / "0.nc", "-o", tmp_path / "whole.nc", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["content_hash"] == dynstat.content_hash(make())
    assert dynstat.open(tmp_path / "whole.nc").sizes["model"] == 2
    other = make(models=(0,))
    other["entropy"].values[0, 0, 0, 1, 1] = 9
    dynstat.save(other, tmp_path / "2.nc")
    code, _, err = run("data", "combine", tmp_path / "2.nc", tmp_path / "0.nc", "-o", tmp_path / "x.nc")
    assert code == 1 and "D105" in err and not (tmp_path / "x.nc").exists()


@pytest.mark.parametrize("level", ["run", "token", "layer"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export(run, path, panel, tmp_path, level, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"table.{suffix}"
    code, said, err = run("data", "export", path, "--level", level, "-o", out)
    assert code == 0, err
    df = dynstat.to_frame(panel, level=level)
    assert f"{len(df)} rows" in said
    got = (
        pd.read_csv(out, keep_default_na=False, na_values=["NA"]) if suffix == "csv" else pd.read_parquet(out)
    )
    assert list(got.columns) == list(df.columns) and len(got) == len(df)
    for name in df.columns:
        if df[name].dtype.kind == "f":
            np.testing.assert_array_equal(got[name].astype(df[name].dtype), df[name], err_msg=name)
        else:
            # read_csv takes the words true and false for booleans.
            assert got[name].astype(str).str.lower().tolist() == df[name].astype(str).str.lower().tolist(), (
                name
            )
    if suffix == "csv":
        raw = out.read_bytes()
        assert b"\r" not in raw
        if level == "token":
            assert b",NA" in raw  # R's word for the first token's log-probability


def test_errors(run, path, tmp_path):
    code, _, err = run("data", "export", path, "--level", "run", "-o", tmp_path / "a.xlsx")
    assert code == 2 and "S404" in err
    assert run("data", "export", path, "--level", "word", "-o", tmp_path / "a.csv")[0] == 2
    assert run("data", "describe", tmp_path / "none.nc")[0] == 5
    blocked = tmp_path / "file"
    blocked.write_text("x")
    code, _, err = run("data", "export", path, "--level", "run", "-o", blocked / "a.csv")
    assert code == 5 and "F002" in err and blocked.read_text() == "x"
