"""The wheel holds code and data, and works with no checkout in reach."""

import configparser
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

PROBE = """
import json, sys
from pathlib import Path
import dynstat, dynstat.extraction, dynstat.analyses, dynstat.reports
from dynstat.dataset.prompts import read_prompts
from dynstat.prereg.plan import load_plan
from safetensors import safe_open
prompts = read_prompts(dynstat.data_path("prompts/panel.csv"))
plan = load_plan(dynstat.study_path("conditional_signatures"))
with safe_open(str(dynstat.data_path("models/llama-curated-s0/model.safetensors")), "np") as f:
    tensors = len(f.keys())
print(json.dumps({"home": str(Path(dynstat.__file__).parent), "data": str(dynstat.data_path()),
                  "extraction": dynstat.extraction.__file__, "prompts": len(prompts), "plan": plan.id,
                  "tensors": tensors}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    clone = out / "source"
    # A clean copy of what git tracks: build leftovers of the checkout cannot hide a missing file.
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out), str(clone)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_everything_under_data_analyses_and_reports_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    files = subprocess.run(
        ["git", "ls-files", "-z", "data", "analyses", "reports", "extraction", "dynstat"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, files.stdout.split("\0")):
        assert (name if name.startswith("dynstat/") else f"dynstat/{name}") in inside, name
    top = {n.split("/")[0] for n in inside}
    assert top == {"dynstat", next(t for t in top if t.endswith(".dist-info"))}


def test_the_installed_wheel_opens_a_prompt_a_plan_and_a_model(wheel, tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin"},
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    for key in ("home", "data", "extraction"):
        assert Path(found[key]).is_relative_to(target)
    assert found["prompts"] == 72 and found["plan"] == "conditional_signatures" and found["tensors"] > 50


def test_the_constraints_pin_every_requirement_without_local_tags():
    from packaging.requirements import Requirement

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert all("==" in line and "+" not in line for line in lines)
    assert pins["torch"] == "2.13.0"
    for text in "\n".join(wanted).splitlines():
        if text and not text.startswith("#"):
            requirement = Requirement(text)
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text
