"""The whole road on a small piece of the embedded panel: extract, combine, run, report, and again."""

import re
import shutil
from pathlib import Path

import pytest

import dynstat
from dynstat import data_path, study_path
from dynstat.cli import demo as demo_module
from dynstat.files import write_atomic

ROOT = Path(__file__).parents[1]
MODELS = ("gpt2", "opt", "neox", "llama", "qwen2")


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """Run the demo on five models and the pilot prompts: no lock fits, so it is exploratory."""
    folder = tmp_path_factory.mktemp("road")
    lines = [
        "dynstat: panel/1",
        "id: small",
        "title: A piece of the embedded panel",
        "license: CC0-1.0",
        "models:",
        *(f"  - {{id: {m}-curated-s0, path: 'data:models/{m}-curated-s0', family: {m}}}" for m in MODELS),
        "tokenizer: data:models/tokenizer",
        "prompts: {file: 'data:prompts/pilot.csv', split: pilot}",
        "samples: {seeds: [0, 1], temperatures: [1.0]}",
        "budget: 50",
        "start_token: <|endoftext|>",
    ]
    panel = write_atomic(folder / "small.yaml", "\n".join(lines) + "\n")
    # A copy, so that nothing of a test enters the study's own ledger.
    study = folder / "conditional_signatures"
    shutil.copytree(study_path("conditional_signatures"), study, ignore=shutil.ignore_patterns("__pycache__"))
    names = {"panels/demo.yaml": panel, "conditional_signatures/demo-2.lock.json": study}
    patch = pytest.MonkeyPatch()
    patch.setattr(dynstat, "data_path", lambda name="": names.get(name) or data_path(name))
    patch.setattr(dynstat, "study_path", lambda name="": names.get(name) or study_path(name))
    out = folder / "out"
    demo_module.demo(out)
    yield out
    patch.undo()


def everything(out: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*") if p.is_file()}


def test_the_folder_holds_what_the_house_says(road):
    for name in ("panel.nc", "store", "results.json", "report.qmd", "ledger.jsonl", "figures"):
        assert (road / name).exists(), name
    # Nothing was locked for this panel, so nothing may look as if it were.
    assert not (road / "plan.lock.json").exists()
    assert "exploratory" in (road / "report.qmd").read_text("utf-8")


def test_the_data_are_whole_and_the_report_agrees_with_its_results(road):
    from dynstat.reports import check

    ds = dynstat.open(road / "panel.nc")
    assert dynstat.verify(ds) == []
    assert dict(ds.sizes) == {"model": 5, "prompt": 36, "sample": 2, "token": 43 + 50, "layer": 9}
    assert len(check(road)) == 1  # one line that says all agree; anything else raises


def test_a_second_run_does_nothing_twice(road):
    before = everything(road)
    demo_module.demo(road)
    assert everything(road) == before


def test_the_readme_example_runs_on_it(road, tmp_path, monkeypatch):
    (tmp_path / "demo-out").symlink_to(road, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(names["runs"]) == 5 * 36 * 2
