"""The house rules that a machine can check: arrows, packages, light start, no foreign names."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("dynstat", "extraction", "analyses", "reports")
HEAVY = {"numpy", "scipy", "pandas", "xarray", "torch", "statsmodels", "matplotlib"}
SOURCES = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")]


def imports(path):
    """Yield (line, dotted name) of every absolute import in a file, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_arrows_run_one_way():
    wrong = []
    for path in SOURCES:
        home = path.relative_to(ROOT).parts[0]
        for line, name in imports(path):
            parts = name.split(".")
            to = parts[1] if parts[0] == "dynstat" and len(parts) > 1 and parts[1] in FOLDERS else parts[0]
            allowed = {home, "dynstat"} | (set(FOLDERS) if "cli" in path.parts else set())
            if to in FOLDERS and to not in allowed or parts[0] in FOLDERS[1:]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} {name}")
            if home == "dynstat" and parts[0] in {"torch", "transformers"}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} {name}")
    assert not wrong


def test_setup_cfg_names_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = set(config["options"]["packages"].split())
    found = {"dynstat.data"}
    for path in SOURCES:
        if path.name == "__init__.py":
            parts = path.relative_to(ROOT).parent.parts
            found.add(".".join(parts if parts[0] == "dynstat" else ("dynstat", *parts)))
    assert named == found


@pytest.mark.parametrize(
    "arguments", [["--help"], ["prereg", "--help"], ["data", "--help"], ["explain", "D102"]]
)
def test_the_command_line_starts_without_numpy(arguments):
    code = (
        "import sys; from dynstat.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_unsafe_loader_is_used():
    for path in SOURCES:
        text = path.read_text()
        assert "trust_remote_code=True" not in text, path
        for _, name in imports(path):
            if name in {"joblib.Parallel", "joblib.delayed"}:  # processes of our own; files are read by none
                continue
            assert name.split(".")[0] not in {"pickle", "dill", "joblib", "shelve", "marshal"}, path
        for call in ("torch.load(", "yaml.load(", "yaml.safe_load(", "eval(", "allow_pickle=True"):
            assert call not in text.replace("model.eval(", "").replace(".eval()", ""), f"{path}: {call}"


def test_no_file_grows_beyond_reading():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 450}
    assert not long
